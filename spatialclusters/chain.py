"""One Markov chain in one process: NUTS on JAX, written block by block to a checkpoint.

Run as ``python -m spatialclusters.chain FOLDER K`` by :mod:`spatialclusters.sampling`.
The key of chain k comes from (seed, k) alone and every step calls the same compiled
function, so its bits depend neither on the other chains nor on where it was resumed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spatialclusters.design import Design
from spatialclusters.files import replace_file
from spatialclusters.model import build_model
from spatialclusters.spec import parse_spec

__all__ = ["BLOCK", "block_files", "read_block", "run_chain"]

BLOCK = 50
"""Iterations between checkpoints."""

_DROPPED = ("raw(", "root(", "fixed(", "coefficient (", "nu - 2")


def block_files(folder: Path, chain: int) -> list[Path]:
    """Return the checkpoint files of a chain in order."""
    return sorted((folder / f"chain-{chain}").glob("block-*.npz"))


def read_block(path: Path) -> dict[str, np.ndarray]:
    """Read one checkpoint file; its arrays are numbers only."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@dataclass(frozen=True)
class _Program:
    """The compiled parts: a start, one step, and what is recorded of a position."""

    init: Callable[[], Any]
    step: Callable[[Any], Any]
    record: Callable[[Any], dict[str, Any]]


def run_chain(folder: Path, chain: int) -> None:
    """Run chain ``chain`` of the job in ``folder`` to its end, from its last checkpoint.

    Raises
    ------
    OSError
        A checkpoint cannot be written; what was written before stays valid.
    """
    import jax

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    started = time.perf_counter()
    program = _compile(folder, job["settings"], chain)
    state = program.init()
    leaves, structure = jax.tree_util.tree_flatten(state)
    done = block_files(folder, chain)
    if done:
        last = read_block(done[-1])
        leaves = [jax.numpy.asarray(last[f"state {i}"]) for i in range(len(leaves))]
        state = jax.tree_util.tree_unflatten(structure, leaves)
    tune, total = job["settings"]["tune"], job["settings"]["tune"] + job["settings"]["draws"]
    target = folder / f"chain-{chain}"
    target.mkdir(exist_ok=True)
    at = len(done) * BLOCK
    while at < total:
        states = []
        for _ in range(min(BLOCK, total - at)):
            state = program.step(state)
            states.append(state)
        kept = states[max(0, tune - at) :]
        arrays = _block(state, jax) | (program.record(kept) if kept else {})
        arrays["seconds"] = np.array(time.perf_counter() - started)
        arrays["cpu seconds"] = np.array(time.process_time())
        path = target / f"block-{at // BLOCK:06d}.npz"
        replace_file(path, lambda file, arrays=arrays: np.savez(file, **arrays))  # type: ignore[misc]
        at += len(states)


def _block(state: Any, jax: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves(state)
    return {f"state {i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def _compile(folder: Path, settings: dict[str, Any], chain: int) -> _Program:
    import jax

    jax.config.update("jax_enable_x64", True)
    from numpyro.infer import NUTS
    from pymc.sampling.jax import get_jaxified_graph

    with xr.open_dataset(folder / "design.nc", engine="h5netcdf") as data:
        design = Design(data.load())
    spec = parse_spec((folder / "model.toml").read_text(encoding="utf-8"))
    model = build_model(spec, design)
    names = [variable.name for variable in model.value_vars]
    density = get_jaxified_graph(inputs=model.value_vars, outputs=[-model.logp()])

    def potential(position: dict[str, Any]) -> Any:
        return density(*[position[name] for name in names])[0]

    kernel = NUTS(
        potential_fn=potential,
        target_accept_prob=settings["target_accept"],
        max_tree_depth=settings["max_tree_depth"],
    )
    key = jax.random.fold_in(jax.random.PRNGKey(settings["seed"]), chain)
    jitter_key, run_key = jax.random.split(key)
    start = _dispersed(model.initial_point(), names, jitter_key, settings["jitter"])

    def init() -> Any:
        return kernel.init(run_key, settings["tune"], start, (), {})

    init()  # builds the sampler before it is traced
    return _Program(init, jax.jit(lambda state: kernel.sample(state, (), {})), _recorder(model, names))


def _dispersed(point: dict[str, Any], names: list[str], key: Any, jitter: float) -> dict[str, Any]:
    """Move every unconstrained coordinate of the model's start by uniform(-jitter, jitter)."""
    import jax

    keys = jax.random.split(key, len(names))
    return {
        name: jax.numpy.asarray(point[name], dtype=float)
        + jax.random.uniform(k, np.shape(point[name]), minval=-jitter, maxval=jitter)
        for name, k in zip(names, keys, strict=True)
    }


def _recorder(model: Any, names: list[str]) -> Callable[[list[Any]], dict[str, np.ndarray]]:
    """Return a function from a block of states to posterior and sampler arrays."""
    import jax
    from pymc.sampling.jax import get_jaxified_graph

    wanted = {variable.name for variable in model.unobserved_RVs}
    kept = [
        variable
        for variable in model.unobserved_value_vars
        if variable.name in wanted and not variable.name.startswith(_DROPPED)
    ]
    likelihood = model.logp(vars=model.observed_RVs, sum=True)
    prior = model.logp(vars=[*model.free_RVs, *model.potentials], sum=True, jacobian=False)
    graph = get_jaxified_graph(
        inputs=model.value_vars, outputs=[*kept, likelihood, prior]
    )
    constrained = jax.jit(jax.vmap(lambda position: graph(*[position[name] for name in names])))

    def record(states: list[Any]) -> dict[str, np.ndarray]:
        positions = {n: jax.numpy.stack([state.z[n] for state in states]) for n in names}
        *values, log_likelihood, log_prior = constrained(positions)
        arrays = {f"posterior {v.name}": np.asarray(x) for v, x in zip(kept, values, strict=True)}
        steps = np.array([int(state.num_steps) for state in states])
        stats = {
            "acceptance_rate": [float(state.accept_prob) for state in states],
            "diverging": [bool(state.diverging) for state in states],
            "energy": [float(state.energy) for state in states],
            "n_steps": steps,
            "tree_depth": np.ceil(np.log2(steps + 1)).astype(np.int64),
            "step_size": [float(state.adapt_state.step_size) for state in states],
            "lp": [-float(state.potential_energy) for state in states],
            "joint_log_likelihood": log_likelihood,
            "log_prior": log_prior,
        }
        return arrays | {f"stat {name}": np.asarray(value) for name, value in stats.items()}

    return record


if __name__ == "__main__":
    run_chain(Path(sys.argv[1]), int(sys.argv[2]))
