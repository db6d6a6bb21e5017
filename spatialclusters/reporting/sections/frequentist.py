"""The posterior beside frequentist estimates on the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from spatialclusters.comparison import compare
from spatialclusters.gaps import expected_gaps
from spatialclusters.reporting.blocks import Block, Notes, Paragraph, Section, Table
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import EFFECT_NAMES
from spatialclusters.reporting.text import decimals_for
from spatialclusters.reporting.values import (
    Mark,
    Number,
    Shown,
    fixed,
    interval,
    number,
    quoted,
    say,
)

__all__ = ["frequentist_section"]

_KEY = ("coefficient", "spatial", "speed", "half_life", "per_sd")


def frequentist_section(results: Results) -> Section:
    """Show every estimator beside the posterior, how it was made, and where gaps are expected."""
    other = results.frequentist
    blocks: list[Block] = [*_side_by_side(results)]
    for title, items in (
        ("How the frequentist estimates were made", list(other.notes)),
        (
            "Where gaps to the posterior are expected",
            expected_gaps(results.fit, results.frequentist),
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


def _side_by_side(results: Results) -> Iterator[Block]:
    """Lay out one line per term and estimator; coefficients of lesser interest fold."""
    side = compare(results.fit, results.frequentist)
    names = list(dict.fromkeys(side.columns.get_level_values("estimator")))
    parts = {name: side[name].to_dict("records") for name in names}
    main: list[tuple[Shown, ...]] = []
    aside: list[tuple[Shown, ...]] = []
    for i, (term, effect) in enumerate(side.index.to_list()):
        found = {name: parts[name][i] for name in names}
        known = [name for name in names if not math.isnan(found[name]["estimate"])]
        if effect not in _KEY or known[:1] != names[:1] or len(known) < 2:
            continue
        named = f": {EFFECT_NAMES[effect]}" if effect in EFFECT_NAMES else ""
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
                )
            )
    heads = ("term", "estimator", "estimate", "standard error", "95 % interval", "gap")
    caption = (
        f"Estimates on the same rows. Posterior: {names[0].removeprefix('posterior, ')}. The gap is "
        "(posterior − estimate) / standard error"
    )
    yield Table(caption, heads, main)
    if aside:
        folded = "Intercept, dummies of zeros and group means"
        yield Table(f"{folded}, on the same rows", heads, aside, folded)


def _p_value(value: float) -> Shown:
    if value < 1e-4:
        return Number("< 0.0001", value)
    return say("= {}", fixed(value, 4))
