"""A compiled sampler as files: chains load it without building the model again.

A program is a folder: one StableHLO module per function (``jax.export``), and the data as
plain arrays. Functions take and return flat lists of arrays, or name what they return, so whoever
runs them needs JAX and nothing of the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from spatialclusters.files import read_arrays, replace_file, write_arrays

__all__ = [
    "BLOCK",
    "PROGRAM",
    "Exported",
    "cache_folder",
    "chain_key",
    "code_folder",
    "code_kept",
    "compiled",
    "export_function",
    "is_exported",
    "load_function",
    "read_program",
    "serialized",
    "write_data",
]

BLOCK: Final = 50
"""Iterations in one call, and between checkpoints."""

PROGRAM: Final = "program"
"""Folder of the compiled sampler in a job's folder."""

WORTH_KEEPING: Final = 0.05
"""Seconds of compilation from which on code of this process is kept."""

_DATA: Final = "data.npz"


@dataclass(frozen=True)
class Exported:
    """A sampler of flat lists of arrays; the data are inside.

    Attributes
    ----------
    first
        key to the first state.
    steps
        state to the next :data:`BLOCK` states, stacked.
    record
        (stacked states, key) to what is kept of each, by name.
    """

    first: Callable[[Any], list[Any]]
    steps: Callable[[Sequence[Any]], list[Any]]
    record: Callable[[Sequence[Any], Any], dict[str, Any]]


def chain_key(seed: int, chain: int) -> Any:
    """Return the key of a chain, from (seed, chain) alone."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax.random.fold_in(jax.random.PRNGKey(seed), chain)


def cache_folder() -> Path:
    """Return the folder of what is kept for later fits."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "spatialclusters"


def code_folder() -> Path:
    """Return the folder in which compiled code is kept."""
    return cache_folder() / "jax"


@contextmanager
def code_kept() -> Iterator[None]:
    """Let JAX keep what is compiled in this process, unless it keeps it elsewhere already."""
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    if jax.config.jax_compilation_cache_dir:
        yield
        return
    wanted = {
        "jax_compilation_cache_dir": str(code_folder()),
        "jax_persistent_cache_min_compile_time_secs": WORTH_KEEPING,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
        for name, value in wanted.items():
            jax.config.update(name, value)
        reset_cache()  # JAX decides once whether it keeps code
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()


def serialized(function: Callable[..., Any], *example: Any, named: bool = False) -> bytes:
    """Return a function of these arguments, arrays or their shapes, as StableHLO.

    Its result is a flat list of arrays as well; or, if ``named``, the dict of arrays that it is.
    """
    import jax
    import jax.export

    leaves, structure = jax.tree_util.tree_flatten(example)

    def flat(*arrays: Any) -> Any:
        result = function(*jax.tree_util.tree_unflatten(structure, arrays))
        return dict(result) if named else jax.tree_util.tree_leaves(result)

    shapes = [jax.ShapeDtypeStruct(np.shape(x), x.dtype) for x in leaves]
    return bytes(jax.export.export(jax.jit(flat))(*shapes).serialize())


def compiled(content: bytes) -> Callable[..., Any]:
    """Return a function of flat arrays, compiled here or taken from JAX's cache."""
    import jax
    import jax.export

    jax.config.update("jax_enable_x64", True)
    exported = jax.export.deserialize(bytearray(content))
    # compiled for shapes alone: where arguments come from would make another key in the cache
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in exported.in_avals]
    function: Callable[..., Any] = jax.jit(exported.call).lower(*shapes).compile()
    return function


def export_function(
    folder: Path, name: str, function: Callable[..., Any], *example: Any, named: bool = False
) -> None:
    """Write what :func:`serialized` returns to a file."""
    content = serialized(function, *example, named=named)
    replace_file(folder / f"{name}.stablehlo", lambda file: file.write(content))


def load_function(folder: Path, name: str) -> Callable[..., Any]:
    """Return a function that :func:`export_function` wrote."""
    return compiled((folder / f"{name}.stablehlo").read_bytes())


def write_data(folder: Path, data: Any) -> None:
    """Write the data: what makes a program whole."""
    import jax

    leaves = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(data)]
    write_arrays(folder / _DATA, {str(i): leaf for i, leaf in enumerate(leaves)})


def is_exported(folder: Path) -> bool:
    """Tell whether a whole program is in the folder: its data are written last."""
    return (folder / _DATA).is_file()


def read_program(folder: Path) -> Exported:
    """Load the functions ``gradient``, ``start``, ``init``, ``steps``, ``record`` and the data."""
    import jax

    gradient, start, init, steps, record = (
        load_function(folder, name) for name in ("gradient", "start", "init", "steps", "record")
    )
    arrays = read_arrays(folder / _DATA)
    # jax.numpy.asarray would compile a program for every shape
    data = jax.device_put([arrays[str(i)] for i in range(len(arrays))])

    def first(key: Any) -> list[Any]:
        z = start(key)
        state: list[Any] = init(key, *z, *gradient(*z, *data), *data)
        return state

    return Exported(
        first,
        lambda state: steps(*state, *data),
        lambda states, key: record(*states, key, *data),
    )
