"""County Business Patterns: county, state, metropolitan and national files of 1986 to 2023."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import polars as pl

from spatialclusters.errors import PanelError, listing
from spatialclusters.sources.levels import industry_level
from spatialclusters.sources.raw import (
    RawFile,
    bad_numbers,
    collected,
    number,
    opened,
    refuse_bad_numbers,
    require,
)
from spatialclusters.sources.regimes import LARGE, Regime, classification, regime_for
from spatialclusters.sources.sizes import bounds_from_classes, counts_by_size
from spatialclusters.sources.tidy import OBSERVED_CELL, WITHHELD_CELL, Cells, Origin

__all__ = ["read_cbp"]

_NAME: Final = re.compile(r"cbp(\d{2})(co|st|msa|us)", flags=re.IGNORECASE)
_NATION: Final = "US000"  # as the QCEW writes it
_NOT_AVAILABLE: Final = ("N",)
_DIGITS: Final = {"fipstate": 2, "fipscty": 3, "msa": 5}


def read_cbp(
    path: str | Path,
    *,
    year: int | None = None,
    regime: Regime | None = None,
    sha256: str | None = None,
    sizes: bool = False,
) -> Cells:
    r"""Read a County Business Patterns file, as the Census Bureau sends it.

    Parameters
    ----------
    path
        Text file, or the zip or gzip file with it.
    year
        Reference year; by default from a file name such as ``cbp18co.txt``.
    regime
        Disclosure rules for a year that the package does not know.
    sha256
        Digest that the file must have, in hexadecimal.
    sizes
        Whether to keep establishments by size (columns ``SIZES``), which
        ``proportional_fill`` uses.

    Returns
    -------
    Cells
        All levels of industries (see ``leaves``). Employees in the pay period with
        12 March, payroll in $1,000 a year. Regions are ``SSCCC`` (county; ``SS999``
        has no county), ``SS000`` (state), the code of the metropolitan area, or ``US000``. A
        national file is known by its name (``cbp18us.txt``), as it has no column of
        places. Bounds of
        withheld cells come from the range in ``empflag`` and from establishments by
        size. ``flag_raw`` is ``empflag``, ``emp_nf``, or both with a slash between.
        Noise (``emp_nf`` G, H, J) leaves a cell observed.

    Raises
    ------
    PanelError
        The file is of another vintage than its year, has a year without known rules,
        codes without their leading zeros, unknown flags, cut-off lines, another
        digest, or one cell twice with different numbers.

    References
    ----------
    U.S. Census Bureau, County Business Patterns, record layouts.

    Examples
    --------
    >>> import tempfile
    >>> head = "fipstate,fipscty,naics,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n<5,n5_9,n10_19,n20_49"
    >>> head += ",n50_99,n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4"
    >>> row = "01,001,311811,S,0,S,0,S,0,3,3,N,N,N,N,N,N,N,N,N,N,N,N"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "cbp18co.txt"
    ...     _ = file.write_text(head + "\n" + row + "\n")
    ...     read_cbp(file).frame.select("region", "value", "lower", "upper", "status").rows()
    [('01001', None, 0.0, 12.0, 'withheld')]
    """
    with opened(path, sha256=sha256) as raw:
        names = raw.header()
        year = _year(raw.name) if year is None else year
        rules = regime_for("cbp", year) if regime is None else regime
        _check_vintage(raw.name, names, rules, year)
        frame = _collected(raw, names, rules, sizes=sizes)
    refuse_bad_numbers(frame, raw.name)
    system = "sic" if "sic" in names else "naics"
    _check_codes(frame, raw.name, system)
    _check_flags(frame, raw.name, rules)
    frame, notes = _unique(frame, raw.name)
    frame, conflicts = _bounded(frame, rules)
    origin = Origin(
        "cbp", f"{year} {_kind(raw.name, names)}", raw.name, raw.digest, classification("cbp", year), rules.rule,
        (*notes, *conflicts, *_statewide(frame)),
    )  # fmt: skip
    return Cells(frame.with_columns(year=pl.lit(year)), (origin,))


def _year(name: str) -> int:
    found = _NAME.search(name)
    if found is None:
        msg = f"{name}: got a name without a year; expected one such as cbp18co.txt. Give the year."
        raise PanelError(msg)
    short = int(found[1])
    return short + (1900 if short >= 86 else 2000)


def _kind(name: str, names: list[str]) -> str:
    """Tell what places a file is about."""
    found = _NAME.search(name)
    if found is not None and found[2].lower() == "us" and not {"fipstate", "msa"} & {*names}:
        return "nation"
    return "county" if "fipscty" in names else "msa" if "msa" in names else "state"


def _places(name: str, names: list[str]) -> list[str]:
    """Return the columns that name a place."""
    columns = {
        "county": ["fipstate", "fipscty"],
        "msa": ["msa"],
        "state": ["fipstate"],
        "nation": [],
    }
    return columns[_kind(name, names)]


def _check_vintage(name: str, names: list[str], regime: Regime, year: int) -> None:
    wrong = sorted(regime.lacks & {*names})
    if wrong:
        msg = (
            f"{name}: got the columns {listing(wrong)}; expected a file of {year}, which has none of "
            "them. It is of another vintage: give its own year."
        )
        raise PanelError(msg)
    needed = [*_places(name, names), *sorted(regime.requires), "emp", "ap", "est", *regime.sizes]
    require(name, names, needed, f"County Business Patterns of {year}")


def _collected(raw: RawFile, names: list[str], regime: Regime, *, sizes: bool) -> pl.DataFrame:
    """Reduce the text to what is needed, in one pass over the file."""
    industry = "sic" if "sic" in names else "naics"
    scan = raw.scan(names)
    if "lfo" in names:  # legal form of organization: all rows but "-" are parts of that one
        scan = scan.filter(pl.col("lfo") == "-")
    kind, places = _kind(raw.name, names), _places(raw.name, names)
    broken = [pl.col(c).str.len_chars() != _DIGITS[c] for c in places]
    broken += [pl.col(c).str.contains(r"\D") for c in places]
    ending = {"state": [pl.lit("000")], "nation": [pl.lit(_NATION)]}.get(kind, [])
    classes = [*regime.sizes, *(c for c in LARGE if c in names)]
    lower, upper = bounds_from_classes(regime.sizes, tuple(c for c in LARGE if c in names), "est")
    flags = [c for c in ("empflag", "emp_nf") if c in names]
    return collected(
        scan.select(
            "line",
            region=pl.concat_str([*map(pl.col, places), *ending]),
            broken_id=pl.any_horizontal(pl.lit(False), *broken).fill_null(value=True),
            industry=pl.col(industry),
            emp=number("emp"),
            payroll=number("ap"),
            establishments=number("est"),
            empflag=pl.col("empflag").fill_null("") if "empflag" in names else pl.lit(""),
            emp_nf=pl.col("emp_nf").fill_null("") if "emp_nf" in names else pl.lit(""),
            flag_raw=pl.concat_str([pl.col(c).fill_null("") for c in flags], separator="/"),
            lower=lower,
            upper=upper,
            bad=bad_numbers(["emp", "ap", "est"]) + bad_numbers(classes, _NOT_AVAILABLE),
            **(counts_by_size(regime.sizes, names) if sizes else {}),
        ),
        raw.name,
    )  # fmt: skip


def _check_codes(frame: pl.DataFrame, name: str, system: str) -> None:
    broken = frame.filter("broken_id")
    if broken.height:
        shown = listing(f"line {a}: {b}" for a, b in broken.select("line", "region").head(8).rows())
        msg = (
            f"{name}: got {broken.height} rows with region codes of another length ({shown}); expected "
            "01 and 001. A spreadsheet took their leading zeros: use the file as it was sent."
        )
        raise PanelError(msg)
    codes = frame["industry"].unique().to_list()
    wrong = sorted(str(code) for code in codes if industry_level(code or "", system) is None)
    wrong += [str(c) for c in codes if c and len(c) != (4 if system == "sic" else 6)]
    if wrong:
        msg = (
            f"{name}: got the industry codes {listing(wrong)}; expected {system.upper()} codes such as "
            f"{'2011, 20-- or ----' if system == 'sic' else '311811, 31---- or ------'}. "
            "A spreadsheet changed them: use the file as it was sent."
        )
        raise PanelError(msg)


def _check_flags(frame: pl.DataFrame, name: str, regime: Regime) -> None:
    """Refuse letters that the regime does not know, and numbers that are both given and withheld."""
    allowed = {"empflag": {"", *regime.ranges}, "emp_nf": {"", *regime.withheld, *regime.published}}
    for column, letters in allowed.items():
        unknown = sorted({*frame[column].unique().to_list()} - letters)
        if unknown:
            msg = (
                f"{name}: got the flags {listing(unknown)} in {column!r}; expected one of "
                f"{listing(sorted(letters), 20)}. Give the rules of this file with `regime=`."
            )
            raise PanelError(msg)
    both = frame.filter(_withheld(regime) & (pl.col("emp") > 0))
    if both.height:
        msg = (
            f"{name}: got {both.height} rows with a withheld flag and a number (lines "
            f"{listing(both['line'].head(8))}); expected 0 there. Give the rules of this file with `regime=`."
        )
        raise PanelError(msg)


def _withheld(regime: Regime) -> pl.Expr:
    flagged = (pl.col("empflag") != "") | pl.col("emp_nf").is_in(sorted(regime.withheld))
    if regime.zero == "withheld":
        flagged = flagged | ((pl.col("emp") == 0) & (pl.col("establishments") > 0))
    return flagged


def _unique(frame: pl.DataFrame, name: str) -> tuple[pl.DataFrame, list[str]]:
    """Drop rows that repeat another word for word; refuse those that contradict one."""
    twice = frame.select("region", "industry").is_duplicated()
    if not twice.any():
        return frame, []
    kept = frame.unique([c for c in frame.columns if c != "line"], maintain_order=True)
    again = kept.filter(kept.select("region", "industry").is_duplicated())
    if again.height:
        shown = listing(
            f"line {n}: {r} {i}"
            for n, r, i in again.select("line", "region", "industry").head(8).rows()
        )
        msg = (
            f"{name}: got {again.height} rows of the same cells with different numbers ({shown}); "
            "expected one a cell. Remove those that are wrong."
        )  # fmt: skip
        raise PanelError(msg)
    return kept, [f"{frame.height - kept.height} rows that repeat another word for word left out"]


def _bounded(frame: pl.DataFrame, regime: Regime) -> tuple[pl.DataFrame, list[str]]:
    """Give withheld cells the bounds that both the flag and the size classes allow."""
    withheld, ranges = _withheld(regime), regime.ranges
    low = pl.col("empflag").replace_strict(
        {k: float(v[0]) for k, v in ranges.items()}, default=0.0, return_dtype=pl.Float64
    )
    high = pl.col("empflag").replace_strict(
        {k: float(v[1]) for k, v in ranges.items()}, default=float("inf"), return_dtype=pl.Float64
    )  # fmt: skip
    frame = frame.with_columns(withheld=withheld, low=low, high=high)
    crossed = pl.max_horizontal("low", "lower") > pl.min_horizontal("high", "upper")
    # where flag and classes contradict each other, either may be right: keep both
    lower = (
        pl.when(crossed)
        .then(pl.min_horizontal("low", "lower"))
        .otherwise(pl.max_horizontal("low", "lower"))
    )
    upper = (
        pl.when(crossed)
        .then(pl.max_horizontal("high", "upper"))
        .otherwise(pl.min_horizontal("high", "upper"))
    )
    conflicts = int(frame.select((crossed & pl.col("withheld")).sum()).item())
    hidden = pl.col("withheld")
    frame = frame.with_columns(
        value=pl.when(~hidden).then("emp"),
        lower=pl.when(hidden).then(lower).otherwise("emp"),
        upper=pl.when(hidden).then(upper).otherwise("emp"),
        status=pl.when(hidden).then(pl.lit(WITHHELD_CELL)).otherwise(pl.lit(OBSERVED_CELL)),
        # payroll is withheld with employment, and then written as 0
        payroll=pl.when(~hidden | (pl.col("payroll") > 0)).then("payroll"),
    )  # fmt: skip
    note = f"{conflicts} withheld cells whose flag contradicts their size classes: bounds of both"
    return frame, [note] if conflicts else []


def _statewide(frame: pl.DataFrame) -> list[str]:
    rows = frame.filter(
        pl.col("region").str.ends_with("999") & (pl.col("region").str.len_chars() == 5)
    )
    places = rows["region"].unique().len()
    return [f"{places} regions SS999 hold what has no county"] if places else []
