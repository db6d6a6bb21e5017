"""The version, in one place, and those of other packages."""

import importlib.metadata
from functools import cache

__version__ = "0.1.0"


@cache
def version_of(package: str) -> str:
    """Return the installed version of a package; finding it takes a millisecond."""
    return importlib.metadata.version(package)
