"""A compiled sampler: NUTS on JAX for either engine, with the response left open.

The *full* engine moves over every parameter and effect. The *collapsed* engine moves
over the hyperparameters in coordinates in which their posterior is about standard
normal, and draws everything else exactly for every state it keeps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spatialclusters.design import Design
from spatialclusters.model import build_model
from spatialclusters.spec import ModelSpec

__all__ = ["Program", "WarmStart", "compile_model"]

WARM_UP_DEPTH = 7
"""At most 127 leapfrog steps an iteration while tuning."""

PARETO_DRAWS = 400
"""Proposals behind the Pareto k of the warm start."""

_DROPPED = ("raw(", "root(", "fixed(", "nu - 2", "noise")


@dataclass(frozen=True, eq=False)
class WarmStart:
    """Mode and root of the covariance there, in unconstrained hyperparameters.

    ``pareto_k`` says how far from normal the posterior is (NaN where nobody asked).
    """

    mode: np.ndarray
    root: np.ndarray
    pareto_k: float


@dataclass(frozen=True)
class Program:
    """A compiled sampler of one model; the data are an argument, not a constant.

    Attributes
    ----------
    warm_up
        (y, seed) to a warm start, or None for the full engine.
    prepare
        (y, warm start) to the data that the other functions take.
    init
        (key, data) to the first state: a dispersed start, before any tuning.
    step
        (state, data) to the next state; tunes while ``state.i`` is below ``tune``.
    record
        (states, data, key) to posterior, sampler and moment arrays, one row a state.
    """

    warm_up: Callable[[np.ndarray, int], WarmStart | None]
    prepare: Callable[[np.ndarray, WarmStart | None], Any]
    init: Callable[[Any, Any], Any]
    step: Callable[[Any, Any], Any]
    record: Callable[[list[Any], Any, Any], dict[str, np.ndarray]]


def compile_model(spec: ModelSpec, design: Design, settings: Mapping[str, Any]) -> Program:
    """Compile NUTS for a model, in float64.

    Parameters
    ----------
    settings
        ``engine``, ``tune``, ``target_accept``, ``max_tree_depth`` and ``jitter``.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    engine = _collapsed if settings["engine"] == "collapsed" else _full
    return engine(spec, design, settings)


def _kernel(potential: Callable[[Any], Any], settings: Mapping[str, Any], **choices: Any) -> Any:
    from numpyro.infer import NUTS

    return NUTS(
        potential_fn=potential,
        target_accept_prob=settings["target_accept"],
        # far from the typical set long trajectories are wasted: cut them while tuning
        max_tree_depth=(WARM_UP_DEPTH, settings["max_tree_depth"]),
        **choices,
    )


def _step(kernel: Callable[[Any], Any], settings: Mapping[str, Any]) -> Callable[[Any, Any], Any]:
    def step(state: Any, data: Any) -> Any:
        fresh = kernel(data)
        # numpyro sets the sampler up in init; its state is not used and compiles to nothing
        fresh.init(state.rng_key, settings["tune"], state.z, (), {})
        return fresh.sample(state, (), {})

    return step


def _full(spec: ModelSpec, design: Design, settings: Mapping[str, Any]) -> Program:
    import jax
    from pymc.sampling.jax import get_jaxified_graph

    model = build_model(spec, design)
    names = [variable.name for variable in model.value_vars]
    inputs, (negative_density,) = _with_open_response(model, [-model.logp()])
    density = get_jaxified_graph(inputs=inputs, outputs=[negative_density])
    origin = model.initial_point()

    def kernel(y: Any) -> Any:
        return _kernel(lambda z: density(*[z[name] for name in names], y)[0], settings)

    def init(key: Any, y: Any) -> Any:
        jitter_key, run_key = jax.random.split(key)
        start = _dispersed(origin, names, jitter_key, settings["jitter"])
        return kernel(y).init(run_key, settings["tune"], start, (), {})

    return Program(
        lambda *_: None,
        lambda y, _: y,
        jax.jit(init),
        jax.jit(_step(kernel, settings)),
        _full_recorder(model, names),
    )


def _with_open_response(model: Any, outputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Turn the model's response from shared data into an input of the graph."""
    import pytensor.tensor as pt
    from pytensor.graph.replace import graph_replace

    response = pt.vector("response", dtype="float64")
    replaced = graph_replace(outputs, {model["response"]: response}, strict=False)
    return [*model.value_vars, response], replaced


def _dispersed(origin: dict[str, Any], names: list[str], key: Any, jitter: float) -> dict[str, Any]:
    """Move every unconstrained coordinate of the model's start by uniform(-jitter, jitter)."""
    import jax

    keys = jax.random.split(key, len(names))
    return {
        name: jax.numpy.asarray(origin[name], dtype=float)
        + jax.random.uniform(k, np.shape(origin[name]), minval=-jitter, maxval=jitter)
        for name, k in zip(names, keys, strict=True)
    }


def _recorded_variables(model: Any) -> list[Any]:
    """Return the variables of a model that a fit keeps, in the model's order."""
    wanted = {variable.name for variable in model.unobserved_RVs}
    return [
        variable
        for variable in model.unobserved_value_vars
        if variable.name in wanted and not variable.name.startswith(_DROPPED)
    ]


def _full_recorder(
    model: Any, names: list[str]
) -> Callable[[list[Any], Any, Any], dict[str, np.ndarray]]:
    import jax
    from pymc.sampling.jax import get_jaxified_graph

    kept = _recorded_variables(model)
    likelihood = model.logp(vars=model.observed_RVs, sum=True)
    stated = [p for p in model.potentials if not p.name.startswith("jacobian")]
    prior = model.logp(vars=[*model.free_RVs, *stated], sum=True, jacobian=False)
    inputs, outputs = _with_open_response(model, [*kept, likelihood, prior])
    graph = get_jaxified_graph(inputs=inputs, outputs=outputs)
    constrained = jax.jit(
        jax.vmap(lambda position, y: graph(*[position[n] for n in names], y), in_axes=(0, None))
    )

    def record(states: list[Any], y: Any, key: Any) -> dict[str, np.ndarray]:  # noqa: ARG001
        positions = {n: jax.numpy.stack([state.z[n] for state in states]) for n in names}
        *values, log_likelihood, log_prior = constrained(positions, y)
        arrays = {f"posterior {v.name}": np.asarray(x) for v, x in zip(kept, values, strict=True)}
        more = {"conditional_log_likelihood": log_likelihood, "log_prior": log_prior}
        return arrays | _statistics(states, more)

    return record


def _statistics(states: list[Any], more: Mapping[str, Any]) -> dict[str, np.ndarray]:
    steps = np.array([int(state.num_steps) for state in states])
    stats = {
        "acceptance_rate": [float(state.accept_prob) for state in states],
        "diverging": [bool(state.diverging) for state in states],
        "energy": [float(state.energy) for state in states],
        "n_steps": steps,
        "tree_depth": np.ceil(np.log2(steps + 1)).astype(np.int64),
        "step_size": [float(state.adapt_state.step_size) for state in states],
        "lp": [-float(state.potential_energy) for state in states],
        **more,
    }
    return {f"stat {name}": np.asarray(value) for name, value in stats.items()}


def _collapsed(spec: ModelSpec, design: Design, settings: Mapping[str, Any]) -> Program:
    import jax

    from spatialclusters.collapsed.density import log_marginal_likelihood
    from spatialclusters.collapsed.hyperparameters import hyperparameter_model, theta_of
    from spatialclusters.collapsed.mode import laplace, pareto_k
    from spatialclusters.collapsed.problem import mixed_model
    from spatialclusters.collapsed.recovery import recover
    from spatialclusters.collapsed.statistics import lay_out, statistics
    from spatialclusters.collapsed.units import raw_moments, raw_values

    layout = lay_out(mixed_model(spec, design))
    model, theta_values = hyperparameter_model(spec, design)
    kept = _recorded_variables(model)
    evaluate, origin = _on_a_vector(
        model,
        [
            model.logp(),
            model.logp(jacobian=False),
            *model.replace_rvs_by_values(theta_values),
            *kept,
        ],
    )
    n_theta = len(theta_values)

    def log_density(point: Any, sums: Any) -> Any:
        prior, _, *values = evaluate(point)
        theta = theta_of(design, values[:n_theta])
        return prior + log_marginal_likelihood(layout, sums, theta)

    value_and_gradient = jax.jit(jax.value_and_grad(log_density))
    many = jax.jit(lambda points, sums: jax.lax.map(lambda x: log_density(x, sums), points))

    def warm_up(y: np.ndarray, seed: int) -> WarmStart:
        sums = _device(statistics(layout, y))
        found = laplace(lambda x: value_and_gradient(x, sums), origin)
        k = pareto_k(lambda x: many(x, sums), found, draws=PARETO_DRAWS, seed=seed)
        return WarmStart(found.mode, found.root, k)

    def prepare(y: np.ndarray, warm: WarmStart | None) -> Any:
        assert warm is not None  # the caller has called warm_up
        return _device((statistics(layout, y), warm.mode, warm.root))

    def kernel(data: Any) -> Any:
        sums, mode, root = data
        return _kernel(lambda z: -log_density(mode + root @ z, sums), settings, dense_mass=True)

    def init(key: Any, data: Any) -> Any:
        start_key, run_key = jax.random.split(key)
        # wider than the posterior, so that chains that agree have come from different places
        start = 1.5 * jax.random.normal(start_key, origin.shape)
        return kernel(data).init(run_key, settings["tune"], start, (), {})

    def one(z: Any, key: Any, data: Any) -> Any:
        sums, mode, root = data
        _, log_prior, *values = evaluate(mode + root @ z)
        theta = theta_of(design, values[:n_theta])
        recovered = recover(layout, sums, theta, key)
        posterior = {v.name: x for v, x in zip(kept, values[n_theta:], strict=True)}
        posterior |= raw_values(spec, design, recovered.draw)
        means, variances = raw_moments(spec, design, recovered)
        stats = {
            "log_prior": log_prior,
            "marginal_log_likelihood": log_marginal_likelihood(layout, sums, theta),
        }
        return posterior, means, variances, stats

    recorded = jax.jit(one)

    def record(states: list[Any], data: Any, key: Any) -> dict[str, np.ndarray]:
        # a state's place in its chain makes its key, so blocks of any length draw the same
        draws = [recorded(s.z, jax.random.fold_in(key, s.i), data) for s in states]
        posterior, means, variances, stats = (
            {name: np.stack([part[k][name] for part in draws]) for name in draws[0][k]}
            for k in range(4)
        )
        arrays = {
            f"{kind} {name}": value
            for kind, values in (("posterior", posterior), ("mean", means), ("variance", variances))
            for name, value in values.items()
        }
        return arrays | _statistics(states, stats)

    return Program(warm_up, prepare, jax.jit(init), jax.jit(_step(kernel, settings)), record)


def _device(tree: Any) -> Any:
    import jax

    return jax.tree_util.tree_map(jax.numpy.asarray, tree)


def _on_a_vector(
    model: Any, outputs: Sequence[Any]
) -> tuple[Callable[[Any], list[Any]], np.ndarray]:
    """Return outputs of a model as a function of one vector, and the vector it starts at."""
    from pymc.sampling.jax import get_jaxified_graph

    point = model.initial_point()
    starts = [np.asarray(point[v.name], dtype=float) for v in model.value_vars]
    ends = np.cumsum([0, *(start.size for start in starts)])
    graph = get_jaxified_graph(inputs=model.value_vars, outputs=list(outputs))

    def evaluate(vector: Any) -> list[Any]:
        parts = [
            vector[i:j].reshape(start.shape)
            for (i, j), start in zip(itertools.pairwise(ends), starts, strict=True)
        ]
        return list(graph(*parts))

    return evaluate, np.concatenate([np.empty(0), *(start.ravel() for start in starts)])
