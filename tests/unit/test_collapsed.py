"""The collapsed likelihood and its recovery against dense linear algebra.

The density loses a few digits to fixed effects whose prior is 100 times wider than the
data; against a dense multivariate normal it must agree to EXACT, the issue's own bound.
MOMENTS are differences of numbers of order one that solve the same equations. Finite
differences are good to about the cube root of the rounding error: GRADIENT.
"""

import dataclasses
import functools

import numpy as np
import pytest
import scipy.linalg

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402

from spatialclusters.collapsed.density import log_marginal_likelihood  # noqa: E402
from spatialclusters.collapsed.layout import Problem, Theta, lay_out  # noqa: E402
from spatialclusters.collapsed.mode import (  # noqa: E402
    Laplace,
    WarmStart,
    find_warm_start,
    importance,
    laplace,
    stretch,
)
from spatialclusters.collapsed.plan import Factor  # noqa: E402
from spatialclusters.collapsed.recovery import recover  # noqa: E402
from spatialclusters.collapsed.statistics import statistics  # noqa: E402

EXACT = 1e-10
GRADIENT = 1e-6
MOMENTS = 1e-9
DESIGNS = 60


@functools.cache
def random_problem(seed):
    """Draw an unbalanced design with a random choice of effects, noise classes and priors."""
    rng = np.random.default_rng(seed)
    regions, clusters = rng.integers(3, 9), rng.integers(1, 5)
    industries = rng.integers(clusters, 14)
    # the first clusters may keep one industry; occupancy leaves clusters in one region
    cluster_of = np.concatenate(
        [np.arange(clusters), rng.integers(0, clusters, industries - clusters)]
    )
    industry, region = np.nonzero(rng.random((industries, regions)) < rng.uniform(0.2, 0.8))
    if seed % 4 == 0:  # several rows in a cell
        repeated = rng.integers(0, len(industry), len(industry))
        industry, region = industry[repeated], region[repeated]
    n, cluster, one = len(industry), cluster_of[industry], np.ones((len(industry), 1))
    X = np.column_stack([one, rng.normal(size=(n, rng.integers(0, 4)))])
    slopes = np.column_stack([one, rng.normal(size=(n, rng.integers(0, 3)))])
    factors = []
    if rng.random() < 0.7:
        empty = int(rng.integers(0, 2))
        factors.append(Factor("industry", industry, industries + empty, one, rng.random() < 0.3))
    if rng.random() < 0.7:
        more = one if rng.random() < 0.6 else np.column_stack([one, rng.normal(size=n)])
        factors.append(Factor("region", region, regions, more))
    elif rng.random() < 0.5:
        factors.append(Factor("region", region, regions, one, True))
    if rng.random() < 0.7:
        cell = region * clusters + cluster
        factors.append(Factor("region:cluster", cell, regions * clusters, one))
    if rng.random() < 0.7:
        factors.append(Factor("cluster", cluster, clusters, slopes))
    if rng.random() < 0.3:
        factors.append(Factor("year", rng.integers(0, 3, n), 3, one))
    n_classes = int(rng.integers(1, 4))
    problem = Problem(
        X * rng.uniform(0.5, 3.0, X.shape[1]),
        rng.normal(size=n),
        rng.random(X.shape[1]) < 0.7,
        tuple(factors),
        rng.integers(0, n_classes, n),
        n_classes,
    )
    roots = {
        f.name: np.array([[30.0]])
        if f.fixed
        else 0.7 * np.tril(rng.normal(size=(f.width, f.width)), -1)
        + np.diag(rng.uniform(0.1, 1.0, f.width))
        for f in factors
    }
    return problem, 2.0 * rng.normal(size=n), Theta(rng.uniform(0.3, 1.5, n_classes), roots)


def columns(factor):
    """Return Z, (N, J, K)."""
    z = np.zeros((len(factor.codes), factor.n_levels, factor.width))
    z[np.arange(len(z)), factor.codes] = factor.values
    return z


def dense_log_density(problem, y, theta):
    """Evaluate the multivariate normal with every covariance written out."""
    n, proper = len(y), problem.X[:, problem.proper]
    V = np.diag(theta.sigma[problem.classes] ** 2) + proper @ proper.T
    for factor in problem.factors:
        z, root = columns(factor), theta.roots[factor.name]
        if factor.fixed:
            z = z - z.mean(axis=1, keepdims=True)
        V = V + np.einsum("njk,kl,mjl->nm", z, root @ root.T, z)
    lower = np.linalg.cholesky(V)
    u = scipy.linalg.solve_triangular(lower, y - problem.shift, lower=True)
    value = -0.5 * (n * np.log(2 * np.pi) + 2 * np.log(np.diag(lower)).sum() + u @ u)
    flat = problem.X[:, ~problem.proper]
    if flat.shape[1]:
        f = scipy.linalg.solve_triangular(lower, flat, lower=True)
        fitted = f.T @ u
        value += 0.5 * flat.shape[1] * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(f.T @ f)[1]
        value += 0.5 * fitted @ np.linalg.solve(f.T @ f, fitted)
    return value


def collapsed(problem, y, plan=None):
    layout = lay_out(problem, plan)
    sums = statistics(layout, y)
    return layout, sums, jax.jit(lambda theta: log_marginal_likelihood(layout, sums, theta))


@pytest.mark.parametrize("seed", range(DESIGNS))
def test_density_is_the_multivariate_normal(seed):
    problem, y, theta = random_problem(seed)
    _, _, density = collapsed(problem, y)
    assert float(density(theta)) == pytest.approx(dense_log_density(problem, y, theta), rel=EXACT)


def other_order(seed):
    """Return the plan that eliminates outer levels first where the cheapest does not, or back."""
    plan = lay_out(random_problem(seed)[0]).plan
    if len(plan.outer) != 1 or not plan.local:
        return None
    return dataclasses.replace(plan, outer_first=not plan.outer_first)


TURNED = [seed for seed in range(DESIGNS) if other_order(seed)]


@pytest.mark.parametrize("seed", TURNED[::2])
def test_the_order_of_elimination_does_not_matter(seed):
    problem, y, theta = random_problem(seed)
    _, _, density = collapsed(problem, y)
    _, _, turned = collapsed(problem, y, other_order(seed))
    assert float(turned(theta)) == pytest.approx(float(density(theta)), rel=EXACT)
    for one, other in zip(
        *map(jax.tree_util.tree_leaves, (jax.grad(density)(theta), jax.grad(turned)(theta))),
        strict=True,
    ):
        np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", TURNED[::4])
def test_recovery_does_not_depend_on_the_order(seed):
    problem, y, theta = random_problem(seed)
    found = []
    for plan in (None, other_order(seed)):
        layout, sums, _ = collapsed(problem, y, plan)
        found.append(recover(layout, sums, theta, jax.random.PRNGKey(0)))
    for kind in ("mean", "variance", "covariance", "log_likelihood"):
        for one, other in zip(
            *(jax.tree_util.tree_leaves(getattr(f, kind)) for f in found), strict=True
        ):
            np.testing.assert_allclose(other, one, atol=MOMENTS)


def test_designs_cover_every_plan():
    plans = [lay_out(random_problem(seed)[0]).plan for seed in range(DESIGNS)]
    assert {plan.outer_first for plan in plans} == {True, False}
    assert {plan.cell is None for plan in plans} == {True, False}
    assert {0, 1, 2, 3} <= {len(plan.local) for plan in plans}
    assert {0, 1, 2} <= {len(plan.outer) for plan in plans}


@pytest.mark.parametrize("seed", [2, 7, 12, 17, 18, 20, 24])
def test_gradient_is_that_of_finite_differences(seed):
    problem, y, theta = random_problem(seed)
    _, _, density = collapsed(problem, y)
    gradient = jax.grad(density)(theta)
    assert np.isfinite(gradient.sigma).all()
    for name, root in {"sigma": theta.sigma, **theta.roots}.items():
        found = np.asarray(gradient.sigma if name == "sigma" else gradient.roots[name])
        for at in np.argwhere(np.tril(np.ones_like(root)) if root.ndim > 1 else np.ones_like(root)):
            step = np.zeros_like(root)
            step[tuple(at)] = 1e-5 * max(1.0, abs(root[tuple(at)]))

            def moved(sign, name=name, root=root, step=step):
                if name == "sigma":
                    return density(Theta(root + sign * step, theta.roots))
                return density(Theta(theta.sigma, {**theta.roots, name: root + sign * step}))

            numeric = float(moved(1) - moved(-1)) / (2 * step.sum())
            assert found[tuple(at)] == pytest.approx(numeric, rel=GRADIENT, abs=GRADIENT)


def conditional(problem, y, theta):
    """Return mean and covariance of [coefficients, effects of each factor] by brute force."""
    blocks, precision, constraints = [problem.X], [np.diag(problem.proper.astype(float))], []
    at, start = {}, problem.X.shape[1]
    for factor in problem.factors:
        blocks.append(columns(factor).reshape(len(y), -1))
        root = theta.roots[factor.name]
        precision.append(np.kron(np.eye(factor.n_levels), np.linalg.inv(root @ root.T)))
        at[factor.name] = slice(start, start + factor.n_levels * factor.width)
        start = at[factor.name].stop
        constraints += [at[factor.name]] if factor.fixed else []
    F, weight = np.concatenate(blocks, axis=1), theta.sigma[problem.classes] ** -2.0
    C = np.linalg.inv(scipy.linalg.block_diag(*precision) + F.T @ (weight[:, None] * F))
    mean = C @ (F.T @ (weight * (y - problem.shift)))
    if constraints:
        c = np.zeros((len(C), len(constraints)))
        for j, part in enumerate(constraints):
            c[part, j] = 1.0
        gain = C @ c @ np.linalg.inv(c.T @ C @ c)
        mean, C = mean - gain @ (c.T @ mean), C - gain @ (c.T @ C)
    return mean, C, at


def all_seen(seed):
    return all(f.n_seen == f.n_levels for f in random_problem(seed)[0].factors)


SEEN = [seed for seed in range(150) if all_seen(seed)][:12]


@pytest.mark.parametrize("seed", SEEN)
def test_recovery_has_the_conditional_moments(seed):
    """Means, variances, covariances exactly; draws within 5 standard errors of each entry."""
    problem, y, theta = random_problem(seed)
    layout, sums, _ = collapsed(problem, y)
    one = jax.jit(lambda key, t: recover(layout, sums, t, key))
    mean, C, at = conditional(problem, y, theta)
    found, p = one(jax.random.PRNGKey(0), theta), problem.X.shape[1]
    np.testing.assert_allclose(found.mean.coefficients, mean[:p], atol=MOMENTS)
    np.testing.assert_allclose(found.variance.coefficients, np.diag(C)[:p], atol=MOMENTS)
    np.testing.assert_allclose(found.covariance.coefficients, C[:p, :p], atol=MOMENTS)
    for name, effects in found.mean.effects.items():
        part = at[name]
        np.testing.assert_allclose(np.ravel(effects), mean[part], atol=MOMENTS)
        variance = np.ravel(found.variance.effects[name])
        np.testing.assert_allclose(variance, np.diag(C)[part], atol=MOMENTS)
        covariance = np.reshape(found.covariance.effects[name], (-1, p))
        np.testing.assert_allclose(covariance, C[part, :p], atol=MOMENTS)
    n = 4000
    draws = jax.vmap(lambda key: one(key, theta).draw)(jax.random.split(jax.random.PRNGKey(1), n))
    flat = [draws.coefficients, *(draws.effects[f.name].reshape(n, -1) for f in problem.factors)]
    flat = np.concatenate([np.asarray(part) for part in flat], axis=1)
    sd = np.sqrt(np.diag(C))
    assert (np.abs(flat.mean(axis=0) - mean) <= 5.0 * sd / np.sqrt(n)).all()
    error = np.abs(np.cov(flat.T) - C)
    assert (error <= 5.0 * np.sqrt((np.outer(sd**2, sd**2) + C**2) / n)).all()


@pytest.mark.parametrize("seed", [1, 4, 14])
def test_levels_without_rows_have_zeros(seed):
    """In blocks, among cells, and under a sum to zero; moments of all others are as ever."""
    problem, y, theta = random_problem(seed)
    layout, sums, _ = collapsed(problem, y)
    found = jax.jit(lambda t: recover(layout, sums, t, jax.random.PRNGKey(0)))(theta)
    mean, C, at = conditional(problem, y, theta)
    seen = {f.name: np.bincount(f.codes, minlength=f.n_levels) > 0 for f in problem.factors}
    for name, effects in found.draw.effects.items():
        in_dense = name in {f.name for f in layout.outer}
        assert (np.asarray(effects != 0.0).all(axis=1) == (seen[name] | in_dense)).all()
    for name, effects in found.mean.effects.items():
        given = seen[name][:, None]
        for got, expected in ((effects, mean), (found.variance.effects[name], np.diag(C))):
            values = np.where(given, np.reshape(expected[at[name]], effects.shape), 0.0)
            np.testing.assert_allclose(np.where(given, got, 0.0), values, atol=MOMENTS)


def test_the_recovery_designs_cover_cells_and_constraints():
    plans = [lay_out(random_problem(seed)[0]) for seed in SEEN]
    assert any(layout.plan.cell is not None and layout.outer for layout in plans)
    assert any(layout.constraints for layout in plans)


def test_statistics_take_another_response():
    """Compiled once: the layout does not depend on y."""
    problem, y, theta = random_problem(24)
    layout, _, _ = collapsed(problem, y)
    other = statistics(layout, y[::-1].copy())
    value = float(
        log_marginal_likelihood(layout, jax.tree_util.tree_map(jnp.asarray, other), theta)
    )
    assert value == pytest.approx(dense_log_density(problem, y[::-1], theta), rel=EXACT)


def test_laplace_of_a_normal_is_the_normal_and_pareto_k_tells_a_bad_one():
    rng = np.random.default_rng(3)
    precision = np.cov(rng.normal(size=(4, 40))) * 3.0 + 2.0 * np.eye(4)
    center = np.array([1.0, -2.0, 0.5, 3.0])

    def potential(x):
        return 0.5 * (x - center) @ precision @ (x - center)

    found = laplace(lambda x: (potential(x), precision @ (x - center)), np.zeros(4))
    np.testing.assert_allclose(found.mode, center, atol=1e-3)
    np.testing.assert_allclose(found.root @ found.root.T @ precision, np.eye(4), atol=1e-6)

    def potentials(points):
        return [potential(x) for x in points]

    z, weights, k = importance(potentials, found, draws=4000, seed=1)
    assert k < 0.3
    assert weights.sum() == pytest.approx(1.0, rel=EXACT)
    # weighted draws have the moments of the standard normal, within 5 standard errors
    error = 5.0 / np.sqrt(4000 / 2)
    np.testing.assert_allclose(weights @ z, 0.0, atol=error)
    np.testing.assert_allclose(z.T @ (weights[:, None] * z), np.eye(4), atol=2.0 * error)
    narrow = Laplace(found.mode, found.root / 5.0)
    assert importance(potentials, narrow, draws=1000, seed=1)[2] > 0.7


def test_stretched_coordinates_have_their_jacobian():
    """Of a standard deviation, a share above and below one half, and a free coordinate."""
    rng = np.random.default_rng(2)
    warm = WarmStart.identity(4)._replace(
        mode=rng.normal(size=4), root=np.tril(rng.normal(size=(4, 4))) + 2.0 * np.eye(4),
        scale=np.array([0.3, 2.0, 0.5, 1.0]), side=np.array([1.0, -1.0, 1.0, 0.0]),
    )  # fmt: skip
    for z in (rng.normal(size=4), np.full(4, -40.0), np.full(4, 60.0)):
        point, log_jacobian = stretch(z, warm)
        jacobian = jax.jacfwd(lambda x: stretch(x, warm)[0])(jnp.asarray(z))
        expected = np.linalg.slogdet(np.asarray(jacobian))[1] - np.linalg.slogdet(warm.root)[1]
        assert float(log_jacobian) == pytest.approx(expected, rel=1e-9)
        assert np.isfinite(point).all()


def test_a_warm_start_makes_a_skewed_posterior_standard():
    """Logarithm of a truncated normal sd, log odds of a share that may be anything, a normal."""

    def potential(x):
        sd, share = jnp.exp(x[0]), jax.nn.sigmoid(x[1])
        value = 0.5 * ((sd - 0.6) / 0.35) ** 2 + 0.5 * ((share - 0.4) / 0.3) ** 2
        value += 0.5 * (x[2] - 3.0) ** 2 / 4.0
        return value - x[0] - jax.nn.log_sigmoid(x[1]) - jax.nn.log_sigmoid(-x[1])

    def moved(z, warm):
        point, log_jacobian = stretch(z, warm)
        return potential(point) - log_jacobian

    gradient = jax.jit(jax.value_and_grad(moved))

    found = find_warm_start(
        gradient, np.zeros(3), np.array([True, False, False]), draws=2000, seed=1
    )
    assert found.good
    np.testing.assert_array_equal(found.side, [1.0, 0.0, 0.0])
    z, weights, k = importance(
        lambda points: [gradient(z, found)[0] for z in points],
        Laplace(np.zeros(3), np.eye(3)),
        draws=2000,
        seed=2,
    )
    assert k < 0.5
    np.testing.assert_allclose(weights @ z, 0.0, atol=0.25)
    np.testing.assert_allclose(weights @ z**2, 1.0, atol=0.35)
