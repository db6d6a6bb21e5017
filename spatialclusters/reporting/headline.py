"""The headline: what was found, in sentences with numbers and units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from spatialclusters.effects import coefficients, convergence, specialization
from spatialclusters.errors import FitError
from spatialclusters.frequentist import Frequentist
from spatialclusters.reporting.sections import row_name
from spatialclusters.reporting.tables import OVERALL
from spatialclusters.reporting.text import decimals_for, fixed, interval, probability
from spatialclusters.result import Fit
from spatialclusters.spillovers import impacts

__all__ = ["Results", "headline"]


@dataclass(frozen=True, eq=False)
class Results:
    """A fit and its tidy frames, each computed once; a frame is None where it means nothing."""

    fit: Fit
    frequentist: Frequentist

    @cached_property
    def coefficients(self) -> pd.DataFrame:
        """All fixed effects and hyperparameters."""
        return coefficients(self.fit)

    @cached_property
    def convergence(self) -> pd.DataFrame | None:
        """Change, speed and half-life, or None."""
        named = self.fit.spec.roles.convergence and self.fit.design.years is not None
        return convergence(self.fit) if named else None

    @cached_property
    def specialization(self) -> pd.DataFrame | None:
        """Effects of the strength terms, or None."""
        return specialization(self.fit) if self.fit.spec.roles.specialization else None

    @cached_property
    def impacts(self) -> pd.DataFrame | None:
        """Direct, indirect and total impacts, or None where there are none beside coefficients."""
        try:
            return impacts(self.fit)
        except FitError:
            return None


def headline(results: Results) -> list[tuple[str, str]]:
    """Return subject and sentence of each line of the headline: numbers, units, intervals."""
    lines = []
    if results.convergence is not None:
        lines.append(("Convergence", _convergence_sentence(results)))
    if results.specialization is not None:
        found = _specialization_sentences(results.specialization)
        lines += [("Specialization", sentence) for sentence in found]
    if not lines:
        subject = "Coefficients" if results.impacts is None else "Impacts"
        lines = [(subject, sentence) for sentence in _plain_sentences(results)]
    expected = "; ".join(_expectations(results)) or "The model file states no signs"
    return [*lines, ("Expected before the data", f"{expected}.")]


def _convergence_sentence(results: Results) -> str:
    fit, frame = results.fit, results.convergence
    assert frame is not None
    assert fit.design.years is not None
    own, common = ({row["effect"]: row for row in frame[frame["group"] == group].to_dict("records")}
                   for group in OVERALL)  # fmt: skip
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
    range_ = interval(life["ci_low"], life["ci_high"], years)
    half_life = f"halves in {fixed(life['estimate'], years)} years {range_}"
    if math.isinf(life["estimate"]):
        half_life = f"does not halve (half-life ∞ years {range_})"
    has = "that alone had" if together else "with"
    together = f" Where all had it, each grew by {together}." if together else ""
    return (
        f"A {row_name(fit.design)} {has} {subject}{start} grew by {amount}.{together} "
        f"The gap {half_life}. Probability of convergence: {probability(1.0 - change['prob_positive'])}."
    )


def _specialization_sentences(frame: pd.DataFrame) -> Iterator[str]:
    rows = frame[frame["effect"] == "per_sd"]
    common = {row["term"]: row for row in rows[rows["group"] == "common"].to_dict("records")}
    for row in rows[rows["group"] == "overall"].to_dict("records"):
        amount = _signed(row, str(row["unit"]))
        everywhere = ""
        if every := common.get(row["term"]):
            together = _signed(every, str(row["unit"]))
            everywhere = f" Where all have it, it goes with {together}."
        yield (
            f"One standard deviation more {row['term']} goes with {amount}. "
            f"Probability that it is positive: {probability(row['prob_positive'])}.{everywhere}"
        )


def _plain_sentences(results: Results) -> Iterator[str]:
    """Say what the first covariates do, where the model names no roles."""
    unit = str(results.fit.design.data.attrs["unit"])
    if results.impacts is not None:
        for _, lines in itertools.islice(results.impacts.groupby("term", sort=False), 3):
            found = {
                row["effect"]: row for row in lines.to_dict("records") if row["group"] == "row"
            }
            here, there = (_signed(found[effect], unit) for effect in ("direct", "indirect"))
            yield (
                f"One unit more {lines['term'].iloc[0]} in one {row_name(results.fit.design)} goes "
                f"with {here} there, and {there} in all others together."
            )
        return
    frame = results.coefficients
    rows = frame[(frame["effect"] == "coefficient") & (frame["term"] != "intercept")]
    for row in rows.head(3).to_dict("records"):
        amount = _signed(row, unit)
        yield (
            f"One unit more {row['term']} goes with {amount}. Probability that it is positive: "
            f"{probability(row['prob_positive'])}."
        )


def _signed(row: Mapping[Any, Any], unit: str, factor: float = 1.0) -> str:
    """Say "0.18 points less [0.16, 0.20]": the interval in the direction of the estimate."""
    estimate, low, high = (row[name] * factor for name in ("estimate", "ci_low", "ci_high"))
    word, sign = ("less", -1.0) if estimate < 0 else ("more", 1.0)
    low, high = min(sign * low, sign * high), max(sign * low, sign * high)
    digits = decimals_for((high - low) / 4)
    text = f"{fixed(sign * estimate, digits)} {unit} {word} {interval(low, high, digits)}"
    return text + (", an interval that contains zero" if low < 0.0 < high else "")


def _expectations(results: Results) -> Iterator[str]:
    expects, origin = results.fit.spec.expects, results.fit.spec.covariate_labels
    rows = results.coefficients[results.coefficients["effect"] == "coefficient"]
    for term, positive in zip(rows["term"], rows["prob_positive"], strict=True):
        sign = expects.get(term) or expects.get(origin.get(term, term))
        if sign:
            chance = positive if sign == "positive" else 1.0 - positive
            yield f"{term} {sign} (probability {probability(chance)})"
