"""Block elimination of a symmetric system, with a derivative written by hand.

Knows nothing of models: independent blocks leave by batched Cholesky factors, what
couples them by one dense factor.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

__all__ = ["Factors", "eliminate", "factorize"]

_BASE = 32  # below this many rows LAPACK inverts a triangle; above, matrix products do


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def eliminate(size: int, blocks: tuple[Any, ...], cross: tuple[Any, ...], dense: Any) -> Any:
    """Eliminate the blocks, then the first ``size`` columns of the dense block.

    Parameters
    ----------
    size
        Number of unknowns in the dense block; the other columns are right-hand sides.
    blocks, cross
        Per bucket K (blocks, width, width) and B (blocks, width, columns).
    dense
        G, (columns, columns).

    Returns
    -------
    tuple
        ``log|K| + log|A|``, and the Schur complement of the right-hand sides, where
        A is the leading block of ``W = G - B'K^-1 B``.
    """
    return _eliminate(size, blocks, cross, dense)[0]


class Factors(NamedTuple):
    """Factors of an elimination: inverse roots of K, ``T = L_K^-1 B``, root L of A, and L^-1 R."""

    inverses: tuple[Any, ...]
    whitened: tuple[Any, ...]
    root: Any
    half: Any


def factorize(
    size: int, blocks: tuple[Any, ...], cross: tuple[Any, ...], dense: Any
) -> tuple[Any, Any, Factors]:
    """Eliminate and keep the factors: log determinant, Schur complement, factors."""
    log_det = jnp.zeros(())
    inverses, whitened = [], []
    for block, right in zip(blocks, cross, strict=True):
        lower = jnp.linalg.cholesky(block, symmetrize_input=False)
        inverse = _inverse_lower(lower)
        log_det += 2.0 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=1, axis2=2)))
        inverses.append(inverse)
        whitened.append(inverse @ right)
    reduced = dense
    for t in whitened:
        reduced -= _gram(t.reshape(-1, t.shape[2]))
    root = jnp.linalg.cholesky(reduced[:size, :size], symmetrize_input=False)
    half = solve_triangular(root, reduced[:size, size:], lower=True)
    log_det += 2.0 * jnp.sum(jnp.log(jnp.diag(root)))
    rest = reduced[size:, size:] - half.T @ half
    return log_det, rest, Factors(tuple(inverses), tuple(whitened), root, half)


def _eliminate(
    size: int, blocks: tuple[Any, ...], cross: tuple[Any, ...], dense: Any
) -> tuple[Any, Factors]:
    log_det, rest, factors = factorize(size, blocks, cross, dense)
    return (log_det, rest), factors


def _eliminate_backward(size: int, factors: Factors, cotangent: Any) -> tuple[Any, Any, Any]:
    r"""Pull back: with :math:`\bar W` that of W, :math:`\bar B = -2 L^{-T} T \bar W` and so on."""
    log_det, rest = cotangent
    inverse = _inverse_lower(factors.root)
    solved = jnp.concatenate([-inverse.T @ factors.half, jnp.eye(rest.shape[0])])
    pulled = solved @ (0.5 * (rest + rest.T)) @ solved.T
    pulled = pulled.at[:size, :size].add(log_det * _gram(inverse))
    blocks, cross = [], []
    for lower, t in zip(factors.inverses, factors.whitened, strict=True):
        y = (t.reshape(-1, t.shape[2]) @ pulled).reshape(t.shape)
        inner = log_det * jnp.eye(t.shape[1]) + jnp.einsum("bik,bjk->bij", y, t)
        up = jnp.swapaxes(lower, 1, 2)
        blocks.append(up @ inner @ lower)
        cross.append(-2.0 * (up @ y))
    return tuple(blocks), tuple(cross), pulled


eliminate.defvjp(_eliminate, _eliminate_backward)


def _gram(a: Any) -> Any:
    """Return A'A. On CPUs XLA multiplies faster if the transpose is laid out first."""
    return jax.lax.optimization_barrier(a.T) @ a


def _inverse_lower(lower: Any) -> Any:
    """Invert lower triangles: LAPACK on small diagonal blocks, then matrix products.

    ``inv [[A, 0], [B, C]] = [[inv A, 0], [-inv C B inv A, inv C]]``, with blocks of
    doubling size.
    """
    n = lower.shape[-1]
    if n <= _BASE or lower.ndim > 2:
        eye = jnp.broadcast_to(jnp.eye(n), lower.shape)
        return solve_triangular(lower, eye, lower=True)
    doublings = math.ceil(math.log2(n / _BASE))
    size = math.ceil(n / 2**doublings)
    padded = size * 2**doublings
    full = jnp.eye(padded).at[:n, :n].set(lower)
    step = [slice(i, i + size) for i in range(0, padded, size)]
    inverse = _inverse_lower(jnp.stack([full[s, s] for s in step]))
    while len(inverse) > 1:
        first, last = inverse[::2], inverse[1::2]
        ends = range(0, padded, 2 * size)
        below = jnp.stack([full[i + size : i + 2 * size, i : i + size] for i in ends])
        corner = -last @ (below @ first)
        top = jnp.concatenate([first, jnp.zeros_like(first)], axis=2)
        inverse = jnp.concatenate([top, jnp.concatenate([corner, last], axis=2)], axis=1)
        size *= 2
    return inverse[0, :n, :n]
