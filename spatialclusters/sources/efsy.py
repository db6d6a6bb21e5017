"""The harmonized panel of Eckert, Fort, Schott and Yang: county files with imputed cells."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.levels import industry_level
from spatialclusters.sources.raw import RawFile, collected, opened, require
from spatialclusters.sources.tidy import OBSERVED_CELL, WITHHELD_CELL, Cells, Origin

__all__ = ["read_efsy"]

# Columns and the meaning of rows are those that public projects rely on (the readme of the panel
# was not at hand): ids that a program took for numbers, an index column `v1`, rows of aggregate
# industries that hold what was not assigned to their parts, and negative residues.
_COLUMNS: Final = ("fipstate", "fipscty", "naics12", "year", "emp")
_LAST_IMPUTED: Final = 2016
_YEARS: Final = (1975, 2018)
_RESIDUE: Final = -0.5  # employees: what rounds to zero


def read_efsy(
    path: str | Path, *, years: Collection[int] | None = None, sha256: str | None = None
) -> Cells:
    r"""Read the county panel with harmonized NAICS 2012 codes, ``efsy_panel_naics.csv``.

    The authors impute withheld cells of 1975 to 2016 by linear programming, and carry
    industries over the changes of the classification. **Imputed cells are not marked in the
    file**, so that they count as observed: that they are not known is in no interval. The
    years 2017 and 2018 are not imputed, and classified by NAICS 2017; their zeros
    are withheld cells.

    Parameters
    ----------
    path
        Text file, or the zip file with it.
    years
        Years to read; all by default. The whole file has tens of millions of rows.
    sha256
        Digest that the file must have, in hexadecimal.

    Returns
    -------
    Cells
        Industries of 6 digits. What the authors could not assign to one (rows of
        aggregate industries) is left out and noted. No establishments and no payroll.

    Raises
    ------
    PanelError
        Columns, ids or codes are not those of the panel, a year is not in it, a number is
        negative beyond rounding, a cell occurs twice, or lines are cut off.

    References
    ----------
    Eckert, Fort, Schott and Yang (2021), doi:10.3386/w26632.

    Examples
    --------
    >>> import tempfile
    >>> rows = "v1,fipstate,fipscty,naics12,emp,year\n1,1,1,311811,24.5,2010\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "efsy_panel_naics.csv"
    ...     _ = file.write_text(rows)
    ...     read_efsy(file).frame.select("region", "industry", "value").rows()
    [('01001', '311811', 24.5)]
    """
    with opened(path, sha256=sha256) as raw:
        frame = _collected(raw, years)
    found = sorted(frame["year"].unique().to_list())
    outside = [year for year in {*found, *(years or ())} if year not in found or not _known(year)]
    if outside:
        msg = (
            f"{raw.name}: got the years {listing(found)} for {listing(sorted(outside))}; expected years from "
            f"{_YEARS[0]} to {_YEARS[1]} that are in the file. Choose them."
        )
        raise PanelError(msg)
    frame, notes = _detailed(frame, raw.name)
    hidden = (pl.col("year") > _LAST_IMPUTED) & (pl.col("emp") == 0)
    frame = frame.with_columns(
        value=pl.when(~hidden).then("emp"),
        lower=pl.when(hidden).then(0.0).otherwise("emp"),
        upper=pl.when(hidden).then(float("inf")).otherwise("emp"),
        status=pl.when(hidden).then(pl.lit(WITHHELD_CELL)).otherwise(pl.lit(OBSERVED_CELL)),
        flag_raw=pl.lit(""),
        establishments=pl.lit(None, dtype=pl.Float64),
        payroll=pl.lit(None, dtype=pl.Float64),
    )
    return Cells(frame, tuple(_origins(found, raw, notes)))


def _known(year: int) -> bool:
    return _YEARS[0] <= year <= _YEARS[1]


def _origins(years: list[int], raw: RawFile, notes: list[str]) -> list[Origin]:
    """Return one origin a classification: the last two years are by another one."""
    origins = []
    for chosen, names, rule in (
        ([y for y in years if y <= _LAST_IMPUTED], "NAICS 2012",
         "withheld cells imputed by linear programming, and not marked"),
        ([y for y in years if y > _LAST_IMPUTED], "NAICS 2017",
         "not imputed; cells of fewer than 3 establishments have no row"),
    ):  # fmt: skip
        if chosen:
            span = f"{chosen[0]}-{chosen[-1]}" if len(chosen) > 1 else str(chosen[0])
            more = ["industries before 1998 are carried over from SIC by the authors"]
            told = (*notes, *(more if chosen[0] < 1998 else []))
            vintage = f"{span} county, harmonized"
            origins.append(Origin("efsy", vintage, raw.name, raw.digest, names, rule, told))
    return origins


def _collected(raw: RawFile, years: Collection[int] | None) -> pl.DataFrame:
    names = raw.header()
    if "naics12" not in names and {"naics", "sic"} & {*names}:
        msg = (
            f"{raw.name}: got the columns {listing(names)}; expected 'naics12'. This is the panel with "
            "the codes of each year: use the one with harmonized codes."
        )
        raise PanelError(msg)
    require(raw.name, names, _COLUMNS, "the harmonized panel")
    scan = raw.scan(names)
    year = pl.col("year").cast(pl.Int64, strict=False)
    if years is not None:
        scan = scan.filter(year.is_in(sorted(years)) | year.is_null())
    state, county = (pl.col(c).str.zfill(n) for c, n in (("fipstate", 2), ("fipscty", 3)))
    frame = collected(
        scan.select(
            "line",
            region=pl.concat_str([state, county]),
            industry=pl.col("naics12").fill_null(""),
            year=year,
            emp=pl.col("emp").cast(pl.Float64, strict=False),
        ),
        raw.name,
    )
    problems = {
        "no year, or one that is not whole": pl.col("year").is_null(),
        "county codes that are not numbers of at most two and three digits": ~pl.col("region")
        .str.contains(r"^\d{5}$").fill_null(value=False),
        "employment that is no number, or below zero": ~(
            (pl.col("emp") > _RESIDUE) & pl.col("emp").is_finite()
        ).fill_null(value=False),
    }  # fmt: skip
    for what, problem in problems.items():
        rows = frame.filter(problem)
        if rows.height:
            shown = listing(
                f"line {n}: {r} {e}"
                for n, r, e in rows.select("line", "region", "emp").head(5).rows()
            )
            msg = f"{raw.name}: got {rows.height} rows with {what} ({shown}); expected none. Use the file as sent, or remove them."
            raise PanelError(msg)
    return frame


def _detailed(frame: pl.DataFrame, name: str) -> tuple[pl.DataFrame, list[str]]:
    """Keep industries of 6 digits; say what else there is."""
    codes = frame["industry"].unique().to_list()
    levels = {code: industry_level(code, "naics") for code in codes}
    wrong = sorted(code for code, level in levels.items() if level is None)
    if wrong:
        msg = f"{name}: got the industry codes {listing(wrong)}; expected NAICS codes such as 311811 or 31----. Use the file as sent."
        raise PanelError(msg)
    notes = []
    negative = frame.filter(pl.col("emp") < 0)
    if negative.height:
        notes.append(f"{negative.height} numbers between {_RESIDUE} and 0 read as 0")
    kept = [code for code, level in levels.items() if level == 6]
    rest = frame.filter(~pl.col("industry").is_in(kept))
    if rest.height:
        notes.append(
            f"{rest['emp'].sum():,.0f} employees in {rest.height} cells of aggregate industries, which the "
            "authors could not assign to detailed ones, left out"
        )
    if not kept:
        msg = f"{name}: got no industries of 6 digits; expected some. Check the file."
        raise PanelError(msg)
    return frame.filter(pl.col("industry").is_in(kept)).with_columns(
        pl.col("emp").clip(lower_bound=0.0)
    ), notes
