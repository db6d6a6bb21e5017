"""Files of region polygons or points -> shapes in the order of the regions.

GDAL chooses its driver by what a file holds, and some of its drivers open further files or
addresses that the file names, whatever the file is called. So only formats of data are read, and
their first bytes are looked at before GDAL is.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from spatialclusters.errors import PanelError, close_to, listing, renaming

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["match_shapes", "named_shapes", "read_shapes"]

# NUL ends what GDAL's drivers of remote data look at, so nothing after these can call for them
_STARTS: Final[Mapping[str, bytes]] = {
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\0\0\x27\x0a\0",
    ".fgb": b"fgb\x03fgb",
}
_TEXT: Final = (".geojson", ".json")
_KINDS: Final = (*_TEXT, *_STARTS, ".parquet", ".zip")
_BESIDE_A_SHAPEFILE: Final = frozenset(
    {".shp", ".shx", ".dbf", ".prj", ".cpg", ".sbn", ".sbx", ".qix", ".qpj", ".xml", ".txt"}
)
_UNREADABLE: Final = (  # pyogrio's are RuntimeErrors; a feature may lack anything
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, zipfile.BadZipFile,
)  # fmt: skip
_LONGITUDE_LATITUDE: Final = 4326  # of GeoJSON that names no reference system (RFC 7946)


def read_shapes(path: Path) -> gpd.GeoDataFrame:
    """Read a file of polygons or points: GeoJSON, GeoPackage, shapefile, FlatGeobuf or GeoParquet.

    Raises
    ------
    PanelError
        The file is missing, of another kind whatever it is called, or cannot be read.
    """
    from shapely.errors import ShapelyError

    name, kind = path.name[:80], path.suffix.lower()
    try:
        if not path.is_file():
            msg = f"{name}: got no such file; expected region polygons. Check the path."
            raise PanelError(msg)
        with warnings.catch_warnings():
            # what GDAL warns of it repairs, or fails on in the next moment
            warnings.simplefilter("ignore", RuntimeWarning)
            if kind in _KINDS:
                return _read(path, kind)
    except (*_UNREADABLE, ShapelyError) as cause:
        reason = " ".join(str(cause).split())[:200]
        msg = f"{name}: got a file that cannot be read ({reason}); expected region polygons."
        raise PanelError(msg) from cause
    msg = f"{name}: got a file ending in {kind[:80]!r}; expected one of {listing(_KINDS)}."
    raise PanelError(f"{msg} Save the regions as GeoPackage or GeoJSON.")


def _read(path: Path, kind: str) -> gpd.GeoDataFrame:
    import geopandas as gpd

    if kind in _TEXT:
        return _geojson(path)
    if kind == ".parquet":
        return gpd.read_parquet(path)
    if kind == ".zip":
        return gpd.read_file(f"zip://{path.resolve()}!{_zipped_shapefile(path)}")
    with path.open("rb") as file:
        _check_start(file.read(16), kind)
    return gpd.read_file(path)


def _geojson(path: Path) -> gpd.GeoDataFrame:
    """Read GeoJSON without GDAL, which takes text for many other things."""
    import geopandas as gpd

    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        msg = "it is nested too deeply"
        raise ValueError(msg) from None
    if not isinstance(found, dict) or found.get("type") != "FeatureCollection":
        msg = "it is no GeoJSON FeatureCollection"
        raise ValueError(msg)
    if not found.get("features"):
        msg = "it has no features"
        raise ValueError(msg)
    stated = found.get("crs")  # from before RFC 7946, and still written
    crs = stated["properties"]["name"] if stated else _LONGITUDE_LATITUDE
    return gpd.GeoDataFrame.from_features(found["features"], crs=crs)


def _no_number(constant: str) -> float:
    msg = f"it has a coordinate or property {constant}"
    raise ValueError(msg)


def _check_start(start: bytes, kind: str) -> None:
    if not start.startswith(_STARTS[kind]):
        msg = f"it does not start as a {kind} file does"
        raise ValueError(msg)


def _zipped_shapefile(path: Path) -> str:
    """Return the name of the only shapefile in an archive that holds nothing else."""
    with zipfile.ZipFile(path) as archive:
        names = [each.filename for each in archive.infolist() if not each.is_dir()]
        shapefiles = [name for name in names if name.lower().endswith(".shp")]
        other = [n for n in names if PurePosixPath(n).suffix.lower() not in _BESIDE_A_SHAPEFILE]
        if len(shapefiles) != 1 or other:
            msg = f"an archive of one shapefile is expected, not {listing(names)}"
            raise ValueError(msg)
        with archive.open(shapefiles[0]) as file:
            _check_start(file.read(16), ".shp")
    return shapefiles[0]


def named_shapes(source: Any, column: str | None) -> tuple[gpd.GeoDataFrame, bool]:
    """Read a map; where it lacks a column ``region``, ``column`` gets that name.

    Returns
    -------
    tuple
        The map, and whether a column of it was renamed.

    Raises
    ------
    PanelError
        What came is no map, or the file cannot be read.
    """
    import geopandas as gpd

    if not isinstance(source, str | Path | gpd.GeoDataFrame):
        got = type(source).__name__
        msg = f"regions: got {got}; expected a GeoDataFrame or the path of a map."
        raise PanelError(f"{msg} Make one with a column 'region' and a geometry.")
    frame = source if isinstance(source, gpd.GeoDataFrame) else read_shapes(Path(source))
    if column is None or "region" in frame.columns or column not in frame.columns:
        return frame, False
    return frame.rename(columns={column: "region"}), True


def match_shapes(source: Any, regions: np.ndarray) -> tuple[gpd.GeoSeries, list[str]]:
    """Match region geometry to ids, naming every id that has none; also return notes.

    Parameters
    ----------
    source
        A GeoDataFrame with a column ``region``, or the path of such a file.
    regions
        Ids of the regions.

    Raises
    ------
    PanelError
        The file cannot be read, ids are not text or repeat, or a region has no usable shape.
    """
    import geopandas as gpd
    import shapely

    frame = source if isinstance(source, gpd.GeoDataFrame) else read_shapes(Path(source))
    if not isinstance(frame, gpd.GeoDataFrame) or frame.active_geometry_name is None:
        msg = "regions: got a table without geometry; expected polygons or points. Add them."
        raise PanelError(msg)
    if "region" not in frame.columns:
        msg = f"regions: got columns {listing(frame.columns)}; expected a column 'region'."
        if "region" in frame.index.names:
            raise PanelError(f"{msg} It is the index: give regions.reset_index().")
        others = [str(name) for name in frame.columns if name != frame.active_geometry_name]
        holds = (name for name in others if {*regions} <= {*map(str, frame[name])})
        near = close_to("region", others) or next(holds, "COLUMN")
        raise PanelError(f"{msg} Rename yours: {renaming('region', near)}.")
    ids = frame["region"]
    if not all(isinstance(value, str) for value in ids):
        msg = "regions: got ids that are not strings; expected text such as '06'. Convert them: "
        msg += (
            "regions['region'] = regions['region'].astype(str).str.zfill(2), with as many digits "
        )
        raise PanelError(f"{msg}as codes have.")
    if ids.duplicated().any():
        msg = f"regions: got {listing(ids[ids.duplicated()].unique())} twice; dissolve them first."
        raise PanelError(msg)
    shapes = frame.set_index("region").geometry
    missing = [region for region in regions if region not in shapes.index]
    if missing:
        bare = {str(region).lstrip("0") for region in shapes.index}
        padded = any(str(region).lstrip("0") in bare for region in missing)
        hint = " The ids differ in leading zeros." if padded else ""
        msg = (
            f"regions: got no geometry for {listing(missing)}; expected one for each of the "
            f"{len(regions)} regions of the table.{hint} Add it or correct the ids."
        )
        raise PanelError(msg)
    extra = len(shapes) - len(regions)
    shapes = shapes.reindex(pd.Index(regions, name="region"))
    coordinates, owner = shapely.get_coordinates(shapes.to_numpy(), return_index=True)
    unknown = np.zeros(len(shapes), dtype=bool)
    unknown[owner[~np.isfinite(coordinates).all(axis=1)]] = True
    for what, found in (("empty", shapes.is_empty | shapes.isna()), ("infinite", unknown)):
        if found.any():
            named = listing(shapes.index[found])
            msg = f"regions: got {what} geometry for {named}; expected polygons or points."
            raise PanelError(msg)
    are = "region of the geometry is" if extra == 1 else "regions of the geometry are"
    notes = [f"{extra} {are} not in the table"] if extra else []
    if len(crossed := shapes.index[~shapes.is_valid]):
        notes.append(f"shapes whose lines cross themselves: {listing(crossed)}")
    return shapes, notes
