"""Tidy cells: what every reader returns, with where it came from.

A withheld cell has no value, only bounds: it can never be mistaken for a zero.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import polars as pl
import polars.exceptions as pl_errors

from spatialclusters.errors import PanelError, listing
from spatialclusters.files import replace_file
from spatialclusters.sources.regimes import SIZES

__all__ = [
    "FILLED_CELL", "OBSERVED_CELL", "WITHHELD_CELL", "Cells", "Origin", "combine_cells", "read_cells", "worst_status", "write_cells",
]  # fmt: skip

OBSERVED_CELL: Final = "observed"
WITHHELD_CELL: Final = "withheld"
FILLED_CELL: Final = "filled"

_TYPES: Final[dict[str, type[pl.DataType]]] = {
    "region": pl.String,
    "industry": pl.String,
    "year": pl.Int64,
    "value": pl.Float64,
    "lower": pl.Float64,
    "upper": pl.Float64,
    "status": pl.String,
    "flag_raw": pl.String,
    "establishments": pl.Float64,
    "payroll": pl.Float64,
}
_FORMAT: Final = "spatialclusters-cells/1"


@dataclass(frozen=True)
class Origin:
    """Where cells came from and under which rules they were published.

    Attributes
    ----------
    source
        ``cbp``, ``qcew``, ``eurostat``, ``efsy`` or ``table``.
    vintage
        Year and kind of the file, for example ``2018 county``.
    file
        Name of the file, without its folder.
    digest
        SHA-256 of the file as it was given, in hexadecimal.
    classification
        Name of the industry classification, for example ``NAICS 2017``.
    rule
        The disclosure rule that the flags were read by.
    notes
        What a reader of the results must know.
    """

    source: str
    vintage: str
    file: str
    digest: str
    classification: str
    rule: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Cells:
    """Published cells of one or several files.

    Attributes
    ----------
    frame
        Columns ``region``, ``industry`` (text), ``year``, ``value`` (employees;
        null where withheld), ``lower`` and ``upper`` (employees; equal to the
        value where observed, an infinite ``upper`` where nothing bounds the cell),
        ``status`` (``observed``, ``withheld``, or ``filled``: withheld, with a value from
        ``proportional_fill`` inside its bounds), ``flag_raw`` (as published),
        ``establishments`` (count, null where not given) and ``payroll`` ($1,000
        a year, null where withheld or not given). All or none of ``SIZES``:
        establishments by size, null where not available.
    origins
        One entry per file.

    Raises
    ------
    PanelError
        A column is missing or of another type, a cell occurs twice, a withheld cell
        has a value, bounds are crossed, or a filled value is outside of them.

    Examples
    --------
    >>> import polars as pl
    >>> origin = Origin("table", "2018", "x.csv", "0" * 64, "NAICS 2017", "none")
    >>> frame = pl.DataFrame({
    ...     "region": ["01001"], "industry": ["311811"], "year": [2018], "value": [None],
    ...     "lower": [0.0], "upper": [19.0], "status": ["withheld"], "flag_raw": ["A"],
    ...     "establishments": [3.0], "payroll": [None]})
    >>> Cells(frame, (origin,)).counts
    {'observed': 0, 'withheld': 1, 'filled': 0}
    """

    frame: pl.DataFrame
    origins: tuple[Origin, ...]

    def __post_init__(self) -> None:
        sizes = SIZES if {*SIZES} & {*self.frame.columns} else ()
        types = _TYPES | dict.fromkeys(sizes, pl.Float64)
        missing = [name for name in types if name not in self.frame.columns]
        if missing:
            msg = f"cells: got no column {listing(missing)}; expected {listing(types, 30)}. Add it."
            raise PanelError(msg)
        try:
            frame = self.frame.select(pl.col(name).cast(to) for name, to in types.items())
        except pl_errors.InvalidOperationError as cause:
            msg = f"cells: got a column of another type ({str(cause)[:200]}); expected text ids and numbers."
            raise PanelError(msg) from cause
        wrong = [name for name in ("region", "industry") if self.frame[name].dtype != pl.String]
        if wrong:
            msg = f"cells: got ids that are not text in {listing(wrong)}; 06 and 6 differ. Read them as text."
            raise PanelError(msg)
        object.__setattr__(self, "frame", frame)
        _check(frame)

    @property
    def counts(self) -> dict[str, int]:
        """Number of observed, of withheld and of filled cells."""
        status = self.frame["status"]
        kinds = (OBSERVED_CELL, WITHHELD_CELL, FILLED_CELL)
        return {kind: int((status == kind).sum()) for kind in kinds}

    def noted(self, *notes: str) -> Cells:
        """Return the same cells with notes added to the origin of each file."""
        origins = tuple(replace(o, notes=(*o.notes, *notes)) for o in self.origins)
        return replace(self, origins=origins)

    @property
    def provenance(self) -> dict[str, Any]:
        """Origins and counts as plain values, for a file or a report."""
        return {"origins": [asdict(origin) for origin in self.origins], "cells": self.counts}


def _check(frame: pl.DataFrame) -> None:
    withheld, filled = (pl.col("status") == kind for kind in (WITHHELD_CELL, FILLED_CELL))
    outside = (pl.col("value") < pl.col("lower")) | (pl.col("value") > pl.col("upper"))
    problems = {
        "a status that is none of observed, withheld, filled": ~withheld & ~filled
        & (pl.col("status") != OBSERVED_CELL),
        "an id, year or status that is empty": pl.any_horizontal(
            pl.col("region", "industry", "year", "status").is_null()
        ),
        "a withheld cell with a value": withheld & pl.col("value").is_not_null(),
        "an observed or filled cell without a value": ~withheld & pl.col("value").is_null(),
        "a filled value outside its bounds": filled & outside,
        "crossed or missing bounds": (~(pl.col("lower") <= pl.col("upper"))).fill_null(value=True),
        "a negative number of employees": pl.col("lower") < 0,
    }  # fmt: skip
    counts = frame.select(
        problem.fill_null(value=False).sum().alias(name) for name, problem in problems.items()
    )
    found = [name for name in counts.columns if counts[name][0]]
    if not found and frame.select("region", "industry", "year").is_duplicated().any():
        found = ["a cell that occurs twice"]
        problems[found[0]] = pl.struct("region", "industry", "year").is_duplicated()
    if found:
        rows = frame.filter(problems[found[0]])
        shown = listing(
            f"{r} {i} {y}" for r, i, y in rows.select("region", "industry", "year").head(8).rows()
        )
        msg = f"cells: got {found[0]} in {rows.height} rows ({shown}); expected none. Correct them."
        raise PanelError(msg)


def worst_status() -> pl.Expr:
    """Return the status of a sum of cells: withheld or filled as soon as a part of it is."""
    has = {kind: (pl.col("status") == kind).any() for kind in (WITHHELD_CELL, FILLED_CELL)}
    return (
        pl.when(has[WITHHELD_CELL]).then(pl.lit(WITHHELD_CELL))
        .when(has[FILLED_CELL]).then(pl.lit(FILLED_CELL)).otherwise(pl.lit(OBSERVED_CELL))
    )  # fmt: skip


def combine_cells(parts: Sequence[Cells]) -> Cells:
    """Put the cells of several files, for example of several years, into one table.

    Raises
    ------
    PanelError
        Nothing was given, or two files hold the same cell.

    Examples
    --------
    >>> combine_cells([])
    Traceback (most recent call last):
        ...
    spatialclusters.errors.PanelError: cells: got no files; expected at least one. Name one.
    """
    if not parts:
        msg = "cells: got no files; expected at least one. Name one."
        raise PanelError(msg)
    origins = tuple(origin for part in parts for origin in part.origins)
    # a part without establishments by size lacks their columns
    return Cells(pl.concat([part.frame for part in parts], how="diagonal"), origins)


def write_cells(cells: Cells, path: str | Path) -> None:
    """Write cells with their origins to one Parquet file, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    metadata = {"format": _FORMAT, "origins": json.dumps([asdict(o) for o in cells.origins])}
    replace_file(Path(path), lambda file: cells.frame.write_parquet(file, metadata=metadata))


def read_cells(path: str | Path) -> Cells:
    """Read what :func:`write_cells` wrote.

    Raises
    ------
    PanelError
        The file is missing, unreadable, or not one of cells.
    """
    path = Path(path)
    try:
        metadata = pl.read_parquet_metadata(path)
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl_errors.PolarsError) as cause:
        msg = f"{path.name}: got a file that cannot be read ({str(cause)[:200]}); expected cells in Parquet."
        raise PanelError(msg) from cause
    if metadata.get("format") != _FORMAT:
        msg = (
            f"{path.name}: got a Parquet file without the mark {_FORMAT!r}; expected one written by "
            "`spatialclusters data` or write_cells. Read the agency's file again."
        )
        raise PanelError(msg)
    try:
        entries = json.loads(metadata["origins"])
        origins = tuple(_origin(**entry) for entry in entries)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as cause:
        msg = f"{path.name}: got origins that cannot be read; expected those that were written."
        raise PanelError(f"{msg} Read the agency's file again.") from cause
    return Cells(frame, origins)


def _origin(notes: Sequence[object], **texts: object) -> Origin:
    return Origin(**{key: str(text) for key, text in texts.items()}, notes=tuple(map(str, notes)))
