"""Files of cells -> one set of cells that can be summed and compared across years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.concordance import (
    Concordance,
    convert_cells,
    convertible_cells,
    recode_regions,
)
from spatialclusters.sources.fill import proportional_fill
from spatialclusters.sources.suppression import tighten_bounds
from spatialclusters.sources.tidy import Cells, combine_cells

__all__ = ["IndustryBridge", "prepare_cells"]


@dataclass(frozen=True)
class IndustryBridge:
    """A concordance of industries and the classifications that it connects.

    Attributes
    ----------
    concordance
        From ``read_concordance``.
    source, target
        Names of the classifications, for example ``NAICS 2012`` and ``NAICS 2017``.
    """

    concordance: Concordance
    source: str
    target: str


def prepare_cells(
    parts: Sequence[Cells],
    *,
    tighten: bool = False,
    complete: bool = False,
    fill: Literal["dorn"] | None = None,
    recode: bool = False,
    regions: Concordance | None = None,
    industries: IndustryBridge | None = None,
) -> Cells:
    """Tighten, fill, recode and convert each part by itself, in this order, and combine them.

    Every step leaves its note with the origin of the cells.

    Parameters
    ----------
    parts
        Cells of one file or several.
    tighten, complete
        Whether bounds are tightened, and by what; see ``tighten_bounds``.
    fill
        ``dorn``: withheld cells get a value by ``proportional_fill``.
    recode
        Whether counties get their latest code in all years; see ``recode_regions``.
    regions
        Concordance of regions. Those that it does not name stay as they are.
    industries
        Concordance of industries, for the parts that are by its source.

    Raises
    ------
    PanelError
        A step is refused, or no part is by the source of the concordance, or one is by
        several classifications.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.sources import read_cell_table, read_concordance
    >>> table = pd.DataFrame({"region": ["46113"], "industry": ["311811"], "year": [2012],
    ...                       "employment": [24.0]})
    >>> older = read_cell_table(table, classification="NAICS 2012")
    >>> bridge = read_concordance(pd.DataFrame({"code": ["311811"], "target": ["311813"]}),
    ...                           name="made up", code="code", target="target")
    >>> cells = prepare_cells([older], recode=True,
    ...                       industries=IndustryBridge(bridge, "NAICS 2012", "NAICS 2017"))
    >>> cells.frame.select("region", "industry").rows(), cells.origins[0].classification
    ([('46102', '311813')], 'NAICS 2017')
    """
    if fill not in (None, "dorn"):
        msg = f"cells: got fill {fill!r}; expected 'dorn' or none. Choose one."
        raise PanelError(msg)
    if complete and not tighten and fill is None:
        msg = (
            "cells: got complete without tighten or fill; expected one. It says what they may use."
        )
        raise PanelError(msg)
    if industries is not None and not any(_is_by(part, industries.source) for part in parts):
        named = sorted({origin.classification for part in parts for origin in part.origins})
        msg = (
            f"concordance: got one from {industries.source!r} for cells by {listing(named)}; expected one "
            "from their classification. Correct its name, or leave it out."
        )
        raise PanelError(msg)
    done = []
    for part in parts:
        cells = tighten_bounds(part, complete=complete) if tighten else part
        cells = proportional_fill(cells, complete=complete) if fill else cells
        cells = recode_regions(cells) if recode else cells
        if regions is not None:
            cells = convert_cells(cells, regions, along="region", unlisted="keep")
        if industries is not None and _is_by(cells, industries.source):
            shares = industries.concordance
            cells = convert_cells(
                convertible_cells(cells, shares), shares, along="industry",
                classification=industries.target,
            )  # fmt: skip
        done.append(cells)
    return combine_cells(done)


def _is_by(cells: Cells, classification: str) -> bool:
    """Whether cells are by a classification; those by several have to be split beforehand."""
    names = sorted({origin.classification for origin in cells.origins})
    if classification in names and len(names) > 1:
        msg = (
            f"concordance: got a file with cells by {listing(names)}; expected one classification a "
            "file. Write the years of each to a file of their own."
        )
        raise PanelError(msg)
    return classification in names
