"""The errors a user can meet, and the one way their messages are worded.

Every message says where, what came, what was allowed, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "FitError",
    "PanelError",
    "SamplingError",
    "SpatialClustersError",
    "SpecError",
    "WeightsError",
    "listing",
    "suggestion",
]


class SpatialClustersError(Exception):
    """Base of every error that is the input's fault, not a bug of ours."""


class PanelError(SpatialClustersError):
    """The table or the region geometry cannot be used as it is."""


class WeightsError(SpatialClustersError):
    """The spatial weights are malformed or do not match the regions."""


class SpecError(SpatialClustersError):
    """The model file or its formula asks for something that is not allowed."""


class SamplingError(SpatialClustersError):
    """Sampling could not start, was refused a resume, or a chain failed."""


class FitError(SpatialClustersError):
    """A saved fit cannot be read, or does not hold what was asked of it."""


def listing(values: Iterable[object], limit: int = 8) -> str:
    """Join up to ``limit`` values for a message and say how many were left out.

    Examples
    --------
    >>> listing(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    items = [value if isinstance(value, str) else str(value) for value in values]
    shown = ", ".join(
        repr(item if len(item) <= 80 else item[:77] + "...") for item in items[:limit]
    )
    rest = len(items) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for a near miss, else an empty string.

    Examples
    --------
    >>> suggestion("regon", ["region", "industry"])
    " Did you mean 'region'?"
    """
    near = difflib.get_close_matches(name[:200], list(allowed), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
