"""The base year's levels: how large a withheld cell is likely to be, given the cells around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spatialclusters.design import Design, build_design
from spatialclusters.errors import PanelError
from spatialclusters.panel import Panel, read_panel
from spatialclusters.simulation import linear_predictor
from spatialclusters.spec import ModelSpec, parse_spec

__all__ = ["Levels", "make_levels"]


@dataclass(frozen=True, eq=False)
class Levels:
    """The equation of log employment in the base year, over cells with a positive number.

    Attributes
    ----------
    spec, design
        Log of employment on predictors, with effects of regions, units and region-clusters.
    at
        Region and unit of every row, (2, N).
    """

    spec: ModelSpec
    design: Design
    at: np.ndarray

    def grid(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Lay values of rows out over (region, unit), NaN elsewhere."""
        out = np.full(shape, np.nan)
        out[tuple(self.at)] = values
        return out

    def mean(self, parameters: dict[str, np.ndarray]) -> np.ndarray:
        """Return the expected log employment of every row, (N,)."""
        return linear_predictor(self.design, parameters)


def make_levels(
    panel: Panel, employment: np.ndarray, period: str, predictors: Sequence[str]
) -> Levels:
    """Set the equation up for a panel whose unknown cells are filled somehow.

    Parameters
    ----------
    employment
        (region, unit), 0 where nobody works or the cell is absent.
    predictors
        Variables of the panel that are known and positive wherever anybody works, such as
        ``establishments``; their logs enter.

    Raises
    ------
    PanelError
        A predictor is not known in a cell, or not positive.
    """
    unit = str(panel.unit)
    at = np.array(np.nonzero(employment > 0.0))
    table = {
        dim: panel.data[dim].values[index].astype(object)
        for dim, index in zip(("region", unit), at, strict=True)
    }
    nested = unit == "industry" and "cluster_of" in panel.data.coords
    if nested:
        table["cluster"] = panel.data["cluster_of"].values[at[1]].astype(object)
    table["level"] = np.log(employment[tuple(at)])
    for name in predictors:
        values = panel.values(name, period).transpose("region", unit).values[tuple(at)]
        wrong = int((~(values > 0.0)).sum())
        if wrong:
            msg = (
                f"predictors: got {wrong} cells in which {name!r} is unknown or not positive; expected "
                f"a positive number in each of the {len(values)} cells with employment."
            )
            raise PanelError(msg)
        table[name] = values
    logs = " + ".join(f"log({name})" for name in predictors) or "1"
    groups = ["region", unit, *(["region:cluster"] if _repeats(table, nested=nested) else [])]
    formula = f"level ~ {logs} + " + " + ".join(f"(1 | {group})" for group in groups)
    spec = parse_spec(f'name = "levels"\nformula = "{formula}"', where="the levels of cells")
    still = read_panel(pd.DataFrame(table))
    design = build_design(spec, still)
    places = [
        pd.Index(panel.data[dim].values).get_indexer(design.data[f"row_{dim}"].values)
        for dim in ("region", unit)
    ]
    return Levels(spec, design, np.array(places))


def _repeats(table: dict[str, np.ndarray], *, nested: bool) -> bool:
    """Tell whether some region-cluster holds several cells."""
    if not nested:
        return False
    pairs = pd.MultiIndex.from_arrays([table["region"], table["cluster"]])
    return bool(pairs.has_duplicates)
