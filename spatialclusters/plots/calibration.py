"""Ranks of true values among posterior draws: how far they are from uniform, and how far they may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from spatialclusters.calibration import FAMILY_WISE, Calibration
from spatialclusters.plots.canvas import COLORS, MUTED, canvas, finish, shorten
from spatialclusters.ranks import rank_band, rank_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_calibration"]


def plot_calibration(
    calibration: Calibration,
    *,
    family_wise: float = FAMILY_WISE,
    quantities: int | None = None,
    limit: int = 24,
) -> Figure:
    """Plot the distribution of ranks minus the uniform, with simultaneous bands.

    Above zero on the left and below on the right: draws are spread too narrowly. Above zero
    throughout: draws are too large.

    Parameters
    ----------
    calibration
        From :func:`spatialclusters.calibration.calibrate`.
    family_wise, quantities
        As for :meth:`~spatialclusters.calibration.Calibration.table`.
    limit
        Most quantities to show: those with the smallest p-values if there are more.

    References
    ----------
    Säilynoja, Bürkner & Vehtari (2022), doi:10.1007/s11222-022-10090-6.
    """
    n, draws = len(calibration.ranks), calibration.draws
    level = family_wise / (quantities or len(calibration.p_values))
    band = rank_band(n, draws, level)
    share = np.arange(draws + 2) / (draws + 1)
    # at the ends nothing can differ
    lower, upper = (np.concatenate([[0.0], x / n, [1.0]]) - share for x in band)
    names = list(calibration.p_values)
    if len(names) > limit:
        worst = sorted(names, key=calibration.p_values.__getitem__)[:limit]
        names = [name for name in names if name in worst]
    columns = min(4, len(names))
    lines = math.ceil(len(names) / columns)
    figure, _ = canvas(0.9 + 1.3 * lines, empty=True)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, name in zip(grid.flat, names, strict=False):
        counts = rank_counts(calibration.ranks[name].to_numpy(), draws)
        difference = np.concatenate([[0.0], counts / n, [1.0]]) - share
        outside = calibration.p_values[name] <= level
        axes.fill_between(share, lower, upper, color=MUTED, alpha=0.22, lw=0.0, label="band")
        axes.axhline(0.0, color=MUTED, lw=0.7)
        axes.plot(share, difference, color=COLORS[int(outside)], lw=1.2, label="ranks")
        title = shorten(name, 30)
        axes.set_title(f"{title} (off)" if outside else title, fontsize=7.5, loc="left")
        axes.tick_params(labelsize=7.5)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("rank of the truth among the draws, as a share", fontsize=9)
    figure.supylabel("share of ranks below, minus uniform", fontsize=9)
    return finish(figure, columns=2)
