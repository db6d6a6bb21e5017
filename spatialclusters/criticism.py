"""Does the model describe the data? A verdict in words, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.errors import FitError
from spatialclusters.loo import GOOD_K, Loo, marginal_loo
from spatialclusters.predictive import predictive_statistics
from spatialclusters.residuals import residual_moran
from spatialclusters.result import Fit, once_per_fit
from spatialclusters.simulation import (
    expected_response,
    linear_predictor,
    posterior_predictive,
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
    """

    table: pd.DataFrame
    loo: Loo | None

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
        return "\n".join([head, *lines])


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
    return Criticism(pd.DataFrame(rows, columns=_COLUMNS), loo)


def leave_one_out(fit: Fit) -> Loo | None:
    """Leave one row out at a time, from fewer draws where there are many rows; None if it cannot."""
    draws = min(max(_NUMBERS // fit.design.n_rows, _FEW), _MANY)
    try:
        return marginal_loo(fit, draws=draws)
    except FitError:
        return None


@once_per_fit
def residual_spread(fit: Fit, *, draws: int = 100, seed: int = 1, parts: int = 10) -> pd.DataFrame:
    """Compare the spread of residuals with its posterior predictive, by decile of size.

    Size is the base-year level behind a row, or the expected response where the
    response is not growth.

    Returns
    -------
    pandas.DataFrame
        Per decile: ``size`` (median), ``observed`` standard deviation of the
        residual, its predictive mean and 95 % interval, and whether it is inside.
    """
    design = fit.design
    mean = _posterior_mean(fit)
    size = design.data["size"].values if "size" in design.data else mean
    replicated = posterior_predictive(fit, draws=draws, seed=seed) - mean
    bins = pd.qcut(pd.Series(size).rank(method="first"), parts, labels=False).to_numpy()
    rows = []
    for part in range(parts):
        inside = bins == part
        spread = replicated[:, inside].std(axis=1, ddof=1)
        low, high = np.quantile(spread, [0.025, 0.975])
        observed = float((design.y - mean)[inside].std(ddof=1))
        rows.append(
            {
                "decile": part + 1,
                "size": float(np.median(size[inside])),
                "observed": observed,
                "predicted": float(spread.mean()),
                "ci_low": float(low),
                "ci_high": float(high),
                "inside": bool(low <= observed <= high),
            }
        )
    return pd.DataFrame(rows)


def _posterior_mean(fit: Fit) -> np.ndarray:
    if fit.spec.spatial.parameters or fit.design.psi is not None:
        chosen = thinned(fit, _MEAN_DRAWS)
        return np.mean([expected_response(fit.spec, fit.design, p) for p in chosen], axis=0)
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
    # of ten intervals of 95 % one misses four times in ten, two once in twelve
    return (
        "spread of residuals by size",
        outside,
        f"{outside} of {parts} groups outside their interval",
        "<= 1",
        outside <= 1,
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
        f"rows whose Pareto k is below {GOOD_K}",
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
