r"""Sums over rows that are all the likelihood needs, laid out for batched algebra.

Sums are linear in the weights ``1 / sigma_h**2`` of the noise classes h: with one class
they are plain arrays, with several they are kept by class, as
:class:`~spatialclusters.collapsed.layout.ByClass` where most entries belong to a single one.

Spatial noise filters all columns by :math:`I - \lambda L`, which makes every sum quadratic
in :math:`\lambda`: three classes for each, of weights :math:`w_h (1, -\lambda, \lambda^2)`.
A lagged response is one more column, :math:`L y`. With an estimated W every column that depends
on it is kept at each of the K matrices, the raw columns of the density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy import sparse

from spatialclusters.collapsed.layout import Bucket, ByClass, Layout, Problem
from spatialclusters.collapsed.plan import Factor

__all__ = ["padded", "statistics"]

_STEPS: Final = 8


def statistics(layout: Layout, y: np.ndarray) -> dict[str, Any]:
    """Return every sum over rows that the density needs, as a tree of NumPy arrays.

    Parameters
    ----------
    layout
        From :func:`lay_out`.
    y
        Response of the N rows.
    """
    problem = layout.problem
    weighted = _Weighted(problem, np.ones(len(y), dtype=bool))
    columns = _raw_columns(problem, y)
    both = weighted.columns(columns)
    outer = weighted.columns(_incidence(layout.outer, len(y)))
    tree: dict[str, Any] = {
        "rows": np.bincount(problem.classes, minlength=problem.n_classes).astype(float),
        "XX": np.stack(weighted.products(both, both)),
        "XZ": np.stack(weighted.products(both, outer)),
        "ZZ": _sparse_by_class(
            weighted.products(outer, outer),
            layout.outer[0].width if layout.plan.outer_first else layout.outer_width,
        ),
        "surfaces": {f.name: _outer_surface(f) for f in layout.outer if f.surface is not None},
        "buckets": [],
    }
    if layout.constraints:
        tree["constraint"] = np.concatenate(
            [
                np.zeros((0, len(layout.constraints))),
                *(_constraint(layout, f) for f in layout.outer),
            ]
        )
        tree["unplaced"] = np.array([_unplaced(layout, c.factor) for c in layout.constraints])
    if problem.space is not None and problem.space.blend is not None:
        tree["links"] = list(problem.space.blend.determinant.values)
    for k, bucket in enumerate(layout.buckets):
        tree["buckets"].append(_bucket(layout, k, bucket, columns))
    return tree


def padded(sums: Any) -> Any:
    """Give entries by class round numbers, the rest zero: data sets share compiled functions."""
    if isinstance(sums, ByClass):
        n = len(sums.value)
        step = max(1, 2 ** (n.bit_length() - 1) // _STEPS)
        more = -n % step
        # entries are sorted by index, so what is added repeats the last
        index = np.pad(sums.index, (0, more), mode="edge" if n else "constant")
        value = np.pad(sums.value, [(0, more)] + [(0, 0)] * (sums.value.ndim - 1))
        return ByClass(index, np.pad(sums.noise, (0, more)), value)
    if isinstance(sums, Mapping):
        return {name: padded(part) for name, part in sums.items()}
    return [padded(part) for part in sums] if isinstance(sums, list) else sums


def _raw_columns(problem: Problem, y: np.ndarray) -> np.ndarray:
    """Return coefficients' columns, response, and its lags: those of a blend matrix by matrix."""
    blend, lags = problem.blend, []
    if problem.lags_response:
        assert problem.space is not None
        whole = problem.space.blend
        lags = [lag @ y for lag in ((problem.space.lag,) if whole is None else whole.parts)]
    if blend is None:
        return np.column_stack([problem.X, y - problem.shift, *lags])
    fixed = np.setdiff1d(np.arange(problem.X.shape[1]), blend.at)
    # term by term, and matrix by matrix within
    varying = blend.values.transpose(1, 2, 0).reshape(len(y), -1)
    return np.column_stack([problem.X[:, fixed], varying, y - problem.shift, *lags])


class _Columns(NamedTuple):
    """Columns over the rows of each class and, under spatial noise, their lags."""

    plain: list[Any]
    lagged: list[Any] | None


class _Weighted:
    """Products of columns over a set of rows, one for each weight that noise gives them."""

    def __init__(self, problem: Problem, mine: np.ndarray) -> None:
        self.by_class = [problem.classes[mine] == h for h in range(problem.n_classes)]
        self.lag = None
        if problem.lags_noise:
            assert problem.space is not None
            self.lag = problem.space.lag.matrix[mine][:, mine]

    def columns(self, values: Any) -> _Columns:
        lagged = None if self.lag is None else self._split(self.lag @ values)
        return _Columns(self._split(values), lagged)

    def _split(self, values: Any) -> list[Any]:
        return [values[h] for h in self.by_class]

    def products(self, a: _Columns, b: _Columns) -> list[Any]:
        """Return a'b by class; with spatial noise, its three powers of lambda by class."""
        plain = [x.T @ y for x, y in zip(a.plain, b.plain, strict=True)]
        if a.lagged is None or b.lagged is None:
            return plain
        pairs = zip(a.plain, a.lagged, b.plain, b.lagged, strict=True)
        cross = [x.T @ Ly + Lx.T @ y for x, Lx, y, Ly in pairs]
        return [*plain, *cross, *(x.T @ y for x, y in zip(a.lagged, b.lagged, strict=True))]


def _outer_surface(factor: Factor) -> dict[str, np.ndarray]:
    """Prepare the surface over all levels of an outer factor: a single piece."""
    assert factor.surface is not None
    adjacency = factor.surface.graph.adjacency.toarray()[None]
    return factor.surface.field.prepare(adjacency, np.ones(adjacency.shape[:2], dtype=bool))


def _local_surface(layout: Layout, f: int, k: int, present: np.ndarray) -> dict[str, np.ndarray]:
    """Prepare the surfaces in the blocks of a bucket, padded to its widest."""
    surface, place = layout.problem.factors[f].surface, layout.place[f]
    assert surface is not None
    inside = np.flatnonzero(place[:, 0] == k)
    links = sparse.coo_array(surface.graph.adjacency[inside][:, inside])
    _, slot, position = place[inside].T
    adjacency = np.zeros((*present.shape, present.shape[1]))
    adjacency[slot[links.row], position[links.row], position[links.col]] = links.data
    return surface.field.prepare(adjacency, present)


def _constraint(layout: Layout, factor: Factor) -> np.ndarray:
    """Return the columns that pick the means of a factor's effects that are zero."""
    columns = np.zeros((factor.n_levels * factor.width, len(layout.constraints)))
    for j, (other, levels) in enumerate(layout.constraints):
        if other is factor:
            columns[levels, j] = 1.0 / len(levels)
    return columns


def _unplaced(layout: Layout, factor: Factor) -> float:
    """Return the share of a factor's levels that are neither in a block nor outer."""
    place = layout.place.get(layout.problem.factors.index(factor))
    return 0.0 if place is None else float((place[:, 0] < 0).mean())


def _incidence(factors: Sequence[Factor], n_rows: int) -> sparse.csr_array:
    """Return the columns of all effects of some factors, shape (N, sum of J K)."""
    blocks = []
    for factor in factors:
        n, width = factor.values.shape
        rows = np.repeat(np.arange(n), width)
        at = (factor.codes[:, None] * width + np.arange(width)).ravel()
        shape = (n, factor.n_levels * width)
        blocks.append(sparse.csr_array((factor.values.ravel(), (rows, at)), shape=shape))
    if not blocks:
        return sparse.csr_array((n_rows, 0))
    return sparse.csr_array(sparse.hstack(blocks, format="csr"))


def _sparse_by_class(matrices: Sequence[Any], width: int) -> ByClass:
    """Collect entries of square matrices, or of their diagonal blocks of this width."""
    parts = [sparse.coo_array(matrix) for matrix in matrices] if width else []
    return _by_class(
        [p.row.astype(np.int64) * width + p.col % width for p in parts], [p.data for p in parts]
    )


def _by_class(indices: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> ByClass:
    """Collect entries of all classes, sorted by index so that sums run in order."""
    if not indices:
        return ByClass(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    index, value = np.concatenate(indices), np.concatenate(values)
    noise = np.repeat(np.arange(len(indices)), [len(i) for i in indices])
    order = np.argsort(index, kind="stable")
    return ByClass(index[order], noise[order], value[order])


def _bucket(layout: Layout, k: int, bucket: Bucket, columns: np.ndarray) -> dict[str, Any]:
    problem, plan = layout.problem, layout.plan
    mine = layout.row_place[:, 0] == k
    slot = layout.row_place[mine, 1]
    n_blocks, width, q = len(bucket.blocks), bucket.width, columns.shape[1]
    local = _local_columns(layout, bucket, mine, slot)
    columns, weighted = columns[mine], _Weighted(problem, mine)
    by_class = weighted.by_class
    inner, right = weighted.columns(local), weighted.columns(columns)
    tree: dict[str, Any] = {
        "local": np.stack(
            [
                np.concatenate(
                    [
                        _diagonal_blocks(own, n_blocks, width),
                        np.reshape(to_columns, (n_blocks, width, q)),
                    ],
                    axis=2,
                )
                for own, to_columns in zip(
                    weighted.products(inner, inner), weighted.products(inner, right), strict=True
                )
            ]
        ),
        "surfaces": {
            problem.factors[f].name: _local_surface(layout, f, k, present)
            for f, present in zip(plan.local, bucket.present, strict=True)
            if problem.factors[f].surface is not None
        },
    }
    if layout.constraints:
        tree["constraint"] = _local_constraint(layout, bucket, k)
    outer = _incidence([_subset(f, mine) for f in layout.outer], len(slot))
    if plan.cell is None:
        shape = (n_blocks, width, layout.outer_width)
        parts = weighted.products(inner, weighted.columns(outer)) if width else []
        tree["cross"] = _cross(parts, shape)
        return tree
    cell_slot = layout.cell_place[problem.factors[plan.cell].codes[mine], 2]
    cell = slot * bucket.cells + cell_slot
    n_cells = n_blocks * bucket.cells
    tree["sums"] = _cell_sums(local, cell, by_class, (n_blocks, width, bucket.cells))
    inside = [columns, *(f.values[mine] for f in layout.outer), np.ones((len(cell), 1))]
    tree["cells"] = _row_sums(np.concatenate(inside, axis=1), cell, by_class, n_cells)
    tree["products"] = {
        f"{at} {column}": _cell_sums(
            local, cell, by_class, (n_blocks, width, bucket.cells), f.values[mine, column]
        )
        for at, f in enumerate(layout.outer)
        for column in range(f.width)
        if not (f.values[:, column] == 1.0).all()
    }
    tree["levels"] = []
    for f in layout.outer:
        level = np.full(n_cells, f.n_levels)
        level[cell] = f.codes[mine]
        tree["levels"].append(level.reshape(n_blocks, bucket.cells))
    if problem.n_classes == 1:
        tree |= _by_size(tree, np.bincount(cell, minlength=n_cells), q)
    return tree


def _subset(factor: Factor, rows: np.ndarray) -> Factor:
    return Factor(factor.name, factor.codes[rows], factor.n_levels, factor.values[rows])


def _local_columns(
    layout: Layout, bucket: Bucket, mine: np.ndarray, slot: np.ndarray
) -> sparse.csr_array:
    """Return the columns of all local effects of a bucket, shape (rows, blocks x width)."""
    at, values, offset = [], [], 0
    for f, present in zip(layout.plan.local, bucket.present, strict=True):
        factor = layout.problem.factors[f]
        position = layout.place[f][factor.codes[mine], 2]
        first = slot * bucket.width + offset + position * factor.width
        at.append(first[:, None] + np.arange(factor.width))
        values.append(factor.values[mine])
        offset += present.shape[1] * factor.width
    shape = (len(slot), len(bucket.blocks) * bucket.width)
    if not at:
        return sparse.csr_array(shape)
    where, value = np.concatenate(at, axis=1), np.concatenate(values, axis=1)
    rows = np.repeat(np.arange(len(slot)), where.shape[1])
    return sparse.csr_array((value.ravel(), (rows, where.ravel())), shape=shape)


def _diagonal_blocks(matrix: Any, n_blocks: int, width: int) -> np.ndarray:
    """Return the diagonal blocks of a block-diagonal matrix, shape (blocks, width, width)."""
    out = np.zeros((n_blocks, width, width))
    entries = sparse.coo_array(matrix)
    if width:
        out[entries.row // width, entries.row % width, entries.col % width] = entries.data
    return out


def _local_constraint(layout: Layout, bucket: Bucket, k: int) -> np.ndarray:
    out = np.zeros((len(bucket.blocks), bucket.width, len(layout.constraints)))
    offset = 0
    for f, present in zip(layout.plan.local, bucket.present, strict=True):
        factor = layout.problem.factors[f]
        if any(constraint.factor is factor for constraint in layout.constraints):
            inside = layout.place[f][:, 0] == k
            _, slot, position = layout.place[f][inside].T
            out[slot, offset + position] = _constraint(layout, factor)[inside]
        offset += present.shape[1] * factor.width
    return out


def _cross(products: Sequence[Any], shape: tuple[int, int, int]) -> Any:
    """Lay out products of local and outer columns, dense if there is one."""
    n_outer = shape[2]
    if not products or not n_outer:
        return np.zeros(shape)
    parts = [sparse.coo_array(product) for product in products]
    if len(parts) == 1:
        return parts[0].toarray().reshape(shape)
    return _by_class(
        [p.row.astype(np.int64) * n_outer + p.col for p in parts], [p.data for p in parts]
    )


def _cell_sums(
    local: Any,
    cell: np.ndarray,
    by_class: Sequence[np.ndarray],
    shape: tuple[int, int, int],
    factor: np.ndarray | None = None,
) -> Any:
    """Return sums of local columns (times ``factor``) over the rows of each cell."""
    _, width, n_cells = shape
    if not width:
        return np.zeros(shape)
    entries = sparse.coo_array(local)
    value = entries.data if factor is None else entries.data * factor[entries.row]
    # (block, position, cell slot): the block is in both the column and the cell
    index = entries.col.astype(np.int64) * n_cells + cell[entries.row] % n_cells
    total = int(np.prod(shape))
    if len(by_class) == 1:
        return np.bincount(index, weights=value, minlength=total).reshape(shape)
    picked = [rows[entries.row] for rows in by_class]
    sums = [_grouped(index[rows], value[rows, None]) for rows in picked]
    return _by_class([at for at, _ in sums], [value[:, 0] for _, value in sums])


def _row_sums(
    values: np.ndarray, cell: np.ndarray, by_class: Sequence[np.ndarray], n_cells: int
) -> Any:
    """Return sums over the rows of each cell, shape (cells, columns)."""
    if len(by_class) == 1:
        out = np.zeros((n_cells, values.shape[1]))
        np.add.at(out, cell, values)
        return out
    sums = [_grouped(cell[rows], values[rows]) for rows in by_class]
    return _by_class([at for at, _ in sums], [value for _, value in sums])


def _grouped(index: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum rows with the same index."""
    found, inverse = np.unique(index, return_inverse=True)
    out = np.zeros((len(found), values.shape[1]))
    np.add.at(out, inverse, values)
    return found, out


def _by_size(tree: dict[str, Any], sizes: np.ndarray, q: int) -> dict[str, Any]:
    """Sum the cells' outer products by number of rows: with one class that is all that matters."""
    sums, cells = tree["sums"], tree["cells"]
    n_blocks, width, n_cells = sums.shape
    found = np.unique(sizes[sizes > 0])
    right = np.concatenate(
        [sums, np.swapaxes(cells[:, :q].reshape(n_blocks, n_cells, q), 1, 2)], axis=1
    )
    table = np.zeros((len(found), n_blocks, width, width + q))
    for d, size in enumerate(found):
        chosen = (sizes == size).reshape(n_blocks, 1, n_cells)
        table[d] = (sums * chosen) @ np.swapaxes(right, 1, 2)
    return {"sizes": found.astype(float), "table": table.reshape(len(found), -1)}
