"""The errors a user can meet, and the one way their messages are worded.

Every message says where, what came, what was allowed, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

__all__ = [
    "FitError",
    "PanelError",
    "SamplingError",
    "SpatialClustersError",
    "SpecError",
    "WeightsError",
    "close_to",
    "counted",
    "expect",
    "listing",
    "renaming",
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


_MADE: Final[dict[str, tuple[type[SpatialClustersError], str, str]]] = {
    "ModelSpec": (
        SpecError,
        "a model",
        "Load it first: load_model('cluster_growth') or load_model('my_model.toml').",
    ),
    "Panel": (
        PanelError,
        "a Panel",
        "Read it first: read_panel(table, regions=map), from a path or a data frame.",
    ),
    "Weights": (
        WeightsError,
        "Weights, or None",
        "Build them first: contiguity(panel), knn(panel, 5) or distance_band(panel, 100); or "
        "read_weights(...) of a file, an edge table, or a libpysal Graph or W.",
    ),
    "Fit": (FitError, "a Fit", "Read it first: load_fit('fit.nc')."),
    "Integral": (SamplingError, "a whole number (an int)", "Give one, such as 1."),
}
"""What a type is called, whose fault another one is, and how a value is made, by its name."""


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


def counted(number: int, noun: str) -> str:
    """Say how many, in words that agree.

    Examples
    --------
    >>> counted(1, "year"), counted(2, "year")
    ('1 year', '2 years')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def expect(value: object, kind: type[Any], where: str) -> None:
    """Refuse, where the package is entered, a value that is not of the type it has to be.

    Raises
    ------
    SpatialClustersError
        Of the kind that the type belongs to: what came, what was expected, how one is made.

    Examples
    --------
    >>> from numbers import Integral
    >>> expect("two", Integral, "fit, chains")
    Traceback (most recent call last):
    spatialclusters.errors.SamplingError: fit, chains: got 'two', a str; expected a whole number (an int). ...
    """
    if isinstance(value, kind) and not isinstance(value, bool):
        return
    error, expected, remedy = _MADE[kind.__name__]
    got = type(value).__name__
    if value is None or isinstance(value, str | bool | int | float):
        got = "None" if value is None else f"{listing([repr(value)])[1:-1]}, a {got}"
    raise error(f"{where}: got {got}; expected {expected}. {remedy}")


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for a near miss, else an empty string.

    Examples
    --------
    >>> suggestion("regon", ["region", "industry"])
    " Did you mean 'region'?"
    """
    others = [other for other in allowed if other != name]
    near = difflib.get_close_matches(name[:200], others, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def close_to(name: str, columns: Iterable[object]) -> str | None:
    """Return the column that was probably meant by a name, whatever its case.

    Examples
    --------
    >>> close_to("region", ["x", "REGION_ID"]), close_to("region", ["x"])
    ('REGION_ID', None)
    """
    by_case = {str(column).lower(): str(column) for column in columns}
    near = difflib.get_close_matches(name[:200], by_case, n=1)
    return by_case[near[0]] if near else None


def renaming(name: str, column: str = "COLUMN") -> str:
    """Say how a column gets the name that is expected, from Python and from the command line.

    Examples
    --------
    >>> renaming("region", "EA")
    'rename={"region": "EA"}, or --map region=EA on the command line'
    """
    column = column if len(column) <= 80 else "COLUMN"
    return f'rename={{"{name}": "{column}"}}, or --map {name}={column} on the command line'
