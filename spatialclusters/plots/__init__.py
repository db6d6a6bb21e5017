"""Figures from results only: a fit or tidy frames in, a matplotlib Figure out.

The object interface keeps everything global as it was. Labels come from data: they are
shortened, and never read as markup.
"""

from spatialclusters.plots.calibration import plot_calibration
from spatialclusters.plots.canvas import printable
from spatialclusters.plots.checks import (
    plot_loo_pit,
    plot_moran,
    plot_predictive,
    plot_residual_spread,
    plot_traces,
)
from spatialclusters.plots.convergence import convergence_paths, plot_convergence_paths
from spatialclusters.plots.intervals import plot_by_group, plot_coefficients, plot_ranks
from spatialclusters.plots.maps import plot_map, plot_weights
from spatialclusters.plots.spillovers import plot_impacts, plot_spillover_decay

__all__ = [
    "convergence_paths",
    "plot_by_group",
    "plot_calibration",
    "plot_coefficients",
    "plot_convergence_paths",
    "plot_impacts",
    "plot_loo_pit",
    "plot_map",
    "plot_moran",
    "plot_predictive",
    "plot_ranks",
    "plot_residual_spread",
    "plot_spillover_decay",
    "plot_traces",
    "plot_weights",
    "printable",
]
