r"""Summaries of a family of effects, all levels at once.

What :func:`~spatialclusters.summaries.summarize_draws` says of one quantity, by the same formulas:
arviz takes them one by one, which for thousands of levels is what a report would wait for. Levels
whose draws are tied or not finite, or whose autocorrelation is long, are left to arviz.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from spatialclusters.summaries import CI_PROB, Moments, at_level, judge, summarize_draws

__all__ = ["summarize_levels"]

_LAGS: Final = 12
"""Autocovariances that are computed for all levels: chains that mix need fewer."""

_FEWEST: Final = 2 * (_LAGS + 4)  # draws of a chain
_TAIL: Final = (0.05, 0.95)
_BLOM: Final = 0.375


def summarize_levels(draws: np.ndarray, moments: Moments = None) -> Iterator[dict[str, Any]]:
    """Yield the summary of every level of a family.

    Parameters
    ----------
    draws
        Shape (chain, draw, level).
    moments
        Conditional mean and variance, each of the shape of ``draws``.

    Yields
    ------
    dict
        As :func:`~spatialclusters.summaries.summarize_draws` with ``family=True``.

    References
    ----------
    Vehtari et al. (2021), doi:10.1214/20-BA1221.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(2.0, 1.0, size=(4, 500, 3))
    >>> [round(each["estimate"]) for each in summarize_levels(draws)]
    [2, 2, 2]
    """
    by_level = np.ascontiguousarray(np.moveaxis(draws, 2, 0), dtype=float)
    flat = by_level.reshape(len(by_level), -1)
    ordered = np.sort(flat, axis=1)
    with np.errstate(invalid="ignore"):  # infinities
        regular = np.isfinite(ordered).all(axis=1) & (np.diff(ordered, axis=1) > 0.0).all(axis=1)
    if draws.shape[0] < 2 or draws.shape[1] < _FEWEST:
        regular[:] = False
    found = _regular(by_level[regular], ordered[regular]) if regular.any() else {}
    if moments is not None and regular.any():
        found |= _rao_blackwell(*(np.moveaxis(each, 2, 0)[regular] for each in moments))
    place = np.cumsum(regular) - 1
    for level in range(len(by_level)):
        own = {name: float(values[place[level]]) for name, values in found.items()}
        if not regular[level] or any(math.isnan(value) for value in own.values()):
            one = at_level(moments, level)
            yield summarize_draws(draws[..., level], family=True, moments=one)
            continue
        checks = {name: own[name] for name in ("ess_bulk", "ess_tail", "r_hat")}
        known = {"point": "mean", "ci_prob": CI_PROB, "ci_kind": "eti"}
        yield own | known | {"verdict": judge(checks, family=True)}


def _regular(draws: np.ndarray, ordered: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of finite, distinct draws (level, chain, draw); NaN where unsure."""
    flat, n = draws.reshape(len(draws), -1), ordered.shape[1]
    tail = (1.0 - CI_PROB) / 2.0
    low, high = (ordered[:, max(math.ceil(n * p) - 1, 0)] for p in (tail, 1.0 - tail))
    halves = _halves(draws)
    z = _normal_scores(halves)
    folded = np.abs(halves - np.median(halves, axis=(1, 2), keepdims=True))
    spread = np.std(flat, axis=1, ddof=1)
    ends = np.quantile(ordered, _TAIL, axis=1)[:, :, None, None]
    tails = [_ess(_halves((draws <= end).astype(float))) for end in ends]
    return {
        "estimate": flat.mean(axis=1),
        "std_error": spread,
        "ci_low": low,
        "ci_high": high,
        "prob_positive": np.mean(flat > 0.0, axis=1),
        "mcse": spread / np.sqrt(_ess(halves)),
        "ess_bulk": _ess(z),
        "ess_tail": np.minimum(*tails),
        "r_hat": np.maximum(_r_hat(z), _r_hat(_normal_scores(folded))),
    }


def _rao_blackwell(mean: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean, standard deviation and Monte Carlo error of the mean, as summaries do."""
    flat = mean.reshape(len(mean), -1)
    spread = np.sqrt(variance.reshape(len(mean), -1).mean(axis=1) + flat.var(axis=1, ddof=1))
    error = np.std(flat, axis=1, ddof=1) / np.sqrt(_ess(_halves(mean)))
    return {"estimate": flat.mean(axis=1), "std_error": spread, "mcse": error}


def _halves(draws: np.ndarray) -> np.ndarray:
    """Split every chain in two, (level, 2 chain, draw / 2)."""
    half = draws.shape[2] // 2
    return np.concatenate([draws[:, :, :half], draws[:, :, -half:]], axis=1)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Return normal quantiles of the ranks; the two smallest may be tied, as folded values are.

    Levels with other ties are NaN.
    """
    flat = values.reshape(len(values), -1)
    order = np.argsort(flat, axis=1)
    size = flat.shape[1]
    table = ndtri((np.arange(1.0, size + 1.0) - _BLOM) / (size - 2.0 * _BLOM + 1.0))
    scores = np.empty_like(flat)
    np.put_along_axis(scores, order, np.broadcast_to(table, flat.shape), axis=1)
    apart = np.diff(np.take_along_axis(flat, order, axis=1), axis=1) > 0.0
    tied = np.flatnonzero(~apart[:, 0])
    scores[tied[:, None], order[tied, :2]] = ndtri((1.5 - _BLOM) / (size - 2.0 * _BLOM + 1.0))
    scores[~apart[:, 1:].all(axis=1)] = np.nan
    return scores.reshape(values.shape)


def _r_hat(chains: np.ndarray) -> np.ndarray:
    n = chains.shape[2]
    between = n * chains.mean(axis=2).var(axis=1, ddof=1)
    within = chains.var(axis=2, ddof=1).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((between / within + n - 1) / n))


def _ess(chains: np.ndarray) -> np.ndarray:
    """Return the effective sample size of the mean, NaN where :data:`_LAGS` lags are too few."""
    levels, m, n = chains.shape
    means = chains.mean(axis=2)
    centered = chains - means[:, :, None]
    covariance = np.empty((levels, _LAGS + 1))
    for lag in range(_LAGS + 1):
        products = np.einsum("lcd,lcd->l", centered[:, :, : n - lag], centered[:, :, lag:])
        covariance[:, lag] = products / (m * n)
    mean_var = covariance[:, 0] * n / (n - 1.0)
    total = covariance[:, 0] + (means.var(axis=1, ddof=1) if m > 1 else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1.0 - (mean_var[:, None] - covariance) / total[:, None]
    rho[:, 0] = 1.0
    return np.array([m * n / _time(each.tolist(), m * n) for each in rho])


def _time(rho: list[float], draws: int) -> float:
    """Return the autocorrelation time: Geyer's initial monotone sequence, as arviz sums it."""
    kept, t = rho[:2], 1
    even, odd = kept
    while even + odd > 0.0:
        if t + 2 >= len(rho):
            return math.nan
        even, odd = rho[t + 1], rho[t + 2]
        kept += [even, odd] if even + odd >= 0.0 else [0.0, 0.0]
        t += 2
    last = t - 2
    if even > 0.0:
        kept[last + 1] = even
    for k in range(1, last - 1, 2):
        if kept[k + 1] + kept[k + 2] > kept[k - 1] + kept[k]:
            kept[k + 1] = kept[k + 2] = (kept[k - 1] + kept[k]) / 2.0
    return max(-1.0 + 2.0 * sum(kept[: last + 1]) + kept[last + 1], 1.0 / math.log10(draws))
