"""The command that puts fits and estimates of other kinds side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from spatialclusters.cli import options
from spatialclusters.cli.output import clean, note, set_verbosity, show, write
from spatialclusters.errors import FitError

if TYPE_CHECKING:
    import pandas as pd

    from spatialclusters.result import Fit
    from spatialclusters.spatial_hac import SpatialKernel

__all__ = ["compare"]

_KEYS: Final = ["estimator", "term", "effect"]


def compare(
    files: Annotated[list[Path], typer.Argument(metavar="FIT.nc...", help="Saved fits.")],
    frequentist: Annotated[
        bool, typer.Option("--frequentist", help="Beside fixed effects and OLS on the same rows.")
    ] = False,
    conley: Annotated[
        str | None,
        typer.Option(
            "--conley",
            metavar="KM",
            help="These two with Conley's errors, too: bandwidth in km (--conley 150), or the "
            "distance to the k-th nearest region (--conley knn:8).",
        ),
    ] = None,
    kernel: Annotated[
        Literal["bartlett", "uniform"], typer.Option("--kernel", help="Of Conley's errors.")
    ] = "bartlett",
    reml: Annotated[
        bool, typer.Option("--reml", help="Beside the mixed model by REML, as lme4 has it.")
    ] = False,
    spatial_ml: Annotated[
        bool,
        typer.Option("--spatial-ml", help="Beside SAR, SEM and SDM by maximum likelihood (spreg)."),
    ] = False,
    gmm: Annotated[
        bool, typer.Option("--gmm", help="Beside SAR, SEM and SDM by moments, with robust errors.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of simulated errors of impacts.")] = 1,
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
    chosen = None if conley is None else _kernel(first, conley, kernel)
    beside: list[Any] = []
    if frequentist or chosen:
        beside.append(sc.fit_frequentist(first, conley=chosen))
    beside += [sc.fit_reml(first)] if reml else []
    beside += [sc.fit_spatial_ml(first, seed=seed)] if spatial_ml else []
    beside += [sc.fit_spatial_gmm(first, seed=seed)] if gmm else []
    for found in beside:
        for text in found.notes:
            note(text)
    judged = sc.judge_gaps(first, *beside)
    if style == "table":
        write(clean(sc.regression_table(*fits, *beside).to_text(), keep="\n"))
        if beside:
            _show_gaps(judged)
            for text in sc.expected_gaps(first, *beside):
                note(text)
        return
    tidy = sc.compare(first, *fits[1:], *beside).stack("estimator", future_stack=True).reset_index()
    tidy = tidy.merge(judged[[*_KEYS, "verdict", "reason"]], how="left", on=_KEYS)
    show(tidy[tidy["estimate"].notna()], style)


def _kernel(fit: Fit, bandwidth: str, kernel: Literal["bartlett", "uniform"]) -> SpatialKernel:
    """Return the kernel that ``--conley`` names."""
    from spatialclusters.spatial_hac import spatial_kernel

    try:
        if bandwidth.startswith("knn:"):
            return spatial_kernel(fit, neighbors=int(bandwidth[4:]), kernel=kernel)
        return spatial_kernel(fit, float(bandwidth), kernel=kernel)
    except ValueError as cause:
        msg = (
            f"--conley: got {bandwidth!r}; expected a number of km as in 150, or knn:8. Correct it."
        )
        raise FitError(msg) from cause


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
    results = {name: sc.marginal_loo(fit) for name, fit in zip(named, fits, strict=True)}
    for name, result in results.items():
        note(f"{name}: {result}")
    show(sc.compare_loo(results), style)
