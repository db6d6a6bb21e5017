"""Published totals that cells add up to, up to the noise that agencies add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from spatialclusters.completion.unknowns import Unknowns
from spatialclusters.errors import PanelError, listing
from spatialclusters.panel import Panel

__all__ = ["Totals", "read_totals"]


@dataclass(frozen=True, eq=False)
class Totals:
    """Sets of cells of one year and the log of what each adds up to.

    Attributes
    ----------
    region, unit, total
        Place of a cell and the number of the total that it belongs to, one entry each.
    logs
        Log of every total.
    """

    region: np.ndarray
    unit: np.ndarray
    total: np.ndarray
    logs: np.ndarray

    def covers(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return which cells are part of a total, boolean over (region, unit)."""
        mask = np.zeros(shape, dtype=bool)
        mask[self.region, self.unit] = True
        return mask

    def log_density(self, employment: Any, sd: float) -> Any:
        r"""Return :math:`\sum_k \log N(\log T_k \mid \log \sum_{c \in k} E_c, sd^2)`."""
        import jax.numpy as jnp

        if not len(self.logs):
            return 0.0
        parts = employment[self.region, self.unit]
        sums = jnp.zeros(len(self.logs)).at[self.total].add(parts)
        return -0.5 * (((self.logs - jnp.log(sums)) / sd) ** 2).sum()

    def within(self, unknowns: Unknowns) -> Totals:
        """Keep the totals that say something: those with an unknown cell."""
        unknown = np.zeros(unknowns.known.shape, dtype=bool)
        unknown[tuple(unknowns.at)] = True
        told = np.zeros(len(self.logs), dtype=bool)
        told[self.total[unknown[self.region, self.unit]]] = True
        keep = told[self.total]
        number = np.cumsum(told) - 1
        return Totals(self.region[keep], self.unit[keep], number[self.total[keep]], self.logs[told])

    def refuse_contradictions(self, unknowns: Unknowns, sd: float) -> None:
        """Refuse totals that the cells cannot add up to within four standard deviations.

        Raises
        ------
        PanelError
            With the number of such totals.
        """
        least, most = unknowns.known.copy(), unknowns.known.copy()
        least[tuple(unknowns.at)] = np.exp(unknowns.low)
        most[tuple(unknowns.at)] = np.exp(unknowns.low + unknowns.width)
        sums = [
            np.bincount(self.total, side[self.region, self.unit], len(self.logs))
            for side in (least, most)
        ]
        with np.errstate(divide="ignore"):
            wrong = (np.log(sums[0]) > self.logs + 4.0 * sd) | (
                np.log(sums[1]) < self.logs - 4.0 * sd
            )
        if wrong.any():
            msg = (
                f"totals: got {int(wrong.sum())} totals outside what the bounds of their cells add up to "
                f"(the first is {np.exp(self.logs[wrong][0]):.0f}); expected the sum of the cells that "
                "have a row. Remove totals that hold other cells, or raise totals_sd."
            )
            raise PanelError(msg)


def read_totals(
    tables: Sequence[pd.DataFrame], panel: Panel, variable: str, period: str, year: int
) -> Totals:
    """Match totals to the cells of one year that have a row.

    Parameters
    ----------
    tables
        Columns ``year``, some of ``region``, ``industry`` and ``cluster``, and the variable: its
        sum over all cells with these keys. Within a table every cell is in one total at most.
    period, year
        The year's label in the panel, and the number that it has in the tables.

    Raises
    ------
    PanelError
        A table lacks a column, has a total twice or one that is not a positive number, or names
        what no cell has.
    """
    unit = str(panel.unit)
    present = panel.data["present"].transpose("region", unit, ...)
    present = present.sel(year=period, drop=True) if "year" in present.dims else present
    regions, units = np.nonzero(present.values)
    cells = {
        "region": panel.data["region"].values[regions].astype(object),
        unit: panel.data[unit].values[units].astype(object),
    }
    if "cluster_of" in panel.data.coords:
        cells["cluster"] = panel.data["cluster_of"].values[units].astype(object)
    parts, logs, offset = [], [], 0
    for table in tables:
        keys = [key for key in ("region", "industry", "cluster") if key in table.columns]
        missing = [name for name in ("year", variable) if name not in table.columns]
        if missing or not keys or any(key not in cells for key in keys):
            msg = (
                f"totals: got columns {listing(table.columns)}; expected 'year', {variable!r} and some "
                f"of {listing(cells)}."
            )
            raise PanelError(msg)
        mine = table[table["year"] == year]
        index = pd.MultiIndex.from_frame(mine[keys].astype(object))
        values = mine[variable].to_numpy(np.float64)
        if index.has_duplicates or not (np.isfinite(values) & (values > 0.0)).all():
            msg = "totals: got a total twice, or one that is not a positive number; expected each once."
            raise PanelError(msg)
        which = index.get_indexer(pd.MultiIndex.from_arrays([cells[key] for key in keys]))
        unused = np.setdiff1d(np.arange(len(index)), which)
        if len(unused):
            msg = f"totals: got totals without a cell ({listing(map(str, index[unused]))}); remove them."
            raise PanelError(msg)
        used = which >= 0
        parts.append(np.array([regions[used], units[used], which[used] + offset]))
        logs.append(np.log(values))
        offset += len(values)
    stacked = np.concatenate(parts, axis=1) if parts else np.empty((3, 0), dtype=int)
    region, unit_of, total = stacked
    return Totals(region, unit_of, total, np.concatenate(logs) if logs else np.empty(0))
