"""Design -> maximum likelihood of spatial lag, error and Durbin models on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

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
    estimate_processes,
)

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec

__all__ = ["SpatialML", "fit_spatial_ml"]

_MARGIN: Final = 1e-3  # share of the support of rho that is not searched


@dataclass(frozen=True, eq=False)
class SpatialML:
    """Maximum likelihood estimates of spatial models on the rows of a design.

    ``estimates`` is tidy, by estimators ``"ML SAR"``, ``"ML SEM"`` and ``"ML SDM"``;
    ``notes`` say what W is and what was added, left out or redrawn; ``log_likelihood`` is by
    process. The rest is what a comparison must agree on, regions, and kind and digest of W.
    """

    estimates: pd.DataFrame
    notes: tuple[str, ...]
    log_likelihood: Mapping[str, float]
    rows_digest: str
    n_rows: int
    n_regions: int
    response: str
    unit: str
    weights: str
    weights_digest: str


def fit_spatial_ml(
    source: Fit | Design,
    *,
    spec: ModelSpec | None = None,
    processes: Sequence[str] = tuple(PROCESSES),
    draws: int = 2000,
    seed: int = 1,
) -> SpatialML:
    r"""Estimate spatial models of the same equation by maximum likelihood.

    .. math:: \text{SAR: } y = \rho W y + X b + e \qquad
              \text{SEM: } y = X b + (I - \lambda W)^{-1} e \qquad
              \text{SDM: } y = \rho W y + X b + W X \theta + e

    W is that of ``lag()``, one block per cluster if there are clusters; SDM lags what is no
    lag yet. Errors come from the information matrix, those of impacts from draws of its
    normal within :math:`|\rho|` < 1 / spectral radius. Each takes 20 s and 1.3 GB at 6,000 rows.

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
    SpatialML
        Coefficients in units of the response per raw unit, with z intervals; ``intercept``
        is at the columns' means; ``rho`` and ``lambda`` have effect ``spatial``. Impacts
        are as in :func:`~spatialclusters.spatial_models.impacts_at`; SEM has them for terms with a lag only.

    Raises
    ------
    FitError, WeightsError
        A process is unknown, there are no weights or no links between rows, or several rows
        have the same region (and cluster).

    References
    ----------
    Ord (1975), doi:10.1080/01621459.1975.10480272. LeSage and Pace (2009),
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
    >>> found = fit_spatial_ml(design, processes=["sar"]).estimates.set_index(["term", "effect"])
    >>> found["estimate"].round(3).loc[[("rho", "spatial"), ("x", "total")]].tolist()
    [-0.322, 0.77]
    """
    design = source.design if isinstance(source, Fit) else source
    spec = source.spec if spec is None and isinstance(source, Fit) else spec
    found = estimate_processes(design, spec, processes, "ML", _maximize, Simulation(draws, seed))
    attrs = design.data.attrs
    return SpatialML(
        estimates=found.estimates,
        notes=found.notes,
        log_likelihood=found.heights,
        rows_digest=design.rows_digest,
        n_rows=design.n_rows,
        n_regions=int(design.record["regions"]),
        response=str(attrs["response"]),
        unit=str(attrs["unit"]),
        weights=found.weights,
        weights_digest=found.weights_digest,
    )


def _maximize(space: Spectrum, process: str, columns: ModelColumns) -> Estimate | str:
    """Return maximum likelihood estimates, or why there are none.

    spreg gets y and X of order one, and W such that the support of rho is its (-1, 1).
    """
    from spreg.ml_error import BaseML_Error
    from spreg.ml_lag import BaseML_Lag

    bound = (1.0 - _MARGIN) * space.upper
    W = SimpleNamespace(n=space.n, sparse=sparse.csc_matrix(space.matrix * bound))
    run = BaseML_Error if process == "sem" else BaseML_Lag
    try:
        model = run(columns.y[:, None] / columns.unit, columns.standardized, W, method="LU")
    except Exception as cause:  # spreg has no narrower one
        if "power expansion will not converge" not in str(cause):
            raise
        return "is left out: spreg gives up where the powers of rho W do not fall from the first."
    b, V = model.betas.ravel(), model.vm
    if abs(b[-1]) > 1.0 - _MARGIN or not (V.diagonal() > 0.0).all():
        return "is left out: its likelihood has no maximum inside the support."
    names, back = columns.back(process, bound)
    height = float(np.squeeze(model.logll)) - space.n * float(np.log(columns.unit))
    return Estimate(pd.Series(back @ b, names), back @ V @ back.T, height)
