"""How to repeat the fit, and what to cite."""

from __future__ import annotations

import shlex
from typing import Any

from spatialclusters.catalogue import citation
from spatialclusters.errors import SpecError
from spatialclusters.reporting.blocks import Block, Code, Paragraph, Section, Table
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.values import quoted, say
from spatialclusters.result import Fit

__all__ = ["reproduction_section"]


def reproduction_section(results: Results) -> Section:
    """Give the command, the model file, the digests and what to cite."""
    fit = results.fit
    known = fit.provenance
    digests = [(name, value or "—") for name, value in known["digests"].items()]
    digests.append(("data", fit.design.record["panel"].get("digest", "—")))
    try:
        cited = citation(fit.spec)
    except SpecError as problem:
        cited = f"% {problem}"
    blocks: list[Block] = [
        Paragraph(f"Save the model file below as {fit.spec.name}.toml and run:"),
        Code(_command(fit)),
        Paragraph(
            say(
                "Version {}, seed {}. The same versions (listed in Computation) on the same machine "
                "give the same draws, bit by bit.",
                str(known["version"]),
                quoted(str(known["settings"]["seed"])),
            )
        ),
        Code(fit.tree.attrs["model"], folded=f"The model file, {fit.spec.name}.toml"),
        Table("SHA-256 digests", ("of", "digest"), digests, "Digests"),
        Paragraph(
            "Every number on this page is in the file that spatialclusters report --json writes, "
            "unrounded, with the numbers that figures draw."
        ),
    ]
    if cited:
        blocks += [Paragraph("The model rests on these works:"), Code(cited)]
    else:
        blocks.append(Paragraph("The model file cites no works."))
    return Section("reproduction", "Reproduction and citation", "What it rests on", blocks)


def _command(fit: Fit) -> str:
    """Return the command line that repeats the fit, with files by the names they had."""
    record, settings = fit.design.record, fit.provenance["settings"]
    words = ["spatialclusters", "fit", f"{fit.spec.name}.toml"]
    words += ["--data", _file(record["panel"], "PANEL")]
    if fit.geometry is not None:
        words += ["--regions", "REGIONS"]
    if fit.weights is not None:
        for kind in fit.weights.kind.split(" + "):
            built = kind.startswith(("queen", "rook", "knn", "distance", "decay"))
            words += ["--weights", kind if built else "EDGES"]
        words += [] if fit.weights.row_standardized else ["--no-row-standardize"]
    if "linkages" in record:
        words += ["--linkages", _file(record["linkages"], "LINKAGES")]
    for name in ("seed", "chains", "tune", "draws"):
        words += [f"--{name}", str(settings[name])]
    command = shlex.join([*words, "-o", "fit.nc"])
    return command.replace(" --", " \\\n  --")


def _file(origin: dict[str, Any], otherwise: str) -> str:
    """Return the name of the file that a table came from, if it was one."""
    source = str(origin.get("source", ""))
    return source if source.endswith((".csv", ".parquet")) else otherwise
