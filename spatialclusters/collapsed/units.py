"""Recovered values on the standardized scale -> the posterior's names and raw units."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from spatialclusters.collapsed.problem import coefficient_scales, column_factors
from spatialclusters.collapsed.recovery import Recovered, Values
from spatialclusters.design import Design
from spatialclusters.spec import ModelSpec

__all__ = ["raw_moments", "raw_values"]


def raw_values(spec: ModelSpec, design: Design, values: Values) -> dict[str, Any]:
    """Return ``intercept``, ``coefficient`` and ``effect(g)`` in raw units."""
    mean, sd, _ = coefficient_scales(spec, design)
    out = _coefficients(design, jnp.asarray(mean) + sd * values.coefficients)
    for group in design.groups:
        if group.name in values.effects:
            factors = column_factors(design, group)
            out[f"effect({group.name})"] = values.effects[group.name] / factors
    return out


def raw_moments(
    spec: ModelSpec, design: Design, recovered: Recovered
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return conditional means and variances in raw units.

    Besides coefficients and effects there is ``total(g)``, coefficient plus effect, for
    every column of a group that is also in the fixed part.
    """
    _, sd, _ = coefficient_scales(spec, design)
    means = raw_values(spec, design, recovered.mean)
    variances = _coefficients(design, sd**2 * recovered.variance.coefficients, power=2)
    coefficient_mean = np.zeros(len(sd)) + coefficient_scales(spec, design)[0]
    coefficient_mean = jnp.asarray(coefficient_mean) + sd * recovered.mean.coefficients
    for group in design.groups:
        if group.name not in recovered.mean.effects:
            continue
        factors = column_factors(design, group)
        effect = recovered.variance.effects[group.name]
        variances[f"effect({group.name})"] = effect / factors**2
        if not design.intercept and -1 in group.columns:
            continue
        at = np.array([column + int(design.intercept) for column in group.columns])
        both = recovered.covariance.effects[group.name][:, np.arange(len(at)), at] * sd[at]
        own = sd[at] ** 2 * recovered.variance.coefficients[at]
        total = coefficient_mean[at] + recovered.mean.effects[group.name]
        means[f"total({group.name})"] = total / factors
        variances[f"total({group.name})"] = (own + 2.0 * both + effect) / factors**2
    return means, variances


def _coefficients(design: Design, values: Any, power: int = 1) -> dict[str, Any]:
    """Split the intercept from the coefficients, and divide these by their scale."""
    first = int(design.intercept)
    out = {"intercept": values[0]} if first else {}
    if design.terms:
        out["coefficient"] = values[first:] / design.data["scale"].values ** power
    return out
