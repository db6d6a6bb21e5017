"""Where the posterior of the hyperparameters is, how wide, and of what shape: a warm start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize

from spatialclusters.collapsed.surrogate import (
    NU,
    Surrogate,
    acceptance,
    fit_surrogate,
    log_proposal,
    resampled,
    surrogate_energy,
    weighted,
)

__all__ = [
    "PARETO_GOOD",
    "Laplace",
    "WarmStart",
    "find_warm_start",
    "importance",
    "laplace",
    "stretch",
    "unstretch",
]

PARETO_GOOD: Final = 0.5
"""Below this the importance ratios have a variance, and the posterior is near enough to normal
for short trajectories without further adaptation. Of 14 simulated data sets the seven below had
at least 280 effective draws of 1,000 in everything; of the seven above three had less than 50."""

PARETO_MEANS: Final = 0.7
"""Below this weighted squares have a mean (ratios of a t with 7 degrees of freedom)."""

PARETO_USELESS: Final = 1.0
"""Above this the ratios have no mean: what there is around the mode tells nothing of the posterior.
Below it a surrogate is tried; 400 draws leave k uncertain by 0.2, its acceptance by far less."""

ACCEPTED: Final = 0.8
"""Proposals from a surrogate are taken where they are accepted at this rate, and NUTS elsewhere: at
0.76 one of three large simulated economies had a tail size of 865 at the default length."""

MOST_DIMENSIONS: Final = 20
"""A surrogate has some d**3 / 6 coefficients."""

FRESH: Final = 150
ROUNDS: Final = 2
"""Points at which the density is evaluated once more where a surrogate has its mass, and how often."""

SMALLEST: Final = 1e-6
"""Variance under a surrogate, of a direction: below this its mass is in a few draws."""

WIDEST: Final = 3.0
"""Standard deviations are corrected by at most this factor, up or down."""

WIDE_ENOUGH: Final = 0.05
"""A logarithm known better than this is as good as normal."""

_STEP = 1e-3
"""Of central differences of the gradient, about the fourth root of its rounding error."""


class WarmStart(NamedTuple):
    r"""Coordinates z in which a posterior is about standard normal.

    ``u = mode + root z``; an unconstrained hyperparameter is u itself where ``side`` is 0,
    and otherwise ``log scale + log softplus(u)``: a standard deviation is
    ``scale softplus(u)``, about linear in u where its posterior is about normal, and still
    cannot become negative. Logarithms of quantities that may be zero have long tails
    instead, in which NUTS takes small steps. (Odds treated so have a tail of their own where
    a share may be anything: shares stay log odds.)

    Attributes
    ----------
    mode, root
        Mode and root of the covariance there, (d,) and (d, d).
    scale, side
        Of the d coordinates; ``side`` is 1 for standard deviations.
    pareto_k
        How far from normal the posterior is in z.
    surrogate, acceptance
        The posterior in z as a polynomial, and the rate at which proposals from it would be
        accepted: NaN where there is none.
    """

    mode: Any
    root: Any
    scale: Any
    side: Any
    pareto_k: Any
    surrogate: Any
    acceptance: Any

    @classmethod
    def identity(cls, d: int) -> WarmStart:
        """Return coordinates that are the unconstrained hyperparameters themselves."""
        nothing = np.array(np.nan)
        return cls(
            np.zeros(d), np.eye(d), np.ones(d), np.zeros(d), nothing, Surrogate.empty(d), nothing
        )

    @property
    def good(self) -> bool:
        """Whether NUTS needs no further adaptation in these coordinates."""
        return bool(self.pareto_k < PARETO_GOOD) and not self.acceptance < ACCEPTED

    @property
    def judgments(self) -> dict[str, Any]:
        """What is known of the approximations, by name."""
        found = {"pareto_k": self.pareto_k, "surrogate_acceptance": self.acceptance}
        return found if np.isfinite(self.acceptance) else {"pareto_k": self.pareto_k}

    @property
    def proposes(self) -> bool:
        """Whether the surrogate is good enough for proposals."""
        return bool(self.acceptance >= ACCEPTED)


def stretch(z: Any, warm: WarmStart) -> tuple[Any, Any]:
    """Return the unconstrained hyperparameters at z, and the log Jacobian up to a constant."""
    import jax
    import jax.numpy as jnp

    u = warm.mode + warm.root @ z
    # far to the left softplus is the exponential function, and its logarithm is u
    low = u < -30.0
    log_softplus = jnp.where(low, u, jnp.log(jax.nn.softplus(jnp.where(low, 0.0, u))))
    stretched = jnp.log(warm.scale) + log_softplus
    log_slope = jax.nn.log_sigmoid(u) - log_softplus
    free = warm.side == 0.0
    return jnp.where(free, u, stretched), jnp.sum(jnp.where(free, 0.0, log_slope))


def unstretch(point: np.ndarray, warm: WarmStart) -> np.ndarray:
    """Return the z of unconstrained hyperparameters: the inverse of :func:`stretch`.

    Examples
    --------
    >>> warm = WarmStart.identity(2)._replace(
    ...     mode=np.array([0.5, 2.0]), root=np.array([[1.0, 0.0], [0.3, 2.0]]),
    ...     scale=np.array([1.0, 0.1]), side=np.array([0.0, 1.0]))
    >>> bool(np.allclose(stretch(unstretch(np.array([-1.0, -3.0]), warm), warm)[0], [-1.0, -3.0]))
    True
    """
    log_softplus = point - np.log(warm.scale)
    # far to the left softplus is the exponential function
    low = log_softplus < -30.0
    softplus = np.exp(np.where(low, 0.0, log_softplus))
    inverse = np.where(low, log_softplus, softplus + np.log(-np.expm1(-softplus)))
    u = np.where(warm.side == 0.0, point, inverse)
    return np.asarray(scipy.linalg.solve(warm.root, u - warm.mode))


def find_warm_start(
    gradient: Callable[[np.ndarray, WarmStart], tuple[Any, Any]],
    origin: np.ndarray,
    logarithms: np.ndarray,
    *,
    draws: int,
    seed: int,
    gradients: Callable[[np.ndarray, WarmStart], tuple[Any, Any]] | None = None,
    surrogate: bool = False,
) -> WarmStart:
    """Find the mode, choose coordinates by what is known there, and find it again in them.

    Parameters
    ----------
    gradient
        Minus the log density at z in the coordinates of a warm start, and its gradient.
    origin
        Where the search begins, (d,).
    logarithms
        Which coordinates are logarithms, (d,).
    draws, seed
        Of the importance sampling that judges the result.
    gradients
        ``gradient`` at many points, (n, d); by default one after the other.
    surrogate
        Look for a surrogate, too, where the posterior is near enough to normal.
    """

    def one_by_one(points: np.ndarray, warm: WarmStart) -> tuple[np.ndarray, np.ndarray]:
        found = [gradient(point, warm) for point in points]
        return np.array([float(e) for e, _ in found]), np.array([np.asarray(g) for _, g in found])

    gradients = gradients or one_by_one
    plain = WarmStart.identity(len(origin))
    first = laplace(lambda x: gradient(x, plain), origin)
    sd = np.sqrt((first.root**2).sum(axis=1))
    side = np.where(logarithms & (sd > WIDE_ENOUGH), 1.0, 0.0)
    scale = np.where(side == 0.0, 1.0, sd * np.exp(side * first.mode))
    shaped = plain._replace(scale=scale, side=side)
    # softplus(u) = 1 / sd
    start = np.where(side == 0.0, first.mode, 1.0 / sd + np.log(-np.expm1(-1.0 / sd)))
    second = laplace(lambda x: gradient(x, shaped), start)
    known: list[tuple[Any, Any]] = []

    def energies(points: np.ndarray) -> Any:
        known.append(gradients(points, shaped))
        return known[0][0]

    z, weights, k = importance(energies, second, draws=draws, seed=seed)
    points, slopes = z, known[0][1] @ second.root
    if k < PARETO_MEANS:
        # curvature at the mode tells little of a skewed posterior's width: weighted draws do
        center = weights @ z
        width = np.clip(np.sqrt(weights @ (z - center) ** 2), 1.0 / WIDEST, WIDEST)
        second = Laplace(second.mode + second.root @ center, second.root * width)
        points, slopes = (z - center) / width, slopes * width
    warm = shaped._replace(mode=second.mode, root=second.root, pareto_k=np.array(k))
    if not (surrogate and k < PARETO_USELESS and len(origin) <= MOST_DIMENSIONS):
        return warm
    better = _shaped(gradients, warm, _Known(points, np.asarray(known[0][0]), slopes), seed=seed)
    return better if better.proposes else warm._replace(acceptance=better.acceptance)


class _Known(NamedTuple):
    """Points (n, d), minus the log density there (n,), and its gradient (n, d)."""

    points: np.ndarray
    energies: np.ndarray
    slopes: np.ndarray

    def extended(self, points: np.ndarray, found: tuple[Any, Any]) -> _Known:
        return _Known(*(np.concatenate(both) for both in zip(self, (points, *found), strict=True)))


def _moved(
    warm: WarmStart, known: _Known, center: np.ndarray, root: np.ndarray
) -> tuple[WarmStart, _Known]:
    """Return coordinates of a given origin and scale, and what is known in them."""
    inside = scipy.linalg.solve_triangular(root, (known.points - center).T, lower=True).T
    there = warm._replace(mode=warm.mode + warm.root @ center, root=warm.root @ root)
    return there, _Known(inside, known.energies, known.slopes @ root)


def _shaped(
    gradients: Callable[[np.ndarray, WarmStart], tuple[Any, Any]],
    warm: WarmStart,
    known: _Known,
    *,
    seed: int,
) -> WarmStart:
    """Fit a surrogate in coordinates in which it has mean zero and unit covariance.

    Where that fails what comes back has no surrogate.
    """
    rng, d = np.random.default_rng(seed), len(warm.mode)
    # a quadratic first: it cannot bend where there are few points
    normal = fit_surrogate(*known, degree=2)
    precision = np.zeros((d, d))
    precision[np.triu_indices(d)] = normal.second[:, 0]
    precision = precision + precision.T
    if np.linalg.eigvalsh(precision)[0] <= 0.0:
        return warm
    covariance = np.linalg.inv(precision)
    warm, known = _moved(warm, known, -covariance @ normal.first, np.linalg.cholesky(covariance))
    fresh = rng.standard_normal((FRESH, d))
    known = known.extended(fresh, gradients(fresh, warm))
    rate = 0.0
    for _ in range(ROUNDS):
        z, weights = weighted(rng, fit_surrogate(*known))
        center = weights @ z
        covariance = (z - center).T @ ((z - center) * weights[:, None])
        if np.linalg.eigvalsh(covariance)[0] <= SMALLEST:
            return warm
        warm, known = _moved(warm, known, center, np.linalg.cholesky(covariance))
        judged = fit_surrogate(*known)
        fresh = resampled(rng, judged, FRESH)
        found = gradients(fresh, warm)
        rate = acceptance(surrogate_energy(fresh, judged) - np.asarray(found[0]))
        known = known.extended(fresh, found)
    return warm._replace(surrogate=fit_surrogate(*known), acceptance=np.array(rate))


@dataclass(frozen=True, eq=False)
class Laplace:
    """Normal approximation around the mode: N(mode, root root')."""

    mode: np.ndarray
    root: np.ndarray


def laplace(
    potential: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray
) -> Laplace:
    """Find the mode of a density and its curvature there.

    Parameters
    ----------
    potential
        Minus the log density and its gradient, at a point of shape (d,).
    start
        Where the search begins.
    """

    def finite(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = potential(point)
        # a step too far is no number: call it very unlikely, and the line search turns back
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e300, np.zeros_like(point)
        return float(value), np.asarray(gradient)

    found = scipy.optimize.minimize(finite, start, jac=True, method="BFGS", options={"gtol": 1e-3})
    mode = np.asarray(found.x)
    columns = []
    for step in _STEP * np.eye(len(mode)):
        ahead, behind = finite(mode + step)[1], finite(mode - step)[1]
        columns.append((ahead - behind) / (2.0 * _STEP))
    hessian = np.array(columns)
    values, vectors = scipy.linalg.eigh(0.5 * (hessian + hessian.T))
    # flat or rising directions get a unit scale at most: warm-up will find the true one
    return Laplace(mode, vectors / np.sqrt(np.maximum(values, 1.0)))


def importance(
    potential: Callable[[np.ndarray], Any], approximation: Laplace, *, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    r"""Weigh draws from around a mode by the density: a second opinion on the posterior.

    Proposals are multivariate t with 7 degrees of freedom, so that the tails of the ratios
    are those of the posterior; weights are Pareto smoothed.

    Parameters
    ----------
    potential
        Minus the log density at points of shape (draws, d).
    approximation
        Mode and root of the proposals.
    draws, seed
        Number of proposals and their seed.

    Returns
    -------
    tuple
        Proposals in units of the approximation, (draws, d); weights that sum to one; the
        Pareto k of the ratios. Below 0.7 importance sampling would do by itself.

    References
    ----------
    Vehtari et al. (2024), arXiv:1507.02646.
    """
    from arviz_stats.base import array_stats

    rng, d = np.random.default_rng(seed), len(approximation.mode)
    z = rng.standard_normal((draws, d)) / np.sqrt(rng.chisquare(NU, draws) / NU)[:, None]
    proposal = log_proposal(z)
    points = approximation.mode + z @ approximation.root.T
    # written for leave-one-out, psislw takes the negative of the log ratios
    negative = np.array(potential(points), dtype=float) + proposal
    known = np.isfinite(negative)
    if known.sum() < draws / 2 or np.ptp(negative[known]) == 0.0:
        return z, np.full(draws, 1.0 / draws), np.nan
    log_weights, k = array_stats.psislw(np.where(known, negative, 1e300))
    weights = np.exp(log_weights - log_weights.max())
    return z, weights / weights.sum(), float(k)
