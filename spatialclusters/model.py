"""Design -> pm.Model in which every effect is a parameter.

Covariates are centered and scaled inside; what is recorded (``coefficient``,
``effect(...)``, ``sd(...)``) is in raw units. The overall intercept and the group
intercepts refer to covariates at their sample means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.linalg

from spatialclusters.design import Design, GroupDesign
from spatialclusters.priors import ResolvedPrior, resolve_priors
from spatialclusters.spec import ModelSpec, Prior
from spatialclusters.spec.distributions import Lkj, Normal, StudentT

if TYPE_CHECKING:
    import pymc as pm

__all__ = [
    "SIZE_CLASSES",
    "WIDE",
    "build_model",
    "class_sigma",
    "group_columns",
    "hyperparameter_coords",
    "model_priors",
    "noise_classes",
    "noise_clusters",
    "pair_labels",
    "relative_size",
    "scale_root",
    "sd_names",
    "size_classes",
]

SIZE_CLASSES = 32
"""Most classes of size in size-dependent noise."""

WIDE = 100.0
"""Standard deviation of fixed group effects, in response standard deviations."""


def model_priors(spec: ModelSpec, design: Design) -> dict[str, ResolvedPrior]:
    """Return every prior of the model in raw units, those of the file and the defaults."""
    return resolve_priors(
        spec,
        response_sd=float(design.y.std(ddof=1)),
        covariate_sd=dict(zip(design.terms, design.data["scale"].values.tolist(), strict=True)),
        groups={g.name: g.labels for g in design.groups if g.effect != "fixed"},
    )


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
    Fixed effects sum to zero over levels and have standard deviation :data:`WIDE`
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
        if spec.likelihood.family == "student-t":
            nu = 2.0 + _draw("nu - 2", priors["nu"].prior, positive=True)
            pm.Deterministic("nu", nu)
            pm.StudentT("y", nu=nu, mu=mean, sigma=sigma, observed=response, dims="obs")
        else:
            pm.Normal("y", mu=mean, sigma=sigma, observed=response, dims="obs")
    return model


def noise_clusters(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster code of every row and the labels of the clusters."""
    codes, labels = pd.factorize(design.data["row_cluster"].values.astype(object), sort=True)
    return codes, np.asarray(labels, dtype=object)


def size_classes(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Group rows by base-year size: the code of every row, and each class's relative size.

    With at most :data:`SIZE_CLASSES` different sizes each is a class; otherwise classes
    are equally wide on the log scale and stand for the geometric mean of their rows.
    Noise that depends on size depends on it through these classes, in both engines.

    Returns
    -------
    tuple
        Codes (obs,), and median size over the size of each class: large for small cells.
    """
    size = design.data["size"].values
    log_size = np.log(size)
    distinct = np.unique(log_size)
    if len(distinct) > SIZE_CLASSES:
        edges = np.linspace(distinct[0], distinct[-1], SIZE_CLASSES + 1)[1:-1]
        _, codes = np.unique(np.digitize(log_size, edges), return_inverse=True)
    else:
        codes = np.searchsorted(distinct, log_size)
    mean = np.bincount(codes, weights=log_size) / np.bincount(codes)
    return codes, np.median(size) / np.exp(mean)


def relative_size(design: Design) -> np.ndarray:
    """Return median base-year size over that of each row's class, shape (obs,)."""
    codes, relative = size_classes(design)
    return np.asarray(relative[codes])


def noise_classes(spec: ModelSpec, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise class of every row and the label or relative size of each class."""
    if spec.likelihood.scale == "by-cluster":
        return noise_clusters(design)
    if spec.likelihood.scale == "size":
        return size_classes(design)
    return np.zeros(design.n_rows, dtype=np.int64), np.ones(1)


def sd_names(group: GroupDesign) -> list[str]:
    """Return the parameter name of each column's standard deviation."""
    return [
        f"sd({group.name})" if label == "1" else f"sd({group.name}, {label})"
        for label in group.labels
    ]


def hyperparameter_coords(spec: ModelSpec, design: Design) -> dict[str, Any]:
    """Return the coordinates of groups, their columns and pairs of columns."""
    coords: dict[str, Any] = {}
    for group in design.groups:
        coords[group.name] = group.levels
        coords[f"column({group.name})"] = list(group.labels)
        if group.effect != "fixed" and len(group.labels) > 1:
            coords[f"pair({group.name})"] = pair_labels(group)
    if spec.likelihood.scale == "by-cluster":
        coords["noise_cluster"] = noise_clusters(design)[1]
    return coords


def pair_labels(group: GroupDesign) -> list[str]:
    """Label the correlations of a group's columns, row by row below the diagonal."""
    lower = zip(*np.tril_indices(len(group.labels), -1), strict=True)
    return [f"{group.labels[j]}, {group.labels[i]}" for i, j in lower]


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
            value[column] = _draw(f"raw({label})", prior, factor)
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


def scale_root(group: GroupDesign, factors: np.ndarray, priors: dict[str, ResolvedPrior]) -> Any:
    """Create sds and correlations; return A with A A' the covariance of standardized effects.

    ``factors`` are the standard deviations of the columns, 1 for the intercept; what is
    recorded is in raw units. A is lower triangular, (K, K).
    """
    import pymc as pm
    import pytensor.tensor as pt

    sds = pt.stack(
        [
            _draw(f"raw(sd({group.name}), {position})", priors[name].prior, factor, positive=True)
            for position, (name, factor) in enumerate(zip(sd_names(group), factors, strict=True))
        ]
    )
    pm.Deterministic(f"sd({group.name})", sds / factors, dims=f"column({group.name})")
    if len(factors) == 1:
        return pt.diag(sds)
    prior = priors[f"cor({group.name})"].prior
    assert isinstance(prior, Lkj)  # the spec allows no other
    root = pm.LKJCorr(f"root({group.name})", n=len(factors), eta=prior.eta)
    lower = np.tril_indices(len(factors), -1)
    pm.Deterministic(f"cor({group.name})", (root @ root.T)[lower], dims=f"pair({group.name})")
    return sds[:, None] * root


def group_columns(design: Design, group: GroupDesign) -> np.ndarray:
    """Return the columns that vary by group on the standardized scale, shape (obs, K)."""
    ones = np.ones(design.n_rows)
    return np.column_stack([ones if c < 0 else design.standardized[:, c] for c in group.columns])


def _information(design: Design, group: GroupDesign) -> np.ndarray:
    """Return Z'Z over a guess of the noise variance, averaged over levels, shape (K, K)."""
    columns = group_columns(design, group)
    return np.asarray(columns.T @ columns / (len(group.levels) * design.noise_guess))


def _rows(design: Design, group: GroupDesign, deviation: Any) -> Any:
    rows = deviation[group.codes]
    if group.columns == (-1,):
        return rows[:, 0]
    return (group_columns(design, group) * rows).sum(axis=1)


def class_sigma(spec: ModelSpec, design: Design, priors: dict[str, ResolvedPrior]) -> Any:
    """Create the noise parameters; return the standard deviation of every noise class."""
    import pymc as pm
    import pytensor.tensor as pt

    sigma = _draw("sigma", priors["sigma"].prior, positive=True)
    if spec.likelihood.scale == "by-cluster":
        spread = _draw("sd(log sigma)", priors["sd(log sigma)"].prior, positive=True)
        raw = pm.Normal("raw(log sigma)", 0.0, 1.0, dims="noise_cluster")
        return pm.Deterministic(
            "sigma(cluster)", sigma * pt.exp(spread * raw), dims="noise_cluster"
        )
    if spec.likelihood.scale == "size":
        share = _draw("size.share", priors["size.share"].prior)
        power = _draw("size.power", priors["size.power"].prior, positive=True)
        log_size = np.log(size_classes(design)[1])
        return sigma * pt.sqrt(1.0 - share + share * pt.exp(power * log_size))
    return pt.stack([sigma])


def _draw(name: str, prior: Prior, factor: float = 1.0, *, positive: bool = False) -> Any:
    """Create a scalar with a prior stated for ``variable / factor``."""
    import pymc as pm
    import pytensor.tensor as pt

    match prior.distribution:
        case "half_normal":
            return pm.HalfNormal(name, prior.sd * factor)
        case "half_student_t":
            return pm.HalfStudentT(name, nu=prior.nu, sigma=prior.sd * factor)
        case "exponential":
            return pm.Exponential(name, prior.rate / factor)
        case "beta":
            return pm.Beta(name, prior.a, prior.b)
        case "uniform":
            return pm.Uniform(name, prior.lower * factor, prior.upper * factor)
        case "flat":
            return pm.HalfFlat(name) if positive else pm.Flat(name)
        case "inverse_scale":
            variable = pm.HalfFlat(name)
            pm.Potential(f"prior of {name}", -pt.log(variable))
            return variable
        case "normal":
            return pm.Normal(name, prior.mean * factor, prior.sd * factor)
        case "student_t":
            return pm.StudentT(name, nu=prior.nu, mu=prior.mean * factor, sigma=prior.sd * factor)
    msg = f"prior of {name}: got {prior.distribution!r}, which no parameter of this kind can have."
    raise ValueError(msg)


def _distribution(prior: Normal | StudentT, factor: float) -> Any:
    """Return the prior of ``variable / factor`` as an unregistered distribution."""
    import pymc as pm

    if isinstance(prior, Normal):
        return pm.Normal.dist(prior.mean * factor, prior.sd * factor)
    return pm.StudentT.dist(nu=prior.nu, mu=prior.mean * factor, sigma=prior.sd * factor)
