"""Random fields against dense covariances written from their definitions.

The two sides share no code: there components are inverted, here decomposed. Condition numbers
and entries reach 2e3, so the rounding error costs up to six digits: EXACT. Finite differences
with steps of 1e-5 lose the rounding error over the step, 1e-11 of numbers up to a thousand:
GRADIENT. Scale factors are printed to five decimals: PRINTED.
"""

import functools

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, stats

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

from spatialclusters.errors import WeightsError  # noqa: E402
from spatialclusters.processes.fields import FIELDS  # noqa: E402
from spatialclusters.weights import read_weights  # noqa: E402

EXACT = 1e-10
GRADIENT = 1e-7
PRINTED = 1e-5

CONNECTED = [(0, 1, 1.0), (1, 2, 0.5), (2, 3, 2.0), (3, 4, 1.0), (4, 0, 1.5), (1, 4, 1.0)]
BROKEN = [(0, 3, 1.0), (3, 5, 2.0), (5, 0, 0.5), (5, 6, 1.0), (1, 4, 0.7)]  # 2 is an isolate
GRAPHS = {
    "connected": ([CONNECTED], [[True] * 5]),
    "broken": ([BROKEN], [[True] * 7]),
    "padded": (
        # slot 0 of the first piece and 4, 6 of the second are absent, whatever links them
        [[(1, 2, 1.0), (2, 4, 3.0), (4, 6, 1.0), (0, 5, 9.0)], [*CONNECTED[:2], (2, 4, 9.0)]],
        [[False, *[True] * 6], [True, True, True, True, False, True, False]],
    ),
}
SHARES = (0.03, 0.4, 0.97)
CASES = [
    (name, graph, share)
    for name, field in FIELDS.items()
    for graph in GRAPHS
    for share in (SHARES if field.parameter else (None,))
]


def matrices(graph):
    edges, present = GRAPHS[graph]
    present = np.array(present)
    adjacency = np.zeros((*present.shape, present.shape[1]))
    for piece, links in enumerate(edges):
        for i, j, weight in links:
            adjacency[piece, i, j] = adjacency[piece, j, i] = weight
    return adjacency, present


@functools.cache
def prepared(name, graph):
    return FIELDS[name].prepare(*matrices(graph))


def value(name, graph, share):
    """The parameter at this share of its support."""
    if share is None:
        return None
    low, high = FIELDS[name].support
    return low + share * (high - low)


def components(A):
    reach = np.linalg.matrix_power(np.eye(len(A)) + (A > 0), len(A)) > 0
    return [np.flatnonzero(row) for i, row in enumerate(reach) if not row[:i].any()]


def typical(covariance):
    return np.exp(np.log(np.diag(covariance)).mean())


def block(name, A, t):
    """The covariance of one component with more than one region, from the definition."""
    n, D = len(A), np.diag(A.sum(axis=1))
    eye, ones, L = np.eye(n), np.full((n, n), 1 / n), D - A
    W = A / A.sum(axis=1, keepdims=True)
    if name in ("icar", "bym2"):
        inverse = np.linalg.inv(L + ones) - ones
        structured = inverse / typical(inverse)
        return structured if name == "icar" else (1 - t) * eye + t * structured
    precision = {
        "leroux": lambda: (1 - t) * eye + t * L,
        "car": lambda: D - t * A,
        "sar": lambda: (eye - t * W).T @ (eye - t * W),
    }[name]()
    covariance = np.linalg.inv(precision)
    return covariance / typical(covariance)


def dense(name, graph, t, augmented=False):
    """Covariances (pieces, m, m), and the components with more than one region."""
    adjacency, present = matrices(graph)
    covariance, several = np.tile(np.eye(present.shape[1]), (len(present), 1, 1)), []
    for piece, (A, here) in enumerate(zip(adjacency, present, strict=True)):
        A = A * np.outer(here, here)
        for members in components(A):
            if len(members) > 1:
                several.append((piece, members))
                at = np.ix_(members, members)
                covariance[piece][at] = block(name, A[at], t) + augmented / len(members)
    return covariance, several


@pytest.mark.parametrize(("name", "graph", "share"), CASES)
def test_dense(name, graph, share):
    field, arrays, t = FIELDS[name], prepared(name, graph), value(name, graph, share)
    Q, log_det = field.precision(arrays, t)
    root = np.asarray(field.root(arrays, t))
    augmented, _ = dense(name, graph, t, augmented=field.constrained)
    np.testing.assert_allclose(Q, np.linalg.inv(augmented), rtol=EXACT, atol=EXACT)
    assert log_det == pytest.approx(-np.linalg.slogdet(augmented)[1].sum(), rel=EXACT, abs=EXACT)
    covariance, several = dense(name, graph, t)
    np.testing.assert_allclose(root @ root.swapaxes(1, 2), covariance, rtol=EXACT, atol=EXACT)
    if field.constrained:
        for piece, members in several:
            np.testing.assert_allclose(root[piece, members].sum(axis=0), 0.0, atol=EXACT)


@pytest.mark.parametrize("graph", GRAPHS)
def test_icar_density_given_zero_sums(graph):
    """As the dense one on the constrained subspace: R minus components dimensions."""
    Q, log_det = FIELDS["icar"].precision(prepared("icar", graph), None)
    covariance, several = dense("icar", graph, None)
    x = np.random.default_rng(1).normal(size=covariance.shape[:2])
    for piece, members in several:
        x[piece, members] -= x[piece, members].mean()
    expected = 0.0
    for piece, C in enumerate(covariance):
        sums = [np.isin(np.arange(len(C)), members) for at, members in several if at == piece]
        basis = linalg.null_space(np.array(sums, dtype=float))
        normal = stats.multivariate_normal(cov=basis.T @ C @ basis)
        expected += normal.logpdf(basis.T @ x[piece])
    dimensions = x.size - len(several)
    quadratic = np.einsum("pi,pij,pj->", x, Q, x)
    found = 0.5 * (log_det - quadratic - dimensions * np.log(2 * np.pi))
    assert float(found) == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize(("name", "graph", "share"), CASES)
def test_typical_variance_is_one(name, graph, share):
    """For every value of the parameter; only the structured part of BYM2 is scaled."""
    t = 1.0 if name == "bym2" else value(name, graph, share)
    root = np.asarray(FIELDS[name].root(prepared(name, graph), t))
    variances = (root**2).sum(axis=2)
    _, several = dense(name, graph, t)
    for piece, members in several:
        log_mean = np.log(variances[piece, members]).mean()
        assert log_mean == pytest.approx(0.0, abs=EXACT)
        variances[piece, members] = 1.0
    np.testing.assert_allclose(variances, 1.0, rtol=EXACT)  # whoever is alone


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.parameter])
def test_gradient(name, graph):
    """Of a log density and of a draw, in the parameter, as the two engines take them."""
    field, arrays = FIELDS[name], prepared(name, graph)
    x = np.random.default_rng(2).normal(size=matrices(graph)[1].shape)

    def both(t):
        Q, log_det = field.precision(arrays, t)
        density = 0.5 * (log_det - (x[:, None, :] @ Q @ x[:, :, None]).sum())
        return jax.numpy.stack([density, (field.root(arrays, t) @ x[:, :, None]).sum()])

    function, gradient, step = jax.jit(both), jax.jit(jax.jacobian(both)), 1e-5
    for share in SHARES:
        t = value(name, graph, share)
        # five points: the error of the step is far below the rounding error over the step
        near, far = (function(t + k * step) - function(t - k * step) for k in (1, 2))
        expected = np.asarray(8 * near - far) / (12 * step)
        np.testing.assert_allclose(gradient(t), expected, rtol=GRADIENT, atol=GRADIENT)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", ["bym2", "leroux", "sar"])
def test_independent_at_zero(name, graph):
    Q, log_det = FIELDS[name].precision(prepared(name, graph), 0.0)
    np.testing.assert_allclose(Q, np.broadcast_to(np.eye(Q.shape[1]), Q.shape), atol=EXACT)
    assert float(log_det) == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize("graph", GRAPHS)
def test_bym2_at_one_is_icar(graph):
    bym2 = np.asarray(FIELDS["bym2"].root(prepared("bym2", graph), 1.0))
    icar = np.asarray(FIELDS["icar"].root(prepared("icar", graph), None))
    np.testing.assert_allclose(bym2 @ bym2.swapaxes(1, 2), icar @ icar.swapaxes(1, 2), atol=EXACT)


@pytest.mark.parametrize("name", FIELDS)
def test_absent_slots_do_nothing(name):
    """A padded batch is its pieces without padding, and identities that are exact."""
    field, (adjacency, present) = FIELDS[name], matrices("padded")
    t = 0.6 if field.parameter else None
    Q, log_det = field.precision(prepared(name, "padded"), t)
    root = np.asarray(field.root(prepared(name, "padded"), t))
    alone = 0.0
    for piece, here in enumerate(present):
        at = np.ix_(here, here)
        arrays = field.prepare(adjacency[piece][at][None], np.ones((1, here.sum()), dtype=bool))
        one, log_one = field.precision(arrays, t)
        alone += float(log_one)
        np.testing.assert_allclose(Q[piece][at], one[0], rtol=EXACT, atol=EXACT)
        covariance = np.asarray(field.root(arrays, t))[0]
        covariance = covariance @ covariance.T
        both = root[piece] @ root[piece].T
        np.testing.assert_allclose(both[at], covariance, rtol=EXACT, atol=EXACT)
        eye = np.eye(len(here))
        for matrix in (Q[piece], root[piece], root[piece].T):
            np.testing.assert_array_equal(matrix[~here], eye[~here])
    assert float(log_det) == pytest.approx(alone, rel=EXACT)


@pytest.mark.parametrize("name", FIELDS)
def test_no_links(name):
    """Regions without any neighbors are independent, whatever the parameter."""
    field = FIELDS[name]
    arrays = field.prepare(np.zeros((1, 3, 3)), np.ones((1, 3), dtype=bool))
    Q, log_det = field.precision(arrays, 0.7)
    np.testing.assert_array_equal(Q[0], np.eye(3))
    np.testing.assert_array_equal(field.root(arrays, 0.7)[0], np.eye(3))
    assert float(log_det) == 0.0


@pytest.mark.parametrize("name", FIELDS)
def test_one_way_links(name):
    adjacency, present = matrices("connected")
    adjacency[0, 0, 1] = 0.0
    with pytest.raises(WeightsError, match="got 2 links without an equal one back"):
        FIELDS[name].prepare(adjacency, present)


def scale_factor(adjacency):
    """The typical variance of the inverse of L, off its null space, of the largest component.

    The augmented precision there is ``s L + 11'/n``, so its diagonal has ``s D + 1/n``.
    """
    A = np.asarray(adjacency)
    Q, _ = FIELDS["icar"].precision(
        FIELDS["icar"].prepare(A[None], np.ones((1, len(A)), dtype=bool)), None
    )
    members = max(components(A), key=len)
    s = (np.diag(Q[0])[members] - 1 / len(members)) / A.sum(axis=1)[members]
    np.testing.assert_allclose(s, s[0], rtol=EXACT)
    return s[0], len(members)


def test_scale_of_economic_areas(data_folder):
    weights = read_weights(
        pd.read_parquet(data_folder / "us_ea" / "queen.parquet"), row_standardize=False
    )
    found = scale_factor(weights.matrix.toarray())
    assert found == (pytest.approx(0.50248, abs=PRINTED), len(weights.regions))


def test_scale_of_columbus():
    import geopandas as gpd
    from libpysal.examples import get_path
    from libpysal.graph import Graph

    graph = Graph.build_contiguity(gpd.read_file(get_path("columbus.shp")), rook=False)
    assert scale_factor(graph.sparse.toarray()) == (pytest.approx(0.48120, abs=PRINTED), 49)
