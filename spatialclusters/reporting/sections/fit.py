"""Does the model describe the data? Replicates, rows left out, residuals and their neighbors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from spatialclusters.criticism import residual_spread
from spatialclusters.plots import (
    plot_loo_pit,
    plot_map,
    plot_moran,
    plot_predictive,
    plot_residual_spread,
)
from spatialclusters.predictive import predictive_density, predictive_statistics
from spatialclusters.reporting.blocks import Block, Paragraph, Section, Table
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import check_table
from spatialclusters.reporting.text import decimals_for
from spatialclusters.reporting.values import (
    Shown,
    count,
    fixed,
    interval,
    number,
    percent,
    probability,
    quoted,
    say,
)
from spatialclusters.residuals import regional_residuals, residual_moran

__all__ = ["criticism_section", "fit_section", "statistics_table"]


def criticism_section(results: Results) -> Section:
    """Summarize the checks of model and sampling."""
    verdict, sampling = results.criticism, results.check
    cautions = int((~verdict.table["passed"].astype(bool)).sum())
    lead = (
        say("The data agree with the model in all {} checks.", count(len(verdict.table)))
        if verdict.passed
        else say(
            "{} of {} checks call for caution: the numbers are what the model says, but the data "
            "are not quite as the model would have them.",
            count(cautions),
            count(len(verdict.table)),
        )
    )
    failed = sampling.table[~sampling.table["passed"].astype(bool)]
    blocks: list[Block] = [
        Paragraph(lead, "good" if verdict.passed else "bad"),
        check_table(verdict.table, "Data against model", ("ok", "caution")),
    ]
    if verdict.note:
        blocks.append(Paragraph(verdict.note))
    if results.loo is None:
        blocks.append(
            Paragraph(
                "Leave-one-out is not among them: effects of this model cannot be integrated out, "
                "and with them in the likelihood it would flatter the model."
            )
        )
    if sampling.passed:
        text = say(
            "All {} checks of the sampling passed: see Computation.", count(len(sampling.table))
        )
        blocks.append(Paragraph(text, "good"))
    else:
        blocks.append(check_table(failed, "Failed checks of the sampling", ("passed", "FAILED")))
    return Section("checks", "Checks at a glance", "Checks", blocks)


def fit_section(results: Results) -> Section:
    """Show replicated responses, calibration, spread of residuals, and Moran's I."""
    fit = results.fit
    unit = str(fit.design.data.attrs["unit"])
    density = predictive_density(fit)
    blocks: list[Block] = [
        Paragraph("Replicated responses", "subhead"),
        picture(
            plot_predictive(density, unit=unit),
            f"Distribution of the observed response ({unit}) over that of responses replicated "
            "from the posterior.",
            "Posterior predictive check: the observed response should look like one of the "
            "replicated.",
            data=density,
        ),
        statistics_table(predictive_statistics(fit), unit, "Replicated from the posterior"),
        *_calibration(results),
        *_spread(results, unit),
        *_moran(results),
    ]
    return Section("fit", "Does the model describe the data?", "Checks", blocks)


def statistics_table(table: pd.DataFrame, unit: str, how: str) -> Table:
    """Lay out statistics of the response beside those of replicates."""
    rows: list[tuple[Shown, ...]] = []
    for row in table.to_dict("records"):
        digits = decimals_for((row["ci_high"] - row["ci_low"]) / 4)
        rows.append(
            (
                row["statistic"],
                fixed(row["observed"], digits),
                fixed(row["replicated"], digits),
                interval(row["ci_low"], row["ci_high"], digits),
                probability(row["p_value"]),
                "yes" if row["inside"] else "NO",
            )
        )
    heads = ("statistic", "observed", "replicated", "95 % interval", "P(≥ observed)", "inside")
    caption = (
        f"{how}: statistics of the response in {unit}; tails is the range from the 1st to the "
        "99th percentile over that between the quartiles, 3.45 for a normal"
    )
    return Table(caption, heads, rows)


def _calibration(results: Results) -> Iterator[Block]:
    loo = results.loo
    if loo is None:
        return
    pit, k = loo.pointwise["pit"].to_numpy(), loo.pointwise["pareto_k"].to_numpy()
    inside = [float(((pit >= low) & (pit <= 1.0 - low)).mean()) for low in (0.25, 0.025)]
    told = say(
        "Each row left out in turn and predicted from all others: {} of rows lie in their 50 % "
        "interval and {} in their 95 % interval.",
        *map(percent, inside),
    )
    shares = np.histogram(pit, np.linspace(0.0, 1.0, 21))[0] * 20 / len(pit)
    edges = np.linspace(0.0, 0.95, 20)
    caption = (
        "LOO-PIT: level where predictions are calibrated. A hill means that intervals of single rows "
        "are too wide, a valley that they are too narrow."
    )
    data = pd.DataFrame({"from": edges, "to": edges + 0.05, "share": shares})
    yield Paragraph("Rows left out", "subhead")
    yield picture(plot_loo_pit(loo.pointwise), told, caption, data=data)
    yield Paragraph(
        say(
            "{} Effects of the row's groups were integrated out, so that they could not follow it. "
            "Sum of log predictive densities {} (standard error {}), from {} draws; Pareto k is "
            "below {}, as so many draws ask, in {} of rows, {} at most.",
            told,
            fixed(loo.elpd, 1),
            fixed(loo.std_error, 1),
            count(loo.draws),
            fixed(loo.good_k, 2),
            percent(loo.reliable),
            fixed(float(k.max()), 2),
        )
    )


def _spread(results: Results, unit: str) -> Iterator[Block]:
    fit, growth = results.fit, results.fit.spec.growth
    parts = max(2, min(10, fit.design.n_rows // 5))
    spread = residual_spread(fit, parts=parts)
    what = f"{growth.variable} in {growth.from_year}" if growth else f"expected {unit}"
    outside = [str(decile) for decile in spread.loc[~spread["inside"], "decile"]]
    sentence = say(
        "Rows are split into {} equal groups by {}. The spread of residuals lies inside the 95 % "
        "interval of what the noise of the model would give in {} of {}{}.",
        count(parts),
        what,
        count(parts - len(outside)),
        count(parts),
        quoted(f"; not in group {', '.join(outside)} (1 is the smallest)") if outside else "",
    )
    yield Paragraph("Spread of residuals by size", "subhead")
    yield picture(
        plot_residual_spread(spread, size=f"{what} (median of the group)", unit=unit),
        sentence,
        f"Standard deviation of residuals by {what}, observed and predicted, in {unit}.",
        data=spread,
    )
    yield Paragraph(sentence, "bad" if len(outside) > 2 else "plain")
    rows: list[tuple[Shown, ...]] = []
    for row in spread.to_dict("records"):
        digits = decimals_for((row["ci_high"] - row["ci_low"]) / 4)
        cells = (fixed(row["observed"], digits), fixed(row["predicted"], digits))
        ends = interval(row["ci_low"], row["ci_high"], digits)
        inside = "yes" if row["inside"] else "NO"
        rows.append((count(row["decile"]), number(row["size"]), *cells, ends, inside))
    heads = ("group", "median size", "observed sd", "predicted sd", "95 % interval", "inside")
    yield Table(f"Residual spread by size, in {unit}", heads, rows, "Residual spread as a table")


def _moran(results: Results) -> Iterator[Block]:
    fit = results.fit
    yield Paragraph("Residuals of neighbors", "subhead")
    if fit.weights is None:
        yield Paragraph("Moran's I of residuals is not reported: there are no weights.")
        return
    table = residual_moran(fit)
    if table.empty:
        yield Paragraph("Moran's I of residuals is not reported: too few neighbors in the sample.")
        return
    outside = table[(table["p_value"] < 0.025) | (table["p_value"] > 0.975)]
    overall = table[table["scope"].isin(["regions", "all clusters"]) & (table["of"] == "residuals")]
    told = [
        say(
            "{}: {} {}, chance of one as large without dependence {}",
            {"regions": "Between regions", "all clusters": "Between regions of a cluster"}[
                row["scope"]
            ],
            fixed(row["moran"], 3),
            interval(row["ci_low"], row["ci_high"], 3),
            probability(row["p_value"]),
        )
        for row in overall.to_dict("records")
    ]
    text = say(
        "Moran's I of standardized residuals. "
        + "{}. " * len(told)
        + "Of {} scopes {} are outside "
        "what independent residuals give in 95 % of draws; one in twenty would be by chance.",
        *told,
        count(len(table)),
        count(len(outside)),
    )
    yield picture(
        plot_moran(table),
        text,
        "Posterior of Moran's I of standardized residuals, between regions and within each cluster, "
        "and of region effects that are taken to be independent.",
        data=table,
    )
    yield Paragraph(text)
    yield _moran_table(table)
    if fit.geometry is not None and any(g.name == "region" for g in fit.design.groups):
        frame = regional_residuals(fit)
        unit = str(frame["unit"].iloc[0])
        alt = f"Map of the mean residual of every region, in {unit}."
        caption = f"Mean residual of every region, in {unit}: what its own effect leaves."
        drawn = frame[["group", "unit", "estimate", "ci_low", "ci_high"]]
        yield picture(plot_map(fit, frame), alt, caption, data=drawn, raster=True)


def _moran_table(table: pd.DataFrame) -> Table:
    rows: list[tuple[Shown, ...]] = [
        (
            "region effects" if row["of"] == "effects" else row["scope"],
            count(row["cells"]),
            count(row["links"]),
            fixed(row["moran"], 3),
            interval(row["ci_low"], row["ci_high"], 3),
            interval(row["replicated_low"], row["replicated_high"], 3),
            probability(row["p_value"]),
        )
        for row in table.to_dict("records")
    ]
    heads = ("scope", "cells", "links", "Moran's I", "95 % interval", "if independent", "P(≥)")
    folded = say("Moran's I as a table of {}", count(len(rows)))
    return Table("Moran's I of standardized residuals", heads, rows, folded)
