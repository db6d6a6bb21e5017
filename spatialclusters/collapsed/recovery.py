"""Coefficients and effects given the hyperparameters: exact draws, means and variances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
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


class _Unknowns(NamedTuple):
    """Rows are coefficients, outer effects, and local ones bucket by bucket, padding included.

    ``covariance`` is (unknowns, p), and ``pulled``, (unknowns, constraints), is M^-1 times
    each constraint.
    """

    draw: Any
    mean: Any
    variance: Any
    covariance: Any
    pulled: Any


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
    blocks = [block.shape[:2] for block in normal.blocks]
    slots = [(len(bucket.blocks), bucket.cells) for bucket in layout.buckets]
    noise = _noise(key, [(layout.dense_width,), *blocks, *slots])
    found = _solve(factors, noise[: 1 + len(blocks)], layout.n_columns)
    if layout.plan.outer_first:
        p, end = layout.n_columns, layout.dense_width
        found = _Unknowns(*(jnp.concatenate([x[:p], x[end:], x[p:end]]) for x in found))
    if layout.constraints:
        found = _constrain(layout, sums, rest, found)
    cells = _cell_draws(layout, sums, theta, found.draw, noise[1 + len(blocks) :])
    return Recovered(
        _values(layout, found.draw, cells),
        _values(layout, found.mean, {}),
        _values(layout, found.variance, {}),
        _values(layout, found.covariance, {}),
        log_likelihood(layout, theta, normal.log_det + log_det, rest),
    )


def _noise(key: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Draw all standard normals at once: each call of the generator takes long to compile."""
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    drawn = jax.random.normal(key, (ends[-1],))
    parts = (drawn[i:j] for i, j in itertools.pairwise(ends))
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _solve(factors: Factors, noise: Sequence[Any], p: int) -> _Unknowns:
    """Draw, and return what is asked of M^-1, by one product over all blocks.

    With W = K^-1 [B, right-hand sides], the blocks' unknowns are W [-x; e] where the dense
    ones are x, and W L^-T, squared and summed, is what those add to their variance.
    """
    size, n = factors.half.shape
    inverse = jax.scipy.linalg.solve_triangular(factors.root, jnp.eye(size), lower=True)
    drawn = factors.half[:, :1] + noise[0][:, None]
    dense = inverse.T @ jnp.concatenate([drawn, factors.half, inverse[:, :p]], axis=1)
    given = np.concatenate([np.eye(n, 1), np.eye(n, n + p)], axis=1)
    right = jnp.block([[inverse.T, -dense], [jnp.zeros((n, size)), given]])
    own = [jnp.swapaxes(part, 1, 2) for part in factors.inverses]
    W = [(a @ t).reshape(-1, size + n) for a, t in zip(own, factors.whitened, strict=True)]
    local = jnp.concatenate([jnp.zeros((0, size + n)), *W]) @ right
    added = [jnp.einsum("bij,bj->bi", a, e).ravel() for a, e in zip(own, noise[1:], strict=True)]
    within = [(a**2).sum(axis=2).ravel() for a in own]
    found = jnp.concatenate([dense, local[:, size:]])
    spread = jnp.concatenate([inverse.T, local[:, :size]])
    return _Unknowns(
        draw=found[:, 0] + jnp.concatenate([jnp.zeros(size), *added]),
        mean=found[:, 1],
        variance=(spread**2).sum(axis=1) + jnp.concatenate([jnp.zeros(size), *within]),
        covariance=found[:, 1 + n :],
        pulled=found[:, 2 : 1 + n],
    )


def _constrain(layout: Layout, sums: Mapping[str, Any], rest: Any, found: _Unknowns) -> _Unknowns:
    """Condition on means of zero: x - M^-1 c (c'M^-1 c)^-1 c'x, and what that takes off."""
    p, n = layout.n_columns, len(layout.constraints)
    local = [mine["constraint"].reshape(-1, n) for mine in sums["buckets"]]
    c = jnp.concatenate([jnp.zeros((p, n)), sums["constraint"], *local])
    gain = found.pulled @ jnp.linalg.inv(-rest[1:, 1:])
    return _Unknowns(
        draw=found.draw - gain @ (c.T @ found.draw),
        mean=found.mean - gain @ (c.T @ found.mean),
        variance=found.variance - (gain * found.pulled).sum(axis=1),
        covariance=found.covariance - gain @ found.pulled[:p].T,
        pulled=found.pulled,
    )


def _cell_draws(
    layout: Layout, sums: Mapping[str, Any], theta: Theta, draw: Any, noise: Sequence[Any]
) -> dict[str, Any]:
    """Draw the cells' effects given all other effects."""
    if layout.plan.cell is None:
        return {}
    weight, p = theta.sigma**-2.0, layout.n_columns
    cell, given = layout.problem.factors[layout.plan.cell], _values(layout, draw, {})
    parts, at = [], p + layout.outer_width
    for bucket, mine, e in zip(layout.buckets, sums["buckets"], noise, strict=True):
        s = cell_sums(layout, bucket, mine, weight, theta)
        columns = response_column(layout.problem, theta, s.columns)
        shape = (len(bucket.blocks), bucket.width)
        local = draw[at : at + math.prod(shape)].reshape(shape)
        residual = columns[:, :, p] - columns[:, :, :p] @ given.coefficients
        residual -= jnp.einsum("blg,bl->bg", s.local, local)
        for f, (factor, z) in enumerate(zip(layout.outer, s.outer, strict=True)):
            level = jnp.minimum(jnp.asarray(mine["levels"][f]), factor.n_levels - 1)
            residual -= (z * given.effects[factor.name][level]).sum(axis=2)
        parts.append((s.variance * s.unit * residual + jnp.sqrt(s.variance) * e).ravel())
        at += local.size
    widths = [bucket.cells for bucket in layout.buckets]
    places = _places(layout, widths, *layout.cell_place.T)
    return {cell.name: _gather(jnp.concatenate(parts), places)[:, None]}


def _values(layout: Layout, found: Any, cells: Mapping[str, Any]) -> Values:
    """Gather from blocks to levels."""
    at, effects = layout.n_columns, dict(cells)
    for factor in layout.outer:
        end = at + factor.n_levels * factor.width
        shape = (factor.n_levels, factor.width, *found.shape[1:])
        effects[factor.name], at = found[at:end].reshape(shape), end
    widths = [bucket.width for bucket in layout.buckets]
    offset = np.zeros(len(widths), dtype=int)
    for k, (f, factor) in enumerate(zip(layout.plan.local, layout.local, strict=True)):
        bucket, slot, position = layout.place[f].T
        column = offset[bucket] + position * factor.width
        first = at + _places(layout, widths, bucket, slot, column)
        effects[factor.name] = _gather(found, first[:, None] + np.arange(factor.width))
        offset += [b.present[k].shape[1] * factor.width for b in layout.buckets]
    return Values(found[: layout.n_columns], effects)


def _places(layout: Layout, widths: Sequence[int], bucket: Any, slot: Any, column: Any) -> Any:
    """Return where entries of the buckets' (blocks, width) arrays, end to end, stand.

    What is in no bucket (-1) stands past the end.
    """
    width = np.array(widths)
    blocks = np.array([len(bucket.blocks) for bucket in layout.buckets])
    starts = np.cumsum([0, *blocks * width])
    return np.where(bucket < 0, starts[-1], starts[bucket] + slot * width[bucket] + column)


def _gather(values: Any, places: Any) -> Any:
    """Pick entries, zero past the end."""
    return values.at[places].get(mode="fill", fill_value=0.0)
