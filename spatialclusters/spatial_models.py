"""What spatial models of the rows share, however they are estimated: W, columns, impacts.

Of spreg only the base classes are used: they need of W its size and sparse matrix alone,
while the classes above them print, warn of isolates and define impacts otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import linalg, sparse

from spatialclusters.design import Design
from spatialclusters.errors import FitError, listing
from spatialclusters.estimates import estimates_frame
from spatialclusters.logdet import Spectrum, spectrum, total, trace_lag
from spatialclusters.wald import CI_PROB, from_standardized

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec

__all__ = [
    "PROCESSES",
    "Estimate",
    "ModelColumns",
    "Simulation",
    "SpatialEstimates",
    "adds_to",
    "estimate_processes",
    "impacts_at",
]

PROCESSES: Final = {"sar": "rho", "sem": "lambda", "sdm": "rho"}
"""Processes and their parameters of dependence."""

_MANY: Final = 0.05  # share of draws outside the support
_COLLINEAR: Final = 1e-8  # share of a column's variance that must be left, as in designs


class Estimate(NamedTuple):
    """Coefficients in raw units, the parameter of dependence last; their covariance; notes.

    ``height`` is what a method has to say of the whole fit: a log likelihood, an F.
    """

    values: pd.Series[float]
    covariance: np.ndarray
    height: float
    notes: tuple[str, ...] = ()


class Simulation(NamedTuple):
    """Draws behind the errors of impacts, and their seed."""

    draws: int
    seed: int


@dataclass(frozen=True, eq=False)
class SpatialEstimates:
    """Tidy estimates, notes, and heights by process, of the rows of a design."""

    estimates: pd.DataFrame
    notes: tuple[str, ...]
    heights: dict[str, float]
    weights: str
    weights_digest: str


@dataclass(frozen=True, eq=False)
class ModelColumns:
    """Covariates of a process in raw units, and y and X of order one for the estimators.

    ``standardized`` has the constant first, if there is one; ``unit`` is that of y.
    """

    terms: list[str]
    raw: np.ndarray
    constant: bool
    y: np.ndarray

    @property
    def unit(self) -> float:
        """Standard deviation of the response."""
        return float(self.y.std())

    @property
    def center(self) -> np.ndarray:
        """Means that are taken off: with a constant only."""
        return np.asarray(self.raw.mean(axis=0) * self.constant)

    @property
    def scale(self) -> np.ndarray:
        """Root mean squares of what is left."""
        return np.asarray(np.sqrt(((self.raw - self.center) ** 2).mean(axis=0)))

    @property
    def standardized(self) -> np.ndarray:
        """Columns for the estimators, (n, k)."""
        ones = np.ones((len(self.raw), int(self.constant)))
        return np.hstack([ones, (self.raw - self.center) / self.scale])

    def back(self, process: str, bound: float) -> tuple[list[str], np.ndarray]:
        """Return names in raw units, and the matrix to them; ``bound`` is the scale of W."""
        names, own = from_standardized(self.terms, self.center, self.scale, intercept=self.constant)
        return [*names, PROCESSES[process]], linalg.block_diag(self.unit * own, bound)


def estimate_processes(
    design: Design,
    spec: ModelSpec | None,
    processes: Sequence[str],
    method: str,
    estimate: Callable[[Spectrum, str, ModelColumns], Estimate | str],
    simulation: Simulation,
) -> SpatialEstimates:
    """Estimate each process by a method, and simulate the errors of its impacts.

    ``estimate`` returns estimates, or why there are none.

    Raises
    ------
    FitError, WeightsError
        A process is unknown, there are no weights or no links between rows, or several rows
        have the same region (and cluster).
    """
    if unknown := set(processes) - set(PROCESSES):
        msg = f"processes: got {listing(sorted(unknown))}; expected {listing(PROCESSES)}."
        raise FitError(f"{msg} Correct them.")
    space, kind, digest, notes = _space(design)
    rows: list[dict[str, Any]] = []
    heights: dict[str, float] = {}
    unit = str(design.data.attrs["unit"])
    for process in processes:
        name = f"{method} {process.upper()}"
        base = {"model": spec.name if spec else "model", "estimator": name, "point": method}
        columns, told = _columns(design, space, durbin=process == "sdm")
        found = estimate(space, process, columns)
        if isinstance(found, str):
            notes += [f"{name} {note}" for note in (*told, found)]
            continue
        b, V, heights[process], more = found
        impacts, simulated = _simulated_impacts(space, columns.terms, b, V, simulation)
        effects = ["coefficient"] * (len(b) - 1) + ["spatial"]
        own = zip(b.index, effects, b, np.sqrt(V.diagonal()), strict=True)
        rows += [base | _row(unit, *quantity) for quantity in (*own, *impacts)]
        notes += [f"{name} {note}" for note in (*told, *more, *simulated)]
    return SpatialEstimates(estimates_frame(rows), tuple(notes), heights, kind, digest)


def _simulated_impacts(
    space: Spectrum, terms: list[str], b: pd.Series[float], V: np.ndarray, simulation: Simulation
) -> tuple[list[tuple[str, str, float, float]], list[str]]:
    """Return impacts with errors, and what there is to say of them."""
    if abs(b.iloc[-1]) >= space.upper:
        at = f"{b.index[-1]} is outside the support, |{b.index[-1]}| < {space.upper:.6g}"
        return [], [f"has no impacts: {at}."]
    sample, redrawn = _sample(b, V, space.upper, *simulation)
    impacts = list(_impacts(space, terms, sample))
    again = f"{simulation.draws} draws (seed {simulation.seed}), {redrawn} redrawn as outside the support"
    if redrawn > _MANY * simulation.draws:
        again += f": {b.index[-1]} is too uncertain for errors of impacts to mean much"
    return impacts, [f"has errors of impacts from {again}."] if impacts else []


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


def _space(design: Design) -> tuple[Spectrum, str, str, list[str]]:
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
    return spectrum(lag.matrix), weights.kind, weights.digest, notes


def _columns(design: Design, space: Spectrum, *, durbin: bool) -> tuple[ModelColumns, list[str]]:
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
        if adds_to(others, lag):
            added, X = [*added, label], np.column_stack([X, lag])
        else:
            same.append(label)
    notes = [f"adds {', '.join(added)}."] if added else []
    notes += [f"leaves out {', '.join(same)}: combinations of other columns."] if same else []
    return ModelColumns(terms + added, X, design.intercept, design.y), notes


def adds_to(others: np.ndarray, column: np.ndarray) -> bool:
    """Tell whether a column is no combination of others.

    Examples
    --------
    >>> adds_to(np.ones((3, 1)), np.array([2.0, 2.0, 2.0]))
    False
    """
    left = column - others @ np.linalg.lstsq(others, column, rcond=None)[0]
    return bool(left @ left > _COLLINEAR * len(column) * column.var())


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
        "std_error": error,
        "ci_low": estimate - reach,
        "ci_high": estimate + reach,
        "ci_prob": CI_PROB,
        "ci_kind": "confidence",
    }
