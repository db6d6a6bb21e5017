"""One compiled sampler for many data sets: the same draws as a sampler made for each."""

from dataclasses import asdict, replace

import jax
import numpy as np
import pandas as pd
import pytest

import spatialclusters as sc
from spatialclusters import preparation, repeated, sampling
from spatialclusters.chain import run_chain
from spatialclusters.collapsed.mode import FRESH, WarmStart
from spatialclusters.design import Design
from spatialclusters.errors import SamplingError
from spatialclusters.exported import chain_key
from spatialclusters.kernels import make_program
from spatialclusters.parameters import size_classes
from spatialclusters.program import build_target, gradient_of
from spatialclusters.repeated import RepeatedSampler, gradients_of, on_points
from spatialclusters.run import choose_settings

SAME = 1e-6  # relative: programs compiled with other flags round differently, chains magnify it
DENSITY = 1e-12  # relative: the same sums with zeros among them, or compiled in another loop
ROUNDING = 1e-10  # relative, of gradients, and absolute, where they are about 1: likewise
MODEL = """
name = "small"
formula = "y ~ x + z + (1 + x | cluster) + (1 | region)"
[groups.region]
effect = "correlated"
"""


def table(seed):
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product([[f"r{i}" for i in range(8)], list("abcd")])
    frame = index.to_frame(index=False, name=["region", "cluster"])
    for name in ("x", "z"):
        frame[name] = 2.0 + (1 + seed) * rng.standard_normal(len(frame))
    frame["y"] = frame["x"] + rng.standard_normal(len(frame))
    return frame


def design_of(seed, spec, change=lambda frame: frame):
    return sc.build_design(spec, sc.read_panel(change(table(seed))))


@pytest.fixture(scope="module")
def made():
    spec = sc.parse_spec(MODEL)
    design = design_of(0, spec)
    settings = choose_settings(spec, seed=3, tune=30, draws=30)
    return spec, design, settings, RepeatedSampler(spec, design, settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["auto", "nuts"])
def test_the_chain_is_that_of_its_steps(made, kind):
    """Step by step from Python, with a loop of NumPy's instead of compiled scans."""
    spec, design, settings, _ = made
    settings = replace(settings, sampler=kind)
    sampler, options = RepeatedSampler(spec, design, settings), asdict(settings)
    target = build_target(spec, design, options)
    key, gradient = chain_key(3, 0), jax.jit(jax.value_and_grad(target.potential))
    warm = target.warm_up(gradient, design.y, 3, surrogate=kind == "auto")
    assert warm.proposes == (kind == "auto")
    program, data = make_program(target, options, warm), target.prepare(design.y, warm)
    state, kept = program.first(key, data), []
    for iteration in range(60):
        state = program.step(state, data)
        if iteration >= 30:
            kept.append(program.record(state, jax.random.fold_in(key, 2**31 - 1), data))
    found = sampler.sample(seed=3)
    for kind, group in (("posterior", found.posterior), ("stat", found.stats)):
        for name, values in group.items():
            wanted = np.stack([each[f"{kind} {name}"] for each in kept])
            np.testing.assert_allclose(values[0], wanted, rtol=SAME, atol=SAME)


@pytest.mark.slow
def test_a_further_design_gives_the_draws_of_its_own_sampler(made):
    """Its own sampler has its covariates as constants, with the first's center and scale."""
    spec, design, settings, sampler = made
    other = design_of(1, spec)
    assert not np.allclose(other.data["scale"], design.data["scale"])
    # default priors are those of the first response
    frozen = Design(design.data.assign(X=other.data["X"]))
    own = RepeatedSampler(spec, frozen, settings).sample(other.y, seed=5)
    found = sampler.sample(other, seed=5)
    for name, values in own.posterior.items():
        np.testing.assert_allclose(found.posterior[name], values, rtol=SAME, atol=SAME)
    assert found.timings["pareto_k"] == pytest.approx(own.timings["pareto_k"], rel=SAME)


SIZED = """
name = "sized"
formula = "growth ~ log(employment) + (1 + log(employment) | cluster) + (1 | region)"
growth = { variable = "employment", from = 2018, to = 2021 }
likelihood.scale = "size"
"""


def sized_design(seed, spec):
    rng = np.random.default_rng(seed)
    frame = table(0)[["region", "cluster"]]
    # few different sizes, and another number of them for each seed
    frame["employment_start"] = rng.integers(3, 20 + 5 * seed, len(frame)) * 1.0
    frame["employment_end"] = frame["employment_start"] * rng.lognormal(0.0, 0.3, len(frame))
    return sc.build_design(spec, sc.read_panel(frame))


@pytest.mark.slow
def test_a_further_design_may_have_other_sizes():
    """Its own sampler has its own classes of size; here there is room for any."""
    spec = sc.parse_spec(SIZED)
    first, *others = (sized_design(seed, spec) for seed in range(4))
    assert len({len(size_classes(each)[1]) for each in (first, *others)}) > 2
    sampler = RepeatedSampler(spec, first, choose_settings(spec, seed=1, tune=10, draws=10))
    density = jax.jit(sampler.target.potential)
    z = np.random.default_rng(9).normal(size=len(sampler.target.start(chain_key(1, 0))))
    for other in others:
        frozen = Design(first.data.assign(X=other.data["X"], size=other.data["size"]))
        found = float(density(z, sampler.target.prepare(other.y, None, frozen)))
    own = build_target(spec, frozen, {"engine": "collapsed"})
    wanted = float(jax.jit(own.potential)(z, own.prepare(other.y, None)))
    assert found == pytest.approx(wanted, rel=DENSITY)
    # lengths are rounded: not a compilation for each design
    assert density._cache_size() <= 2
    sampled = sampler.sample(other, seed=2)
    assert np.isfinite(sampled.posterior["size.power"]).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_whatever_came_between(made):
    sampler, y = made[3], design_of(2, made[0]).y
    first = sampler.sample(y, seed=7)
    sampler.sample(seed=8)
    again = sampler.sample(y, seed=7)
    for name, values in first.posterior.items():
        np.testing.assert_array_equal(again.posterior[name], values)


@pytest.mark.slow
def test_thinning_keeps_the_last_of_every_so_many(made):
    spec, design, settings, sampler = made
    thinned = RepeatedSampler(spec, design, settings, thin=4).sample(seed=3)
    whole = sampler.sample(seed=3).posterior["sigma"]
    np.testing.assert_allclose(thinned.posterior["sigma"][0], whole[0, 3:28:4], rtol=SAME)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda frame: frame.iloc[1:], "numbers of rows"),
        (lambda frame: frame.assign(region=frame["region"].replace("r7", "r8")), "rows"),
        (lambda frame: frame.replace({"cluster": {"d": "e"}}), "groups"),
    ],
)
def test_another_structure_is_refused(made, change, named):
    spec, _, _, sampler = made
    with pytest.raises(SamplingError, match=f"other .*{named}.*; expected the structure"):
        sampler.sample(design_of(1, spec, change), seed=1)


def test_other_terms_are_refused(made):
    spec = sc.override(made[0], {"formula": '"y ~ x + (1 + x | cluster) + (1 | region)"'})
    with pytest.raises(SamplingError, match="'terms'"):
        made[3].sample(design_of(1, spec), seed=1)


@pytest.mark.parametrize("bad", [np.ones(3), np.full(32, np.nan)])
def test_a_response_that_does_not_fit_is_refused(made, bad):
    with pytest.raises(SamplingError, match="expected a number for each of the 32 rows"):
        made[3].sample(bad, seed=1)


@pytest.mark.slow
def test_the_full_engine_takes_responses_only(made):
    spec, design, *_ = made
    settings = choose_settings(spec, seed=3, tune=10, draws=10, engine="full")
    sampler = RepeatedSampler(spec, design, settings)
    with pytest.raises(SamplingError, match="engine full"):
        sampler.sample(design_of(1, spec), seed=1)
    other = Design(design.data.assign(y=design.data["y"] + 1.0))
    found, wanted = (sampler.sample(each, seed=1).posterior for each in (other, other.y))
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_thinning_beyond_the_draws_is_refused(made):
    with pytest.raises(SamplingError, match="thin = 31"):
        RepeatedSampler(*made[:3], thin=31)


@pytest.fixture(scope="module")
def small():
    spec = sc.parse_spec('name = "line"\nformula = "y ~ x + z"')
    return spec, design_of(0, spec)


def test_proposals_that_do_not_mix_are_left_to_nuts(small, monkeypatch):
    monkeypatch.setattr(repeated, "mixes", lambda *_: False)
    settings = choose_settings(small[0], seed=2, tune=50, draws=60)
    assert "diverging" in RepeatedSampler(*small, settings).sample(seed=2).stats


def test_gradients_at_points_are_those_of_each(made):
    """In whatever number they come: one compiled function takes a block of them at a time."""
    spec, design, settings, _ = made
    target = build_target(spec, design, asdict(settings))
    gradient, d = jax.jit(gradient_of(target)), len(target.search().origin)
    data = target.prepare(design.y, WarmStart.identity(d))
    points = 0.1 * np.random.default_rng(1).standard_normal((2 * FRESH + 1, d))
    one, many = on_points(jax.jit(gradients_of(target)))
    wanted = [gradient(point, data) for point in points]
    energies, slopes = many(points, data)
    np.testing.assert_allclose(energies, [energy for energy, _ in wanted], rtol=DENSITY)
    np.testing.assert_allclose(slopes, [slope for _, slope in wanted], rtol=ROUNDING, atol=ROUNDING)
    energy, slope = one(points[-1], data)
    assert energy == energies[-1]
    np.testing.assert_array_equal(slope, slopes[-1])


@pytest.mark.slow
def test_a_surrogate_that_does_not_mix_is_replaced(small, tmp_path, monkeypatch):
    spec, design = small
    settings = choose_settings(spec, seed=2, chains=1, tune=50, draws=50)
    judged = []
    monkeypatch.setattr(preparation, "agree", lambda draws: judged.append(draws.shape))
    sampling._prepare(spec, design, settings, tmp_path / "job", resume=False)
    preparation.prepare(tmp_path / "job")
    assert judged == [(8, 50, 1)]
    run_chain(tmp_path / "job", 0)
    drawn = sampling._collect(tmp_path / "job", settings)
    assert drawn.timings["surrogate_acceptance"] == 0.0
    assert "diverging" in drawn.stats
