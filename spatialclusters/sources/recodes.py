"""Counties whose codes changed: by name, so that none of them appears to enter or exit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["RECODES", "Recode", "known_code", "why_not"]


@dataclass(frozen=True)
class Recode:
    """One change of a county's code.

    Attributes
    ----------
    old, new
        Five-digit codes.
    year
        First year of the new code.
    name
        What happened, for notes.
    kind
        ``renamed``: the same area, so either code stands for the other; ``merged``:
        the old area became part of the new one, which only works forwards.
    """

    old: str
    new: str
    year: int
    name: str
    kind: Literal["renamed", "merged"]


RECODES: Final = (
    Recode("12025", "12086", 1997, "Dade, now Miami-Dade, Florida", "renamed"),
    Recode("46113", "46102", 2015, "Shannon, now Oglala Lakota, South Dakota", "renamed"),
    Recode("02270", "02158", 2015, "Wade Hampton, now Kusilvak, Alaska", "renamed"),
    Recode("51780", "51083", 1995, "South Boston, now in Halifax, Virginia", "merged"),
    Recode("51560", "51005", 2001, "Clifton Forge, now in Alleghany, Virginia", "merged"),
    Recode("51515", "51019", 2013, "Bedford city, now in Bedford, Virginia", "merged"),
)
"""Changes after which one code can stand for the other."""

_CONNECTICUT: Final = (
    "Connecticut's planning regions (09110 to 09190, from 2022 data) do not nest in its counties "
    "(09001 to 09015)"
)
_NOT_ONE_TO_ONE: Final = {
    **{f"09{n:03d}": _CONNECTICUT for n in (*range(1, 16, 2), *range(110, 191, 10))},
    **dict.fromkeys(("02261", "02063", "02066"), "Valdez-Cordova, Alaska, was divided in 2019"),
    "08014": "Broomfield, Colorado, was made of parts of four counties in 2001",
}


def known_code(code: str, known: Collection[str]) -> tuple[str, Recode | None] | None:
    """Return the code under which a county is known, with the change that leads to it.

    Parameters
    ----------
    code
        Five digits, as in the data.
    known
        Codes of a concordance.

    Returns
    -------
    tuple or None
        None where no change leads to a known code.

    Examples
    --------
    >>> known_code("46102", {"46113"})[0], known_code("51005", {"51560"})
    ('46113', None)
    """
    if code in known:
        return code, None
    for recode in RECODES:
        if code == recode.old and recode.new in known:
            return recode.new, recode
        if code == recode.new and recode.kind == "renamed" and recode.old in known:
            return recode.old, recode
    return None


def why_not(codes: Collection[str]) -> str:
    """Say what is known about counties that have no single other code."""
    reasons = dict.fromkeys(_NOT_ONE_TO_ONE[code] for code in codes if code in _NOT_ONE_TO_ONE)
    return " ".join(f"{reason}." for reason in reasons)
