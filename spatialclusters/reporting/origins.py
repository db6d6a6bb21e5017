"""Which files the data come from, and how much of employment is withheld or filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spatialclusters.reporting.blocks import Block, Notes, Table
from spatialclusters.reporting.values import Shown, count, percent, quoted, say

__all__ = ["origin_blocks"]


def origin_blocks(record: Mapping[str, Any]) -> list[Block]:
    """Return the blocks of a design's record that say where its numbers come from.

    Parameters
    ----------
    record
        Of a design: ``withheld`` by year, and ``panel`` with ``origins`` and
        ``withheld`` where the table was made from an agency's files.
    """
    blocks: list[Block] = []
    lines = [*_amounts(record.get("withheld", {}))]
    if lines:
        blocks.append(Notes("What is withheld", [quoted(line) for line in lines]))
    panel = record["panel"]
    if panel.get("withheld"):
        blocks.append(_published_cells(panel["withheld"]))
    if panel.get("origins"):
        rows: list[tuple[Shown, ...]] = [
            (each["file"], f"{each['source']} {each['vintage']}", each["classification"], each["rule"],
             each["digest"])
            for each in panel["origins"]
        ]  # fmt: skip
        heads = ("file", "vintage", "industries", "disclosure rule", "SHA-256")
        blocks.append(Table("Files that the table was made from", heads, rows))
        notes = [f"{each['file']}: {note}" for each in panel["origins"] for note in each["notes"]]
        blocks += [Notes("What was done to the files", [quoted(n) for n in notes])] if notes else []
    return blocks


def _amounts(withheld: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Put each year with a withheld or a filled cell into a sentence."""
    for year, found in withheld.items():
        lower, upper, open_ended = (
            found[name] for name in ("withheld_lower", "withheld_upper", "unbounded")
        )
        if open_ended:
            hidden = (
                f"cells without a number hold at least {lower:,.0f}; {open_ended:,} of them have no upper "
                f"bound, the others hold at most {upper:,.0f}"
            )
        elif upper > 0:
            hidden = f"cells without a number hold between {lower:,.0f} and {upper:,.0f}"
        elif not found["filled_cells"]:
            continue
        else:
            hidden = "no cell is without a number"
        text = f"{year}: {found['published']:,.0f} are published; {hidden}"
        if found["filled_cells"]:
            text += (
                f"; {found['filled']:,.0f} in {found['filled_cells']:,} cells are filled in, as if they "
                "were published: that they are not known is in no interval of this report"
            )
        yield f"{text}."


def _published_cells(withheld: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: list[tuple[Shown, ...]] = []
    for year, found in withheld.items():
        upper, covered = found["withheld_upper"], found["covered"]
        rows.append((
            year, count(found["cells"]),
            *(say("{} ({})", count(found[kind]), percent(found[kind], found["cells"])) for kind in ("withheld", "filled")),
            count(found["employees"]),
            say("{} to {}", count(found["withheld_lower"]), "∞" if upper is None else count(upper)),
            "—" if covered is None else percent(covered),
        ))  # fmt: skip
    heads = (
        "year", "cells", "withheld", "filled", "employees published", "withheld or filled: bounds",
        "share of published totals",
    )  # fmt: skip
    caption = (
        "Cells of the files, before they were summed. The last column is what observed cells hold of the "
        "published totals of their regions: the rest is withheld or has no row."
    )
    return Table(caption, heads, rows)
