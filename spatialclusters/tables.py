"""CSV, Parquet and Stata files and data frames -> one typed table in which text stays text."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.delimited import number_advice, points, read_delimited
from spatialclusters.errors import counted, listing, suggestion
from spatialclusters.stata import read_stata

__all__ = [
    "COUNT", "IDS", "LARGEST", "READING", "SUFFIXES", "must_be_numbers", "out_of_range", "read_table",
]  # fmt: skip

IDS: Final = ("region", "industry", "cluster")
SUFFIXES: Final = {"_start": "start", "_end": "end"}
COUNT: Final = re.compile(r"(employment|establishments|payroll)(_lower|_upper)?(_start|_end)?")
LARGEST: Final = 1e50
"""Numbers are 0 or between 1 / LARGEST and LARGEST: squares of products of three are finite."""

READING: Final = "spatialclusters reading"
"""Key of a table's attributes: notes on how it was read."""

_TEXT: Final = (*IDS, "region_i", "region_j", "linked_cluster")
_NAMELESS: Final = "Unnamed: 0"  # what pandas calls a column without a name
_LOG = logging.getLogger(__name__)
_MISSING_TEXT: Final = frozenset({"", "NA", "NaN", "nan", "."})
_MOST_COLUMNS: Final = 2000  # of a table; every one is checked


def read_table(
    source: str | Path | pd.DataFrame | Any,
    *,
    error: type[Exception],
    rename: Mapping[str, str] = MappingProxyType({}),
    optional: Collection[str] = (),
) -> tuple[pd.DataFrame, str, str]:
    """Read a CSV, Parquet or Stata file or take a frame; return it with its origin and digest.

    Text stays text: ids such as ``06`` keep their zeros and a region called
    ``NA`` is not a missing value. Columns are renamed before they are typed; those in
    ``optional`` need no column to be renamed, if they are there already. What was done to the
    table is told in ``attrs[READING]``.

    Raises
    ------
    PanelError, WeightsError or SpecError
        Whatever ``error`` is: the file is missing, of another kind, or unreadable.
    """
    collect: Any = getattr(source, "collect", None)  # polars' lazy frames
    if collect is not None:
        source = collect()
    to_pandas: Any = getattr(source, "to_pandas", None)
    if to_pandas is not None:
        source = to_pandas()
    if isinstance(source, pd.DataFrame):
        digest = hashlib.sha256(json.dumps([str(column) for column in source.columns]).encode())
        digest.update(pd.util.hash_pandas_object(source, index=False).to_numpy().tobytes())
        frame = _renamed(source, rename, optional, error)
        return _without_row_numbers(frame, []), "data frame", digest.hexdigest()
    if not isinstance(source, str | Path):
        got = type(source).__name__
        msg = f"table: got {got}; expected the path of a file, or a pandas or polars frame."
        raise error(msg)
    path = Path(source)
    name, kind, notes = path.name[:80], path.suffix.lower(), list[str]()
    try:
        if not path.is_file():
            msg = (
                f"{name}: got no such file; expected a CSV, Parquet or Stata file. Check the path."
            )
            raise error(msg)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        if kind in {".parquet", ".pq"}:
            frame = _renamed(pd.read_parquet(path), rename, optional, error)
        elif kind in {".csv", ".txt"}:
            text, decimal = read_delimited(path)
            if decimal:
                sign = "commas" if decimal == "," else "points"
                notes.append(f"{name}: columns between semicolons, decimal {sign}")
            frame = _typed(_renamed(text, rename, optional, error), decimal, error)
        elif kind == ".dta":
            frame, notes = read_stata(path, {rename.get(column, column) for column in _TEXT})
            frame = _renamed(frame, rename, optional, error)
        else:
            raise error(_other_kind(path))
    except UnicodeDecodeError as cause:
        msg = f"{name}: got a byte that is not UTF-8 ({cause.reason}, at {cause.start}); expected "
        raise error(f"{msg}UTF-8. Save it as UTF-8 (in Excel: 'CSV UTF-8').") from cause
    # pyarrow says so of types that pandas does not have
    except (OSError, ValueError, NotImplementedError) as cause:
        reason = " ".join(str(cause).split())[:240]
        msg = f"{name}: got a file that cannot be read ({reason}). Save it again as CSV or Parquet."
        raise error(msg) from cause
    return _without_row_numbers(frame, notes), path.name, content


def _other_kind(path: Path) -> str:
    """Word that a file is of no kind that is read, and how it becomes one."""
    name, kind = path.name[:80], path.suffix[:80]
    msg = f"{name}: got a file ending in {kind!r}; expected .csv, .parquet or .dta."
    if kind.lower() not in {".xlsx", ".xls", ".xlsm", ".ods"}:
        return msg
    return (
        f'{msg} Save it as CSV UTF-8, or in Python: pandas.read_excel("{name}", '
        f'dtype={{"region": str}}).to_parquet("{path.stem[:80]}.parquet").'
    )


def _without_row_numbers(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Drop the nameless column of row numbers that pandas and R write before the others."""
    if _NAMELESS in frame.columns:
        numbers = pd.to_numeric(frame[_NAMELESS], errors="coerce").to_numpy(np.float64)
        first = numbers[0] if len(numbers) else np.nan
        if first in {0.0, 1.0} and np.array_equal(numbers, first + np.arange(len(numbers))):
            notes = [*notes, f"column {_NAMELESS!r} left out: it numbers the rows"]
            frame = frame.drop(columns=_NAMELESS)
    for note in notes:
        _LOG.info("table: %s", note)
    frame.attrs = {key: told for key, told in frame.attrs.items() if key != READING}
    if notes:
        frame.attrs[READING] = notes
    return frame


def _typed(text: pd.DataFrame, decimal: str, error: type[Exception]) -> pd.DataFrame:
    """Turn the numeric columns of an all-text frame into float64, ids excepted."""
    columns: dict[str, pd.Series[Any]] = {}
    for name in text.columns:
        values = text[name].str.strip()
        missing = values.isin(_MISSING_TEXT)
        plain = points(values, decimal) if decimal else values
        numbers = pd.to_numeric(plain.mask(missing), errors="coerce")
        bad = numbers.isna() & ~missing
        if name in _TEXT:
            columns[name] = values
        elif not bad.any():
            columns[name] = numbers.astype(np.float64)
        elif must_be_numbers(name) or bad.mean() < 0.5:
            found = zip(np.flatnonzero(bad) + 2, values[bad], strict=True)
            lines = listing(f"line {line}: {value}" for line, value in found)
            msg = (
                f"column {listing([name])}: got {counted(int(bad.sum()), 'value')} that "
                f"{'is no number' if bad.sum() == 1 else 'are not numbers'} ({lines}); expected "
                f"numbers or nothing. {number_advice(values[bad])}"
            )
            raise error(msg)
        else:
            columns[name] = values
    return pd.DataFrame(columns)


def out_of_range(values: Any) -> Any:
    """Tell which numbers are infinite, or too large or small to be squared and multiplied.

    Examples
    --------
    >>> out_of_range(np.array([0.0, -3.0, np.nan, np.inf, 1e300, 1e-300])).tolist()
    [False, False, False, True, True, True]
    """
    size = np.abs(values)
    return (size > LARGEST) | ((size > 0) & (size < 1 / LARGEST))


def must_be_numbers(name: str) -> bool:
    """Whether a column of this name has to hold numbers."""
    return name.endswith(tuple(SUFFIXES)) or COUNT.fullmatch(name) is not None


def _renamed(
    frame: pd.DataFrame,
    rename: Mapping[str, str],
    optional: Collection[str],
    error: type[Exception],
) -> pd.DataFrame:
    columns = [str(column) for column in frame.columns]
    frame = frame.set_axis(columns, axis=1)
    moves: dict[str, str] = {}
    for new, old in rename.items():
        found = {f"{old}{s}": f"{new}{s}" for s in ("", *SUFFIXES) if f"{old}{s}" in columns}
        if not found and new in columns and new in optional:
            continue
        if not found:
            msg = f"rename (--map): got no column {listing([old])}; expected one of {listing(columns)}."
            raise error(msg + suggestion(old, columns))
        moves |= found
    frame = frame.rename(columns=moves)
    if len(columns) > _MOST_COLUMNS:
        msg = f"table: got {len(columns)} columns; expected at most {_MOST_COLUMNS}. Keep those needed."
        raise error(msg)
    twice = frame.columns[frame.columns.duplicated()].tolist()
    if twice:
        msg = f"table: got the columns {listing(twice)} twice; expected each name once."
        raise error(msg)
    return frame
