"""What the commands accept, stated once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Chains",
    "Data",
    "Draws",
    "Engine",
    "FitFile",
    "Force",
    "Format",
    "Linkages",
    "NewFile",
    "Quiet",
    "Regions",
    "Renames",
    "RowStandardize",
    "Sampler",
    "Settings",
    "Spec",
    "Tune",
    "Verbose",
    "Weights",
]

Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A shipped model, or a path ending in .toml.")
]
FitFile = Annotated[
    Path, typer.Argument(metavar="FIT.nc", help="A saved fit; needs no other file.")
]
Data = Annotated[
    Path,
    typer.Option(
        "--data", metavar="PANEL", help="Long table: CSV, Parquet or Stata, column 'region'."
    ),
]
Regions = Annotated[
    Path | None,
    typer.Option("--regions", metavar="FILE", help="Region polygons or points, column 'region'."),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="W",
        help="queen, rook, knn:K, distance:KM (with --regions), a .gal file or an edge table; "
        "decay-power:KM and decay-exponential:KM estimate how weights fall with distance; "
        "repeated, the shares of a mixture are estimated. "
        "By default what the model file names, if there is geometry.",
    ),
]
RowStandardize = Annotated[
    bool | None,
    typer.Option(
        "--row-standardize/--no-row-standardize",
        help="Let the weights of each region sum to one; by default as the model file says.",
        show_default=False,
    ),
]
Linkages = Annotated[
    Path | None,
    typer.Option(
        "--linkages", metavar="FILE", help="Table with columns cluster, linked_cluster[, weight]."
    ),
]
Renames = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="NEW=OLD", help="Rename a column: employment=emp. Repeatable."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the model: growth.to=2019. Repeatable."
    ),
]
Draws = Annotated[
    int | None,
    typer.Option(
        "--draws", min=10, help="Draws of each chain; by default 1500 collapsed, 2000 full."
    ),
]
Tune = Annotated[
    int | None,
    typer.Option(
        "--tune", min=10, help="Warm-up of each chain; by default 500 collapsed, 1000 full."
    ),
]
Engine = Annotated[
    Literal["auto", "collapsed", "full"],
    typer.Option(
        "--engine",
        help="collapsed: hyperparameters only, the rest exactly; full: every effect; "
        "auto: collapsed where the model allows it.",
    ),
]
Sampler = Annotated[
    Literal["auto", "nuts"],
    typer.Option(
        "--sampler",
        help="nuts; auto: proposals from an approximation of the posterior where that is close, "
        "judged by the exact density, and NUTS elsewhere.",
    ),
]
Chains = Annotated[int, typer.Option("--chains", min=1, help="Number of chains.")]
Format = Annotated[
    Literal["table", "csv", "json"],
    typer.Option("--format", help="JSON writes missing as null and infinity as the text inf."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output file.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, errors only.")]
NewFile = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")]
