"""The posterior beside frequentist estimates on the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from spatialclusters.comparison import compare
from spatialclusters.gaps import LARGE, expected_gaps, judge_gaps
from spatialclusters.reporting.blocks import Block, Notes, Paragraph, Section, Table
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import EFFECT_NAMES
from spatialclusters.reporting.text import decimals_for
from spatialclusters.reporting.values import (
    Mark,
    Number,
    Shown,
    count,
    fixed,
    interval,
    number,
    quoted,
    say,
)
from spatialclusters.result import Fit

__all__ = ["frequentist_section"]

_NAMED = ("direct", "indirect", "total", "speed", "half_life", "per_sd")
_KEY = ("coefficient", "spatial", *_NAMED)


def frequentist_section(results: Results) -> Section:
    """Show every estimator beside the posterior, how it was made, and where gaps are expected."""
    other, beside = results.frequentist, (results.frequentist, *results.beside)
    judged = judge_gaps(results.fit, *beside)
    blocks: list[Block] = [_lead(judged), *_side_by_side(results, judged)]
    notes = [note for each in beside if not isinstance(each, Fit) for note in each.notes]
    for title, items in (
        ("How the estimates were made", notes),
        (
            "Where gaps to the posterior are expected",
            expected_gaps(results.fit, *beside, judged=judged),
        ),
    ):
        blocks += [Notes(title, [quoted(item) for item in items])] if items else []
    if other.moran is not None:
        found = other.moran
        sentence = say(
            "Moran's I of the OLS residuals: {} (expected {} without spatial dependence, z = {}, "
            "p {}).",
            number(found["statistic"]),
            number(found["expected"]),
            fixed(found["z"], 2),
            _p_value(found["p_value"]),
        )
        blocks.append(Paragraph(sentence))
    return Section("frequentist", "Beside frequentist estimates", "Checks", blocks)


def _lead(judged: pd.DataFrame) -> Paragraph:
    """Say how many gaps are large, and whether all of them have a reason."""
    counts = judged["verdict"].value_counts()
    small, expected, warning = (int(counts.get(k, 0)) for k in ("small", "expected", "warning"))
    text = say(
        "{} of {} estimates are within {} standard errors of the posterior; {} are further away for "
        "a reason given below{}.",
        count(small),
        count(len(judged)),
        fixed(LARGE, 0),
        count(expected),
        say("; {} are so for none, which is a warning", count(warning)) if warning else "",
    )
    return Paragraph(text, "bad" if warning else "plain")


def _side_by_side(results: Results, judged: pd.DataFrame) -> Iterator[Block]:
    """Lay out one line per term and estimator; coefficients of lesser interest fold."""
    side = compare(results.fit, results.frequentist, *results.beside)
    names = list(dict.fromkeys(side.columns.get_level_values("estimator")))
    parts = {name: side[name].to_dict("records") for name in names}
    verdicts = judged.set_index(["estimator", "term", "effect"])["verdict"].to_dict()
    main: list[tuple[Shown, ...]] = []
    aside: list[tuple[Shown, ...]] = []
    for i, (term, effect) in enumerate(side.index.to_list()):
        found = {name: parts[name][i] for name in names}
        known = [name for name in names if not math.isnan(found[name]["estimate"])]
        if effect not in _KEY or known[:1] != names[:1] or len(known) < 2:
            continue
        named = f": {EFFECT_NAMES.get(effect, effect)}" if effect in _NAMED else ""
        digits = decimals_for(*(found[name]["std_error"] for name in known))
        rows = aside if term.startswith(("mean(", "zero(", "intercept")) else main
        for line, name in enumerate(known):
            each, gap = found[name], found[name].get("difference", math.nan)
            rows.append(
                (
                    Mark(f"{term}{named}", "again") if line else f"{term}{named}",
                    "posterior" if name == names[0] else name,
                    fixed(each["estimate"], digits),
                    fixed(each["std_error"], digits),
                    interval(each["ci_low"], each["ci_high"], digits),
                    "—" if math.isnan(gap) else fixed(gap, 1),
                    _marked(verdicts.get((name, term, effect), "")),
                )
            )
    heads = ("term", "estimator", "estimate", "standard error", "95 % interval", "gap", "verdict")
    caption = (
        f"Estimates on the same rows. Posterior: {names[0].removeprefix('posterior, ')}. The gap is "
        "(posterior − estimate) / standard error"
    )
    yield Table(caption, heads, main)
    if aside:
        folded = "Intercept, dummies of zeros and group means"
        yield Table(f"{folded}, on the same rows", heads, aside, folded)


def _marked(verdict: str) -> Shown:
    """Return the verdict on a gap, a warning as such; derived quantities have none."""
    return Mark(verdict, "bad" if verdict == "warning" else "word") if verdict else ""


def _p_value(value: float) -> Shown:
    if value < 1e-4:
        return Number("< 0.0001", value)
    return say("= {}", fixed(value, 4))
