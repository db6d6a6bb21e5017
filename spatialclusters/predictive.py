"""Replicated data beside the data: what the model would have shown, from posterior or prior."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from spatialclusters.errors import FitError, SpecError
from spatialclusters.result import Fit, once_per_fit
from spatialclusters.simulation import posterior_predictive, prior_predictive

__all__ = ["predictive_density", "predictive_statistics"]

_SEEN: Final = (0.002, 0.998)  # quantiles of the data between which densities are shown
_PRIOR: Final = (0.01, 0.99)  # of replicates from the prior


@once_per_fit
def predictive_statistics(
    fit: Fit, *, source: str = "posterior", draws: int = 200, seed: int = 1
) -> pd.DataFrame:
    r"""Compare statistics of the response with those of replicated responses.

    Parameters
    ----------
    fit
        A fit.
    source
        ``"posterior"`` or ``"prior"``: what parameters are drawn from.
    draws, seed
        Number of replicates and their seed.

    Returns
    -------
    pandas.DataFrame
        ``statistic``, ``observed``, ``replicated`` (median), ``ci_low``, ``ci_high`` (95 % of the
        replicates), ``p_value`` (share of replicates at least as large), ``inside``. In the
        unit of the response, except ``tails``: the range from the 1st to the 99th percentile
        over that between the quartiles, 3.45 for a normal.

    Raises
    ------
    FitError
        ``source`` is neither, or the prior cannot be drawn from.

    References
    ----------
    Gelman, Meng and Stern (1996), Statistica Sinica 6; Gabry et al. (2019),
    doi:10.1111/rssa.12378.
    """
    replicated = _replicates(fit, source, draws, seed)
    observed, seen = _statistics(fit.design.y[None, :]), _statistics(replicated)
    rows = []
    for name, values in seen.items():
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
        y = float(observed[name][0])
        rows.append(
            {
                "statistic": name,
                "observed": y,
                "replicated": float(middle),
                "ci_low": float(low),
                "ci_high": float(high),
                "p_value": float(np.mean(values >= y)),
                "inside": bool(low <= y <= high),
            }
        )
    return pd.DataFrame(rows)


@once_per_fit
def predictive_density(
    fit: Fit, *, source: str = "posterior", draws: int = 60, seed: int = 1, bins: int = 50
) -> pd.DataFrame:
    """Return the density of the response by bins, observed and replicated.

    Bins cover all but four in a thousand of the observed responses; from the prior, which may
    reach much further, all but two in a hundred of the replicated ones.

    Returns
    -------
    pandas.DataFrame
        ``low``, ``high`` (ends of a bin), ``observed``, ``replicated`` (mean), ``ci_low``,
        ``ci_high`` (95 % of replicates), per unit of the response; attribute ``beyond`` is the
        number of observed responses outside all bins.

    Raises
    ------
    FitError
        As for :func:`predictive_statistics`.
    """
    y, replicated = fit.design.y, _replicates(fit, source, draws, seed)
    reach = y if source == "posterior" else np.concatenate([y, replicated.ravel()])
    low, high = np.quantile(reach, _SEEN if source == "posterior" else _PRIOR)
    edges = np.linspace(low, high, min(bins, max(8, len(y) // 4)) + 1)
    width = float(edges[1] - edges[0]) * len(y)
    density = np.stack([np.histogram(each, edges)[0] for each in replicated]) / width
    ends = np.quantile(density, [0.025, 0.975], axis=0)
    frame = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "observed": np.histogram(y, edges)[0] / width,
            "replicated": density.mean(axis=0),
            "ci_low": ends[0],
            "ci_high": ends[1],
        }
    )
    frame.attrs["beyond"] = int(((y < low) | (y > high)).sum())
    return frame


def _replicates(fit: Fit, source: str, draws: int, seed: int) -> np.ndarray:
    if source == "posterior":
        return posterior_predictive(fit, draws=draws, seed=seed)
    if source != "prior":
        raise FitError(f"predictive: got source {source!r}; expected 'posterior' or 'prior'.")
    try:
        return prior_predictive(fit.spec, fit.design, draws=draws, seed=seed)
    except SpecError as cause:
        msg = f"prior predictive: got a prior that cannot be drawn from ({cause})"
        raise FitError(f"{msg}; expected proper priors and effects that are not fixed.") from cause


def _statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return statistics of each row of (draw, obs)."""
    q = np.quantile(values, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99], axis=1)
    return {
        "mean": values.mean(axis=1),
        "standard deviation": values.std(axis=1, ddof=1),
        "5th percentile": q[1],
        "median": q[3],
        "95th percentile": q[5],
        "range between quartiles": q[4] - q[2],
        "smallest": values.min(axis=1),
        "largest": values.max(axis=1),
        "tails": (q[6] - q[0]) / (q[4] - q[2]),
    }
