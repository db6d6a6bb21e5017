r"""The marginal normal of a response: what it says of any rows, given all others.

Given hyperparameters :math:`\theta` a response is normal with precision K, and

.. math:: y_B \mid y_{-B}, \theta \sim N\big(y_B - K_{BB}^{-1} [K r]_B,\; K_{BB}^{-1}\big)

for any rows B, r being y less its prior mean. Independent of the engine's elimination.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.linalg
from scipy import sparse

from spatialclusters.collapsed.layout import Problem
from spatialclusters.collapsed.problem import mixed_model
from spatialclusters.errors import FitError, listing
from spatialclusters.likelihood import theta_at
from spatialclusters.result import Fit

__all__ = ["MarginalNormal"]

_PADDED: Final = 1.5
"""Columns of a unit beside those of the narrowest one that shares its arrays, at most."""

_ENTRIES: Final = 500_000
"""Numbers in an array of a bucket."""

_NOTHING: Final = 1e-10
"""What the others say of a row, beside what the row would add: below it is rounding."""


class MarginalNormal:
    """Noise, and columns of everything integrated out: one dense system.

    Cells, the intercept-only factor with the most levels, are part of the noise.
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

    def rows(self, parameters: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return what one draw says of each row given all others, each (N,).

        Returns
        -------
        tuple
            The precision of y given the others, and how far y is from its expectation, in
            standard deviations.
        """
        if self.problem.space is None and self.problem.blend is None:
            alone, diagonal, shifted = self._units.at(parameters)
        else:
            own, across, shifted = self._whole(parameters)
            alone = own.diagonal()
            diagonal = alone - (across**2).sum(axis=1)
        self._refuse_unknown(np.flatnonzero(diagonal < _NOTHING * alone))
        return diagonal, shifted / np.sqrt(diagonal)

    def _refuse_unknown(self, rows: np.ndarray) -> None:
        """Refuse rows of which the others say nothing."""
        if not rows.size:
            return
        names = [name for name in self.fit.design.data.data_vars if str(name).startswith("row_")]
        ids = [self.fit.design.data[name].values[rows[:8]] for name in names]
        shown = listing(" ".join(map(str, each)) for each in zip(*ids, strict=True))
        msg = (
            f"leave-one-out: got rows of which all others say nothing ({shown}); expected none. A "
            "coefficient with a flat prior rests on them alone: give it a proper prior, or leave them out."
        )
        raise FitError(msg)

    @cached_property
    def _units(self) -> _Units:
        return _Units(self.fit, self.problem, self.cell)

    def left_out(
        self, parameters: Mapping[str, np.ndarray], members: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return the log density of each unit given all others, at one draw, (units,)."""
        if all(len(rows) == 1 for rows in members):
            diagonal, z = self.rows(parameters)
            single = 0.5 * (np.log(diagonal) - z**2 - np.log(2 * np.pi))
            return np.asarray(single[np.concatenate(members)])
        own, across, shifted = self._whole(parameters)
        out = np.empty(len(members))
        for u, rows in enumerate(members):
            alone = own[rows][:, rows].toarray()
            root, failed = scipy.linalg.lapack.dpotrf(
                alone - across[rows] @ across[rows].T, lower=True
            )
            pivots = np.diag(root)
            if failed or (pivots**2 < _NOTHING * np.diag(alone)).any():
                self._refuse_unknown(rows)
            half = scipy.linalg.solve_triangular(root, shifted[rows], lower=True)
            out[u] = np.log(pivots).sum() - 0.5 * (half @ half + len(rows) * np.log(2 * np.pi))
        return out

    def _whole(
        self, parameters: Mapping[str, np.ndarray]
    ) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
        """Return S, B and v with A'KA = S - B B' and A'K r = v, of y filtered by A."""
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
        return own, across, shifted

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
            blocks.append(basis.T @ _factor_precision(factor, theta) @ basis)
        return np.asarray(scipy.linalg.block_diag(*blocks))


class _Units:
    r"""Rows in units that share few columns, so that a row's variance touches few entries.

    Without a process of the outcome :math:`K_{ii} = w_i - w_i^2 Var(\eta_i \mid y)` and
    :math:`[K r]_i = w_i (r_i - E[\eta_i \mid y])`, with weights w and linear predictor
    :math:`\eta`. A unit is a cell, or a row. With :math:`\kappa = \tau^2 / (1 + \tau^2 \sum w)`
    the effect of a cell is :math:`\kappa \sum_j w_j (r_j - f_j'b)` plus noise of variance
    :math:`\kappa`, given the other effects b, whose precision is dense but small.
    """

    def __init__(self, fit: Fit, problem: Problem, cell: Any) -> None:
        self.fit, self.problem, self.cell = fit, problem, cell
        self.factors = [factor for factor in problem.factors if factor is not cell]
        effects = [_incidence(factor) for factor in self.factors]
        columns = sparse.hstack([sparse.csr_array(problem.X), *effects], format="csr")
        self.size = columns.shape[1]
        unit = np.arange(columns.shape[0]) if cell is None else cell.codes
        self.buckets = list(_buckets(sparse.csr_array(columns), unit))
        self.sums = self._sums()
        # memory that is asked for anew at every draw costs as much as the arithmetic
        most = max(bucket.at.size * bucket.at.shape[1] for bucket in self.buckets)
        self.scratch, self.place = np.empty(most), np.empty(most, dtype=np.int64)
        self.information = np.empty((self.size + 1) ** 2)

    def at(self, parameters: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the precisions of the noise, K's diagonal and K r at one draw, each (N,)."""
        theta = theta_at(self.fit.spec, self.fit.design, parameters)
        weights = np.asarray(theta.sigma)[self.problem.classes] ** -2.0
        variance = 0.0
        if self.cell is not None:
            variance = float(theta.roots[self.cell.name][0, 0]) ** 2
        residual = self.fit.design.y - self.problem.shift
        parts = [bucket.weighted(weights, variance, residual) for bucket in self.buckets]
        inverse, mean = self._posterior(theta, parts)
        diagonal, shifted = np.empty_like(weights), np.empty_like(weights)
        for bucket, part in zip(self.buckets, parts, strict=True):
            H = bucket.columns - part.kappa[:, None, None] * part.sf[:, None, :]
            places, inner = self._places(bucket)
            np.take(inverse, places, out=inner, mode="clip")
            spread = part.kappa[:, None] + np.einsum("unw,unw->un", H @ inner, H)
            expected = (part.kappa * part.sr)[:, None] + np.einsum("unw,uw->un", H, mean[bucket.at])
            known, w = bucket.known, part.weights[bucket.known]
            diagonal[bucket.rows[known]] = w - w**2 * spread[known]
            shifted[bucket.rows[known]] = w * (part.residual - expected)[known]
        return weights, diagonal, shifted

    def _places(self, bucket: _Bucket) -> tuple[np.ndarray, np.ndarray]:
        """Return where each unit's entries of the covariance are, and room for them, (U, w, w)."""
        shape = (*bucket.at.shape, bucket.at.shape[1])
        place, room = (x[: math.prod(shape)].reshape(shape) for x in (self.place, self.scratch))
        np.add(bucket.at[:, :, None] * (self.size + 1), bucket.at[:, None, :], out=place)
        return place, room

    def _posterior(self, theta: Any, parts: Sequence[_Weighted]) -> tuple[np.ndarray, np.ndarray]:
        """Return covariance and mean of b given y, with a row and column of zeros for padding."""
        size, right = self.size, np.zeros(self.size + 1)
        self.information.fill(0.0)
        for bucket, part in zip(self.buckets, parts, strict=True):
            np.add.at(self.information, self._places(bucket)[0].ravel(), part.information.ravel())
            right += np.bincount(bucket.at.ravel(), part.right.ravel(), size + 1)
        M = self.information.reshape(size + 1, -1)[:size, :size] + self._prior(theta)
        root = scipy.linalg.lapack.dpotrf(M, lower=True)[0]
        half = scipy.linalg.lapack.dpotri(root, lower=True)[0]
        inverse = np.tril(half) + np.tril(half, -1).T
        if self.sums.shape[1]:  # effects that sum to zero: condition on it
            solved = inverse @ self.sums
            inverse -= solved @ np.linalg.solve(self.sums.T @ solved, solved.T)
        padded = np.pad(inverse, (0, 1))
        return padded, padded @ right

    def _prior(self, theta: Any) -> np.ndarray:
        blocks = [np.diag(self.problem.proper.astype(float))]
        blocks += [_factor_precision(factor, theta) for factor in self.factors]
        return np.asarray(scipy.linalg.block_diag(*blocks))

    def _sums(self) -> np.ndarray:
        """Return the columns of effects whose sum is zero, (unknowns, sums)."""
        from spatialclusters.collapsed.layout import zero_sums

        columns, start = [], self.problem.X.shape[1]
        for factor in self.factors:
            for levels in zero_sums(factor):
                column = np.zeros(self.size)
                column[start + levels] = 1.0
                columns.append(column)
            start += factor.n_levels * factor.width
        return np.array(columns).reshape(len(columns), self.size).T


class _Weighted(NamedTuple):
    """What a bucket's units add to the normal equations at one draw."""

    weights: np.ndarray
    residual: np.ndarray
    kappa: np.ndarray
    sf: np.ndarray
    sr: np.ndarray
    information: np.ndarray
    right: np.ndarray


class _Bucket(NamedTuple):
    """Units of like size: their rows (U, n), columns (U, w) by place, and values (U, n, w)."""

    rows: np.ndarray
    known: np.ndarray
    at: np.ndarray
    columns: np.ndarray

    def weighted(self, weights: np.ndarray, variance: float, residual: np.ndarray) -> _Weighted:
        w = np.where(self.known, weights[self.rows], 0.0)
        r = np.where(self.known, residual[self.rows], 0.0)
        scaled = self.columns * w[:, :, None]
        kappa = variance / (1.0 + variance * w.sum(axis=1))
        sf, sr = scaled.sum(axis=1), (w * r).sum(axis=1)
        taken = kappa[:, None] * sf
        information = scaled.transpose(0, 2, 1) @ self.columns - taken[:, :, None] * sf[:, None, :]
        right = np.einsum("unw,un->uw", scaled, r) - taken * sr[:, None]
        return _Weighted(w, r, kappa, sf, sr, information, right)


def _buckets(columns: sparse.csr_array, unit: np.ndarray) -> Iterator[_Bucket]:
    """Group units whose numbers of rows and of columns are alike."""
    n_units, size = int(unit.max()) + 1, columns.shape[1]
    member = sparse.csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))))
    support = sparse.csr_array(member @ abs(columns))
    support.sort_indices()
    height, width = np.bincount(unit, minlength=n_units), np.diff(support.indptr)
    order = np.lexsort((width, height))
    order = order[height[order] > 0]
    by_unit = np.argsort(unit, kind="stable")
    first = np.concatenate([[0], np.cumsum(height)])
    start = 0
    while start < len(order):
        n, w = height[order[start]] * _PADDED, width[order[start]] * _PADDED
        fits = (height[order[start:]] <= n) & (width[order[start:]] <= w)
        stop = start + (len(fits) if fits.all() else int(np.argmin(fits)))
        stop = min(stop, start + max(1, int(_ENTRIES // w**2)))
        chosen = order[start:stop]
        shape = len(chosen), int(height[chosen].max()), int(width[chosen].max())
        rows, at = np.zeros(shape[:2], dtype=int), np.full((shape[0], shape[2]), size)
        known, values = np.zeros(shape[:2], dtype=bool), np.zeros(shape)
        for k, u in enumerate(chosen):
            mine = by_unit[first[u] : first[u + 1]]
            place = support.indices[support.indptr[u] : support.indptr[u + 1]]
            rows[k, : len(mine)], known[k, : len(mine)], at[k, : len(place)] = mine, True, place
            values[k, : len(mine), : len(place)] = columns[mine][:, place].toarray()
        yield _Bucket(rows, known, at, values)
        start = stop


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


def _factor_precision(factor: Any, theta: Any) -> np.ndarray:
    """Return the prior precision of all effects of a factor, level by level."""
    root = np.asarray(theta.roots[factor.name])
    own = np.linalg.inv(root @ root.T)
    if factor.surface is None:
        return np.asarray(np.kron(np.eye(factor.n_levels), own))
    return np.asarray(own[0, 0] * _surface_precision(factor, theta))


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
