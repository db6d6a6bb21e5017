"""Spec and design -> the linear mixed model that the elimination sees."""

from __future__ import annotations

import numpy as np

from spatialclusters.collapsed.layout import BlendedColumns, Problem
from spatialclusters.collapsed.plan import Factor, Surface
from spatialclusters.design import Design, GroupDesign
from spatialclusters.parameters import group_columns, model_priors, noise_classes
from spatialclusters.processes.fields import FIELDS
from spatialclusters.processes.outcome import outcome_process
from spatialclusters.spec import ModelSpec
from spatialclusters.spec.distributions import Flat, Normal

__all__ = ["coefficient_scales", "column_factors", "mixed_model", "why_not_collapsed"]


def why_not_collapsed(spec: ModelSpec) -> str | None:
    """Return what keeps a model from being collapsed, or None.

    Only Gaussian pieces integrate out: the likelihood, and the priors of coefficients.
    """
    if spec.likelihood.family != "gaussian":
        return f"likelihood.family = {spec.likelihood.family!r} is not Gaussian"
    formula = spec.parsed_formula
    stated = (
        {**spec.covariate_labels, "intercept": ""} if formula.intercept else spec.covariate_labels
    )
    for name, prior in spec.priors.items():
        if name in stated and not isinstance(prior, Normal | Flat):
            return f"the prior of {name} is {prior.describe()}, not normal"
    return None


def coefficient_scales(
    spec: ModelSpec, design: Design
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return prior mean and sd of standardized coefficients, and which priors are proper.

    Flat priors get mean 0 and sd 1. The intercept comes first where there is one.
    """
    priors = model_priors(spec, design)
    names = (["intercept"] if design.intercept else []) + list(design.terms)
    scales = np.concatenate([np.ones(int(design.intercept)), design.data["scale"].values])
    mean, sd, proper = np.zeros(len(names)), np.ones(len(names)), np.zeros(len(names), dtype=bool)
    for k, (name, scale) in enumerate(zip(names, scales, strict=True)):
        prior = priors[name].prior
        if isinstance(prior, Normal):
            mean[k], sd[k], proper[k] = prior.mean * scale, prior.sd * scale, True
    return mean, sd, proper


def column_factors(design: Design, group: GroupDesign) -> np.ndarray:
    """Return the standard deviation of each column of a group, 1 for the intercept."""
    scale = design.data["scale"].values
    return np.array([1.0 if column < 0 else scale[column] for column in group.columns])


def mixed_model(spec: ModelSpec, design: Design) -> Problem:
    """Lay out coefficients, group factors and noise classes over the rows."""
    mean, sd, proper = coefficient_scales(spec, design)
    ones = np.ones((design.n_rows, int(design.intercept)))
    X = np.column_stack([ones, design.standardized])
    codes, labels = noise_classes(spec, design)
    factors = tuple(
        Factor(
            group.name,
            group.codes,
            len(group.levels),
            group_columns(design, group),
            # without an intercept fixed effects are free, as in the full model
            fixed=group.effect == "fixed" and design.intercept,
            surface=surface(design, group),
        )
        for group in design.groups
    )
    space = outcome_process(spec, design)
    shift, blend = X @ mean, None
    if design.psi is not None:
        at = [position + int(design.intercept) for position in design.blended]
        fixed = np.setdiff1d(np.arange(X.shape[1]), at)
        shift = X[:, fixed] @ mean[fixed]
        columns = np.zeros((len(design.psi.labels), design.n_rows, 0))
        if at:
            center, scale = (design.data[name].values for name in ("center", "scale"))
            inside = list(design.blended)
            columns = (design.data["X_blend"].values - center[inside]) / scale[inside] * sd[at]
        blend = BlendedColumns(design.psi, tuple(at), columns, mean[at] / sd[at])
    return Problem(X * sd, shift, proper, factors, codes, len(labels), space, blend)


def surface(design: Design, group: GroupDesign) -> Surface | None:
    """Return the spatial structure of a group's effects."""
    if group.structure == "iid":
        return None
    field = FIELDS[group.structure]
    parameter = f"{field.parameter}({group.name})" if field.parameter else None
    return Surface(field, design.graph(group), parameter)
