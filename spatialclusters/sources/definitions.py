"""Tables that say which cluster an industry is in, and which area a region is in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import polars.exceptions as pl_errors

from spatialclusters.errors import PanelError, listing, suggestion
from spatialclusters.sources.raw import collected, opened
from spatialclusters.tables import read_table

__all__ = [
    "Definition", "differ_in_zeros", "read_clusters", "read_region_map", "read_text_columns",
]  # fmt: skip

_TRADED: Final = {"traded": 1.0, "local": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0,
                  "true": 1.0, "false": 0.0}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Definition:
    """Each code in one group, with the digest of the table that says so.

    Attributes
    ----------
    frame
        Text columns ``code`` and ``group`` (null for an industry in no cluster); for clusters, where given,
        ``subcluster`` (text) and ``traded`` (1 or 0).
    kind
        ``clusters`` or ``regions``.
    source
        Name of the file, or ``data frame``.
    digest
        SHA-256 of the file, in hexadecimal.
    """

    frame: pl.DataFrame
    kind: str
    source: str
    digest: str

    def describe(self) -> str:
        """Name the definition in one line for notes and reports.

        Examples
        --------
        >>> import pandas as pd
        >>> table = pd.DataFrame({"industry": ["311811"], "cluster": ["Food"]})
        >>> read_clusters(table).describe()[:43]
        'clusters: 1 codes in 1 groups by data frame'
        """
        groups = self.frame["group"].drop_nulls().n_unique()
        return (
            f"{self.kind}: {self.frame.height} codes in {groups} groups by {self.source} "
            f"(SHA-256 {self.digest[:12]})"
        )


def read_clusters(
    source: str | Path | Any, *, rename: Mapping[str, str] | None = None
) -> Definition:
    """Read which cluster each industry is in: a benchmark definition, or your own two columns.

    Parameters
    ----------
    source
        CSV or Parquet file, or a frame. Columns ``industry`` and ``cluster``, and where
        they exist ``subcluster`` and ``traded`` (``Traded`` or ``Local``, or 1 or 0).
    rename
        Names that are expected, mapped to those of the table: ``{"industry": "naics"}``.

    Raises
    ------
    PanelError
        Columns are missing, codes are not text, or an industry is in two clusters.

    References
    ----------
    Delgado, Porter and Stern (2016), doi:10.1093/jeg/lbv017, for the benchmark definitions.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"naics": ["311811"], "cluster": ["Food"]})
    >>> read_clusters(table, rename={"industry": "naics"}).frame.rows()
    [('311811', 'Food')]
    """
    columns = {
        "code": "industry",
        "group": "cluster",
        "subcluster": "subcluster",
        "traded": "traded",
    }
    names = {key: (rename or {}).get(column, column) for key, column in columns.items()}
    definition = _read(source, names, "clusters")
    frame = definition.frame
    if "traded" in frame.columns:
        text = pl.col("traded").str.to_lowercase()
        wrong = frame.filter(~text.is_in([*_TRADED]))["traded"].unique()
        if wrong.len():
            msg = (
                f"clusters: got {listing(wrong)} in column {names['traded']!r}; expected 'Traded' or "
                "'Local', or 1 or 0. Correct or remove the column."
            )
            raise PanelError(msg)
        frame = frame.with_columns(text.replace_strict(_TRADED, return_dtype=pl.Float64))
    return Definition(frame, "clusters", definition.source, definition.digest)


def read_region_map(source: str | Path | Any, *, region: str, area: str) -> Definition:
    """Read which area each region is in, for example counties in Economic Areas.

    Parameters
    ----------
    source
        CSV or Parquet file, or a frame.
    region, area
        Names of the two columns.

    Raises
    ------
    PanelError
        Columns are missing, codes are not text, a region is in two areas or in none.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"county": ["01001"], "state": ["01"]})
    >>> read_region_map(table, region="county", area="state").frame.rows()
    [('01001', '01')]
    """
    return _read(source, {"code": region, "group": area}, "regions")


def _read(source: Any, names: Mapping[str, str], kind: str) -> Definition:
    # an industry may be in no cluster, and then stays in the totals; a region without an area is lost
    needed = ("code",) if kind == "clusters" else ("code", "group")
    frame, origin, digest = read_text_columns(source, names, kind, needed, text=("code", "group"))
    frame = frame.unique(maintain_order=True)
    twice = frame.filter(pl.col("code").is_duplicated())
    if twice.height:
        shown = listing(
            f"{code} in {group}" for code, group in twice.select("code", "group").rows()
        )
        msg = f"{kind}: got codes in several groups ({shown}); expected each in one. Choose one."
        raise PanelError(msg)
    return Definition(frame, kind, origin, digest)


def differ_in_zeros(codes: Iterable[str], known: Iterable[str]) -> bool:
    """Whether a code is not known, but would be without leading zeros.

    Examples
    --------
    >>> differ_in_zeros(["01001"], ["1001"]), differ_in_zeros(["01001"], ["01001"])
    (True, False)
    """
    listed = {*known}
    bare = {code.lstrip("0") for code in listed}
    return any(code not in listed and code.lstrip("0") in bare for code in codes)


def read_text_columns(
    source: Any,
    names: Mapping[str, str],
    kind: str,
    needed: tuple[str, ...],
    *,
    text: tuple[str, ...] | None = None,
) -> tuple[pl.DataFrame, str, str]:
    """Read the columns ``names`` (new: old) as text, with the table's origin and digest.

    Raises
    ------
    PanelError
        A column of ``text`` (by default of ``needed``) is missing or has numbers, one of
        ``needed`` has empty cells, or there are no rows.
    """
    frame, origin, digest = _table(source)
    for key in text or needed:
        if names[key] not in frame.columns:
            msg = f"{kind}: got the columns {listing(frame.columns)}; expected {names[key]!r}. Rename it."
            raise PanelError(msg + suggestion(names[key], frame.columns))
        if frame[names[key]].dtype != pl.String:
            msg = (
                f"{kind}: got numbers in column {names[key]!r}; expected text, since 01001 and 1001 "
                "differ. Read the column as text."
            )
            raise PanelError(msg)
    chosen = {new: old for new, old in names.items() if old in frame.columns}
    frame = frame.select(
        pl.col(o).cast(pl.String).str.strip_chars().alias(n) for n, o in chosen.items()
    )
    frame = frame.with_columns(
        pl.when(pl.col(c) != "").then(pl.col(c)).alias(c) for c in frame.columns
    )
    empty = frame.filter(pl.any_horizontal(pl.col(needed).is_null())).height
    if empty or not frame.height:
        msg = (
            f"{kind}: got {empty} of {frame.height} rows without {' or '.join(names[n] for n in needed)};"
            " expected text in each. Complete the table."
        )
        raise PanelError(msg)
    return frame, origin, digest


def _table(source: Any) -> tuple[pl.DataFrame, str, str]:
    """Read a file with all text columns as text; names of columns keep their case."""
    if not isinstance(source, str | Path):
        pandas, origin, digest = read_table(source, error=PanelError)
        return pl.from_pandas(pandas.reset_index(drop=True)), origin, digest
    path = Path(source)
    if path.suffix.lower() in {".parquet", ".pq"}:
        try:
            content = path.read_bytes()
            return pl.read_parquet(path, glob=False), path.name, hashlib.sha256(content).hexdigest()
        except (OSError, pl_errors.PolarsError) as cause:
            msg = (
                f"{path.name}: got a file that cannot be read ({str(cause)[:160]}). Save it again."
            )
            raise PanelError(msg) from cause
    with opened(path) as raw:
        frame = collected(raw.scan(raw.header(lower=False)), raw.name).drop("line")
    return frame, raw.name, raw.digest
