"""The common look of all figures, and labels that come from data."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLORS", "MUTED", "WIDTH", "canvas", "finish", "label_rows", "printable", "shorten"]

# Okabe and Ito (2008): told apart with any color vision
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, MUTED, FAINT = "#1f2429", "#59636e", "#d5dae0"
WIDTH: Final = 8.6  # inches
_CJK: Final = ("Noto Sans CJK", "Source Han Sans", "WenQuanYi", "PingFang", "YaHei", "SimHei")
_JOINERS: Final = frozenset(
    "\u200c\u200d"
)  # invisible, but scripts and emoji are written with them


def printable(text: object) -> str:
    r"""Return a label as one line without control, surrogate or invisible characters.

    Examples
    --------
    >>> printable("North\n & \u202e$South$")
    'North & $South$'
    """
    bad = {"Cc", "Cf", "Cs", "Cn"}
    words = "".join(" " if character.isspace() else character for character in str(text)).split()
    kept = (
        "".join(c for c in word if unicodedata.category(c) not in bad or c in _JOINERS)
        for word in words
    )
    return " ".join(word for word in kept if word)


def shorten(text: object, longest: int = 40) -> str:
    """Shorten a label; wide (East Asian) characters count twice."""
    clean = printable(text)
    clean = f" {clean}" if clean.startswith("_") else clean  # legends leave such labels out
    room = longest
    for position, character in enumerate(clean):
        room -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if room < 0:
            return clean[: max(position - 1, 1)].rstrip() + "…"
    return clean


def canvas(height: float, *, empty: bool = False) -> tuple[Figure, Any]:
    """Return a figure of the common width, and its axes unless it is to stay empty."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, None if empty else figure.add_subplot()


def label_rows(axes: Any, labels: Sequence[str]) -> None:
    """Give every row its label, the first on top."""
    axes.set_yticks(np.arange(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="x", color=FAINT, lw=0.6)
    axes.tick_params(axis="y", length=0)


def finish(figure: Figure, *, columns: int = 3, keys: Sequence[Any] | None = None) -> Figure:
    """Add the legend and the common look; no text is ever read as mathematics."""
    from matplotlib.text import Text

    handles, labels = figure.axes[0].get_legend_handles_labels()
    if keys is not None:
        handles, labels = list(keys), [key.get_label() for key in keys]
    place = {"loc": "outside upper left", "ncols": columns, "frameon": False, "fontsize": 9}
    figure.legend(handles[:14], labels[:14], **place)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelcolor=INK)
        axes.set_axisbelow(True)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(_families())
        text.set_color(INK)
    return figure


@cache
def _families() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *sorted(name for name in installed if any(c in name for c in _CJK))]
