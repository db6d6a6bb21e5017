"""Which level of a group is first, and how sure that is."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from spatialclusters.errors import FitError
from spatialclusters.result import Fit, once_per_fit

__all__ = ["rank_levels"]

_DRAWS: Final = 2000
_TOP: Final = 5


@once_per_fit
def rank_levels(
    fit: Fit, group: str, column: str = "1", *, ascending: bool = False
) -> pd.DataFrame:
    r"""Return the posterior of the rank of every level's effect.

    Rank 1 is the largest effect, or the smallest if ``ascending``. Ranks are taken within draws:
    the rank of posterior means says nothing of how often levels change places.

    Parameters
    ----------
    fit
        A fit.
    group, column
        As for :func:`spatialclusters.group_effects`.
    ascending
        Count from the smallest effect, as for slopes of convergence, where lower is faster.

    Returns
    -------
    pandas.DataFrame
        ``group``, ``rank`` (posterior mean), ``ci_low``, ``ci_high`` (95 %), ``prob_first``,
        ``prob_top`` (among the first ``top``), ``top``; the lowest mean rank first.

    Raises
    ------
    FitError
        The model has no such group or column.

    References
    ----------
    Goldstein and Spiegelhalter (1996), doi:10.2307/2983325.

    Examples
    --------
    >>> import xarray as xr
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.result import assemble
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("aabbcc"), "cluster": list("uvuvuv"),
    ...                       "y": [1.0, 2, 2, 3, 1, 4]})
    >>> spec = parse_spec('formula = "y ~ 1 + (1 | region)"')
    >>> draws = {"effect(region)": np.array([[0.1, 0.3, 0.2], [0.3, 0.1, 0.2]])[None, :, :, None]}
    >>> fit = assemble(spec, build_design(spec, read_panel(table)), draws, {},
    ...                panel=xr.Dataset(), geometry=None, provenance={})
    >>> rank_levels(fit, "region")[["group", "rank", "prob_first"]].values.tolist()
    [['a', 2.0, 0.5], ['b', 2.0, 0.5], ['c', 2.0, 0.0]]
    """
    known = {each.name: each for each in fit.design.groups}
    if group not in known or column not in known[group].labels:
        named = [f"({c} | {g.name})" for g in known.values() for c in g.labels]
        msg = (
            f"rank_levels: got ({column} | {group}); expected one of {', '.join(named) or 'none'}."
        )
        raise FitError(msg)
    chains, each = (fit.posterior.sizes[name] for name in ("chain", "draw"))
    step = max(1, chains * each // _DRAWS)
    at = {f"column({group})": known[group].labels.index(column), "draw": slice(None, None, step)}
    levels = known[group].levels
    effects = fit.draws(f"effect({group})", at).reshape(-1, len(levels))
    order = np.argsort(effects if ascending else -effects, axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(levels) + 1)[None, :], axis=1)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf")
    top = min(_TOP, len(levels))
    frame = pd.DataFrame(
        {
            "group": [str(level) for level in levels],
            "rank": ranks.mean(axis=0),
            "ci_low": low.astype(float),
            "ci_high": high.astype(float),
            "prob_first": (ranks == 1).mean(axis=0),
            "prob_top": (ranks <= top).mean(axis=0),
            "top": top,
        }
    )
    return frame.sort_values("rank", kind="stable", ignore_index=True)
