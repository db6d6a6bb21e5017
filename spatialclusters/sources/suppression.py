"""Bounds of withheld cells, tightened by what their parents and siblings leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.levels import keyed_cells
from spatialclusters.sources.regimes import REGIMES
from spatialclusters.sources.tidy import WITHHELD_CELL, Cells

__all__ = ["parents_of", "tighten_bounds"]

_PASSES: Final = 50
_ENOUGH: Final = 1e-6  # employees


def tighten_bounds(cells: Cells, *, complete: bool) -> Cells:
    """Use that industries add up to their parent, in each region and year.

    A parent has at least what its parts have at least, and a part has at most what its
    parent has at most, less the least of the other parts. Where all parts are known, also the
    other way round: a parent has at most what its parts have at most, and a part has at
    least what the parent's least leaves after the most of the others. They are known where
    the parts have all establishments of the parent, or everywhere if ``complete``.

    Parameters
    ----------
    cells
        Cells of several levels.
    complete
        Whether every part of a published parent has a row if anybody works there. It is
        false where small cells have no row (County Business Patterns from 2017) or
        detail is left out.

    Returns
    -------
    Cells
        With bounds of withheld cells (employees) that are nowhere wider. Regions in
        which the bounds contradict each other, as noise can make them, keep those that
        they had, and a note counts them.

    Raises
    ------
    PanelError
        Codes are not of one classification, one industry has two codes, or ``complete``
        is said of files in which small cells have no row.

    References
    ----------
    Autor, Dorn and Hanson (2013), doi:10.1257/aer.103.6.2121, on bounds in these files.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> table = pd.DataFrame({
    ...     "region": ["01001"] * 3, "industry": ["311///", "311811", "311812"], "year": [2010] * 3,
    ...     "employment": [50.0, 38.0, None]})
    >>> cells = tighten_bounds(read_cell_table(table, classification="NAICS 2007"), complete=True)
    >>> cells.frame["lower"].to_list(), cells.frame["upper"].to_list()
    ([50.0, 38.0, 12.0], [50.0, 38.0, 12.0])
    """
    if complete:
        _refuse_incomplete(cells)
    keyed = keyed_cells(cells).with_row_index("row")
    place = ["region", "year"]
    twice = keyed.filter(keyed.select(*place, "own").is_duplicated())
    if twice.height:
        shown = listing(f"{r} {i}" for r, i in twice.select("region", "industry").head(8).rows())
        msg = f"bounds: got industries under two codes ({shown}); expected one. Keep one of them."
        raise PanelError(msg)
    child, parent = parents_of(keyed)
    whole = _without_rest(keyed, child, parent) | complete
    start = keyed["lower"].to_numpy(), keyed["upper"].to_numpy()
    hidden = (keyed["status"] == WITHHELD_CELL).to_numpy()
    lower, upper = _propagated(*start, hidden, child, parent, whole)
    group = keyed.select(pl.struct(place).rank("dense")).to_series().to_numpy()
    wrong = np.isin(group, np.unique(group[lower > upper + _ENOUGH]))
    lower, upper = np.where(wrong, start[0], lower), np.where(wrong, start[1], upper)
    tight = keyed.select("region", "industry", "year").with_columns(
        new_lower=pl.Series(np.minimum(lower, upper)), new_upper=pl.Series(upper)
    )
    frame = cells.frame.join(
        tight, on=["region", "industry", "year"], how="left", maintain_order="left"
    )
    frame = frame.with_columns(
        lower=pl.coalesce("new_lower", "lower"), upper=pl.coalesce("new_upper", "upper")
    )
    count = len(np.unique(group[wrong]))
    note = f"bounds of {count} regions and years contradict each other and were not tightened"
    notes = ("bounds tightened by adding up", *([note] if count else []))
    return replace(cells, frame=frame).noted(*notes)


def _refuse_incomplete(cells: Cells) -> None:
    """Refuse to call complete what an agency publishes in part only."""
    years = cells.frame["year"].unique().to_list()
    partial = sorted(
        f"{o.source} {year}: {regime.rule}"
        for o in cells.origins
        for regime in REGIMES
        for year in years
        if regime.source == o.source
        and regime.first <= year <= regime.last
        and regime.absent == "not published"
    )
    if partial:
        msg = (
            f"bounds: got complete=True for cells of {listing(dict.fromkeys(partial), 3)}; expected "
            "False, since a part without a row may have employees. Leave it out."
        )
        raise PanelError(msg)


def parents_of(keyed: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers of parts and of the nearest published industry around each."""
    place = ["region", "year"]
    rows = keyed.select(*place, "own", parent="row")
    rest = keyed.select("row", *place, path=pl.col("path").list.head(pl.col("path").list.len() - 1))
    found = []
    while rest.height:
        rest = rest.filter(pl.col("path").list.len() > 0).with_columns(
            own=pl.col("path").list.last()
        )
        found.append(rest.join(rows, on=[*place, "own"]).select("row", "parent"))
        rest = rest.join(rows, on=[*place, "own"], how="anti").with_columns(
            path=pl.col("path").list.head(pl.col("path").list.len() - 1)
        )
    pairs = pl.concat(found)
    return pairs["row"].to_numpy(), pairs["parent"].to_numpy()


def _without_rest(keyed: pl.DataFrame, child: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Find the parents all of whose establishments, which carry no noise, are in their parts."""
    count = keyed["establishments"].to_numpy().astype(float)
    parts = np.bincount(parent, weights=count[child], minlength=len(count))
    return np.asarray(parts == count)


def _propagated(
    lower: np.ndarray, upper: np.ndarray, hidden: np.ndarray, child: np.ndarray, parent: np.ndarray,
    whole: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Pass bounds up and down until they stand still; observed cells never move."""
    low, high, size = lower.copy(), upper.copy(), len(lower)
    parents = np.zeros(size, dtype=bool)
    parents[parent] = True
    for _ in range(_PASSES):
        before = low.copy(), high.copy()
        least = np.bincount(parent, weights=low[child], minlength=size)
        low = np.where(hidden & parents, np.maximum(low, least), low)
        left = high[parent] - (least[parent] - low[child])
        high[child] = np.where(hidden[child], np.minimum(high[child], left), high[child])
        finite = np.where(np.isinf(high), 0.0, high)
        most = np.bincount(parent, weights=finite[child], minlength=size)
        open_ = np.bincount(parent, weights=np.isinf(high[child]).astype(float), minlength=size)
        sums = np.where(open_ > 0, np.inf, most)
        high = np.where(hidden & parents & whole, np.minimum(high, sums), high)
        others = np.where(
            open_[parent] - np.isinf(high[child]) > 0, np.inf, most[parent] - finite[child]
        )
        low[child] = np.where(
            hidden[child] & whole[parent], np.maximum(low[child], low[parent] - others), low[child]
        )
        steady = np.all(np.abs(low - before[0]) <= _ENOUGH) and not np.any(
            high < before[1] - _ENOUGH
        )
        if steady or np.any(low > high + _ENOUGH):
            break
    return low, high
