"""The spatial lag of rows, and which levels of a group are neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import splu

from spatialclusters.errors import WeightsError
from spatialclusters.logdet import Spectrum, spectrum
from spatialclusters.weights import Weights

__all__ = ["LevelGraph", "RowLag", "block_weights", "level_graph", "row_lag"]


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
    position = {region: i for i, region in enumerate(weights.regions)}
    region = np.array([position[r] for r in ids["region"]])
    block = pd.factorize(ids["cluster"])[0] if "cluster" in ids else np.zeros(len(region), int)
    parts = [np.flatnonzero(block == k) for k in range(int(block.max()) + 1)]
    pieces = [weights.matrix[region[part]][:, region[part]] for part in parts]
    back = np.argsort(np.concatenate(parts))
    matrix = sparse.block_diag(pieces, format="csr")[back][:, back]
    if weights.row_standardized and restandardize:
        total = np.asarray(matrix.sum(axis=1)).ravel()
        inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
        matrix = sparse.diags_array(inverse) @ matrix
    return sparse.csr_array(matrix)


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
    names = [name for name in ("region", "cluster") if name in ids]
    table = pd.DataFrame({name: ids[name] for name in names})
    cell = table.groupby(names, sort=False).ngroup().to_numpy()
    cells = table.drop_duplicates()
    inside = {name: cells[name].to_numpy(dtype=object) for name in names}
    return RowLag(block_weights(weights, inside, restandardize=restandardize), cell)


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
