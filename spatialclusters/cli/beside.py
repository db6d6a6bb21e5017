"""Estimates of other kinds beside a fit: options of several commands, stated once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spatialclusters.cli.output import note
from spatialclusters.errors import FitError

if TYPE_CHECKING:
    from spatialclusters.result import Fit
    from spatialclusters.spatial_hac import SpatialKernel

__all__ = [
    "Conley",
    "Frequentist",
    "Gmm",
    "Kernel",
    "Reml",
    "Seed",
    "SpatialMl",
    "estimates_beside",
]

Frequentist = Annotated[
    bool, typer.Option("--frequentist", help="Fixed effects and OLS on the rows of the first fit.")
]
Conley = Annotated[
    str | None,
    typer.Option(
        "--conley",
        metavar="KM",
        help="These two with Conley's errors, too: bandwidth in km (--conley 150), or the "
        "distance to the k-th nearest region (--conley knn:8).",
    ),
]
Kernel = Annotated[
    Literal["bartlett", "uniform"], typer.Option("--kernel", help="Of Conley's errors.")
]
Reml = Annotated[
    bool, typer.Option("--reml", help="The mixed model of its groups by REML, as in lme4.")
]
SpatialMl = Annotated[
    bool, typer.Option("--spatial-ml", help="SAR, SEM and SDM by maximum likelihood (spreg).")
]
Gmm = Annotated[
    bool, typer.Option("--gmm", help="SAR, SEM and SDM by moments (spreg), with robust errors.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of simulated errors of impacts.")]


def estimates_beside(
    fit: Fit,
    *,
    frequentist: bool,
    conley: str | None,
    kernel: Literal["bartlett", "uniform"],
    reml: bool,
    spatial_ml: bool,
    gmm: bool,
    seed: int,
) -> list[Any]:
    """Estimate what the options name on the rows of a fit, and say how on standard error."""
    import spatialclusters as sc

    chosen = None if conley is None else _kernel(fit, conley, kernel)
    found: list[Any] = []
    if frequentist or chosen:
        found.append(sc.fit_frequentist(fit, conley=chosen))
    found += [sc.fit_reml(fit)] if reml else []
    found += [sc.fit_spatial_ml(fit, seed=seed)] if spatial_ml else []
    found += [sc.fit_spatial_gmm(fit, seed=seed)] if gmm else []
    for each in found:
        for text in each.notes:
            note(text)
    return found


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
