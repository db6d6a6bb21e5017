"""Weighting sums by the noise, and eliminating cells by the rank-one Woodbury identity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spatialclusters.collapsed.layout import Bucket, ByClass, Layout, Theta

__all__ = [
    "CellSums",
    "Cells",
    "cell_root",
    "cell_sums",
    "eliminate_cells",
    "weigh",
    "weigh_classes",
]


def weigh(entries: Any, weight: Any, shape: Sequence[int]) -> Any:
    """Add up entries by class, each times the weight of its noise class."""
    if not isinstance(entries, ByClass):
        return jnp.reshape(entries, shape) * weight[0]
    value = jnp.asarray(entries.value)
    scaled = value * weight[jnp.asarray(entries.noise)].reshape(-1, *(1,) * (value.ndim - 1))
    total = math.prod(shape) // math.prod(value.shape[1:])
    summed = jax.ops.segment_sum(scaled, entries.index, total, indices_are_sorted=True)
    return summed.reshape(shape)


def weigh_classes(by_class: Any, weight: Any) -> Any:
    """Contract a leading axis of noise classes with their weights."""
    by_class = jnp.asarray(by_class)
    if by_class.shape[0] == 1:
        return by_class[0] * weight[0]
    return (weight @ by_class.reshape(len(weight), -1)).reshape(by_class.shape[1:])


class Cells(NamedTuple):
    """What eliminating the cells of a bucket takes from each part, and leaves of ``to_outer``."""

    local: Any
    to_outer: Any
    xx: Any
    xz: Any
    own: tuple[Any, ...]
    between: Any
    log_det: Any


def cell_root(layout: Layout, theta: Theta) -> Any:
    """Return the standard deviation of the cells' effects."""
    assert layout.plan.cell is not None  # callers have cells
    return theta.roots[layout.problem.factors[layout.plan.cell].name][0, 0]


class CellSums(NamedTuple):
    """Sums over the rows of a bucket's cells, to be multiplied by ``unit``.

    ``columns``, (blocks, cells, p + 1 or 2), of coefficients and response; ``outer``, one
    (blocks, cells, K) per outer factor; ``count`` (blocks, cells); ``local`` (blocks,
    width, cells). With one noise class they are constants and ``unit`` its weight, which
    keeps the gradient cheap; with several they are weighted already and ``unit`` is 1.
    ``variance`` is that of a cell's effect given all other effects.
    """

    unit: Any
    columns: Any
    outer: tuple[Any, ...]
    count: Any
    local: Any
    variance: Any


def cell_sums(
    layout: Layout, bucket: Bucket, mine: Mapping[str, Any], weight: Any, theta: Theta
) -> CellSums:
    """Return what the rows of each cell of a bucket add up to."""
    blocks, cells = len(bucket.blocks), bucket.cells
    first = layout.n_sums
    ends = np.cumsum([first, *(f.width for f in layout.outer)])
    one = layout.problem.n_classes == 1
    unit, ones = (weight[0], jnp.ones(1)) if one else (1.0, weight)
    inside = weigh(mine["cells"], ones, (blocks * cells, ends[-1] + 1)).reshape(blocks, cells, -1)
    variance = cell_root(layout, theta) ** 2
    return CellSums(
        unit,
        inside[:, :, :first],
        tuple(inside[:, :, i:j] for i, j in itertools.pairwise(ends)),
        inside[:, :, -1],
        weigh(mine["sums"], ones, (blocks, bucket.width, cells)),
        variance / (1.0 + variance * unit * inside[:, :, -1]),
    )


def eliminate_cells(
    layout: Layout, bucket: Bucket, mine: Mapping[str, Any], weight: Any, theta: Theta
) -> Cells:
    """Eliminate the cells of a bucket, a rank-one term each."""
    sums = cell_sums(layout, bucket, mine, weight, theta)
    blocks, _, n_columns = sums.columns.shape
    taken = sums.variance * sums.unit**2
    if layout.problem.n_classes == 1:
        variance = cell_root(layout, theta) ** 2
        by_size = weight[0] ** 2 * variance / (1.0 + variance * weight[0] * mine["sizes"])
        local = (by_size @ jnp.asarray(mine["table"])).reshape(
            blocks, bucket.width, bucket.width + n_columns
        )
    else:
        right = jnp.concatenate([sums.local, jnp.swapaxes(sums.columns, 1, 2)], axis=1)
        local = jnp.einsum("blg,brg->blr", sums.local * taken[:, None], right)
    to_outer, xz = [], []
    for k, (factor, z) in enumerate(zip(layout.outer, sums.outer, strict=True)):
        level, aligned = jnp.asarray(mine["levels"][k]), bucket.aligned[k]
        products = [mine["products"].get(f"{k} {j}") for j in range(factor.width)]
        kept = [
            sums.local * (sums.unit - taken * z[:, :, j])[:, None]
            if product is None
            else _products(product, weight, sums) - sums.local * (taken * z[:, :, j])[:, None]
            for j, product in enumerate(products)
        ]
        to_outer.append(_to_levels(jnp.stack(kept, axis=3), level, factor.n_levels, aligned))
        each = [
            _by_level(
                sums.columns * (taken * z[:, :, j])[..., None], level, factor.n_levels, aligned
            )
            for j in range(factor.width)
        ]
        xz.append(jnp.stack(each, axis=1).reshape(-1, n_columns).T)
    flat = sums.columns.reshape(-1, n_columns)
    return Cells(
        local,
        _joined(to_outer, 2, (blocks, bucket.width, 0)),
        (flat * taken.reshape(-1, 1)).T @ flat,
        _joined(xz, 1, (n_columns, 0)),
        *_between(layout, bucket, mine, sums, taken),
        jnp.sum(jnp.log1p(cell_root(layout, theta) ** 2 * sums.unit * sums.count)),
    )


def _products(product: Any, weight: Any, sums: CellSums) -> Any:
    ones = weight if isinstance(product, ByClass) else jnp.ones(1)
    return sums.unit * weigh(product, ones, sums.local.shape)


def _joined(parts: Sequence[Any], axis: int, empty: tuple[int, ...]) -> Any:
    return jnp.concatenate(parts, axis=axis) if parts else jnp.zeros(empty)


def _to_levels(values: Any, level: Any, n_levels: int, aligned: bool) -> Any:
    """Move (blocks, width, cells, K) to (blocks, width, levels x K)."""
    blocks, width, _, k = values.shape
    if not aligned:
        b, w = np.arange(blocks)[:, None, None], np.arange(width)[None, :, None]
        out = jnp.zeros((blocks, width, n_levels + 1, k))
        values = out.at[b, w, level[:, None, :]].add(values)[:, :, :n_levels]
    return values.reshape(blocks, width, n_levels * k)


def _by_level(values: Any, level: Any, n_levels: int, aligned: bool) -> Any:
    """Sum (blocks, cells, ...) over the cells of each level."""
    if aligned:
        return values.sum(axis=0)
    flat = values.reshape(-1, *values.shape[2:])
    return jax.ops.segment_sum(flat, level.ravel(), n_levels + 1)[:-1]


def _between(
    layout: Layout, bucket: Bucket, mine: Mapping[str, Any], sums: CellSums, taken: Any
) -> tuple[tuple[Any, ...], Any]:
    """Return what cells take from the information within and between outer factors.

    A cell has one level of each factor, so a factor's own part is (levels, K, K); the
    rest is scattered into a square of all outer effects, or None with one factor.
    """
    own, between = [], jnp.zeros((layout.outer_width,) * 2) if len(layout.outer) > 1 else None
    first = np.cumsum([0, *(f.n_levels * f.width for f in layout.outer)])
    for i, a in enumerate(layout.outer):
        left, level = taken[:, :, None] * sums.outer[i], jnp.asarray(mine["levels"][i])
        product = left[..., None] * sums.outer[i][:, :, None]
        own.append(_by_level(product, level, a.n_levels, bucket.aligned[i]))
        for j, b in enumerate(layout.outer):
            if i == j:
                continue
            product = left[..., None] * sums.outer[j][:, :, None]
            other = jnp.asarray(mine["levels"][j])
            # empty slots have no sums: where they point does not matter
            row = first[i] + jnp.minimum(level, a.n_levels - 1).reshape(-1, 1) * a.width
            column = first[j] + jnp.minimum(other, b.n_levels - 1).reshape(-1, 1) * b.width
            at = (row + np.arange(a.width))[:, :, None], (column + np.arange(b.width))[:, None]
            between = between.at[at].add(product.reshape(-1, a.width, b.width))  # type: ignore[union-attr]
    return tuple(own), between
