"""Tidy frames -> tables of a report."""

from __future__ import annotations

import math
from typing import Any, Final

import pandas as pd

from spatialclusters.reporting.blocks import Table
from spatialclusters.reporting.text import count, decimals_for, fixed, interval, number, probability

__all__ = [
    "EFFECT_NAMES",
    "OVERALL",
    "beside",
    "dependence_meaning",
    "detail_table",
    "digits_of",
    "group_table",
    "impact_table",
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
_DETAIL: Final = (
    "estimate", "sd", "95 % interval", "P(> 0)", "MCSE", "ESS bulk, tail", "R\u2011hat", "verdict",
)  # fmt: skip
_FOLD: Final = 20  # rows from which a table folds
_MOST: Final = 2000  # rows of a table


def detail_table(frame: pd.DataFrame, caption: str, *, units: bool = False) -> Table:
    """Lay out a tidy frame with all that says how well each number is known."""
    rows = []
    for row in frame.to_dict("records"):
        digits = digits_of(row)
        cells = [
            fixed(row["estimate"], digits),
            fixed(row["std_error"], digits),
            interval(row["ci_low"], row["ci_high"], digits),
            "—" if row["effect"] == "sd" else probability(row["prob_positive"]),
            number(row["mcse"], 2),
            f"{count(row['ess_bulk'])}, {count(row['ess_tail'])}",
            fixed(row["r_hat"], 3),
            str(row["verdict"]),
        ]
        rows.append((_term_name(row), *([str(row["unit"])] if units else []), *cells))
    heads = ("term", *(["unit"] if units else []), *_DETAIL)
    text = (0, 1, len(heads) - 1) if units else (0, len(heads) - 1)
    return Table(caption, heads, rows, text=text, folded=caption if len(rows) > _FOLD else "")


def group_table(frame: pd.DataFrame, effects: tuple[str, ...], caption: str) -> Table:
    """Lay out one line per group, in the order of the frame."""
    heads = ["group"]
    for effect in effects:
        unit = frame.loc[frame["effect"] == effect, "unit"].iloc[0]
        heads += [f"{EFFECT_NAMES.get(effect, 'estimate')} ({unit})", "95 % interval"]
    rows = []
    for group, lines in frame.groupby("group", sort=False):
        cells, found = [str(group)], {line["effect"]: line for line in lines.to_dict("records")}
        for effect in effects:
            row = found[effect]
            digits = digits_of(row)
            cells += [
                fixed(row["estimate"], digits),
                interval(row["ci_low"], row["ci_high"], digits),
            ]
        first = found[effects[0]]
        rows.append((*cells, probability(first["prob_positive"]), str(first["verdict"])))
    heads += [f"P({EFFECT_NAMES.get(effects[0], 'estimate')} > 0)", "verdict"]
    left_out = f"; the first {_MOST:,} of {len(rows):,}" if len(rows) > _MOST else ""
    title = f"{caption}: table of {len(rows):,}{left_out}"
    return Table(caption, heads, rows[:_MOST], text=(0, len(heads) - 1), folded=title)


def impact_table(frame: pd.DataFrame, caption: str) -> Table:
    """Lay out direct, indirect and total impact on one line per term and level."""
    effects, several = ("direct", "indirect", "total"), frame["group"].nunique() > 1
    rows = []
    for (term, level), lines in frame.groupby(["term", "group"], sort=False):
        found = {line["effect"]: line for line in lines.to_dict("records")}
        cells = [str(term), *([str(level)] if several else [])]
        for effect in effects:
            row, digits = found[effect], digits_of(found[effect])
            ends = interval(row["ci_low"], row["ci_high"], digits)
            cells += [fixed(row["estimate"], digits), ends]
        shown = sorted({str(line["verdict"]) for line in found.values()} - {"ok", "constant"})
        chance = probability(found["indirect"]["prob_positive"])
        rows.append((*cells, chance, ", ".join(shown) or "ok"))
    heads = ["term", *(["a change in one"] if several else [])]
    heads += [head for effect in effects for head in (effect, "95 % interval")]
    heads += ["P(indirect > 0)", "verdict"]
    text = (0, 1, len(heads) - 1) if several else (0, len(heads) - 1)
    return Table(caption, heads, rows, text=text)


def dependence_meaning(name: str) -> str:
    """Say what a parameter of spatial dependence is.

    Examples
    --------
    >>> dependence_meaning("phi(region)")
    'share of the variance that neighbors share'
    """
    kind = "alpha" if name.startswith("lambda(") else name.partition("(")[0]
    return _DEPENDENCE[kind]


def beside(values: Any, digits: int) -> str:
    """Format an estimate of a comparison with its interval and its distance from the posterior."""
    if math.isnan(values["estimate"]):
        return "—"
    text = f"{fixed(values['estimate'], digits)} {interval(values['ci_low'], values['ci_high'], digits)}"
    gap = values.get("difference", math.nan)
    return text if math.isnan(gap) else f"{text} {{{fixed(gap, 1)}}}"


def digits_of(row: dict[Any, Any]) -> int:
    """Return decimals from the standard deviation, or a quarter of the interval without one."""
    if math.isfinite(row["std_error"]):
        return decimals_for(row["std_error"])
    return decimals_for((row["ci_high"] - row["ci_low"]) / 4, abs(row["estimate"]) / 10)


def _term_name(row: dict[Any, Any]) -> str:
    term, effect, group = str(row["term"]), row["effect"], row["group"]
    if effect in EFFECT_NAMES:
        everywhere = ", if all are higher" if group == "common" else ""
        return f"{term}: {EFFECT_NAMES[effect]}{everywhere}"
    if effect == "spatial":
        return f"{term}{f' of {group}' if group else ''}: {dependence_meaning(term)}"
    return f"{term}: {group}" if group else term
