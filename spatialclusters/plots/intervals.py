"""Estimates with their intervals: coefficients side by side, and one effect by group."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialclusters.comparison import Result
from spatialclusters.effects import coefficients
from spatialclusters.errors import FitError
from spatialclusters.plots.canvas import COLORS, MUTED, canvas, finish, label_rows, shorten
from spatialclusters.result import Fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_by_group", "plot_coefficients", "plot_ranks"]

_MARKERS = "osD^vPX"
_SPARED = 8  # levels that are shown beyond a limit, rather than a line that says so


def plot_coefficients(*results: Result | pd.DataFrame, limit: int = 40) -> Figure:
    """Plot coefficients of several estimators side by side, with 95 % intervals.

    Parameters
    ----------
    results
        Fits, frequentist results of any kind, or tidy estimates; rows with effect ``coefficient``
        are shown, intercepts are not.
    limit
        Largest number of terms; the figure says how many more there are.

    Raises
    ------
    FitError
        There is no coefficient to show.
    """
    frames = [coefficients(each) if isinstance(each, Fit) else each for each in results]
    tables = [getattr(frame, "estimates", frame) for frame in frames]
    table = pd.concat(tables, ignore_index=True)
    table = table[(table["effect"] == "coefficient") & np.isfinite(table["estimate"])]
    table = table[~table["term"].str.startswith("intercept")]
    terms, names = (list(dict.fromkeys(table[column])) for column in ("term", "estimator"))
    if not terms:
        msg = "plot: got no coefficient; expected one or more covariates in the model."
        raise FitError(msg)
    shown, step = terms[:limit], min(0.8 / len(names), 0.22)
    figure, axes = canvas(0.95 + len(shown) * max(0.34, 0.19 * len(names)))
    for k, name in enumerate(names):
        rows = table[(table["estimator"] == name) & table["term"].isin(shown)]
        heights = rows["term"].map(shown.index) + (k - (len(names) - 1) / 2) * step
        look = {"color": COLORS[k % 7], "label": shorten(name)}
        fill = {"mfc": "white"} if k // 7 % 2 else {}  # open markers, where colors come again
        axes.plot(rows["estimate"], heights, _MARKERS[k % 7], ms=5, **look, **fill)
        axes.hlines(heights, rows["ci_low"], rows["ci_high"], lw=1.6, color=look["color"])
    label_rows(axes, [shorten(term) for term in shown])
    axes.axvline(0.0, color=MUTED, lw=1.0, zorder=0)
    left_out = f"\n{len(terms) - limit} more terms are left out" if len(terms) > limit else ""
    units = list(dict.fromkeys(table["unit"].dropna()))
    axes.set_xlabel((shorten(units[0], 90) if len(units) == 1 else "coefficient") + left_out)
    return finish(figure)


def plot_by_group(
    frame: pd.DataFrame, effect: str, *, term: str | None = None, limit: int = 60
) -> Figure:
    """Plot one effect by group, sorted, over the band of the overall estimate.

    Parameters
    ----------
    frame
        From ``convergence``, ``specialization`` or ``group_effects``.
    effect, term
        Which rows, by their columns ``effect`` and, where there are several, ``term``.
    limit
        Largest number of groups; beyond it only the lowest and highest are
        shown, and the figure says how many are left out between them.

    Raises
    ------
    FitError
        The frame has no group with a finite estimate of this effect.
    """
    chosen = frame[(frame["effect"] == effect) & np.isfinite(frame["estimate"])]
    chosen = chosen if term is None else chosen[chosen["term"] == term]
    overall = chosen[chosen["group"] == "overall"]
    levels = chosen[~chosen["group"].isin(("overall", "common"))]
    levels = levels.sort_values("estimate", ascending=False)
    if levels.empty:
        msg = f"plot: got no group with a finite {effect}; expected some. Plot the coefficients."
        raise FitError(msg)
    levels, position, labels = _capped(levels, limit)
    figure, axes = canvas(1.0 + 0.19 * len(labels))
    low, high = _span(pd.concat([levels, overall]))
    for row in overall.itertuples():
        edges = np.clip([row.ci_low, row.ci_high], low, high)
        axes.axvspan(*edges, color="#f4d999", lw=0.0, label="overall, 95 % interval")
        axes.axvline(row.estimate, color="#8a5a00", lw=1.2, label="overall")
    _mark(axes, levels, position, (low, high))
    if low <= 0.0 <= high:
        axes.axvline(0.0, color=MUTED, lw=1.0, zorder=0)
    axes.set_xlim(low, high)
    label_rows(axes, labels)
    name = "effect" if effect == "coefficient" else effect.replace("_", " ")
    axes.set_xlabel(f"{name}, {shorten(levels['unit'].iloc[0], 80)}")
    return finish(figure, columns=2)


def plot_ranks(frame: pd.DataFrame, *, limit: int = 60) -> Figure:
    """Plot the posterior of every level's rank: mean and 95 % interval, first on top.

    Parameters
    ----------
    frame
        From :func:`spatialclusters.rank_levels`.
    limit
        Largest number of levels; beyond it only the first and last are shown.

    Raises
    ------
    FitError
        There is no level.
    """
    if frame.empty:
        raise FitError("plot: got no ranks; expected those of one or more levels. Give a group.")
    rows, position, labels = _capped(frame.sort_values("rank", kind="stable"), limit)
    figure, axes = canvas(1.0 + 0.19 * len(labels))
    axes.hlines(position, rows["ci_low"], rows["ci_high"], color=COLORS[0], lw=1.4)
    axes.plot(
        rows["rank"], position, "o", color=COLORS[0], ms=4.5, label="mean rank, 95 % interval"
    )
    top = float(frame["top"].iloc[0])
    axes.axvline(top + 0.5, color=COLORS[1], lw=1.0, ls="--", label=f"the first {top:g}")
    axes.set_xlim(0.0, len(frame) + 1.0)
    label_rows(axes, labels)
    axes.set_xlabel(f"rank among {len(frame)}")
    return finish(figure, columns=2)


def _mark(axes: Any, levels: pd.DataFrame, position: np.ndarray, span: tuple[float, float]) -> None:
    """Draw intervals, with filled markers where they exclude zero and open ones elsewhere."""
    ends = levels["ci_low"].clip(*span), levels["ci_high"].clip(*span)
    axes.hlines(position, *ends, color=COLORS[0], lw=1.4)
    sure = ((levels["ci_low"] > 0) | (levels["ci_high"] < 0)).to_numpy()
    for these, fill, name in ((sure, COLORS[0], "excludes"), (~sure, "white", "contains")):
        if these.any():
            look = {"mfc": fill, "mec": COLORS[0], "label": f"95 % interval {name} zero"}
            axes.plot(levels["estimate"][these], position[these], "o", ms=4.5, **look)


def _capped(levels: pd.DataFrame, limit: int) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """Keep the highest and lowest levels, with a line for those left out between them."""
    labels, omitted = [shorten(group) for group in levels["group"]], len(levels) - limit
    if omitted <= _SPARED:
        return levels, np.arange(len(levels), dtype=float), labels
    top = math.ceil(limit / 2)
    labels = [*labels[:top], f"… {omitted} more between …", *labels[top + omitted :]]
    kept = pd.concat([levels.iloc[:top], levels.iloc[top + omitted :]])
    return kept, np.delete(np.arange(limit + 1.0), top), labels


def _span(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold every finite interval end, with a margin."""
    ends = rows[["estimate", "ci_low", "ci_high"]].to_numpy(dtype=float)
    ends = ends[np.isfinite(ends)]
    margin = 0.04 * (np.ptp(ends) or 1.0)
    return float(ends.min() - margin), float(ends.max() + margin)
