"""The PyMC model against densities written down with scipy, at random points."""

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import betaln

from spatialclusters.design import build_design
from spatialclusters.model import build_model
from spatialclusters.panel import read_panel
from spatialclusters.parameters import SIZE_CLASSES, WIDE, model_priors, size_classes
from spatialclusters.simulation import (
    draw_parameters,
    linear_predictor,
    lkj_correlation,
    noise_scale,
    simulate_response,
)
from spatialclusters.spec import override, parse_spec

# Both sides sum a few hundred terms in float64.
RELATIVE = 1e-11
# A determinant of a few dozen rows loses a few more digits.
RELATIVE_DETERMINANT = 1e-9
# Draws of independent chains of a thousand: a KS test that a right simulator fails once in 10^4.
KS_LEVEL = 1e-4

BASE = """
name = "test"
formula = '''growth ~ log(cluster_level) + log(employment)
             + (1 | region) + (1 + log(cluster_level) + log(employment) | cluster)'''
[growth]
variable = "employment"
from = 2018
to = 2021
[cells]
absent = "zero"
withheld = "zero"
"""

VARIANTS = {
    "random": {},
    "correlated, size": {"groups.region.effect": "correlated", "likelihood.scale": "size"},
    "fixed, by cluster": {"groups.region.effect": "fixed", "likelihood.scale": "by-cluster"},
    "student-t": {"likelihood.family": "student-t"},
    "no slopes": {"formula": "growth ~ log(employment) + (1 | region) + (1 | cluster)"},
    "no intercept": {"formula": "growth ~ 0 + log(employment) + (1 | region)"},
    "priors of every kind": {
        "formula": "growth ~ log(cluster_level) + log(employment) + (1 | region)",
        'priors."log(employment)"': {
            "distribution": "student_t",
            "nu": 4.0,
            "mean": 0.1,
            "sd": 0.5,
        },
        "priors.sigma": {"distribution": "exponential", "rate": 2.0},
        'priors."sd(region)"': {"distribution": "half_student_t", "nu": 3.0, "sd": 0.4},
        "priors.intercept": {"distribution": "uniform", "lower": -3.0, "upper": 3.0},
    },
}


def _table(seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    regions = [f"r{i}" for i in range(9)]
    clusters = [f"c{i}" for i in range(5)]
    table = pd.MultiIndex.from_product([regions, clusters], names=["region", "cluster"])
    frame = table.to_frame(index=False)
    frame["employment_start"] = np.round(np.exp(rng.normal(5.0, 1.0, len(frame)))) + 1.0
    frame["employment_end"] = frame["employment_start"] * np.exp(rng.normal(0, 0.4, len(frame)))
    return frame[rng.uniform(size=len(frame)) > 0.15]


def _case(changes):
    spec = override(parse_spec(BASE), changes)
    return spec, build_design(spec, read_panel(_table()))


def _evaluate(model, seed):
    """Evaluate every unobserved variable, the likelihood and the prior at a random point."""
    from pymc.sampling.jax import get_jaxified_graph

    jax.config.update("jax_enable_x64", True)
    variables = model.unobserved_value_vars
    likelihood = model.logp(vars=model.observed_RVs)
    stated = [p for p in model.potentials if p.name.startswith("prior")]
    prior = model.logp(vars=[*model.free_RVs, *stated], jacobian=False)
    graph = get_jaxified_graph(inputs=model.value_vars, outputs=[*variables, likelihood, prior])
    rng = np.random.default_rng(seed)
    point = [
        jax.numpy.asarray(rng.normal(0.0, 0.7, size=np.shape(value)))
        for value in model.initial_point().values()
    ]
    *values, log_likelihood, log_prior = graph(*point)
    named = {v.name: np.asarray(x) for v, x in zip(variables, values, strict=True)}
    return named, float(log_likelihood), float(log_prior)


@pytest.mark.parametrize("name", VARIANTS)
def test_likelihood_equals_the_density_of_independent_numpy_code(name):
    spec, design = _case(VARIANTS[name])
    values, log_likelihood, _ = _evaluate(build_model(spec, design), seed=5)
    mean = linear_predictor(design, values)
    scale = noise_scale(spec, design, values)
    if spec.likelihood.family == "student-t":
        expected = stats.t(float(values["nu"]), mean, scale).logpdf(design.y).sum()
    else:
        expected = stats.norm(mean, scale).logpdf(design.y).sum()
    assert log_likelihood == pytest.approx(expected, rel=RELATIVE)


def test_linear_predictor_is_written_out_by_hand():
    spec, design = _case(VARIANTS["correlated, size"])
    values, _, _ = _evaluate(build_model(spec, design), seed=6)
    means = design.X.mean(axis=0)
    for row in range(design.n_rows):
        x = design.X[row] - means
        region = list(design.data["region"].values).index(design.data["row_region"].values[row])
        cluster = list(design.data["cluster"].values).index(design.data["row_cluster"].values[row])
        slopes = values["effect(cluster)"][cluster]
        total = values["intercept"] + sum(
            b * v for b, v in zip(values["coefficient"], x, strict=True)
        )
        total += (
            values["effect(region)"][region, 0] + slopes[0] + slopes[1] * x[0] + slopes[2] * x[1]
        )
        assert linear_predictor(design, values)[row] == pytest.approx(float(total), rel=RELATIVE)


def _covariance(values, group, factors):
    sds = values[f"sd({group.name})"] * factors
    correlation = np.eye(len(sds))
    if len(sds) > 1:
        correlation[np.tril_indices(len(sds), -1)] = values[f"cor({group.name})"]
        correlation = correlation + np.tril(correlation, -1).T
    return correlation * np.outer(sds, sds)


def _log_density_of_effects(group, design, values):
    """Density of iid effects in units of their own covariance: what non-centered effects have."""
    scales = design.data["scale"].values
    factors = np.array(
        [1.0 if label == "1" else scales[design.terms.index(label)] for label in group.labels]
    )
    effect = values[f"effect({group.name})"] * factors
    root = np.linalg.cholesky(_covariance(values, group, factors))
    return stats.norm.logpdf(np.linalg.solve(root, effect.T)).sum()


def _log_prior_by_hand(spec, design, values):
    """Add up the priors of a Gaussian model with scipy, on the scale each prior is stated on."""
    priors = {name: each.prior for name, each in model_priors(spec, design).items()}

    def density(prior, x):
        kinds = {
            "normal": lambda p: stats.norm(p.mean, p.sd),
            "student_t": lambda p: stats.t(p.nu, p.mean, p.sd),
            "half_normal": lambda p: stats.halfnorm(scale=p.sd),
            "exponential": lambda p: stats.expon(scale=1.0 / p.rate),
            "beta": lambda p: stats.beta(p.a, p.b),
            "uniform": lambda p: stats.uniform(p.lower, p.upper - p.lower),
        }
        if prior.distribution == "half_student_t":
            return stats.t(prior.nu, 0.0, prior.sd).logpdf(x) + np.log(2.0)
        return kinds[prior.distribution](prior).logpdf(x)

    total = sum(density(priors[n], values[n]) for n in ("intercept", "sigma") if n in values)
    scales = design.data["scale"].values
    for term, value, scale in zip(design.terms, values["coefficient"], scales, strict=True):
        # the model samples coefficient * scale: its density is smaller by the factor scale
        total += density(priors[term], value) - np.log(scale)
    for group in design.groups:
        if group.effect == "fixed":
            continue
        for label, sd in zip(group.labels, values[f"sd({group.name})"], strict=True):
            name = f"sd({group.name})" if label == "1" else f"sd({group.name}, {label})"
            factor = 1.0 if label == "1" else scales[design.terms.index(label)]
            total += density(priors[name], sd) - np.log(factor)
        total += _log_density_of_effects(group, design, values)
    return float(total), priors


@pytest.mark.parametrize("name", ["no slopes", "no intercept", "priors of every kind"])
def test_prior_equals_the_sum_of_stated_densities(name):
    spec, design = _case(VARIANTS[name])
    values, _, log_prior = _evaluate(build_model(spec, design), seed=7)
    assert log_prior == pytest.approx(_log_prior_by_hand(spec, design, values)[0], rel=RELATIVE)


@pytest.mark.parametrize("name", ["random", "correlated, size", "no intercept"])
def test_the_parametrization_leaves_the_prior_as_stated(name):
    """Change variables by brute force: the density of what is sampled, turned back.

    The sampled vector maps to (coefficients, effects, sds, correlation root) one to
    one; the log density of the model must be the stated prior of those plus the log
    of the absolute determinant of the map's derivative.
    """
    from pymc.sampling.jax import get_jaxified_graph

    jax.config.update("jax_enable_x64", True)
    spec, design = _case(VARIANTS[name])
    model = build_model(spec, design)
    density = model.logp(vars=[*model.free_RVs, *model.potentials], jacobian=False)
    variables = {v.name: v for v in model.unobserved_value_vars}
    groups = [g for g in design.groups if g.effect != "fixed"]
    names = [n for n in ("intercept", "coefficient") if n in variables]
    names += [f"effect({g.name})" for g in groups]
    graph = get_jaxified_graph(inputs=model.value_vars, outputs=[*variables.values(), density])
    rng = np.random.default_rng(21)
    inputs = [v.name for v in model.value_vars]
    point = {
        n: jax.numpy.asarray(rng.normal(0.0, 0.6, size=np.shape(x)))
        for n, x in zip(inputs, model.initial_point().values(), strict=True)
    }
    linear = [n for n in inputs if n.startswith(("raw(total", "raw(first")) or
              n in [f"raw({g.name})" for g in groups] or n in [f"raw({t})" for t in design.terms]
              or n == "raw(intercept)"]  # fmt: skip

    def effects(parts):
        outputs = graph(*[{**point, **parts}[n] for n in inputs])
        named = dict(zip(variables, outputs, strict=False))
        return jax.numpy.concatenate([named[n].ravel() for n in names])

    parts = {n: point[n] for n in linear}
    blocks = jax.jacobian(effects)(parts)
    size = effects(parts).size
    derivative = np.concatenate([np.asarray(blocks[n]).reshape(size, -1) for n in linear], axis=1)
    assert derivative.shape == (size, size)
    *_, got = graph(*[point[n] for n in inputs])
    values = dict(zip(variables, map(np.asarray, graph(*point.values())), strict=False))
    expected = _stated_log_density(spec, design, values, groups)
    assert float(got) == pytest.approx(
        expected + np.linalg.slogdet(derivative)[1], rel=RELATIVE_DETERMINANT
    )


def _stated_log_density(spec, design, values, groups):
    """Prior of coefficients, effects, sds and noise in raw units, with scipy alone."""
    total, priors = _log_prior_by_hand(spec, design, values)
    scales = design.data["scale"].values
    # back from standardized to raw coefficients and from whitened to raw effects
    total += np.log(scales).sum()
    for group in groups:
        factors = np.array(
            [1.0 if x == "1" else scales[design.terms.index(x)] for x in group.labels]
        )
        root = np.linalg.cholesky(_covariance(values, group, np.ones(len(factors))))
        total -= len(group.levels) * np.log(np.diag(root)).sum()
        if len(group.labels) > 1:
            total += _lkj_log_density(values[f"root({group.name})"], priors[f"cor({group.name})"])
    for name in ("size.share", "size.power"):
        if name in values:
            kinds = {"size.share": stats.beta(1.0, 1.0), "size.power": stats.halfnorm(scale=1.0)}
            total += kinds[name].logpdf(values[name])
    return float(total)


def _lkj_log_density(root, prior):
    """LKJ(eta), normalized as in the 2009 paper, as the density of the Cholesky factor."""
    size, eta = len(root), prior.eta
    jacobian = sum((size - k) * np.log(root[k - 1, k - 1]) for k in range(2, size + 1))
    log_det = 2.0 * np.log(np.diag(root)).sum()
    constant = 0.0
    for k in range(1, size):
        shape = eta + (size - k - 1) / 2.0
        constant += (2.0 * eta - 2.0 + size - k) * (size - k) * np.log(2.0)
        constant += (size - k) * betaln(shape, shape)
    return (eta - 1.0) * log_det - constant + jacobian


def test_correlation_prior_is_lkj():
    """For two columns LKJ(eta) is 2 Beta(eta, eta) - 1, for three each margin 2 Beta(eta + 1/2)."""
    rng = np.random.default_rng(11)
    for size, shape in ((2, 2.0), (3, 2.5)):
        draws = [lkj_correlation(size, 2.0, rng)[1, 0] for _ in range(1000)]
        margin = stats.beta(shape, shape, loc=-1.0, scale=2.0)
        assert stats.kstest(draws, margin.cdf).pvalue > KS_LEVEL


def test_lkj_density_of_the_model_matches():
    spec, design = _case({"formula": "growth ~ log(employment) + (1 + log(employment) | cluster)"})
    values, _, log_prior = _evaluate(build_model(spec, design), seed=9)
    others, priors = _log_prior_by_hand(spec, design, values)
    rho, eta = float(values["cor(cluster)"][0]), priors["cor(cluster)"].eta
    margin = stats.beta(eta, eta, loc=-1.0, scale=2.0).logpdf(rho)
    assert log_prior == pytest.approx(others + margin, rel=RELATIVE)


def test_fixed_effects_sum_to_zero_and_are_wide():
    spec, design = _case(VARIANTS["fixed, by cluster"])
    model = build_model(spec, design)
    values, _, _ = _evaluate(model, seed=10)
    effect = values["effect(region)"][:, 0]
    assert effect.sum() == pytest.approx(0.0, abs=1e-12)
    assert design.y.std(ddof=1) * WIDE > 20.0


def test_prior_draws_reproduce_the_prior():
    spec, design = _case({"likelihood.scale": "size"})
    rng = np.random.default_rng(12)
    drawn = [draw_parameters(spec, design, rng) for _ in range(1000)]
    priors = {name: each.prior for name, each in model_priors(spec, design).items()}
    sigma = stats.halfnorm(scale=priors["sigma"].sd)
    assert stats.kstest([float(d["sigma"]) for d in drawn], sigma.cdf).pvalue > KS_LEVEL
    slope = priors[design.terms[1]]
    coefficient = stats.norm(slope.mean, slope.sd)
    values = [d["coefficient"][1] for d in drawn]
    assert stats.kstest(values, coefficient.cdf).pvalue > KS_LEVEL
    standardized = [d["effect(cluster)"][0, 1] / d["sd(cluster)"][1] for d in drawn]
    assert stats.kstest(standardized, stats.norm.cdf).pvalue > KS_LEVEL


def test_simulated_responses_have_the_stated_mean_and_spread():
    spec, design = _case({"likelihood.scale": "size"})
    rng = np.random.default_rng(13)
    values = draw_parameters(spec, design, rng)
    scale = noise_scale(spec, design, values)
    centered = [
        (simulate_response(spec, design, values, rng) - linear_predictor(design, values)) / scale
        for _ in range(200)
    ]
    assert stats.kstest(np.concatenate(centered), stats.norm.cdf).pvalue > KS_LEVEL


def test_noise_of_a_median_row_is_sigma_and_falls_with_size():
    spec, design = _case({"likelihood.scale": "size"})
    size = design.data["size"].values
    values = {"sigma": np.array(0.4), "size.share": np.array(0.8), "size.power": np.array(0.5)}
    got = noise_scale(spec, design, values)
    codes, _ = size_classes(design)
    edge = (np.log(size.max()) - np.log(size.min())) / SIZE_CLASSES
    for row, code in enumerate(codes):
        inside = np.log(size[codes == code])
        assert np.ptp(inside) <= edge * (1.0 + 1e-12)
        ratio = float(np.median(size)) / np.exp(inside.mean())
        assert got[row] == pytest.approx(0.4 * (0.2 + 0.8 * ratio**0.5) ** 0.5, rel=RELATIVE)
    assert (np.diff(got[np.argsort(size)]) <= 0.0).all()
