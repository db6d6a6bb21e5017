"""Fits that take less time than processes take to start: all chains in the calling one.

What their functions are traced from is the model and the data alone, so a later fit, with another
seed say, loads them: it neither builds the model nor traces.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any, Final

import jax
import numpy as np

from spatialclusters.collapsed.mode import FRESH, WarmStart
from spatialclusters.collapsed.surrogate import NU
from spatialclusters.design import Design
from spatialclusters.exported import chain_key, compiled, serialized
from spatialclusters.kernels import (
    agree,
    begun,
    make_program,
    moves_under,
    student,
    walked,
)
from spatialclusters.program import Search, build_target, may_propose
from spatialclusters.repeated import chain_records, gradients_of, labeled, on_points
from spatialclusters.sampling import Sampled, Settings
from spatialclusters.shelf import shelf_of
from spatialclusters.spec import ModelSpec

__all__ = ["is_small", "sample_here"]

SMALL_EFFECTS: Final = 100
SMALL_ROWS: Final = 10_000
SMALL_LENGTH: Final = 25_000
"""Effects, rows, and iterations of a chain up to which it takes a few seconds at most. Where chains run
must not depend on how many there are."""

JUDGED: Final = 4
"""Chains that must agree."""

WAITING: Final = 0.1
"""Effective draws a draw below which a chain has waited where its surrogate has too little mass. Chains
that have not waited have some 0.3 and more."""

_PLACE: Final = "place"


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
        propose from it disagree or wait.
    """
    if not may_propose(spec):
        return None
    started, cpu = time.perf_counter(), time.process_time()
    functions = _Functions(spec, design, settings)
    warm = functions.warm_start()
    if not warm.proposes:
        return None
    chain = functions.chain(warm)
    drawn, seconds = [], []
    # always of so many chains: what is drawn must not depend on how many are asked for
    for k in range(max(settings.chains, JUDGED)):
        at = time.perf_counter(), time.process_time()
        drawn.append(jax.device_get(chain(k)))
        seconds.append([time.perf_counter() - at[0], time.process_time() - at[1]])
    places = np.stack([each.pop(_PLACE) for each in drawn][:JUDGED])
    if not (agree(places) and _effective(places) > WAITING):
        return None
    timings = {
        **{name: float(value) for name, value in warm.judgments.items()},
        "preparation_cpu_seconds": time.process_time() - cpu - sum(spent for _, spent in seconds),
        "sampling_seconds": [wall for wall, _ in seconds],
        "cpu_seconds": [spent for _, spent in seconds],
        "wall_seconds": time.perf_counter() - started,
    }
    return labeled(
        {name: np.stack([each[name] for each in drawn[: settings.chains]]) for name in drawn[0]},
        timings,
    )


def _effective(draws: np.ndarray) -> float:
    """Return the effective draws a draw of the worst coordinate, from (chain, draw, d)."""
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1, "method": "bulk"}
    sizes = [float(array_stats.ess(x, **axes)) for x in np.moveaxis(draws, -1, 0)]
    return min(sizes) / draws[..., 0].size


class _Functions:
    """The compiled functions of a fit: loaded where an earlier one left them."""

    def __init__(self, spec: ModelSpec, design: Design, settings: Settings) -> None:
        options = asdict(settings)
        self._target = build_target(spec, design, options)
        self._y, self._settings = design.y, settings
        # seeds, numbers of chains and their lengths share what is kept
        for name in ("seed", "chains", "tune", "draws"):
            del options[name]
        self._shelf = shelf_of(spec, design, options)

    @cached_property
    def _search(self) -> Search:
        search = self._target.search
        assert search is not None  # the engine is collapsed

        def found() -> bytes:
            values = {name: x.tolist() for name, x in search()._asdict().items()}
            return json.dumps(values).encode()

        kept = self._shelf.take("search.json", found, json.loads)
        return Search(np.array(kept["origin"], dtype=float), np.array(kept["logarithms"], bool))

    @cached_property
    def _gradients(self) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
        def example() -> tuple[Any, ...]:
            d = len(self._search.origin)
            data = self._target.prepare(self._y, WarmStart.identity(d))
            return gradients_of(self._target), np.zeros((FRESH, d)), np.array(0), data

        return on_points(self._loaded("gradients", example))

    def warm_start(self) -> WarmStart:
        """Find the warm start, and a surrogate."""
        assert self._target.warm_up is not None  # the engine is collapsed
        one, many = self._gradients
        return self._target.warm_up(
            one, self._y, self._settings.seed, gradients=many, surrogate=True, search=self._search
        )

    def chain(self, warm: WarmStart) -> Callable[[int], dict[str, Any]]:
        """Return the function of a chain's number to what is kept of it, and its places.

        Random numbers of the proposals come from NumPy, in a fifth of the time, and need no code
        that has to be compiled and loaded.
        """
        data = self._target.prepare(self._y, warm)
        d, tune, seed = len(warm.mode), self._settings.tune, self._settings.seed
        length, moves = tune + self._settings.draws, moves_under(d)
        energies = self._gradients[1]

        def whole(
            z: Any, energy: Any, normals: Any, levels: Any, numbers: Any, data: Any
        ) -> dict[str, Any]:
            key = chain_key(*numbers)
            states = walked(self._target, begun(z, energy, key, data), normals, levels, data)
            states = jax.tree_util.tree_map(lambda x: x[tune:], states)
            program = make_program(self._target, asdict(self._settings), warm)
            return chain_records(program)(states, key, data) | {_PLACE: states.z}

        def arguments(k: int) -> tuple[Any, ...]:
            # as a child: default_rng([seed, 0]) would be that of the warm start
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,)))
            z = student(rng.standard_normal(d + NU))
            energy = energies(z[None], data)[0][0]
            normals = rng.standard_normal((length, moves, d + NU))
            levels = -rng.standard_exponential((length, moves + 1))
            return z, energy, normals, levels, np.array([seed, k]), data

        name = f"chain-{tune}-{length - tune}"
        loaded = self._loaded(name, lambda: (whole, *arguments(0)), named=True)
        return lambda k: dict(loaded(*arguments(k)))

    def _loaded(
        self, name: str, make: Callable[[], tuple[Any, ...]], *, named: bool = False
    ) -> Callable[..., Any]:
        """Return a function of pytrees, of which ``make`` gives one with example arguments."""
        function = self._shelf.take(
            f"{name}.stablehlo", lambda: serialized(*make(), named=named), compiled
        )
        return lambda *arguments: function(*jax.tree_util.tree_leaves(arguments))
