"""CSV, Parquet and data frames -> one typed table in which text stays text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.errors import listing, suggestion

__all__ = [
    "COUNT", "IDS", "LARGEST", "SUFFIXES", "must_be_numbers", "out_of_range", "read_table",
]  # fmt: skip

IDS: Final = ("region", "industry", "cluster")
SUFFIXES: Final = {"_start": "start", "_end": "end"}
COUNT: Final = re.compile(r"(employment|establishments|payroll)(_lower|_upper)?(_start|_end)?")
LARGEST: Final = 1e50
"""Numbers are 0 or between 1 / LARGEST and LARGEST: squares of products of three are finite."""

_MISSING_TEXT: Final = frozenset({"", "NA", "NaN", "nan", "."})
_MOST_COLUMNS: Final = 2000  # of a table; every one is checked


def read_table(
    source: str | Path | pd.DataFrame | Any,
    *,
    error: type[Exception],
    rename: Mapping[str, str] = MappingProxyType({}),
) -> tuple[pd.DataFrame, str, str]:
    """Read a CSV or Parquet file or take a frame; return it with its origin and digest.

    Text stays text: ids such as ``06`` keep their zeros and a region called
    ``NA`` is not a missing value. Columns are renamed before they are typed.

    Raises
    ------
    PanelError, WeightsError or SpecError
        Whatever ``error`` is: the file is missing, of another kind, or unreadable.
    """
    to_pandas: Any = getattr(source, "to_pandas", None)
    if to_pandas is not None:
        source = to_pandas()
    if isinstance(source, pd.DataFrame):
        digest = hashlib.sha256(json.dumps([str(column) for column in source.columns]).encode())
        digest.update(pd.util.hash_pandas_object(source, index=False).to_numpy().tobytes())
        return _renamed(source, rename, error), "data frame", digest.hexdigest()
    path = Path(source)
    name, kind = path.name[:80], path.suffix.lower()
    try:
        if not path.is_file():
            msg = f"{name}: got no such file; expected a CSV or Parquet file. Check the path."
            raise error(msg)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        if kind in {".parquet", ".pq"}:
            return _renamed(pd.read_parquet(path), rename, error), path.name, content
        if kind in {".csv", ".txt"}:
            return _typed(_renamed(_csv(path), rename, error), error), path.name, content
    # pyarrow says so of types that pandas does not have
    except (OSError, ValueError, NotImplementedError) as cause:
        reason = str(cause)[:200]
        msg = f"{name}: got a file that cannot be read ({reason}). Save it again as CSV or Parquet."
        raise error(msg) from cause
    msg = f"{name}: got a file ending in {path.suffix[:80]!r}; expected .csv or .parquet."
    raise error(msg)


def _csv(path: Path) -> pd.DataFrame:
    """Read a CSV file as text.

    What pandas repairs is an error: rows longer than the header, which it shifts, and a name
    that comes twice, to which it adds a number.
    """
    as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    text: pd.DataFrame = pd.read_csv(path, **as_text)
    names = pd.read_csv(path, header=None, nrows=1, **as_text).iloc[0]
    if twice := names[names.duplicated() & (names != "")].unique().tolist():
        msg = f"it has the columns {listing(twice)} twice"
        raise ValueError(msg)
    if not isinstance(text.index, pd.RangeIndex):
        msg = "its rows have more values than its header has names"
        raise ValueError(msg)
    return text


def _typed(text: pd.DataFrame, error: type[Exception]) -> pd.DataFrame:
    """Turn the numeric columns of an all-text frame into float64, ids excepted."""
    columns: dict[str, pd.Series[Any]] = {}
    for name in text.columns:
        values = text[name].str.strip()
        missing = values.isin(_MISSING_TEXT)
        numbers = pd.to_numeric(values.mask(missing), errors="coerce")
        bad = numbers.isna() & ~missing
        if name in (*IDS, "region_i", "region_j", "linked_cluster"):
            columns[name] = values
        elif not bad.any():
            columns[name] = numbers.astype(np.float64)
        elif must_be_numbers(name) or bad.mean() < 0.5:
            found = zip(np.flatnonzero(bad) + 2, values[bad], strict=True)
            lines = listing(f"line {line}: {value}" for line, value in found)
            msg = (
                f"column {listing([name])}: got {int(bad.sum())} values that are not numbers "
                f"({lines}); expected numbers or nothing. Leave withheld cells empty."
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
    frame: pd.DataFrame, rename: Mapping[str, str], error: type[Exception]
) -> pd.DataFrame:
    columns = [str(column) for column in frame.columns]
    frame = frame.set_axis(columns, axis=1)
    moves: dict[str, str] = {}
    for new, old in rename.items():
        found = {f"{old}{s}": f"{new}{s}" for s in ("", *SUFFIXES) if f"{old}{s}" in columns}
        if not found:
            msg = f"--map: got no column {listing([old])}; expected one of {listing(columns)}."
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
