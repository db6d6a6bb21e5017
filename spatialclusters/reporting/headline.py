"""The headline: what was found, in sentences with numbers and units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from spatialclusters.reporting.results import Results, row_name
from spatialclusters.reporting.tables import OVERALL
from spatialclusters.reporting.text import decimals_for
from spatialclusters.reporting.values import Shown, fixed, interval, join, probability, say

__all__ = ["headline"]


def headline(results: Results) -> list[tuple[str, Shown]]:
    """Return subject and sentence of each line of the headline: numbers, units, intervals."""
    lines: list[tuple[str, Shown]] = []
    if results.convergence is not None:
        lines.append(("Convergence", _convergence_sentence(results)))
    if results.specialization is not None:
        lines += _specialization_lines(results.specialization)
    if not lines:
        subject = "Coefficients" if results.impacts is None else "Impacts"
        lines = [(subject, join(_plain_sentences(results)))]
    expected = list(_expectations(results))
    stated = say("{}.", join(expected, "; ")) if expected else "The model file states no signs."
    return [*lines, ("Expected before", stated)]


def _convergence_sentence(results: Results) -> Shown:
    fit, frame = results.fit, results.convergence
    assert frame is not None
    assert fit.design.years is not None
    own, common = (
        {row["effect"]: row for row in frame[frame["group"] == group].to_dict("records")}
        for group in OVERALL
    )
    change, life = own["change"], own["half_life"]
    term = str(change["term"])
    logged = term.startswith("log(") and term.endswith(")") and ":" not in term
    subject, size = (
        (f"10 % more {term[4:-1]}", math.log(1.1)) if logged else (f"{term} one unit higher", 1.0)
    )
    growth = fit.spec.growth
    start = f" in {growth.from_year}" if growth else ""
    factor = 100.0 * size / fit.design.years
    amount, together = (
        _signed(row["change"], "points a year", factor) if row else "" for row in (own, common)
    )
    years = decimals_for((life["ci_high"] - life["ci_low"]) / 4, life["estimate"] / 10)
    reach = interval(life["ci_low"], life["ci_high"], years)
    half_life = say("halves in {} years {}", fixed(life["estimate"], years), reach)
    if math.isinf(life["estimate"]):
        half_life = say("does not halve (half-life {} years {})", fixed(math.inf, 0), reach)
    everywhere: Shown = say(" Where all had it, each grew by {}.", together) if together else ""
    return say(
        "A {} {} {}{} grew by {}.{} The gap {}. Probability of convergence: {}.",
        row_name(fit.design),
        "that alone had" if together else "with",
        subject,
        start,
        amount,
        everywhere,
        half_life,
        probability(1.0 - change["prob_positive"]),
    )


def _specialization_lines(frame: pd.DataFrame) -> Iterator[tuple[str, Shown]]:
    """Yield one line on strengths of the region itself, and one on those of its neighbors."""
    rows = frame[frame["effect"] == "per_sd"]
    common = {row["term"]: row for row in rows[rows["group"] == "common"].to_dict("records")}
    lines: dict[str, list[Shown]] = {"Specialization": [], "Neighbors": []}
    for row in rows[rows["group"] == "overall"].to_dict("records"):
        nearby = "neighbor_strength" in row["term"] or str(row["term"]).startswith("lag(")
        everywhere: Shown = ""
        if every := common.get(row["term"]):
            together = _signed(every, str(row["unit"]))
            everywhere = say(" Where all have it, it goes with {}.", together)
        lines["Neighbors" if nearby else "Specialization"].append(
            say(
                "One standard deviation more {} goes with {}. Probability that it is positive: {}.{}",
                str(row["term"]),
                _signed(row, str(row["unit"])),
                probability(row["prob_positive"]),
                everywhere,
            )
        )
    for subject, sentences in lines.items():
        if sentences:
            yield subject, join(sentences)


def _plain_sentences(results: Results) -> Iterator[Shown]:
    """Say what the first covariates do, where the model names no roles."""
    unit = str(results.fit.design.data.attrs["unit"])
    if results.impacts is not None:
        for _, lines in itertools.islice(results.impacts.groupby("term", sort=False), 3):
            found = {
                row["effect"]: row for row in lines.to_dict("records") if row["group"] == "row"
            }
            yield say(
                "One unit more {} in one {} goes with {} there, and {} in all others together.",
                str(lines["term"].iloc[0]),
                row_name(results.fit.design),
                *(_signed(found[effect], unit) for effect in ("direct", "indirect")),
            )
        return
    frame = results.coefficients
    rows = frame[(frame["effect"] == "coefficient") & (frame["term"] != "intercept")]
    for row in rows.head(3).to_dict("records"):
        yield say(
            "One unit more {} goes with {}. Probability that it is positive: {}.",
            str(row["term"]),
            _signed(row, unit),
            probability(row["prob_positive"]),
        )


def _signed(row: Mapping[Any, Any], unit: str, factor: float = 1.0) -> Shown:
    """Say "0.18 points less [0.16, 0.20]": the interval in the direction of the estimate."""
    estimate, low, high = (row[name] * factor for name in ("estimate", "ci_low", "ci_high"))
    word, sign = ("less", -1.0) if estimate < 0 else ("more", 1.0)
    low, high = min(sign * low, sign * high), max(sign * low, sign * high)
    digits = decimals_for((high - low) / 4)
    return say(
        "{} {} {} {}{}",
        fixed(sign * estimate, digits),
        unit,
        word,
        interval(low, high, digits),
        ", an interval that contains zero" if low < 0.0 < high else "",
    )


def _expectations(results: Results) -> Iterator[Shown]:
    expects, origin = results.fit.spec.expects, results.fit.spec.covariate_labels
    rows = results.coefficients[results.coefficients["effect"] == "coefficient"]
    for term, positive in zip(rows["term"], rows["prob_positive"], strict=True):
        sign = expects.get(term) or expects.get(origin.get(term, term))
        if sign:
            chance = positive if sign == "positive" else 1.0 - positive
            yield say("{} {} (probability {})", term, sign, probability(chance))
