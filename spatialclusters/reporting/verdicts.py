"""The verdicts of the headline: on the sampling, on the data, and on the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from spatialclusters.diagnostics import Check
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import with_number
from spatialclusters.reporting.values import (
    Link,
    Sentence,
    Shown,
    count,
    fixed,
    join,
    percent,
    say,
)
from spatialclusters.result import Fit

__all__ = ["data_cautions", "verdict_sentence", "verdicts"]

_FEW: Final = 0.05  # share of listed cells that may be withheld, and of starts without an end
_MOST: Final = 0.95  # share of the base year's total that rows should hold
_COLLINEAR: Final = 30.0


def verdicts(results: Results) -> Iterator[tuple[str, str, Shown]]:
    """Yield subject, tone and sentence of every verdict."""
    sampling = results.check
    if sampling.passed:  # a failed one is an alert of its own
        yield "Sampling", "good", verdict_sentence(sampling)
    cautions = list(data_cautions(results.fit))
    yield (
        "Data",
        "bad" if cautions else "good",
        say("Caution: {}.", join(cautions, "; "))
        if cautions
        else "Nothing about the sample calls for caution.",
    )
    table = results.criticism.table
    failed = table[~table["passed"].astype(bool)].to_dict("records")
    if not failed:
        yield "Model", "good", say("It agrees with the data in all {} checks.", count(len(table)))
        return
    yield (
        "Model",
        "bad",
        say(
            "Caution: the data are not as the model would have them in {} of {} {} ({}).",
            count(len(failed)),
            count(len(table)),
            Link("checks", "checks"),
            "; ".join(str(row["check"]) for row in failed),
        ),
    )


def verdict_sentence(verdict: Check) -> Shown:
    """Return the verdict on the sampling in one or two sentences."""
    total = len(verdict.table)
    if verdict.passed:
        return say("The sampling converged: all {} checks passed.", count(total))
    failed = verdict.table[~verdict.table["passed"].astype(bool)].to_dict("records")
    reasons = (
        say("{} {}", f"{row['check']}:", with_number(str(row["value"]), float(row["number"])))
        for row in failed
    )
    return say(
        "The sampling has not converged: do not report the numbers on this page. {} of {} checks "
        "failed ({}). {}",
        count(len(failed)),
        count(total),
        join(reasons, "; "),
        str(failed[0]["advice"]),
    )


def data_cautions(fit: Fit) -> Iterator[Sentence]:
    """Yield what is wrong with a sample, each with its number and what follows from it."""
    record, growth = fit.design.record, fit.spec.growth
    withheld = [
        say("{} in {}", percent(cells["withheld"], listed), str(year))
        for year, cells in record.get("cells", {}).items()
        if (listed := cells["observed"] + cells["withheld"]) and cells["withheld"] > _FEW * listed
    ]
    if withheld:
        yield say(
            "cells that are listed are withheld, the small ones as a rule ({})",
            join(withheld, ", "),
        )
    held = record.get("share_of_base_in_sample")
    if held is not None and held < _MOST:
        yield say("the rows hold only {} of what is published for the base year", percent(held))
    if growth is not None:
        lost = sum(
            n
            for reason, n in record["dropped"].items()
            if reason.startswith(growth.variable) and reason.endswith(str(growth.to_year))
        )
        if lost > _FEW * (lost + record["rows"]):
            yield say(
                "{} of the cells with a start have no published end: growth is that of survivors",
                percent(lost, lost + record["rows"]),
            )
    condition = record.get("condition_number", 0.0)
    if condition > _COLLINEAR:
        yield say(
            "covariates are nearly collinear (condition number {}): read their coefficients together",
            fixed(condition, 0),
        )
