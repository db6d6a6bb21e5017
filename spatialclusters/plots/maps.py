"""Maps of one number per region."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from spatialclusters.errors import FitError, listing
from spatialclusters.plots.canvas import COLORS, MUTED, WIDTH, canvas, finish, shorten
from spatialclusters.result import Fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_map", "plot_weights"]

_GRADES: Final = ((0.975, 1.0, None), (0.8, 0.55, None), (0.0, 0.22, "////"))
"""Least probability of the sign, strength of the color, and hatching."""


def plot_map(fit: Fit, frame: pd.DataFrame) -> Figure:
    """Map one number per region: value as color, its certainty as strength of the color.

    Full colors are regions whose sign has a probability of at least 0.975, weaker ones at least
    0.8; below that they are pale and hatched. Regions without an estimate are gray.

    Parameters
    ----------
    fit
        A fit that holds the geometry of its regions.
    frame
        Tidy estimates with one row per region in ``group``.

    Raises
    ------
    FitError
        The fit has no geometry, or the frame has none of its regions, or several rows of one.
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    rows, shapes = _with_shapes(fit, frame)
    unknown = rows["estimate"].isna().to_numpy()
    sign = rows["prob_positive"].fillna(0.5).to_numpy()
    grade = np.searchsorted([-each[0] for each in _GRADES], -np.maximum(sign, 1.0 - sign))
    scale, colors = _map_colors(rows["estimate"], np.array([each[1] for each in _GRADES])[grade])
    figure, axes = _map_canvas(shapes)
    for k, (_, _, hatch) in enumerate(_GRADES):
        _draw_regions(axes, shapes[grade == k], colors[grade == k], hatch)
    axes.autoscale_view()
    bar = figure.colorbar(
        scale, ax=axes, orientation="horizontal", shrink=0.55, aspect=38, extend="both", pad=0.02
    )
    bar.set_label(shorten(rows["unit"].dropna().iloc[0], 90))
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(6)
    bar.update_ticks()
    texts = ("sign with probability 0.975 or more", "0.8 or more", "less: sign not known")
    keys = [
        Patch(fc=str(1.0 - 0.7 * strength), ec=MUTED, lw=0.4, hatch=hatch, label=text)
        for (_, strength, hatch), text in zip(_GRADES, texts, strict=True)
    ]
    if unknown.any():
        keys.append(Patch(fc="#dbdee0", label=f"no estimate ({int(unknown.sum())})"))
    return finish(figure, columns=4, keys=keys)


def plot_weights(fit: Fit) -> Figure:
    """Map the links between regions, and the regions that have none.

    Parameters
    ----------
    fit
        A fit with weights that holds the geometry of its regions.

    Raises
    ------
    FitError
        The fit has no geometry, or no weights.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    if fit.geometry is None or fit.weights is None:
        msg = "map of weights: got a fit without polygons or without weights; expected both."
        raise FitError(f"{msg} Refit with --regions FILE and --weights.")
    order = {str(region): i for i, region in enumerate(fit.geometry.index)}
    points = fit.geometry.representative_point()
    at = np.column_stack([points.x, points.y])
    W = fit.weights.matrix.tocoo()
    place = np.array([order.get(region, -1) for region in fit.weights.regions])
    ends = np.column_stack([place[W.row], place[W.col]])
    ends = np.unique(np.sort(ends[(ends >= 0).all(axis=1)], axis=1), axis=0)
    figure, axes = _map_canvas(fit.geometry, tallest=4.2)
    plain = np.tile((0.95, 0.96, 0.97, 1.0), (len(fit.geometry), 1))
    _draw_regions(axes, fit.geometry, plain, None)
    axes.add_collection(LineCollection(at[ends], colors=COLORS[0], linewidths=0.7, alpha=0.8))
    alone = place[np.diff(fit.weights.matrix.tocsr().indptr) == 0]
    alone = alone[alone >= 0]
    axes.plot(*at.T, "o", color=COLORS[0], ms=1.8)
    axes.plot(*at[alone].T, "s", color=COLORS[1], ms=5)
    axes.autoscale_view()
    keys = [Line2D([], [], color=COLORS[0], lw=1.2, label=f"neighbors ({len(ends):,} pairs)")]
    if len(alone):
        text = f"without neighbors ({len(alone)})"
        keys.append(Line2D([], [], color=COLORS[1], marker="s", ls="", ms=5, label=text))
    return finish(figure, columns=2, keys=keys)


def _with_shapes(fit: Fit, frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """Return the rows of a frame in the order of the regions' shapes, and these."""
    if fit.geometry is None:
        msg = "map: got a fit without geometry; expected polygons. Refit with --regions FILE."
        raise FitError(msg)
    regions = list(map(str, fit.geometry.index))
    found = frame[frame["group"].isin(regions)].set_index("group")
    if found.index.has_duplicates:
        kinds = listing(f"{effect} of {term}" for effect, term in
                        found[["effect", "term"]].drop_duplicates().itertuples(index=False))  # fmt: skip
        msg = (
            f"map: got several rows a region ({kinds}); expected one. Choose an effect and a term."
        )
        raise FitError(msg)
    rows = found.reindex(regions)
    if rows["estimate"].isna().all():
        msg = "map: got no estimate for any region of the fit; expected one row per region."
        raise FitError(msg)
    return rows, fit.geometry


def _map_colors(values: pd.Series[float], strength: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return the color scale, symmetric around zero, and the color of every region."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    # without the ends, which are nearly black on both sides
    ramp = LinearSegmentedColormap.from_list("ends", colormaps["PuOr_r"](np.linspace(0.1, 0.9, 65)))
    bound = float(values.abs().quantile(0.98)) or 1.0
    scale = ScalarMappable(Normalize(-bound, bound), ramp)
    colors = np.array(scale.to_rgba(values.fillna(0.0).to_numpy()))
    colors[:, :3] = 1.0 - strength[:, None] * (1.0 - colors[:, :3])
    colors[values.isna().to_numpy()] = (0.86, 0.87, 0.88, 1.0)
    return scale, colors


def _map_canvas(shapes: Any, tallest: float = 6.4) -> tuple[Figure, Any]:
    left, bottom, right, top = shapes.total_bounds
    geographic = shapes.crs is None or shapes.crs.is_geographic
    stretch = 1.0 / math.cos(math.radians((bottom + top) / 2)) if geographic else 1.0
    height = WIDTH * stretch * (top - bottom) / max(right - left, 1e-9)
    figure, axes = canvas(min(max(height, 2.5), tallest) + 0.9)
    axes.set_aspect(stretch)
    axes.set_axis_off()
    return figure, axes


def _draw_regions(axes: Any, shapes: Any, colors: np.ndarray, hatch: str | None) -> None:
    """Add polygons, and disks for points, with one color each."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path as Outline
    from shapely.geometry.polygon import orient

    radius = 0.012 * float(np.ptp(shapes.total_bounds[[0, 2]])) if len(shapes) else 0.0
    paths, faces = [], []
    for shape, color in zip(shapes, colors, strict=True):
        for part in [] if shape is None else getattr(shape, "geoms", [shape]):
            polygon = part if part.geom_type == "Polygon" else part.buffer(radius or 1.0)
            if not polygon.is_empty:
                rings = orient(polygon)  # holes run the other way round
                outline = (Outline(ring.coords) for ring in (rings.exterior, *rings.interiors))
                paths.append(Outline.make_compound_path(*outline))
                faces.append(color)
    look: dict[str, Any] = {"edgecolors": "#8b939b", "linewidths": 0.4, "hatch": hatch}
    drawn = PathCollection(paths, facecolors=np.array(faces).reshape(-1, 4), **look)
    drawn.set_hatch_linewidth(0.5)
    axes.add_collection(drawn)
