r"""What a covariate does here and elsewhere: impacts by draw, never at posterior means.

With response y, lag L of the rows (:class:`~spatialclusters.lags.RowLag`), coefficient
:math:`\beta` of x and :math:`\theta` of ``lag(x)``, a change of x changes y by

.. math:: P = (I - \rho L)^{-1} (\beta I + \theta L) = \beta I + (\rho\beta + \theta)\,
    L (I - \rho L)^{-1}

Direct is the mean of P's diagonal, total that of its row sums, indirect the difference
(LeSage and Pace 2009). Everything else follows from sums over :math:`W (I - \rho W)^{-1}`,
W over cells: in rows because :math:`L (I - \rho L)^{-1} = S W (I - \rho W)^{-1} M`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import splu

from spatialclusters.errors import FitError, listing
from spatialclusters.estimates import estimates_frame
from spatialclusters.logdet import Spectrum, spectrum, total, trace_lag
from spatialclusters.result import Fit
from spatialclusters.summaries import Moments, at_level, summarize_draws, unit_per_term

__all__ = ["ORDERS", "impact_terms", "impacts", "regional_impacts", "term_impacts"]

ORDERS: Final = 5
"""Highest order of neighbors that :func:`impacts` reports."""

_REGIONAL_DRAWS: Final = 200


@dataclass(frozen=True, eq=False)
class _Shares:
    """Sums over W (I - rho W)^-1 by which impacts of one set of rows come from coefficients.

    ``count`` are rows (or cells) in the set; ``here`` and ``everywhere`` are the mean diagonal
    and mean row sum of L (I - rho L)^-1, by draw.
    """

    here: np.ndarray
    everywhere: np.ndarray

    def direct(self, beta: np.ndarray, passed: np.ndarray) -> np.ndarray:
        return np.asarray(beta + passed * self.here)

    def total(self, beta: np.ndarray, passed: np.ndarray) -> np.ndarray:
        return np.asarray(beta + passed * self.everywhere)


class _Space:
    """The lag of a fit's rows and its draws of rho."""

    def __init__(self, fit: Fit) -> None:
        assert fit.design.lag is not None  # terms and processes with lags need weights
        self.lag = fit.design.lag
        shape = fit.draws(str(next(iter(fit.posterior.data_vars)))).shape[:2]
        self.rho = fit.draws("rho") if "rho" in fit.posterior else np.zeros(shape)

    @cached_property
    def rows(self) -> _Shares:
        """Of a change in a single row, averaged over rows."""
        return _shares(self.lag.spectrum, self.rho, self.lag.counts.astype(float))

    @cached_property
    def cells(self) -> _Shares:
        """Of a change in all rows of a cell, averaged over cells."""
        return _shares(self.lag.spectrum, self.rho, np.ones(len(self.lag.counts)))

    def of(self, rows: np.ndarray) -> _Shares:
        """Of a change in a single row, averaged over some rows that are whole components."""
        inside = np.unique(self.lag.cell[rows])
        part = self.lag.weights[inside][:, inside]
        if not part.nnz:
            return _Shares(np.zeros_like(self.rho), np.zeros_like(self.rho))
        return _shares(spectrum(part), self.rho, self.lag.counts[inside].astype(float))


def _shares(known: Spectrum, rho: np.ndarray, counts: np.ndarray) -> _Shares:
    n = counts.sum()
    reach = known.matrix @ np.ones(known.n)
    # the diagonal of S W (I - rho W)^-1 M, over rows, is that of W (I - rho W)^-1, over cells
    return _Shares(trace_lag(known, rho) / n, total(known, rho, counts, reach) / n)


def impact_terms(fit: Fit) -> list[str]:
    """Return the covariates that have impacts of their own.

    ``lag(x)`` counts as part of x where x is a covariate; group means and zero dummies do not
    change by themselves.
    """
    terms = fit.design.terms
    lags = {f"lag({term})" for term in terms}
    return [t for t in terms if t not in lags and not t.startswith(("mean(", "zero("))]


def impacts(fit: Fit, by: str = "overall") -> pd.DataFrame:
    r"""Return direct, indirect and total impacts of every covariate.

    Parameters
    ----------
    fit
        A fit with weights: with ``lag()`` terms, or an outcome process that lags the response.
    by
        ``"overall"``; ``"order"`` for the total by order of neighbor, :math:`\beta` for order 0
        and :math:`\rho^{k-1}(\rho\beta + \theta)\, 1'L^k1/N` for order k, which sum to the
        total.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates. ``group`` states the level: ``row``, a change in one row; with several
        industries in a region-cluster also ``cell``, a change in all its rows. By order it is
        the order.

    Raises
    ------
    FitError
        The model has neither ``lag()`` terms nor a lag of the response, so that coefficients
        are the impacts; or ``by`` is neither of the two.

    References
    ----------
    LeSage and Pace (2009), doi:10.1201/9781420064254, section 2.7.
    """
    if by not in ("overall", "order"):
        msg = f"impacts: got by = {by!r}; expected 'overall' or 'order'."
        raise FitError(msg)
    _require_lags(fit)
    space = _Space(fit)
    rows = _by_order(fit, space) if by == "order" else _overall(fit, space)
    return estimates_frame(rows)


def term_impacts(fit: Fit, term: str) -> Iterator[tuple[str, np.ndarray, Moments]]:
    """Yield the slope of the response in a term: its draws, and moments where they are known.

    Groups are ``overall`` and, where the slope varies by group, its levels. Where the model has
    lags these are direct impacts, and ``common`` is the total: what happens if the term changes
    everywhere.
    """
    position = fit.design.terms.index(term)
    beta = fit.draws("coefficient")[..., position]
    spatial = has_lags(fit)
    space = _Space(fit) if spatial else None
    passed = _passed(fit, term) if spatial else None
    if space is None or passed is None:
        yield "overall", beta, at_level(fit.moments("coefficient"), position)
    else:
        yield "overall", space.rows.direct(beta, passed[0] * beta + passed[1]), None
        yield "common", space.rows.total(beta, passed[0] * beta + passed[1]), None
    for group in fit.design.groups:
        if term not in group.labels:
            continue
        column = group.labels.index(term)
        effect = fit.draws(f"effect({group.name})")[..., column]
        moments = at_level(fit.moments(f"total({group.name})"), column)
        for i, (level, drawn) in enumerate(
            zip(group.levels, np.moveaxis(effect, 2, 0), strict=True)
        ):
            slope = beta + drawn
            if space is None or passed is None:
                yield str(level), slope, at_level(moments, i)
            elif group.name == "cluster":
                shares = space.of(np.flatnonzero(group.codes == i))
                yield str(level), shares.direct(slope, passed[0] * slope + passed[1]), None


def regional_impacts(fit: Fit, term: str, *, draws: int = _REGIONAL_DRAWS) -> pd.DataFrame:
    r"""Return what reaches every region from elsewhere, and what it gives to others.

    The effect in row i of a change in row j is :math:`P_{ij}`. Spill-in of a region is the mean
    over its rows of :math:`\sum_{j \ne i} P_{ij}`, spill-out that of :math:`\sum_{j \ne i} P_{ji}`.

    Parameters
    ----------
    term
        A covariate of :func:`impact_terms`.
    draws
        Evenly spaced posterior draws to compute them from.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates with effects ``spill_in`` and ``spill_out``, one group a region.

    Raises
    ------
    FitError
        The model has no lags, or no such covariate.
    """
    _require_lags(fit)
    if term not in impact_terms(fit):
        msg = f"impacts: got the term {term!r}; expected one of {listing(impact_terms(fit), 20)}."
        raise FitError(msg)
    space = _Space(fit)
    beta = fit.draws("coefficient")[..., fit.design.terms.index(term)]
    factor, added = _passed(fit, term)
    passed = factor * beta + added
    chains, length = beta.shape
    kept = np.unique(np.linspace(0, length - 1, max(1, draws // chains)).astype(int))
    region = fit.design.data["row_region"].values
    names, codes = np.unique(region.astype(str), return_inverse=True)
    found = np.empty((2, chains, len(kept), len(names)))
    for c in range(chains):
        for d, draw in enumerate(kept):
            incoming, outgoing = _row_sums(space, space.rho[c, draw])
            for side, sums in enumerate((incoming, outgoing)):
                mean = np.bincount(codes, sums) / np.bincount(codes)
                found[side, c, d] = passed[c, draw] * mean
    return estimates_frame(
        _base(fit, term)
        | {"effect": effect, "group": str(name)}
        | summarize_draws(found[side, :, :, i], family=True)
        for side, effect in enumerate(("spill_in", "spill_out"))
        for i, name in enumerate(names)
    )


def _row_sums(space: _Space, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column sums of L (I - rho L)^-1 without its diagonal, each (N,)."""
    W, counts = space.lag.weights, space.lag.counts
    system = sparse.csc_array(sparse.eye_array(len(counts)) - rho * W)
    factors = splu(system)
    incoming = W @ factors.solve(np.ones(len(counts)))
    outgoing = factors.solve(W.T @ counts.astype(float), trans="T") / counts
    own = _diagonal(space, rho) / counts
    return (incoming - own)[space.lag.cell], (outgoing - own)[space.lag.cell]


def _diagonal(space: _Space, rho: float) -> np.ndarray:
    """Return the diagonal of W (I - rho W)^-1, component by component."""
    W = space.lag.weights
    label = sparse.csgraph.connected_components(W, connection="weak")[1]
    out = np.zeros(W.shape[0])
    for k in range(int(label.max()) + 1):
        inside = np.flatnonzero(label == k)
        if len(inside) > 1:
            block = W[inside][:, inside].toarray()
            out[inside] = np.diag(np.linalg.solve(np.eye(len(inside)) - rho * block, block))
    return out


def has_lags(fit: Fit) -> bool:
    """Tell whether a covariate here changes the response elsewhere."""
    lagged = any(term.startswith("lag(") for term in fit.design.terms)
    return "rho" in fit.posterior or lagged


def _require_lags(fit: Fit) -> None:
    if not has_lags(fit):
        msg = (
            "impacts: got a model without lag() terms and without a lag of the response; "
            "coefficients are its impacts. Use summary, or effects."
        )
        raise FitError(msg)


def _passed(fit: Fit, term: str) -> tuple[Any, Any]:
    r"""Return a and b of :math:`a \beta + b`, what is passed on: rho and theta."""
    rho = fit.draws("rho") if "rho" in fit.posterior else 0.0
    lagged, design = f"lag({term})", fit.design
    theta = (
        fit.draws("coefficient")[..., design.terms.index(lagged)] if lagged in design.terms else 0.0
    )
    return rho, theta


def _base(fit: Fit, term: str) -> dict[str, Any]:
    return {
        "model": fit.spec.name,
        "estimator": "posterior",
        "term": term,
        "unit": unit_per_term(fit),
    }


def _overall(fit: Fit, space: _Space) -> Iterator[dict[str, Any]]:
    levels = {"row": space.rows}
    if (space.lag.counts > 1).any():
        levels["cell"] = space.cells
    for term in impact_terms(fit):
        beta = fit.draws("coefficient")[..., fit.design.terms.index(term)]
        factor, added = _passed(fit, term)
        passed = factor * beta + added
        for level, shares in levels.items():
            direct, everywhere = shares.direct(beta, passed), shares.total(beta, passed)
            for effect, draws in (
                ("direct", direct),
                ("indirect", everywhere - direct),
                ("total", everywhere),
            ):
                yield _base(fit, term) | {"effect": effect, "group": level} | summarize_draws(draws)


def _by_order(fit: Fit, space: _Space) -> Iterator[dict[str, Any]]:
    reach, walks = space.lag.counts / space.lag.n_rows, []
    vector = np.ones(len(space.lag.counts))
    for _ in range(ORDERS):
        vector = space.lag.weights @ vector
        walks.append(float(reach @ vector))
    for term in impact_terms(fit):
        beta = fit.draws("coefficient")[..., fit.design.terms.index(term)]
        factor, added = _passed(fit, term)
        for order in range(ORDERS + 1):
            draws = beta
            if order:
                power = np.asarray(space.rho) ** (order - 1)
                draws = power * (factor * beta + added) * walks[order - 1]
            row = _base(fit, term) | {"effect": "order_k", "group": str(order)}
            yield row | summarize_draws(np.asarray(draws))
