"""Weighted concordances: from one classification, or one map of regions, to another.

Weights split a cell among its targets. They sum to one for each source code, so that
no job is lost or made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.definitions import differ_in_zeros, read_text_columns
from spatialclusters.sources.levels import industry_level, leaves, system_of
from spatialclusters.sources.recodes import RECODES
from spatialclusters.sources.tidy import Cells, worst_status

__all__ = [
    "Concordance",
    "convert_cells",
    "convertible_cells",
    "read_concordance",
    "recode_regions",
]

_TOLERANCE: Final = 1e-6
_AMOUNTS: Final = ("value", "lower", "upper", "establishments", "payroll")


@dataclass(frozen=True, eq=False)
class Concordance:
    """Shares of the codes of one list in the codes of another.

    Attributes
    ----------
    frame
        ``code`` and ``target`` (text), ``weight`` (share of the source code, above 0).
    name
        What it is and its version, for notes and reports.
    digest
        SHA-256 of the file, in hexadecimal.
    """

    frame: pl.DataFrame
    name: str
    digest: str


def read_concordance(
    source: str | Path | Any, *, name: str, code: str, target: str, weight: str | None = None
) -> Concordance:
    """Read a weighted concordance.

    Parameters
    ----------
    source
        CSV or Parquet file, or a frame.
    name
        What it is and its version: it is printed with every result that used it.
    code, target
        Names of the columns.
    weight
        Column of shares; without it each code must have a single target.

    Raises
    ------
    PanelError
        A column is missing or of the wrong type, a pair occurs twice, a weight is
        negative, or those of a code do not sum to 1.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"old": ["1", "1"], "new": ["a", "b"], "share": [0.25, 0.75]})
    >>> read_concordance(table, name="v1", code="old", target="new", weight="share").frame.rows()
    [('1', 'a', 0.25), ('1', 'b', 0.75)]
    """
    if not name.strip():
        msg = "concordance: got no name; expected what it is, with its version. Name it."
        raise PanelError(msg)
    columns = {"code": code, "target": target, **({"weight": weight} if weight else {})}
    frame, _, digest = read_text_columns(source, columns, "concordance", ("code", "target"))
    missing = sorted({*columns} - {*frame.columns})
    if missing:
        msg = f"concordance: got no column {columns[missing[0]]!r}; expected the weights. Name it."
        raise PanelError(msg)
    number = pl.col("weight").cast(pl.Float64, strict=False) if weight else pl.lit(1.0)
    frame = frame.with_columns(weight=number)
    wrong = frame.filter(
        ~((pl.col("weight") >= 0) & pl.col("weight").is_finite()).fill_null(value=False)
    )
    if wrong.height:
        msg = (
            f"concordance: got {wrong.height} weights that are not numbers of at least 0 (of "
            f"{listing(wrong['code'].head(8))}); expected shares. Correct them."
        )
        raise PanelError(msg)
    twice = frame.filter(frame.select("code", "target").is_duplicated())
    if twice.height:
        msg = f"concordance: got pairs twice ({listing(twice['code'].unique())}); expected one row a pair."
        raise PanelError(msg)
    sums = frame.group_by("code").agg(pl.col("weight").sum()).sort("code")
    off = sums.filter((pl.col("weight") - 1).abs() > _TOLERANCE)
    if off.height:
        shown = listing(f"{c}: {w:g}" for c, w in off.rows())
        msg = (
            f"concordance: got weights that sum to other than 1 ({shown}); expected 1 for each code, or "
            "jobs are lost or made. Complete or divide them."
        )
        raise PanelError(msg)
    # to the last digit, so that the mass is kept to the last digit
    exact = frame.with_columns(pl.col("weight") / pl.col("weight").sum().over("code"))
    return Concordance(exact.filter(pl.col("weight") > 0), name, digest)


def convert_cells(
    cells: Cells,
    concordance: Concordance,
    *,
    along: Literal["industry", "region"],
    classification: str | None = None,
    unlisted: Literal["refuse", "keep"] = "refuse",
) -> Cells:
    """Split cells by a concordance and sum what meets.

    A target is withheld if a part of it is, with the sum of the parts' bounds, else filled if
    a part of it is. Establishments by size are not converted. The shares
    are taken as exact: the uncertainty of a concordance is not in the bounds.

    Parameters
    ----------
    cells
        Of one level, or ``leaves``: parents and parts would be converted twice.
    concordance
        From ``read_concordance``.
    along
        What is converted.
    classification
        Name of the new classification, needed for ``industry``.
    unlisted
        What happens to codes that the concordance does not name: ``refuse``, or ``keep``
        where it names only those that changed.

    Raises
    ------
    PanelError
        A code of the cells is not in the concordance and would have to be, or the classification has no name.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> cells = read_cell_table(pd.DataFrame({
    ...     "region": ["09001"], "industry": ["311811"], "year": [2021], "employment": [40.0]}),
    ...     classification="NAICS 2017")
    >>> table = pd.DataFrame({"old": ["09001"] * 2, "new": ["09120", "09190"], "share": [0.75, 0.25]})
    >>> shares = read_concordance(table, name="v1", code="old", target="new", weight="share")
    >>> convert_cells(cells, shares, along="region").frame.select("region", "value").rows()
    [('09120', 30.0), ('09190', 10.0)]
    """
    if along not in ("industry", "region") or (along == "industry" and not classification):
        msg = (
            f"concordance: got along={along!r} and the classification {classification!r}; expected "
            "'region', or 'industry' with the name of the new classification. State them."
        )
        raise PanelError(msg)
    known = concordance.frame["code"].unique()
    missing = cells.frame.filter(~pl.col(along).is_in(known.to_list()))[along].unique().sort()
    zeros = differ_in_zeros(missing.to_list(), known.to_list())
    if missing.len() and (unlisted == "refuse" or zeros):
        msg = (
            f"concordance {concordance.name[:80]!r}: got no weights for {listing(missing)}; expected some "
            f"for each {along} of the cells. Add them, or leave these cells out beforehand."
            + (" The codes differ in leading zeros." if zeros else "")
        )
        raise PanelError(msg)
    itself = missing.to_frame("code").with_columns(target=pl.col("code"), weight=pl.lit(1.0))
    shares = pl.concat([concordance.frame.select(itself.columns), itself])
    split = cells.frame.join(shares, left_on=along, right_on="code")
    split = split.with_columns(pl.col(c) * pl.col("weight") for c in _AMOUNTS).with_columns(
        pl.col("target").alias(along)
    )
    whole = [
        pl.when(pl.col(c).is_not_null().all()).then(pl.col(c).sum()).alias(c) for c in _AMOUNTS
    ]
    flags = pl.col("flag_raw").filter(pl.col("flag_raw") != "").unique().sort().str.join("+")
    frame = (
        split.group_by("region", "industry", "year")
        .agg(*whole, status=worst_status(), flag_raw=flags)
        .sort("region", "industry", "year")
    )
    note = f"{along} converted by {concordance.name} (SHA-256 {concordance.digest[:12]})"
    note += (
        f"; {missing.len()} of {known.len() + missing.len()} codes kept" if missing.len() else ""
    )
    origins = tuple(
        replace(o, classification=classification or o.classification, notes=(*o.notes, note))
        for o in cells.origins
    )
    return Cells(frame, origins)


def convertible_cells(cells: Cells, concordance: Concordance) -> Cells:
    """Keep the deepest published industries of the levels that a concordance lists.

    Converting parents and parts would count jobs twice, and a row that stands for its
    unpublished parts is not converted: how many jobs are in such rows is noted.

    Raises
    ------
    PanelError
        No code of the concordance is one of the classification of the cells.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> cells = read_cell_table(pd.DataFrame({
    ...     "region": "09001", "industry": ["31----", "311811"], "year": 2016, "employment": 40.0}),
    ...     classification="NAICS 2012")
    >>> table = pd.DataFrame({"old": ["311811"], "new": ["311813"]})
    >>> bridge = read_concordance(table, name="v1", code="old", target="new")
    >>> convertible_cells(cells, bridge).frame["industry"].to_list()
    ['311811']
    """
    deepest = leaves(cells)
    system = system_of(cells.origins[0].classification)
    listed = {industry_level(code, system) for code in concordance.frame["code"].unique()} - {None}
    codes = deepest.frame["industry"].unique().to_list()
    kept = [code for code in codes if industry_level(code, system) in listed]
    if not listed or not kept:
        msg = (
            f"concordance {concordance.name[:80]!r}: got the codes "
            f"{listing(concordance.frame['code'].head(5))} for industries such as {listing(codes[:5])}; "
            "expected codes of the same classification and level. Check which way it leads."
        )
        raise PanelError(msg)
    rest = deepest.frame.filter(~pl.col("industry").is_in(kept))
    result = replace(deepest, frame=deepest.frame.filter(pl.col("industry").is_in(kept)))
    if not rest.height:
        return result
    return result.noted(
        f"{rest['value'].sum():,.0f} employees in {rest.height} cells of industries whose parts are "
        "not published left out before the conversion"
    )


def recode_regions(cells: Cells) -> Cells:
    """Give counties whose codes changed their latest code, in all years.

    Only changes after which one code can stand for the other (``RECODES``): renamed
    counties, and independent cities that became part of a county.

    Raises
    ------
    PanelError
        The result would not be cells.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> cells = read_cell_table(pd.DataFrame({
    ...     "region": ["51515", "51019"], "industry": "311811", "year": 2012, "employment": [4.0, 6.0]}),
    ...     classification="NAICS 2012")
    >>> recode_regions(cells).frame.select("region", "value").rows()
    [('51019', 10.0)]
    """
    there = {*cells.frame["region"].unique().to_list()}
    changed = {r.old: r for r in RECODES if r.old in there}
    if not changed:
        return cells
    table = pl.DataFrame({"old": [*changed], "new": [r.new for r in changed.values()]})
    name = "; ".join(f"{r.old} is {r.new} ({r.name})" for r in changed.values())
    bridge = read_concordance(table, name=name, code="old", target="new")
    return convert_cells(cells, bridge, along="region", unlisted="keep")
