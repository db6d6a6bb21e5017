"""One Markov chain in one process: NUTS on JAX, written block by block to a checkpoint.

Run as ``python -m spatialclusters.chain FOLDER K``, or ``warm`` for K, by
:mod:`spatialclusters.sampling`.
The key of chain k comes from (seed, k) alone and every step calls the same compiled
function, so its bits depend neither on the other chains nor on where it was resumed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spatialclusters.design import Design
from spatialclusters.files import replace_file
from spatialclusters.program import WarmStart, compile_model
from spatialclusters.spec import ModelSpec, parse_spec

__all__ = [
    "BLOCK",
    "WARM_START",
    "block_files",
    "chain_key",
    "read_block",
    "run_chain",
    "warm_start",
]

BLOCK = 50
"""Iterations between checkpoints."""

WARM_START = "warm-start.npz"
"""File in a job's folder with the warm start of the collapsed engine."""


def block_files(folder: Path, chain: int) -> list[Path]:
    """Return the checkpoint files of a chain in order."""
    return sorted((folder / f"chain-{chain}").glob("block-*.npz"))


def read_block(path: Path) -> dict[str, np.ndarray]:
    """Read one checkpoint file; its arrays are numbers only."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def run_chain(folder: Path, chain: int) -> None:
    """Run chain ``chain`` of the job in ``folder`` to its end, from its last checkpoint.

    Raises
    ------
    OSError
        A checkpoint cannot be written; what was written before stays valid.
    """
    started = time.perf_counter()
    settings, spec, design = _job(folder)
    program = compile_model(spec, design, settings)
    key = chain_key(settings["seed"], chain)
    data = program.prepare(design.y, _read_warm_start(folder))
    state = program.init(key, data)
    done = block_files(folder, chain)
    if done:
        state = _restored(state, read_block(done[-1]))
    tune, total = settings["tune"], settings["tune"] + settings["draws"]
    recovery = _recovery_key(key)
    target = folder / f"chain-{chain}"
    target.mkdir(exist_ok=True)
    for at in range(len(done) * BLOCK, total, BLOCK):
        states = []
        for _ in range(min(BLOCK, total - at)):
            state = program.step(state, data)
            states.append(state)
        kept = states[max(0, tune - at) :]
        arrays = _saved(state) | (program.record(kept, data, recovery) if kept else {})
        arrays["seconds"] = np.array(time.perf_counter() - started)
        arrays["cpu seconds"] = np.array(time.process_time())
        _write(target / f"block-{at // BLOCK:06d}.npz", arrays)


def warm_start(folder: Path) -> None:
    """Find the warm start of the job in ``folder``, and leave compiled code in the cache."""
    settings, spec, design = _job(folder)
    program = compile_model(spec, design, settings)
    warm = program.warm_up(design.y, settings["seed"])
    if warm is not None:
        # chains that start together would each compile: one iteration here serves all
        key = chain_key(settings["seed"], 0)
        data = program.prepare(design.y, warm)
        state = program.step(program.init(key, data), data)
        program.record([state] * BLOCK, data, _recovery_key(key))
        arrays = {"mode": warm.mode, "root": warm.root, "pareto k": np.array(warm.pareto_k)}
        _write(folder / WARM_START, arrays | {"cpu seconds": np.array(time.process_time())})


def _read_warm_start(folder: Path) -> WarmStart | None:
    if not (folder / WARM_START).is_file():
        return None
    arrays = read_block(folder / WARM_START)
    return WarmStart(arrays["mode"], arrays["root"], float(arrays["pareto k"]))


def _job(folder: Path) -> tuple[dict[str, Any], ModelSpec, Design]:
    settings = json.loads((folder / "job.json").read_text(encoding="utf-8"))["settings"]
    with xr.open_dataset(folder / "design.nc", engine="h5netcdf") as data:
        design = Design(data.load())
    return settings, parse_spec((folder / "model.toml").read_text(encoding="utf-8")), design


def _recovery_key(key: Any) -> Any:
    """Return the key of a chain's exact draws, apart from that of its moves."""
    import jax

    return jax.random.fold_in(key, 2**31 - 1)


def _write(path: Path, arrays: dict[str, Any]) -> None:
    replace_file(path, lambda file: np.savez(file, **arrays))


def chain_key(seed: int, chain: int) -> Any:
    """Return the key of a chain, from (seed, chain) alone."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax.random.fold_in(jax.random.PRNGKey(seed), chain)


def _saved(state: Any) -> dict[str, np.ndarray]:
    import jax

    return {f"state {i}": np.asarray(x) for i, x in enumerate(jax.tree_util.tree_leaves(state))}


def _restored(like: Any, saved: Mapping[str, np.ndarray]) -> Any:
    import jax

    leaves, structure = jax.tree_util.tree_flatten(like)
    loaded = [jax.numpy.asarray(saved[f"state {i}"]) for i in range(len(leaves))]
    return jax.tree_util.tree_unflatten(structure, loaded)


if __name__ == "__main__":
    if sys.argv[2] == "warm":
        warm_start(Path(sys.argv[1]))
    else:
        run_chain(Path(sys.argv[1]), int(sys.argv[2]))
