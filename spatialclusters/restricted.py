"""The restricted likelihood of a mixed model: its maximum, and how sharp that is.

With flat priors the collapsed density is the restricted likelihood: what is maximized here
is what NUTS samples, without the priors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from spatialclusters.collapsed.layout import Layout, Theta
from spatialclusters.collapsed.statistics import statistics
from spatialclusters.errors import FitError

__all__ = ["Maximum", "restricted_maximum"]

_LEAST: Final = 1e-3  # sd over sigma: below, precisions lose digits and sds say nothing
_STEEP: Final = 1e-2  # largest slope of the criterion at its minimum, a chi-squared quantity
_STEP: Final = 1e-4  # of central differences of the gradient
_STEPS: Final = 1000
_NEWTON: Final = 3
_NOWHERE: Final = 1e300  # the criterion where it is no number


class Maximum(NamedTuple):
    """Where the restricted likelihood is highest.

    Attributes
    ----------
    theta
        Noise and roots.
    zero
        For each factor which diagonal entries of its root are zero, (K,).
    slopes
        Derivatives of each root by the d coordinates, (K, K, d): ln sigma, then roots over it.
    spread
        Covariance of the coordinates by the curvature, (d, d), zero where a root is; NaN
        if the likelihood is flat.
    log_likelihood
        Coefficients integrated against Lebesgue measure.
    coefficients, covariance
        Estimates and covariance given theta, on the scale of the problem's columns.
    """

    theta: Theta
    zero: Mapping[str, np.ndarray]
    slopes: Mapping[str, np.ndarray]
    spread: np.ndarray
    log_likelihood: float
    coefficients: np.ndarray
    covariance: np.ndarray


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
        The search ended where the likelihood is still rising, or it is nowhere a number.

    References
    ----------
    Bates, Maechler, Bolker and Walker (2015), doi:10.18637/jss.v067.i01, section 3.

    Examples
    --------
    Three groups of two: the mean squares are 18 between and 0.5 within.

    >>> from spatialclusters.collapsed.layout import Problem, lay_out
    >>> from spatialclusters.collapsed.plan import Factor
    >>> ones, none = np.ones((6, 1)), np.zeros(6)
    >>> group = Factor("g", np.array([0, 0, 1, 1, 2, 2]), 3, ones)
    >>> problem = Problem(ones, none, np.zeros(1, bool), (group,), none.astype(int), 1)
    >>> found = restricted_maximum(lay_out(problem), np.array([1.0, 2, 4, 5, 7, 8]))
    >>> sigma, root = found.theta.sigma[0], found.theta.roots["g"][0, 0]
    >>> (sigma**2).round(4).item(), (root**2).round(4).item()
    (0.5, 8.75)
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
            return _NOWHERE, np.zeros_like(x)
        return float(value), np.asarray(gradient)

    diagonal = np.concatenate([[False], *(i == j for i, j in lower)])
    start = np.where(diagonal, 1.0, 0.0)
    start[0] = np.log(y.std())
    bounds = [(_LEAST if each else None, None) for each in diagonal]
    options = {"ftol": 1e-14, "gtol": 1e-3, "maxiter": _STEPS, "maxfun": _STEPS, "maxls": 20}
    best = minimize(criterion, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    zero = diagonal & (best.x <= _LEAST)
    x, spread = _polish(lambda x: np.asarray(density(jnp.asarray(x), sums)[1]), best.x, ~zero)
    value, slope = criterion(x)
    slope = np.where(zero, np.minimum(slope, 0.0), slope)
    if value == _NOWHERE:
        msg = (
            "REML: got a likelihood that is no number; expected columns that say different things."
        )
        raise FitError(f"{msg} Leave out one that others imply.")
    if not abs(slope).max() < _STEEP:
        msg = f"REML: got a search that ended with a slope of {abs(slope).max():.3g}; expected 0."
        raise FitError(f"{msg} The likelihood may have no maximum: leave out a group or a slope.")
    theta = theta_at(jnp.asarray(x))
    at_end = jax.jit(lambda s: recover(layout, s, theta, jax.random.key(0)))(sums)
    slopes = jax.jacfwd(lambda x: theta_at(x).roots)(jnp.asarray(x))
    parts = np.split(zero[1:], np.cumsum([len(i) for i, _ in lower])[:-1]) if free else []
    return Maximum(
        Theta(np.asarray(theta.sigma), {k: np.asarray(v) for k, v in theta.roots.items()}),
        {f.name: part[i == j] for f, part, (i, j) in zip(free, parts, lower, strict=True)},
        {name: np.asarray(slope) for name, slope in slopes.items()},
        spread,
        -0.5 * value,
        np.asarray(at_end.mean.coefficients),
        np.asarray(at_end.covariance.coefficients),
    )


def _polish(
    gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take Newton steps: slopes are known to more digits than a line search can tell apart.

    Returns
    -------
    tuple
        The point and, twice the inverse of the criterion's Hessian, its covariance.
    """
    steps = _STEP * np.eye(len(x))[free]
    hessian = np.array([(gradient(x + h) - gradient(x - h))[free] for h in steps]) / (2.0 * _STEP)
    if not np.isfinite(hessian).all():
        return x, np.full((len(x), len(x)), np.nan)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    if not (values > 0.0).all():
        return x, np.full((len(x), len(x)), np.nan)
    inverse = vectors / values @ vectors.T
    spread = np.zeros((len(x), len(x)))
    spread[np.ix_(free, free)] = 2.0 * inverse
    slope = gradient(x)[free]
    for _ in range(_NEWTON):
        better = x.copy()
        better[free] -= inverse @ slope
        after = gradient(better)[free]
        if not abs(after).max() < abs(slope).max():
            break
        x, slope = better, after
    return x, spread
