"""Design -> the frequentist answers on the same rows: fixed effects and pooled OLS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy import sparse

from spatialclusters.design import Design
from spatialclusters.errors import FitError, listing
from spatialclusters.estimates import estimates_frame
from spatialclusters.lags import block_weights
from spatialclusters.regressions import absorb, fixed_effects, pooled
from spatialclusters.result import Fit
from spatialclusters.spatial_hac import SpatialKernel
from spatialclusters.wald import Coefficient, coefficient_rows
from spatialclusters.weights import align

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec

__all__ = ["Frequentist", "fit_frequentist"]

_MOST: Final = 0.5  # share of the other regions within a bandwidth that is too large


@dataclass(frozen=True, eq=False)
class Frequentist:
    """Frequentist estimates on the rows of a design.

    Attributes
    ----------
    estimates
        Tidy frame; ``estimator`` is ``"fixed effects"`` or ``"OLS"``, with Conley's errors
        ``"fixed effects, Conley ..."`` and ``"OLS, Conley ..."``, kernel and bandwidth named.
    notes
        What was absorbed, dropped or left out, in sentences.
    rows_digest, response, unit
        What a comparison must agree on.
    n_rows, n_regions
        Rows and regions of the design.
    rows_used, errors
        By estimator: rows without those that are alone in an absorbed group, and what its
        standard errors are, kernel and bandwidth included.
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


def fit_frequentist(
    source: Fit | Design,
    *,
    spec: ModelSpec | None = None,
    cluster: str | None = None,
    conley: SpatialKernel | None = None,
) -> Frequentist:
    r"""Estimate the same equation by fixed effects and by pooled OLS.

    With group dummies D, ``fixed effects`` is :math:`y = X b + D a + e`. Group intercepts
    are absorbed, except those that would absorb a term of the roles (without roles, any
    covariate); slopes by group and group means of absorbed groups are left out. With
    :math:`\tilde X` what is left of X, and K without effects nested in clusters, its
    clustered errors (CRV1) and t quantiles with G - 1 degrees of freedom come from

    .. math:: V = \tfrac{G}{G-1} \tfrac{N-1}{N-K} (\tilde X'\tilde X)^{-1}
              \Big(\sum_g \tilde X_g' e_g e_g' \tilde X_g\Big) (\tilde X'\tilde X)^{-1}.

    ``OLS`` has no groups, no group means, and homoskedastic errors. With a kernel both come
    once more with Conley's errors, which let the rows of near regions depend on each other, as
    in :func:`~spatialclusters.spatial_hac.kernel_sandwich` of :math:`\tilde X` and e; factors
    for small samples and t quantiles are those of errors clustered by region, which are the
    limit of a small bandwidth.

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
    conley
        From :func:`spatial_kernel`.

    Returns
    -------
    Frequentist
        Coefficients in units of the response per raw unit of the term; ``intercept`` is
        the expected response at the covariates' means, as in a fit. For the roles also
        change, speed and half-life (delta method) and effects per SD.

    Raises
    ------
    FitError
        ``cluster`` names what rows do not have, or there is one region for ``conley``.

    References
    ----------
    Cameron and Miller (2015), doi:10.3368/jhr.50.2.317. Conley (1999),
    doi:10.1016/S0304-4076(98)00084-0. Cliff and Ord (1981), Spatial Processes, p. 201.

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
    if conley is not None and len(np.unique(design.data["row_region"].values)) < 2:
        raise FitError("Conley errors: got one region; expected several. Use others.")
    plan = absorb(design, spec)
    regressions = {
        "fixed effects": fixed_effects(design, plan, cluster or "region", conley),
        "OLS": pooled(design, conley),
    }
    within, ols = regressions.values()
    moran, moran_note = _moran(design, ols.ols)
    notes = [*plan.notes, *_reference(design), *within.notes, *ols.notes, moran_note]
    columns = [(name, r.coefficients, r.errors, r.used) for name, r in regressions.items()]
    if conley is not None:
        errors = f"Conley, {conley.label}"
        columns += [
            (f"{name}, Conley {conley.label}", r.conley, errors, r.used)
            for name, r in regressions.items()
        ]
        notes += _conley_notes(design, conley, [*within.conley, *ols.conley])
    absorbed = [group.name for group in plan.groups] if within.coefficients else []
    intercepts = [group.name for group in design.groups if -1 in group.columns]
    return Frequentist(
        estimates=estimates_frame(
            row
            for estimator, coefficients, *_ in columns
            for c in coefficients
            for row in coefficient_rows(design, spec, estimator, c, point="OLS")
        ),
        notes=tuple(notes),
        rows_digest=design.rows_digest,
        n_rows=design.n_rows,
        n_regions=int(design.record["regions"]),
        rows_used={name: used for name, _, _, used in columns},
        errors={name: text for name, _, text, _ in columns},
        moran=moran,
        response=str(design.data.attrs["response"]),
        unit=str(design.data.attrs["unit"]),
        absorbed=tuple(absorbed),
        implied=tuple(n for n in intercepts if absorbed and n not in (*absorbed, *plan.left_out)),
        left_out=tuple(plan.left_out),
        weights=design.weights.kind if design.weights else None,
        weights_digest=design.weights.digest if design.weights else None,
    )


def _reference(design: Design) -> list[str]:
    """Say which W stands in for one that only the posterior estimates."""
    if design.psi is None:
        return []
    what = "equal shares" if design.psi.parameter == "share" else "the middle of delta's range"
    return [f"Lags are those of the reference W ({what}): W is estimated by the posterior only."]


def _conley_notes(design: Design, kernel: SpatialKernel, found: list[Coefficient]) -> list[str]:
    """Say what Conley's errors are made of, and where they do not exist."""
    regions = pd.unique(design.data["row_region"].values)
    K, notes = kernel.between(list(map(str, regions)))
    within = (K > 0.0).sum(axis=1) - 1
    text = (
        f"Conley errors ({kernel.label}): scores are summed by region; {within.mean():.1f} other "
        f"regions are within the bandwidth on average, none for {int((within == 0).sum())} of "
        f"{len(regions)}. Factors for small samples are those of errors clustered by region."
    )
    if within.mean() > _MOST * (len(regions) - 1):
        text += (
            " The bandwidth reaches most regions: errors are too small, as all scores sum to zero."
            " Choose a smaller one."
        )
    lost = list(dict.fromkeys(c.term for c in found if np.isnan(c.std_error)))
    missing = [f"This kernel gives a negative variance, so no error, for {listing(lost)}."]
    return [text, *notes, *(missing if lost else [])]


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
