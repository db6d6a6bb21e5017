"""Files appear whole or not at all."""

from __future__ import annotations

import os
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

__all__ = ["read_arrays", "replace_file", "write_arrays"]


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file beside ``path`` and move it into place when complete.

    Raises
    ------
    OSError
        Writing failed; ``path`` is as it was before.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "note.txt"
    ...     replace_file(path, lambda file: file.write(b"done"))
    ...     path.read_text()
    'done'
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write named arrays; the file appears whole or not at all."""
    replace_file(path, lambda file: np.savez(file, **arrays))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote; numbers only.

    Raises
    ------
    OSError
        The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as cause:
        msg = f"{path.parent.name}/{path.name} is damaged: delete it, and it is made again"
        raise OSError(msg) from cause
