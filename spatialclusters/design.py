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

from spatialclusters.blends import Combination
from spatialclusters.columns import (
    add_group_means,
    blended_columns,
    check_columns,
    constant_within,
    evaluate_terms,
    group_entries,
    within,
)
from spatialclusters.errors import FitError, SpecError, WeightsError, counted, expect, listing
from spatialclusters.expressions import Evaluator
from spatialclusters.lags import (
    BlendedLag,
    LevelGraph,
    RowLag,
    blended_lag,
    level_graph,
    row_lag,
)
from spatialclusters.panel import Panel
from spatialclusters.rows import Rows, choose_rows
from spatialclusters.spec import ModelSpec
from spatialclusters.weights import Weights, align

__all__ = [
    "Design",
    "GroupDesign",
    "absorbed_groups",
    "build_design",
    "expect_inputs",
    "period_note",
]

_ILL_CONDITIONED: Final = 30.0  # Belsley, Kuh and Welsch (1980)
_BLENDED_CELLS: Final = 1000  # most cells whose log determinant is dense
_GROUP_FIELDS: Final = ("effect", "columns", "labels", "structure", "links")
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
    structure: str = "iid"
    links: str = "symmetric"


@dataclass(frozen=True, eq=False)
class Design:
    """Response, covariates and group codes with labels on every axis.

    Attributes
    ----------
    data
        Dataset: ``y`` (obs), ``X`` (obs, term) in raw units and without the
        intercept, ``center`` (zeros without an intercept) and ``scale`` (term) for use inside the model,
        ``code_<group>`` (obs) with levels as coordinate ``<group>``,
        ``row_region``, ``row_industry``, ``row_cluster`` and ``size`` (obs)
        where they exist. If the model estimates W, ``X`` is that of the reference and
        ``X_blend`` (basis, obs, blended) holds the columns that depend on W at each of its
        matrices; attribute ``psi`` is their :class:`~spatialclusters.blends.Combination`.
        Attributes: ``response``, ``unit``, ``years``,
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
        """Covariates centered (if there is an intercept) and scaled, shape (obs, term)."""
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
                # fits made before structures have neither
                structure=entry.get("structure", "iid"),
                links=entry.get("links", "symmetric"),
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
        blend = [np.array([self.data.attrs["psi"]])] if "psi" in self.data.attrs else []
        blend += [self.data["X_blend"].values] if "X_blend" in self.data else []
        # classes of size that are stated (parameters.SIZE_GRID)
        grid = [np.asarray(self.data.attrs["size_grid"])] if "size_grid" in self.data.attrs else []
        intercept = np.array([self.intercept])
        return _sha256(self.y, self.X, size, intercept, labels, *codes, *blend, *grid)

    @cached_property
    def noise_guess(self) -> float:
        """Residual variance of least squares with every group intercept absorbed: a scale."""
        codes = [group.codes for group in self.groups if -1 in group.columns]
        y, X = within(self.y, codes), within(self.X, codes)
        residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0] if X.size else y
        used = 1 + X.shape[1] + sum(int(code.max()) for code in codes)
        # a floor on the degrees of freedom: with many singletons least squares fits too well
        return float(residual @ residual / max(self.n_rows - used, 0.2 * self.n_rows))

    @cached_property
    def psi(self) -> Combination | None:
        """How W depends on its parameter, if the model estimates it."""
        text = self.data.attrs.get("psi")
        return None if text is None else Combination.from_json(text)

    @cached_property
    def blended(self) -> tuple[int, ...]:
        """Positions of the covariates that depend on an estimated W."""
        labels = json.loads(self.data.attrs.get("blended", "[]"))
        return tuple(self.terms.index(label) for label in labels)

    def covariates(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """Return X at the parameter of W, (obs, term), in raw units.

        Raises
        ------
        FitError
            These are other rows than those of the fit, whose columns at every W are not known.
        """
        if self.psi is None or not self.blended:
            return self.X
        if "X_blend" not in self.data:
            msg = "prediction: got other rows, and weights that are estimated; expected the rows"
            raise FitError(f"{msg} of the fit. Predict with weights that are fixed.")
        c = self.psi.coefficients(np.asarray(parameters[self.psi.parameter], dtype=float))
        out = self.X.copy()
        out[:, list(self.blended)] = np.tensordot(c, self.data["X_blend"].values, 1)
        return out

    @cached_property
    def blended_lag(self) -> BlendedLag | None:
        """The lag of the rows by an estimated W, if the model has one."""
        if self.weights is None or self.psi is None:
            return None
        again = self.data.attrs["blocks"] == "restandardize"
        return blended_lag(self.weights, self._row_ids, restandardize=again)

    @cached_property
    def lag(self) -> RowLag | None:
        """The spatial lag of the rows, through the means of their regions or region-clusters.

        With an estimated W that of the reference.
        """
        if self.weights is None:
            return None
        return row_lag(
            self.weights, self._row_ids, restandardize=self.data.attrs.get("blocks") != "subset"
        )

    def graph(self, group: GroupDesign) -> LevelGraph:
        """Return which levels of a group of regions or region-clusters are neighbors.

        Raises
        ------
        WeightsError
            There are no weights, or they differ between directions.
        """
        where = f"groups.{group.name}.structure"
        if self.weights is None:
            msg = f"{where}: got no weights; expected some. Give regions, or weights."
            raise WeightsError(msg)
        _, first = np.unique(group.codes, return_index=True)
        ids = self._row_ids
        pieces = np.zeros(len(first), dtype=np.int64)
        if ":" in group.name:
            pieces = pd.factorize(ids["cluster"][first])[0]
        return level_graph(self.weights, ids["region"][first], pieces, group.links, where)

    @property
    def _row_ids(self) -> dict[str, np.ndarray]:
        names = [name for name in ("region", "cluster") if f"row_{name}" in self.data]
        return {name: self.data[f"row_{name}"].values for name in names}

    def label(self, formula_label: str) -> str:
        """Return the column's label for a term of the formula: zero rules rename logs."""
        return str(json.loads(self.data.attrs["labels"]).get(formula_label, formula_label))


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
    expect_inputs("build_design", spec, panel, weights)
    aligned = None if weights is None else align(weights, panel.regions)
    told = _isolation(spec, aligned)
    rows = choose_rows(spec, panel, aligned, linkages)
    evaluator = _evaluator(spec, rows, aligned)
    labels, columns = evaluate_terms(spec, evaluator)
    groups = group_entries(spec, rows, columns, labels)
    notes = told + add_group_means(groups, columns)
    psi, blended = _blend(spec, rows, evaluator, aligned, labels, groups, columns)
    notes += _blend_notes(spec, aligned, psi)
    X = np.column_stack(list(columns.values())) if columns else np.empty((len(rows.y), 0))
    check_columns(X, list(columns), groups, intercept=spec.parsed_formula.intercept)
    record = _record(spec, panel, rows, X, groups) | {"notes": notes + _collinearity(X)}
    period = period_note(spec, panel)
    if aligned is not None:
        record["weights"] = aligned.describe()
    if evaluator.lag is not None:
        lag = evaluator.lag
        record["blocks"] = {"isolates": lag.isolates, "components": int(lag.components.max()) + 1}
    for note in record["notes"]:
        _LOG.warning("design: %s", note)
    # no warnings: that of linkages has been given, and the other is true of any such table
    record["notes"] += [*(rows.linkages or {}).get("notes", ()), *([period] if period else [])]
    data = xr.Dataset(
        {
            "y": ("obs", rows.y),
            "X": (("obs", "term"), X),
            # through the origin, centering would be another model
            "center": ("term", X.mean(axis=0) * spec.parsed_formula.intercept),
            "scale": ("term", X.std(axis=0, ddof=1)),
            **{f"row_{dim}": ("obs", ids) for dim, ids in rows.ids.items()},
            **{f"code_{name}": ("obs", entry["codes"]) for name, entry in groups.items()},
        },
        coords={
            "term": np.array(list(columns), dtype=object),
            **{name: entry["levels"] for name, entry in groups.items()},
        },
        attrs={
            "response": spec.parsed_formula.response,
            "unit": rows.unit,
            "years": float(rows.years),
            "annualized": int(spec.growth is not None and spec.growth.annualized),
            "intercept": int(spec.parsed_formula.intercept),
            "blocks": spec.spatial.blocks,
            "groups": json.dumps({k: {f: v[f] for f in _GROUP_FIELDS} for k, v in groups.items()}),
            "labels": json.dumps(labels),
            "record": json.dumps(record),
        },
    )
    if spec.growth is not None:
        data["size"] = ("obs", rows.size)
    if psi is not None:
        data.attrs["psi"] = psi.to_json()
    if blended:
        stacked = np.stack(list(blended.values()), axis=-1)
        data["X_blend"] = (("basis", "obs", "blended"), stacked)
        data.attrs["blended"] = json.dumps(list(blended))
    design = Design(data, aligned)
    if evaluator.lag is not None:
        vars(design)["lag"] = evaluator.lag  # what the cached property would lay out again
    _check_space(spec, design)
    return design


def expect_inputs(function: str, spec: object, panel: object, weights: object) -> None:
    """Refuse what is no model, panel or weights, where a public function is entered.

    Raises
    ------
    SpecError, PanelError, WeightsError
        What came, what was expected, and how one is made.
    """
    where = f"{function}(spec, panel, weights)"
    expect(spec, ModelSpec, f"{where}, spec")
    expect(panel, Panel, f"{where}, panel")
    if weights is not None:
        expect(weights, Weights, f"{where}, weights")


def period_note(spec: ModelSpec, panel: Panel) -> str | None:
    """Say that only the model file knows the years, where the table tells but start and end."""
    if spec.growth is None or set(panel.years) != {"start", "end"} or panel.ends:
        return None
    return (
        f"the table says start and end, not which years: {spec.growth.from_year} to "
        f"{spec.growth.to_year} are those of the model file (growth.from, growth.to)"
    )


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
        swallowed = any(constant_within(column, group.codes) for column in columns)
        (left if swallowed else absorbed).append(group.name)
    return absorbed, left


def _evaluator(spec: ModelSpec, rows: Rows, weights: Weights | None) -> Evaluator:
    """Prepare the formula's variables and, where it is defined, the lag over rows."""
    uses_lag = any("lag(" in str(term) for term in spec.parsed_formula.terms)
    lag = None
    if (uses_lag or spec.spatial.parameters) and weights is not None:
        restandardize = spec.spatial.blocks == "restandardize"
        lag = row_lag(weights, rows.ids, restandardize=restandardize)
    return Evaluator(rows.variables, dict(spec.zeros), lag)


def _blend(
    spec: ModelSpec,
    rows: Rows,
    evaluator: Evaluator,
    weights: Weights | None,
    labels: Mapping[str, str],
    groups: Mapping[str, dict[str, Any]],
    columns: Mapping[str, np.ndarray],
) -> tuple[Combination | None, dict[str, np.ndarray]]:
    """Return how an estimated W depends on its parameter, and the columns that depend on it.

    Raises
    ------
    SpecError, WeightsError
        The model uses W in a way in which it cannot be estimated.
    """
    if weights is None or weights.blend is None:
        return None, {}
    if "lambda" in spec.spatial.parameters:
        msg = f"spatial.outcome: got {spec.spatial.outcome!r} with weights that are estimated;"
        raise SpecError(f"{msg} expected 'none' or 'sar'. Give weights that are fixed.")
    if evaluator.lag is None and spec.spatial.outcome == "none":
        return None, {}
    again = spec.spatial.blocks == "restandardize"
    lag = blended_lag(weights, rows.ids, restandardize=again)
    cells = len(lag.parts[0].counts)
    if spec.spatial.outcome != "none" and cells > _BLENDED_CELLS:
        msg = (
            f"spatial.outcome: got {spec.spatial.outcome!r} over {cells} regions or region-clusters "
            f"with weights that are estimated; expected at most {_BLENDED_CELLS}."
        )
        raise WeightsError(f"{msg} Choose outcome 'none' with lag() terms, or fixed weights.")
    parameter = lag.combination.parameter
    if parameter in columns:
        msg = f"formula: got the variable {parameter!r}, the name of the parameter of W; expected"
        raise SpecError(f"{msg} another name. Rename it.")
    evaluators = [Evaluator(rows.variables, dict(spec.zeros), part) for part in lag.parts]
    return lag.combination, blended_columns(spec, evaluators, labels, groups, columns)


def _blend_notes(spec: ModelSpec, weights: Weights | None, psi: Combination | None) -> list[str]:
    """Say where a model with estimated weights uses the reference matrix all the same."""
    if weights is None or weights.blend is None:
        return []
    notes = []
    if psi is None:
        notes.append(
            "the model has no lag that would estimate W: the reference matrix stands for it"
        )
    if any(name.startswith("neighbor_strength") for name in spec.parsed_formula.variables):
        notes.append("neighbor_strength is that of the reference matrix, not of the estimated W")
    structured = [name for name, group in spec.groups.items() if group.structure != "iid"]
    if structured:
        notes.append(
            f"effects of {listing(structured)}: neighbors are all pairs with a link in any of the "
            "matrices of W, which is not estimated there"
        )
    return notes


def _isolation(spec: ModelSpec, weights: Weights | None) -> list[str]:
    """Refuse weights without a link where the model needs some; note if most regions are alone.

    Raises
    ------
    WeightsError
        No region has a neighbor.
    """
    formula = spec.parsed_formula
    names = {"neighbor_strength"} & {*formula.variables}
    used = names or spec.spatial.outcome != "none" or "lag(" in str(formula)
    if weights is None or not used:
        return []
    alone, n = len(weights.isolates), len(weights.regions)
    if alone == n:
        found = "".join(f" {note}" for note in weights.notes)
        msg = f"weights {weights.kind}: got weights without a link: none of {counted(n, 'region')} has"
        raise WeightsError(f"{msg} a neighbor; expected some, as the model uses them.{found}")
    if 2 * alone <= n:
        return []
    return [f"weights {weights.kind}: {alone} of {counted(n, 'region')} have no neighbor"]


def _check_space(spec: ModelSpec, design: Design) -> None:
    """Refuse spatial parts of a model that lack what they need."""
    if spec.spatial.outcome != "none" and (design.lag is None or not design.lag.weights.nnz):
        got = "no weights" if design.lag is None else "weights without a link between rows"
        msg = f"spatial.outcome: got {spec.spatial.outcome!r} and {got}; expected neighbors."
        raise WeightsError(f"{msg} Give --weights or --regions, or choose outcome 'none'.")
    for group in design.groups:
        if group.structure != "iid":
            design.graph(group)


def _record(
    spec: ModelSpec, panel: Panel, rows: Rows, X: np.ndarray, groups: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write down what happened to cells and rows."""
    record: dict[str, Any] = {
        "panel": dict(panel.provenance),
        "rows": len(rows.y),
        "regions": len(set(rows.ids["region"])),
        "dropped": dict(rows.dropped),
        "groups": {
            name: {
                "levels": len(entry["levels"]),
                "singletons": int((np.bincount(entry["codes"]) == 1).sum()),
                "effect": entry["effect"],
                "structure": entry["structure"],
            }
            for name, entry in groups.items()
        },
    }
    if X.shape[1] > 1:
        record["condition_number"] = _condition_number(X)
    if rows.linkages is not None:
        record["linkages"] = dict(rows.linkages)
    if spec.growth is not None:
        growth = spec.growth
        ends = {growth.from_year: rows.base, growth.to_year: panel.period(growth.to_year, end=True)}
        record["cells"] = {
            str(year): panel.cell_counts(growth.variable, period) for year, period in ends.items()
        }
        record["withheld"] = {
            str(year): panel.withheld_amounts(growth.variable, period)
            for year, period in ends.items()
        }
        published = float(np.nansum(panel.values(growth.variable, rows.base).values))
        record["share_of_base_in_sample"] = float(rows.size.sum()) / published
    return record


def _condition_number(X: np.ndarray) -> float:
    singular = np.linalg.svd((X - X.mean(axis=0)) / X.std(axis=0), compute_uv=False)
    return float(singular[0] / singular[-1])


def _collinearity(X: np.ndarray) -> list[str]:
    number = _condition_number(X) if X.shape[1] > 1 else 1.0
    if number <= _ILL_CONDITIONED:
        return []
    return [
        f"the covariates are nearly collinear (condition number {number:.0f}): single "
        "coefficients are poorly determined"
    ]


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
