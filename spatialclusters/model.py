"""Design -> pm.Model in which every effect is a parameter.

Covariates are centered and scaled inside; what is recorded (``coefficient``,
``effect(...)``, ``sd(...)``) is in raw units. The overall intercept and the group
intercepts refer to covariates at their sample means; without an overall intercept columns are
scaled only, and everything refers to covariates of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.linalg

from spatialclusters.design import Design, GroupDesign
from spatialclusters.errors import SpecError
from spatialclusters.parameters import (
    WIDE,
    class_sigma,
    dependence,
    draw_parameter,
    group_columns,
    hyperparameter_coords,
    model_priors,
    noise_classes,
    scale_root,
)
from spatialclusters.priors import ResolvedPrior
from spatialclusters.processes import FIELDS, Outcome, outcome_process
from spatialclusters.spec import ModelSpec
from spatialclusters.spec.distributions import Normal, StudentT

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["LIKELIHOOD", "build_model"]

LIKELIHOOD = "log p(y | effects, theta)"
"""Name of the potential that is the likelihood where the outcome has a spatial process."""


def build_model(spec: ModelSpec, design: Design) -> pm.Model:
    r"""Build the full hierarchical model.

    .. math::

        y_n = \alpha + x_n'\beta + \sum_g z_{gn}' b_{g, j_g(n)} + \epsilon_n,
        \quad b_{gj} \sim N(0, S_g R_g S_g), \quad \epsilon_n \sim N(0, \sigma_n^2)

    with :math:`R_g` from an LKJ prior where a group has several columns, and
    :math:`\sigma_n` constant, by cluster (:math:`\sigma e^{\tau z_c}`) or by size
    (:math:`\sigma \sqrt{1 - s + s (\tilde E / E_n)^g}`, where :math:`\sigma` is the
    noise of a row of median base-year size :math:`\tilde E`, s is ``size.share``,
    g is ``size.power`` and sizes enter by class (:func:`size_classes`): the form :math:`\sigma_\infty \sqrt{1 + k E^{-g}}` with
    parameters that mean something and hardly depend on each other).
    Effects with a spatial structure have the covariance of a
    :class:`~spatialclusters.processes.Field` instead, and the noise of an outcome process
    is that of :class:`~spatialclusters.processes.Outcome`. Fixed effects sum to zero over levels and have standard deviation :data:`WIDE`
    times that of the response. Effects are sampled in a parametrization between
    centered and non-centered that follows the information in the data.

    Parameters
    ----------
    spec
        Priors, likelihood and how each group is treated.
    design
        Arrays with N rows, p covariates and J_g levels of each group.

    Returns
    -------
    pymc.Model
        Variables ``intercept``, ``coefficient`` (term), ``sd(g)`` (column),
        ``cor(g)`` (pair), ``effect(g)`` (level, column), ``sigma`` and what the
        likelihood adds.

    Raises
    ------
    SpecError
        The weights are estimated.

    References
    ----------
    Gelman et al. (2013), Bayesian Data Analysis, chapter 15;
    Lewandowski, Kurowicka and Joe (2009), doi:10.1016/j.jmva.2009.04.008.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2.0, 2.5, 4.0],
    ...                       "x": [0.0, 1.0, 2.0, 3.0]})
    >>> spec = parse_spec('name = "line"\nformula = "y ~ x"')
    >>> model = build_model(spec, build_design(spec, read_panel(table)))
    >>> [variable.name for variable in model.free_RVs]
    ['raw(intercept)', 'raw(x)', 'sigma']
    """
    import pymc as pm

    if design.psi is not None:
        msg = "engine full: got weights that are estimated; expected given ones."
        raise SpecError(f"{msg} Use engine collapsed, or give weights that are fixed.")
    priors = model_priors(spec, design)
    coords = {"obs": np.arange(design.n_rows), "term": list(design.terms)}
    with pm.Model(coords=coords | hyperparameter_coords(spec, design)) as model:
        effects = {group.name: _group_effect(design, group, priors) for group in design.groups}
        mean = _fixed_part(design, priors, effects)
        for group in design.groups:
            mean = mean + _rows(design, group, effects[group.name].deviation)
        classes = class_sigma(spec, design, priors)
        codes, _ = noise_classes(spec, design)
        sigma = classes[codes] if codes.any() else classes[0]
        response = pm.Data("response", design.y, dims="obs")
        shape = {}
        if spec.likelihood.family == "student-t":
            nu = 2.0 + draw_parameter("nu - 2", priors["nu"].prior, positive=True)
            shape["nu"] = pm.Deterministic("nu", nu)
        noise = pm.StudentT if shape else pm.Normal
        space = outcome_process(spec, design)
        if space is None:
            noise("y", **shape, mu=mean, sigma=sigma, observed=response, dims="obs")
        else:
            values = {
                name: dependence(name, priors[name].prior, space.support)
                for name in space.parameters
            }
            filtered, log_jacobian = _filtered(space, values, response, mean)
            density = pm.logp(noise.dist(**shape, mu=0.0, sigma=sigma), filtered)
            pm.Potential(LIKELIHOOD, density.sum() + log_jacobian)
    return model


def _filtered(space: Outcome, values: dict[str, Any], response: Any, mean: Any) -> tuple[Any, Any]:
    """Return the noise behind the response and the log Jacobian of the filters."""
    import jax.numpy as jnp
    from pytensor import wrap_jax

    links = space.lag.matrix.tocoo()
    rows, columns, weights = (jnp.asarray(x) for x in (links.row, links.col, links.data))

    def lag(x: Any) -> Any:
        return jnp.zeros_like(x).at[rows].add(weights * x[columns])

    def jacobian(*parameters: Any) -> Any:
        return space.log_jacobian(dict(zip(values, parameters, strict=True)), jnp)

    lagged, log_jacobian = wrap_jax(lag), wrap_jax(jacobian)
    error = response - mean
    if "rho" in values:
        error = error - values["rho"] * lagged(response)
    if "lambda" in values:
        error = error - values["lambda"] * lagged(error)
    return error, log_jacobian(*values.values())


@dataclass(frozen=True)
class _Effect:
    """Effects of a group on the standardized scale.

    ``shifts`` is the part that no data can tell from fixed coefficients, by column
    (-1 the intercept); ``deviation``, (J, K), is the rest.
    """

    shifts: dict[int, Any]
    deviation: Any


def _fixed_part(
    design: Design, priors: dict[str, ResolvedPrior], effects: dict[str, _Effect]
) -> Any:
    """Return intercept and covariates' contribution to the mean, shape (obs,).

    The data know the sum of a coefficient and the shifts of its column much better
    than either, so the sum is what is sampled.
    """
    import pymc as pm
    import pytensor.tensor as pt

    labels = ({-1: "intercept"} if design.intercept else {}) | dict(enumerate(design.terms))
    total: dict[int, Any] = {}
    value: dict[int, Any] = {}
    for column, label in labels.items():
        factor = 1.0 if column < 0 else float(design.data["scale"].values[column])
        shifts = [e.shifts[column] for e in effects.values() if column in e.shifts]
        prior = priors[label].prior
        if shifts and isinstance(prior, Normal | StudentT):
            total[column] = pm.Flat(f"raw(total {label})")
            value[column] = total[column] - sum(shifts)
            density = pm.logp(_distribution(prior, factor), value[column])
            pm.Potential(f"prior of {label}", density)
        else:
            value[column] = draw_parameter(f"raw({label})", prior, factor)
            total[column] = sum(shifts, start=value[column])
    mean: Any = 0.0
    if design.intercept:
        pm.Deterministic("intercept", value[-1])
        mean = total[-1]
    if design.terms:
        standardized = pt.stack([value[k] for k in range(len(design.terms))])
        pm.Deterministic("coefficient", standardized / design.data["scale"].values, dims="term")
        mean = mean + design.standardized @ pt.stack([total[k] for k in range(len(design.terms))])
    return mean


def _group_effect(design: Design, group: GroupDesign, priors: dict[str, ResolvedPrior]) -> _Effect:
    r"""Create a group's effects on the standardized scale.

    With :math:`[1, M] = Q R`, M the covariates that are constant within levels, the
    effects are :math:`b = Q c`; the rows of c are again :math:`N(0, A A')`. The first
    rows of c shift fixed coefficients (:func:`_fixed_part`). The others are
    :math:`A v` with :math:`v = L^{-T} w`, :math:`L L' = I + A' \bar P A` and
    :math:`\bar P` the information that an average level has of its effects. What is
    sampled is w: non-centered where the data say little, centered where they say
    much, so that neither funnel appears (Papaspiliopoulos, Roberts and Skold 2007,
    doi:10.1214/088342307000000014).
    """
    import pymc as pm
    import pytensor.tensor as pt

    dims = (group.name, f"column({group.name})")
    if group.effect == "fixed":
        wide = WIDE * float(design.y.std(ddof=1))
        draw = pm.ZeroSumNormal if design.intercept else pm.Normal
        effect = draw(f"fixed({group.name})", sigma=wide, dims=group.name)[:, None]
        pm.Deterministic(f"effect({group.name})", effect, dims=dims)
        return _Effect({}, effect)
    factors = np.array([1.0 if c < 0 else design.data["scale"].values[c] for c in group.columns])
    root = scale_root(group, factors, priors)
    if group.structure != "iid":
        return _surface(design, group, priors, root[0, 0])
    columns, (reflectors, upper) = _level_basis(design, group)
    levels, width, kept = len(group.levels), len(factors), len(columns)
    raw = pm.Normal(f"raw({group.name})", 0.0, 1.0, shape=(width, levels - kept))
    lower = pt.linalg.cholesky(pt.eye(width) + root.T @ _information(design, group) @ root)
    whitened = pt.linalg.solve_triangular(lower.T, raw, lower=False)
    # the prior is iid normal in the whitened effects; that of raw is taken back
    pm.Potential(f"prior of effect({group.name})", 0.5 * ((raw**2).sum() - (whitened**2).sum()))
    log_scale = pt.log(pt.diag(lower)).sum()
    pm.Potential(f"jacobian of effect({group.name})", (kept - levels) * log_scale)
    rest = root @ whitened
    if not kept:
        pm.Deterministic(f"effect({group.name})", rest.T / factors, dims=dims)
        return _Effect({}, rest.T)
    first = root @ pm.Normal(f"raw(first {group.name})", 0.0, 1.0, shape=(width, kept))
    effect = _reflected(reflectors, pt.concatenate([first, rest], axis=1))
    pm.Deterministic(f"effect({group.name})", effect.T / factors, dims=dims)
    shifts, absorbed = _shifts(group, columns, upper, first)
    deviation = _reflected(reflectors, pt.concatenate([first * (1.0 - absorbed), rest], axis=1))
    return _Effect(shifts, deviation.T)


def _surface(
    design: Design, group: GroupDesign, priors: dict[str, ResolvedPrior], sd: Any
) -> _Effect:
    """Create effects that neighbors share, as a root of their covariance times normals."""
    import jax.numpy as jnp
    import pymc as pm
    from pytensor import wrap_jax

    field, graph = FIELDS[group.structure], design.graph(group)
    level = pd.Series(graph.piece).groupby(graph.piece).cumcount().to_numpy()
    shape = int(graph.piece.max()) + 1, int(level.max()) + 1
    present = np.zeros(shape, dtype=bool)
    present[graph.piece, level] = True
    adjacency, links = np.zeros((*shape, shape[1])), graph.adjacency.tocoo()
    adjacency[graph.piece[links.row], level[links.row], level[links.col]] = links.data
    arrays = {name: jnp.asarray(x) for name, x in field.prepare(adjacency, present).items()}
    parameters = []
    if field.parameter is not None:
        name = f"{field.parameter}({group.name})"
        parameters.append(dependence(name, priors[name].prior, field.support))

    def effects(normals: Any, *parameter: Any) -> Any:
        padded = jnp.zeros(shape).at[graph.piece, level].set(normals)
        root = field.root(arrays, *(parameter or (None,)))
        return jnp.einsum("kij,kj->ki", root, padded)[graph.piece, level]

    raw = pm.Normal(f"raw({group.name})", 0.0, 1.0, shape=len(group.levels))
    effect = (sd * wrap_jax(effects)(raw, *parameters))[:, None]
    dims = (group.name, f"column({group.name})")
    pm.Deterministic(f"effect({group.name})", effect, dims=dims)
    return _Effect({}, effect)


def _level_basis(
    design: Design, group: GroupDesign
) -> tuple[list[int], tuple[np.ndarray, np.ndarray]]:
    """Return the fixed columns a group's effects can mimic, and the QR of their level values.

    These are the intercept (-1) and, for group intercepts, covariates that are
    constant within levels. Q comes as Householder vectors scaled so that each
    reflection is ``x - v (v'x)``.
    """
    _, first_row = np.unique(group.codes, return_index=True)
    values = design.standardized[first_row]
    same = np.isclose(design.standardized, values[group.codes], rtol=0.0, atol=1e-9).all(axis=0)
    columns = [-1] if design.intercept or -1 not in group.columns else []
    columns += np.flatnonzero(same).tolist() if -1 in group.columns else []
    columns = columns[: len(group.levels) - 1]
    if not columns:
        return [], (np.empty((0, 0)), np.empty((0, 0)))
    ones = np.ones(len(group.levels))
    matrix = np.column_stack([ones if c < 0 else values[:, c] for c in columns])
    (packed, tau), upper = scipy.linalg.qr(matrix, mode="raw")
    vectors = np.tril(packed, -1)[:, : len(columns)] + np.eye(len(matrix), len(columns))
    return columns, (vectors * np.sqrt(tau), upper[: len(columns)])


def _reflected(reflectors: np.ndarray, rows: Any) -> Any:
    """Multiply each row of (K, J) by Q, reflection by reflection."""
    for vector in reflectors.T[::-1]:
        rows = rows - (rows @ vector)[:, None] * vector
    return rows


def _shifts(
    group: GroupDesign, columns: list[int], upper: np.ndarray, first: Any
) -> tuple[dict[int, Any], np.ndarray]:
    """Return what the first rows add to fixed coefficients, and which of them, (K, kept)."""
    absorbed = np.zeros((len(group.columns), len(columns)))
    shifts: dict[int, Any] = {}
    inverse = np.linalg.inv(upper)
    for k, column in enumerate(group.columns):
        if column < 0:
            absorbed[k] = 1.0
            shifts |= {c: inverse[i] @ first[k] for i, c in enumerate(columns)}
        elif columns[0] < 0:  # a slope's mean over levels shifts the slope's coefficient
            absorbed[k, 0] = 1.0
            shifts[column] = first[k, 0] / upper[0, 0]
    return shifts, absorbed


def _information(design: Design, group: GroupDesign) -> np.ndarray:
    """Return Z'Z over a guess of the noise variance, averaged over levels, shape (K, K)."""
    columns = group_columns(design, group)
    return np.asarray(columns.T @ columns / (len(group.levels) * design.noise_guess))


def _rows(design: Design, group: GroupDesign, deviation: Any) -> Any:
    rows = deviation[group.codes]
    if group.columns == (-1,):
        return rows[:, 0]
    return (group_columns(design, group) * rows).sum(axis=1)


def _distribution(prior: Normal | StudentT, factor: float) -> Any:
    """Return the prior of ``variable / factor`` as an unregistered distribution."""
    import pymc as pm

    if isinstance(prior, Normal):
        return pm.Normal.dist(prior.mean * factor, prior.sd * factor)
    return pm.StudentT.dist(nu=prior.nu, mu=prior.mean * factor, sigma=prior.sd * factor)
