"""Cells of a table as a page sets them: numbers one below the other at the decimal point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from spatialclusters.reporting.blocks import Table
from spatialclusters.reporting.values import Interval, Link, Mark, Number, Sentence, Shown

__all__ = ["Cell", "Piece", "lay_out", "pieces"]

_POINT: Final = 0.5  # width of a decimal point in those of digits


class Piece(NamedTuple):
    """Text with a class, a style, and the section it leads to."""

    text: str
    kind: str = ""
    style: str = ""
    section: str = ""


@dataclass(frozen=True)
class Cell:
    """Pieces of text of a cell of one kind: text or number."""

    number: bool
    pieces: Sequence[Piece]


def lay_out(table: Table) -> Iterator[list[Cell]]:
    """Yield the cells of every row.

    Examples
    --------
    >>> cells = [Number("1.5", 1.5)], [Number("12", 12.0)]
    >>> [tuple(row[0].pieces[0]) for row in lay_out(Table("", ("x",), cells))]
    [('1.5', '', '', ''), ('12', '', 'padding-right:1.5ch', '')]
    """
    numeric = table.numeric
    after = [
        [_after(each) for each in zip(*map(_ends, column), strict=False)] if numbers else []
        for column, numbers in zip(zip(*table.rows, strict=True), numeric, strict=True)
    ]
    wide = [_widths(column) for column in zip(*table.rows, strict=True)]
    for row in table.rows:
        yield [
            Cell(numbers, _numbers(cell, most, widths) if numbers else list(pieces(cell)))
            for cell, numbers, most, widths in zip(row, numeric, after, wide, strict=True)
        ]


def _ends(cell: Shown) -> tuple[str, str]:
    """Return the texts that are aligned: of an interval both ends."""
    text = str(cell)
    if isinstance(cell, Interval) and text.startswith("["):
        low, _, high = text[1:-1].partition(", ")
        return low, high
    return text, ""


def _after(texts: Sequence[str]) -> float:
    return max((_decimals(text) for text in texts), default=0.0)


def _decimals(text: str) -> float:
    """Return the width of what stands after the last digit before the point, in digits."""
    whole, point, rest = text.partition(".")
    del whole
    return len(rest.rstrip(" %")) + _POINT if point else 0.0


def _widths(column: Sequence[Shown]) -> tuple[int, int]:
    low, high = zip(*map(_ends, column), strict=True)
    return max(map(len, low)), max(map(len, high))


def _numbers(cell: Shown, most: Sequence[float], widths: tuple[int, int]) -> list[Piece]:
    low, high = _ends(cell)
    pads = [most[k] - _decimals(each) for k, each in enumerate((low, high))]
    if not high:
        return [Piece(low, "", _style(pads[0] if isinstance(cell, Number) else 0.0))]
    return [
        Piece(f"[{low},", "end", _style(pads[0], widths[0] + 2)),
        Piece(f"{high}]", "end", _style(pads[1], widths[1] + 1)),
    ]


def _style(pad: float, width: int = 0) -> str:
    """Return room after a number, and its least width, in digits."""
    rules = [f"padding-right:{pad:g}ch"] if pad > 0.0 else []
    return ";".join(rules + ([f"min-width:{width}ch"] if width else []))


def pieces(shown: Shown) -> Iterator[Piece]:
    """Yield words, numbers and links of something shown."""
    for part in shown.parts if isinstance(shown, Sentence) else (shown,):
        if isinstance(part, Link):
            yield Piece(part.text, section=part.section)
        elif isinstance(part, Mark):
            yield Piece(part.text, part.tone)
        elif isinstance(part, str):
            yield Piece(part)
        else:
            yield Piece(part.text, "n")
