"""Gaps between a posterior and what stands beside it: their size, and which want a reason."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import spatialclusters as sc
from spatialclusters.comparison import compare
from spatialclusters.design import build_design
from spatialclusters.errors import FitError
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.gaps import expected_gaps, judge_gaps
from spatialclusters.mixed import fit_reml
from spatialclusters.panel import read_panel
from spatialclusters.result import assemble
from spatialclusters.spatial_gmm import fit_spatial_gmm
from spatialclusters.spatial_ml import fit_spatial_ml
from spatialclusters.spec import parse_spec
from spatialclusters.spec.distributions import Lkj
from spatialclusters.weights import read_weights

EXACT = 1e-12  # one subtraction and one division
SCORE = 1e-6  # central differences of a log density
GRID = 1e-3  # sums on a grid, and a wider difference


def ring(n, reach=1):
    pairs = [(f"r{i:02d}", f"r{(i + k) % n:02d}") for i in range(n) for k in range(1, 1 + reach)]
    both = [*pairs, *((b, a) for a, b in pairs)]
    return read_weights(pd.DataFrame(both, columns=["region_i", "region_j"]))


def table(n=30, seed=1):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n))
    y = 1.0 + 0.8 * x - 0.5 * z + rng.normal(size=n)
    return pd.DataFrame({"region": [f"r{i:02d}" for i in range(n)], "y": y, "x": x, "z": z})


def fit_of(means, *, text='formula = "y ~ x + z"', data=None, weights=None, sd=0.01):
    """A fit whose draws lie around given means, by name of the posterior's variables."""
    spec = parse_spec(text)
    design = build_design(spec, read_panel(table() if data is None else data), weights)
    rng = np.random.default_rng(3)
    draws = {
        name: np.asarray(mean) + sd * rng.standard_normal((2, 200, *np.shape(mean)))
        for name, mean in means.items()
    }
    return assemble(spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance={})


def ols_means(shift=0.0, text='formula = "y ~ x + z"'):
    """Draws around least squares, the coefficient of x moved by so many standard errors."""
    design = build_design(parse_spec(text), read_panel(table()))
    frame = fit_frequentist(design).estimates.set_index(["estimator", "term"]).loc["OLS"]
    b = frame.loc[["x", "z"], "estimate"].to_numpy().copy()
    b[0] += shift * frame.loc["x", "std_error"]
    return {"intercept": frame.loc["intercept", "estimate"], "coefficient": b, "sigma": 1.0}


def judged(frame, estimator, term, effect="coefficient"):
    rows = frame[(frame["estimator"] == estimator) & (frame["term"] == term)]
    found = rows[rows["effect"] == effect]
    assert len(found) == 1
    return found.iloc[0]


def test_gaps_are_those_of_the_comparison():
    fit = fit_of(ols_means(1.3))
    ols = fit_frequentist(fit)
    frame, side = judge_gaps(fit, ols), compare(fit, ols)
    for term in ("intercept", "x", "z"):
        got = judged(frame, "OLS", term)
        want = side.loc[(term, "coefficient")]
        assert got["difference"] == pytest.approx(want["OLS", "difference"], rel=EXACT)
        assert got["posterior"] == want["posterior", "estimate"]
        assert (got["estimate"], got["std_error"]) == tuple(want["OLS"][["estimate", "std_error"]])
    assert set(frame["verdict"]) == {"small"}
    assert set(frame["reason"]) == {""}
    assert "intercept at zero" not in set(frame["term"])


@pytest.mark.parametrize("shift", [-2.5, 2.5])
def test_a_large_gap_without_a_reason_is_a_warning(shift):
    fit = fit_of(ols_means(shift))
    ols = fit_frequentist(fit)
    got = judged(judge_gaps(fit, ols), "OLS", "x")
    assert (got["verdict"], got["reason"]) == ("warning", "")
    assert got["difference"] == pytest.approx(shift, abs=0.1)  # 400 draws of sd 0.01
    *reasons, last = expected_gaps(fit, ols)
    assert reasons == [
        "Priors and partial pooling pull the posterior; the regressions have neither."
    ]
    assert last.startswith(f"Warning: for x the posterior is {got['difference']:+.1f} standard")


@pytest.mark.parametrize(("sd", "verdict"), [(0.05, "expected"), (0.5, "warning")])
def test_only_a_prior_that_pulls_explains(sd, verdict):
    """At an estimate of about 0.8 +- 0.2 a prior of 0 +- 0.05 pulls by 60, of +- 0.5 by 0.6."""
    text = (
        f'formula = "y ~ x + z"\n[priors]\nx = {{distribution = "normal", mean = 0.0, sd = {sd}}}'
    )
    fit = fit_of(ols_means(-3.0), text=text)
    got = judged(judge_gaps(fit, fit_frequentist(fit)), "OLS", "x")
    assert got["verdict"] == verdict
    assert got["reason"].startswith("Priors") == (verdict == "expected")


@pytest.mark.parametrize(("shift", "verdict"), [(-3.0, "expected"), (3.0, "warning")])
def test_a_prior_explains_gaps_in_its_own_direction_only(shift, verdict):
    text = 'formula = "y ~ x + z"\n[priors]\nx = {distribution = "normal", mean = 0.0, sd = 0.05}'
    fit = fit_of(ols_means(shift), text=text)
    assert judged(judge_gaps(fit, fit_frequentist(fit)), "OLS", "x")["verdict"] == verdict


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ('distribution = "normal", mean = 0.2, sd = 0.7', 0.9),
        ('distribution = "student_t", nu = 4.0, mean = 0.2, sd = 0.7', 0.9),
        ('distribution = "half_normal", sd = 0.7', 0.9),
        ('distribution = "half_student_t", nu = 4.0, sd = 0.7', 0.9),
        ('distribution = "exponential", rate = 2.0', 0.9),
        ('distribution = "inverse_scale"', 0.9),
        ('distribution = "beta", a = 2.0, b = 5.0', 0.4),
        ('distribution = "flat"', 0.9),
        ('distribution = "uniform", lower = 0.0, upper = 3.0', 0.9),
    ],
)
def test_the_pull_of_a_prior_is_the_slope_of_its_density(text, x):
    from scipy import stats

    from spatialclusters.gaps import _score

    name = "rho" if "beta" in text else "sigma" if "half" in text or "exp" in text else "x"
    name = "sigma" if "inverse" in text else name
    outcome = '\n[spatial]\noutcome = "sar"' if name == "rho" else ""
    spec = parse_spec(f'formula = "y ~ x"\n[priors]\n{name} = {{{text}}}{outcome}')
    prior, support = spec.priors[name], (-0.8, 0.8)
    numbers = dict(prior)
    density = {
        "normal": lambda v: stats.norm.logpdf(v, numbers["mean"], numbers["sd"]),
        "student_t": lambda v: stats.t.logpdf(v, numbers["nu"], numbers["mean"], numbers["sd"]),
        "half_normal": lambda v: stats.halfnorm.logpdf(v, scale=numbers["sd"]),
        "half_student_t": lambda v: stats.t.logpdf(v, numbers["nu"], scale=numbers["sd"]),
        "exponential": lambda v: stats.expon.logpdf(v, scale=1.0 / numbers["rate"]),
        "inverse_scale": lambda v: -np.log(v),
        "beta": lambda v: stats.beta.logpdf((v + 0.8) / 1.6, numbers["a"], numbers["b"]),
    }.get(numbers["distribution"], lambda v: 0.0)
    want = (density(x + 1e-5) - density(x - 1e-5)) / 2e-5
    assert _score(prior, x, support) == pytest.approx(want, rel=SCORE, abs=SCORE)


def test_the_pull_on_correlations_is_that_of_their_density():
    """LKJ of two columns is (1 - r^2)^(eta - 1)."""
    from spatialclusters.gaps import _score

    text = 'formula = "y ~ x + (1 + x | region)"\n[priors]\n"cor(region)" = '
    spec = parse_spec(text + '{distribution = "lkj", eta = 3.0}')
    want = (2.0 * np.log1p(-((0.4 + 1e-5) ** 2)) - 2.0 * np.log1p(-((0.4 - 1e-5) ** 2))) / 2e-5
    assert _score(spec.priors["cor(region)"], 0.4, (0.0, 1.0)) == pytest.approx(want, rel=SCORE)


def test_the_pull_on_one_correlation_of_three_columns():
    """LKJ is det(R)^(eta - 1); the other two correlations are summed out on a grid."""
    from spatialclusters.gaps import _score

    prior = Lkj(distribution="lkj", eta=3.0)
    a, b = np.meshgrid(*2 * [np.linspace(-1.0, 1.0, 801)])

    def density(r):
        return np.maximum(1.0 + 2.0 * r * a * b - r**2 - a**2 - b**2, 0.0) ** 2.0

    want = (np.log(density(0.41).sum()) - np.log(density(0.39).sum())) / 0.02
    assert _score(prior, 0.4, (0.0, 1.0), 3) == pytest.approx(want, rel=GRID)


@pytest.fixture(scope="module")
def beside(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    return fit, {
        "frequentist": fit_frequentist(fit, conley=sc.spatial_kernel(fit, 0.0012)),
        "reml": fit_reml(fit),
        "ml": fit_spatial_ml(fit, draws=50),
        "gmm": fit_spatial_gmm(fit, draws=50),
    }


def test_every_estimator_is_judged(beside):
    fit, others = beside
    frame = judge_gaps(fit, *others.values())
    named = dict.fromkeys(e for o in others.values() for e in o.estimates["estimator"])
    assert list(frame["estimator"].unique()) == list(named)
    assert {
        "sd(cluster) [log(cluster_level)]",
        "cor(cluster) [1, log(cluster_level)]",
        "sigma",
    } <= (set(frame.loc[frame["estimator"] == "REML", "term"]))
    large = frame["difference"].abs() > 2.0
    assert large.any()
    assert (frame["verdict"].ne("small") == large).all()
    assert (frame["reason"].ne("") == frame["verdict"].eq("expected")).all()


def test_reasons_belong_to_estimators(beside):
    """The noise explains any gap of this model: it is made constant to see the others."""
    fit, others = beside
    likelihood = fit.spec.likelihood.model_copy(update={"scale": "constant"})
    spec = fit.spec.model_copy(update={"likelihood": likelihood, "priors": {}})
    fit = assemble(
        spec, fit.design, {n: fit.draws(n) for n in fit.posterior.data_vars if "size" not in n}, {},
        panel=xr.Dataset(), geometry=None, provenance={},
    )  # fmt: skip
    text = {name: "\n".join(expected_gaps(fit, other)) for name, other in others.items()}
    assert "Group means (region) stand in for fixed effects" in text["frequentist"]
    assert "OLS has no group effects" in text["frequentist"]
    for name, part in (
        ("frequentist", "Slopes by group (log(cluster_level) by cluster)"),
        ("ml", "Spatial models by ML and GMM have no group effects"),
        ("ml", "ML SAR, ML SEM, ML SDM: other models than the posterior's (no process)"),
        ("gmm", "GMM SAR: F = "),
        ("reml", "Standard deviations of few levels (cluster)"),
    ):
        assert part in text[name]
        for other in set(others) - {name}:
            assert part not in text[other] or {name, other} <= {"frequentist", "ml", "gmm"}
    # what is left for a mixed model of the same groups, noise and columns
    frame = judge_gaps(fit, others["reml"])
    slopes = frame[frame["effect"] == "coefficient"]
    assert set(slopes["verdict"]) <= {"small", "warning"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            '[groups.region]\neffect = "random"\nstructure = "icar"',
            "levels of region as independent",
        ),
        ("", "Random effects (region) are taken to be uncorrelated"),
    ],
)
def test_reasons_depend_on_the_model(text, part):
    data = pd.concat([table(seed=s).assign(industry=f"i{s}", cluster="c") for s in range(3)])
    text = f'formula = "y ~ x + z + (1 | region)"\n{text}'
    fit = fit_of(
        {
            "intercept": 1.0,
            "coefficient": np.array([0.8, -0.5]),
            "sigma": 1.0,
            "sd(region)": np.array([0.1]),
            "effect(region)": np.zeros((30, 1)),
        },
        text=text,
        data=data,
        weights=ring(30),
    )
    assert part in "\n".join(expected_gaps(fit, fit_frequentist(fit), fit_reml(fit)))


def test_processes_are_compared_with_their_like():
    weights = ring(30)
    means = {"intercept": 1.0, "coefficient": np.array([0.8, -0.5]), "sigma": 1.0, "rho": 0.1}
    fit = fit_of(means, text='formula = "y ~ x + z"\n[spatial]\noutcome = "sar"', weights=weights)
    ml, ols = fit_spatial_ml(fit, draws=50), fit_frequentist(fit)
    text = "\n".join(expected_gaps(fit, ml, ols))
    assert "The regressions have no lag of the response" in text
    assert "ML SEM, ML SDM: other models than the posterior's (SAR), by what they lag." in text
    frame = judge_gaps(fit, ml)
    assert judged(frame, "ML SAR", "rho", "spatial")["verdict"] in ("small", "warning")
    assert {"direct", "indirect", "total"} <= set(
        frame.loc[frame["estimator"] == "ML SAR", "effect"]
    )


def test_other_weights_are_refused():
    means = ols_means()
    near, far = (fit_of(means, weights=ring(30, reach)) for reach in (1, 2))
    assert near.design.rows_digest == far.design.rows_digest
    for estimate in (
        fit_frequentist,
        lambda fit: fit_spatial_ml(fit, draws=2),
        lambda fit: fit_spatial_gmm(fit, draws=2),
    ):
        result = estimate(far)
        for call in (compare, judge_gaps, expected_gaps, sc.regression_table):
            with pytest.raises(FitError, match="compare: got other weights; expected the same W"):
                call(near, result)
            assert call(far, result) is not None
    assert compare(near, far) is not None  # fits may differ in W: that is compared, too


def test_fits_are_passed_over():
    fit = fit_of(ols_means())
    assert judge_gaps(fit, fit).empty
    assert judge_gaps(fit, fit, fit_frequentist(fit))["estimator"].unique().tolist() == ["OLS"]


def test_group_effects_side_by_side(synthetic_fit):
    """Random, correlated and fixed effects of the same rows, and mixed models of the first two."""
    fits = [synthetic_fit(name) for name in ("noise by cluster", "clusters", "fixed")]
    side = compare(*fits, fit_reml(fits[0]), fit_reml(fits[1]))
    titles = list(side.columns.get_level_values(0).unique())
    assert titles == [
        "posterior, region random, cluster random",
        "posterior, region correlated, cluster random",
        "posterior, region fixed, cluster random",
        "REML",
        "REML, synthetic",
    ]
    row = side.loc[("sd(cluster) [log(cluster_level)]", "sd")]
    assert row["REML", "difference"] == pytest.approx(
        (row[titles[0], "estimate"] - row["REML", "estimate"]) / row["REML", "std_error"], rel=EXACT
    )
    means = side.loc[("mean(log(cluster_level) | region)", "coefficient")]
    assert np.isfinite(means["REML, synthetic", "estimate"])
    assert np.isnan(means["REML", "estimate"])


def test_a_result_of_other_rows_is_refused():
    fit = fit_of(ols_means())
    other = dataclasses.replace(fit_frequentist(fit), rows_digest="other")
    for call in (judge_gaps, expected_gaps):
        with pytest.raises(FitError, match="got other rows"):
            call(fit, other)
