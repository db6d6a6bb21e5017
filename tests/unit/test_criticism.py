"""Verdicts find what is wrong, and only that; each number against a computation of its own."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import sparse, stats

import spatialclusters as sc
from spatialclusters.criticism import criticize
from spatialclusters.diagnostics import check
from spatialclusters.predictive import predictive_density
from spatialclusters.residuals import morans_i, regional_residuals, residual_moran, residuals
from spatialclusters.result import assemble

EXACT = 1e-12
SETTINGS = {"settings": {"max_tree_depth": 10}, "timings": {}}


def grid(side):
    """Rook neighbors on a square grid."""
    names = np.array([f"r{i:03d}" for i in range(side**2)]).reshape(side, side)
    pairs = [*zip(names[1:].ravel(), names[:-1].ravel(), strict=True),
             *zip(names[:, 1:].ravel(), names[:, :-1].ravel(), strict=True)]  # fmt: skip
    both = pairs + [(b, a) for a, b in pairs]
    return names.ravel(), sc.read_weights(pd.DataFrame(both, columns=["region_i", "region_j"]))


def fit_of(noise, *, sigma=1.0, weights=True, draws=(4, 100), outcome="none", rho=0.0):
    """A fit of y = 1 + 0.5 x + noise whose draws are close to these parameters."""
    names, W = grid(int(np.sqrt(len(noise))))
    rng = np.random.default_rng(11)
    table = pd.DataFrame({"region": names, "x": rng.normal(size=len(names))})
    table["y"] = 1.0 + 0.5 * table["x"] + noise
    spec = sc.parse_spec(f'formula = "y ~ x"\nspatial.outcome = "{outcome}"')
    design = sc.build_design(spec, sc.read_panel(table), W if weights else None)
    center = float(design.data["center"].values[0])
    n = len(names)
    known = {
        "intercept": rng.normal(1.0 + 0.5 * center, sigma / np.sqrt(n), draws),
        "coefficient": rng.normal(0.5, sigma / np.sqrt(n), (*draws, 1)),
        "sigma": rng.normal(sigma, sigma / np.sqrt(2 * n), draws),
    }
    known |= {"rho": rng.normal(rho, 0.01, draws)} if outcome == "sar" else {}
    found = {"diverging": np.zeros(draws, bool), "energy": rng.normal(size=draws),
             "tree_depth": np.full(draws, 3)}  # fmt: skip
    return assemble(
        spec, design, known, found, panel=xr.Dataset(), geometry=None, provenance=SETTINGS
    )


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(3).standard_normal(400)


def failed(fit):
    table = criticize(fit).table
    return table[~table["passed"]]["check"].tolist()


def test_nothing_is_wrong_with_the_model_that_made_the_data(noise):
    found = criticize(fit_of(noise))
    assert found.passed, str(found)
    assert str(found).startswith("Model: describes the data in every check.")
    assert len(found.table) == 8
    assert found.loo.by == "row"


def test_noise_of_another_scale_shape_or_pattern_is_found(noise):
    narrow = failed(fit_of(noise, sigma=0.6))
    assert {"coverage of 50 % intervals of rows left out", "spread of residuals by size"} <= {
        *narrow
    }
    tails = failed(fit_of(stats.norm.ppf(stats.norm.cdf(noise)) ** 3 / 3.0, sigma=1.1))
    assert "shape of the response: tails" in tails
    assert "coverage of 50 % intervals of rows left out" in tails
    W = grid(20)[1].matrix
    waves = np.linalg.solve(np.eye(400) - 0.7 * W.toarray(), noise)
    assert "Moran's I of residuals, regions" in failed(fit_of(waves, sigma=float(waves.std())))
    text = str(criticize(fit_of(noise, sigma=0.6)))
    assert "checks call for caution" in text
    assert "NOTE coverage of 50 %" in text


def test_morans_i_is_that_of_loops():
    rng = np.random.default_rng(5)
    W = (rng.random((9, 9)) < 0.3) * rng.random((9, 9))
    np.fill_diagonal(W, 0.0)
    values = rng.normal(size=(9, 2))
    found = morans_i(sparse.csr_array(W), values)
    for k, z in enumerate((values - values.mean(axis=0)).T):
        top = sum(W[i, j] * z[i] * z[j] for i in range(9) for j in range(9))
        wanted = 9 / W.sum() * top / sum(each**2 for each in z)
        assert found[k] == pytest.approx(wanted, rel=EXACT)


def test_morans_i_agrees_with_spreg(noise):
    from types import SimpleNamespace

    from spreg import BaseOLS, MoranRes

    W = grid(20)[1].matrix
    ols = BaseOLS(noise[:, None], np.ones((400, 1)))
    s1 = 0.5 * float((W + W.T).power(2).sum())
    stub = SimpleNamespace(sparse=sparse.csr_matrix(W), n=400, s0=float(W.sum()), s1=s1)
    assert float(morans_i(W, noise)) == pytest.approx(MoranRes(ols, stub).I, rel=1e-9)


def test_chance_of_a_morans_i_as_large_is_uniform_without_dependence(noise):
    rng = np.random.default_rng(8)
    p = [
        residual_moran(fit_of(rng.standard_normal(100)), draws=100)["p_value"].item()
        for _ in range(60)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_residuals_of_clusters_meet_their_neighbors_in_the_cluster_only(synthetic_fit):
    fit = synthetic_fit("clusters")
    table = residual_moran(fit, draws=20).set_index(["of", "scope"])
    assert len(table) == 1 + 1 + 9 + 1  # regions, all clusters, each of them, region effects
    from spatialclusters.simulation import noise_scale, thinned

    chosen, design = thinned(fit, 20), fit.design
    rows = np.flatnonzero(design.data["row_cluster"].values == "Cluster 3")
    place = {region: i for i, region in enumerate(fit.weights.regions)}
    at = [place[region] for region in design.data["row_region"].values[rows]]
    W = fit.weights.matrix.toarray()[np.ix_(at, at)]
    W = W / np.maximum(W.sum(axis=1, keepdims=True), 1e-300)
    e = np.stack([residuals(fit, p) / noise_scale(fit.spec, design, p) for p in chosen], axis=1)
    wanted = morans_i(sparse.csr_array(W), e[rows])
    assert table.loc[("residuals", "Cluster 3"), "moran"] == pytest.approx(wanted.mean(), rel=1e-9)


def test_nothing_is_assumed_of_fixed_effects(noise):
    """A trend of fixed effects is no fault of the model, of independent random ones it is."""
    names, W = grid(12)
    rng, trend = np.random.default_rng(2), np.repeat(np.linspace(-2.0, 2.0, 12), 12)
    table = pd.DataFrame({"region": np.repeat(names, 3), "cluster": [*"abc"] * 144})
    table["y"] = np.repeat(trend, 3) + rng.normal(size=len(table))
    found = {}
    for effect in ("random", "fixed"):
        text = f'formula = "y ~ 1 + (1 | region)"\ngroups.region.effect = "{effect}"'
        spec = sc.parse_spec(text)
        design = sc.build_design(spec, sc.read_panel(table), W)
        draws = {"intercept": np.zeros((2, 50)), "sigma": rng.normal(1.0, 0.02, (2, 50))}
        draws["effect(region)"] = trend[:, None] + rng.normal(0.0, 0.3, (2, 50, 144, 1))
        draws |= {"sd(region)": np.ones((2, 50, 1))} if effect == "random" else {}
        fit = assemble(
            spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance=SETTINGS
        )
        found[effect] = residual_moran(fit).set_index("of")["p_value"]
    assert found["random"]["effects"] < 0.01
    assert "effects" not in found["fixed"]
    assert (found["fixed"]["residuals"] > 0.01).all()


def test_residuals_need_weights_for_neighbors(noise):
    with pytest.raises(sc.FitError, match="got a fit without weights"):
        residual_moran(fit_of(noise, weights=False))
    assert not any(
        "Moran" in name for name in criticize(fit_of(noise, weights=False)).table["check"]
    )


def test_residuals_by_region_are_those_of_all_draws(noise):
    fit = fit_of(noise)
    frame = regional_residuals(fit).set_index("group")
    design = fit.design
    mean = fit.draws("intercept")[..., None]
    mean = mean + fit.draws("coefficient") @ (design.X - design.data["center"].values).T
    wanted = (design.y - mean).mean(axis=(0, 1))
    found = frame.loc[design.data["row_region"].values, "estimate"]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_statistics_are_those_of_replicates(noise):
    fit = fit_of(noise)
    table = sc.predictive_statistics(fit, draws=50, seed=4).set_index("statistic")
    replicated, y = sc.posterior_predictive(fit, draws=50, seed=4), fit.design.y
    sds = replicated.std(axis=1, ddof=1)
    row = table.loc["standard deviation"]
    assert row["observed"] == pytest.approx(y.std(ddof=1), rel=EXACT)
    assert row["replicated"] == pytest.approx(np.median(sds), rel=EXACT)
    assert row["p_value"] == np.mean(sds >= y.std(ddof=1))
    # what the report says of a normal
    assert stats.norm.ppf(0.99) / stats.norm.ppf(0.75) == pytest.approx(3.45, abs=0.005)
    density = predictive_density(fit, draws=30, seed=4)
    inside = ((y >= density["low"].iloc[0]) & (y <= density["high"].iloc[-1])).mean()
    width = density["high"] - density["low"]
    assert (density["observed"] * width).sum() == pytest.approx(inside)
    assert density.attrs["beyond"] == round(len(y) * (1.0 - inside))


def test_replicates_from_the_prior_need_a_prior(noise, synthetic_fit):
    wide = sc.predictive_statistics(fit_of(noise), source="prior").set_index("statistic")
    assert wide.loc["standard deviation", "replicated"] > 1.5
    with pytest.raises(sc.FitError, match="cannot be drawn from"):
        sc.predictive_statistics(synthetic_fit("fixed"), source="prior")
    with pytest.raises(sc.FitError, match="expected 'posterior' or 'prior'"):
        sc.predictive_statistics(fit_of(noise), source="data")


def test_ranks_are_those_within_draws(synthetic_fit):
    fit = synthetic_fit("clusters")
    effects = fit.draws("effect(region)")[..., 0].reshape(-1, 12)
    ranks = stats.rankdata(-effects, axis=1)
    frame = sc.rank_levels(fit, "region").set_index("group")
    for k, level in enumerate(fit.design.groups[0].levels):
        row = frame.loc[level]
        assert row["rank"] == pytest.approx(ranks[:, k].mean(), rel=EXACT)
        assert row["prob_first"] == np.mean(ranks[:, k] == 1)
        assert row["prob_top"] == np.mean(ranks[:, k] <= 5)
        ends = np.quantile(ranks[:, k], [0.025, 0.975], method="inverted_cdf")
        assert row[["ci_low", "ci_high"]].tolist() == ends.tolist()
    assert frame["rank"].is_monotonic_increasing
    turned = sc.rank_levels(fit, "region", ascending=True).set_index("group")
    np.testing.assert_allclose(turned["rank"], 13.0 - frame.loc[turned.index, "rank"])
    with pytest.raises(sc.FitError, match=r"expected one of \(1 \| region\)"):
        sc.rank_levels(fit, "area")


def test_derived_quantities_are_checked(noise):
    fit = fit_of(noise, outcome="sar", rho=0.3, draws=(4, 600))
    good = check(fit).table.set_index("check")
    assert good.loc["R-hat of hyperparameters and headline quantities", "passed"]
    tree = fit.tree.copy(deep=True)
    tree["posterior"]["rho"][0] += 0.2  # only impacts and rho differ between chains
    tree["posterior"]["rho"][1:] -= 0.05
    sick = check(sc.Fit(tree)).table.set_index("check")
    row = sick.loc["R-hat of hyperparameters and headline quantities"]
    assert not row["passed"]
    assert row["number"] > 1.01
    assert "x [indirect]" in row["value"] or "rho" in row["value"]
    few = check(fit_of(noise, draws=(2, 60))).table.set_index("check")
    assert not few.loc["Monte Carlo error over standard deviation", "passed"]


def test_families_of_derived_quantities_are_checked(synthetic_fit):
    table = check(synthetic_fit("clusters")).table.set_index("check")
    assert table.loc["ESS of convergence by group, smallest", "passed"]
    assert table.loc["R-hat of effects (1 | region), below 1.01", "number"] == 100.0
    assert table["advice"].str.len().gt(0).sum() >= len(table) - 2
