"""Log determinants, traces and totals against dense linear algebra."""

import subprocess
import sys

import geopandas as gpd
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from libpysal.examples import get_path
from libpysal.graph import Graph
from scipy import sparse

from spatialclusters import logdet
from spatialclusters.errors import WeightsError
from spatialclusters.logdet import log_determinant, spectrum, total, trace_inverse, trace_lag

LOG = 1e-11  # absolute: some 100 eigenvalues, each right to a few 1e-16, 1 - rho r down to 0.02
TRACE = 1e-10  # relative: the derivative loses another 1 / (1 - rho r)
TOTAL = 1e-9  # relative: what `total` promises
POWERS = 1e-10  # relative: sums of powers up to the sixth
RANDOM = 1e-7  # relative: random W, where I - rho W has condition numbers up to some 1e6
INTERPOLATED = 1e-8  # absolute, 1,500 regions, up to 1 - rho r = 0.001
SHARES = np.array([-0.98, -0.6, -0.1, 0.0, 0.2, 0.5, 0.9, 0.98])  # of the support


def standardized(A):
    sums = A.sum(axis=1)
    return sparse.csr_array(sparse.diags_array(1 / np.where(sums == 0, 1, sums)) @ A)


def columbus():
    shapes = gpd.read_file(get_path("columbus.shp"))
    return sparse.csr_array(Graph.build_contiguity(shapes, rook=False).sparse.astype(float))


def lattice(rows, columns):
    path = [sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(k, k)) for k in (rows, columns)]
    across = sparse.kron(path[0], sparse.eye_array(columns))
    return sparse.csr_array(across + sparse.kron(sparse.eye_array(rows), path[1]))


def knn(n, k, seed=1):
    points = np.random.default_rng(seed).uniform(size=(n, 2))
    distance = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(n, np.inf))
    near = np.argsort(distance, axis=1)[:, :k]
    return sparse.csr_array(
        (np.full(n * k, 1 / k), (np.repeat(np.arange(n), k), near.ravel())), shape=(n, n)
    )


def permuted(W):
    order = np.random.default_rng(2).permutation(W.shape[0])
    return W[order][:, order]


def islands():
    """Two components, one isolate that others link to, and two that nobody does."""
    A = sparse.block_diag([lattice(3, 4), lattice(1, 5), sparse.csr_array((3, 3))]).tolil()
    A[0, 17] = A[13, 17] = 1.0
    return standardized(sparse.csr_array(A))


def road():
    """Two pairs of neighbors and a one-way road of 30 regions from one to the other."""
    W = sparse.diags_array(np.ones(33), offsets=1).tolil()
    W[1, 0] = W[33, 32] = 1.0
    return standardized(sparse.csr_array(W))


def uniform(low, high, shape):
    return np.random.default_rng(20).uniform(low, high, shape)


CASES = {
    "columbus": standardized(columbus()),
    "binary": columbus(),
    "knn": knn(60, 4),
    "islands": islands(),
    "cycle": sparse.csr_array(np.roll(np.eye(7), 1, axis=1)),
    "blocks": permuted(
        sparse.csr_array(sparse.block_diag([standardized(lattice(k, 4)) for k in (1, 2, 5)]))
    ),
    "distances": sparse.csr_array(1 / (uniform(1, 9, (30, 30)) + np.diag([np.inf] * 30))),
    "road": permuted(road()),
    "one way": sparse.csr_array(np.triu(uniform(0, 1, (9, 9)), 1)),
}
ROW_STANDARDIZED = ("columbus", "knn", "cycle", "blocks", "road")


@pytest.fixture(scope="module", params=CASES)
def case(request):
    W = CASES[request.param]
    found = spectrum(W)
    return request.param, W.toarray(), found, SHARES * found.upper


def inverses(W, rho):
    return np.linalg.inv(np.eye(len(W)) - np.asarray(rho)[..., None, None] * W)


def test_log_determinant(case):
    _, W, found, rho = case
    expected = np.linalg.slogdet(np.eye(len(W)) - rho[:, None, None] * W)
    assert (expected.sign == 1).all()  # up to the ends of the support
    np.testing.assert_allclose(log_determinant(found, rho), expected.logabsdet, atol=LOG, rtol=0)
    assert found.error == found.trace_error == 0.0


def test_traces(case):
    _, W, found, rho = case
    inverse = inverses(W, rho)
    expected = np.trace(inverse, axis1=1, axis2=2)
    np.testing.assert_allclose(trace_inverse(found, rho), expected, rtol=TRACE)
    expected = np.trace(W @ inverse, axis1=1, axis2=2)
    np.testing.assert_allclose(trace_lag(found, rho), expected, rtol=TRACE, atol=LOG)


def test_many_rho_are_taken_in_pieces(case, monkeypatch):
    _, W, found, rho = case
    monkeypatch.setattr(logdet, "_BLOCK", 3 * len(W))
    for function in (log_determinant, trace_lag):
        alone = [function(found, each).item() for each in rho]
        assert function(found, rho.reshape(2, 4)).ravel().tolist() == alone


def test_total(case):
    _, W, found, rho = case
    left, right = uniform(-1, 1, len(W)), W.sum(axis=1)
    inverse = inverses(W, rho)
    np.testing.assert_allclose(total(found, rho), inverse.sum(axis=(1, 2)), rtol=TOTAL)
    np.testing.assert_allclose(
        total(found, rho, left, right), left @ inverse @ right, rtol=TOTAL, atol=TOTAL
    )


def test_powers(case):
    _, W, found, _ = case
    expected = [np.trace(np.linalg.matrix_power(W, k)) for k in range(7)]
    scale = np.linalg.norm(W, 2) ** np.arange(7) * len(W)
    assert (np.abs(found.power_traces - expected) <= POWERS * scale).all()


def test_support(case):
    name, W, found, _ = case
    radius = np.abs(np.linalg.eigvals(W)).max()
    if name == "one way":  # no way back: the determinant is 1, the largest row sum stands in
        assert not found.eigenvalues.any()
        radius = W.sum(axis=1).max()
    if name in ROW_STANDARDIZED:
        assert found.upper == 1.0
    assert -found.lower == found.upper == pytest.approx(1 / radius, rel=TRACE)
    outside = np.array([2 * found.lower, found.lower, found.upper, np.nan])
    for function in (log_determinant, trace_lag, trace_inverse):
        assert np.isnan(function(found, outside)).all()
        assert np.shape(function(found, 0.1 * found.upper)) == ()
        assert function(found, np.zeros((2, 3))).shape == (2, 3)
    assert np.shape(total(found, 0.1 * found.upper)) == ()
    assert total(found, np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "real"), [(n, n not in ("knn", "cycle", "distances")) for n in CASES]
)
def test_symmetric_relations_have_real_eigenvalues(name, real):
    assert spectrum(CASES[name]).eigenvalues.imag.any() != real


def test_no_flag_is_trusted():
    """A symmetric pattern, rows that sum to one, and no d: complex eigenvalues."""
    W = np.array([[0, 0.9, 0.1], [0.1, 0, 0.9], [0.9, 0.1, 0]])
    found = spectrum(sparse.csr_array(W))
    np.testing.assert_allclose(
        np.sort_complex(found.eigenvalues), np.sort_complex(np.linalg.eigvals(W)), rtol=TRACE
    )
    assert found.eigenvalues.imag.any()


def test_one_way_links_change_no_eigenvalue():
    """A defective zero of order 30: those of the whole W would be off by 0.2."""
    found = np.sort(spectrum(CASES["road"]).eigenvalues.real)
    np.testing.assert_allclose(
        found, [-1.0, -np.sqrt(0.5), *[0.0] * 30, np.sqrt(0.5), 1.0], atol=LOG
    )


def test_equal_matrices_are_analyzed_once(monkeypatch):
    W = CASES["columbus"]
    found, half = spectrum(W), spectrum(0.5 * W)
    assert spectrum(W.copy()) is found
    np.testing.assert_allclose(half.eigenvalues, found.eigenvalues / 2, atol=LOG)
    monkeypatch.setattr(logdet, "EXACT", 10)
    assert spectrum(W).coefficients.size


def test_a_matrix_that_was_changed_is_another():
    W = CASES["knn"].copy()
    found = spectrum(W)
    W.data /= 2
    assert found.matrix.toarray().tolist() == CASES["knn"].toarray().tolist()
    assert spectrum(W).radius == pytest.approx(0.5)
    assert spectrum(CASES["knn"]) is found


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", ["columbus", "binary", "knn", "cycle"])
def test_gradient(name, large, monkeypatch):
    if large:
        monkeypatch.setattr(logdet, "EXACT", 3)
    found, W = spectrum(CASES[name]), CASES[name].toarray()
    with jax.enable_x64(True):
        rho = jnp.asarray(SHARES * found.upper)
        value, slope = jax.jit(
            jax.vmap(jax.value_and_grad(lambda r: log_determinant(found, r, jnp)))
        )(rho)
        lag = jax.jit(lambda r: trace_lag(found, r, jnp))(rho)
        np.testing.assert_allclose(value, log_determinant(found, np.asarray(rho)), atol=LOG)
    expected = np.trace(W @ inverses(W, rho), axis1=1, axis2=2)
    near = {"rtol": TRACE, "atol": INTERPOLATED if large else LOG}
    np.testing.assert_allclose(-slope, expected, **near)
    np.testing.assert_allclose(lag, expected, **near)


@pytest.mark.parametrize("kind", ["standardized", "binary", "knn"])
def test_interpolation(kind, monkeypatch):
    W = {"standardized": standardized(lattice(30, 50)), "binary": lattice(30, 50)}.get(kind)
    small = CASES["islands"]
    W = sparse.csr_array(sparse.block_diag([knn(500, 5) if W is None else W, small]))
    exact = spectrum(W)
    monkeypatch.setattr(logdet, "EXACT", 100)
    found = spectrum(W)
    assert found.upper == -found.lower == pytest.approx(0.999 / found.radius)
    assert found.radius == pytest.approx(exact.radius, rel=1e-9)
    assert small.shape[0] <= len(found.eigenvalues) < 200
    assert 0 < found.error < INTERPOLATED
    rho = found.upper * np.tanh(np.linspace(-5, 5, 1001))
    wrong = np.abs(log_determinant(found, rho) - log_determinant(exact, rho)).max()
    assert wrong <= found.error
    wrong = np.abs(trace_inverse(found, rho) - trace_inverse(exact, rho)).max() / found.n
    assert wrong <= found.trace_error < 1e-5
    scale = np.abs(exact.power_traces).max()  # odd powers of a lattice have trace zero
    np.testing.assert_allclose(found.power_traces, exact.power_traces, rtol=0, atol=POWERS * scale)


@pytest.mark.parametrize("name", ["binary", "islands", "distances", "road", "one way"])
def test_total_of_many(name):
    """Interpolated over the range of rho, however wide."""
    found, W = spectrum(CASES[name]), CASES[name].toarray()
    for shares in (uniform(-0.9999, 0.9999, 900), uniform(0.3, 0.5, 900), np.full(900, 0.3)):
        rho = found.upper * shares
        inverse = inverses(W, rho)
        np.testing.assert_allclose(total(found, rho), inverse.sum(axis=(1, 2)), rtol=TOTAL)
        np.testing.assert_allclose(
            total(found, rho, right=W.sum(axis=1)), (inverse @ W).sum(axis=(1, 2)), rtol=TOTAL
        )


def test_total_without_interpolation():
    """Pairs that pass on to the next: a pole of order four, which no interpolation follows."""
    W = np.kron(np.eye(4), [[0, 1.0], [1, 0]]) + 0.5 * np.diag([0, 1.0, 0, 1, 0, 1, 0], 1)
    rho = uniform(-0.9999, 0.9999, 600)
    expected = inverses(W, rho).sum(axis=(1, 2))
    np.testing.assert_allclose(total(spectrum(sparse.csr_array(W)), rho), expected, rtol=TOTAL)


def test_isolates_have_no_multiplier():
    """One region of three is an isolate: 2 / (1 - rho) + 1."""
    pair = spectrum(sparse.csr_array(np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, 0]])))
    rho = np.array([-0.5, 0.0, 0.5])
    np.testing.assert_allclose(total(pair, rho), 2 / (1 - rho) + 1, rtol=TOTAL)
    np.testing.assert_allclose(trace_inverse(pair, rho), 2 / (1 - rho**2) + 1, rtol=TRACE)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(2, 7).flatmap(
        lambda n: arrays(float, (n, n), elements=st.just(0.0) | st.floats(0.5, 2.0))
    ),
    st.floats(-0.95, 0.95),
)
def test_any_weights(W, share):
    np.fill_diagonal(W, 0.0)
    if not W.any():
        with pytest.raises(WeightsError, match="expected"):
            spectrum(sparse.csr_array(W))
        return
    found = spectrum(sparse.csr_array(W))
    rho = share * found.upper
    inverse = inverses(W, rho)
    scale = np.abs(inverse).sum()
    sign, expected = np.linalg.slogdet(np.eye(len(W)) - rho * W)
    assert sign == 1
    assert log_determinant(found, rho) == pytest.approx(expected, abs=RANDOM)
    assert abs(trace_inverse(found, rho) - np.trace(inverse)) <= RANDOM * scale
    assert abs(total(found, rho) - inverse.sum()) <= RANDOM * scale


@pytest.mark.parametrize(
    ("W", "got"),
    [
        (np.zeros((3, 3)), "0 links"),
        (np.ones((2, 3)), r"shape \(2, 3\)"),
        (np.eye(2), "2 links from 1.0 to 1.0"),
        (np.array([[0, -1.0], [1, 0]]), "from -1.0"),
        (np.array([[0, np.inf], [1, 0]]), "to inf"),
        (np.array([[0, np.nan], [1, 0]]), "to nan"),
    ],
)
def test_bad_weights(W, got):
    with pytest.raises(WeightsError, match=f"got .*{got}.*; expected .* Correct"):
        spectrum(sparse.csr_array(W))


@pytest.mark.parametrize("rho", [1.0, [0.2, -1.5], np.nan])
def test_rho_outside(rho):
    with pytest.raises(WeightsError, match=r"got values from .* expected values inside \(-1.0, 1"):
        total(spectrum(CASES["columbus"]), rho)


def test_import_without_jax():
    code = "import sys, spatialclusters.logdet; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
