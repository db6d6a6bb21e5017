"""The command that draws withheld cells under the model and pools the fits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from spatialclusters.cli import options
from spatialclusters.cli.inputs import check_fit_target, inputs
from spatialclusters.cli.output import note, set_verbosity, show, show_estimates, warn

__all__ = ["complete"]


def complete(
    spec: options.Spec,
    data: options.Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    regions: options.Regions = None,
    weights: options.Weights = None,
    row_standardize: options.RowStandardize = None,
    linkages: options.Linkages = None,
    renames: options.Renames = None,
    settings: options.Settings = None,
    totals: Annotated[
        list[Path] | None,
        typer.Option(
            "--totals",
            metavar="FILE",
            help="Published sums: year, employment, some of region, industry, cluster. Repeatable.",
        ),
    ] = None,
    predictors: Annotated[
        list[str] | None,
        typer.Option(
            "--predictor", metavar="COLUMN", help="Known in every cell: establishments. Repeatable."
        ),
    ] = None,
    ceiling: Annotated[
        float | None,
        typer.Option(
            "--ceiling", min=1.0, help="Most employees in a withheld cell without an upper bound."
        ),
    ] = None,
    panels: Annotated[int, typer.Option("--panels", "-m", min=20, help="Completed panels.")] = 20,
    burn: Annotated[int, typer.Option("--burn", min=1, help="Iterations before the first.")] = 300,
    thin: Annotated[int, typer.Option("--thin", min=1, help="Iterations between two.")] = 20,
    draws: Annotated[int, typer.Option("--draws", min=10, help="Of each panel and chain.")] = 100,
    chains: Annotated[int, typer.Option("--chains", min=1, help="Of each panel.")] = 2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same draws.")] = 1,
    force: options.Force = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit a model with its withheld cells drawn under it, within bounds, several times.

    An interrupted run goes on where it stopped, if the same command is given again.
    """
    set_verbosity(verbose=verbose, quiet=quiet)
    check_fit_target(output, force=force)
    if panels % chains:
        msg = f"got {panels} panels and {chains} chains; expected a multiple of chains."
        raise typer.BadParameter(msg, param_hint="--panels")
    given = inputs(spec, data, regions, weights, row_standardize, renames, settings)
    import spatialclusters as sc
    from spatialclusters.design import period_note
    from spatialclusters.errors import PanelError
    from spatialclusters.tables import read_table

    if period := period_note(given.spec, given.panel):
        note(f"note: {period}")
    partial = output.with_name(f"{output.name}.panels")
    try:
        completed = sc.complete_panels(
            given.spec, given.panel, given.weights, seed=seed, m=panels, linkages=linkages,
            totals=[read_table(file, error=PanelError)[0] for file in totals or ()],
            predictors=predictors or (), ceiling=ceiling or float("inf"), burn=burn, thin=thin, progress=not quiet,
        )  # fmt: skip
        fit = sc.fit_completed(
            given.spec, completed, given.weights, seed=seed, linkages=linkages, chains=chains,
            draws=draws, checkpoint=partial, progress=not quiet,
        )  # fmt: skip
        fit.save(output)
    except KeyboardInterrupt:
        warn(f"interrupted: fits of finished panels are kept in {partial}. Give the command again.")
        raise typer.Exit(130) from None
    shutil.rmtree(partial)
    show_estimates(sc.coefficients(fit), "table", title=given.spec.title)
    shares = sc.between_panels(fit)
    show(shares, "table", title="Share of the variance that is between completed panels")
    verdict = sc.check(fit)
    (note if verdict.passed else warn)(str(verdict))
    note(f"Saved {output}: {completed.record['m']} panels, pooled.")
    if not verdict.passed:
        raise typer.Exit(3)
