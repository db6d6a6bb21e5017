"""One Markov chain in one process: NUTS on JAX, written block by block to a checkpoint.

Run as ``python -m spatialclusters.chain FOLDER K`` by :mod:`spatialclusters.sampling`.
The key of chain k comes from (seed, k) alone and every step calls the same compiled
function, so its bits depend neither on the other chains nor on where it was resumed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spatialclusters.design import Design
from spatialclusters.files import replace_file
from spatialclusters.model import build_model
from spatialclusters.spec import ModelSpec, parse_spec

__all__ = [
    "BLOCK",
    "Program",
    "block_files",
    "chain_key",
    "compile_model",
    "read_block",
    "run_chain",
]

BLOCK = 50
"""Iterations between checkpoints."""

WARM_UP_DEPTH = 7
"""At most 127 leapfrog steps an iteration while tuning."""

_DROPPED = ("raw(", "root(", "fixed(", "nu - 2")


def block_files(folder: Path, chain: int) -> list[Path]:
    """Return the checkpoint files of a chain in order."""
    return sorted((folder / f"chain-{chain}").glob("block-*.npz"))


def read_block(path: Path) -> dict[str, np.ndarray]:
    """Read one checkpoint file; its arrays are numbers only."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@dataclass(frozen=True)
class Program:
    """A compiled sampler of one model; the response is an argument, not a constant.

    Attributes
    ----------
    init
        (key, y) to the first state: a dispersed start, before any tuning.
    step
        (state, y) to the next state; tunes while ``state.i`` is below ``tune``.
    record
        (states, y) to posterior and sampler arrays, one row a state.
    """

    init: Callable[[Any, np.ndarray], Any]
    step: Callable[[Any, np.ndarray], Any]
    record: Callable[[list[Any], np.ndarray], dict[str, np.ndarray]]


def run_chain(folder: Path, chain: int) -> None:
    """Run chain ``chain`` of the job in ``folder`` to its end, from its last checkpoint.

    Raises
    ------
    OSError
        A checkpoint cannot be written; what was written before stays valid.
    """
    started = time.perf_counter()
    settings = json.loads((folder / "job.json").read_text(encoding="utf-8"))["settings"]
    with xr.open_dataset(folder / "design.nc", engine="h5netcdf") as data:
        design = Design(data.load())
    spec = parse_spec((folder / "model.toml").read_text(encoding="utf-8"))
    program = compile_model(spec, design, settings)
    state = program.init(chain_key(settings["seed"], chain), design.y)
    done = block_files(folder, chain)
    if done:
        state = _restored(state, read_block(done[-1]))
    tune, total = settings["tune"], settings["tune"] + settings["draws"]
    target = folder / f"chain-{chain}"
    target.mkdir(exist_ok=True)
    for at in range(len(done) * BLOCK, total, BLOCK):
        states = []
        for _ in range(min(BLOCK, total - at)):
            state = program.step(state, design.y)
            states.append(state)
        kept = states[max(0, tune - at) :]
        arrays = _saved(state) | (program.record(kept, design.y) if kept else {})
        arrays["seconds"] = np.array(time.perf_counter() - started)
        arrays["cpu seconds"] = np.array(time.process_time())
        _write(target / f"block-{at // BLOCK:06d}.npz", arrays)


def _write(path: Path, arrays: dict[str, Any]) -> None:
    replace_file(path, lambda file: np.savez(file, **arrays))


def chain_key(seed: int, chain: int) -> Any:
    """Return the key of a chain, from (seed, chain) alone."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax.random.fold_in(jax.random.PRNGKey(seed), chain)


def compile_model(spec: ModelSpec, design: Design, settings: Mapping[str, Any]) -> Program:
    """Compile NUTS for a model, in float64, with the response left open.

    Parameters
    ----------
    settings
        ``tune``, ``target_accept``, ``max_tree_depth`` and ``jitter``.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    from numpyro.infer import NUTS
    from pymc.sampling.jax import get_jaxified_graph

    model = build_model(spec, design)
    names = [variable.name for variable in model.value_vars]
    inputs, (negative_density,) = _with_open_response(model, [-model.logp()])
    density = get_jaxified_graph(inputs=inputs, outputs=[negative_density])
    origin = model.initial_point()

    def kernel(y: Any) -> Any:
        return NUTS(
            potential_fn=lambda position: density(*[position[name] for name in names], y)[0],
            target_accept_prob=settings["target_accept"],
            # far from the typical set long trajectories are wasted: cut them while tuning
            max_tree_depth=(WARM_UP_DEPTH, settings["max_tree_depth"]),
        )

    def init(key: Any, y: Any) -> Any:
        jitter_key, run_key = jax.random.split(key)
        start = _dispersed(origin, names, jitter_key, settings["jitter"])
        return kernel(y).init(run_key, settings["tune"], start, (), {})

    def step(state: Any, y: Any) -> Any:
        fresh = kernel(y)
        # numpyro sets the sampler up in init; its state is not used and compiles to nothing
        fresh.init(state.rng_key, settings["tune"], state.z, (), {})
        return fresh.sample(state, (), {})

    return Program(jax.jit(init), jax.jit(step), _recorder(model, names))


def _with_open_response(model: Any, outputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Turn the model's response from shared data into an input of the graph."""
    import pytensor.tensor as pt
    from pytensor.graph.replace import graph_replace

    response = pt.vector("response", dtype="float64")
    replaced = graph_replace(outputs, {model["response"]: response}, strict=False)
    return [*model.value_vars, response], replaced


def _dispersed(origin: dict[str, Any], names: list[str], key: Any, jitter: float) -> dict[str, Any]:
    """Move every unconstrained coordinate of the model's start by uniform(-jitter, jitter)."""
    import jax

    keys = jax.random.split(key, len(names))
    return {
        name: jax.numpy.asarray(origin[name], dtype=float)
        + jax.random.uniform(k, np.shape(origin[name]), minval=-jitter, maxval=jitter)
        for name, k in zip(names, keys, strict=True)
    }


def _saved(state: Any) -> dict[str, np.ndarray]:
    import jax

    return {f"state {i}": np.asarray(x) for i, x in enumerate(jax.tree_util.tree_leaves(state))}


def _restored(like: Any, saved: Mapping[str, np.ndarray]) -> Any:
    import jax

    leaves, structure = jax.tree_util.tree_flatten(like)
    loaded = [jax.numpy.asarray(saved[f"state {i}"]) for i in range(len(leaves))]
    return jax.tree_util.tree_unflatten(structure, loaded)


def _recorder(
    model: Any, names: list[str]
) -> Callable[[list[Any], np.ndarray], dict[str, np.ndarray]]:
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
    stated = [p for p in model.potentials if not p.name.startswith("jacobian")]
    prior = model.logp(vars=[*model.free_RVs, *stated], sum=True, jacobian=False)
    inputs, outputs = _with_open_response(model, [*kept, likelihood, prior])
    graph = get_jaxified_graph(inputs=inputs, outputs=outputs)
    constrained = jax.jit(
        jax.vmap(lambda position, y: graph(*[position[n] for n in names], y), in_axes=(0, None))
    )

    def record(states: list[Any], y: np.ndarray) -> dict[str, np.ndarray]:
        positions = {n: jax.numpy.stack([state.z[n] for state in states]) for n in names}
        *values, log_likelihood, log_prior = constrained(positions, y)
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
