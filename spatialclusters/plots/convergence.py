"""How fast a gap closes: paths over the years."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialclusters.errors import FitError
from spatialclusters.plots.canvas import COLORS, MUTED, canvas, finish, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["convergence_paths", "plot_convergence_paths"]

_MOST: float = 1.5  # of the gap at the start, where the axis ends


def convergence_paths(frame: pd.DataFrame, *, years: float = 50.0, steps: int = 51) -> pd.DataFrame:
    r"""Return what is left of a gap over the years, :math:`e^{-s t}` at the speed s.

    Quantiles of the speed are those of what is left, which falls with it.

    Parameters
    ----------
    frame
        From :func:`spatialclusters.convergence`.
    years, steps
        How far to look, and at how many times.

    Returns
    -------
    pandas.DataFrame
        ``group, year, left, ci_low, ci_high``: shares of the gap, medians and 95 % intervals.

    Examples
    --------
    >>> speeds = pd.DataFrame({"effect": ["speed"], "group": ["overall"], "estimate": [0.02],
    ...                        "ci_low": [0.01], "ci_high": [0.03]})
    >>> convergence_paths(speeds, years=10.0, steps=2).round(3).values.tolist()
    [['overall', 0.0, 1.0, 1.0, 1.0], ['overall', 10.0, 0.819, 0.741, 0.905]]
    """
    times = np.linspace(0.0, years, steps)
    parts = []
    for row in frame[frame["effect"] == "speed"].to_dict("records"):
        ends = {"left": "estimate", "ci_low": "ci_high", "ci_high": "ci_low"}
        with np.errstate(invalid="ignore"):  # at an infinite speed nothing is left but at once
            left = {
                name: np.where(times == 0.0, 1.0, np.exp(-row[speed] * times))
                for name, speed in ends.items()
            }
        parts.append(pd.DataFrame({"group": str(row["group"]), "year": times} | left))
    return pd.concat(parts, ignore_index=True)


def plot_convergence_paths(frame: pd.DataFrame) -> Figure:
    """Plot what is left of a gap over the years: overall, and the fastest and slowest group.

    Parameters
    ----------
    frame
        From :func:`convergence_paths`.

    Raises
    ------
    FitError
        The frame has no path of ``overall``.
    """
    paths = {str(name): part for name, part in frame.groupby("group", sort=False)}
    if "overall" not in paths:
        raise FitError("plot: got no path of 'overall'; expected those of a convergence frame.")
    levels = {name: float(part["left"].iloc[-1]) for name, part in paths.items()}
    levels = {name: left for name, left in levels.items() if name not in ("overall", "common")}
    shown = ["overall", *(["common"] if "common" in paths else [])]
    if len(levels) > 1:
        shown += [min(levels, key=levels.__getitem__), max(levels, key=levels.__getitem__)]
    figure, axes = canvas(3.1)
    named = {"overall": "overall, 95 % interval", "common": "if all are higher"}
    for k, name in enumerate(shown):
        part, color = paths[name], COLORS[(0, 2, 1, 3)[k]]
        kind = (
            ""
            if name in named or k < len(shown) - 2
            else ("fastest: ", "slowest: ")[k - len(shown)]
        )
        label = named.get(name, shorten(f"{kind}{name}"))
        axes.plot(
            part["year"], part["left"], color=color, lw=1.8, label=label, ls="-" if k == 0 else "--"
        )
        axes.fill_between(
            part["year"],
            part["ci_low"],
            part["ci_high"],
            color=color,
            alpha=0.22 if k == 0 else 0.1,
            lw=0.0,
        )
    axes.axhline(0.5, color=MUTED, lw=0.9, ls=":")
    axes.annotate("half", (frame["year"].max(), 0.5), xytext=(-3, 3), textcoords="offset points",
                  ha="right", fontsize=8.5)  # fmt: skip
    axes.set_xlim(0.0, frame["year"].max())
    axes.set_ylim(0.0, min(_MOST, max(1.04, 1.05 * frame["ci_high"].max())))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_xlabel("years")
    axes.set_ylabel("of the gap that is left")
    return finish(figure, columns=4)
