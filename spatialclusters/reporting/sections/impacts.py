"""What a covariate does here and elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from spatialclusters.plots import plot_impacts, plot_map, plot_spillover_decay
from spatialclusters.ranges import spillover_range
from spatialclusters.reporting.blocks import Block, Paragraph, Section
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results, row_name
from spatialclusters.reporting.tables import digits_of, estimate_table, impact_table
from spatialclusters.reporting.values import Sentence, fixed, interval, join, number, quoted, say
from spatialclusters.result import Fit
from spatialclusters.spillovers import approximation, impacts, regional_impacts

__all__ = ["impact_section"]

_DRAWN = ["term", "effect", "group", "unit", "estimate", "ci_low", "ci_high"]


def impact_section(results: Results) -> Section:
    """Show direct, indirect and total impacts, how far they go, and where they come from."""
    frame, fit = results.impacts, results.fit
    if frame is None:
        text = (
            "Not reported: nothing in the model passes from one row to others, so that coefficients "
            "are its impacts. Strength of neighboring regions, where the model has it, is a covariate."
        )
        return Section("impacts", "Impacts", "Findings", [Paragraph(text)])
    row, role = row_name(fit.design), fit.spec.roles.convergence
    label = fit.design.label(role) if role else ""
    term = label if label in set(frame["term"]) else str(frame["term"].iloc[0])
    caption = f"Impacts, in {frame['unit'].iloc[0]}, of a change in one {row}"
    if frame["group"].eq("cell").any():
        caption += " (row), and in all industries of a region-cluster (cell)"
    alone = frame[frame["group"] == "row"]
    blocks: list[Block] = [
        Paragraph(
            f"The direct impact is what one unit more of a covariate in one {row} does there, feedback "
            "through neighbors included; the indirect impact is what it does in all others together; "
            f"the total is their sum, and also what happens to a {row} if all change. All were "
            "computed draw by draw from the coefficients and the spatial weights, never at "
            "posterior means."
        ),
        impact_table(frame, caption),
        *([Paragraph(quoted(off))] if (off := approximation(fit)) else []),
        picture(
            plot_impacts(fit),
            say(
                "Direct, indirect and total impacts with 95 % intervals, a change in one {}. {}.",
                row,
                _spoken(alone),
            ),
            f"Direct, indirect and total impacts of a change in one {row}, with 95 % intervals.",
            data=alone[_DRAWN],
        ),
        *_decay(fit, term),
        *_range(fit),
    ]
    if fit.geometry is not None:
        blocks.append(_map(fit, term, row))
    return Section("impacts", "Impacts", "Findings", blocks)


def _decay(fit: Fit, term: str) -> Iterator[Block]:
    """Show how impacts pass from neighbor to neighbor, where they do."""
    if "rho" not in fit.posterior:
        yield Paragraph(
            "The response is not lagged: impacts reach neighbors, and go no further (a local "
            "spillover)."
        )
        return
    frame = impacts(fit, "order", term=term)
    spoken = join((number(value) for value in frame["estimate"]), ", ")
    unit = str(fit.design.data.attrs["unit"])
    alt = say("Total impact of {} by order of neighbors, from 0: {} ({}).", term, spoken, unit)
    caption = (
        f"How the total impact of {term} builds up: order 0 is the coefficient, order 1 what "
        "passes to neighbors, order 2 what passes on from there."
    )
    yield picture(plot_spillover_decay(fit, term), alt, caption, data=frame[_DRAWN])


def _range(fit: Fit) -> Iterator[Block]:
    if "delta" in fit.posterior:
        yield estimate_table(
            spillover_range(fit),
            "How far an estimated decay reaches, medians in km: half_distance is where a weight is "
            "half of that at the typical distance to the nearest region",
        )


def _map(fit: Fit, term: str, row: str) -> Block:
    given = regional_impacts(fit, term).query("effect == 'spill_out'")
    where = row if row == "region" else f"{row} of the region"
    text = f"What one unit more {term} in a {where} does in all others together"
    ordered = given.sort_values("estimate").to_dict("records")
    alt = say(
        "Map. {}: least {}, {}; most {}, {}.",
        text,
        str(ordered[0]["group"]),
        number(ordered[0]["estimate"]),
        str(ordered[-1]["group"]),
        number(ordered[-1]["estimate"]),
    )
    caption = f"{text}, in {fit.design.data.attrs['unit']}: posterior means."
    return picture(plot_map(fit, given), alt, caption, data=given[_DRAWN], raster=True)


def _spoken(frame: pd.DataFrame) -> Sentence:
    rows = frame.head(9).to_dict("records")
    return join(
        (
            say(
                "{} {} {} {}",
                str(row["term"]),
                str(row["effect"]),
                fixed(row["estimate"], digits_of(row)),
                interval(row["ci_low"], row["ci_high"], digits_of(row)),
            )
            for row in rows
        ),
        "; ",
    )
