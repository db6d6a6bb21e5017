"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
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
    written takes garbage for addresses: either takes the process down with it. Memory holds at most
    what has not been written.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._at = int(file.tell())
        self._size = 0
        self._later: dict[tuple[int, int], bytes] = {}
        self.problem: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            self._at = self._end() + offset
        else:
            self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view, start, end = memoryview(buffer).cast("B"), self._at, self._end()
        self._file.seek(start)
        read = int(self._file.readinto(view) or 0)
        if self.problem is not None:
            kept, read = read, max(0, min(len(view), end - start))
            view[kept:read] = bytes(max(0, read - kept))
            for (at, length), data in self._later.items():
                first, last = max(at, start), min(at + length, start + read)
                if first < last:
                    view[first - start : last - start] = data[first - at : last - at]
        self._at += read
        return read

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        at, size = self._at, len(left)
        try:
            if self.problem is None:
                self._file.seek(at)
            while self.problem is None and left:
                left = left[self._file.write(left) :]
        except OSError as problem:
            self._fail(problem)
        if left:
            place = at + size - len(left), len(left)
            self._later.pop(place, None)  # what was written last is read
            self._later[place] = bytes(left)
        self._at = at + size
        self._size = max(self._size, self._at)
        return size

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        try:
            if self.problem is None:
                return int(self._file.truncate(size))
        except OSError as problem:
            self._fail(problem)
        with contextlib.suppress(OSError):
            self._file.truncate(min(size, int(self._file.seek(0, io.SEEK_END))))
        later = ((at, data[: max(0, size - at)]) for (at, _), data in self._later.items())
        self._later = {(at, len(data)): data for at, data in later if data}
        self._size = size
        return size

    def _end(self) -> int:
        return int(self._file.seek(0, io.SEEK_END)) if self.problem is None else self._size

    def _fail(self, problem: OSError) -> None:
        self._size = int(self._file.seek(0, io.SEEK_END))
        self.problem = problem


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
