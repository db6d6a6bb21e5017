"""Design -> spatial lag, error and Durbin models by moments, robust to unequal noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy import sparse

from spatialclusters.design import Design
from spatialclusters.logdet import Spectrum
from spatialclusters.result import Fit
from spatialclusters.spatial_models import (
    PROCESSES,
    Estimate,
    ModelColumns,
    Simulation,
    adds_to,
    estimate_processes,
)

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec

__all__ = ["SpatialGMM", "fit_spatial_gmm"]

_ORDERS: Final = 2  # lags of covariates that are instruments (Kelejian and Prucha 1998)
_END: Final = 0.99  # spreg searches lambda up to here


@dataclass(frozen=True, eq=False)
class SpatialGMM:
    """Method of moments estimates of spatial models on the rows of a design.

    ``estimates`` is tidy, by estimators ``"GMM SAR"``, ``"GMM SEM"`` and ``"GMM SDM"``;
    ``notes`` say what W and the instruments are and what was added, left out or redrawn;
    ``first_stage`` is by process the F of the instruments in the regression of W y: below 10
    they are weak. The rest is what a comparison must agree on, regions, and kind and digest
    of W.
    """

    estimates: pd.DataFrame
    notes: tuple[str, ...]
    first_stage: Mapping[str, float]
    rows_digest: str
    n_rows: int
    n_regions: int
    response: str
    unit: str
    weights: str
    weights_digest: str


def fit_spatial_gmm(
    source: Fit | Design,
    *,
    spec: ModelSpec | None = None,
    processes: Sequence[str] = tuple(PROCESSES),
    draws: int = 2000,
    seed: int = 1,
) -> SpatialGMM:
    r"""Estimate spatial models of the same equation by moments.

    SAR and SDM (see :func:`fit_spatial_ml`) by spatial two-stage least squares: with
    :math:`Z = [X, W y]` and instruments :math:`H = [X, W X, W^2 X]`, columns that add
    nothing left out,

    .. math::

        \hat b = (Z'PZ)^{-1} Z'P y, \quad P = H (H'H)^{-1} H', \quad
        V = A \Big(\sum_i h_i h_i' e_i^2\Big) A', \quad A = (Z'PZ)^{-1} Z'H (H'H)^{-1}

    SEM by generalized moments of its noise: :math:`\lambda` such that
    :math:`\varepsilon' (W'W - \mathrm{diag}) \varepsilon` and :math:`\varepsilon' W
    \varepsilon` are nearly zero. Neither assumes a distribution or constant noise. W and
    impacts are those of :func:`fit_spatial_ml`, errors of impacts from draws of the normal
    with the estimates' covariance.

    Parameters
    ----------
    source
        A fit, or a design with weights.
    spec
        The model, for its name; by default that of the fit.
    processes
        Among ``"sar"``, ``"sem"`` and ``"sdm"``.
    draws, seed
        Of the simulation behind the errors of impacts.

    Returns
    -------
    SpatialGMM
        As :func:`fit_spatial_ml`. There are no impacts where rho is outside its support.

    Raises
    ------
    FitError, WeightsError
        As :func:`fit_spatial_ml`.

    References
    ----------
    Kelejian and Prucha (1998), doi:10.1023/A:1007707430416. Arraiz, Drukker, Kelejian and
    Prucha (2010), doi:10.1111/j.1467-9787.2009.00618.x. LeSage and Pace (2009),
    doi:10.1201/9781420064254.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> from spatialclusters.weights import read_weights
    >>> table = pd.DataFrame({"region": list("abcdef"), "y": [1.0, 2, 2.5, 4, 3.5, 2]})
    >>> ring = pd.DataFrame({"region_i": list("abcdef" * 2), "region_j": list("bcdefafabcde")})
    >>> panel = read_panel(table.assign(x=[0.0, 1, 2, 3, 3, 1]))
    >>> design = build_design(parse_spec('formula = "y ~ x"'), panel, read_weights(ring))
    >>> found = fit_spatial_gmm(design, processes=["sar"]).estimates.set_index(["term", "effect"])
    >>> found["estimate"].round(3).loc[[("rho", "spatial"), ("x", "total")]].tolist()
    [0.174, 0.987]
    """
    design = source.design if isinstance(source, Fit) else source
    spec = source.spec if spec is None and isinstance(source, Fit) else spec
    found = estimate_processes(design, spec, processes, "GMM", _moments, Simulation(draws, seed))
    attrs = design.data.attrs
    return SpatialGMM(
        estimates=found.estimates,
        notes=found.notes,
        first_stage={name: F for name, F in found.heights.items() if name != "sem"},
        rows_digest=design.rows_digest,
        n_rows=design.n_rows,
        n_regions=int(design.record["regions"]),
        response=str(attrs["response"]),
        unit=str(attrs["unit"]),
        weights=found.weights,
        weights_digest=found.weights_digest,
    )


def _moments(space: Spectrum, process: str, columns: ModelColumns) -> Estimate | str:
    """Return estimates by moments, or why there are none."""
    if process == "sem":
        return _error_model(space, columns)
    return _lag_model(space, process, columns)


def _error_model(space: Spectrum, columns: ModelColumns) -> Estimate | str:
    """Run spreg with W such that the support of lambda is its (-1, 1)."""
    from spreg.error_sp_het import BaseGM_Error_Het

    W = sparse.csr_matrix(space.matrix * space.upper)
    model = BaseGM_Error_Het(columns.y[:, None] / columns.unit, columns.standardized, W)
    b, V = model.betas.ravel(), model.vm
    if abs(b[-1]) >= _END or not (V.diagonal() > 0.0).all():
        return "is left out: its moments are nearest to zero at the end of the support."
    names, back = columns.back("sem", space.upper)
    return Estimate(pd.Series(back @ b, names), back @ V @ back.T, np.nan)


def _lag_model(space: Spectrum, process: str, columns: ModelColumns) -> Estimate | str:
    """Run spreg's two-stage least squares; W is scaled as for the error model."""
    from spreg.twosls import BaseTSLS

    X, y = columns.standardized, columns.y[:, None] / columns.unit
    labels, H = _instruments(space, columns)
    if not labels:
        return "is left out: no lag of a covariate is an instrument for that of the response."
    lag = (space.matrix * space.upper) @ y
    try:
        model = BaseTSLS(y, X, lag, q=H, robust="white")
    except Exception as cause:  # spreg has no narrower one
        if "ingular" not in str(cause):
            raise
        return "is left out: the lag of the response is a combination of the covariates."
    names, back = columns.back(process, space.upper)
    strength = _first_stage(X, H, lag.ravel())
    notes = [f"has {len(labels)} instruments: {', '.join(labels)}; first-stage F {strength:.3g}."]
    values = pd.Series(back @ model.betas.ravel(), names)
    return Estimate(values, back @ model.vm @ back.T, strength, tuple(notes))


def _instruments(space: Spectrum, columns: ModelColumns) -> tuple[list[str], np.ndarray]:
    """Return lags of the covariates, standardized, that are no combinations of others."""
    known, lags = columns.standardized, columns.raw
    labels: list[str] = []
    for order in range(1, _ORDERS + 1):
        lags = space.matrix @ lags
        for term, column in zip(columns.terms, lags.T, strict=True):
            # raw columns are lagged, and only then centered: W 1 is not 1 where rows are empty
            left = column - column.mean() * columns.constant
            if adds_to(known, column):
                known = np.column_stack([known, left / np.sqrt((left**2).mean())])
                labels.append(f"W{'' if order == 1 else f'^{order}'} {term}")
    return labels, known[:, columns.standardized.shape[1] :]


def _first_stage(X: np.ndarray, H: np.ndarray, lag: np.ndarray) -> float:
    """Return the F of the instruments, given the covariates, for the lag of the response."""

    def left(Z: Any) -> float:
        residual = lag - Z @ np.linalg.lstsq(Z, lag, rcond=None)[0]
        return float(residual @ residual)

    whole = np.hstack([X, H])
    freedom = len(lag) - whole.shape[1]
    if freedom < 1:
        return float("nan")
    short, long = left(X), left(whole)
    return (short - long) / H.shape[1] / (long / freedom) if long > 0.0 else float("inf")
