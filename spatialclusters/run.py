"""fit(): spec + panel + weights -> Fit."""

from __future__ import annotations

import datetime as dt
import logging
import platform
import shutil
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import xarray as xr

from spatialclusters._version import __version__, version_of
from spatialclusters.collapsed.problem import why_not_collapsed
from spatialclusters.design import Design, build_design, expect_inputs
from spatialclusters.errors import SamplingError
from spatialclusters.exported import code_kept
from spatialclusters.linkages import read_linkages
from spatialclusters.neighbors import parse_weights
from spatialclusters.panel import Panel
from spatialclusters.parameters import model_priors
from spatialclusters.processes import check_dependence
from spatialclusters.ranges import uninformed_weights
from spatialclusters.result import Fit, assemble, kept_variables
from spatialclusters.sampling import Sampled, Settings, sample
from spatialclusters.small import is_small, sample_here
from spatialclusters.spec import ModelSpec
from spatialclusters.weights import Weights

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["choose_settings", "default_weights", "fit", "fit_design", "label", "model_linkages"]

_LOG = logging.getLogger(__name__)
_RECORDED: Final = (
    "pymc", "pytensor", "jax", "jaxlib", "numpyro", "numpy", "scipy", "pandas", "xarray",
    "libpysal", "arviz", "pyfixest", "spreg",
)  # fmt: skip


def fit(
    spec: ModelSpec,
    panel: Panel,
    weights: Weights | None = None,
    *,
    seed: int,
    linkages: str | Path | pd.DataFrame | xr.DataArray | None = None,
    engine: str = "auto",
    sampler: str = "auto",
    chains: int = 4,
    tune: int | None = None,
    draws: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Fit:
    """Estimate a model by Markov chain Monte Carlo on JAX in float64.

    Parameters
    ----------
    spec
        From :func:`spatialclusters.load_model`.
    panel
        From :func:`spatialclusters.read_panel`.
    weights
        Spatial weights; by default those that the model file names, if the
        panel has geometry.
    seed
        Chain k draws from (seed, k): same bits on the same machine and versions.
    linkages
        Table of linked clusters, for ``linked_strength``.
    engine
        ``"collapsed"`` samples the hyperparameters and draws everything else exactly:
        the same posterior, much faster, for Gaussian noise and normal priors of
        coefficients. ``"full"`` samples everything. ``"auto"`` is collapsed where possible.
    sampler
        ``"nuts"``, or ``"auto"``: where a polynomial stands in well for the posterior of the
        hyperparameters, the collapsed engine takes proposals from it and lets the exact
        density accept or reject them, which needs a tenth of the work; elsewhere, and for
        noise by size, NUTS.
    chains, tune, draws
        Number of chains, and iterations of each: by default 300 + 1,500 collapsed,
        1,000 + 2,000 full.
    checkpoint
        Folder for checkpoints, left in place so that nothing is lost before the
        fit is saved. By default a temporary one, removed when the fit is complete.
        A fit that takes a few seconds writes none.
    resume
        Continue the interrupted run in ``checkpoint``.
    progress
        Show progress on stderr.

    Returns
    -------
    Fit

    Raises
    ------
    PanelError, WeightsError, SpecError
        The input is wrong; nothing was sampled.
    SamplingError
        A chain failed, or the resumed run was another one.
    """
    expect_inputs("fit", spec, panel, weights)
    settings = choose_settings(
        spec, seed=seed, engine=engine, sampler=sampler, chains=chains, tune=tune, draws=draws
    )
    if weights is None:
        weights = default_weights(spec, panel)
    started = time.perf_counter()
    design = build_design(spec, panel, weights, linkages=linkages)
    prepared = time.perf_counter() - started
    return fit_design(
        spec,
        design,
        settings,
        panel=panel,
        linkages=model_linkages(spec, panel, linkages),
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        timings={"design_seconds": prepared},
    )


def choose_settings(
    spec: ModelSpec,
    *,
    seed: int,
    engine: str = "auto",
    sampler: str = "auto",
    chains: int = 4,
    tune: int | None = None,
    draws: int | None = None,
) -> Settings:
    """Choose the engine and how long it runs.

    Raises
    ------
    SamplingError
        The engine is unknown, or the model cannot be collapsed.
    """
    reason = why_not_collapsed(spec)
    if engine == "collapsed" and reason is not None:
        msg = f"engine collapsed: got a model that cannot be collapsed: {reason}. Use engine full."
        raise SamplingError(msg)
    chosen = engine if engine != "auto" else "full" if reason else "collapsed"
    default_tune, default_draws = (300, 1500) if chosen == "collapsed" else (1000, 2000)
    return Settings(
        seed=seed,
        chains=chains,
        tune=default_tune if tune is None else tune,
        draws=default_draws if draws is None else draws,
        target_accept=0.8 if chosen == "collapsed" else 0.9,
        engine=chosen,
        sampler=sampler,
    )


def default_weights(spec: ModelSpec, panel: Panel) -> Weights | None:
    """Build the weights that the model file names, if the panel has geometry."""
    if panel.geometry is None:
        return None
    return parse_weights(spec.weights.kind, panel, row_standardize=spec.weights.row_standardize)


def fit_design(
    spec: ModelSpec,
    design: Design,
    settings: Settings,
    *,
    panel: Panel | None = None,
    linkages: xr.DataArray | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    timings: dict[str, Any] | None = None,
) -> Fit:
    """Sample a model whose design is already there, as simulations do.

    Raises
    ------
    SamplingError
        The full engine is to estimate the weights; a chain failed, or the resumed run was
        another one.
    SpecError
        The response does not vary, or a uniform prior reaches outside of where a process exists.
    """
    model_priors(spec, design)
    check_dependence(spec, design)
    if settings.engine == "full" and design.psi is not None:
        reason = why_not_collapsed(spec)
        got = f"; this model cannot be collapsed: {reason}" if reason else ""
        msg = f"engine full: got weights that are estimated{got}. Use engine collapsed, which can "
        raise SamplingError(f"{msg}estimate them, or give weights that are fixed.")
    folder = Path(checkpoint) if checkpoint else Path(tempfile.mkdtemp(prefix="spatialclusters-"))
    if not checkpoint:
        folder.rmdir()
    sampled, small = None, is_small(design, settings)
    if small and not resume and not folder.exists():
        sampled = _here(spec, design, settings, shown=progress)
    if sampled is None:
        # chains of proposals that disagreed here must not be taken up in processes
        chosen = replace(settings, sampler="nuts") if small else settings
        sampled = sample(spec, design, chosen, folder=folder, resume=resume, progress=progress)
    result = label(
        spec, design, settings, sampled,
        panel=panel, linkages=linkages, timings={**(timings or {}), **sampled.timings},
    )  # fmt: skip
    if not checkpoint and folder.exists():
        shutil.rmtree(folder)
    if nothing := uninformed_weights(result):
        _LOG.warning("fit: %s", nothing)
    return result


def _here(spec: ModelSpec, design: Design, settings: Settings, *, shown: bool) -> Sampled | None:
    from threadpoolctl import threadpool_limits

    status: AbstractContextManager[Any] = nullcontext()
    if shown:
        from rich.console import Console

        status = Console(stderr=True).status("sampling")
    # one thread: draws must not depend on how many cores there are
    with status, threadpool_limits(1, "blas"), code_kept():
        return sample_here(spec, design, settings)


def label(
    spec: ModelSpec,
    design: Design,
    settings: Settings,
    sampled: Sampled,
    *,
    panel: Panel | None,
    linkages: xr.DataArray | None,
    timings: dict[str, Any],
    more: dict[str, Any] | None = None,
) -> Fit:
    """Put draws, data and where all came from into a fit; ``more`` adds to its provenance."""
    provenance = {
        "version": __version__,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "settings": vars(settings),
        "engine": settings.engine,
        "sampler": "numpyro NUTS" if "diverging" in sampled.stats else "surrogate proposals",
        "versions": {name: version_of(name) for name in _RECORDED},
        "python": platform.python_version(),
        "digests": {
            "model": spec.digest,
            "design": design.digest,
            "rows": design.rows_digest,
            "weights": design.weights.digest if design.weights else None,
        },
        "timings": timings,
        **(more or {}),
    }
    return assemble(
        spec,
        design,
        sampled.posterior,
        sampled.stats,
        panel=xr.Dataset() if panel is None else _levels(spec, panel),
        geometry=None if panel is None else panel.geometry,
        provenance=provenance,
        moments=(sampled.means, sampled.variances),
        linkages=linkages,
    )


def _levels(spec: ModelSpec, panel: Panel) -> xr.Dataset:
    """Keep the base-year cells that the covariates were computed from, of every region."""
    start = panel.period(spec.growth.from_year) if spec.growth else next(iter(panel.years), None)
    present, kept = panel.data["present"], {}
    if spec.growth is not None:
        kept["status"] = panel.status(spec.growth.variable, start).assign_attrs(
            flag_values=[0, 1, 2], flag_meanings="observed withheld absent"
        )
    names = [f"{name}{end}" for name in kept_variables(spec) for end in ("", "_lower", "_upper")]
    kept |= {name: panel.values(name, start) for name in names if name in panel.variables}
    kept["present"] = present.sel(year=start, drop=True) if "year" in present.dims else present
    return xr.Dataset(kept)


def model_linkages(spec: ModelSpec, panel: Panel, source: Any) -> xr.DataArray | None:
    """Return the weights between the panel's clusters, where the model uses them."""
    if source is None or "linked_strength" not in spec.parsed_formula.variables:
        return None
    by_cluster = "cluster" in panel.data.dims
    labels = panel.data["cluster" if by_cluster else "cluster_of"].values.tolist()
    clusters = sorted({*labels} - {""})
    matrix = source if isinstance(source, xr.DataArray) else read_linkages(source, clusters)
    return matrix.sel(cluster=clusters, linked_cluster=clusters)
