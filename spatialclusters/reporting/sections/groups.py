"""Effects of clusters, regions and other groups: how large, which, and how sure."""

from __future__ import annotations

from collections.abc import Iterator

from spatialclusters.design import GroupDesign
from spatialclusters.effects import group_effects
from spatialclusters.plots import plot_by_group, plot_map, plot_ranks
from spatialclusters.rankings import rank_levels
from spatialclusters.reporting.blocks import Block, Paragraph, Section
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results, row_name
from spatialclusters.reporting.tables import estimate_table, group_table, rank_table
from spatialclusters.reporting.values import count, fixed, number, say
from spatialclusters.residuals import regional_residuals
from spatialclusters.result import Fit

__all__ = ["group_section", "region_section"]

_DRAWN = ["group", "unit", "estimate", "ci_low", "ci_high", "prob_positive"]
_RANKED = 1000  # levels beyond which ranks say nothing that a table could hold


def group_section(results: Results) -> Section:
    """Show standard deviations, then every group but regions, whose map is a section of its own."""
    fit, frame = results.fit, results.coefficients
    unit = str(fit.design.data.attrs["unit"])
    others = frame[frame["effect"] != "coefficient"]
    caption = f"How much levels of a group differ, and noise: standard deviations in {unit}"
    caption += ", of slopes per unit of the term; correlations"
    caption += "; spatial dependence" if others["effect"].eq("spatial").any() else ""
    blocks: list[Block] = [estimate_table(others, caption)]
    if not fit.design.groups:
        blocks.append(Paragraph("The model has no groups: all rows share its coefficients."))
    convergence = fit.design.label(fit.spec.roles.convergence or "")
    for group in fit.design.groups:
        for column in group.labels:
            if group.name != "region" and column != convergence:
                blocks += _effects(fit, group, column)
    return Section("groups", "Clusters and other groups", "Findings", blocks)


def _effects(fit: Fit, group: GroupDesign, column: str) -> Iterator[Block]:
    """Show one group's intercepts, or slopes, sorted: figure, ranks and table."""
    frame = group_effects(fit, group.name, column)
    what = "Effect" if column == "1" else f"Slope of {column}"
    ordered = frame.sort_values("estimate").to_dict("records")
    low, high, n = ordered[0], ordered[-1], len(frame)
    text = (
        "{} by {}, less the mean of all: {} levels, from {} ({}) to {} ({}), in {}, with 95 % "
        "intervals"
    )
    told = say(
        text + ".",
        what,
        group.name,
        count(n),
        number(low["estimate"]),
        str(low["group"]),
        number(high["estimate"]),
        str(high["group"]),
        str(low["unit"]),
    )
    yield Paragraph(f"{what} by {group.name}", "subhead")
    if group.effect == "fixed":
        yield Paragraph(
            f"Effects of {group.name} are fixed: nothing pulls them to a mean, and they sum to zero."
        )
    shown = frame.sort_values("estimate", ascending=False)
    yield picture(plot_by_group(frame, "coefficient", limit=40), told, told, data=shown[_DRAWN])
    if 1 < n <= _RANKED:
        ranks = rank_levels(fit, group.name, column)
        folded = say("Ranks of {} by {}: table of {}", group.name, what.lower(), count(n))
        yield rank_table(ranks, f"Ranks of {group.name}, 1 the largest {what.lower()}", folded)
    yield group_table(shown, ("coefficient",), f"{what} by {group.name}")


def region_section(results: Results) -> Section:
    """Map the effects of regions, or their residuals, with their certainty."""
    fit, title = results.fit, "Regions"
    group = next((g for g in fit.design.groups if g.name == "region" and "1" in g.labels), None)
    if group is not None:
        frame, what = group_effects(fit, "region"), "region effect"
    else:
        frame, what = regional_residuals(fit), "residual"
    alone = row_name(fit.design) == "region"
    ordered = frame.sort_values("estimate").to_dict("records")
    low, high, unit = ordered[0], ordered[-1], str(ordered[0]["unit"])
    alt = say(
        "The {} of {} regions: lowest {} ({}), highest {} ({}), in {}.",
        what,
        count(len(frame)),
        number(low["estimate"]),
        str(low["group"]),
        number(high["estimate"]),
        str(high["group"]),
        unit,
    )
    mean = "" if group is not None or alone else ", mean of the region's rows"
    meaning = f"What covariates leave unexplained: the {what}{mean}, in {unit}"
    blocks: list[Block] = []
    if group is None and not alone:
        blocks.append(Paragraph("The model has no region effects: shown are mean residuals."))
    shown = frame.sort_values("estimate", ascending=False)
    if fit.geometry is not None:
        caption = f"{meaning}. Strong colors: the sign is known."
        map_ = plot_map(fit, frame)
        blocks.append(picture(map_, say("Map. {}", alt), caption, data=shown[_DRAWN], raster=True))
    else:
        drawn = plot_by_group(frame, "coefficient" if group is not None else "prediction", limit=40)
        blocks.append(picture(drawn, alt, f"{meaning}, with 95 % intervals.", data=shown[_DRAWN]))
        hint = "A map needs the shapes of the regions: refit with --regions FILE."
        blocks.append(Paragraph(hint))
    if group is not None and len(frame) > 1:
        blocks += _ranks(fit, len(frame))
    blocks.append(group_table(shown, (str(frame["effect"].iloc[0]),), f"The {what} by region"))
    return Section("regions", title, "Findings", blocks)


def _ranks(fit: Fit, n: int) -> Iterator[Block]:
    ranks = rank_levels(fit, "region")
    first = ranks.iloc[0]
    alt = say(
        "Ranks of {} regions by their effect, 95 % intervals: lowest mean rank {} ({}).",
        count(n),
        fixed(first["rank"], 1),
        str(first["group"]),
    )
    caption = (
        "Rank of regions by their effect, 1 the largest: means and 95 % intervals of the posterior."
    )
    yield picture(plot_ranks(ranks, limit=30), alt, caption, data=ranks)
    folded = say("Ranks of regions: table of {}", count(n))
    yield rank_table(ranks, "Ranks of regions by their effect", folded)
