"""Many data sets, or many chains, by one compiled sampler in this process.

:mod:`spatialclusters.sampling` starts a process per chain, which pays where a draw takes
milliseconds. Here what is compiled depends on the model and on the structure of the design alone;
responses, and the covariates of further designs, are its arguments.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from spatialclusters.collapsed.mode import FRESH, WarmStart
from spatialclusters.design import Design
from spatialclusters.errors import SamplingError, listing
from spatialclusters.exported import chain_key
from spatialclusters.kernels import Program, agree, make_program, mixes
from spatialclusters.program import Target, build_target, gradient_of, may_propose
from spatialclusters.sampling import Sampled, Settings
from spatialclusters.spec import ModelSpec

__all__ = ["RepeatedSampler", "is_small", "sample_here"]

SMALL_EFFECTS: Final = 100
SMALL_ROWS: Final = 10_000
SMALL_LENGTH: Final = 25_000
"""Effects, rows, and iterations of a chain up to which it takes a few seconds at most. Where chains run
must not depend on how many there are."""

JUDGED: Final = 4
"""Chains that must agree."""


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
            warm = self.target.warm_up(
                self._gradient, y, seed, *extra, gradients=self._gradients,
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
        return _labeled({name: values[None] for name, values in recorded.items()}, timings)

    @cached_property
    def _gradient(self) -> Callable[[Any, Any], Any]:
        import jax

        return jax.jit(gradient_of(self.target))  # type: ignore[no-any-return]

    @cached_property
    def _gradients(self) -> Callable[[Any, Any], Any]:
        import jax

        gradient = gradient_of(self.target)
        many = jax.jit(lambda points, data: jax.lax.map(lambda z: gradient(z, data), points))

        def gradients(points: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
            # surrogates are drawn from without repetitions, hence any number of points
            n = len(points)
            padded = np.resize(points, (-(-n // FRESH) * FRESH, points.shape[1]))
            found = [many(part, data) for part in np.split(padded, len(padded) // FRESH)]
            energies, slopes = (np.concatenate(each)[:n] for each in zip(*found, strict=True))
            return energies, slopes

        return gradients

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


def is_small(design: Design, settings: Settings) -> bool:
    """Tell whether starting processes would take longer than sampling."""
    effects = sum(len(group.levels) * len(group.columns) for group in design.groups)
    return (
        settings.engine == "collapsed"
        and settings.sampler != "nuts"
        and effects <= SMALL_EFFECTS
        and design.n_rows <= SMALL_ROWS
        and settings.tune + settings.draws <= SMALL_LENGTH
    )


def sample_here(spec: ModelSpec, design: Design, settings: Settings) -> Sampled | None:
    """Run all chains in this process by the collapsed engine, if proposals come from a surrogate.

    Returns
    -------
    Sampled or None
        None where NUTS is needed, which may take long: there is no good surrogate, or chains that
        propose from it disagree.
    """
    import jax

    if not may_propose(spec):
        return None
    started, cpu = time.perf_counter(), time.process_time()
    target = build_target(spec, design, asdict(settings))
    assert target.warm_up is not None  # the engine is collapsed
    gradient = jax.jit(gradient_of(target))
    warm = target.warm_up(gradient, design.y, settings.seed, surrogate=True)
    if not warm.proposes:
        return None
    program = make_program(target, asdict(settings), warm)
    program = replace(program, gradient=gradient)  # which is compiled already
    data = target.prepare(design.y, warm)
    # always of so many chains: what is drawn must not depend on how many are asked for
    keys = [chain_key(settings.seed, k) for k in range(max(settings.chains, JUDGED))]
    move = jax.jit(_moves(program, settings, 1)).lower(keys[0], data).compile()
    moved, recorded, seconds = [], [], []
    for key in keys:
        begun = time.perf_counter(), time.process_time()
        moved.append(jax.block_until_ready(move(key, data)))
        seconds.append([time.perf_counter() - begun[0], time.process_time() - begun[1]])
    if not agree(np.stack([states.z for states in moved[:JUDGED]])):
        return None
    record = jax.jit(_records(program)).lower(moved[0], keys[0], data).compile()
    for key, states, spent in zip(keys[: settings.chains], moved, seconds, strict=False):
        begun = time.perf_counter(), time.process_time()
        recorded.append(jax.device_get(record(states, key, data)))
        spent[0] += time.perf_counter() - begun[0]
        spent[1] += time.process_time() - begun[1]
    timings = {
        **{name: float(value) for name, value in warm.judgments.items()},
        "preparation_cpu_seconds": time.process_time() - cpu - sum(spent for _, spent in seconds),
        "sampling_seconds": [wall for wall, _ in seconds],
        "cpu_seconds": [spent for _, spent in seconds],
        "wall_seconds": time.perf_counter() - started,
    }
    return _labeled(
        {name: np.stack([each[name] for each in recorded]) for name in recorded[0]}, timings
    )


def _labeled(recorded: dict[str, np.ndarray], timings: dict[str, Any]) -> Sampled:
    """Sort what was recorded, (chain, draw, ...), into its kinds."""
    kinds: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, values in recorded.items():
        kind, _, variable = name.partition(" ")
        kinds[kind][variable] = np.asarray(values)
    posterior, stats, means, variances = (
        kinds[kind] for kind in ("posterior", "stat", "mean", "variance")
    )
    return Sampled(posterior, stats, means, variances, timings)


def _moves(program: Program, settings: Settings, thin: int) -> Callable[[Any, Any], Any]:
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


def _records(program: Program) -> Callable[[Any, Any, Any], dict[str, Any]]:
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

    moves, records = _moves(program, settings, thin), _records(program)
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
