"""Withheld cells drawn under the growth equation itself: completed panels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.collapsed.problem import why_not_collapsed
from spatialclusters.completion.augmentation import Augmentation, Side, completed_panel
from spatialclusters.completion.columns import row_places
from spatialclusters.completion.totals import read_totals
from spatialclusters.completion.unknowns import withheld_cells
from spatialclusters.errors import PanelError, SpecError
from spatialclusters.panel import Panel
from spatialclusters.parameters import SIZE_GRID
from spatialclusters.rows import choose_rows
from spatialclusters.run import model_linkages
from spatialclusters.spec import ModelSpec
from spatialclusters.weights import Weights, align

__all__ = ["Completed", "complete_panels", "prepare"]

_LOG = logging.getLogger(__name__)
_OPEN: Final = 0.1
"""Share of withheld cells without an upper bound above which their sizes rest on the model."""
_FEWEST: Final = 20
"""Panels below which the variance between them is too poorly known."""


@dataclass(frozen=True, eq=False)
class Completed:
    """Panels in which the withheld cells hold draws from their posterior.

    Attributes
    ----------
    panels
        m panels, as far apart in the chain as ``record`` says.
    trace
        One row per iteration: coefficients and scales of both equations, ``coefficient NAME``,
        ``sigma``, and ``level sigma``.
    record
        Counts, seed and settings, and the fewest effective draws of anything in the trace.
    """

    panels: tuple[Panel, ...]
    trace: pd.DataFrame
    record: dict[str, Any]


def complete_panels(
    spec: ModelSpec,
    panel: Panel,
    weights: Weights | None = None,
    *,
    seed: int,
    m: int = 20,
    linkages: str | Path | pd.DataFrame | xr.DataArray | None = None,
    totals: Sequence[pd.DataFrame] = (),
    totals_sd: float = 0.01,
    predictors: Sequence[str] = (),
    floor: float = 1.0,
    ceiling: float = np.inf,
    burn: int = 300,
    thin: int = 20,
    progress: bool = True,
) -> Completed:
    r"""Draw the withheld cells of both years from their posterior under the model of growth.

    Data augmentation: given the cells, the parameters of the growth equation

    .. math:: \log E_1 - \log E_0 = T^* (\alpha + x(E_0)'\beta + z'b + \varepsilon)

    (:math:`T^*` is T if the response is annualized, else 1) and of the equation of base levels

    .. math:: \log E_0 = \mu + w'\gamma + a_r + b_i + c_{rc} + \eta

    are drawn by the collapsed sampler; given the parameters, all unknown cells are drawn
    together by NUTS from both equations, their bounds and the totals that they add up to. A cell
    enters its own growth, its own convergence term, and the strength of clusters around it, in
    linked clusters and next door.

    Given its bounds, the totals, the predictors, the other cells and the model, whether a cell is
    withheld must not depend on its size (the cells are missing at random). Where small cells are
    withheld and nothing bounds them, draws are as large as what is published, and estimates
    biased: bounds, a ``ceiling`` or predictors such as establishments have to carry that.

    Noise by size depends on a cell's own drawn level through 32 classes, equally wide on the log
    scale, relative to a size that ``record`` states; fits of the panels have the same.

    Draws that ignored the growth equation would regress to its
    mean: they manufacture convergence and dilute the effects of clusters.

    Parameters
    ----------
    spec
        A model of growth with Gaussian noise and no process of the outcome. What its table
        ``[cells]`` says of withheld cells does not matter here; absent ones must count as zero.
    panel
        With bounds in the columns ``<variable>_lower`` and ``<variable>_upper``; without them a
        withheld cell may be of any size above ``floor``.
    weights, linkages
        As for :func:`spatialclusters.fit`.
    seed
        Same panels on the same machine and versions.
    m
        Number of panels, at least 20.
    totals
        Tables of published totals: ``year``, some of ``region``, ``industry`` and ``cluster``, and
        the variable, its sum over all cells of these keys that have a row.
    totals_sd
        Standard deviation of the log of a total around the sum of its cells: noise that the
        agency adds.
    predictors
        Variables known in every cell of the base year, whose logs predict its level: for example
        ``establishments``.
    floor
        Least number of employees in a withheld cell.
    ceiling
        Most employees in a withheld cell without an upper bound: the size from which the agency
        publishes, if it does so by size.
    burn, thin
        Iterations before the first panel, and between two.
    progress
        Show progress on stderr.

    Returns
    -------
    Completed

    Raises
    ------
    SpecError
        The model is not one of growth, or cannot be collapsed, or its outcome has a process.
    PanelError
        Nothing is withheld, or bounds or totals contradict each other.

    References
    ----------
    Tanner and Wong (1987), doi:10.1080/01621459.1987.10478458, on data augmentation; Rubin (1976),
    doi:10.1093/biomet/63.3.581, on when it may be ignored why data are missing; Rubin (1987),
    doi:10.1002/9780470316696, on several imputations and their pooling; Meng (1994),
    doi:10.1214/ss/1177010269, on imputations that know less than the analysis.

    Examples
    --------
    ``examples/04_withheld_cells.py`` withholds 60 % of a simulated economy.
    """
    _refuse(spec, m=m, burn=burn, thin=thin)
    aligned = None if weights is None else align(weights, panel.regions)
    matrix = model_linkages(spec, panel, linkages)
    start, end = prepare(spec, panel, aligned, matrix, totals, floor, ceiling)
    unknown_open = sum(int(np.isinf(side.cells.width).sum()) for side in (start, end))
    if not predictors and unknown_open > _OPEN * (start.cells.size + end.cells.size):
        _LOG.warning(
            "completed panels: got %d withheld cells without an upper bound, and no predictors: they are "
            "drawn as large as published ones. If small cells are withheld, estimates are biased: give "
            "bounds, predictors or a ceiling.", unknown_open,
        )  # fmt: skip
    for side in (start, end):
        side.totals.refuse_contradictions(side.cells, totals_sd)
    chain = Augmentation.build(
        spec, panel, aligned, matrix, (start, end),
        totals_sd=totals_sd, predictors=predictors, tune=burn, seed=seed,
    )  # fmt: skip
    panels: list[Panel] = []
    trace: list[dict[str, float]] = []
    for iteration, x, row in chain.run(burn + thin * (m - 1) + 1, seed, progress=progress):
        trace.append(row)
        if iteration >= burn and (iteration - burn) % thin == 0:
            panels.append(
                completed_panel(spec, panel, (start, end), x, number=len(panels) + 1, m=m)
            )
    frame = pd.DataFrame(trace).rename_axis("iteration")
    effective = _fewest_effective(frame.iloc[burn:])
    record = {
        "m": m, "burn": burn, "thin": thin, "seed": seed, "floor": floor,
        "ceiling": ceiling if np.isfinite(ceiling) else None, "unknown_open": unknown_open,
        "unknown_start": start.cells.size, "unknown_end": end.cells.size,
        "totals": len(start.totals.logs) + len(end.totals.logs), "totals_sd": totals_sd,
        "predictors": list(predictors), "effective_draws": effective,
        # defaults that depend on the data, resolved once: fits of the panels have the same
        "priors": {name: prior.model_dump() for name, prior in chain.growth.spec.priors.items()},
        "size_grid": chain.growth.design.data.attrs[SIZE_GRID].tolist(),
    }  # fmt: skip
    if effective < m:
        _LOG.warning(
            "completed panels: got %.0f effective draws for %d panels; raise thin (now %d) or burn.",
            effective, m, thin,
        )  # fmt: skip
    return Completed(tuple(panels), frame, record)


def _refuse(spec: ModelSpec, *, m: int, burn: int, thin: int) -> None:
    reason = why_not_collapsed(spec)
    if spec.growth is None or reason is not None or spec.spatial.outcome != "none":
        got = "no [growth] table" if spec.growth is None else reason
        got = got or f"spatial.outcome = {spec.spatial.outcome!r}"
        msg = f"completed panels: got {got}; expected a model of growth with Gaussian noise and outcome 'none'."
        raise SpecError(msg)
    if spec.cells is not None and spec.cells.absent != "zero":
        msg = "completed panels: got [cells] absent = 'withheld'; expected 'zero': a cell without a row has no bounds."
        raise SpecError(msg)
    if m < _FEWEST or burn < 1 or thin < 1:
        msg = f"completed panels: got m = {m}, burn = {burn}, thin = {thin}; expected m of at least {_FEWEST}, and 1."
        raise SpecError(msg)


def prepare(
    spec: ModelSpec,
    panel: Panel,
    weights: Weights | None,
    linkages: xr.DataArray | None,
    tables: Sequence[pd.DataFrame],
    floor: float,
    ceiling: float = np.inf,
) -> tuple[Side, Side]:
    """Find what is unknown at both ends, and informed by something.

    Every cell of the base year has a row in the equation of levels. At the end the cells of rows
    have their growth and those of totals their sum; nothing informs the others, which stay
    withheld.

    Raises
    ------
    PanelError
        Nothing is unknown.
    """
    growth = spec.growth
    assert growth is not None  # refused before
    periods = panel.period(growth.from_year), panel.period(growth.to_year, end=True)
    if None in periods:
        msg = f"panel: got no years; expected {growth.from_year} and {growth.to_year}."
        raise PanelError(msg)
    base = panel.values(growth.variable, periods[0]).transpose("region", str(panel.unit)).values
    sides = []
    for period, year in zip(periods, (growth.from_year, growth.to_year), strict=True):
        sums = read_totals(tables, panel, growth.variable, str(period), year)
        # an end without a positive start is no growth: it matters in sums that include it alone
        wanted = (base != 0.0) | sums.covers(base.shape) | (period == periods[0])
        cells = withheld_cells(
            panel, growth.variable, period, floor=floor, wanted=wanted, ceiling=ceiling
        )
        sides.append(Side(str(period), cells, sums))
    start, end = sides
    # which cells become rows does not depend on what the unknown ones hold
    filled = (start.cells.middle, end.cells.middle)
    whole = completed_panel(spec, panel, (start, end), filled, number=0, m=0)
    rows = choose_rows(spec, whole, weights, linkages)
    informed = end.totals.covers(end.cells.known.shape)
    informed[row_places(panel, rows)] = True
    end = replace(end, cells=end.cells.within(informed))
    start, end = (replace(side, totals=side.totals.within(side.cells)) for side in (start, end))
    if not start.cells.size and not end.cells.size:
        msg = f"panel: got no withheld cell of {growth.variable!r}; expected some. Fit the panel as it is."
        raise PanelError(msg)
    return start, end


def _fewest_effective(trace: pd.DataFrame) -> float:
    """Return the fewest effective draws of any column; 0 if those of one are not known."""
    from arviz_stats.base import array_stats

    halves = [
        column.to_numpy()[: 2 * (len(trace) // 2)].reshape(2, -1) for _, column in trace.items()
    ]
    found = [float(array_stats.ess(half, method="bulk")) for half in halves]
    return float(np.nan_to_num(found, nan=0.0).min())
