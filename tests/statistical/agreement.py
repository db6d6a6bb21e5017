"""Do two runs agree within their Monte Carlo error? Shared by the commands of this folder.

A summary of a quantity maps statistics (``mean``, ``sd``, ...) to their values and
``mcse_mean``, ``mcse_sd``, ... to their Monte Carlo errors.
"""

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.999
AXES = {"chain_axis": 0, "draw_axis": 1}
QUANTILES = {"q025": 0.025, "median": 0.5, "q975": 0.975}


def mean_and_sd(draws, moments=None):
    r"""Summarize draws (chain, draw) by mean and standard deviation.

    With conditional mean m and variance v per draw these are the Rao-Blackwell estimates
    :math:`\bar m` and :math:`\sqrt{\bar s}`, :math:`s = v + (m - \bar m)^2`, as the package
    reports them; the error of the second is that of :math:`\bar s` over twice the square root.
    """
    from arviz_stats.base import array_stats

    m, v = (draws, np.zeros_like(draws)) if moments is None else moments
    center = m.mean()
    squares = v + (m - center) ** 2
    # the n - 1 of a sample variance belongs to what m varies by
    spread = np.sqrt(v.mean() + m.var(ddof=1))
    varies = np.ptp(draws) > 0.0
    error, error_of_square = (
        float(array_stats.mcse(x, **AXES, method="mean")) if varies and np.ptp(x) > 0.0 else 0.0
        for x in (m, squares)
    )
    return {
        "mean": float(center),
        "sd": float(spread),
        "mcse_mean": error,
        "mcse_sd": error_of_square / (2.0 * float(spread)) if varies else 0.0,
    }


def median_and_interval(draws):
    """Summarize by median and central 95 %: means may not exist, or draws be infinite."""
    from arviz_stats.base import array_stats

    found = {
        name: float(np.quantile(draws, prob, method="inverted_cdf"))
        for name, prob in QUANTILES.items()
    }
    return found | {
        f"mcse_{name}": float(array_stats.mcse(draws, **AXES, method="quantile", prob=prob))
        for name, prob in QUANTILES.items()
    }


def bound(count):
    """Return the :data:`LEVEL` quantile of the largest of ``count`` absolute standard normals."""
    return float(stats.norm.ppf((1.0 + LEVEL ** (1.0 / count)) / 2.0))


def gaps(ours, theirs):
    """Compare two tables of summaries, one row a quantity.

    Returns
    -------
    pandas.DataFrame
        Quantity by statistic: differences over their combined Monte Carlo errors. Zero for
        what is the same without error, infinite for what differs without error or is not a
        number on one side; missing where neither has the statistic.
    """
    columns, found = ours.columns.union(theirs.columns, sort=False), {}
    ours, theirs = (table.reindex(columns=columns) for table in (ours, theirs))
    for name in columns:
        if f"mcse_{name}" not in columns:
            continue
        a, b = (table[name].to_numpy(float) for table in (ours, theirs))
        error = np.hypot(ours[f"mcse_{name}"], theirs[f"mcse_{name}"]).to_numpy(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(a - b) / error
        gap[a == b] = 0.0
        gap[~np.isfinite(gap)] = np.inf
        gap[np.isnan(a) & np.isnan(b)] = np.nan
        found[name] = gap
    return pd.DataFrame(found, index=ours.index)


def largest(table):
    """Return the largest gap, and its statistic and quantity in words."""
    stacked = table.stack()
    quantity, statistic = stacked.idxmax()
    return float(stacked.max()), f"{statistic} of {quantity}"
