"""What is in a set of cells: levels, withheld cells, and whether parts exceed their total."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from spatialclusters.sources.levels import industry_level, leaves, system_of
from spatialclusters.sources.tidy import OBSERVED_CELL, WITHHELD_CELL, Cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["exceeding_totals", "summarize_cells"]


def summarize_cells(cells: Cells) -> pd.DataFrame:
    """Count cells and employees by year and level of the industry.

    Returns
    -------
    pandas.DataFrame
        ``year``; ``level``, -1 for codes outside the hierarchy; ``regions``,
        ``industries``, ``observed`` and ``withheld`` cells; ``employees`` in observed
        cells; ``withheld_lower`` and ``withheld_upper``, sums of the bounds of the
        withheld ones (employees); ``unbounded``, withheld cells without an upper bound,
        which make ``withheld_upper`` infinite.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table
    >>> table = pd.DataFrame({"region": ["01001"], "industry": ["311811"], "year": [2018],
    ...                       "employment": [24.0]})
    >>> summarize_cells(read_cell_table(table, classification="NAICS 2017"))["level"].tolist()
    [6]
    """
    systems = sorted({system_of(origin.classification) for origin in cells.origins})
    codes = cells.frame["industry"].unique().to_list()
    levels = {
        code: next((n for s in systems if (n := industry_level(code, s)) is not None), -1)
        for code in codes
    }
    hidden = pl.col("status") == WITHHELD_CELL
    level = pl.col("industry").replace_strict(levels, return_dtype=pl.Int64)
    return (
        cells.frame.group_by("year", level.alias("level"))
        .agg(
            regions=pl.col("region").n_unique(),
            industries=pl.col("industry").n_unique(),
            observed=(pl.col("status") == OBSERVED_CELL).sum(),
            withheld=hidden.sum(),
            employees=pl.col("value").sum(),
            withheld_lower=pl.col("lower").filter(hidden).sum(),
            withheld_upper=pl.col("upper").filter(hidden).sum(),
            unbounded=pl.col("upper").filter(hidden).is_infinite().sum(),
        )
        .sort("year", "level")
        .to_pandas()
    )  # fmt: skip


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
