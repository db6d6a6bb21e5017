"""What a covariate does here and elsewhere: impacts, and how they decay with distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialclusters.errors import FitError
from spatialclusters.plots.canvas import COLORS, MUTED, canvas, finish, shorten
from spatialclusters.plots.intervals import plot_coefficients
from spatialclusters.result import Fit
from spatialclusters.spillovers import impacts, impacts_by_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_impacts", "plot_spillover_decay"]

_ENDS = (0.025, 0.5, 0.975)


def plot_impacts(fit: Fit, *, level: str = "row", limit: int = 20) -> Figure:
    """Plot direct, indirect and total impacts of every covariate, with 95 % intervals.

    Parameters
    ----------
    fit
        A fit with lags.
    level
        ``"row"``, a change in one row; or ``"cell"``, in all industries of a region-cluster.
    limit
        Largest number of covariates; the figure says how many more there are.

    Raises
    ------
    FitError
        The model has no lags, or rows that are cells themselves.
    """
    frame = impacts(fit)
    chosen = frame[frame["group"] == level]
    if chosen.empty:
        known = ", ".join(map(repr, frame["group"].unique()))
        msg = f"plot: got level {level!r}; expected one of {known}."
        raise FitError(msg)
    return plot_coefficients(
        chosen.assign(estimator=chosen["effect"], effect="coefficient"), limit=limit
    )


def plot_spillover_decay(fit: Fit, term: str) -> Figure:
    """Plot the impact of a covariate by order of neighbors, and its cumulative share.

    Shares are those of the total impact, medians and 95 % intervals over draws; they are left
    out where the interval of the total contains zero, since they then mean nothing.

    Parameters
    ----------
    fit
        A fit with lags.
    term
        A covariate.

    Raises
    ------
    FitError
        The model has no lags, or no such covariate.
    """
    orders, total = impacts_by_order(fit, term)
    low, _, high = np.quantile(total, _ENDS)
    signed = bool(low > 0.0 or high < 0.0)
    figure, _ = canvas(3.3, empty=True)
    panels = figure.subplots(1, 2 if signed else 1, squeeze=False)[0]
    _by_order(panels[0], orders, orders.mean(axis=(1, 2)), COLORS[0], "impact, 95 % interval")
    panels[0].axhline(0.0, color=MUTED, lw=1.0, zorder=0)
    panels[0].set_ylabel(shorten(fit.design.data.attrs["unit"], 42), fontsize=9)
    panels[0].set_title(shorten(f"one unit more {term}", 50), fontsize=9, loc="left")
    if signed:
        shares = np.cumsum(orders, axis=0) / total
        middle = np.quantile(shares, 0.5, axis=(1, 2))
        _by_order(panels[1], shares, middle, COLORS[1], "cumulative share, 95 % interval")
        panels[1].axhline(1.0, color=MUTED, lw=1.0, zorder=0)
        panels[1].set_ylim(min(0.0, 1.1 * middle.min()), max(1.08, 1.1 * middle.max()))
        panels[1].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        panels[1].set_ylabel("share of the total impact", fontsize=9)
    figure.supxlabel(
        "order of neighbors (0: the row itself, 1: its neighbors, 2: theirs, itself among them)"
        + ("" if signed else "\nno shares: the 95 % interval of the total contains zero"),
        fontsize=9,
    )
    keys = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    return finish(figure, columns=2, keys=keys)


def _by_order(axes: Any, draws: np.ndarray, middle: np.ndarray, color: str, label: str) -> None:
    """Draw a point and a 95 % interval for every order."""
    low, _, high = np.quantile(draws, _ENDS, axis=(1, 2))
    at = np.arange(len(draws))
    axes.vlines(at, low, high, color=color, lw=2.0)
    axes.plot(at, middle, "o-", color=color, ms=5.5, lw=0.8, label=label)
    axes.set_xticks(at)
    axes.set_xlim(-0.4, len(draws) - 0.6)
