"""Every process of the registries keeps the same contract; a new one without a reference fails.

Densities are compared with multivariate normals whose covariance is written down here from the
definitions, with NumPy alone.
"""

from pathlib import Path
from typing import get_args

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import spatialclusters as sc
from spatialclusters.collapsed.density import log_marginal_likelihood
from spatialclusters.collapsed.hyperparameters import theta_of
from spatialclusters.collapsed.layout import lay_out
from spatialclusters.collapsed.problem import coefficient_scales, mixed_model
from spatialclusters.collapsed.recovery import recover
from spatialclusters.collapsed.statistics import statistics
from spatialclusters.model import LIKELIHOOD, build_model
from spatialclusters.parameters import group_columns
from spatialclusters.processes import FIELDS, OUTCOMES, dependence_names, outcome_process, supports
from spatialclusters.simulation import draw_parameters, linear_predictor, simulate_response
from spatialclusters.spec import OutcomeProcess, Structure
from spatialclusters.spec.checks import FIELD_PARAMETERS, OUTCOME_PARAMETERS, PAIRS

EXACT = 1e-10  # relative: two float64 computations of one number, here of some hundreds
GRADIENT = 1e-6  # relative: finite differences of step 1e-5 lose half the digits
INVERSE = 1e-12  # relative: a filter after its inverse
TESTS = Path(__file__).parents[1]
REFERENCES = {
    "none": "reference/test_income_convergence.py::test_posterior_agrees_with_quadrature",
    "sar": "reference/test_columbus.py::test_the_posterior_against_quadrature",
    "sem": "reference/test_columbus.py::test_the_posterior_against_quadrature",
    "sac": "reference/test_columbus.py::test_the_posterior_against_quadrature",
    "iid": "reference/test_lme4.py::test_criterion",
    "icar": "unit/test_fields.py::test_scale_of_columbus",
    "bym2": "unit/test_fields.py::test_scale_of_columbus",
    "leroux": "unit/test_fields.py::test_dense",
    "car": "unit/test_fields.py::test_dense",
    "sar (region)": "unit/test_fields.py::test_dense",
}
SHAPES = {
    "industries": "y ~ x + lag(x) + (1 | region) + (1 | region:cluster) + (1 + x | cluster)",
    "clusters": "y ~ x + (1 | region) + (1 | cluster)",
    "surfaces": "y ~ x + (1 | region:cluster) + (1 | cluster)",
    "cross-section": "y ~ x + lag(x)",
    "fields": "y ~ x + (1 | region)",
}
POINT = (0.35, 0.45, -0.3)

jax.config.update("jax_enable_x64", True)


def test_the_vocabulary_is_the_registry():
    assert set(get_args(OutcomeProcess)) == set(OUTCOMES) == set(OUTCOME_PARAMETERS)
    assert dict(OUTCOMES) == OUTCOME_PARAMETERS
    assert set(get_args(Structure)) == {"iid", *FIELDS} == set(FIELD_PARAMETERS)
    assert {n: f.parameter for n, f in FIELDS.items()} | {"iid": None} == FIELD_PARAMETERS


def test_every_process_has_a_reference():
    names = {*OUTCOMES, "iid", *(n if n not in OUTCOMES else f"{n} (region)" for n in FIELDS)}
    assert set(REFERENCES) == names
    for reference in REFERENCES.values():
        file, test = reference.split("::")
        assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8"), reference


def links(n_regions):
    """A ring with chords, one region without neighbors, and two that only know each other."""
    ring = n_regions - 3
    pairs = {(i, (i + 1) % ring) for i in range(ring)} | {(0, 3), (1, 4), (ring, ring + 1)}
    both = sorted(pairs | {(j, i) for i, j in pairs})
    table = pd.DataFrame(both, columns=["region_i", "region_j"]).map("r{:02d}".format)
    table["weight"] = 1.0
    alone = f"r{n_regions - 1:02d}"
    table.loc[len(table)] = [alone, alone, 0.0]
    return sc.read_weights(table)


def design_of(shape, outcome="none", structure="iid", seed=0, family="gaussian"):
    """Simulated rows of one shape, unbalanced, and the model on them."""
    rng = np.random.default_rng(seed)
    regions = [f"r{i:02d}" for i in range(12)]
    if shape in ("cross-section", "fields"):
        table = pd.DataFrame({"region": regions})
    else:
        inside = 3 if shape == "industries" else 1
        rows = [
            (r, f"c{c}", f"i{c}{k}")
            for r in regions
            for c in range(3)
            for k in range(inside)
            if rng.random() < 0.8
        ]
        table = pd.DataFrame(rows, columns=["region", "cluster", "industry"])
        table = table if inside > 1 else table.drop(columns="industry")
    table["x"] = rng.normal(1.0, 2.0, size=len(table))
    table["y"] = 0.5 * table["x"] + rng.normal(size=len(table))
    formula, group = SHAPES[shape], "region:cluster" if shape == "surfaces" else "region"
    if structure == "iid" and shape in ("surfaces", "fields"):
        formula = formula.replace(f" + (1 | {group})", "")
    chosen = f'[groups."{group}"]\nstructure = "{structure}"\n' if f"| {group})" in formula else ""
    spec = sc.parse_spec(
        f'formula = "{formula}"\n{chosen}[spatial]\noutcome = "{outcome}"\n'
        f'[likelihood]\nfamily = "{family}"'
    )
    return spec, sc.build_design(spec, sc.read_panel(table), links(12))


def values_of(spec, design, point=POINT):
    """Values of theta: noise, roots of groups, dependence."""
    roots = []
    for k, group in enumerate(design.groups):
        root = np.array([[0.6, 0.0], [0.2, 0.4]]) if len(group.labels) > 1 else np.eye(1)
        roots.append(root * (0.6 + 0.2 * k))
    return [np.array([0.7]), *roots, *(np.array(v) for v in point[: len(dependence_names(spec))])]


def covariance(structure, adjacency, parameter):
    """The field's covariance from its definition, component by component."""
    out = np.eye(len(adjacency))
    reach = np.linalg.matrix_power(np.eye(len(out)) + adjacency, len(out)) > 0
    for inside in {tuple(np.flatnonzero(row)) for row in reach}:
        if len(inside) == 1:
            continue
        A = adjacency[np.ix_(inside, inside)]
        D, eye = np.diag(A.sum(axis=1)), np.eye(len(A))
        W = A / A.sum(axis=1)[:, None]
        size, vectors = np.linalg.eigh(D - A)
        intrinsic = (vectors[:, 1:] / size[1:]) @ vectors[:, 1:].T
        precision = {
            "leroux": (1.0 - parameter) * eye + parameter * (D - A),
            "car": D - parameter * A,
            "sar": (eye - parameter * W).T @ (eye - parameter * W),
        }
        C = np.linalg.inv(precision[structure]) if structure in precision else intrinsic
        C = C / np.exp(np.log(np.diag(C)).mean())
        out[np.ix_(inside, inside)] = C
    if structure == "bym2":
        return (1.0 - parameter) * np.eye(len(out)) + parameter * out
    return out


def lag_matrix(design):
    """L from its definition: mean of the neighbors' cell means."""
    names = [n for n in ("region", "cluster") if f"row_{n}" in design.data]
    cells = list(zip(*(design.data[f"row_{n}"].values for n in names), strict=True))
    W = design.weights.matrix.toarray() > 0
    place = {r: i for i, r in enumerate(design.weights.regions)}
    L = np.zeros((design.n_rows,) * 2)
    for i, mine in enumerate(cells):
        near = [c for c in set(cells) if c[1:] == mine[1:] and W[place[mine[0]], place[c[0]]]]
        for cell in near:
            rows = [j for j, other in enumerate(cells) if other == cell]
            L[i, rows] = 1.0 / len(near) / len(rows)
    return L


def dense(spec, design, values):
    """Log density, and mean and covariance of the response, from the definitions."""
    names = dependence_names(spec)
    dependence = dict(zip(names, map(float, values[len(values) - len(names) :]), strict=True))
    mean, sd, _ = coefficient_scales(spec, design)
    X = np.column_stack([np.ones(design.n_rows), design.standardized])
    L, eye = lag_matrix(design), np.eye(design.n_rows)
    A, B = (eye - dependence.get(name, 0.0) * L for name in ("rho", "lambda"))
    V = float(values[0][0]) ** 2 * np.linalg.inv(B.T @ B) + (X * sd) @ (X * sd).T
    for group, root in zip(design.groups, values[1:], strict=False):
        columns = group_columns(design, group)
        Z = np.zeros((design.n_rows, len(group.levels), columns.shape[1]))
        Z[np.arange(design.n_rows), group.codes] = columns
        K = np.eye(len(group.levels))
        if group.structure != "iid":
            parameter = FIELDS[group.structure].parameter
            value = dependence.get(f"{parameter}({group.name})", 0.0)
            K = covariance(group.structure, design.graph(group).adjacency.toarray(), value)
        Z = Z.reshape(design.n_rows, -1)
        V += Z @ np.kron(K, root @ root.T) @ Z.T
    inverse = np.linalg.inv(A)
    log_density = stats.multivariate_normal(X @ mean, V).logpdf(A @ design.y)
    return log_density + np.linalg.slogdet(A)[1], inverse @ X @ mean, inverse @ V @ inverse.T


def collapsed(spec, design):
    layout = lay_out(mixed_model(spec, design))
    sums = statistics(layout, design.y)
    density = jax.jit(
        lambda values: log_marginal_likelihood(layout, sums, theta_of(spec, design, values))
    )
    return layout, sums, density


COMBINATIONS = [
    (shape, outcome, structure)
    for shape, formula in SHAPES.items()
    for outcome in OUTCOMES
    for structure in ("iid", *FIELDS)
    # a cross-section has no effects to structure, and region effects alone are noise if iid
    if (structure == "iid") <= (shape != "fields") and ("| region" in formula or structure == "iid")
]


@pytest.mark.parametrize(("shape", "outcome", "structure"), COMBINATIONS)
def test_the_density_is_the_multivariate_normal(shape, outcome, structure):
    spec, design = design_of(shape, outcome, structure)
    values = values_of(spec, design)
    found = float(collapsed(spec, design)[2](values))
    assert found == pytest.approx(dense(spec, design, values)[0], rel=EXACT)


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("structure", ["iid", *FIELDS])
def test_the_gradient_is_that_of_finite_differences(outcome, structure):
    spec, design = design_of("industries", outcome, structure)
    values = values_of(spec, design)
    density = collapsed(spec, design)[2]
    gradient, step = jax.grad(density)(values), 1e-5
    for k, value in enumerate(values):
        for at in np.ndindex(value.shape):
            if len(at) == 2 and at[1] > at[0]:
                continue  # roots are lower triangular
            ends = []
            for sign in (1.0, -1.0):
                moved = [np.array(v, dtype=float) for v in values]
                moved[k][at] += sign * step
                ends.append(float(density(moved)))
            wanted = (ends[0] - ends[1]) / (2.0 * step)
            assert float(gradient[k][at]) == pytest.approx(wanted, rel=GRADIENT, abs=GRADIENT)


@pytest.mark.parametrize(
    ("child", "parent", "zero"),
    [
        (("sar", "iid"), ("none", "iid"), {"rho": 0.0}),
        (("sem", "iid"), ("none", "iid"), {"lambda": 0.0}),
        (("sac", "iid"), ("sar", "iid"), {"lambda": 0.0}),
        (("sac", "iid"), ("sem", "iid"), {"rho": 0.0}),
        (("none", "leroux"), ("none", "iid"), {"alpha(region)": 0.0}),
        (("none", "bym2"), ("none", "iid"), {"phi(region)": 0.0}),
        (("none", "sar"), ("none", "iid"), {"lambda(region)": 0.0}),
    ],
)
def test_a_process_reduces_to_its_parent(child, parent, zero):
    spec, design = design_of("industries", *child)
    simple, _ = design_of("industries", *parent)
    names = dependence_names(spec)
    values = values_of(spec, design)
    values[len(values) - len(names) :] = [np.array(zero.get(name, POINT[0])) for name in names]
    kept = [v for v, name in zip(values[-len(names) :], names, strict=True) if name not in zero]
    fewer = [*values[: len(values) - len(names)], *kept]
    found = float(collapsed(spec, design)[2](values))
    wanted = float(collapsed(simple, design_of("industries", *parent)[1])[2](fewer))
    assert found == pytest.approx(wanted, rel=EXACT)


def test_a_durbin_model_without_its_lags_is_the_lag_model():
    """A lag() term whose coefficient is zero changes nothing."""
    spec, design = design_of("cross-section", "sar")
    parameters = {"intercept": 1.0, "coefficient": np.array([0.5, 0.0]), "rho": 0.4}
    space, noise = outcome_process(spec, design), np.random.default_rng(2).normal(size=12)
    mean = linear_predictor(design, parameters)
    y = space.response(parameters, mean, noise)
    by_hand = 1.0 + 0.5 * (design.X[:, 0] - design.X[:, 0].mean())
    eye = np.eye(design.n_rows)
    np.testing.assert_allclose(
        y, np.linalg.solve(eye - 0.4 * lag_matrix(design), by_hand + noise), rtol=EXACT
    )


@pytest.mark.parametrize("outcome", [name for name in OUTCOMES if name != "none"])
@pytest.mark.parametrize("shape", ["industries", "clusters", "cross-section"])
def test_the_simulator_inverts_the_filter_of_the_likelihood(shape, outcome):
    spec, design = design_of(shape, outcome)
    rng, space = np.random.default_rng(1), outcome_process(spec, design)
    values = dict(zip(space.parameters, (0.6, -0.4), strict=False))
    mean, noise = rng.normal(size=(2, design.n_rows))
    y = space.response(values, mean, noise)
    np.testing.assert_allclose(space.filtered(values, y, mean), noise, rtol=0, atol=INVERSE * 100)
    L, eye = lag_matrix(design), np.eye(design.n_rows)
    wanted = sum(np.linalg.slogdet(eye - v * L)[1] for v in values.values())
    assert float(space.log_jacobian(values)) == pytest.approx(wanted, rel=EXACT)
    np.testing.assert_allclose(design.lag.matrix.toarray(), L, rtol=0, atol=INVERSE)


@pytest.mark.parametrize("structure", FIELDS)
def test_simulated_effects_have_the_covariance_of_the_density(structure):
    spec, design = design_of("surfaces", "none", structure)
    group, rng = design.groups[0], np.random.default_rng(4)
    parameters = draw_parameters(spec, design, rng)
    name = f"{FIELDS[structure].parameter}({group.name})"
    value = float(parameters.get(name, 0.0))
    from spatialclusters.simulation import surface_effects

    eye = np.eye(len(group.levels))
    jax.config.update("jax_enable_x64", False)  # as in a session that has not fitted anything yet
    root = np.column_stack([surface_effects(design, group, value, e[:, None])[:, 0] for e in eye])
    wanted = covariance(structure, design.graph(group).adjacency.toarray(), value)
    np.testing.assert_allclose(root @ root.T, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("shape", "outcome", "structure"), COMBINATIONS)
def test_recovered_effects_have_the_conditional_mean(shape, outcome, structure):
    """E[y | theta] from recovered means: coefficients and effects against dense kriging."""
    spec, design = design_of(shape, outcome, structure)
    values = values_of(spec, design)
    layout, sums, _ = collapsed(spec, design)
    found = recover(layout, sums, theta_of(spec, design, values), jax.random.key(0))
    names = dependence_names(spec)
    dependence = dict(zip(names, map(float, values[len(values) - len(names) :]), strict=True))
    mean, sd, _ = coefficient_scales(spec, design)
    X = np.column_stack([np.ones(design.n_rows), design.standardized])
    L, eye = lag_matrix(design), np.eye(design.n_rows)
    A, B = (eye - dependence.get(name, 0.0) * L for name in ("rho", "lambda"))
    parts, prior = [X * sd], [np.eye(X.shape[1])]
    for group, root in zip(design.groups, values[1:], strict=False):
        columns = group_columns(design, group)
        Z = np.zeros((design.n_rows, len(group.levels), columns.shape[1]))
        Z[np.arange(design.n_rows), group.codes] = columns
        K = np.eye(len(group.levels))
        if group.structure != "iid":
            value = dependence.get(f"{FIELDS[group.structure].parameter}({group.name})", 0.0)
            K = covariance(group.structure, design.graph(group).adjacency.toarray(), value)
        parts.append(Z.reshape(design.n_rows, -1))
        prior.append(np.kron(K, root @ root.T))
    F, Q = np.concatenate(parts, axis=1), _block_diagonal(prior)
    V = float(values[0][0]) ** 2 * np.linalg.inv(B.T @ B) + F @ Q @ F.T
    gain = np.linalg.solve(V, F @ Q).T
    # cells are eliminated level by level: they have draws, not conditional moments
    known = [g for g in design.groups if g.name in found.mean.effects]
    assert len(known) == len(design.groups) - (layout.plan.cell is not None)
    sizes = [g.name in found.mean.effects for g in design.groups]
    kept = np.repeat([True, *sizes], [part.shape[1] for part in parts])
    wanted = (gain @ (A @ design.y - X @ mean))[kept]
    spread = np.diag(Q - gain @ F @ Q)[kept]
    effects = [np.ravel(found.mean.effects[g.name]) for g in known]
    variances = [np.ravel(found.variance.effects[g.name]) for g in known]
    got = np.concatenate([found.mean.coefficients, *effects])
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-9)
    got = np.concatenate([found.variance.coefficients, *variances])
    np.testing.assert_allclose(got, spread, rtol=1e-7, atol=1e-9)


def _block_diagonal(blocks):
    n = sum(len(b) for b in blocks)
    out, at = np.zeros((n, n)), 0
    for block in blocks:
        out[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return out


@pytest.mark.parametrize(("family", "outcome"), PAIRS)
@pytest.mark.parametrize("structure", ["iid", "bym2"])
def test_the_full_model_of_every_pair(family, outcome, structure):
    """Log density and gradient are finite; the likelihood is the filtered noise's density."""
    from pymc.sampling.jax import get_jaxified_graph

    spec, design = design_of("industries", outcome, structure, family=family)
    model = build_model(spec, design)
    if outcome == "none":
        assert not any(p.name == LIKELIHOOD for p in model.potentials)
        return
    potential = next(p for p in model.potentials if p.name == LIKELIHOOD)
    names = ["intercept", "coefficient", "sigma", *outcome_process(spec, design).parameters]
    names += ["nu"] if family == "student-t" else []
    names += [f"effect({group.name})" for group in design.groups]
    outputs = model.replace_rvs_by_values([potential, *(model[name] for name in names)])
    graph = get_jaxified_graph(inputs=model.value_vars, outputs=[model.logp(), *outputs])
    point = model.initial_point()
    rng = np.random.default_rng(3)
    at = [point[v.name] + 0.1 * rng.normal(size=np.shape(point[v.name])) for v in model.value_vars]
    logp, found, *values = graph(*at)
    assert np.isfinite(float(logp))
    gradient = jax.grad(lambda at: graph(*at)[0])([np.asarray(a, dtype=float) for a in at])
    assert all(np.isfinite(g).all() for g in gradient)
    parameters = {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
    space = outcome_process(spec, design)
    noise = space.filtered(parameters, design.y, linear_predictor(design, parameters))
    scale = float(parameters["sigma"])
    if family == "student-t":
        each = stats.t.logpdf(noise, float(parameters["nu"]), scale=scale)
    else:
        each = stats.norm.logpdf(noise, scale=scale)
    wanted = each.sum() + float(space.log_jacobian(parameters))
    assert float(found) == pytest.approx(wanted, rel=EXACT)


def test_supports_are_where_the_process_exists():
    spec, design = design_of("industries", "sac", "sar")
    found = supports(spec, design)
    assert list(found) == ["lambda(region)", "rho", "lambda"]
    eye, L = np.eye(design.n_rows), lag_matrix(design)
    for low, high in found.values():
        assert np.linalg.slogdet(eye - 0.999 * high * L)[0] == 1.0
        assert np.linalg.slogdet(eye - 0.999 * low * L)[0] == 1.0


def test_a_response_drawn_from_the_prior_is_finite():
    for outcome in OUTCOMES:
        spec, design = design_of("industries", outcome, "leroux")
        rng = np.random.default_rng(5)
        assert np.isfinite(
            simulate_response(spec, design, draw_parameters(spec, design, rng), rng)
        ).all()
