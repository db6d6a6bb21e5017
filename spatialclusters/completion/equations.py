"""A Gaussian equation whose covariates and response change from one completed panel to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from spatialclusters.collapsed.hyperparameters import hyperparameter_model
from spatialclusters.collapsed.mode import WarmStart, stretch, unstretch
from spatialclusters.design import Design
from spatialclusters.exported import chain_key
from spatialclusters.kernels import Program, make_program
from spatialclusters.parameters import model_priors
from spatialclusters.program import Target, build_target, gradient_of
from spatialclusters.spec import ModelSpec, Prior, override

__all__ = ["Equation", "log_scale_density"]

_MOVES: Final = 2
"""Steps of the hyperparameters between two draws of the cells: their posterior moves little."""

_DEPTH: Final = 8
"""Of their trajectories, where the warm start is not good."""


@dataclass(frozen=True, eq=False)
class Equation:
    """One equation, compiled once; what it is conditioned on is an argument.

    Groups, priors and the scale of covariates are those of the first panel; rows may move to other
    classes of size.

    Attributes
    ----------
    spec, design
        Of the first panel, with every prior stated.
    target, program, warm
        The sampler of the hyperparameters.
    """

    spec: ModelSpec
    design: Design
    target: Target
    program: Program
    warm: WarmStart

    @classmethod
    def build(cls, spec: ModelSpec, design: Design, *, tune: int, seed: int) -> Equation:
        """Compile the equation, and find where its posterior is for the first panel."""
        import jax

        stated = {
            f'priors."{name}"': found.prior.model_dump()
            for name, found in model_priors(spec, design).items()
        }
        spec = override(spec, stated)
        settings = {"engine": "collapsed", "tune": tune, "target_accept": 0.8}
        settings |= {"max_tree_depth": _DEPTH}
        target = build_target(spec, design, settings, other_sizes=True)
        assert target.warm_up is not None  # the engine is collapsed
        gradient = jax.jit(gradient_of(target))
        warm = target.warm_up(gradient, design.y, seed)
        # the same function, so that it is compiled once
        program = replace(make_program(target, settings, warm), gradient=gradient)
        return cls(spec, design, target, program, warm)

    @cached_property
    def first(self) -> Any:
        """The state that a chain begins with: the mode given the first panel."""
        import jax

        z, data = jax.numpy.zeros(len(self.warm.mode)), self._data(self.design)
        energy, slope = self.program.gradient(z, data)
        return self.program.init(chain_key(0, 0), z, energy, slope, data)

    def at(
        self, y: np.ndarray, X: np.ndarray | None = None, size: np.ndarray | None = None
    ) -> Design:
        """Return the design with another response, covariates (standardized as the first), sizes."""
        data = self.design.data.assign(y=("obs", y))
        if size is not None:
            data = data.assign(size=("obs", size))
        if X is not None:
            data = data.assign(X=(("obs", "term"), X))
        return Design(data, self.design.weights)

    def step(self, state: Any, design: Design, key: Any) -> tuple[Any, dict[str, np.ndarray]]:
        """Move the hyperparameters given a panel, and draw coefficients and effects exactly.

        Returns
        -------
        tuple
            The next state, and parameters and effects by the names of a fit's posterior.
        """
        data = self._data(design)
        energy, gradient = self.program.gradient(state.z, data)
        state = state._replace(potential_energy=energy, z_grad=gradient)
        for _ in range(_MOVES):
            state = self.program.step(state, data)
        recorded = self.program.record(state, key, data)
        return state, {
            name.removeprefix("posterior "): np.asarray(value)
            for name, value in recorded.items()
            if name.startswith("posterior ")
        }

    def with_sigma(self, state: Any, sigma: float) -> Any:
        """Return the state with another scale of the noise, the other hyperparameters as they are.

        Energy and gradient are those of the state before: :meth:`step` computes them anew.
        """
        import jax

        at, prior = self._sigma
        point = np.array(stretch(np.asarray(state.z), self.warm)[0])
        if prior.distribution == "uniform":
            point[at] = np.log(sigma - prior.lower) - np.log(prior.upper - sigma)
        else:
            point[at] = np.log(sigma)
        return state._replace(z=jax.numpy.asarray(unstretch(point, self.warm)))

    @cached_property
    def _sigma(self) -> tuple[int, Prior]:
        """Place of the noise's scale among the unconstrained hyperparameters, and its prior."""
        model, _ = hyperparameter_model(self.spec, self.design)
        point, at = model.initial_point(), 0
        for variable in model.value_vars:
            if model.values_to_rvs[variable].name == "sigma":
                break
            at += np.size(point[variable.name])
        return at, self.spec.priors["sigma"]

    def _data(self, design: Design) -> Any:
        return self.target.prepare(design.y, self.warm, design)


def log_scale_density(prior: Prior) -> Callable[[Any], Any]:
    """Return the log density of the logarithm of a scale with this prior, up to a constant."""
    import jax.numpy as jnp
    from jax.scipy import stats

    def density(log_scale: Any) -> Any:
        scale = jnp.exp(log_scale)
        match prior.distribution:
            case "half_normal":
                value = stats.norm.logpdf(scale, 0.0, prior.sd)
            case "half_student_t":
                value = stats.t.logpdf(scale, prior.nu, 0.0, prior.sd)
            case "exponential":
                value = -prior.rate * scale
            case "uniform":
                inside = (prior.lower < scale) & (scale < prior.upper)
                value = jnp.where(inside, 0.0, -jnp.inf)
            case "inverse_scale":
                value = -log_scale
            case _:  # flat: no other prior of a scale is allowed
                value = 0.0
        return value + log_scale

    return density
