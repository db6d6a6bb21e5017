"""Which cells become rows, and the variables of the formula on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from spatialclusters.cells import CellRule
from spatialclusters.errors import PanelError, SpecError, listing, suggestion
from spatialclusters.expressions import sample_mask
from spatialclusters.linkages import read_linkages
from spatialclusters.measures import MEASURES, compute_measures, growth
from spatialclusters.panel import ABSENT, Panel, yearly_columns
from spatialclusters.spec import ModelSpec
from spatialclusters.weights import Weights

__all__ = ["Rows", "choose_rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """The sample: one entry per row in every array.

    Attributes
    ----------
    y
        Response, in the unit ``unit``; ``years`` is its horizon or 0.
    ids
        ``region`` and, where they exist, ``industry`` and ``cluster`` of each row.
    variables
        Variables of the formula, finite.
    size
        Base-year level behind each row: what size-dependent noise depends on.
    dropped
        Cells that are no rows, by reason.
    base
        Label of the base year in the panel.
    linkages
        What is known of the table of linked clusters, if one was used.
    """

    y: np.ndarray
    unit: str
    years: int
    ids: Mapping[str, np.ndarray]
    variables: Mapping[str, np.ndarray]
    size: np.ndarray
    dropped: Mapping[str, int]
    base: str | None
    linkages: Mapping[str, Any] | None


def choose_rows(spec: ModelSpec, panel: Panel, weights: Weights | None, linkages: Any) -> Rows:
    """Compute the variables on the whole panel, then keep the cells that can be rows.

    Raises
    ------
    PanelError, SpecError
        A variable is unknown, or no complete row is left.
    """
    response, base = _response(spec, panel)
    grid, attributes = _grid(spec, panel, weights, linkages, base)
    known = np.isfinite(response.values)
    keep, dropped = _sample(spec, panel, known, grid)
    where = tuple(index[keep] for index in np.nonzero(known))
    dims = [str(dim) for dim in response.dims]
    ids = {dim: response[dim].values[index] for dim, index in zip(dims, where, strict=True)}
    if "cluster_of" in panel.data.coords and "industry" in ids:
        ids["cluster"] = panel.data["cluster_of"].values[where[dims.index("industry")]]
    level = spec.growth.variable if spec.growth else spec.parsed_formula.response
    return Rows(
        y=response.values[where],
        unit=str(response.attrs["unit"]),
        years=int(response.attrs["years"]),
        ids=ids,
        variables={name: array[where] for name, array in grid.items()},
        size=panel.values(level, base).values[where],
        dropped=dropped,
        base=base,
        linkages=attributes,
    )


def _response(spec: ModelSpec, panel: Panel) -> tuple[xr.DataArray, str | None]:
    name = spec.parsed_formula.response
    if spec.growth is None:
        if len(panel.years) > 1:
            msg = f"formula: got a panel with years {listing(panel.years)} and no [growth] table; expected one."
            raise SpecError(msg)
        period = panel.years[0] if panel.years else None
        return panel.values(name, period).assign_attrs(unit=name, years=0), period
    wanted = spec.growth
    if not panel.years:
        msg = (
            f"panel: got neither a column 'year' nor {wanted.variable}_start and {wanted.variable}_end; "
            "expected one of the two for a model of growth."
        )
        raise PanelError(msg + yearly_columns(wanted.variable, panel.variables))
    start, end = panel.period(wanted.from_year), panel.period(wanted.to_year, end=True)
    change = growth(
        panel.values(wanted.variable, start),
        panel.values(wanted.variable, end),
        wanted.years,
        annualized=wanted.annualized,
    )
    return change, start


def _grid(
    spec: ModelSpec,
    panel: Panel,
    weights: Weights | None,
    linkages: Any,
    base: str | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Collect every variable of the formula on the whole panel, measures included."""
    formula = spec.parsed_formula
    attributes: dict[str, Any] | None = None
    measures = [name for name in formula.variables if name in MEASURES]
    grid: dict[str, xr.DataArray] = {}
    if measures:
        assert spec.cells is not None  # the spec demands it with any measure
        variable = spec.growth.variable if spec.growth else "employment"
        if linkages is not None and not isinstance(linkages, xr.DataArray):
            linkages = read_linkages(linkages, _clusters(panel))
        if linkages is not None:
            attributes = dict(linkages.attrs)
        computed = compute_measures(
            panel,
            measures,
            variable,
            base,
            rule=CellRule(spec.cells.absent, spec.cells.withheld, spec.cells.fill),
            totals=spec.measures.totals,
            weights=weights,
            linkages=linkages,
            neighbor_leave_out=spec.measures.neighbor_leave_out,
        )
        grid |= {str(name): array for name, array in computed.items()}
    for name in formula.variables:
        if name in grid:
            continue
        if name not in (*panel.variables, *panel.provenance.get("ignored", ())):
            known = (*panel.variables, *MEASURES)
            msg = f"formula: got no variable {name!r}; expected one of {listing(known, 20)}."
            raise SpecError(msg + suggestion(name, known) + yearly_columns(name, panel.variables))
        grid[name] = panel.values(name, base)
    dims = ["region", *([panel.unit] if panel.unit else [])]
    return {name: array.transpose(*dims).values for name, array in grid.items()}, attributes


def _clusters(panel: Panel) -> list[str]:
    if "cluster" in panel.data.dims:
        return [str(label) for label in panel.data["cluster"].values]
    if "cluster_of" not in panel.data.coords:
        msg = "linkages: got a panel without clusters; expected a column 'cluster'."
        raise PanelError(msg)
    return sorted({str(label) for label in panel.data["cluster_of"].values} - {""})


def _sample(
    spec: ModelSpec, panel: Panel, known: np.ndarray, grid: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, int]]:
    dropped: dict[str, int] = {}
    if spec.growth is not None:
        wanted, seen = spec.growth, ~known
        start, end = panel.period(wanted.from_year), panel.period(wanted.to_year, end=True)
        for period, year in ((start, wanted.from_year), (end, wanted.to_year)):
            values = panel.values(wanted.variable, period).values
            absent = panel.status(wanted.variable, period).values == ABSENT
            for reason, lost in (
                ("absent", absent),
                ("withheld", np.isnan(values) & ~absent),
                ("zero", values == 0.0),
                ("negative", values < 0.0),
            ):
                dropped[f"{wanted.variable} {reason} in {year}"] = int((lost & seen).sum())
                seen = seen & ~lost
    else:
        dropped[f"{spec.parsed_formula.response} unknown"] = int((~known).sum())
    if not known.any():
        msg = "panel: got no row with a known response; expected some. Look at the dropped cells: "
        raise PanelError(msg + listing(f"{k}: {v}" for k, v in dropped.items()))
    candidates = {name: array[known] for name, array in grid.items()}
    if not candidates:
        return np.ones(int(known.sum()), dtype=bool), {k: v for k, v in dropped.items() if v}
    keep, reasons = sample_mask(spec.parsed_formula, candidates, dict(spec.zeros))
    if not keep.any():
        msg = f"sample: got no complete row; lost {listing(f'{v} to {k}' for k, v in reasons.items())}."
        raise PanelError(msg + " Relax the rule that loses most.")
    return keep, {k: v for k, v in (dropped | reasons).items() if v}
