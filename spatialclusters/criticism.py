"""Does the model describe the data? A verdict in words, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.errors import FitError
from spatialclusters.loo import Loo, marginal_loo
from spatialclusters.predictive import predictive_statistics
from spatialclusters.residuals import residual_moran, residuals
from spatialclusters.result import Fit, once_per_fit
from spatialclusters.simulation import (
    expected_response,
    linear_predictor,
    simulate_noise,
    thinned,
)

__all__ = ["Criticism", "criticize", "leave_one_out", "residual_spread"]

_MEAN_DRAWS: Final = 500  # behind the mean response where it is not linear in the parameters
_COLUMNS: Final = ["check", "number", "value", "expected", "passed", "advice"]
_COVERAGE: Final = 0.03  # how far coverage may be from what an interval promises
_RELIABLE: Final = 0.99  # least share of rows with a good Pareto k
_SHAPE: Final = ("standard deviation", "range between quartiles", "tails")
_NUMBERS: Final = 1_000_000  # rows times draws of leave-one-out: theta is known well from many rows
_FEW, _MANY = 100, 400
_FIRST: Final = (
    "Rows are those of the first completed panel, and checked with the draws given that panel: withheld "
    "cells were drawn from the model that is checked."
)


@dataclass(frozen=True, eq=False)
class Criticism:
    """What the data say of the model.

    Attributes
    ----------
    table
        One row a check: ``check, number, value, expected, passed, advice``. A check that has
        not passed calls for caution: unlike a failed check of the sampling it does not make the
        numbers wrong, but says for what they should not be used.
    loo
        Leave-one-out by row, or None where effects cannot be integrated out.
    note
        Which draws it rests on, where it is not all.
    """

    table: pd.DataFrame
    loo: Loo | None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing calls for caution."""
        return bool(self.table["passed"].all())

    def __str__(self) -> str:
        cautions = int((~self.table["passed"].astype(bool)).sum())
        head = "Model: describes the data in every check."
        if cautions:
            head = f"Model: {cautions} of {len(self.table)} checks call for caution."
        lines = [
            f"  {'ok  ' if row.passed else 'NOTE'} {row.check}: {row.value} (expected {row.expected})"
            + ("" if row.passed else f". {row.advice}")
            for row in self.table.itertuples()
        ]
        return "\n".join([head, *lines, *([f"  {self.note}"] if self.note else [])])


def criticize(fit: Fit, loo: Loo | None = None) -> Criticism:
    """Compare the data with what the model would have them be.

    Spread of residuals by size, shape of the response against replicates, coverage of
    leave-one-out intervals, reliability of leave-one-out, and Moran's I of the residuals.

    Parameters
    ----------
    fit
        A fit.
    loo
        Leave-one-out by row, if it is known already; otherwise as :func:`leave_one_out` does it.

    References
    ----------
    Gelman, Meng and Stern (1996), Statistica Sinica 6; Gabry et al. (2019),
    doi:10.1111/rssa.12378; Vehtari, Gelman and Gabry (2017), doi:10.1007/s11222-016-9696-4.
    """
    loo = leave_one_out(fit) if loo is None else loo
    rows = [_spread_check(fit), *_shape_checks(fit), *_loo_checks(loo), *_moran_checks(fit)]
    note = "" if fit.given_rows is fit else _FIRST
    return Criticism(pd.DataFrame(rows, columns=_COLUMNS), loo, note)


def leave_one_out(fit: Fit) -> Loo | None:
    """Leave one row out at a time, from fewer draws where there are many rows; None if it cannot."""
    draws = min(max(_NUMBERS // fit.design.n_rows, _FEW), _MANY)
    try:
        return marginal_loo(fit, draws=draws)
    except FitError:
        return None


@once_per_fit
def residual_spread(fit: Fit, *, draws: int = 200, seed: int = 1, parts: int = 10) -> pd.DataFrame:
    """Compare the spread of residuals with what the noise of the model would give, by size.

    Each draw has its own residuals, and replicated noise of its own sigma beside them: unlike
    residuals from the posterior mean these are not the smaller the more effects were estimated.
    Size is the base-year level behind a row, or the expected response where the response is not
    growth.

    Parameters
    ----------
    fit
        A fit.
    draws, seed
        Evenly spaced posterior draws, and the seed of the replicates.
    parts
        Number of groups with equally many rows.

    Returns
    -------
    pandas.DataFrame
        Per group, the smallest first: ``decile``, ``size`` (median), ``observed`` (posterior mean
        of the standard deviation of residuals), ``predicted`` and ``ci_low``, ``ci_high`` (mean
        and 95 % of replicates), ``p_value`` (share of draws whose replicate is as large), and
        whether it is ``inside`` 0.025 to 0.975.

    References
    ----------
    Gelman, Meng and Stern (1996), Statistica Sinica 6, on realized discrepancies.
    """
    design, rng = fit.design, np.random.default_rng(seed)
    size = design.data["size"].values if "size" in design.data else _posterior_mean(fit)
    bins = pd.qcut(pd.Series(size).rank(method="first"), parts, labels=False).to_numpy()
    members = [np.flatnonzero(bins == part) for part in range(parts)]
    spreads = []
    for parameters in thinned(fit, draws):
        found, noise = residuals(fit, parameters), simulate_noise(fit.spec, design, parameters, rng)
        spreads.append([[each[rows].std(ddof=1) for rows in members] for each in (found, noise)])
    observed, replicated = np.moveaxis(np.array(spreads), 1, 0)
    low, high = np.quantile(replicated, [0.025, 0.975], axis=0)
    p = np.mean(replicated >= observed, axis=0)
    return pd.DataFrame(
        {
            "decile": np.arange(1, parts + 1),
            "size": [float(np.median(size[rows])) for rows in members],
            "observed": observed.mean(axis=0),
            "predicted": replicated.mean(axis=0),
            "ci_low": low,
            "ci_high": high,
            "p_value": p,
            "inside": (p >= 0.025) & (p <= 0.975),
        }
    )


def _posterior_mean(fit: Fit) -> np.ndarray:
    if fit.spec.spatial.parameters or fit.design.psi is not None:
        chosen = thinned(fit, _MEAN_DRAWS)
        return np.mean([expected_response(fit.spec, fit.design, p) for p in chosen], axis=0)
    fit = fit.given_rows
    chains = range(fit.posterior.sizes["chain"])
    means = {
        # chain by chain: not all draws of all effects at once
        name: np.mean([fit.draws(name, {"chain": c}).mean(axis=0) for c in chains], axis=0)
        for name in map(str, fit.posterior.data_vars)
    }
    # the linear predictor is linear in the parameters, so its mean is that of the means
    return linear_predictor(fit.design, means)


def _spread_check(fit: Fit) -> tuple[Any, ...]:
    parts = max(2, min(10, fit.design.n_rows // 5))
    outside = int((~residual_spread(fit, parts=parts)["inside"]).sum())
    # of ten intervals of 95 % three miss once in eighty times
    return (
        "spread of residuals by size",
        outside,
        f"{outside} of {parts} groups outside their interval",
        "<= 2",
        outside <= 2,
        "Standard errors are wrong for cells of these sizes: try another likelihood.scale, or "
        "student-t noise.",
    )


def _shape_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    table = predictive_statistics(fit)
    for row in table[table["statistic"].isin(_SHAPE)].to_dict("records"):
        p = float(row["p_value"])
        yield (
            f"shape of the response: {row['statistic']}",
            p,
            f"{p:.3f} of replicates have one as large",
            "0.025–0.975",
            bool(0.025 <= p <= 0.975),
            "Replicated responses have another shape: predictions for single rows are too wide in "
            "the middle or too narrow in the tails; student-t noise is the usual remedy.",
        )


def _loo_checks(loo: Loo | None) -> Iterator[tuple[Any, ...]]:
    if loo is None:
        return
    pit, n = loo.pointwise["pit"].to_numpy(), len(loo.pointwise)
    for level in (0.5, 0.95):
        held = float(((pit >= 0.5 - level / 2) & (pit <= 0.5 + level / 2)).mean())
        reach = max(_COVERAGE, 2.0 * math.sqrt(level * (1.0 - level) / n))
        yield (
            f"coverage of {100 * level:g} % intervals of rows left out",
            100.0 * held,
            f"{100 * held:.1f} %",
            f"{100 * (level - reach):.1f}–{100 * min(level + reach, 1.0):.1f} %",
            abs(held - level) <= reach,
            "Predictive intervals of single rows hold too many or too few: the noise has another "
            "shape, or another scale, than the model says.",
        )
    yield (
        "rows whose Pareto k is low enough for so many draws",
        100.0 * loo.reliable,
        f"{100 * loo.reliable:.1f} %",
        f">= {100 * _RELIABLE:g} %",
        loo.reliable >= _RELIABLE,
        "Some rows pull the hyperparameters: look at those with the largest k.",
    )


def _moran_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    if fit.weights is None:
        return
    table = residual_moran(fit)
    chosen = table[table["scope"].isin(["regions", "all clusters"])]
    for row in chosen.to_dict("records"):
        p = float(row["p_value"])
        what = "region effects" if row["of"] == "effects" else "residuals"
        where = f", {row['scope']}" if row["of"] == "residuals" else ""
        yield (
            f"Moran's I of {what}{where}",
            p,
            f"{p:.3f} is the chance of one as large if they were independent",
            "0.025–0.975",
            bool(0.025 <= p <= 0.975),
            "Neighbors still resemble each other, or repel: let effects of regions share a structure "
            "(groups.region.structure), or the outcome have a process (spatial.outcome).",
        )
