"""What is read from fits with estimated weights: impacts, ranges, warnings, files, recovery."""

import logging

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

import spatialclusters as sc
from spatialclusters.likelihood import conditional_log_likelihood, theta_at
from spatialclusters.reporting import write_report
from spatialclusters.result import assemble
from spatialclusters.simulation import simulate_response, thinned
from tests.contracts.test_blends import (
    CUTOFF,
    PSI,
    decay_matrix,
    design_of,
    lag_at,
    panel_of,
    weights_of,
)

EXACT = 1e-9  # relative: sparse solves by draw against dense inverses
GRID = 1e-3  # relative: mean distances are interpolated between 200 values of delta
CHAINS, DRAWS = 2, 20


def fit_of(rows, kind, blend, draws=DRAWS, spread=0.05):
    """A fit of made-up draws around one point."""
    spec, design = design_of(rows, kind, blend)
    rng, shape = np.random.default_rng(3), (CHAINS, draws)
    posterior = {"intercept": rng.normal(size=shape), "sigma": np.exp(rng.normal(size=shape))}
    posterior["coefficient"] = rng.normal(0.5, 0.2, size=(*shape, len(design.terms)))
    if spec.spatial.parameters:
        posterior["rho"] = rng.uniform(0.2, 0.7, size=shape)
    if blend == "mixture":
        posterior["share"] = rng.dirichlet(PSI["mixture"] / spread, size=shape)
    else:
        posterior["delta"] = PSI[blend] * np.exp(spread * rng.normal(size=shape))
    for group in design.groups:
        size = (*shape, len(group.levels), len(group.labels))
        posterior[f"effect({group.name})"] = rng.normal(size=size)
        posterior[f"sd({group.name})"] = np.exp(rng.normal(size=(*shape, len(group.labels))))
    settings = {"seed": 7, "chains": 4, "tune": 600, "draws": 500, "max_tree_depth": 10}
    provenance = {
        "version": sc.__version__, "created": "2026-11-22T12:00:00+00:00", "settings": settings,
        "engine": "full", "sampler": "none: made up", "python": "3.12.1", "versions": {},
        "digests": {}, "timings": {},
    }  # fmt: skip
    stats = {
        "diverging": np.zeros(shape, dtype=bool), "energy": np.zeros(shape),
        "n_steps": np.full(shape, 3), "tree_depth": np.full(shape, 2),
    }  # fmt: skip
    return assemble(
        spec, design, posterior, stats, panel=xr.Dataset(), geometry=None, provenance=provenance
    )


@pytest.mark.parametrize("rows", ["cross-section", "clusters"])
@pytest.mark.parametrize("kind", ["slx", "sar", "sdm"])
@pytest.mark.parametrize("blend", ["mixture", "power"])
def test_impacts_are_those_of_dense_matrices(rows, kind, blend):
    fit = fit_of(rows, kind, blend)
    design, terms = fit.design, fit.design.terms
    found = sc.impacts(fit, term="x").set_index("effect")["estimate"]
    order = sc.impacts(fit, by="order", term="x")["estimate"].to_numpy()
    regional = sc.regional_impacts(fit, "x")
    direct, total, orders, spill = [], [], [], []
    for p in thinned(fit, CHAINS * DRAWS):
        L = lag_at(design, blend, p["share" if blend == "mixture" else "delta"])
        beta = p["coefficient"][terms.index("x")]
        theta = p["coefficient"][terms.index("lag(x)")] if "lag(x)" in terms else 0.0
        rho, eye = float(p.get("rho", 0.0)), np.eye(len(L))
        P = np.linalg.solve(eye - rho * L, beta * eye + theta * L)
        direct.append(np.diag(P).mean())
        total.append(P.sum(axis=1).mean())
        orders.append([beta, (rho * beta + theta) * L.sum(axis=1).mean()])
        off = P - np.diag(np.diag(P))
        region = pd.factorize(design.data["row_region"].values, sort=True)[0]
        spill.append(np.bincount(region, off.sum(axis=1)) / np.bincount(region))
    assert found["direct"] == pytest.approx(np.mean(direct), rel=EXACT)
    assert found["total"] == pytest.approx(np.mean(total), rel=EXACT)
    np.testing.assert_allclose(order[:2], np.mean(orders, axis=0), rtol=EXACT)
    gained = regional.query("effect == 'spill_in'")["estimate"].to_numpy()
    np.testing.assert_allclose(gained, np.mean(spill, axis=0), rtol=EXACT, atol=EXACT)


def test_many_cells_are_taken_at_fewer_draws(monkeypatch):
    monkeypatch.setattr("spatialclusters.spillovers._FEW_CELLS", 5)
    monkeypatch.setattr("spatialclusters.spillovers._FEW_DRAWS", 20)
    fit = fit_of("clusters", "sdm", "power")
    thin = sc.impacts(fit, term="x")
    monkeypatch.undo()
    full = sc.impacts(fit_of("clusters", "sdm", "power"), term="x")
    np.testing.assert_allclose(thin["estimate"], full["estimate"], atol=0.2)
    assert not np.array_equal(thin["estimate"], full["estimate"])


@pytest.mark.parametrize("blend", ["power", "exponential"])
def test_the_range_is_where_a_weight_has_halved(blend):
    fit = fit_of("cross-section", "slx", blend)
    found = sc.spillover_range(fit).set_index("effect")
    decay = fit.weights.blend
    delta = float(np.median(fit.draws("delta")))
    half = found.loc["half_distance", "estimate"] / decay.unit_km
    weight = half**-delta if blend == "power" else np.exp(-delta * (half - 1.0))
    assert weight == pytest.approx(0.5, rel=0.05)  # of the median draw, of which there are two
    assert (found["unit"] == "km").all()
    W = decay_matrix(fit.design, blend, delta)
    d = np.zeros_like(W)
    links = decay.distances.tocoo()
    d[links.row, links.col] = links.data * decay.unit_km
    wanted = (W * d).sum(axis=1)[W.sum(axis=1) > 0].mean()
    assert found.loc["mean_distance", "estimate"] == pytest.approx(wanted, rel=0.02)
    assert found.loc["mean_distance", "estimate"] <= CUTOFF
    with pytest.raises(sc.FitError, match="distance decay"):
        sc.spillover_range(fit_of("cross-section", "slx", "mixture"))


@pytest.mark.parametrize("blend", PSI)
def test_a_posterior_like_the_prior_is_said_to_be(blend):
    known = fit_of("cross-section", "slx", blend, draws=400)
    assert sc.uninformed_weights(known) is None
    rng, shape = np.random.default_rng(0), (CHAINS, 400)
    name = "share" if blend == "mixture" else "delta"
    prior = rng.dirichlet(np.ones(3), shape) if name == "share" else rng.uniform(0.0, 4.0, shape)
    draws = {str(n): known.draws(str(n)) for n in known.posterior.data_vars} | {name: prior}
    stats = {"diverging": np.zeros(shape, int), "energy": rng.normal(size=shape)}
    stats["tree_depth"] = np.ones(shape)
    fit = assemble(
        known.spec,
        known.design,
        draws,
        stats,
        panel=xr.Dataset(),
        geometry=None,
        provenance=known.provenance,
    )
    assert name in str(sc.uninformed_weights(fit))
    table = sc.check(fit).table.set_index("check")
    assert table.loc["estimated weights", "passed"]
    assert "next to nothing" in table.loc["estimated weights", "value"]


@pytest.mark.parametrize("blend", PSI)
def test_a_fit_survives_its_file(blend, tmp_path):
    fit = fit_of("clusters", "sdm", blend)
    again = sc.load_fit(fit.save(tmp_path / "fit.nc"))
    assert again.design.digest == fit.design.digest
    assert again.weights.digest == fit.weights.digest
    pd.testing.assert_frame_equal(sc.impacts(again), sc.impacts(fit))
    frame = sc.coefficients(again).query("effect == 'spatial'")
    labels = again.weights.blend.labels if blend == "mixture" else ("",)
    name = "share" if blend == "mixture" else "delta"
    assert set(zip(frame["term"], frame["group"], strict=True)) == {
        ("rho", ""),
        *((name, label) for label in labels),
    }
    theta = theta_at(again.spec, again.design, thinned(again, 1)[0])
    np.testing.assert_allclose(theta.spatial[name], again.draws(name)[0, 0])


def test_the_commands_read_such_fits(capsys, tmp_path):
    from spatialclusters.cli import main

    path = str(fit_of("cross-section", "sdm", "power").save(tmp_path / "fit.nc"))
    assert main(["impacts", path, "--by", "distance"]) == 0
    assert "half_distance" in capsys.readouterr().out
    assert main(["summary", path]) == 0
    text = capsys.readouterr().out
    assert "delta: how fast weights fall with distance" in text
    assert "W is estimated" in text
    path = str(fit_of("cross-section", "sdm", "mixture").save(tmp_path / "mixed.nc"))
    assert main(["impacts", path, "--by", "distance"]) == 2
    assert main(["impacts", path, "--by", "order"]) == 0


def test_other_rows_are_not_predicted_by_a_fixed_matrix():
    """Whoever builds a design of other rows without columns at every W is told so."""
    design = fit_of("cross-section", "slx", "power").design
    other = type(design)(design.data.drop_vars("X_blend"), design.weights)
    with pytest.raises(sc.FitError, match="weights that are estimated"):
        other.covariates({"delta": 1.0})


@pytest.mark.parametrize("blend", ["mixture", "power"])
def test_predictions_are_at_the_weights_of_each_draw(blend):
    fit = fit_of("cross-section", "sdm", blend)
    trend = sc.predict(fit)["estimate"].to_numpy()
    wanted = []
    for p in thinned(fit, CHAINS * DRAWS):
        L = lag_at(fit.design, blend, p["share" if blend == "mixture" else "delta"])
        A = np.eye(len(L)) - float(p["rho"]) * L
        X = fit.design.covariates(p) - fit.design.data["center"].values
        wanted.append(np.linalg.solve(A, float(p["intercept"]) + X @ p["coefficient"]))
    np.testing.assert_allclose(trend, np.mean(wanted, axis=0), rtol=EXACT, atol=EXACT)
    with pytest.raises(sc.FitError, match="weights that are estimated"):
        sc.counterfactual(fit, "r01", "c0", 0.1)


def test_the_likelihood_given_effects_follows_the_weights():
    fit = fit_of("cross-section", "slx", "mixture")
    found = conditional_log_likelihood(fit, draws=5)
    assert found.shape == (5, fit.design.n_rows)
    assert np.ptp(found, axis=0).min() > 0.0


def test_the_command_line_names_estimated_weights():
    from spatialclusters.neighbors import parse_weights

    panel = panel_of()
    assert parse_weights("decay-power:150", panel).kind == "decay-power:150"
    assert parse_weights("decay-exponential:150", panel).blend.form == "exponential"
    mixed = parse_weights("knn:2 + distance:150", panel)
    assert mixed.blend.labels == ("knn:2", "distance:150")
    spec = sc.parse_spec('formula = "y ~ x + lag(x)"\nweights.kind = "knn:2 + distance:150"')
    assert spec.weights.kind == mixed.kind
    for wrong in ("decay-power:", "decay-linear:5", "knn:2 + "):
        with pytest.raises(sc.WeightsError):
            parse_weights(wrong, panel)
    with pytest.raises(sc.WeightsError, match="row-standardization"):
        parse_weights("decay-power:150", panel, row_standardize=False)
    with pytest.raises(sc.SpecError):
        sc.parse_spec('formula = "y ~ x"\nweights.kind = "queen + decay-power:5"')


def test_mixtures_of_what_cannot_be_mixed_are_refused():
    panel = panel_of()
    two, band = sc.knn(panel, 2), sc.distance_band(panel, CUTOFF)
    for given, expected in (
        ([two], "2 to 4"),
        ([two, sc.knn(panel, 2)], "twice"),
        ([two, sc.knn(panel, 3, row_standardize=False)], "raw rows"),
        ([two, weights_of(panel, "power")], "estimated already"),
        ([two, sc.align(band, panel.regions[:-1])], "other regions"),
    ):
        with pytest.raises(sc.WeightsError, match=expected):
            sc.mix_weights(*given)
    for settings in ({"cutoff_km": -1.0}, {"cutoff_km": 9.0}, {"delta": (2.0, 1.0)}, {"form": "x"}):
        with pytest.raises(sc.WeightsError):
            sc.distance_decay(panel, **({"cutoff_km": CUTOFF} | settings))


def recovery_panel(n, seed):
    rng, regions = np.random.default_rng(seed), [f"r{i:03d}" for i in range(n)]
    places = rng.uniform(0.0, 1e6, size=(n, 2))
    frame = geopandas.GeoDataFrame(
        {"region": regions}, geometry=shapely.points(places), crs="EPSG:5070"
    )
    table = pd.DataFrame({"region": regions, "x": rng.normal(size=n), "y": rng.normal(size=n)})
    return sc.read_panel(table, frame)


def simulated_fit(panel, weights, truth, outcome, seed, draws=600):
    """Fit the model to data simulated from it at known parameters."""
    from spatialclusters.run import fit_design
    from spatialclusters.sampling import Settings

    spec = sc.parse_spec(f'formula = "y ~ x + lag(x)"\nspatial.outcome = "{outcome}"')
    design = sc.build_design(spec, panel, weights)
    y = simulate_response(spec, design, truth, np.random.default_rng(seed))
    design.data["y"] = ("obs", y)
    design = type(design)(design.data, design.weights)
    settings = Settings(seed=seed, chains=2, tune=300, draws=draws, engine="collapsed")
    return fit_design(spec, design, settings, panel=panel)


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["none", "sar"])
def test_delta_is_recovered(outcome, tmp_path):
    panel = recovery_panel(150, 1)
    truth = {"intercept": 1.0, "coefficient": np.array([1.0, 2.5]), "sigma": 0.5, "delta": 1.6}
    truth |= {"rho": 0.4} if outcome == "sar" else {}
    fit = simulated_fit(panel, sc.distance_decay(panel, 250.0), truth, outcome, 11)
    low, high = np.quantile(fit.draws("delta"), [0.025, 0.975])
    assert low < truth["delta"] < high
    assert high - low < 1.5
    assert sc.uninformed_weights(fit) is None
    assert sc.check(fit).table.query("check == 'divergent transitions'")["passed"].all()
    write_report(fit, path=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "W is estimated" in text


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["none", "sar"])
def test_shares_are_recovered(outcome):
    panel = recovery_panel(150, 2)
    shares = np.array([0.7, 0.3])
    truth = {"intercept": 1.0, "coefficient": np.array([1.0, 2.5]), "sigma": 0.5, "share": shares}
    truth |= {"rho": 0.4} if outcome == "sar" else {}
    mixed = sc.mix_weights(sc.knn(panel, 3), sc.distance_band(panel, 200.0))
    fit = simulated_fit(panel, mixed, truth, outcome, 12)
    low, high = np.quantile(fit.draws("share")[..., 0], [0.025, 0.975])
    assert low < 0.7 < high
    assert high - low < 0.6
    assert sc.uninformed_weights(fit) is None


@pytest.mark.slow
def test_without_spillovers_the_data_say_nothing(caplog):
    # few regions: with many, chance spillovers do say something of their range
    panel = recovery_panel(40, 3)
    truth = {"intercept": 1.0, "coefficient": np.array([1.0, 0.0]), "sigma": 1.0, "rho": 0.0}
    with caplog.at_level(logging.WARNING):
        fit = simulated_fit(
            panel, sc.distance_decay(panel, 250.0), truth | {"delta": 1.0}, "sar", 13
        )
    assert "next to nothing about 'delta'" in str(sc.uninformed_weights(fit)), fit.draws(
        "delta"
    ).std()
    assert "next to nothing about 'delta'" in caplog.text
