"""Spec + panel + weights -> Design: labeled arrays, and nothing left to decide."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from spatialclusters.errors import PanelError, SpecError, listing, suggestion
from spatialclusters.expressions import Evaluator, sample_mask
from spatialclusters.formula import DIMS
from spatialclusters.formula import Group as FormulaGroup
from spatialclusters.linkages import read_linkages
from spatialclusters.measures import MEASURES, CellRule, compute_measures, growth
from spatialclusters.panel import Panel
from spatialclusters.spec import ModelSpec
from spatialclusters.weights import Weights, align

__all__ = ["Design", "GroupDesign", "absorbed_groups", "build_design", "within"]

_CONSTANT: Final = 1e-10  # relative variance below which a column counts as constant
_RANK: Final = 1e-8  # relative singular value below which columns count as collinear
_ILL_CONDITIONED: Final = 30.0  # Belsley, Kuh and Welsch (1980)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupDesign:
    """One group factor: its levels and which columns vary between them.

    ``columns`` are positions in the covariates; -1 stands for the intercept.
    """

    name: str
    effect: str
    codes: np.ndarray
    levels: np.ndarray
    columns: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Design:
    """Response, covariates and group codes with labels on every axis.

    Attributes
    ----------
    data
        Dataset: ``y`` (obs), ``X`` (obs, term) in raw units and without the
        intercept, ``center`` and ``scale`` (term) for use inside the model,
        ``code_<group>`` (obs) with levels as coordinate ``<group>``,
        ``row_region``, ``row_industry``, ``row_cluster`` and ``size`` (obs)
        where they exist. Attributes: ``response``, ``unit``, ``years``,
        ``annualized``, ``intercept``, and as JSON ``groups``, ``labels`` (label
        in the formula to label of the column) and ``record`` (what happened to
        the cells and rows).
    weights
        Aligned to all regions of the panel, or None.
    """

    data: xr.Dataset
    weights: Weights | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows in the sample."""
        return int(self.data.sizes["obs"])

    @property
    def y(self) -> np.ndarray:
        """Response, shape (obs,), in the unit of ``data.attrs['unit']``."""
        return np.asarray(self.data["y"].values)

    @property
    def X(self) -> np.ndarray:  # noqa: N802  the field's name for it
        """Covariates in raw units, shape (obs, term)."""
        return np.asarray(self.data["X"].values)

    @property
    def terms(self) -> tuple[str, ...]:
        """Labels of the covariates."""
        return tuple(str(label) for label in self.data["term"].values)

    @cached_property
    def standardized(self) -> np.ndarray:
        """Covariates centered and scaled, shape (obs, term)."""
        return np.asarray((self.X - self.data["center"].values) / self.data["scale"].values)

    @cached_property
    def groups(self) -> tuple[GroupDesign, ...]:
        """The group factors in the order of the formula."""
        return tuple(
            GroupDesign(
                name=name,
                effect=entry["effect"],
                codes=np.asarray(self.data[f"code_{name}"].values),
                levels=np.asarray(self.data[name].values),
                columns=tuple(entry["columns"]),
                labels=tuple(entry["labels"]),
            )
            for name, entry in json.loads(self.data.attrs["groups"]).items()
        )

    @cached_property
    def record(self) -> dict[str, Any]:
        """What happened to cells and rows, and what is worth knowing of the sample."""
        return dict(json.loads(self.data.attrs["record"]))

    @property
    def years(self) -> float | None:
        """The horizon T in years, None where the response is not a growth rate."""
        years = float(self.data.attrs["years"])
        return years or None

    @property
    def annualized(self) -> bool:
        """Whether the response was divided by T already."""
        return bool(self.data.attrs["annualized"])

    @property
    def intercept(self) -> bool:
        """Whether the model has an overall intercept."""
        return bool(self.data.attrs["intercept"])

    @cached_property
    def rows_digest(self) -> str:
        """SHA-256 over the row ids and the response: equal for the same sample."""
        named = [str(name) for name in self.data if str(name).startswith("row_")]
        return _sha256(self.y, np.array(named), *(self.data[name].values for name in named))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything the likelihood sees."""
        codes = [array for group in self.groups for array in (group.codes, group.levels)]
        labels = np.array([*self.terms, self.data.attrs["groups"]])
        size = self.data["size"].values if "size" in self.data else np.empty(0)
        return _sha256(self.y, self.X, size, np.array([self.intercept]), labels, *codes)

    @cached_property
    def noise_guess(self) -> float:
        """Residual variance of least squares with every group intercept absorbed: a scale."""
        codes = [group.codes for group in self.groups if -1 in group.columns]
        y, X = within(self.y, codes), within(self.X, codes)
        residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0] if X.size else y
        used = 1 + X.shape[1] + sum(int(code.max()) for code in codes)
        # a floor on the degrees of freedom: with many singletons least squares fits too well
        return float(residual @ residual / max(self.n_rows - used, 0.2 * self.n_rows))

    def label(self, formula_label: str) -> str:
        """Return the column's label for a term of the formula: zero rules rename logs."""
        return str(json.loads(self.data.attrs["labels"]).get(formula_label, formula_label))

    def with_response(self, y: np.ndarray) -> Design:
        """Return the same design with another response, for simulation."""
        return Design(self.data.assign(y=("obs", np.asarray(y, dtype=np.float64))), self.weights)


def build_design(
    spec: ModelSpec,
    panel: Panel,
    weights: Weights | None = None,
    *,
    linkages: str | Path | pd.DataFrame | xr.DataArray | None = None,
) -> Design:
    r"""Compute measures on the whole panel, then choose rows and lay out columns.

    Parameters
    ----------
    spec
        The model.
    panel
        The whole table; cells that cannot be rows still count in sums.
    weights
        For ``neighbor_strength`` and ``lag()``; aligned here.
    linkages
        For ``linked_strength``: a table or a matrix from ``read_linkages``.

    Returns
    -------
    Design

    Raises
    ------
    PanelError, SpecError, WeightsError
        Everything that can be known to be wrong before sampling.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2.0, 2.5, 4.0],
    ...                       "x": [0.0, 1.0, 2.0, 3.0]})
    >>> spec = parse_spec('name = "line"\nformula = "y ~ x"')
    >>> design = build_design(spec, read_panel(table))
    >>> design.terms, design.n_rows, design.standardized[:, 0].round(3).tolist()
    (('x',), 4, [-1.162, -0.387, 0.387, 1.162])
    """
    aligned = None if weights is None else align(weights, panel.regions)
    response, base = _response(spec, panel)
    grid, measured = _grid(spec, panel, aligned, linkages, base)
    stacked = _Rows(panel, response)
    keep, dropped = _sample(spec, panel, stacked, grid)
    rows = stacked.take(keep)
    evaluator = Evaluator(
        {name: array[stacked.known][keep] for name, array in grid.items()},
        dict(spec.zeros),
        _row_lag(spec, rows, aligned),
    )
    labels, columns = _columns(spec, evaluator)
    groups = _groups(spec, rows, columns, labels)
    notes = _add_group_means(groups, columns)
    X = np.column_stack(list(columns.values())) if columns else np.empty((len(rows.y), 0))
    _check_columns(X, list(columns), groups, intercept=spec.parsed_formula.intercept)
    scale = X.std(axis=0, ddof=1) if X.size else np.empty(0)
    size = _base_size(spec, panel, base)[stacked.known][keep]
    record = _record(spec, panel, aligned, groups, dropped, base, measured, notes, X, rows, size)
    data = xr.Dataset(
        {
            "y": ("obs", rows.y),
            "X": (("obs", "term"), X),
            "center": ("term", X.mean(axis=0) if X.size else np.empty(0)),
            "scale": ("term", scale),
            **{f"row_{dim}": ("obs", ids) for dim, ids in rows.ids.items()},
            **{f"code_{name}": ("obs", entry["codes"]) for name, entry in groups.items()},
        },
        coords={
            "term": np.array(list(columns), dtype=object),
            **{name: entry["levels"] for name, entry in groups.items()},
        },
        attrs={
            "response": spec.parsed_formula.response,
            "unit": response.attrs["unit"],
            "years": float(response.attrs["years"]),
            "annualized": int(spec.growth is not None and spec.growth.annualized),
            "intercept": int(spec.parsed_formula.intercept),
            "groups": json.dumps(
                {k: {f: v[f] for f in ("effect", "columns", "labels")} for k, v in groups.items()}
            ),
            "labels": json.dumps(labels),
            "record": json.dumps(record),
        },
    )
    if spec.growth is not None:
        data["size"] = ("obs", size)
    return Design(data, aligned)


def absorbed_groups(design: Design, reported: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Split group intercepts into those that become absorbed effects and those that cannot.

    A factor is not absorbed where a reported term is constant inside its levels:
    its fixed effects would swallow the term.

    Returns
    -------
    tuple
        Names absorbed, names left out.
    """
    absorbed: list[str] = []
    left: list[str] = []
    for group in design.groups:
        if -1 not in group.columns:
            continue
        columns = [design.X[:, design.terms.index(term)] for term in reported]
        swallowed = any(_constant_within(column, group.codes) for column in columns)
        (left if swallowed else absorbed).append(group.name)
    return absorbed, left


def within(values: np.ndarray, codes: list[np.ndarray]) -> np.ndarray:
    """Return what is left of columns after absorbing the levels of every factor.

    The residual of least squares on all dummies, ``x - D (D'D)^- D'x``.

    Parameters
    ----------
    values
        Shape (row,) or (row, column).
    codes
        One integer array (row,) per factor.
    """
    from scipy.sparse.linalg import lsmr

    centered = values - values.mean(axis=0)
    if not codes:
        return np.asarray(centered)
    dummies = sparse.hstack([_dummies(code) for code in codes], format="csr")
    columns = centered.reshape(len(values), -1)
    fitted = [
        dummies @ lsmr(dummies, column, atol=1e-13, btol=1e-13, maxiter=10_000)[0]
        for column in columns.T
    ]
    return np.asarray(columns - np.column_stack(fitted)).reshape(values.shape)


class _Rows:
    """The cells whose response is known, with the ids of their row."""

    def __init__(self, panel: Panel, response: xr.DataArray) -> None:
        self.dims = [str(dim) for dim in response.dims]
        self.known = np.isfinite(response.values)
        self.y = response.values[self.known]
        where = np.nonzero(self.known)
        self.ids = {
            dim: response[dim].values[index] for dim, index in zip(self.dims, where, strict=True)
        }
        if "cluster_of" in panel.data.coords and "industry" in self.dims:
            self.ids["cluster"] = panel.data["cluster_of"].values[
                where[self.dims.index("industry")]
            ]

    def take(self, keep: np.ndarray) -> _Rows:
        taken = object.__new__(_Rows)
        taken.dims, taken.known, taken.y = self.dims, self.known, self.y[keep]
        taken.ids = {dim: ids[keep] for dim, ids in self.ids.items()}
        return taken


def _response(spec: ModelSpec, panel: Panel) -> tuple[xr.DataArray, str | None]:
    name = spec.parsed_formula.response
    if spec.growth is None:
        if len(panel.years) > 1:
            msg = f"formula: got a panel with years {listing(panel.years)} and no [growth] table; expected one."
            raise SpecError(msg)
        period = panel.years[0] if panel.years else None
        return panel.values(name, period).assign_attrs(unit=name, years=0), period
    wanted = spec.growth
    if not panel.years:
        msg = (
            f"panel: got neither a column 'year' nor {wanted.variable}_start and {wanted.variable}_end; "
            "expected one of the two for a model of growth."
        )
        raise PanelError(msg)
    start, end = panel.period(wanted.from_year), panel.period(wanted.to_year, end=True)
    change = growth(
        panel.values(wanted.variable, start),
        panel.values(wanted.variable, end),
        wanted.years,
        annualized=wanted.annualized,
    )
    return change, start


def _grid(
    spec: ModelSpec,
    panel: Panel,
    weights: Weights | None,
    linkages: Any,
    base: str | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Collect every variable of the formula on the whole panel, measures included."""
    formula, recorded = spec.parsed_formula, {}
    measures = [name for name in formula.variables if name in MEASURES]
    grid: dict[str, xr.DataArray] = {}
    if measures:
        assert spec.cells is not None  # the spec demands it with any measure
        variable = spec.growth.variable if spec.growth else "employment"
        if linkages is not None and not isinstance(linkages, xr.DataArray):
            linkages = read_linkages(linkages, _clusters(panel))
        if linkages is not None:
            recorded["linkages"] = dict(linkages.attrs)
        computed = compute_measures(
            panel,
            measures,
            variable,
            base,
            rule=CellRule(spec.cells.absent, spec.cells.withheld, spec.cells.fill),
            totals=spec.measures.totals,
            weights=weights,
            linkages=linkages,
            neighbor_leave_out=spec.measures.neighbor_leave_out,
        )
        grid |= {str(name): array for name, array in computed.items()}
    for name in formula.variables:
        if name in grid:
            continue
        if name not in panel.variables:
            known = (*panel.variables, *MEASURES)
            msg = f"formula: got no variable {name!r}; expected one of {listing(known, 20)}."
            raise SpecError(msg + suggestion(name, known))
        grid[name] = panel.values(name, base)
    dims = ["region", *([panel.unit] if panel.unit else [])]
    return {name: array.transpose(*dims).values for name, array in grid.items()}, recorded


def _base_size(spec: ModelSpec, panel: Panel, base: str | None) -> np.ndarray:
    """Return the base-year level behind each row: what size-dependent noise depends on."""
    name = spec.growth.variable if spec.growth else spec.parsed_formula.response
    return np.asarray(panel.values(name, base).values)


def _clusters(panel: Panel) -> list[str]:
    if "cluster" in panel.data.dims:
        return [str(label) for label in panel.data["cluster"].values]
    if "cluster_of" not in panel.data.coords:
        msg = "linkages: got a panel without clusters; expected a column 'cluster'."
        raise PanelError(msg)
    return sorted({str(label) for label in panel.data["cluster_of"].values} - {""})


def _sample(
    spec: ModelSpec, panel: Panel, rows: _Rows, grid: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, int]]:
    dropped: dict[str, int] = {}
    if spec.growth is not None:
        wanted, seen = spec.growth, ~rows.known
        start, end = panel.period(wanted.from_year), panel.period(wanted.to_year, end=True)
        for period, year in ((start, wanted.from_year), (end, wanted.to_year)):
            values = panel.values(wanted.variable, period).values
            for reason, lost in (
                ("not published", np.isnan(values)),
                ("zero", values == 0.0),
                ("negative", values < 0.0),
            ):
                dropped[f"{wanted.variable} {reason} in {year}"] = int((lost & seen).sum())
                seen = seen & ~lost
    else:
        dropped[f"{spec.parsed_formula.response} unknown"] = int((~rows.known).sum())
    if not rows.known.any():
        msg = "panel: got no row with a known response; expected some. Look at the dropped cells: "
        raise PanelError(msg + listing(f"{k}: {v}" for k, v in dropped.items()))
    candidates = {name: array[rows.known] for name, array in grid.items()}
    if not candidates:
        return np.ones(int(rows.known.sum()), dtype=bool), {k: v for k, v in dropped.items() if v}
    keep, reasons = sample_mask(spec.parsed_formula, candidates, dict(spec.zeros))
    if not keep.any():
        msg = f"sample: got no complete row; lost {listing(f'{v} to {k}' for k, v in reasons.items())}."
        raise PanelError(msg + " Relax the rule that loses most.")
    return keep, {k: v for k, v in (dropped | reasons).items() if v}


def _row_lag(spec: ModelSpec, rows: _Rows, weights: Weights | None) -> sparse.csr_array | None:
    """Lay W out over rows: one block per cluster, restandardized or taken as a subset."""
    uses_lag = any("lag(" in str(term) for term in spec.parsed_formula.terms)
    if not uses_lag or weights is None or "industry" in rows.dims:
        return None
    position = {region: i for i, region in enumerate(weights.regions)}
    region = np.array([position[r] for r in rows.ids["region"]])
    block = rows.ids.get("cluster", np.zeros(len(region), dtype=object))
    codes = pd.factorize(block)[0]
    order = np.argsort(codes, kind="stable")
    labels = codes[order]
    pieces = [
        weights.matrix[region[order[labels == k]]][:, region[order[labels == k]]]
        for k in range(labels.max() + 1)
    ]
    matrix = sparse.block_diag(pieces, format="csr")
    back = np.argsort(order)
    matrix = matrix[back][:, back]
    if weights.row_standardized and spec.spatial.blocks == "restandardize":
        total = np.asarray(matrix.sum(axis=1)).ravel()
        inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
        matrix = sparse.diags_array(inverse) @ matrix
    return sparse.csr_array(matrix)


def _columns(spec: ModelSpec, evaluator: Evaluator) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    labels, columns = {}, {}
    for term in spec.parsed_formula.terms:
        label, values = evaluator.term(term)
        labels[str(term)] = label
        columns[label] = values
    return labels, columns | evaluator.dummies


def _groups(
    spec: ModelSpec, rows: _Rows, columns: Mapping[str, np.ndarray], labels: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for group in spec.parsed_formula.groups:
        codes, levels = _levels(group, rows)
        if len(levels) == len(codes):
            msg = (
                f"(1 | {group.name}): got one row in each of its {len(levels)} levels; expected "
                "several in some, or its effect is the noise by another name. Remove the group."
            )
            raise SpecError(msg)
        if len(levels) < 2:
            msg = f"(1 | {group.name}): got a single level; expected two or more. Remove the group."
            raise SpecError(msg)
        positions = [-1] if group.intercept else []
        for slope in group.slopes:
            label = labels.get(str(slope))
            if label is None:
                msg = (
                    f"({slope} | {group.name}): got a slope that is not among the fixed terms; "
                    f"expected its mean to be in the model. Add + {slope}."
                )
                raise SpecError(msg)
            positions.append(list(columns).index(label))
        entries[group.name] = {
            "codes": codes,
            "levels": levels,
            "columns": positions,
            "labels": ["1" if p < 0 else list(columns)[p] for p in positions],
            "effect": spec.groups[group.name].effect if group.name in spec.groups else "random",
        }
    return entries


def _levels(group: FormulaGroup, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    absent = [dim for dim in group.factor if dim not in rows.ids]
    if absent:
        available = [dim for dim in DIMS if dim in rows.ids]
        msg = f"(1 | {group.name}): got rows without {listing(absent)}; expected among {listing(available)}."
        raise SpecError(msg)
    parts = [pd.factorize(rows.ids[dim].astype(object), sort=True) for dim in group.factor]
    joint, order = np.zeros(len(rows.y), dtype=np.int64), []
    for codes, labels in parts:
        joint = joint * len(labels) + codes
        order.append(labels)
    used, codes = np.unique(joint, return_inverse=True)
    names = np.unravel_index(used, [len(labels) for labels in order])
    levels = [" : ".join(str(labels[n]) for labels, n in zip(order, name, strict=True))
              for name in zip(*names, strict=True)]  # fmt: skip
    return codes.astype(np.int32), np.array(levels, dtype=object)


def _add_group_means(
    groups: Mapping[str, dict[str, Any]], columns: dict[str, np.ndarray]
) -> list[str]:
    """Add Mundlak's group means of the covariates for ``correlated`` groups, in place."""
    notes, originals = [], dict(columns)
    for name, entry in groups.items():
        if entry["effect"] != "correlated":
            continue
        for label, values in originals.items():
            if label.startswith("zero(") or _constant_within(values, entry["codes"]):
                continue
            counts = np.bincount(entry["codes"])
            mean = (np.bincount(entry["codes"], values) / counts)[entry["codes"]]
            others = np.column_stack([np.ones(len(values)), *columns.values()])
            fitted = others @ np.linalg.lstsq(others, mean, rcond=None)[0]
            if np.var(mean - fitted) <= _RANK * max(np.var(mean), np.finfo(float).tiny):
                notes.append(f"mean({label} | {name}) is a combination of other columns; left out")
                continue
            columns[f"mean({label} | {name})"] = mean
    return notes


def _constant_within(values: np.ndarray, codes: np.ndarray) -> bool:
    mean = np.bincount(codes, values) / np.bincount(codes)
    return bool(np.var(values - mean[codes]) <= _CONSTANT * np.var(values))


def _check_columns(
    X: np.ndarray, labels: list[str], groups: Mapping[str, dict[str, Any]], *, intercept: bool
) -> None:
    flat = [label for label, column in zip(labels, X.T, strict=True) if np.ptp(column) == 0.0]
    if flat:
        msg = f"formula: got columns that do not vary in the sample: {listing(flat)}. Remove them."
        raise SpecError(msg)
    if len(X) <= X.shape[1] + intercept:
        msg = f"sample: got {len(X)} rows for {X.shape[1] + intercept} coefficients; expected more rows."
        raise SpecError(msg)
    fixed = {name: entry for name, entry in groups.items() if entry["effect"] == "fixed"}
    for inner, outer in ((a, b) for a in fixed for b in fixed if a != b):
        if _constant_within(fixed[outer]["codes"].astype(np.float64), fixed[inner]["codes"]):
            msg = f"groups: got fixed effects for {inner!r} and for {outer!r}, in which it nests; drop {outer!r}."
            raise SpecError(msg)
    if not X.shape[1]:
        return
    left = within(X, [entry["codes"] for entry in fixed.values()])
    swallowed = left.var(axis=0) <= _CONSTANT * X.var(axis=0)
    if swallowed.any():
        names = [label for label, gone in zip(labels, swallowed, strict=True) if gone]
        msg = f"groups: got fixed effects ({listing(fixed)}) that absorb {listing(names)}; make one random."
        raise SpecError(msg)
    scaled = left / left.std(axis=0)
    _, singular, directions = np.linalg.svd(scaled, full_matrices=False)
    if singular[-1] <= _RANK * singular[0]:
        involved = [labels[i] for i in np.flatnonzero(np.abs(directions[-1]) > 0.05)]
        msg = f"formula: got collinear columns {listing(involved)}; expected none. Remove one."
        raise SpecError(msg)


def _record(
    spec: ModelSpec,
    panel: Panel,
    weights: Weights | None,
    groups: Mapping[str, dict[str, Any]],
    dropped: dict[str, int],
    base: str | None,
    measured: dict[str, Any],
    notes: list[str],
    X: np.ndarray,
    rows: _Rows,
    size: np.ndarray,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "panel": dict(panel.provenance),
        "rows": len(rows.y),
        "regions": len(set(rows.ids["region"])),
        "dropped": dropped,
        "notes": notes,
        **measured,
    }
    if spec.growth is not None:
        end = panel.period(spec.growth.to_year, end=True)
        cells = {
            str(year): panel.cell_counts(spec.growth.variable, period)
            for year, period in ((spec.growth.from_year, base), (spec.growth.to_year, end))
        }
        record["cells"] = cells
        published = float(np.nansum(panel.values(spec.growth.variable, base).values))
        record["share_of_base_in_sample"] = float(size.sum()) / published if published else None
    record["groups"] = {
        name: {
            "levels": len(entry["levels"]),
            "singletons": int((np.bincount(entry["codes"]) == 1).sum()),
            "effect": entry["effect"],
        }
        for name, entry in groups.items()
    }
    if X.shape[1] > 1:
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        singular = np.linalg.svd(scaled, compute_uv=False)
        record["condition_number"] = float(singular[0] / singular[-1])
        if record["condition_number"] > _ILL_CONDITIONED:
            notes.append(
                f"the covariates are nearly collinear (condition number "
                f"{record['condition_number']:.0f}): single coefficients are poorly determined"
            )
    if weights is not None:
        record["weights"] = weights.describe()
    for note in notes:
        _LOG.warning("design: %s", note)
    return record


def _sha256(*arrays: np.ndarray) -> str:
    """Digest arrays with their shapes; text goes in as JSON, so that no two lists collide."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        if array.dtype.kind in "OU":
            digest.update(json.dumps(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def _dummies(codes: np.ndarray) -> sparse.csr_array:
    n = len(codes)
    return sparse.csr_array((np.ones(n), (np.arange(n), codes)), shape=(n, int(codes.max()) + 1))
