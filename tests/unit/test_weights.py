"""Weights against brute force: who is whose neighbor, in which order, and what is refused."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from spatialclusters.errors import WeightsError
from spatialclusters.neighbors import contiguity, distance_band, knn, parse_weights
from spatialclusters.weights import Weights, align, read_weights

EXACT = 1e-15  # one division per weight: at most one unit in the last place
EARTH_RADIUS_KM = 6371.0088
SIDE = 4
CELLS = [(row, column) for row in range(SIDE) for column in range(SIDE)]
NAMES = [f"{7 * i % 16:02d}" for i in range(16)]  # neither sorted nor in the order of cells


def panel_of(shapes, ids, crs=None):
    index = pd.Index(list(ids), dtype="str")
    return SimpleNamespace(geometry=gpd.GeoSeries(shapes, index=index, crs=crs), regions=tuple(ids))


def grid(order=range(16)):
    boxes = [shapely.box(column, row, column + 1, row + 1) for row, column in CELLS]
    return panel_of([boxes[i] for i in order], [NAMES[i] for i in order])


def links(weights):
    """The links as pairs of ids, without any order."""
    focal, neighbor = weights.matrix.nonzero()
    return {(weights.regions[i], weights.regions[j]) for i, j in zip(focal, neighbor, strict=True)}


def grid_links(rook):
    """Cells that are neighbors: one step along a side, and for queens across a corner."""
    far = 1 if rook else 2
    return {
        (NAMES[a], NAMES[b])
        for a, b in itertools.permutations(range(16), 2)
        if max(abs(CELLS[a][0] - CELLS[b][0]), abs(CELLS[a][1] - CELLS[b][1])) == 1
        and abs(CELLS[a][0] - CELLS[b][0]) + abs(CELLS[a][1] - CELLS[b][1]) <= far
    }


def haversine(a, b):
    (lon1, lat1), (lon2, lat2) = np.radians(a), np.radians(b)
    half = math.sin((lat2 - lat1) / 2) ** 2
    half += math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(half))


def sphere(n=40):
    """Points all over the globe, a pair across the antimeridian, and one near a pole."""
    rng = np.random.default_rng(3)
    lonlat = np.column_stack(
        [rng.uniform(-180, 180, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))]
    )
    lonlat[:3] = [179.9, 10.0], [-179.9, 10.0], [20.0, 89.9]
    ids = [f"{37 * i % n:03d}" for i in range(n)]
    distance = {
        (ids[i], ids[j]): haversine(lonlat[i], lonlat[j]) for i in range(n) for j in range(n)
    }
    return panel_of(shapely.points(lonlat), ids, "EPSG:4326"), distance


def edges(*rows):
    return pd.DataFrame(rows, columns=["region_i", "region_j", "weight"][: len(rows[0])])


TRIANGLE = edges(
    ("a", "b", 1.0), ("a", "c", 3.0), ("b", "a", 1.0), ("c", "a", 2.0), ("c", "b", 2.0)
)


# --- geometry -------------------------------------------------------------------------


@pytest.mark.parametrize("rook", [False, True])
def test_contiguity_of_a_grid_is_what_counting_gives(rook):
    weights = contiguity(grid(), rook=rook, row_standardize=False)
    assert links(weights) == grid_links(rook)
    assert weights.n_links == (48 if rook else 84)
    assert weights.kind == ("rook" if rook else "queen")
    assert weights.symmetric
    assert weights.n_components == 1
    assert set(weights.matrix.data) == {1.0}


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(16)), st.sampled_from([contiguity, lambda p: knn(p, 3)]))
def test_the_order_of_regions_changes_nothing(order, build):
    usual, shuffled = build(grid()), build(grid(order))
    assert shuffled.regions == tuple(NAMES[i] for i in order)
    assert links(shuffled) == links(usual)
    back = align(shuffled, usual.regions)
    np.testing.assert_allclose(back.matrix.toarray(), usual.matrix.toarray(), rtol=EXACT)


def test_geometry_in_another_order_than_the_regions_is_matched_by_id():
    panel = grid()
    panel.regions = tuple(sorted(panel.regions))
    weights = contiguity(panel)
    assert weights.regions == panel.regions
    assert links(weights) == grid_links(rook=False)


def test_regions_outside_the_panel_are_no_neighbors():
    panel = grid()
    panel.regions = tuple(panel.regions[:4])  # one row of the grid
    assert contiguity(panel).neighbors.tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize("k", [1, 4])
def test_knn_on_the_sphere_sorts_great_circles(k):
    panel, distance = sphere()
    expected = {
        (i, j)
        for i in panel.regions
        for j in sorted(set(panel.regions) - {i}, key=lambda other: distance[i, other])[:k]
    }
    weights = knn(panel, k)
    assert links(weights) == expected
    assert (panel.regions[0], panel.regions[1]) in expected  # across the antimeridian
    assert set(weights.matrix.data) == {1 / k}
    assert any("great circles" in note for note in weights.notes)


@pytest.mark.parametrize("threshold", [500.0, 2500.0, 19000.0, 30000.0])
def test_distance_band_on_the_sphere_is_haversine(threshold):
    panel, distance = sphere()
    weights = distance_band(panel, threshold)
    assert links(weights) == {
        (i, j) for (i, j), km in distance.items() if i != j and km <= threshold
    }
    assert weights.kind == f"distance:{threshold:g}"


def test_distance_band_says_from_which_threshold_up_there_is_no_isolate():
    panel, distance = sphere()
    nearest = max(min(distance[i, j] for j in panel.regions if j != i) for i in panel.regions)
    weights = distance_band(panel, 500)
    assert weights.isolates
    assert f"From threshold {nearest:.6g} up" in weights.notes[-2 if not weights.symmetric else -1]
    assert not distance_band(panel, nearest * 1.000001).isolates
    assert distance_band(panel, nearest * 0.999999).isolates


@pytest.mark.parametrize(
    ("crs", "step", "words"),
    [
        ("EPSG:32633", 1000.0, "km in WGS 84 / UTM zone 33N"),
        ("EPSG:2263", 1000 * 3937 / 1200, "km in NAD83"),  # in US survey feet
        (None, 1.0, "map units"),
    ],
)
def test_distance_unit_follows_the_reference_system(crs, step, words):
    panel = panel_of(shapely.points(np.array([0.0, 1.0, 3.0]) * step, np.zeros(3)), "abc", crs)
    for threshold, expected in ((0.999, 0), (1.0, 2), (1.999, 2), (2.0, 4), (3.0, 6)):
        assert distance_band(panel, threshold).n_links == expected
    assert words in distance_band(panel, 1.0).notes[0]


def test_ties_of_knn_go_to_the_smaller_id_and_are_noted():
    panel = panel_of(shapely.points([0, 1, -1, 0], [0, 0, 0, 5]), ["m", "z", "b", "n"])
    weights = knn(panel, 1)
    assert links(weights) == {("m", "b"), ("z", "m"), ("b", "m"), ("n", "m")}
    assert "Ties at the k-th neighbor were broken by id at 1 region." in weights.notes
    assert "2 of 4 links have no counterpart." in weights.notes


def test_isolated_polygon_stays_isolated():
    panel = panel_of([shapely.box(i, 0, i + 1, 1) for i in (0, 1, 9)], ["b", "a", "x"])
    weights = contiguity(panel)
    assert weights.isolates == ("x",)
    assert weights.matrix.toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert weights.n_components == 2


def test_overlapping_polygons_without_shared_vertices_are_noted():
    panel = panel_of([shapely.box(0, 0, 1, 1), shapely.box(0.9, 0.1, 2, 2)], "ab")
    assert "1 pair of polygons that meet" in contiguity(panel).notes[0]
    assert contiguity(grid()).notes == ()


def test_shapes_across_the_antimeridian_are_noted():
    split = shapely.union_all([shapely.box(-180, 0, -179, 1), shapely.box(179, 0, 180, 1)])
    panel = panel_of([split, shapely.box(0, 0, 1, 1)], ["fiji", "x"], "EPSG:4326")
    assert "'fiji'" in knn(panel, 1).notes[1]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda p: contiguity(SimpleNamespace(geometry=None, regions=("a",))), "without geometry"),
        (lambda p: contiguity(SimpleNamespace(geometry=p.geometry, regions=("zz",))), "'zz'"),
        (lambda p: contiguity(panel_of(shapely.points([[0, 0]]), "a")), "'Point'.*knn"),
        (lambda p: knn(p, 0), "k = 0"),
        (lambda p: knn(p, 16), "k = 16"),
        (lambda p: knn(panel_of(shapely.points([[0, 0], [0, 0]]), "ab"), 1), "same centroid.*'b'"),
        (lambda p: distance_band(p, 0.0), "threshold 0.0"),
        (lambda p: distance_band(p, math.nan), "threshold nan"),
        (lambda p: knn(panel_of(shapely.points([[0, 99], [0, 1]]), "ab", 4326), 1), "beyond 90"),
        (lambda p: contiguity(panel_of([shapely.Polygon(), None], "ab")), "'a', 'b'"),
    ],
)
def test_geometry_that_cannot_be_used_is_refused(build, words):
    with pytest.raises(WeightsError, match=words):
        build(grid())


# --- files and tables -----------------------------------------------------------------


def test_rows_are_divided_by_their_sums():
    expected = [[0, 0.25, 0.75], [1, 0, 0], [0.5, 0.5, 0]]
    assert read_weights(TRIANGLE).matrix.toarray().tolist() == expected
    raw = read_weights(TRIANGLE, row_standardize=False)
    assert raw.matrix.toarray().tolist() == [[0, 1, 3], [1, 0, 0], [2, 2, 0]]
    assert not raw.row_standardized
    assert raw.notes == ("1 of 5 links have no counterpart.",)
    assert not raw.symmetric


def test_the_order_of_rows_changes_not_even_the_digest():
    weights = read_weights(TRIANGLE)
    assert read_weights(TRIANGLE[::-1]).digest == weights.digest
    assert read_weights(TRIANGLE.assign(weight=1)).digest != weights.digest
    renamed = Weights(("a", "b", "d"), weights.matrix, "edges", row_standardized=True)
    assert renamed.digest != weights.digest


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_of_files_stay_text(tmp_path, suffix):
    table = edges(("01", "NA"), ("NA", "01"), ("1", "1"))
    path = tmp_path / f"edges.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    weights = read_weights(path)
    assert weights.regions == ("01", "1", "NA")
    assert weights.isolates == ("1",)
    assert links(weights) == {("01", "NA"), ("NA", "01")}


def test_a_row_of_weight_zero_is_no_link():
    weights = read_weights(edges(("a", "b", 0.0), ("b", "a", 1.0), ("b", "b", 0.0)))
    assert links(weights) == {("b", "a")}
    assert weights.notes[0] == "1 row of weight 0 made no link."


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (edges(("a", "b", 1.0), ("a", "a", 1.0)), r"own neighbors \('row 2: a -> a'\).*diag"),
        (edges(("a", "b"), ("b", "a"), ("a", "b")), "more than once.*row 3: a -> b"),
        (edges(("a", "b", math.nan), ("b", "a", 1.0)), "NaN.*row 1: a -> b"),
        (edges(("a", "b", math.inf), ("b", "a", 1.0)), "infinite.*row 1"),
        (edges(("a", "b", 1.0), ("b", "a", -1.0)), "negative.*row 2: b -> a"),
        (edges(("a", "b", "much")), "NaN.*row 1"),
        (edges(("a", "b"))[:0], "0 rows"),
        (edges((1, 2)), "'1', '2' as ids.*text"),
        (edges(("a", None)), "'None' as ids"),
        (edges(("a", "")), "'' as ids"),
        (edges(("a", "b")).rename(columns={"region_j": "regionj"}), "Did you mean 'regionj'"),
    ],
)
def test_malformed_tables_are_refused(table, words):
    with pytest.raises(WeightsError, match=words):
        read_weights(table)


GAL = "01 2\nb c\nb 1\n01\nc 1\n01\nisle 0\n"


@pytest.mark.parametrize("header", ["4", "0 4 some_file ID"])
@pytest.mark.parametrize("blank", ["", "\n"])
def test_gal_keeps_text_ids_and_isolates(tmp_path, header, blank):
    path = tmp_path / "w.gal"
    path.write_text(f"{header}\n{GAL}{blank}")
    weights = read_weights(path)
    assert weights.regions == ("01", "b", "c", "isle")
    assert weights.isolates == ("isle",)
    assert links(weights) == {("01", "b"), ("01", "c"), ("b", "01"), ("c", "01")}
    assert weights.matrix.toarray()[0].tolist() == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("four\n" + GAL, 1),
        ("0\n1 0", 2),  # more regions than announced
        ("5\n" + GAL, 8),  # fewer
        ("1\na one\nb", 2),
        ("2\na 2\nb\nb 1\na", 3),  # one neighbor is missing
        ("2\na 2\nb b\nb 1\na", 3),
        ("2\na 1\na\nb 1\na", 3),  # its own neighbor
        ("2\na 1\nb\na 1\nb", 4),  # the same region again
        ("2\na 1\nz\nb 1\na", 3),  # nobody's id
        ("1\na 1", 3),
    ],
)
def test_malformed_gal_names_the_line(tmp_path, text, line):
    path = tmp_path / "w.gal"
    path.write_text(text)
    with pytest.raises(WeightsError, match=rf"w\.gal, line {line}: got .* expected"):
        read_weights(path)


@pytest.mark.parametrize("name", ["no.gal", "no.csv", "no.shp"])
def test_files_that_are_not_there_are_refused(tmp_path, name):
    with pytest.raises(WeightsError, match="no"):
        read_weights(tmp_path / name)


def test_libpysal_objects_keep_their_order_and_isolates():
    from libpysal.graph import Graph

    neighbors = {"z": ["a"], "a": ["z", "m"], "m": ["a"], "isle": []}
    graph = Graph.from_dicts(neighbors)
    for source in (graph, graph.transform("r"), graph.to_W()):
        weights = read_weights(source)
        assert links(weights) == {(i, j) for i, near in neighbors.items() for j in near}
        assert weights.isolates == ("isle",)
        assert weights.regions == tuple(graph.unique_ids)
    with pytest.raises(WeightsError, match="as ids"):
        read_weights(Graph.from_dicts({0: [1], 1: [0]}))


# --- the value ------------------------------------------------------------------------


def test_graph_has_our_order_and_our_numbers():
    weights = contiguity(panel_of([shapely.box(i, 0, i + 1, 1) for i in (5, 1, 0, 2)], "zxya"))
    graph = weights.graph()
    assert tuple(graph.unique_ids) == weights.regions
    assert tuple(graph.to_W().id_order) == weights.regions
    assert tuple(graph.isolates) == weights.isolates == ("z",)
    assert graph.transformation == "R"
    np.testing.assert_array_equal(graph.sparse.toarray(), weights.matrix.toarray())
    x = np.array([1.0, 2.0, 4.0, 8.0])
    assert graph.lag(x).tolist() == (weights.matrix @ x).tolist() == [0.0, 6.0, 2.0, 2.0]
    assert read_weights(graph).digest == weights.digest


def test_dataset_round_trip_through_a_file(tmp_path):
    weights = align(read_weights(TRIANGLE), ["c", "a"])
    path = tmp_path / "weights.nc"
    weights.to_dataset().to_netcdf(path, engine="h5netcdf")
    for dataset in (weights.to_dataset(), xr.load_dataset(path, engine="h5netcdf")):
        back = Weights.from_dataset(dataset)
        assert back.digest == weights.digest
        assert (back.regions, back.kind, back.notes) == (("c", "a"), "edges", weights.notes)
        assert back.row_standardized is True


def test_describe_is_what_summaries_show():
    weights = read_weights(edges(("a", "b"), ("a", "c"), ("b", "a"), ("d", "e"), ("x", "x")))
    shown = weights.describe()
    assert shown | {"digest": "", "notes": []} == {
        "kind": "edges",
        "row_standardized": True,
        "regions": 6,
        "links": 4,
        "mean_neighbors": 4 / 6,
        "min_neighbors": 0,
        "max_neighbors": 2,
        "isolates": ["c", "e", "x"],
        "components": 3,
        "symmetric": False,
        "digest": "",
        "notes": [],
    }
    assert weights.components.tolist() == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("regions", "matrix", "words"),
    [
        (("a", "b"), [[0.0, 1.0, 0.0]], "expected 2 x 2"),
        (("a", "b"), [[1.0, 0.0], [1.0, 0.0]], "diagonal weights of 'a'"),
        (("a", "b"), [[0.0, -1.0], [1.0, 0.0]], "w >= 0"),
        (("a", "b"), [[0.0, math.nan], [1.0, 0.0]], "w >= 0"),
        (("a", "b"), [[0.0, 2.0], [1.0, 0.0]], "sum to one"),
        (("a", "a"), [[0.0, 1.0], [1.0, 0.0]], "'a' more than once"),
    ],
)
def test_weights_that_are_none_cannot_be_made(regions, matrix, words):
    with pytest.raises(WeightsError, match=words):
        Weights(regions, sparse.csr_array(np.array(matrix)), "x", row_standardized=True)


def test_a_matrix_is_made_canonical_without_touching_the_argument():
    given_matrix = sparse.csr_array(
        (np.array([0.5, 0.0, 0.5, 1.0]), np.array([1, 2, 1, 0]), np.array([0, 3, 4, 4])),
        shape=(3, 3),
    )
    weights = Weights(("a", "b", "c"), given_matrix, "x", row_standardized=True)
    assert weights.matrix.indices.tolist() == [1, 0]
    assert weights.matrix.data.tolist() == [1.0, 1.0]
    assert given_matrix.nnz == 4


# --- align and the command line -------------------------------------------------------


def test_align_drops_restandardizes_and_says_so():
    weights = read_weights(TRIANGLE)
    aligned = align(weights, ["c", "a"])
    assert aligned.matrix.toarray().tolist() == [[0, 1], [1, 0]]
    assert aligned.notes[-1] == "Dropped 1 region that the data lack, with 3 links: 'b'."
    raw = align(read_weights(TRIANGLE, row_standardize=False), ["c", "a"])
    assert raw.matrix.toarray().tolist() == [[0, 2], [3, 0]]
    assert align(raw, ["a", "c"], row_standardize=True).matrix.toarray().tolist() == [
        [0, 1],
        [1, 0],
    ]
    with pytest.raises(WeightsError, match="row_standardize=False"):
        align(weights, ["a", "b", "c"], row_standardize=False)


def test_align_reports_regions_it_leaves_without_neighbors():
    weights = read_weights(edges(("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"), ("x", "x")))
    aligned = align(weights, ["x", "c", "a"])
    assert aligned.isolates == ("x", "c", "a")
    assert aligned.notes[-1].endswith("'b'. That leaves without neighbors: 'c', 'a'.")


def test_align_lists_only_eight_dropped_regions():
    aligned = align(contiguity(grid()), NAMES[:2])
    assert aligned.notes[-1].startswith("Dropped 14 regions that the data lack, with 82 links")
    assert "and 6 more. The weights have 16 regions, of which 14 are not" in aligned.notes[-1]


def test_align_to_the_same_regions_changes_no_bit():
    rng = np.random.default_rng(1)
    table = edges(
        *[(str(i), str(j), rng.uniform()) for i, j in itertools.permutations(range(12), 2)]
    )
    weights = read_weights(table)
    assert align(weights, weights.regions).digest == weights.digest
    assert align(weights, list(weights.regions), row_standardize=True).digest == weights.digest


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        (
            ["1", "02"],
            "no row for 1 of 2 regions: '1'.*leading zeros or spaces, such as '1' and '01'",
        ),
        (
            ["01", "zz"],
            r"'zz'; expected one for each\. .*1 is not in the data.* Correct.*region_i = region_j with weight 0",
        ),
        (["01", "01"], "'01' more than once"),
        ([1, 2], "'1', '2' as ids"),
    ],
)
def test_align_refuses_regions_it_cannot_match(regions, words):
    with pytest.raises(WeightsError, match=words):
        align(read_weights(edges(("01", "02"), ("02", "01"))), regions)


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("queen", contiguity),
        ("rook", lambda p: contiguity(p, rook=True)),
        ("knn:5", lambda p: knn(p, 5)),
        ("distance:1.5", lambda p: distance_band(p, 1.5)),
    ],
)
def test_the_command_line_names_every_kind(text, build):
    panel = grid()
    weights = parse_weights(text, panel)
    assert (weights.kind, weights.digest) == (text, build(panel).digest)
    assert not parse_weights(text, panel, row_standardize=False).row_standardized


def test_the_command_line_takes_a_path_and_aligns_it(tmp_path):
    path = tmp_path / "edges.csv"
    TRIANGLE.to_csv(path, index=False)
    weights = parse_weights(str(path), SimpleNamespace(geometry=None, regions=("c", "b", "a")))
    assert weights.regions == ("c", "b", "a")
    assert weights.matrix.toarray()[2].tolist() == [0.75, 0.25, 0]


@pytest.mark.parametrize(
    "text", ["quene", "knn", "knn:x", "knn:2.5", "distance:", "knn:-1", "", "a.txt"]
)
def test_the_command_line_refuses_anything_else(text):
    with pytest.raises(WeightsError, match="expected"):
        parse_weights(text, grid())


def test_importing_the_module_loads_no_libpysal():
    code = "import sys, spatialclusters.weights; sys.exit('libpysal' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- data that is known ---------------------------------------------------------------


def test_states48_gal_follows_the_table_not_the_shapefile():
    from libpysal.examples import get_path

    gal = read_weights(get_path("states48.gal"))
    names = pd.read_csv(get_path("usjoin.csv"))["Name"].tolist()
    states = gpd.read_file(get_path("us48.shp"))
    drawn = contiguity(panel_of(states.geometry.to_numpy(), states["STATE_NAME"]))
    as_table, as_drawn = align(gal, [str(i) for i in range(48)]).matrix, drawn.matrix
    np.testing.assert_array_equal(align(drawn, names).matrix.toarray(), as_table.toarray())
    assert abs(as_drawn - as_table).sum() > 1  # taken by position, the shapefile is wrong


def test_economic_areas_have_874_links():
    folder = os.environ.get("SPATIALCLUSTERS_DATA")
    if folder is None:
        pytest.skip("SPATIALCLUSTERS_DATA is not set: us_ea/queen.parquet is not checked")
    weights = read_weights(Path(folder) / "us_ea" / "queen.parquet")
    assert weights.n_links == 874
    assert weights.symmetric
    assert weights.isolates == ()
    assert weights.n_components == 1
    assert set(weights.regions) == {str(i) for i in range(1, 171)}
    np.testing.assert_allclose(weights.matrix.sum(axis=1), 1.0, rtol=EXACT * 10)
