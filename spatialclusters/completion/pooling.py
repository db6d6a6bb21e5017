"""Completed panels -> one posterior: every panel is fitted, and equal draws of each are pooled."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.completion.panels import Completed
from spatialclusters.design import Design, build_design
from spatialclusters.errors import FitError, SamplingError
from spatialclusters.files import read_arrays, write_arrays
from spatialclusters.parameters import model_priors, with_size_grid
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.result import Fit
from spatialclusters.run import choose_settings, label, model_linkages
from spatialclusters.sampling import Sampled, Settings
from spatialclusters.spec import ModelSpec, override
from spatialclusters.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["between_panels", "fit_completed"]

_LOG = logging.getLogger(__name__)
_KINDS: Final = ("posterior", "stats", "means", "variances")


def fit_completed(
    spec: ModelSpec,
    completed: Completed,
    weights: Weights | None = None,
    *,
    seed: int,
    linkages: str | Path | pd.DataFrame | xr.DataArray | None = None,
    chains: int = 2,
    tune: int = 200,
    draws: int = 100,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit:
    r"""Fit every completed panel and pool equal draws of each into one posterior.

    .. math:: p(\theta \mid \text{published}) \approx \frac{1}{m} \sum_{k=1}^m
        p(\theta \mid \text{panel}_k)

    Chain c of C in the result holds panels c, c + C, c + 2C, ..., one after the other, with the draws
    of all chains of each. No panel is in two chains, so R-hat compares panels, and effective draws
    count what the panels disagree on as what it is: one draw a panel.

    Parameters
    ----------
    spec, weights, linkages
        Those that the panels were completed with. Default priors are those that they were drawn
        under, and the fit's model states them.
    completed
        From :func:`complete_panels`.
    seed
        Chain c of panel k draws from (seed, k, c).
    chains, tune, draws
        Of every panel; the number of panels must be a multiple of ``chains``.
    checkpoint
        Folder that keeps the draws of finished panels; the same command goes on where it
        stopped.
    progress
        Show progress on stderr.

    Returns
    -------
    Fit
        Its rows are those of the first panel; what compares rows with draws (residuals, their
        predictions, replicates, leave-one-out, power scaling) uses the draws of that panel
        (:attr:`Fit.given_rows`). ``sample_stats`` has ``panel``, the number of each draw's panel,
        and the provenance has ``completed``, with the share of variance between panels.

    Raises
    ------
    SamplingError
        The checkpoint is of another run, or panels cannot be shared out among the chains.

    References
    ----------
    Gelman et al. (2013), Bayesian Data Analysis, 3rd ed., section 18.2; Zhou and Reiter (2010),
    doi:10.1198/tast.2010.09109, on pooling draws.
    """
    m = len(completed.panels)
    if chains < 1 or m % chains:
        msg = f"fit of completed panels: got {m} panels and {chains} chains; expected a multiple of chains."
        raise SamplingError(f"{msg} Each chain of the result holds panels of its own.")
    designs = [build_design(spec, panel, weights, linkages=linkages) for panel in completed.panels]
    spec = _with_priors(spec, designs[0], completed.record["priors"])
    if spec.likelihood.scale == "size":  # sigma is the noise at one size, in classes of all panels
        designs = [with_size_grid(design, completed.record["size_grid"]) for design in designs]
    settings = choose_settings(
        spec, seed=seed, engine="collapsed", sampler="nuts", chains=chains, tune=tune, draws=draws
    )
    folder = None if checkpoint is None else _checkpoint(Path(checkpoint), spec, designs, settings)
    parts = _sampled(spec, designs, settings, folder, progress=progress)
    for number, part in enumerate(parts, start=1):
        part.stats["panel"] = np.full((chains, draws), number)
    pooled = Sampled(
        **{kind: shared_out([getattr(part, kind) for part in parts], chains) for kind in _KINDS},
        timings={"wall_seconds": sum(part.timings["wall_seconds"] for part in parts)},
    )
    record = completed.record | {"between": between_shares([part.posterior for part in parts])}
    notes = {"completed": record}
    design = _noted(designs[0], record)
    first = completed.panels[0]
    return label(
        spec, design, settings, pooled, panel=first, linkages=model_linkages(spec, first, linkages),
        timings=pooled.timings, more=notes,
    )  # fmt: skip


def between_panels(fit: Fit) -> pd.DataFrame:
    r"""Return how much of each parameter's posterior variance is between completed panels.

    .. math:: \frac{(1 + 1/m) B}{W + (1 + 1/m) B}

    with B the variance of the panels' means and W the mean of their variances: what the withheld
    cells cost, on a scale from 0 to 1.

    Returns
    -------
    pandas.DataFrame
        Columns ``parameter`` and ``share``.

    Raises
    ------
    FitError
        The fit is not one of completed panels.

    References
    ----------
    Rubin (1987), doi:10.1002/9780470316696.
    """
    record = fit.provenance.get("completed")
    if record is None:
        msg = "between panels: got a fit of one panel; expected one of completed panels."
        raise FitError(f"{msg} Use fit_completed.")
    shares: Mapping[str, float] = record["between"]
    return pd.DataFrame({"parameter": list(shares), "share": list(shares.values())})


def between_shares(panels: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Return the share of variance between panels of every scalar that is not an effect."""
    shares, m = {}, len(panels)
    for name, values in panels[0].items():
        if name.startswith(("effect(", "total(")):
            continue
        size = int(np.prod(values.shape[2:]))
        by_panel = np.stack([panel[name].reshape(-1, size) for panel in panels])
        between = (1.0 + 1.0 / m) * by_panel.mean(axis=1).var(axis=0, ddof=1)
        within = by_panel.var(axis=1, ddof=1).mean(axis=0)
        for k, share in enumerate(between / (within + between)):
            shares[name if size == 1 else f"{name}[{k}]"] = float(share)
    return shares


def shared_out(panels: Sequence[Mapping[str, np.ndarray]], chains: int) -> dict[str, np.ndarray]:
    """Put the draws of panels c, c + C, ... into chain c of C, one panel after the other."""
    flat = [{n: x.reshape(-1, *x.shape[2:]) for n, x in panel.items()} for panel in panels]
    return {
        name: np.stack(
            [np.concatenate([panel[name] for panel in flat[c::chains]]) for c in range(chains)]
        )
        for name in flat[0]
    }


def _sampled(
    spec: ModelSpec,
    designs: list[Design],
    settings: Settings,
    folder: Path | None,
    *,
    progress: bool,
) -> list[Sampled]:
    """Draw from the posterior given each panel, or read what was drawn before."""
    from rich.progress import track

    sampler, parts = RepeatedSampler(spec, designs[0], settings), []
    for k, design in enumerate(
        track(designs, "Fitting completed panels", disable=not progress, transient=True)
    ):
        file = None if folder is None else folder / f"panel-{k + 1:03d}.npz"
        if file is not None and file.is_file():
            parts.append(_unpacked(read_arrays(file)))
            continue
        one = [
            sampler.sample(design, seed=_seed(settings.seed, k, c)) for c in range(settings.chains)
        ]
        part = Sampled(
            **{kind: _side_by_side([getattr(chain, kind) for chain in one]) for kind in _KINDS},
            timings={"wall_seconds": sum(chain.timings["wall_seconds"] for chain in one)},
        )
        if file is not None:
            write_arrays(file, _packed(part))
        parts.append(part)
    return parts


def _seed(seed: int, panel: int, chain: int) -> int:
    return int(np.random.SeedSequence([seed, panel, chain]).generate_state(1)[0])


def _side_by_side(chains: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([chain[name] for chain in chains]) for name in chains[0]}


def _packed(part: Sampled) -> dict[str, np.ndarray]:
    arrays = {f"{kind} {n}": x for kind in _KINDS for n, x in getattr(part, kind).items()}
    return arrays | {"wall_seconds": np.array(part.timings["wall_seconds"])}


def _unpacked(arrays: dict[str, np.ndarray]) -> Sampled:
    kinds: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in _KINDS}
    for name, values in arrays.items():
        kind, _, variable = name.partition(" ")
        if kind in kinds:
            kinds[kind][variable] = values
    return Sampled(**kinds, timings={"wall_seconds": float(arrays["wall_seconds"])})


def _checkpoint(folder: Path, spec: ModelSpec, designs: list[Design], settings: Settings) -> Path:
    """Make the folder, or refuse one that holds the panels of another run."""
    text = json.dumps([spec.digest, vars(settings), *(design.digest for design in designs)])
    digest = hashlib.sha256(text.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    stated = folder / "run.npz"
    if stated.is_file():
        if bytes(read_arrays(stated)["digest"]).hex() != digest:
            msg = f"{folder.name}: got the checkpoint of another run; expected that of this one."
            raise SamplingError(f"{msg} Remove it, or choose another.")
        return folder
    if any(folder.iterdir()):
        msg = f"{folder.name}: got a folder that holds other files; expected a new one. Choose another."
        raise SamplingError(msg)
    write_arrays(stated, {"digest": np.frombuffer(bytes.fromhex(digest), dtype=np.uint8)})
    return folder


def _with_priors(spec: ModelSpec, design: Design, known: Mapping[str, Any]) -> ModelSpec:
    """State the priors that the panels were drawn with where the model states none."""
    defaults = [n for n, found in model_priors(spec, design).items() if found.source == "default"]
    return override(spec, {f'priors."{n}"': known[n] for n in defaults if n in known})


def _noted(design: Design, record: dict[str, Any]) -> Design:
    """Say in the design that its rows are those of one of several panels."""
    count = record["unknown_start"] + record["unknown_end"]
    note = (
        f"{count} withheld cells were drawn under the model, {record['m']} times; the rows are those of "
        "the first completed panel, the posterior is pooled over all, and what compares rows with draws "
        "(residuals, predictions of rows, replicates, leave-one-out, power scaling) uses those of this panel. "
        "Priors that depend on the data are those of the panel filled halfway between the bounds. Given "
        "bounds, totals, predictors and the model, which cells are withheld is taken not to depend on "
        "their size"
    )
    changed = design.record | {"notes": [*design.record["notes"], note], "completed": record}
    attrs = design.data.attrs | {"record": json.dumps(changed)}
    return Design(design.data.assign_attrs(attrs), design.weights)
