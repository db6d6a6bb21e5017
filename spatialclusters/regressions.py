"""Design -> regressions on its rows: pyfixest absorbs the groups, spreg pools the rows.

pyfixest runs any Python that stands in a formula, so it sees generated names only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from spatialclusters.columns import within
from spatialclusters.design import Design, GroupDesign, absorbed_groups
from spatialclusters.errors import FitError, listing
from spatialclusters.spatial_hac import SpatialKernel, kernel_sandwich
from spatialclusters.wald import CI_PROB, Coefficient, from_standardized

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec

__all__ = ["Absorption", "Regression", "absorb", "fixed_effects", "pooled", "row_codes"]

_COLLINEAR: Final = 1e-8  # share of a column's variance that must be left, as in designs
_DEMEANED: Final = 1e-9  # tolerance of the alternating projections; pyfixest's own is 1e-6
_EXPECTED_WARNINGS: Final = (  # each becomes a note, or concerns how pyfixest uses pandas
    ("The inplace keyword", DeprecationWarning),
    (r"\d+ singleton fixed effect", UserWarning),
    (r"\s*\d+ variables dropped due to multicollinearity", UserWarning),
)


@dataclass(frozen=True)
class Regression:
    """Coefficients; the same with Conley's errors, if asked for; what is worth knowing.

    ``errors`` says what those of the coefficients are, ``used`` how many rows there are without
    those that are alone in an absorbed group; ``ols`` is that of spreg for the pooled
    regression, for tests of its residuals. A regression that there is not has notes only.
    """

    coefficients: list[Coefficient]
    conley: list[Coefficient]
    notes: list[str]
    errors: str = ""
    used: int = 0
    ols: Any = None


@dataclass(frozen=True)
class Absorption:
    """Columns of the fixed-effects regression, absorbed groups, groups left out, and why."""

    columns: list[int]
    groups: list[GroupDesign]
    left_out: list[str]
    notes: list[str]


def absorb(design: Design, spec: ModelSpec | None) -> Absorption:
    """Choose columns and absorbed groups of the fixed-effects regression; name groups left out."""
    roles = [] if spec is None else [spec.roles.convergence, *spec.roles.specialization]
    reported = tuple(design.label(role) for role in roles if role) or tuple(
        term for term in design.terms if not term.startswith(("mean(", "zero("))
    )
    names, left = absorbed_groups(design, reported)
    notes = []
    for name in left:
        terms = [term for term in reported if name in absorbed_groups(design, (term,))[1]]
        notes.append(f"{name} is not absorbed: its fixed effects would absorb {listing(terms)}.")
    absorbed = {group.name: group for group in design.groups if group.name in names}
    for outer in names:
        inner = [name for name in absorbed if name != outer and _nests(absorbed, name, outer)]
        if inner:
            del absorbed[outer]
            notes.append(f"{outer} needs no fixed effects of its own: {inner[0]} nests in it.")
    means = _group_means(design, names)
    slopes = [f"{label} by {g.name}" for g in design.groups for label in g.labels if label != "1"]
    for what, items in (
        ("Absorbed fixed effects", list(absorbed)),
        ("Slopes by group, left out", slopes),
        ("Group means, left out as absorbed", means),
    ):
        notes += [f"{what}: {', '.join(items)}."] if items else []
    keep = [i for i, term in enumerate(design.terms) if term not in means]
    return Absorption(keep, list(absorbed.values()), left, notes)


def _nests(groups: dict[str, GroupDesign], inner: str, outer: str) -> bool:
    pairs = np.unique(np.column_stack([groups[inner].codes, groups[outer].codes]), axis=0)
    return len(pairs) == len(np.unique(groups[inner].codes))


def _group_means(design: Design, groups: Iterable[str]) -> list[str]:
    means = {f"mean({term} | {group})" for term in design.terms for group in groups}
    return [term for term in design.terms if term in means]


def row_codes(design: Design, name: str) -> np.ndarray:
    """Return the code of every row by row dims such as ``region`` or ``region:cluster``.

    Raises
    ------
    FitError
        The rows do not have them.
    """
    dims = name.split(":")
    known = [str(key)[4:] for key in design.data if str(key).startswith("row_")]
    if not set(dims) <= set(known):
        msg = f"cluster: got {name!r}; expected one of {listing(known)} or several joined by ':'."
        raise FitError(msg + " Choose what the rows have.")
    labels = pd.DataFrame({dim: design.data[f"row_{dim}"].values for dim in dims})
    return labels.groupby(dims, sort=False).ngroup().to_numpy()


def fixed_effects(
    design: Design, plan: Absorption, by: str, kernel: SpatialKernel | None = None
) -> Regression:
    """Run pyfixest on covariates in standard deviations, under generated names."""
    groups, codes = plan.groups, row_codes(design, by)
    if not groups or not plan.columns:
        lacks = "covariate" if groups else "group to absorb"
        return Regression([], [], [f"No fixed-effects regression: the model has no {lacks}."])
    names = {f"x{i}": column for i, column in enumerate(plan.columns)}
    table = {"y": design.y, **{name: design.standardized[:, i] for name, i in names.items()}}
    table |= {f"f{i}": group.codes for i, group in enumerate(groups)} | {"c0": codes}
    formula = f"y ~ {' + '.join(names)} | {' + '.join(f'f{i}' for i in range(len(groups)))}"
    n, count = design.n_rows, len(np.unique(codes))
    clustered = 1 < count < n
    result, used = _feols(formula, pd.DataFrame(table), {"CRV1": "c0"} if clustered else "HC1")
    if result is None:
        text = "No fixed-effects regression: its fixed effects absorb every covariate."
        return Regression([], [], [text])
    kind = f"clustered by {by}" if clustered else "robust to heteroskedasticity (HC1)"
    notes = [f"Errors of the fixed-effects regression are {kind}: {count} clusters, {n} rows."]
    if used < n:
        notes.append(f"It uses {used} rows: {n - used} singletons say nothing about its slopes.")
    gone = [design.terms[i] for name, i in names.items() if name not in result.index]
    if gone:
        notes.append(f"Left out as collinear with columns or fixed effects: {listing(gone)}.")
    at = [names[name] for name in result.index]
    found, errors = _raw(design, at, result), kind if clustered else "robust (HC1)"
    if kernel is None:
        return Regression(found, [], notes, errors, used)
    frame = pd.DataFrame(table | {"c0": row_codes(design, "region")})
    by_region, _ = _feols(formula, frame, {"CRV1": "c0"})
    assert by_region is not None  # as above
    absorbed = [group.codes for group in groups]
    X = within(design.standardized[:, at], absorbed)
    residuals = within(design.y, absorbed) - X @ by_region["b"].to_numpy()
    V, own = _sandwiches(design, X, residuals, kernel)
    # pyfixest's errors clustered by region, widened by what the kernel adds to their sandwich
    widened = by_region.assign(se=by_region["se"] * _root(V.diagonal() / own.diagonal()))
    return Regression(found, _raw(design, at, widened), notes, errors, used)


def _raw(design: Design, at: list[int], found: pd.DataFrame) -> list[Coefficient]:
    scale = design.data["scale"].values[at]
    rows = zip(at, scale, found.itertuples(index=False), strict=True)
    return [Coefficient(design.terms[i], b / s, se / s, t) for i, s, (b, se, t) in rows]


def _root(variances: np.ndarray) -> np.ndarray:
    """Return square roots, NaN where a kernel made a variance negative."""
    return np.sqrt(np.where(variances > 0.0, variances, np.nan))


def _sandwiches(
    design: Design, X: np.ndarray, residuals: np.ndarray, kernel: SpatialKernel
) -> tuple[np.ndarray, np.ndarray]:
    """Return Conley's covariance and that clustered by region, both without corrections."""
    codes, regions = pd.factorize(design.data["row_region"].values)
    bread, scores = np.linalg.inv(X.T @ X), X * residuals[:, None]
    K, _ = kernel.between(list(map(str, regions)))
    identity = np.eye(len(regions))
    return kernel_sandwich(bread, scores, codes, K), kernel_sandwich(bread, scores, codes, identity)


def _feols(formula: str, table: pd.DataFrame, vcov: Any) -> tuple[pd.DataFrame | None, int]:
    """Return coefficients, errors and t quantiles by name, and the number of rows used."""
    import pyfixest

    with warnings.catch_warnings():
        for message, category in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        demeaner, tolerance = pyfixest.MapDemeaner(fixef_tol=_DEMEANED), _COLLINEAR * len(table)
        try:
            fit = pyfixest.feols(formula, table, vcov=vcov, collin_tol=tolerance, demeaner=demeaner)
        except ValueError as cause:
            if "All variables are collinear" not in str(cause):
                raise
            return None, 0
        b, se, high = fit.coef(), fit.se(), fit.confint(alpha=1.0 - CI_PROB).iloc[:, 1]
        return pd.DataFrame({"b": b, "se": se, "t": (high - b) / se}), len(fit.resid())


def pooled(design: Design, kernel: SpatialKernel | None = None) -> Regression:
    """Run spreg on standardized columns, whose cross product is well conditioned, and map back."""
    from spreg import BaseOLS

    means = _group_means(design, [group.name for group in design.groups])
    keep = [i for i, term in enumerate(design.terms) if term not in means]
    if not (design.intercept or keep):
        return Regression([], [], [], "homoskedastic", design.n_rows)
    center, scale = (design.data[name].values[keep] for name in ("center", "scale"))
    constant = np.ones((design.n_rows, int(design.intercept)))
    columns = (design.X[:, keep] - center * design.intercept) / scale
    ols = BaseOLS(design.y[:, None], np.hstack([constant, columns]))
    terms, back = from_standardized(
        [design.terms[i] for i in keep], center, scale, intercept=design.intercept
    )

    def named(V: np.ndarray, freedom: int) -> list[Coefficient]:
        b, errors = back @ ols.betas.ravel(), _root((back @ V @ back.T).diagonal())
        critical = float(stats.t.ppf(0.5 + CI_PROB / 2.0, freedom))
        return [Coefficient(*each, critical) for each in zip(terms, b, errors, strict=True)]

    found, notes = named(ols.vm, ols.n - ols.k), ["OLS pools all rows and has no group effects."]
    sample = ("homoskedastic", ols.n, ols)
    if kernel is None:
        return Regression(found, [], notes, *sample)
    V = _sandwiches(design, ols.x, ols.u.ravel(), kernel)[0]
    count = len(np.unique(design.data["row_region"].values))
    factor = count / (count - 1) * (ols.n - 1) / (ols.n - ols.k)
    return Regression(found, named(factor * V, count - 1), notes, *sample)
