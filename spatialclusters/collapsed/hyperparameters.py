"""pm.Model over the hyperparameters only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialclusters.collapsed.density import log_marginal_likelihood
from spatialclusters.collapsed.layout import Theta, lay_out
from spatialclusters.collapsed.problem import column_factors, mixed_model
from spatialclusters.collapsed.statistics import statistics
from spatialclusters.design import Design
from spatialclusters.parameters import (
    WIDE,
    class_sigma,
    dependence,
    hyperparameter_coords,
    model_priors,
    scale_root,
    weights_parameter,
)
from spatialclusters.processes import dependence_names, supports
from spatialclusters.spec import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["build_collapsed_model", "hyperparameter_model", "theta_of"]


def hyperparameter_model(spec: ModelSpec, design: Design) -> tuple[pm.Model, list[Any]]:
    """Build the priors of the hyperparameters, without a likelihood.

    Returns
    -------
    tuple
        The model, and the symbolic values that make up theta: the standard deviation of
        every noise class, the root of each group that is not fixed, the parameters of
        spatial dependence in the order of :func:`~spatialclusters.processes.supports`, and that
        of an estimated W.
    """
    import pymc as pm

    priors = model_priors(spec, design)
    with pm.Model(coords=hyperparameter_coords(spec, design)) as model:
        roots = [
            scale_root(group, column_factors(design, group), priors)
            for group in design.groups
            if group.effect != "fixed"
        ]
        sigma = class_sigma(spec, design, priors)
        spatial = [
            dependence(name, priors[name].prior, support)
            for name, support in supports(spec, design).items()
        ]
        if design.psi is not None:
            prior = priors[design.psi.parameter].prior
            spatial.append(weights_parameter(design.psi, prior))
    return model, [sigma, *roots, *spatial]


def theta_of(spec: ModelSpec, design: Design, values: list[Any]) -> Theta:
    """Name the values of theta, and add the constant roots of fixed effects."""
    free = [group.name for group in design.groups if group.effect != "fixed"]
    wide = np.full((1, 1), WIDE * float(design.y.std(ddof=1)))
    roots: Mapping[str, Any] = dict(zip(free, values[1:], strict=False))
    names = dependence_names(spec) + ([] if design.psi is None else [design.psi.parameter])
    spatial = dict(zip(names, values[1 + len(free) :], strict=True))
    return Theta(values[0], {g.name: roots.get(g.name, wide) for g in design.groups}, spatial)


def build_collapsed_model(spec: ModelSpec, design: Design) -> pm.Model:
    r"""Build the model with coefficients and effects integrated out exactly.

    .. math::

        p(\theta \mid y) \propto p(\theta)\, p(y \mid \theta), \quad
        y \mid \theta \sim N\Big(X m, \; X S X' + \sum_g Z_g (I \otimes A_g A_g') Z_g'
        + \mathrm{diag}(\sigma_n^2)\Big)

    with prior means m and covariance S of the coefficients. The likelihood is the
    potential ``log p(y | theta)``; the priors are those of
    :func:`spatialclusters.model.build_model`, and so is the posterior of theta.

    Parameters
    ----------
    spec, design
        As for the full model; the likelihood must be Gaussian.

    Returns
    -------
    pymc.Model
        Variables ``sd(g)`` (column), ``cor(g)`` (pair), ``sigma``, what the noise adds,
        the parameters of spatial dependence, and ``delta`` or ``share`` of an estimated W.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2.0, 2.5, 4.0],
    ...                       "x": [0.0, 1.0, 2.0, 3.0]})
    >>> spec = parse_spec('name = "line"\nformula = "y ~ x"')
    >>> model = build_collapsed_model(spec, build_design(spec, read_panel(table)))
    >>> [variable.name for variable in model.free_RVs]
    ['sigma']
    """
    import jax
    import pymc as pm
    from pytensor import wrap_jax

    jax.config.update("jax_enable_x64", True)
    layout = lay_out(mixed_model(spec, design))
    sums = statistics(layout, design.y)
    model, values = hyperparameter_model(spec, design)

    def density(*theta: Any) -> Any:
        return log_marginal_likelihood(layout, sums, theta_of(spec, design, list(theta)))

    with model:
        pm.Potential("log p(y | theta)", wrap_jax(density)(*values))
    return model
