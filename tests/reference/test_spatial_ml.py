"""Maximum likelihood of spatial models: published numbers, spreg itself, and dense algebra."""

import contextlib
import dataclasses
import io
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

import spatialclusters as sc
from spatialclusters.design import build_design
from spatialclusters.errors import FitError, WeightsError
from spatialclusters.neighbors import contiguity
from spatialclusters.panel import read_panel
from spatialclusters.spatial_ml import fit_spatial_ml
from spatialclusters.spatial_models import impacts_at
from spatialclusters.spec import parse_spec
from spatialclusters.weights import read_weights

DIGITS = 2e-6  # six decimals are published; the search for rho ends within 1e-7
IMPACTS = 1e-5  # functions of those six decimals
SEARCH = 1e-5  # relative: a search to 1e-7, and powers of rho W summed to 1e-7
EXACT = 1e-10  # the same algebra in another order
REDRAWS = 5.0  # Monte Carlo errors


def row(result, estimator, term, effect):
    frame = result.estimates
    keys = ("estimator", estimator), ("term", term), ("effect", effect)
    found = frame[np.logical_and.reduce([frame[name] == value for name, value in keys])]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def columbus():
    """Anselin's Columbus, queen contiguity of the bundled polygons, rows standardized."""
    import geopandas as gpd
    from libpysal.examples import get_path

    shapes = gpd.read_file(get_path("columbus.shp"))
    shapes["region"] = [f"{i:02d}" for i in range(len(shapes))]
    table = pd.DataFrame(shapes[["region", "CRIME", "INC", "HOVAL"]])
    panel = read_panel(table, shapes[["region", "geometry"]])
    return build_design(parse_spec('formula = "CRIME ~ INC + HOVAL"'), panel, contiguity(panel))


def test_columbus(columbus):
    result = fit_spatial_ml(columbus)
    published = {
        "ML SAR": (45.603249, -1.048728, -0.266335, 0.423325, -182.673972),
        "ML SEM": (60.279468, -0.957305, -0.304559, 0.546753, -183.749428),
    }
    for estimator, (constant, income, value, spatial, height) in published.items():
        process = estimator[3:].lower()
        term = "lambda" if process == "sem" else "rho"
        for name, expected in (("intercept at zero", constant), ("INC", income), ("HOVAL", value)):
            got = row(result, estimator, name, "coefficient")
            assert got["estimate"] == pytest.approx(expected, abs=DIGITS)
            assert got["unit"] == ("CRIME" if "zero" in name else "CRIME per unit of the term")
        assert row(result, estimator, term, "spatial")["estimate"] == pytest.approx(
            spatial, abs=DIGITS
        )
        assert result.log_likelihood[process] == pytest.approx(height, abs=DIGITS)
        middle = constant + columbus.X.mean(axis=0) @ [income, value]
        got = row(result, estimator, "intercept", "coefficient")["estimate"]
        assert got == pytest.approx(middle, abs=100 * DIGITS)  # covariates of up to 96
    assert result.rows_digest == columbus.rows_digest
    assert (result.n_rows, result.response, result.unit) == (49, "CRIME", "CRIME")


def test_impacts_in_columbus(columbus):
    published = {
        "INC": (-1.100895, -0.717683, -1.818579),
        "HOVAL": (-0.279583, -0.182263, -0.461846),
    }
    W, result = columbus.weights.matrix, fit_spatial_ml(columbus)
    for term, beta in (("INC", -1.048728), ("HOVAL", -0.266335)):
        np.testing.assert_allclose(
            impacts_at(W, 0.423325, beta), published[term], rtol=0, atol=IMPACTS
        )
        for effect, expected in zip(("direct", "indirect", "total"), published[term], strict=True):
            got = row(result, "ML SAR", term, effect)
            assert got["estimate"] == pytest.approx(expected, abs=IMPACTS)
            assert (got["point"], got["ci_kind"], got["ci_prob"]) == ("ML", "confidence", 0.95)
            reach = 1.959963984540054 * got["std_error"]
            assert got["ci_low"] == pytest.approx(got["estimate"] - reach, rel=EXACT)
            assert got["ci_high"] == pytest.approx(got["estimate"] + reach, rel=EXACT)


def spreg_lag(design, X):
    """The class of spreg for users, which prints, on a Graph of its own."""
    import spreg

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
        return spreg.ML_Lag(design.y[:, None], X, w=design.weights.graph(), spat_impacts=None)


def test_durbin_is_a_lag_model_with_lagged_columns(columbus):
    W, result = columbus.weights.matrix.toarray(), fit_spatial_ml(columbus, processes=["sdm"])
    theirs = spreg_lag(columbus, np.hstack([columbus.X, W @ columbus.X]))
    b, errors = theirs.betas.ravel(), np.sqrt(theirs.vm.diagonal())
    terms = ("intercept at zero", "INC", "HOVAL", "lag(INC)", "lag(HOVAL)", "rho")
    for term, estimate, error in zip(terms, b, errors, strict=True):
        got = row(result, "ML SDM", term, "spatial" if term == "rho" else "coefficient")
        np.testing.assert_allclose(got["estimate"], estimate, rtol=SEARCH)
        np.testing.assert_allclose(got["std_error"], error, rtol=SEARCH)
    assert result.log_likelihood["sdm"] == pytest.approx(theirs.logll, rel=SEARCH)
    inverse = np.linalg.inv(np.eye(49) - b[-1] * W)
    for i, term in enumerate(("INC", "HOVAL")):
        P = inverse @ (b[1 + i] * np.eye(49) + b[3 + i] * W)
        expected = np.trace(P) / 49, (P.sum() - np.trace(P)) / 49, P.sum() / 49
        got = [
            row(result, "ML SDM", term, effect)["estimate"]
            for effect in ("direct", "indirect", "total")
        ]
        np.testing.assert_allclose(got, expected, rtol=SEARCH)
    assert not result.estimates.query("effect == 'total' and term.str.startswith('lag(')").size


def test_errors_of_impacts_are_those_of_the_asymptotic_normal(columbus):
    theirs, rng = spreg_lag(columbus, columbus.X), np.random.default_rng(0)
    draws = rng.multivariate_normal(theirs.betas.ravel(), theirs.vm, size=200_000)
    draws = draws[abs(draws[:, -1]) < 1.0]
    result = fit_spatial_ml(columbus, processes=["sar"], draws=20_000)
    for i, term in enumerate(("INC", "HOVAL")):
        total = draws[:, 1 + i] / (1.0 - draws[:, -1])  # every row of W sums to one
        fourth = ((total - total.mean()) ** 4).mean() / total.var() ** 2
        error = np.sqrt((fourth - 1.0) / (4.0 * 20_000))  # of a standard deviation, relative
        got = row(result, "ML SAR", term, "total")["std_error"]
        np.testing.assert_allclose(got, total.std(), rtol=REDRAWS * error)


@pytest.fixture(scope="module")
def states():
    """Growth of income per head of 48 states, 1929 to 1994, on its log in 1929."""
    from libpysal.examples import get_path

    names = pd.read_csv(get_path("usjoin.csv"))["Name"].tolist()
    gal = read_weights(get_path("states48.gal"))  # whose ids are places in the table
    weights = dataclasses.replace(gal, regions=tuple(names[int(i)] for i in gal.regions))
    return build_design(sc.load_model("income_convergence"), sc.us_income(), weights)


def test_income_of_the_states(states):
    result = fit_spatial_ml(states, spec=sc.load_model("income_convergence"))
    assert row(result, "ML SAR", "rho", "spatial")["estimate"] == pytest.approx(
        0.185860, abs=DIGITS
    )
    assert row(result, "ML SEM", "lambda", "spatial")["estimate"] == pytest.approx(
        0.323185, abs=DIGITS
    )
    assert set(result.estimates["model"]) == {"income_convergence"}
    drawn = build_design(
        sc.load_model("income_convergence"), sc.us_income(), contiguity(sc.us_income())
    )
    pd.testing.assert_frame_equal(fit_spatial_ml(drawn).estimates, fit_spatial_ml(states).estimates)


def test_the_states_by_position_in_the_shapefile_are_other_numbers(states):
    """What the alignment by name guards against."""
    wrong = contiguity(sc.us_income())
    import geopandas as gpd
    from libpysal.examples import get_path

    order = gpd.read_file(get_path("us48.shp"))["STATE_NAME"].tolist()
    place = [wrong.regions.index(name) for name in order]
    matrix = wrong.matrix[place][:, place]  # in the order of the shapefile, read as the table's
    names = pd.read_csv(get_path("usjoin.csv"))["Name"]
    weights = dataclasses.replace(wrong, regions=tuple(names), matrix=matrix)
    design = build_design(sc.load_model("income_convergence"), sc.us_income(), weights)
    rho = row(fit_spatial_ml(design, processes=["sar"]), "ML SAR", "rho", "spatial")["estimate"]
    assert rho == pytest.approx(-0.0755, abs=5.1e-5)


# --- any W, against dense algebra ------------------------------------------------------


def brute_force(W, rho, beta, theta):
    n = len(W)
    P = np.linalg.inv(np.eye(n) - rho * W) @ (beta * np.eye(n) + theta * W)
    return np.trace(P) / n, (P.sum() - np.trace(P)) / n, P.sum() / n


def matrices():
    rng = np.random.default_rng(4)
    neighbors = rng.uniform(size=(30, 30)) < 0.12
    np.fill_diagonal(neighbors, False)
    neighbors[7] = False  # an isolate, although it is a neighbor of others
    one_way = neighbors * rng.uniform(0.5, 2.0, size=(30, 30))
    binary = (neighbors | neighbors.T).astype(float)
    binary[[3, 11]] = binary[:, [3, 11]] = 0.0
    sums = {name: W.sum(axis=1, keepdims=True) for name, W in (("o", one_way), ("b", binary))}
    return {
        "raw": binary,
        "raw, one way": one_way,
        "standardized": np.divide(binary, sums["b"], where=sums["b"] > 0, out=np.zeros((30, 30))),
        "standardized, one way": np.divide(
            one_way, sums["o"], where=sums["o"] > 0, out=np.zeros((30, 30))
        ),
    }


@pytest.mark.parametrize("name", matrices())
def test_impacts_are_those_of_the_dense_inverse(name):
    W, rng = matrices()[name], np.random.default_rng(1)
    bound = 1.0 / abs(np.linalg.eigvals(W)).max()
    rho = rng.uniform(-0.95, 0.95, size=25) * bound
    beta, theta = rng.normal(size=(2, 25))
    expected = np.transpose([brute_force(W, *each) for each in zip(rho, beta, theta, strict=True)])
    np.testing.assert_allclose(impacts_at(W, rho, beta, theta), expected, rtol=0, atol=EXACT)
    alone = impacts_at(W, rho[0], beta[0], theta[0])
    np.testing.assert_allclose(alone, expected[:, 0], rtol=0, atol=EXACT)
    several = impacts_at(W, rho[:2, None], beta)  # shapes broadcast
    np.testing.assert_allclose(
        [part[1, 3] for part in several], brute_force(W, rho[1], beta[3], 0.0), rtol=0, atol=EXACT
    )


def test_the_shortcut_is_wrong_as_soon_as_a_row_is_empty():
    W = matrices()["standardized"]
    total = impacts_at(W, 0.5, 1.0, 0.3)[2]
    assert total == pytest.approx(1.0 + (28 / 30) * 0.8 / 0.5, rel=EXACT)
    assert total < (1.0 + 0.3) / (1.0 - 0.5)


def test_impacts_refuse_rho_outside_the_support():
    with pytest.raises(WeightsError, match="rho"):
        impacts_at(matrices()["standardized"], 1.2, 1.0)


def dense_maximum(process, y, X, W):
    """Estimates with rho last, their covariance and log L, from the textbook (Anselin 1988)."""
    n, eye = len(y), np.eye(len(y))
    bound = 1.0 / abs(np.linalg.eigvals(W)).max()

    def parts(rho):
        A = eye - rho * W
        left, right = (A @ y, A @ X) if process == "sem" else (A @ y, X)
        b = np.linalg.lstsq(right, left, rcond=None)[0]
        s2 = ((left - right @ b) ** 2).mean()
        return b, s2, np.linalg.slogdet(A)[1] - n / 2 * (np.log(2 * np.pi * s2) + 1)

    found = minimize_scalar(
        lambda rho: -parts(rho)[2],
        bounds=(-bound, bound),
        method="bounded",
        options={"xatol": 1e-10},
    )
    b, s2, height = parts(found.x)
    A = eye - found.x * W
    G = W @ np.linalg.inv(A)
    k, square = len(b), np.trace(G @ G) + np.trace(G.T @ G)
    info = np.zeros((k + 2, k + 2))  # of b, rho, s2
    Z = A @ X if process == "sem" else X
    info[:k, :k] = Z.T @ Z / s2
    info[k, k], info[k + 1, k + 1] = square, n / (2 * s2**2)
    info[k, k + 1] = info[k + 1, k] = np.trace(G) / s2
    if process != "sem":
        far = G @ X @ b
        info[:k, k] = info[k, :k] = X.T @ far / s2
        info[k, k] += far @ far / s2
    return np.append(b, found.x), np.linalg.inv(info)[:-1, :-1], height


def simulated(W, seed=2, scale=1.0, clusters=None):
    """A table on W whose response follows a lag model; units far from one if scaled."""
    n, rng = len(W), np.random.default_rng(seed)
    x, z = rng.normal(5.0, 1.0, size=n), rng.exponential(size=n) * scale
    rho = 0.5 / abs(np.linalg.eigvals(W)).max()
    mean = 1.0 + x - 2.0 * z / scale + rng.normal(size=n)
    y = np.linalg.solve(np.eye(n) - rho * W, mean) / scale
    return pd.DataFrame({"region": [f"r{i:02d}" for i in range(n)], "y": y, "x": x, "z": z})


def weights_of(W, *, standardized):
    names, links = [f"r{i:02d}" for i in range(len(W))], np.nonzero(W)
    table = pd.DataFrame(
        {
            "region_i": [names[i] for i in links[0]] + names,
            "region_j": [names[i] for i in links[1]] + names,
            "weight": [*W[links], *np.zeros(len(W))],
        }
    )
    return read_weights(table, row_standardize=standardized)


def design_of(table, weights, formula="y ~ x + z"):
    return build_design(parse_spec(f'formula = "{formula}"'), read_panel(table), weights)


@pytest.mark.parametrize("scale", [1.0, 1e5])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("name", matrices())
def test_maxima_are_those_of_the_dense_likelihood(name, constant, scale):
    W = matrices()[name]
    table = simulated(W, scale=scale)
    weights = weights_of(W, standardized=name.startswith("standardized"))
    np.testing.assert_allclose(weights.matrix.toarray(), W, rtol=EXACT)
    design = design_of(table, weights, "y ~ x + z" if constant else "y ~ 0 + x + z")
    result = fit_spatial_ml(design, draws=2)
    assert len(result.log_likelihood) == 3, result.notes
    ones = np.ones((len(W), int(constant)))
    lagged = W @ design.X
    terms = ["intercept at zero"] * constant + ["x", "z"]
    for process, X, more in (
        ("sar", design.X, []),
        ("sem", design.X, []),
        ("sdm", np.hstack([design.X, lagged]), ["lag(x)", "lag(z)"]),
    ):
        b, V, height = dense_maximum(process, design.y, np.hstack([ones, X]), W)
        spatial = "lambda" if process == "sem" else "rho"
        got = [
            row(
                result,
                f"ML {process.upper()}",
                term,
                "spatial" if term == spatial else "coefficient",
            )
            for term in (*terms, *more, spatial)
        ]
        errors = np.sqrt(V.diagonal())
        gaps = (np.array([each["estimate"] for each in got]) - b) / errors
        np.testing.assert_allclose(gaps, 0.0, atol=SEARCH)
        np.testing.assert_allclose([each["std_error"] for each in got], errors, rtol=SEARCH)
        assert result.log_likelihood[process] == pytest.approx(height, abs=DIGITS)


def test_blocks_of_region_clusters():
    """One block per cluster over the regions that have it, standardized again."""
    W, rng = matrices()["standardized"], np.random.default_rng(8)
    tables = [simulated(W, seed=seed).assign(cluster=f"c{seed}") for seed in range(3)]
    table = pd.concat(tables)[rng.uniform(size=90) < 0.8].sample(frac=1.0, random_state=3)
    design = design_of(table, weights_of(W, standardized=True))
    ids = list(
        zip(design.data["row_region"].values, design.data["row_cluster"].values, strict=True)
    )
    blocks = np.zeros((len(ids), len(ids)))
    for i, (region, cluster) in enumerate(ids):
        for j, (other, theirs) in enumerate(ids):
            if cluster == theirs:
                blocks[i, j] = W[int(region[1:]), int(other[1:])] > 0
    sums = blocks.sum(axis=1, keepdims=True)
    blocks = np.divide(blocks, sums, where=sums > 0, out=blocks)
    result = fit_spatial_ml(design, processes=["sar"])
    b, _, height = dense_maximum(
        "sar", design.y, np.column_stack([np.ones(len(ids)), design.X]), blocks
    )
    assert row(result, "ML SAR", "rho", "spatial")["estimate"] == pytest.approx(b[-1], rel=SEARCH)
    assert result.log_likelihood["sar"] == pytest.approx(height, abs=DIGITS)
    got = [
        row(result, "ML SAR", "z", effect)["estimate"] for effect in ("direct", "indirect", "total")
    ]
    np.testing.assert_allclose(got, brute_force(blocks, b[-1], b[2], 0.0), rtol=SEARCH)
    alone = int((sums == 0).sum())
    assert alone > 0
    assert "one block of W per cluster over the sample" in result.notes[0]
    assert f"{alone} without neighbors" in result.notes[0]


# --- what is in the models, and what is refused ------------------------------------------


def test_a_durbin_model_keeps_the_lags_that_the_formula_has():
    W = matrices()["standardized"]
    table, weights = simulated(W), weights_of(W, standardized=True)
    plain = fit_spatial_ml(design_of(table, weights), processes=["sdm"])
    given = design_of(table, weights, "y ~ x + z + lag(x) + lag(z)")
    lagged = fit_spatial_ml(given, processes=["sar", "sdm", "sem"])
    same = plain.estimates.drop(columns="estimator")
    for _, part in lagged.estimates.query("estimator != 'ML SEM'").groupby("estimator"):
        found = part.drop(columns="estimator").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, same)
    # with an error process: beta, theta times the mean row sum
    beta, theta = (row(lagged, "ML SEM", t, "coefficient")["estimate"] for t in ("x", "lag(x)"))
    direct, indirect = (row(lagged, "ML SEM", "x", e)["estimate"] for e in ("direct", "indirect"))
    assert direct == pytest.approx(beta, rel=EXACT)
    assert indirect == pytest.approx(theta * W.sum() / len(W), rel=EXACT)


def test_an_error_process_has_no_impacts_beyond_its_coefficients(columbus):
    result = fit_spatial_ml(columbus, processes=["sem"])
    assert set(result.estimates["effect"]) == {"coefficient", "spatial"}


def test_a_lag_that_says_nothing_new_is_left_out():
    W = matrices()["standardized"]
    table = simulated(W)
    table["z"] = [0.0 if row.any() else 1.0 for row in W]  # isolates: their lag is 0
    result = fit_spatial_ml(design_of(table, weights_of(W, standardized=True)), processes=["sdm"])
    assert "ML SDM leaves out lag(z): combinations of other columns." in result.notes
    assert "ML SDM adds lag(x)." in result.notes


def test_groups_and_neighbor_strength_of_a_fit(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    result = fit_spatial_ml(fit)
    assert "Group effects and means are in no spatial model: region, cluster." in result.notes
    assert "ML SDM adds lag(log(cluster_level))." in result.notes
    assert not result.estimates["term"].str.startswith("mean(").any()
    assert set(result.estimates["model"]) == {"synthetic"}
    assert list(result.log_likelihood) == ["sar", "sem", "sdm"]


def test_draws_have_a_seed_and_stay_in_the_support():
    W = np.roll(np.eye(8), 1, axis=1) + np.roll(np.eye(8), -1, axis=1)
    table = simulated(W, seed=5)
    table["y"] = table["x"] + np.cos(np.arange(8) * np.pi / 4) * 3.0
    design = design_of(table, weights_of(W, standardized=True), "y ~ x")
    one, same, other = (fit_spatial_ml(design, processes=["sar"], seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one.estimates, same.estimates)
    assert np.isfinite(one.estimates["std_error"]).all()
    redrawn = int(one.notes[-1].split("(seed 1), ")[1].split()[0])
    assert redrawn > 0
    errors = [row(r, "ML SAR", "x", "total")["std_error"] for r in (one, other)]
    assert errors[0] != errors[1]


def test_a_maximum_at_the_end_of_the_support_is_left_out():
    """With everyone everyone's neighbor, the likelihood falls in rho throughout."""
    W = (np.ones((12, 12)) - np.eye(12)) / 11
    design = design_of(simulated(W), weights_of(W, standardized=True))
    result = fit_spatial_ml(design, processes=["sar"])
    assert (
        result.notes[-1] == "ML SAR is left out: its likelihood has no maximum inside the support."
    )
    assert result.estimates.empty
    assert not result.log_likelihood


def test_weights_on_which_spreg_gives_up_are_left_out():
    """Everyone's one neighbor is the outlier r00, so that W x is larger than x."""
    W = np.zeros((12, 12))
    W[1:, 0] = W[0, 1] = 1.0
    table = simulated(W)
    table["x"] = np.where(np.arange(12) == 0, 50.0, table["x"] - 5.0)
    table["y"] = np.linalg.solve(np.eye(12) - 0.9 * W, table["x"] + 0.1 * table["z"])
    result = fit_spatial_ml(design_of(table, weights_of(W, standardized=True), "y ~ 0 + x"))
    assert "sem" in result.log_likelihood
    assert any(note.startswith("ML SAR is left out: spreg") for note in result.notes)


def test_refusals():
    W = matrices()["standardized"]
    table, weights = simulated(W), weights_of(W, standardized=True)
    with pytest.raises(FitError, match="got no weights; expected"):
        fit_spatial_ml(design_of(table, None))
    with pytest.raises(FitError, match=r"got 'sac'; expected 'sar', 'sem', 'sdm'"):
        fit_spatial_ml(design_of(table, weights), processes=["sar", "sac"])
    pairs = [table.assign(cluster="c", industry=name) for name in ("i", "j")]
    with pytest.raises(FitError, match="got 60 rows in 30 regions or region-clusters"):
        fit_spatial_ml(design_of(pd.concat(pairs), weights))
    alone = table[table["region"].isin([f"r{i:02d}" for i in np.flatnonzero(~W.any(axis=1))])]
    few = pd.concat([alone, table.iloc[[0]]])  # no two of them are neighbors
    with pytest.raises(WeightsError, match="expected"):
        fit_spatial_ml(design_of(few, weights, "y ~ x"))
