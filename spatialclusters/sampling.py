"""pm.Model -> draws: one process per chain, checkpoints, progress."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Final

import numpy as np

from spatialclusters._version import __version__, version_of
from spatialclusters.chain import block_files
from spatialclusters.design import Design
from spatialclusters.errors import SamplingError, expect, listing
from spatialclusters.exported import BLOCK, PROGRAM, code_folder
from spatialclusters.files import read_arrays, replace_file, write_netcdf
from spatialclusters.preparation import PREPARED, is_prepared
from spatialclusters.spec import ModelSpec, spec_to_toml

__all__ = ["SINGLE_THREAD", "Sampled", "Settings", "has_draws", "sample"]

ENGINES: Final = ("collapsed", "full")
SAMPLERS: Final = ("auto", "nuts")
_LOG = logging.getLogger(__name__)
_MEANING: Final = {"design": "sample (data, formula or period)", "version": "package's version"}
_POLL_SECONDS: Final = 0.2
SINGLE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # XLA's pool has as many threads as NPROC says. Its flag for one thread is no substitute:
    # it chooses another matrix product, half as fast. Level 1 compiles faster, to the same speed.
    "NPROC": "1",
    # The device count comes last: PyMC puts 100 in front when it is imported, the last counts,
    # and another count would be another key in the cache of compiled code.
    "XLA_FLAGS": "--xla_backend_optimization_level=1 --xla_force_host_platform_device_count=1",
    "JAX_ENABLE_X64": "1",
    # JAX compiles the model; PyTensor's own C compiler would only add seconds
    "PYTENSOR_FLAGS": "cxx=",
}


@dataclass(frozen=True)
class Settings:
    """How to sample; none of it changes the posterior.

    Attributes
    ----------
    seed
        Chain k's key is derived from (seed, k), and so are other random numbers of it.
    chains, tune, draws
        Number of chains, and iterations of each.
    target_accept
        NUTS acceptance rate aimed at while tuning; after a good warm start of the collapsed
        engine that of :data:`spatialclusters.program.SHORT_ACCEPT` holds instead.
    max_tree_depth
        At most ``2**max_tree_depth - 1`` leapfrog steps an iteration; after a good warm
        start three.
    jitter
        Half-width of the uniform noise around the full engine's start, unconstrained scale.
    engine
        ``"collapsed"``, hyperparameters only and the rest drawn exactly, or ``"full"``,
        every effect a parameter.
    sampler
        ``"nuts"``, or ``"auto"``: the collapsed engine proposes from a surrogate of the posterior
        where that is close enough (:mod:`spatialclusters.kernels`), and takes NUTS elsewhere.
    """

    seed: int
    chains: int = 4
    tune: int = 1000
    draws: int = 2000
    engine: str = "full"
    target_accept: float = 0.9
    max_tree_depth: int = 10
    jitter: float = 0.5
    sampler: str = "auto"

    def __post_init__(self) -> None:
        for name, low in (("chains", 1), ("tune", 10), ("draws", 10), ("seed", 0)):
            expect(getattr(self, name), Integral, f"sampling, {name}")
            object.__setattr__(self, name, int(getattr(self, name)))  # NumPy's too, for JSON
            if getattr(self, name) < low:
                msg = f"sampling: got {name} = {getattr(self, name)}; expected at least {low}."
                raise SamplingError(msg)
        if self.seed >= 2**63:
            msg = f"sampling: got seed = {self.seed}; expected less than 2**63."
            raise SamplingError(msg)
        for name, allowed in (("engine", ENGINES), ("sampler", SAMPLERS)):
            if getattr(self, name) not in allowed:
                got = f"sampling: got {name} = {getattr(self, name)!r}"
                raise SamplingError(f"{got}; expected one of {listing(allowed)}.")
        if not 0.0 < self.target_accept < 1.0:
            msg = f"sampling: got target_accept = {self.target_accept}; expected between 0 and 1."
            raise SamplingError(msg)


@dataclass(frozen=True, eq=False)
class Sampled:
    """Draws, sampler statistics and conditional moments, with dims (chain, draw, ...).

    ``means`` and ``variances`` given the hyperparameters come from the collapsed engine
    only; ``timings`` says where the time went, and the Pareto k of its warm start.
    """

    posterior: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    means: dict[str, np.ndarray]
    variances: dict[str, np.ndarray]
    timings: dict[str, Any]


def sample(
    spec: ModelSpec,
    design: Design,
    settings: Settings,
    *,
    folder: Path,
    resume: bool = False,
    cores: int | None = None,
    progress: bool = False,
) -> Sampled:
    """Run all chains, at most one process per core, and collect their draws.

    Parameters
    ----------
    spec, design
        The model and its arrays.
    settings
        Seed, chains and lengths.
    folder
        Where checkpoints go; kept when the run is interrupted.
    resume
        Continue from the checkpoints in ``folder``.
    cores
        Chains that run at once; default all cores.
    progress
        Show a bar per chain on stderr.

    Raises
    ------
    SamplingError
        A chain failed, checkpoints cannot be written or read, or ``folder`` belongs to another
        model, data or settings.
    """
    try:
        _prepare(spec, design, settings, folder, resume=resume)
        return _run(settings, folder, cores=cores, progress=progress)
    except OSError as cause:
        msg = f"sampling: checkpoints at {folder.name} cannot be written or read ({cause})."
        raise SamplingError(f"{msg} {_kept(folder)}") from cause


def has_draws(folder: Path) -> bool:
    """Whether checkpoints in a folder hold anything that was drawn."""
    return any(folder.glob("chain-*/block-*.npz"))


def _kept(folder: Path) -> str:
    kept = (
        "What was drawn is kept: continue"
        if has_draws(folder)
        else "Nothing was drawn yet. Continue"
    )
    return f"{kept} with --resume."


def _run(settings: Settings, folder: Path, *, cores: int | None, progress: bool) -> Sampled:
    started = time.perf_counter()
    waiting = list(range(settings.chains))
    if not is_prepared(folder):
        _prepare_chains(folder, shown=progress)
    running: dict[int, subprocess.Popen[bytes]] = {}
    limit = min(cores or os.cpu_count() or 1, settings.chains)
    with _Bars(settings, folder, shown=progress) as bars:
        try:
            while waiting or running:
                while waiting and len(running) < limit:
                    chain = waiting.pop(0)
                    running[chain] = _start("chain", folder, str(chain), str(os.getpid()))
                time.sleep(_POLL_SECONDS)
                bars.update()
                for chain, process in list(running.items()):
                    if process.poll() is not None:
                        del running[chain]
                        _check_exit(process, folder, f"chain-{chain}")
        finally:
            for process in running.values():
                process.terminate()
                process.wait()
    sampled = _collect(folder, settings)
    sampled.timings["wall_seconds"] = time.perf_counter() - started
    return sampled


def _prepare(
    spec: ModelSpec, design: Design, settings: Settings, folder: Path, *, resume: bool
) -> None:
    """Write the job, or check that the one that is there is the same."""
    job = {
        "version": __version__,
        # other versions would go on with other bits
        "versions": {name: version_of(name) for name in ("jax", "jaxlib", "numpy", "numpyro")},
        "settings": asdict(settings),
        "model": hashlib.sha256(spec_to_toml(spec).encode()).hexdigest(),
        "design": design.digest,
        "weights": design.weights.digest if design.weights else None,
    }
    path = folder / "job.json"
    if resume and not path.is_file():
        msg = f"--resume: got no checkpoint at {folder.name}; expected one. Run without --resume."
        raise SamplingError(msg)
    if path.is_file() and not resume:
        msg = (
            f"sampling: got checkpoints of an interrupted run at {folder.name}; expected none. "
            "Continue it with --resume, or delete the folder to start anew; --force does not touch it."
        )
        raise SamplingError(msg)
    if resume:
        before = _read_job(path)
        if changed := [*_changed(before, json.loads(json.dumps(job)))]:
            msg = (
                f"--resume: got another run than the interrupted one at {folder.name}: "
                f"{'; '.join(changed)}; expected the same. Undo the change, or delete the folder to "
                "start anew."
            )
            raise SamplingError(msg)
        return
    folder.mkdir(parents=True, exist_ok=True)
    # what is left of a job that was ended while it was removed would pass for this one's
    for remains in (folder / PROGRAM, *folder.glob("chain-*/")):
        if remains.is_dir():
            shutil.rmtree(remains)
    for remains in (folder / PREPARED, folder / "weights.nc"):
        remains.unlink(missing_ok=True)
    replace_file(folder / "design.nc", lambda file: write_netcdf(file, design.data))
    if design.weights is not None:
        weights = design.weights.to_dataset()
        replace_file(folder / "weights.nc", lambda file: write_netcdf(file, weights))
    (folder / "model.toml").write_text(spec_to_toml(spec), encoding="utf-8")
    replace_file(path, lambda file: file.write(json.dumps(job).encode()))


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Name everything in which two jobs differ, with its values where these say something."""
    for name, value in now.items():
        old = before.get(name)
        if old == value:
            continue
        if not (isinstance(value, dict) and isinstance(old, dict)):
            shown = f" ({old} before, {value} now)" if name == "version" else ""
            yield f"the {_MEANING.get(name, name)} changed{shown}"
            continue
        for part in dict.fromkeys([*old, *value]):
            if old.get(part) != value.get(part):
                yield f"{part} was {old.get(part)}, is {value.get(part)}"


def _read_job(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as cause:
        msg = f"--resume: got a {path.name} that cannot be read ({cause}); expected one of ours."
        raise SamplingError(f"{msg} Delete {path.parent.name} and start anew.") from cause


def _prepare_chains(folder: Path, *, shown: bool) -> None:
    """Compile once and find where to start, before the chains do."""
    from rich.console import Console

    with Console(stderr=True, quiet=not shown).status("compiling and looking for the mode"):
        process = _start("preparation", folder)
        try:
            process.wait()
        finally:
            process.terminate()
            process.wait()
    _check_exit(process, folder, "preparation")


def _start(module: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", f"spatialclusters.{module}", str(folder), *arguments]
    with (folder / f"{'-'.join((module, *arguments[:1]))}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_compilation_cache() | os.environ | SINGLE_THREAD,
        )


def _compilation_cache() -> dict[str, str]:
    """Let JAX keep compiled models, so that the same model and data compile once."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(code_folder()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }


def _check_exit(process: subprocess.Popen[bytes], folder: Path, name: str) -> None:
    if process.returncode == 0:
        return
    log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    last = " / ".join(log.strip().splitlines()[-3:])[-600:]
    msg = (
        f"sampling: {name} stopped with exit code {process.returncode} ({last}). "
        f"Its log is {folder.name}/{name}.log. {_kept(folder)}"
    )
    raise SamplingError(msg)


def _collect(folder: Path, settings: Settings) -> Sampled:
    kinds: dict[str, dict[str, list[np.ndarray]]] = {
        kind: {} for kind in ("posterior", "stat", "mean", "variance")
    }
    timings: dict[str, Any] = {
        name: []
        for name in ("warm_up_seconds", "sampling_seconds", "cpu_seconds", "recovery_cpu_seconds")
    }
    warm = -(-settings.tune // BLOCK) - 1
    for chain in range(settings.chains):
        blocks = [read_arrays(path) for path in block_files(folder, chain)]
        for name in blocks[-1]:
            kind, _, variable = name.partition(" ")
            if kind in kinds:
                parts = [block[name] for block in blocks if name in block]
                kinds[kind].setdefault(variable, []).append(np.concatenate(parts))
        at = [float(block["seconds"]) for block in blocks]
        timings["warm_up_seconds"].append(at[warm])
        timings["sampling_seconds"].append(at[-1] - at[warm])
        timings["cpu_seconds"].append(float(blocks[-1]["cpu seconds"]))
        recovery = sum(float(block["recovery cpu seconds"]) for block in blocks)
        timings["recovery_cpu_seconds"].append(recovery)
    found = read_arrays(folder / PREPARED)
    timings["preparation_cpu_seconds"] = float(found["cpu seconds"])
    for name in ("pareto_k", "surrogate_acceptance"):
        if name in found:
            timings[name] = float(found[name])
    stacked = {
        kind: {name: np.stack(chains) for name, chains in values.items()}
        for kind, values in kinds.items()
    }
    return Sampled(
        stacked["posterior"], stacked["stat"], stacked["mean"], stacked["variance"], timings
    )


class _Bars:
    """A progress bar per chain, fed by the checkpoints that have appeared."""

    def __init__(self, settings: Settings, folder: Path, *, shown: bool) -> None:
        self._settings, self._folder, self._shown = settings, folder, shown

    def __enter__(self) -> _Bars:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[stage]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(
            *columns, console=Console(stderr=True), disable=not self._shown, transient=True
        )
        self._progress.start()
        total = self._settings.tune + self._settings.draws
        self._tasks = [
            self._progress.add_task(f"chain {k + 1}", total=total, stage="waiting", start=True)
            for k in range(self._settings.chains)
        ]
        return self

    def update(self) -> None:
        if not self._shown:
            return
        total = self._settings.tune + self._settings.draws
        for chain, task in enumerate(self._tasks):
            done = min(len(block_files(self._folder, chain)) * BLOCK, total)
            started = (self._folder / f"chain-{chain}.log").exists()
            stage = "waiting" if not started else "compiling" if not done else "warm-up"
            stage = "sampling" if done >= self._settings.tune else stage
            self._progress.update(task, completed=done, stage="done" if done == total else stage)

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
