"""Lines -> HTML and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from spatialclusters.regression_tables.lines import Line

__all__ = ["html", "latex"]

_TEX: Final = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\symbol{34}",  # babel may have made it active
    # after the end of a row these would be its arguments
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
} | {mark: f"\\{mark}" for mark in "{}$&#%_"}
_SIGNS: Final = {"−": "$-$", "∞": r"$\infty$"}
_SPECIAL: Final = re.compile("|".join(map(re.escape, [*_TEX, *_SIGNS])))
_CELL: Final = 18  # characters in a line of a cell: those of an interval
_LABEL: Final = 36
_LIGATURE: Final = re.compile(r"(-(?=-)|'(?='))")  # two would become one dash or quotation mark


def html(title: str, lines: Sequence[Line], notes: Sequence[str], *, page: bool) -> str:
    """Fill the template, which escapes whatever it is given."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (files("spatialclusters.regression_tables") / "table.html").read_text("utf-8")
    parts = [
        [line for line in lines if line.kind == "head"],
        [line for line in lines if line.kind not in ("head", "footer")],
        [line for line in lines if line.kind == "footer"],
    ]
    template = environment.from_string(source)
    return template.render(
        title=title, head=parts[0], body=parts[1], footer=parts[2], notes=notes, page=page
    )


def latex(title: str, lines: Sequence[Line], notes: Sequence[str]) -> str:
    """Set rules as booktabs does, and the notes below in the width of the text.

    A table that is wider than the text is shrunk to it, if the document has graphicx.
    """
    width = len(lines[0].cells)
    rows: list[str] = []
    for line in lines:
        if line.rule:
            rows.append(r"\midrule")
        elif line.kind == "section":
            rows.append(r"\addlinespace")
        if line.kind == "section":
            label = _tex(line.label)
            rows.append(rf"\multicolumn{{{width + 1}}}{{l}}{{\textit{{{label}}}}} \\")
        else:
            cells = [_number(c) if line.numbers else _stacked(c, _CELL, "c") for c in line.cells]
            end = r" \\[2pt]" if 0 < line.position == line.span - 1 else r" \\"
            rows.append(" & ".join([_stacked(line.label, _LABEL, "l"), *cells]) + end)
    caption = (
        [r"\setlength{\belowcaptionskip}{6pt}", rf"\caption{{{_tex(title)}}}"] if title else []
    )
    below = "\n".join(f"{_tex(note)}\\par" for note in notes)
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table}[htbp]",
            r"\centering\small",
            *caption,
            rf"\sbox2{{\begin{{tabular}}{{l{'c' * width}}}",
            r"\toprule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\ifdim\wd2>\linewidth\ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox2}",
            r"\else\usebox2\fi\else\usebox2\fi",
            "",
            r"\medskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            below,
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _stacked(text: str, width: int, side: str) -> str:
    """Escape a text, and break it between words into lines of about this many characters."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) == 1:
        return _tex(text)
    inner = r"\\".join(map(_tex, lines))
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{inner}\end{{tabular}}"


def _tex(text: str) -> str:
    r"""Escape all that TeX obeys.

    Examples
    --------
    >>> _tex(r"\input{x} & 5 %")
    '\\textbackslash{}input\\{x\\} \\& 5 \\%'
    """
    escaped = _SPECIAL.sub(lambda found: (_TEX | _SIGNS)[found[0]], text)
    return _LIGATURE.sub(r"\1{}", escaped)


def _number(text: str) -> str:
    return "".join(_SIGNS.get(character, character) for character in text)
