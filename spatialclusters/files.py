"""Files appear whole or not at all."""

from __future__ import annotations

import io
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

__all__ = ["read_arrays", "replace_file", "write_arrays", "write_netcdf"]


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
        with temporary.open("x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _Patient(io.RawIOBase):
    """A file that keeps its first error to itself, and in memory what comes after it.

    HDF5 that fails to write tries again when Python ends, and HDF5 that does not read what it has
    written follows addresses that are none: either takes the process down with it.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._at = 0
        self._later: list[tuple[int, bytes]] = []
        self.problem: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = int(self._file.seek(offset, whence))
        if whence == io.SEEK_END:
            self._at = max([self._at, *(at + len(data) for at, data in self._later)])
        return self._at

    def readinto(self, buffer: Any) -> int:
        view, start = memoryview(buffer).cast("B"), self._at
        read = int(self._file.readinto(view) or 0)
        if self._later:
            end = min(start + len(view), self.seek(0, io.SEEK_END))
            # what nobody has written is zero
            view[read:] = bytes(len(view) - read)
            for at, data in self._later:
                first, last = max(at, start), min(at + len(data), end)
                if first < last:
                    view[first - start : last - start] = data[first - at : last - at]
            read = max(0, end - start)
        self.seek(start + read)
        return read

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while self.problem is None and left:
                left = left[self._file.write(left) :]
        except OSError as problem:
            self.problem = problem
        if left:
            self._later.append((self._at + size - len(left), bytes(left)))
        self._at += size
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return int(self._file.truncate(size)) if self.problem is None else size or 0
        except OSError as problem:
            self.problem = problem
            return size or 0


def write_netcdf(file: BinaryIO, data: Any) -> None:
    """Write an xarray Dataset or DataTree to a file that :func:`replace_file` has opened.

    The data go straight to disk: they are not held in memory twice.

    Raises
    ------
    OSError
        There is no space left, or the file cannot be written for another reason.
    """
    patient = _Patient(file.raw)  # type: ignore[attr-defined]
    try:
        data.to_netcdf(patient, engine="h5netcdf")
    finally:
        if patient.problem is not None:
            raise patient.problem


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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as cause:
        msg = f"{path.parent.name}/{path.name} is damaged: delete it, and it is made again"
        raise OSError(msg) from cause
