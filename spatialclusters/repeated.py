"""Many data sets of one structure by one compiled sampler, in this process.

:func:`spatialclusters.fit` starts a process per chain and compiles for its data. Here what is
compiled depends on the model and on the structure of the design alone; responses, and the
covariates of further designs, are its arguments.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from spatialclusters.collapsed.mode import WarmStart
from spatialclusters.design import Design
from spatialclusters.errors import SamplingError, listing
from spatialclusters.exported import chain_key
from spatialclusters.program import Program, Target, build_target, gradient_of, make_program
from spatialclusters.sampling import Sampled, Settings
from spatialclusters.spec import ModelSpec

__all__ = ["RepeatedSampler"]


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
        self._chains: dict[bool, Callable[[Any, Any], dict[str, Any]]] = {}

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
            warm = self.target.warm_up(self._gradient, y, seed, *extra, energies=self._energies)
            timings["pareto_k"] = float(warm.pareto_k)
        prepared = self.target.prepare(y, warm, *extra)
        recorded = jax.device_get(self._chain(warm)(key, prepared))
        kinds: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        for name, values in recorded.items():
            kind, _, variable = name.partition(" ")
            kinds[kind][variable] = np.asarray(values)[None]
        timings["wall_seconds"] = time.perf_counter() - started
        posterior, stats, means, variances = (
            kinds[kind] for kind in ("posterior", "stat", "mean", "variance")
        )
        return Sampled(posterior, stats, means, variances, timings)

    @cached_property
    def _gradient(self) -> Callable[[Any, Any], Any]:
        import jax

        return jax.jit(gradient_of(self.target))  # type: ignore[no-any-return]

    @cached_property
    def _energies(self) -> Callable[[Any, Any], Any]:
        import jax

        def energies(points: Any, data: Any) -> Any:
            return jax.lax.map(lambda z: self.target.potential(z, data), points)

        return jax.jit(energies)  # type: ignore[no-any-return]

    def _chain(self, warm: WarmStart | None) -> Callable[[Any, Any], dict[str, Any]]:
        """Return the chain that a warm start asks for: there are two, good ones and others."""
        good = warm is not None and warm.good
        if good not in self._chains:
            program = make_program(self.target, asdict(self.settings), warm)
            self._chains[good] = _whole_chain(program, self.settings, self.thin)
        return self._chains[good]

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


def _whole_chain(
    program: Program, settings: Settings, thin: int
) -> Callable[[Any, Any], dict[str, Any]]:
    """Return a chain as one compiled function of key and data."""
    import jax

    def chain(key: Any, data: Any) -> dict[str, Any]:
        def one(state: Any, _: None) -> tuple[Any, None]:
            return program.step(state, data), None

        def kept(state: Any, _: None) -> tuple[Any, Any]:
            state = jax.lax.scan(one, state, length=thin)[0]
            return state, state

        tuned = jax.lax.scan(one, program.first(key, data), length=settings.tune)[0]
        states = jax.lax.scan(kept, tuned, length=settings.draws // thin)[1]
        recovery = jax.random.fold_in(key, 2**31 - 1)  # as in a chain of its own process
        # one state after the other: what recovering one takes may be large
        return dict(jax.lax.map(lambda state: program.record(state, recovery, data), states))

    return jax.jit(chain)  # type: ignore[no-any-return]


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
