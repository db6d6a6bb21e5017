r"""Processes of the outcome: its spatial lag, that of its noise, or both.

With the lag L of the rows (:class:`~spatialclusters.lags.RowLag`), linear predictor
:math:`\eta` and noise :math:`\nu`,

.. math:: (I - \rho L) y = \eta + \epsilon, \quad (I - \lambda L) \epsilon = \nu

SAR has :math:`\rho` only, SEM :math:`\lambda` only, SAC both; with ``lag()`` terms in
:math:`\eta` they are SDM, SDEM and GNS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from spatialclusters.design import Design
from spatialclusters.lags import BlendedLag, RowLag
from spatialclusters.logdet import log_determinant
from spatialclusters.spec import ModelSpec

__all__ = ["OUTCOMES", "Outcome", "outcome_process"]

OUTCOMES: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "sar": ("rho",),
    "sem": ("lambda",),
    "sac": ("rho", "lambda"),
}
"""The processes, and the parameters that make them up."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A process on the rows of one design.

    Attributes
    ----------
    parameters
        Of ``rho`` and ``lambda`` those that are free; the other is zero.
    lag
        L, (N, N), through the means of cells.
    blend
        L as a function of the parameter of W where that is estimated; ``lag`` is then that of
        the reference.
    """

    parameters: tuple[str, ...]
    lag: RowLag
    blend: BlendedLag | None = None

    @property
    def support(self) -> tuple[float, float]:
        """Bounds of each parameter, where the process exists for every value between.

        With an estimated W, whose rows sum to at most one, they are -1 and 1.
        """
        if self.blend is not None:
            return -1.0, 1.0
        return self.lag.spectrum.lower, self.lag.spectrum.upper

    def at(self, values: Mapping[str, Any]) -> Outcome:
        """Return the process at the parameter of W among ``values``."""
        if self.blend is None:
            return self
        return Outcome(self.parameters, self.blend.at(values[self.blend.combination.parameter]))

    def log_jacobian(
        self, values: Mapping[str, Any], xp: Any = np, entries: Sequence[Any] | None = None
    ) -> Any:
        r"""Return :math:`\log|I - \rho L| + \log|I - \lambda L|`.

        With :math:`L = S W M` and :math:`M S = I` these are the determinants of W's
        filters over cells. ``entries`` are those of an estimated W, where they are arguments of
        a compiled function.
        """
        if self.blend is not None:
            psi = self.blend.combination
            c = psi.coefficients(values[psi.parameter], xp)
            return self.blend.determinant.log_determinant(values["rho"], c, xp, entries)
        return sum(log_determinant(self.lag.spectrum, values[name], xp) for name in self.parameters)

    def filtered(self, values: Mapping[str, Any], y: np.ndarray, mean: np.ndarray) -> np.ndarray:
        r"""Return the noise :math:`\nu` behind a response, (N,)."""
        lag = self.at(values).lag
        rho, lam = (values.get(name, 0.0) for name in ("rho", "lambda"))
        error = y - rho * (lag @ y) - mean
        return np.asarray(error - lam * (lag @ error))

    def response(
        self, values: Mapping[str, Any], mean: np.ndarray, noise: np.ndarray
    ) -> np.ndarray:
        r"""Return :math:`y = (I - \rho L)^{-1} (\eta + (I - \lambda L)^{-1} \nu)`, (N,)."""
        lag = self.at(values).lag
        rho, lam = (float(values.get(name, 0.0)) for name in ("rho", "lambda"))
        return lag.solve(rho, mean + lag.solve(lam, noise))


def outcome_process(spec: ModelSpec, design: Design) -> Outcome | None:
    """Return the process of the model's outcome on the rows of a design, if it has one."""
    parameters = OUTCOMES[spec.spatial.outcome]
    if not parameters:
        return None
    assert design.lag is not None  # building the design saw to it
    return Outcome(parameters, design.lag, design.blended_lag)
