r"""Log marginal likelihood of the hyperparameters, everything Gaussian integrated out.

With :math:`V = D + \tau^2 C C'` (noise D, cells C), :math:`\Phi` the columns of all
other effects and :math:`\Lambda` their prior covariance,

.. math::

    \log p(y \mid \theta) = -\tfrac12 \left( N \log 2\pi + \log|V| + \log|\Lambda|
        + \log|M| + y'V^{-1}y - b'M^{-1}b \right), \quad
    M = \Lambda^{-1} + \Phi'V^{-1}\Phi, \quad b = \Phi'V^{-1}y

Cells leave by the rank-one Woodbury identity, blocks by batched Cholesky factors, and
what couples them by one dense factor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from spatialclusters.collapsed.elimination import eliminate
from spatialclusters.collapsed.statistics import Bucket, ByClass, Layout

__all__ = [
    "CellSums",
    "Normal",
    "Theta",
    "cell_sums",
    "log_likelihood",
    "log_marginal_likelihood",
    "normal_equations",
]


class Theta(NamedTuple):
    """Hyperparameters: ``sigma`` by noise class; ``roots`` A of each factor, A A' its covariance."""

    sigma: Any
    roots: Mapping[str, Any]


class Normal(NamedTuple):
    """The normal equations, cells eliminated.

    Columns of the dense block and of ``cross`` are the coefficients, the effects that are
    eliminated last (the outer ones, or the local ones of all buckets), the response, and
    one column per sum-to-zero constraint.

    Attributes
    ----------
    blocks
        What is eliminated first, prior and information: per bucket (blocks, width, width),
        or the levels of the outer factor (levels, K, K).
    cross
        For each of ``blocks`` (blocks, width, columns).
    dense
        (columns, columns).
    log_det
        Log determinant of V.
    """

    blocks: tuple[Any, ...]
    cross: tuple[Any, ...]
    dense: Any
    log_det: Any


def log_marginal_likelihood(layout: Layout, sums: Mapping[str, Any], theta: Theta) -> Any:
    """Return log p(y | theta), the effects and coefficients integrated out.

    Flat coefficients are integrated against Lebesgue measure (of standardized
    coefficients); factors marked ``fixed`` sum to zero.

    Parameters
    ----------
    layout, sums
        From :func:`~spatialclusters.collapsed.statistics.lay_out` and ``statistics``.
    theta
        Noise and covariance roots.
    """
    normal = normal_equations(layout, sums, theta)
    log_det, rest = eliminate(layout.dense_width, *normal[:3])
    return log_likelihood(layout, theta, normal.log_det + log_det, rest)


def log_likelihood(layout: Layout, theta: Theta, log_det: Any, rest: Any) -> Any:
    """Return log p(y | theta) from the log determinants and what an elimination left."""
    flat = int((~layout.problem.proper).sum())
    n_rows = len(layout.problem.classes)
    value = log_det + rest[0, 0] + (n_rows - flat) * math.log(2.0 * math.pi)
    if layout.constrained:
        # conditioning on means of zero: N(0; mean | y) / N(0; mean)
        spread, mean = -rest[1:, 1:], rest[1:, 0]
        value += jnp.linalg.slogdet(spread)[1] + mean @ jnp.linalg.solve(spread, mean)
        value -= jnp.sum(jnp.log(_prior_of_means(layout, theta)))
    return -0.5 * value


def normal_equations(layout: Layout, sums: Mapping[str, Any], theta: Theta) -> Normal:
    """Weight the sums by the noise, eliminate the cells, and add the priors."""
    weight = theta.sigma**-2.0
    columns = layout.n_columns
    xx = _weighted(sums["XX"], weight)
    xz = _weighted(sums["XZ"], weight)
    k = layout.outer[0].width if layout.plan.outer_first else layout.outer_width
    zz = weigh(sums["ZZ"], weight, (layout.outer_width, k))
    log_det = -(sums["rows"] @ jnp.log(weight))
    blocks, cross, own = [], [], [jnp.zeros(())] * len(layout.outer)
    for bucket, mine in zip(layout.buckets, sums["buckets"], strict=True):
        width = bucket.width
        local = _weighted(mine["local"], weight)
        local = local.reshape(len(bucket.blocks), width, width + columns + 1)
        if layout.plan.cell is None:
            shape = (len(bucket.blocks), width, layout.outer_width)
            to_outer = weigh(mine["cross"], weight, shape)
        else:
            cells = _cells(layout, bucket, mine, weight, theta)
            local, to_outer = local - cells.local, cells.to_outer
            xx, xz = xx - cells.xx, xz - cells.xz
            own = [before + more for before, more in zip(own, cells.own, strict=True)]
            zz = zz if cells.between is None else zz - cells.between
            log_det += cells.log_det
        blocks.append(_with_prior(layout, bucket, theta, local[:, :, :width]))
        right = [local[:, :, width:-1], to_outer, local[:, :, -1:]]
        right += [mine["constraint"]] if layout.constrained else []
        cross.append(right)
    for factor, levels in (
        *((f, f.n_seen) for f in layout.local),
        *((f, f.n_levels) for f in layout.outer),
    ):
        log_det += 2.0 * levels * jnp.sum(jnp.log(jnp.abs(jnp.diag(theta.roots[factor.name]))))
    x, y = slice(0, columns), slice(columns, columns + 1)
    xx_prior = xx[x, x] + jnp.diag(layout.problem.proper.astype(float))
    # between what is in no block: coefficients, response, constraints
    to_z, ends = [xz[x], xz[y]], [xx[x, y], xx[y, y]]
    if layout.constrained:
        to_z.append(sums["constraint"].T)
        n = len(layout.constrained)
        # levels without rows are in no block, but their effects count in the sum
        unplaced = -jnp.diag(sums["unplaced"] * _prior_of_means(layout, theta))
        ends = [
            jnp.concatenate([xx[x, y], jnp.zeros((columns, n))], axis=1),
            jnp.block([[xx[y, y], jnp.zeros((1, n))], [jnp.zeros((n, 1)), unplaced]]),
        ]
    parts = _Unblocked(xx_prior, zz, to_z[0], jnp.concatenate(to_z[1:]).T, *ends)
    assemble = _outer_first if layout.plan.outer_first else _blocks_first
    return Normal(*assemble(layout, theta, parts, own, blocks, cross), log_det)


class _Unblocked(NamedTuple):
    """Information between coefficients x, outer effects z, and right-hand sides y."""

    xx: Any
    zz: Any
    xz: Any
    zy: Any
    xy: Any
    yy: Any


def _blocks_first(
    layout: Layout,
    theta: Theta,
    parts: _Unblocked,
    own: Sequence[Any],
    blocks: Sequence[Any],
    cross: Sequence[Sequence[Any]],
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Put outer effects into the dense block."""
    zz = _with_outer_prior(layout, theta, parts.zz, own)
    dense = jnp.block(
        [
            [parts.xx, parts.xz, parts.xy],
            [parts.xz.T, zz, parts.zy],
            [parts.xy.T, parts.zy.T, parts.yy],
        ]
    )
    return tuple(blocks), tuple(jnp.concatenate(right, axis=2) for right in cross), dense


def _outer_first(
    layout: Layout,
    theta: Theta,
    parts: _Unblocked,
    own: Sequence[Any],
    blocks: Sequence[Any],
    cross: Sequence[Sequence[Any]],
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Put local effects into the dense block: what is left are the levels of one factor."""
    (factor,) = layout.outer
    j, k, width = factor.n_levels, factor.width, layout.local_width
    first = parts.zz.reshape(j, k, k) - own[0] + _precision(theta.roots[factor.name])
    to_local = [right[1].reshape(-1, j, k).transpose(1, 2, 0) for right in cross]
    sides = [parts.xz.reshape(-1, j, k).transpose(1, 2, 0), parts.zy.reshape(j, k, -1)]
    flat = [[part.reshape(-1, part.shape[2]) for part in right] for right in cross]
    local_x = jnp.concatenate([right[0] for right in flat])
    local_y = jnp.concatenate([jnp.concatenate(right[2:], axis=1) for right in flat])
    local, at = jnp.zeros((width, width)), 0
    for block in blocks:
        place = at + np.arange(block.shape[0] * block.shape[1]).reshape(block.shape[:2])
        local = local.at[place[:, :, None], place[:, None, :]].set(block)
        at += place.size
    dense = jnp.block(
        [
            [parts.xx, local_x.T, parts.xy],
            [local_x, local, local_y],
            [parts.xy.T, local_y.T, parts.yy],
        ]
    )
    return (first,), (jnp.concatenate([sides[0], *to_local, sides[1]], axis=2),), dense


def _prior_of_means(layout: Layout, theta: Theta) -> Any:
    """Return the prior variance of the mean effect of each constrained factor."""
    return jnp.stack([theta.roots[f.name][0, 0] ** 2 / f.n_levels for f in layout.constrained])


def _precision(root: Any) -> Any:
    inverse = solve_triangular(root, jnp.eye(root.shape[0]), lower=True)
    return inverse.T @ inverse


def _with_prior(layout: Layout, bucket: Bucket, theta: Theta, information: Any) -> Any:
    """Add the prior precision of local effects, and 1 where a block has no such effect."""
    offset = 0
    for factor, present in zip(layout.local, bucket.present, strict=True):
        precision = _precision(theta.roots[factor.name])
        eye = jnp.eye(factor.width)
        added = jnp.where(present[:, :, None, None], precision, eye)
        at = offset + np.arange(present.shape[1] * factor.width).reshape(-1, factor.width)
        information = information.at[:, at[:, :, None], at[:, None, :]].add(added)
        offset += at.size
    return information


def _with_outer_prior(layout: Layout, theta: Theta, information: Any, taken: Sequence[Any]) -> Any:
    """Add the prior precision of outer effects, and take what cells take within factors."""
    offset = 0
    for factor, own in zip(layout.outer, taken, strict=True):
        at = offset + np.arange(factor.n_levels * factor.width).reshape(-1, factor.width)
        added = _precision(theta.roots[factor.name]) - own
        information = information.at[at[:, :, None], at[:, None, :]].add(added)
        offset += at.size
    return information


def weigh(entries: Any, weight: Any, shape: Sequence[int]) -> Any:
    """Add up entries by class, each times the weight of its noise class."""
    if not isinstance(entries, ByClass):
        return jnp.reshape(entries, shape) * weight[0]
    value = jnp.asarray(entries.value)
    scaled = value * weight[jnp.asarray(entries.noise)].reshape(-1, *(1,) * (value.ndim - 1))
    total = math.prod(shape) // math.prod(value.shape[1:])
    summed = jax.ops.segment_sum(scaled, entries.index, total, indices_are_sorted=True)
    return summed.reshape(shape)


def _weighted(by_class: Any, weight: Any) -> Any:
    """Contract a leading axis of noise classes with their weights."""
    by_class = jnp.asarray(by_class)
    if by_class.shape[0] == 1:
        return by_class[0] * weight[0]
    return (weight @ by_class.reshape(len(weight), -1)).reshape(by_class.shape[1:])


class _Cells(NamedTuple):
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

    ``columns``, (blocks, cells, p + 1), of coefficients and response; ``outer``, one
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
    first = layout.n_columns + 1
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


def _cells(
    layout: Layout, bucket: Bucket, mine: Mapping[str, Any], weight: Any, theta: Theta
) -> _Cells:
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
    return _Cells(
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
