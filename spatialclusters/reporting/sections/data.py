"""What the data are, what their gaps count as, and which rows are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from spatialclusters.design import Design
from spatialclusters.reporting.blocks import Block, Notes, Paragraph, Section, Table
from spatialclusters.reporting.origins import origin_blocks
from spatialclusters.reporting.results import Results, row_name
from spatialclusters.reporting.values import (
    Shown,
    count,
    fixed,
    join,
    number,
    percent,
    quoted,
    say,
)
from spatialclusters.reporting.verdicts import data_cautions
from spatialclusters.result import Fit

__all__ = ["data_section"]

_ABSENT: Final = {"zero": "zero", "withheld": "withheld"}
_WITHHELD: Final = {
    "zero": "zero",
    "lower": "the sum of what is published (a lower bound)",
    "filled": "a filled-in value",
    "missing": "unknown, and so does the sum",
}
_ZERO_RULES: Final = {
    "drop": "its rows are dropped",
    "minimum-and-dummy": "its log is set to the sample minimum, and a dummy zero({0}) is added",
    "asinh": "asinh({0}) stands in for the log, so the coefficient is no elasticity",
    "log1p": "log(1 + {0}) stands in for the log, so the coefficient is no elasticity",
}
_KINDS: Final = ("observed", "zero", "withheld", "absent")


def data_section(results: Results) -> Section:
    """Say what the data are, what their gaps count as, and which rows are left."""
    fit = results.fit
    design, record = fit.design, fit.design.record
    panel = record["panel"]
    cautions = list(data_cautions(fit))
    lead: Shown = (
        say("The data call for caution: {}.", join(cautions, "; "))
        if cautions
        else "Nothing about the sample calls for caution."
    )
    blocks: list[Block] = [
        Paragraph(lead, "bad" if cautions else "good"),
        Table("Source and sample", ("property", "value"), list(_facts(fit))),
    ]
    if "cells" in record:
        blocks.append(_cells_table(record["cells"]))
    blocks += origin_blocks(record)
    if fit.spec.cells is not None or fit.spec.zeros:
        blocks.append(Notes("What gaps and zeros count as", list(_gap_rules(fit))))
    if record["dropped"]:
        rows: list[tuple[Shown, ...]] = [
            (reason, count(lost)) for reason, lost in record["dropped"].items()
        ]
        blocks.append(
            Table("Cells that are not rows, by the first reason", ("reason", "cells"), rows)
        )
    blocks.append(_descriptives(design))
    if "linkages" in record:
        blocks.append(Notes("Linkages between clusters", list(_linkage_notes(record["linkages"]))))
    if panel.get("notes"):
        blocks.append(Notes("Notes on the data", [quoted(str(note)) for note in panel["notes"]]))
    return Section("data", "Data", "What it rests on", blocks)


def _facts(fit: Fit) -> Iterator[tuple[Shown, ...]]:
    """Yield what there is to know of source and sample."""
    record, growth = fit.design.record, fit.spec.growth
    panel = record["panel"]
    yield "source", str(panel.get("source", "not recorded"))
    if panel.get("vintage"):
        yield "vintage", quoted(str(panel["vintage"]))
    yield "records", count(panel.get("rows", 0))
    yield "SHA-256 of the data", str(panel.get("digest", "not recorded"))
    unit = str(fit.design.data.attrs["unit"])
    if growth is None:
        yield "response", f"{fit.design.data.attrs['response']}, in {unit}"
    else:
        yield (
            "response",
            f"growth of {growth.variable} from {growth.from_year} to {growth.to_year}, {unit}",
        )
    yield f"rows ({row_name(fit.design)})", count(record["rows"])
    yield "regions", count(record["regions"])
    if record.get("share_of_base_in_sample") is not None:
        share = percent(record["share_of_base_in_sample"])
        yield "held by the rows of what is published for the base year", share
    if "condition_number" in record:
        yield (
            "condition number of the standardized covariates",
            fixed(record["condition_number"], 1),
        )


def _cells_table(cells: Mapping[str, Mapping[str, Any]]) -> Table:
    """Count the cells of each year by what is known of them, and anything else that was recorded."""
    more = [
        name
        for name in next(iter(cells.values()))
        if name not in ("cells", *_KINDS) and all(name in found for found in cells.values())
    ]
    rows: list[list[Shown]] = []
    for year, found in cells.items():
        row: list[Shown] = [str(year), count(found["cells"])]
        for kind in _KINDS:
            row += [count(found[kind]), percent(found[kind], found["cells"])]
        rows.append([*row, *(_recorded(name, found[name]) for name in more)])
    heads = ["year", "cells", *(head for kind in _KINDS for head in (kind, "share"))]
    heads += [name.replace("_", " ") for name in more]
    caption = (
        "Cells by year. Zeros are among the observed; withheld cells are listed without a value."
    )
    return Table(caption, heads, rows)


def _recorded(name: str, value: Any) -> Shown:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "—" if value is None else quoted(str(value))
    return percent(value) if "share" in name else number(float(value))


def _gap_rules(fit: Fit) -> Iterator[str]:
    cells = fit.spec.cells
    if cells is not None:
        yield f"In sums, an absent cell counts as {_ABSENT[cells.absent]}."
        filled = f" ({cells.fill})" if cells.fill else ""
        yield f"In sums, a withheld cell counts as {_WITHHELD[cells.withheld]}{filled}."
    for variable, rule in fit.spec.zeros.items():
        yield f"Where {variable} is zero, {_ZERO_RULES[rule].format(variable)}."


def _linkage_notes(linkages: dict[str, Any]) -> Iterator[Shown]:
    yield say(
        "{} links from {}.", count(linkages.get("links", 0)), str(linkages.get("source", "a table"))
    )
    if linkages.get("outside"):
        outside = count(linkages["outside"])
        yield say("{} links name a cluster that the panel does not have.", outside)
    if linkages.get("unlinked"):
        yield f"Clusters without a link: {', '.join(map(str, linkages['unlinked']))}."
    if linkages.get("digest"):
        yield f"SHA-256 {linkages['digest']}."


def _descriptives(design: Design) -> Table:
    columns = {design.data.attrs["response"]: design.y}
    columns |= dict(zip(design.terms, design.X.T, strict=True))
    rows: list[tuple[Shown, ...]] = []
    for name, values in columns.items():
        quartiles = np.quantile(values, [0.25, 0.5, 0.75])
        numbers = (values.mean(), values.std(ddof=1), values.min(), *quartiles, values.max())
        rows.append((str(name), *(fixed(float(each), 2) for each in numbers)))
    heads = ("variable", "mean", "sd", "min", "25 %", "median", "75 %", "max")
    unit = design.data.attrs["unit"]
    return Table(f"Response ({unit}) and covariates in the sample", heads, rows)
