"""Both likelihoods on demand, against densities written out with scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import spatialclusters as sc
from spatialclusters import likelihood
from spatialclusters.parameters import model_priors
from spatialclusters.simulation import linear_predictor, noise_scale, thinned

EXACT = 1e-9  # relative: a dense 60 x 60 factor against the elimination
DRAWS = 20

FORMULA = "y ~ x + (1 + x | cluster) + (1 | region)"


@pytest.fixture(scope="module", params=["gaussian collapsed", "gaussian full", "student-t full"])
def fit(request):
    family, engine = request.param.split()
    rng = np.random.default_rng(4)
    index = pd.MultiIndex.from_product(
        [[f"r{i}" for i in range(10)], list("abcdef")], names=["region", "cluster"]
    )
    table = index.to_frame(index=False)
    table["x"] = rng.normal(3.0, 2.0, len(table))
    table["y"] = 0.4 * table["x"] + rng.normal(size=10).repeat(6) + rng.normal(size=len(table))
    spec = sc.parse_spec(
        f'name = "small"\nformula = "{FORMULA}"\nlikelihood.family = "{family}"\n'
        'groups.region.effect = "fixed"'
    )
    return sc.fit(
        spec, sc.read_panel(table), seed=1, chains=1, tune=20, draws=DRAWS, engine=engine,
        progress=False,
    )  # fmt: skip


def test_conditional_is_the_density_of_every_row(fit):
    found = sc.conditional_log_likelihood(fit, draws=5)
    assert found.shape == (5, 60)
    for row, parameters in zip(found, thinned(fit, 5), strict=True):
        mean = linear_predictor(fit.design, parameters)
        scale = noise_scale(fit.spec, fit.design, parameters)
        noise = stats.norm(mean, scale)
        if fit.spec.likelihood.family == "student-t":
            noise = stats.t(float(parameters["nu"]), mean, scale)
        np.testing.assert_allclose(row, noise.logpdf(fit.design.y), rtol=1e-12)


def test_conditional_by_chunks_is_the_whole(fit, monkeypatch):
    whole = sc.conditional_log_likelihood(fit, draws=3)
    monkeypatch.setattr(likelihood, "_CELLS", 3 * 7)
    chunks = list(likelihood.conditional_log_likelihood_chunks(fit, draws=3))
    assert [chunk.shape for chunk in chunks] == [(3, 7)] * 8 + [(3, 4)]
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), whole)


def test_marginal_is_the_multivariate_normal(fit):
    if fit.spec.likelihood.family == "student-t":
        with pytest.raises(sc.FitError, match="cannot be integrated out"):
            sc.marginal_log_likelihood(fit)
        return
    design = fit.design
    priors = model_priors(fit.spec, design)
    centered = (design.X - design.data["center"].values)[:, 0]
    clusters = np.equal.outer(design.groups[0].codes, design.groups[0].codes)
    # fixed effects: deviations from their mean, as wide as the model makes them
    indicator = np.eye(10)[design.groups[1].codes] - 0.1
    fixed = (100.0 * design.y.std(ddof=1)) ** 2 * indicator @ indicator.T
    for value, p in zip(sc.marginal_log_likelihood(fit, draws=3), thinned(fit, 3), strict=True):
        (a, b), r = p["sd(cluster)"], p["cor(cluster)"][0]
        Z = np.column_stack([np.ones(60), centered])
        V = (Z @ [[a * a, r * a * b], [r * a * b, b * b]] @ Z.T) * clusters + fixed
        V += np.diag(noise_scale(fit.spec, design, p) ** 2)
        V += priors["intercept"].prior.sd ** 2
        V += priors["x"].prior.sd ** 2 * np.outer(centered, centered)
        mean = np.full(60, priors["intercept"].prior.mean) + priors["x"].prior.mean * centered
        expected = stats.multivariate_normal(mean, V).logpdf(design.y)
        assert value == pytest.approx(expected, rel=EXACT)


def test_collapsed_fits_record_the_marginal_one(fit):
    if fit.provenance["engine"] == "collapsed":
        recorded = fit.sample_stats["marginal_log_likelihood"].values.ravel()
        np.testing.assert_allclose(
            sc.marginal_log_likelihood(fit, draws=DRAWS), recorded, rtol=EXACT
        )


@pytest.mark.parametrize("outcome", ["none", "sar", "sem", "sac"])
@pytest.mark.parametrize("family", ["gaussian", "student-t"])
def test_joint_is_the_density_of_all_rows_together(outcome, family):
    """The noise behind the response by dense inverses; the Jacobian by dense determinants."""
    rng = np.random.default_rng(7)
    regions = [f"r{i}" for i in range(7)]
    table = pd.DataFrame({"region": regions, "x": rng.normal(size=7), "y": rng.normal(size=7)})
    ring = [(regions[i], regions[(i + d) % 7]) for i in range(7) for d in (1, 2, 6)]
    weights = sc.read_weights(pd.DataFrame(ring, columns=["region_i", "region_j"]))
    spec = sc.parse_spec(
        f'formula = "y ~ x"\nspatial.outcome = "{outcome}"\nlikelihood.family = "{family}"'
    )
    design = sc.build_design(spec, sc.read_panel(table), weights)
    values = {"intercept": 0.3, "coefficient": np.array([0.7]), "sigma": 0.6, "nu": 4.0}
    values |= {name: {"rho": 0.4, "lambda": -0.3}[name] for name in spec.spatial.parameters}
    eye, L = np.eye(7), design.lag.matrix.toarray()
    A, B = (eye - values.get(name, 0.0) * L for name in ("rho", "lambda"))
    y = rng.normal(size=7)
    x = table["x"].to_numpy()
    noise = B @ (A @ y - 0.3 - 0.7 * (x - x.mean()))
    density = stats.norm(0.0, 0.6) if family == "gaussian" else stats.t(4.0, 0.0, 0.6)
    wanted = density.logpdf(noise).sum() + np.linalg.slogdet(A @ B)[1]
    found = likelihood.joint_log_likelihood(spec, design, y, values)
    assert found == pytest.approx(wanted, rel=EXACT)
