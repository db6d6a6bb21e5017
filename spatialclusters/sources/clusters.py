"""Cells of industries in counties -> the table that ``read_panel`` takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.checks import withheld_by_year
from spatialclusters.sources.definitions import Definition, differ_in_zeros
from spatialclusters.sources.levels import ancestors, industry_level, system_of
from spatialclusters.sources.recodes import known_code, why_not
from spatialclusters.sources.regimes import empty_without_row
from spatialclusters.sources.tidy import FILLED_CELL, WITHHELD_CELL, Cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["to_panel"]

_COUNTED: Final = ("establishments", "payroll")
_VALUES: Final = ("employment", "employment_lower", "employment_upper", *_COUNTED)


def to_panel(
    cells: Cells,
    clusters: Definition,
    regions: Definition | None = None,
    *,
    ends: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """Sum cells over counties and give each industry its cluster.

    A sum with a withheld part is withheld, and the sum of the bounds bounds it. A
    combination without a row in any county has no row.

    Parameters
    ----------
    cells
        Cells of any levels; only industries of the definition are used.
    clusters
        From ``read_clusters``.
    regions
        From ``read_region_map``; without it, regions stay as they are. Counties whose
        codes changed are found under their other code, and named in the notes.
    ends
        First and last year, for columns ``x_start`` and ``x_end``; otherwise one row a
        year. A cell without a row in one of the two years is zero there if the agency published
        all cells of that year (County Business Patterns until 2016, QCEW), its region and its
        industry among them; otherwise it has no number.

    Returns
    -------
    pandas.DataFrame
        ``region``, ``industry``, ``cluster``, where known ``subcluster`` and ``traded``,
        ``year`` unless ``ends``, then ``employment`` (missing where withheld),
        ``employment_lower``, ``employment_upper`` (missing where nothing bounds
        the cell), ``establishments`` and ``payroll`` ($1,000 a year); where cells are filled,
        ``employment_filled``, the part of employment that is. ``attrs`` holds
        the provenance, with what is withheld by year, which ``read_panel`` takes over and Parquet keeps.

    Raises
    ------
    PanelError
        No industry is in the definition, an industry of it contains another one,
        classifications change between the years, a region is in no area, or
        a year is not there.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_clusters, read_cell_table
    >>> cells = read_cell_table(pd.DataFrame({
    ...     "region": ["01001"], "industry": ["311811"], "year": [2018], "employment": [24.0]}),
    ...     classification="NAICS 2017")
    >>> food = read_clusters(pd.DataFrame({"industry": ["311811"], "cluster": ["Food"]}))
    >>> to_panel(cells, food)[["region", "cluster", "employment"]].values.tolist()
    [['01001', 'Food', 24.0]]
    """
    system = _one_system(cells)
    if ends is not None:
        cells = _of_ends(cells, ends)
    frame, notes = _with_clusters(cells, clusters, system)
    notes = [clusters.describe(), *notes]
    if regions is not None:
        frame, more = _in_areas(frame, regions)
        notes += [regions.describe(), *more]
    table = _summed(frame)
    if ends is not None:
        table, more = _with_empty(table, {origin.source for origin in cells.origins})
        notes += more
    labels = [name for name in ("subcluster", "traded") if name in clusters.frame.columns]
    groups = clusters.frame.rename({"code": "industry", "group": "cluster"})
    table = table.join(groups, on="industry", how="left")
    keys = ["region", "industry", "cluster", *labels]
    values = list(_VALUES)
    if cells.counts[FILLED_CELL]:
        values.insert(1, "employment_filled")
    if ends is None:
        table = table.select(*keys, "year", *values).sort("region", "industry", "year")
    else:
        table = _wide(table, keys, ends, values)
    withheld = withheld_by_year(frame, cells)
    notes += _withheld_notes(withheld)
    result = table.to_pandas()
    told = {**cells.provenance, "notes": notes, "withheld": withheld}
    result.attrs["spatialclusters"] = told | ({} if ends is None else {"ends": [*map(int, ends)]})
    return result


def _withheld_notes(withheld: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    cells, hidden, filled = (
        sum(year[what] for year in withheld.values()) for what in ("cells", "withheld", "filled")
    )
    yield f"{hidden} of {cells} published cells are withheld: bounds, no numbers"
    if filled:
        yield f"{filled} of {cells} published cells were withheld and are filled: they carry no uncertainty"
    for year, found in withheld.items():
        if found["covered"] is not None:
            yield (
                f"{year}: cells with a published number hold {found['covered']:.1%} of the published "
                "totals; the rest is withheld or has no row"
            )


def _one_system(cells: Cells) -> str:
    """Refuse years of different classifications: growth across the break is not growth."""
    names = sorted({origin.classification for origin in cells.origins})
    if len(names) != 1:
        msg = (
            f"panel: got cells classified by {listing(names)}; expected one classification, since "
            "growth across a break is not growth. Convert one by a named concordance first."
        )
        raise PanelError(msg)
    return system_of(names[0])


def _with_clusters(
    cells: Cells, clusters: Definition, system: str
) -> tuple[pl.DataFrame, list[str]]:
    codes = {*clusters.frame["code"].to_list()}
    wrong = sorted(code for code in codes if industry_level(code, system) is None)
    if wrong:
        msg = f"clusters: got {listing(wrong)}; expected {system.upper()} codes. Correct the table."
        raise PanelError(msg)
    own = {ancestor for code in codes for ancestor in ancestors(code, system)}
    paths = {code: (industry_level(code, system), code.rstrip("-/")) for code in codes}
    nested = sorted(code for code, path in paths.items() if path in own)
    if nested:
        msg = (
            f"clusters: got {listing(nested)}, which contain other industries of the table; expected "
            "none, or jobs are counted twice. Keep one level."
        )
        raise PanelError(msg)
    kept = cells.frame.filter(pl.col("industry").is_in(sorted(codes)))
    if not kept.height:
        msg = (
            f"clusters: got no industry of the cells ({listing(cells.frame['industry'].head(3))}) in the "
            f"table ({listing(sorted(codes)[:3])}); expected the same codes. Check the classification."
        )
        raise PanelError(msg)
    levels = {level for level, _ in paths.values()}
    rest = cells.frame.filter(~pl.col("industry").is_in(sorted(codes)))
    others = [c for c in rest["industry"].unique() if industry_level(c, system) in levels]
    if not others:
        return kept, []
    lost = rest.filter(pl.col("industry").is_in(others))
    return kept, [
        f"{len(others)} industries are in no cluster ({listing(sorted(others))}): "
        f"{lost['value'].sum():,.0f} employees in {lost.height} cells left out"
    ]


def _in_areas(frame: pl.DataFrame, regions: Definition) -> tuple[pl.DataFrame, list[str]]:
    """Replace regions by their areas; none is dropped without being named."""
    known = dict(regions.frame.select("code", "group").rows())
    found, notes, missing, nowhere = {}, [], [], []
    for region in sorted(frame["region"].unique().to_list()):
        match = known_code(region, known)
        if match is not None:
            code, recode = match
            found[region] = known[code]
            if recode is not None:
                notes.append(f"region {region} read as {code}: {recode.name} ({recode.year})")
        elif region.endswith("999"):
            nowhere.append(region)
        else:
            missing.append(region)
    if missing:
        zeros = "The codes differ in leading zeros." if differ_in_zeros(missing, known) else ""
        msg = (
            f"regions: got no area for {listing(missing)}; expected one for each region of the cells. "
            f"{why_not(missing)} {zeros} Add them to the table."
        )
        raise PanelError(" ".join(msg.split()))
    if nowhere:
        lost = frame.filter(pl.col("region").is_in(nowhere))
        notes.append(
            f"{lost['value'].sum():,.0f} employees in {lost.height} cells without a county "
            f"({listing(nowhere)}) left out"
        )
        frame = frame.filter(~pl.col("region").is_in(nowhere))
    return frame.with_columns(pl.col("region").replace_strict(found, return_dtype=pl.String)), notes


def _summed(frame: pl.DataFrame) -> pl.DataFrame:
    """Sum over the regions of an area; one withheld part makes the sum withheld."""
    known = (pl.col("status") != WITHHELD_CELL).all()
    filled = pl.col("value").filter(pl.col("status") == FILLED_CELL).sum()
    upper = pl.col("upper").sum()
    complete = [
        pl.when(pl.col(c).is_not_null().all()).then(pl.col(c).sum()).alias(c) for c in _COUNTED
    ]
    return frame.group_by("region", "industry", "year").agg(
        *complete,
        employment=pl.when(known).then(pl.col("value").sum()),
        employment_filled=pl.when(known).then(filled),
        employment_lower=pl.col("lower").sum(),
        employment_upper=pl.when(upper.is_finite()).then(upper),
    )  # fmt: skip


def _of_ends(cells: Cells, ends: tuple[int, int]) -> Cells:
    years = sorted(cells.frame["year"].unique().to_list())
    if not {*ends} <= {*years} or ends[0] >= ends[1]:
        msg = f"panel: got ends {ends}; expected two of the years {listing(years)}, in order. Choose them."
        raise PanelError(msg)
    return replace(cells, frame=cells.frame.filter(pl.col("year").is_in(ends)))


def _with_empty(table: pl.DataFrame, sources: Collection[str]) -> tuple[pl.DataFrame, list[str]]:
    """Add the cells without a row in years in which no row means that nobody works there."""
    cells = table.select("region", "industry").unique()
    parts, notes = [table], []
    for year in sorted(table["year"].unique().to_list()):
        if not empty_without_row(sources, year):
            continue
        there = table.filter(pl.col("year") == year)
        empty = (
            cells.join(there, on=["region", "industry"], how="anti")
            .join(there.select("region").unique(), on="region", how="semi")
            .join(there.select("industry").unique(), on="industry", how="semi")
        )
        keys = {"region", "industry", "year"}
        zeros = [pl.lit(0.0).alias(name) for name in table.columns if name not in keys]
        parts.append(
            empty.with_columns(pl.lit(year, table.schema["year"]).alias("year"), *zeros).select(
                table.columns
            )
        )
        if empty.height:
            notes.append(
                f"{year}: {empty.height} cells without a row are zero, as all cells were published"
            )
    return pl.concat(parts), notes


def _wide(
    table: pl.DataFrame, keys: list[str], ends: tuple[int, int], values: list[str]
) -> pl.DataFrame:
    parts = []
    for year, suffix in zip(ends, ("_start", "_end"), strict=True):
        part = table.filter(pl.col("year") == year)
        parts.append(part.select(*keys, *(pl.col(v).alias(f"{v}{suffix}") for v in values)))
    joined = parts[0].join(parts[1], on=keys, how="full", coalesce=True, nulls_equal=True)
    return joined.sort("region", "industry")
