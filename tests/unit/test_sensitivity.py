"""Densities of priors against PyMC, power scaling against a conjugate posterior."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy import integrate, stats

import spatialclusters as sc
from spatialclusters.result import assemble
from spatialclusters.sensitivity import (
    THRESHOLD,
    _correlations,
    _law,
    _parameters,
    _weights,
    power_scaling,
    prior_and_posterior,
)
from spatialclusters.spec import parse_spec
from spatialclusters.spec.distributions import Lkj

EXACT = 1e-9  # the same formula twice
SINGLE = 3e-6  # PyMC keeps these parameters in single precision
MONTE_CARLO = 0.03  # of the derivative of a mean, from 40,000 draws

PRIORS = {
    'normal", mean = 0.3, sd = 0.5': pm.Normal.dist(0.3, 0.5),
    'student_t", nu = 4.0, mean = 0.1, sd = 0.5': pm.StudentT.dist(nu=4.0, mu=0.1, sigma=0.5),
    'half_normal", sd = 0.7': pm.HalfNormal.dist(0.7),
    'half_student_t", nu = 3.0, sd = 0.7': pm.HalfStudentT.dist(nu=3.0, sigma=0.7),
    'exponential", rate = 2.0': pm.Exponential.dist(2.0),
    'beta", a = 2.0, b = 3.0': pm.Beta.dist(2.0, 3.0),
    'uniform", lower = 0.0, upper = 2.0': pm.Uniform.dist(0.0, 2.0),
}


def prior_of(text, parameter="x"):
    spec = parse_spec(f'formula = "y ~ x"\n[priors]\n{parameter} = {{ distribution = "{text} }}')
    return spec.priors[parameter]


def known_prior(text):
    parameter = "x" if text.startswith(("normal", "student")) else "sigma"
    if text.startswith("beta"):
        spec = parse_spec(
            'formula = "y ~ x"\nspatial.outcome = "sar"\n[priors]\n'
            f'rho = {{ distribution = "{text} }}'
        )
        return spec.priors["rho"]
    if text.startswith("uniform"):
        return sc.spec.distributions.Uniform(distribution="uniform", lower=0.0, upper=2.0)
    return prior_of(text, parameter)


@pytest.mark.parametrize("text", PRIORS)
def test_densities_and_quantiles_are_those_of_pymc(text):
    density, quantile = _law(known_prior(text), (0.0, 1.0))
    x = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(
        density(x), pm.logp(PRIORS[text], x).eval(), rtol=SINGLE, atol=SINGLE
    )
    start = -np.inf if text.startswith(("normal", "student")) else 0.0
    for p in (0.025, 0.5, 0.975):
        below = integrate.quad(lambda z: np.exp(density(z)), start, quantile(p))[0]
        assert below == pytest.approx(p, rel=SINGLE)


def test_a_beta_prior_is_stretched():
    density, quantile = _law(known_prior('beta", a = 2.0, b = 3.0'), (-1.0, 3.0))
    assert density(1.0) == pytest.approx(stats.beta(2.0, 3.0).logpdf(0.5) - np.log(4.0))
    assert quantile(0.5) == pytest.approx(-1.0 + 4.0 * stats.beta(2.0, 3.0).median())


def test_improper_priors_have_a_density_and_no_quantiles():
    spec = sc.spec.distributions
    density, quantile = _law(spec.InverseScale(distribution="inverse_scale"), (0.0, 1.0))
    assert quantile is None
    np.testing.assert_allclose(density(np.array([2.0, 4.0])), -np.log([2.0, 4.0]))
    density, quantile = _law(spec.Flat(distribution="flat"), (0.0, 1.0))
    assert quantile is None
    assert density(np.array([2.0])).tolist() == [0.0]


def test_correlations_have_the_density_of_lkj():
    rng, lower = np.random.default_rng(2), np.tril_indices(3, -1)
    matrices = [np.corrcoef(rng.normal(size=(3, 12))) for _ in range(4)]
    values = np.array([[R[lower] for R in matrices]])
    fit = sc.Fit(
        xr.DataTree.from_dict(
            {
                "/posterior": xr.Dataset(
                    {"cor(g)": (("chain", "draw", "pair(g)"), values)},
                    coords={"pair(g)": ["1, a", "1, b", "a, b"]},
                )
            }
        )
    )
    known = _correlations(fit, "cor(g)", Lkj(distribution="lkj", eta=3.0))
    found = known.log_density(values)[0]
    for k, R in enumerate(matrices):
        assert found[k] == pytest.approx(2.0 * np.log(np.linalg.det(R)), rel=EXACT)
    drawn = pm.draw(pm.LKJCorr.dist(n=3, eta=3.0), 4000, random_seed=1)
    share = np.mean(np.abs(drawn[:, 1, 0]) <= known.quantile(0.9))
    assert share == pytest.approx(0.8, abs=0.03)
    assert known.labels == ("cor(g) [1, a]", "cor(g) [1, b]", "cor(g) [a, b]")


def test_weights_move_a_conjugate_posterior_as_its_formula_does():
    """mu ~ N(0, s^2), y | mu ~ N(mu, 1/n): at power a the posterior is known."""
    n, s, y = 20.0, 0.3, 0.8
    rng = np.random.default_rng(4)
    precision = n + s**-2
    draws = rng.normal(n * y / precision, precision**-0.5, (4, 10_000))
    lower, upper = _weights(stats.norm(0.0, s).logpdf(draws))
    slope = ((upper - lower) * draws).sum() / 0.02
    exact = [n * y / (n + a * s**-2) for a in (0.99, 1.01)]
    assert slope == pytest.approx((exact[1] - exact[0]) / 0.02, rel=MONTE_CARLO)


def fit_of(prior_sd, *, n=60, marginal=True):
    """A regression with a given prior of its coefficient, and draws of its exact posterior."""
    rng = np.random.default_rng(9)
    table = pd.DataFrame({"region": [f"r{i}" for i in range(n)], "x": rng.normal(size=n)})
    table["y"] = 0.8 * table["x"] + rng.normal(size=n)
    spec = sc.parse_spec(
        'formula = "y ~ x"\n[priors]\n'
        f'x = {{ distribution = "normal", mean = 0.0, sd = {prior_sd} }}\n'
        'intercept = { distribution = "normal", mean = 0.0, sd = 10.0 }\n'
        'sigma = { distribution = "half_normal", sd = 5.0 }\n'
    )
    design = sc.build_design(spec, sc.read_panel(table))
    centered = design.X[:, 0] - design.data["center"].values[0]
    precision = (centered**2).sum() + prior_sd**-2
    shape = (4, 1000)
    draws = {
        "coefficient": rng.normal(centered @ design.y / precision, precision**-0.5, (*shape, 1)),
        "intercept": rng.normal(design.y.mean(), n**-0.5, shape),
        "sigma": rng.normal(1.0, 0.09, shape),
    }
    names = ["marginal_log_likelihood"] if marginal else ["conditional_log_likelihood"]
    like = -0.5 * n * np.log(draws["sigma"] ** 2) - 0.5 * n / draws["sigma"] ** 2
    known = dict.fromkeys(names, like)
    return assemble(spec, design, draws, known, panel=xr.Dataset(), geometry=None, provenance={})


def test_a_strong_prior_is_named_and_a_weak_one_is_not():
    weak, strong = (power_scaling(fit_of(sd)).set_index("quantity") for sd in (5.0, 0.1))
    assert weak.loc["x", "prior"] < 0.01
    assert weak.loc["x", "diagnosis"] == "prior matters little"
    assert strong.loc["x", "prior"] > THRESHOLD
    assert strong.loc["x", "coefficients"] == pytest.approx(strong.loc["x", "prior"], rel=0.2)
    assert strong.loc["x", "diagnosis"] == "prior matters"
    assert strong.loc["sigma", "prior"] < THRESHOLD
    assert strong.loc["sigma", "likelihood"] > THRESHOLD
    # with coefficients integrated out the likelihood says nothing of them by this measure
    assert np.isnan(strong.loc["x", "likelihood"])
    full = power_scaling(fit_of(0.1, marginal=False)).set_index("quantity")
    assert np.isfinite(full["likelihood"]).all()


def test_intervals_of_priors_stand_beside_those_of_the_posterior():
    fit = fit_of(0.5)
    table = prior_and_posterior(fit).set_index("parameter")
    row = table.loc["x"]
    reach = stats.norm.ppf(0.975)
    assert [row["prior_low"], row["prior_high"]] == pytest.approx([-0.5 * reach, 0.5 * reach])
    draws = fit.draws("coefficient")[..., 0]
    ends = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    assert [row["ci_low"], row["ci_high"]] == ends.tolist()
    assert row["width"] == pytest.approx(np.diff(ends)[0] / reach)
    assert table.loc["sigma", "prior_high"] == pytest.approx(5.0 * stats.halfnorm.ppf(0.975))


@pytest.mark.parametrize("variant", ["clusters", "student", "noise by cluster", "fixed"])
def test_every_prior_of_a_model_is_known(synthetic_fit, variant):
    from spatialclusters.parameters import model_priors

    fit = synthetic_fit(variant)
    known = list(_parameters(fit))
    names = {label.partition(" [")[0] for each in known for label in each.labels}
    assert names == set(model_priors(fit.spec, fit.design))
    for each in known:
        assert each.draws.shape == (4, 500, len(each.labels))
        assert each.log_density(each.draws).shape == (4, 500)
        assert np.isfinite(each.log_density(each.draws)).all()
