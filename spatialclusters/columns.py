"""Columns and group codes of the sample, checked before anything is estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import sparse

from spatialclusters.errors import SpecError, listing
from spatialclusters.expressions import Evaluator, lags_once
from spatialclusters.formula import DIMS, Group
from spatialclusters.rows import Rows
from spatialclusters.spec import GroupEffect, ModelSpec

__all__ = [
    "add_group_means",
    "blended_columns",
    "check_columns",
    "constant_within",
    "evaluate_terms",
    "group_entries",
    "is_constant",
    "within",
]

_LARGEST: Final = 1e100  # size of a column whose variance is still a number
_ROUNDING: Final = 1e-12  # relative to the largest value: what varies by less is rounding
_CONSTANT: Final = 1e-10  # relative variance below which a column counts as constant
_RANK: Final = 1e-8  # share of a group mean's variance below which it says nothing new
# relative singular value below which columns count as collinear: cross products square it, and at
# 1e-8 posterior standard deviations would come out a third too small
_COLLINEAR: Final = 1e-7


def evaluate_terms(
    spec: ModelSpec, evaluator: Evaluator
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the label of each term's column, and the columns with the zero dummies."""
    labels, columns = {}, {}
    for term in spec.parsed_formula.terms:
        label, values = evaluator.term(term)
        labels[str(term)] = label
        columns[label] = values
    return labels, columns | evaluator.dummies


def group_entries(
    spec: ModelSpec, rows: Rows, columns: Mapping[str, np.ndarray], labels: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return codes, levels, columns and effect of every group of the formula.

    Raises
    ------
    SpecError
        A group without spatial structure has one row in each level, or a group has a single
        level, or a slope whose mean is not among the fixed terms.
    """
    entries: dict[str, dict[str, Any]] = {}
    for group in spec.parsed_formula.groups:
        codes, levels = _levels(group, rows)
        chosen = spec.groups.get(group.name, GroupEffect())
        if len(levels) == len(codes) and chosen.structure == "iid":
            msg = (
                f"(1 | {group.name}): got one row in each of its {len(levels)} levels; expected "
                "several in some, or its effect is the noise by another name. Remove the group"
                + (", or give its effects a structure." if "region" in group.factor else ".")
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
            "effect": chosen.effect,
            "structure": chosen.structure,
            "links": chosen.links,
        }
    return entries


def _levels(group: Group, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
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


def add_group_means(
    groups: Mapping[str, dict[str, Any]], columns: dict[str, np.ndarray]
) -> list[str]:
    """Add Mundlak's group means of the covariates for ``correlated`` groups, in place."""
    notes, originals = [], dict(columns)
    for name, entry in groups.items():
        if entry["effect"] != "correlated":
            continue
        for label, values in originals.items():
            if label.startswith("zero(") or constant_within(values, entry["codes"]):
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


def blended_columns(
    spec: ModelSpec,
    evaluators: Sequence[Evaluator],
    labels: Mapping[str, str],
    groups: Mapping[str, dict[str, Any]],
    columns: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the columns that are linear in an estimated W at each of its K matrices, (K, obs).

    ``evaluators`` lag by one matrix each. Group means of lags are among the columns.

    Raises
    ------
    SpecError
        A lag is not linear in W, or its slope varies by group.
    """
    found = {}
    for term in filter(lags_once, spec.parsed_formula.terms):
        found[labels[str(term)]] = np.stack([each.term(term)[1] for each in evaluators])
    for name, entry in groups.items():
        if slopes := [label for label in entry["labels"] if label in found]:
            msg = (
                f"({slopes[0]} | {name}): got a slope of a lag with weights that are estimated; "
                "expected such slopes to be the same for all."
            )
            raise SpecError(f"{msg} Remove it from the group, or give weights that are fixed.")
    for label, values in list(found.items()):
        for name, entry in groups.items():
            if (mean := f"mean({label} | {name})") in columns:
                codes, counts = entry["codes"], np.bincount(entry["codes"])
                found[mean] = np.stack([(np.bincount(codes, v) / counts)[codes] for v in values])
    return found


def is_constant(values: np.ndarray) -> bool:
    """Whether values are equal, but for what rounding does to them.

    Examples
    --------
    >>> is_constant(np.array([0.1 + 0.2, 0.3])), is_constant(np.array([1e9, 1e9 + 1.0]))
    (True, False)
    """
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def constant_within(values: np.ndarray, codes: np.ndarray) -> bool:
    """Whether a column does not vary inside the levels of a factor."""
    mean = np.bincount(codes, values) / np.bincount(codes)
    return bool(np.var(values - mean[codes]) <= _CONSTANT * np.var(values))


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


def check_columns(
    X: np.ndarray, labels: list[str], groups: Mapping[str, dict[str, Any]], *, intercept: bool
) -> None:
    """Refuse columns that do not vary, are collinear, or that fixed effects absorb.

    Raises
    ------
    SpecError
        Naming the columns and what to do.
    """
    size = np.abs(X).max(axis=0)
    beyond = ~(size < _LARGEST) | ((size > 0) & (size < 1 / _LARGEST))
    if beyond.any():
        names = [label for label, wrong in zip(labels, beyond, strict=True) if wrong]
        msg = (
            f"formula: got columns of a size of {listing(f'{s:.3g}' for s in size[beyond])}: "
            f"{listing(names)}; expected 0, or 1e-100 to 1e100. Change units of the variables."
        )
        raise SpecError(msg)
    flat = [label for label, column in zip(labels, X.T, strict=True) if is_constant(column)]
    if flat:
        msg = f"formula: got columns that do not vary in the sample: {listing(flat)}. Remove them."
        raise SpecError(msg)
    if len(X) <= X.shape[1] + intercept:
        msg = f"sample: got {len(X)} rows for {X.shape[1] + intercept} coefficients; expected more rows."
        raise SpecError(msg)
    fixed = {name: entry for name, entry in groups.items() if entry["effect"] == "fixed"}
    for inner, outer in ((a, b) for a in fixed for b in fixed if a != b):
        if constant_within(fixed[outer]["codes"].astype(np.float64), fixed[inner]["codes"]):
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
    if singular[-1] <= _COLLINEAR * singular[0]:
        involved = [labels[i] for i in np.flatnonzero(np.abs(directions[-1]) > 0.05)]
        msg = f"formula: got collinear columns {listing(involved)}; expected none. Remove one."
        raise SpecError(msg)


def _dummies(codes: np.ndarray) -> sparse.csr_array:
    n = len(codes)
    return sparse.csr_array((np.ones(n), (np.arange(n), codes)), shape=(n, int(codes.max()) + 1))
