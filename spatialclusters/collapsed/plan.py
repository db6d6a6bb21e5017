"""Which effects are eliminated when: derived from what nests in and crosses what.

Rows couple the levels of all their groups. Groups chosen to be *local* fall into
independent blocks, the connected components of their levels; one of them whose levels
nest in everything outside the blocks, the *cells*, is cheaper still: each of its
levels is a rank-one term. The rest is *outer*: one dense block with the coefficients.
Where there are many levels of a single outer factor and few local effects, the order is
turned around: outer levels first, one by one, then everything local in one dense block.
The plan is the choice with the fewest operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from spatialclusters.lags import LevelGraph
from spatialclusters.processes.fields import Field

__all__ = ["Factor", "Plan", "Surface", "make_plan"]


@dataclass(frozen=True, eq=False)
class Surface:
    """A spatial structure over the levels of a factor, and the name of its parameter."""

    field: Field
    graph: LevelGraph
    parameter: str | None


@dataclass(frozen=True, eq=False)
class Factor:
    """A group of effects: the level of every row, and the columns that vary by level.

    ``values`` has shape (N, K); row n has the effects of level ``codes[n]`` in its
    mean with these weights. With a ``surface`` the levels are correlated.
    """

    name: str
    codes: np.ndarray
    n_levels: int
    values: np.ndarray
    fixed: bool = False
    surface: Surface | None = None

    @property
    def width(self) -> int:
        """Number of columns K."""
        return int(self.values.shape[1])

    @cached_property
    def n_seen(self) -> int:
        """Number of levels that have rows."""
        return len(np.unique(self.codes))

    @cached_property
    def intercept_only(self) -> bool:
        """Whether the only column is a constant one."""
        return self.width == 1 and bool((self.values == 1.0).all())


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of elimination.

    Attributes
    ----------
    cell
        Position of the factor that is eliminated level by level, or None.
    local, outer
        Positions of the factors in blocks and in the dense block.
    block
        Block of every row.
    outer_first
        Whether the levels of the one outer factor, independent given all else, are
        eliminated before the blocks, which are then dense.
    operations
        Multiplications of one evaluation, to leading order.
    """

    cell: int | None
    local: tuple[int, ...]
    outer: tuple[int, ...]
    block: np.ndarray
    outer_first: bool
    operations: float


def make_plan(factors: Sequence[Factor], n_columns: int, noise: np.ndarray | None = None) -> Plan:
    """Choose the cheapest order of elimination.

    Parameters
    ----------
    factors
        Group factors over the same N rows.
    n_columns
        Coefficients and other columns that are always in the dense block.
    noise
        With spatially correlated noise, the component of every row: rows of one component
        meet in everything, so they are in one block, and nothing leaves level by level.

    Examples
    --------
    Industries nest in clusters, regions cross both, cells nest in both:

    >>> import numpy as np
    >>> industry, region = (a.ravel() for a in np.indices((6, 4)))
    >>> cluster, ones = industry // 2, np.ones((24, 1))
    >>> factors = [Factor("industry", industry, 6, ones), Factor("region", region, 4, ones),
    ...            Factor("region:cluster", region * 3 + cluster, 12, ones),
    ...            Factor("cluster", cluster, 3, ones)]
    >>> plan = make_plan(factors, 5)
    >>> plan.cell, plan.local, plan.outer, len(set(plan.block))
    (2, (0, 3), (1,), 3)
    """
    positions = range(len(factors))
    return min(
        (
            candidate
            for size in range(len(factors) + 1)
            for inside in itertools.combinations(positions, size)
            for candidate in _candidates(factors, inside, n_columns, noise)
        ),
        key=lambda plan: plan.operations,
    )


def _candidates(
    factors: Sequence[Factor], inside: tuple[int, ...], n_columns: int, noise: np.ndarray | None
) -> list[Plan]:
    """Return the plans with these factors in blocks, with and without cells."""
    outer = tuple(f for f in range(len(factors)) if f not in inside)
    block = _blocks([factors[f] for f in inside], noise)
    cells = [
        f
        for f in inside
        if noise is None
        and factors[f].intercept_only
        and not factors[f].fixed
        and factors[f].surface is None
        and all(_nested(factors[f], factors[g]) for g in outer)
    ]
    plans = []
    for cell in (None, *cells):
        local = tuple(f for f in inside if f != cell)
        widths = _widths([factors[f] for f in local], block)
        first = float(_size(factors, outer) + n_columns)
        blocks_first = first**3 + (widths**3 + widths**2 * first + widths * first**2).sum()
        plans.append(Plan(cell, local, outer, block, False, float(blocks_first)))
        apart = noise is None and all(factors[f].surface is None for f in outer)
        if len(outer) == 1 and local and apart:
            k, last = factors[outer[0]].width, float(widths.sum()) + n_columns
            levels = factors[outer[0]].n_levels
            outer_first = last**3 + levels * (k**3 + k**2 * last + k * last**2)
            plans.append(Plan(cell, local, outer, block, True, float(outer_first)))
    return plans


def _size(factors: Sequence[Factor], chosen: tuple[int, ...]) -> int:
    return sum(factors[f].n_levels * factors[f].width for f in chosen)


def _blocks(local: Sequence[Factor], noise: np.ndarray | None) -> np.ndarray:
    """Return the connected component of every row, where what rows share connects them.

    They share levels, the pieces of a surface, and the components of their noise.
    """
    if not local:
        return np.zeros(0, dtype=np.int64)
    shared = [factor.codes for factor in local]
    shared += [f.surface.graph.piece[f.codes] for f in local if f.surface is not None]
    shared += [] if noise is None else [noise]
    offsets = np.cumsum([0, *(int(codes.max()) + 1 for codes in shared)])
    nodes = [codes + offset for codes, offset in zip(shared, offsets, strict=False)]
    edges = [np.empty((2, 0), dtype=np.int64)]
    edges += [np.stack([nodes[0], other]) for other in nodes[1:]]
    source, target = np.concatenate(edges, axis=1)
    graph = sparse.coo_array((np.ones(len(source)), (source, target)), shape=(offsets[-1],) * 2)
    _, component = sparse.csgraph.connected_components(graph.tocsr(), directed=False)
    return np.unique(component[nodes[0]], return_inverse=True)[1]


def _nested(inner: Factor, outer: Factor) -> bool:
    """Tell whether every level of ``inner`` meets one level of ``outer`` only."""
    first = np.zeros(inner.n_levels, dtype=np.int64)
    first[inner.codes] = outer.codes
    return bool((first[inner.codes] == outer.codes).all())


def _widths(local: Sequence[Factor], block: np.ndarray) -> np.ndarray:
    """Return the number of effects in every block."""
    widths = np.zeros(int(block.max()) + 1 if len(block) else 0)
    for factor in local:
        place = np.zeros(factor.n_levels, dtype=np.int64)
        place[factor.codes] = block
        seen = np.bincount(factor.codes, minlength=factor.n_levels) > 0
        np.add.at(widths, place[seen], factor.width)
    return widths
