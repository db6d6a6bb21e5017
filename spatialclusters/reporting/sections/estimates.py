"""The main table: coefficients, beside those of other estimators in a figure."""

from __future__ import annotations

import pandas as pd

from spatialclusters.plots import plot_coefficients
from spatialclusters.reporting.blocks import Block, Paragraph, Section
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import digits_of, estimate_table
from spatialclusters.reporting.values import Sentence, count, fixed, interval, join, say
from spatialclusters.result import Fit

__all__ = ["coefficient_section"]


def coefficient_section(results: Results) -> Section:
    """Show coefficients of interest, then those that stand for what groups share."""
    frame = results.coefficients
    unit = str(results.fit.design.data.attrs["unit"])
    betas = frame[frame["effect"] == "coefficient"]
    aside = betas["term"].str.startswith(("mean(", "zero("))
    blocks: list[Block] = [
        estimate_table(
            betas[~aside],
            f"Coefficients in {unit} per unit of the covariate (a log point for logs); posterior "
            "means with 95 % equal-tailed intervals",
        )
    ]
    if aside.any():
        caption = "Dummies of zeros, and group means of covariates (effects correlated with them)"
        folded = say("{}: {} coefficients", caption, count(int(aside.sum())))
        blocks.append(estimate_table(betas[aside], f"{caption}, in {unit} per unit", folded=folded))
    if results.impacts is not None:
        blocks.append(
            Paragraph("With spatial lags what a covariate does is in the section Impacts.")
        )
    if results.fit.design.terms:
        blocks.append(_picture(results, betas[~aside]))
    return Section("coefficients", "Coefficients", "Findings", blocks)


def _picture(results: Results, shown: pd.DataFrame) -> Block:
    """Draw the coefficients of interest of every estimator."""
    terms = set(shown["term"]) - {"intercept"} or set(results.fit.design.terms)
    beside = [each.estimates for each in results.beside if not isinstance(each, Fit)]
    frames = [
        frame[frame["term"].isin(terms) & (frame["effect"] == "coefficient")]
        for frame in (results.coefficients, results.frequentist.estimates, *beside)
    ]
    caption = "Coefficients with 95 % intervals: the posterior beside frequentist estimates on the "
    columns = ["estimator", "term", "unit", "estimate", "ci_low", "ci_high"]
    both = pd.concat([frame[columns] for frame in frames if len(frame)], ignore_index=True)
    return picture(
        plot_coefficients(*frames),
        say("Coefficients with 95 % intervals by estimator. Posterior: {}.", _spoken(shown)),
        f"{caption}same rows. Beside frequentist estimates, below, says where gaps are expected.",
        data=both,
    )


def _spoken(frame: pd.DataFrame) -> Sentence:
    rows = frame[frame["term"] != "intercept"].head(8).to_dict("records")
    return join(
        (
            say(
                "{} {} {}",
                str(row["term"]),
                fixed(row["estimate"], digits_of(row)),
                interval(row["ci_low"], row["ci_high"], digits_of(row)),
            )
            for row in rows
        ),
        "; ",
    )
