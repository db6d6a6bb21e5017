"""The command that puts fits and estimates of other kinds side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from spatialclusters.cli import beside, options
from spatialclusters.cli.output import clean, note, set_verbosity, show, write
from spatialclusters.errors import FitError

if TYPE_CHECKING:
    import pandas as pd

    from spatialclusters.result import Fit

__all__ = ["compare"]

_KEYS: Final = ["estimator", "term", "effect"]


def compare(
    files: Annotated[list[Path], typer.Argument(metavar="FIT.nc...", help="Saved fits.")],
    frequentist: beside.Frequentist = False,
    conley: beside.Conley = None,
    kernel: beside.Kernel = "bartlett",
    reml: beside.Reml = False,
    spatial_ml: beside.SpatialMl = False,
    gmm: beside.Gmm = False,
    seed: beside.Seed = 1,
    loo: Annotated[
        bool, typer.Option("--loo", help="By marginal leave-one-out instead: which predicts best.")
    ] = False,
    style: options.Format = "table",
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Put fits, and estimates of other kinds beside the first, side by side."""
    set_verbosity(verbose=verbose, quiet=quiet)
    if len(files) == 1 and not (frequentist or conley or reml or spatial_ml or gmm or loo):
        msg = "compare: got one fit; expected another beside it, --frequentist, --conley, --reml, "
        raise FitError(f"{msg}--spatial-ml, --gmm or --loo.")
    import spatialclusters as sc

    fits = [sc.load_fit(file) for file in files]
    if loo:
        _by_prediction(files, fits, style)
        return
    first = fits[0]
    found = beside.estimates_beside(
        first, frequentist=frequentist, conley=conley, kernel=kernel, reml=reml,
        spatial_ml=spatial_ml, gmm=gmm, seed=seed,
    )  # fmt: skip
    judged = sc.judge_gaps(first, *found)
    if style == "table":
        write(clean(sc.regression_table(*fits, *found).to_text(), keep="\n"))
        if found:
            _show_gaps(judged)
            for text in sc.expected_gaps(first, *found, judged=judged):
                note(text)
        return
    tidy = sc.compare(first, *fits[1:], *found).stack("estimator", future_stack=True).reset_index()
    tidy = tidy.merge(judged[[*_KEYS, "verdict", "reason"]], how="left", on=_KEYS)
    show(tidy[tidy["estimate"].notna()], style)


def _show_gaps(judged: pd.DataFrame) -> None:
    """Write the gaps that want a reason, and how many do not."""
    large = judged[judged["verdict"] != "small"]
    write(
        f"\n{len(judged) - len(large)} of {len(judged)} estimates are within 2 standard errors of "
        "the posterior."
    )
    if len(large):
        columns = [*_KEYS, "posterior", "estimate", "difference", "verdict"]
        show(large[columns], "table", title="The others: difference in standard errors")


def _by_prediction(files: list[Path], fits: list[Fit], style: str) -> None:
    import spatialclusters as sc

    named = [f"{fit.spec.name} ({file.name})" for file, fit in zip(files, fits, strict=True)]
    results = {}
    for name, fit in zip(named, fits, strict=True):
        note(f"{name}: leave-one-out ...")
        results[name] = sc.marginal_loo(fit)
        note(f"{name}: {results[name]}")
    show(sc.compare_loo(results), style)
