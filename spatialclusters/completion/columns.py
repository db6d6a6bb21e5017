"""The covariates as functions of the base year's cells: the same numbers as a design's, in JAX.

:mod:`spatialclusters.measures` and :mod:`spatialclusters.expressions` define the columns; here
they become differentiable, on a sample whose rows do not change. Tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.design import Design
from spatialclusters.formula import Expression, Variable
from spatialclusters.lags import row_lag
from spatialclusters.measures import MEASURES
from spatialclusters.panel import Panel
from spatialclusters.rows import Rows
from spatialclusters.spec import ModelSpec

__all__ = ["Columns", "make_columns", "row_places"]


@dataclass(frozen=True, eq=False)
class Columns:
    """Covariates of fixed rows at any base year's employment.

    Attributes
    ----------
    rows
        Region and unit of every row, (2, N).
    terms
        Labels, as in the design.
    evaluate
        Employment (region, unit) to covariates in raw units, (N, term).
    """

    rows: np.ndarray
    terms: tuple[str, ...]
    evaluate: Callable[[Any], Any]


def make_columns(
    spec: ModelSpec, panel: Panel, rows: Rows, design: Design, linkages: xr.DataArray | None
) -> Columns:
    """Write the covariates of a design down as a function of the base year's employment.

    Parameters
    ----------
    panel, rows, design
        Of the same sample; the panel's cells matter by their place only.
    linkages
        Weights between the panel's clusters, if the model uses them.
    """
    jax.config.update("jax_enable_x64", True)
    at = np.array(row_places(panel, rows))
    measures = _measures(spec, panel, design, linkages, rows.base)
    names = spec.parsed_formula.variables
    own = spec.growth.variable if spec.growth else "employment"
    constant = {n: jnp.asarray(rows.variables[n]) for n in names if n not in MEASURES and n != own}
    terms = _Terms(spec, design, _lag(spec, rows, design))

    def evaluate(employment: Any) -> Any:
        given = dict(constant)
        for name in names:
            if name == own:
                given[name] = employment[at[0], at[1]]
            elif name in MEASURES:
                given[name] = measures(name, employment)[at[0], at[1]]
        return terms.columns(given)

    return Columns(at, design.terms, evaluate)


def row_places(panel: Panel, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the rows' regions and units in the panel, (N,) each."""
    region, unit = (
        pd.Index(panel.data[dim].values).get_indexer(rows.ids[dim])
        for dim in ("region", str(panel.unit))
    )
    return region, unit


def _lag(spec: ModelSpec, rows: Rows, design: Design) -> Callable[[Any], Any] | None:
    """Return the lag over rows as sums over the entries of its matrix."""
    if design.weights is None or not any("lag(" in str(t) for t in spec.parsed_formula.terms):
        return None
    restandardize = spec.spatial.blocks == "restandardize"
    matrix = row_lag(design.weights, rows.ids, restandardize=restandardize).matrix.tocoo()
    weight, (row, column) = jnp.asarray(matrix.data), matrix.coords
    return lambda x: jnp.zeros(len(rows.y)).at[row].add(weight * x[column])


@dataclass(frozen=True, eq=False)
class _Terms:
    """The formula's terms, zero dummies and group means, by the labels of the design."""

    spec: ModelSpec
    design: Design
    lag: Callable[[Any], Any] | None

    def columns(self, given: Mapping[str, Any]) -> Any:
        found = {}
        for term in self.spec.parsed_formula.terms:
            parts = [self._value(factor, given) for factor in term.factors]
            label = ":".join(label for label, _ in parts)
            found[label] = jnp.prod(jnp.stack([values for _, values in parts]), axis=0)
        fixed = dict(zip(self.design.terms, self.design.X.T, strict=True))
        for group in self.design.groups:
            counts = np.bincount(group.codes, minlength=len(group.levels))
            for label, values in list(found.items()):
                if (mean := f"mean({label} | {group.name})") in fixed:
                    sums = jnp.zeros(len(group.levels)).at[group.codes].add(values)
                    found[mean] = (sums / counts)[group.codes]
        # which values are zero does not depend on the unknown cells, which are positive
        dummies = {n: jnp.asarray(x) for n, x in fixed.items() if n.startswith("zero(")}
        return jnp.stack([(found | dummies)[label] for label in self.design.terms], axis=-1)

    def _value(self, node: Expression, given: Mapping[str, Any]) -> tuple[str, Any]:
        if isinstance(node, Variable):
            return node.name, given[node.name]
        inner, x = self._value(node.argument, given)
        function = node.function
        if function == "log":
            rule = self.spec.zeros.get(inner)
            function = rule if rule in ("asinh", "log1p") else "log"
        label = f"{function}({inner})"
        match function:
            case "log":
                return label, _log(x)
            case "lag":
                assert self.lag is not None  # the design could not have been built
                return label, self.lag(x)
            case "center":
                return label, x - x.mean()
            case "log1p":
                return label, jnp.log1p(x)
        return label, jnp.arcsinh(x)


def _log(x: Any) -> Any:
    """Take the log, at zeros that of the smallest positive value (they have a dummy)."""
    zero = x <= 0.0
    smallest = jnp.where(zero, jnp.inf, x).min()
    return jnp.log(jnp.where(zero, smallest, x))


def _measures(
    spec: ModelSpec,
    panel: Panel,
    design: Design,
    linkages: xr.DataArray | None,
    base: str | None,
) -> Callable[[str, Any], Any]:
    """Return the measures of strength over (region, unit); 0 where they are not defined."""
    industries = panel.unit == "industry"
    labels = panel.data["cluster_of" if industries else "cluster"].values.astype(object)
    codes, clusters = pd.factorize(pd.Series(labels).replace("", None), sort=True)
    member = codes >= 0
    scope: Any = np.ones(len(codes))
    if spec.measures.totals == "traded":
        scope = (panel.values("traded", base).max("region") > 0.0).values.astype(float)
    weights = None if design.weights is None else design.weights.matrix.tocoo()
    links = None
    if linkages is not None:
        matrix = linkages.sel(cluster=clusters, linked_cluster=clusters).values
        total = matrix.sum(axis=1, keepdims=True)
        links = np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0.0)

    def sums(e: Any) -> Any:
        inside = jnp.where(member, e, 0.0)
        return jnp.zeros((e.shape[0], len(clusters))).at[:, codes].add(inside)

    def quotient(part: Any, e: Any) -> Any:
        counted = e * scope
        share = _ratio(part, counted.sum(axis=1, keepdims=True))
        return _ratio(share, _ratio(part.sum(axis=0), counted.sum()))

    def rest(e: Any) -> Any:
        return sums(e)[:, codes] - e

    def strength(e: Any) -> Any:
        return quotient(rest(e), e)

    def level(e: Any) -> Any:
        return quotient(sums(e), e)

    def neighbor(e: Any) -> Any:
        assert weights is not None  # the design could not have been built
        leave_out = spec.measures.neighbor_leave_out and industries
        x = strength(e) if leave_out else level(e)[:, codes]
        row, column = weights.coords
        return jnp.zeros_like(x).at[row].add(weights.data[:, None] * x[column])

    def measure(name: str, e: Any) -> Any:
        match name:
            case "location_quotient" | "industry_strength":
                return quotient(e, e)
            case "cluster_strength":
                return strength(e)
            case "cluster_level":
                return level(e)[:, codes]
            case "linked_strength":
                assert links is not None  # the design could not have been built
                return (level(e) @ links.T)[:, codes]
            case "neighbor_strength":
                return neighbor(e)
        assert name == "rest_of_cluster"
        return rest(e)

    return measure


def _ratio(above: Any, below: Any) -> Any:
    """Divide, and give 0 where the denominator is: rows with such a value are not in the sample."""
    empty = below == 0.0
    return jnp.where(empty, 0.0, above / jnp.where(empty, 1.0, below))
