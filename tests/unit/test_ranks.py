"""Ranks: exact probabilities against all cases, simulation and ArviZ; broken posteriors are found out."""

import itertools

import numpy as np
import pytest
from arviz_stats.ecdf_utils import get_pointwise_confidence_band, simulate_confidence_bands
from scipy import stats

from spatialclusters.ranks import coverage, rank_band, rank_counts, uniformity

EXACT = 1e-12  # a sum over paths against a count of cases
SIMULATED = 4.0  # standard errors of a simulated share
COUNT = (
    1  # ArviZ estimates the pointwise probability from simulations; its bounds are whole numbers
)
TYPICAL = 1e-3  # p-value that ranks of a right sampler exceed, at the seeds here
OFF = 1e-6  # and that those of a broken one do not


def statistic(ranks, draws):
    """The smallest tail probability of any count, by SciPy's binomial distribution."""
    found = []
    for i in range(1, draws + 1):
        below, p = int((ranks < i).sum()), i / (draws + 1)
        found += [stats.binom.cdf(below, len(ranks), p), stats.binom.sf(below - 1, len(ranks), p)]
    return min(found)


@pytest.mark.parametrize(("datasets", "draws"), [(4, 2), (3, 4), (6, 1)])
def test_p_values_are_shares_of_all_cases(datasets, draws):
    cases = [np.array(c) for c in itertools.product(range(draws + 1), repeat=datasets)]
    values = np.array([statistic(case, draws) for case in cases])
    for case, value in zip(cases, values, strict=True):
        wanted = (values <= value * (1.0 + EXACT)).mean()
        assert uniformity(case, draws) == pytest.approx(wanted, abs=EXACT)


@pytest.mark.parametrize(("datasets", "draws", "error"), [(60, 19, 0.05), (100, 49, 0.02)])
def test_the_band_holds_what_it_says_and_is_not_wider_than_needed(datasets, draws, error):
    rng, band = np.random.default_rng(1), rank_band(datasets, draws, error)
    ranks = rng.integers(0, draws + 1, (5_000, datasets))
    counts = np.stack([rank_counts(each, draws) for each in ranks])
    outside = ((counts < band.lower) | (counts > band.upper)).any(axis=1).mean()
    spread = np.sqrt(error / len(ranks))
    assert outside <= error + SIMULATED * spread
    # one count less on either side, and more is outside than allowed
    narrow = ((counts <= band.lower) | (counts >= band.upper)).any(axis=1).mean()
    assert narrow > error


def test_the_band_is_where_the_p_value_crosses_the_error():
    rng, band = np.random.default_rng(2), rank_band(50, 9, 0.2)
    seen = set()
    for _ in range(200):
        ranks = rng.integers(0, 10, 50)
        counts = rank_counts(ranks, 9)
        inside = bool(((counts >= band.lower) & (counts <= band.upper)).all())
        assert inside == (uniformity(ranks, 9) > 0.2)
        seen.add(inside)
    assert seen == {True, False}


def test_the_band_is_that_of_arviz():
    n, draws = 100, 24
    points = np.arange(1, draws + 1) / (draws + 1)
    probability = simulate_confidence_bands(n, 1, points, 0.95, 2000, np.random.default_rng(3))
    theirs = np.array(get_pointwise_confidence_band(probability, n, points)) * n
    np.testing.assert_allclose(np.array(rank_band(n, draws, 0.05)), theirs, atol=COUNT)


def toy(rng, datasets, *, widen=1.0, sampler="posterior"):
    """Ranks of a normal mean with prior N(0, 1) and of its log likelihood, by exact draws."""
    n, draws, ranks = 5, 99, []
    for _ in range(datasets):
        truth = rng.standard_normal()
        y = truth + rng.standard_normal(n)
        mean, sd = y.sum() / (n + 1), widen / np.sqrt(n + 1)
        if sampler == "prior":
            mean, sd = 0.0, 1.0
        drawn = mean + sd * rng.standard_normal(draws)

        def log_likelihood(value, y=y):
            return -0.5 * ((y[:, None] - value) ** 2).sum(axis=0)

        known = log_likelihood(np.array([truth]))[0]
        ranks.append(((drawn < truth).sum(), (log_likelihood(drawn) < known).sum()))
    return np.array(ranks).T


def test_ranks_of_a_conjugate_posterior_are_uniform():
    for ranks in toy(np.random.default_rng(4), 500):
        assert uniformity(ranks, 99) > TYPICAL


@pytest.mark.parametrize("widen", [0.6, 1.6])
def test_a_posterior_of_the_wrong_width_is_found_out(widen):
    mean, _ = toy(np.random.default_rng(5), 500, widen=widen)
    assert uniformity(mean, 99) < OFF
    inside, nominal = coverage(mean, 99, 0.5)
    assert (inside / 500 < nominal) == (widen < 1.0)


def test_only_the_log_likelihood_finds_out_a_sampler_that_ignores_the_data():
    mean, log_likelihood = toy(np.random.default_rng(6), 500, sampler="prior")
    assert uniformity(mean, 99) > TYPICAL
    assert uniformity(log_likelihood, 99) < OFF


@pytest.mark.parametrize(("draws", "width"), [(99, 0.5), (99, 0.9), (39, 0.9), (10, 0.5)])
def test_coverage_of_uniform_ranks_is_nominal(draws, width):
    inside, nominal = coverage(np.arange(draws + 1), draws, width)
    assert inside == pytest.approx(nominal * (draws + 1))
    assert abs(nominal - width) <= 1.0 / (draws + 1)
