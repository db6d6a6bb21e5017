"""Moments of spatial models: spreg itself, dense algebra, and estimates of known truth."""

import contextlib
import io
import warnings

import numpy as np
import pandas as pd
import pytest

from spatialclusters.design import build_design
from spatialclusters.errors import FitError, WeightsError
from spatialclusters.neighbors import contiguity
from spatialclusters.panel import read_panel
from spatialclusters.spatial_gmm import fit_spatial_gmm
from spatialclusters.spec import parse_spec
from spatialclusters.weights import read_weights

SAME = 1e-9  # the same closed form on columns of order one
SEARCH = 1e-6  # spreg's search for lambda has numerical gradients, of other numbers here
EXACT = 1e-10  # impacts: the same algebra in another order
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


def spreg_of(design, name, **options):
    """A class of spreg for users, which prints, on a Graph of its own and raw columns."""
    import spreg

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
        theirs = getattr(spreg, name)(
            design.y[:, None], design.X, w=design.weights.graph(), **options
        )
    return theirs.betas.ravel(), theirs.vm


THEIRS = {
    "sar": ("GM_Lag", {"w_lags": 2, "robust": "white", "spat_impacts": None}, SAME),
    "sdm": ("GM_Lag", {"w_lags": 2, "slx_lags": 1, "robust": "white", "spat_impacts": None}, SAME),
    "sem": ("GM_Error_Het", {}, SEARCH),
}


@pytest.mark.parametrize("process", THEIRS)
def test_columns_are_those_of_spreg(columbus, process):
    name, options, tolerance = THEIRS[process]
    b, V = spreg_of(columbus, name, **options)
    result = fit_spatial_gmm(columbus, processes=[process])
    lags = ("lag(INC)", "lag(HOVAL)") if process == "sdm" else ()
    spatial = "lambda" if process == "sem" else "rho"
    terms = ("intercept at zero", "INC", "HOVAL", *lags, spatial)
    assert len(b) == len(terms)
    for term, estimate, error in zip(terms, b, np.sqrt(V.diagonal()), strict=True):
        got = row(
            result, f"GMM {process.upper()}", term, "spatial" if term == spatial else "coefficient"
        )
        np.testing.assert_allclose(got["estimate"], estimate, rtol=tolerance)
        np.testing.assert_allclose(got["std_error"], error, rtol=tolerance)
        assert (got["point"], got["ci_kind"], got["ci_prob"]) == ("GMM", "confidence", 0.95)
        reach = 1.959963984540054 * got["std_error"]
        assert got["ci_low"] == pytest.approx(got["estimate"] - reach, rel=EXACT)
    assert result.rows_digest == columbus.rows_digest
    assert result.weights_digest == columbus.weights.digest
    assert (result.n_rows, result.response, result.unit) == (49, "CRIME", "CRIME")


def brute_force(W, rho, beta, theta):
    n = len(W)
    P = np.linalg.inv(np.eye(n) - rho * W) @ (beta * np.eye(n) + theta * W)
    return np.trace(P) / n, (P.sum() - np.trace(P)) / n, P.sum() / n


@pytest.mark.parametrize("process", ["sar", "sdm"])
def test_impacts_are_those_of_the_dense_inverse(columbus, process):
    result, name = fit_spatial_gmm(columbus, processes=[process]), f"GMM {process.upper()}"
    W = columbus.weights.matrix.toarray()
    rho = row(result, name, "rho", "spatial")["estimate"]
    for term in ("INC", "HOVAL"):
        beta = row(result, name, term, "coefficient")["estimate"]
        theta = (
            row(result, name, f"lag({term})", "coefficient")["estimate"]
            if process == "sdm"
            else 0.0
        )
        got = [
            row(result, name, term, effect)["estimate"]
            for effect in ("direct", "indirect", "total")
        ]
        np.testing.assert_allclose(got, brute_force(W, rho, beta, theta), rtol=0, atol=EXACT)


def test_errors_of_impacts_are_those_of_the_asymptotic_normal(columbus):
    b, V = spreg_of(columbus, "GM_Lag", w_lags=2, robust="white", spat_impacts=None)
    draws = np.random.default_rng(0).multivariate_normal(b, V, size=200_000)
    draws = draws[abs(draws[:, -1]) < 1.0]
    result = fit_spatial_gmm(columbus, processes=["sar"], draws=20_000)
    W = columbus.weights.matrix.toarray()
    for i, term in enumerate(("INC", "HOVAL")):
        direct = [brute_force(W, d[-1], d[1 + i], 0.0)[0] for d in draws[:4000]]
        got = row(result, "GMM SAR", term, "direct")["std_error"]
        np.testing.assert_allclose(got, np.std(direct), rtol=REDRAWS * _relative(direct))
        total = draws[:, 1 + i] / (1.0 - draws[:, -1])  # every row of W sums to one
        center = np.quantile(total, [0.16, 0.84])
        reach = row(result, "GMM SAR", term, "total")["std_error"]
        # heavy tails: the standard deviation of draws cut at |rho| < 1 is above the middle's
        assert reach > 0.5 * (center[1] - center[0])


def _relative(values):
    """Relative Monte Carlo error of a standard deviation."""
    z = (values - np.mean(values)) / np.std(values)
    return np.sqrt(((z**4).mean() - 1.0) / (4.0 * len(values)))


# --- any W, against the textbook in dense algebra -------------------------------------------


def matrices():
    rng = np.random.default_rng(4)
    neighbors = rng.uniform(size=(60, 60)) < 0.08
    np.fill_diagonal(neighbors, False)
    neighbors[7] = False  # an isolate, although it is a neighbor of others
    one_way = neighbors * rng.uniform(0.5, 2.0, size=(60, 60))
    binary = (neighbors | neighbors.T).astype(float)
    binary[[3, 11]] = binary[:, [3, 11]] = 0.0
    sums = {name: W.sum(axis=1, keepdims=True) for name, W in (("o", one_way), ("b", binary))}
    return {
        "raw": binary,
        "raw, one way": one_way,
        "standardized": np.divide(binary, sums["b"], where=sums["b"] > 0, out=np.zeros((60, 60))),
        "standardized, one way": np.divide(
            one_way, sums["o"], where=sums["o"] > 0, out=np.zeros((60, 60))
        ),
    }


def simulated(W, seed=2, scale=1.0, process="sar", strength=0.5):
    """A table on W whose response follows a lag or error model with unequal noise."""
    n, rng = len(W), np.random.default_rng(seed)
    x, z = rng.normal(5.0, 1.0, size=n), rng.exponential(size=n) * scale
    dependence = strength / abs(np.linalg.eigvals(W)).max()
    noise = rng.normal(size=n) * (0.5 + z / scale)
    mean = 1.0 + x - 2.0 * z / scale
    A = np.eye(n) - dependence * W
    y = np.linalg.solve(A, mean + noise) if process == "sar" else mean + np.linalg.solve(A, noise)
    return pd.DataFrame({"region": [f"r{i:03d}" for i in range(n)], "y": y / scale, "x": x, "z": z})


def weights_of(W, *, standardized):
    names, links = [f"r{i:03d}" for i in range(len(W))], np.nonzero(W)
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


def two_stages(y, X, W, H):
    """Two-stage least squares of y on [X, W y] with instruments H, and the robust sandwich."""
    Z = np.column_stack([X, W @ y])
    P = H @ np.linalg.pinv(H)
    A = np.linalg.inv(Z.T @ P @ Z)
    b = A @ Z.T @ P @ y
    scores = (P @ Z) * (y - Z @ b)[:, None]
    return b, A @ scores.T @ scores @ A


@pytest.mark.parametrize("scale", [1.0, 1e5])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("name", matrices())
def test_two_stages_of_the_textbook(name, constant, scale):
    W = matrices()[name]
    weights = weights_of(W, standardized=name.startswith("standardized"))
    design = design_of(
        simulated(W, scale=scale), weights, "y ~ x + z" if constant else "y ~ 0 + x + z"
    )
    result = fit_spatial_gmm(design, processes=["sar", "sdm"], draws=2)
    X = np.hstack([np.ones((len(W), int(constant))), design.X])
    lag = W @ design.X
    for process, own, H in (
        ("sar", X, np.hstack([X, lag, W @ lag])),
        ("sdm", np.hstack([X, lag]), np.hstack([X, lag, W @ lag, W @ W @ lag])),
    ):
        b, V = two_stages(design.y, own, W, H / np.linalg.norm(H, axis=0))
        more = ["lag(x)", "lag(z)"] if process == "sdm" else []
        terms = ["intercept at zero"] * constant + ["x", "z", *more, "rho"]
        got = [
            row(result, f"GMM {process.upper()}", t, "spatial" if t == "rho" else "coefficient")
            for t in terms
        ]
        errors = np.sqrt(V.diagonal())
        gaps = (np.array([each["estimate"] for each in got]) - b) / errors
        np.testing.assert_allclose(gaps, 0.0, atol=SEARCH)
        np.testing.assert_allclose([each["std_error"] for each in got], errors, rtol=SEARCH)
        assert result.first_stage[process] > 0.0


def test_weights_that_are_not_standardized_change_units_only():
    """Three times W has a third of rho and of lambda, and the same impacts."""
    W = matrices()["raw"]
    table = simulated(W)
    once, thrice = (
        fit_spatial_gmm(design_of(table, weights_of(c * W, standardized=False))).estimates
        for c in (1.0, 3.0)
    )
    per_lag = (once["effect"] == "spatial") | once["term"].str.startswith("lag(")
    factor = np.where(per_lag, 3.0, 1.0)
    np.testing.assert_allclose(thrice["estimate"] * factor, once["estimate"], rtol=SEARCH)
    np.testing.assert_allclose(thrice["std_error"] * factor, once["std_error"], rtol=SEARCH)


def test_the_truth_is_within_its_errors():
    """225 regions with noise that grows with a covariate: estimates are near what made them."""
    n = 15
    path = np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    W = np.kron(path, np.eye(n)) + np.kron(np.eye(n), path)
    W /= W.sum(axis=1, keepdims=True)
    weights = weights_of(W, standardized=True)
    for process, name in (("sar", "GMM SAR"), ("sem", "GMM SEM")):
        spatial, z = "rho" if process == "sar" else "lambda", []
        for seed in range(6):
            design = design_of(simulated(W, seed=seed, process=process), weights)
            result = fit_spatial_gmm(design, processes=[process], draws=2)
            for term, truth in (("x", 1.0), ("z", -2.0), (spatial, 0.5)):
                got = row(result, name, term, "spatial" if term == spatial else "coefficient")
                z.append((got["estimate"] - truth) / got["std_error"])
        assert abs(np.mean(z)) < 4.0 / np.sqrt(len(z))
        assert 0.6 < np.std(z) < 1.5  # 18 z of three kinds: chi-squared bounds at 1e-3


# --- what is in the models, and what is refused ------------------------------------------


def test_lags_that_the_formula_has_are_no_instruments_twice():
    W = matrices()["standardized"]
    table, weights = simulated(W), weights_of(W, standardized=True)
    plain = fit_spatial_gmm(design_of(table, weights), processes=["sdm"])
    given = design_of(table, weights, "y ~ x + z + lag(x) + lag(z)")
    lagged = fit_spatial_gmm(given, processes=["sar", "sdm"])
    same = plain.estimates.drop(columns="estimator")
    for _, part in lagged.estimates.groupby("estimator"):
        found = part.drop(columns="estimator").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, same)
    assert "GMM SDM adds lag(x), lag(z)." in plain.notes
    text = "\n".join(plain.notes)
    assert "GMM SDM has 4 instruments: W lag(x), W lag(z), W^2 lag(x), W^2 lag(z); " in text


def test_without_covariates_there_is_no_instrument():
    W = matrices()["standardized"]
    design = design_of(simulated(W), weights_of(W, standardized=True), "y ~ 1")
    result = fit_spatial_gmm(design)
    lost = "is left out: no lag of a covariate is an instrument for that of the response."
    assert f"GMM SAR {lost}" in result.notes
    assert set(result.estimates["estimator"]) == {"GMM SEM"}
    assert not result.first_stage


def unrelated(wanted):
    """Estimate SAR where covariates say nothing, until rho is where it is wanted."""
    W = matrices()["standardized"]
    weights, seed = weights_of(W, standardized=True), 0
    while True:
        rng = np.random.default_rng(seed)
        table = simulated(W)[["region"]].assign(x=rng.normal(size=60), y=rng.normal(size=60))
        result = fit_spatial_gmm(design_of(table, weights, "y ~ x"), processes=["sar"])
        if wanted(row(result, "GMM SAR", "rho", "spatial")):
            return result
        seed += 1


def test_no_impacts_outside_the_support():
    """A weak instrument may put rho anywhere: then there is nothing that impacts converge to."""
    result = unrelated(lambda rho: abs(rho["estimate"]) > 1.0)
    assert set(result.estimates["effect"]) == {"coefficient", "spatial"}
    assert "GMM SAR has no impacts: rho is outside the support, |rho| < 1." in result.notes


def test_an_uncertain_rho_is_said_to_be():
    result = unrelated(lambda rho: abs(rho["estimate"]) < 0.5 < rho["std_error"])
    ending = (
        "redrawn as outside the support: rho is too uncertain for errors of impacts to mean much."
    )
    assert result.notes[-1].endswith(ending)
    assert result.first_stage["sar"] < 10.0


def test_draws_have_a_seed(columbus):
    one, same, other = (
        fit_spatial_gmm(columbus, processes=["sar"], seed=s).estimates for s in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)


def test_groups_of_a_fit_are_in_no_spatial_model(synthetic_fit):
    result = fit_spatial_gmm(synthetic_fit("clusters", geometry=True))
    assert "Group effects and means are in no spatial model: region, cluster." in result.notes
    assert set(result.estimates["model"]) == {"synthetic"}


def test_refusals():
    W = matrices()["standardized"]
    table, weights = simulated(W), weights_of(W, standardized=True)
    with pytest.raises(FitError, match="got no weights; expected"):
        fit_spatial_gmm(design_of(table, None))
    with pytest.raises(FitError, match=r"got 'sac'; expected 'sar', 'sem', 'sdm'"):
        fit_spatial_gmm(design_of(table, weights), processes=["sar", "sac"])
    alone = table[table["region"].isin([f"r{i:03d}" for i in np.flatnonzero(~W.any(axis=1))])]
    few = pd.concat([alone, table.iloc[[0]]])  # no two of them are neighbors
    with pytest.raises(WeightsError, match="expected"):
        fit_spatial_gmm(design_of(few, weights, "y ~ x"))
