r"""What a model leaves unexplained: residuals by draw, and whether those of neighbors are alike.

The residual of a row is its noise given everything else, :math:`\nu = (I - \lambda L)[(I - \rho L)
y - \eta]`, which is :math:`y - \eta` without a process of the outcome. Over its standard deviation
it is standard normal at the true parameters, and independent between rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import sparse

from spatialclusters.errors import FitError
from spatialclusters.estimates import estimates_frame
from spatialclusters.families import summarize_levels
from spatialclusters.lags import RowLag, row_lag
from spatialclusters.predictions import each_draw
from spatialclusters.processes import outcome_process
from spatialclusters.result import Fit, once_per_fit
from spatialclusters.simulation import linear_predictor, noise_scale, thinned

__all__ = ["morans_i", "regional_residuals", "residual_moran", "residuals"]

_FEWEST: Final = 8  # cells of a cluster below which Moran's I is not worth a row
_NUMBERS: Final = 6_000_000  # rows times draws behind residuals by region


def residuals(fit: Fit, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the noise of every row at one draw, (N,), in the unit of the response."""
    design, process = fit.design, outcome_process(fit.spec, fit.design)
    mean = linear_predictor(design, parameters)
    return np.asarray(
        design.y - mean if process is None else process.filtered(parameters, design.y, mean)
    )


def morans_i(weights: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    r"""Return Moran's I of each column, :math:`(n / \sum_{ij} w_{ij})\, z'Wz / z'z`, z centered.

    Parameters
    ----------
    weights
        W, (n, n).
    values
        Shape (n, ...).

    References
    ----------
    Cliff and Ord (1981), Spatial Processes: Models and Applications, p. 17.

    Examples
    --------
    >>> W = sparse.csr_array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> float(morans_i(W, np.array([1.0, 2.0, 3.0])))
    0.0
    """
    z = values - values.mean(axis=0)
    flat = z.reshape(len(z), -1)
    products = (flat * (weights @ flat)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        found = len(z) / weights.sum() * products / (flat**2).sum(axis=0)
    return np.asarray(found.reshape(z.shape[1:]))


def residual_moran(fit: Fit, *, draws: int = 200, seed: int = 1) -> pd.DataFrame:
    r"""Return the posterior of Moran's I of the residuals, by region, and by cluster.

    Standardized residuals are summed over the rows of a region, or of a region-cluster, and divided
    by the root of their number: independent standard normals if the model is right. So each draw
    has a replicate, Moran's I of as many random normals, and ``p_value`` is the posterior
    probability that the replicate is as large. Effects of regions are looked at likewise, since
    those that are taken to be independent soak up what neighbors share.

    Parameters
    ----------
    fit
        With weights.
    draws
        Evenly spaced posterior draws.
    seed
        Of the replicates.

    Returns
    -------
    pandas.DataFrame
        ``of`` (``residuals`` or ``effects``), ``scope`` (``regions``, ``all clusters`` or a
        cluster), ``cells``, ``links``, ``moran`` (posterior mean), ``ci_low``, ``ci_high`` (95 %),
        ``replicated_low``, ``replicated_high``, ``p_value``.

    Raises
    ------
    FitError
        The fit has no weights.

    References
    ----------
    Gelman, Meng and Stern (1996), Statistica Sinica 6, on realized discrepancies; Cliff and Ord
    (1981), Spatial Processes.
    """
    if fit.weights is None:
        msg = "residual Moran's I: got a fit without weights; expected some. Fit with --weights."
        raise FitError(msg)
    design, rng, chosen = fit.design, np.random.default_rng(seed), thinned(fit, draws)
    scaled = np.stack(
        [residuals(fit, each) / noise_scale(fit.spec, design, each) for each in chosen], axis=1
    )
    rows: list[tuple[Any, ...]] = []
    for lag, named in _spaces(fit):
        cells = lag.means(scaled) * np.sqrt(lag.counts)[:, None]
        for scope, inside in named:
            rows += _row("residuals", scope, lag.weights, inside, cells, rng)
    for group in design.groups:
        if group.name != "region" or "1" not in group.labels or group.structure != "iid":
            continue
        if group.effect == "fixed":  # nothing is assumed of them, independence neither
            continue
        again = design.data.attrs.get("blocks") != "subset"  # as in Design.lag
        lag = row_lag(fit.weights, {"region": group.levels}, restandardize=again)
        drawn = np.stack([each["effect(region)"][:, 0] for each in chosen], axis=1)
        inside = np.arange(len(drawn))
        rows += _row("effects", "regions", lag.weights, inside, lag.means(drawn), rng)
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS: Final = [
    "of", "scope", "cells", "links", "moran", "ci_low", "ci_high", "replicated_low",
    "replicated_high", "p_value",
]  # fmt: skip


def _spaces(fit: Fit) -> Iterator[tuple[RowLag, list[tuple[str, np.ndarray]]]]:
    """Yield the lag over regions, and that over region-clusters, with the cells of each scope."""
    design = fit.design
    assert fit.weights is not None
    again = design.data.attrs.get("blocks") != "subset"  # as in Design.lag
    regions = row_lag(
        fit.weights, {"region": design.data["row_region"].values}, restandardize=again
    )
    yield regions, [("regions", np.arange(len(regions.counts)))]
    if "row_cluster" not in design.data:
        return
    assert design.lag is not None
    cluster = np.empty(len(design.lag.counts), dtype=object)
    cluster[design.lag.cell] = design.data["row_cluster"].values
    by_cluster = [(str(c), np.flatnonzero(cluster == c)) for c in pd.unique(cluster)]
    everywhere = ("all clusters", np.arange(len(cluster)))
    yield design.lag, [everywhere, *sorted(by_cluster, key=lambda pair: pair[0])]


def _row(
    of: str,
    scope: str,
    weights: sparse.csr_array,
    inside: np.ndarray,
    values: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[tuple[Any, ...]]:
    W = sparse.csr_array(weights[inside][:, inside])
    if len(inside) < _FEWEST or not W.nnz:
        return
    found = morans_i(W, values[inside])
    replicated = morans_i(W, rng.standard_normal((len(inside), values.shape[1])))
    ends = [*np.quantile(found, [0.025, 0.975]), *np.quantile(replicated, [0.025, 0.975])]
    yield (
        of, scope, len(inside), W.nnz, float(found.mean()), *map(float, ends),
        float(np.mean(replicated >= found)),
    )  # fmt: skip


@once_per_fit
def regional_residuals(fit: Fit) -> pd.DataFrame:
    """Return the mean residual of every region, in the unit of the response.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates, one group a region, from evenly spaced draws: all of them in small
        samples, and some hundreds in large ones.
    """
    names, codes = np.unique(fit.design.data["row_region"].values.astype(str), return_inverse=True)
    counts = np.bincount(codes)
    values = each_draw(
        fit.given_rows,
        max(100, _NUMBERS // fit.design.n_rows),
        lambda parameters: np.bincount(codes, residuals(fit, parameters)) / counts,
    )
    base = {"model": fit.spec.name, "estimator": "posterior", "term": "residual"}
    base |= {"effect": "prediction", "unit": str(fit.design.data.attrs["unit"])}
    return estimates_frame(
        base | {"group": str(name)} | row
        for name, row in zip(names, summarize_levels(values), strict=True)
    )
