"""Figure -> an image inside the page: the same bytes for the same figure."""

from __future__ import annotations

import base64
import io
import warnings
from typing import TYPE_CHECKING, Final

from spatialclusters.reporting.blocks import Picture
from spatialclusters.reporting.values import Shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["picture"]

# the reader's own fonts, also for scripts that matplotlib's fonts lack
_FONTS: Final = "system-ui, 'Segoe UI', 'Noto Sans', 'Noto Sans CJK SC', 'DejaVu Sans', sans-serif"
_STYLE: Final = f"<style>text {{ font-family: {_FONTS} !important; }}</style>"
_NO_METADATA: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_PIXELS_PER_INCH: Final = 96


def picture(
    figure: Figure,
    alt: Shown,
    caption: Shown,
    *,
    data: pd.DataFrame | None = None,
    raster: bool = False,
) -> Picture:
    """Render a figure as SVG, or as PNG where paths would be large (maps).

    Text stays text in SVG, so that the reader's fonts show it. An image cannot run
    anything, and its ids are its own. ``data`` is what the figure draws.
    """
    kind = "png" if raster else "svg+xml"
    content = base64.b64encode(_png(figure) if raster else _svg(figure)).decode("ascii")
    width = round(figure.get_figwidth() * _PIXELS_PER_INCH)
    return Picture(f"data:image/{kind};base64,{content}", alt, caption, width, data)


def _svg(figure: Figure) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    settings = {"svg.hashsalt": "spatialclusters", "svg.fonttype": "none"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        _allow_missing_glyphs()
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index(b"<svg") :]  # the prolog names an address of the DTD
    return drawing.replace(b"<defs>", _STYLE.encode() + b"<defs>", 1)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        _allow_missing_glyphs()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _allow_missing_glyphs() -> None:
    """Say nothing where no installed font has a character: the reader's may."""
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
    warnings.filterwarnings("ignore", r"Matplotlib currently does not support", UserWarning)
