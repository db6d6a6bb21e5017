"""Leave-one-out with all effects integrated out: what the model says of rows it has not seen.

Given hyperparameters any rows have a normal distribution given all others
(:mod:`~spatialclusters.conditionals`). Only the hyperparameters have to be reweighted, which
Pareto smoothed importance sampling does; effects of left-out rows cannot follow their response
as they do in the likelihood conditional on effects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy.special
from threadpoolctl import threadpool_limits

from spatialclusters.collapsed.problem import why_not_collapsed
from spatialclusters.conditionals import MarginalNormal
from spatialclusters.errors import FitError, listing
from spatialclusters.result import Fit
from spatialclusters.simulation import thinned

__all__ = ["Loo", "compare_loo", "marginal_loo"]

_DRAWS: Final = 400
_FEWEST: Final = 25  # a tail of five is smoothed


@dataclass(frozen=True, eq=False)
class Loo:
    """Expected log predictive density of left-out units.

    Attributes
    ----------
    elpd, std_error
        Sum over units, natural logarithm of densities in the response's unit, and the
        standard error of that sum.
    pointwise
        One row a unit: ``unit, elpd, pareto_k``; by row also ``pit``, the probability of a
        smaller response given all other rows: uniform if the model is right.
    by
        ``row`` or ``region``: what was left out at a time.
    draws
        Posterior draws it rests on.
    identity
        Digest of the rows, response and unit: what models must share to be compared.
    """

    elpd: float
    std_error: float
    pointwise: pd.DataFrame
    by: str
    draws: int
    identity: tuple[str, str, str]

    @property
    def good_k(self) -> float:
        r"""Pareto k of a unit whose estimate is reliable: below :math:`\min(1 - 1/\log_{10} S, 0.7)`.

        S draws are enough for tails so heavy, and no heavier (Vehtari et al. 2024).
        """
        return min(1.0 - 1.0 / math.log10(max(self.draws, 11)), 0.7)

    @property
    def reliable(self) -> float:
        """Share of units whose Pareto k is below :attr:`good_k`."""
        return float((self.pointwise["pareto_k"] < self.good_k).mean())

    def __str__(self) -> str:
        return (
            f"elpd {self.elpd:.1f} (se {self.std_error:.1f}), {len(self.pointwise)} times one "
            f"{self.by} left out, {self.draws} draws; Pareto k < {self.good_k:.2g} for {self.reliable:.1%}"
        )


def marginal_loo(fit: Fit, *, by: str = "row", draws: int = _DRAWS) -> Loo:
    r"""Estimate the log predictive density of every row, or region, left out.

    Parameters
    ----------
    fit
        With Gaussian noise and normal or flat priors of coefficients, of either engine.
    by
        ``"row"``, or ``"region"``: all rows of a region at a time.
    draws
        Evenly spaced posterior draws of the hyperparameters.

    Raises
    ------
    FitError
        The effects cannot be integrated out, ``by`` is neither, draws are few, or the others say nothing of a
        row, since a coefficient with a flat prior rests on it alone.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), doi:10.1007/s11222-016-9696-4; Buerkner, Gabry and
    Vehtari (2021), doi:10.1007/s00180-020-01045-4; Merkle, Furr and Rabe-Hesketh (2019),
    doi:10.1007/s11336-019-09679-0; Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR 25(72).
    """
    reason = why_not_collapsed(fit.spec)
    if reason is not None or by not in ("row", "region"):
        got = f"a model whose effects cannot be integrated out: {reason}" if reason else repr(by)
        msg = f"leave-one-out: got {got}; expected Gaussian noise, and by = 'row' or 'region'."
        raise FitError(msg)
    labels = np.arange(fit.design.n_rows).astype(str)
    if by == "region":
        labels = fit.design.data["row_region"].values.astype(str)
    units, codes = np.unique(labels, return_inverse=True)
    units, codes = (labels, np.arange(len(labels))) if by == "row" else (units, codes)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    system, chosen = MarginalNormal(fit), thinned(fit, draws)
    if len(chosen) < _FEWEST:
        msg = f"leave-one-out: got {len(chosen)} draws; expected {_FEWEST} or more. Take more."
        raise FitError(msg)
    known: list[Any]
    with threadpool_limits(1):  # many matrices, all too small to be shared among threads
        if by == "row":
            known = [system.rows(parameters) for parameters in chosen]
        else:
            known = [system.left_out(parameters, members) for parameters in chosen]
    if by == "row":
        precision, z = (np.stack(each) for each in zip(*known, strict=True))
        densities = 0.5 * (np.log(precision) - z**2 - np.log(2.0 * np.pi))
        elpd, k, weights = _smoothed(densities)
        more = {"pit": (weights * scipy.special.ndtr(z.T)).sum(axis=1)}
    else:
        elpd, k, _ = _smoothed(np.array(known))
        more = {}
    return Loo(
        elpd=float(elpd.sum()),
        std_error=float(elpd.std(ddof=1) * np.sqrt(len(elpd))),
        pointwise=pd.DataFrame({"unit": units, "elpd": elpd, "pareto_k": k} | more),
        by=by,
        draws=len(chosen),
        identity=_identity(fit),
    )


def compare_loo(results: Mapping[str, Loo]) -> pd.DataFrame:
    """Compare models by expected log predictive density, the best first.

    Returns
    -------
    pandas.DataFrame
        ``model, elpd, std_error, difference, difference_error, weight, reliable``; differences
        are to the best model, and their errors those of the sum of pointwise differences.
        ``weight`` is that of stacking: shares of the mixture of the models that predicts best.

    Raises
    ------
    FitError
        Rows, response, unit, or what was left out, differ.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), doi:10.1214/17-BA1091.
    """
    kinds = {(*loo.identity, loo.by) for loo in results.values()}
    if len(kinds) > 1:
        msg = f"leave-one-out: got models of different rows, responses or units: {listing(results)}"
        raise FitError(msg + "; expected the same. Refit them to one sample.")
    order = sorted(results, key=lambda name: -results[name].elpd)
    best = results[order[0]].pointwise["elpd"].to_numpy() if order else np.empty(0)
    weights = _stacking({name: results[name] for name in order})
    rows = []
    for name in order:
        loo = results[name]
        apart = loo.pointwise["elpd"].to_numpy() - best
        rows.append(
            {
                "model": name,
                "elpd": loo.elpd,
                "std_error": loo.std_error,
                "difference": float(apart.sum()),
                "difference_error": float(apart.std(ddof=1) * np.sqrt(len(apart))),
                "weight": weights[name],
                "reliable": loo.reliable,
            }
        )
    return pd.DataFrame(rows)


def _identity(fit: Fit) -> tuple[str, str, str]:
    attributes = fit.design.data.attrs
    return fit.design.rows_digest, str(attributes["response"]), str(attributes["unit"])


def _smoothed(densities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return elpd and Pareto k of every unit from log densities (draw, unit), and its weights."""
    from arviz_stats.base import array_stats

    weights, k = array_stats.psislw(densities.T, r_eff=1.0, axis=-1)  # it negates
    elpd = scipy.special.logsumexp(densities.T + weights, axis=-1)
    return elpd, np.asarray(k), np.exp(weights)


def _stacking(results: Mapping[str, Loo]) -> dict[str, float]:
    """Return the weights of the mixture whose log score of left-out units is best."""
    if len(results) < 2:
        return dict.fromkeys(results, 1.0)
    import arviz_stats
    import xarray as xr
    from arviz_stats.utils import ELPDDataLOO

    pointwise = {name: loo.pointwise["elpd"].to_numpy() for name, loo in results.items()}
    # only differences matter, and densities of many rows at once would underflow
    best = np.max(list(pointwise.values()), axis=0)
    given = {}
    for name, loo in results.items():
        apart = xr.DataArray(pointwise[name] - best, dims="unit")
        sizes = {"n_samples": loo.draws, "n_data_points": len(best)}
        known = {"elpd": float(apart.sum()), "se": loo.std_error, "p": 0.0, "scale": "log"}
        known |= {"warning": False, "good_k": loo.good_k, "elpd_i": apart}
        given[name] = ELPDDataLOO(**known, **sizes)
    table = arviz_stats.compare(given, method="stacking", round_to="none")
    return {name: float(table.loc[name, "weight"]) for name in results}
