"""Posteriors with outcome processes against quadrature: Columbus, and incomes of US states.

Given dependence and noise, coefficients are normal; what is left is summed over a grid of
rho, lambda and sigma, with NumPy alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import spatialclusters as sc
from spatialclusters.spillovers import term_impacts
from spatialclusters.summaries import summarize_draws

# Monte Carlo errors that separate a right sampler from the exact value: P(miss) < 1e-4 each.
MONTE_CARLO_ERRORS = 4.0
# Reference numbers have four or five decimals: half a unit of the last; and 0.65215 is given as
# 0.6521, so that quantiles get a whole one.
FIVE, FOUR, QUANTILE = 5.1e-6, 5.1e-5, 1e-4
# Two quadratures of one integral: the grids resolve every integrand to more digits than these.
GRIDS = 1e-6
# The same algebra in another order.
EXACT = 1e-10
# Of a posterior standard deviation: a mean and a maximum differ by the skew of the density.
NEAR_ML = 0.35

MODELS = Path(__file__).parents[2] / "models" / "reference"
NODES, LEVELS = 100, 80  # of each dependence between -1 and 1, and of sigma
ALONE = "20"  # the tract that loses its links
# A few draws with rho below -0.5 and lambda near one carry much of the variance of an intercept,
# and a run too short to meet them has no idea of its own error.
DRAWS = {"sac": 20_000}


@dataclass
class Exact:
    """A posterior as a mixture: points of the grid, each with a normal of coefficients.

    The intercept comes first and refers to covariates at their means.
    """

    weight: np.ndarray  # (points,), sums to one
    rho: np.ndarray
    lam: np.ndarray
    sigma: np.ndarray
    mean: np.ndarray  # (points, k)
    covariance: np.ndarray  # (points, k, k)

    def moments(self, values, variances=0.0):
        """Mean and standard deviation of a quantity given its own at every point."""
        mean = self.weight @ values
        return mean, np.sqrt(self.weight @ (variances + (values - mean) ** 2))

    def combination(self, factors):
        """Means and variances of a combination of coefficients that varies by point."""
        return (
            (factors * self.mean).sum(axis=1),
            np.einsum("pi,pij,pj->p", factors, self.covariance, factors),
        )


def quadrature(design, process, *, prior_sd, log_prior_sigma, log_prior_dependence=np.zeros_like):
    """Sum the posterior of ``B (A y - X b) = sigma nu``, A = I - rho W, B = I - lambda W.

    ``prior_sd`` of intercept and coefficients may be infinite: a flat prior.
    """
    y, W, n = design.y, design.lag.matrix.toarray(), design.n_rows
    X = np.column_stack([np.ones(n), design.X - design.X.mean(axis=0)])
    precision = np.diag(np.asarray(prior_sd, dtype=float) ** -2.0)
    nodes, areas = np.polynomial.legendre.leggauss(NODES)
    free = {"sar": (True, False), "sem": (False, True), "sac": (True, True)}[process]
    (rho, area_rho), (lam, area_lam) = (
        (nodes, areas) if each else (np.zeros(1), np.ones(1)) for each in free
    )
    rough = np.linalg.lstsq(X, y, rcond=None)[1][0] / n
    sigma = np.sqrt(rough) * np.exp(np.linspace(np.log(0.4), np.log(2.5), LEVELS))
    eye = np.eye(n)
    log_det_rho, log_det_lam = (
        np.array([np.linalg.slogdet(eye - v * W)[1] for v in values]) for values in (rho, lam)
    )
    filtered = y[:, None] - rho * (W @ y)[:, None]  # (n, rho)
    log_weight = np.empty((len(lam), len(rho), len(sigma)))
    mean = np.empty((*log_weight.shape, X.shape[1]))
    covariance = np.empty((*mean.shape, X.shape[1]))
    for i, value in enumerate(lam):
        Xt, yt = X - value * (W @ X), filtered - value * (W @ filtered)
        H = Xt.T @ Xt / sigma[:, None, None] ** 2 + precision  # (sigma, k, k)
        Xy = yt.T @ Xt  # (rho, k)
        S = np.linalg.inv(H)
        m = np.einsum("sij,rj->rsi", S, Xy) / sigma[:, None] ** 2
        fit = np.einsum("rsi,ri->rs", m, Xy)
        log_weight[i] = (
            (log_det_rho + log_prior_dependence(rho))[:, None]
            + log_det_lam[i]
            + log_prior_dependence(lam)[i]
            - n * np.log(sigma)
            - 0.5 * np.linalg.slogdet(H)[1]
            - 0.5 * ((yt**2).sum(axis=0)[:, None] - fit) / sigma**2
            + log_prior_sigma(sigma)
            + np.log(sigma)  # the grid is even on the log scale
        )
        mean[i], covariance[i] = m, S
    weight = np.exp(log_weight - log_weight.max())
    # nothing is left at the ends of the grid of sigma
    assert weight[:, :, [0, -1]].max() < GRIDS * weight.max()
    weight *= area_lam[:, None, None] * area_rho[:, None]
    lam, rho, sigma = (
        np.ravel(each) for each in np.meshgrid(lam, rho, sigma, indexing="ij", sparse=False)
    )
    k = X.shape[1]
    return Exact(
        weight.ravel() / weight.sum(),
        rho,
        lam,
        sigma,
        mean.reshape(-1, k),
        covariance.reshape(-1, k, k),
    )


def reference_quadrature(fit):
    """The grid of a reference run; its priors are those of the file."""
    stated = {name: prior.describe() for name, prior in fit.spec.priors.items()}
    process, proper = fit.spec.spatial.outcome, {"normal(0, 100)": 100.0, "flat()": np.inf}
    assert [stated[name] for name in ("INC", "HOVAL")] == ["flat()"] * 2
    assert stated["intercept"] == ("flat()" if process == "sar" else "normal(0, 100)")
    assert all(stated[name] == "uniform(-1, 1)" for name in fit.spec.spatial.parameters)
    assert stated["sigma"] == "inverse_scale()"
    return quadrature(
        fit.design,
        process,
        prior_sd=[proper[stated["intercept"]], np.inf, np.inf],
        log_prior_sigma=lambda sigma: -np.log(sigma),
    )


def agree(draws, mean, sd, name):
    """Mean and standard deviation of draws (chain, draw) are the exact ones."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    error = array_stats.mcse(draws, **axes, method="mean")
    assert abs(draws.mean() - mean) < MONTE_CARLO_ERRORS * error, name
    error = array_stats.mcse(draws, **axes, method="sd")
    assert abs(draws.std(ddof=1) - sd) < MONTE_CARLO_ERRORS * error, name


def all_agree(fit, exact):
    """Every parameter, and the coefficients' averaged conditional means."""
    frame = sc.coefficients(fit).set_index("term")
    beta = np.concatenate([fit.draws("intercept")[..., None], fit.draws("coefficient")], axis=2)
    for i, name in enumerate(("intercept", *fit.design.terms)):
        found = exact.moments(exact.mean[:, i], exact.covariance[:, i, i])
        agree(beta[..., i], *found, name)
        gap = abs(frame.loc[name, "estimate"] - found[0])
        assert gap < MONTE_CARLO_ERRORS * frame.loc[name, "mcse"], name
    agree(fit.draws("sigma"), *exact.moments(exact.sigma), "sigma")
    for name, values in (("rho", exact.rho), ("lambda", exact.lam)):
        if name in fit.spec.spatial.parameters:
            agree(fit.draws(name), *exact.moments(values), name)


def columbus_panel():
    """Anselin's Columbus; links are made of the bundled polygons."""
    import geopandas as gpd
    from libpysal.examples import get_path

    shapes = gpd.read_file(get_path("columbus.shp"))
    shapes["region"] = [f"{i:02d}" for i in range(len(shapes))]
    table = pd.DataFrame(shapes[["region", "CRIME", "INC", "HOVAL"]])
    return sc.read_panel(table, shapes[["region", "geometry"]])


def sampled(spec, panel, weights=None, draws=4000):
    return sc.fit(
        spec, panel, weights, seed=20261122, chains=2, tune=500, draws=draws, progress=False
    )


@pytest.fixture(scope="module")
def columbus():
    """The posterior of a process, each sampled once."""
    panel, known = columbus_panel(), {}

    def posterior(process):
        if process not in known:
            spec = sc.load_model(MODELS / f"columbus_{process}.toml")
            known[process] = sampled(spec, panel, draws=DRAWS.get(process, 4000))
        return known[process]

    return posterior


# --- the reference numbers -------------------------------------------------------------

PUBLISHED = {"mean": 0.40688, "sd": 0.13043, 0.025: 0.1405, 0.5: 0.4105, 0.975: 0.6521}
PUBLISHED_BETA = (46.4976, -1.07004, -0.26663)  # intercept at zero, INC, HOVAL


def test_reference_numbers_from_one_integral():
    """Flat coefficients and 1/sigma leave rho alone, with the determinant and a power."""
    spec = sc.load_model(MODELS / "columbus_sar.toml")
    panel = columbus_panel()
    design = sc.build_design(spec, panel, sc.contiguity(panel))
    y, W, n = design.y, design.lag.matrix.toarray(), 49
    X = np.column_stack([np.ones(n), design.X])
    rho = np.linspace(-1.0, 1.0, 20_001)[1:-1]
    b0, b1 = (np.linalg.lstsq(X, v, rcond=None)[0] for v in (y, W @ y))
    e0, e1 = y - X @ b0, W @ y - X @ b1
    squares = e0 @ e0 - 2.0 * rho * (e0 @ e1) + rho**2 * (e1 @ e1)
    log_det = np.log(1.0 - rho[:, None] * np.linalg.eigvals(W).real).sum(axis=1)
    density = log_det - (n - X.shape[1]) / 2.0 * np.log(squares)
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    mean = weight @ rho
    assert mean == pytest.approx(PUBLISHED["mean"], abs=FIVE)
    assert np.sqrt(weight @ (rho - mean) ** 2) == pytest.approx(PUBLISHED["sd"], abs=FIVE)
    for probability in (0.025, 0.5, 0.975):
        found = np.interp(probability, weight.cumsum() - weight / 2.0, rho)
        assert found == pytest.approx(PUBLISHED[probability], abs=QUANTILE)
    for found, expected, digits in zip(
        b0 - mean * b1, PUBLISHED_BETA, (FOUR, FIVE, FIVE), strict=True
    ):
        assert found == pytest.approx(expected, abs=digits)
    grid = quadrature(
        design, "sar", prior_sd=[np.inf] * 3, log_prior_sigma=lambda sigma: -np.log(sigma)
    )
    spread = squares / (n - X.shape[1] - 2.0)  # of t with n - 3 degrees of freedom
    for i, unit in enumerate(np.diag(np.linalg.inv(X.T @ X))[1:], start=1):
        b = b0[i] - rho * b1[i]
        exact = weight @ b, np.sqrt(weight @ (spread * unit + (b - weight @ b) ** 2))
        found = grid.moments(grid.mean[:, i], grid.covariance[:, i, i])
        np.testing.assert_allclose(found, exact, rtol=GRIDS)
    np.testing.assert_allclose(grid.moments(grid.rho)[0], mean, rtol=GRIDS)


@pytest.mark.slow
def test_the_posterior_has_the_reference_numbers(columbus):
    fit = columbus("sar")
    rho, beta = fit.draws("rho"), fit.draws("coefficient")
    agree(rho, PUBLISHED["mean"], PUBLISHED["sd"], "rho")
    for probability in (0.025, 0.5, 0.975):
        error = array_stats.mcse(
            rho, chain_axis=0, draw_axis=1, method="quantile", prob=probability
        )
        gap = abs(np.quantile(rho, probability) - PUBLISHED[probability])
        assert gap < MONTE_CARLO_ERRORS * error, probability
    at_zero = fit.draws("intercept") - beta @ fit.design.X.mean(axis=0)
    for draws, expected in zip((at_zero, beta[..., 0], beta[..., 1]), PUBLISHED_BETA, strict=True):
        found = summarize_draws(draws)
        assert abs(found["estimate"] - expected) < MONTE_CARLO_ERRORS * found["mcse"]


# --- every process against its grid ----------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("process", ["sar", "sem", "sac"])
def test_the_posterior_against_quadrature(columbus, process):
    fit = columbus(process)
    assert fit.provenance["engine"] == "collapsed"
    all_agree(fit, reference_quadrature(fit))
    assert sc.check(fit).passed


@pytest.mark.slow
def test_lag_and_error_compete(columbus):
    """The joint posterior, not the margins alone: rho and lambda take from each other."""
    fit = columbus("sac")
    exact = reference_quadrature(fit)
    product = fit.draws("rho") * fit.draws("lambda")
    agree(product, *exact.moments(exact.rho * exact.lam), "rho lambda")
    (rho, _), (lam, _) = exact.moments(exact.rho), exact.moments(exact.lam)
    assert exact.weight @ (exact.rho * exact.lam) < rho * lam


# --- impacts ---------------------------------------------------------------------------


def multipliers(W, rho):
    """Mean diagonal and mean row sum of (I - rho W)^-1, dense."""
    inverse = np.linalg.inv(np.eye(len(W)) - rho * W)
    return np.trace(inverse) / len(W), inverse.sum() / len(W)


def lags_of(W, rho):
    """Mean diagonal and mean row sum of (I - rho W)^-1 W, dense."""
    inverse = np.linalg.inv(np.eye(len(W)) - rho * W) @ W
    return np.trace(inverse) / len(W), inverse.sum() / len(W)


def by_node(function, W, exact):
    """Evaluate once per node of rho; each (points,)."""
    nodes, place = np.unique(exact.rho, return_inverse=True)
    return np.array([function(W, value) for value in nodes])[place].T


def impacts_agree(fit, exact, factors):
    """Means by the table's own error, and probabilities below the ends of its intervals.

    A total has no variance: near rho = 1 its square falls as slowly as the density allows.
    """
    table = sc.impacts(fit).set_index(["term", "effect"])
    for (term, effect), each in factors.items():
        got, (means, variances) = table.loc[(term, effect)], exact.combination(each)
        gap = abs(got["estimate"] - exact.weight @ means)
        assert gap < MONTE_CARLO_ERRORS * got["mcse"], (term, effect)
        for end, probability in (("ci_low", 0.025), ("ci_high", 0.975)):
            below = exact.weight @ stats.norm.cdf((got[end] - means) / np.sqrt(variances))
            # of an indicator, from the effective draws of tails
            error = np.sqrt(probability * (1.0 - probability) / got["ess_tail"])
            assert abs(below - probability) < MONTE_CARLO_ERRORS * error, (term, effect, end)


@pytest.mark.slow
@pytest.mark.parametrize("process", ["sar", "sac"])
def test_impacts_against_quadrature(columbus, process):
    fit = columbus(process)
    exact, W = reference_quadrature(fit), fit.design.lag.matrix.toarray()
    direct, everywhere = by_node(multipliers, W, exact)
    factors = {}
    for i, term in enumerate(fit.design.terms, start=1):
        unit = np.eye(3)[i]
        factors[term, "direct"] = direct[:, None] * unit
        factors[term, "indirect"] = (everywhere - direct)[:, None] * unit
        factors[term, "total"] = everywhere[:, None] * unit
    impacts_agree(fit, exact, factors)


@pytest.mark.slow
def test_a_tract_without_neighbors():
    """The posterior knows the empty row, and totals are those of the dense inverse."""
    panel = columbus_panel()
    full = sc.contiguity(panel)
    rows, columns = full.matrix.nonzero()
    names = np.array(full.regions)
    links = pd.DataFrame({"region_i": names[rows], "region_j": names[columns], "weight": 1.0})
    links = links[(links["region_i"] != ALONE) & (links["region_j"] != ALONE)]
    links.loc[len(rows)] = [ALONE, ALONE, 0.0]
    weights = sc.read_weights(links)
    assert weights.isolates == (ALONE,)
    fit = sampled(sc.load_model(MODELS / "columbus_sar.toml"), panel, weights)
    exact, W = reference_quadrature(fit), fit.design.lag.matrix.toarray()
    assert list(W.sum(axis=1).round(12)).count(1.0) == 48
    all_agree(fit, exact)
    table = sc.impacts(fit).set_index(["term", "effect"])
    rho, means = fit.draws("rho"), by_node(multipliers, W, exact)
    for i, term in enumerate(fit.design.terms):
        beta = fit.draws("coefficient")[..., i]
        drawn = {group: draws for group, draws, _ in term_impacts(fit, term)}
        for chain, draw in ((0, 0), (0, 1234), (1, 17), (1, 3999)):
            direct, everywhere = multipliers(W, rho[chain, draw])
            b = beta[chain, draw]
            np.testing.assert_allclose(drawn["overall"][chain, draw], b * direct, rtol=EXACT)
            np.testing.assert_allclose(drawn["common"][chain, draw], b * everywhere, rtol=EXACT)
        total = beta * (48.0 / (1.0 - rho) + 1.0) / 49.0
        np.testing.assert_allclose(drawn["common"], total, rtol=EXACT)
        np.testing.assert_allclose(table.loc[(term, "total"), "estimate"], total.mean(), rtol=EXACT)
        gap = abs(total - beta / (1.0 - rho)) / abs(total)  # what the shortcut gets wrong
        assert gap.mean() > 0.005
        for effect, factor in (("direct", means[0]), ("total", means[1])):
            expected = exact.weight @ (factor * exact.mean[:, i + 1])
            got = table.loc[(term, effect)]
            assert abs(got["estimate"] - expected) < MONTE_CARLO_ERRORS * got["mcse"]


# --- incomes of US states, 1929 to 1994 --------------------------------------------------


def income_quadrature(fit):
    """The grid under the priors of the shipped models: proper, of rho stretched over -1 to 1."""
    stated = {name: prior.describe() for name, prior in fit.spec.priors.items()}
    sds = {"normal(0, 5)": 5.0, "normal(0, 1)": 1.0}
    assert stated["sigma"] == "half_normal(1)"
    for name in fit.spec.spatial.parameters:
        assert stated.get(name, "beta(1.01, 1.01)") == "beta(1.01, 1.01)"  # the default too
    return quadrature(
        fit.design,
        fit.spec.spatial.outcome,
        prior_sd=[sds[stated[name]] for name in ("intercept", *fit.design.terms)],
        log_prior_sigma=lambda sigma: -0.5 * sigma**2,
        log_prior_dependence=lambda value: 0.01 * np.log1p(-(value**2)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "name", "maximum"), [("sar", "rho", 0.185860), ("sem", "lambda", 0.323185)]
)
def test_income_of_the_states(process, name, maximum):
    spec = sc.load_model("income_convergence", {"spatial.outcome": process})
    fit = sampled(spec, sc.us_income())
    exact = income_quadrature(fit)
    all_agree(fit, exact)
    mean, sd = exact.moments(exact.rho + exact.lam)  # the other is zero
    assert abs(mean - maximum) < NEAR_ML * sd
    ml = sc.fit_spatial_ml(fit.design, processes=[process]).estimates
    assert ml.query("term == @name")["estimate"].item() == pytest.approx(maximum, abs=2e-6)
    assert sc.check(fit).passed


@pytest.mark.slow
def test_impacts_of_a_durbin_model():
    """Both coefficients of a covariate enter, with all their correlation."""
    fit = sampled(sc.load_model("income_convergence_lag"), sc.us_income())
    assert fit.design.terms == ("log(income)", "lag(log(income))")
    exact, W = income_quadrature(fit), fit.design.lag.matrix.toarray()
    all_agree(fit, exact)
    zero = np.zeros(len(exact.rho))
    direct, total = (
        np.column_stack([zero, own, lagged])
        for own, lagged in zip(
            by_node(multipliers, W, exact), by_node(lags_of, W, exact), strict=True
        )
    )
    factors = {"direct": direct, "indirect": total - direct, "total": total}
    impacts_agree(fit, exact, {("log(income)", effect): each for effect, each in factors.items()})
    change = sc.convergence(fit).query("effect == 'change'").set_index("group")
    for group, each in (("overall", direct), ("common", total)):
        gap = abs(change.loc[group, "estimate"] - exact.weight @ exact.combination(each)[0])
        assert gap < MONTE_CARLO_ERRORS * change.loc[group, "mcse"]
    assert sc.check(fit).passed
