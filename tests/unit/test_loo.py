"""Marginal leave-one-out against conditionals of the dense normal, and against quadrature."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import special, stats

import spatialclusters as sc
from spatialclusters.conditionals import MarginalNormal
from spatialclusters.loo import Loo, _smoothed
from spatialclusters.processes import dependence_names
from spatialclusters.result import assemble
from tests.contracts.test_processes import dense, design_of, values_of

EXACT = 1e-8  # relative: conditionals through inverses of two different matrices
QUADRATURE = 0.02  # of elpd: importance sampling of 20,000 draws against a grid


def parameters_of(spec, design):
    """The draw whose theta is that of ``values_of``."""
    sigma, *rest = values_of(spec, design)
    out = {"sigma": sigma[0]}
    for group, root in zip(design.groups, rest, strict=False):
        scales = [1.0 if c < 0 else design.data["scale"].values[c] for c in group.columns]
        covariance = root @ root.T
        sds = np.sqrt(np.diag(covariance))
        out[f"sd({group.name})"] = sds / scales
        lower = np.tril_indices(len(sds), -1)
        out[f"cor({group.name})"] = (covariance / np.outer(sds, sds))[lower]

    return out | dict(zip(dependence_names(spec), rest[len(design.groups) :], strict=True))


@pytest.mark.parametrize(
    ("shape", "outcome", "structure"),
    [
        ("industries", "none", "iid"),
        ("industries", "sar", "bym2"),
        ("industries", "sac", "icar"),
        ("clusters", "sem", "leroux"),
        ("surfaces", "sar", "car"),
        ("surfaces", "none", "icar"),
        ("cross-section", "sac", "iid"),
    ],
)
@pytest.mark.parametrize("by", ["row", "region"])
def test_conditionals_are_those_of_the_dense_normal(shape, outcome, structure, by):
    spec, design = design_of(shape, outcome, structure)
    _, mean, V = dense(spec, design, values_of(spec, design))
    labels = design.data["row_region"].values if by == "region" else np.arange(design.n_rows)
    members = [np.flatnonzero(labels == unit) for unit in pd.unique(labels)]
    wanted = []
    for rows in members:
        rest = np.setdiff1d(np.arange(design.n_rows), rows)
        gain = np.linalg.solve(V[np.ix_(rest, rest)], V[np.ix_(rest, rows)]).T
        center = mean[rows] + gain @ (design.y - mean)[rest]
        spread = V[np.ix_(rows, rows)] - gain @ V[np.ix_(rest, rows)]
        wanted.append(stats.multivariate_normal(center, spread).logpdf(design.y[rows]))
    system = MarginalNormal(SimpleNamespace(spec=spec, design=design))
    found = system.left_out(parameters_of(spec, design), members)
    np.testing.assert_allclose(found, wanted, rtol=EXACT, atol=EXACT)
    if by == "row":
        precision, z = system.rows(parameters_of(spec, design))
        K = np.linalg.inv(V)
        np.testing.assert_allclose(precision, K.diagonal(), rtol=EXACT)
        expected = (K @ (design.y - mean)) / np.sqrt(K.diagonal())
        np.testing.assert_allclose(z, expected, rtol=EXACT, atol=EXACT)


def test_importance_sampling_against_quadrature():
    """One unknown, sigma: the predictive density of each y given the others, on a grid."""
    rng = np.random.default_rng(3)
    y = rng.standard_t(4, size=15)
    sigma = np.linspace(0.05, 6.0, 4000)
    each = stats.norm.logpdf(y[:, None], scale=sigma)
    prior = stats.halfnorm.logpdf(sigma, scale=2.0)
    posterior = np.exp(each.sum(axis=0) + prior - special.logsumexp(each.sum(axis=0) + prior))
    drawn = rng.choice(len(sigma), size=20_000, p=posterior)
    elpd, k, _ = _smoothed(each[:, drawn].T)
    without = each.sum(axis=0) - each + prior
    wanted = special.logsumexp(without + each, axis=1) - special.logsumexp(without, axis=1)
    np.testing.assert_allclose(elpd, wanted, rtol=QUADRATURE)
    assert (k < 0.7).all()


@pytest.fixture(scope="module")
def fits():
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"region": [f"r{i:02d}" for i in range(40)], "x": rng.normal(size=40)})
    table["z"] = rng.normal(size=40)
    table["y"] = 1.0 + 0.8 * table["x"] + 0.5 * rng.normal(size=40)
    panel = sc.read_panel(table)
    return {
        term: sc.fit(
            sc.parse_spec(f'name = "{term}"\nformula = "y ~ {term}"'),
            panel,
            seed=1,
            chains=2,
            tune=200,
            draws=300,
            progress=False,
        )
        for term in ("x", "z")
    }


@pytest.mark.slow
def test_comparison_prefers_the_model_that_made_the_data(fits):
    results = {name: sc.marginal_loo(fit) for name, fit in fits.items()}
    table = sc.compare_loo(results)
    assert table["model"].tolist() == ["x", "z"]
    best, other = (results[name].pointwise["elpd"] for name in ("x", "z"))
    row = table.iloc[1]
    assert row["difference"] == pytest.approx(float((other - best).sum()), rel=1e-12)
    assert row["difference"] < -2.0 * row["difference_error"]
    assert "one row left out" in str(results["x"])
    regions = sc.marginal_loo(fits["x"], by="region")
    # one row a region: the same units in another order
    assert regions.elpd == pytest.approx(results["x"].elpd, rel=1e-9)


@pytest.mark.parametrize(
    ("draws", "good"), [(100, 0.5), (400, 1.0 - 1.0 / np.log10(400)), (4000, 0.7)]
)
def test_few_draws_ask_for_lighter_tails(draws, good):
    units = pd.DataFrame({"elpd": -1.0, "pareto_k": [good - 0.01, good + 0.01]})
    loo = Loo(-2.0, 0.1, units, "row", draws, ("", "y", "y"))
    assert loo.good_k == pytest.approx(good, rel=1e-12)
    assert loo.reliable == 0.5
    assert f"Pareto k < {good:.2g} for 50.0%" in str(loo)


@pytest.mark.parametrize("by", ["row", "region"])
def test_rows_of_which_the_others_say_nothing(by):
    """A flat coefficient of one row, and of one region, rests on nothing else."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"region": np.repeat([f"r{i}" for i in range(10)], 3), "y": rng.normal(size=30)}
    )
    table["cluster"] = ["a", "b", "c"] * 10
    table["own"] = (table["region"] == "r4") * 1.0 if by == "region" else np.eye(30)[4]
    flat = '[priors]\nown = {distribution = "flat"}\nintercept = {distribution = "flat"}'
    spec = sc.parse_spec(f'formula = "y ~ own"\n{flat}')
    design = sc.build_design(spec, sc.read_panel(table))
    draws = {"intercept": np.zeros((2, 20)), "coefficient": np.zeros((2, 20, 1))}
    draws["sigma"] = rng.uniform(0.5, 1.0, (2, 20))
    fit = assemble(spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance={})
    named = "('r4 a', 'r4 b', 'r4 c')" if by == "region" else "('r1 b')"
    with pytest.raises(sc.FitError, match=f"say nothing {re.escape(named)}.*flat prior"):
        sc.marginal_loo(fit, by=by)
    if by == "region":
        assert np.isfinite(sc.marginal_loo(fit).elpd)


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(fits):
    with pytest.raises(sc.FitError, match="got 24 draws; expected 25 or more"):
        sc.marginal_loo(fits["x"], draws=24)
    assert np.isfinite(sc.marginal_loo(fits["x"], draws=25).elpd)
    other = sc.marginal_loo(fits["x"], by="region")
    with pytest.raises(sc.FitError, match="different rows"):
        sc.compare_loo({"x": sc.marginal_loo(fits["x"]), "z": other})
    with pytest.raises(sc.FitError, match="by = 'row' or 'region'"):
        sc.marginal_loo(fits["x"], by="cluster")


def loo_of(elpd, kind="row"):
    frame = pd.DataFrame({"unit": np.arange(len(elpd)), "elpd": elpd, "pareto_k": 0.1})
    return Loo(float(np.sum(elpd)), 1.0, frame, kind, 100, ("rows", "y", "unit"))


@pytest.mark.parametrize("shift", [0.0, -900.0])  # densities of many rows at once are tiny
def test_stacking_weights_are_the_best_mixture(shift):
    rng = np.random.default_rng(6)
    good, bad = rng.normal(-1.0, 0.7, (2, 80)) + np.array([[0.2], [0.0]]) + shift
    table = sc.compare_loo({"good": loo_of(good), "bad": loo_of(bad)}).set_index("model")
    w = np.linspace(0.0, 1.0, 20_001)[1:-1]
    score = np.logaddexp(np.log(w)[:, None] + good, np.log1p(-w)[:, None] + bad).sum(axis=1)
    assert table.loc["good", "weight"] == pytest.approx(w[score.argmax()], abs=2e-3)
    assert table["weight"].sum() == pytest.approx(1.0)
    assert sc.compare_loo({"only": loo_of(good)})["weight"].tolist() == [1.0]


@pytest.mark.slow
def test_probabilities_of_rows_left_out_are_uniform_for_the_right_model(fits):
    pit = sc.marginal_loo(fits["x"]).pointwise["pit"]
    assert stats.kstest(pit, "uniform").pvalue > 0.01
    assert ((pit > 0.0) & (pit < 1.0)).all()
