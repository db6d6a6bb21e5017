"""Eurostat's tab-separated files: structural business statistics by region."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.raw import RawFile, collected, opened
from spatialclusters.sources.regimes import Regime, classification, regime_for
from spatialclusters.sources.tidy import OBSERVED_CELL, WITHHELD_CELL, Cells, Origin

__all__ = ["normalized_flags", "read_eurostat"]

NUTS_YEARS: Final = (2006, 2010, 2013, 2016, 2021, 2024)
_RENAMED: Final = {"c": "C", "s": "i", "z": "m"}  # letters of before and after January 2025
_KNOWN: Final = frozenset("bdefimnpurCNP")
_CELL: Final = r"^(:|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)?\s*(.*)$"
_SEPARATORS: Final = re.compile(r"[\s,;@]+")
_HALF: Final = 0.5


def normalized_flags(raw: str) -> str:
    """Return the letters of a flag in their order, in the vocabulary since January 2025.

    Parameters
    ----------
    raw
        As published, for example ``bc`` or ``b C``.

    Raises
    ------
    PanelError
        A letter is in neither vocabulary.

    Examples
    --------
    >>> normalized_flags("bc"), normalized_flags("b C"), normalized_flags("s")
    ('bC', 'bC', 'i')
    """
    letters = "".join(_RENAMED.get(letter, letter) for letter in _SEPARATORS.sub("", raw))
    unknown = sorted({*letters} - _KNOWN)
    if unknown:
        msg = (
            f"eurostat: got the flag {raw[:40]!r}; expected letters among "
            f"{listing(sorted(_KNOWN | {*_RENAMED}), 20)}. Ask for a reader of newer flags."
        )
        raise PanelError(msg)
    return letters


def read_eurostat(
    path: str | Path,
    *,
    nuts_year: int,
    where: Mapping[str, str] = MappingProxyType({}),
    nuts_level: int = 2,
    regime: Regime | None = None,
    sha256: str | None = None,
) -> Cells:
    """Read one indicator by region and industry from a TSV file of Eurostat.

    Parameters
    ----------
    path
        Text or gzip file, as the dissemination service sends it.
    nuts_year
        Year of the regional classification: regions of different years do not join.
    where
        One value for every other dimension that has several:
        ``{"indic_sbs": "EMP_LOC_NR"}``.
    nuts_level
        Level of the regions: 0 (countries) to 3.
    regime
        Disclosure rules for years that the package does not know.
    sha256
        Digest that the file must have, in hexadecimal.

    Returns
    -------
    Cells
        In the unit of the indicator (persons employed for ``EMP_LOC_NR``). Cells without a
        number, and numbers marked confidential, are withheld without bounds;
        ``n`` marks less than half a unit. ``flag_raw`` is as published.
        Combinations that are not in the file have no row.

    Raises
    ------
    PanelError
        Dimensions are missing or not unique, a cell or flag cannot be read, the year of
        the regions or of the data is unknown, or lines are cut off.

    References
    ----------
    Eurostat, dissemination API, TSV format; list of observation and confidentiality flags.
    """
    if nuts_year not in NUTS_YEARS:
        msg = (
            f"eurostat: got nuts_year {nuts_year}; expected one of {listing(NUTS_YEARS)}. State it."
        )
        raise PanelError(msg)
    with opened(path, sha256=sha256) as raw:
        dimensions, long = _long(raw)
        frame = _chosen(raw.name, dimensions, long, where, nuts_level)
    years = sorted(frame["year"].unique().to_list())
    rules = [regime or regime_for("eurostat", year) for year in years]
    cells = _cells(frame, raw.name, rules[0])
    notes = [
        f"NUTS {nuts_year}, level {nuts_level}; {', '.join(f'{k}={v}' for k, v in where.items())}"
    ]
    if years[0] < 2021 <= years[-1]:
        notes.append("2021 is a break: another definition of the enterprise")
    extra = sorted({r for r in frame["region"].unique() if r.endswith("ZZ")})
    notes += [f"regions {listing(extra)} are outside all territories"] if extra else []
    origin = Origin(
        "eurostat", f"{years[0]}-{years[-1]}, NUTS {nuts_year}", raw.name, raw.digest,
        classification("eurostat", years[0]), rules[0].rule, tuple(notes),
    )  # fmt: skip
    return Cells(cells, (origin,))


def _long(raw: RawFile) -> tuple[list[str], pl.LazyFrame]:
    """Lay a file of one line a series out as one line a cell."""
    head = raw.header(separator="\t")
    first, periods = head[0], head[1:]
    keys, slash, time = first.partition("\\")
    dimensions = keys.split(",")
    wrong = [p for p in periods if not re.fullmatch(r"\d{4}", p)]
    if not slash or "geo" not in dimensions or not {"time_period", "time"} & {time} or wrong:
        msg = (
            f"{raw.name}: got a first line {first[:60]!r} with the periods {listing(wrong or periods)}; "
            "expected dimensions with geo, then \\TIME_PERIOD and years. Download the TSV file."
        )
        raise PanelError(msg)
    scan = raw.scan(["series", *periods], separator="\t")
    series = pl.col("series").str.split(",")
    long = (
        scan.unpivot(index=["line", "series"], on=periods, variable_name="year", value_name="cell")
        .with_columns(series.list.get(i, null_on_oob=True).alias(d) for i, d in enumerate(dimensions))
        .with_columns(pl.col("year").cast(pl.Int64), wrong=series.list.len() != len(dimensions))
    )  # fmt: skip
    return dimensions, long


def _chosen(
    name: str, dimensions: list[str], long: pl.LazyFrame, where: Mapping[str, str], level: int
) -> pl.DataFrame:
    """Keep one value of every dimension but region and industry."""
    industry = next((d for d in dimensions if d.startswith("nace")), None)
    unknown = sorted({*where} - {*dimensions})
    if industry is None or unknown:
        msg = (
            f"{name}: got the dimensions {listing(dimensions)}; expected one of industries (nace_r2)"
            + (f" and {listing(unknown)}" if unknown else "")
            + ". Choose another table or correct `where`."
        )
        raise PanelError(msg)
    chosen = [pl.col(key) == value for key, value in where.items()]
    keep = pl.all_horizontal([pl.col("geo").str.len_chars() == level + 2, *chosen])
    frame = collected(long.filter(keep | pl.col("wrong") | pl.col("cell").is_null()), name)
    cut = frame.filter(pl.col("wrong") | pl.col("cell").is_null())
    if cut.height:
        shown = listing(sorted(cut["line"].unique().to_list()))
        msg = f"{name}: got lines with too few values or dimensions ({shown}). It is cut off: download it again."
        raise PanelError(msg)
    for dimension in dimensions:
        values = sorted(frame[dimension].unique().to_list())
        if dimension not in {"geo", industry} and len(values) > 1:
            msg = (
                f"{name}: got {len(values)} values of {dimension!r} ({listing(values)}); expected one, or "
                f"the same jobs are counted again. Choose with where={{{dimension!r}: ...}}."
            )
            raise PanelError(msg)
    return frame.sort("line", "year").rename({"geo": "region", industry: "industry"})


def _cells(frame: pl.DataFrame, name: str, regime: Regime) -> pl.DataFrame:
    """Split values from flags; the file writes both in one cell."""
    text = frame.with_columns(
        number=pl.col("cell").str.extract(_CELL, 1).fill_null(""),
        flag_raw=pl.col("cell").str.extract(_CELL, 2).fill_null(""),
    )
    raws = text["flag_raw"].unique().to_list()
    try:
        flags = {raw: normalized_flags(raw) for raw in raws}
    except PanelError as cause:
        msg = f"{name}: {cause}"
        raise PanelError(msg) from None
    flag = pl.col("flag_raw").replace_strict(flags, return_dtype=pl.String)
    value = pl.col("number").cast(pl.Float64, strict=False)
    secret = pl.any_horizontal(
        flag.str.contains(letter, literal=True) for letter in regime.withheld
    )
    hidden = value.is_null() | secret
    small = ~hidden & flag.str.contains("n", literal=True) & (value == 0)
    return text.with_columns(
        value=pl.when(~hidden).then(value),
        lower=pl.when(hidden).then(0.0).otherwise(value),
        upper=pl.when(hidden).then(float("inf")).when(small).then(_HALF).otherwise(value),
        status=pl.when(hidden).then(pl.lit(WITHHELD_CELL)).otherwise(pl.lit(OBSERVED_CELL)),
        establishments=pl.lit(None, dtype=pl.Float64),
        payroll=pl.lit(None, dtype=pl.Float64),
    )
