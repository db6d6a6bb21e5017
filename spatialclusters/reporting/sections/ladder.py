"""Several models of the same rows: which predicts best, and what changes between them."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from spatialclusters.effects import coefficients, convergence, specialization
from spatialclusters.plots import plot_coefficients
from spatialclusters.reporting.blocks import Block, Code, Paragraph, Section, Table
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import EFFECT_NAMES, digits_of
from spatialclusters.reporting.values import (
    Mark,
    Shown,
    fixed,
    interval,
    percent,
    probability,
    say,
)
from spatialclusters.result import Fit

__all__ = ["ladder_section", "quantities"]

_KEPT = ("speed", "half_life", "per_sd")


def ladder_section(results: Results) -> Section:
    """Compare models by leave-one-out, then their coefficients and headline quantities."""
    title, ladder = "Model ladder", results.ladder
    if ladder is None:
        text = (
            "Not reported: no other model was given. This compares models of the same rows by "
            "leave-one-out, with stacking weights, and shows how the findings move between models "
            "and between weights:"
        )
        command = Code("spatialclusters report FIT.nc --with OTHER.nc -o report.html")
        return Section("ladder", title, "Checks", [Paragraph(text), command])
    fits = {results.name: results.fit} | dict(results.others)
    best = ladder.iloc[0]
    lead = say(
        "Of {} models of the same rows {} predicts rows that it has not seen best; in the mixture "
        "that predicts best it has a weight of {}.",
        str(len(ladder)),
        str(best["model"]),
        fixed(best["weight"], 2),
    )
    blocks: list[Block] = [Paragraph(lead, "lead"), _table(ladder, fits), *_coefficients(fits)]
    return Section("ladder", title, "Checks", blocks)


def _table(ladder: pd.DataFrame, fits: dict[str, Fit]) -> Table:
    rows: list[tuple[Shown, ...]] = []
    for row in ladder.to_dict("records"):
        fit = fits[str(row["model"])]
        process = fit.spec.spatial.outcome
        structures = [g.structure for g in fit.design.groups if g.structure != "iid"]
        space = [*([process.upper()] if process != "none" else []), *map(str.upper, structures)]
        rows.append(
            (
                str(row["model"]),
                fit.weights.kind if fit.weights else "none",
                ", ".join(space) or "none",
                fixed(row["elpd"], 1),
                fixed(row["difference"], 1),
                fixed(row["difference_error"], 1),
                fixed(row["weight"], 2),
                percent(row["reliable"]),
            )
        )
    heads = ("model", "W", "space", "elpd", "difference", "its error", "stacking", "reliable")
    caption = (
        "Expected log predictive density (elpd) of rows left out one at a time, effects integrated "
        "out; differences to the best, with their standard error; weights of stacking; share of rows "
        "whose Pareto k is as low as so many draws ask"
    )
    return Table(caption, heads, rows)


def quantities(fit: Fit) -> pd.DataFrame:
    """Return the headline quantities of a fit: convergence, specialization, dependence."""
    parts = []
    if fit.spec.roles.convergence and fit.design.years is not None:
        parts.append(convergence(fit).query("group == 'overall'"))
    if fit.spec.roles.specialization:
        parts.append(specialization(fit).query("group == 'overall'"))
    frame = coefficients(fit)
    parts.append(frame[frame["effect"] == "spatial"])
    if len(parts) == 1:
        parts.append(frame[(frame["effect"] == "coefficient") & (frame["term"] != "intercept")])
    table = pd.concat(parts, ignore_index=True)
    return table[table["effect"].isin([*_KEPT, "spatial", "coefficient"])]


def _coefficients(fits: dict[str, Fit]) -> Iterator[Block]:
    frames = [coefficients(fit).assign(estimator=name) for name, fit in fits.items()]
    kept = [
        frame[
            (frame["effect"] == "coefficient")
            & ~frame["term"].str.startswith(("mean(", "zero(", "intercept"))
        ]
        for frame in frames
    ]
    if any(len(frame) for frame in kept):
        drawn = pd.concat(kept, ignore_index=True)
        columns = ["estimator", "term", "unit", "estimate", "ci_low", "ci_high"]
        yield picture(
            plot_coefficients(*kept),
            "Coefficients with 95 % intervals by model.",
            "Coefficients of interest by model, with 95 % intervals. Where models differ in their "
            "lags a coefficient is not the same thing: compare impacts.",
            data=drawn[columns],
        )
    rows: list[tuple[Shown, ...]] = []
    parts = {name: quantities(fit) for name, fit in fits.items()}
    keys = dict.fromkeys(
        (row["term"], row["effect"], row["unit"])
        for frame in parts.values()
        for row in frame.to_dict("records")
    )
    for term, effect, unit in keys:
        first = True
        for name, frame in parts.items():
            found = frame[(frame["term"] == term) & (frame["effect"] == effect)]
            for row in found.head(1).to_dict("records"):
                digits = digits_of(row)
                named = f": {EFFECT_NAMES[effect]}" if effect in EFFECT_NAMES else ""
                label = f"{term}{named}{f' ({unit})' if unit else ''}"
                rows.append(
                    (
                        label if first else Mark(label, "again"),
                        name,
                        fixed(row["estimate"], digits),
                        interval(row["ci_low"], row["ci_high"], digits),
                        probability(row["prob_positive"]),
                    )
                )
                first = False
    heads = ("quantity", "model", "estimate", "95 % interval", "P(> 0)")
    yield Table("Headline quantities by model", heads, rows)
