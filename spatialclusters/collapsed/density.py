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
from spatialclusters.collapsed.layout import BlendedColumns, Bucket, Layout, Problem, Theta
from spatialclusters.collapsed.plan import Factor

__all__ = [
    "Normal",
    "log_likelihood",
    "log_marginal_likelihood",
    "normal_equations",
    "response_column",
]


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
    if layout.constraints:
        # conditioning on means of zero: N(0; mean | y) / N(0; mean)
        spread, mean = -rest[1:, 1:], rest[1:, 0]
        value += jnp.linalg.slogdet(spread)[1] + mean @ jnp.linalg.solve(spread, mean)
        value -= jnp.sum(jnp.log(_prior_of_means(layout, theta)))
    return -0.5 * value


def normal_equations(layout: Layout, sums: Mapping[str, Any], theta: Theta) -> Normal:
    """Weight the sums by the noise, eliminate the cells, and add the priors."""
    problem, columns = layout.problem, layout.n_columns
    weight = theta.sigma**-2.0
    log_det = -(sums["rows"] @ jnp.log(weight))
    if problem.space is not None:
        log_det -= 2.0 * problem.space.log_jacobian(theta.spatial, jnp, sums.get("links"))
    if problem.lags_noise:
        slope = theta.spatial["lambda"]
        weight = jnp.concatenate([weight, -slope * weight, slope**2 * weight])
    xx = weigh_classes(sums["XX"], weight)
    xz = weigh_classes(sums["XZ"], weight)
    k = layout.outer[0].width if layout.plan.outer_first else layout.outer_width
    zz = weigh(sums["ZZ"], weight, (layout.outer_width, k))
    blocks, cross, own = [], [], [jnp.zeros(())] * len(layout.outer)
    for bucket, mine in zip(layout.buckets, sums["buckets"], strict=True):
        width = bucket.width
        local = weigh_classes(mine["local"], weight)
        local = local.reshape(len(bucket.blocks), width, width + layout.n_sums)
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
        block, log_prior = _with_prior(layout, bucket, mine, theta, local[:, :, :width])
        log_det -= log_prior
        blocks.append(block)
        local_x = response_column(problem, theta, local[:, :, width:])
        right = [local_x[:, :, :-1], to_outer, local_x[:, :, -1:]]
        right += [mine["constraint"]] if layout.constraints else []
        cross.append(right)
    surfaces = {}
    for factor in layout.outer:
        if factor.surface is not None:
            arrays = sums["surfaces"][factor.name]
            surfaces[factor.name], log_prior = _surface_precision(factor, arrays, theta)
            log_det -= log_prior
    for factor, levels in (
        *((f, f.n_seen) for f in layout.local),
        *((f, f.n_levels) for f in layout.outer),
    ):
        log_det += 2.0 * levels * jnp.sum(jnp.log(jnp.abs(jnp.diag(theta.roots[factor.name]))))
    xx = response_column(problem, theta, response_column(problem, theta, xx).T)
    xz = response_column(problem, theta, xz.T).T
    x, y = slice(0, columns), slice(columns, columns + 1)
    xx_prior = xx[x, x] + jnp.diag(layout.problem.proper.astype(float))
    # between what is in no block: coefficients, response, constraints
    to_z, ends = [xz[x], xz[y]], [xx[x, y], xx[y, y]]
    if layout.constraints:
        to_z.append(sums["constraint"].T)
        n = len(layout.constraints)
        # levels without rows are in no block, but their effects count in the sum
        unplaced = -jnp.diag(sums["unplaced"] * _prior_of_means(layout, theta))
        ends = [
            jnp.concatenate([xx[x, y], jnp.zeros((columns, n))], axis=1),
            jnp.block([[xx[y, y], jnp.zeros((1, n))], [jnp.zeros((n, 1)), unplaced]]),
        ]
    parts = _Unblocked(xx_prior, zz, to_z[0], jnp.concatenate(to_z[1:]).T, *ends)
    if layout.plan.outer_first:
        return Normal(*_outer_first(layout, theta, parts, own, blocks, cross), log_det)
    zz = _with_outer_prior(layout, theta, zz, own, surfaces)
    return Normal(*_blocks_first(parts._replace(zz=zz), blocks, cross), log_det)


def response_column(problem: Problem, theta: Theta, columns: Any) -> Any:
    """Contract raw columns to those of the coefficients and the filtered response.

    The last two, y and L y, become one where the response is lagged; with an estimated W all
    that depends on it is contracted by a matrix of its coefficients.
    """
    if problem.blend is not None:
        return columns @ _contraction(problem, problem.blend, theta)
    if not problem.lags_response:
        return columns
    filtered = columns[..., -2:-1] - theta.spatial["rho"] * columns[..., -1:]
    return jnp.concatenate([columns[..., :-2], filtered], axis=-1)


def _contraction(problem: Problem, blend: BlendedColumns, theta: Theta) -> Any:
    """Return the matrix from raw columns to coefficients and response, (raw, p + 1)."""
    p, at = problem.X.shape[1], np.array(blend.at, dtype=int)
    c = blend.psi.coefficients(theta.spatial[blend.psi.parameter], jnp)
    k = len(blend.psi.labels)
    fixed = np.setdiff1d(np.arange(p), at)
    out = jnp.zeros((problem.n_raw, p + 1)).at[np.arange(len(fixed)), fixed].set(1.0)
    rows = len(fixed) + np.arange(len(at) * k).reshape(len(at), k)
    out = out.at[rows, at[:, None]].set(jnp.broadcast_to(c, rows.shape))
    out = out.at[rows, p].set(-blend.mean[:, None] * c)
    response = len(fixed) + rows.size
    out = out.at[response, p].set(1.0)
    if problem.lags_response:
        out = out.at[response + 1 + np.arange(k), p].set(-theta.spatial["rho"] * c)
    return out


class _Unblocked(NamedTuple):
    """Information between coefficients x, outer effects z, and right-hand sides y."""

    xx: Any
    zz: Any
    xz: Any
    zy: Any
    xy: Any
    yy: Any


def _blocks_first(
    parts: _Unblocked, blocks: Sequence[Any], cross: Sequence[Sequence[Any]]
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Put outer effects into the dense block."""
    dense = jnp.block(
        [
            [parts.xx, parts.xz, parts.xy],
            [parts.xz.T, parts.zz, parts.zy],
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
    """Return the prior variance of each mean effect that is constrained to zero."""
    return jnp.stack(
        [theta.roots[f.name][0, 0] ** 2 / len(levels) for f, levels in layout.constraints]
    )


def _surface_precision(factor: Factor, arrays: Any, theta: Theta) -> tuple[Any, Any]:
    """Return the prior precision of a surface, by piece, and its log determinant at scale one."""
    assert factor.surface is not None
    surface = factor.surface
    parameter = None if surface.parameter is None else theta.spatial[surface.parameter]
    precision, log_det = surface.field.precision(arrays, parameter)
    return precision / theta.roots[factor.name][0, 0] ** 2, log_det


def _precision(root: Any) -> Any:
    inverse = solve_triangular(root, jnp.eye(root.shape[0]), lower=True)
    return inverse.T @ inverse


def _with_prior(
    layout: Layout, bucket: Bucket, mine: Mapping[str, Any], theta: Theta, information: Any
) -> tuple[Any, Any]:
    """Add the prior precision of local effects, and 1 where a block has no such effect.

    Returns
    -------
    tuple
        The information, and the log determinants of surfaces at scale one.
    """
    offset, log_prior = 0, jnp.zeros(())
    for factor, present in zip(layout.local, bucket.present, strict=True):
        if factor.surface is not None:
            precision, log_det = _surface_precision(factor, mine["surfaces"][factor.name], theta)
            # an absent slot has precision 1, whatever the scale
            both = present[:, :, None] & present[:, None, :]
            precision = jnp.where(both, precision, jnp.eye(present.shape[1]))
            inside = slice(offset, offset + present.shape[1])
            information = information.at[:, inside, inside].add(precision)
            offset, log_prior = inside.stop, log_prior + log_det
            continue
        precision = _precision(theta.roots[factor.name])
        eye = jnp.eye(factor.width)
        added = jnp.where(present[:, :, None, None], precision, eye)
        at = offset + np.arange(present.shape[1] * factor.width).reshape(-1, factor.width)
        information = information.at[:, at[:, :, None], at[:, None, :]].add(added)
        offset += at.size
    return information, log_prior


def _with_outer_prior(
    layout: Layout,
    theta: Theta,
    information: Any,
    taken: Sequence[Any],
    surfaces: Mapping[str, Any],
) -> Any:
    """Add the prior precision of outer effects, and take what cells take within factors."""
    offset = 0
    for factor, own in zip(layout.outer, taken, strict=True):
        at = offset + np.arange(factor.n_levels * factor.width).reshape(-1, factor.width)
        if factor.name in surfaces:
            inside = slice(offset, offset + factor.n_levels)
            information = information.at[inside, inside].add(surfaces[factor.name][0])
            added = -own
        else:
            added = _precision(theta.roots[factor.name]) - own
        information = information.at[at[:, :, None], at[:, None, :]].add(added)
        offset += at.size
    return information
