"""Coefficients and effects given the hyperparameters: exact draws, means and variances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatialclusters.collapsed.cells import cell_sums
from spatialclusters.collapsed.density import log_likelihood, normal_equations, response_column
from spatialclusters.collapsed.elimination import Factors, factorize
from spatialclusters.collapsed.layout import Layout, Theta

__all__ = ["Recovered", "Values", "recover"]


class Values(NamedTuple):
    """One number for every coefficient (p,), and every effect of each factor (J, K)."""

    coefficients: Any
    effects: Mapping[str, Any]


class Recovered(NamedTuple):
    """A draw given theta; conditional moments of all but the cells; and covariances.

    ``covariance`` is that of every coefficient, (p, p), and of each effect, (J, K, p), with
    the coefficients: totals such as coefficient plus slope need it. ``log_likelihood`` is
    log p(y | theta).
    """

    draw: Values
    mean: Values
    variance: Values
    covariance: Values
    log_likelihood: Any


class _Parts(NamedTuple):
    """Vectors over the dense block and, per bucket, over (blocks, width)."""

    dense: Any
    local: tuple[Any, ...]


def recover(layout: Layout, sums: Mapping[str, Any], theta: Theta, key: Any) -> Recovered:
    """Draw all effects from their exact conditional distribution, and return its moments.

    Parameters
    ----------
    layout, sums, theta
        As for the density.
    key
        JAX random key of this draw.
    """
    normal = normal_equations(layout, sums, theta)
    log_det, rest, factors = factorize(layout.dense_width, *normal[:3])
    keys = jax.random.split(key, len(normal.blocks) + 2)
    noise = _Parts(
        jax.random.normal(keys[0], (layout.dense_width,)),
        tuple(
            jax.random.normal(k, block.shape[:2])
            for k, block in zip(keys[1:], normal.blocks, strict=False)
        ),
    )
    mean, draw = (_in_order(layout, _solve(factors, 0, n)) for n in (None, noise))
    variance = _in_order(layout, _variance(factors))
    covariance = _in_order(layout, _covariance(layout, factors))
    if layout.constraints:
        mean, draw, down, across = _constrain(layout, sums, factors, rest, mean, draw)
        variance, covariance = _minus(variance, down), _minus(covariance, across)
    cells = _cell_draws(layout, sums, theta, draw, keys[-1])
    return Recovered(
        _values(layout, draw, cells),
        _values(layout, mean, {}),
        _values(layout, variance, {}),
        _values(layout, covariance, {}),
        log_likelihood(layout, theta, normal.log_det + log_det, rest),
    )


def _in_order(layout: Layout, parts: _Parts) -> _Parts:
    """Return outer effects in the dense part and local ones by bucket, whichever came first."""
    if not layout.plan.outer_first:
        return parts
    p, tail = layout.n_columns, parts.dense.shape[1:]
    dense = jnp.concatenate([parts.dense[:p], parts.local[0].reshape(-1, *tail)])
    local, at = [], p
    for bucket in layout.buckets:
        end = at + len(bucket.blocks) * bucket.width
        local.append(parts.dense[at:end].reshape(len(bucket.blocks), bucket.width, *tail))
        at = end
    return _Parts(dense, tuple(local))


def _minus(a: _Parts, b: _Parts) -> _Parts:
    local = tuple(x - y for x, y in zip(a.local, b.local, strict=True))
    return _Parts(a.dense - b.dense, local)


def _solve(factors: Factors, column: int, noise: _Parts | None) -> _Parts:
    """Solve M x = right-hand side ``column``, and add noise of covariance M^-1."""
    size = factors.root.shape[0]
    half = factors.half[:, column] + (0.0 if noise is None else noise.dense)
    dense = jax.scipy.linalg.solve_triangular(factors.root.T, half, lower=False)
    local = []
    for k, (inverse, t) in enumerate(zip(factors.inverses, factors.whitened, strict=True)):
        right = t[:, :, size + column] - t[:, :, :size] @ dense
        right = right if noise is None else right + noise.local[k]
        local.append(jnp.einsum("bji,bj->bi", inverse, right))
    return _Parts(dense, tuple(local))


def _variance(factors: Factors) -> _Parts:
    """Return the diagonal of M^-1."""
    inverse, spread = _dense_inverse(factors), []
    for own, z in zip(factors.inverses, _through(factors, inverse), strict=True):
        spread.append((own**2).sum(axis=1) + (z**2).sum(axis=2))
    return _Parts((inverse**2).sum(axis=0), tuple(spread))


def _covariance(layout: Layout, factors: Factors) -> _Parts:
    """Return the covariance of everything with the coefficients, (..., p)."""
    inverse = _dense_inverse(factors)
    columns = inverse[:, : layout.n_columns]
    local = tuple(-(z @ columns) for z in _through(factors, inverse))
    return _Parts(inverse.T @ columns, local)


def _dense_inverse(factors: Factors) -> Any:
    """Return L^-1 of A = L L'."""
    eye = jnp.eye(factors.root.shape[0])
    return jax.scipy.linalg.solve_triangular(factors.root, eye, lower=True)


def _through(factors: Factors, inverse: Any) -> list[Any]:
    """Return K^-1 B L^-T per bucket: how the dense block's uncertainty reaches the local."""
    size = inverse.shape[0]
    return [
        jnp.swapaxes(own, 1, 2) @ (t[:, :, :size] @ inverse.T)
        for own, t in zip(factors.inverses, factors.whitened, strict=True)
    ]


def _constrain(
    layout: Layout,
    sums: Mapping[str, Any],
    factors: Factors,
    rest: Any,
    mean: _Parts,
    draw: _Parts,
) -> tuple[_Parts, _Parts, _Parts, _Parts]:
    """Condition on means of zero: x - M^-1 c (c'M^-1 c)^-1 c'x, and what that takes off."""
    n = len(layout.constraints)
    solved = [_in_order(layout, _solve(factors, 1 + j, None)) for j in range(n)]
    dense = jnp.stack([s.dense for s in solved], axis=-1)
    local = [jnp.stack(parts, axis=-1) for parts in zip(*(s.local for s in solved), strict=True)]
    inner = jnp.linalg.inv(-rest[1:, 1:])

    def conditioned(x: _Parts) -> _Parts:
        value = sums["constraint"].T @ x.dense[layout.n_columns :]
        for part, mine in zip(x.local, sums["buckets"], strict=True):
            value += jnp.einsum("bwc,bw->c", mine["constraint"], part)
        gain = inner @ value
        return _Parts(
            x.dense - dense @ gain,
            tuple(part - s @ gain for part, s in zip(x.local, local, strict=True)),
        )

    def taken(s: Any) -> Any:
        return jnp.einsum("...i,ij,...j->...", s, inner, s)

    columns = dense[: layout.n_columns]
    down = _Parts(taken(dense), tuple(taken(s) for s in local))
    across = _Parts(dense @ inner @ columns.T, tuple(s @ inner @ columns.T for s in local))
    return conditioned(mean), conditioned(draw), down, across


def _cell_draws(
    layout: Layout, sums: Mapping[str, Any], theta: Theta, draw: _Parts, key: Any
) -> dict[str, Any]:
    """Draw the cells' effects given all other effects."""
    if layout.plan.cell is None:
        return {}
    weight, p = theta.sigma**-2.0, layout.n_columns
    cell = layout.problem.factors[layout.plan.cell]
    parts = []
    for k, (bucket, mine) in enumerate(zip(layout.buckets, sums["buckets"], strict=True)):
        s = cell_sums(layout, bucket, mine, weight, theta)
        columns = response_column(layout.problem, theta, s.columns)
        residual = columns[:, :, p] - columns[:, :, :p] @ draw.dense[:p]
        residual -= jnp.einsum("blg,bl->bg", s.local, draw.local[k])
        for f, (factor, z) in enumerate(zip(layout.outer, s.outer, strict=True)):
            effects = _outer_effects(layout, draw.dense)[factor.name]
            level = jnp.minimum(jnp.asarray(mine["levels"][f]), factor.n_levels - 1)
            residual -= (z * effects[level]).sum(axis=2)
        noise = jax.random.normal(jax.random.fold_in(key, k), residual.shape)
        parts.append(s.variance * s.unit * residual + jnp.sqrt(s.variance) * noise)
    bucket_of, slot, position = layout.cell_place.T
    out = jnp.zeros(cell.n_levels)
    for k, part in enumerate(parts):
        mine = np.flatnonzero(bucket_of == k)
        out = out.at[mine].set(part[slot[mine], position[mine]])
    return {cell.name: out[:, None]}


def _outer_effects(layout: Layout, dense: Any) -> dict[str, Any]:
    """Split the dense block's trailing entries into factors, (J, K, ...)."""
    out, offset = {}, layout.n_columns
    for factor in layout.outer:
        n = factor.n_levels * factor.width
        part = dense[offset : offset + n]
        out[factor.name] = part.reshape(factor.n_levels, factor.width, *part.shape[1:])
        offset += n
    return out


def _values(layout: Layout, parts: _Parts, cells: Mapping[str, Any]) -> Values:
    """Gather from blocks to levels."""
    effects = {**_outer_effects(layout, parts.dense), **cells}
    tail = parts.dense.shape[1:]
    for at, (f, factor) in enumerate(zip(layout.plan.local, layout.local, strict=True)):
        out = jnp.zeros((factor.n_levels, factor.width, *tail))
        for k, bucket in enumerate(layout.buckets):
            offset = sum(
                present.shape[1] * other.width
                for present, other in zip(bucket.present[:at], layout.local[:at], strict=True)
            )
            levels = np.flatnonzero(layout.place[f][:, 0] == k)
            _, slot, position = layout.place[f][levels].T
            column = offset + position[:, None] * factor.width + np.arange(factor.width)
            out = out.at[levels].set(parts.local[k][slot[:, None], column])
        effects[factor.name] = out
    return Values(parts.dense[: layout.n_columns], effects)
