"""The commands that judge a fit and write its report."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from spatialclusters.cli import beside, options
from spatialclusters.cli.inputs import check_target
from spatialclusters.cli.output import clean, note, set_verbosity, show, warn, write

if TYPE_CHECKING:
    from spatialclusters.diagnostics import Check

__all__ = ["check", "exit_by", "report", "say_verdict"]

_SLOW: Final = 1.0  # seconds from which a step of a report is worth a line


def check(
    file: options.FitFile,
    model: Annotated[
        bool,
        typer.Option(
            "--model",
            help="Ask as well whether the model describes the data: residuals, replicates, rows "
            "left out. Takes longer, and does not change the exit code.",
        ),
    ] = False,
    style: options.Format = "table",
) -> None:
    """Print a verdict on every check of the sampling, and what to do; exit code 3 if one failed."""
    _on_one_thread()
    import pandas as pd

    from spatialclusters.diagnostics import check as judge
    from spatialclusters.result import load_fit

    result = load_fit(file, lazy=True)
    verdict = judge(result)
    found = [("sampling", verdict.table)]
    if style == "table":
        write(clean(str(verdict), keep="\n"))
    if model:
        from spatialclusters.criticism import criticize

        note("leave-one-out ...")
        criticism = criticize(result)
        found.append(("model", criticism.table))
        if style == "table":
            write(clean(str(criticism), keep="\n"))
    if style != "table":
        tables = [table.assign(of=of) for of, table in found]
        show(pd.concat(tables, ignore_index=True), style)
    exit_by(verdict)


def report(
    file: options.FitFile,
    output: options.NewFile,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="FIT.nc",
            help="Another fit of the same rows, by another model or with other weights, to compare "
            "with. Repeatable.",
        ),
    ] = None,
    numbers: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write every number of the page as JSON, too."),
    ] = None,
    conley: beside.Conley = None,
    kernel: beside.Kernel = "bartlett",
    reml: beside.Reml = False,
    spatial_ml: beside.SpatialMl = False,
    gmm: beside.Gmm = False,
    seed: beside.Seed = 1,
    force: options.Force = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Write one self-contained HTML page of everything there is to know of a fit.

    Fixed effects and OLS stand beside the posterior in any case.
    """
    set_verbosity(verbose=verbose, quiet=quiet)
    check_target(output, force=force, source=file)
    if numbers is not None:
        check_target(numbers, force=force, source=file)
    _on_one_thread()
    import spatialclusters as sc
    from spatialclusters.reporting import make_report, save_report

    result = sc.load_fit(file, lazy=True)
    first, *more = beside.estimates_beside(
        result, frequentist=True, conley=conley, kernel=kernel, reml=reml, spatial_ml=spatial_ml,
        gmm=gmm, seed=seed,
    )  # fmt: skip
    named = {path.stem: sc.load_fit(path, lazy=True) for path in others or ()}

    def tell(step: str, seconds: float | None) -> None:
        if seconds is None and step.startswith("leave-one-out"):
            note(f"{step} ...")
        if seconds is not None and (verbose or seconds >= _SLOW):
            note(f"{step}: {seconds:.1f} s")

    page = make_report(result, first, others=named, beside=more, progress=tell)
    path = save_report(page, output, numbers)
    say_verdict(page.check)
    write(str(path))
    if numbers is not None:
        write(str(numbers))


def say_verdict(verdict: Check) -> None:
    """Say the verdict on standard error, in any case if it failed."""
    (note if verdict.passed else warn)(str(verdict))


def exit_by(verdict: Check) -> None:
    """End with exit code 3 if the sampling failed."""
    if not verdict.passed:
        raise typer.Exit(3)


def _on_one_thread() -> None:
    """Let linear algebra run on one thread: much of it is small, and sums keep their order."""
    if "numpy" not in sys.modules:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
