"""A fit as a file: sealed when it is written, looked through before it is read.

HDF5 can point to other files, hold a group inside itself and claim arrays of any size; and a
flipped bit in the draws is a number like any other. None of this gets as far as an array.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Final

import xarray as xr

from spatialclusters.errors import FitError, listing

__all__ = ["UNREADABLE", "read_tree", "seal"]

UNREADABLE: Final = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError,
    OverflowError, AssertionError,
)  # fmt: skip
"""What h5py and xarray raise, beside each other, for files that they cannot read."""

_SEAL: Final = b"\nspatialclusters seal sha256 "
_LENGTH: Final = len(_SEAL) + 64
_GROUPS, _DATASETS = 32, 10_000  # more than any fit has
_GROWTH: Final = 200  # how many times larger arrays may be than their file, if it is large
_SMALL: Final = 2**26


def seal(file: BinaryIO) -> None:
    """Append the SHA-256 of a file to it; HDF5 does not look behind its end."""
    digest = _digest(file, file.seek(0, os.SEEK_END))
    file.seek(0, os.SEEK_END)
    file.write(_SEAL + digest.encode())


def read_tree(path: Path, formats: tuple[str, ...], leave: tuple[str, ...] = ()) -> xr.DataTree:
    """Read a file into memory, if it is sealed as it is, and of one of the formats.

    A file without a seal was written by another program, and is read. Groups in ``leave`` stay
    in the file, which stays open, and are read piece by piece when they are asked for.

    Raises
    ------
    FitError
        There is no such file, it was changed after it was sealed, has another format, or holds
        what no fit holds.
    OSError, and others among :data:`UNREADABLE`
        It is not a file that h5py and xarray can read.
    """
    import h5py

    name = path.name[:80]
    if not path.is_file():
        raise FitError(f"{name}: got no such file; expected a saved fit. Check the path.")
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * _LENGTH))
        _, sealed, stated = file.read().rpartition(_SEAL)
        damaged = bool(sealed) and stated != _digest(file, size - _LENGTH).encode()
    if damaged:
        msg = f"{name}: got a file that was changed or damaged after it was written; expected it"
        raise FitError(f"{msg} as it was. Restore it, or fit again.")
    with h5py.File(path, "r") as file:
        found = file.attrs.get("format")
        if not isinstance(found, str) or found not in formats:
            msg = f"{name}: got format {found!r:.80}; this version reads {listing(formats)}."
            raise FitError(f"{msg} Refit, or read it with the version that wrote it.")
        if problem := _look_through(file, max(_SMALL, _GROWTH * size)):
            msg = f"{name}: got {problem}; a fit has none. Do not trust this file."
            raise FitError(msg)
    tree = xr.open_datatree(
        path, engine="h5netcdf", decode_times=False, phony_dims="sort", cache=not leave
    )
    if not leave:
        with tree:
            return tree.load()
    for group, node in tree.children.items():
        if group not in leave:
            node.load()
    return tree


def _digest(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of the first bytes of a file."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (block := file.read(min(size, 2**20))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def _look_through(file: Any, most: int) -> str | None:
    """Name what would read other files, never end, or not fit into memory."""
    import h5py

    seen, pending, datasets, total = {_address(file)}, [file], 0, 0
    while pending:
        group = pending.pop()
        for key in group:
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                return f"a link at {key!r:.80}"
            member = group[key]
            if _address(member) in seen:
                return f"{key!r:.80} in two places"
            seen.add(_address(member))
            if isinstance(member, h5py.Group):
                pending.append(member)
            elif isinstance(member, h5py.Dataset):
                if member.external or member.is_virtual:
                    return f"{key!r:.80} stored in another file"
                datasets, total = datasets + 1, total + member.size * member.dtype.itemsize
            if len(seen) - datasets > _GROUPS or datasets > _DATASETS or total > most:
                return f"{total} bytes in {datasets} arrays of {len(seen) - datasets} groups"
    return None


def _address(member: Any) -> tuple[int, int]:
    import h5py

    info = h5py.h5o.get_info(member.id)
    return info.fileno, info.addr
