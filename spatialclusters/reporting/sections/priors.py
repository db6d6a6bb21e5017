"""What the priors imply: responses that they would have, and how much the data narrow them."""

from __future__ import annotations

import math

import pandas as pd

from spatialclusters.errors import FitError
from spatialclusters.plots import plot_predictive
from spatialclusters.predictive import predictive_density, predictive_statistics
from spatialclusters.reporting.blocks import Block, Paragraph, Section, Table
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.sections.fit import statistics_table
from spatialclusters.reporting.text import decimals_for
from spatialclusters.reporting.values import Shown, count, fixed, interval, number, quoted, say

__all__ = ["prior_section"]


def prior_section(results: Results) -> Section:
    """Show the prior predictive distribution, and priors beside posteriors."""
    fit, title = results.fit, "Prior predictive"
    unit = str(fit.design.data.attrs["unit"])
    blocks: list[Block] = []
    try:
        density = predictive_density(fit, source="prior")
        table = predictive_statistics(fit, source="prior")
    except FitError as reason:
        blocks.append(Paragraph(quoted(f"The prior predictive is not reported: {reason}")))
    else:
        ratio = _ratio(table)
        blocks += [
            Paragraph(
                say(
                    "Responses drawn from the prior vary {} times as much as those observed (median "
                    "of replicates): the priors exclude nothing that was seen, and say little.",
                    number(ratio, 2),
                )
                if ratio > 1.0
                else say(
                    "Responses drawn from the prior vary {} times as much as those observed (median "
                    "of replicates): the priors are narrow, and should be defended.",
                    number(ratio, 2),
                ),
                "plain" if ratio > 1.0 else "bad",
            ),
            picture(
                plot_predictive(density, unit=unit, replicated="from the prior"),
                f"Distribution of responses drawn from the prior ({unit}), and the observed.",
                "Prior predictive check: what the model holds possible before it sees the response.",
                data=density,
            ),
            statistics_table(table, unit, "Replicated from the prior"),
        ]
    blocks.append(_narrowing(results.priors))
    return Section("priors", title, "What it rests on", blocks)


def _ratio(table: pd.DataFrame) -> float:
    row = table[table["statistic"] == "standard deviation"].iloc[0]
    return float(row["replicated"] / row["observed"])


def _narrowing(frame: pd.DataFrame) -> Table:
    rows: list[tuple[Shown, ...]] = []
    for row in frame.to_dict("records"):
        digits = decimals_for((row["ci_high"] - row["ci_low"]) / 4)
        before = interval(row["prior_low"], row["prior_high"], min(digits, 3))
        rows.append(
            (
                row["parameter"],
                quoted(row["prior"]),
                before,
                fixed(row["estimate"], digits),
                interval(row["ci_low"], row["ci_high"], digits),
                "—" if math.isnan(row["width"]) else fixed(row["width"], 3),
            )
        )
    heads = ("parameter", "prior", "95 % of the prior", "posterior", "95 % interval", "width ratio")
    caption = (
        "Priors and posteriors in raw units; the width ratio is that of the posterior interval over "
        "the prior's: near one the data said nothing"
    )
    folded = say("Priors beside posteriors of {} parameters", count(len(rows)))
    return Table(caption, heads, rows, folded)
