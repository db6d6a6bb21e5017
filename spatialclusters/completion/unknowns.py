"""Withheld cells as unknown logarithms between their bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from spatialclusters.cells import cell_bounds
from spatialclusters.errors import PanelError, listing
from spatialclusters.panel import OBSERVED, WITHHELD, Panel

__all__ = ["Unknowns", "withheld_cells"]

_OPEN: Final = 1.0
"""Where the search begins in a cell without an upper bound: e times its lower one."""


@dataclass(frozen=True, eq=False)
class Unknowns:
    r"""The cells of one year: numbers where they are known, places and bounds where they are not.

    An unknown logarithm is :math:`x = l + (u - l) / (1 + e^{-z})`, or :math:`l + e^z` in a cell
    without an upper bound.

    Attributes
    ----------
    known
        Employees, (region, unit); 0 where a cell is absent or unknown.
    at
        Region and unit of every unknown cell, (2, K).
    low, width
        Log of the lower bound, and log of upper over lower, (K,); infinite where open.
    """

    known: np.ndarray
    at: np.ndarray
    low: np.ndarray
    width: np.ndarray

    @property
    def size(self) -> int:
        """Number of unknown cells K."""
        return len(self.low)

    def logs(self, z: Any) -> tuple[Any, Any]:
        """Return log employees of the unknown cells, (K,), and the log Jacobian of z to them."""
        import jax
        import jax.numpy as jnp

        bounded = np.isfinite(self.width)
        width = np.where(bounded, self.width, 1.0)
        inside = jnp.log(width) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
        open_z = jnp.where(bounded, 0.0, z)
        x = self.low + jnp.where(bounded, width * jax.nn.sigmoid(z), jnp.exp(open_z))
        return x, jnp.where(bounded, inside, open_z).sum()

    def filled(self, x: Any) -> Any:
        """Return employees of every cell, (region, unit), as a JAX array."""
        import jax.numpy as jnp

        return jnp.asarray(self.known).at[self.at[0], self.at[1]].set(jnp.exp(x))

    def within(self, mask: np.ndarray) -> Unknowns:
        """Keep the unknown cells of a mask, boolean over (region, unit)."""
        keep = mask[tuple(self.at)]
        return Unknowns(self.known, self.at[:, keep], self.low[keep], self.width[keep])

    def size_grid(self, at: Sequence[np.ndarray]) -> tuple[float, float, float]:
        """Return logs of the ends and the middle of the sizes that the cells of rows can have.

        Open cells count at their lower bounds: larger ones are in the last class. The middle is
        the median of the cells filled halfway between the bounds.
        """
        sizes = []
        for logs in (
            self.low,
            self.low + np.where(np.isfinite(self.width), self.width, 0.0),
            self.middle,
        ):
            filled = self.known.copy()
            filled[tuple(self.at)] = np.exp(logs)
            sizes.append(np.log(filled[tuple(at)]))
        low, high = float(sizes[0].min()), float(sizes[1].max())
        return low, max(high, low + 1.0), float(np.median(sizes[2]))

    @property
    def middle(self) -> np.ndarray:
        """Log employees halfway between the bounds, (K,)."""
        return self.low + np.where(np.isfinite(self.width), 0.5 * self.width, _OPEN)


def withheld_cells(
    panel: Panel,
    variable: str,
    period: str | None,
    *,
    floor: float,
    wanted: np.ndarray,
    ceiling: float = np.inf,
) -> Unknowns:
    """Collect the withheld cells of a year.

    Parameters
    ----------
    floor
        Least number of employees in a withheld cell.
    wanted
        Which cells matter, boolean over (region, unit).
    ceiling
        Upper bound of those that have none.

    Raises
    ------
    PanelError
        Bounds are crossed, or a withheld cell holds less than ``floor`` or more than ``ceiling``.
    """
    dims = ("region", str(panel.unit))
    status = panel.status(variable, period).transpose(*dims).values
    values = panel.values(variable, period).transpose(*dims).values
    withheld = (status == WITHHELD) & wanted
    hidden = panel.status(variable, period) == WITHHELD
    sides: Mapping[str, xr.DataArray] = dict(
        zip(("lower", "upper"), cell_bounds(panel, variable, period, hidden), strict=True)
    )
    lower, upper = (sides[name].transpose(*dims).values for name in ("lower", "upper"))
    tight = withheld & (upper < floor)
    if tight.any():
        shown = listing(_names(panel, tight))
        msg = (
            f"panel: got {int(tight.sum())} withheld cells of {variable!r} with an upper bound below "
            f"{floor:g} ({shown}); expected at least that. Give zeros where nobody works, or lower "
            "floor."
        )
        raise PanelError(msg)
    upper = np.where(np.isinf(upper), ceiling, upper)
    above = withheld & (np.maximum(lower, floor) > upper)
    if above.any():
        msg = (
            f"panel: got {int(above.sum())} withheld cells of {variable!r} with a lower bound above "
            f"the ceiling of {ceiling:g} ({listing(_names(panel, above))}); expected at most that. "
            "Raise ceiling, or give upper bounds."
        )
        raise PanelError(msg)
    at = np.array(np.nonzero(withheld))
    low = np.log(np.maximum(lower[withheld], floor))
    high = np.log(upper[withheld])
    exact = high - low <= 0.0
    known = np.where(status == OBSERVED, values, 0.0)
    known[tuple(at[:, exact])] = np.exp(low[exact])
    free = ~exact
    return Unknowns(known, at[:, free], low[free], (high - low)[free])


def _names(panel: Panel, mask: np.ndarray) -> list[str]:
    regions, units = np.nonzero(mask)
    labels = panel.data[str(panel.unit)].values
    return [f"{panel.regions[r]} {labels[u]}" for r, u in zip(regions, units, strict=True)]
