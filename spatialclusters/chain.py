"""One Markov chain in one process: NUTS on JAX, written block by block to a checkpoint.

Run as ``python -m spatialclusters.chain FOLDER K`` by :mod:`spatialclusters.sampling`.
The key of chain k comes from (seed, k) alone and every step calls the same compiled
function, so its bits depend neither on the other chains nor on where it was resumed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from spatialclusters.exported import PROGRAM, Exported, chain_key, read_program
from spatialclusters.files import read_arrays, write_arrays

__all__ = ["BLOCK", "block_files", "run_chain"]

BLOCK = 50
"""Iterations between checkpoints."""


def block_files(folder: Path, chain: int) -> list[Path]:
    """Return the checkpoint files of a chain in order."""
    return sorted((folder / f"chain-{chain}").glob("block-*.npz"))


def run_chain(folder: Path, chain: int) -> None:
    """Run chain ``chain`` of the job in ``folder`` to its end, from its last checkpoint.

    Raises
    ------
    OSError
        A checkpoint cannot be written; what was written before stays valid.
    """
    import jax

    started = time.perf_counter()
    settings = json.loads((folder / "job.json").read_text(encoding="utf-8"))["settings"]
    program = read_program(folder / PROGRAM)
    key = chain_key(settings["seed"], chain)
    done = block_files(folder, chain)
    state = _restored(read_arrays(done[-1])) if done else program.first(key)
    tune, total = settings["tune"], settings["tune"] + settings["draws"]
    # apart from the key of the chain's moves
    recovery = jax.random.fold_in(key, 2**31 - 1)
    target = folder / f"chain-{chain}"
    target.mkdir(exist_ok=True)
    for at in range(len(done) * BLOCK, total, BLOCK):
        states = []
        for _ in range(min(BLOCK, total - at)):
            state = program.step(state)
            states.append(state)
        jax.block_until_ready(state)
        stepped = time.process_time()
        arrays: dict[str, Any] = {f"state {i}": np.asarray(x) for i, x in enumerate(state)}
        arrays |= _recorded(program, states[max(0, tune - at) :], recovery)
        arrays["seconds"] = np.array(time.perf_counter() - started)
        arrays["cpu seconds"] = np.array(time.process_time())
        arrays["recovery cpu seconds"] = np.array(time.process_time() - stepped)
        write_arrays(target / f"block-{at // BLOCK:06d}.npz", arrays)


def _recorded(program: Exported, states: list[Any], key: Any) -> dict[str, np.ndarray]:
    draws = [program.record(state, key) for state in states]
    names = draws[0] if draws else ()
    return {name: np.stack([draw[name] for draw in draws]) for name in names}


def _restored(saved: dict[str, np.ndarray]) -> list[Any]:
    import jax

    n = sum(name.startswith("state ") for name in saved)
    return [jax.numpy.asarray(saved[f"state {i}"]) for i in range(n)]


if __name__ == "__main__":
    run_chain(Path(sys.argv[1]), int(sys.argv[2]))
