"""Proposals from a surrogate: the polynomial, its fit, and that the exact density decides."""

import itertools

import numpy as np
import pytest
from scipy import integrate, special, stats

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402

from spatialclusters.collapsed import mode, surrogate  # noqa: E402
from spatialclusters.collapsed.mode import WarmStart, find_warm_start  # noqa: E402
from spatialclusters.collapsed.surrogate import (  # noqa: E402
    NU,
    Surrogate,
    acceptance,
    fit_surrogate,
    log_proposal,
    surrogate_energy,
)
from spatialclusters.exported import chain_key  # noqa: E402
from spatialclusters.kernels import make_program, mixes  # noqa: E402
from spatialclusters.program import Data, Target  # noqa: E402

EXACT = 1e-12  # relative: the same sums in another order
SOLVED = 1e-8  # relative: normal equations against an orthogonal factorization
WITHIN = 4.5  # Monte Carlo errors: one of 150,000 comparisons exceeds it by chance
DRAWS = 20_000
SHAPE = 20.0


def some_surrogate(d, seed=0, size=0.05):
    rng = np.random.default_rng(seed)
    empty = Surrogate.empty(d)
    return empty._replace(
        first=size * rng.normal(size=d),
        second=size * rng.normal(size=empty.second.shape)
        + 0.5 * (np.equal(*np.triu_indices(d))[:, None] * np.eye(1 + d)[0]),
        fourth=np.triu(size**2 * rng.uniform(size=(d, d))),
    )


def polynomial(z, found):
    """The sum of monomials, one after the other."""
    d, total, row = len(z), float(z @ found.first), 0
    for i in range(d):
        for j in range(i, d):
            total += z[i] * z[j] * found.second[row, 0]
            total += sum(z[i] * z[j] * z[k] * found.second[row, 1 + k] for k in range(d))
            total += z[i] ** 2 * z[j] ** 2 * found.fourth[i, j]
            row += 1
    return total


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_energy_is_the_polynomial_within_its_ball_and_a_t_outside(d):
    found, rng = some_surrogate(d), np.random.default_rng(1)
    for z in rng.normal(size=(20, d)):
        expected = polynomial(z, found)
        assert float(surrogate_energy(z, found)) == pytest.approx(expected, rel=EXACT, abs=EXACT)
        far = 10.0 * found.radius * z / np.linalg.norm(z)
        sphere = found.radius * z / np.linalg.norm(z)
        density = stats.multivariate_t(np.zeros(d), np.eye(d), df=NU)
        beyond = density.logpdf(sphere) - density.logpdf(far)
        expected = polynomial(sphere, found) + beyond
        assert float(surrogate_energy(far, found)) == pytest.approx(expected, rel=1e-11)
    points = 5.0 * rng.normal(size=(7, 3, d))
    of_jax = surrogate_energy(jnp.asarray(points), found)
    np.testing.assert_allclose(of_jax, surrogate_energy(points, found), rtol=EXACT)
    density = stats.multivariate_t(np.zeros(d), np.eye(d), df=NU)
    shift = log_proposal(points) - density.logpdf(points).reshape(7, 3)
    np.testing.assert_allclose(shift, shift[0, 0], rtol=EXACT)


@pytest.mark.parametrize("degree", [2, 4])
def test_the_fit_is_penalized_least_squares_of_energies_and_slopes(degree):
    """Against columns from differentiated monomials and an orthogonal factorization."""
    d, rng = 3, np.random.default_rng(2)
    points = rng.normal(size=(60, d))
    energies, slopes = 3.0 + rng.normal(size=60) ** 2, rng.normal(size=(60, d))
    energies[7] = np.inf  # outside of where the density is: left out
    powers = [
        p for p in itertools.product(range(5), repeat=d)
        if sum(p) <= min(3, degree) or (degree == 4 and sum(p) == 4 and not set(p) & {1, 3})
    ]  # fmt: skip

    def monomials(z):
        return jnp.stack([jnp.prod(z ** jnp.array(p)) for p in powers])

    known = np.isfinite(energies)
    values = np.asarray(jax.vmap(monomials)(points[known]))
    change = np.asarray(jax.vmap(jax.jacfwd(monomials))(points[known]))
    excess = energies[known] - energies[known].min()
    weight = 1.0 / (1.0 + 0.5 * np.maximum(0.0, excess - 0.5 * d - 2.0))
    rows = [values * weight[:, None], *(change[:, :, k] * weight[:, None] for k in range(d))]
    right = [excess * weight, *(slopes[known][:, k] * weight for k in range(d))]
    ridge = np.array([surrogate._NOISE / surrogate._TYPICAL[sum(p)] for p in powers])
    matrix = np.concatenate([*rows, np.diag(ridge)])
    expected = np.linalg.lstsq(matrix, np.concatenate([*right, np.zeros(len(powers))]))[0]
    found = fit_surrogate(points, energies, slopes, degree=degree)
    z = rng.normal(size=(5, d))
    constant = expected[powers.index((0, 0, 0))]
    wanted = np.asarray(jax.vmap(monomials)(z)) @ expected - constant
    inside = [polynomial(each, found) for each in z]
    np.testing.assert_allclose(inside, wanted, rtol=SOLVED, atol=SOLVED)


def test_acceptance_is_the_mean_over_pairs():
    rng = np.random.default_rng(3)
    log_ratio = rng.uniform(-1.5, 1.5, size=80)
    weights = np.exp(log_ratio) / np.exp(log_ratio).sum()
    pairs = [weights[i] * min(1.0, weights[j] / weights[i]) for i in range(80) for j in range(80)]
    assert acceptance(log_ratio) == pytest.approx(sum(pairs) / 80, rel=EXACT)
    assert acceptance(np.zeros(10)) == pytest.approx(1.0, rel=EXACT)
    assert acceptance(np.full(10, -np.inf)) == 0.0
    # a proposal that is impossible is never accepted, one that is far too likely not alone
    assert acceptance(np.array([0.0, 0.0, 0.0, -np.inf])) == pytest.approx(0.75, rel=EXACT)
    assert acceptance(np.array([*np.zeros(99), 50.0])) < 0.15


def chains(potential, d, found, *, draws=DRAWS, n=4):
    """Chains of a density with a given surrogate, (chain, draw, d), and their acceptance."""
    warm = WarmStart.identity(d)._replace(
        surrogate=found, pareto_k=np.array(0.1), acceptance=np.array(1.0)
    )
    data = jax.tree_util.tree_map(jnp.asarray, Data((), warm, ()))
    target = Target(None, lambda z, data: potential(z), None, lambda z, key, data: {"z": z})
    program = make_program(target, {}, warm)
    runs = [
        program.steps(program.first(chain_key(5, k), data), data, 200 + draws) for k in range(n)
    ]
    z = np.stack([np.asarray(run.z) for run in runs])[:, 200:]
    return z, np.stack([np.asarray(run.accept_prob) for run in runs])[:, 200:]


def assert_mean(draws, expected):
    from arviz_stats.base import array_stats

    error = array_stats.mcse(draws, chain_axis=0, draw_axis=1, method="mean")
    assert abs(draws.mean() - expected) < WITHIN * error


def test_the_exact_density_is_sampled_whatever_the_surrogate_says():
    """A gamma density of the first coordinate, by a surrogate of another center and shape."""

    def potential(z):
        inside = jnp.where(z[0] > -2.0, z[0] + 2.0, 1.0)
        gamma = jnp.where(z[0] > -2.0, 3.0 * inside - 5.0 * jnp.log(inside), jnp.inf)
        return gamma + 0.5 * (z[1] - 0.5 * z[0]) ** 2

    wrong = some_surrogate(2, seed=4, size=0.1)
    z, rate = chains(potential, 2, wrong)
    assert 0.3 < rate.mean() < 0.9  # it is far from the density, and yet
    first = stats.gamma(6.0, loc=-2.0, scale=1.0 / 3.0)
    for power in (1, 2):
        assert_mean(z[..., 0] ** power, first.moment(power))
    for level in (0.05, 0.5, 0.95):
        assert_mean((z[..., 0] < first.ppf(level)).astype(float), level)
    rest = z[..., 1] - 0.5 * z[..., 0]
    assert_mean(rest, 0.0)
    assert_mean(rest**2, 1.0)
    assert_mean(rest * z[..., 0], 0.0)


def test_a_perfect_surrogate_is_always_accepted_and_sampled():
    found = some_surrogate(1, seed=6, size=0.1)
    z, rate = chains(lambda z: surrogate_energy(z, found), 1, found)
    np.testing.assert_allclose(rate, 1.0, rtol=1e-9)

    def density(x):
        return np.exp(-float(surrogate_energy(np.array([x]), found)))

    total = integrate.quad(density, -np.inf, np.inf)[0]
    for power in (1, 2, 3):
        moment = integrate.quad(lambda x, p=power: x**p * density(x), -np.inf, np.inf)[0]
        assert_mean(z[..., 0] ** power, moment / total)


def test_blocks_of_any_length_are_the_same_chain():
    found = some_surrogate(3)
    warm = WarmStart.identity(3)._replace(
        surrogate=found, pareto_k=np.array(0.1), acceptance=np.array(1.0)
    )
    data = jax.tree_util.tree_map(jnp.asarray, Data((), warm, ()))
    target = Target(None, lambda z, data: 0.6 * (z**2).sum(), None, lambda z, key, data: {"z": z})
    program = make_program(target, {}, warm)
    first = program.first(chain_key(1, 0), data)
    whole = program.steps(first, data, 60)
    parts, state = [], first
    for n in (1, 19, 40):
        states = program.steps(state, data, n)
        state = jax.tree_util.tree_map(lambda x: x[-1], states)
        parts.append(np.asarray(states.z))
    np.testing.assert_allclose(np.concatenate(parts), whole.z, rtol=EXACT)


def gradient_in(potential):
    """Minus the log density in the coordinates of a warm start, and its gradient."""

    def moved(z, warm):
        point, log_jacobian = mode.stretch(z, warm)
        return potential(point) - log_jacobian

    return moved, jax.jit(jax.value_and_grad(moved))


def search(potential, d, seed=1):
    gradient = gradient_in(potential)[1]
    return find_warm_start(
        gradient, np.zeros(d), np.zeros(d, dtype=bool), draws=400, seed=seed, surrogate=True
    )


def skewed(z):
    """Normal but for one coordinate, the logarithm of a gamma variable."""
    return 0.5 * (z[1:] ** 2).sum() + SHAPE * (jnp.exp(z[0]) - z[0])


def banana(z):
    return 0.5 * z[0] ** 2 + 100.0 * (z[1] - z[0] ** 2) ** 2


@pytest.mark.parametrize("d", [1, 2, 6, 14])
def test_the_search_standardizes_and_its_proposals_are_accepted(d):
    found = search(skewed, d)
    assert found.proposes
    assert found.acceptance > 0.9
    # mean and sd of log gamma, and of standard normals; from 4,096 proposals
    center = np.array([special.polygamma(0, SHAPE) - np.log(SHAPE), *np.zeros(d - 1)])
    sd = np.array([special.polygamma(1, SHAPE) ** 0.5, *np.ones(d - 1)])
    np.testing.assert_allclose(found.mode, center, atol=0.12)
    np.testing.assert_allclose(found.root @ found.root.T, np.diag(sd**2), atol=0.12)


def test_no_surrogate_where_it_would_not_do():
    """Too many dimensions; two modes, of which the search sees one."""
    assert not search(skewed, mode.MOST_DIMENSIONS + 1).proposes

    def modes(z):
        return -jnp.logaddexp(-0.5 * (z[0] - 3.0) ** 2, -0.5 * (z[0] + 3.0) ** 2) + 0.5 * z[1] ** 2

    found = search(modes, 2)
    assert not found.proposes
    assert np.isfinite(found.mode).all()


def mixing(potential, found):
    moved, _ = gradient_in(potential)
    data = jax.tree_util.tree_map(jnp.asarray, Data((), found, ()))
    target = Target(None, lambda z, data: moved(z, data.warm), None, lambda z, key, data: {"z": z})
    return mixes(make_program(target, {}, found), data, seed=1)


def test_chains_tell_what_the_points_of_the_surrogate_do_not_see(monkeypatch):
    """A polynomial fits the middle of a banana: only chains that start in its arms stand still."""
    monkeypatch.setattr(mode, "ACCEPTED", 0.6)
    found = search(banana, 2, seed=3)
    assert found.proposes
    assert not mixing(banana, found)
    assert mixing(skewed, search(skewed, 4))


def test_a_surrogate_that_failed_leaves_everything_to_adaptation():
    found = search(skewed, 2)
    assert found.good
    assert "surrogate_acceptance" in found.judgments
    failed = found._replace(acceptance=np.array(0.0))
    assert not failed.proposes
    assert not failed.good
