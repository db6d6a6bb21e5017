"""Draws -> what an economist reads: coefficients, convergence, specialization.

Everything is computed draw by draw, never at posterior means, and comes back in the
tidy frame of :mod:`spatialclusters.estimates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.columns import within
from spatialclusters.design import Design, absorbed_groups
from spatialclusters.errors import FitError
from spatialclusters.estimates import estimates_frame
from spatialclusters.result import Fit

__all__ = [
    "ESS_FAMILY",
    "ESS_HEADLINE",
    "R_HAT",
    "coefficients",
    "convergence",
    "group_effects",
    "half_life",
    "specialization",
    "speed",
    "summarize_draws",
]

Moments = tuple[np.ndarray, np.ndarray] | None
"""Conditional mean and variance per draw, where the engine knows them."""

CI_PROB: Final = 0.95
R_HAT: Final = 1.01
R_HAT_FAMILY: Final = 1.05
ESS_HEADLINE: Final = 1000.0
ESS_FAMILY: Final = 400.0


def coefficients(fit: Fit) -> pd.DataFrame:
    """Return every fixed effect, standard deviation, correlation and noise parameter.

    Coefficients are in units of the response per unit of the covariate; the
    intercept is the expected response with covariates at their sample means.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates with posterior means and 95 % equal-tailed intervals.
    """
    return estimates_frame(_coefficient_rows(fit))


def convergence(fit: Fit) -> pd.DataFrame:
    r"""Return total change, speed and half-life of convergence, overall and by cluster.

    With B the change over T years that goes with one more log point at the
    start, the speed is :math:`-\ln(1 + B)/T` per year and the half-life
    :math:`\ln 2` over the speed. Both are summarized by medians; R-hat and
    effective sample sizes are those of B.

    Returns
    -------
    pandas.DataFrame
        Rows ``change``, ``speed``, ``half_life`` for group ``overall`` and, where
        the model has slopes by group, for each of its levels.

    Raises
    ------
    FitError
        The model names no convergence term or its response is not growth.

    References
    ----------
    Barro and Sala-i-Martin (1992), doi:10.1086/261816.
    """
    design, role = fit.design, fit.spec.roles.convergence
    if role is None or design.years is None:
        msg = (
            "convergence: got a model without [roles] convergence or without [growth]; expected both. "
            "Name the term in the model file."
        )
        raise FitError(msg)
    years, term = design.years, design.label(role)
    rows = []
    scale = years if design.annualized else 1.0
    for group, draws, moments in _slopes(fit, term):
        total = draws * scale
        family = group != "overall"
        base = _identity(fit, term, group)
        rows.append(
            base
            | {"effect": "change", "unit": f"log points over {years:g} years per log point"}
            | summarize_draws(total, family=family, moments=_scaled(moments, scale))
        )
        for effect, values, unit in (
            ("speed", speed(total, years), "per year"),
            ("half_life", half_life(total, years), "years"),
        ):
            summary = summarize_draws(values, point="median", judged=total, family=family)
            rows.append(base | {"effect": effect, "unit": unit} | summary)
    return estimates_frame(rows)


def specialization(fit: Fit) -> pd.DataFrame:
    """Return what the strength terms do to growth, overall and by cluster.

    For each term of ``[roles] specialization``: points of annual growth per
    standard deviation of the term (raw, and within the group effects), from its
    25th to its 75th percentile, and, for pure logs, per 10 % more strength. For a
    response that is not growth the unit is that of the response.

    Raises
    ------
    FitError
        The model names no specialization term.
    """
    design, roles = fit.design, fit.spec.roles
    if not roles.specialization:
        msg = (
            "specialization: got a model without [roles] specialization; expected terms. Name them."
        )
        raise FitError(msg)
    named = [r for r in (roles.convergence, *roles.specialization) if r]
    absorbed, _ = absorbed_groups(design, tuple(design.label(r) for r in named))
    codes = [group.codes for group in design.groups if group.name in absorbed]
    points, unit = annual_points(design)
    rows = []
    for role in roles.specialization:
        term = design.label(role)
        column = design.X[:, design.terms.index(term)]
        sizes = {"per_sd": float(column.std(ddof=1))}
        if codes:
            sizes["per_sd_within"] = float(within(column, codes).std(ddof=1))
        sizes["p25_p75"] = float(np.subtract(*np.quantile(column, [0.75, 0.25])))
        if term.startswith("log(") and ":" not in term:
            sizes["plus10pct"] = math.log(1.1)
        for group, draws, moments in _slopes(fit, term):
            for effect, size in sizes.items():
                by = points * size
                rows.append(
                    _identity(fit, term, group)
                    | {"effect": effect, "unit": unit}
                    | summarize_draws(
                        by * draws, family=group != "overall", moments=_scaled(moments, by)
                    )
                )
    return estimates_frame(rows)


def group_effects(fit: Fit, group: str, column: str = "1") -> pd.DataFrame:
    """Return the effect of every level of a group: intercepts, or slopes of a column.

    Raises
    ------
    FitError
        The model has no such group or column.
    """
    known = {each.name: each for each in fit.design.groups}
    if group not in known or column not in known[group].labels:
        msg = f"group effects: got ({column} | {group}); expected one of "
        msg += ", ".join(f"({c} | {g.name})" for g in known.values() for c in g.labels) or "none"
        raise FitError(msg + ".")
    position = known[group].labels.index(column)
    draws = fit.draws(f"effect({group})")[..., position]
    moments = _at(fit.moments(f"effect({group})"), position)
    unit = str(fit.design.data.attrs["unit"]) if column == "1" else _unit(fit)
    return estimates_frame(
        {
            "model": fit.spec.name,
            "estimator": "posterior",
            "term": column,
            "effect": "coefficient",
            "group": str(level),
            "unit": unit,
        }
        | summarize_draws(draws[..., i], family=True, moments=_at(moments, i))
        for i, level in enumerate(known[group].levels)
    )


def speed(change: np.ndarray, years: float) -> np.ndarray:
    r"""Return the speed of convergence :math:`-\ln(1 + B)/T` per year, inf for B <= -1.

    Examples
    --------
    >>> import numpy as np
    >>> speed(np.array([-0.30, -1.2]), 15.0).round(7).tolist()
    [0.0237783, inf]
    """
    inside = change > -1.0
    rate = -np.log1p(np.where(inside, change, 0.0)) / years
    return np.asarray(np.where(inside, rate, np.inf))


def half_life(change: np.ndarray, years: float) -> np.ndarray:
    r"""Return :math:`\ln 2 / s` years: infinite without convergence, 0 for B <= -1.

    Examples
    --------
    >>> import numpy as np
    >>> half_life(np.array([-0.30, 0.1, -1.2]), 15.0).round(3).tolist()
    [29.15, inf, 0.0]
    """
    rate = speed(change, years)
    positive = rate > 0.0
    return np.asarray(np.where(positive, math.log(2.0) / np.where(positive, rate, 1.0), np.inf))


def annual_points(design: Design) -> tuple[float, str]:
    """Return the factor from the response to points of annual growth, and the unit's name."""
    if design.years is None:
        return 1.0, str(design.data.attrs["unit"])
    return (100.0 if design.annualized else 100.0 / design.years), "points of annual growth"


def summarize_draws(
    draws: np.ndarray,
    *,
    point: str = "mean",
    judged: np.ndarray | None = None,
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
        infinities: the finite monotone quantity they come from.
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
    finite = draws if judged is None else judged
    tail = (1.0 - CI_PROB) / 2.0
    low, middle, high = np.quantile(draws, [tail, 0.5, 1.0 - tail], method="inverted_cdf")
    if np.ptp(finite) == 0.0:
        checks = dict.fromkeys(("ess_bulk", "ess_tail", "r_hat"), math.nan)
    else:
        checks = {
            "ess_bulk": float(array_stats.ess(finite, **axes, method="bulk")),
            "ess_tail": float(array_stats.ess(finite, **axes, method="tail", prob=0.05)),
            "r_hat": float(array_stats.rhat(finite, **axes, method="rank")),
        }
        if math.isnan(checks["r_hat"]):
            checks["r_hat"] = math.inf  # one chain agrees with no other
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
        "verdict": _verdict(checks, family=family),
        **checks,
    }


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


def _at(moments: Moments, position: int) -> Moments:
    """Pick the last axis of both moments."""
    return None if moments is None else (moments[0][..., position], moments[1][..., position])


def _scaled(moments: Moments, factor: float) -> Moments:
    return None if moments is None else (moments[0] * factor, moments[1] * factor**2)


def _verdict(checks: Mapping[str, float], *, family: bool) -> str:
    if math.isnan(checks["r_hat"]):
        return "constant"
    if not checks["r_hat"] < (R_HAT_FAMILY if family else R_HAT):
        return "chains disagree"
    needed = ESS_FAMILY if family else ESS_HEADLINE
    return "ok" if min(checks["ess_bulk"], checks["ess_tail"]) >= needed else "too few draws"


def _unit(fit: Fit) -> str:
    return f"{fit.design.data.attrs['unit']} per unit of the term"


def _identity(fit: Fit, term: str, group: str) -> dict[str, Any]:
    return {"model": fit.spec.name, "estimator": "posterior", "term": term, "group": group}


def _coefficient_rows(fit: Fit) -> Iterator[dict[str, Any]]:
    response, per_unit = str(fit.design.data.attrs["unit"]), _unit(fit)
    posterior = fit.posterior
    if "intercept" in posterior:
        yield (
            _identity(fit, "intercept", "")
            | {"effect": "coefficient", "unit": response}
            | summarize_draws(fit.draws("intercept"), moments=fit.moments("intercept"))
        )
    moments = fit.moments("coefficient")
    for i, term in enumerate(fit.design.terms):
        yield (
            _identity(fit, term, "")
            | {"effect": "coefficient", "unit": per_unit}
            | summarize_draws(fit.draws("coefficient")[..., i], moments=_at(moments, i))
        )
    for name in map(str, posterior.data_vars):
        if name in ("intercept", "coefficient") or name.startswith("effect("):
            continue
        values = fit.draws(name)
        labels = [""] if values.ndim == 2 else posterior[posterior[name].dims[2]].values
        effect = "correlation" if name.startswith("cor(") else "sd"
        number = name.startswith(("size.", "nu", "cor(", "sd(log sigma)"))
        for i, label in enumerate(labels):
            draws = values if values.ndim == 2 else values[..., i]
            unit = "" if number else response if label in ("", "1") else per_unit
            yield (
                _identity(fit, name, "" if label == "1" else str(label))
                | {"effect": effect, "unit": unit}
                | summarize_draws(draws)
            )


def _slopes(fit: Fit, term: str) -> Iterator[tuple[str, np.ndarray, Moments]]:
    """Yield a term's coefficient overall and, where it varies by group, by level; with moments."""
    position = fit.design.terms.index(term)
    overall = fit.draws("coefficient")[..., position]
    yield "overall", overall, _at(fit.moments("coefficient"), position)
    for group in fit.design.groups:
        if term not in group.labels:
            continue
        column = group.labels.index(term)
        effect = fit.draws(f"effect({group.name})")[..., column]
        total = _at(fit.moments(f"total({group.name})"), column)
        for i, (level, draws) in enumerate(
            zip(group.levels, np.moveaxis(effect, 2, 0), strict=True)
        ):
            yield str(level), overall + draws, _at(total, i)
