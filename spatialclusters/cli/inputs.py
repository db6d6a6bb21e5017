"""Command line words -> model, panel and weights, and what they make together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialclusters.errors import FitError, SpecError, counted, listing

if TYPE_CHECKING:
    import pandas as pd

    from spatialclusters.design import Design
    from spatialclusters.panel import Panel
    from spatialclusters.spec import ModelSpec
    from spatialclusters.weights import Weights

__all__ = [
    "Inputs", "check_fit_target", "check_target", "describe_design", "describe_model_priors",
    "describe_sample", "inputs", "pairs",
]  # fmt: skip

_SHOWN = 12
_FORMATS = frozenset(
    [
        ".csv",
        ".dta",
        ".docx",
        ".geojson",
        ".gpkg",
        ".htm",
        ".html",
        ".json",
        ".jsonl",
        ".md",
        ".parquet",
        ".pdf",
        ".pkl",
        ".png",
        ".rds",
        ".svg",
        ".tex",
        ".toml",
        ".txt",
        ".xls",
        ".xlsx",
        ".zip",
    ]
)
"""Suffixes that say another format than that of a fit."""
_LONGEST_NAME = 200  # file systems allow 255 bytes; a file being written has a longer name


@dataclass(frozen=True)
class Inputs:
    """What a fit starts from."""

    spec: ModelSpec
    panel: Panel
    weights: Weights | None


def inputs(
    name: str,
    data: Path,
    regions: Path | None,
    weights: list[str] | None,
    row_standardize: bool | None,
    renames: list[str] | None,
    settings: list[str] | None,
) -> Inputs:
    """Read the model, the panel and the weights; what a flag changes is recorded in the model."""
    from spatialclusters.catalogue import load_model
    from spatialclusters.neighbors import parse_weights
    from spatialclusters.panel import read_panel
    from spatialclusters.run import default_weights
    from spatialclusters.spec import override

    spec = override(load_model(name), pairs(settings, "--set", "KEY=VALUE"), where="--set")
    if row_standardize is not None:
        spec = override(spec, {"weights.row_standardize": row_standardize})
    panel = read_panel(data, regions, rename=pairs(renames, "--map", "NEW=OLD"))
    if not weights:
        return Inputs(spec, panel, default_weights(spec, panel))
    chosen = parse_weights(" + ".join(weights), panel, row_standardize=spec.weights.row_standardize)
    if not {"gal", "edges"} & set(chosen.kind.split(" + ")):
        spec = override(spec, {"weights.kind": chosen.kind}, where="--weights")
    return Inputs(spec, panel, chosen)


def pairs(values: Iterable[str] | None, option: str, form: str) -> dict[str, str]:
    """Split words such as ``KEY=VALUE``; ``option`` and ``form`` are for the message."""
    found = {}
    for value in values or ():
        key, equals, setting = value.partition("=")
        if not (key and equals):
            msg = f"{option}: got {listing([value])}; expected {form}."
            raise SpecError(msg)
        found[key.strip()] = setting.strip()
    return found


def check_fit_target(path: Path, *, force: bool) -> None:
    """Refuse, before any work, a place for a fit that is called like a file of another kind."""
    if path.suffix.lower() in _FORMATS:
        msg = f"{path.name[:80]}: got a file ending in {path.suffix!r}; expected .nc, as a fit is "
        msg += (
            f"NetCDF. Write -o {path.stem[:80]}.nc; summary FIT.nc --format csv prints estimates."
        )
        raise FitError(msg)
    check_target(path, force=force)


def check_target(path: Path, *, force: bool, source: Path | None = None) -> None:
    """Refuse, before any work, an output that exists or cannot be written."""
    if len(path.name.encode()) > _LONGEST_NAME:
        msg = f"{path.name[:40]}...: got {len(path.name)} characters; expected a shorter name."
        raise FitError(f"{msg} Name another with -o.")
    if path.is_dir():
        msg = f"{path}: got a folder; expected a file to write. Name one with -o."
        raise FitError(msg)
    if source is not None and path.resolve() == source.resolve():
        msg = f"{path}: got the fit itself as the output; expected another file."
        raise FitError(msg)
    if path.exists() and not force:
        msg = (
            f"{path}: got an existing file; expected a new one. Choose another with -o, or --force."
        )
        raise FitError(msg)
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as cause:
        msg = f"{path}: cannot be written there ({cause.strerror}). Make the folder, or choose another."
        raise FitError(msg) from cause


def describe_design(spec: ModelSpec, design: Design) -> Iterator[str]:
    """Say in lines what the sample is and what became of the cells that are not in it."""
    record = design.record
    yield f"Model {spec.name}: {spec.title}" if spec.title else f"Model {spec.name}"
    yield f"  {' '.join(spec.formula.split())}"
    yield f"  {design.data.attrs['response']}: {design.data.attrs['unit']}"
    yield f"Data {record['panel'].get('source', '')}: {record['panel'].get('rows', '?')} table rows"
    for year, counts in record.get("cells", {}).items():
        named = ", ".join(f"{count} {what}" for what, count in counts.items())
        yield f"  {year}: {named}"
    yield f"Sample: {_size(design)}"
    if share := record.get("share_of_base_in_sample"):
        yield f"  {share:.1%} of what is published for the base year"
    for reason, count in record["dropped"].items():
        yield f"  dropped {count}: {reason}"
    yield f"Columns: {listing(design.terms, _SHOWN)}"
    if "condition_number" in record:
        yield f"  condition number {record['condition_number']:.1f}"
    for name, entry in record["groups"].items():
        alone = f", {entry['singletons']} with a single row" if entry["singletons"] else ""
        yield f"Group {name}: {_kind(entry)} of {entry['levels']} levels{alone}"
    if spec.spatial.parameters:
        yield f"Outcome: {spec.spatial.outcome}, with {' and '.join(spec.spatial.parameters)}"
    yield from _describe_weights(record.get("weights"))
    if blocks := record.get("blocks"):
        yield (
            f"  between rows: {counted(blocks['components'], 'component')}, "
            f"{counted(blocks['isolates'], 'cell')} without neighbors"
        )
    for note in (*record["panel"].get("notes", ()), *record["notes"]):
        yield f"Note: {note}"


def describe_sample(design: Design) -> Iterator[str]:
    """Say in a few lines what every summary must: rows, regions, groups and weights."""
    record = design.record
    yield _size(design)
    for name, entry in record["groups"].items():
        yield f"{name}: {_kind(entry)} of {entry['levels']} levels"
    yield from _describe_weights(record.get("weights"))


def _size(design: Design) -> str:
    rows, regions = counted(design.n_rows, "row"), counted(design.record["regions"], "region")
    return f"{rows} in {regions}"


def _kind(entry: dict[str, Any]) -> str:
    structure = entry.get("structure", "iid")  # fits made before structures lack it
    shared = "" if structure == "iid" else f" with {structure} structure"
    return f"{entry['effect']} effects{shared}"


def _describe_weights(weights: dict[str, Any] | None) -> Iterator[str]:
    if weights is None:
        yield "Weights: none"
        return
    rows = "row-standardized" if weights["row_standardized"] else "not standardized"
    yield (
        f"Weights {weights['kind']}, {rows}: {weights['links']} links, "
        f"{weights['min_neighbors']} to {weights['max_neighbors']} neighbors "
        f"(mean {weights['mean_neighbors']:.2f}), "
        f"{counted(weights['components'], 'component')}, "
        f"{counted(len(weights['isolates']), 'region')} without neighbors"
    )
    if weights["isolates"]:
        yield f"  without neighbors: {listing(weights['isolates'], _SHOWN)}"
    yield from ([f"  {weights['blend']['text']}"] if "blend" in weights else [])
    yield from (f"  {note}" for note in weights["notes"])


def describe_model_priors(spec: ModelSpec, design: Design) -> pd.DataFrame:
    """Say what every prior means in units of the outcome."""
    from spatialclusters.parameters import model_priors
    from spatialclusters.priors import describe_priors

    return describe_priors(
        model_priors(spec, design),
        response_unit=str(design.data.attrs["unit"]),
        covariate_sd=dict(zip(design.terms, design.data["scale"].values.tolist(), strict=True)),
        annualize=1.0 if design.annualized else design.years,
    )
