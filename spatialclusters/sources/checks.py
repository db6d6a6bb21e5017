"""What is in a set of cells: levels, withheld cells, and whether parts exceed their total."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from spatialclusters.sources.levels import industry_level, leaves, system_of
from spatialclusters.sources.tidy import FILLED_CELL, OBSERVED_CELL, WITHHELD_CELL, Cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["exceeding_totals", "summarize_cells", "withheld_by_year"]


def summarize_cells(cells: Cells) -> pd.DataFrame:
    """Count cells and employees by year and level of the industry.

    Returns
    -------
    pandas.DataFrame
        ``year``; ``level``, -1 for codes outside the hierarchy; ``regions``,
        ``industries``, ``observed`` and ``withheld`` cells; ``employees`` in observed
        cells; ``withheld_lower`` and ``withheld_upper``, sums of the bounds of the
        withheld ones (employees); ``unbounded``, withheld cells without an upper bound,
        which make ``withheld_upper`` infinite; ``filled`` cells, and the employees in them.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> table = pd.DataFrame({"region": ["01001"], "industry": ["311811"], "year": [2018],
    ...                       "employment": [24.0]})
    >>> summarize_cells(read_cell_table(table, classification="NAICS 2017"))["level"].tolist()
    [6]
    """
    levels = _levels(cells)
    hidden = pl.col("status") == WITHHELD_CELL
    level = pl.col("industry").replace_strict(levels, return_dtype=pl.Int64)
    return (
        cells.frame.group_by("year", level.alias("level"))
        .agg(
            regions=pl.col("region").n_unique(),
            industries=pl.col("industry").n_unique(),
            observed=(pl.col("status") == OBSERVED_CELL).sum(),
            withheld=hidden.sum(),
            employees=pl.col("value").filter(pl.col("status") == OBSERVED_CELL).sum(),
            withheld_lower=pl.col("lower").filter(hidden).sum(),
            withheld_upper=pl.col("upper").filter(hidden).sum(),
            unbounded=pl.col("upper").filter(hidden).is_infinite().sum(),
            filled=(pl.col("status") == FILLED_CELL).sum(),
            filled_employees=pl.col("value").filter(pl.col("status") == FILLED_CELL).sum(),
        )
        .sort("year", "level")
        .to_pandas()
    )  # fmt: skip


def withheld_by_year(used: pl.DataFrame, published: Cells) -> dict[str, dict[str, Any]]:
    """Say by year how much of employment is published, withheld and filled.

    Parameters
    ----------
    used
        Rows of the cells that are summed: nothing is counted twice in them.
    published
        All cells of the same files: the totals of regions, and all industries.

    Returns
    -------
    dict
        By year: ``cells``, of them ``withheld`` and ``filled``; ``employees`` in observed
        cells; ``withheld_lower`` and ``withheld_upper``, the sums of the bounds of cells that
        are or were withheld (None: nothing bounds one of them); ``filled_employees``; and
        ``covered``, the share of the published totals that all observed industries of their
        level hold (None without totals, or with several levels).
    """
    hidden = pl.col("status") != OBSERVED_CELL
    by_year = used.group_by("year").agg(
        cells=pl.len(),
        withheld=(pl.col("status") == WITHHELD_CELL).sum(),
        filled=(pl.col("status") == FILLED_CELL).sum(),
        employees=pl.col("value").filter(~hidden).sum(),
        withheld_lower=pl.col("lower").filter(hidden).sum(),
        withheld_upper=pl.col("upper").filter(hidden).sum(),
        filled_employees=pl.col("value").filter(pl.col("status") == FILLED_CELL).sum(),
    )
    covered = _covered(used, published)
    return {
        str(row["year"]): {
            **{name: value for name, value in row.items() if name != "year"},
            "withheld_upper": row["withheld_upper"] if math.isfinite(row["withheld_upper"]) else None,
            "covered": covered.get(row["year"]),
        }
        for row in by_year.sort("year").to_dicts()
    }  # fmt: skip


def _covered(used: pl.DataFrame, published: Cells) -> dict[int, float]:
    """Divide what observed industries hold by the published totals of their regions."""
    levels = _levels(published)
    kept = {levels[code] for code in used["industry"].unique()}
    if len(kept) != 1:  # the industries beside those that are used would count twice
        return {}
    observed = published.frame.filter(pl.col("status") == OBSERVED_CELL).with_columns(
        level=pl.col("industry").replace_strict(levels, return_dtype=pl.Int64)
    )
    totals = observed.filter(pl.col("level") == 0).select("region", "year", total="value")
    parts = observed.filter(pl.col("level").is_in(kept) & (pl.col("level") > 0))
    sums = parts.group_by("region", "year").agg(pl.col("value").sum())
    shares = (
        totals.join(sums, on=["region", "year"], how="left").group_by("year")
        .agg(pl.col("value").sum() / pl.col("total").sum())
    )  # fmt: skip
    return {year: share for year, share in shares.rows() if math.isfinite(share)}


def _levels(cells: Cells) -> dict[str, int]:
    """Return the level of each code, -1 outside the hierarchy."""
    systems = sorted({system_of(origin.classification) for origin in cells.origins})
    return {
        code: next((n for s in systems if (n := industry_level(code, s)) is not None), -1)
        for code in cells.frame["industry"].unique().to_list()
    }


def exceeding_totals(cells: Cells) -> pd.DataFrame:
    """List regions whose industries add up to more than their published total.

    In files with noise a small excess is possible; a large one means that a level was
    counted twice or that files were mixed.

    Returns
    -------
    pandas.DataFrame
        ``region``, ``year``, ``parts`` (the least that the deepest industries add up to)
        and ``total`` (the most that all industries can be), in employees.

    Raises
    ------
    PanelError
        Files of different classifications were combined.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> table = pd.DataFrame({"region": ["01001"] * 2, "industry": ["------", "311811"],
    ...                       "year": [2018] * 2, "employment": [20.0, 24.0]})
    >>> exceeding_totals(read_cell_table(table, classification="NAICS 2017")).values.tolist()
    [['01001', 2018, 24.0, 20.0]]
    """
    parts = leaves(cells).frame
    system = system_of(cells.origins[0].classification)
    totals = [
        code for code in cells.frame["industry"].unique() if industry_level(code, system) == 0
    ]
    total = cells.frame.filter(pl.col("industry").is_in(totals)).select(
        "region", "year", total="upper"
    )
    return (
        parts.filter(~pl.col("industry").is_in(totals))
        .group_by("region", "year").agg(parts=pl.col("lower").sum())
        .join(total, on=["region", "year"])
        .filter(pl.col("parts") > pl.col("total"))
        .sort("region", "year").to_pandas()
    )  # fmt: skip
