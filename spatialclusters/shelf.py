"""What a later fit of the same model to the same data can use again, as files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from spatialclusters._version import version_of
from spatialclusters.exported import cache_folder
from spatialclusters.files import replace_file

if TYPE_CHECKING:
    import xarray as xr

    from spatialclusters.design import Design
    from spatialclusters.spec import ModelSpec

__all__ = ["Shelf", "shelf_of"]

Loaded = TypeVar("Loaded")

_LOG = logging.getLogger(__name__)

KEPT: Final = 100
"""Folders that are kept, those that were used last. One takes some 100 kB."""

_USED: Final = ("jax", "jaxlib", "pymc", "pytensor", "numpy", "scipy")
_CHOICES: Final = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_random_seed_offset",
    "jax_threefry_partitionable",
)
"""What users of JAX can set that makes other functions."""

_DIGEST: Final = hashlib.sha256().digest_size


class Shelf:
    """Named contents in a folder of their own; one that is damaged or cannot be written is made.

    Parameters
    ----------
    folder
        Its name says what contents were made from.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shelf = Shelf(Path(folder) / "model")
    ...     [shelf.take("square", made, int) for made in (lambda: b"9", lambda: b"not made")]
    [9, 9]
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str, make: Callable[[], bytes], load: Callable[[bytes], Loaded]) -> Loaded:
        """Load what is kept under a name, or make it, and keep it if it can be loaded."""
        path = self._folder / name
        stored = b""
        with contextlib.suppress(OSError):
            stored = path.read_bytes()
            os.utime(self._folder)
        if _is_whole(stored):
            return load(stored[_DIGEST:])
        made = make()
        loaded = load(made)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda file: file.write(hashlib.sha256(made).digest() + made))
        except OSError as problem:  # a folder that cannot be written costs time, nothing else
            _LOG.debug("shelf: %s is not kept: %s", name, problem)
        with contextlib.suppress(OSError):  # another process removes some, too
            self._forget_others()
        return loaded

    def _forget_others(self) -> None:
        """Remove the folders that nobody has used for longest, where there are too many."""
        folders = sorted(self._folder.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for folder in folders[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def _is_whole(stored: bytes) -> bool:
    return stored[:_DIGEST] == hashlib.sha256(stored[_DIGEST:]).digest()


def _surroundings() -> tuple[Any, ...]:
    """Return what else decides what is made: sources of this package, versions, the machine."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    machine = sys.platform, platform.machine(), platform.node()
    versions = [version_of(name) for name in _USED]
    return sources.hexdigest(), versions, platform.python_version(), machine


_SURROUNDINGS: Final = _surroundings()
"""Of what runs: sources that change on disk later do not."""


def shelf_of(spec: ModelSpec, design: Design, settings: Mapping[str, Any]) -> Shelf:
    """Return the shelf for what is made from all this by the installed versions on this machine."""
    import jax

    weights = None if design.weights is None else _digest(design.weights.to_dataset())
    chosen = [str(getattr(jax.config, name)) for name in _CHOICES]
    made_from = [spec.digest, _digest(design.data), weights, dict(settings), chosen]
    made_from += [jax.default_backend(), *_SURROUNDINGS]
    name = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return Shelf(cache_folder() / "models" / name)


def _digest(data: xr.Dataset) -> str:
    """Digest everything in a dataset; the digest of a design is of what a likelihood sees."""
    digest = hashlib.sha256()
    for name, array in sorted(data.variables.items(), key=lambda item: str(item[0])):
        values = np.asarray(array.values)
        text = values.tolist() if values.dtype.kind in "OUS" else None
        about = [str(name), array.dims, values.dtype.str, values.shape, text, array.attrs]
        digest.update(_json(about))
        if text is None:
            digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(_json(data.attrs))
    return digest.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
