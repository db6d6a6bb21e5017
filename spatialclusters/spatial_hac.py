"""Kernels over regions, and the sandwich that lets what neighbors share count as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from scipy import sparse

from spatialclusters.centroids import region_centroids
from spatialclusters.errors import FitError

if TYPE_CHECKING:
    import geopandas as gpd

    from spatialclusters.panel import Panel
    from spatialclusters.result import Fit

__all__ = ["KERNELS", "SpatialKernel", "kernel_sandwich", "spatial_kernel"]

KERNELS: Final = ("bartlett", "uniform")
"""Shapes of a kernel: triangular, and one up to the bandwidth."""


@dataclass(frozen=True, eq=False)
class SpatialKernel:
    """How much two regions count as one, by the distance between their centroids.

    Attributes
    ----------
    geometry
        Shapes indexed by region.
    shape
        ``"bartlett"`` or ``"uniform"``.
    bandwidth
        In km (in map units without a reference system), or None.
    neighbors
        The bandwidth of a region is its distance to this many nearest, or None.
    """

    geometry: gpd.GeoSeries
    shape: str
    bandwidth: float | None
    neighbors: int | None

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.neighbors is not None:
            return f"{self.shape} {self.neighbors} neighbors"
        return (
            f"{self.shape} {self.bandwidth:g} {'map units' if self.geometry.crs is None else 'km'}"
        )

    def between(self, regions: Sequence[str]) -> tuple[sparse.csr_array, tuple[str, ...]]:
        """Return the kernel between these regions, (R, R), and what distances are.

        Symmetric, with ones on the diagonal.

        Raises
        ------
        FitError, WeightsError
            Fewer regions than neighbors, or regions without a shape.
        """
        from scipy.spatial import KDTree

        centroids = region_centroids(self.geometry, regions, "Conley errors")
        n, tree = len(regions), KDTree(centroids.points)
        if self.neighbors is None:
            assert self.bandwidth is not None  # one of both is given
            widths, farthest = np.full(n, self.bandwidth), centroids.chord(self.bandwidth)
        else:
            if self.neighbors >= n:
                msg = f"Conley errors: got {self.neighbors} neighbors for {n} regions; expected fewer."
                raise FitError(f"{msg} Choose a smaller number.")
            chords = tree.query(centroids.points, k=self.neighbors + 1)[0][:, -1]
            widths, farthest = centroids.distance(chords), float(chords.max())
        pairs = tree.query_pairs(farthest * (1.0 + 1e-12), output_type="ndarray")
        i, j = np.concatenate([pairs, pairs[:, ::-1], np.tile(np.arange(n)[:, None], 2)]).T
        apart = np.linalg.norm(centroids.points[i] - centroids.points[j], axis=1)
        share = np.divide(
            centroids.distance(apart), widths[i], out=np.zeros(len(i)), where=apart > 0.0
        )
        inside = share <= 1.0 + 1e-12
        values = np.where(inside, 1.0 if self.shape == "uniform" else 1.0 - share, 0.0)
        kernel = sparse.csr_array((values, (i, j)), shape=(n, n))
        # each region of a pair has a bandwidth of its own: the mean of both
        return sparse.csr_array(0.5 * (kernel + kernel.T)), centroids.notes


def spatial_kernel(
    source: Fit | Panel,
    bandwidth: float | None = None,
    *,
    neighbors: int | None = None,
    kernel: Literal["bartlett", "uniform"] = "bartlett",
) -> SpatialKernel:
    r"""Choose the kernel of Conley's errors.

    .. math:: K_{rs} = \max(0, 1 - d_{rs} / h) \text{ (Bartlett)} \quad \text{or} \quad
              1[d_{rs} \le h] \text{ (uniform)}

    with :math:`d_{rs}` the distance between centroids (great circles for longitude and
    latitude), and h the bandwidth, or the distance of r to its k-th nearest region among those
    in the sample; then K is made symmetric, which leaves variances as they are.

    Parameters
    ----------
    source
        A fit or a panel with geometry.
    bandwidth
        h in km, or in map units without a reference system.
    neighbors
        k, in place of a bandwidth.
    kernel
        ``"bartlett"`` or ``"uniform"``.

    Raises
    ------
    FitError
        There is no geometry, not exactly one of bandwidth and neighbors, or they or the kernel
        are out of range.

    References
    ----------
    Conley (1999), doi:10.1016/S0304-4076(98)00084-0. Kelejian and Prucha (2007),
    doi:10.1016/j.jeconom.2006.09.005.

    Examples
    --------
    >>> import geopandas, shapely, types
    >>> points = shapely.points([0, 1, 3], [0, 0, 0])  # one degree is 111.195 km
    >>> shapes = geopandas.GeoSeries(points, index=["a", "b", "c"], crs="EPSG:4326")
    >>> chosen = spatial_kernel(types.SimpleNamespace(geometry=shapes), 150)
    >>> chosen.label, chosen.between(["a", "b", "c"])[0].toarray()[0].round(3).tolist()
    ('bartlett 150 km', [1.0, 0.259, 0.0])
    """
    where = "Conley errors"
    geometry = source.geometry
    if geometry is None:
        msg = f"{where}: got no geometry; expected one shape per region."
        raise FitError(f"{msg} Fit with --regions FILE, read_panel(..., regions=FILE).")
    for wrong, got, expected in (
        (
            (bandwidth is None) == (neighbors is None),
            f"bandwidth {bandwidth} and {neighbors} neighbors",
            "one of them",
        ),
        (
            bandwidth is not None and not (math.isfinite(bandwidth) and bandwidth > 0),
            f"bandwidth {bandwidth}",
            "a positive number of km",
        ),
        (neighbors is not None and neighbors < 1, f"{neighbors} neighbors", "at least 1"),
        (kernel not in KERNELS, f"kernel {kernel!r}", "'bartlett' or 'uniform'"),
    ):
        if wrong:
            raise FitError(f"{where}: got {got}; expected {expected}. Correct it.")
    return SpatialKernel(geometry, kernel, bandwidth, neighbors)


def kernel_sandwich(
    bread: np.ndarray, scores: np.ndarray, codes: np.ndarray, kernel: Any
) -> np.ndarray:
    r"""Return the sandwich with the scores of all pairs of rows, weighted by their regions.

    .. math:: V = A \Big(\sum_{r,s} K_{rs} S_r S_s'\Big) A, \quad
              S_r = \sum_{i \in r} x_i e_i, \quad A = (X'X)^{-1}

    Rows of one region count as one, as with clustered errors: with K = I this is the
    sandwich clustered by region, without corrections for small samples.

    Parameters
    ----------
    bread
        A, (k, k).
    scores
        Covariates times residuals, (N, k).
    codes
        Region of each row, (N,).
    kernel
        K, (R, R).

    References
    ----------
    Conley (1999), doi:10.1016/S0304-4076(98)00084-0.

    Examples
    --------
    >>> scores, codes = np.array([[1.0], [2.0], [-1.0]]), np.array([0, 0, 1])
    >>> kernel_sandwich(np.eye(1), scores, codes, np.array([[1.0, 0.5], [0.5, 1.0]])).item()
    7.0
    """
    sums = np.zeros((kernel.shape[0], scores.shape[1]))
    np.add.at(sums, codes, scores)
    return np.asarray(bread @ (sums.T @ (kernel @ sums)) @ bread)
