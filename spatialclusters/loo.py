r"""Leave-one-out with all effects integrated out: what the model says of rows it has not seen.

Given hyperparameters :math:`\theta` a response is normal with precision K, and

.. math:: y_B \mid y_{-B}, \theta \sim N\big(y_B - K_{BB}^{-1} [K r]_B,\; K_{BB}^{-1}\big)

for any rows B, r being y less its prior mean. Only :math:`\theta` has to be reweighted, which
Pareto smoothed importance sampling does; effects of B cannot follow y as they do in the
likelihood conditional on effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy.linalg
from scipy import sparse

from spatialclusters.collapsed.layout import Problem
from spatialclusters.collapsed.problem import mixed_model, why_not_collapsed
from spatialclusters.errors import FitError, listing
from spatialclusters.likelihood import theta_at
from spatialclusters.result import Fit
from spatialclusters.simulation import thinned

__all__ = ["Loo", "compare_loo", "marginal_loo"]

GOOD_K: Final = 0.7
"""Largest Pareto k of a unit whose estimate is reliable (Vehtari et al. 2024)."""

_DRAWS: Final = 400


@dataclass(frozen=True, eq=False)
class Loo:
    """Expected log predictive density of left-out units.

    Attributes
    ----------
    elpd, std_error
        Sum over units, natural logarithm of densities in the response's unit, and the
        standard error of that sum.
    pointwise
        One row a unit: ``unit, elpd, pareto_k``.
    by
        ``row`` or ``region``: what was left out at a time.
    draws
        Posterior draws it rests on.
    identity
        Digest of the rows, response and unit: what models must share to be compared.
    """

    elpd: float
    std_error: float
    pointwise: pd.DataFrame
    by: str
    draws: int
    identity: tuple[str, str, str]

    @property
    def reliable(self) -> float:
        """Share of units whose Pareto k is below 0.7."""
        return float((self.pointwise["pareto_k"] < GOOD_K).mean())

    def __str__(self) -> str:
        return (
            f"elpd {self.elpd:.1f} (se {self.std_error:.1f}), {len(self.pointwise)} times one "
            f"{self.by} left out, {self.draws} draws; Pareto k < {GOOD_K} for {self.reliable:.1%}"
        )


def marginal_loo(fit: Fit, *, by: str = "row", draws: int = _DRAWS) -> Loo:
    r"""Estimate the log predictive density of every row, or region, left out.

    Parameters
    ----------
    fit
        With Gaussian noise and normal or flat priors of coefficients, of either engine.
    by
        ``"row"``, or ``"region"``: all rows of a region at a time.
    draws
        Evenly spaced posterior draws of the hyperparameters.

    Raises
    ------
    FitError
        The effects cannot be integrated out, or ``by`` is neither.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), doi:10.1007/s11222-016-9696-4; Buerkner, Gabry and
    Vehtari (2021), doi:10.1007/s00180-020-01045-4; Merkle, Furr and Rabe-Hesketh (2019),
    doi:10.1007/s11336-019-09679-0.
    """
    reason = why_not_collapsed(fit.spec)
    if reason is not None or by not in ("row", "region"):
        got = f"a model whose effects cannot be integrated out: {reason}" if reason else repr(by)
        msg = f"leave-one-out: got {got}; expected Gaussian noise, and by = 'row' or 'region'."
        raise FitError(msg)
    labels = np.arange(fit.design.n_rows).astype(str)
    if by == "region":
        labels = fit.design.data["row_region"].values.astype(str)
    units, codes = np.unique(labels, return_inverse=True)
    units, codes = (labels, np.arange(len(labels))) if by == "row" else (units, codes)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    system = _System(fit)
    densities = np.array([system.left_out(p, members) for p in thinned(fit, draws)])
    elpd, k = _smoothed(densities)
    return Loo(
        elpd=float(elpd.sum()),
        std_error=float(elpd.std(ddof=1) * np.sqrt(len(elpd))),
        pointwise=pd.DataFrame({"unit": units, "elpd": elpd, "pareto_k": k}),
        by=by,
        draws=len(densities),
        identity=_identity(fit),
    )


def compare_loo(results: Mapping[str, Loo]) -> pd.DataFrame:
    """Compare models by expected log predictive density, the best first.

    Returns
    -------
    pandas.DataFrame
        ``model, elpd, std_error, difference, difference_error, reliable``; differences are to
        the best model, and their errors those of the sum of pointwise differences.

    Raises
    ------
    FitError
        Rows, response, unit, or what was left out, differ.
    """
    kinds = {(*loo.identity, loo.by) for loo in results.values()}
    if len(kinds) > 1:
        msg = f"leave-one-out: got models of different rows, responses or units: {listing(results)}"
        raise FitError(msg + "; expected the same. Refit them to one sample.")
    order = sorted(results, key=lambda name: -results[name].elpd)
    best = results[order[0]].pointwise["elpd"].to_numpy() if order else np.empty(0)
    rows = []
    for name in order:
        loo = results[name]
        apart = loo.pointwise["elpd"].to_numpy() - best
        rows.append(
            {
                "model": name,
                "elpd": loo.elpd,
                "std_error": loo.std_error,
                "difference": float(apart.sum()),
                "difference_error": float(apart.std(ddof=1) * np.sqrt(len(apart))),
                "reliable": loo.reliable,
            }
        )
    return pd.DataFrame(rows)


def _identity(fit: Fit) -> tuple[str, str, str]:
    attributes = fit.design.data.attrs
    return fit.design.rows_digest, str(attributes["response"]), str(attributes["unit"])


def _smoothed(densities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return elpd and Pareto k of every unit from log densities (draw, unit)."""
    from arviz_stats.base import array_stats

    weights, k = array_stats.psislw(densities.T, r_eff=1.0, axis=-1)  # it negates
    return scipy.special.logsumexp(densities.T + weights, axis=-1), np.asarray(k)


class _System:
    """The marginal normal of a response: noise, and columns of everything integrated out.

    Independent of the engine's elimination: one dense system of all coefficients and effects,
    but for cells, which are part of the noise.
    """

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.problem = mixed_model(fit.spec, fit.design)
        self.cell = self._cells()
        self.effects: list[sparse.csr_array] = []
        self.bases = []
        for factor in self.problem.factors:
            basis = None if factor is self.cell else _free_basis(factor)
            self.bases.append(basis)
            if factor is not self.cell:
                self.effects.append(sparse.csr_array(_incidence(factor) @ basis))
        self.columns = self._columns(self.problem)

    def _columns(self, problem: Problem) -> sparse.csr_array:
        """Return the columns of coefficients and effects, (N, unknowns)."""
        X = sparse.csr_array(problem.X)
        return sparse.csr_array(sparse.hstack([X, *self.effects], format="csr"))

    def _cells(self) -> Any:
        """Return the intercept-only factor with the most levels, if noise is independent."""
        if self.problem.lags_noise:
            return None
        simple = [
            f
            for f in self.problem.factors
            if f.intercept_only and not f.fixed and f.surface is None
        ]
        return max(simple, key=lambda f: f.n_levels, default=None)

    def left_out(
        self, parameters: Mapping[str, np.ndarray], members: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return the log density of each unit given all others, at one draw, (units,)."""
        problem, design, columns = self.problem.at(parameters), self.fit.design, self.columns
        if problem is not self.problem:  # X depends on an estimated W
            columns = self._columns(problem)
        theta = theta_at(self.fit.spec, self.fit.design, parameters)
        weights = np.asarray(theta.sigma)[problem.classes] ** -2.0
        noise = self._noise_precision(theta, weights)
        filtered, A = design.y - problem.shift, sparse.eye_array(design.n_rows, format="csr")
        if problem.lags_response:
            assert problem.space is not None
            rho = float(theta.spatial["rho"])
            filtered = filtered - rho * (problem.space.lag @ design.y)
            A = sparse.csr_array(A - rho * problem.space.lag.matrix)
        right = sparse.csr_array(noise @ columns)
        system = (columns.T @ right).toarray() + self._prior_precision(theta)
        root = np.linalg.cholesky(system)
        residual = noise @ filtered
        half = scipy.linalg.solve_triangular(root, right.T @ filtered, lower=True)
        # rows of A'K A and A'K r, with K = N - N F M^-1 F'N
        across = scipy.linalg.solve_triangular(root, (A.T @ right).toarray().T, lower=True).T
        shifted = A.T @ residual - across @ half
        own = sparse.csr_array(A.T @ noise @ A)
        if all(len(rows) == 1 for rows in members):
            rows = np.concatenate(members)
            diagonal = own.diagonal() - (across**2).sum(axis=1)
            single = np.log(diagonal) - shifted**2 / diagonal - np.log(2 * np.pi)
            return np.asarray(0.5 * single[rows])
        out = np.empty(len(members))
        for u, rows in enumerate(members):
            K = own[rows][:, rows].toarray() - across[rows] @ across[rows].T
            v = shifted[rows]
            out[u] = 0.5 * (
                np.linalg.slogdet(K)[1] - v @ np.linalg.solve(K, v) - len(rows) * np.log(2 * np.pi)
            )
        return out

    def _noise_precision(self, theta: Any, weights: np.ndarray) -> sparse.csr_array:
        problem = self.problem
        precision = sparse.diags_array(weights).tocsr()
        if problem.lags_noise:
            assert problem.space is not None
            eye = sparse.eye_array(len(weights), format="csr")
            B = eye - float(theta.spatial["lambda"]) * problem.space.lag.matrix
            return sparse.csr_array(B.T @ precision @ B)
        if self.cell is None:
            return sparse.csr_array(precision)
        variance = float(theta.roots[self.cell.name][0, 0]) ** 2
        member = precision @ _incidence(self.cell)
        total = np.bincount(self.cell.codes, weights, minlength=self.cell.n_levels)
        taken = sparse.diags_array(variance / (1.0 + variance * total))
        return sparse.csr_array(precision - member @ taken @ member.T)

    def _prior_precision(self, theta: Any) -> np.ndarray:
        blocks = [np.diag(self.problem.proper.astype(float))]
        for factor, basis in zip(self.problem.factors, self.bases, strict=True):
            if basis is None:
                continue
            root = np.asarray(theta.roots[factor.name])
            own = np.linalg.inv(root @ root.T)
            if factor.surface is None:
                precision = np.kron(np.eye(factor.n_levels), own)
            else:
                precision = own[0, 0] * _surface_precision(factor, theta)
            blocks.append(basis.T @ precision @ basis)
        return np.asarray(scipy.linalg.block_diag(*blocks))


def _incidence(factor: Any) -> sparse.csr_array:
    """Return the columns of a factor's effects, (N, J K)."""
    n, width = factor.values.shape
    rows = np.repeat(np.arange(n), width)
    at = (factor.codes[:, None] * width + np.arange(width)).ravel()
    shape = (n, factor.n_levels * width)
    return sparse.csr_array((factor.values.ravel(), (rows, at)), shape=shape)


def _free_basis(factor: Any) -> np.ndarray:
    """Return an orthonormal basis of the effects that constraints leave free."""
    from spatialclusters.collapsed.layout import zero_sums

    size = factor.n_levels * factor.width
    sums = np.zeros((len(zero_sums(factor)), size))
    for row, levels in zip(sums, zero_sums(factor), strict=True):
        row[levels] = 1.0
    return np.asarray(scipy.linalg.null_space(sums)) if len(sums) else np.eye(size)


def _surface_precision(factor: Any, theta: Any) -> np.ndarray:
    """Return the precision of a surface at scale one over all levels, (J, J)."""
    surface, out = factor.surface, np.zeros((factor.n_levels,) * 2)
    parameter = None if surface.parameter is None else float(theta.spatial[surface.parameter])
    for k in range(int(surface.graph.piece.max()) + 1):
        inside = np.flatnonzero(surface.graph.piece == k)
        adjacency = surface.graph.adjacency[inside][:, inside].toarray()[None]
        arrays = surface.field.prepare(adjacency, np.ones(adjacency.shape[:2], dtype=bool))
        out[np.ix_(inside, inside)] = np.asarray(surface.field.precision(arrays, parameter)[0])[0]
    return out
