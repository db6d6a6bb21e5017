"""Quarterly Census of Employment and Wages: annual files, whole or by industry."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.raw import (
    RawFile,
    bad_numbers,
    collected,
    number,
    opened,
    refuse_bad_numbers,
    require,
)
from spatialclusters.sources.regimes import Regime, classification, regime_for
from spatialclusters.sources.tidy import OBSERVED_CELL, WITHHELD_CELL, Cells, Origin

__all__ = ["OWNERSHIPS", "read_qcew"]

OWNERSHIPS: Final = {"total": "0", "federal": "1", "state": "2", "local": "3", "private": "5"}
"""Codes of ``own_code``; only ``private`` compares with County Business Patterns."""

_TENS: Final = {"nation": "1", "msa": "4", "state": "5", "county": "7"}
_LEVELS: Final = ("1", "4", "5", "6", "7", "8")  # total by ownership, sector, NAICS 3 to 6 digits
# of files by SIC: total covered; then total by ownership, division, 2 to 4 digits are the next five
_FIRST_OF_SIC: Final = {"nation": 1, "msa": 12, "state": 18, "county": 26}
_KEYS: Final = ("area_fips", "own_code", "industry_code", "agglvl_code", "size_code", "year", "qtr",
                "disclosure_code", "annual_avg_emplvl", "total_annual_wages")  # fmt: skip
_ESTABLISHMENTS: Final = ("annual_avg_estabs", "annual_avg_estabs_count")

Geography = Literal["county", "state", "msa", "nation"]
Ownership = Literal["total", "federal", "state", "local", "private"]


def read_qcew(
    path: str | Path,
    *,
    geography: Geography = "county",
    ownership: Ownership = "private",
    regime: Regime | None = None,
    sha256: str | None = None,
) -> Cells:
    """Read an annual file of the Quarterly Census of Employment and Wages, by NAICS or SIC.

    One kind of area and one ownership are kept, since all others hold the same jobs
    again; so do supersectors and domains, which are left out.

    Parameters
    ----------
    path
        Annual single file or by-industry file, or the zip file with it.
    geography
        Areas to keep.
    ownership
        ``private`` compares with County Business Patterns. ``total`` has no industries
        below all of them in most files.
    regime
        Disclosure rules for a year that the package does not know.
    sha256
        Digest that the file must have, in hexadecimal.

    Returns
    -------
    Cells
        Annual average employment, payroll in $1,000 a year. Regions are the
        five characters of ``area_fips``; ``SS999`` has no known county. Withheld cells
        have no upper bound of their own. Before 2001 the files do not mark them, so
        a zero with establishments is withheld. Industries are as published: in files by SIC
        (1975 to 2000) with a prefix and the letter of the division, ``SIC_0D2011``.

    Raises
    ------
    PanelError
        Columns, codes or flags are not those of such a file, the year has no known
        rules, lines are cut off, or nothing of the kind that was asked for is there.

    References
    ----------
    U.S. Bureau of Labor Statistics, QCEW NAICS-based and SIC-based data files, layouts,
    aggregation level codes.
    """
    for name, value, allowed in (
        ("geography", geography, _TENS),
        ("ownership", ownership, OWNERSHIPS),
    ):
        if value not in allowed:
            msg = f"qcew: got {name} {value!r}; expected one of {listing(allowed)}. Choose one."
            raise PanelError(msg)
    with opened(path, sha256=sha256) as raw:
        by_sic = _is_by_sic(raw)
        frame = _collected(raw, geography, ownership, by_sic=by_sic)
    refuse_bad_numbers(frame, raw.name)
    year = _year(frame, raw.name)
    source = "qcew-sic" if by_sic else "qcew"
    rules = regime_for(source, year) if regime is None else regime
    _check(frame, raw.name, rules, by_sic=by_sic)
    hidden = pl.col("flag_raw").is_in(sorted(rules.withheld))
    if rules.zero == "withheld":
        hidden = hidden | ((pl.col("emp") == 0) & (pl.col("establishments") > 0))
    frame = frame.with_columns(
        year=pl.lit(year),
        value=pl.when(~hidden).then("emp"),
        lower=pl.when(hidden).then(0.0).otherwise("emp"),
        upper=pl.when(hidden).then(float("inf")).otherwise("emp"),
        status=pl.when(hidden).then(pl.lit(WITHHELD_CELL)).otherwise(pl.lit(OBSERVED_CELL)),
        payroll=pl.when(~hidden).then(pl.col("payroll") / 1_000),
    )
    unknown = frame.filter(pl.col("region").str.ends_with("999"))["region"].unique().len()
    notes = (f"{unknown} regions SS999 hold what has no known county",) if unknown else ()
    origin = Origin(
        "qcew", f"{year} {geography}, {ownership}", raw.name, raw.digest, classification(source, year),
        rules.rule, notes,
    )  # fmt: skip
    return Cells(frame, (origin,))


def _is_by_sic(raw: RawFile) -> bool:
    """Look at the first row: the levels of the two kinds of files have other codes."""
    names = raw.header()
    require(raw.name, names, _KEYS, "an annual QCEW file")
    first = collected(raw.scan(names).select("industry_code").head(1), raw.name)
    return str(first["industry_code"][0]).startswith("SIC_")


def _levels(geography: str, ownership: str, *, by_sic: bool) -> list[str]:
    """List the aggregation levels to keep: one total and the industries below it."""
    if by_sic:
        first = _FIRST_OF_SIC[geography]
        total = first if ownership == "total" else first + 1
        return [f"{code:02d}" for code in (total, *range(first + 2, first + 6))]
    tens = _TENS[geography]
    total_code = f"{tens}0" if ownership == "total" else f"{tens}1"
    return [total_code, *(f"{tens}{level}" for level in _LEVELS[1:])]


def _collected(raw: RawFile, geography: str, ownership: str, *, by_sic: bool) -> pl.DataFrame:
    names = raw.header()
    establishments = next((name for name in _ESTABLISHMENTS if name in names), None)
    if establishments is None:
        require(raw.name, names, _ESTABLISHMENTS[:1], "an annual QCEW file")
    levels = _levels(geography, ownership, by_sic=by_sic)
    counts = ["annual_avg_emplvl", "total_annual_wages", str(establishments)]
    # the layout of files by SIC calls the code a number, which may have lost its leading zero
    level = pl.col("agglvl_code").str.zfill(2) if by_sic else pl.col("agglvl_code")
    unreadable = pl.col("own_code").is_null() | (level.str.len_chars() != 2)
    chosen = (pl.col("own_code") == OWNERSHIPS[ownership]) & level.is_in(levels)
    return collected(
        raw.scan(names)
        .filter(chosen | unreadable.fill_null(value=True))
        .select(
            "line",
            "year",
            "size_code",
            "qtr",
            region="area_fips",
            industry="industry_code",
            emp=number("annual_avg_emplvl"),
            payroll=number("total_annual_wages"),
            establishments=number(str(establishments)),
            flag_raw=pl.col("disclosure_code").fill_null(""),
            bad=bad_numbers(counts)
            + pl.when(unreadable.fill_null(value=True)).then(pl.lit(" own_code agglvl_code")).otherwise(pl.lit("")),
        ),
        raw.name,
    )  # fmt: skip


def _year(frame: pl.DataFrame, name: str) -> int:
    years = [str(year) for year in frame["year"].unique().to_list()]
    if len(years) != 1 or not years[0].isdecimal():
        msg = f"{name}: got the years {listing(years)}; expected one. Split the file by year."
        raise PanelError(msg)
    return int(years[0])


def _check(frame: pl.DataFrame, name: str, regime: Regime, *, by_sic: bool) -> None:
    """Refuse quarterly files, files by size, mangled codes and unknown flags."""
    code = r"^SIC_0[A-KZ]\d{0,4}$" if by_sic else r"^\d[\d-]+$"
    problems = {
        "area codes of another length; leading zeros may be lost": pl.col("region").str.len_chars() != 5,
        "industry codes of the other classification": pl.col("industry").str.starts_with("SIC_") != by_sic,
        "industry codes that are empty or not codes": ~pl.col("industry").str.contains(code),
        "quarters; expected annual averages (qtr A)": pl.col("qtr") != "A",
        "size classes; expected all sizes (size_code 0)": pl.col("size_code") != "0",
        "an unknown disclosure_code; expected nothing or N": ~pl.col("flag_raw").is_in(["", *regime.withheld]),
        "a number in a cell marked as not disclosed": pl.col("flag_raw").is_in(sorted(regime.withheld))
        & (pl.col("emp") > 0),
    }  # fmt: skip
    for what, problem in problems.items():
        rows = frame.filter(problem.fill_null(value=True))
        if rows.height:
            shown = listing(
                f"line {line}: {region} {industry} {flag}".rstrip()
                for line, region, industry, flag in rows.select(
                    "line", "region", "industry", "flag_raw"
                )
                .head(5)
                .rows()
            )
            msg = f"{name}: got {rows.height} rows with {what} ({shown}). Use the annual file as sent."
            raise PanelError(msg)
