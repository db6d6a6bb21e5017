"""What tells whether to believe a fit: predictions against data, and ranks of the draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialclusters.effects import coefficients
from spatialclusters.plots.canvas import COLORS, MUTED, canvas, finish, shorten
from spatialclusters.result import Fit
from spatialclusters.simulation import posterior_predictive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_predictive", "plot_residual_spread", "plot_traces"]


def plot_residual_spread(
    frame: pd.DataFrame, *, size: str = "size (median of the group)", unit: str = "response"
) -> Figure:
    """Plot the spread of residuals by size over its posterior predictive interval.

    Parameters
    ----------
    frame
        From :func:`spatialclusters.diagnostics.residual_spread`.
    size, unit
        What size is, and the unit of the response, for the axes.
    """
    figure, axes = canvas(3.4)
    x, wide = frame["size"], {"color": COLORS[5], "lw": 7, "alpha": 0.6}
    axes.vlines(x, frame["ci_low"], frame["ci_high"], label="predicted, 95 % interval", **wide)
    axes.plot(x, frame["predicted"], "_", color=COLORS[0], ms=9, label="predicted, mean")
    axes.plot(x, frame["observed"], "D", color=COLORS[1], ms=5, label="observed")
    if x.min() > 0 and x.max() > 10 * x.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axes.xaxis.set_minor_formatter(lambda _value, _position: "")
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel(shorten(size, 80))
    axes.set_ylabel(f"standard deviation of residuals\n({shorten(unit)})")
    return finish(figure)


def plot_predictive(fit: Fit, *, draws: int = 60, seed: int = 1, bins: int = 50) -> Figure:
    """Plot the distribution of the response over that of replicated responses."""
    observed = fit.design.y
    replicated = posterior_predictive(fit, draws=draws, seed=seed)
    low, high = np.quantile(observed, [0.002, 0.998])
    edges = np.linspace(low, high, min(bins, max(8, len(observed) // 4)) + 1)
    width = float(edges[1] - edges[0]) * len(observed)
    density = np.stack([np.histogram(each, edges)[0] for each in replicated]) / width
    band, middles = np.quantile(density, [0.025, 0.975], axis=0), (edges[:-1] + edges[1:]) / 2
    figure, axes = canvas(3.2)
    area = {"alpha": 0.5, "lw": 0.0}
    axes.fill_between(middles, *band, color=COLORS[5], label="replicated, 95 % of draws", **area)
    axes.plot(middles, density.mean(axis=0), color=COLORS[0], lw=1.4, label="replicated, mean")
    seen = np.histogram(observed, edges)[0] / width
    axes.stairs(seen, edges, baseline=None, color=COLORS[1], lw=1.4, label="observed")
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("density")
    outside = int(((observed < low) | (observed > high)).sum())
    note = f"; {outside} observed beyond the axis" if outside else ""
    axes.set_xlabel(shorten(fit.design.data.attrs["unit"], 80) + note)
    return finish(figure)


def plot_traces(fit: Fit, *, limit: int = 24, bins: int = 20) -> Figure:
    """Plot ranks of the draws by chain: level lines where chains agree.

    Shows coefficients and hyperparameters, those with the largest R-hat if there are
    more than ``limit``.

    References
    ----------
    Vehtari et al. (2021), doi:10.1214/20-BA1221.
    """
    from scipy.stats import rankdata

    panels = _hyperparameters(fit)
    if len(panels) > limit:  # the frame has the same quantities in the same order
        worst = np.argsort(-coefficients(fit)["r_hat"].fillna(0.0).to_numpy(), kind="stable")
        panels = [panels[i] for i in sorted(worst[:limit])]
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    edges, highest = np.linspace(0.0, 1.0, bins + 1), 1.9
    figure, _ = canvas(0.8 + 1.35 * lines, empty=True)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (name, draws) in zip(grid.flat, panels, strict=False):
        axes.axhline(1.0, color=MUTED, lw=0.8)
        for chain, ranks in enumerate(rankdata(draws).reshape(draws.shape) / draws.size):
            share = np.histogram(ranks, edges)[0] * bins / len(ranks)
            highest = max(highest, float(share.max()))
            look = {"color": COLORS[chain % 7], "label": f"chain {chain + 1}", "lw": 1.1}
            axes.stairs(share, edges, baseline=None, **look)
        axes.set_title(shorten(name, 36), fontsize=8.5, loc="left")
        axes.tick_params(labelsize=8)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    grid[0, 0].set_ylim(0.0, 1.05 * highest)
    figure.supxlabel("rank of the draw among all chains, as a share", fontsize=9)
    figure.supylabel("share of draws, relative to uniform", fontsize=9)
    return finish(figure, columns=8)


def _hyperparameters(fit: Fit) -> list[tuple[str, np.ndarray]]:
    """Return name and draws (chain, draw) of every quantity that is not a group effect."""
    panels, posterior = [], fit.posterior
    named = [str(name) for name in posterior.data_vars if not str(name).startswith("effect(")]
    first = ("intercept", "coefficient")
    for name in sorted(named, key=lambda name: (name not in first, name != "intercept")):
        draws = fit.draws(name)
        labels = [""] if draws.ndim == 2 else posterior[posterior[name].dims[2]].values
        for i, label in enumerate(labels):
            own = str(label) if name == "coefficient" else f"{name}: {label}" if label else name
            panels.append((own, draws if draws.ndim == 2 else draws[..., i]))
    return panels
