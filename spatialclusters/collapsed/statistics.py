"""Sums over rows that are all the likelihood needs, laid out for batched algebra.

Sums are linear in the weights ``1 / sigma_h**2`` of the noise classes h: with one class
they are plain arrays, with several they are kept by class, as
:class:`~spatialclusters.collapsed.layout.ByClass` where most entries belong to a single one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from spatialclusters.collapsed.layout import Bucket, ByClass, Layout
from spatialclusters.collapsed.plan import Factor

__all__ = ["statistics"]


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
    columns = np.column_stack([problem.X, y - problem.shift])
    outer = _incidence(layout.outer, len(y))
    by_class = [problem.classes == h for h in range(problem.n_classes)]
    tree: dict[str, Any] = {
        "rows": np.array([float(rows.sum()) for rows in by_class]),
        "XX": np.stack([columns[rows].T @ columns[rows] for rows in by_class]),
        "XZ": np.stack([columns[rows].T @ outer[rows] for rows in by_class]),
        "ZZ": _sparse_by_class(
            [outer[rows].T @ outer[rows] for rows in by_class],
            layout.outer[0].width if layout.plan.outer_first else layout.outer_width,
        ),
        "buckets": [],
    }
    if layout.constrained:
        tree["constraint"] = np.concatenate(
            [
                np.zeros((0, len(layout.constrained))),
                *(_constraint(layout, f) for f in layout.outer),
            ]
        )
        tree["unplaced"] = np.array([_unplaced(layout, f) for f in layout.constrained])
    for k, bucket in enumerate(layout.buckets):
        tree["buckets"].append(_bucket(layout, k, bucket, columns))
    return tree


def _constraint(layout: Layout, factor: Factor) -> np.ndarray:
    """Return the columns that pick the mean of a fixed factor's effects."""
    columns = np.zeros((factor.n_levels * factor.width, len(layout.constrained)))
    for j, other in enumerate(layout.constrained):
        if other is factor:
            columns[:, j] = 1.0 / factor.n_levels
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
    columns, classes = columns[mine], problem.classes[mine]
    by_class = [classes == h for h in range(problem.n_classes)]
    tree: dict[str, Any] = {
        "local": np.stack(
            [
                np.concatenate(
                    [
                        _diagonal_blocks(local[rows].T @ local[rows], n_blocks, width),
                        (local[rows].T @ columns[rows]).reshape(n_blocks, width, q),
                    ],
                    axis=2,
                )
                for rows in by_class
            ]
        )
    }
    if layout.constrained:
        tree["constraint"] = _local_constraint(layout, bucket, k)
    outer = _incidence([_subset(f, mine) for f in layout.outer], len(slot))
    if plan.cell is None:
        tree["cross"] = _cross(local, outer, by_class, (n_blocks, width, layout.outer_width))
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
    out = np.zeros((len(bucket.blocks), bucket.width, len(layout.constrained)))
    offset = 0
    for f, present in zip(layout.plan.local, bucket.present, strict=True):
        factor = layout.problem.factors[f]
        if factor.fixed:
            inside = layout.place[f][:, 0] == k
            _, slot, position = layout.place[f][inside].T
            out[slot, offset + position] = _constraint(layout, factor)[inside]
        offset += present.shape[1] * factor.width
    return out


def _cross(
    local: Any, outer: Any, by_class: Sequence[np.ndarray], shape: tuple[int, int, int]
) -> Any:
    """Return local times outer columns, dense for one noise class."""
    _, width, n_outer = shape
    if not width * n_outer:
        return np.zeros(shape)
    parts = [sparse.coo_array(local[rows].T @ outer[rows]) for rows in by_class]
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
