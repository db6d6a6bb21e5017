"""Rao-Blackwell means and standard deviations in the tables against quadrature.

The posterior of coefficients and effects is a mixture over two hyperparameters of normals
that are written down with NumPy; the mixture is summed over a grid.
"""

import numpy as np
import pandas as pd
import pytest

import spatialclusters as sc
from spatialclusters.parameters import model_priors

ERRORS = 5.0  # Monte Carlo standard errors that 8 estimates may be away
SPREAD = 0.025  # relative: 3 Monte Carlo errors of a sd from some 10,000 effective draws
GRID = 120
WIDEST = 7.0  # of sd(cluster): 4 of its prior's sds; a grid to 3 made the truth 2 % too narrow


def exact(fit):
    """Return posterior means and sds of intercept, slope and effects, raw units."""
    design = fit.design
    priors = {name: each.prior for name, each in model_priors(fit.spec, design).items()}
    X = np.column_stack([np.ones(design.n_rows), design.X - design.data["center"].values])
    Z = np.eye(len(design.groups[0].levels))[design.groups[0].codes]
    F = np.concatenate([X, Z], axis=1)
    fixed = [priors["intercept"], priors["x"]]
    prior_mean = np.array([p.mean for p in fixed] + [0.0] * Z.shape[1])
    residual = design.y - F @ prior_mean
    log_weights, means, variances = [], [], []
    for sigma in np.linspace(0.2, 2.0, GRID):
        for sd in np.linspace(0.005, WIDEST, GRID):
            spread = np.array([p.sd**2 for p in fixed] + [sd**2] * Z.shape[1])
            V = sigma**2 * np.eye(len(F)) + (F * spread) @ F.T
            gain = np.linalg.solve(V, F * spread).T
            log_weights.append(
                -0.5 * np.linalg.slogdet(V)[1]
                - 0.5 * residual @ np.linalg.solve(V, residual)
                - 0.5 * (sigma / priors["sigma"].sd) ** 2
                - 0.5 * (sd / priors["sd(cluster)"].sd) ** 2
            )
            means.append(prior_mean + gain @ residual)
            variances.append(spread - (gain * (F * spread).T).sum(axis=1))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    second = weights @ (np.array(variances) + np.array(means) ** 2)
    return mean, np.sqrt(second - mean**2)


@pytest.mark.slow
def test_tables_print_the_mixture():
    rng = np.random.default_rng(8)
    index = pd.MultiIndex.from_product(
        [[f"r{i}" for i in range(5)], list("abcdef")], names=["region", "cluster"]
    )
    table = index.to_frame(index=False)
    table["x"] = rng.normal(2.0, 1.5, len(table))
    effects = np.tile(0.8 * rng.normal(size=6), 5)
    table["y"] = 0.5 * table["x"] + effects + 0.6 * rng.normal(size=len(table))
    spec = sc.parse_spec('name = "mixture"\nformula = "y ~ x + (1 | cluster)"')
    fit = sc.fit(spec, sc.read_panel(table), seed=3, chains=2, draws=10_000, progress=False)
    assert fit.provenance["engine"] == "collapsed"
    fixed = sc.coefficients(fit).query("term in ['intercept', 'x']")
    found = pd.concat([fixed, sc.group_effects(fit, "cluster")])
    mean, sd = exact(fit)
    assert len(found) == len(mean) == 8
    gap = np.abs(found["estimate"].to_numpy() - mean)
    assert (gap <= ERRORS * found["mcse"].to_numpy()).all()
    np.testing.assert_allclose(found["std_error"], sd, rtol=SPREAD)
    # the coefficients' errors are far smaller than those of draws; a lone group intercept is
    # eliminated cell by cell, without conditional moments, and its table rests on draws
    draws = np.append(fit.draws("intercept").std(), fit.draws("coefficient").std()) / np.sqrt(
        20_000
    )
    assert (found["mcse"].to_numpy()[:2] < 0.2 * draws).all()
