"""What cells without a published number count as: never silently zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from spatialclusters.errors import PanelError
from spatialclusters.panel import ABSENT, OBSERVED, WITHHELD, Panel

__all__ = ["CellRule", "base_cells", "cell_bounds"]


@dataclass(frozen=True)
class CellRule:
    """What cells without a published number count as in sums.

    Attributes
    ----------
    absent
        ``zero``, or ``withheld``: treated like a withheld cell.
    withheld
        ``zero``; ``lower``: the cell's lower bound (0 without one); ``filled``:
        by the method ``fill``; ``missing``: a sum with such a part is NaN and
        carries bounds.
    fill
        ``midpoint`` of the cell's bounds.
    """

    absent: Literal["zero", "withheld"]
    withheld: Literal["zero", "lower", "filled", "missing"]
    fill: Literal["midpoint"] | None = None


def base_cells(panel: Panel, variable: str, period: str | None, rule: CellRule) -> xr.Dataset:
    """Apply the cell rule: the number each cell counts as, with its bounds.

    Returns
    -------
    xarray.Dataset
        ``value``, ``lower``, ``upper`` and ``published`` over (region, unit).
        Bounds come from the columns ``<variable>_lower`` and ``_upper`` and are
        [0, inf) without them.

    Raises
    ------
    PanelError
        ``filled`` is asked for and a withheld cell has no finite upper bound, or
        a cell's bounds are crossed.
    """
    values, status = panel.values(variable, period), panel.status(variable, period)
    unpublished = status == WITHHELD
    if rule.absent == "withheld":
        unpublished = unpublished | (status == ABSENT)
    lower, upper = cell_bounds(panel, variable, period, unpublished)
    if rule.withheld == "filled":
        open_ended = int((unpublished & ~np.isfinite(upper)).sum())
        if open_ended:
            msg = (
                f"[cells] withheld = 'filled': got {open_ended} withheld cells of {variable!r} without "
                f"an upper bound; expected columns {variable}_lower and {variable}_upper. Add them, "
                "or count withheld cells as 'zero', 'lower' or 'missing'."
            )
            raise PanelError(msg)
    counts: dict[str, float | xr.DataArray] = {
        "zero": 0.0, "lower": lower, "filled": (lower + upper) / 2.0, "missing": np.nan,
    }  # fmt: skip
    published, nothing = status == OBSERVED, xr.zeros_like(values)
    laid_out = {
        name: values.where(published, nothing.where(~unpublished, counted))
        for name, counted in (("value", counts[rule.withheld]), ("lower", lower), ("upper", upper))
    }
    return xr.Dataset({**laid_out, "published": published})


def cell_bounds(
    panel: Panel, variable: str, period: str | None, unpublished: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the lower and upper bounds of cells, [0, inf) where nothing is known.

    Raises
    ------
    PanelError
        Bounds of an unpublished cell are crossed.
    """
    names = {"lower": 0.0, "upper": np.inf}
    lower, upper = (
        panel.values(f"{variable}_{side}", period).fillna(default)
        if f"{variable}_{side}" in panel.variables
        else xr.full_like(unpublished, default, dtype=np.float64)
        for side, default in names.items()
    )
    crossed = int((unpublished & (lower > upper)).sum())
    if crossed:
        msg = f"panel: got {crossed} cells of {variable!r} whose lower bound exceeds the upper one."
        raise PanelError(msg)
    return lower, upper
