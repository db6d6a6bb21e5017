"""The command that writes a table for publication."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spatialclusters.cli import beside, options
from spatialclusters.cli.inputs import check_target, pairs
from spatialclusters.cli.output import clean, note, set_verbosity, write
from spatialclusters.errors import FitError

if TYPE_CHECKING:
    from spatialclusters.loo import Loo

__all__ = ["table"]


def table(
    files: Annotated[list[Path], typer.Argument(metavar="FIT.nc...", help="Saved fits.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write: .txt, .md, .html, .tex, .xlsx or .docx.",
        ),
    ] = None,
    style: Annotated[
        Literal["text", "markdown", "html", "latex"] | None,
        typer.Option("--format", help="On standard output; with -o the suffix says it."),
    ] = None,
    frequentist: beside.Frequentist = False,
    conley: beside.Conley = None,
    kernel: beside.Kernel = "bartlett",
    reml: beside.Reml = False,
    spatial_ml: beside.SpatialMl = False,
    gmm: beside.Gmm = False,
    seed: beside.Seed = 1,
    loo: Annotated[
        bool, typer.Option("--loo", help="With the elpd of each fit by marginal leave-one-out.")
    ] = False,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="NAME=TEXT", help="What to print for a term or group. Repeatable."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="TEXT", help="Name of a column, in order. Repeatable."),
    ] = None,
    effects: Annotated[
        list[str] | None,
        typer.Option(
            "--effect",
            metavar="NAME",
            help="What to show: coefficient, spatial, direct, indirect, total, change, speed, "
            "half_life, per_sd, sd, correlation; by default all but change and correlation. "
            "Repeatable.",
        ),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Stands above the table.")] = "",
    digits: Annotated[
        int, typer.Option("--digits", min=1, max=6, help="Significant digits of errors.")
    ] = 2,
    force: options.Force = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Write fits, and frequentist estimates, side by side as a table for publication."""
    set_verbosity(verbose=verbose, quiet=quiet)
    if output is not None:
        _check_output(output, files, style, force=force)
    import spatialclusters as sc

    fits = [sc.load_fit(file) for file in files]
    found = beside.estimates_beside(
        fits[0], frequentist=frequentist, conley=conley, kernel=kernel, reml=reml,
        spatial_ml=spatial_ml, gmm=gmm, seed=seed,
    )  # fmt: skip
    predictive: list[Loo | None] = []
    if loo:
        for file, fit in zip(files, fits, strict=True):
            note(f"{file.name}: leave-one-out ...")
            predictive.append(sc.marginal_loo(fit))
            note(f"{file.name}: {predictive[-1]}")
        predictive += [None] * len(found)
    made = sc.regression_table(
        *fits,
        *found,
        labels=pairs(labels, "--label", "NAME=TEXT"),
        columns=columns,
        title=title,
        digits=digits,
        **({"effects": effects} if effects else {}),
        loo=predictive,
    )
    if output is not None:
        write(clean(str(made.save(output))))
        return
    text = getattr(made, f"to_{style or 'text'}")()
    write(clean(text, keep="\n"))


def _check_output(output: Path, files: list[Path], style: str | None, *, force: bool) -> None:
    """Refuse, before any work, a file that cannot be written or whose format is in doubt."""
    if style is not None:
        msg = "table: got --format and -o; expected one of them. The suffix of -o says the format."
        raise FitError(msg)
    for file in files:
        check_target(output, force=force, source=file)
    from spatialclusters.regression_tables.table import check_format

    check_format(output)
