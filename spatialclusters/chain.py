"""One Markov chain in one process: NUTS on JAX, written block by block to a checkpoint.

Run as ``python -m spatialclusters.chain FOLDER K`` by :mod:`spatialclusters.sampling`.
The key of chain k comes from (seed, k) alone and every block of steps calls the same
compiled function, so its bits depend neither on the other chains nor on where it was resumed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from spatialclusters.exported import BLOCK, PROGRAM, chain_key, read_program
from spatialclusters.files import read_arrays, write_arrays

__all__ = ["block_files", "run_chain"]


def block_files(folder: Path, chain: int) -> list[Path]:
    """Return the checkpoint files of a chain in order, up to the first that is missing."""
    found = sorted((folder / f"chain-{chain}").glob("block-*.npz"))
    return [path for i, path in enumerate(found) if path.name == f"block-{i:06d}.npz"]


def run_chain(folder: Path, chain: int, parent: int | None = None) -> None:
    """Run chain ``chain`` of the job in ``folder`` to its end, from its last checkpoint.

    It ends itself when ``parent``, the process that waits for it, has ended: nobody else would,
    and whoever resumes the job runs the same chain.

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
        if parent is not None and os.getppid() != parent:
            return
        states = jax.block_until_ready(program.steps(state))
        state = [np.asarray(x)[-1] for x in states]
        stepped = time.process_time()
        arrays: dict[str, Any] = {f"state {i}": x for i, x in enumerate(state)}
        if at + BLOCK > tune:
            kept = slice(max(0, tune - at), total - at)
            recorded = program.record(states, recovery)
            arrays |= {name: np.asarray(x)[kept] for name, x in recorded.items()}
        arrays["seconds"] = np.array(time.perf_counter() - started)
        arrays["cpu seconds"] = np.array(time.process_time())
        arrays["recovery cpu seconds"] = np.array(time.process_time() - stepped)
        write_arrays(target / f"block-{at // BLOCK:06d}.npz", arrays)


def _restored(saved: dict[str, np.ndarray]) -> list[Any]:
    import jax

    n = sum(name.startswith("state ") for name in saved)
    return list(jax.device_put([saved[f"state {i}"] for i in range(n)]))


if __name__ == "__main__":
    run_chain(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
