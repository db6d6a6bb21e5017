"""What came out of a fit: one section each, in reading order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from spatialclusters.comparison import compare, expected_gaps
from spatialclusters.diagnostics import residual_spread
from spatialclusters.effects import group_effects, summarize_draws
from spatialclusters.estimates import estimates_frame
from spatialclusters.plots import (
    plot_by_group,
    plot_coefficients,
    plot_map,
    plot_predictive,
    plot_residual_spread,
)
from spatialclusters.reporting.blocks import Block, Notes, Paragraph, Section, Table
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.headline import Results
from spatialclusters.reporting.sections import row_name
from spatialclusters.reporting.tables import (
    EFFECT_NAMES,
    beside,
    detail_table,
    digits_of,
    group_table,
)
from spatialclusters.reporting.text import decimals_for, fixed, interval, number, probability
from spatialclusters.result import Fit

__all__ = ["result_sections"]


def result_sections(results: Results) -> Iterator[Section]:
    """Yield the sections of results in reading order."""
    yield _coefficient_section(results)
    yield _convergence_section(results)
    yield _specialization_section(results)
    yield _region_section(results.fit)
    yield _fit_section(results.fit)
    yield _frequentist_section(results)


def _coefficient_section(results: Results) -> Section:
    frame = results.coefficients
    unit = str(results.fit.design.data.attrs["unit"])
    fixed_effects = frame[frame["effect"] == "coefficient"]
    others = frame[frame["effect"] != "coefficient"]
    blocks: list[Block] = [
        detail_table(
            fixed_effects,
            f"Coefficients in {unit} per unit of the covariate (a log point for logs); posterior means "
            "with 95 % equal-tailed intervals",
        )
    ]
    if results.fit.design.terms:
        blocks.append(
            picture(
                plot_coefficients(frame, results.frequentist.estimates),
                f"Coefficients with 95 % intervals by estimator. Posterior: {_spoken(fixed_effects)}.",
                "Coefficients with 95 % intervals: the posterior beside frequentist estimates on the same rows.",
            )
        )
    caption = "Standard deviations of group effects and noise, and correlations"
    blocks.append(detail_table(others, caption))
    return Section("coefficients", "Coefficients", blocks)


def _convergence_section(results: Results) -> Section:
    frame, title = results.convergence, "Convergence"
    if frame is None:
        text = "The model names no convergence term ([roles] and [growth]), so there is nothing to show."
        return Section("convergence", title, [Paragraph(text)])
    overall = frame[frame["group"] == "overall"]
    below = _share_of_overshooting(results)
    blocks: list[Block] = [
        detail_table(overall, "Convergence overall; speed and half-life are medians", units=True),
        Paragraph(
            f"Probability that the total change B is negative: "
            f"{probability(1.0 - overall['prob_positive'].iloc[0])}; that it is −1 or less, so that "
            f"initial differences are overshot: {probability(below)}."
        ),
    ]
    by_group = frame[frame["group"] != "overall"]
    if not by_group.empty:
        speeds = by_group[by_group["effect"] == "speed"].sort_values("estimate")
        fastest, slowest = speeds.iloc[-1], speeds.iloc[0]
        alt = (
            f"Speed of convergence of {len(speeds)} groups with 95 % intervals, sorted: from "
            f"{number(slowest['estimate'])} ({slowest['group']}) to {number(fastest['estimate'])} "
            f"({fastest['group']}) per year."
        )
        figure = plot_by_group(frame, "speed")
        blocks.append(
            picture(
                figure, alt, "Speed of convergence by group, per year. Half-life is ln 2 / speed."
            )
        )
        blocks.append(
            group_table(by_group, ("change", "speed", "half_life"), "Convergence by group")
        )
    return Section("convergence", title, blocks)


def _share_of_overshooting(results: Results) -> float:
    design, role = results.fit.design, results.fit.spec.roles.convergence
    assert role is not None
    assert design.years is not None
    draws = results.fit.draws("coefficient")[..., design.terms.index(design.label(role))]
    return float(np.mean(draws * (design.years if design.annualized else 1.0) <= -1.0))


def _specialization_section(results: Results) -> Section:
    frame, title = results.specialization, "Specialization"
    if frame is None:
        text = "The model names no specialization terms ([roles]), so there is nothing to show."
        return Section("specialization", title, [Paragraph(text)])
    overall = frame[frame["group"] == "overall"]
    caption = f"Effects of strength, in {overall['unit'].iloc[0]}"
    blocks: list[Block] = [detail_table(overall, caption)]
    by_group = frame[frame["group"] != "overall"]
    for term in dict.fromkeys(by_group["term"]):
        rows = by_group[by_group["term"] == term]
        alt = f"Effect of one standard deviation more {term} by group, sorted, with 95 % intervals."
        shown = plot_by_group(frame[frame["term"] == term], "per_sd")
        blocks.append(picture(shown, alt, f"One standard deviation more {term}, by group."))
        effects = tuple(dict.fromkeys(rows["effect"]))
        blocks.append(group_table(rows, effects, f"{term} by group"))
    return Section("specialization", title, blocks)


def _region_section(fit: Fit) -> Section:
    title, groups = "Regions", [group.name for group in fit.design.groups]
    if "region" in groups and "1" in fit.design.groups[groups.index("region")].labels:
        frame, what = group_effects(fit, "region"), "region effect"
    elif row_name(fit.design) == "region":
        frame, what = _residuals(fit), "residual"
    else:
        text = "The model has no region effects."
        return Section("regions", title, [Paragraph(text)])
    low, high = frame.loc[frame["estimate"].idxmin()], frame.loc[frame["estimate"].idxmax()]
    alt = (
        f"The {what} of {len(frame)} regions: lowest {number(low['estimate'])} ({low['group']}), highest "
        f"{number(high['estimate'])} ({high['group']}), in {low['unit']}."
    )
    meaning = (
        f"What the covariates leave unexplained: the {what}, in {low['unit']}, with 95 % intervals."
    )
    blocks: list[Block] = []
    if fit.geometry is not None:
        caption = f"{meaning} Pale, hatched regions: the interval contains zero."
        blocks.append(picture(plot_map(fit, frame), f"Map. {alt}", caption, raster=True))
    else:
        blocks.append(picture(plot_by_group(frame, "coefficient"), alt, meaning))
        hint = "A map needs the shapes of the regions: refit with --regions FILE (GeoJSON or a shapefile)."
        blocks.append(Paragraph(hint))
    blocks.append(group_table(frame, ("coefficient",), f"The {what} by region"))
    return Section("regions", title, blocks)


def _residuals(fit: Fit) -> pd.DataFrame:
    """Summarize y minus its expectation by region, where every row is a region."""
    design = fit.design
    mean = fit.draws("coefficient") @ (design.X - design.data["center"].values).T
    if design.intercept:
        mean = mean + fit.draws("intercept")[..., None]
    regions = design.data["row_region"].values
    return estimates_frame(
        {"term": "residual", "effect": "coefficient", "group": str(region),
         "unit": str(fit.design.data.attrs["unit"]), **summarize_draws(design.y[i] - mean[..., i], family=True)}
        for i, region in enumerate(regions)
    )  # fmt: skip


def _fit_section(fit: Fit) -> Section:
    unit = str(fit.design.data.attrs["unit"])
    parts = max(2, min(10, fit.design.n_rows // 5))
    spread = residual_spread(fit, parts=parts)
    growth = fit.spec.growth
    what = f"{growth.variable} in {growth.from_year}" if growth else f"expected {unit}"
    inside = int(spread["inside"].sum())
    outside = [str(row.decile) for row in spread.itertuples() if not row.inside]
    sentence = (
        f"Rows are split into {parts} equal groups by {what}. The observed spread of residuals lies inside "
        f"its 95 % predictive interval in {inside} of {parts}"
        + (f"; not in group {', '.join(outside)} (1 is the smallest)." if outside else ".")
    )
    heads = ("group", "median size", "observed sd", "predicted sd", "95 % interval", "inside")
    rows = []
    for row in spread.itertuples():
        digits = decimals_for(row.ci_high - row.ci_low)
        rows.append((str(row.decile), number(row.size), fixed(row.observed, digits), fixed(row.predicted, digits),
                     interval(row.ci_low, row.ci_high, digits), "yes" if row.inside else "NO"))  # fmt: skip
    blocks: list[Block] = [
        picture(
            plot_predictive(fit),
            f"Distribution of the observed response ({unit}) over that of responses replicated from the posterior.",
            "Posterior predictive check: the observed response should look like one of the replicated.",
        ),
        Paragraph(sentence, "plain" if inside == parts else "bad"),
        picture(
            plot_residual_spread(spread, size=f"{what} (median of the group)", unit=unit),
            sentence,
            f"Standard deviation of residuals by {what}, observed and predicted.",
        ),
        Table("Residual spread by size", heads, rows, folded="Residual spread as a table"),
    ]
    return Section("fit", "Does the model describe the data?", blocks)


def _frequentist_section(results: Results) -> Section:
    other = results.frequentist
    side = compare(results.fit, other)
    names = list(dict.fromkeys(side.columns.get_level_values("estimator")))
    rows = []
    for (term, effect), row in side.iterrows():
        digits = decimals_for(*(row[name]["std_error"] for name in names))
        shown = [beside(row[name], digits) for name in names]
        label = (
            term
            if effect in ("coefficient", "sd", "correlation")
            else f"{term}: {EFFECT_NAMES.get(effect, effect)}"
        )
        if any(cell != "—" for cell in shown[1:]):
            rows.append((label, *shown))
    caption = "Estimates side by side on the same rows, with 95 % intervals; in braces (posterior − estimate) / standard error"
    blocks: list[Block] = [Table(caption, ("term", *names), rows)] if rows else []
    for title, items in (
        ("How the frequentist estimates were made", list(other.notes)),
        ("Where gaps between the columns are expected", expected_gaps(results.fit, other)),
    ):
        if items:
            blocks.append(Notes(title, items))
    if other.moran is not None:
        found = other.moran
        blocks.append(
            Paragraph(
                f"Moran's I of the OLS residuals: {number(found['statistic'])} (expected "
                f"{number(found['expected'])} without spatial dependence, z = {fixed(found['z'], 2)}, "
                f"p {_p_value(found['p_value'])})."
            )
        )
    return Section("frequentist", "Beside frequentist estimates", blocks)


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {fixed(value, 4)}"


def _spoken(frame: pd.DataFrame) -> str:
    rows = frame[frame["term"] != "intercept"].head(8).to_dict("records")
    return "; ".join(
        f"{row['term']} {fixed(row['estimate'], digits_of(row))} "
        f"{interval(row['ci_low'], row['ci_high'], digits_of(row))}"
        for row in rows
    )
