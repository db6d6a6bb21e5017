"""Region geometry -> Weights: contiguity, nearest neighbors, distance bands, distance decay."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from spatialclusters.blends import Decay
from spatialclusters.centroids import region_centroids, region_shapes
from spatialclusters.errors import WeightsError, counted, listing, suggestion
from spatialclusters.weights import (
    Weights,
    align,
    build_weights,
    from_graph,
    mix_weights,
    read_weights,
)

if TYPE_CHECKING:
    from spatialclusters.panel import Panel

__all__ = ["contiguity", "distance_band", "distance_decay", "knn", "parse_weights"]

_TIE = 1e-9  # relative: rounding leaves equal distances some 1e-13 apart
_SHORTEST, _LONGEST = 1e-6, 1e9  # distances that a model file can hold
_ROUNDING = 1e-12  # relative: a distance this close to the threshold is at it


def contiguity(panel: Panel, *, rook: bool = False, row_standardize: bool = True) -> Weights:
    r"""Return contiguity weights: :math:`a_{ij} = 1` if polygons i and j touch.

    They touch if they share a vertex (queen) or two successive vertices (rook), exactly.
    A note counts polygons that meet without a shared vertex, as simplified ones may.

    Raises
    ------
    WeightsError
        There is no geometry, or it is not made of polygons.

    Examples
    --------
    >>> import geopandas, shapely, types
    >>> boxes = [shapely.box(0, 0, 1, 1), shapely.box(1, 1, 2, 2), shapely.box(2, 1, 3, 2)]
    >>> shapes = geopandas.GeoSeries(boxes, index=["a", "b", "c"])
    >>> panel = types.SimpleNamespace(geometry=shapes, regions=("a", "b", "c"))
    >>> contiguity(panel).n_links, contiguity(panel, rook=True).isolates
    (4, ('a',))
    """
    from libpysal.graph import Graph

    kind = "rook" if rook else "queen"
    shapes = region_shapes(panel.geometry, panel.regions)
    other = sorted(set(shapes.geom_type) - {"Polygon", "MultiPolygon"})
    if other:
        msg = f"{kind} weights: got {listing(other)} geometry; expected polygons."
        raise WeightsError(f"{msg} Use knn:K or distance:KM for points.")
    graph = Graph.build_contiguity(shapes, rook=rook)
    weights = from_graph(graph, kind, panel.regions, row_standardize)
    meet, too = shapes.sindex.query(shapes.to_numpy(), predicate="intersects")
    missed = 0 if rook else int((meet < too).sum()) - weights.n_links // 2
    if not missed:
        return weights
    note = f"{counted(missed, 'pair')} of polygons that meet share no vertex and are no neighbors."
    return replace(weights, notes=(note,))


def knn(panel: Panel, k: int, *, row_standardize: bool = True) -> Weights:
    """Return weights in which each region's neighbors are the k regions nearest to it.

    Distances are those of :func:`distance_band`. Of regions equally far away at the
    k-th place, the smaller ids are taken: the order of regions does not matter.

    Raises
    ------
    WeightsError
        There is no geometry, k is not in 1 ... n - 1, or two centroids coincide.

    Examples
    --------
    >>> import geopandas, shapely, types
    >>> shapes = geopandas.GeoSeries(shapely.points([0, 1, 5], [0, 0, 0]), index=["a", "b", "c"])
    >>> panel = types.SimpleNamespace(geometry=shapes, regions=("a", "b", "c"))
    >>> knn(panel, 1).matrix.toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    from scipy.spatial import KDTree

    regions = panel.regions
    centroids = region_centroids(panel.geometry, regions)
    points, notes = centroids.points, list(centroids.notes)
    if not 1 <= k < len(regions):
        msg = f"knn weights: got k = {k} for {len(regions)} regions; expected 1 <= k < that."
        raise WeightsError(f"{msg} Choose such a k.")
    tree = KDTree(points)
    distance = tree.query(points, k=k + 1)[0]  # column 0 is the region itself
    twins = np.flatnonzero(distance[:, 1] == 0)
    if len(twins):
        got = f"the same centroid for {listing(regions[i] for i in twins)}"
        msg = f"knn weights: got {got}; expected different ones. Merge them or use distance:KM."
        raise WeightsError(msg)
    chosen: list[int] = []
    ties = 0
    for i, radius in enumerate(distance[:, k]):
        found = np.setdiff1d(tree.query_ball_point(points[i], radius * (1 + _TIE)), [i])
        inside = np.linalg.norm(points[found] - points[i], axis=1) < radius * (1 - _TIE)
        edge = sorted(found[~inside].tolist(), key=regions.__getitem__)
        chosen += [*found[inside].tolist(), *edge[: k - int(inside.sum())]]
        ties += len(found) > k
    if ties:
        notes.append(f"Ties at the k-th neighbor were broken by id at {counted(ties, 'region')}.")
    links = np.repeat(np.arange(len(regions)), k), np.array(chosen), np.ones(len(chosen))
    return build_weights(regions, links, f"knn:{k}", notes, row_standardize)


def distance_band(panel: Panel, threshold: float, *, row_standardize: bool = True) -> Weights:
    r"""Return weights :math:`a_{ij} = 1` if centroids are at most ``threshold`` apart.

    Distances are those of :func:`~spatialclusters.centroids.region_centroids`: great circles
    in km; projected, straight lines in km; without a reference system, in map units.

    Raises
    ------
    WeightsError
        There is no geometry, the threshold is not positive and finite, or a latitude
        is beyond 90 degrees.

    Examples
    --------
    >>> import geopandas, shapely, types
    >>> points = shapely.points([0, 1, 3], [0, 0, 0])  # one degree is 111.195 km
    >>> shapes = geopandas.GeoSeries(points, index=["a", "b", "c"], crs="EPSG:4326")
    >>> panel = types.SimpleNamespace(geometry=shapes, regions=("a", "b", "c"))
    >>> distance_band(panel, 112).isolates, distance_band(panel, 111).n_links
    (('c',), 0)
    """
    from scipy.spatial import KDTree

    if not _SHORTEST <= threshold < _LONGEST:
        expected = f"a number from {_SHORTEST:g} to {_LONGEST:g}"
        msg = f"distance weights: got threshold {threshold}; expected {expected}."
        raise WeightsError(f"{msg} Write for example distance:150.")
    centroids = region_centroids(panel.geometry, panel.regions)
    points, notes = centroids.points, list(centroids.notes)
    tree, chord = KDTree(points), centroids.chord(threshold)
    pairs = tree.query_pairs(chord * (1 + _ROUNDING), output_type="ndarray")
    focal, neighbor = np.concatenate([pairs, pairs[:, ::-1]]).T
    alone = len(points) - len(np.unique(focal))
    if alone and len(points) > 1:
        nearest = centroids.distance(tree.query(points, k=2)[0][:, 1])
        notes.append(
            f"{alone} of {len(points)} regions have no neighbor within {threshold:g} "
            f"{centroids.unit}; the nearest two regions are {nearest.min():.6g} {centroids.unit} "
            f"apart. From threshold {nearest.max():.6g} up every "
            "region has a neighbor."
        )
    links = focal, neighbor, np.ones(len(focal))
    return build_weights(
        panel.regions, links, f"distance:{_decimal(threshold)}", notes, row_standardize
    )


def distance_decay(
    panel: Panel,
    cutoff_km: float,
    form: Literal["power", "exponential"] = "power",
    delta: tuple[float, float] = (0.0, 4.0),
) -> Weights:
    r"""Return weights whose fall with distance is estimated.

    .. math:: w_{ij} \propto d_{ij}^{-\delta} \quad \text{or} \quad e^{-\delta d_{ij}}

    within the cutoff, rows summing to one. Distances are those of :func:`distance_band`, in
    units of the median distance to the nearest region. Delta has a beta prior, stretched over
    its range.

    Parameters
    ----------
    panel
        With geometry.
    cutoff_km
        Largest distance of neighbors.
    form
        ``"power"`` or ``"exponential"``.
    delta
        Range of :math:`\delta`; 0 means that all regions within the cutoff count alike.

    Raises
    ------
    WeightsError
        There is no geometry, the cutoff is not positive and finite, the range is not within
        0 and infinity, two centroids coincide, or the form is neither.

    References
    ----------
    Halleck Vega and Elhorst (2015), doi:10.1111/jors.12188.

    Examples
    --------
    >>> import geopandas, shapely, types
    >>> points = shapely.points([0, 1, 3], [0, 0, 0])  # one degree is 111.195 km
    >>> shapes = geopandas.GeoSeries(points, index=["a", "b", "c"], crs="EPSG:4326")
    >>> panel = types.SimpleNamespace(geometry=shapes, regions=("a", "b", "c"))
    >>> weights = distance_decay(panel, 250, delta=(0.0, 2.0))
    >>> round(weights.blend.unit_km, 3), weights.matrix.toarray().round(3).tolist()[1]
    (111.195, [0.667, 0.0, 0.333])
    """
    from scipy.spatial import KDTree

    where = f"decay-{form} weights"
    low, high = map(float, delta)
    for wrong, got, expected in (
        (form not in ("power", "exponential"), f"form {form!r}", "'power' or 'exponential'"),
        (
            not _SHORTEST <= cutoff_km < _LONGEST,
            f"cutoff {cutoff_km}",
            f"a number of km from {_SHORTEST:g} to {_LONGEST:g}, as in decay-power:300",
        ),
        (not (0.0 <= low < high < math.inf), f"delta in ({low:g}, {high:g})", "0 <= low < high"),
    ):
        if wrong:
            raise WeightsError(f"{where}: got {got}; expected {expected}. Correct it.")
    centroids = region_centroids(panel.geometry, panel.regions)
    points, notes, km = centroids.points, list(centroids.notes), centroids.distance
    n, tree = len(points), KDTree(points)
    nearest = tree.query(points, k=2)[0][:, 1] if n > 1 else np.ones(1)
    if (twins := np.flatnonzero(nearest == 0)).size:
        got = f"the same centroid for {listing(panel.regions[i] for i in twins)}"
        raise WeightsError(f"{where}: got {got}; expected different ones. Merge them.")
    unit = float(np.median(km(nearest)))
    pairs = tree.query_pairs(centroids.chord(cutoff_km) * (1 + _ROUNDING), output_type="ndarray")
    focal, neighbor = np.concatenate([pairs, pairs[:, ::-1]]).T
    apart = km(np.linalg.norm(points[focal] - points[neighbor], axis=1)) / unit
    distances = sparse.csr_array((apart, (focal, neighbor)), shape=(n, n))
    if not distances.nnz:
        msg = f"{where}: got no two regions within {cutoff_km:g} km; expected some."
        raise WeightsError(f"{msg} Choose a cutoff above {km(nearest).min():.6g}.")
    if (alone := int((np.diff(distances.indptr) == 0).sum())) and n > 1:
        far = float(km(nearest).max())
        notes.append(
            f"{counted(alone, 'region')} without neighbors; from cutoff {far:.6g} up there is none."
        )
    blend = Decay(form, distances, float(cutoff_km), unit, (low, high))
    kind = f"decay-{form}:{_decimal(cutoff_km)}"
    return Weights(tuple(panel.regions), blend.reference(), kind, True, tuple(notes), blend)


def parse_weights(text: str, panel: Panel, *, row_standardize: bool = True) -> Weights:
    """Return the weights that ``--weights`` names, over the panel's regions.

    ``text`` is ``queen``, ``rook``, ``knn:K``, ``distance:KM``, or the path of a ``.gal``
    file or an edge table (``.csv``, ``.parquet``, ``.dta``); or weights that are estimated:
    ``decay-power:KM``, ``decay-exponential:KM``, or a mixture such as ``queen + knn:4``.

    Raises
    ------
    WeightsError
        The text is none of these, or its weights cannot be built, read or aligned.

    Examples
    --------
    >>> parse_weights("quen", panel=None)
    Traceback (most recent call last):
    spatialclusters.errors.WeightsError: --weights: got 'quen'; expected queen, rook, ...
    """
    if " + " in text:
        parts = [
            parse_weights(part, panel, row_standardize=row_standardize)
            for part in text.split(" + ")
        ]
        return mix_weights(*parts)
    name, _, number = text.strip().partition(":")
    if text.strip() in ("queen", "rook"):
        return contiguity(panel, rook=name == "rook", row_standardize=row_standardize)
    if name in ("knn", "distance", "decay-power", "decay-exponential"):
        try:
            size = int(number[:20]) if name == "knn" else float(number)
        except ValueError as cause:
            msg = f"--weights: got {listing([text])}; expected a number as in {name}:5. Correct it."
            raise WeightsError(msg) from cause
        if name == "knn":
            return knn(panel, int(size), row_standardize=row_standardize)
        if name == "distance":
            return distance_band(panel, size, row_standardize=row_standardize)
        if not row_standardize:
            msg = f"--weights: got {listing([text])} without row-standardization; expected it."
            raise WeightsError(f"{msg} Leave out --no-row-standardize.")
        return distance_decay(panel, size, "power" if name == "decay-power" else "exponential")
    if Path(text).suffix.lower() in (".gal", ".csv", ".parquet", ".dta"):
        return align(read_weights(text, row_standardize=row_standardize), panel.regions)
    known = ["queen", "rook", "knn:K", "distance:KM", "decay-power:KM", "decay-exponential:KM"]
    raise WeightsError(
        f"--weights: got {listing([text])}; expected {', '.join(known)} or a .gal, .csv, "
        f".parquet or .dta file.{suggestion(name, known)} Correct it."
    )


def _decimal(number: float) -> str:
    """Write a distance so that a model file can hold it and nothing is lost.

    Examples
    --------
    >>> _decimal(150.0), _decimal(1234567.25)
    ('150', '1234567.25')
    """
    return f"{number:.9f}".rstrip("0").rstrip(".")
