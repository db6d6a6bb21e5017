"""Fits in the calling process, and what they leave for the next one."""

import logging
import shutil
from dataclasses import asdict

import jax
import numpy as np
import pandas as pd
import pytensor
import pytest
from scipy.special import expit

import spatialclusters as sc
from spatialclusters import program, run, shelf, small
from spatialclusters.collapsed.hyperparameters import hyperparameter_model
from spatialclusters.collapsed.mode import stretch
from spatialclusters.collapsed.surrogate import NU, log_proposal, surrogate_energy
from spatialclusters.design import Design
from spatialclusters.run import choose_settings
from spatialclusters.shelf import Shelf, shelf_of

SAME = 1e-6  # relative: compiled at once or one by one rounds differently, chains magnify it
REGIONS = [f"r{k:02d}" for k in range(20)]
NAMES = ["chain-50-60.stablehlo", "gradients.stablehlo", "search.json"]


def ring(weight=1.0):
    """Each region beside the next one; the first link may count for more."""
    links = pd.DataFrame({"region_i": REGIONS, "region_j": np.roll(REGIONS, 1), "weight": 1.0})
    links.loc[0, "weight"] = weight
    return sc.read_weights(links, row_standardize=False)


def lag(*, weight=1.0, shift=0.0, **changes):
    """A spatial lag model of 20 regions; ``shift`` is added to one response."""
    spec = sc.parse_spec('name = "lag"\nformula = "y ~ x"\nspatial.outcome = "sar"')
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"region": REGIONS, "x": rng.normal(size=20), "y": rng.normal(size=20)})
    table.loc[3, "y"] += shift
    return sc.override(spec, changes), sc.build_design(spec, sc.read_panel(table), ring(weight))


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """The folder of what fits leave, empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spatialclusters" / "models"


def fitted(chains=2, *, seed=2, draws=60, checkpoint=None, **options):
    spec, design = lag()
    settings = choose_settings(spec, seed=seed, chains=chains, tune=50, draws=draws, **options)
    return run.fit_design(spec, design, settings, checkpoint=checkpoint)


def expect_same(one, other):
    """The same bits, in the chains that both have."""
    for kind in ("posterior", "sample_stats"):
        for name, values in getattr(one, kind).items():
            there = getattr(other, kind)[name][: len(values)]
            np.testing.assert_array_equal(values, there, err_msg=name)


def refuse(*_, **__):
    pytest.fail("not here")


def test_small_fits_stay_in_this_process(tmp_path, monkeypatch):
    """Whatever the number of chains, a chain has the same bits; and no checkpoint is left."""
    two, three = (fitted(chains, checkpoint=tmp_path / "partial") for chains in (2, 3))
    assert two.provenance["sampler"] == "surrogate proposals"
    assert "n_steps" not in two.sample_stats
    assert not (tmp_path / "partial").exists()
    expect_same(two, three)
    monkeypatch.setattr(run, "sample", refuse)
    for options in ({"sampler": "nuts"}, {"engine": "full"}):
        with pytest.raises(pytest.fail.Exception, match="not here"):
            fitted(2, **options)


def test_a_chain_is_that_of_a_loop_over_its_numbers():
    """The rule of Liu (2001), step by step with NumPy's numbers and one density at a time."""
    spec, design = lag()
    settings = choose_settings(spec, seed=2, tune=20, draws=30)
    target = program.build_target(spec, design, asdict(settings))
    density = jax.jit(target.potential)
    gradient = jax.jit(program.gradient_of(target))
    warm = target.warm_up(gradient, design.y, 2, surrogate=True)
    data, d = target.prepare(design.y, warm), len(warm.mode)

    def judged(z):
        energy = float(surrogate_energy(z, warm.surrogate))
        return energy, -energy - float(log_proposal(z))

    def student(normals):
        return normals[:d] / np.sqrt(np.mean(normals[d:] ** 2))

    rng = np.random.default_rng(np.random.SeedSequence(2, spawn_key=(1,)))
    z = student(rng.standard_normal(d + NU))
    normals = rng.standard_normal((50, 2 * d, d + NU))
    uniform = np.exp(-rng.standard_exponential((50, 2 * d + 1)))
    energy, kept = float(density(z, data)), []
    for step in range(50):
        at, (approximate, weight) = z, judged(z)
        before = energy - approximate
        for k in range(2 * d):
            there = student(normals[step, k])
            if uniform[step, k] < np.exp(judged(there)[1] - weight):
                at, (approximate, weight) = there, judged(there)
        proposed = float(density(at, data))
        rate = min(1.0, np.exp(before - (proposed - approximate)))
        if uniform[step, -1] < rate:
            z, energy = at, proposed
        kept.append([rate, *stretch(z, warm)[0]])
    found = small.sample_here(spec, design, settings)
    acceptance, *place = np.transpose(kept[20:])
    names = [variable.name for variable in hyperparameter_model(spec, design)[0].value_vars]
    assert names == ["sigma_log__", "raw(rho)_logodds__"]
    rho = found.posterior["rho"][1]
    share = (rho - rho.min()) / (rho.max() - rho.min())
    there = expit(place[1])
    np.testing.assert_allclose(share, (there - there.min()) / np.ptp(there), atol=SAME)
    np.testing.assert_allclose(found.stats["acceptance_rate"][1], acceptance, rtol=SAME)
    np.testing.assert_allclose(np.log(found.posterior["sigma"][1]), place[0], atol=SAME)
    assert 1 < len(np.unique(place[0])) <= 30


def test_chains_that_disagree_are_left_to_nuts(monkeypatch):
    spec, design = lag()
    settings = choose_settings(spec, seed=2, tune=50, draws=60)
    assert small.sample_here(spec, design, settings) is not None
    with monkeypatch.context() as patch:
        patch.setattr(small, "WAITING", 1.5)
        assert small.sample_here(spec, design, settings) is None
    monkeypatch.setattr(small, "agree", lambda _: False)
    assert small.sample_here(spec, design, settings) is None
    asked = []
    monkeypatch.setattr(run, "sample", lambda *given, **_: asked.append(given[2]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.fit_design(spec, design, settings)
    assert asked[0].sampler == "nuts"


def test_chains_that_wait_have_few_effective_draws():
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((4, 500, 2))
    assert small._effective(draws) > 0.5
    draws[1, 200:300, 1] = 4.0  # a chain that stood still in a tail
    assert small._effective(draws) < small.WAITING


def test_a_later_fit_builds_nothing_and_has_the_same_bits(models, monkeypatch):
    first = fitted()
    (folder,) = models.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    monkeypatch.setattr(small, "serialized", refuse)
    monkeypatch.setattr(program, "_on_a_vector", refuse)
    expect_same(first, fitted(chains=3))
    other = fitted(seed=3)
    assert (other.posterior["rho"] != first.posterior["rho"]).all()
    with pytest.raises(pytest.fail.Exception, match="not here"):  # a chain of another length
        fitted(draws=61)
    assert list(models.iterdir()) == [folder]


def test_all_is_in_double_precision_whatever_pytensor_was_asked_for(models):
    with pytensor.config.change_flags(floatX="float32"):
        single = fitted()
    shutil.rmtree(models)
    expect_same(fitted(), single)


def test_what_is_damaged_is_made_again(models):
    first = fitted()
    (folder,) = models.iterdir()
    for name, content in zip(NAMES, (None, b"x" * 40, b"{}"), strict=True):
        damaged = (folder / name).read_bytes()[:-1] if content is None else content
        (folder / name).write_bytes(damaged)
        expect_same(first, fitted())
        assert shelf._is_whole((folder / name).read_bytes())


def test_without_a_folder_nothing_is_kept_and_nothing_fails(models, caplog):
    models.parent.mkdir(parents=True)
    models.write_text("in the way")
    with caplog.at_level(logging.DEBUG, "spatialclusters"):
        first = fitted()
    assert "chain-50-60.stablehlo is not kept" in caplog.text
    expect_same(first, fitted())


def test_what_is_kept_belongs_to_model_and_data(models, monkeypatch):
    """All that functions are traced from is in the name of their folder."""

    def place(model, **options):
        asked = {"engine": "collapsed", "jitter": 0.5} | options
        return shelf_of(*model, asked)._folder

    first = place(lag())
    assert first == place(lag())
    assert first.parent == models
    prior = {'priors."x"': {"distribution": "normal", "mean": 0.0, "sd": 2.0}}
    spec, design = lag()
    more = design.data.assign(X=design.data["X"] + 1e-12)
    others = [
        place(lag(weight=1.0 + 1e-12)),
        place(lag(shift=1e-12)),
        place(lag(**prior)),
        place(lag(), jitter=0.6),
        place((spec, Design(more, design.weights))),
        place((spec, Design(design.data.assign_attrs(intercept=0), design.weights))),
        place((spec, Design(design.data))),
    ]
    monkeypatch.setattr(shelf, "_SURROUNDINGS", ("another version",))
    others.append(place(lag()))
    assert len({first, *others}) == 1 + len(others)


def test_what_cannot_be_loaded_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="invalid literal"):
        Shelf(tmp_path / "a").take("number", lambda: b"x", int)
    assert not list(tmp_path.iterdir())


def test_the_folders_used_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "KEPT", 2)
    shelves = {name: Shelf(tmp_path / name) for name in "abc"}
    for at, name in enumerate("aba"):
        shelves[name].take("it", lambda: b"made", bytes)
        shelf.os.utime(tmp_path / name, (at, at))
    shelves["a"].take("it", refuse, bytes)  # used later than b
    shelves["c"].take("it", lambda: b"made", bytes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
