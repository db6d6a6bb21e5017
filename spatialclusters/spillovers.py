r"""What a covariate does here and elsewhere: impacts by draw, never at posterior means.

With response y, lag L of the rows (:class:`~spatialclusters.lags.RowLag`), coefficient
:math:`\beta` of x and :math:`\theta` of ``lag(x)``, a change of x changes y by

.. math:: P = (I - \rho L)^{-1} (\beta I + \theta L) = \beta I + (\rho\beta + \theta) B,
    \quad B = L (I - \rho L)^{-1}

Direct is the mean of P's diagonal, total that of its row sums, indirect the difference
(LeSage and Pace 2009). With the weights W over cells, :math:`B = S W (I - \rho W)^{-1} M`.
Products of covariates, and logs of lags, count as covariates of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import xarray as xr
from numpy.polynomial.chebyshev import chebinterpolate, chebval
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from spatialclusters.errors import FitError, listing, suggestion
from spatialclusters.estimates import estimates_frame
from spatialclusters.lags import RowLag
from spatialclusters.logdet import spectrum, total, trace_lag
from spatialclusters.result import Fit
from spatialclusters.summaries import Moments, at_level, summarize_draws, unit_per_term

__all__ = [
    "ORDERS",
    "approximation",
    "has_lags",
    "impact_terms",
    "impacts",
    "impacts_by_order",
    "regional_impacts",
    "term_impacts",
]

ORDERS: Final = 5
"""Highest order of neighbors that :func:`impacts` reports."""

_DEGREES: Final = (16, 32, 64, 128)
_FEW_CELLS: Final = 100  # up to so many cells impacts of an estimated W are taken at all draws,
_FEW_DRAWS: Final = 1200  # with more at evenly spaced ones, about so many
_AGREEMENT: Final = 1e-11  # relative: what the last coefficients of an interpolation may be


class _Sums(NamedTuple):
    """Mean diagonal and mean row sum of B over some rows, by draw."""

    here: Any
    everywhere: Any


class _Space:
    """The lag of a fit's rows, and sums over B at its draws of rho."""

    def __init__(self, fit: Fit) -> None:
        assert fit.design.lag is not None  # terms and processes with lags need weights
        self.lag: RowLag = fit.design.lag
        self.blend, self.c = fit.design.blended_lag, np.empty(0)
        if (psi := fit.design.psi) is not None:
            self.c = psi.coefficients(fit.draws(psi.parameter))
            self.psi = fit.draws(psi.parameter)
        self.rho = fit.draws("rho") if "rho" in fit.posterior else None

    @cached_property
    def rows(self) -> _Sums:
        """Of a change in a single row, averaged over rows."""
        return self._sums(self.lag.counts.astype(float))

    @cached_property
    def cells(self) -> _Sums:
        """Of a change in all rows of a cell, averaged over cells."""
        return self._sums(np.ones(len(self.lag.counts)))

    def _sums(self, counts: np.ndarray) -> _Sums:
        # the diagonal of S W (I - rho W)^-1 M, over rows, is that of W (I - rho W)^-1, over cells
        n = counts.sum()
        if self.blend is not None:

            def sums(lag: RowLag, rho: float) -> np.ndarray:
                spread = _filter(lag.weights, rho).solve(lag.weights @ np.ones(len(counts)))
                return np.array([_diagonal(lag.weights, rho).sum() / n, counts @ spread / n])

            both = self.along(sums)
            return _Sums(both(0), both(1))
        reach = self.lag.weights @ np.ones(len(counts))
        if self.rho is None:
            return _Sums(0.0, counts @ reach / n)
        return _Sums(self._trace / n, total(self.lag.spectrum, self.rho, counts, reach) / n)

    @cached_property
    def _trace(self) -> np.ndarray:
        return np.asarray(trace_lag(self.lag.spectrum, self.rho))

    def within(self, codes: np.ndarray) -> Callable[[int], Any]:
        """Return, by level, B's mean diagonal over its rows; levels are whole components of L."""
        known, sizes = [], np.bincount(codes)
        cells = [np.unique(self.lag.cell[codes == level]) for level in range(len(sizes))]
        if self.blend is not None:

            def diagonals(lag: RowLag, rho: float) -> np.ndarray:
                own = _diagonal(lag.weights, rho)
                return np.array([own[inside].sum() for inside in cells]) / sizes

            return self.along(diagonals)
        for inside in cells:
            part = self.lag.weights[inside][:, inside]
            circular = connected_components(part, connection="strong")[0] < len(inside)
            known.append(spectrum(part) if circular else None)  # else nothing comes back

        def traces(_: RowLag, rho: float) -> np.ndarray:
            found = [0.0 if part is None else trace_lag(part, rho) for part in known]
            return np.array(found) / sizes

        return self.along(traces)

    def along(self, function: Callable[[RowLag, float], np.ndarray]) -> Callable[[int], Any]:
        r"""Return element i of a function of L and rho at all draws.

        With an estimated W it is computed draw by draw, or from the matrices where rho is zero:
        the function is linear in L then. Otherwise it is interpolated by Chebyshev polynomials: in
        :math:`t = \tanh^{-1}(\rho r)`, with r the spectral radius, what
        :math:`1 - \rho^2 r^2` leaves of sums over B is smooth up to the ends of the support.
        """
        if self.blend is not None:
            if self.rho is None:
                parts = np.stack([function(part, 0.0) for part in self.blend.parts])
                return lambda i: np.asarray(self.c @ parts[:, i])
            by_draw = [
                function(self.blend.at(self.psi[at]), float(self.rho[at]))
                for at in np.ndindex(self.rho.shape)
            ]
            table = np.stack(by_draw).reshape(*self.rho.shape, -1)
            return lambda i: table[..., i]
        if self.rho is None:
            return function(self.lag, 0.0).__getitem__
        radius = self.lag.spectrum.radius
        t = np.arctanh(self.rho * radius)
        middle, half = (t.min() + t.max()) / 2, max(np.ptp(t) / 2, 1e-3)

        def damped(nodes: Any) -> Any:
            rhos = np.tanh(middle + half * nodes) / radius
            return np.stack([function(self.lag, rho) * (1.0 - (rho * radius) ** 2) for rho in rhos])

        for degree in _DEGREES:
            found = chebinterpolate(damped, degree)
            if np.abs(found[-2:]).max() <= _AGREEMENT * np.abs(found).max():
                break
        return lambda i: chebval((t - middle) / half, found[:, i]) * np.cosh(t) ** 2

    def passed_on(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        return theta if self.rho is None else self.rho * beta + theta

    def impact(self, beta: np.ndarray, theta: np.ndarray, share: Any) -> np.ndarray:
        """Return the mean of P's diagonal or row sums from that of B's."""
        return np.asarray(beta + self.passed_on(beta, theta) * share)


_KNOWN: WeakKeyDictionary[Fit, tuple[Fit | None, _Space]] = WeakKeyDictionary()


def _space(fit: Fit) -> tuple[Fit, _Space]:
    """Return the lag of a fit, and the fit at the draws it is known at: fewer if each is dear.

    That is where the response is lagged by an estimated W, which takes a dense solve a draw.
    """
    if fit.design.blended_lag is None:
        return fit, _Space(fit)
    if fit not in _KNOWN:
        thinner, draws = None, fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
        cells = len(fit.design.blended_lag.parts[0].counts)
        if "rho" in fit.posterior and cells > _FEW_CELLS and draws > _FEW_DRAWS:
            kept = fit.posterior.isel(draw=slice(None, None, -(-draws // _FEW_DRAWS)))
            names = ("constant_data", "weights")
            nodes = {name: fit.tree[name].to_dataset() for name in names}
            root = xr.Dataset(attrs=fit.tree.attrs)
            thinner = Fit(xr.DataTree.from_dict({"/": root, "posterior": kept, **nodes}))
        _KNOWN[fit] = thinner, _Space(thinner or fit)
    known, space = _KNOWN[fit]
    return known or fit, space


def has_lags(fit: Fit) -> bool:
    """Tell whether a covariate here changes the response elsewhere."""
    return "rho" in fit.posterior or any(_unlagged(term) != term for term in fit.design.terms)


def approximation(fit: Fit) -> str | None:
    """Say how far impacts may be off where traces are interpolated, or nothing if exact."""
    lag = fit.design.lag
    if "rho" not in fit.posterior or lag is None or not lag.spectrum.error:
        return None
    return (
        f"With {lag.spectrum.n:,} regions log|I - rho W| is interpolated: it is off by at most "
        f"{lag.spectrum.error:.0e}, and direct impacts of a unit coefficient by at most "
        f"{lag.spectrum.trace_error:.0e}."
    )


def impact_terms(fit: Fit) -> list[str]:
    """Return the covariates: ``lag(x)`` is part of x, also where x itself is not in the model.

    Group means and zero dummies do not change by themselves.
    """
    terms = [t for t in fit.design.terms if not t.startswith(("mean(", "zero("))]
    return list(dict.fromkeys(map(_unlagged, terms)))


def impacts(fit: Fit, by: str = "overall", *, term: str | None = None) -> pd.DataFrame:
    r"""Return direct, indirect and total impacts of every covariate.

    Where slopes vary by group these are impacts of the common slope. With a response lagged by an
    estimated W over more than 100 cells they rest on some 1,200 evenly spaced draws.

    Parameters
    ----------
    fit
        A fit with weights: with ``lag()`` terms, or an outcome process that lags the response.
    by
        ``"overall"``; ``"order"`` for the total by order of neighbors, see
        :func:`impacts_by_order`.
    term
        One covariate; all of them by default.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates. Overall, ``group`` states the level: ``row``, a change in one row; with
        several industries in a region-cluster also ``cell``, a change in all its rows. By order,
        effect ``order_k`` of a change in one row, and ``group`` is k.

    Raises
    ------
    FitError
        The model has neither ``lag()`` terms nor a lag of the response, so that coefficients
        are the impacts; or no such covariate; or ``lag(lag(x))``; or ``by`` is neither of the two.

    References
    ----------
    LeSage and Pace (2009), doi:10.1201/9781420064254, section 2.7.

    Examples
    --------
    >>> import xarray as xr
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.result import assemble
    >>> from spatialclusters.spec import parse_spec
    >>> from spatialclusters.weights import read_weights
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2, 2.5, 4], "x": [0.0, 1, 2, 3]})
    >>> pairs = pd.DataFrame({"region_i": list("abcd"), "region_j": list("badc")})
    >>> spec = parse_spec('formula = "y ~ x"\nspatial.outcome = "sar"')
    >>> design = build_design(spec, read_panel(table), read_weights(pairs))
    >>> draws = {"coefficient": np.full((2, 50, 1), 0.9), "rho": np.full((2, 50), 0.5)}
    >>> fit = assemble(spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance={})
    >>> impacts(fit)[["effect", "group", "estimate"]].round(6).values.tolist()
    [['direct', 'row', 1.2], ['indirect', 'row', 0.6], ['total', 'row', 1.8]]
    """
    if by not in ("overall", "order"):
        msg = f"impacts: got by = {by!r}; expected 'overall' or 'order'."
        raise FitError(msg)
    terms = _wanted(fit, term)
    return estimates_frame((_order_rows if by == "order" else _overall_rows)(fit, terms))


def impacts_by_order(fit: Fit, term: str) -> tuple[np.ndarray, np.ndarray]:
    r"""Return draws of the total impact of a covariate by order of neighbors, and of all orders.

    .. math:: \beta \text{ for } k = 0, \quad
        \rho^{k-1} (\rho\beta + \theta)\, 1'L^k1/N \text{ for } k \ge 1

    Without a lag of the response order 1 is the last, otherwise :data:`ORDERS` is shown last.
    From order 2 on some of it comes back to where the change was.

    Returns
    -------
    tuple
        Shapes (order, chain, draw) and (chain, draw).

    Raises
    ------
    FitError
        The model has no lags, or no such covariate.
    """
    _wanted(fit, term)
    fit, space = _space(fit)
    beta, theta = _slopes(fit, term)
    passed, reach = space.passed_on(beta, theta), space.lag.counts / space.lag.n_rows
    orders, last = [beta], ORDERS if space.rho is not None else 1

    def walks(lag: RowLag, rho: float) -> np.ndarray:  # noqa: ARG001
        here, found = np.ones(len(reach)), []
        for _ in range(last):
            here = lag.weights @ here
            found.append(reach @ here)
        return np.array(found)

    fixed = walks(space.lag, 0.0).__getitem__ if space.blend is None else space.along(walks)
    for k in range(last):
        decay = 1.0 if space.rho is None else space.rho**k
        orders.append(decay * passed * fixed(k))
    return np.stack(orders), space.impact(beta, theta, space.rows.everywhere)


def term_impacts(fit: Fit, term: str) -> Iterator[tuple[str, np.ndarray, Moments]]:
    """Yield the slope of the response in a column: its draws, and moments where they are known.

    Groups are ``overall`` and, where the slope varies by group, its levels. Where the model has
    lags these are direct impacts, and ``common`` is the total: what happens if the column changes
    everywhere. With a lag of the response levels are those of clusters only, between which
    nothing passes; an impact within another level depends on the slopes of all.

    Raises
    ------
    FitError
        The model has ``lag(lag(x))`` for this x.
    """
    position = fit.design.terms.index(term)
    beta, theta = _slopes(fit, term)
    space = None
    if has_lags(fit):
        fit, space = _space(fit)
    back = space is not None and space.rho is not None
    moments = None if back else at_level(fit.moments("coefficient"), position)
    yield "overall", beta if space is None else space.impact(beta, theta, space.rows.here), moments
    if space is not None:
        yield "common", space.impact(beta, theta, space.rows.everywhere), None
    for group in fit.design.groups:
        if term not in group.labels or (back and group.name != "cluster"):
            continue
        effects, lagged = (_effects(fit, group, label) for label in (term, f"lag({term})"))
        here = space.within(group.codes) if space is not None and back else None
        column = group.labels.index(term)
        moments = None if back else at_level(fit.moments(f"total({group.name})"), column)
        for i, level in enumerate(group.levels):
            slope = beta + effects[..., i]
            if space is not None and here is not None:
                slope = space.impact(slope, theta + lagged[..., i], here(i))
            yield str(level), slope, at_level(moments, i)


def regional_impacts(fit: Fit, term: str | None = None) -> pd.DataFrame:
    r"""Return what every region gets from other rows, and what it gives to them.

    The effect in row i of a change in row j is :math:`P_{ij}`. Spill-in of a region is the mean
    over its rows i of :math:`\sum_{j \ne i} P_{ij}`, spill-out that of
    :math:`\sum_{j \ne i} P_{ji}`: their means over rows are the indirect impact. Where slopes
    vary by group these are spills of the common slope.

    Parameters
    ----------
    fit
        As for :func:`impacts`.
    term
        One covariate; all of them by default.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates with effects ``spill_in`` and ``spill_out``, one group a region.

    Raises
    ------
    FitError
        The model has no lags, or no such covariate.
    """
    terms = _wanted(fit, term)
    fit, space = _space(fit)
    names, codes = np.unique(fit.design.data["row_region"].values.astype(str), return_inverse=True)

    def means(lag: RowLag, rho: float) -> np.ndarray:
        sums = (np.bincount(codes, each) for each in _row_sums(lag, rho))
        return np.concatenate(list(sums)) / np.tile(np.bincount(codes), 2)

    shares = space.along(means)
    return estimates_frame(
        _base(fit, each)
        | {"effect": effect, "group": str(name)}
        | summarize_draws(passed * shares(side * len(names) + i), family=True)
        for each, passed in ((t, space.passed_on(*_slopes(fit, t))) for t in terms)
        for side, effect in enumerate(("spill_in", "spill_out"))
        for i, name in enumerate(names)
    )


def _row_sums(lag: RowLag, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column sums of B without its diagonal, each (N,)."""
    W, counts = lag.weights, lag.counts
    factors = _filter(W, rho)
    incoming = W @ factors.solve(np.ones(len(counts)))
    outgoing = factors.solve(W.T @ counts.astype(float), trans="T") / counts
    own = _diagonal(W, rho) / counts
    return (incoming - own)[lag.cell], (outgoing - own)[lag.cell]


def _filter(W: sparse.csr_array, rho: float) -> Any:
    """Factor I - rho W."""
    return splu(sparse.csc_array(sparse.eye_array(W.shape[0]) - rho * W))


def _diagonal(W: sparse.csr_array, rho: float) -> np.ndarray:
    """Return the diagonal of W (I - rho W)^-1, component by component."""
    label, out = connected_components(W, connection="weak")[1], np.zeros(W.shape[0])
    for k in range(int(label.max()) + 1 if rho else 0):  # W's own diagonal is zero
        inside = np.flatnonzero(label == k)
        block = W[inside][:, inside].toarray()
        out[inside] = np.diag(np.linalg.solve(np.eye(len(inside)) - rho * block, block))
    return out


def _wanted(fit: Fit, term: str | None) -> list[str]:
    """Return the covariates whose impacts are asked for, or say why there are none."""
    known = impact_terms(fit)
    if not has_lags(fit):
        msg = (
            "impacts: got a model without lag() terms and without a lag of the response; "
            "coefficients are its impacts. Use summary, or effects."
        )
        raise FitError(msg)
    if not known:
        raise FitError("impacts: got a model without covariates; expected some. Add terms.")
    if term is not None and term not in known:
        msg = f"impacts: got the term {term!r}; expected one of {listing(known, 20)}."
        raise FitError(msg + suggestion(term, known))
    return known if term is None else [term]


def _unlagged(term: str) -> str:
    """Return x for ``lag(x)`` and every other column as it is; products hold a colon."""
    while term.startswith("lag(") and ":" not in term:
        term = term[4:-1]
    return term


def _slopes(fit: Fit, term: str) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of beta of a column and theta of its lag, zero where there is none."""
    if (twice := f"lag(lag({term}))") in fit.design.terms:
        msg = f"impacts: got {twice}; expected no lag of a lag, whose impacts are not known here."
        raise FitError(f"{msg} Remove the term.")
    drawn, terms = fit.draws("coefficient"), fit.design.terms
    beta, theta = (
        drawn[..., terms.index(label)] if label in terms else np.zeros(drawn.shape[:2])
        for label in (term, f"lag({term})")
    )
    return beta, theta


def _effects(fit: Fit, group: Any, label: str) -> np.ndarray:
    """Return the deviations of a slope by level, (chain, draw, level), zero if it has none."""
    drawn = fit.draws(f"effect({group.name})")
    if label not in group.labels:
        return np.zeros(drawn.shape[:3])
    return np.asarray(drawn[..., group.labels.index(label)])


def _base(fit: Fit, term: str) -> dict[str, Any]:
    return {
        "model": fit.spec.name,
        "estimator": "posterior",
        "term": term,
        "unit": unit_per_term(fit),
    }


def _overall_rows(fit: Fit, terms: list[str]) -> Iterator[dict[str, Any]]:
    fit, space = _space(fit)
    levels = {"row": space.rows}
    if (space.lag.counts > 1).any():
        levels["cell"] = space.cells
    for term in terms:
        beta, theta = _slopes(fit, term)
        for level, sums in levels.items():
            direct, everywhere = (space.impact(beta, theta, share) for share in sums)
            for effect, draws in (
                ("direct", direct),
                ("indirect", everywhere - direct),
                ("total", everywhere),
            ):
                yield _base(fit, term) | {"effect": effect, "group": level} | summarize_draws(draws)


def _order_rows(fit: Fit, terms: list[str]) -> Iterator[dict[str, Any]]:
    for term in terms:
        for order, draws in enumerate(impacts_by_order(fit, term)[0]):
            row = _base(fit, term) | {"effect": "order_k", "group": str(order)}
            yield row | summarize_draws(draws)
