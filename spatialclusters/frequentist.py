"""Design -> the frequentist answers on the same rows: fixed effects and pooled OLS.

pyfixest runs any Python that stands in a formula, so it sees generated names only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from spatialclusters.design import Design, GroupDesign, absorbed_groups
from spatialclusters.effects import annual_points, half_life, speed
from spatialclusters.errors import FitError, listing
from spatialclusters.estimates import estimates_frame
from spatialclusters.lags import block_weights
from spatialclusters.result import Fit
from spatialclusters.weights import align

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec

__all__ = ["Frequentist", "fit_frequentist"]

CI_PROB: Final = 0.95
_COLLINEAR: Final = 1e-8  # share of a column's variance that must be left, as in designs
_DEMEANED: Final = 1e-9  # tolerance of the alternating projections; pyfixest's own is 1e-6
_EXPECTED_WARNINGS: Final = (  # each becomes a note, or concerns how pyfixest uses pandas
    ("The inplace keyword", DeprecationWarning),
    (r"\d+ singleton fixed effect", UserWarning),
    (r"\s*\d+ variables dropped due to multicollinearity", UserWarning),
)


@dataclass(frozen=True, eq=False)
class Frequentist:
    """Frequentist estimates on the rows of a design.

    Attributes
    ----------
    estimates
        Tidy frame; ``estimator`` is ``"fixed effects"`` or ``"OLS"``.
    notes
        What was absorbed, dropped or left out, in sentences.
    rows_digest, response, unit
        What a comparison must agree on.
    n_rows, n_regions
        Rows and regions of the design.
    rows_used, errors
        By estimator: rows without those that are alone in an absorbed group, and what its
        standard errors are.
    moran
        ``statistic, expected, z, p_value`` of Moran's I of the OLS residuals, or None.
    absorbed, implied, left_out
        Groups whose fixed effects were absorbed, those whose effects are sums of these, and
        those that would absorb a term.
    weights, weights_digest
        Kind of W and its digest, or None.
    """

    estimates: pd.DataFrame
    notes: tuple[str, ...]
    rows_digest: str
    n_rows: int
    n_regions: int
    rows_used: Mapping[str, int]
    errors: Mapping[str, str]
    moran: dict[str, float] | None
    response: str
    unit: str
    absorbed: tuple[str, ...]
    implied: tuple[str, ...]
    left_out: tuple[str, ...]
    weights: str | None
    weights_digest: str | None


@dataclass(frozen=True)
class _Coefficient:
    """A coefficient in raw units, and the t quantile of its interval."""

    term: str
    estimate: float
    std_error: float
    critical: float

    def interval(self, factor: float = 1.0) -> dict[str, Any]:
        b, se = self.estimate * factor, self.std_error * abs(factor)
        reach = self.critical * se
        return {"estimate": b, "std_error": se, "ci_low": b - reach, "ci_high": b + reach}


class _Within(NamedTuple):
    """The fixed-effects regression, empty if there is none."""

    found: list[_Coefficient]
    notes: list[str]
    errors: str = ""
    used: int = 0


def fit_frequentist(
    source: Fit | Design, *, spec: ModelSpec | None = None, cluster: str | None = None
) -> Frequentist:
    r"""Estimate the same equation by fixed effects and by pooled OLS.

    With group dummies D, ``fixed effects`` is :math:`y = X b + D a + e`. Group intercepts
    are absorbed, except those that would absorb a term of the roles (without roles, any
    covariate); slopes by group and group means of absorbed groups are left out. With
    :math:`\tilde X` what is left of X, and K without effects nested in clusters, its
    clustered errors (CRV1) and t quantiles with G - 1 degrees of freedom come from

    .. math:: V = \tfrac{G}{G-1} \tfrac{N-1}{N-K} (\tilde X'\tilde X)^{-1}
              \Big(\sum_g \tilde X_g' e_g e_g' \tilde X_g\Big) (\tilde X'\tilde X)^{-1}.

    ``OLS`` has no groups, no group means, and homoskedastic errors.

    Parameters
    ----------
    source
        A fit, or a design.
    spec
        The model, for its name and roles; by default that of the fit.
    cluster
        Row dims by which errors are clustered, by default ``"region"``, or such as
        ``"region:cluster"``. With fewer than two clusters, or as many as rows, errors
        are robust to heteroskedasticity (HC1).

    Returns
    -------
    Frequentist
        Coefficients in units of the response per raw unit of the term; ``intercept`` is
        the expected response at the covariates' means, as in a fit. For the roles also
        change, speed and half-life (delta method) and effects per SD.

    Raises
    ------
    FitError
        ``cluster`` names what rows do not have.

    References
    ----------
    Cameron and Miller (2015), doi:10.3368/jhr.50.2.317. Cliff and Ord (1981), Spatial
    Processes, p. 201.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2, 2.5, 4], "x": [0.0, 1, 2, 3]})
    >>> design = build_design(parse_spec('formula = "y ~ x"'), read_panel(table))
    >>> fit_frequentist(design).estimates.query("term == 'x'")["estimate"].round(6).item()
    0.95
    """
    design = source.design if isinstance(source, Fit) else source
    spec = source.spec if spec is None and isinstance(source, Fit) else spec
    codes = _clusters(design, cluster or "region")
    columns, groups, left, notes = _plan(design, spec)
    within = _fixed_effects(design, columns, groups, codes, cluster or "region")
    pooled, ols = _pooled(design)
    moran, moran_note = _moran(design, ols)
    found = [("fixed effects", c) for c in within.found] + [("OLS", c) for c in pooled]
    absorbed = [group.name for group in groups] if within.found else []
    intercepts = [group.name for group in design.groups if -1 in group.columns]
    return Frequentist(
        estimates=estimates_frame(row for pair in found for row in _rows(design, spec, *pair)),
        notes=(
            *notes,
            *_reference(design),
            *within.notes,
            "OLS pools all rows and has no group effects.",
            moran_note,
        ),
        rows_digest=design.rows_digest,
        n_rows=design.n_rows,
        n_regions=int(design.record["regions"]),
        rows_used={"fixed effects": within.used, "OLS": design.n_rows},
        errors={"fixed effects": within.errors, "OLS": "homoskedastic"},
        moran=moran,
        response=str(design.data.attrs["response"]),
        unit=str(design.data.attrs["unit"]),
        absorbed=tuple(absorbed),
        implied=tuple(n for n in intercepts if absorbed and n not in (*absorbed, *left)),
        left_out=tuple(left),
        weights=design.weights.kind if design.weights else None,
        weights_digest=design.weights.digest if design.weights else None,
    )


def _reference(design: Design) -> list[str]:
    """Say which W stands in for one that only the posterior estimates."""
    if design.psi is None:
        return []
    what = "equal shares" if design.psi.parameter == "share" else "the middle of delta's range"
    return [f"Lags are those of the reference W ({what}): W is estimated by the posterior only."]


def _plan(
    design: Design, spec: ModelSpec | None
) -> tuple[list[int], list[GroupDesign], list[str], list[str]]:
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
    return keep, list(absorbed.values()), left, notes


def _nests(groups: dict[str, GroupDesign], inner: str, outer: str) -> bool:
    pairs = np.unique(np.column_stack([groups[inner].codes, groups[outer].codes]), axis=0)
    return len(pairs) == len(np.unique(groups[inner].codes))


def _group_means(design: Design, groups: Iterable[str]) -> list[str]:
    means = {f"mean({term} | {group})" for term in design.terms for group in groups}
    return [term for term in design.terms if term in means]


def _clusters(design: Design, name: str) -> np.ndarray:
    dims = name.split(":")
    known = [str(key)[4:] for key in design.data if str(key).startswith("row_")]
    if not set(dims) <= set(known):
        msg = f"cluster: got {name!r}; expected one of {listing(known)} or several joined by ':'."
        raise FitError(msg + " Choose what the rows have.")
    labels = pd.DataFrame({dim: design.data[f"row_{dim}"].values for dim in dims})
    return labels.groupby(dims, sort=False).ngroup().to_numpy()


def _fixed_effects(
    design: Design, columns: list[int], groups: list[GroupDesign], codes: np.ndarray, by: str
) -> _Within:
    """Run pyfixest on covariates in standard deviations, under generated names."""
    if not groups or not columns:
        lacks = "covariate" if groups else "group to absorb"
        return _Within([], [f"No fixed-effects regression: the model has no {lacks}."])
    names = {f"x{i}": column for i, column in enumerate(columns)}
    table = {"y": design.y, **{name: design.standardized[:, i] for name, i in names.items()}}
    table |= {f"f{i}": group.codes for i, group in enumerate(groups)} | {"c0": codes}
    formula = f"y ~ {' + '.join(names)} | {' + '.join(f'f{i}' for i in range(len(groups)))}"
    n, count = design.n_rows, len(np.unique(codes))
    clustered = 1 < count < n
    result, used = _feols(formula, pd.DataFrame(table), {"CRV1": "c0"} if clustered else "HC1")
    if result is None:
        notes = ["No fixed-effects regression: its fixed effects absorb every covariate."]
        return _Within([], notes)
    found = []
    for name, b, se, critical in result.itertuples():
        i, scale = names[name], float(design.data["scale"].values[names[name]])
        found.append(_Coefficient(design.terms[i], b / scale, se / scale, critical))
    kind = f"clustered by {by}" if clustered else "robust to heteroskedasticity (HC1)"
    notes = [f"Errors of the fixed-effects regression are {kind}: {count} clusters, {n} rows."]
    if used < n:
        notes.append(f"It uses {used} rows: {n - used} singletons say nothing about its slopes.")
    gone = [design.terms[i] for name, i in names.items() if name not in result.index]
    if gone:
        notes.append(f"Left out as collinear with columns or fixed effects: {listing(gone)}.")
    return _Within(found, notes, kind if clustered else "robust (HC1)", used)


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


def _pooled(design: Design) -> tuple[list[_Coefficient], Any]:
    """Run spreg on standardized columns, whose cross product is well conditioned, and map back."""
    from scipy import stats
    from spreg import BaseOLS

    means = _group_means(design, [group.name for group in design.groups])
    keep = [i for i, term in enumerate(design.terms) if term not in means]
    if not (design.intercept or keep):
        return [], None
    center, scale = (design.data[name].values[keep] for name in ("center", "scale"))
    constant = np.ones((design.n_rows, int(design.intercept)))
    columns = (design.X[:, keep] - center * design.intercept) / scale
    ols = BaseOLS(design.y[:, None], np.hstack([constant, columns]))
    back = np.diag([*constant[0], *(1.0 / scale)])
    terms = ["intercept"] * design.intercept + [design.terms[i] for i in keep]
    if design.intercept and keep:
        back = np.vstack([back, [1.0, *(-center / scale)]])
        terms.append("intercept at zero")
    b, errors = back @ ols.betas.ravel(), np.sqrt((back @ ols.vm @ back.T).diagonal())
    critical = float(stats.t.ppf(0.5 + CI_PROB / 2.0, ols.n - ols.k))
    return [_Coefficient(*each, critical) for each in zip(terms, b, errors, strict=True)], ols


def _moran(design: Design, ols: Any) -> tuple[dict[str, float] | None, str]:
    """Compute Moran's I of residuals by row or, with industries, of their means by region."""
    from spreg import BaseOLS, MoranRes

    if design.weights is None or ols is None:
        return None, "No Moran's I: there are no weights or no residuals."
    if "row_industry" in design.data:
        means = pd.Series(ols.u.ravel()).groupby(design.data["row_region"].values).mean()
        ols = BaseOLS(means.to_numpy()[:, None], np.ones((len(means), 1)))
        W = align(design.weights, list(means.index)).matrix
        what = "mean residuals by region, taken as a variable, on W over the regions in the sample"
    else:
        W = block_weights(design.weights, _row_ids(design))
        blocks = "one block of W per cluster" if "row_cluster" in design.data else "W"
        what = f"residuals on {blocks} over the regions in the sample"
    if not W.nnz:
        return None, f"No Moran's I: no two rows are neighbors ({what})."
    s1 = 0.5 * float((W + W.T).power(2).sum())
    stub = SimpleNamespace(sparse=sparse.csr_matrix(W), n=W.shape[0], s0=float(W.sum()), s1=s1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a perfect fit has no residuals
        test = MoranRes(ols, stub, z=True)
    alone = int((np.diff(W.indptr) == 0).sum())
    rows = "standardized" if design.weights.row_standardized else "raw"
    found = {"statistic": test.I, "expected": test.eI, "z": test.zI, "p_value": test.p_norm}
    note = f"Moran's I of OLS: {what} ({rows} rows, {alone} without neighbors)."
    return {name: float(value) for name, value in found.items()}, note


def _row_ids(design: Design) -> dict[str, np.ndarray]:
    names = [n for n in ("region", "cluster") if f"row_{n}" in design.data]
    return {name: design.data[f"row_{name}"].values for name in names}


def _rows(
    design: Design, spec: ModelSpec | None, estimator: str, c: _Coefficient
) -> Iterator[dict[str, Any]]:
    unit = str(design.data.attrs["unit"])
    base: dict[str, Any] = {
        "model": spec.name if spec else "model",
        "estimator": estimator,
        "term": c.term,
    }
    base |= {"point": "OLS", "group": "", "ci_prob": CI_PROB, "ci_kind": "confidence"}
    per_unit = (
        unit if c.term in ("intercept", "intercept at zero") else f"{unit} per unit of the term"
    )
    yield base | {"effect": "coefficient", "unit": per_unit} | c.interval()
    base["group"] = "overall"
    if spec is None:
        return
    if c.term in {design.label(role) for role in spec.roles.specialization}:
        points, unit = annual_points(design)
        deviation = float(design.data["scale"].values[design.terms.index(c.term)])
        yield base | {"effect": "per_sd", "unit": unit} | c.interval(points * deviation)
    role, years = spec.roles.convergence, design.years
    if role is not None and years is not None and c.term == design.label(role):
        change = c.interval(years if design.annualized else 1.0)
        unit = f"log points over {years:g} years per log point"
        yield base | {"effect": "change", "unit": unit} | change
        for row in _convergence(change, c.critical, years):
            yield base | row


def _convergence(
    change: dict[str, float], critical: float, years: float
) -> Iterator[dict[str, Any]]:
    """Yield the speed by the delta method, and the half-life with the speed's interval."""
    B = np.array([change["estimate"]])
    rate = float(speed(B, years)[0])
    error = change["std_error"] / ((1.0 + B[0]) * years) if rate < math.inf else math.nan
    low, high = rate - critical * error, rate + critical * error
    bounds = {"std_error": error, "ci_low": low, "ci_high": high}
    yield {"effect": "speed", "unit": "per year", "estimate": rate} | bounds
    short, long = (math.log(2.0) / end if end > 0.0 else math.inf for end in (high, low))
    bounds = {"ci_low": short, "ci_high": long} if rate < math.inf else {}
    life = float(half_life(B, years)[0])
    yield {"effect": "half_life", "unit": "years", "estimate": life} | bounds
