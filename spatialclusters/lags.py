"""The spatial lag of rows, and which levels of a group are neighbors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import splu

from spatialclusters.blends import Combination, on_one_pattern
from spatialclusters.errors import WeightsError
from spatialclusters.logdet import DenseDeterminant, Spectrum, dense_determinant, spectrum
from spatialclusters.weights import Weights

__all__ = [
    "BlendedLag",
    "LevelGraph",
    "RowLag",
    "blended_lag",
    "block_weights",
    "level_graph",
    "row_lag",
]


@dataclass(frozen=True, eq=False)
class RowLag:
    r"""The lag of N rows through the means of their G cells, :math:`L = S W M`.

    A cell is a region, or a region-cluster; S (N, G) says which rows are in it and
    :math:`M = (S'S)^{-1} S'`. With one row in every cell, L is W in the order of the rows.

    Attributes
    ----------
    weights
        W over cells, (G, G), one block per cluster.
    cell
        Cell of every row, (N,).

    Examples
    --------
    >>> lag = RowLag(sparse.csr_array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 0, 1]))
    >>> (lag @ np.array([1.0, 3.0, 5.0])).tolist()
    [5.0, 5.0, 2.0]
    """

    weights: sparse.csr_array
    cell: np.ndarray

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of rows in each cell, (G,)."""
        return np.bincount(self.cell, minlength=self.weights.shape[0])

    @property
    def n_rows(self) -> int:
        """Number of rows N."""
        return len(self.cell)

    @cached_property
    def spectrum(self) -> Spectrum:
        """Log determinants of I - rho W over cells, and where rho may lie."""
        return spectrum(self.weights)

    @property
    def isolates(self) -> int:
        """Number of cells without neighbors."""
        return int((np.diff(self.weights.indptr) == 0).sum())

    @cached_property
    def components(self) -> np.ndarray:
        """Component of every row, (N,): rows of different components never meet in L."""
        found = sparse.csgraph.connected_components(self.weights, connection="weak")[1]
        return np.asarray(found[self.cell], dtype=np.int64)

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """L, sparse (N, N)."""
        rows = np.arange(self.n_rows)
        member = sparse.csr_array((np.ones(self.n_rows), (rows, self.cell)))
        mean = sparse.csr_array((1.0 / self.counts[self.cell], (self.cell, rows)))
        return sparse.csr_array(member @ self.weights @ mean)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return M x: the mean over each cell, (G, ...)."""
        flat = values.reshape(self.n_rows, -1)
        total = np.zeros((len(self.counts), flat.shape[1]))
        np.add.at(total, self.cell, flat)
        return np.asarray(total / self.counts[:, None]).reshape(-1, *values.shape[1:])

    def __matmul__(self, values: np.ndarray) -> np.ndarray:
        """Return L x, (N, ...)."""
        return np.asarray((self.weights @ self.means(values))[self.cell])

    def solve(self, rho: float, values: np.ndarray) -> np.ndarray:
        r"""Return :math:`(I - \rho L)^{-1} x = x + \rho S (I - \rho W)^{-1} W M x`."""
        if rho == 0.0:
            return values
        system = sparse.csc_array(sparse.eye_array(len(self.counts)) - rho * self.weights)
        inner = splu(system).solve(np.asarray(self.weights @ self.means(values)))
        return np.asarray(values + rho * inner[self.cell])


def block_weights(
    weights: Weights, ids: Mapping[str, np.ndarray], *, restandardize: bool = True
) -> sparse.csr_array:
    """Lay W out over rows, one block per cluster over the regions that have it.

    Parameters
    ----------
    weights
        Over all regions of the panel.
    ids
        ``region`` of each row, once per block, and ``cluster`` if there are blocks.
    restandardize
        Divide rows of standardized weights by their sums again, since a block lacks
        some neighbors; otherwise absent neighbors count 0.
    """
    matrix = _layout(weights, ids)(weights.matrix)
    if weights.row_standardized and restandardize:
        total = np.asarray(matrix.sum(axis=1)).ravel()
        inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
        matrix = sparse.diags_array(inverse) @ matrix
    return sparse.csr_array(matrix)


def _layout(
    weights: Weights, ids: Mapping[str, np.ndarray]
) -> Callable[[sparse.csr_array], sparse.csr_array]:
    """Return the function that lays a matrix over regions out over rows, block by block."""
    position = {region: i for i, region in enumerate(weights.regions)}
    region = np.array([position[r] for r in ids["region"]])
    block = pd.factorize(ids["cluster"])[0] if "cluster" in ids else np.zeros(len(region), int)
    parts = [np.flatnonzero(block == k) for k in range(int(block.max()) + 1)]
    back = np.argsort(np.concatenate(parts))

    def laid_out(matrix: sparse.csr_array) -> sparse.csr_array:
        pieces = [matrix[region[part]][:, region[part]] for part in parts]
        return sparse.csr_array(sparse.block_diag(pieces, format="csr")[back][:, back])

    return laid_out


def row_lag(weights: Weights, ids: Mapping[str, np.ndarray], *, restandardize: bool) -> RowLag:
    """Return the lag of rows with these ids.

    Parameters
    ----------
    weights
        Over all regions of the panel.
    ids
        ``region`` of each row and, if there are blocks, ``cluster``.
    restandardize
        As for :func:`block_weights`.
    """
    cell, inside = _cells(ids)
    return RowLag(block_weights(weights, inside, restandardize=restandardize), cell)


def _cells(ids: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the cell of every row, and the ids of the cells."""
    names = [name for name in ("region", "cluster") if name in ids]
    table = pd.DataFrame({name: ids[name] for name in names})
    cell = table.groupby(names, sort=False).ngroup().to_numpy()
    cells = table.drop_duplicates()
    return cell, {name: cells[name].to_numpy(dtype=object) for name in names}


@dataclass(frozen=True, eq=False)
class BlendedLag:
    r"""The lag of N rows by weights that are estimated, :math:`L(\psi) = \sum_k c_k(\psi) L_k`.

    Attributes
    ----------
    combination
        c as a function of :math:`\psi`.
    parts
        The K lags, over the same cells.
    """

    combination: Combination
    parts: tuple[RowLag, ...]

    @property
    def cell(self) -> np.ndarray:
        """Cell of every row, (N,)."""
        return self.parts[0].cell

    def at(self, psi: Any) -> RowLag:
        """Return the lag at one value of the parameter."""
        pattern, values = self._stacked
        c = self.combination.coefficients(np.asarray(psi, dtype=float))
        parts = (c @ values, pattern.indices, pattern.indptr)
        return RowLag(sparse.csr_array(parts, shape=pattern.shape), self.cell)

    @cached_property
    def determinant(self) -> DenseDeterminant:
        """Log determinants of I - rho W(psi) over cells."""
        return dense_determinant(*self._stacked)

    @cached_property
    def _stacked(self) -> tuple[sparse.csr_array, np.ndarray]:
        return on_one_pattern([part.weights for part in self.parts])


def blended_lag(
    weights: Weights, ids: Mapping[str, np.ndarray], *, restandardize: bool
) -> BlendedLag:
    """Return the lag of rows with these ids by weights with a blend.

    Blocks are restandardized, or not, matrix by matrix.

    Parameters
    ----------
    weights, ids, restandardize
        As for :func:`row_lag`.
    """
    assert weights.blend is not None  # callers have checked
    cell, inside = _cells(ids)
    layout, blend = _layout(weights, inside), weights.blend
    if restandardize:
        blend = blend.restricted(layout)
        matrices = blend.matrices
    else:
        matrices = tuple(map(layout, blend.matrices))
    return BlendedLag(blend.combination, tuple(RowLag(matrix, cell) for matrix in matrices))


@dataclass(frozen=True, eq=False)
class LevelGraph:
    """Neighbors among the J levels of a group.

    Attributes
    ----------
    adjacency
        Symmetric, (J, J); levels of different pieces are never neighbors.
    piece
        Piece of every level, (J,): the cluster for effects of region-clusters, else 0.
    """

    adjacency: sparse.csr_array
    piece: np.ndarray


def level_graph(
    weights: Weights, regions: np.ndarray, pieces: np.ndarray, links: str, where: str
) -> LevelGraph:
    """Return which levels, by their regions and pieces, are neighbors.

    Links of row-standardized weights count one each. One-way links are an error, unless
    ``links`` says that either direction (``"union"``) or both (``"mutual"``) make neighbors.

    Raises
    ------
    WeightsError
        The weights have one-way links or different weights in the two directions.
    """
    matrix: Any = weights.matrix
    if weights.row_standardized:
        matrix = (matrix != 0).astype(float)
    one_way = int(((matrix - matrix.T) != 0).nnz // 2)
    if one_way and links == "symmetric":
        msg = (
            f"{where}: got weights that differ between the two directions of {one_way} pairs; expected symmetric ones. "
            f'Add links = "union" (neighbors if either is linked to the other) or "mutual".'
        )
        raise WeightsError(msg)
    matrix = matrix.maximum(matrix.T) if links == "union" else matrix.minimum(matrix.T)
    place = {region: i for i, region in enumerate(weights.regions)}
    at = np.array([place[region] for region in regions])
    parts = [np.flatnonzero(pieces == k) for k in range(int(pieces.max()) + 1)]
    matrix = sparse.csr_array(matrix)
    blocks = [matrix[at[part]][:, at[part]] for part in parts]
    back = np.argsort(np.concatenate(parts))
    return LevelGraph(sparse.block_diag(blocks, format="csr")[back][:, back], pieces)
