"""Lines -> text and Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

from spatialclusters.regression_tables.lines import Line

__all__ = ["markdown", "text"]

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
# marks, HTML and the bar of a cell; what only dialects read: links, names of emoji; lists
_MARKS: Final = re.compile(r"[\\`*_{}\[\]#!~$@^=&<>|]|:(?=//|[\w+-]+:)|(?i:(?<=www)\.)|^[-+]")
_ITEM: Final = re.compile(r"^(\d+)(?=[.)])")


def text(title: str, lines: Sequence[Line], notes: Sequence[str]) -> str:
    """Align labels left and cells right, with rules between the parts."""
    cells = [[line.label, *line.cells] for line in lines if line.kind != "section"]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    sections = [cell_len(line.label) for line in lines if line.kind == "section"]
    widths[0] = max([widths[0], *(length - sum(widths[1:]) for length in sections)])
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    out, before = [*([title, ""] if title else []), rule], ""
    for line in lines:
        if line.rule:
            out.append(rule)
        elif line.kind == "section" or (line.kind == "estimate" and before != "section"):
            out.append("")
        first = line.label + " " * (widths[0] - cell_len(line.label))
        rest = [
            " " * (width - cell_len(cell)) + cell
            for cell, width in zip(line.cells, widths[1:], strict=True)
        ]
        out.append("  ".join([first, *rest]).rstrip())
        before = line.kind
    return "\n".join([*out, rule, *notes])


def markdown(title: str, lines: Sequence[Line], notes: Sequence[str]) -> str:
    """Lay out one table with pipes; Markdown has no lines within a cell, so each is a row."""
    numbers, names, *rest = lines
    heads = [
        " ".join(filter(None, map(_mark, both)))
        for both in zip(numbers.cells, names.cells, strict=True)
    ]
    rows = [["", *heads], [":---", *["---:"] * len(heads)]]
    for line in rest:
        label = f"**{_mark(line.label)}**" if line.kind == "section" else _mark(line.label)
        rows.append([label, *(line.cells if line.numbers else map(_mark, line.cells))])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    parts = [f"**{_mark(title)}**"] * bool(title) + [table, *map(_mark, notes)]
    return "\n\n".join(parts) + "\n"


def _mark(text: str) -> str:
    r"""Escape whatever Markdown and its dialects read as more than text.

    Examples
    --------
    >>> _mark("<b>mean(log_x | region)</b> $x$")
    '&lt;b&gt;mean(log\\_x &#124; region)&lt;/b&gt; \\$x\\$'
    """

    def escaped(found: re.Match[str]) -> str:
        return _ENTITIES.get(found[0], f"\\{found[0]}")

    return _ITEM.sub(r"\1\\", _MARKS.sub(escaped, text))
