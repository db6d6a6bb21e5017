"""Estimated weights: densities, gradients, simulator and leave-one-out against dense definitions.

W(psi) is written down here from the given matrices and distances, with NumPy alone; the interpolation
of a decay has its own test, so densities of decays are compared at W interpolated by hand.
"""

from types import SimpleNamespace

import geopandas
import jax
import numpy as np
import pandas as pd
import pytest
import shapely
from scipy import interpolate, stats

import spatialclusters as sc
from spatialclusters.blends import TOLERANCE, Combination
from spatialclusters.collapsed.density import log_marginal_likelihood
from spatialclusters.collapsed.hyperparameters import theta_of
from spatialclusters.collapsed.layout import lay_out
from spatialclusters.collapsed.problem import coefficient_scales, mixed_model
from spatialclusters.collapsed.recovery import recover
from spatialclusters.collapsed.statistics import statistics
from spatialclusters.conditionals import MarginalNormal
from spatialclusters.errors import SamplingError, SpecError, WeightsError
from spatialclusters.model import build_model
from spatialclusters.parameters import group_columns
from spatialclusters.processes import outcome_process, supports
from spatialclusters.simulation import (
    draw_parameters,
    expected_response,
    linear_predictor,
    simulate_response,
)

EXACT = 1e-10  # relative: two float64 computations of one number, here of some hundreds
CONDITIONAL = 1e-8  # relative: conditional means through inverses of two different matrices
GRADIENT = 1e-6  # relative: finite differences of step 1e-5 lose half the digits
INVERSE = 1e-11  # relative: a filter after its inverse
CUTOFF = 150.0
PSI = {"mixture": np.array([0.55, 0.15, 0.3]), "power": 1.3, "exponential": 0.7}
FORMULAS = {
    "slx": ("none", "x + lag(x) + lag(z)"),
    "sar": ("sar", "x"),
    "sdm": ("sar", "x + lag(x)"),
}
ROWS = {
    "cross-section": "",
    "clusters": " + (1 | cluster)",
    "industries": " + (1 | region) + (1 | region:cluster) + (1 + x | cluster)",
}

jax.config.update("jax_enable_x64", True)


def economy(rows, n=12):
    """A table of n regions, the last of which is far away."""
    rng, regions = np.random.default_rng(5), [f"r{i:02d}" for i in range(n)]
    places = np.column_stack([np.arange(n) % 4, np.arange(n) // 4]) * 60.0
    places += rng.uniform(-15, 15, size=places.shape)
    places[-1] = 5000.0
    shapes = geopandas.GeoSeries(shapely.points(places * 1000), index=regions, crs="EPSG:5070")
    parts = [{"region": r} for r in regions]
    if rows != "cross-section":
        parts = [p | {"cluster": f"c{k}"} for p in parts for k in range(3) if rng.random() < 0.8]
    if rows == "industries":
        parts = [
            p | {"industry": f"{p['cluster']}i{j}"}
            for p in parts
            for j in range(3)
            if rng.random() < 0.7
        ]
    table = pd.DataFrame(parts)
    for name in ("x", "z", "y"):
        table[name] = rng.normal(size=len(table)) + 2.0
    places = geopandas.GeoDataFrame({"region": regions}, geometry=shapes.to_numpy(), crs=shapes.crs)
    return table, places


def panel_of(rows="cross-section", n=12):
    table, places = economy(rows, n)
    return sc.read_panel(table, places)


def weights_of(panel, blend):
    if blend == "mixture":
        return sc.mix_weights(
            sc.knn(panel, 2), sc.distance_band(panel, 70.0), sc.distance_band(panel, CUTOFF)
        )
    return sc.distance_decay(panel, CUTOFF, blend)


def design_of(rows="cross-section", kind="slx", blend="mixture", extra="", weights=None):
    outcome, terms = FORMULAS[kind]
    panel = panel_of(rows)
    spec = sc.parse_spec(
        f'formula = "y ~ {terms}{ROWS[rows]}"\n[spatial]\noutcome = "{outcome}"\n{extra}'
    )
    return spec, sc.build_design(
        spec, panel, weights_of(panel, blend) if weights is None else weights
    )


def values_of(design, spec, psi):
    roots = []
    for k, group in enumerate(design.groups):
        root = np.array([[0.6, 0.0], [0.2, 0.4]]) if len(group.labels) > 1 else np.eye(1)
        roots.append(root * (0.6 + 0.2 * k))
    rho = [np.array(0.45)] if spec.spatial.parameters else []
    return [np.array([0.7]), *roots, *rho, np.asarray(psi, dtype=float)]


def cells_of(design):
    names = [n for n in ("region", "cluster") if f"row_{n}" in design.data]
    return list(zip(*(design.data[f"row_{n}"].values for n in names), strict=True))


def lag_matrix(design, W):
    """L from its definition: W cut to the regions of a cluster, rows summing to one again."""
    cells = cells_of(design)
    place = {r: i for i, r in enumerate(design.weights.regions)}
    L = np.zeros((design.n_rows,) * 2)
    for i, mine in enumerate(cells):
        near = [c for c in set(cells) if c[1:] == mine[1:] and W[place[mine[0]], place[c[0]]] > 0]
        total = sum(W[place[mine[0]], place[c[0]]] for c in near)
        for cell in near:
            rows = [j for j, other in enumerate(cells) if other == cell]
            L[i, rows] = W[place[mine[0]], place[cell[0]]] / total / len(rows)
    return L


def lag_at(design, blend, psi):
    """L(psi): the mixture of lags, or their interpolation between the nodes."""
    if blend == "mixture":
        parts = [lag_matrix(design, m.toarray()) for m in design.weights.blend.matrices]
        return np.tensordot(np.asarray(psi), np.stack(parts), 1)
    nodes = np.array(design.psi.nodes)
    parts = [lag_matrix(design, decay_matrix(design, blend, node)) for node in nodes]
    # barycentric, as opposed to the package's Chebyshev polynomials
    return interpolate.barycentric_interpolate(nodes, np.stack(parts), float(psi))


def decay_matrix(design, blend, delta):
    _, places = economy("cross-section", len(design.weights.regions))
    points = np.column_stack([places.geometry.x, places.geometry.y]) / 1000.0
    d = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(d, np.inf)
    unit = np.median(d.min(axis=1))
    d[~(d <= CUTOFF)] = 1e6
    raw = (d / unit) ** -delta if blend == "power" else np.exp(-delta * d / unit)
    raw[d == 1e6] = 0.0
    total = raw.sum(axis=1, keepdims=True)
    return np.divide(raw, total, out=np.zeros_like(raw), where=total > 0)


def covariates_at(design, L):
    """Standardized covariates, by the reference's center and scale."""
    X, names = design.X.copy(), list(design.terms)
    table = economy("industries" if "row_industry" in design.data else
                    "clusters" if "row_cluster" in design.data else "cross-section")[0]  # fmt: skip
    keys = [n for n in ("region", "industry", "cluster") if f"row_{n}" in design.data]
    order = pd.MultiIndex.from_frame(table[keys])
    rows = pd.MultiIndex.from_arrays([design.data[f"row_{n}"].values for n in keys], names=keys)
    for k, name in enumerate(names):
        if name.startswith("lag("):
            values = pd.Series(table[name[4:-1]].to_numpy(), index=order).loc[rows].to_numpy()
            X[:, k] = L @ values
    return (X - design.data["center"].values) / design.data["scale"].values


def dense(spec, design, values, blend):
    """Log density of the response, and its mean and covariance, from the definitions."""
    mean, sd, _ = coefficient_scales(spec, design)
    L = lag_at(design, blend, values[-1])
    X = np.column_stack([np.ones(design.n_rows), covariates_at(design, L)])
    rho = float(values[-2]) if spec.spatial.parameters else 0.0
    A = np.eye(design.n_rows) - rho * L
    V = float(values[0][0]) ** 2 * np.eye(design.n_rows) + (X * sd) @ (X * sd).T
    for group, root in zip(design.groups, values[1:], strict=False):
        columns = group_columns(design, group)
        Z = np.zeros((design.n_rows, len(group.levels), columns.shape[1]))
        Z[np.arange(design.n_rows), group.codes] = columns
        Z = Z.reshape(design.n_rows, -1)
        V += Z @ np.kron(np.eye(len(group.levels)), root @ root.T) @ Z.T
    density = stats.multivariate_normal(X @ mean, V).logpdf(A @ design.y)
    inverse = np.linalg.inv(A)
    return density + np.linalg.slogdet(A)[1], inverse @ X @ mean, inverse @ V @ inverse.T


def collapsed(spec, design):
    layout = lay_out(mixed_model(spec, design))
    sums = statistics(layout, design.y)
    density = jax.jit(
        lambda values: log_marginal_likelihood(layout, sums, theta_of(spec, design, values))
    )
    return layout, sums, density


PRIOR = '[priors]\n"lag(x)" = { distribution = "normal", mean = 0.8, sd = 0.5 }\n'


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("blend", PSI)
def test_the_density_is_the_multivariate_normal(rows, kind, blend):
    # a prior mean of a lag makes the shift of the response depend on W
    spec, design = design_of(rows, kind, blend, "" if kind == "sar" else PRIOR)
    assert any(part.isolates for part in design.blended_lag.parts)
    values = values_of(design, spec, PSI[blend])
    found = float(collapsed(spec, design)[2](values))
    assert found == pytest.approx(dense(spec, design, values, blend)[0], rel=EXACT)


@pytest.mark.parametrize("rows", ["cross-section", "industries"])
@pytest.mark.parametrize("blend", ["mixture", "power"])
def test_the_gradient_is_that_of_finite_differences(rows, blend):
    spec, design = design_of(rows, "sdm", blend, PRIOR)
    values, step = values_of(design, spec, PSI[blend]), 1e-5
    density = collapsed(spec, design)[2]
    gradient = jax.grad(density)(values)
    for k in (0, len(values) - 2, len(values) - 1):
        for at in np.ndindex(values[k].shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = [np.array(v, dtype=float) for v in values]
                moved[k][at] += sign * step
                ends.append(float(density(moved)))
            wanted = (ends[0] - ends[1]) / (2.0 * step)
            assert float(gradient[k][at]) == pytest.approx(wanted, rel=GRADIENT, abs=GRADIENT)


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("rows", ["cross-section", "clusters"])
def test_a_share_of_one_is_the_given_matrix(rows, kind):
    spec, design = design_of(rows, kind)
    given = sc.distance_band(panel_of(rows), 70.0)
    # priors and scales are those of the reference: state them, so that both models have the same
    priors = "".join(
        f'"{t}" = {{ distribution = "normal", mean = 0.1, sd = 0.5 }}\n' for t in design.terms
    )
    spec, design = design_of(rows, kind, extra=f"[priors]\n{priors}")
    _, fixed = design_of(rows, kind, extra=f"[priors]\n{priors}", weights=given)
    values = values_of(design, spec, np.array([0.0, 1.0, 0.0]))
    # the intercept refers to covariates at the centers of the reference
    fixed.data["center"] = design.data["center"]
    found, wanted = (collapsed(spec, each)[2] for each in (design, fixed))
    assert float(found(values)) == pytest.approx(float(wanted(values[:-1])), rel=EXACT)
    assert fixed.psi is None


@pytest.mark.parametrize("blend", ["power", "exponential"])
def test_at_a_node_it_is_the_decay_there(blend):
    _, design = design_of("clusters", "sdm", blend)
    assert design.psi.nodes[0] == 0.0
    assert design.psi.nodes[-1] == 4.0
    for delta in design.psi.nodes[::3]:
        wanted = lag_matrix(design, decay_matrix(design, blend, delta))
        found = design.blended_lag.at(delta).matrix.toarray()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=INVERSE)


@pytest.mark.parametrize("blend", ["power", "exponential"])
@pytest.mark.parametrize("rows", ["cross-section", "clusters"])
def test_the_interpolation_error_holds(rows, blend):
    _, design = design_of(rows, "sdm", blend)
    for delta in np.random.default_rng(1).uniform(0.0, 4.0, size=40):
        wanted = lag_matrix(design, decay_matrix(design, blend, delta))
        found = design.blended_lag.at(delta).matrix.toarray()
        assert np.abs(found - wanted).max() <= TOLERANCE
    shown = design.weights.describe()["blend"]
    assert shown["error"] <= TOLERANCE
    assert f"{shown['size']} nodes" in shown["text"]


def test_coefficients_are_the_lagrange_basis():
    psi = design_of(blend="power")[1].psi
    assert isinstance(psi, Combination)
    nodes, rng = np.array(psi.nodes), np.random.default_rng(0)
    deltas = rng.uniform(*psi.support, size=20)
    wanted = interpolate.barycentric_interpolate(nodes, np.eye(len(nodes)), deltas)
    np.testing.assert_allclose(psi.coefficients(deltas), wanted, rtol=0, atol=INVERSE)
    np.testing.assert_allclose(psi.coefficients(nodes), np.eye(len(nodes)), rtol=0, atol=INVERSE)
    assert Combination.from_json(psi.to_json()) == psi


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("blend", PSI)
def test_recovered_coefficients_have_the_conditional_mean(kind, blend):
    spec, design = design_of("clusters", kind, blend, "" if kind == "sar" else PRIOR)
    values = values_of(design, spec, PSI[blend])
    layout, sums, _ = collapsed(spec, design)
    theta = theta_of(spec, design, values)
    found = recover(layout, sums, theta, jax.random.key(0))
    mean, sd, _ = coefficient_scales(spec, design)
    L = lag_at(design, blend, values[-1])
    X = np.column_stack([np.ones(design.n_rows), covariates_at(design, L)])
    rho = float(values[-2]) if spec.spatial.parameters else 0.0
    codes = design.groups[0].codes
    F = np.column_stack([X * sd, np.eye(int(codes.max()) + 1)[codes] * values[1][0, 0]])
    V = float(values[0][0]) ** 2 * np.eye(design.n_rows) + F @ F.T
    gain = np.linalg.solve(V, F).T
    wanted = gain @ (design.y - rho * L @ design.y - X @ mean)
    # of the clusters there are draws only: they are eliminated as cells
    got, wanted = np.asarray(found.mean.coefficients), wanted[: X.shape[1]]
    np.testing.assert_allclose(got, wanted, rtol=CONDITIONAL, atol=CONDITIONAL)


@pytest.mark.parametrize("rows", ["cross-section", "industries"])
@pytest.mark.parametrize("blend", PSI)
def test_the_simulator_inverts_the_filter_of_the_likelihood(rows, blend):
    spec, design = design_of(rows, "sdm", blend)
    parameters = {"rho": 0.6, design.psi.parameter: PSI[blend], "intercept": 1.0}
    parameters["coefficient"] = np.array([0.5, -0.8])
    for group in design.groups:
        parameters[f"effect({group.name})"] = np.ones((len(group.levels), len(group.labels)))
    space, noise = (
        outcome_process(spec, design),
        np.random.default_rng(1).normal(size=design.n_rows),
    )
    mean = linear_predictor(design, parameters)
    y = space.response(parameters, mean, noise)
    np.testing.assert_allclose(space.filtered(parameters, y, mean), noise, rtol=0, atol=INVERSE)
    L = lag_at(design, blend, PSI[blend])
    scaled = covariates_at(design, L) * design.data["scale"].values
    by_hand = 1.0 + scaled @ parameters["coefficient"]
    for group in design.groups:
        columns = [1.0 if c < 0 else scaled[:, c] for c in group.columns]
        by_hand = by_hand + sum(columns)
    np.testing.assert_allclose(mean, by_hand, rtol=EXACT, atol=EXACT)
    A = np.eye(design.n_rows) - 0.6 * L
    np.testing.assert_allclose(y, np.linalg.solve(A, by_hand + noise), rtol=EXACT, atol=EXACT)
    found = float(space.log_jacobian(parameters))
    assert found == pytest.approx(np.linalg.slogdet(A)[1], rel=EXACT)
    assert supports(spec, design) == {"rho": (-1.0, 1.0)}
    expected = expected_response(spec, design, parameters)
    np.testing.assert_allclose(expected, np.linalg.solve(A, by_hand), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("blend", PSI)
def test_a_response_drawn_from_the_prior_is_finite(blend):
    spec, design = design_of("clusters", "sdm", blend)
    rng = np.random.default_rng(5)
    parameters = draw_parameters(spec, design, rng)
    assert np.isfinite(simulate_response(spec, design, parameters, rng)).all()
    if blend == "mixture":
        assert parameters["share"].sum() == pytest.approx(1.0)
    else:
        assert 0.0 < parameters["delta"] < 4.0


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("blend", ["mixture", "exponential"])
@pytest.mark.parametrize("by", ["row", "region"])
def test_left_out_rows_are_conditionals_of_the_dense_normal(kind, blend, by):
    spec, design = design_of("clusters", kind, blend, "" if kind == "sar" else PRIOR)
    values = values_of(design, spec, PSI[blend])
    _, mean, V = dense(spec, design, values, blend)
    labels = design.data["row_region"].values if by == "region" else np.arange(design.n_rows)
    members = [np.flatnonzero(labels == unit) for unit in pd.unique(labels)]
    wanted = []
    for rows in members:
        rest = np.setdiff1d(np.arange(design.n_rows), rows)
        gain = np.linalg.solve(V[np.ix_(rest, rest)], V[np.ix_(rest, rows)]).T
        center = mean[rows] + gain @ (design.y - mean)[rest]
        spread = V[np.ix_(rows, rows)] - gain @ V[np.ix_(rest, rows)]
        wanted.append(stats.multivariate_normal(center, spread).logpdf(design.y[rows]))
    parameters = {"sigma": values[0][0], "sd(cluster)": np.diag(values[1])}
    parameters |= {design.psi.parameter: values[-1]}
    parameters |= {"rho": values[-2]} if spec.spatial.parameters else {}
    system = MarginalNormal(SimpleNamespace(spec=spec, design=design))
    np.testing.assert_allclose(system.left_out(parameters, members), wanted, rtol=CONDITIONAL)


@pytest.mark.parametrize("blend", PSI)
def test_weights_survive_a_file_and_alignment(blend, tmp_path):
    weights = weights_of(panel_of(), blend)
    weights.to_dataset().to_netcdf(tmp_path / "w.nc", engine="h5netcdf")
    import xarray as xr

    with xr.open_dataset(tmp_path / "w.nc", engine="h5netcdf") as data:
        again = sc.Weights.from_dataset(data.load())
    assert again.digest == weights.digest
    assert again.blend.describe() == weights.blend.describe()
    order = [*weights.regions[:4:-1], *weights.regions[:3]]
    fewer = sc.align(weights, order)
    assert fewer.digest != weights.digest
    rows = [weights.regions.index(r) for r in order]
    for whole, part in zip(weights.blend.matrices, fewer.blend.matrices, strict=False):
        if blend != "mixture" and fewer.blend.size != weights.blend.size:
            break
        cut = whole.toarray()[np.ix_(rows, rows)]
        total = cut.sum(axis=1, keepdims=True)
        wanted = np.divide(cut, total, out=np.zeros_like(cut), where=total > 0)
        np.testing.assert_allclose(part.toarray(), wanted, rtol=0, atol=INVERSE)
    assert sc.align(weights, weights.regions).digest == weights.digest


def test_digests_tell_blends_apart():
    panel = panel_of()
    found = [
        weights_of(panel, "mixture"),
        sc.mix_weights(sc.knn(panel, 2), sc.distance_band(panel, CUTOFF)),
        sc.distance_decay(panel, CUTOFF),
        sc.distance_decay(panel, CUTOFF, delta=(0.0, 3.0)),
        sc.distance_decay(panel, CUTOFF, "exponential"),
    ]
    assert len({w.digest for w in found}) == len(found)
    designs = [design_of(weights=w)[1] for w in found]
    assert len({d.digest for d in designs}) == len(found)
    assert len({d.rows_digest for d in designs}) == 1


@pytest.mark.parametrize(
    ("outcome", "terms", "expected"),
    [
        ("sem", "x", "spatial.outcome"),
        ("sac", "x + lag(x)", "spatial.outcome"),
        ("none", "x + log1p(lag(x))", "linear in W"),
        ("none", "x + lag(lag(x))", "linear in W"),
        ("none", "x + lag(x):lag(z)", "linear in W"),
        ("none", "x + lag(x) + (1 + lag(x) | cluster)", "slope of a lag"),
        ("none", "x + lag(share)", "the name of the parameter"),
    ],
)
def test_what_cannot_be_estimated_is_refused(outcome, terms, expected):
    table, places = economy("clusters")
    table["share"] = np.arange(len(table)) % 7 + 0.5
    panel = sc.read_panel(table, places)
    terms = f"share + {terms}" if "share" in terms else terms
    spec = sc.parse_spec(f'formula = "y ~ {terms}"\nspatial.outcome = "{outcome}"')
    with pytest.raises(SpecError, match=expected):
        sc.build_design(spec, panel, weights_of(panel, "mixture"))


def test_the_full_engine_is_refused():
    spec, design = design_of()
    with pytest.raises(SpecError, match="engine collapsed"):
        build_model(spec, design)
    student = sc.parse_spec('formula = "y ~ x + lag(x)"\nlikelihood.family = "student-t"')
    panel = panel_of()
    with pytest.raises(SamplingError, match="weights that are estimated"):
        sc.fit(student, panel, weights_of(panel, "power"), seed=1)


def test_too_many_cells_for_a_dense_determinant():
    n = 1001
    rng, regions = np.random.default_rng(0), [f"r{i:04d}" for i in range(n)]
    points = rng.uniform(0, 2e6, size=(n, 2))
    places = geopandas.GeoDataFrame(
        {"region": regions}, geometry=shapely.points(points), crs="EPSG:5070"
    )
    table = pd.DataFrame({"region": regions, "x": rng.normal(size=n), "y": rng.normal(size=n)})
    panel = sc.read_panel(table, places)
    weights = sc.mix_weights(sc.knn(panel, 3), sc.knn(panel, 5))
    lagged = sc.parse_spec('formula = "y ~ x + lag(x)"')
    assert sc.build_design(lagged, panel, weights).psi is not None
    with pytest.raises(WeightsError, match="at most 1000"):
        sc.build_design(sc.parse_spec('formula = "y ~ x"\nspatial.outcome = "sar"'), panel, weights)


@pytest.mark.parametrize("blend", PSI)
def test_a_model_without_lags_uses_the_reference(blend):
    panel = panel_of()
    spec = sc.parse_spec('formula = "y ~ x"')
    design = sc.build_design(spec, panel, weights_of(panel, blend))
    assert design.psi is None
    assert any("reference matrix" in note for note in design.record["notes"])
    assert design.record["weights"]["blend"]["parameter"] in ("share", "delta")


def test_structured_effects_take_every_link():
    panel = panel_of("clusters")
    spec = sc.parse_spec(
        'formula = "y ~ x + lag(x) + (1 | region)"\n[groups.region]\nstructure = "bym2"\n'
        'links = "union"'
    )
    design = sc.build_design(spec, panel, weights_of(panel, "mixture"))
    assert any("neighbors are all pairs" in note for note in design.record["notes"])


def test_group_means_of_lags_follow_the_weights():
    """Mundlak's means of lag(x) are those at W(psi)."""
    panel = panel_of("industries")
    spec = sc.parse_spec(
        'formula = "y ~ x + lag(x) + (1 | region)"\n[groups.region]\neffect = "correlated"'
    )
    design = sc.build_design(spec, panel, weights_of(panel, "mixture"))
    name = "mean(lag(x) | region)"
    assert name in design.terms
    X = design.covariates({"share": PSI["mixture"]})
    lagged, mean = (X[:, design.terms.index(t)] for t in ("lag(x)", name))
    codes = design.groups[0].codes
    wanted = (np.bincount(codes, lagged) / np.bincount(codes))[codes]
    np.testing.assert_allclose(mean, wanted, rtol=EXACT)


def test_shares_have_the_dirichlet_prior():
    """Broken sticks of normal quantiles: the density of the first two shares is Dirichlet's."""
    from pymc.sampling.jax import get_jaxified_graph

    from spatialclusters.collapsed.hyperparameters import hyperparameter_model

    prior = '[priors]\nshare = { distribution = "dirichlet", concentration = 1.7 }\n'
    spec, design = design_of(extra=prior)
    model, values = hyperparameter_model(spec, design)
    share = model.replace_rvs_by_values(values)[-1]
    graph = get_jaxified_graph(inputs=model.value_vars, outputs=[model.logp(), share])
    z = np.array([0.3, -0.8])
    log_density, found = graph(np.array(0.0), z)
    base = float(graph(np.array(0.0), np.zeros(2))[0])
    slope = jax.jacobian(lambda at: graph(np.array(0.0), at)[1][:2])
    dirichlet = stats.dirichlet(np.full(3, 1.7))
    here, there = (
        dirichlet.logpdf(np.asarray(graph(np.array(0.0), at)[1]))
        + np.linalg.slogdet(np.asarray(slope(at)))[1]
        for at in (z, np.zeros(2))
    )
    assert float(np.sum(found)) == pytest.approx(1.0, rel=EXACT)
    assert float(log_density) - base == pytest.approx(here - there, rel=EXACT)


@pytest.mark.parametrize("blend", ["mixture", "power"])
def test_blocks_may_keep_the_weights_of_the_whole_map(blend):
    """With blocks = "subset" a row lacks what its absent neighbors weigh, at every W."""
    panel = panel_of("clusters")
    spec = sc.parse_spec(
        'formula = "y ~ x + lag(x) + (1 | cluster)"\n[spatial]\noutcome = "sar"\nblocks = "subset"'
    )
    design = sc.build_design(spec, panel, weights_of(panel, blend))
    psi = PSI[blend] if blend == "mixture" else design.psi.nodes[3]
    if blend == "mixture":
        W = np.tensordot(psi, [m.toarray() for m in design.weights.blend.matrices], 1)
    else:
        W = decay_matrix(design, blend, psi)
    region = [design.weights.regions.index(r) for r in design.data["row_region"].values]
    cluster = design.data["row_cluster"].values
    L = W[np.ix_(region, region)] * (cluster[:, None] == cluster)
    np.testing.assert_allclose(design.blended_lag.at(psi).matrix.toarray(), L, rtol=0, atol=INVERSE)
    values = {"rho": 0.7, design.psi.parameter: psi}
    found = float(outcome_process(spec, design).log_jacobian(values))
    wanted = np.linalg.slogdet(np.eye(len(L)) - 0.7 * L)[1]
    assert found == pytest.approx(wanted, rel=EXACT)
