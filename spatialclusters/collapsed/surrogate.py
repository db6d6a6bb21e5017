"""A polynomial that stands in for a posterior while proposals are made.

NUTS needs a gradient of the exact density for every step. Here the posterior of the hyperparameters
is approximated once, from a few hundred gradients; many cheap moves under the approximation make
one proposal, which the exact density then accepts or rejects.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.linalg

__all__ = [
    "NU",
    "Surrogate",
    "acceptance",
    "fit_surrogate",
    "log_proposal",
    "resampled",
    "surrogate_energy",
    "weighted",
]

NU: Final = 7
"""Degrees of freedom of the proposals, hence the tails of the surrogate."""

_TYPICAL: Final = np.array([np.inf, np.inf, 3.0, 0.01, 0.003])
"""Coefficients by degree are about this large in standardized coordinates: least squares that are
free to follow noise have a mode far out, in some direction of many, where no point says otherwise."""

_NOISE: Final = 0.3
"""What a polynomial leaves of energies and slopes."""

_DRAWS: Final = 4096
"""Proposals that are weighed to tell a surrogate's mean and covariance, or to draw from it."""


class Surrogate(NamedTuple):
    r"""Minus a log density, up to a constant, as a polynomial in d dimensions.

    .. math::

        P(z) = b'z + \sum_{i \le j} z_i z_j \Big(A_{ij} + \sum_{k \ge j} C_{ijk} z_k\Big)
            + \sum_{i \le j} Q_{ij} z_i^2 z_j^2

    within ``radius``; further out the value on the sphere goes on as minus the log density of a
    multivariate t does. So the surrogate has a density whatever the coefficients are, and tails
    at least as long as those of the posterior.

    Attributes
    ----------
    first
        b, (d,).
    second
        A and C, a row for each pair i <= j, (d (d + 1) / 2, 1 + d).
    fourth
        Q, (d, d).
    radius
        Scalar.
    """

    first: Any
    second: Any
    fourth: Any
    radius: Any

    @classmethod
    def empty(cls, d: int) -> Surrogate:
        """Return a polynomial of zero."""
        shape = d * (d + 1) // 2, 1 + d
        # a ball with all but a few percent of a standard normal
        return cls(np.zeros(d), np.zeros(shape), np.zeros((d, d)), np.array(d**0.5 + 2.0))


def log_proposal(z: Any) -> Any:
    """Return the log density of a standard multivariate t at (..., d), up to a constant."""
    xp, d = z.__array_namespace__(), z.shape[-1]
    return -0.5 * (NU + d) * xp.log1p((z**2).sum(axis=-1) / NU)


def surrogate_energy(z: Any, surrogate: Surrogate) -> Any:
    """Return minus the log density of a surrogate at (..., d), arrays of NumPy's or JAX's."""
    xp, d = z.__array_namespace__(), z.shape[-1]
    first, second, fourth, radius = surrogate
    distance = xp.sqrt((z**2).sum(axis=-1, keepdims=True))
    inside = z * xp.where(distance > radius, radius / xp.maximum(distance, radius), 1.0)
    i, j = np.triu_indices(d)
    squares = inside**2
    polynomial = (
        inside @ first
        + (inside[..., i] * inside[..., j] * (second[:, 0] + inside @ second[:, 1:].T)).sum(axis=-1)
        + (squares * (squares @ fourth)).sum(axis=-1)
    )
    return polynomial + log_proposal(inside) - log_proposal(z)


@cache
def _monomials(d: int) -> np.ndarray:
    """Return the coordinates that each monomial multiplies, from 1, with 0 for one: (m, 4)."""
    rows = [
        (0,) * (4 - degree) + tuple(1 + i for i in chosen)
        for degree in (0, 1, 2, 3)
        for chosen in itertools.combinations_with_replacement(range(d), degree)
    ]
    rows += [(1 + i, 1 + i, 1 + j, 1 + j) for i in range(d) for j in range(i, d)]
    return np.array(rows)


def fit_surrogate(
    points: np.ndarray, energies: np.ndarray, slopes: np.ndarray, *, degree: int = 4
) -> Surrogate:
    """Fit a polynomial to energies (n,) and gradients (n, d) at points (n, d) by least squares.

    Points of low density count less: proposals must be good where the mass is.
    """
    d, known = points.shape[1], np.isfinite(energies) & np.isfinite(slopes).all(axis=1)
    points, energies, slopes = points[known], energies[known], slopes[known]
    energies = energies - energies.min()
    chosen = _monomials(d)
    degrees = (chosen > 0).sum(axis=1)
    chosen, degrees = chosen[degrees <= degree], degrees[degrees <= degree]
    weight = 1.0 / (1.0 + 0.5 * np.maximum(0.0, energies - 0.5 * d - 2.0))
    extended = np.column_stack([np.ones(len(points)), points])
    one, two, three, four = (extended[:, column] for column in chosen.T)
    first, last = one * two, three * four
    rest = two * last, one * last, first * four, first * three
    normal = np.diag((_NOISE / _TYPICAL[degrees]) ** 2)
    right = np.zeros(len(chosen))

    def add(columns: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
        rows = rows * weight[:, None]
        normal[np.ix_(columns, columns)] += rows.T @ rows
        right[columns] += rows.T @ (values * weight)

    add(np.arange(len(chosen)), first * last, energies)
    for coordinate, values in enumerate(slopes.T, start=1):
        # most monomials do not depend on it
        columns = np.flatnonzero((chosen == coordinate).any(axis=1))
        parts = zip(rest, chosen[columns].T, strict=True)
        add(columns, sum(x[:, columns] * (k == coordinate) for x, k in parts), values)
    found = scipy.linalg.cho_solve(scipy.linalg.cho_factor(normal), right)
    return _arranged(chosen - 1, found, d)


def _arranged(monomials: np.ndarray, coefficients: np.ndarray, d: int) -> Surrogate:
    """Sort the coefficients of monomials into a surrogate's arrays."""
    surrogate, pair = Surrogate.empty(d), np.zeros((d, d), dtype=int)
    pair[np.triu_indices(d)] = np.arange(d * (d + 1) // 2)
    for (a, i, j, k), value in zip(monomials, coefficients, strict=True):
        if a >= 0:
            surrogate.fourth[a, k] = value
        elif i >= 0:
            surrogate.second[pair[i, j], 1 + k] = value
        elif j >= 0:
            surrogate.second[pair[j, k], 0] = value
        elif k >= 0:
            surrogate.first[k] = value
    return surrogate


def weighted(rng: np.random.Generator, surrogate: Surrogate) -> tuple[np.ndarray, np.ndarray]:
    """Draw from the multivariate t, and weigh the draws by the surrogate: (n, d) and (n,)."""
    d = len(surrogate.first)
    z = rng.standard_normal((_DRAWS, d)) / np.sqrt(rng.chisquare(NU, _DRAWS) / NU)[:, None]
    log_weight = -surrogate_energy(z, surrogate) - log_proposal(z)
    weight = np.exp(log_weight - log_weight.max())
    return z, weight / weight.sum()


def resampled(rng: np.random.Generator, surrogate: Surrogate, n: int) -> np.ndarray:
    """Return about n different draws from a surrogate."""
    z, weight = weighted(rng, surrogate)
    return z[np.unique(np.searchsorted(np.cumsum(weight)[:-1], (np.arange(n) + rng.random(n)) / n))]


def acceptance(log_ratio: np.ndarray) -> float:
    """Return the rate at which proposals from a surrogate would be accepted.

    Parameters
    ----------
    log_ratio
        Of the exact density to the surrogate at draws from the surrogate.

    Notes
    -----
    The draws weighted by the ratio stand for the posterior. Weights are truncated at
    ``sqrt(n)`` times their mean (Ionides 2008, doi:10.1198/106186008X320456): one draw far out
    says little about the rate.
    """
    known = np.isfinite(log_ratio)
    if not known.any():
        return 0.0
    ratio = np.where(known, np.exp(np.where(known, log_ratio, 0.0) - log_ratio[known].max()), 0.0)
    ratio = np.minimum(ratio, np.sqrt(len(ratio)) * ratio.mean())
    return float(np.minimum(ratio[:, None], ratio).mean() / ratio.mean())
