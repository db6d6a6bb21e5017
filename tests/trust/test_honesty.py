"""Designs that are hard on arithmetic: the posterior is right, or a warning names the problem.

Exact posteriors under reference priors: coefficients in closed form, variance components and rho by
quadrature. Elsewhere: units times 1e9 and other origins (test_invariance), a variance of zero and a
correlation of one by REML (tests/reference/test_reml.py), a likelihood that rises to the end of the support
(tests/reference/test_spatial_ml.py), impacts at rho = 0.999 (tests/unit/test_spillovers.py).
"""

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import spatialclusters as sc
from spatialclusters.errors import SpecError
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.run import choose_settings
from tests.trust.made import squares

MCSE = 4.0  # Monte Carlo errors: one false alarm in 16,000 comparisons
HARDEST = 4e-7  # of a column repeats no other: nearer ones are refused (condition number 1e7)
FLAT = '{ distribution = "flat" }'
ROWS, CLUSTERS = 12, 6


def draws_of(spec, design, draws=2000, sampler="auto"):
    """Two chains as a dictionary of (chain, draw, ...)."""
    settings = choose_settings(spec, seed=1, draws=draws, sampler=sampler)
    sampler = RepeatedSampler(spec, design, settings)
    chains = [sampler.sample(seed=seed) for seed in (1, 2)]
    assert not any(np.any(chain.stats.get("diverging", False)) for chain in chains)
    return {
        name: np.concatenate([chain.posterior[name] for chain in chains])
        for name in chains[0].posterior
    }


def close(draws, wanted, method="mean"):
    statistic = {"mean": np.mean, "sd": np.std}[method]
    error = array_stats.mcse(draws, method=method)
    assert abs(statistic(draws) - wanted) < MCSE * error, (statistic(draws), wanted, error)


def below(draws, quantile, wanted):
    """Compare the share of draws below a quantile of the exact posterior."""
    close((draws < quantile).astype(float), wanted)


# --- covariates ---------------------------------------------------------------------------------


def hard_columns(gap):
    """A covariate in millionths, one far from its origin, and one that repeats the first."""
    rng = np.random.default_rng(4)
    x, z, e = rng.normal(size=(3, 40))
    ids = [f"r{i:02d}" for i in range(40)]
    columns = {"x": 1e6 * x, "z": 1e6 + z, "w": x + gap * rng.normal(size=40)}
    return pd.DataFrame({"region": ids, "y": 1.0 + x - z + 0.5 * e, **columns})


REFERENCE = "\n".join(
    ['formula = "y ~ x + z + w"', "[priors]", *(f"{name} = {FLAT}" for name in ("intercept", "x", "z", "w")),
     'sigma = { distribution = "inverse_scale" }']
)  # fmt: skip


def test_nearly_collinear_columns_of_other_units_and_origins():
    """Under reference priors coefficients have a Student-t posterior around least squares."""
    table, spec = hard_columns(HARDEST), sc.parse_spec(REFERENCE)
    design = sc.build_design(spec, sc.read_panel(table))
    assert any("nearly collinear" in note for note in design.record["notes"])
    found = draws_of(spec, design)
    names = ["x", "z", "w"]
    X = (table[names] - table[names].mean()).to_numpy() / [1e6, 1.0, 1.0]
    y = table["y"] - table["y"].mean()
    free = len(table) - 4
    solved, (rest,), *_ = np.linalg.lstsq(X, y)
    root = np.linalg.inv(np.linalg.qr(X)[1])  # not by X'X, which squares the condition number
    covariance = root @ root.T * rest / free
    for position, (name, unit) in enumerate(zip(names, (1e6, 1.0, 1.0), strict=True)):
        draws = found["coefficient"][..., design.terms.index(name)] * unit
        exact = stats.t(free, solved[position], np.sqrt(covariance[position, position]))
        close(draws, exact.mean())
        close(draws, exact.std(), "sd")
        below(draws, exact.ppf(0.05), 0.05)


@pytest.mark.parametrize("gap", [1e-4, HARDEST])
def test_columns_that_come_close_are_named(gap):
    design = sc.build_design(sc.parse_spec(REFERENCE), sc.read_panel(hard_columns(gap)))
    assert design.record["condition_number"] > 1.0 / gap
    assert any("nearly collinear" in note for note in design.record["notes"])


@pytest.mark.parametrize("gap", [1e-7, 3e-8, 1e-10])
def test_columns_that_come_closer_are_refused(gap):
    with pytest.raises(SpecError, match="got collinear columns 'x', 'w'; expected none"):
        sc.build_design(sc.parse_spec(REFERENCE), sc.read_panel(hard_columns(gap)))


# --- variance components at zero -----------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["auto", "nuts"])
def test_a_variance_component_at_zero(sampler):
    """Regions have the same mean, exactly: the likelihood is highest at a standard deviation of 0."""
    rng = np.random.default_rng(6)
    index = pd.MultiIndex.from_product(
        [[f"r{i:02d}" for i in range(ROWS)], [f"c{i}" for i in range(CLUSTERS)]],
        names=["region", "cluster"],
    )
    table = index.to_frame(index=False)
    y = rng.normal(size=(ROWS, CLUSTERS))
    y -= y.mean(axis=1, keepdims=True)
    table["y"] = y.ravel() + 3.0
    half = '{ distribution = "half_normal", sd = 1.0 }'
    text = (
        f'formula = "y ~ 1 + (1 | region)"\n[priors]\nintercept = {FLAT}\n"sd(region)" = {half}\n'
        f"sigma = {half}\n"
    )
    spec = sc.parse_spec(text)
    design = sc.build_design(spec, sc.read_panel(table))
    sd, sigma = np.linspace(0.0005, 1.2, 1200)[:, None], np.linspace(0.5, 1.6, 400)[None]
    between, within = CLUSTERS * sd**2 + sigma**2, sigma**2
    # sums of squares: none between regions, all of it within
    density = (
        -0.5 * (ROWS - 1) * np.log(between)
        - 0.5 * ROWS * (CLUSTERS - 1) * np.log(within)
        - 0.5 * (y**2).sum() / within
        - 0.5 * (sd**2 + sigma**2)
    )
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    found = draws_of(spec, design, sampler=sampler)
    for name, grid, axis in (("sd(region)", sd.ravel(), 1), ("sigma", sigma.ravel(), 0)):
        draws = found[name].reshape(2, -1)
        mass = weight.sum(axis=axis)
        mean = (mass * grid).sum()
        close(draws, mean)
        close(draws, np.sqrt((mass * (grid - mean) ** 2).sum()), "sd")
        for share in (0.05, 0.5, 0.95):
            at = np.searchsorted(np.cumsum(mass), share)
            below(draws, grid[at], np.cumsum(mass)[at] - mass[at] / 2)


# --- rho near its bound ----------------------------------------------------------------------------


def test_rho_near_its_bound():
    """Most of the posterior is above 0.95; its density is integrated over a grid."""
    regions = [f"r{i:02d}" for i in range(28)]
    rng = np.random.default_rng(9)
    table = pd.DataFrame({"region": regions, "x": rng.normal(size=28), "y": 0.0})
    panel = sc.read_panel(table, squares(regions))
    W = sc.contiguity(panel).matrix.toarray()
    table["y"] = np.linalg.solve(np.eye(28) - 0.99 * W, table["x"] + 0.3 * rng.normal(size=28))
    panel = sc.read_panel(table, squares(regions))
    uniform = '{ distribution = "uniform", lower = -1.0, upper = 1.0 }'
    text = (
        'formula = "y ~ x"\nspatial.outcome = "sar"\n[priors]\n'
        f'intercept = {FLAT}\nx = {FLAT}\nsigma = {{ distribution = "inverse_scale" }}\nrho = {uniform}\n'
    )
    spec = sc.parse_spec(text)
    found = draws_of(spec, sc.build_design(spec, panel, sc.contiguity(panel)))["rho"]
    # 1 - rho on the log scale: the density may rise to the end
    left = np.exp(np.linspace(np.log(1e-7), np.log(2.0 - 1e-7), 20_001))
    rho = 1.0 - left
    X = np.column_stack([np.ones(28), table["x"]])
    Q = np.linalg.qr(X)[0]
    y, Wy = ((v - Q @ (Q.T @ v)) for v in (table["y"].to_numpy(), W @ table["y"].to_numpy()))
    squares_left = y @ y - 2.0 * rho * (y @ Wy) + rho**2 * (Wy @ Wy)
    values = np.linalg.eigvals(W)
    determinant = np.log(np.abs(1.0 - rho[:, None] * values)).sum(axis=1)
    density = determinant - 0.5 * (28 - 2) * np.log(squares_left) + np.log(left)
    mass = np.exp(density - density.max())
    mass /= mass.sum()
    assert mass[rho > 0.95].sum() > 0.5
    mean = (mass * rho).sum()
    close(found, mean)
    close(found, np.sqrt((mass * (rho - mean) ** 2).sum()), "sd")
    above = np.cumsum(mass)
    for share in (0.025, 0.5, 0.975):  # of draws that are nearer to the end
        at = np.searchsorted(above, share)
        below(1.0 - found, left[at], above[at] - mass[at] / 2)


# --- the verdict ------------------------------------------------------------------------------------

SPOILED = {
    "divergent transitions": ("diverging", lambda x: x | (np.arange(x.size).reshape(x.shape) == 7)),
    "E-BFMI, smallest of the chains": ("energy", lambda x: np.cumsum(x, axis=-1)),
    "draws at the maximum tree depth": ("tree_depth", lambda x: np.full_like(x, 10)),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_sampler_in_trouble_fails_the_verdict(synthetic_fit, name):
    tree = synthetic_fit("plain").tree.copy(deep=True)
    assert sc.check(sc.Fit(tree)).passed
    statistic, spoil = SPOILED[name]
    stats_of = tree["sample_stats"].to_dataset()
    spoiled = stats_of[statistic].copy(data=spoil(stats_of[statistic].values))
    tree["sample_stats"] = stats_of.assign({statistic: spoiled})
    verdict = sc.check(sc.Fit(tree))
    assert verdict.table.query("not passed")["check"].tolist() == [name]
    assert str(verdict).startswith("Sampling: NOT converged, do not report these numbers.")
