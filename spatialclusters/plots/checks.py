"""What tells whether to believe a fit: predictions against data, and ranks of the draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialclusters.effects import coefficients
from spatialclusters.plots.canvas import COLORS, MUTED, canvas, finish, label_rows, shorten
from spatialclusters.result import Fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "plot_loo_pit",
    "plot_moran",
    "plot_predictive",
    "plot_residual_spread",
    "plot_traces",
]


def plot_residual_spread(
    frame: pd.DataFrame, *, size: str = "size (median of the group)", unit: str = "response"
) -> Figure:
    """Plot the spread of residuals by size over its posterior predictive interval.

    Parameters
    ----------
    frame
        From :func:`spatialclusters.residual_spread`.
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


def plot_predictive(
    frame: pd.DataFrame, *, unit: str = "response", replicated: str = "replicated"
) -> Figure:
    """Plot the distribution of the response over that of replicated responses.

    Parameters
    ----------
    frame
        From :func:`spatialclusters.predictive.predictive_density`.
    unit, replicated
        Of the response, and what to call the replicates.
    """
    middles, edges = (frame["low"] + frame["high"]) / 2, [*frame["low"], frame["high"].iloc[-1]]
    figure, axes = canvas(3.1)
    axes.fill_between(
        middles, frame["ci_low"], frame["ci_high"], color=COLORS[5], alpha=0.5, lw=0.0,
        label=f"{replicated}, 95 % of draws",
    )  # fmt: skip
    axes.plot(middles, frame["replicated"], color=COLORS[0], lw=1.4, label=f"{replicated}, mean")
    look = {"color": COLORS[1], "lw": 1.4, "label": "observed"}
    axes.stairs(frame["observed"], edges, baseline=None, **look)
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("density")
    beyond = int(frame.attrs.get("beyond", 0))
    note = f"; {beyond:,} observed beyond the axis" if beyond else ""
    axes.set_xlabel(shorten(unit, 80) + note)
    return finish(figure)


def plot_loo_pit(frame: pd.DataFrame, *, bins: int = 20) -> Figure:
    """Plot how often responses fall where they are predicted to, each row left out in turn.

    The probability of a smaller response is uniform if predictions are calibrated. A hill means
    that intervals are too wide, a valley that they are too narrow, a slope that they are off center.

    Parameters
    ----------
    frame
        ``pointwise`` of :func:`spatialclusters.marginal_loo` by row.
    bins
        Of equal probability.
    """
    from scipy import stats

    pit = frame["pit"].to_numpy()
    shares = np.histogram(pit, np.linspace(0.0, 1.0, bins + 1))[0] * bins / len(pit)
    low, high = stats.binom(len(pit), 1.0 / bins).ppf([0.025, 0.975]) * bins / len(pit)
    figure, axes = canvas(2.7)
    axes.axhspan(low, high, color=COLORS[5], alpha=0.45, lw=0.0, label="if calibrated, 95 %")
    edges = np.linspace(0.0, 1.0, bins + 1)
    axes.stairs(shares, edges, baseline=None, color=COLORS[1], lw=1.6, label="rows, each left out")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, max(1.6, 1.05 * float(shares.max())))
    axes.set_xlabel("probability of a smaller response, given all other rows")
    axes.set_ylabel("share of rows\n(uniform: 1)")
    return finish(figure)


def plot_moran(frame: pd.DataFrame, *, limit: int = 60) -> Figure:
    """Plot the posterior of Moran's I of residuals over what independent residuals would give.

    Parameters
    ----------
    frame
        From :func:`spatialclusters.residual_moran`.
    limit
        Largest number of lines; those of the smallest and largest ``p_value`` are kept.
    """
    rows = frame.sort_values("p_value", kind="stable")
    omitted = len(rows) - limit
    if omitted > 0:
        rows = pd.concat([rows.iloc[: limit - limit // 4], rows.iloc[-(limit // 4) :]])
    labels = [
        "region effects" if of == "effects" else str(scope)
        for of, scope in zip(rows["of"], rows["scope"], strict=True)
    ]
    at = np.arange(len(rows))
    figure, axes = canvas(1.0 + 0.19 * len(rows))
    axes.hlines(
        at, rows["replicated_low"], rows["replicated_high"], color="#d5dae0", lw=7,
        label="without dependence, 95 %",
    )  # fmt: skip
    axes.hlines(at, rows["ci_low"], rows["ci_high"], color=COLORS[0], lw=1.6)
    sure = ((rows["p_value"] < 0.025) | (rows["p_value"] > 0.975)).to_numpy()
    for these, fill, name in ((sure, COLORS[1], "outside"), (~sure, "white", "inside")):
        if these.any():
            look = {"mfc": fill, "mec": COLORS[1 if name == "outside" else 0], "ms": 5}
            axes.plot(rows["moran"][these], at[these], "o", label=f"posterior, {name}", **look)
    axes.axvline(0.0, color=MUTED, lw=1.0, zorder=0)
    label_rows(axes, [shorten(label) for label in labels])
    note = f"\n{omitted} more between these are left out" if omitted > 0 else ""
    axes.set_xlabel(f"Moran's I{note}")
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
