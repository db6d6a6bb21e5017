"""Design -> maximum likelihood of spatial lag, error and Durbin models on the same rows.

Of spreg only the base classes are used: they need of W its size and sparse matrix alone,
while the classes above them print, warn of isolates and define impacts otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy import linalg, sparse

from spatialclusters.design import Design
from spatialclusters.errors import FitError, listing
from spatialclusters.estimates import estimates_frame
from spatialclusters.logdet import Spectrum, spectrum, total, trace_lag
from spatialclusters.result import Fit

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec
    from spatialclusters.weights import Weights

__all__ = ["SpatialML", "fit_spatial_ml", "impacts_at"]

CI_PROB: Final = 0.95
_PROCESSES: Final = {"sar": "rho", "sem": "lambda", "sdm": "rho"}
_COLLINEAR: Final = 1e-8  # share of a lag's variance that must be left, as in designs
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
    processes: Sequence[str] = tuple(_PROCESSES),
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
        are as in :func:`impacts_at`; SEM has them for terms with a lag only.

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
    if unknown := set(processes) - set(_PROCESSES):
        msg = f"processes: got {listing(sorted(unknown))}; expected {listing(_PROCESSES)}."
        raise FitError(f"{msg} Correct them.")
    space, weights, notes = _space(design)
    rows: list[dict[str, Any]] = []
    heights: dict[str, float] = {}
    unit = str(design.data.attrs["unit"])
    for process in processes:
        base = {"model": spec.name if spec else "model", "estimator": f"ML {process.upper()}"}
        terms, X, told = _columns(design, space, durbin=process == "sdm")
        found = _maximize(design, space, process, terms, X)
        if isinstance(found, str):
            told = [*told, found]
        else:
            b, V, heights[process] = found
            sample, redrawn = _sample(b, V, space.upper, draws, seed)
            if impacts := list(_impacts(space, terms, sample)):
                again = f"{draws} draws (seed {seed}), {redrawn} redrawn as outside the support"
                told = [*told, f"has errors of impacts from {again}."]
            effects = ["coefficient"] * (len(b) - 1) + ["spatial"]
            own = zip(b.index, effects, b, np.sqrt(V.diagonal()), strict=True)
            rows += [base | _row(unit, *quantity) for quantity in (*own, *impacts)]
        notes += [f"{base['estimator']} {note}" for note in told]
    return SpatialML(
        estimates=estimates_frame(rows),
        notes=tuple(notes),
        log_likelihood=heights,
        rows_digest=design.rows_digest,
        n_rows=design.n_rows,
        n_regions=int(design.record["regions"]),
        response=str(design.data.attrs["response"]),
        unit=unit,
        weights=weights.kind,
        weights_digest=weights.digest,
    )


def impacts_at(W: Any, rho: Any, beta: Any, theta: Any = 0.0) -> tuple[np.ndarray, ...]:
    r"""Return the direct, indirect and total impact of a covariate, exactly.

    .. math:: P = (I - \rho W)^{-1} (\beta I + \theta W)
              = \beta I + (\rho \beta + \theta) (I - \rho W)^{-1} W

    The direct impact is :math:`tr(P) / n`, the total one :math:`1'P1 / n`, the indirect one
    the difference. W may be asymmetric and have empty rows.

    Parameters
    ----------
    W
        Weights >= 0, (n, n), dense or sparse, or their ``Spectrum``.
    rho, beta, theta
        Numbers or arrays that broadcast together.

    Raises
    ------
    WeightsError
        W has no links or wrong ones, or rho is outside its support.

    References
    ----------
    LeSage and Pace (2009), doi:10.1201/9781420064254.

    Examples
    --------
    >>> W = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # the last has no neighbors
    >>> [round(float(impact), 6) for impact in impacts_at(W, 0.5, 1.0)]
    [1.222222, 0.444444, 1.666667]
    """
    space = W if isinstance(W, Spectrum) else spectrum(sparse.csr_array(W))
    rho, beta, theta = (np.asarray(value, dtype=np.float64) for value in (rho, beta, theta))
    sums = trace_lag(space, rho), total(space, rho, right=space.matrix.sum(axis=1))
    direct, whole = (beta + (rho * beta + theta) * part / space.n for part in sums)
    return direct, whole - direct, whole


def _space(design: Design) -> tuple[Spectrum, Weights, list[str]]:
    """Analyze W over rows; say what it is, and what is in no spatial model."""
    lag, weights = design.lag, design.weights
    if lag is None or weights is None:
        raise FitError("spatial models: got no weights; expected some. Build the design with them.")
    if len(lag.counts) < lag.n_rows:
        cells = f"{len(lag.counts)} regions or region-clusters"
        msg = f"spatial models: got {lag.n_rows} rows in {cells}; expected one row in each."
        raise FitError(f"{msg} Use the posterior, which lags their means.")
    what = "one block of W per cluster" if "row_cluster" in design.data else "W"
    kind = f"{weights.kind}, {'standardized' if weights.row_standardized else 'raw'} rows"
    notes = [f"Spatial models: {what} over the sample ({kind}, {lag.isolates} without neighbors)."]
    if design.psi is not None:
        notes.append("W is the reference of weights that only the posterior estimates.")
    groups = ", ".join(group.name for group in design.groups)
    notes += [f"Group effects and means are in no spatial model: {groups}."] if groups else []
    return spectrum(lag.matrix), weights, notes


def _columns(
    design: Design, space: Spectrum, *, durbin: bool
) -> tuple[list[str], np.ndarray, list[str]]:
    """Return the covariates and, for a Durbin model, the lags of those that are no lags."""
    terms = [term for term in design.terms if not term.startswith("mean(")]
    X = design.X[:, [design.terms.index(term) for term in terms]]
    added: list[str] = []
    same: list[str] = []
    for term, column in zip(terms, X.T, strict=True) if durbin else ():
        label = f"lag({term})"
        if "lag(" in term or "neighbor_strength" in term or label in terms:
            continue
        others = np.hstack([np.ones((len(X), int(design.intercept))), X])
        lag = space.matrix @ column
        left = lag - others @ np.linalg.lstsq(others, lag, rcond=None)[0]
        if left @ left <= _COLLINEAR * len(lag) * lag.var():
            same.append(label)
        else:
            added, X = [*added, label], np.column_stack([X, lag])
    notes = [f"adds {', '.join(added)}."] if added else []
    notes += [f"leaves out {', '.join(same)}: combinations of other columns."] if same else []
    return terms + added, X, notes


def _maximize(
    design: Design, space: Spectrum, process: str, terms: list[str], X: np.ndarray
) -> tuple[pd.Series[float], np.ndarray, float] | str:
    """Return estimates, their covariance and the log likelihood, or why there are none.

    spreg gets y and X of order one, and W such that the support of rho is its (-1, 1).
    """
    from spreg.ml_error import BaseML_Error
    from spreg.ml_lag import BaseML_Lag

    one, unit = int(design.intercept), float(design.y.std())
    center = X.mean(axis=0) * one
    scale = np.sqrt(((X - center) ** 2).mean(axis=0))
    columns = np.hstack([np.ones((len(X), one)), (X - center) / scale])
    bound = (1.0 - _MARGIN) * space.upper
    W = SimpleNamespace(n=space.n, sparse=sparse.csc_matrix(space.matrix * bound))
    run = BaseML_Error if process == "sem" else BaseML_Lag
    try:
        model = run(design.y[:, None] / unit, columns, W, method="LU")
    except Exception as cause:  # spreg has no narrower one
        if "power expansion will not converge" not in str(cause):
            raise
        return "is left out: spreg gives up where the powers of rho W do not fall from the first."
    b, V = model.betas.ravel(), model.vm
    if abs(b[-1]) > 1.0 - _MARGIN or not (V.diagonal() > 0.0).all():
        return "is left out: its likelihood has no maximum inside the support."
    names = ["intercept"] * one + terms + [_PROCESSES[process]]
    back = linalg.block_diag(unit * np.eye(one), np.diag(unit / scale), bound)
    if one and terms:
        names.insert(-1, "intercept at zero")
        back = np.insert(back, -1, [unit, *(-unit * center / scale), 0.0], axis=0)
    height = float(np.squeeze(model.logll)) - space.n * float(np.log(unit))
    return pd.Series(back @ b, names), back @ V @ back.T, height


def _impacts(
    space: Spectrum, terms: list[str], sample: pd.DataFrame
) -> Iterator[tuple[str, str, float, float]]:
    """Yield term, impact, estimate (at the first row) and error; lags of lags are covariates."""
    lags = {term: f"lag({term})" for term in terms if not term.startswith("lag(")}
    for term in [t for t in terms if t not in lags.values()]:
        if "rho" in sample or lags.get(term) in terms:
            rho, theta = sample.get("rho", 0.0), sample.get(lags.get(term), 0.0)
            found = impacts_at(space, rho, sample[term], theta)
            for effect, values in zip(("direct", "indirect", "total"), found, strict=True):
                yield term, effect, values[0], values[1:].std(ddof=1)


def _sample(
    b: pd.Series[float], V: np.ndarray, bound: float, draws: int, seed: int
) -> tuple[pd.DataFrame, int]:
    """Return the estimate, then draws of its normal inside the support; count the others."""
    rng, sd = np.random.default_rng(seed), np.sqrt(V.diagonal())
    kept, tries = b.to_numpy()[None], 0
    while (missing := draws + 1 - len(kept)) > 0:
        z = rng.multivariate_normal(0.0 * sd, V / np.outer(sd, sd), missing, method="eigh")
        more = b.to_numpy() + sd * z
        kept, tries = np.vstack([kept, more[abs(more[:, -1]) < bound]]), tries + missing
    return pd.DataFrame(kept, columns=b.index), tries - draws


def _row(unit: str, term: str, effect: str, estimate: float, error: float) -> dict[str, Any]:
    reach = NormalDist().inv_cdf(0.5 + CI_PROB / 2.0) * error
    per = "" if term in ("intercept", "intercept at zero") else " per unit of the term"
    return {
        "term": term,
        "effect": effect,
        "group": "" if effect in ("coefficient", "spatial") else "overall",
        "unit": "" if effect == "spatial" else unit + per,
        "estimate": estimate,
        "point": "ML",
        "std_error": error,
        "ci_low": estimate - reach,
        "ci_high": estimate + reach,
        "ci_prob": CI_PROB,
        "ci_kind": "confidence",
    }
