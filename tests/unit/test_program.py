"""The sampler as functions: coordinates, both kinds of trajectories, programs as files."""

import numpy as np
import pandas as pd
import pytest

import spatialclusters as sc

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402

from spatialclusters import exported  # noqa: E402
from spatialclusters.exported import (  # noqa: E402
    chain_key,
    code_kept,
    export_function,
    load_function,
)
from spatialclusters.kernels import SHORT_DEPTH, make_program  # noqa: E402
from spatialclusters.program import _logarithms, build_target  # noqa: E402

SETTINGS = {
    "engine": "collapsed",
    "tune": 30,
    "target_accept": 0.8,
    "max_tree_depth": 6,
    "jitter": 0.5,
}


@pytest.fixture(scope="module")
def design():
    rng = np.random.default_rng(5)
    regions = [f"r{i}" for i in range(12)]
    index = pd.MultiIndex.from_product([regions, list("abcde")], names=["region", "cluster"])
    table = index.to_frame(index=False)
    table["employment_start"] = np.round(rng.lognormal(5.0, 1.0, len(table))) + 1.0
    table["employment_end"] = table["employment_start"] * rng.lognormal(0.0, 0.3, len(table))
    spec = sc.parse_spec(
        """
        name = "small"
        formula = "growth ~ log(employment) + (1 + log(employment) | cluster) + (1 | region)"
        growth = { variable = "employment", from = 2018, to = 2021 }
        likelihood.scale = "size"
        """
    )
    return spec, sc.build_design(spec, sc.read_panel(table))


def test_scales_are_known_by_their_transform(design):
    """A transform of PyMC's that went unrecognized would cost speed and be noticed by nobody."""
    from spatialclusters.collapsed.hyperparameters import hyperparameter_model

    model, _ = hyperparameter_model(*design)
    kinds, at = {}, 0
    for variable, values in model.initial_point().items():
        kinds[variable] = _logarithms(model)[at : at + np.size(values)].tolist()
        at += np.size(values)
    found = {tuple(kind) for name, kind in kinds.items() if "sd(" in name or "sigma" in name}
    assert found == {(True,)}
    assert kinds["size.share_logodds__"] == [False]
    assert kinds["size.power_log__"] == [True]
    assert [kind for name, kind in kinds.items() if name.startswith("root(")] == [[False]]


def warm_start(target, y):
    gradient = jax.jit(jax.value_and_grad(target.potential))
    return target.warm_up(gradient, y, 1)


@pytest.mark.slow
def test_a_good_warm_start_makes_short_trajectories_and_a_bad_one_adapts(design):
    spec, arrays = design
    target = build_target(spec, arrays, SETTINGS)
    warm = warm_start(target, arrays.y)
    depths = {}
    for k in (0.1, np.nan):
        judged = warm._replace(pareto_k=np.array(k))
        program, data = make_program(target, SETTINGS, judged), target.prepare(arrays.y, judged)
        state = program.first(chain_key(1, 0), data)
        states = []
        for _ in range(60):
            state = program.step(state, data)
            states.append(state)
        assert np.isfinite([float(s.potential_energy) for s in states]).all()
        depths[k] = max(int(s.num_steps) for s in states[30:])
        dense = np.asarray(states[-1].adapt_state.inverse_mass_matrix)
        # a good warm start leaves the unit mass matrix alone, another becomes dense
        assert dense.ndim == (1 if k == 0.1 else 2)
        assert bool((dense == 1.0).all()) == (k == 0.1)
    assert depths[0.1] <= 2**SHORT_DEPTH - 1


@pytest.mark.slow
def test_recorded_densities_are_those_of_the_state(design):
    """lp is the density in PyMC's coordinates: it differs from z's by the Jacobian alone."""
    from spatialclusters.collapsed.mode import stretch

    spec, arrays = design
    target = build_target(spec, arrays, SETTINGS)
    warm = warm_start(target, arrays.y)
    data = target.prepare(arrays.y, warm)
    for seed in range(3):
        z = target.start(jax.random.PRNGKey(seed))
        found = target.values(z, jax.random.PRNGKey(9), data)
        log_jacobian = float(stretch(z, warm)[1])
        expected = -float(target.potential(z, data)) - log_jacobian
        assert float(found["stat lp"]) == pytest.approx(expected, rel=1e-9)
        assert found["posterior sd(cluster)"].shape == (2,)


def test_a_function_comes_back_from_its_file(tmp_path):
    def function(tree, factor):
        return {"b": tree["x"] @ tree["y"], "a": factor * tree["x"].sum()}

    tree = {"y": jnp.arange(3.0), "x": jnp.ones((2, 3))}
    for name in ("dict", "list"):
        given = tree, jnp.asarray(2.0)
        export_function(tmp_path, name, function, *given, named=name == "dict")
    # leaves in the order of sorted names: x before y, a before b
    given = tree["x"], tree["y"], jnp.asarray(5.0)
    by_name = load_function(tmp_path, "dict")(*given)
    assert float(by_name["a"]) == 30.0
    np.testing.assert_array_equal(by_name["b"], [3.0, 3.0])
    a, b = load_function(tmp_path, "list")(*given)
    assert float(a) == 30.0
    np.testing.assert_array_equal(b, [3.0, 3.0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dict.stablehlo", "list.stablehlo"]


def test_code_of_this_process_is_kept_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(exported, "WORTH_KEEPING", 0.0)
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    if before[0]:  # whoever runs the tests keeps code somewhere already
        jax.config.update(names[0], None)
    try:
        with code_kept():
            jax.jit(lambda x: jnp.sin(x) + 0.12345)(jnp.ones(3)).block_until_ready()
        assert list((tmp_path / "spatialclusters" / "jax").iterdir())
        assert getattr(jax.config, names[0]) is None
        assert getattr(jax.config, names[1]) == before[1]
        jax.config.update(names[0], str(tmp_path / "mine"))
        with code_kept():  # somebody has chosen a place
            assert getattr(jax.config, names[0]) == str(tmp_path / "mine")
    finally:
        jax.config.update(names[0], before[0])
