"""The posterior of income convergence against quadrature over sigma, beta integrated out."""

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import spatialclusters as sc

# Monte Carlo errors that separate a right sampler from the exact value: P(miss) < 1e-4 each.
MONTE_CARLO_ERRORS = 4.0
# The OLS coefficient is published with six digits.
PUBLISHED = 5e-7


def quadrature(y, x, prior):
    """Posterior means and standard deviations of intercept, slope and sigma.

    Given sigma, (intercept, slope) is normal with known moments and y is multivariate
    normal; sigma is summed over a fine grid on the log scale.
    """
    X = np.column_stack([np.ones(len(y)), x - x.mean()])
    V0 = np.diag([prior["intercept"] ** 2, prior["slope"] ** 2])
    grid = np.linspace(np.log(0.03), np.log(0.5), 4001)
    log_weights, means, covariances = [], [], []
    for sigma in np.exp(grid):
        marginal = X @ V0 @ X.T + sigma**2 * np.eye(len(y))
        density = stats.multivariate_normal(np.zeros(len(y)), marginal).logpdf(y)
        density += stats.halfnorm(scale=prior["sigma"]).logpdf(sigma) + np.log(sigma)
        precision = np.linalg.inv(V0) + X.T @ X / sigma**2
        covariance = np.linalg.inv(precision)
        log_weights.append(density)
        means.append(covariance @ X.T @ y / sigma**2)
        covariances.append(np.diag(covariance))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    weights /= weights.sum()
    means, covariances, sigma = np.array(means), np.array(covariances), np.exp(grid)
    mean = weights @ means
    variance = weights @ (covariances + (means - mean) ** 2)
    sigma_mean = weights @ sigma
    sigma_sd = np.sqrt(weights @ (sigma - sigma_mean) ** 2)
    return {
        "intercept": (mean[0], np.sqrt(variance[0])),
        "slope": (mean[1], np.sqrt(variance[1])),
        "sigma": (sigma_mean, sigma_sd),
    }


@pytest.fixture(scope="module")
def fit():
    spec = sc.load_model("income_convergence")
    return sc.fit(
        spec, sc.us_income(), seed=20261122, chains=2, tune=500, draws=2000, progress=False
    )


def test_ols_coefficient_is_the_published_one(fit):
    frame = sc.fit_frequentist(fit).estimates
    ols = frame[(frame["estimator"] == "OLS") & (frame["term"] == "log(income)")]
    coefficient = ols[ols["effect"] == "coefficient"]["estimate"].item()
    assert coefficient == pytest.approx(-0.718685, abs=PUBLISHED)


def test_posterior_agrees_with_quadrature(fit):
    design = fit.design
    exact = quadrature(design.y, design.X[:, 0], {"intercept": 5.0, "slope": 1.0, "sigma": 1.0})
    draws = {
        "intercept": fit.draws("intercept"),
        "slope": fit.draws("coefficient")[..., 0],
        "sigma": fit.draws("sigma"),
    }
    axes = {"chain_axis": 0, "draw_axis": 1}
    for name, (mean, sd) in exact.items():
        error = array_stats.mcse(draws[name], **axes, method="mean")
        assert abs(draws[name].mean() - mean) < MONTE_CARLO_ERRORS * error, name
        error = array_stats.mcse(draws[name], **axes, method="sd")
        assert abs(draws[name].std(ddof=1) - sd) < MONTE_CARLO_ERRORS * error, name


def test_priors_of_the_quadrature_are_those_of_the_shipped_model(fit):
    stated = {name: prior.describe() for name, prior in fit.spec.priors.items()}
    assert stated == {
        "intercept": "normal(0, 5)",
        "log(income)": "normal(0, 1)",
        "sigma": "half_normal(1)",
    }


def test_a_line_through_the_origin_is_least_squares():
    """With flat priors the posterior mean is the estimate, and its sd by the t distribution."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"region": [f"r{i:02d}" for i in range(40)], "x": rng.normal(5.0, 1.0, 40)}
    )
    table["y"] = 2.0 * table["x"] + rng.normal(0.0, 0.3, 40)
    flat = '[priors]\nx = {distribution = "flat"}\nsigma = {distribution = "inverse_scale"}'
    spec = sc.parse_spec(f'formula = "y ~ 0 + x"\n{flat}')
    origin = sc.fit(spec, sc.read_panel(table), seed=3, tune=200, draws=500, progress=False)
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    slope = x @ y / (x @ x)
    spread = np.sqrt(((y - slope * x) ** 2).sum() / 39 / (x @ x) * 39 / 37)
    draws = origin.draws("coefficient")[..., 0]
    for found, wanted, error in (
        (draws.mean(), slope, array_stats.mcse(draws, method="mean")),
        (draws.std(), spread, array_stats.mcse(draws, method="sd")),
    ):
        assert abs(found - wanted) < MONTE_CARLO_ERRORS * error
    (ols,) = sc.fit_frequentist(origin).estimates.query("effect == 'coefficient'")["estimate"]
    assert ols == pytest.approx(slope, rel=1e-12)


def test_diagnostics_pass(fit):
    assert sc.check(fit).passed
