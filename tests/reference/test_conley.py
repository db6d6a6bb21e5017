"""Conley's errors: spreg's HAC, sums over all pairs of rows, and errors clustered by region."""

import contextlib
import io
import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from scipy import stats

import spatialclusters as sc
from spatialclusters.design import build_design
from spatialclusters.errors import FitError, WeightsError
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.panel import read_panel
from spatialclusters.spatial_hac import spatial_kernel
from spatialclusters.spec import parse_spec

SPREG = 1e-6  # asked for; libpysal's bandwidth of k neighbors is larger by 1e-7
EXACT = 1e-10  # the same sums in another order
DUMMIES = 1e-7  # pyfixest demeans to 1e-9 of a standard deviation


def places(n=60, seed=1, crs="EPSG:4326"):
    """Points in the north of the Atlantic, where a degree east is half of one north."""
    rng = np.random.default_rng(seed)
    xy = np.column_stack([rng.uniform(-40, -30, n), rng.uniform(55, 65, n)])
    if crs != "EPSG:4326":
        xy *= 1e5  # meters
    ids = [f"r{i:02d}" for i in range(n)]
    return gpd.GeoDataFrame({"region": ids}, geometry=shapely.points(xy), crs=crs)


def one_row(shapes, seed=2):
    rng, n = np.random.default_rng(seed), len(shapes)
    xy = shapely.get_coordinates(shapes.geometry.to_numpy())
    trend = stats.zscore(xy[:, 0]) + stats.zscore(xy[:, 1]) ** 2
    x, z = rng.normal(size=n) + trend, rng.normal(3.0, 20.0, size=n)
    y = 1.0 + 0.5 * x - 0.02 * z + trend + rng.normal(size=n) * (1.0 + abs(x))
    return pd.DataFrame({"region": shapes["region"], "y": y, "x": x, "z": z})


def many_rows(shapes, seed=3, industries=8, share=0.7):
    """Rows of regions by industries, with a region effect that near regions share."""
    rng = np.random.default_rng(seed)
    rows = [
        (region, f"i{k}", f"c{k // 4}", i)
        for i, region in enumerate(shapes["region"])
        for k in range(industries)
        if rng.random() < share
    ]
    table = pd.DataFrame(rows, columns=["region", "industry", "cluster", "i"])
    shared = one_row(shapes).set_index("region").loc[table["region"]]
    table["x"] = rng.normal(size=len(table)) + shared["x"].to_numpy()
    table["z"] = rng.normal(3.0, 20.0, size=len(table)) + shared["z"].to_numpy()
    table["y"] = 0.3 * table["x"] - 0.02 * table["z"] + shared["y"].to_numpy()
    table["y"] += rng.normal(size=len(table))
    return table.drop(columns="i")


def design_of(table, shapes, formula):
    panel = read_panel(table, shapes)
    return build_design(parse_spec(f'formula = "{formula}"'), panel), panel


def row(result, estimator, term):
    frame = result.estimates.query("effect == 'coefficient'")
    found = frame[(frame["estimator"] == estimator) & (frame["term"] == term)]
    assert len(found) == 1
    return found.iloc[0]


def great_circle(shapes):
    """Distances in km by the spherical law of cosines, which at 100 km is good to 1e-9."""
    lon, lat = np.radians(shapely.get_coordinates(shapes.geometry.to_numpy())).T
    cosine = np.sin(lat)[:, None] * np.sin(lat) + np.cos(lat)[:, None] * np.cos(lat) * np.cos(
        lon[:, None] - lon
    )
    d = 6371.0088 * np.arccos(np.clip(cosine, -1.0, 1.0))
    np.fill_diagonal(d, 0.0)
    return d


def kernel_of(d, shape, *, bandwidth=None, neighbors=None):
    width = np.full(len(d), bandwidth) if neighbors is None else np.sort(d, axis=1)[:, neighbors]
    share = d / width[:, None]
    if shape == "uniform":
        return (share <= 1.0 + 1e-9).astype(float)
    return np.maximum(0.0, 1.0 - share)


def all_pairs(X, e, codes, K):
    """The sandwich summed over every pair of rows, as the definition has it."""
    bread, middle = np.linalg.inv(X.T @ X), np.zeros((X.shape[1], X.shape[1]))
    for i in range(len(X)):
        for j in range(len(X)):
            middle += K[codes[i], codes[j]] * e[i] * e[j] * np.outer(X[i], X[j])
    return bread @ middle @ bread


@pytest.mark.parametrize("options", [{"bandwidth": 250.0}, {"neighbors": 6}])
@pytest.mark.parametrize("shape", ["bartlett", "uniform"])
def test_ordinary_least_squares_are_those_of_spreg(options, shape):
    import libpysal.weights
    import spreg

    shapes = places(crs="EPSG:3857")
    table = one_row(shapes)
    design, panel = design_of(table, shapes, "y ~ x + z")
    kernel = spatial_kernel(panel, kernel=shape, **options)
    result = fit_frequentist(design, conley=kernel)
    km = shapely.get_coordinates(shapes.geometry.to_numpy()) / 1000.0
    given = (
        {"bandwidth": options["bandwidth"]}
        if "bandwidth" in options
        else {"k": options["neighbors"], "fixed": False}
    )
    function = {"bartlett": "triangular", "uniform": "uniform"}[shape]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of disconnected components
        theirs = libpysal.weights.Kernel(km, function=function, diagonal=True, **given)
        y, X = table["y"].to_numpy()[:, None], table[["x", "z"]].to_numpy()
        ols = spreg.OLS(y, X, robust="hac", gwk=theirs)
        white = spreg.OLS(y, X, robust="white", sig2n_k=False)
    # their uniform kernel is 0.5 beside the diagonal
    theirs = ols.vm if shape == "bartlett" else 2.0 * ols.vm - white.vm
    n, k = len(table), 3
    factor = n / (n - 1) * (n - 1) / (n - k)  # small samples: spreg has no such factor
    for i, term in enumerate(["intercept at zero", "x", "z"]):
        got = row(result, f"OLS, Conley {kernel.label}", term)
        assert got["estimate"] == pytest.approx(ols.betas[i, 0], rel=SPREG)
        error = np.sqrt(theirs[i, i] * factor)
        assert got["std_error"] == pytest.approx(error, rel=SPREG)
        reach = stats.t.ppf(0.975, n - 1) * error
        assert got["ci_low"] == pytest.approx(ols.betas[i, 0] - reach, rel=10 * SPREG)
        plain = row(result, "OLS", term)
        assert plain["estimate"] == got["estimate"]
        assert abs(plain["std_error"] / got["std_error"] - 1.0) > 0.01


@pytest.mark.parametrize("options", [{"bandwidth": 150.0}, {"neighbors": 4}])
@pytest.mark.parametrize("shape", ["bartlett", "uniform"])
def test_all_pairs_of_rows(options, shape):
    """Several rows per region, fixed effects of industries as dummies, great circles."""
    shapes = places(n=25)
    design, panel = design_of(many_rows(shapes), shapes, "y ~ x + z + (1 | industry)")
    kernel = spatial_kernel(panel, kernel=shape, **options)
    result = fit_frequentist(design, conley=kernel)
    codes = np.array([int(r[1:]) for r in design.data["row_region"].values])
    K = kernel_of(great_circle(shapes), shape, **options)
    K = 0.5 * (K + K.T)
    n, R = design.n_rows, len(shapes)
    dummies = pd.get_dummies(design.data["row_industry"].values).to_numpy(float)
    hat = dummies @ np.linalg.pinv(dummies)
    ones = np.ones((n, 1))
    for estimator, X, y, used in (
        ("fixed effects", design.X - hat @ design.X, design.y - hat @ design.y, 2 + 8),
        ("OLS", np.hstack([design.X, ones]), design.y, 3),
    ):
        b = np.linalg.lstsq(X, y, rcond=None)[0]
        V = all_pairs(X, y - X @ b, codes, K) * R / (R - 1) * (n - 1) / (n - used)
        for i, term in enumerate(design.terms):
            got = row(result, f"{estimator}, Conley {kernel.label}", term)
            assert got["estimate"] == pytest.approx(b[i], rel=DUMMIES)
            assert got["std_error"] == pytest.approx(np.sqrt(V[i, i]), rel=DUMMIES)
            reach = stats.t.ppf(0.975, R - 1) * got["std_error"]
            assert got["ci_high"] == pytest.approx(got["estimate"] + reach, rel=EXACT)


@pytest.mark.parametrize("cluster", [None, "industry"])
def test_a_small_bandwidth_clusters_by_region(cluster):
    shapes = places(n=25)
    formula = "y ~ x + z + (1 | industry) + (1 | region)"
    design, panel = design_of(many_rows(shapes), shapes, formula)
    kernel = spatial_kernel(panel, 0.001)
    result = fit_frequentist(design, cluster=cluster, conley=kernel)
    by_region = fit_frequentist(design)
    for term in design.terms:
        got = row(result, "fixed effects, Conley bartlett 0.001 km", term)
        want = row(by_region, "fixed effects", term)
        for name in ("estimate", "std_error", "ci_low", "ci_high"):
            assert got[name] == pytest.approx(want[name], rel=EXACT)
        if cluster:
            assert row(result, "fixed effects", term)["std_error"] != want["std_error"]


def test_singletons_and_collinear_columns_stay_out():
    shapes = places(n=25)
    table = many_rows(shapes)
    table.loc[0, "industry"] = "lone"
    table["level"] = table.groupby("industry")["z"].transform("mean")
    formula = "y ~ x + level + z + (1 | industry)"
    panel = read_panel(table, shapes)
    text = f'formula = "{formula}"\n[roles]\nspecialization = ["x"]'
    design = build_design(parse_spec(text), panel)
    kernel = spatial_kernel(panel, 150.0)
    result = fit_frequentist(design, spec=parse_spec(text), conley=kernel)
    name = f"fixed effects, Conley {kernel.label}"
    with_level = result.estimates.query("estimator == @name and effect == 'coefficient'")
    assert list(with_level["term"]) == ["x", "z"]
    rest = table[table["industry"] != "lone"].drop(columns="level")
    without, panel = design_of(rest, shapes, "y ~ x + z + (1 | industry)")
    want = fit_frequentist(without, conley=spatial_kernel(panel, 150.0))
    for term in ("x", "z"):
        for column in ("estimate", "std_error"):
            assert row(result, name, term)[column] == pytest.approx(
                row(want, name, term)[column], rel=DUMMIES
            )


def test_effects_of_roles_follow_the_errors(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    kernel = spatial_kernel(fit, 0.0012)  # squares of one meter
    assert kernel.label == "bartlett 0.0012 km"
    result = fit_frequentist(fit, conley=kernel)
    assert set(list(result.errors.values())[2:]) == {"Conley, bartlett 0.0012 km"}
    frame = result.estimates.set_index(["estimator", "term", "effect"])
    for estimator in ("fixed effects", "OLS"):
        plain, wide = (frame.loc[f"{estimator}{more}"] for more in ("", f", Conley {kernel.label}"))
        assert list(plain.index) == list(wide.index)
        np.testing.assert_array_equal(plain["estimate"], wide["estimate"])
        term = "log(cluster_level)"
        ratio = wide["std_error"] / plain["std_error"]
        assert ratio[term, "speed"] == pytest.approx(ratio[term, "coefficient"], rel=EXACT)
    text = "\n".join(result.notes)
    assert "Conley errors (bartlett 0.0012 km): scores are summed by region; " in text
    assert "Distances are straight lines in km" in text
    assert "The bandwidth reaches most regions" not in text
    wide = fit_frequentist(fit, conley=spatial_kernel(fit, 1.0))
    assert "The bandwidth reaches most regions: errors are too small" in "\n".join(wide.notes)


def test_a_negative_variance_is_no_error():
    """A uniform kernel over a line of four regions is indefinite."""
    line = gpd.GeoDataFrame(
        {"region": list("abcd")}, geometry=shapely.points([0, 1, 2, 3], [0, 0, 0, 0])
    )
    table = pd.DataFrame({"region": list("abcd"), "x": [1.0, -1.0, 1.0, -1.0]})
    table["y"] = [1.0, 1.5, 1.0, 0.5]  # scores of neighbors have opposite signs
    design, panel = design_of(table, line, "y ~ 0 + x")
    kernel = spatial_kernel(panel, 1.0, kernel="uniform")
    result = fit_frequentist(design, conley=kernel)
    assert kernel.label == "uniform 1 map units"
    scores = table["x"] * table["y"]  # the slope is zero
    K = np.eye(4) + np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
    assert scores @ K @ scores < 0.0
    assert np.isnan(row(result, "OLS, Conley uniform 1 map units", "x")["std_error"])
    assert "This kernel gives a negative variance, so no error, for 'x'." in result.notes


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "got bandwidth None and None neighbors; expected one of them"),
        ({"bandwidth": 10.0, "neighbors": 3}, "expected one of them"),
        ({"bandwidth": -1.0}, "got bandwidth -1.0; expected a positive number"),
        ({"bandwidth": np.inf}, "expected a positive number"),
        ({"neighbors": 0}, "expected at least 1"),
        ({"bandwidth": 10.0, "kernel": "gauss"}, "got kernel 'gauss'"),
    ],
)
def test_refused_kernels(options, what):
    with pytest.raises(FitError, match=what):
        spatial_kernel(read_panel(one_row(places()), places()), **options)


def test_refused_samples(synthetic_fit):
    with pytest.raises(FitError, match="Conley errors: got no geometry"):
        spatial_kernel(synthetic_fit("clusters"), 100.0)
    shapes = places()
    design, panel = design_of(one_row(shapes), shapes, "y ~ x")
    with pytest.raises(FitError, match="got 60 neighbors for 60 regions"):
        fit_frequentist(design, conley=spatial_kernel(panel, neighbors=60))
    _, fewer = design_of(one_row(shapes[:50]), shapes[:50], "y ~ x")
    with pytest.raises(WeightsError, match="Conley errors: got no geometry for 'r50'"):
        fit_frequentist(design, conley=spatial_kernel(fewer, 100.0))
    lone = many_rows(shapes, share=1.0).query("region == 'r00'")
    design, panel = design_of(lone, shapes[:1], "y ~ x + (1 | cluster)")
    with pytest.raises(FitError, match="Conley errors: got one region"):
        fit_frequentist(design, conley=spatial_kernel(panel, 100.0))


def test_it_is_public():
    assert sc.spatial_kernel is spatial_kernel
