"""How much the findings owe to priors and to the choice of weights."""

from __future__ import annotations

import math

import pandas as pd

from spatialclusters.reporting.blocks import Block, Paragraph, Section, Table
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.values import Shown, count, fixed, say
from spatialclusters.sensitivity import THRESHOLD

__all__ = ["sensitivity_section"]

_PARTS = ("coefficients", "groups", "noise", "space")


def sensitivity_section(results: Results) -> Section:
    """Show power-scaling of priors and likelihood, and where other weights are compared."""
    frame = results.power_scaling
    strong = frame[frame["prior"] >= THRESHOLD]
    lead = (
        say(
            "No prior matters much: raising all priors to a power near one moves none of the {} "
            "quantities by as much as {}.",
            count(len(frame)),
            f"{THRESHOLD:g}",
        )
        if strong.empty
        else say(
            "Priors matter for {} of {} quantities: {}.",
            count(len(strong)),
            count(len(frame)),
            ", ".join(strong["quantity"].head(8)),
        )
    )
    text = (
        "Each number is how far the posterior moves (a distance between cumulative distributions) "
        "per doubling of the power to which priors, or the likelihood, are raised. Above 0.05 the "
        "choice of the prior should be defended. The likelihood is that of the hyperparameters, "
        "everything else integrated out: for coefficients it is not shown."
    )
    blocks: list[Block] = [
        Paragraph(lead, "good" if strong.empty else "bad"),
        Paragraph(text),
        _table(frame),
        _weights(results),
    ]
    return Section("sensitivity", "Sensitivity", "Checks", blocks)


def _table(frame: pd.DataFrame) -> Table:
    parts = [name for name in _PARTS if name in frame]
    more = ["likelihood"] if "likelihood" in frame else []
    rows: list[list[Shown]] = [
        [
            row["quantity"],
            *(
                "—" if math.isnan(row[name]) else fixed(row[name], 3)
                for name in ("prior", *parts, *more)
            ),
            row["diagnosis"],
        ]
        for row in frame.to_dict("records")
    ]
    heads = ["quantity", "all priors", *(f"of {name}" for name in parts), *more, "diagnosis"]
    folded = say("Sensitivity of {} quantities", count(len(rows)))
    return Table("Power-scaling sensitivity", heads, rows, folded)


def _weights(results: Results) -> Paragraph:
    if results.fit.weights is None:
        return Paragraph("The model uses no weights, so that none could be exchanged.")
    kinds = {
        name: fit.weights.kind
        for name, fit in results.others.items()
        if fit.weights is not None and fit.weights.digest != results.fit.weights.digest
    }
    if kinds:
        listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        return Paragraph(f"Fits with other weights are in the model ladder: {listed}.")
    return Paragraph(
        "Sensitivity to the weights is not reported: no fit with other weights was given (fit with "
        "another --weights, then report --with it)."
    )
