"""Where regions are, and how far apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from spatialclusters.errors import WeightsError, listing

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

__all__ = ["Centroids", "region_centroids", "region_shapes"]

_DIAMETER_KM: Final = 2 * 6371.0088  # mean radius of GRS 80 and WGS 84 (Moritz 2000)


@dataclass(frozen=True, eq=False)
class Centroids:
    r"""Centroids of regions, such that straight lines between them say how far they are apart.

    On the sphere a straight line is a chord of length :math:`2R \sin(d / 2R)` under the great
    circle d (R = 6371.0088 km); in the plane it is d itself.

    Attributes
    ----------
    points
        On the sphere (n, 3) in km; in the plane (n, 2) in km, or in map units.
    sphere
        Whether they are longitudes and latitudes.
    unit
        ``"km"``, or ``"map units"`` without a reference system.
    notes
        What distances are, in sentences.
    """

    points: NDArray[np.float64]
    sphere: bool
    unit: str
    notes: tuple[str, ...]

    def chord(self, distance: float) -> float:
        """Return the straight line for a distance; the diameter for half of the way around."""
        if not self.sphere:
            return distance
        return _DIAMETER_KM * math.sin(min(distance / _DIAMETER_KM, math.pi / 2))

    def distance(self, chord: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return distances for straight lines."""
        if not self.sphere:
            return chord
        return np.asarray(_DIAMETER_KM * np.arcsin(np.minimum(chord / _DIAMETER_KM, 1.0)))


def region_shapes(
    geometry: gpd.GeoSeries | None, regions: Sequence[str], where: str = "weights"
) -> gpd.GeoSeries:
    """Return the shapes of regions, in their order, or say what is missing.

    Raises
    ------
    WeightsError
        There is no geometry, or none for some region.
    """
    if geometry is None:
        msg = f"{where}: got a panel without geometry; expected one shape per region."
        raise WeightsError(f"{msg} Add --regions FILE, read_panel(..., regions=FILE).")
    shapes = geometry.reindex(list(regions))
    empty = shapes.index[shapes.isna() | shapes.is_empty]
    if len(empty):
        msg = f"{where}: got no geometry for {listing(empty)}; expected one shape per region."
        raise WeightsError(f"{msg} Add the shapes or drop the regions.")
    return shapes


def region_centroids(
    geometry: gpd.GeoSeries | None, regions: Sequence[str], where: str = "weights"
) -> Centroids:
    r"""Return the centroids of regions on the flat map.

    With longitude :math:`\lambda` and latitude :math:`\varphi`, distances are great circles
    in km (haversine); projected, straight lines in km; without a reference system, straight
    lines in map units.

    .. math:: d = 2R \arcsin\sqrt{\sin^2\tfrac{\Delta\varphi}{2}
              + \cos\varphi_i \cos\varphi_j \sin^2\tfrac{\Delta\lambda}{2}}

    Parameters
    ----------
    geometry
        Shapes indexed by region.
    regions
        Those wanted, in order.
    where
        What messages start with.

    Raises
    ------
    WeightsError
        There is no geometry, none for some region, or a latitude beyond 90 degrees.

    References
    ----------
    Moritz, H. (2000). Geodetic Reference System 1980. doi:10.1007/s001900050278

    Examples
    --------
    >>> import geopandas, shapely
    >>> points = shapely.points([0, 1], [0, 0])
    >>> shapes = geopandas.GeoSeries(points, index=["a", "b"], crs="EPSG:4326")
    >>> found = region_centroids(shapes, ["a", "b"])
    >>> found.distance(np.linalg.norm(found.points[0] - found.points[1])).round(3).item()
    111.195
    """
    import shapely

    shapes = region_shapes(geometry, regions, where)
    xy = shapely.get_coordinates(shapely.centroid(shapes.to_numpy()))
    crs = shapes.crs
    if crs is None:
        note = "Distances are in map units: the geometry has no reference system."
        return Centroids(xy, False, "map units", (note,))
    xy = xy * crs.axis_info[0].unit_conversion_factor  # to radians or meters
    if not crs.is_geographic:
        note = f"Distances are straight lines in km in {crs.name}."
        return Centroids(xy / 1000, False, "km", (note,))
    lon, lat = xy.T
    beyond = [r for r, y in zip(regions, lat, strict=True) if abs(y) > math.pi / 2]
    if beyond:
        msg = f"{where}: got latitudes beyond 90 degrees for {listing(beyond)}; expected lon, lat."
        raise WeightsError(f"{msg} Correct the reference system.")
    sphere = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    notes = ["Distances are great circles in km between centroids of the longitude-latitude map."]
    wide = shapes.index[(shapes.bounds["maxx"] - shapes.bounds["minx"] > 180).to_numpy()]
    if len(wide):
        notes.append(f"Centroids are off where shapes cross the antimeridian: {listing(wide)}.")
    return Centroids(sphere * _DIAMETER_KM / 2, True, "km", tuple(notes))
