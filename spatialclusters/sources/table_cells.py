"""A table that somebody has already tidied -> cells, its zeros read as the agency meant them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from spatialclusters.errors import PanelError, listing, suggestion
from spatialclusters.sources.tidy import OBSERVED_CELL, WITHHELD_CELL, Cells, Origin
from spatialclusters.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_cell_table"]

_NUMBERS: Final = (
    "employment",
    "employment_lower",
    "employment_upper",
    "establishments",
    "payroll",
)


def read_cell_table(
    source: str | Path | pd.DataFrame | Any,
    *,
    classification: str,
    withheld_zeros: Collection[int] = (),
    rename: Mapping[str, str] | None = None,
) -> Cells:
    """Read cells that have lost their flags: a tidied or an imputed table.

    An establishment that pays nobody in a whole year is none: a zero with
    establishments and a payroll of zero is a withheld cell, whatever the table says.

    Parameters
    ----------
    source
        CSV or Parquet file, or a frame. Columns ``region``, ``industry``, ``year``,
        ``employment`` (missing where withheld), and where they exist
        ``employment_lower``, ``employment_upper``, ``establishments`` and ``payroll``.
    classification
        Name of the classification of industries, for example ``NAICS 2017``.
    withheld_zeros
        Years in which every zero stands for a withheld cell.
    rename
        Names that are expected, mapped to those of the table: ``{"region": "county"}``.

    Raises
    ------
    PanelError
        Columns are missing or not numbers, ids are not text, or a cell occurs twice.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"region": ["01001"], "industry": ["311811"], "year": [2017],
    ...                       "employment": [0.0], "establishments": [3.0], "payroll": [0.0]})
    >>> read_cell_table(table, classification="NAICS 2017").counts
    {'observed': 0, 'withheld': 1, 'filled': 0}
    """
    table, name, digest = read_table(source, error=PanelError, rename=rename or {})
    for column in ("region", "industry", "year", "employment"):
        if column not in table.columns:
            msg = (
                f"{name}: got the columns {listing(table.columns)}; expected {column!r}. Rename it."
            )
            raise PanelError(msg + suggestion(column, map(str, table.columns)))
    known = [c for c in ("region", "industry", "year", *_NUMBERS) if c in table.columns]
    table = table.assign(**{c: _numbers(table[c]) for c in known[2:]})
    text = [c for c in known[2:] if not np.issubdtype(table[c].to_numpy().dtype, np.number)]
    if text:
        msg = f"{name}: got text in the columns {listing(text)}; expected numbers. Leave withheld cells empty."
        raise PanelError(msg)
    if not (table["year"].notna() & (table["year"] % 1 == 0)).all():
        msg = f"{name}: got years that are missing or not whole; expected years such as 2018. Complete them."
        raise PanelError(msg)
    frame = pl.from_pandas(table[known].reset_index(drop=True)).with_columns(
        pl.col("year").cast(pl.Int64)
    )
    frame = frame.with_columns(
        pl.lit(None, dtype=pl.Float64).alias(c) for c in _NUMBERS if c not in known
    )
    zero = pl.col("employment") == 0
    unpaid = (pl.col("payroll") == 0) & (pl.col("establishments") > 0)
    hidden = (
        pl.col("employment").is_null()
        | (zero & unpaid).fill_null(value=False)
        | (zero & pl.col("year").is_in(sorted(withheld_zeros)))
    )
    guessed = frame.filter(hidden & pl.col("employment").is_not_null()).height
    frame = frame.with_columns(
        value=pl.when(~hidden).then("employment"),
        lower=pl.when(hidden).then(pl.col("employment_lower").fill_null(0.0)).otherwise("employment"),
        upper=pl.when(hidden).then(pl.col("employment_upper").fill_null(float("inf"))).otherwise("employment"),
        payroll=pl.when(~hidden | (pl.col("payroll") > 0)).then("payroll"),
        status=pl.when(hidden).then(pl.lit(WITHHELD_CELL)).otherwise(pl.lit(OBSERVED_CELL)),
        flag_raw=pl.lit(""),
    )  # fmt: skip
    years = sorted(table["year"].unique().tolist())
    notes = (f"{guessed} zeros read as withheld cells",) if guessed else ()
    rule = "flags are lost; zeros without a payroll are withheld cells"
    vintage = f"{years[0]:.0f}-{years[-1]:.0f}" if years else ""
    return Cells(frame, (Origin("table", vintage, name, digest, classification, rule, notes),))


def _numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    """Type a column that holds numbers and nothing else, even if it holds nothing."""
    if any(isinstance(value, str) for value in values.dropna().unique()):
        return values.astype(object)
    return values.astype(np.float64)
