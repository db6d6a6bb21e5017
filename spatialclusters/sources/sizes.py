"""Establishments by size class -> bounds of the employees of a cell."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import reduce
from operator import add

import polars as pl

from spatialclusters.sources.regimes import LARGE, SIZES

__all__ = ["bounds_from_classes", "counts_by_size"]


def bounds_from_classes(
    sizes: Mapping[str, tuple[float, float]], large: tuple[str, ...], total: str
) -> tuple[pl.Expr, pl.Expr]:
    """Bound a cell's employees by its establishments, class by class.

    Establishments that the total has beyond the published classes are in one of
    the classes that are not available.

    Parameters
    ----------
    sizes
        Columns (text; not a number where not available) and the employees
        of one establishment in them.
    large
        Columns that divide ``n1000``, all or none of :data:`LARGE`.
    total
        Column of all establishments.

    Returns
    -------
    lower, upper : polars.Expr
        Employees; ``upper`` is infinite where an open class may be occupied.

    Examples
    --------
    >>> frame = pl.DataFrame({"n1_4": ["2"], "n5_9": ["N"], "est": ["3"]})
    >>> lower, upper = bounds_from_classes({"n1_4": (0, 4), "n5_9": (5, 9)}, (), "est")
    >>> frame.select(lower=lower, upper=upper).row(0)
    (5.0, 17.0)
    """
    counts = {name: pl.col(name).cast(pl.Float64, strict=False) for name in sizes}
    known = reduce(add, (count.fill_null(0.0) for count in counts.values()))
    rest = pl.col(total).cast(pl.Float64, strict=False) - known
    unplaced = rest > 0
    smallest = pl.min_horizontal(
        pl.when(counts[name].is_null()).then(float(low)) for name, (low, _) in sizes.items()
    ).fill_null(0.0)
    largest = pl.max_horizontal(
        pl.when(counts[name].is_null()).then(float(high)) for name, (_, high) in sizes.items()
    ).fill_null(math.inf)
    lower = reduce(add, (_times(counts[name], low) for name, (low, _) in sizes.items()))
    upper = reduce(add, (_times(counts[name], high) for name, (_, high) in sizes.items()))
    if len(large) == len(LARGE):
        divided, better_lower, better_upper = _divided(sizes, counts)
        lower = pl.when(divided).then(better_lower).otherwise(lower)
        upper = pl.when(divided).then(better_upper).otherwise(upper)
    return (
        pl.when(unplaced).then(lower + rest * smallest).otherwise(lower),
        pl.when(unplaced).then(upper + rest * largest).otherwise(upper),
    )


def counts_by_size(
    sizes: Mapping[str, tuple[float, float]], names: Collection[str]
) -> dict[str, pl.Expr]:
    """Return establishments by size under one name for all vintages (``SIZES``).

    The four classes above 1,000 employees are null where they do not add up to ``n1000``.

    Parameters
    ----------
    sizes
        Columns of the file, ``n1000`` last, and the employees of an establishment in them.
    names
        All columns of the file.

    Examples
    --------
    >>> columns = ["n1_4", "n5_9", "n1000", *LARGE]
    >>> sizes = {"n1_4": (0, 4), "n5_9": (5, 9), "n1000": (1000, math.inf)}
    >>> frame = pl.DataFrame([["2", "N", "1", "1", "0", "0", "0"]], schema=columns, orient="row")
    >>> found = frame.select(**counts_by_size(sizes, columns)).row(0, named=True)
    >>> found["size_0"], found["size_5"], found["size_1000"], found["size_10"]
    (2.0, None, 1.0, None)
    """
    by_least = {low: name for name, (low, _) in sizes.items() if name != "n1000"}
    whole = [name for name in LARGE if name in names]
    parts = [pl.col(name).cast(pl.Float64, strict=False) for name in whole]
    total = pl.col("n1000").cast(pl.Float64, strict=False)
    complete = (
        (reduce(add, parts) == total).fill_null(value=False) if len(parts) == len(LARGE) else None
    )
    large = {low: name for name, (low, _) in LARGE.items()}
    found = {}
    for name, (low, _) in SIZES.items():
        if low in by_least:
            found[name] = pl.col(by_least[low]).cast(pl.Float64, strict=False)
        elif low in large and complete is not None:
            found[name] = pl.when(complete).then(pl.col(large[low]).cast(pl.Float64, strict=False))
        else:
            found[name] = pl.lit(None, dtype=pl.Float64)
    return found


def _divided(
    sizes: Mapping[str, tuple[float, float]], counts: Mapping[str, pl.Expr]
) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Use the four classes above 1,000 employees where they add up to ``n1000``."""
    parts = {name: pl.col(name).cast(pl.Float64, strict=False) for name in LARGE}
    complete = (reduce(add, parts.values()) == counts["n1000"]).fill_null(value=False)
    sides = []
    for side in (0, 1):
        whole = [_times(counts[name], sizes[name][side]) for name in sizes if name != "n1000"]
        finer = [_times(parts[name], LARGE[name][side]) for name in LARGE]
        sides.append(reduce(add, [*whole, *finer]))
    return complete, sides[0], sides[1]


def _times(count: pl.Expr, size: float) -> pl.Expr:
    """Multiply so that no establishments of an open class are no employees, not NaN."""
    return pl.when(count > 0).then(count * float(size)).otherwise(0.0)
