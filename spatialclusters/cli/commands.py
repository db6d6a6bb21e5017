"""The commands."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from spatialclusters.cli import options
from spatialclusters.cli.calibrate import calibrate
from spatialclusters.cli.compare import compare
from spatialclusters.cli.complete import complete
from spatialclusters.cli.data import data_app
from spatialclusters.cli.inputs import (
    check_fit_target,
    describe_design,
    describe_model_priors,
    describe_sample,
    inputs,
)
from spatialclusters.cli.output import (
    clean,
    note,
    set_verbosity,
    show,
    show_estimates,
    warn,
    write,
)
from spatialclusters.cli.reports import check, exit_by, report, say_verdict
from spatialclusters.cli.table import table
from spatialclusters.errors import FitError

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(rich_markup_mode=None)
app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")
app.command()(complete)
app.command()(compare)
app.command()(table)
app.command()(calibrate)

_IMPACTS: Final = {
    "overall": (
        "Impacts of one unit more",
        "direct: on the row itself; indirect: on all other rows together; total: both, which is "
        "also what happens to a row if all change.",
    ),
    "order": (
        "Total impact by order of neighbors (group)",
        "order 0: the row itself; 1: its neighbors; 2: theirs, the row itself among them.",
    ),
    "region": (
        "Spillovers by region",
        "spill_in: what a row of the region gets if all other rows change; "
        "spill_out: what the other rows get in sum if one row of the region changes.",
    ),
    "distance": (
        "How far an estimated decay reaches",
        "half_distance: where a weight is half of that at the typical distance to the nearest "
        "region; mean_distance: of a region's neighbors, weighted.",
    ),
}


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Bayesian hierarchical models of region-cluster growth with spatial spillovers."""
    if version:
        from spatialclusters._version import __version__

        write(f"spatialclusters {__version__}")
    elif context.invoked_subcommand is None:
        write(context.get_help())
    else:
        return
    raise typer.Exit


@app.command()
def demo(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder; by default a new one here."),
    ] = None,
    draws: options.Draws = None,
    tune: options.Tune = None,
    chains: options.Chains = 4,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit and report the built-in data: income of US states, and a simulated economy."""
    set_verbosity(verbose=verbose, quiet=quiet)
    from spatialclusters.demo import TRUTH_FILE, choose_folder, read_truth, run_demo

    folder = choose_folder(output)
    note(f"Writing to {folder}. This takes some minutes on two cores.")
    written = run_demo(folder, draws=draws, tune=tune, chains=chains, progress=not quiet)
    truth = read_truth(folder / TRUTH_FILE)
    show(truth, "table", title="Simulated economy: the truth beside its posterior")
    held = int((truth["inside"] == "yes").sum())
    write(f"{held} of {len(truth)} intervals hold the truth; of many, 95 % should.\n")
    write("Reports, to open in a browser:")
    for path in written:
        if path.suffix == ".html":
            write(f"  {path}")
    from spatialclusters.diagnostics import check as judge
    from spatialclusters.result import load_fit

    for path in written:
        if path.suffix == ".nc":
            note(f"{path.name}: {str(judge(load_fit(path))).splitlines()[0]}")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, style: options.Format = "table") -> None:
    """List the shipped models, or show one with `models show NAME`."""
    if context.invoked_subcommand is not None:
        return
    from spatialclusters.catalogue import list_models

    table = list_models()
    table["formula"] = [" ".join(formula.split()) for formula in table["formula"]]
    if style != "table":
        show(table, style)
        return
    for row in table.itertuples():
        write(f"{row.name}\n  {row.title}\n  {row.formula}\n  cites {row.cite}")


@models_app.command("show")
def show_model(name: options.Spec) -> None:
    """Print a model file with every default written out, and what it cites."""
    from spatialclusters.catalogue import citation, load_model
    from spatialclusters.spec import spec_to_toml

    spec = load_model(name)
    cited = "".join(f"# {line}".rstrip() + "\n" for line in citation(spec).splitlines())
    write(f"{spec_to_toml(spec)}\n{cited}" if cited else spec_to_toml(spec))


@app.command()
def cite(spec: options.Spec) -> None:
    """Print the BibTeX entries of the works that a model cites."""
    from spatialclusters.catalogue import citation, load_model

    found = citation(load_model(spec))
    write(found) if found else note("The model cites nothing.")


@app.command()
def validate(
    spec: options.Spec,
    data: options.Data,
    regions: options.Regions = None,
    weights: options.Weights = None,
    row_standardize: options.RowStandardize = None,
    linkages: options.Linkages = None,
    renames: options.Renames = None,
    settings: options.Settings = None,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Check everything that can be checked before sampling, and say what would be fitted."""
    set_verbosity(verbose=verbose, quiet=quiet)
    from spatialclusters.design import build_design

    given = inputs(spec, data, regions, weights, row_standardize, renames, settings)
    design = build_design(given.spec, given.panel, given.weights, linkages=linkages)
    if any(prior.distribution == "uniform" for prior in given.spec.priors.values()):
        from spatialclusters.processes import check_dependence  # loads JAX

        check_dependence(given.spec, design)
    priors = describe_model_priors(given.spec, design)
    write("\n".join(map(clean, describe_design(given.spec, design))))
    write("")
    show(priors, "table", title="Priors")


@app.command()
def fit(
    spec: options.Spec,
    data: options.Data,
    output: options.NewFile,
    regions: options.Regions = None,
    weights: options.Weights = None,
    row_standardize: options.RowStandardize = None,
    linkages: options.Linkages = None,
    renames: options.Renames = None,
    settings: options.Settings = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same draws.")] = 1,
    draws: options.Draws = None,
    tune: options.Tune = None,
    chains: options.Chains = 4,
    engine: options.Engine = "auto",
    sampler: options.Sampler = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    force: options.Force = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit a model and save everything that was estimated in one file."""
    set_verbosity(verbose=verbose, quiet=quiet)
    check_fit_target(output, force=force)
    given = inputs(spec, data, regions, weights, row_standardize, renames, settings)
    import spatialclusters as sc
    from spatialclusters.design import period_note

    if period := period_note(given.spec, given.panel):
        note(f"note: {period}")
    partial = output.with_name(f"{output.name}.partial")
    try:
        result = sc.fit(
            given.spec, given.panel, given.weights, linkages=linkages, seed=seed, engine=engine,
            sampler=sampler, chains=chains, tune=tune, draws=draws, checkpoint=partial, resume=resume, progress=not quiet,
        )  # fmt: skip
        result.save(output)
    except KeyboardInterrupt:
        warn(_interrupted(partial))
        raise typer.Exit(130) from None
    shutil.rmtree(partial, ignore_errors=True)
    if partial.exists():
        warn(f"{partial}: cannot be removed; it is not needed any more.")
    show_estimates(sc.coefficients(result), "table", title=given.spec.title)
    write("\n".join(map(clean, describe_sample(result.design))))
    verdict = sc.check(result)
    write(str(verdict).splitlines()[0])  # numbers that are kept keep their verdict
    say_verdict(verdict)
    path = shlex.quote(str(output))
    page = shlex.quote(str(output.with_suffix(".html")))
    note(f"Saved {path}. Next: spatialclusters report {path} -o {page}")
    exit_by(verdict)


@app.command()
def summary(file: options.FitFile, style: options.Format = "table") -> None:
    """Print coefficients, standard deviations, correlations and noise."""
    from spatialclusters.effects import coefficients
    from spatialclusters.reporting.tables import dependence_meaning
    from spatialclusters.result import load_fit

    result = load_fit(file, lazy=True)
    frame = coefficients(result)
    show_estimates(frame, style, title=result.spec.title)
    if style == "table":
        for name in frame.loc[frame["effect"] == "spatial", "term"].unique():
            write(f"{name}: {dependence_meaning(name)}")
        write("\n".join(map(clean, describe_sample(result.design))))


@app.command()
def effects(file: options.FitFile, style: options.Format = "table") -> None:
    """Print convergence and specialization, overall and by group."""
    import pandas as pd

    from spatialclusters.effects import convergence, specialization
    from spatialclusters.result import load_fit

    result, found, missing = load_fit(file, lazy=True), {}, []
    for title, estimate in (("Convergence", convergence), ("Specialization", specialization)):
        try:
            found[title] = estimate(result)
        except FitError as error:
            missing.append(str(error))
    if not found:
        raise FitError("\n".join(missing))
    if style != "table":
        show_estimates(pd.concat(found.values(), ignore_index=True), style)
        return
    for position, (title, frame) in enumerate(_sections(found)):
        if position:
            write("")
        show_estimates(frame, style, title=title)
        if frame["group"].eq("common").any():
            write("overall: if this row alone is higher; common: if all are.")


@app.command()
def impacts(
    file: options.FitFile,
    by: Annotated[
        Literal["overall", "order", "region", "distance"],
        typer.Option(
            "--by",
            help="overall: direct, indirect, total; order: the total by order of neighbors; "
            "region: what each region gets from other rows, and gives to them; "
            "distance: how far an estimated decay of the weights reaches.",
        ),
    ] = "overall",
    term: Annotated[
        str | None, typer.Option("--term", help="One covariate; by default all of them.")
    ] = None,
    style: options.Format = "table",
) -> None:
    """Print what covariates do here and elsewhere, if the model has spatial lags."""
    from spatialclusters import spillovers
    from spatialclusters.ranges import spillover_range
    from spatialclusters.result import load_fit

    result = load_fit(file, lazy=True)
    if by == "region":
        frame = spillovers.regional_impacts(result, term)
    elif by == "distance":
        frame = spillover_range(result)
    else:
        frame = spillovers.impacts(result, by, term=term)
    show_estimates(frame, style, title=_IMPACTS[by][0])
    if style == "table":
        write(_IMPACTS[by][1])
        if frame["group"].eq("cell").any():
            write("row: a change in one row; cell: in all rows of a region-cluster.")
        if text := spillovers.approximation(result):
            write(text)


app.command()(check)
app.command()(report)


def _interrupted(partial: Path) -> str:
    from spatialclusters.sampling import has_draws

    if not (partial / "job.json").is_file():
        return "interrupted: nothing was sampled yet."
    kept = f"what was drawn is kept in {partial}"
    if not has_draws(partial):
        kept = f"nothing was drawn yet; what was prepared is in {partial}"
    return f"interrupted: {kept}. Continue: the same command with --resume."


def _sections(found: dict[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Cut effects into tables: all of the overall ones, of those by group one per kind."""
    for title, frame in found.items():
        overall = frame["group"].isin(("overall", "common"))
        yield title, frame[overall]
        for effect in ("change", "half_life", "per_sd"):
            part = frame[~overall & (frame["effect"] == effect)]
            if len(part):
                yield f"{title}: {effect.replace('_', ' ')} by group", part
