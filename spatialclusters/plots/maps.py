"""Maps of one number per region."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialclusters.errors import FitError
from spatialclusters.plots.canvas import MUTED, WIDTH, canvas, finish, shorten
from spatialclusters.result import Fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_map"]


def plot_map(fit: Fit, frame: pd.DataFrame) -> Figure:
    """Map one number per region: value as color, precision as hatching.

    Regions whose 95 % interval contains zero are pale and hatched; regions without an
    estimate are gray.

    Parameters
    ----------
    fit
        A fit that holds the geometry of its regions.
    frame
        Tidy estimates with one row per region in ``group``.

    Raises
    ------
    FitError
        The fit has no geometry, or the frame has none of its regions.
    """
    from matplotlib.patches import Patch

    if fit.geometry is None:
        msg = "map: got a fit without geometry; expected polygons. Refit with --regions FILE."
        raise FitError(msg)
    rows = frame.set_index("group").reindex(list(map(str, fit.geometry.index)))
    unknown = rows["estimate"].isna().to_numpy()
    if unknown.all():
        msg = "map: got no estimate for any region of the fit; expected one row per region."
        raise FitError(msg)
    open_sign = ((rows["ci_low"] <= 0) & (rows["ci_high"] >= 0)).to_numpy()
    scale, colors = _map_colors(rows["estimate"], open_sign)
    figure, axes = _map_canvas(fit.geometry)
    for these, hatch in ((~open_sign, None), (open_sign, "////")):
        _draw_regions(axes, fit.geometry[these], colors[these], hatch)
    axes.autoscale_view()
    bar = figure.colorbar(
        scale, ax=axes, orientation="horizontal", shrink=0.6, aspect=35, extend="both"
    )
    bar.set_label(shorten(rows["unit"].dropna().iloc[0], 90))
    bar.outline.set_visible(False)
    keys = [Patch(fc="white", ec=MUTED, hatch="////", label="95 % interval contains zero")]
    if unknown.any():
        keys.append(Patch(fc="#dbdee0", label=f"no estimate ({int(unknown.sum())})"))
    return finish(figure, columns=2, keys=keys)


def _map_colors(values: pd.Series[float], pale: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return the color scale, symmetric around zero, and the color of every region."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bound = float(values.abs().quantile(0.98)) or 1.0
    scale = ScalarMappable(Normalize(-bound, bound), "PuOr_r")
    colors = np.array(scale.to_rgba(values.fillna(0.0).to_numpy()))
    colors[pale, :3] = 0.5 * colors[pale, :3] + 0.5
    colors[values.isna().to_numpy()] = (0.86, 0.87, 0.88, 1.0)
    return scale, colors


def _map_canvas(shapes: Any) -> tuple[Figure, Any]:
    left, bottom, right, top = shapes.total_bounds
    geographic = shapes.crs is None or shapes.crs.is_geographic
    stretch = 1.0 / math.cos(math.radians((bottom + top) / 2)) if geographic else 1.0
    height = WIDTH * stretch * (top - bottom) / max(right - left, 1e-9)
    figure, axes = canvas(min(max(height, 2.5), 7.0) + 1.1)
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
