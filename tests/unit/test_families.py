"""Summaries of many levels at once are those of one level at a time, which are arviz's."""

import math

import numpy as np
import pytest

from spatialclusters.effects import group_effects
from spatialclusters.families import summarize_levels
from spatialclusters.result import load_fit
from spatialclusters.simulation import thinned
from spatialclusters.summaries import at_level, rescaled, summarize_draws

EXACT = 1e-12  # the same sums in another order

SHAPES = [(4, 300, 12), (4, 301, 5), (2, 100, 8), (3, 40, 6), (1, 200, 3), (4, 12, 4)]


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, str):
            assert found[name] == value
        else:
            assert found[name] == pytest.approx(value, rel=EXACT, abs=1e-15, nan_ok=True), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("known", [False, True])
def test_all_levels_at_once_are_those_one_by_one(shape, known):
    rng = np.random.default_rng(sum(shape))
    draws = rng.standard_normal(shape) + 0.3
    draws[0, :, 0] += 1.0  # chains that disagree
    draws[:, 1:, 1] += 0.6 * draws[:, :-1, 1]
    draws[..., 2] = np.cumsum(draws[..., 2], axis=1)  # autocorrelation that hardly falls
    moments = (0.5 * draws, np.full(shape, 0.3)) if known else None
    found = list(summarize_levels(draws, moments))
    assert len(found) == shape[2]
    for level, each in enumerate(found):
        one = at_level(moments, level)
        same(each, summarize_draws(draws[..., level], family=True, moments=one))


def test_ties_infinities_and_constants_are_left_to_arviz():
    rng = np.random.default_rng(4)
    draws = rng.standard_normal((4, 200, 4))
    draws[..., 0] = np.round(draws[..., 0], 1)
    draws[0, 3, 1] = math.inf
    draws[..., 2] = 1.5
    with np.errstate(invalid="ignore"):  # infinities have no mean
        found = list(summarize_levels(draws))
        for level, each in enumerate(found):
            same(each, summarize_draws(draws[..., level], family=True))
    assert found[2]["verdict"] == "constant"


def test_folded_draws_that_are_tied_in_the_middle_have_average_ranks():
    # an even number of draws: the two beside the median are equally far from it
    draws = np.stack([np.arange(64.0), np.arange(64.0)[::-1] + 0.5])[:, :, None]
    (found,) = summarize_levels(draws)
    same(found, summarize_draws(draws[..., 0], family=True))


def test_a_multiple_has_the_multiple_of_the_summary():
    draws = np.random.default_rng(2).standard_normal((4, 100))
    moments = (0.2 * draws, np.full(draws.shape, 0.1))
    times = (0.25 * moments[0], 0.0625 * moments[1])
    same(
        rescaled(summarize_draws(draws, moments=moments), 0.25),
        summarize_draws(0.25 * draws, moments=times),
    )


def test_frames_of_a_fit_are_computed_once_and_cannot_be_spoiled(synthetic_fit, monkeypatch):
    fit = synthetic_fit("clusters")
    first = group_effects(fit, "region")
    first["estimate"] = 0.0
    monkeypatch.setattr("spatialclusters.effects.summarize_levels", None)
    assert (group_effects(fit, "region")["estimate"] != 0.0).any()


def test_a_lazy_fit_says_the_same(synthetic_fit, tmp_path):
    path = synthetic_fit("clusters", geometry=True).save(tmp_path / "fit.nc")
    eager, lazy = load_fit(path), load_fit(path, lazy=True)
    name = "effect(cluster)"
    assert not lazy.tree["posterior"][name]._in_memory
    assert eager.tree["posterior"][name]._in_memory
    at = {"cluster": slice(2, 4), "draw": np.array([0, 7])}
    np.testing.assert_array_equal(lazy.draws(name, at), eager.draws(name)[:, [0, 7]][:, :, 2:4])
    for one, other in zip(thinned(lazy, 37), thinned(eager, 37), strict=True):
        assert one.keys() == other.keys()
        for parameter in one:
            np.testing.assert_array_equal(one[parameter], other[parameter])
    assert group_effects(lazy, "cluster").equals(group_effects(eager, "cluster"))
    assert not lazy.tree["posterior"][name]._in_memory  # nothing stays
