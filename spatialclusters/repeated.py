"""Many data sets, or many chains, by one compiled sampler in this process.

:mod:`spatialclusters.sampling` starts a process per chain, which pays where a draw takes
milliseconds. Here what is compiled depends on the model and on the structure of the design alone;
responses, and the covariates of further designs, are its arguments.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from spatialclusters.collapsed.mode import FRESH, WarmStart
from spatialclusters.design import Design
from spatialclusters.errors import SamplingError, listing
from spatialclusters.exported import chain_key
from spatialclusters.kernels import Program, make_program, mixes
from spatialclusters.program import Target, build_target, gradient_of
from spatialclusters.sampling import Sampled, Settings
from spatialclusters.spec import ModelSpec

__all__ = [
    "RepeatedSampler",
    "chain_records",
    "gradients_of",
    "labeled",
    "on_points",
]


class RepeatedSampler:
    r"""A sampler that is compiled once and used for many data sets.

    Parameters
    ----------
    spec, design
        The model and its first data. Priors that come from the data, and the center and scale
        of the covariates, are those of this design for every data set.
    settings
        From :func:`spatialclusters.run.choose_settings`; of its chains and seed nothing is used.
    thin
        Of every so many iterations after tuning the last is kept.
    target
        What to sample; by default the posterior of the model.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcde"), "y": [1.0, 2.0, 2.5, 4.0, 4.5],
    ...                       "x": [0.0, 1.0, 2.0, 3.0, 4.0]})
    >>> spec = parse_spec('name = "line"\nformula = "y ~ x"')
    >>> settings = Settings(seed=1, tune=50, draws=50, engine="collapsed")
    >>> sampler = RepeatedSampler(spec, build_design(spec, read_panel(table)), settings)
    >>> up, down = np.array([1.0, 2.1, 2.9, 4.0, 5.1]), np.array([2.0, 1.1, -0.1, -1.0, -2.0])
    >>> [round(sampler.sample(y, seed=1).posterior["coefficient"].mean()) for y in (up, down)]
    [1, -1]
    """

    def __init__(
        self,
        spec: ModelSpec,
        design: Design,
        settings: Settings,
        *,
        thin: int = 1,
        target: Target | None = None,
    ) -> None:
        if not 1 <= thin <= settings.draws:
            msg = (
                f"repeated sampling: got thin = {thin}; expected 1 to {settings.draws}, the draws."
            )
            raise SamplingError(msg)
        self.spec, self.design, self.settings, self.thin = spec, design, settings, thin
        options = asdict(settings)
        self.target = target or build_target(spec, design, options, other_sizes=True)
        self._chains: dict[tuple[bool, bool], tuple[Program, Any]] = {}

    def sample(
        self, data: Design | np.ndarray | None = None, *, seed: int, chain: int = 0
    ) -> Sampled:
        """Draw one chain from the posterior given one data set.

        Parameters
        ----------
        data
            A response of the first design's rows; or a further design of the same structure:
            the same rows, terms, groups and weights, with other covariates, base-year sizes and
            response; by default the first design.
        seed, chain
            The chain's key is that of this chain of a fit with this seed.

        Returns
        -------
        Sampled
            Draws with dims (chain, draw, ...), one chain; timings are the seconds and, from the
            collapsed engine, the Pareto k of the warm start.

        Raises
        ------
        SamplingError
            The design has another structure; or other covariates, and the engine is full.
        """
        import jax

        started = time.perf_counter()
        other = self._standing_in(data) if isinstance(data, Design) else None
        y = self._response(data)
        key, extra = chain_key(seed, chain), () if other is None else (other,)
        warm, timings = None, {}
        if self.target.warm_up is not None:
            gradient, gradients = self._gradients
            warm = self.target.warm_up(
                gradient, y, seed, *extra, gradients=gradients,
                surrogate=self.settings.sampler != "nuts",
            )  # fmt: skip
            timings["pareto_k"] = float(warm.pareto_k)
        prepared = self.target.prepare(y, warm, *extra)
        program, draw = self._chain(warm)
        if warm is not None and warm.proposes and not mixes(program, prepared, seed):
            warm = warm._replace(acceptance=np.array(0.0))
            prepared = self.target.prepare(y, warm, *extra)
            program, draw = self._chain(warm)
        recorded = jax.device_get(draw(key, prepared))
        timings["wall_seconds"] = time.perf_counter() - started
        return labeled({name: values[None] for name, values in recorded.items()}, timings)

    @cached_property
    def _gradients(self) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
        import jax

        return on_points(jax.jit(gradients_of(self.target)))

    def _chain(self, warm: WarmStart | None) -> tuple[Program, Any]:
        """Return the sampler that a warm start asks for, and a whole chain of it."""
        kind = warm is not None and warm.good, warm is not None and warm.proposes
        if kind not in self._chains:
            program = make_program(self.target, asdict(self.settings), warm)
            self._chains[kind] = program, _whole_chain(program, self.settings, self.thin)
        return self._chains[kind]

    def _response(self, data: Design | np.ndarray | None) -> np.ndarray:
        given = self.design.y if data is None else data.y if isinstance(data, Design) else data
        y = np.asarray(given, dtype=float)
        if y.shape != (self.design.n_rows,) or not np.isfinite(y).all():
            got = "values that are not finite" if y.shape == (self.design.n_rows,) else y.shape
            msg = f"repeated sampling: got a response with {got}; expected a number for each of the"
            raise SamplingError(f"{msg} {self.design.n_rows} rows.")
        return y

    def _standing_in(self, other: Design) -> Design | None:
        """Return the first design with the covariates of another; None where they must be the same."""
        if changed := _differences(self.design, other):
            msg = f"repeated sampling: got a design with other {listing(changed)}; expected the"
            raise SamplingError(f"{msg} structure of the first. Make a sampler of its own for it.")
        names = [name for name in ("X", "X_blend", "size") if name in self.design.data]
        values = {name: (self.design.data[name].dims, other.data[name].values) for name in names}
        if self.target.warm_up is None and any(
            (self.design.data[name].values != x).any() for name, (_, x) in values.items()
        ):
            msg = "repeated sampling: got other covariates with engine full; expected the same."
            raise SamplingError(f"{msg} Use engine collapsed, or a sampler of its own.")
        if self.target.warm_up is None:
            return None
        return Design(self.design.data.assign(values), self.design.weights)


def gradients_of(target: Target) -> Callable[[Any, Any, Any], Any]:
    """Return the function of (points, n, data) to the energies and gradients of n first points."""
    import jax

    gradient = gradient_of(target)

    def gradients(points: Any, n: Any, data: Any) -> Any:
        def one(i: Any, found: Any) -> Any:
            energies, slopes = found
            energy, slope = gradient(points[i], data)
            return energies.at[i].set(energy), slopes.at[i].set(slope)

        nothing = jax.numpy.zeros(len(points)), jax.numpy.zeros_like(points)
        return jax.lax.fori_loop(0, n, one, nothing)

    return gradients


def on_points(
    gradients: Callable[[Any, Any, Any], Any],
) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """Return functions of one point and data, and of any number of points, from :func:`gradients_of`.

    One compiled function serves both: the search for a mode asks for a point at a time, a
    surrogate for hundreds.
    """

    def many(points: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
        energies: list[np.ndarray] = []
        slopes: list[np.ndarray] = []
        for first in range(0, len(points), FRESH):
            part = points[first : first + FRESH]
            padded = np.pad(part, ((0, FRESH - len(part)), (0, 0)))
            found = gradients(padded, np.array(len(part)), data)
            for parts, values in zip((energies, slopes), found, strict=True):
                parts.append(np.asarray(values)[: len(part)])
        return np.concatenate(energies), np.concatenate(slopes)

    def one(point: np.ndarray, data: Any) -> tuple[float, np.ndarray]:
        energies, slopes = many(point[None], data)
        return energies[0], slopes[0]

    return one, many


def labeled(recorded: dict[str, np.ndarray], timings: dict[str, Any]) -> Sampled:
    """Sort what was recorded, (chain, draw, ...), into its kinds."""
    kinds: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, values in recorded.items():
        kind, _, variable = name.partition(" ")
        kinds[kind][variable] = np.asarray(values)
    posterior, stats, means, variances = (
        kinds[kind] for kind in ("posterior", "stat", "mean", "variance")
    )
    return Sampled(posterior, stats, means, variances, timings)


def _chain_moves(program: Program, settings: Settings, thin: int) -> Callable[[Any, Any], Any]:
    """Return the function of key and data to the states that a chain keeps."""
    import jax

    def moves(key: Any, data: Any) -> Any:
        def some(state: Any, _: None) -> tuple[Any, Any]:
            state = jax.tree_util.tree_map(lambda x: x[-1], program.steps(state, data, thin))
            return state, state

        first = program.first(key, data)
        if thin == 1:
            states = program.steps(first, data, settings.tune + settings.draws)
            return jax.tree_util.tree_map(lambda x: x[settings.tune :], states)
        tuned = program.steps(first, data, settings.tune)
        tuned = jax.tree_util.tree_map(lambda x: x[-1], tuned)
        return jax.lax.scan(some, tuned, length=settings.draws // thin)[1]

    return moves


def chain_records(program: Program) -> Callable[[Any, Any, Any], dict[str, Any]]:
    """Return the function of states, their chain's key and data to what is kept of them."""
    import jax

    def records(states: Any, key: Any, data: Any) -> dict[str, Any]:
        recovery = jax.random.fold_in(key, 2**31 - 1)  # as in a chain of its own process
        # one state after the other: what recovering one takes may be large
        return dict(jax.lax.map(lambda state: program.record(state, recovery, data), states))

    return records


def _whole_chain(program: Program, settings: Settings, thin: int) -> Any:
    """Return a chain as one compiled function of key and data."""
    import jax

    moves, records = _chain_moves(program, settings, thin), chain_records(program)
    return jax.jit(lambda key, data: records(moves(key, data), key, data))


def _differences(first: Design, other: Design) -> list[str]:
    """Name the parts of two designs' structures that differ."""

    def same(name: str) -> bool:
        a, b = (design.data.get(name) for design in (first, other))
        if a is None or b is None:
            return a is b
        return a.shape == b.shape and bool((a.values == b.values).all())

    if first.n_rows != other.n_rows:
        return ["numbers of rows"]
    rows = ("row_region", "row_cluster", "row_industry")
    groups = (part for group in first.groups for part in (f"code_{group.name}", group.name))
    attributes = ("groups", "intercept", "blocks", "psi", "blended")
    changed = {
        "rows": not all(map(same, rows)),
        "terms": first.terms != other.terms,
        "groups or weights": any(
            first.data.attrs.get(a) != other.data.attrs.get(a) for a in attributes
        )
        or not all(map(same, groups)),
        "weights": (first.weights and first.weights.digest)
        != (other.weights and other.weights.digest),
    }
    return [name for name, differs in changed.items() if differs]
