r"""Processes of the outcome: its spatial lag, that of its noise, or both.

With the lag L of the rows (:class:`~spatialclusters.lags.RowLag`), linear predictor
:math:`\eta` and noise :math:`\nu`,

.. math:: (I - \rho L) y = \eta + \epsilon, \quad (I - \lambda L) \epsilon = \nu

SAR has :math:`\rho` only, SEM :math:`\lambda` only, SAC both; with ``lag()`` terms in
:math:`\eta` they are SDM, SDEM and GNS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from spatialclusters.design import Design
from spatialclusters.lags import RowLag
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
    """

    parameters: tuple[str, ...]
    lag: RowLag

    @property
    def support(self) -> tuple[float, float]:
        """Bounds of each parameter, where the process exists for every value between."""
        return self.lag.spectrum.lower, self.lag.spectrum.upper

    def log_jacobian(self, values: Mapping[str, Any], xp: Any = np) -> Any:
        r"""Return :math:`\log|I - \rho L| + \log|I - \lambda L|`.

        With :math:`L = S W M` and :math:`M S = I` these are the determinants of W's
        filters over cells.
        """
        return sum(log_determinant(self.lag.spectrum, values[name], xp) for name in self.parameters)

    def filtered(self, values: Mapping[str, Any], y: np.ndarray, mean: np.ndarray) -> np.ndarray:
        r"""Return the noise :math:`\nu` behind a response, (N,)."""
        rho, lam = (values.get(name, 0.0) for name in ("rho", "lambda"))
        error = y - rho * (self.lag @ y) - mean
        return np.asarray(error - lam * (self.lag @ error))

    def response(
        self, values: Mapping[str, Any], mean: np.ndarray, noise: np.ndarray
    ) -> np.ndarray:
        r"""Return :math:`y = (I - \rho L)^{-1} (\eta + (I - \lambda L)^{-1} \nu)`, (N,)."""
        rho, lam = (float(values.get(name, 0.0)) for name in ("rho", "lambda"))
        return self.lag.solve(rho, mean + self.lag.solve(lam, noise))


def outcome_process(spec: ModelSpec, design: Design) -> Outcome | None:
    """Return the process of the model's outcome on the rows of a design, if it has one."""
    parameters = OUTCOMES[spec.spatial.outcome]
    if not parameters:
        return None
    assert design.lag is not None  # building the design saw to it
    return Outcome(parameters, design.lag)
