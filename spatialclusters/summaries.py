"""Draws of one quantity -> its row in the tidy frame: estimate, interval, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from spatialclusters.result import Fit

__all__ = [
    "CI_PROB",
    "ESS_FAMILY",
    "ESS_HEADLINE",
    "R_HAT",
    "R_HAT_FAMILY",
    "Moments",
    "at_level",
    "judge",
    "rescaled",
    "scaled",
    "summarize_draws",
    "unit_per_term",
]

Moments = tuple[np.ndarray, np.ndarray] | None
"""Conditional mean and variance per draw, where the engine knows them."""

CI_PROB: Final = 0.95
R_HAT: Final = 1.01
R_HAT_FAMILY: Final = 1.05
ESS_HEADLINE: Final = 1000.0
ESS_FAMILY: Final = 400.0


def summarize_draws(
    draws: np.ndarray,
    *,
    point: str = "mean",
    judged: np.ndarray | Mapping[str, Any] | None = None,
    family: bool = False,
    moments: Moments = None,
) -> dict[str, Any]:
    r"""Summarize draws of one quantity: estimate, equal-tailed interval, Monte Carlo checks.

    Where conditional moments given the hyperparameters are known, mean and standard
    deviation are Rao-Blackwell estimates, :math:`E[m]` and
    :math:`\sqrt{E[v] + \mathrm{Var}(m)}`, and ``mcse`` is that of the averaged m.

    Parameters
    ----------
    draws
        Shape (chain, draw), in the unit that is reported.
    point
        ``"mean"``, or ``"median"`` where a mean may not exist.
    judged
        Draws on which R-hat and ESS are taken when ``draws`` contain
        infinities: the finite monotone quantity they come from; or its summary.
    family
        One of many effects of a group, which needs fewer effective draws.
    moments
        Conditional mean and variance of the quantity, each of the shape of ``draws``.

    Returns
    -------
    dict
        Numeric columns of the tidy frame, and ``verdict``.

    References
    ----------
    Vehtari et al. (2021), doi:10.1214/20-BA1221.

    Examples
    --------
    >>> import numpy as np
    >>> out = summarize_draws(np.random.default_rng(1).normal(2.0, 1.0, size=(4, 500)))
    >>> bool(abs(out["estimate"] - 2.0) < 0.1), out["verdict"]
    (True, 'ok')
    """
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1}
    tail = (1.0 - CI_PROB) / 2.0
    low, middle, high = np.quantile(draws, [tail, 0.5, 1.0 - tail], method="inverted_cdf")
    if isinstance(judged, Mapping):
        checks = {name: float(judged[name]) for name in ("ess_bulk", "ess_tail", "r_hat")}
    else:
        checks = _checks(draws if judged is None else judged)
    # a median sits between order statistics, so its error exists with infinities around it
    regular = bool(np.isfinite(draws).all()) and not math.isnan(checks["r_hat"])
    if moments is not None and point == "mean":
        center, spread, error = _rao_blackwell(*moments)
    else:
        center = float(np.mean(draws) if point == "mean" else middle)
        spread = float(np.std(draws, ddof=1)) if regular else math.nan
        error = float(array_stats.mcse(draws, **axes, method=point)) if regular else math.nan
    return {
        "estimate": center,
        "point": point,
        "std_error": spread,
        "ci_low": float(low),
        "ci_high": float(high),
        "ci_prob": CI_PROB,
        "ci_kind": "eti",
        "prob_positive": float(np.mean(draws > 0.0)),
        "mcse": error,
        "verdict": judge(checks, family=family),
        **checks,
    }


def _checks(draws: np.ndarray) -> dict[str, float]:
    """Return effective sample sizes and R-hat, NaN where nothing varies."""
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1}
    if np.ptp(draws) == 0.0:
        return dict.fromkeys(("ess_bulk", "ess_tail", "r_hat"), math.nan)
    r_hat = float(array_stats.rhat(draws, **axes, method="rank"))
    return {
        "ess_bulk": float(array_stats.ess(draws, **axes, method="bulk")),
        "ess_tail": float(array_stats.ess(draws, **axes, method="tail", prob=0.05)),
        "r_hat": math.inf if math.isnan(r_hat) else r_hat,  # one chain agrees with no other
    }


def rescaled(summary: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return the summary of ``factor`` times the quantity, for a factor that is not negative.

    Examples
    --------
    >>> rescaled({"estimate": 2.0, "ci_low": 1.0, "r_hat": 1.0}, 3.0)
    {'estimate': 6.0, 'ci_low': 3.0, 'r_hat': 1.0}
    """
    moved = ("estimate", "std_error", "ci_low", "ci_high", "mcse")
    return {name: value * factor if name in moved else value for name, value in summary.items()}


def _rao_blackwell(mean: np.ndarray, variance: np.ndarray) -> tuple[float, float, float]:
    """Return mean, standard deviation and Monte Carlo error of the mean."""
    from arviz_stats.base import array_stats

    spread = math.sqrt(float(variance.mean() + mean.var(ddof=1)))
    error = (
        0.0
        if np.ptp(mean) == 0.0
        else float(array_stats.mcse(mean, chain_axis=0, draw_axis=1, method="mean"))
    )
    return float(mean.mean()), spread, error


def at_level(moments: Moments, position: int) -> Moments:
    """Pick the last axis of both moments."""
    return None if moments is None else (moments[0][..., position], moments[1][..., position])


def scaled(moments: Moments, factor: float) -> Moments:
    """Return the moments of ``factor`` times the quantity."""
    return None if moments is None else (moments[0] * factor, moments[1] * factor**2)


def judge(checks: Mapping[str, float], *, family: bool) -> str:
    """Say in words whether R-hat and effective sample sizes suffice."""
    if math.isnan(checks["r_hat"]):
        return "constant"
    if not checks["r_hat"] < (R_HAT_FAMILY if family else R_HAT):
        return "chains disagree"
    needed = ESS_FAMILY if family else ESS_HEADLINE
    return "ok" if min(checks["ess_bulk"], checks["ess_tail"]) >= needed else "too few draws"


def unit_per_term(fit: Fit) -> str:
    """Return the unit of a coefficient in words."""
    return f"{fit.design.data.attrs['unit']} per unit of the term"
