"""What Excel and Word files have in common: a library that may be absent, and a zip archive.

openpyxl and python-docx come with the extra ``office`` and are imported where they are used.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from typing import BinaryIO, Final

from spatialclusters.errors import FitError

__all__ = ["MADE", "archive", "require"]

MADE: Final = datetime(2000, 1, 1)
"""Documents say when they were made: always then, so that the same table is the same file."""

_MEMBER: Final = (1980, 1, 1, 0, 0, 0)  # the first time that a zip archive knows
_LIBRARIES: Final = {".xlsx": ("openpyxl", "openpyxl"), ".docx": ("docx", "python-docx")}


def require(suffix: str) -> None:
    """Refuse a format whose library is not installed.

    Raises
    ------
    FitError
        It is not.
    """
    module, package = _LIBRARIES.get(suffix, ("", ""))
    if module and find_spec(module) is None:
        msg = f"{suffix} files: got no {package}; expected it to be installed. Install {package}, "
        raise FitError(f"{msg}or the extra of this package: spatialclusters[office].")


def archive(write: Callable[[BinaryIO], object]) -> bytes:
    """Return what a library writes, with the times of the archive's members set to a constant."""
    written, out = io.BytesIO(), io.BytesIO()
    write(written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            member = zipfile.ZipInfo(name, _MEMBER)
            member.create_system = 3  # as if on Unix, wherever it is
            target.writestr(member, source.read(name), zipfile.ZIP_DEFLATED)
    return out.getvalue()
