"""Design -> the linear mixed model of its groups by restricted maximum likelihood.

With flat priors the collapsed density is the restricted likelihood: what is maximized here
is what NUTS samples, without the priors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from spatialclusters.collapsed.layout import Layout, Theta, lay_out
from spatialclusters.collapsed.problem import column_factors, mixed_model
from spatialclusters.collapsed.statistics import statistics
from spatialclusters.design import Design, GroupDesign
from spatialclusters.errors import FitError
from spatialclusters.estimates import estimates_frame
from spatialclusters.parameters import WIDE, pair_labels
from spatialclusters.result import Fit
from spatialclusters.wald import CI_PROB, Coefficient, coefficient_rows, from_standardized

if TYPE_CHECKING:
    from spatialclusters.collapsed.layout import Problem
    from spatialclusters.spec import ModelSpec

__all__ = ["Maximum", "MixedModel", "fit_reml", "restricted_maximum"]

_LEAST: Final = 1e-3  # sd over sigma: below, precisions lose digits and sds say nothing
_STEEP: Final = 1e-2  # largest slope of the criterion at its minimum, a chi-squared quantity
_STEP: Final = 1e-4  # of central differences of the gradient
_STEPS: Final = 1000


@dataclass(frozen=True, eq=False)
class MixedModel:
    """A mixed model by restricted maximum likelihood (REML) on the rows of a design.

    Attributes
    ----------
    estimates
        Tidy frame; ``estimator`` is ``"REML"``.
    notes
        What was simplified, and which variance components are zero, in sentences.
    criterion
        -2 log restricted likelihood, in raw units of the columns as lme4 has it.
    singular
        Standard deviations that are zero, and groups whose correlations are at their end.
    groups
        Group effects: name and what they are taken for.
    rows_digest, response, unit, weights_digest
        What a comparison must agree on.
    n_rows
        Rows of the design.
    weights
        Kind of W, or None.
    """

    estimates: pd.DataFrame
    notes: tuple[str, ...]
    criterion: float
    singular: tuple[str, ...]
    groups: tuple[str, ...]
    rows_digest: str
    n_rows: int
    response: str
    unit: str
    weights: str | None
    weights_digest: str | None


class Maximum(NamedTuple):
    """Where the restricted likelihood is highest.

    ``zero`` holds for each factor which diagonal entries of its root are zero, (K,);
    coefficients have their estimates and covariance on the scale of the problem's columns.
    """

    theta: Theta
    zero: Mapping[str, np.ndarray]
    log_likelihood: float
    coefficients: np.ndarray
    covariance: np.ndarray


def fit_reml(source: Fit | Design, *, spec: ModelSpec | None = None) -> MixedModel:
    r"""Estimate the model's mixed model as lme4 does, by restricted maximum likelihood.

    .. math::

        y = X b + \sum_g Z_g u_g + e, \quad u_{gj} \sim N(0, \Sigma_g), \quad
        e \sim N(0, \sigma^2 I)

    with the covariates, groups and slopes of the model: group means are covariates, effects
    that are fixed have a standard deviation of a hundred times that of the response. The
    restricted likelihood is :math:`\int p(y \mid b, \Sigma, \sigma)\, db`. It is maximized
    over :math:`\sigma` and the roots of :math:`\Sigma_g / \sigma^2`, whose diagonal is at
    least 0. Errors of coefficients take the variance components as known. Whatever the
    model says of them, noise is Gaussian and constant, and levels are independent.

    Parameters
    ----------
    source
        A fit, or a design.
    spec
        The model; by default that of the fit.

    Returns
    -------
    MixedModel
        Coefficients as in :func:`fit_frequentist`, with z intervals; ``sd(g)``, ``cor(g)``
        and ``sigma`` as in a fit, without errors.

    Raises
    ------
    FitError
        A design without its model, a model without group effects or with a spatial process
        of the outcome, or a likelihood without a maximum.

    References
    ----------
    Patterson and Thompson (1971), doi:10.1093/biomet/58.3.545. Bates, Maechler, Bolker and
    Walker (2015), doi:10.18637/jss.v067.i01.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("aabbcc"), "y": [1.0, 2, 4, 5, 7, 8.0]})
    >>> table["industry"] = table["cluster"] = list("ijijij")
    >>> spec = parse_spec('formula = "y ~ 1 + (1 | region)"')
    >>> result = fit_reml(build_design(spec, read_panel(table)), spec=spec)
    >>> result.estimates.set_index("term")["estimate"].round(3).to_dict()
    {'intercept': 4.5, 'sd(region)': 2.958, 'sigma': 0.707}
    """
    design = source.design if isinstance(source, Fit) else source
    spec = source.spec if spec is None and isinstance(source, Fit) else spec
    problem = _problem(design, spec)
    assert spec is not None  # or the problem was refused
    layout = lay_out(problem)
    wide = np.full((1, 1), WIDE * float(design.y.std(ddof=1)))
    fixed = {group.name: wide for group in design.groups if group.effect == "fixed"}
    found = restricted_maximum(layout, design.y, fixed)
    rows: list[dict[str, Any]] = []
    singular: list[str] = []
    for coefficient in _coefficients(design, found):
        rows += coefficient_rows(design, spec, "REML", coefficient, point="REML")
    base = {"model": spec.name, "estimator": "REML", "point": "REML"}
    for group in design.groups:
        if group.name not in fixed:
            more, at_end = _components(design, group, found)
            rows += [base | row for row in more]
            singular += at_end
    unit = str(design.data.attrs["unit"])
    sigma = {"term": "sigma", "effect": "sd", "unit": unit, "estimate": float(found.theta.sigma[0])}
    # Lebesgue measure of raw coefficients: that of standardized ones over the product of scales
    height = found.log_likelihood - float(np.log(design.data["scale"].values).sum())
    return MixedModel(
        estimates=estimates_frame([*rows, base | {"group": ""} | sigma]),
        notes=tuple(_notes(spec, design, singular)),
        criterion=-2.0 * height,
        singular=tuple(singular),
        groups=tuple(f"{group.name} {group.effect}" for group in design.groups),
        rows_digest=design.rows_digest,
        n_rows=design.n_rows,
        response=str(design.data.attrs["response"]),
        unit=unit,
        weights=design.weights.kind if design.weights else None,
        weights_digest=design.weights.digest if design.weights else None,
    )


def restricted_maximum(
    layout: Layout, y: np.ndarray, fixed: Mapping[str, np.ndarray] | None = None
) -> Maximum:
    r"""Maximize the collapsed density with flat coefficients over its variance components.

    The coordinates are :math:`\ln \sigma` and the entries of the roots over :math:`\sigma`,
    in which the criterion is even in each standard deviation and has a minimum at zero, not
    at minus infinity, where a component vanishes.

    Parameters
    ----------
    layout
        Of a problem with one noise class, flat coefficients and no spatial process.
    y
        Response of the N rows.
    fixed
        Roots that are held where they are, by factor.

    Raises
    ------
    FitError
        The search ended where the likelihood is still rising.
    """
    import jax
    import jax.numpy as jnp
    from scipy.optimize import minimize

    from spatialclusters.collapsed.density import log_marginal_likelihood
    from spatialclusters.collapsed.recovery import recover

    jax.config.update("jax_enable_x64", True)
    sums, held = statistics(layout, y), dict(fixed or {})
    free = [factor for factor in layout.problem.factors if factor.name not in held]
    lower = [np.tril_indices(factor.width) for factor in free]

    def theta_at(x: Any) -> Theta:
        sigma, roots, at = jnp.exp(x[0]), {}, 1
        for factor, (i, j) in zip(free, lower, strict=True):
            root = jnp.zeros((factor.width, factor.width)).at[i, j].set(x[at : at + len(i)])
            roots[factor.name], at = sigma * root, at + len(i)
        return Theta(sigma[None], {**roots, **held})

    density = jax.jit(
        jax.value_and_grad(lambda x, s: -2.0 * log_marginal_likelihood(layout, s, theta_at(x)))
    )

    def criterion(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(jnp.asarray(x), sums)
        # a step too far is no number: call it very unlikely, and the line search turns back
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e300, np.zeros_like(x)
        return float(value), np.asarray(gradient)

    diagonal = np.concatenate([[False], *(i == j for i, j in lower)])
    start = np.where(diagonal, 1.0, 0.0)
    start[0] = np.log(y.std())
    bounds = [(_LEAST if each else None, None) for each in diagonal]
    options = {"ftol": 0.0, "gtol": 1e-6, "maxiter": _STEPS, "maxfun": _STEPS, "maxls": 50}
    best = minimize(criterion, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    zero = diagonal & (best.x <= _LEAST)
    x = _polish(lambda x: criterion(x)[1], best.x, ~zero)
    value, slope = criterion(x)
    slope = np.where(zero, np.minimum(slope, 0.0), slope)
    if not abs(slope).max() < _STEEP:
        msg = f"REML: got a search that ended with a slope of {abs(slope).max():.3g}; expected 0."
        raise FitError(f"{msg} The likelihood may have no maximum: leave out a group or a slope.")
    theta = theta_at(jnp.asarray(x))
    at_end = jax.jit(lambda s: recover(layout, s, theta, jax.random.key(0)))(sums)
    parts = np.split(zero[1:], np.cumsum([len(i) for i, _ in lower])[:-1]) if free else []
    return Maximum(
        Theta(np.asarray(theta.sigma), {k: np.asarray(v) for k, v in theta.roots.items()}),
        {f.name: part[i == j] for f, part, (i, j) in zip(free, parts, lower, strict=True)},
        -0.5 * value,
        np.asarray(at_end.mean.coefficients),
        np.asarray(at_end.covariance.coefficients),
    )


def _polish(
    gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """Take a Newton step: slopes are known to more digits than a line search can tell apart."""
    steps = _STEP * np.eye(len(x))[free]
    hessian = np.array([(gradient(x + h) - gradient(x - h))[free] for h in steps]) / (2.0 * _STEP)
    before = gradient(x)[free]
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    if not (values > 0.0).all():
        return x
    better = x.copy()
    better[free] -= vectors @ ((vectors.T @ before) / values)
    inside = not (abs(better - x) > _STEP).any()
    return better if inside and abs(gradient(better)[free]).max() < abs(before).max() else x


def _problem(design: Design, spec: ModelSpec | None) -> Problem:
    """Return the model's groups and columns with flat coefficients and constant noise."""
    if spec is None:
        raise FitError("REML: got a design without its model; expected both. Give spec=.")
    if not design.groups:
        msg = "REML: got a model without group effects; expected some. Use fit_frequentist."
        raise FitError(msg)
    if spec.spatial.outcome != "none":
        msg = f"REML: got spatial.outcome = {spec.spatial.outcome!r}; expected 'none'."
        raise FitError(f"{msg} Use fit_spatial_ml or fit_spatial_gmm.")
    full = mixed_model(spec, design)
    ones = np.ones((design.n_rows, int(design.intercept)))
    return replace(
        full,
        X=np.column_stack([ones, design.standardized]),
        shift=np.zeros(design.n_rows),
        proper=np.zeros_like(full.proper),
        factors=tuple(replace(factor, surface=None) for factor in full.factors),
        classes=np.zeros_like(full.classes),
        n_classes=1,
        blend=None,
    )


def _coefficients(design: Design, found: Maximum) -> Iterator[Coefficient]:
    center, scale = (design.data[name].values for name in ("center", "scale"))
    names, back = from_standardized(list(design.terms), center, scale, intercept=design.intercept)
    b = back @ found.coefficients
    errors = np.sqrt((back @ found.covariance @ back.T).diagonal())
    critical = NormalDist().inv_cdf(0.5 + CI_PROB / 2.0)
    for each in zip(names, b, errors, strict=True):
        yield Coefficient(*each, critical)


def _components(
    design: Design, group: GroupDesign, found: Maximum
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return standard deviations and correlations in raw units; name those at their ends."""
    zero = found.zero[group.name]
    root = found.theta.roots[group.name] * (1.0 - np.diag(zero.astype(float)))
    covariance = root @ root.T
    sds = np.sqrt(covariance.diagonal())
    unit = str(design.data.attrs["unit"])
    rows: list[dict[str, Any]] = []
    singular = []
    for label, sd, factor in zip(group.labels, sds, column_factors(design, group), strict=True):
        rows.append(
            {
                "term": f"sd({group.name})",
                "effect": "sd",
                "group": "" if label == "1" else label,
                "unit": unit if label == "1" else f"{unit} per unit of the term",
                "estimate": sd / factor,
            }
        )
        if sd == 0.0:
            singular.append(f"sd({group.name})" + ("" if label == "1" else f" [{label}]"))
    if zero.any() and (sds > 0.0).sum() > zero.size - zero.sum():
        singular.append(f"cor({group.name})")
    below = np.tril_indices(len(sds), -1)
    with np.errstate(invalid="ignore"):  # with a standard deviation of zero there is none
        correlations = (covariance / np.outer(sds, sds))[below]
    for label, value in zip(pair_labels(group), correlations, strict=True):
        pair = {"term": f"cor({group.name})", "effect": "correlation", "group": label}
        rows.append(pair | {"unit": "", "estimate": float(np.clip(value, -1.0, 1.0))})
    return rows, singular


def _notes(spec: ModelSpec, design: Design, singular: list[str]) -> Iterator[str]:
    yield "REML: standard deviations have no errors, and those of coefficients take them as known."
    noise = spec.likelihood
    if noise.family != "gaussian" or noise.scale != "constant":
        yield f"REML has Gaussian, constant noise; the model's is {noise.family}, scale {noise.scale}."
    shaped = [f"{g.name} {g.structure}" for g in design.groups if g.structure != "iid"]
    if shaped:
        yield f"REML takes levels as independent; the model's are not ({', '.join(shaped)})."
    if design.psi is not None:
        yield "Columns of REML are those of the reference W: W is estimated by the posterior only."
    if singular:
        yield f"REML is singular: {', '.join(singular)} at the end of what is possible."
