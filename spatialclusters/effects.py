"""Draws -> what an economist reads: coefficients, convergence, specialization.

Everything is computed draw by draw, never at posterior means, and comes back in the
tidy frame of :mod:`spatialclusters.estimates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.columns import within
from spatialclusters.design import Design, absorbed_groups
from spatialclusters.errors import FitError
from spatialclusters.estimates import estimates_frame
from spatialclusters.families import summarize_levels
from spatialclusters.processes import dependence_names
from spatialclusters.result import Fit, once_per_fit
from spatialclusters.spillovers import term_impacts
from spatialclusters.summaries import at_level, rescaled, scaled, summarize_draws, unit_per_term

__all__ = [
    "annual_points",
    "coefficients",
    "convergence",
    "group_effects",
    "half_life",
    "specialization",
    "speed",
]

_LEVELS: Final = 256
"""Levels of a group whose draws are in memory at a time."""


@once_per_fit
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


@once_per_fit
def convergence(fit: Fit) -> pd.DataFrame:
    r"""Return total change, speed and half-life of convergence, overall and by cluster.

    With B the change over T years that goes with one more log point at the
    start, the speed is :math:`-\ln(1 + B)/T` per year and the half-life
    :math:`\ln 2` over the speed. Both are summarized by medians; R-hat and
    effective sample sizes are those of B. With spatial lags B is the direct impact, of a
    higher start of one region only, and group ``common`` the total, of a higher start
    everywhere.

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
    for group, draws, moments in term_impacts(fit, term):
        total = draws * scale
        family = group not in ("overall", "common")
        base = _identity(fit, term, group)
        change = summarize_draws(total, family=family, moments=scaled(moments, scale))
        unit = f"log points over {years:g} {'year' if years == 1 else 'years'} per log point"
        rows.append(base | {"effect": "change", "unit": unit} | change)
        for effect, values, unit in (
            ("speed", speed(total, years), "per year"),
            ("half_life", half_life(total, years), "years"),
        ):
            summary = summarize_draws(values, point="median", judged=change, family=family)
            rows.append(base | {"effect": effect, "unit": unit} | summary)
    return estimates_frame(rows)


@once_per_fit
def specialization(fit: Fit) -> pd.DataFrame:
    """Return what the strength terms do to growth, overall and by cluster.

    For each term of ``[roles] specialization``: points of annual growth per
    standard deviation of the term (raw, and within the group effects), from its
    25th to its 75th percentile, and, for pure logs, per 10 % more strength. For a
    response that is not growth the unit is that of the response. With spatial lags these
    are direct impacts, and group ``common`` is what happens if the term rises everywhere.

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
        for group, draws, moments in term_impacts(fit, term):
            family, base = group not in ("overall", "common"), _identity(fit, term, group)
            summary = summarize_draws(draws, family=family, moments=moments)
            rows += [
                base | {"effect": effect, "unit": unit} | rescaled(summary, points * size)
                for effect, size in sizes.items()
            ]
    return estimates_frame(rows)


@once_per_fit
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
    position, levels = known[group].labels.index(column), known[group].levels
    base = _identity(fit, column, "") | {"effect": "coefficient"}
    base["unit"] = str(fit.design.data.attrs["unit"]) if column == "1" else unit_per_term(fit)
    name, rows = f"effect({group})", []
    for start in range(0, len(levels), _LEVELS):
        part = slice(start, start + _LEVELS)
        at = {group: part, f"column({group})": position}
        found = summarize_levels(fit.draws(name, at), fit.moments(name, at))
        rows += [base | {"group": str(g)} | row for g, row in zip(levels[part], found, strict=True)]
    return estimates_frame(rows)


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


def _identity(fit: Fit, term: str, group: str) -> dict[str, Any]:
    return {"model": fit.spec.name, "estimator": "posterior", "term": term, "group": group}


def _coefficient_rows(fit: Fit) -> Iterator[dict[str, Any]]:
    response, per_unit = str(fit.design.data.attrs["unit"]), unit_per_term(fit)
    dependence = [*dependence_names(fit.spec), "delta", "share"]
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
            | summarize_draws(fit.draws("coefficient")[..., i], moments=at_level(moments, i))
        )
    for name in map(str, posterior.data_vars):
        if name in ("intercept", "coefficient") or name.startswith("effect("):
            continue
        values = fit.draws(name)
        labels = [""] if values.ndim == 2 else posterior[posterior[name].dims[2]].values
        effect = "correlation" if name.startswith("cor(") else "sd"
        effect = "spatial" if name in dependence else effect
        number = effect != "sd" or name.startswith(("size.", "nu", "sd(log sigma)"))
        for i, label in enumerate(labels):
            draws = values if values.ndim == 2 else values[..., i]
            slope = name.startswith("sd(") and label not in ("", "1")
            unit = "" if number else per_unit if slope else response
            constant = name.startswith("sd(") and label == "1"
            yield (
                _identity(fit, name, "" if constant else str(label))
                | {"effect": effect, "unit": unit}
                | summarize_draws(draws)
            )
