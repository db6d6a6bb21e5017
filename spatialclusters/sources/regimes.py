"""What an agency withholds, and what that looks like: a table by source and year.

The readers look every file up here. A year that is not in the table is refused: whether
its zeros are numbers is then not known.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from spatialclusters.errors import PanelError, listing

__all__ = [
    "LARGE",
    "NOISE",
    "RANGES",
    "REGIMES",
    "SIZES",
    "Regime",
    "classification",
    "empty_without_row",
    "regime_for",
]

Bounds = Mapping[str, tuple[float, float]]

RANGES: Final[Bounds] = MappingProxyType({
    "A": (0, 19), "B": (20, 99), "C": (100, 249), "E": (250, 499), "F": (500, 999),
    "G": (1_000, 2_499), "H": (2_500, 4_999), "I": (5_000, 9_999), "J": (10_000, 24_999),
    "K": (25_000, 49_999), "L": (50_000, 99_999), "M": (100_000, math.inf),
})  # fmt: skip
"""Employees of a withheld cell by the letter in ``empflag`` (CBP 1986-2017)."""

_UPPER: Final[Bounds] = MappingProxyType({
    "n5_9": (5, 9), "n10_19": (10, 19), "n20_49": (20, 49), "n50_99": (50, 99),
    "n100_249": (100, 249), "n250_499": (250, 499), "n500_999": (500, 999),
    "n1000": (1_000, math.inf),
})  # fmt: skip
# The smallest class starts at 0 under both of its names, n1_4 and n<5. The Bureau's documentation
# of 2015 and 2016 says of "1 to 4" that it includes establishments that "did not report any paid
# employees in the mid-March pay period but paid wages to at least one employee at some time during
# the year". Autor, Dorn and Hanson's code takes 1 instead, which makes bounds tighter, and wrong
# where such an establishment is.
_TO_2016: Final[Bounds] = MappingProxyType({"n1_4": (0, 4), **_UPPER})
_FROM_2017: Final[Bounds] = MappingProxyType({"n<5": (0, 4), **_UPPER})
LARGE: Final[Bounds] = MappingProxyType({
    "n1000_1": (1_000, 1_499), "n1000_2": (1_500, 2_499), "n1000_3": (2_500, 4_999),
    "n1000_4": (5_000, math.inf),
})  # fmt: skip
"""Employees per establishment in the classes that divide ``n1000`` (CBP)."""

SIZES: Final[Bounds] = MappingProxyType({
    "size_0": (0, 4), "size_5": (5, 9), "size_10": (10, 19), "size_20": (20, 49), "size_50": (50, 99),
    "size_100": (100, 249), "size_250": (250, 499), "size_500": (500, 999), "size_1000": (1_000, 1_499),
    "size_1500": (1_500, 2_499), "size_2500": (2_500, 4_999), "size_5000": (5_000, math.inf),
})  # fmt: skip
"""Columns of cells with establishments by size, and the employees of one of them."""

NOISE: Final[Bounds] = MappingProxyType(
    {"G": (0.0, 0.02), "H": (0.02, 0.05), "J": (0.05, math.inf)}
)
"""Relative change of a published number by the letter in ``emp_nf`` (CBP from 2007)."""


@dataclass(frozen=True)
class Regime:
    """How a source published in a range of years.

    Attributes
    ----------
    source
        ``cbp``, ``qcew`` (by NAICS), ``qcew-sic`` or ``eurostat``.
    first, last
        Years, both included.
    rule
        In words, for reports.
    requires, lacks
        Columns that a file of these years has, and has not: what tells vintages apart.
    ranges
        Letters of ``empflag`` and the employees that they stand for.
    withheld
        Letters of the flag that mark a withheld cell.
    published
        Other letters that the flag may have.
    sizes
        Columns of establishments by size class, with employees per establishment.
    zero
        What a zero without a flag is.
    absent
        What a cell without a row is: nobody there, or not published.
    """

    source: str
    first: int
    last: int
    rule: str
    requires: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    ranges: Bounds = MappingProxyType({})
    withheld: frozenset[str] = frozenset()
    published: frozenset[str] = frozenset()
    sizes: Bounds = MappingProxyType({})
    zero: Literal["observed", "withheld"] = "observed"
    absent: Literal["zero", "not published"] = "zero"


# What the letters mean is the same in all years: D and S are withheld, G, H and J are published with
# noise. By the Bureau's page on noise flags (of its Statistics of U.S. Businesses) J was suppressed
# with D before 2015, and D is replaced by S from 2017 on. A J before 2015 is therefore an error; a D
# from 2017 on is read as what it can only mean, since refusing it would guard against nothing.
_D_S: Final = frozenset("DS")
_NOISE: Final = frozenset(NOISE)
_LITTLE_NOISE: Final = _NOISE - {"J"}
REGIMES: Final = (
    Regime("cbp", 1986, 1997, "small cells suppressed, with a range", requires=frozenset({"sic", "empflag"}),
           lacks=frozenset({"naics", "emp_nf"}), ranges=RANGES, sizes=_TO_2016),
    Regime("cbp", 1998, 2006, "small cells suppressed, with a range", requires=frozenset({"naics", "empflag", "n1_4"}),
           lacks=frozenset({"sic", "emp_nf"}), ranges=RANGES, sizes=_TO_2016),
    Regime("cbp", 2007, 2014, "noise; cells changed by 5 % or more suppressed, with a range",
           requires=frozenset({"naics", "empflag", "emp_nf", "n1_4"}), lacks=frozenset({"n<5"}),
           ranges=RANGES, withheld=_D_S, published=_LITTLE_NOISE, sizes=_TO_2016),
    Regime("cbp", 2015, 2016, "noise; some cells suppressed, with a range",
           requires=frozenset({"naics", "empflag", "emp_nf", "n1_4"}), lacks=frozenset({"n<5"}),
           ranges=RANGES, withheld=_D_S, published=_NOISE, sizes=_TO_2016),
    Regime("cbp", 2017, 2017, "noise; cells of fewer than 3 establishments have no row",
           requires=frozenset({"naics", "empflag", "emp_nf", "n<5"}), ranges=RANGES, withheld=_D_S,
           published=_NOISE, sizes=_FROM_2017, absent="not published"),
    Regime("cbp", 2018, 2023, "noise; cells of fewer than 3 establishments have no row",
           requires=frozenset({"naics", "emp_nf", "n<5"}), lacks=frozenset({"empflag"}), withheld=_D_S,
           published=_NOISE, sizes=_FROM_2017, absent="not published"),
    # the files by SIC; that they leave withheld cells unmarked, as those by NAICS do, is second-hand
    Regime("qcew-sic", 1975, 2000, "cells of few firms suppressed, not marked", zero="withheld",
           withheld=frozenset("N")),
    Regime("qcew", 1990, 2000, "cells of few firms suppressed, not marked", zero="withheld",
           withheld=frozenset("N")),
    Regime("qcew", 2001, 2024, "cells of few firms suppressed, marked N", withheld=frozenset("N")),
    Regime("eurostat", 1995, 2024, "confidential cells marked C (c until January 2025)",
           withheld=frozenset("CNP"), published=frozenset("bdefimnpur"), absent="not published"),
)  # fmt: skip
"""The table. What has not been checked against the agency's own page is read strictly."""

_CLASSIFICATIONS: Final = {
    "cbp": ((1986, "SIC 1987"), (1998, "NAICS 1997"), (2003, "NAICS 2002"), (2008, "NAICS 2007"),
            (2012, "NAICS 2012"), (2017, "NAICS 2017")),
    "qcew": ((1990, "NAICS 2002"), (2007, "NAICS 2007"), (2011, "NAICS 2012"), (2017, "NAICS 2017"),
             (2022, "NAICS 2022")),
    # the code list of the files by SIC marks industries of 1972 that those of 1987 replaced; that
    # the change is in 1988 is second-hand
    "qcew-sic": ((1975, "SIC 1972"), (1988, "SIC 1987")),
    "eurostat": ((1995, "NACE Rev. 1"), (2008, "NACE Rev. 2")),
}  # fmt: skip


def regime_for(source: str, year: int) -> Regime:
    """Look up how a source published in a year.

    Parameters
    ----------
    source
        ``cbp``, ``qcew`` (by NAICS), ``qcew-sic`` or ``eurostat``.
    year
        Reference year of the data.

    Raises
    ------
    PanelError
        The table has no entry; the message says how to supply one.

    Examples
    --------
    >>> regime_for("cbp", 2018).absent
    'not published'
    """
    for regime in REGIMES:
        if regime.source == source and regime.first <= year <= regime.last:
            return regime
    known = [f"{r.first}-{r.last}" for r in REGIMES if r.source == source]
    msg = (
        f"{source}: got the year {year}; expected one whose disclosure rules are known "
        f"({listing(known)}). Read the agency's methodology page and give the reader "
        "`regime=dataclasses.replace(regime_for(source, a_year_with_the_same_rules), first=..., last=...)`."
    )
    raise PanelError(msg)


def empty_without_row(sources: Collection[str], year: int) -> bool:
    """Say whether all of the sources publish every cell of a year where somebody works.

    Examples
    --------
    >>> empty_without_row(["cbp"], 2016), empty_without_row(["cbp"], 2017), empty_without_row(["table"], 2016)
    (True, False, False)
    """
    full = {r.source for r in REGIMES if r.first <= year <= r.last and r.absent == "zero"}
    return {*sources} <= full


def classification(source: str, year: int) -> str:
    """Name the industry classification that a source used in a year.

    Examples
    --------
    >>> classification("cbp", 2022), classification("qcew", 2022)
    ('NAICS 2017', 'NAICS 2022')
    """
    names = [name for first, name in _CLASSIFICATIONS[source] if first <= year]
    return names[-1] if names else "unknown"
