"""The model in mathematics, its groups, and its priors with what they mean."""

from __future__ import annotations

from typing import Final

from spatialclusters.design import Design
from spatialclusters.parameters import WIDE, model_priors
from spatialclusters.priors import describe_priors
from spatialclusters.reporting.blocks import Block, Code, Notes, Paragraph, Section, Table
from spatialclusters.reporting.equations import equation, space_sentences
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.values import Shown, count, quoted, say

__all__ = ["model_section"]

_STRUCTURES: Final = {
    "iid": "none: independent",
    "icar": "ICAR",
    "car": "proper CAR",
    "leroux": "Leroux",
    "bym2": "BYM2",
    "sar": "SAR",
}
_LINKS: Final = {
    "symmetric": "",
    "union": ", neighbors if either is linked to the other",
    "mutual": ", neighbors if both are linked to each other",
}
_EFFECTS: Final = {
    "random": "random",
    "correlated": "random, plus the group's means of the covariates (Mundlak)",
    "fixed": f"fixed: a prior sd of {WIDE:g} response sds",
}


def model_section(results: Results) -> Section:
    """Typeset the equation; list groups, and priors with what they mean."""
    fit = results.fit
    spec, design = fit.spec, fit.design
    blocks: list[Block] = [Paragraph(line, "equation") for line in equation(fit)]
    less = ", less rho times that of its neighbors" if "rho" in spec.spatial.parameters else ""
    if design.intercept:
        blocks.append(
            Paragraph(
                "Covariates enter centered at their sample means: the intercept is the expected "
                f"response of an average row{less}."
            )
        )
    blocks.append(Code(spec.formula))
    if told := " ".join(space_sentences(fit)):
        blocks.insert(-1, Paragraph(quoted(told)))
    if spec.description:
        blocks.insert(0, Paragraph(spec.description))
    if design.groups:
        blocks.append(_groups_table(design))
    priors = describe_priors(
        model_priors(spec, design),
        response_unit=str(design.data.attrs["unit"]),
        covariate_sd=dict(zip(design.terms, design.data["scale"].values.tolist(), strict=True)),
        annualize=(1.0 if design.annualized else design.years) if design.years else None,
    )
    rows: list[tuple[Shown, ...]] = [
        (str(row[0]), quoted(str(row[1])), str(row[2]), quoted(str(row[3])))
        for row in priors.itertuples(index=False)
    ]
    folded = say("Priors of {} parameters", count(len(rows))) if len(rows) > 12 else ""
    blocks.append(Table("Priors, and what they mean", tuple(priors.columns), rows, folded))
    if design.record["notes"]:
        blocks.append(Notes("Notes on the design", [quoted(n) for n in design.record["notes"]]))
    return Section("model", "Model", "What it rests on", blocks)


def _groups_table(design: Design) -> Table:
    singletons = {name: entry["singletons"] for name, entry in design.record["groups"].items()}
    rows: list[tuple[Shown, ...]] = [
        (
            group.name,
            count(len(group.levels)),
            count(singletons.get(group.name, 0)),
            _EFFECTS[group.effect],
            _STRUCTURES[group.structure] + _LINKS[group.links],
            ", ".join("intercept" if x == "1" else x for x in group.labels),
        )
        for group in design.groups
    ]
    heads = ("group", "levels", "with one row", "effects", "spatial structure", "what varies")
    return Table("Groups", heads, rows)
