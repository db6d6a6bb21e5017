"""Where the posterior of the hyperparameters is, and how wide: a warm start for NUTS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

__all__ = ["Laplace", "laplace", "pareto_k"]

_STEP = 1e-3
"""Of central differences of the gradient, about the fourth root of its rounding error."""


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


def pareto_k(
    potential: Callable[[np.ndarray], Any], approximation: Laplace, *, draws: int, seed: int
) -> float:
    r"""Return the shape of the importance ratios' tail: the Laplace fit's error bar.

    Below 0.7 importance sampling from the approximation would do; above, the posterior
    is not normal and NUTS is needed. Proposals are multivariate t with 7 degrees of
    freedom, so that the tails of the ratios are those of the posterior.

    Parameters
    ----------
    potential
        Minus the log density at a point of shape (d,).
    draws, seed
        Number of proposals and their seed.

    References
    ----------
    Vehtari et al. (2024), arXiv:1507.02646.
    """
    from arviz_stats.base import array_stats

    rng = np.random.default_rng(seed)
    d, nu = len(approximation.mode), 7.0
    z = rng.standard_normal((draws, d)) / np.sqrt(rng.chisquare(nu, draws) / nu)[:, None]
    proposal = -0.5 * (nu + d) * np.log1p((z**2).sum(axis=1) / nu)
    points = approximation.mode + z @ approximation.root.T
    # written for leave-one-out, psislw takes the negative of the log ratios
    negative = np.array([float(potential(point)) for point in points]) + proposal
    _, shape = array_stats.psislw(np.where(np.isfinite(negative), negative, 1e300))
    return float(shape)
