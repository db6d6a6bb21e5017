"""The command that calibrates a model on its data's structure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from spatialclusters.cli import options
from spatialclusters.cli.inputs import check_target, inputs
from spatialclusters.cli.output import clean, note, set_verbosity, show, warn, write

__all__ = ["calibrate"]


def calibrate(
    spec: options.Spec,
    data: options.Data,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.jsonl", help="A line for every data set."),
    ],
    regions: options.Regions = None,
    weights: options.Weights = None,
    row_standardize: options.RowStandardize = None,
    linkages: options.Linkages = None,
    renames: options.Renames = None,
    settings: options.Settings = None,
    datasets: Annotated[
        int, typer.Option("--datasets", min=1, help="Data sets to simulate and fit.")
    ] = 500,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same ranks.")] = 1,
    draws: Annotated[
        int,
        typer.Option("--draws", min=9, help="Draws of each fit that the truth is ranked among."),
    ] = 99,
    thin: Annotated[
        int | None,
        typer.Option("--thin", min=1, help="Iterations a draw; by default 40 collapsed, 20 full."),
    ] = None,
    tune: options.Tune = None,
    engine: options.Engine = "auto",
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE.png", help="Ranks with their bands, as an image."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue what is in the file.")] = False,
    force: options.Force = False,
    style: options.Format = "table",
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit simulated data whose parameters are known: are the posteriors right? Exit code 3 if not."""
    set_verbosity(verbose=verbose, quiet=quiet)
    if not resume:
        check_target(output, force=force)
    if figure is not None:
        check_target(figure, force=force)
    given = inputs(spec, data, regions, weights, row_standardize, renames, settings)
    from spatialclusters.sampling import SINGLE_THREAD

    # one after the other, data sets are too small to be worth several threads
    os.environ.update({k: v for k, v in SINGLE_THREAD.items() if k not in os.environ})
    from spatialclusters.calibration import calibrate as run
    from spatialclusters.design import build_design
    from spatialclusters.files import replace_file

    design = build_design(given.spec, given.panel, given.weights, linkages=linkages)
    if not resume:
        output.unlink(missing_ok=True)
    try:
        found = run(
            given.spec, design, seed=seed, datasets=datasets, draws=draws, thin=thin, tune=tune,
            engine=engine, file=output, resume=resume, progress=not quiet,
        )  # fmt: skip
    except KeyboardInterrupt:
        warn(f"interrupted: finished data sets are kept in {output}. Continue: --resume.")
        raise typer.Exit(130) from None
    show(found.table(), style, title=given.spec.title)
    if style == "table":
        write(clean(str(found), keep="\n"))
    if figure is not None:
        from spatialclusters.plots import plot_calibration

        image = plot_calibration(found)
        replace_file(figure, lambda file: image.savefig(file, format="png", dpi=150))
        note(f"Saved {figure}.")
    if not found.passed:
        raise typer.Exit(3)
