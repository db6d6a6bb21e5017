"""Fits that take less time than processes take to start: all chains in the calling one.

What their functions are traced from is the model and the data alone, so a later fit, with another
seed say, loads them: it neither builds the model nor traces.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from spatialclusters.collapsed.mode import FRESH, WarmStart
from spatialclusters.design import Design
from spatialclusters.exported import chain_key, compiled, serialized
from spatialclusters.kernels import Program, Proposed, agree, make_program
from spatialclusters.program import Search, build_target, may_propose
from spatialclusters.repeated import chain_moves, chain_records, gradients_of, labeled, on_points
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
    functions = _Functions(spec, design, settings)
    warm = functions.warm_start()
    if not warm.proposes:
        return None
    data = functions.target.prepare(design.y, warm)
    move = functions.moves(warm, data)
    # always of so many chains: what is drawn must not depend on how many are asked for
    chains = [np.array(k) for k in range(max(settings.chains, JUDGED))]
    moved, recorded, seconds = [], [], []
    for chain in chains:
        begun = time.perf_counter(), time.process_time()
        moved.append(jax.block_until_ready(move(chain, data)))
        seconds.append([time.perf_counter() - begun[0], time.process_time() - begun[1]])
    if not agree(np.stack([states.z for states in moved[:JUDGED]])):
        return None
    record = functions.records(warm, moved[0], data)
    for chain, states, spent in zip(chains[: settings.chains], moved, seconds, strict=False):
        begun = time.perf_counter(), time.process_time()
        recorded.append(jax.device_get(record(chain, states, data)))
        spent[0] += time.perf_counter() - begun[0]
        spent[1] += time.process_time() - begun[1]
    timings = {
        **{name: float(value) for name, value in warm.judgments.items()},
        "preparation_cpu_seconds": time.process_time() - cpu - sum(spent for _, spent in seconds),
        "sampling_seconds": [wall for wall, _ in seconds],
        "cpu_seconds": [spent for _, spent in seconds],
        "wall_seconds": time.perf_counter() - started,
    }
    return labeled(
        {name: np.stack([each[name] for each in recorded]) for name in recorded[0]}, timings
    )


class _Functions:
    """The compiled functions of a fit: loaded where an earlier one left them."""

    def __init__(self, spec: ModelSpec, design: Design, settings: Settings) -> None:
        options = asdict(settings)
        self.target = build_target(spec, design, options)
        self._y, self._settings = design.y, settings
        # seeds and numbers of chains share what is kept
        self._seed = np.array(options.pop("seed"))
        del options["chains"]
        self._shelf = shelf_of(spec, design, options)

    def warm_start(self) -> WarmStart:
        """Find the warm start, and a surrogate."""
        search = self._search()
        d = len(search.origin)

        def example() -> tuple[Any, ...]:
            data = self.target.prepare(self._y, WarmStart.identity(d))
            return gradients_of(self.target), np.zeros((FRESH, d)), np.array(0), data

        gradients = self._loaded("gradients", example)
        one, many = on_points(gradients)
        assert self.target.warm_up is not None  # the engine is collapsed
        return self.target.warm_up(
            one, self._y, int(self._seed), gradients=many, surrogate=True, search=search
        )

    def moves(self, warm: WarmStart, data: Any) -> Callable[[Any, Any], Proposed]:
        """Return the function of a chain's number and data to its states after tuning."""

        def of_chain(seed: Any, chain: Any, data: Any) -> Any:
            states = chain_moves(self._program(warm), self._settings, 1)
            return states(chain_key(seed, chain), data)

        loaded = self._loaded("moves", lambda: (of_chain, self._seed, np.array(0), data))
        return lambda chain, data: Proposed(*loaded(self._seed, chain, data))

    def records(
        self, warm: WarmStart, states: Proposed, data: Any
    ) -> Callable[[Any, Proposed, Any], dict[str, Any]]:
        """Return the function of a chain's number, its states and data to what is kept of them."""

        def of_chain(seed: Any, chain: Any, states: Any, data: Any) -> Any:
            return chain_records(self._program(warm))(states, chain_key(seed, chain), data)

        loaded = self._loaded("records", lambda: (of_chain, self._seed, np.array(0), states, data))
        return lambda chain, states, data: loaded(self._seed, chain, states, data)

    def _program(self, warm: WarmStart) -> Program:
        return make_program(self.target, asdict(self._settings), warm)

    def _search(self) -> Search:
        search = self.target.search
        assert search is not None  # the engine is collapsed

        def found() -> bytes:
            values = {name: x.tolist() for name, x in search()._asdict().items()}
            return json.dumps(values).encode()

        kept = json.loads(self._shelf.content("search.json", found))
        return Search(np.array(kept["origin"], dtype=float), np.array(kept["logarithms"], bool))

    def _loaded(self, name: str, make: Callable[[], tuple[Any, ...]]) -> Callable[..., Any]:
        """Return a function of pytrees, of which ``make`` gives one with example arguments."""
        import jax

        content = self._shelf.content(f"{name}.stablehlo", lambda: serialized(*make()))
        function = compiled(content)
        return lambda *arguments: function(*jax.tree_util.tree_leaves(arguments))
