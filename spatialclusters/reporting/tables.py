"""Tidy frames -> tables of a report."""

from __future__ import annotations

import math
from typing import Any, Final

import pandas as pd

from spatialclusters.reporting.blocks import Table
from spatialclusters.reporting.text import decimals_for
from spatialclusters.reporting.values import (
    Interval,
    Mark,
    Number,
    Shown,
    count,
    fixed,
    interval,
    number,
    probability,
    quoted,
    say,
)

__all__ = [
    "EFFECT_NAMES",
    "OVERALL",
    "check_table",
    "dependence_meaning",
    "digits_of",
    "estimate_table",
    "group_table",
    "impact_table",
    "precision_table",
    "rank_table",
    "term_name",
    "with_number",
]

EFFECT_NAMES: Final = {
    "change": "total change",
    "speed": "speed",
    "half_life": "half-life",
    "per_sd": "one SD more",
    "per_sd_within": "one SD more, within groups",
    "p25_p75": "25th to 75th percentile",
    "plus10pct": "10 % more",
}
OVERALL: Final = ("overall", "common")
"""Groups that are no levels: a term that is higher in one row only, and in all rows."""

_DEPENDENCE: Final = {
    "rho": "factor of the neighbors' response",
    "lambda": "factor of the neighbors' noise",
    "phi": "share of the variance that neighbors share",
    "alpha": "dependence on the effects of neighbors",
    "delta": "how fast weights fall with distance",
    "share": "share of a matrix in W",
}
_FINE: Final = ("ok", "constant")
_FOLD: Final = 20  # rows from which a table folds
_MOST: Final = 400  # rows of a table


def estimate_table(
    frame: pd.DataFrame, caption: Shown, *, units: bool = False, folded: Shown = ""
) -> Table:
    """Lay out a tidy frame: estimate, standard deviation, interval, sign, and how well it is known."""
    judged, rows = not frame["verdict"].isin(_FINE).all(), []
    for row, digits in _with_digits(frame, by_unit=units):
        cells: list[Shown] = [
            fixed(row["estimate"], digits),
            fixed(row["std_error"], digits),
            interval(row["ci_low"], row["ci_high"], digits),
            "—" if row["effect"] == "sd" else probability(row["prob_positive"]),
            count(min(row["ess_bulk"], row["ess_tail"])),
            fixed(row["r_hat"], 3),
            *([str(row["verdict"])] if judged else []),
        ]
        rows.append([term_name(row), *([str(row["unit"])] if units else []), *cells])
    heads = ["term", *(["unit"] if units else []), "estimate", "sd", "95 % interval", "P(> 0)"]
    heads += ["ESS", "R\u2011hat", *(["verdict"] if judged else [])]
    if not folded and len(rows) > _FOLD:
        folded = say("{}: table of {}", caption, count(len(rows)))
    return Table(caption, heads, rows, folded)


def _with_digits(frame: pd.DataFrame, *, by_unit: bool) -> list[tuple[dict[Any, Any], int]]:
    """Return rows with their decimals: as many as the others (of the unit), but one more at most."""
    rows = frame.to_dict("records")
    own, most = [digits_of(row) for row in rows], dict[Any, int]()
    units = [row["unit"] if by_unit else "" for row in rows]
    for unit, digits in zip(units, own, strict=True):
        most[unit] = max(digits, most.get(unit, 0))
    shown = [min(digits + 1, most[unit]) for unit, digits in zip(units, own, strict=True)]
    return list(zip(rows, shown, strict=True))


def precision_table(frame: pd.DataFrame, caption: Shown) -> Table:
    """Lay out the Monte Carlo error of every number of a tidy frame."""
    rows = [
        (
            term_name(row),
            number(row["mcse"], 2),
            fixed(100.0 * row["mcse"] / row["std_error"] if row["std_error"] else math.nan, 1),
            count(row["ess_bulk"]),
            count(row["ess_tail"]),
            fixed(row["r_hat"], 4),
            str(row["verdict"]),
        )
        for row in frame.to_dict("records")
    ]
    heads = ("term", "MCSE", "% of sd", "ESS bulk", "ESS tail", "R\u2011hat", "verdict")
    return Table(caption, heads, rows, say("{}: table of {}", caption, count(len(rows))))


def group_table(frame: pd.DataFrame, effects: tuple[str, ...], caption: Shown) -> Table:
    """Lay out one line per group, in the order of the frame: of very many the first and last."""
    heads, units = ["group"], []
    for effect in effects:
        name = EFFECT_NAMES.get(effect, "estimate")
        heads += [name, "95 % interval"]
        units.append(f"{name} in {frame.loc[frame['effect'] == effect, 'unit'].iloc[0]}")
    rows: list[list[Shown]] = []
    for group, lines in frame.groupby("group", sort=False):
        cells: list[Shown] = [str(group)]
        found = {line["effect"]: line for line in lines.to_dict("records")}
        for effect in effects:
            row, digits = found[effect], digits_of(found[effect])
            cells += [
                fixed(row["estimate"], digits),
                interval(row["ci_low"], row["ci_high"], digits),
            ]
        first = found[effects[0]]
        rows.append([*cells, probability(first["prob_positive"]), str(first["verdict"])])
    heads += [f"P({EFFECT_NAMES.get(effects[0], 'estimate')} > 0)", "verdict"]
    if all(row[-1] in _FINE for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    kept, left_out = _ends(rows)
    title = say("{}: table of {}{}", caption, count(len(rows)), left_out)
    return Table(
        say("{}: {}", caption, "; ".join(units).replace(" in per", " per")), heads, kept, title
    )


def _ends(rows: list[list[Shown]]) -> tuple[list[list[Shown]], Shown]:
    if len(rows) <= _MOST:
        return rows, ""
    half = _MOST // 2
    return [*rows[:half], *rows[-half:]], say(", the first and the last {}", count(half))


def rank_table(frame: pd.DataFrame, caption: Shown, folded: Shown) -> Table:
    """Lay out posterior ranks, the lowest first."""
    top = int(frame["top"].iloc[0])
    rows: list[list[Shown]] = [
        [
            row["group"],
            fixed(row["rank"], 1),
            interval(row["ci_low"], row["ci_high"], 0),
            probability(row["prob_first"]),
            probability(row["prob_top"]),
        ]
        for row in frame.to_dict("records")
    ]
    kept, left_out = _ends(rows)
    heads = ("group", "mean rank", "95 % interval", "P(first)", f"P(among the first {top})")
    return Table(caption, heads, kept, say("{}{}", folded, left_out) if folded else "")


def impact_table(frame: pd.DataFrame, caption: Shown) -> Table:
    """Lay out direct, indirect and total impact on one line per term and level."""
    effects, several = ("direct", "indirect", "total"), frame["group"].nunique() > 1
    rows = []
    for (term, level), lines in frame.groupby(["term", "group"], sort=False):
        found = {line["effect"]: line for line in lines.to_dict("records")}
        cells: list[Shown] = [str(term), *([str(level)] if several else [])]
        for effect in effects:
            row, digits = found[effect], digits_of(found[effect])
            ends = interval(row["ci_low"], row["ci_high"], digits)
            cells += [fixed(row["estimate"], digits), ends]
        shown = sorted({str(line["verdict"]) for line in found.values()} - {*_FINE})
        chance = probability(found["indirect"]["prob_positive"])
        rows.append([*cells, chance, ", ".join(shown) or "ok"])
    heads = ["term", *(["a change in one"] if several else [])]
    heads += [head for effect in effects for head in (effect, "95 % interval")]
    return Table(caption, [*heads, "P(indirect > 0)", "verdict"], rows)


def check_table(frame: pd.DataFrame, caption: Shown, words: tuple[str, str]) -> Table:
    """Lay out checks: value, what was expected, the verdict in one of two words, and advice."""
    advice, rows = not frame["passed"].all(), []
    for row in frame.to_dict("records"):
        passed = bool(row["passed"])
        rows.append(
            [
                row["check"],
                with_number(str(row["value"]), float(row["number"])),
                _expected(str(row["expected"])),
                Mark(words[0], "good") if passed else Mark(words[1], "bad"),
                *([("" if passed else row["advice"])] if advice else []),
            ]
        )
    heads = ("check", "value", "expected", "verdict", *(["what to do"] if advice else []))
    return Table(caption, heads, rows)


def _expected(text: str) -> Shown:
    """Return a range as an interval, anything else as its words and numbers."""
    low, dash, high = text.removesuffix(" %").partition("–")
    if dash:
        return Interval(text, float(low), float(high))
    return quoted(text.replace("<=", "≤").replace(">=", "≥"))


def with_number(text: str, value: float) -> Shown:
    """Return a text that begins with a number as a sentence that holds it."""
    if math.isnan(value):
        return text
    first, space, rest = text.partition(" ")
    shown = first.rstrip(",%")
    return say("{}{}", Number(shown, value), quoted(first[len(shown) :] + space + rest))


def dependence_meaning(name: str) -> str:
    """Say what a parameter of spatial dependence is.

    Examples
    --------
    >>> dependence_meaning("phi(region)")
    'share of the variance that neighbors share'
    """
    kind = "alpha" if name.startswith("lambda(") else name.partition("(")[0]
    return _DEPENDENCE[kind]


def digits_of(row: dict[Any, Any]) -> int:
    """Return decimals from the standard deviation, or a quarter of the interval without one."""
    if math.isfinite(row["std_error"]):
        return decimals_for(row["std_error"])
    return decimals_for((row["ci_high"] - row["ci_low"]) / 4, abs(row["estimate"]) / 10)


def term_name(row: dict[Any, Any]) -> str:
    """Name the quantity of a row of a tidy frame."""
    term, effect, group = str(row["term"]), row["effect"], row["group"]
    if effect in EFFECT_NAMES:
        everywhere = ", if all are higher" if group == "common" else ""
        return f"{term}: {EFFECT_NAMES[effect]}{everywhere}"
    if effect == "spatial":
        return f"{term}{f' of {group}' if group else ''}: {dependence_meaning(term)}"
    return f"{term}: {group}" if group else term
