"""How a target is sampled: NUTS, or proposals from a surrogate that the exact density judges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from spatialclusters.collapsed.mode import WarmStart
from spatialclusters.collapsed.surrogate import NU, log_proposal, surrogate_energy
from spatialclusters.exported import BLOCK, chain_key
from spatialclusters.program import Target, gradient_of

__all__ = [
    "SHORT_DEPTH",
    "Program",
    "Proposed",
    "agree",
    "begun",
    "make_program",
    "mixes",
    "moves_under",
    "student",
    "walked",
]

WARM_UP_DEPTH: Final = 7
"""At most 127 leapfrog steps an iteration while tuning."""

SHORT_DEPTH: Final = 2
"""In coordinates that are about standard normal, three long steps cross the posterior:
half the cost of a whole turn, and better tails (seven steps of half the length make
means antithetic and leave squares behind)."""

SHORT_ACCEPT: Final = {1: 0.85, 4: 0.75, 8: 0.55}
"""Acceptance that such trajectories aim at, from so many dimensions on: in a few dimensions
a low rate means steps at the limit of stability."""

MOST_MOVES: Final = 32
"""Moves under the surrogate before a proposal. Of draws from a multivariate t a third to nine in ten
are accepted there, the fewer the more dimensions there are."""

FAR: Final = 2**30
PILOTS: Final = 8
"""Chains with keys from here on, of two blocks, the first for burn-in, must agree where proposals
come from a surrogate."""

R_HAT_PROPOSED: Final = 1.2
"""In a thousand coordinates of such chains one is above 1.11 if three proposals in five are accepted."""


@dataclass(frozen=True)
class Program:
    """A sampler of one target; the data are an argument, not a constant.

    Attributes
    ----------
    gradient
        (z, data) to the potential energy and its gradient.
    start
        key to the first z.
    init
        (key, z, energy, gradient, data) to the first state, before any tuning.
    step
        (state, data) to the next state; tunes while ``state.i`` is below ``tune``.
    steps
        (state, data, n) to the next n states, stacked.
    record
        (state, key, data) to what is kept of a state.
    """

    gradient: Callable[[Any, Any], Any]
    start: Callable[[Any], Any]
    init: Callable[[Any, Any, Any, Any, Any], Any]
    step: Callable[[Any, Any], Any]
    steps: Callable[[Any, Any, int], Any]
    record: Callable[[Any, Any, Any], dict[str, Any]]

    def first(self, key: Any, data: Any) -> Any:
        """Return the first state of the chain with this key."""
        z = self.start(key)
        energy, slope = self.gradient(z, data)
        return self.init(key, z, energy, slope, data)


def make_program(target: Target, settings: Mapping[str, Any], warm: WarmStart | None) -> Program:
    """Compile the sampler that a warm start asks for.

    With a surrogate, proposals come from it. Otherwise NUTS: with a good warm start only the step
    size is tuned, else the mass matrix is too, a dense one where there was a warm start.

    Parameters
    ----------
    settings
        ``tune``, ``target_accept``, ``max_tree_depth``; the last two do not hold after a
        good warm start.
    """
    import jax

    if warm is not None and warm.proposes:
        start, init, steps, statistics = _proposing(target, len(warm.mode))
    else:
        start, init, steps, statistics = _nuts(target, settings, warm)

    def step(state: Any, data: Any) -> Any:
        return jax.tree_util.tree_map(lambda x: x[0], steps(state, data, 1))

    def record(state: Any, key: Any, data: Any) -> dict[str, Any]:
        # a state's place in its chain makes its key, so blocks of any length draw the same
        values = target.values(state.z, jax.random.fold_in(key, state.i), data)
        # what the target knows better holds: its lp does not depend on its coordinates
        return {f"stat {name}": value for name, value in statistics(state).items()} | values

    return Program(
        jax.jit(gradient_of(target)),
        jax.jit(start),
        jax.jit(init),
        jax.jit(step),
        jax.jit(steps, static_argnums=2),
        jax.jit(record),
    )


def mixes(program: Program, data: Any, seed: int) -> bool:
    """Tell whether short chains of proposals that start far apart agree.

    The points that judged a surrogate are where it has its mass; chains see where it has none.
    """
    runs = []
    for k in range(PILOTS):
        states = program.steps(program.first(chain_key(seed, FAR + k), data), data, 2 * BLOCK)
        runs.append(np.asarray(states.z)[BLOCK:])
    return agree(np.stack(runs))


def agree(draws: np.ndarray) -> bool:
    """Tell whether chains of proposals, (chain, draw, d), are of one distribution.

    Draws that are nearly independent have an R-hat close to one at once; chains that stand still
    where the surrogate has no mass have not.
    """
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1, "method": "rank"}
    worst = max(float(array_stats.rhat(x, **axes)) for x in np.moveaxis(draws, -1, 0))
    return worst < R_HAT_PROPOSED


def _nuts(target: Target, settings: Mapping[str, Any], warm: WarmStart | None) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp

    def kernel(potential: Callable[[Any], Any]) -> Any:
        from numpyro.infer import NUTS

        if warm is not None and warm.good:
            return NUTS(
                potential_fn=potential,
                target_accept_prob=max(
                    (d, rate) for d, rate in SHORT_ACCEPT.items() if d <= max(1, len(warm.mode))
                )[1],
                max_tree_depth=SHORT_DEPTH,
                adapt_mass_matrix=False,
            )
        return NUTS(
            potential_fn=potential,
            target_accept_prob=settings["target_accept"],
            # far from the typical set long trajectories are wasted: cut them while tuning
            max_tree_depth=(WARM_UP_DEPTH, settings["max_tree_depth"]),
            dense_mass=warm is not None,
        )

    def start(key: Any) -> Any:
        return target.start(jax.random.split(key)[0])

    def init(key: Any, z: Any, energy: Any, gradient: Any, data: Any) -> Any:  # noqa: ARG001
        _, run_key = jax.random.split(key)
        # the density is compiled elsewhere already: numpyro gets a stand-in for it
        state = kernel(_stand_in).init(run_key, settings["tune"], z, (), {})
        return state._replace(potential_energy=energy, z_grad=gradient)

    def steps(state: Any, data: Any, n: int) -> Any:
        def one(state: Any, _: None) -> tuple[Any, Any]:
            fresh = kernel(lambda z: target.potential(z, data))
            # numpyro sets the sampler up in init; its state is not used and compiles to nothing
            fresh.init(state.rng_key, settings["tune"], state.z, (), {})
            state = fresh.sample(state, (), {})
            return state, state

        return jax.lax.scan(one, state, length=n)[1]

    def statistics(state: Any) -> dict[str, Any]:
        return {
            "acceptance_rate": state.accept_prob,
            "diverging": state.diverging,
            "energy": state.energy,
            "n_steps": state.num_steps,
            "tree_depth": jnp.ceil(jnp.log2(state.num_steps + 1.0)).astype(int),
            "step_size": state.adapt_state.step_size,
            "lp": -state.potential_energy,
        }

    return start, init, steps, statistics


def _stand_in(z: Any) -> Any:
    import jax

    return sum(0.5 * (leaf**2).sum() for leaf in jax.tree_util.tree_leaves(z))


class Proposed(NamedTuple):
    """A state; ``weight`` is its log weight under the surrogate, ``ratio`` exact to surrogate."""

    i: Any
    rng_key: Any
    z: Any
    potential_energy: Any
    weight: Any
    ratio: Any
    accept_prob: Any


def moves_under(d: int) -> int:
    """Return how many moves under the surrogate of d coordinates make one proposal."""
    return min(2 * d, MOST_MOVES)


def student(normals: Any) -> Any:
    """Turn standard normals, (..., d + NU), into draws from a multivariate t, (..., d)."""
    return normals[..., :-NU] / (normals[..., -NU:] ** 2).mean(axis=-1, keepdims=True) ** 0.5


def begun(z: Any, energy: Any, rng_key: Any, data: Any) -> Proposed:
    """Return the state of a chain that is at z."""
    import jax.numpy as jnp

    approximate, weight = _judged(z, data)
    energy = jnp.nan_to_num(energy, nan=jnp.inf, posinf=jnp.inf)  # then any move is accepted
    return Proposed(jnp.array(0), rng_key, z, energy, weight, approximate - energy, jnp.array(1.0))


def walked(target: Target, state: Proposed, normals: Any, levels: Any, data: Any) -> Proposed:
    r"""Return the next n states, stacked, of a chain whose proposals are made under a surrogate.

    From the current state some independent proposals of a multivariate t are accepted or rejected
    under the surrogate s, in turn; where that ends is accepted with probability

    .. math:: \min\Big(1, \frac{p(z')\, s(z)}{p(z)\, s(z')}\Big)

    Moves under s are reversible with respect to s, any number of them, so this leaves the exact
    density p as it is, whatever the surrogate (Liu 2001, Monte Carlo Strategies in Scientific
    Computing, section 9.4.3; Christen and Fox 2005, doi:10.1198/106186005X76983). The density is
    evaluated once for each draw, without a gradient.

    Parameters
    ----------
    normals, levels
        Standard normals (n, moves, d + NU), and logarithms of uniform numbers (n, moves + 1).
    """
    import jax
    import jax.numpy as jnp

    n, moves = levels.shape[0], levels.shape[1] - 1

    def one(state: Proposed, fresh: Any) -> tuple[Proposed, Proposed]:
        z, approximate, weights, levels = fresh
        at, weight = jnp.array(-1), state.weight
        for k in range(moves):
            moved = levels[k] < weights[k] - weight
            at, weight = jnp.where(moved, k, at), jnp.where(moved, weights[k], weight)
        proposed = jnp.where(at < 0, state.z, z[at])
        energy = target.potential(proposed, data)
        before = state.potential_energy + state.ratio
        ratio = jnp.where(at < 0, before, approximate[at]) - energy
        # no number where the density has none: never accepted
        rate = jnp.minimum(1.0, jnp.nan_to_num(jnp.exp(ratio - state.ratio), nan=0.0))
        accepted = levels[moves] < jnp.log(rate)
        new = state._replace(z=proposed, potential_energy=energy, weight=weight, ratio=ratio)
        kept = jax.tree_util.tree_map(lambda a, b: jnp.where(accepted, a, b), new, state)
        kept = kept._replace(i=state.i + 1, accept_prob=rate)
        return kept, kept

    def block(state: Proposed, numbers: Any) -> tuple[Proposed, Proposed]:
        # what does not depend on the state is found for many steps at once, not for all: memory
        normals, levels = numbers
        z = student(normals)
        last, states = jax.lax.scan(one, state, (z, *_judged(z, data), levels))
        return last, states

    size = math.gcd(n, BLOCK)
    blocks = [x.reshape(n // size, size, *x.shape[1:]) for x in (normals, levels)]
    states = jax.lax.scan(block, state, tuple(blocks))[1]
    flat: Proposed = jax.tree_util.tree_map(lambda x: x.reshape(n, *x.shape[2:]), states)
    return flat


def _judged(z: Any, data: Any) -> tuple[Any, Any]:
    """Return the surrogate's energy, and the log weight of a draw from the t."""
    energy = surrogate_energy(z, data.warm.surrogate)
    return energy, -energy - log_proposal(z)


def _proposing(target: Target, d: int) -> tuple[Any, ...]:
    """Return a sampler whose proposals are made under a surrogate."""
    import jax
    import jax.numpy as jnp

    moves = moves_under(d)

    def start(key: Any) -> Any:
        return student(jax.random.normal(jax.random.split(key)[0], (d + NU,)))

    def init(key: Any, z: Any, energy: Any, gradient: Any, data: Any) -> Any:  # noqa: ARG001
        return begun(z, energy, jax.random.split(key)[1], data)

    def steps(state: Any, data: Any, n: int) -> Any:
        def random(i: Any) -> tuple[Any, Any]:
            one, other = jax.random.split(jax.random.fold_in(state.rng_key, i))
            return (
                jax.random.normal(one, (moves, d + NU)),
                jnp.log(jax.random.uniform(other, (moves + 1,))),
            )

        normals, levels = jax.vmap(random)(state.i + jnp.arange(n))
        return walked(target, state, normals, levels, data)

    def statistics(state: Any) -> dict[str, Any]:
        return {"acceptance_rate": state.accept_prob, "lp": -state.potential_energy}

    return start, init, steps, statistics
