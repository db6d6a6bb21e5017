"""The samplers of paper_scale.py, each in processes of its own, whose CPU seconds are counted.

paper_scale.py starts those that are Python as ``python tests/benchmarks/rivals.py NAME FOLDER``.
A chain that reaches its cap of CPU seconds is stopped, and what it has drawn is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.chain import block_files
from spatialclusters.design import Design
from spatialclusters.diagnostics import by_nuts
from spatialclusters.exported import BLOCK
from spatialclusters.files import read_arrays
from spatialclusters.parameters import model_priors, pair_labels, sd_names
from spatialclusters.run import choose_settings, fit_design
from spatialclusters.sampling import Settings
from spatialclusters.spec import ModelSpec, parse_spec, spec_to_toml

__all__ = ["RIVALS", "Budget", "Problem", "Run"]

EVERY = 8
"""Of the region:cluster effects, some 7,000, every eighth is kept."""

SHORT = 200
"""Draws a chain of the shortest run."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
    "JAX_ENABLE_X64": "1",
    "PYTENSOR_FLAGS": "cxx=",  # JAX compiles the models
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",  # later chains reuse the first's work
}


@dataclass(frozen=True)
class Problem:
    """The table that lme4 reads, and the same data as the package lays it out."""

    table: pd.DataFrame
    spec: ModelSpec
    design: Design


@dataclass(frozen=True)
class Budget:
    """Length of a rival's chains; ``cap`` is in CPU seconds a chain, start-up included.

    numpyro's trajectories are long while it tunes: 300 iterations leave next to nothing of
    the cap, and after 150 its step is so short that draws cost ten times as much.
    """

    chains: int = 4
    tune: int = 300
    numpyro_tune: int = 250
    draws: int = 1000
    cap: int = 225


@dataclass(frozen=True)
class Run:
    """What a sampler returned and what it cost.

    Attributes
    ----------
    cpu
        CPU seconds by stage, over all chains.
    draws
        By monitored name, raw units, shape (chain, draw, ...).
    note
        What the reader of the table must know.
    estimates
        Of an estimator that has no draws.
    """

    cpu: dict[str, float]
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    divergences: int = 0
    note: str = ""
    estimates: dict[str, float] = field(default_factory=dict)


def collapsed(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """The package's engine that samples hyperparameters alone, at its own default lengths."""
    return _collapsed(problem, seed, folder, budget, folder / "jax")


def collapsed_warm(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """The same with the compiled code of an earlier fit of this shape in the cache."""
    _collapsed(problem, seed, folder / "first", budget, folder / "jax", tune=10, draws=10)
    return _collapsed(problem, seed, folder / "second", budget, folder / "jax")


def collapsed_short(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """As few draws as give every quantity an effective sample size of 400."""
    return _collapsed(problem, seed, folder, budget, folder / "jax", tune=50, draws=SHORT)


def collapsed_short_warm(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """The same with a warm cache."""
    _collapsed(problem, seed, folder / "first", budget, folder / "jax", tune=10, draws=10)
    return _collapsed(
        problem, seed, folder / "second", budget, folder / "jax", tune=50, draws=SHORT
    )


def _collapsed(
    problem: Problem, seed: int, folder: Path, budget: Budget, cache: Path, **lengths: int
) -> Run:
    settings = choose_settings(
        problem.spec, seed=seed, engine="collapsed", chains=budget.chains, **lengths
    )
    _write_job(problem, asdict(settings), folder)
    total = _finished(_rival("collapsed", folder), folder, cache=cache)
    spent = json.loads((folder / "collapsed.json").read_text(encoding="utf-8"))
    cpu = spent["cpu"] | {"start-up": total - sum(spent["cpu"].values())}
    return Run(cpu, read_arrays(folder / "collapsed.npz"), spent["divergences"])


def full_numpyro(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """The package's engine that samples every effect."""
    settings = Settings(
        seed=seed,
        chains=budget.chains,
        tune=budget.numpyro_tune,
        draws=budget.draws,
        engine="full",
    )
    _write_job(problem, asdict(settings), folder)
    command = [sys.executable, "-P", "-m", "spatialclusters.preparation", str(folder)]
    cpu = {"preparation": _finished(command, folder), "warm-up": 0.0, "sampling": 0.0}
    chains, diverging = [], 0
    for chain in range(budget.chains):
        command = [sys.executable, "-P", "-m", "spatialclusters.chain", str(folder), str(chain)]
        _finished(command, folder, cap=budget.cap)
        blocks = [read_arrays(path) for path in block_files(folder, chain)]
        kept = [block for block in blocks if "posterior sigma" in block]
        # up to the last checkpoint, since draws after it are lost
        end = float(blocks[-1]["cpu seconds"]) if kept else budget.cap
        warm = float(blocks[-len(kept) - 1]["cpu seconds"]) if kept else budget.cap
        cpu |= {"warm-up": cpu["warm-up"] + warm, "sampling": cpu["sampling"] + end - warm}
        names = [name for name in kept[0] if name.startswith("posterior ")] if kept else []
        chains.append(
            {n.removeprefix("posterior "): np.concatenate([b[n] for b in kept]) for n in names}
        )
        diverging += sum(int(block["stat diverging"].sum()) for block in kept)
    draws, note = _rectangle([monitored(problem.design, chain) for chain in chains], budget)
    return Run(cpu, draws, diverging, note)


def full_centered_nutpie(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """Effects as parameters, sampled by nutpie."""
    return _nutpie("full-centered-nutpie", problem, seed, folder, budget)


def full_noncentered_nutpie(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """Effects as scale times standard normals, sampled by nutpie."""
    return _nutpie("full-noncentered-nutpie", problem, seed, folder, budget)


def lme4(problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    """REML by R's lme4: ``sampling`` is the call of lmer, ``start-up`` all the rest."""
    folder.mkdir(parents=True)
    problem.table.to_csv(folder / "table.csv", index=False)
    (folder / "fit.R").write_text(_LMER.format(formula=problem.spec.formula), encoding="utf-8")
    total = _finished(["Rscript", "fit.R"], folder)
    values = pd.read_csv(folder / "estimates.csv", index_col="name")["value"]
    call = float(values.pop("cpu"))
    cpu = {"start-up": total - call, "sampling": call}
    return Run(cpu, note="REML, no draws", estimates={str(k): float(v) for k, v in values.items()})


RIVALS: dict[str, Callable[[Problem, int, Path, Budget], Run]] = {
    "lme4": lme4,
    "full-centered-nutpie": full_centered_nutpie,
    "full-numpyro": full_numpyro,
    "full-noncentered-nutpie": full_noncentered_nutpie,
    "collapsed": collapsed,
    "collapsed-warm": collapsed_warm,
    "collapsed-short": collapsed_short,
    "collapsed-short-warm": collapsed_short_warm,
}

_LMER = """
suppressMessages(library(lme4))
table <- read.csv("table.csv", colClasses = c(region = "character"))
before <- proc.time()
fit <- lmer({formula}, data = table)
cpu <- sum((proc.time() - before)[c("user.self", "sys.self")])
scales <- as.data.frame(VarCorr(fit))
pair <- paste0(", ", scales$var1, ", ", scales$var2)
names <- ifelse(is.na(scales$var2), paste0("sd(", scales$grp, ", ", scales$var1, ")"),
                paste0("cor(", scales$grp, pair, ")"))
write.csv(data.frame(name = c("cpu", names(fixef(fit)), names),
                     value = c(cpu, fixef(fit), scales$sdcor)), "estimates.csv", row.names = FALSE)
"""


def plain_model(spec: ModelSpec, design: Design, *, centered: bool) -> Any:
    """Write the model as one would by hand; recorded in raw units under the package's names."""
    import pymc as pm
    import pytensor.tensor as pt

    priors: Mapping[str, Any] = {k: each.prior for k, each in model_priors(spec, design).items()}
    scale = design.data["scale"].values
    with pm.Model() as model:
        intercept = pm.Normal("intercept", priors["intercept"].mean, priors["intercept"].sd)
        sds = np.array([priors[term].sd for term in design.terms])
        beta = pm.Normal("beta", 0.0, sds * scale, shape=len(scale))
        pm.Deterministic("coefficient", beta / scale)
        mean = intercept + design.standardized @ beta
        for group in design.groups:
            name, shape = group.name, (len(group.levels), len(group.labels))
            factors = np.array([1.0 if c < 0 else scale[c] for c in group.columns])
            widths = np.array([priors[sd].sd for sd in sd_names(group)]) * factors
            sd = pm.HalfNormal(f"scale({name})", widths, shape=len(widths))
            pm.Deterministic(f"sd({name})", sd / factors)
            root = pt.diag(sd)
            if len(factors) > 1:
                unit = pm.LKJCorr(f"root({name})", n=len(factors), eta=priors[f"cor({name})"].eta)
                pm.Deterministic(f"cor({name})", (unit @ unit.T)[np.tril_indices(shape[1], -1)])
                root = sd[:, None] * unit
            if not centered:
                effect = pm.Normal(f"raw({name})", shape=shape) @ root.T
            elif len(factors) > 1:
                effect = pm.MvNormal(f"b({name})", np.zeros(shape[1]), chol=root, shape=shape)
            else:
                effect = pm.Normal(f"b({name})", 0.0, sd, shape=shape)
            pm.Deterministic(f"effect({name})", effect / factors)
            columns = np.column_stack([np.ones(design.n_rows), design.standardized])
            columns = columns[:, [c + 1 for c in group.columns]]
            mean = mean + (columns * effect[group.codes]).sum(axis=1)
        sigma = pm.HalfNormal("sigma", priors["sigma"].sd)
        pm.Normal("y", mean, sigma, observed=design.y)
    return model


def monitored_names(design: Design) -> list[str]:
    """Return the parameters that all samplers have in common."""
    names = ["intercept", "coefficient", "sigma"]
    for group in design.groups:
        names += [f"sd({group.name})", f"effect({group.name})"]
        names += [f"cor({group.name})"] if pair_labels(group) else []
    return names


def monitored(design: Design, draws: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Pick them from draws, and of the effects by region and cluster every eighth."""
    kept = {name: np.asarray(draws[name]) for name in monitored_names(design) if name in draws}
    many = "effect(region:cluster)"
    return kept | ({many: kept[many][..., ::EVERY, :]} if many in kept else {})


def _nutpie(sampler: str, problem: Problem, seed: int, folder: Path, budget: Budget) -> Run:
    _write_job(problem, {"seed": seed} | asdict(budget), folder)
    total = _finished(_rival(sampler, folder), folder)
    found = [
        (read_arrays(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        for path in sorted(folder.glob("chain-*.npz"))
    ]
    cpu = {stage: sum(spent[stage] for _, spent in found) for stage in ("warm-up", "sampling")}
    draws, note = _rectangle([chain for chain, _ in found], budget)
    divergences = sum(spent["divergences"] for _, spent in found)
    return Run({"start-up": total - sum(cpu.values())} | cpu, draws, divergences, note)


def _nutpie_chains(folder: Path, *, centered: bool) -> None:
    """Compile once and run the chains one after another; what one leaves the next ones get."""
    import nutpie  # type: ignore[import-untyped]

    spec, design, settings = _read_job(folder)
    compiled = nutpie.compile_pymc_model(
        plain_model(spec, design, centered=centered),
        backend="jax",
        gradient_backend="jax",
        var_names=monitored_names(design),
    )
    total = settings["cap"] * settings["chains"]
    for chain in range(settings["chains"]):
        now = time.process_time()
        share = (total - now) / (settings["chains"] - chain)
        draws, spent = _nutpie_chain(compiled, settings, chain, deadline=now + share)
        np.savez(folder / f"chain-{chain}.npz", **monitored(design, draws))
        (folder / f"chain-{chain}.json").write_text(json.dumps(spent), encoding="utf-8")


def _nutpie_chain(
    compiled: Any, settings: Mapping[str, Any], chain: int, *, deadline: float
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    import nutpie

    reached: dict[str, float] = {}

    def watch(progress: list[Any]) -> None:
        if progress[0].finished_draws > 0:  # JAX compiles when it is first called
            reached.setdefault("started", time.process_time())
        if progress[0].finished_draws > 0 and not progress[0].tuning:
            reached.setdefault("warm", time.process_time())

    sampler = nutpie.sample(
        compiled,
        draws=settings["draws"],
        tune=settings["tune"],
        chains=1,
        cores=1,
        seed=1000 * settings["seed"] + chain,
        progress_bar=False,
        progress_callback=watch,
        blocking=False,
    )
    trace = None
    while trace is None and time.process_time() < deadline:
        with contextlib.suppress(TimeoutError):
            trace = sampler.wait(timeout=0.5)
    end = time.process_time()
    trace = sampler.abort() if trace is None else trace
    started = reached.get("started", end)
    warm = reached.get("warm", end)
    draws = {str(k): v.values[0] for k, v in trace["posterior"].data_vars.items()}
    divergences = int(trace["sample_stats"]["diverging"].values.sum())
    spent = {"warm-up": warm - started, "sampling": end - warm, "divergences": divergences}
    return draws, spent


def _collapsed_chains(folder: Path) -> None:
    spec, design, settings = _read_job(folder)
    with mock.patch("os.cpu_count", return_value=1):  # chains one after another
        fit = fit_design(spec, design, Settings(**settings), checkpoint=folder / "chains")
    draws = {name: fit.draws(name) for name in monitored_names(design)}
    np.savez(folder / "collapsed.npz", **monitored(design, draws))
    timings = fit.provenance["timings"]
    recovery = float(np.sum(timings["recovery_cpu_seconds"]))
    tuned = -(-settings["tune"] // BLOCK) - 1  # the block in which tuning ends
    ends = [
        [float(read_arrays(path)["cpu seconds"]) for path in block_files(folder / "chains", chain)]
        for chain in range(settings["chains"])
    ]
    warm, total = sum(end[tuned] for end in ends), sum(end[-1] for end in ends)
    spent = {
        "cpu": {
            "preparation": timings["preparation_cpu_seconds"],
            "warm-up": warm,
            "sampling": total - warm - recovery,
            "recovery": recovery,
        },
        "divergences": int(fit.sample_stats["diverging"].sum()) if by_nuts(fit) else 0,
    }
    (folder / "collapsed.json").write_text(json.dumps(spent), encoding="utf-8")


def _rival(sampler: str, folder: Path) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), sampler, str(folder)]


def _finished(
    command: list[str], folder: Path, cap: int | None = None, cache: Path | None = None
) -> float:
    """Run a process on one core to its end or its cap; return the CPU seconds that it took."""

    def prepare() -> None:
        # on two cores XLA's threads wait for each other, and waiting is CPU time
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        if cap:
            resource.setrlimit(resource.RLIMIT_CPU, (cap, cap + 5))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "log.txt").open("ab") as log:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ
            | ONE_THREAD
            | {"JAX_COMPILATION_CACHE_DIR": str(cache or folder / "jax")},
            preexec_fn=prepare,
            check=False,
        )
    if done.returncode not in (0, -signal.SIGXCPU):
        msg = f"{command}: exit code {done.returncode}, see {folder / 'log.txt'}"
        raise RuntimeError(msg)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _write_job(problem: Problem, settings: Mapping[str, Any], folder: Path) -> None:
    """Write what spatialclusters.preparation reads."""
    folder.mkdir(parents=True)
    problem.design.data.to_netcdf(folder / "design.nc", engine="h5netcdf")
    (folder / "model.toml").write_text(spec_to_toml(problem.spec), encoding="utf-8")
    (folder / "job.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")


def _read_job(folder: Path) -> tuple[ModelSpec, Design, dict[str, Any]]:
    with xr.open_dataset(folder / "design.nc", engine="h5netcdf") as data:
        design = Design(data.load())
    spec = parse_spec((folder / "model.toml").read_text(encoding="utf-8"))
    return spec, design, json.loads((folder / "job.json").read_text(encoding="utf-8"))["settings"]


def _rectangle(
    chains: list[dict[str, np.ndarray]], budget: Budget
) -> tuple[dict[str, np.ndarray], str]:
    """Stack chains of different lengths so that as few draws as possible are cut off."""
    lengths = np.array([len(chain["sigma"]) if "sigma" in chain else 0 for chain in chains])
    length = max(lengths.tolist(), key=lambda n: n * int((lengths >= n).sum()))
    kept = [chain for chain, n in zip(chains, lengths, strict=True) if n >= length]
    if length < 10 or len(kept) < 2:
        return {}, f"cap reached: {lengths.tolist()} draws"
    draws = {name: np.stack([chain[name][:length] for chain in kept]) for name in kept[0]}
    return draws, f"cap reached: {lengths.tolist()} draws" if lengths.min() < budget.draws else ""


if __name__ == "__main__":
    _, name, place = sys.argv
    if name == "collapsed":
        _collapsed_chains(Path(place))
    else:
        _nutpie_chains(Path(place), centered=name == "full-centered-nutpie")
