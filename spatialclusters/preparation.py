"""Before the chains: write the sampler down, find where to start, compile once.

Run as ``python -m spatialclusters.preparation FOLDER`` by :mod:`spatialclusters.sampling`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from spatialclusters.collapsed.mode import WarmStart
from spatialclusters.design import Design
from spatialclusters.exported import (
    BLOCK,
    PROGRAM,
    Exported,
    chain_key,
    export_function,
    is_exported,
    load_function,
    read_program,
    write_data,
)
from spatialclusters.files import write_arrays
from spatialclusters.kernels import FAR, PILOTS, Proposed, agree, make_program
from spatialclusters.program import Target, build_target, gradient_of
from spatialclusters.spec import ModelSpec, parse_spec
from spatialclusters.weights import Weights

__all__ = ["PREPARED", "is_prepared", "prepare"]

PREPARED: Final = "prepared.npz"
"""File in a job's folder that says what preparing found and took."""


def is_prepared(folder: Path) -> bool:
    """Tell whether all that the chains load is there."""
    return (folder / PREPARED).is_file() and is_exported(folder / PROGRAM)


def prepare(folder: Path) -> None:
    """Export the sampler of the job in ``folder``, and leave its compiled code in the cache."""
    import jax

    settings, spec, design = _read_job(folder)
    target = build_target(spec, design, settings)
    program_folder = folder / PROGRAM
    program_folder.mkdir(exist_ok=True)
    z = jax.eval_shape(target.start, chain_key(settings["seed"], 0))
    data = target.prepare(design.y, None)
    export_function(program_folder, "gradient", gradient_of(target), z, data)
    warm = _warm_start(target, program_folder, design.y, settings)
    exported = _export(program_folder, target, settings, warm, design.y)
    if warm is not None and warm.proposes and not _mixes(exported, settings["seed"]):
        warm = warm._replace(acceptance=np.array(0.0))
        exported = _export(program_folder, target, settings, warm, design.y)
    found = {} if warm is None else warm.judgments
    write_arrays(folder / PREPARED, found | {"cpu seconds": np.array(time.process_time())})


def _export(
    folder: Path, target: Target, settings: dict[str, Any], warm: WarmStart | None, y: np.ndarray
) -> Exported:
    """Write all functions but the gradient, and load them.

    Chains that start together would each compile: loading here serves all.
    """
    import jax

    program, key = make_program(target, settings, warm), chain_key(settings["seed"], 0)
    data = target.prepare(y, warm)
    z = jax.eval_shape(target.start, key)
    energy = jax.eval_shape(program.gradient, z, data)
    state = jax.eval_shape(program.init, key, z, *energy, data)

    def steps(state: Any, data: Any) -> Any:
        return program.steps(state, data, BLOCK)

    def record(states: Any, key: Any, data: Any) -> dict[str, Any]:
        # one state after the other: what recovering one takes may be large
        return dict(jax.lax.map(lambda state: program.record(state, key, data), states))

    export_function(folder, "start", program.start, key)
    export_function(folder, "init", program.init, key, z, *energy, data)
    export_function(folder, "steps", steps, state, data)
    states = jax.eval_shape(steps, state, data)
    export_function(folder, "record", record, states, key, data, named=True)
    write_data(folder, data)
    return read_program(folder)


def _mixes(exported: Exported, seed: int) -> bool:
    """Do as :func:`spatialclusters.kernels.mixes` does with the functions that are compiled already."""
    runs = []
    for k in range(PILOTS):
        state = exported.first(chain_key(seed, FAR + k))
        for _ in range(2):
            states = exported.steps(state)
            state = [np.asarray(x)[-1] for x in states]
        runs.append(states[Proposed._fields.index("z")])
    return agree(np.stack(runs))


def _warm_start(
    target: Target, folder: Path, y: np.ndarray, settings: dict[str, Any]
) -> WarmStart | None:
    """Find the mode with the very function that the chains start from: it compiles once."""
    import jax

    if target.warm_up is None:
        return None
    loaded = load_function(folder, "gradient")

    def gradient(z: Any, data: Any) -> Any:
        energy, slope = loaded(np.asarray(z), *jax.tree_util.tree_leaves(data))
        return energy, slope

    return target.warm_up(gradient, y, settings["seed"], surrogate=settings["sampler"] != "nuts")


def _read_job(folder: Path) -> tuple[dict[str, Any], ModelSpec, Design]:
    settings = json.loads((folder / "job.json").read_text(encoding="utf-8"))["settings"]
    with xr.open_dataset(folder / "design.nc", engine="h5netcdf") as data:
        design = Design(data.load(), _read_weights(folder / "weights.nc"))
    return settings, parse_spec((folder / "model.toml").read_text(encoding="utf-8")), design


def _read_weights(path: Path) -> Weights | None:
    if not path.is_file():
        return None
    with xr.open_dataset(path, engine="h5netcdf") as data:
        return Weights.from_dataset(data.load())


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
