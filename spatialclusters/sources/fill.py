"""Values for withheld cells by a published method: proportional, inside bounds, adding up."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from spatialclusters.sources.levels import keyed_cells
from spatialclusters.sources.regimes import SIZES
from spatialclusters.sources.suppression import parents_of, tighten_bounds
from spatialclusters.sources.tidy import FILLED_CELL, WITHHELD_CELL, Cells

__all__ = ["proportional_fill"]

_ROUNDS: Final = 1_000
_STEADY: Final = 1e-6  # employees an establishment
_ENOUGH: Final = 1e-9  # of what has to be distributed
_SLIVER: Final = 1e-9  # employees: what starts at zero cannot grow in proportion
_LOW: Final = np.array([low for low, _ in SIZES.values()], dtype=float)
_HIGH: Final = np.array([high for _, high in SIZES.values()], dtype=float)
_LOG = logging.getLogger(__name__)


def proportional_fill(cells: Cells, *, complete: bool = False) -> Cells:
    r"""Give withheld cells a value: mean sizes of establishments, adjusted until levels add up.

    The method of the data appendix of Autor, Dorn and Hanson, in each region and year:

    1. Bounds are tightened by adding up (``tighten_bounds``).
    2. Mean employees :math:`b_k` of an establishment of size class *k* are the fixed point
       of: a withheld industry has :math:`\sum_k b_k n_k` employees, or the nearest bound;
       *b* is the least-squares regression, without intercept, of the employees of all
       industries without published parts on their establishments :math:`n_k`. Without
       establishments by size, a cell starts in the middle of its bounds.
    3. From the parts to the parents: a withheld parent has what its parts have, and what
       its establishments without a published part have; or the nearest bound.
    4. From the parents to the parts: where parts and rest differ from their parent, those
       that are not at a bound are changed in proportion, until they add up or all are.

    Their last step is left out: they then distribute the rest of a parent over its
    published parts, beyond the bounds and on top of published numbers.

    Parameters
    ----------
    cells
        Of several levels; with columns ``SIZES`` where there are any.
    complete
        Whether every part of a published parent has a row: there is then no rest.

    Returns
    -------
    Cells
        The withheld ones with a value, status ``filled`` and their tightened bounds.
        Observed ones are as they were. Cells of which nothing is known (no upper
        bound, no establishments) stay withheld.

    Raises
    ------
    PanelError
        As ``tighten_bounds``.

    Notes
    -----
    A filled value carries no uncertainty, and knows nothing of the growth that a model of the cells
    is about: a panel filled so can bias convergence and the effects of clusters.
    A class's mean is kept between its ends, which matters in small files only.

    References
    ----------
    Autor, Dorn and Hanson (2013), doi:10.1257/aer.103.6.2121, online appendix.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> table = pd.DataFrame({
    ...     "region": "01001", "industry": ["3118//", "311811", "311812", "311821"], "year": 2010,
    ...     "employment": [80.0, None, None, None], "employment_lower": [80.0, 10.0, 10.0, 0.0],
    ...     "employment_upper": [80.0, 20.0, 30.0, 40.0]})
    >>> cells = read_cell_table(table, classification="NAICS 2007")
    >>> filled = proportional_fill(cells, complete=True).frame
    >>> filled.select("value", "lower", "upper").with_columns(pl.all().round(2)).rows()[1:]
    [(16.0, 10.0, 20.0), (26.67, 20.0, 30.0), (37.33, 30.0, 40.0)]
    """
    # whether a cell has a middle is a matter of the bounds that were published
    closed = pl.col("upper").is_finite()
    tight = tighten_bounds(cells, complete=complete)
    keyed = keyed_cells(tight).with_row_index("row")
    keyed = keyed.with_columns(keyed_cells(cells).select(closed=closed))
    tree = _Tree.of(keyed)
    rows = _Rows.of(keyed)
    start, known = _starts(keyed, tree, rows)
    rest = _rests(keyed, tree, start, complete=complete)
    value = _from_the_parts(tree, start, rest, rows)
    value, short = _from_the_parents(tree, value, rest, rows)
    filled = rows.withheld & known
    lower, upper = rows.lower, rows.upper
    table = keyed.select("region", "industry", "year").with_columns(
        new=pl.Series(np.clip(value, lower, upper)), filled=pl.Series(filled)
    )
    frame = tight.frame.join(
        table, on=["region", "industry", "year"], how="left", maintain_order="left"
    )
    is_filled = pl.col("filled").fill_null(value=False)
    frame = frame.with_columns(
        value=pl.when(is_filled).then("new").otherwise("value"),
        status=pl.when(is_filled).then(pl.lit(FILLED_CELL)).otherwise("status"),
    ).drop("new", "filled")
    notes = [
        f"{filled.sum()} withheld cells filled in proportion within their bounds (Autor, Dorn and Hanson "
        "2013): they carry no uncertainty and know nothing of growth"
    ]
    left = int(((cells.frame["status"] == WITHHELD_CELL).sum()) - filled.sum())
    if left:
        notes.append(f"{left} withheld cells of which nothing is known stay withheld")
    if short:
        notes.append(f"{short} industries whose parts cannot add up to them inside their bounds")
    for each in notes:
        _LOG.warning("fill: %s", each)
    return replace(tight, frame=frame).noted(*notes)


@dataclass(frozen=True)
class _Rows:
    """Bounds of the rows, and which are withheld."""

    lower: np.ndarray
    upper: np.ndarray
    withheld: np.ndarray

    @classmethod
    def of(cls, keyed: pl.DataFrame) -> _Rows:
        withheld = (keyed["status"] == WITHHELD_CELL).to_numpy()
        return cls(keyed["lower"].to_numpy(), keyed["upper"].to_numpy(), withheld)

    def among(self, rows: np.ndarray) -> _Rows:
        return _Rows(self.lower[rows], self.upper[rows], self.withheld[rows])


@dataclass(frozen=True)
class _Tree:
    """Rows of cells as a forest: each row's nearest published parent, -1 for none.

    ``levels`` are the rows at each distance from the top.
    """

    parent: np.ndarray
    levels: tuple[np.ndarray, ...]
    has_parts: np.ndarray

    @classmethod
    def of(cls, keyed: pl.DataFrame) -> _Tree:
        child, above = parents_of(keyed)
        parent = np.full(keyed.height, -1)
        parent[child] = above
        has_parts = np.zeros(keyed.height, dtype=bool)
        has_parts[above] = True
        rows = np.flatnonzero(parent < 0)
        levels, at = [rows], np.zeros(keyed.height, dtype=bool)
        while rows.size:
            at[:] = False
            at[rows] = True
            rows = np.flatnonzero((parent >= 0) & at[parent])
            levels.append(rows)
        return cls(parent, tuple(levels[:-1]), has_parts)

    def sum_of_parts(self, values: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Sum the values of all rows, or of ``rows``, over their parents."""
        below = np.flatnonzero(self.parent >= 0) if rows is None else rows
        return np.bincount(
            self.parent[below], weights=values[below], minlength=len(self.parent)
        ).astype(float)


def _starts(keyed: pl.DataFrame, tree: _Tree, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return first values of all rows, and whether anything is known of them."""
    middle = np.where(np.isinf(rows.upper), np.nan, (rows.lower + rows.upper) / 2.0)
    value = np.where(rows.withheld, middle, keyed["value"].to_numpy().astype(float))
    counts, years = _counts(keyed), keyed["year"].to_numpy()
    countable = ~tree.has_parts & np.isfinite(counts).all(axis=1)
    for year in np.unique(years):
        mine = np.flatnonzero((years == year) & countable)
        if mine.size:
            value[mine] = _mean_sizes(counts[mine], value[mine], rows.among(mine))
    known = np.isfinite(value) | (rows.lower > 0)
    for level in reversed(tree.levels[1:]):  # a parent is known if a part of it is
        known[tree.parent[level[known[level]]]] = True
    return np.where(np.isfinite(value), value, rows.lower), known


def _counts(keyed: pl.DataFrame) -> np.ndarray:
    """Return establishments by size, (rows, classes + 1), the last in no published class.

    Rows of which not even the establishments are known are NaN, and so are withheld ones
    without a published class whose bounds are closed: their middle is a better start.
    """
    total = keyed["establishments"].to_numpy().astype(float)
    if "size_0" not in keyed.columns:
        counts = np.zeros((keyed.height, len(SIZES)))
        published = np.zeros(keyed.height, dtype=bool)
    else:
        raw = keyed.select(*SIZES).to_numpy().astype(float)
        published = np.isfinite(raw).any(axis=1)
        counts = np.nan_to_num(raw)
    unplaced = np.maximum(total - counts.sum(axis=1), 0.0)
    closed = keyed.select(pl.col("closed") & (pl.col("status") == WITHHELD_CELL)).to_series()
    unplaced[~published & closed.to_numpy()] = np.nan
    return np.column_stack([counts, unplaced])


def _mean_sizes(counts: np.ndarray, value: np.ndarray, rows: _Rows) -> np.ndarray:
    """Iterate regression and fitted values of withheld cells to their fixed point."""
    used = counts.any(axis=0)
    low, high = np.append(_LOW, 0.0)[used], np.append(_HIGH, np.inf)[used]
    hidden, X = rows.withheld, counts[:, used]
    least, most, H = rows.lower[hidden], rows.upper[hidden], X[hidden]
    gram, fixed = X.T @ X, X[~hidden].T @ value[~hidden]
    value = value.copy()
    open_ended = np.isnan(value[hidden])  # as much again as their least
    value[hidden] = np.where(open_ended, np.maximum(1.5 * least, H.sum(axis=1)), value[hidden])
    before = np.full(len(low), np.inf)
    for _ in range(_ROUNDS):
        sizes = np.linalg.lstsq(gram, fixed + H.T @ value[hidden])[0].clip(low, high)
        value[hidden] = (H @ sizes).clip(least, most)
        if np.abs(sizes - before).max(initial=0.0) <= _STEADY:
            break
        before = sizes
    return value


@dataclass(frozen=True)
class _Rest:
    """What a parent has in establishments that are in none of its published parts."""

    value: np.ndarray
    upper: np.ndarray


def _rests(keyed: pl.DataFrame, tree: _Tree, start: np.ndarray, *, complete: bool) -> _Rest:
    """Value the establishments of a parent without a published part at the mean of its year."""
    nothing = np.zeros(keyed.height)
    if complete:
        return _Rest(nothing, nothing)
    total = keyed["establishments"].to_numpy().astype(float)
    missing = total - tree.sum_of_parts(total)
    unknown = ~np.isfinite(missing)
    leaf = ~tree.has_parts & np.isfinite(total)
    years = keyed["year"].to_numpy()
    mean = np.zeros(keyed.height)
    for year in np.unique(years):
        rows = leaf & (years == year)
        if total[rows].sum() > 0:
            mean[years == year] = start[rows].sum() / total[rows].sum()
    value = np.where(unknown, 0.0, np.maximum(missing, 0.0) * mean)
    upper = np.where(unknown | (missing > 0), np.inf, 0.0)
    return _Rest(np.where(tree.has_parts, value, 0.0), np.where(tree.has_parts, upper, 0.0))


def _from_the_parts(tree: _Tree, start: np.ndarray, rest: _Rest, rows: _Rows) -> np.ndarray:
    value = start.copy()
    for level in reversed(tree.levels[1:]):
        parents = np.unique(tree.parent[level])
        sums = tree.sum_of_parts(value, level) + rest.value
        mine = parents[rows.withheld[parents]]
        value[mine] = sums[mine].clip(rows.lower[mine], rows.upper[mine])
    return value


def _from_the_parents(
    tree: _Tree, value: np.ndarray, rest: _Rest, rows: _Rows
) -> tuple[np.ndarray, int]:
    """Adjust from the top down; return values, and how many parents stay apart from their parts."""
    value, short = value.copy(), 0
    for level in tree.levels[1:]:
        parents = np.unique(tree.parent[level])
        # the rest of a parent is one more part of it
        group = np.searchsorted(parents, np.concatenate([tree.parent[level], parents]))
        lower = np.concatenate([rows.lower[level], np.zeros(len(parents))])
        upper = np.concatenate([rows.upper[level], rest.upper[parents]])
        parts = np.concatenate([value[level], rest.value[parents]])
        parts, gap = _proportional(parts, lower, upper, group, value[parents])
        value[level] = np.where(rows.withheld[level], parts[: len(level)], value[level])
        # where all parts are published, noise may be in all of them
        concerned = np.zeros(len(parents), dtype=bool)
        concerned[group[: len(level)][rows.withheld[level]]] = True
        short += int((concerned & (gap > 1e-6 * np.maximum(value[parents], 1.0))).sum())
    return value, short


def _proportional(
    parts: np.ndarray, lower: np.ndarray, upper: np.ndarray, group: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Change parts that are not at a bound in proportion until they add up to their total.

    Returns
    -------
    parts, gap
        The parts, and how far each group's sum stays from its total.
    """
    size = len(total)
    parts = np.where((parts == 0) & (upper > 0), np.minimum(_SLIVER, upper), parts)
    for _ in range(_ROUNDS):
        excess = np.bincount(group, weights=parts, minlength=size) - total
        excess[np.abs(excess) <= _ENOUGH * np.maximum(total, 1.0)] = 0.0
        over = excess[group]
        free = ((over > 0) & (parts > lower)) | ((over < 0) & (parts < upper))
        base = np.bincount(group, weights=np.where(free, parts, 0.0), minlength=size)[group]
        share = np.divide(parts, base, out=np.zeros_like(parts), where=free & (base > 0))
        moved = (parts - share * over).clip(lower, upper)
        if np.array_equal(moved, parts):
            break
        parts = moved
    return parts, np.abs(np.bincount(group, weights=parts, minlength=size) - total)
