"""Convergence and specialization, overall and by cluster."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from spatialclusters.plots import (
    convergence_paths,
    plot_by_group,
    plot_convergence_paths,
    plot_ranks,
)
from spatialclusters.rankings import rank_levels
from spatialclusters.reporting.blocks import Block, Paragraph, Picture, Section
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import OVERALL, estimate_table, group_table, rank_table
from spatialclusters.reporting.values import count, fixed, number, probability, say
from spatialclusters.spillovers import term_impacts

__all__ = ["convergence_section", "specialization_section"]

_DRAWN = ["group", "unit", "estimate", "ci_low", "ci_high"]


def convergence_section(results: Results) -> Section:
    """Show change, speed and half-life: overall, over the years, and by group."""
    frame, title = results.convergence, "Convergence"
    if frame is None:
        text = "Not reported: the model names no convergence term ([roles] with [growth])."
        return Section("convergence", title, "Findings", [Paragraph(text)])
    overall = frame[frame["group"].isin(OVERALL)]
    below, negative = _share_of_overshooting(results), 1.0 - overall["prob_positive"].iloc[0]
    blocks: list[Block] = [
        estimate_table(overall, "Convergence overall; speed and half-life are medians", units=True),
        *_alone_or_all(overall),
        Paragraph(
            say(
                "Probability that the total change B is negative: {}; that it is −1 or less, so "
                "that initial differences are overshot: {}.",
                probability(negative),
                probability(below),
            )
        ),
        _paths(frame),
    ]
    by_group = frame[~frame["group"].isin(OVERALL)]
    if not by_group.empty:
        blocks += [_speed_picture(frame, by_group), *_ranks(results)]
        effects = ("change", "speed", "half_life")
        blocks.append(group_table(by_group, effects, "Convergence by group"))
    return Section("convergence", title, "Findings", blocks)


def _alone_or_all(overall: pd.DataFrame) -> Iterator[Paragraph]:
    if overall["group"].eq("common").any():
        yield Paragraph(
            "With spatial lags it matters who is higher: the first rows, and those by group, are "
            "direct impacts, of one row alone; rows “if all are higher” are total impacts."
        )


def _paths(frame: pd.DataFrame) -> Picture:
    paths = convergence_paths(frame)
    last = paths[paths["group"] == "overall"].iloc[-1]
    alt = say(
        "Curves that fall over the years: after {} years {} % of a gap is left overall.",
        count(last["year"]),
        fixed(100.0 * last["left"], 0),
    )
    caption = (
        "What is left of a gap over the years, if convergence went on at the speed of the period: "
        "medians with 95 % intervals. That is arithmetic, not a forecast."
    )
    data = paths[paths["year"] % 10 == 0]
    return picture(plot_convergence_paths(paths), alt, caption, data=data)


def _speed_picture(frame: pd.DataFrame, by_group: pd.DataFrame) -> Picture:
    """Plot the speeds, or the changes where overshooting makes every speed infinite."""
    finite = np.isfinite(by_group["estimate"])
    effect = "speed" if (finite & (by_group["effect"] == "speed")).any() else "change"
    rows = by_group[finite & (by_group["effect"] == effect)].sort_values("estimate")
    slowest, fastest = rows.to_dict("records")[0], rows.to_dict("records")[-1]
    alt = say(
        "The {} of {} groups with 95 % intervals, sorted: from {} ({}) to {} ({}), {}.",
        effect,
        count(len(rows)),
        number(slowest["estimate"]),
        str(slowest["group"]),
        number(fastest["estimate"]),
        str(fastest["group"]),
        str(slowest["unit"]),
    )
    caption = (
        "Speed of convergence by group, per year. Half-life is ln 2 / speed. Effects of small "
    )
    caption += "groups are pulled to the mean: the order of neighbors in this list is mostly noise."
    return picture(
        plot_by_group(frame, effect), alt, caption if effect == "speed" else alt, data=rows[_DRAWN]
    )


def _ranks(results: Results) -> Iterator[Block]:
    """Rank the slopes of convergence, where a group has them."""
    role, design = results.fit.spec.roles.convergence, results.fit.design
    assert role is not None
    for group in design.groups:
        if design.label(role) in group.labels and len(group.levels) > 1:
            frame = rank_levels(results.fit, group.name, design.label(role), ascending=True)
            first = frame.iloc[0]
            alt = say(
                "Ranks of {} levels of {} by speed: lowest mean rank {} ({}), 95 % intervals.",
                count(len(frame)),
                group.name,
                fixed(first["rank"], 1),
                str(first["group"]),
            )
            caption = (
                f"Rank of every {group.name} by speed of convergence, 1 the fastest: how sure the "
                "order is. Wide intervals say that the ranking above must not be quoted."
            )
            folded = say("Ranks by speed: table of {}", count(len(frame)))
            yield picture(plot_ranks(frame), alt, caption, data=frame)
            yield rank_table(frame, f"Ranks of {group.name} by speed of convergence", folded)


def _share_of_overshooting(results: Results) -> float:
    design, role = results.fit.design, results.fit.spec.roles.convergence
    assert role is not None
    assert design.years is not None
    _, draws, _ = next(term_impacts(results.fit, design.label(role)))
    return float(np.mean(draws * (design.years if design.annualized else 1.0) <= -1.0))


def specialization_section(results: Results) -> Section:
    """Show what strengths do, overall and by group."""
    frame, title = results.specialization, "Specialization"
    if frame is None:
        text = "Not reported: the model names no specialization terms ([roles])."
        return Section("specialization", title, "Findings", [Paragraph(text)])
    overall = frame[frame["group"].isin(OVERALL)]
    caption = f"Effects of strength, in {overall['unit'].iloc[0]}"
    blocks: list[Block] = [estimate_table(overall, caption), *_alone_or_all(overall)]
    by_group = frame[~frame["group"].isin(OVERALL)]
    for term in dict.fromkeys(by_group["term"]):
        rows = by_group[by_group["term"] == term]
        alt = f"Effect of one standard deviation more {term} by group, sorted, with 95 % intervals."
        shown = plot_by_group(frame[frame["term"] == term], "per_sd")
        caption = f"One standard deviation more {term}, by group, in {rows['unit'].iloc[0]}."
        drawn = rows.loc[rows["effect"] == "per_sd", _DRAWN]
        blocks.append(picture(shown, alt, caption, data=drawn))
        effects = tuple(dict.fromkeys(rows["effect"]))
        blocks.append(group_table(rows, effects, f"{term} by group"))
    return Section("specialization", title, "Findings", blocks)
