"""What came out of a fit: one section each, in reading order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from spatialclusters.comparison import compare
from spatialclusters.diagnostics import residual_spread
from spatialclusters.effects import group_effects
from spatialclusters.estimates import estimates_frame
from spatialclusters.gaps import expected_gaps
from spatialclusters.plots import (
    plot_by_group,
    plot_coefficients,
    plot_impacts,
    plot_map,
    plot_predictive,
    plot_residual_spread,
    plot_spillover_decay,
)
from spatialclusters.processes import outcome_process
from spatialclusters.reporting.blocks import Block, Notes, Paragraph, Picture, Section, Table
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.headline import Results
from spatialclusters.reporting.sections import row_name
from spatialclusters.reporting.tables import (
    EFFECT_NAMES,
    OVERALL,
    beside,
    detail_table,
    digits_of,
    group_table,
    impact_table,
)
from spatialclusters.reporting.text import decimals_for, fixed, interval, number, probability
from spatialclusters.result import Fit
from spatialclusters.spillovers import (
    approximation,
    impacts_by_order,
    regional_impacts,
    term_impacts,
)
from spatialclusters.summaries import summarize_draws

__all__ = ["result_sections"]


def result_sections(results: Results) -> Iterator[Section]:
    """Yield the sections of results in reading order."""
    yield _coefficient_section(results)
    yield _convergence_section(results)
    yield _specialization_section(results)
    if results.impacts is not None:
        yield _impact_section(results, results.impacts)
    yield _region_section(results.fit)
    yield _fit_section(results.fit)
    yield _frequentist_section(results)


def _coefficient_section(results: Results) -> Section:
    frame = results.coefficients
    unit = str(results.fit.design.data.attrs["unit"])
    betas = frame[frame["effect"] == "coefficient"]
    others = frame[frame["effect"] != "coefficient"]
    blocks: list[Block] = [
        detail_table(
            betas,
            f"Coefficients in {unit} per unit of the covariate (a log point for logs); posterior "
            "means with 95 % equal-tailed intervals",
        )
    ]
    if results.impacts is not None:
        blocks.append(
            Paragraph("With spatial lags what a covariate does is in the section Impacts.")
        )
    if results.fit.design.terms:
        blocks.append(
            picture(
                plot_coefficients(frame, results.frequentist.estimates),
                f"Coefficients with 95 % intervals by estimator. Posterior: {_spoken(betas)}.",
                "Coefficients with 95 % intervals: the posterior beside frequentist estimates on "
                "the same rows.",
            )
        )
    caption = "Standard deviations of group effects and noise, and correlations"
    caption += "; spatial dependence" if others["effect"].eq("spatial").any() else ""
    blocks.append(detail_table(others, caption))
    return Section("coefficients", "Coefficients", blocks)


def _convergence_section(results: Results) -> Section:
    frame, title = results.convergence, "Convergence"
    if frame is None:
        text = "The model names no convergence term ([roles] with [growth])."
        return Section("convergence", title, [Paragraph(text)])
    overall = frame[frame["group"].isin(OVERALL)]
    below = _share_of_overshooting(results)
    blocks: list[Block] = [
        detail_table(overall, "Convergence overall; speed and half-life are medians", units=True),
        *_alone_or_all(overall),
        Paragraph(
            f"Probability that the total change B is negative: "
            f"{probability(1.0 - overall['prob_positive'].iloc[0])}; that it is −1 or less, so that "
            f"initial differences are overshot: {probability(below)}."
        ),
    ]
    by_group = frame[~frame["group"].isin(OVERALL)]
    if not by_group.empty:
        blocks.append(_speed_picture(frame, by_group))
        effects = ("change", "speed", "half_life")
        blocks.append(group_table(by_group, effects, "Convergence by group"))
    return Section("convergence", title, blocks)


def _alone_or_all(overall: pd.DataFrame) -> Iterator[Paragraph]:
    if overall["group"].eq("common").any():
        yield Paragraph(
            "With spatial lags it matters who is higher: the first rows, and those by group, are "
            "direct impacts, of one row alone; rows “if all are higher” are total impacts."
        )


def _speed_picture(frame: pd.DataFrame, by_group: pd.DataFrame) -> Picture:
    """Plot the speeds, or the changes where overshooting makes every speed infinite."""
    finite = np.isfinite(by_group["estimate"])
    effect = "speed" if (finite & (by_group["effect"] == "speed")).any() else "change"
    rows = by_group[finite & (by_group["effect"] == effect)].sort_values("estimate")
    slowest, fastest = rows.to_dict("records")[0], rows.to_dict("records")[-1]
    alt = (
        f"The {effect} of {len(rows)} groups with 95 % intervals, sorted: from "
        f"{number(slowest['estimate'])} ({slowest['group']}) to {number(fastest['estimate'])} "
        f"({fastest['group']}), {slowest['unit']}."
    )
    caption = "Speed of convergence by group, per year. Half-life is ln 2 / speed."
    return picture(plot_by_group(frame, effect), alt, caption if effect == "speed" else alt)


def _share_of_overshooting(results: Results) -> float:
    design, role = results.fit.design, results.fit.spec.roles.convergence
    assert role is not None
    assert design.years is not None
    _, draws, _ = next(term_impacts(results.fit, design.label(role)))
    return float(np.mean(draws * (design.years if design.annualized else 1.0) <= -1.0))


def _specialization_section(results: Results) -> Section:
    frame, title = results.specialization, "Specialization"
    if frame is None:
        text = "The model names no specialization terms ([roles])."
        return Section("specialization", title, [Paragraph(text)])
    overall = frame[frame["group"].isin(OVERALL)]
    caption = f"Effects of strength, in {overall['unit'].iloc[0]}"
    blocks: list[Block] = [detail_table(overall, caption), *_alone_or_all(overall)]
    by_group = frame[~frame["group"].isin(OVERALL)]
    for term in dict.fromkeys(by_group["term"]):
        rows = by_group[by_group["term"] == term]
        alt = f"Effect of one standard deviation more {term} by group, sorted, with 95 % intervals."
        shown = plot_by_group(frame[frame["term"] == term], "per_sd")
        blocks.append(picture(shown, alt, f"One standard deviation more {term}, by group."))
        effects = tuple(dict.fromkeys(rows["effect"]))
        blocks.append(group_table(rows, effects, f"{term} by group"))
    return Section("specialization", title, blocks)


def _impact_section(results: Results, frame: pd.DataFrame) -> Section:
    fit, row = results.fit, row_name(results.fit.design)
    role = fit.spec.roles.convergence
    label = fit.design.label(role) if role else ""
    term = label if label in set(frame["term"]) else str(frame["term"].iloc[0])
    caption = f"Impacts, in {frame['unit'].iloc[0]}, of a change in one {row}"
    if frame["group"].eq("cell").any():
        caption += " (row), and in all industries of a region-cluster (cell)"
    unit = str(fit.design.data.attrs["unit"])
    blocks: list[Block] = [
        Paragraph(
            f"The direct impact is what one unit more of a covariate in one {row} does there, feedback "
            "through neighbors included; the indirect impact is what it does in all others together; "
            f"the total is their sum, and also what happens to a {row} if all change. All were "
            "computed draw by draw from the coefficients and the spatial weights, never at "
            "posterior means."
        ),
        impact_table(frame, caption),
        *([Paragraph(text)] if (text := approximation(fit)) else []),
        picture(
            plot_impacts(fit),
            f"Direct, indirect and total impacts with 95 % intervals, a change in one {row}. "
            f"{_spoken_impacts(frame)}.",
            f"Direct, indirect and total impacts of a change in one {row}, with 95 % intervals.",
        ),
        *_decay(fit, term, unit),
    ]
    if fit.geometry is not None:
        given = regional_impacts(fit, term).query("effect == 'spill_out'")
        where = row if row == "region" else f"{row} of the region"
        text = f"What one unit more {term} in a {where} does in all others together"
        ordered = given.sort_values("estimate").to_dict("records")
        alt = "; ".join(f"{which} {each['group']}, {number(each['estimate'])}" for which, each in
                        (("least", ordered[0]), ("most", ordered[-1])))  # fmt: skip
        shown = picture(plot_map(fit, given), f"Map. {text}: {alt}.", f"{text}.", raster=True)
        blocks.append(shown)
    return Section("impacts", "Impacts", blocks)


def _decay(fit: Fit, term: str, unit: str) -> Iterator[Block]:
    """Show how impacts pass from neighbor to neighbor, where they do."""
    if "rho" not in fit.posterior:
        yield Paragraph(
            "The response is not lagged: impacts reach neighbors, and go no further (a local "
            "spillover)."
        )
        return
    orders, _ = impacts_by_order(fit, term)
    spoken = ", ".join(number(each.mean()) for each in orders)
    yield picture(
        plot_spillover_decay(fit, term),
        f"Total impact of {term} by order of neighbors, from 0: {spoken} ({unit}).",
        f"How the total impact of {term} builds up: order 0 is the coefficient, order 1 what "
        "passes to neighbors, order 2 what passes on from there.",
    )


def _spoken_impacts(frame: pd.DataFrame) -> str:
    rows = frame.drop_duplicates(["term", "effect"]).head(9).to_dict("records")
    return "; ".join(
        f"{row['term']} {row['effect']} {fixed(row['estimate'], digits_of(row))}" for row in rows
    )


def _region_section(fit: Fit) -> Section:
    title, groups = "Regions", [group.name for group in fit.design.groups]
    if "region" in groups and "1" in fit.design.groups[groups.index("region")].labels:
        frame, what = group_effects(fit, "region"), "region effect"
    elif row_name(fit.design) == "region":
        frame, what = _residuals(fit), "residual"
    else:
        text = "The model has no region effects."
        return Section("regions", title, [Paragraph(text)])
    ordered = frame.sort_values("estimate").to_dict("records")
    low, high, unit = ordered[0], ordered[-1], ordered[0]["unit"]
    alt = (
        f"The {what} of {len(frame)} regions: lowest {number(low['estimate'])} ({low['group']}), "
        f"highest {number(high['estimate'])} ({high['group']}), in {unit}."
    )
    meaning = f"What covariates leave unexplained: the {what}, in {unit}, with 95 % intervals."
    blocks: list[Block] = []
    if fit.geometry is not None:
        caption = f"{meaning} Pale, hatched regions: the interval contains zero."
        blocks.append(picture(plot_map(fit, frame), f"Map. {alt}", caption, raster=True))
    else:
        blocks.append(picture(plot_by_group(frame, "coefficient", limit=40), alt, meaning))
        hint = "A map needs the shapes of the regions: refit with --regions FILE."
        blocks.append(Paragraph(hint))
    blocks.append(group_table(frame, ("coefficient",), f"The {what} by region"))
    return Section("regions", title, blocks)


def _residuals(fit: Fit) -> pd.DataFrame:
    """Summarize the noise by region, where every row is a region: y less what it is expected at.

    With a process of the outcome that is what covariates and neighbors leave unexplained.
    """
    design, process = fit.design, outcome_process(fit.spec, fit.design)
    rho, lam = (fit.draws(name)[..., None] if name in fit.spec.spatial.parameters else 0.0
                for name in ("rho", "lambda"))  # fmt: skip
    noise = np.broadcast_to(design.y, (*fit.draws("sigma").shape, design.n_rows)).copy()
    if design.intercept:
        noise -= fit.draws("intercept")[..., None]
    if design.terms:
        noise -= fit.draws("coefficient") @ (design.X - design.data["center"].values).T
    if process is not None:
        noise -= rho * (process.lag @ design.y)
        lagged = noise.reshape(-1, design.n_rows) @ process.lag.matrix.T
        noise -= lam * lagged.reshape(noise.shape)
    base = {"term": "residual", "effect": "coefficient", "unit": str(design.data.attrs["unit"])}
    return estimates_frame(
        {**base, "group": str(region), **summarize_draws(noise[..., i], family=True)}
        for i, region in enumerate(design.data["row_region"].values)
    )


def _fit_section(fit: Fit) -> Section:
    unit, growth = str(fit.design.data.attrs["unit"]), fit.spec.growth
    parts = max(2, min(10, fit.design.n_rows // 5))
    spread = residual_spread(fit, parts=parts)
    what = f"{growth.variable} in {growth.from_year}" if growth else f"expected {unit}"
    outside = [str(decile) for decile in spread.loc[~spread["inside"], "decile"]]
    sentence = (
        f"Rows are split into {parts} equal groups by {what}. The observed spread of residuals lies "
        f"inside its 95 % predictive interval in {parts - len(outside)} of {parts}"
        + (f"; not in group {', '.join(outside)} (1 is the smallest)." if outside else ".")
    )
    blocks: list[Block] = [
        picture(
            plot_predictive(fit),
            f"Distribution of the observed response ({unit}) over that of responses replicated "
            "from the posterior.",
            "Posterior predictive check: the observed response should look like one of the "
            "replicated.",
        ),
        Paragraph(sentence, "bad" if outside else "plain"),
        picture(
            plot_residual_spread(spread, size=f"{what} (median of the group)", unit=unit),
            sentence,
            f"Standard deviation of residuals by {what}, observed and predicted.",
        ),
        _spread_table(spread),
    ]
    return Section("fit", "Does the model describe the data?", blocks)


def _spread_table(spread: pd.DataFrame) -> Table:
    rows = []
    for row in spread.to_dict("records"):
        digits = decimals_for((row["ci_high"] - row["ci_low"]) / 4)
        cells = (fixed(row["observed"], digits), fixed(row["predicted"], digits))
        ends = interval(row["ci_low"], row["ci_high"], digits)
        inside = "yes" if row["inside"] else "NO"
        rows.append((str(row["decile"]), number(row["size"]), *cells, ends, inside))
    heads = ("group", "median size", "observed sd", "predicted sd", "95 % interval", "inside")
    return Table("Residual spread by size", heads, rows, folded="Residual spread as a table")


def _frequentist_section(results: Results) -> Section:
    other, blocks = results.frequentist, [_side_by_side(results)]
    for title, items in (
        ("How the frequentist estimates were made", list(other.notes)),
        (
            "Where gaps between the columns are expected",
            expected_gaps(results.fit, results.frequentist),
        ),
    ):
        blocks += [Notes(title, items)] if items else []
    if other.moran is not None:
        found = other.moran
        sentence = (
            f"Moran's I of the OLS residuals: {number(found['statistic'])} (expected "
            f"{number(found['expected'])} without spatial dependence, z = {fixed(found['z'], 2)}, "
            f"p {_p_value(found['p_value'])})."
        )
        blocks.append(Paragraph(sentence))
    return Section("frequentist", "Beside frequentist estimates", blocks)


def _side_by_side(results: Results) -> Block:
    """Lay out what both sides estimate; the change is the coefficient once more."""
    side = compare(results.fit, results.frequentist)
    names = list(dict.fromkeys(side.columns.get_level_values("estimator")))
    parts = {name: side[name].to_dict("records") for name in names}
    rows = []
    for i, (term, effect) in enumerate(side.index.to_list()):
        found = [parts[name][i] for name in names]
        digits = decimals_for(*(each["std_error"] for each in found))
        shown = [beside(each, digits) for each in found]
        if effect != "change" and shown[0] != "—" and any(cell != "—" for cell in shown[1:]):
            named = f": {EFFECT_NAMES[effect]}" if effect in EFFECT_NAMES else ""
            rows.append((f"{term}{named}", *shown))
    caption = (
        "Estimates on the same rows, with 95 % intervals; in braces (posterior − estimate) / "
        "standard error"
    )
    return Table(caption, ("term", *names), rows)


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {fixed(value, 4)}"


def _spoken(frame: pd.DataFrame) -> str:
    rows = frame[frame["term"] != "intercept"].head(8).to_dict("records")
    return "; ".join(
        f"{row['term']} {fixed(row['estimate'], digits_of(row))} "
        f"{interval(row['ci_low'], row['ci_high'], digits_of(row))}"
        for row in rows
    )
