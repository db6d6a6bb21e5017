"""A long table of regions (by industry or cluster, by year) -> a validated Panel.

The table has one row per cell. A row with a number is an *observed* cell, a row
without one a *withheld* cell, and a combination without a row an *absent* cell;
the last two are never turned into zeros here (``measures`` does what the model
file says).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.delimited import number_advice
from spatialclusters.errors import PanelError, close_to, counted, listing, renaming, suggestion
from spatialclusters.shapes import match_shapes, named_shapes
from spatialclusters.tables import (
    COUNT,
    IDS,
    LARGEST,
    READING,
    SUFFIXES,
    must_be_numbers,
    out_of_range,
    read_table,
)

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["ABSENT", "OBSERVED", "WITHHELD", "Panel", "read_panel", "yearly_columns"]

OBSERVED, WITHHELD, ABSENT = 0, 1, 2
"""Codes of :meth:`Panel.status`."""

_OWN: Final = frozenset({"present", "cluster_of"})
_RESERVED: Final = _OWN | {*IDS, "year"}
_NUMBERS: Final = frozenset(
    {"boolean", "decimal", "empty", "floating", "integer", "mixed-integer-float"}
)
_YEARLY: Final = re.compile(r"(?P<stem>\w*?[A-Za-z])_?(?P<year>(?:1[6-9]|20)\d\d)")
_MOST_CELLS: Final = 200_000_000  # with their years: 1.6 GB for each variable
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Panel:
    """A validated table as labeled arrays, with region geometry and provenance.

    Attributes
    ----------
    data
        Dataset over ``region[, industry | cluster][, year]``. ``present`` is True
        where the table had a row; every other variable is float64 with NaN
        where there is no number. With industries, the coordinate
        ``cluster_of`` gives each industry's cluster (``""`` for none). Columns
        ``x_start`` and ``x_end`` become ``x`` with years ``start`` and ``end``.
    geometry
        Region polygons or points indexed by region id, or None.
    provenance
        Source, SHA-256 digest of its content, row count, and which columns were ignored.
    """

    data: xr.Dataset
    geometry: gpd.GeoSeries | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        across = " x ".join(f"{n:,} by {name}" for name, n in self.data.sizes.items())
        shapes = "no shapes" if self.geometry is None else "with shapes"
        return f"Panel({across}; {listing(self.variables)}; {shapes})"

    @property
    def regions(self) -> tuple[str, ...]:
        """Region ids in the order of the arrays."""
        return tuple(str(value) for value in self.data["region"].values)

    @property
    def unit(self) -> str | None:
        """The activity dimension: ``industry``, ``cluster``, or None (regions only)."""
        return next((dim for dim in ("industry", "cluster") if dim in self.data.dims), None)

    @property
    def years(self) -> tuple[str, ...]:
        """Labels of the year dimension, empty for a plain cross-section."""
        return tuple(self.data["year"].values.tolist()) if "year" in self.data.dims else ()

    @property
    def ends(self) -> tuple[int, int] | None:
        """Years of start and end, where the table or the names of its columns say them."""
        ends = self.provenance.get("ends")
        return (int(ends[0]), int(ends[1])) if ends else None

    @property
    def variables(self) -> tuple[str, ...]:
        """Names that a formula may use."""
        return tuple(str(name) for name in self.data.data_vars if name != "present")

    def period(self, year: int | None, *, end: bool = False) -> str | None:
        """Return the label of a year of the model file in this panel.

        Raises
        ------
        PanelError
            The year is not in the table.
        """
        if not self.years:
            return None
        if set(self.years) == {"start", "end"}:
            known = self.ends
            if known and year is not None and known[end] != year:
                key = "growth.to" if end else "growth.from"
                msg = (
                    f"panel: got {known[end]} as the {'end' if end else 'start'} of the period, as "
                    f"the table says; expected the model's {key}, {year}. Set {key} to "
                    f"{known[end]} (--set {key}={known[end]}), or read another table."
                )
                raise PanelError(msg)
            return "end" if end else "start"
        if year is None:
            return self.years[-1] if end else self.years[0]
        if str(year) not in self.years:
            msg = (
                f"panel: got years {listing(self.years)}; expected one of them for "
                f"growth.{'to' if end else 'from'}, got {year}. Add the year's rows or change it "
                f"with --set growth.{'to' if end else 'from'}=YEAR."
            )
            raise PanelError(msg)
        return str(year)

    def values(self, variable: str, period: str | None) -> xr.DataArray:
        """Return one variable over (region[, unit]) in a period, NaN where unpublished.

        Raises
        ------
        PanelError
            The panel has no such variable.
        """
        if variable in self.provenance.get("ignored", ()):
            msg = (
                f"panel: got text in column {variable!r}; expected numbers or nothing. Write them "
                "without signs that group thousands, and with a decimal point."
            )
            raise PanelError(msg)
        if variable not in self.variables:
            msg = (
                f"panel: got no variable {variable!r}; expected one of {listing(self.variables)}."
                f"{suggestion(variable, self.variables)}"
            )
            yearly = yearly_columns(variable, self.variables)
            raise PanelError(msg + (yearly or f" Rename a column: {renaming(variable)}."))
        array = self.data[variable]
        return array.sel(year=period, drop=True) if "year" in array.dims else array

    def status(self, variable: str, period: str | None) -> xr.DataArray:
        """Return OBSERVED, WITHHELD or ABSENT for each cell of a variable in a period."""
        values = self.values(variable, period)
        present = self.data["present"]
        present = present.sel(year=period, drop=True) if "year" in present.dims else present
        unpublished = np.where(present.values, WITHHELD, ABSENT)
        codes = np.where(np.isfinite(values.values), OBSERVED, unpublished)
        return values.copy(data=codes.astype(np.int8))

    def cell_counts(self, variable: str, period: str | None) -> dict[str, int]:
        """Count the observed, zero, withheld and absent cells of a variable in a period."""
        status = self.status(variable, period)
        return {
            "cells": int(status.size),
            "observed": int((status == OBSERVED).sum()),
            "zero": int((self.values(variable, period) == 0.0).sum()),
            "withheld": int((status == WITHHELD).sum()),
            "absent": int((status == ABSENT).sum()),
        }

    def withheld_amounts(self, variable: str, period: str | None) -> dict[str, float | int]:
        """Say how much of a variable is published, withheld and filled in a period.

        Returns
        -------
        dict
            ``published``, the sum of the cells with a number, less what is filled;
            ``withheld_lower``, the sum of the lower bounds of cells without a number (their
            published parts included); ``withheld_upper``, the sum of the upper bounds of those
            that have one; ``unbounded``, how many have none, such as cells without a row in this
            period;
            ``filled``, the sum of ``<variable>_filled``, and ``filled_cells``, where it is not 0.
        """
        values, hidden = (
            self.values(variable, period).values,
            self.status(variable, period).values == WITHHELD,
        )

        def beside(suffix: str, default: float) -> np.ndarray:
            name = f"{variable}_{suffix}"
            if name not in self.variables:
                return np.full(values.shape, default)
            return np.asarray(self.values(name, period).fillna(default).values)

        filled = np.where(np.isfinite(values), beside("filled", 0.0), 0.0)
        upper = beside("upper", np.inf)[hidden]
        closed = np.isfinite(upper)
        return {
            "published": float(np.nansum(values) - filled.sum()),
            "withheld_lower": float(beside("lower", 0.0)[hidden].sum()),
            "withheld_upper": float(upper[closed].sum()),
            "unbounded": int((~closed).sum()),
            "filled": float(filled.sum()),
            "filled_cells": int((filled > 0).sum()),
        }


def read_panel(
    source: str | Path | pd.DataFrame | Any,
    regions: str | Path | Any | None = None,
    *,
    rename: Mapping[str, str] | None = None,
) -> Panel:
    """Read and validate a long table of employment (or anything else) by region.

    Parameters
    ----------
    source
        Path of a CSV, Parquet or Stata file, or a pandas or polars frame. Columns:
        ``region``; ``industry`` and ``cluster`` where they exist; either ``year``
        or pairs ``x_start``/``x_end``, or neither for a cross-section; any other
        numeric columns. Ids must be strings.
    regions
        Region polygons or points with a column ``region``: a file (GeoJSON, GeoPackage,
        shapefile, FlatGeobuf, GeoParquet), or a GeoDataFrame. Optional.
    rename
        Names that the package expects, mapped to the columns of the table:
        ``{"employment": "emp"}``. That of ``region`` holds for the map, too, if the map has
        no column ``region``.

    Returns
    -------
    Panel

    Raises
    ------
    PanelError
        All failing rows of all checks in one message: ids that are not
        strings, duplicates, negative employment, an industry in two clusters,
        a missing start or end year, regions without geometry.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"region": ["01", "02"], "income_start": [1.0, 2.0],
    ...                       "income_end": [2.0, 3.0]})
    >>> panel = read_panel(table)
    >>> panel.regions, panel.years, float(panel.values("income", "end").sum())
    (('01', '02'), ('start', 'end'), 5.0)
    """
    moves, shapes = dict(rename or {}), None
    named: Collection[str] = ()
    if regions is not None:
        shapes, found = named_shapes(regions, moves.get("region"))
        named = ("region",) if found else ()
    frame, origin, digest = read_table(source, error=PanelError, rename=moves, optional=named)
    attributes = frame.attrs
    frame = _with_numbers(_with_stems(frame))
    frame = frame.astype(
        {name: object for name, dtype in frame.dtypes.items() if dtype == "category"}
    )
    keys = _keys(frame)
    numeric = [column for column in frame.columns if _is_numeric(frame[column], column)]
    _validate(frame, keys, numeric)
    ignored = [c for c in frame.columns if c not in numeric and c not in (*keys, "cluster")]
    data = _arrays(frame, keys, [c for c in numeric if c != "year"])
    geometry, notes = (None, []) if shapes is None else match_shapes(shapes, data["region"].values)
    notes = [*map(str, attributes.get(READING, ())), *notes]
    if ignored:
        notes.append(f"text columns ignored: {listing(ignored)}")
    for note in notes:
        _LOG.info("panel: %s", note)
    if twice := _same_numbers(data["region"].values):
        notes.append(
            f"regions that differ by leading zeros only count as several: {listing(twice)}"
        )
        _LOG.warning("panel: %s", notes[-1])
    provenance: dict[str, Any] = {
        "source": origin,
        "digest": digest,
        "rows": len(frame),
        "notes": notes,
    }
    if ignored:
        provenance["ignored"] = ignored
    made_from = attributes.get("spatialclusters")
    if isinstance(made_from, Mapping):  # a table that `sources.to_panel` made, or says so
        told, origins = made_from.get("notes"), made_from.get("origins")
        notes += [str(note) for note in told] if isinstance(told, list | tuple) else []
        provenance["origins"] = list(origins) if isinstance(origins, list | tuple) else []
        withheld = made_from.get("withheld")
        provenance["withheld"] = dict(withheld) if isinstance(withheld, Mapping) else {}
    if (ends := _ends(moves, made_from)) and "end" in data.get("year", ()):
        provenance["ends"] = ends
    return Panel(data=data, geometry=geometry, provenance=provenance)


def _ends(rename: Mapping[str, str], made_from: object) -> list[int] | None:
    """Return the years of start and end, where the table or the names of its columns say them."""
    told = made_from.get("ends") if isinstance(made_from, Mapping) else None
    years: list[set[str]] = []
    for suffix in SUFFIXES:
        named = (_YEARLY.fullmatch(old) for new, old in rename.items() if new.endswith(suffix))
        years.append({match["year"] for match in named if match})
    if all(len(found) == 1 for found in years):
        told = [int(found.pop()) for found in years]
    if isinstance(told, list | tuple) and len(told) == 2 and all(type(y) is int for y in told):
        return [*told]
    return None


def yearly_columns(variable: str, columns: Iterable[str]) -> str:
    """Say how columns such as ``emp_2018`` and ``emp_2021`` become a period, if there are any.

    Examples
    --------
    >>> print(yearly_columns("employment", ["emp_2018", "emp_2021"]))
    The columns 'emp_2018', 'emp_2021' hold one year each: ... --map employment_end=emp_2021...
    """
    stems: dict[str, list[str]] = {}
    for name in columns:
        if match := _YEARLY.fullmatch(name):
            stems.setdefault(match["stem"], []).append(name)
    found = stems.get(variable) or next((names for names in stems.values() if len(names) > 1), [])
    if len(found) < 2:
        return ""
    first, last = min(found), max(found)
    return (
        f" The columns {listing(sorted(found))} hold one year each: name both ends of the period with "
        f"--map {variable}_start={first} --map {variable}_end={last} (from Python "
        f'rename={{"{variable}_start": "{first}", "{variable}_end": "{last}"}}), or make one row '
        "per cell and year, with a column 'year'."
    )


def _with_stems(frame: pd.DataFrame) -> pd.DataFrame:
    """Check that every ``x_start`` has its ``x_end`` and the other way round."""
    for column in frame.columns:
        for suffix, other in (("_start", "_end"), ("_end", "_start")):
            stem = column.removesuffix(suffix)
            if stem != column and f"{stem}{other}" not in frame.columns:
                msg = (
                    f"panel: got a column {listing([column])} without {listing([stem + other])}; "
                    "expected both ends. Add the missing year or rename the column."
                )
                raise PanelError(msg)
    stems = {c.removesuffix("_start") for c in frame.columns if c.endswith("_start")}
    if stems and "year" in frame.columns:
        msg = "panel: got a column 'year' beside x_start/x_end columns; expected one of the two."
        raise PanelError(msg)
    taken = sorted((stems & (_RESERVED | {*frame.columns})) | ({*frame.columns} & _OWN))
    if taken:
        msg = f"panel: got columns for {listing(taken)}, a name that is taken; rename them."
        raise PanelError(msg)
    return frame


def _with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Type the object columns that hold nothing but numbers and None."""
    infer = pd.api.types.infer_dtype
    objects = [
        name
        for name, values in frame.items()
        if name not in IDS and values.dtype == object and infer(values, skipna=True) in _NUMBERS
    ]
    return frame.astype(dict.fromkeys(objects, np.float64))


def _keys(frame: pd.DataFrame) -> list[str]:
    if "region" not in frame.columns:
        msg = f"panel: got columns {listing(frame.columns)}; expected an id column 'region'."
        if "region" in frame.index.names:
            raise PanelError(f"{msg} It is in the index: give table.reset_index().")
        near = close_to("region", frame.columns)
        raise PanelError(f"{msg} Rename yours: {renaming('region', near or 'COLUMN')}.")
    if not len(frame):
        msg = "panel: got an empty table; expected one row per cell."
        raise PanelError(msg)
    unit = [name for name in ("industry", "cluster") if name in frame.columns][:1]
    return ["region", *unit, *(["year"] if "year" in frame.columns else [])]


def _same_numbers(regions: np.ndarray) -> list[str]:
    """Return ids of digits that are the same number, as if some had lost a zero."""
    bare: dict[str, list[str]] = {}
    for value in filter(str.isdecimal, map(str.strip, regions)):
        bare.setdefault(value.lstrip("0"), []).append(value)
    return [value for same in bare.values() if len(same) > 1 for value in same]


def _is_numeric(values: pd.Series[Any], name: str) -> bool:
    if name in IDS:
        return False
    return bool(pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values))


def _validate(frame: pd.DataFrame, keys: list[str], numeric: list[str]) -> None:
    """Run every check lazily and report all failing rows of all of them at once."""
    import pandera.errors
    import pandera.pandas as pa

    def is_id(value: object) -> bool:
        return isinstance(value, str) and value.strip() != ""

    text = pa.Check(is_id, element_wise=True, ignore_na=False, name=_IDS)
    text_or_none = pa.Check(
        lambda v: isinstance(v, str), element_wise=True, name="clusters must be strings or nothing"
    )
    number = pa.Check(lambda v: not isinstance(v, str), element_wise=True, name=_NO_TEXT)
    finite = pa.Check(lambda s: ~np.isinf(s.astype(float)), name="numbers must be finite")
    usable = pa.Check(
        lambda s: np.isinf(s.astype(float)) | ~out_of_range(s.astype(float)), name=_SIZE
    )
    positive = pa.Check(lambda s: ~(s < 0), name="counts must not be negative")
    whole = pa.Check(
        lambda s: (s % 1 == 0) & s.between(1, 9999),
        ignore_na=False,
        name="years must be whole numbers",
    )
    storable = pa.Check(
        lambda v: "\0" not in str(v), element_wise=True, name="ids must not hold NUL characters"
    )
    columns = {
        name: pa.Column(checks=[text, storable], nullable=True) for name in keys if name != "year"
    }
    for name in frame.columns:
        if name not in numeric and must_be_numbers(name):
            columns[name] = pa.Column(checks=[number], nullable=True)
    for name in numeric:
        checks = [finite, usable, *([positive] if COUNT.fullmatch(name) else [])]
        columns[name] = pa.Column(checks=[whole] if name == "year" else checks, nullable=True)
    nested = "industry" in keys and "cluster" in frame.columns
    frame_checks = [
        pa.Check(lambda f: ~f.duplicated(keys, keep=False), name="cells must be unique")
    ]
    if nested:
        columns["cluster"] = pa.Column(checks=[text_or_none, storable], nullable=True)
        frame_checks.append(pa.Check(_one_cluster, name="an industry must be in one cluster"))
    if "year" in keys and "year" not in numeric:
        dates = pd.api.types.is_datetime64_any_dtype(frame["year"])
        msg = f"column 'year': got {'dates' if dates else 'text'}; expected whole numbers such as 2018."
        remedy = "table['year'].dt.year" if dates else "table['year'].astype(int)"
        raise PanelError(f"{msg} In pandas: table['year'] = {remedy}.")
    schema = pa.DataFrameSchema(columns, checks=frame_checks)
    try:
        schema.validate(frame.reset_index(drop=True), lazy=True)
    except pandera.errors.SchemaErrors as cause:
        raise PanelError(_report(frame.reset_index(drop=True), keys, cause.failure_cases)) from None


def _one_cluster(frame: pd.DataFrame) -> pd.Series[bool]:
    counts = frame.groupby("industry", sort=False)["cluster"].transform(
        lambda values: values.nunique(dropna=False)
    )
    return counts == 1


_SIZE: Final = f"numbers must be 0 or of a size from {1 / LARGEST:g} to {LARGEST:g}"
_IDS: Final = "ids must be strings that are not empty"
_NO_TEXT: Final = "numbers must not be text"
_REMEDIES: Final = {
    _IDS: (
        "Read the ids as text, as 06 and 6 are different regions: read_csv(file, dtype={'region': "
        "str}); or pad the codes that you have: table['region'].astype(str).str.zfill(2), with as "
        "many digits as they should have."
    ),
    "clusters must be strings or nothing": "Read the labels as text: .astype(str).",
    "ids must not hold NUL characters": "No file format keeps them: remove them.",
    "cells must be unique": "Keep one row per cell; sum or remove the duplicates.",
    "counts must not be negative": "Leave withheld cells empty; codes such as -9 are not numbers.",
    "numbers must be finite": "Leave unknown values empty.",
    _SIZE: "Change the unit.",
    "an industry must be in one cluster": "Give each industry the same cluster in every row.",
    "years must be whole numbers": "Write years as 2018.",
}

_SHOWN: Final = {"cells must be unique": [], "an industry must be in one cluster": ["cluster"]}


def _report(frame: pd.DataFrame, keys: list[str], failures: pd.DataFrame) -> str:
    lines = []
    for check, cases in failures.groupby("check", sort=False):
        rows = sorted({int(row) for row in cases["index"].dropna()})
        named = sorted({str(c) for c in cases["column"].dropna() if str(c) in frame.columns})
        columns = _SHOWN.get(str(check), named)
        where = f" in {listing(columns)}" if columns else ""
        shown = [
            f"row {row}: "
            + ", ".join(f"{c}={_short(frame[c][row])}" for c in dict.fromkeys((*keys, *columns)))
            for row in rows[: 1 if check == _IDS and len(rows) == len(frame) else 5]  # one shows it
        ]  # fmt: skip
        more = (
            f" and {counted(len(rows) - len(shown), 'more row')}" if len(rows) > len(shown) else ""
        )
        remedy = _REMEDIES.get(str(check), "")
        if check == _NO_TEXT:
            remedy = number_advice(cases["failure_case"])
        lines.append(
            f"- {check}{where}: {counted(len(rows), 'row')}: {'; '.join(shown)}{more}. {remedy}"
        )
    return "panel: the table was refused (rows count from 0):\n" + "\n".join(lines)


def _short(value: object) -> str:
    return listing([value]) if isinstance(value, str) else str(value)[:80]


def _arrays(frame: pd.DataFrame, keys: list[str], numeric: list[str]) -> xr.Dataset:
    """Lay the long table out over its key dimensions."""
    columns = {key: frame[key] for key in keys}
    if "year" in keys:
        columns["year"] = frame["year"].astype(np.int64).astype(str)
    labels, codes = {}, []
    for key, values in columns.items():
        code, label = pd.factorize(values.astype(object), sort=True)
        labels[key] = label.astype(object)
        codes.append(code)
    shape = tuple(len(labels[key]) for key in keys)
    cells = math.prod(shape) * (2 if any(name.endswith("_start") for name in numeric) else 1)
    if cells > _MOST_CELLS:
        sizes = " x ".join(f"{len(labels[key])} of {key}" for key in keys)
        msg = (
            f"panel: got {len(frame)} rows of {cells:.3g} cells ({sizes}); expected at most "
            f"{_MOST_CELLS:.3g} cells. Aggregate, or look whether ids are numbers of rows."
        )
        raise PanelError(msg)
    index = tuple(codes)

    def laid_out(values: np.ndarray) -> np.ndarray:
        array = np.full(shape, np.nan)
        array[index] = values
        return array

    present = np.zeros(shape, dtype=bool)
    present[index] = True
    data: dict[str, Any] = {"present": (keys, present)}
    stems = [name.removesuffix("_start") for name in numeric if name.endswith("_start")]
    for stem in stems:
        ends = [laid_out(frame[f"{stem}{s}"].to_numpy(np.float64)) for s in SUFFIXES]
        data[stem] = ([*keys, "year"], np.stack(ends, axis=-1))
    paired = {f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES}
    for name in numeric:
        if name not in paired:
            data[name] = (keys, laid_out(frame[name].to_numpy(np.float64)))
    coords: dict[str, Any] = dict(labels)
    if stems:
        coords["year"] = list(SUFFIXES.values())
    if "industry" in keys and "cluster" in frame.columns:
        pairs = frame.drop_duplicates("industry").set_index("industry")["cluster"]
        cluster = pairs.reindex(labels["industry"]).astype(object).fillna("").to_numpy()
        coords["cluster_of"] = ("industry", cluster)
    return xr.Dataset(data, coords=coords)
