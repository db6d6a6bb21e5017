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

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from spatialclusters.collapsed.cells import eliminate_cells, weigh, weigh_classes
from spatialclusters.collapsed.elimination import eliminate
from spatialclusters.collapsed.layout import Bucket, Layout, Theta

__all__ = ["Normal", "log_likelihood", "log_marginal_likelihood", "normal_equations"]


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
    xx = weigh_classes(sums["XX"], weight)
    xz = weigh_classes(sums["XZ"], weight)
    k = layout.outer[0].width if layout.plan.outer_first else layout.outer_width
    zz = weigh(sums["ZZ"], weight, (layout.outer_width, k))
    log_det = -(sums["rows"] @ jnp.log(weight))
    blocks, cross, own = [], [], [jnp.zeros(())] * len(layout.outer)
    for bucket, mine in zip(layout.buckets, sums["buckets"], strict=True):
        width = bucket.width
        local = weigh_classes(mine["local"], weight)
        local = local.reshape(len(bucket.blocks), width, width + columns + 1)
        if layout.plan.cell is None:
            shape = (len(bucket.blocks), width, layout.outer_width)
            to_outer = weigh(mine["cross"], weight, shape)
        else:
            cells = eliminate_cells(layout, bucket, mine, weight, theta)
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
