"""Where every level of every factor stands in the arrays of a mixed model.

Blocks of similar width share a *bucket*: arrays padded to the widest block in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from spatialclusters.blends import Combination
from spatialclusters.collapsed.plan import Factor, Plan, make_plan
from spatialclusters.processes.outcome import Outcome

__all__ = [
    "BlendedColumns",
    "Bucket",
    "ByClass",
    "Constraint",
    "Layout",
    "Problem",
    "Theta",
    "lay_out",
    "zero_sums",
]

_MAX_BUCKETS = 4


@dataclass(frozen=True, eq=False)
class BlendedColumns:
    r"""Columns of X that depend on an estimated W: :math:`\sum_k c_k(\psi)` times those at W_k.

    Attributes
    ----------
    psi
        c as a function of :math:`\psi`.
    at
        Positions in X, possibly none.
    values
        Whitened columns at each matrix, (K, N, number of positions).
    mean
        Prior means of their coefficients in prior standard deviations.
    """

    psi: Combination
    at: tuple[int, ...]
    values: np.ndarray
    mean: np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    r"""A Gaussian linear mixed model over N rows, in whitened coefficients.

    ``y = shift + X u + sum_f Z_f b_f + noise`` with ``u ~ N(0, 1)`` where ``proper`` and
    flat elsewhere: columns of X are multiplied by prior standard deviations, and
    ``shift`` is the mean at prior means. ``classes`` is the noise class of every row.
    With ``space``, y stands for :math:`(I - \rho L) y` and the noise for
    :math:`(I - \lambda L)^{-1}` noise, as its parameters say. With ``blend`` some columns of
    X depend on :math:`\psi`; X is then that of the reference, and ``shift`` lacks them.
    """

    X: np.ndarray
    shift: np.ndarray
    proper: np.ndarray
    factors: tuple[Factor, ...]
    classes: np.ndarray
    n_classes: int
    space: Outcome | None = None
    blend: BlendedColumns | None = None

    def at(self, values: Mapping[str, Any]) -> Problem:
        """Return the problem at the parameter of W among ``values``, no longer a blend."""
        if self.blend is None:
            return self
        psi, at = self.blend.psi, list(self.blend.at)
        c = psi.coefficients(np.asarray(values[psi.parameter], dtype=float))
        X, space = self.X.copy(), self.space
        X[:, at] = np.tensordot(c, self.blend.values, 1)
        shift = self.shift + X[:, at] @ self.blend.mean
        space = None if space is None else space.at(values)
        return replace(self, X=X, shift=shift, space=space, blend=None)

    @property
    def n_lags(self) -> int:
        """Number of lags of the response: none, one, or one for every matrix of a blend."""
        if not self.lags_response:
            return 0
        return 1 if self.blend is None else len(self.blend.psi.labels)

    @property
    def n_raw(self) -> int:
        """Number of columns that sums are kept of: coefficients, response, and its lags."""
        columns = int(self.X.shape[1]) + 1 + self.n_lags
        if self.blend is None:
            return columns
        return columns + len(self.blend.at) * (len(self.blend.psi.labels) - 1)

    @property
    def lags_response(self) -> bool:
        """Whether the response depends on its neighbors'."""
        return self.space is not None and "rho" in self.space.parameters

    @property
    def lags_noise(self) -> bool:
        """Whether the noise depends on its neighbors'."""
        return self.space is not None and "lambda" in self.space.parameters


class Theta(NamedTuple):
    """Hyperparameters: ``sigma`` by noise class; ``roots`` A of each factor, A A' its covariance.

    ``spatial`` holds ``rho``, ``lambda``, the parameters of surfaces, and that of an estimated
    W, by name.
    """

    sigma: Any
    roots: Mapping[str, Any]
    spatial: Mapping[str, Any] = {}


class Constraint(NamedTuple):
    """Levels of a factor whose effects sum to zero."""

    factor: Factor
    levels: np.ndarray


class ByClass(NamedTuple):
    """Entries of an array by noise class: add ``value * weight[noise]`` at ``index``."""

    index: Any
    noise: Any
    value: Any


@dataclass(frozen=True, eq=False)
class Bucket:
    """Blocks that share padded arrays.

    ``present``, (blocks, most levels of a block) for each local factor, tells which of
    the padded levels exist; ``cells`` is the number of slots for cells; ``aligned`` tells
    for each outer factor whether cells stand at the slot of their level.
    """

    blocks: np.ndarray
    present: tuple[np.ndarray, ...]
    width: int
    cells: int
    aligned: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where every level of every factor stands; nothing here depends on the response.

    ``place`` holds for each local factor bucket, slot and position of each level (-1
    where a level has no row); ``cell_place`` bucket, slot and cell slot of each cell.
    """

    problem: Problem
    plan: Plan
    buckets: tuple[Bucket, ...]
    place: dict[int, np.ndarray]
    cell_place: np.ndarray
    row_place: np.ndarray

    @property
    def local(self) -> tuple[Factor, ...]:
        """Factors in blocks."""
        return tuple(self.problem.factors[f] for f in self.plan.local)

    @property
    def outer(self) -> tuple[Factor, ...]:
        """Factors in the dense block."""
        return tuple(self.problem.factors[f] for f in self.plan.outer)

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """Sums that are zero, in the order of the constraint columns."""
        return tuple(
            Constraint(factor, levels)
            for factor in self.problem.factors
            for levels in zero_sums(factor)
        )

    @property
    def n_columns(self) -> int:
        """Number of coefficients, the intercept included."""
        return int(self.problem.X.shape[1])

    @property
    def n_sums(self) -> int:
        """Number of columns that rows are summed over."""
        return self.problem.n_raw

    @property
    def local_width(self) -> int:
        """Number of places for local effects, padding included."""
        return sum(len(bucket.blocks) * bucket.width for bucket in self.buckets)

    @property
    def dense_width(self) -> int:
        """Number of unknowns in the dense block that is eliminated last."""
        last = self.local_width if self.plan.outer_first else self.outer_width
        return self.n_columns + last

    @property
    def outer_width(self) -> int:
        """Number of outer effects."""
        return sum(f.n_levels * f.width for f in self.outer)


def lay_out(problem: Problem, plan: Plan | None = None) -> Layout:
    """Give every level its place, by default in the cheapest plan."""
    components = problem.space.lag.components if problem.space and problem.lags_noise else None
    plan = plan or make_plan(problem.factors, problem.X.shape[1] + 1, components)
    factors = problem.factors
    n_blocks = int(plan.block.max()) + 1 if len(plan.block) else 0
    owner = {f: _owner(factors[f], plan.block) for f in plan.local}
    counts = np.array(
        [np.bincount(owner[f][owner[f] >= 0], minlength=n_blocks) for f in plan.local], dtype=int
    ).reshape(len(plan.local), n_blocks)
    widths = np.array([factors[f].width for f in plan.local], dtype=int)
    parts = _cut(widths @ counts) if n_blocks else []
    slot_of = np.zeros((n_blocks, 2), dtype=int)
    for k, part in enumerate(parts):
        slot_of[part] = np.column_stack([np.full(len(part), k), np.arange(len(part))])
    place = {}
    for f in plan.local:
        known = np.maximum(owner[f], 0)
        place[f] = np.column_stack([slot_of[known], _ranks(owner[f])])
        place[f][owner[f] < 0] = -1
    cell_place, slots, aligned = _place_cells(problem, plan, slot_of, parts)
    buckets = tuple(
        Bucket(
            part,
            tuple(np.arange(c[part].max()) < c[part][:, None] for c in counts),
            int(widths @ counts[:, part].max(axis=1)) if len(widths) else 0,
            slots[k],
            aligned[k],
        )
        for k, part in enumerate(parts)
    )
    row_place = slot_of[plan.block] if n_blocks else np.zeros((0, 2), dtype=int)
    return Layout(problem, plan, buckets, place, cell_place, row_place)


def zero_sums(factor: Factor) -> list[np.ndarray]:
    """Return the sets of levels whose effects sum to zero."""
    if factor.fixed:
        return [np.arange(factor.n_levels)]
    if factor.surface is None or not factor.surface.field.constrained:
        return []
    graph = factor.surface.graph.adjacency
    component = sparse.csgraph.connected_components(graph, directed=False)[1]
    sets = [np.flatnonzero(component == k) for k in range(int(component.max()) + 1)]
    return [levels for levels in sets if len(levels) > 1]


def _owner(factor: Factor, block: np.ndarray) -> np.ndarray:
    """Return the block of every level, -1 for levels without rows."""
    owner = np.full(factor.n_levels, -1)
    owner[factor.codes] = block
    return owner


def _ranks(owner: np.ndarray) -> np.ndarray:
    """Return the place of each level among those of its block, from 0."""
    order = np.argsort(owner, kind="stable")
    sorted_owner = owner[order]
    first = np.searchsorted(sorted_owner, sorted_owner)
    ranks = np.empty(len(owner), dtype=int)
    ranks[order] = np.arange(len(owner)) - first
    return ranks


def _cut(widths: np.ndarray) -> list[np.ndarray]:
    """Cut the blocks, sorted by width, into buckets with the least padding."""
    order = np.argsort(widths, kind="stable")
    values, first = np.unique(widths[order], return_index=True)
    ends = np.append(first[1:], len(order))
    n = len(values)
    most = min(_MAX_BUCKETS, n)
    cost = np.full((most + 1, n + 1), np.inf)
    cost[0, 0] = 0.0
    back = np.zeros((most + 1, n + 1), dtype=int)
    for k in range(1, most + 1):
        for j in range(1, n + 1):
            padded = values[j - 1] * (ends[j - 1] - first[:j])
            options = cost[k - 1, :j] + padded
            back[k, j] = int(np.argmin(options))
            cost[k, j] = options[back[k, j]]
    parts, j = [], n
    for k in range(int(np.argmin(cost[:, n])), 0, -1):
        i = back[k, j]
        parts.append(order[first[i] : ends[j - 1]])
        j = i
    return parts[::-1]


def _place_cells(
    problem: Problem, plan: Plan, slot_of: np.ndarray, parts: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[int], list[tuple[bool, ...]]]:
    """Give every cell a slot: that of its level of an outer factor where this wastes little."""
    if plan.cell is None:
        return np.zeros((0, 3), dtype=int), [0] * len(parts), [()] * len(parts)
    cell = problem.factors[plan.cell]
    owner = _owner(cell, plan.block)
    known = np.maximum(owner, 0)
    place = np.column_stack([slot_of[known], _ranks(owner)])
    place[owner < 0] = -1
    slots, aligned = [], []
    for k in range(len(parts)):
        inside = place[:, 0] == k
        slots.append(int(place[inside, 2].max()) + 1)
        flags = [False] * len(plan.outer)
        for at, f in enumerate(plan.outer):
            level = np.zeros(cell.n_levels, dtype=int)
            level[cell.codes] = problem.factors[f].codes
            n_levels = problem.factors[f].n_levels
            pairs = place[inside, 1] * n_levels + level[inside]
            if len(np.unique(pairs)) == len(pairs) and n_levels <= 4 * slots[k]:
                place[inside, 2], slots[k], flags[at] = level[inside], n_levels, True
                break
        aligned.append(tuple(flags))
    return place, slots, aligned
