r"""What a fit says of estimated weights: how far spillovers reach, and whether the data know.

The parameter of :math:`W(\psi)` is identified only through what is lagged: where no lag matters
its posterior is its prior, whatever the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from spatialclusters.blends import Decay
from spatialclusters.errors import FitError, listing
from spatialclusters.estimates import estimates_frame
from spatialclusters.parameters import model_priors
from spatialclusters.result import Fit
from spatialclusters.spec import Prior
from spatialclusters.summaries import summarize_draws

__all__ = ["spillover_range", "uninformed_weights"]

_UNINFORMED: Final = (
    0.9  # posterior over prior standard deviation, from which on nothing was learned
)
_GRID: Final = 200  # values of delta between which mean distances are interpolated


def spillover_range(fit: Fit) -> pd.DataFrame:
    r"""Return how far an estimated decay reaches, in km.

    ``half_distance`` is the distance at which a weight is half of that at the unit distance u
    (the median distance to the nearest region): :math:`u 2^{1/\delta}`, or :math:`u + u \ln 2 /
    \delta` for an exponential decay; infinite at :math:`\delta = 0`. ``mean_distance`` is
    :math:`\sum_j w_{ij} d_{ij}`, averaged over regions with neighbors: within the cutoff, it
    does not exceed that, however slow the decay. Both come by draw and are summarized by medians.

    Parameters
    ----------
    fit
        With weights from :func:`spatialclusters.distance_decay`, estimated.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates; the term is ``delta``.

    Raises
    ------
    FitError
        The fit has no estimated decay.

    References
    ----------
    Halleck Vega and Elhorst (2015), doi:10.1111/jors.12188.
    """
    blend = None if fit.weights is None else fit.weights.blend
    if "delta" not in fit.posterior or not isinstance(blend, Decay):
        msg = "spillover range: got a fit without a distance decay that is estimated; expected one."
        raise FitError(f"{msg} Fit with --weights decay-power:KM and a lag.")
    delta = fit.draws("delta")
    with np.errstate(divide="ignore", over="ignore"):
        power = blend.form == "power"
        half = np.exp2(1.0 / delta) if power else 1.0 + math.log(2.0) / delta
    grid = np.linspace(*blend.support, _GRID)
    filled = np.diff(blend.distances.indptr) > 0
    means = [
        float(blend.weights(each).multiply(blend.distances).sum(axis=1)[filled].mean())
        for each in grid
    ]
    base = {"model": fit.spec.name, "estimator": "posterior", "term": "delta", "unit": "km"}
    found = {"half_distance": half, "mean_distance": np.interp(delta, grid, means)}
    return estimates_frame(
        base
        | {"effect": effect, "group": ""}
        | summarize_draws(blend.unit_km * draws, point="median", judged=delta)
        for effect, draws in found.items()
    )


def uninformed_weights(fit: Fit) -> str | None:
    """Say so if the posterior of estimated weights is hardly narrower than their prior.

    Returns
    -------
    str or None
        One sentence; None where the data say something, or no weights are estimated.
    """
    wide = [name for name, ratio in _ratios(fit) if ratio > _UNINFORMED]
    if not wide:
        return None
    return (
        f"The data say next to nothing about {listing(wide)} of the weights: the posterior is hardly "
        "narrower than the prior, so read neither it nor what depends on it as a finding."
    )


def _ratios(fit: Fit) -> Iterator[tuple[str, float]]:
    """Yield posterior over prior standard deviations of the parameters of estimated weights."""
    psi = fit.design.psi
    if psi is None:
        return
    prior = model_priors(fit.spec, fit.design)[psi.parameter].prior
    draws = fit.draws(psi.parameter)
    if psi.nodes:
        yield psi.parameter, float(draws.std(ddof=1)) / _prior_sd(prior, *psi.support)
        return
    for k, label in enumerate(psi.labels):
        spread = float(draws[..., k].std(ddof=1))
        yield f"the share of {label}", spread / _prior_sd(prior, 0.0, 1.0, len(psi.labels))


def _prior_sd(prior: Prior, low: float, high: float, n: int = 2) -> float:
    match prior.distribution:
        case "beta":
            total = prior.a + prior.b
            return (high - low) * math.sqrt(prior.a * prior.b / (total + 1.0)) / total
        case "dirichlet":
            return math.sqrt((n - 1) / (n * prior.concentration + 1.0)) / n
        case "uniform":
            return (min(high, prior.upper) - max(low, prior.lower)) / math.sqrt(12.0)
    msg = f"weights: got the prior {prior.describe()}, which they cannot have."
    raise ValueError(msg)
