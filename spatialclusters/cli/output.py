"""Frames -> text: tables for people, CSV and JSON for programs.

Labels come from the user's files: no markup of theirs is obeyed, and no control
character of theirs reaches the terminal.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import typer

from spatialclusters.errors import SpatialClustersError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "clean", "inert", "is_quiet", "note", "set_verbosity", "show", "show_estimates", "warn", "write",
]  # fmt: skip

_WIDE: Final = 400  # columns where nobody looks: files and pipes must not cut terms
_LONGEST: Final = 200
_FOLDED: Final = 22
_KINDS: Final = {"eti": "equal-tailed"}
_ONE: Final = r"([<>]?[-+]?\d[\d.,]*(e[-+]\d+)?%?|-?inf)"
_NUMBER: Final = re.compile(rf"({_ONE}( to {_ONE})?|\[\d+\])?")
_CALCULATED: Final = tuple("=+-@＝＋－＠")
_INVISIBLE: Final = re.compile(
    "[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def set_verbosity(*, verbose: bool, quiet: bool) -> None:
    """Choose how much goes to standard error: ``quiet`` wins."""
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    logging.getLogger("spatialclusters").setLevel(level)


def is_quiet() -> bool:
    """Whether only errors are wanted."""
    return logging.getLogger("spatialclusters").level >= logging.ERROR


def clean(text: str, keep: str = "") -> str:
    r"""Escape what a terminal would obey: control characters, text direction, lone surrogates.

    Examples
    --------
    >>> clean("a\x1b[31mb")
    'a\\x1b[31mb'
    """

    def shown(character: str) -> str:
        if character.isprintable() or character in keep:
            return character
        if unicodedata.category(character) == "Zs":
            return " "
        return character.encode("unicode_escape").decode("ascii")

    return "".join(map(shown, text))


def inert(text: str) -> str:
    r"""Clean a text cell, and put an apostrophe before what a spreadsheet would calculate.

    Numbers are not text: a negative one keeps its sign.

    References
    ----------
    OWASP, CSV injection.

    Examples
    --------
    >>> inert("=1+1"), inert("a=b"), inert("log(x)")
    ("'=1+1", 'a=b', 'log(x)')
    """
    shown = clean(text)
    return f"'{shown}" if shown.lstrip().startswith(_CALCULATED) else shown


def write(text: str) -> None:
    """Write a result to standard output; a reader that has gone ends the program quietly.

    Raises
    ------
    SpatialClustersError
        There is no space left where it goes to.
    """
    try:
        typer.echo(text, nl=not text.endswith("\n"))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_the_rest(sys.stdout)
        raise typer.Exit(141) from None
    except OSError as cause:
        _drop_the_rest(sys.stdout)
        msg = f"standard output: cannot be written ({cause}). Send it to another place."
        raise SpatialClustersError(msg) from cause


def note(text: str) -> None:
    """Say something on standard error, unless only errors are wanted."""
    if not is_quiet():
        warn(text)


def warn(text: str) -> None:
    """Say something on standard error; where that cannot be written, the exit code says it alone."""
    try:
        typer.echo(clean(text, keep="\n"), err=True)
    except OSError:
        _drop_the_rest(sys.stderr)


def _drop_the_rest(stream: TextIO) -> None:
    """Keep Python from writing again when it ends, which would change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show(frame: pd.DataFrame, style: str, *, title: str = "") -> None:
    """Write any frame as a table, CSV or JSON."""
    if style == "table":
        cells = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
        write(_table([str(name) for name in frame.columns], cells, title))
    else:
        write(_machine(frame, style))


def show_estimates(frame: pd.DataFrame, style: str, *, title: str = "") -> None:
    """Write tidy estimates: a table says the point, the interval, its probability and the unit."""
    if style != "table":
        write(_machine(frame, style))
        return
    labels = ["term", *(["group"] if frame["group"].fillna("").ne("").any() else [])]
    if frame.duplicated(labels).any():
        labels.append("effect")
    points = frame["point"].unique().tolist()
    if len(points) > 1:
        labels.append("point")
    units = [unit for unit in dict.fromkeys(frame["unit"]) if unit]
    judged = ["verdict"] if not frame["verdict"].isin(["ok", "constant"]).all() else []
    head = [*labels, points[0] if len(points) == 1 else "estimate", "sd", "interval", "P(>0)"]
    head += ["R-hat", "ESS", "unit", *judged]
    cells = []
    for row in frame.to_dict(orient="records"):
        ess = min(row["ess_bulk"], row["ess_tail"])
        unit = f"[{units.index(row['unit']) + 1}]" if row["unit"] else ""
        line = [*_numbers(row), _fixed(row["r_hat"], 3), _fixed(ess, 0), unit]
        cells.append(
            [*(_cell(row[name]) for name in labels), *line, *(_cell(row[n]) for n in judged)]
        )
    legend = [f"[{i}] {clean(unit)}" for i, unit in enumerate(units, 1)]
    write("\n".join([_table(head, cells, title).rstrip("\n"), _caption(frame), *legend]))


def _caption(frame: pd.DataFrame) -> str:
    kinds = frame[["ci_prob", "ci_kind"]].dropna().drop_duplicates()
    named = [f"{100 * p:g} % {_KINDS.get(kind, kind)}" for p, kind in kinds.itertuples(index=False)]
    return f"interval: {' or '.join(named)}"


def _machine(frame: pd.DataFrame, style: str) -> str:
    if style == "json":
        from spatialclusters.estimates import estimates_json

        # JSON can say any character without sending it
        return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", estimates_json(frame))
    texts = frame.select_dtypes(include=["object", "string"]).columns
    safe = {name: [inert(v) if isinstance(v, str) else v for v in frame[name]] for name in texts}
    return frame.assign(**safe).to_csv(index=False, lineterminator="\n")


def _table(head: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> str:
    """Lay out columns; on a terminal, long labels are folded to its width, never cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, padding=(0, 2, 0, 0), title=Text(f"{clean(title)}\n") if title else None
    )
    table.title_justify = "left"
    needed = 0
    for position, name in enumerate(head):
        column = [name, *(row[position] for row in cells)]
        number = all(_NUMBER.fullmatch(cell) for cell in column[1:])
        least = min(max(map(len, column)), _LONGEST if number else _FOLDED)
        needed += least + 2
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(
            Text(clean(name)), justify=justify, no_wrap=number, overflow="fold", min_width=least
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    width = max(needed, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _WIDE
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _numbers(row: dict[Any, Any]) -> list[str]:
    """Write estimate, sd and interval with as many digits as the sd deserves."""
    scale = row["std_error"]
    if not (isinstance(scale, float) and math.isfinite(scale) and scale > 0):
        width = row["ci_high"] - row["ci_low"]
        scale = width / 4.0 if math.isfinite(width) and width > 0 else abs(row["estimate"])
    digits = 3
    if math.isfinite(scale) and scale > 0:
        digits = min(max(1 - math.floor(math.log10(scale)), 0), 8)
    low, high = _fixed(row["ci_low"], digits), _fixed(row["ci_high"], digits)
    interval = f"{low} to {high}" if low and high else ""
    estimate, sd = _fixed(row["estimate"], digits), _fixed(row["std_error"], digits)
    sign = "" if row["effect"] == "sd" else _probability(row["prob_positive"])
    return [estimate, sd, interval, sign]


def _fixed(value: float, digits: int) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.{digits}f}" if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def _probability(value: float) -> str:
    if math.isnan(value):
        return ""
    return "<0.001" if value < 0.001 else ">0.999" if value > 0.999 else f"{value:.3f}"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = clean(str(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
