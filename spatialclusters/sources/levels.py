"""Levels of industries, parsed from the code, so that no job is counted at two of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.tidy import Cells

__all__ = ["ancestors", "at_level", "industry_level", "keyed_cells", "leaves", "system_of"]

_NAICS: Final = re.compile(r"(?P<digits>\d{2,6})[-/]*")
_NAICS_RANGE: Final = re.compile(r"31-33|44-45|48-49")
_NAICS_TOTALS: Final = frozenset({"------", "10"})
_SECTORS: Final = {"32": "31", "33": "31", "45": "44", "49": "48"}
_SIC: Final = re.compile(r"-{4}|\d{2}--|\d{4}|\d{3}/")
_SIC_OF_BLS: Final = re.compile(r"SIC_0(?P<division>[A-KZ])(?P<digits>\d{2,4})?")
# first major group of each division and the last one; 07 of these files has no farms
_DIVISIONS: Final = ((1, 9), (10, 14), (15, 17), (19, 39), (40, 49), (50, 51), (52, 59), (60, 67),
                     (70, 89), (90, 98), (99, 99))  # fmt: skip
_NACE: Final = re.compile(r"(?P<section>[A-U])(?P<digits>\d{2,4})?")
_DEEPEST: Final = 6


def system_of(classification: str) -> str:
    """Return ``naics``, ``sic`` or ``nace`` for the name of a classification.

    Examples
    --------
    >>> system_of("NAICS 2017"), system_of("NACE Rev. 2")
    ('naics', 'nace')
    """
    return classification.split()[0].lower()


def industry_level(code: str, system: str) -> int | None:
    """Return the level of a code: 0 for all industries, None if it is not one.

    NAICS: 2 (sector) to 6. SIC: 1 (division), 2 (major group) to 4; administrative and
    auxiliary codes such as ``399/`` are at 2. NACE: 1 (section) to 4; aggregates such as
    ``B-N_X_K`` have none.

    Examples
    --------
    >>> [industry_level(code, "naics") for code in ("------", "31----", "31-33", "11331/", "113310")]
    [0, 2, 2, 5, 6]
    >>> [industry_level(code, "sic") for code in ("----", "20--", "2000", "2010", "2011", "399/")]
    [0, 1, 2, 3, 4, 2]
    >>> [industry_level(code, "sic") for code in ("SIC_0Z", "SIC_0D", "SIC_0D20", "SIC_0D2011")]
    [0, 1, 2, 4]
    """
    path = _path(code, system)
    return None if path is None else path[-1][0]


def ancestors(code: str, system: str) -> tuple[tuple[int, str], ...]:
    """Return (level, key) of all industries that contain this one, from the top.

    Examples
    --------
    >>> ancestors("332710", "naics")
    ((0, ''), (2, '31'), (3, '332'), (4, '3327'), (5, '33271'))
    >>> ancestors("2011", "sic")
    ((0, ''), (1, '19'), (2, '20'), (3, '201'))
    """
    return (_path(code, system) or ((0, ""),))[:-1]


def _path(code: str, system: str) -> tuple[tuple[int, str], ...] | None:
    """Return (level, key) of an industry and all that contain it; None for another text."""
    return {"naics": _naics, "sic": _sic, "nace": _nace}[system](code)


def _naics(code: str) -> tuple[tuple[int, str], ...] | None:
    if code in _NAICS_TOTALS:
        return ((0, ""),)
    found = _NAICS.fullmatch(code)
    digits = code[:2] if _NAICS_RANGE.fullmatch(code) else found["digits"] if found else ""
    if not digits:
        return None
    sector = _SECTORS.get(digits[:2], digits[:2])
    below = tuple((n, digits[:n]) for n in range(3, len(digits) + 1))
    return ((0, ""), (2, sector), *below)


def _sic(code: str) -> tuple[tuple[int, str], ...] | None:
    found = _SIC_OF_BLS.fullmatch(code)
    if found is not None:
        return _sic_of_bls(found["division"], found["digits"] or "")
    if not _SIC.fullmatch(code):
        return None
    if code == "----":
        return ((0, ""),)
    group = int(code[:2])
    first = next((low for low, high in _DIVISIONS if low <= group <= high), group)
    division = (1, f"{first:02d}")
    if code.endswith("--"):
        return ((0, ""), division)
    if code.endswith("/"):  # central offices of the division: beside its major groups
        return ((0, ""), division, (2, code))
    digits = code[:2] if code[2:] == "00" else code[:3] if code[3] == "0" else code
    return ((0, ""), division, *((n, digits[:n]) for n in range(2, len(digits) + 1)))


def _sic_of_bls(letter: str, digits: str) -> tuple[tuple[int, str], ...] | None:
    """Return the path of a code with the letter of its division, as ``SIC_0D2011`` has."""
    if letter == "Z":
        return None if digits else ((0, ""),)
    division = (1, f"{_DIVISIONS['ABCDEFGHIJK'.index(letter)][0]:02d}")
    below = tuple((n, digits[:n]) for n in range(2, len(digits) + 1))
    return ((0, ""), division, *below)


def _nace(code: str) -> tuple[tuple[int, str], ...] | None:
    found = _NACE.fullmatch(code)
    if code == "TOTAL":
        return ((0, ""),)
    if found is None:
        return None
    digits = found["digits"] or ""
    below = tuple((n, code[: n + 1]) for n in range(2, len(digits) + 1))
    return ((0, ""), (1, found["section"]), *below)


def leaves(cells: Cells) -> Cells:
    """Keep the deepest published industries: each job is counted at most once.

    A row stays if no other row of its region and year is part of it, whatever its
    level: some files leave out levels where a parent has a single child. What a parent
    has beyond its published parts is not in the result, so sums never exceed the
    published total. Codes outside the hierarchy (aggregates) are left out.

    Raises
    ------
    PanelError
        Files of different classifications were combined, or no code is known.

    Examples
    --------
    >>> import polars as pl
    >>> from spatialclusters.sources import Origin
    >>> frame = pl.DataFrame({
    ...     "region": ["01001"] * 3, "industry": ["------", "31----", "311811"], "year": [2018] * 3,
    ...     "value": [9.0, 9.0, 7.0], "lower": [9.0, 9.0, 7.0], "upper": [9.0, 9.0, 7.0],
    ...     "status": ["observed"] * 3, "flag_raw": ["G"] * 3,
    ...     "establishments": [3.0] * 3, "payroll": [1.0] * 3})
    >>> origin = Origin("cbp", "2018 county", "x", "0" * 64, "NAICS 2017", "")
    >>> leaves(Cells(frame, (origin,))).frame["industry"].to_list()
    ['311811']
    """
    keyed, place = keyed_cells(cells), ["region", "year"]
    twice = keyed.filter(keyed.select(*place, "own").is_duplicated())
    if twice.height:
        shown = listing(
            f"{r} {i} {y}" for r, i, y in twice.select("region", "industry", "year").head(8).rows()
        )
        msg = (
            f"leaves: got {twice.height} rows of industries that are the same under two codes ({shown}); "
            "expected one. Keep one of them."
        )  # fmt: skip
        raise PanelError(msg)
    for depth in range(_DEEPEST):
        parts = keyed.filter(pl.col("path").list.len() > depth + 1)
        parents = parts.select(*place, own=pl.col("path").list.get(depth)).unique()
        keyed = keyed.join(parents, on=[*place, "own"], how="anti")
    return replace(
        cells, frame=keyed.select(cells.frame.columns).sort("region", "industry", "year")
    )


def at_level(cells: Cells, level: int) -> Cells:
    """Keep the industries of one level.

    Parameters
    ----------
    level
        As :func:`industry_level` counts: 6 for NAICS industries.

    Raises
    ------
    PanelError
        No cell is at that level.
    """
    system = _system(cells)
    levels = {code: industry_level(code, system) for code in cells.frame["industry"].unique()}
    kept = [code for code, found in levels.items() if found == level]
    if not kept:
        there = sorted({found for found in levels.values() if found is not None})
        msg = f"industries: got no cells at level {level}; expected one of {listing(there)}. Choose one."
        raise PanelError(msg)
    return replace(cells, frame=cells.frame.filter(pl.col("industry").is_in(kept)))


def _system(cells: Cells) -> str:
    names = sorted({system_of(origin.classification) for origin in cells.origins})
    if len(names) != 1 or names[0] not in {"naics", "sic", "nace"}:
        msg = (
            f"industries: got cells classified by {listing(names)}; expected one of 'naics', 'sic', "
            "'nace'. Treat the files of each classification by themselves."
        )
        raise PanelError(msg)
    return names[0]


def keyed_cells(cells: Cells) -> pl.DataFrame:
    """Add to each row its industry's key and those of all industries around it."""
    system = _system(cells)
    paths = {code: _path(code, system) for code in cells.frame["industry"].unique().to_list()}
    known = {code: [f"{n}:{key}" for n, key in path] for code, path in paths.items() if path}
    if not known:
        msg = f"leaves: got no {system.upper()} codes; expected some such as 311811. Check the column."
        raise PanelError(msg)
    table = pl.DataFrame(
        {
            "industry": list(known),
            "path": list(known.values()),
            "own": [p[-1] for p in known.values()],
        }
    )
    return cells.frame.join(table, on="industry", how="inner", maintain_order="left")
