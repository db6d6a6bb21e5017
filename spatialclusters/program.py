"""What is sampled, as functions of arrays, for either engine.

The *full* engine moves over every parameter and effect. The *collapsed* engine moves
over the hyperparameters in coordinates in which their posterior is about standard
normal, and draws everything else exactly for every state it keeps.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from spatialclusters.collapsed.density import log_marginal_likelihood
from spatialclusters.collapsed.hyperparameters import hyperparameter_model, theta_of
from spatialclusters.collapsed.layout import Problem, lay_out
from spatialclusters.collapsed.mode import WarmStart, find_warm_start, stretch
from spatialclusters.collapsed.problem import mixed_model
from spatialclusters.collapsed.recovery import recover
from spatialclusters.collapsed.statistics import padded, statistics
from spatialclusters.collapsed.units import raw_moments, raw_values
from spatialclusters.design import Design
from spatialclusters.model import LIKELIHOOD, build_model
from spatialclusters.parameters import LOG_SIZE, SIZE_CLASSES, size_classes
from spatialclusters.spec import ModelSpec

__all__ = ["Data", "Search", "Target", "build_target", "gradient_of", "may_propose"]

PARETO_DRAWS: Final = 400
"""Proposals behind the Pareto k of the warm start."""

_DROPPED = ("raw(", "root(", "fixed(", "nu - 2", "noise")


class Data(NamedTuple):
    """What the collapsed engine's functions take: sums over rows, coordinates, log sizes."""

    sums: Any
    warm: WarmStart
    sizes: Any


class Search(NamedTuple):
    """Where the search for a mode begins, (d,), and which coordinates are logarithms, (d,)."""

    origin: np.ndarray
    logarithms: np.ndarray


@dataclass(frozen=True)
class Target:
    """A posterior as functions of unconstrained parameters z and data.

    Attributes
    ----------
    prepare
        (y, warm start) to the data that the other functions take; the collapsed engine also
        takes a design of the same structure whose covariates stand in for the target's.
    potential
        (z, data) to minus the log density.
    start
        key to a dispersed first z.
    values
        (z, key, data) to what is recorded: ``posterior NAME``, ``stat NAME``, and for
        the collapsed engine ``mean NAME`` and ``variance NAME``.
    search
        To where a search for the mode begins; None for the full engine.
    warm_up
        (gradient of the potential, y, seed) to a warm start, with such a design as well;
        ``gradients``, the same at many points, saves time, so does ``search``, and with
        ``surrogate`` one is looked for; None for the full engine.
    """

    prepare: Callable[..., Any]
    potential: Callable[[Any, Any], Any]
    start: Callable[[Any], Any]
    values: Callable[[Any, Any, Any], dict[str, Any]]
    search: Callable[[], Search] | None = None
    warm_up: Callable[..., WarmStart] | None = None


def build_target(
    spec: ModelSpec, design: Design, settings: Mapping[str, Any], *, other_sizes: bool = False
) -> Target:
    """Write a model down as functions of arrays, in float64.

    The collapsed engine's model is built when a function is traced, or its search is asked for.

    Parameters
    ----------
    settings
        ``engine`` and ``jitter``.
    other_sizes
        Make room for designs whose rows fall into other classes of size, if the noise depends
        on size and the engine is collapsed.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    if settings["engine"] == "collapsed":
        return _collapsed(spec, design, other_sizes and spec.likelihood.scale == "size")
    with _in_double():
        return _full(spec, design, settings["jitter"])


@contextmanager
def _in_double() -> Iterator[None]:
    """Let PyTensor use float64, whatever it was asked for."""
    import jax
    import pytensor

    with pytensor.config.change_flags(floatX="float64"):
        yield
    # its module for JAX, when first imported, has set this by what it was asked for then
    jax.config.update("jax_enable_x64", True)


def may_propose(spec: ModelSpec) -> bool:
    """Tell whether proposals may come from a surrogate.

    Share and power of noise by size have long tails in which such chains wait: NUTS follows them.
    """
    return spec.likelihood.scale != "size"


def gradient_of(target: Target) -> Callable[[Any, Any], Any]:
    """Return the function of (z, data) to the potential energy and its gradient."""
    import jax

    return jax.value_and_grad(target.potential)  # type: ignore[no-any-return]


def _full(spec: ModelSpec, design: Design, jitter: float) -> Target:
    import jax

    model = build_model(spec, design)
    names = [variable.name for variable in model.value_vars]
    origin = {n: jax.device_put(x) for n, x in _first_point(model).items()}
    kept = _recorded_variables(model)
    likelihood = [p for p in model.potentials if p.name == LIKELIHOOD]
    stated = [p for p in model.potentials if not p.name.startswith(("jacobian", LIKELIHOOD))]
    inputs, outputs = _with_open_data(
        model,
        "response",
        [
            -model.logp(),
            *kept,
            model.logp(vars=likelihood or model.observed_RVs, sum=True),
            model.logp(vars=[*model.free_RVs, *stated], sum=True, jacobian=False),
        ],
    )
    density, recorded = _on_jax(inputs, outputs[:1]), _on_jax(inputs, outputs[1:])

    def start(key: Any) -> Any:
        keys = jax.random.split(key, len(names))
        return {
            name: origin[name]
            + jax.random.uniform(k, origin[name].shape, minval=-jitter, maxval=jitter)
            for name, k in zip(names, keys, strict=True)
        }

    def values(z: Any, key: Any, y: Any) -> dict[str, Any]:  # noqa: ARG001
        *drawn, log_likelihood, log_prior = recorded(*[z[n] for n in names], y)
        out = {f"posterior {v.name}": x for v, x in zip(kept, drawn, strict=True)}
        out["stat conditional_log_likelihood"] = log_likelihood
        return out | {"stat log_prior": log_prior}

    return Target(
        lambda y, _: jax.numpy.asarray(y),
        lambda z, y: density(*[z[n] for n in names], y)[0],
        start,
        values,
    )


def _with_open_data(model: Any, name: str, outputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Turn shared data of the model, a vector, into an input of the graph."""
    import pytensor.tensor as pt
    from pytensor.graph.replace import graph_replace

    opened = pt.vector(name, dtype="float64")
    replaced = graph_replace(outputs, {model[name]: opened}, strict=False)
    return [*model.value_vars, opened], replaced


def _recorded_variables(model: Any) -> list[Any]:
    """Return the variables of a model that a fit keeps, in the model's order."""
    wanted = {variable.name for variable in model.unobserved_RVs}
    return [
        variable
        for variable in model.unobserved_value_vars
        if variable.name in wanted and not variable.name.startswith(_DROPPED)
    ]


def _problem(spec: ModelSpec, design: Design, roomy: bool) -> Problem:
    """Lay out the model over the rows, with as many classes of size as there can be if roomy."""
    problem = mixed_model(spec, design)
    return replace(problem, n_classes=SIZE_CLASSES) if roomy else problem


def _collapsed(spec: ModelSpec, design: Design, roomy: bool) -> Target:
    import jax

    layout = lay_out(_problem(spec, design, roomy))

    @cache
    def built() -> tuple[Callable[[Any, Any], list[Any]], Search, int, list[str]]:
        # a function may be being traced
        with _in_double(), jax.ensure_compile_time_eval():
            model, theta = hyperparameter_model(spec, design)
            kept = _recorded_variables(model)
            values = [*model.replace_rvs_by_values(theta), *kept]
            outputs = [model.logp(), model.logp(jacobian=False), *values]
            evaluate, origin = _on_a_vector(model, outputs)
            search = Search(origin, _logarithms(model))
        return evaluate, search, len(theta), [variable.name for variable in kept]

    def log_size_of(given: Design) -> np.ndarray:
        if spec.likelihood.scale != "size":
            return np.empty(0)
        return np.asarray(np.log(size_classes(given)[1]))

    def prepare(y: np.ndarray, warm: WarmStart | None, other: Design | None = None) -> Any:
        filled = layout if other is None else replace(layout, problem=_problem(spec, other, roomy))
        sums, sizes = statistics(filled, y), log_size_of(other or design)
        if roomy:
            sums, sizes = padded(sums), np.pad(sizes, (0, SIZE_CLASSES - len(sizes)))
        data = Data(sums, warm or WarmStart.identity(len(built()[1].origin)), sizes)
        # asarray would compile a program for every shape
        return jax.device_put(data)

    def potential(z: Any, data: Any) -> Any:
        evaluate, _, n_theta, _ = built()
        sums, warm, sizes = data
        point, log_jacobian = stretch(z, warm)
        prior, _, *values = evaluate(point, sizes)
        theta = theta_of(spec, design, values[:n_theta])
        likelihood = log_marginal_likelihood(layout, sums, theta)
        return -(prior + likelihood + log_jacobian)

    def warm_up(
        gradient: Callable[[Any, Any], Any],
        y: np.ndarray,
        seed: int,
        other: Design | None = None,
        *,
        gradients: Callable[[Any, Any], Any] | None = None,
        surrogate: bool = False,
        search: Search | None = None,
    ) -> WarmStart:
        found = search or built()[1]
        data = prepare(y, WarmStart.identity(len(found.origin)), other)

        def along(function: Callable[[Any, Any], Any]) -> Callable[[Any, WarmStart], Any]:
            return lambda z, warm: function(z, data._replace(warm=warm))

        return find_warm_start(
            along(gradient),
            *found,
            draws=PARETO_DRAWS,
            seed=seed,
            gradients=None if gradients is None else along(gradients),
            surrogate=surrogate and may_propose(spec),
        )

    def start(key: Any) -> Any:
        # wider than the posterior, so that chains that agree have come from different places
        return 1.5 * jax.random.normal(key, built()[1].origin.shape)

    def values(z: Any, key: Any, data: Any) -> dict[str, Any]:
        evaluate, _, n_theta, names = built()
        sums, warm, sizes = data
        density, log_prior, *values = evaluate(stretch(z, warm)[0], sizes)
        recovered = recover(layout, sums, theta_of(spec, design, values[:n_theta]), key)
        posterior = dict(zip(names, values[n_theta:], strict=True))
        posterior |= raw_values(spec, design, recovered.draw)
        means, variances = raw_moments(spec, design, recovered)
        stats = {
            "lp": density + recovered.log_likelihood,
            "log_prior": log_prior,
            "marginal_log_likelihood": recovered.log_likelihood,
        }
        kinds = {"posterior": posterior, "mean": means, "variance": variances, "stat": stats}
        return {f"{kind} {n}": x for kind, group in kinds.items() for n, x in group.items()}

    return Target(prepare, potential, start, values, lambda: built()[1], warm_up)


def _first_point(model: Any) -> dict[str, np.ndarray]:
    """Return ``model.initial_point()`` without compiling a function for it."""
    import pytensor
    from pymc.initial_point import make_initial_point_expression
    from pytensor.compile.mode import Mode

    outputs = make_initial_point_expression(
        free_rvs=model.free_RVs,
        rvs_to_transforms=model.rvs_to_transforms,
        initval_strategies=model.rvs_to_initial_values,
        return_transformed=True,
    )
    found = pytensor.function([], outputs, mode=Mode(linker="py", optimizer=None))()
    names = [model.rvs_to_values[variable].name for variable in model.free_RVs]
    return {n: np.asarray(x, dtype=float) for n, x in zip(names, found, strict=True)}


def _logarithms(model: Any) -> np.ndarray:
    """Tell which coordinates of a model's vector are logarithms."""
    from pymc.distributions.transforms import LogTransform

    point, out = _first_point(model), [np.empty(0, dtype=bool)]
    for variable in model.value_vars:
        transform = model.rvs_to_transforms[model.values_to_rvs[variable]]
        kind = isinstance(transform, LogTransform)
        out.append(np.full(np.size(point[variable.name]), kind))
    return np.concatenate(out)


def _on_jax(inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    """Turn a graph of PyTensor's into a function of JAX arrays.

    PyTensor leaves the source that it generates among the temporary files: here it is removed.
    """
    import jax
    import pytensor

    jax.devices()  # the module below asks for a hundred devices: too late once JAX has begun
    from pymc.sampling.jax import get_jaxified_graph

    with (
        tempfile.TemporaryDirectory(prefix="spatialclusters-") as folder,
        pytensor.config.change_flags(generated_src_dir=folder),
    ):
        return get_jaxified_graph(inputs=inputs, outputs=outputs)  # type: ignore[no-any-return]


def _on_a_vector(
    model: Any, outputs: Sequence[Any]
) -> tuple[Callable[[Any, Any], list[Any]], np.ndarray]:
    """Return outputs of a model as a function of one vector, and the vector it starts at.

    A second argument are the model's :data:`LOG_SIZE`, if it has them.
    """
    point = _first_point(model)
    starts = [point[v.name] for v in model.value_vars]
    ends = np.cumsum([0, *(start.size for start in starts)])
    inputs, opened = list(model.value_vars), list(outputs)
    if sized := LOG_SIZE in model.named_vars:
        inputs, opened = _with_open_data(model, LOG_SIZE, opened)
    graph = _on_jax(inputs, opened)

    def evaluate(vector: Any, sizes: Any) -> list[Any]:
        parts = [
            vector[i:j].reshape(start.shape)
            for (i, j), start in zip(itertools.pairwise(ends), starts, strict=True)
        ]
        return list(graph(*parts, sizes) if sized else graph(*parts))

    return evaluate, np.concatenate([np.empty(0), *(start.ravel() for start in starts)])
