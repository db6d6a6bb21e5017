"""Location quotients, cluster strengths and growth, on the whole base-year panel.

All measures refer to the base year and are computed before any row is dropped:
a cell whose growth is unknown still counts in its cluster. Arrays have named
dimensions throughout. ``E_ir`` is employment of industry i in region r; sums
over an index drop it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.cells import CellRule, base_cells
from spatialclusters.errors import SpecError, listing, suggestion
from spatialclusters.panel import Panel
from spatialclusters.weights import Weights

__all__ = [
    "MEASURES",
    "cluster_strength",
    "cluster_sums",
    "compute_measures",
    "growth",
    "linked_strength",
    "location_quotient",
    "log_with_zeros",
    "neighbor_strength",
    "rest_of_cluster",
]

ZeroRule = Literal["drop", "minimum-and-dummy", "asinh", "log1p"]


def location_quotient(employment: xr.DataArray, scope: xr.DataArray | None = None) -> xr.DataArray:
    r"""Return ``(E_ir / E_r) / (E_i / E)``.

    Parameters
    ----------
    employment
        Shape (region, unit), persons; ``unit`` is industry or cluster.
    scope
        Boolean over unit: which units the totals ``E_r`` and ``E`` run over.
        Default all; the US Cluster Mapping Project uses the traded ones.

    Returns
    -------
    xarray.DataArray
        Same shape, a ratio without unit; NaN where a total is 0 or unknown.

    References
    ----------
    Delgado, Porter and Stern (2014), doi:10.1016/j.respol.2014.05.007.

    Examples
    --------
    >>> import xarray as xr
    >>> e = xr.DataArray([[10.0, 30.0], [10.0, 10.0]], dims=("region", "industry"))
    >>> location_quotient(e).values.round(3).tolist()
    [[0.75, 1.125], [1.5, 0.75]]
    """
    unit = _unit_of(employment)
    counted = employment if scope is None else employment.where(scope, 0.0)
    by_region, everything = counted.sum(unit, skipna=False), counted.sum(skipna=False)
    return _ratio(
        _ratio(employment, by_region), _ratio(employment.sum("region", skipna=False), everything)
    )


def cluster_sums(employment: xr.DataArray) -> xr.DataArray:
    """Sum employment (region, industry) to (region, cluster); industries without one drop out."""
    if "cluster" in employment.dims:
        return employment
    # labels stay Python strings: NumPy's would drop trailing NULs and pad to the longest
    cluster_of = employment["cluster_of"].values.astype(object)
    members = np.flatnonzero(cluster_of != "")
    codes, labels = pd.factorize(cluster_of[members], sort=True)
    order = members[np.argsort(codes, kind="stable")]
    starts = np.searchsorted(np.sort(codes), np.arange(len(labels)))
    values = employment.transpose("region", "industry").values[:, order]
    summed = np.add.reduceat(values, starts, axis=1) if len(order) else values
    return xr.DataArray(
        summed,
        dims=("region", "cluster"),
        coords={"region": employment["region"], "cluster": labels},
    )


def rest_of_cluster(employment: xr.DataArray) -> xr.DataArray:
    """Return ``E_cr - E_ir``: employment of the other industries of the cluster in the region.

    Unknown (NaN) only where one of the *other* industries is unknown.
    """
    unknown = employment.isnull()
    known = employment.fillna(0.0)
    others = _spread(cluster_sums(known), employment) - known
    unknown_others = _spread(cluster_sums(unknown.astype(np.float64)), employment) - unknown
    return others.where(unknown_others == 0.0)


def cluster_strength(employment: xr.DataArray, scope: xr.DataArray | None = None) -> xr.DataArray:
    """Return ``[(E_cr - E_ir) / E_r] / [(E_c - E_i) / E]``: the own industry is left out.

    Parameters
    ----------
    employment, scope
        As in :func:`location_quotient`, over (region, industry).

    Returns
    -------
    xarray.DataArray
        Same shape; NaN for the industries of one-industry clusters.

    References
    ----------
    Delgado, Porter and Stern (2014), doi:10.1016/j.respol.2014.05.007.

    Examples
    --------
    >>> import xarray as xr
    >>> e = xr.DataArray([[10.0, 30.0], [10.0, 10.0]], dims=("region", "industry"),
    ...                  coords={"cluster_of": ("industry", ["c", "c"])})
    >>> cluster_strength(e).values.round(3).tolist()
    [[1.125, 0.75], [0.75, 1.5]]
    """
    counted = employment if scope is None else employment.where(scope, 0.0)
    others = rest_of_cluster(employment)
    national = rest_of_cluster(employment.sum("region", skipna=False).expand_dims(region=["all"]))
    share = _ratio(others, counted.sum("industry", skipna=False))
    return _ratio(share, _ratio(national.squeeze("region", drop=True), counted.sum(skipna=False)))


def linked_strength(level: xr.DataArray, linkages: xr.DataArray) -> xr.DataArray:
    """Return ``sum_k L_ck LQ_kr / sum_k L_ck``: the strength of the linked clusters.

    Parameters
    ----------
    level
        Cluster location quotients, (region, cluster).
    linkages
        ``L`` from :func:`spatialclusters.read_linkages`, zero diagonal.

    Returns
    -------
    xarray.DataArray
        (region, cluster); NaN for clusters without a link.
    """
    weights = linkages.sel(cluster=level["cluster"], linked_cluster=level["cluster"].values).values
    total = weights.sum(axis=1, keepdims=True)
    share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0.0)
    matrix = level.transpose("region", "cluster").values
    linked = np.nan_to_num(matrix) @ share.T
    # a linked cluster with an unknown strength makes the sum unknown, an unlinked one does not
    touched = np.isnan(matrix).astype(np.float64) @ (share > 0.0).T
    linked[(touched > 0.0) | (total[:, 0] == 0.0)[None, :]] = np.nan
    return (
        level.copy(data=linked)
        if level.dims == ("region", "cluster")
        else xr.DataArray(
            linked,
            dims=("region", "cluster"),
            coords={"region": level["region"], "cluster": level["cluster"]},
        )
    )


def neighbor_strength(strength: xr.DataArray, weights: Weights) -> xr.DataArray:
    """Return ``sum_s w_rs x_cs``: the strength of the same cluster next door, in levels.

    Parameters
    ----------
    strength
        x over (region, unit), on all regions.
    weights
        Aligned to the regions of ``strength``.

    Returns
    -------
    xarray.DataArray
        Same shape; NaN for regions without neighbors.
    """
    if tuple(strength["region"].values) != weights.regions:
        msg = "weights: got another order of regions than the panel's; call align() first."
        raise ValueError(msg)
    ordered = strength.transpose("region", ...)
    lagged = np.asarray(weights.matrix @ ordered.values)
    isolated = np.isin(np.asarray(weights.regions), weights.isolates)
    lagged[isolated] = np.nan
    return ordered.copy(data=lagged)


@dataclass(frozen=True)
class _Inputs:
    employment: xr.DataArray
    scope: xr.DataArray | None
    weights: Weights | None
    linkages: xr.DataArray | None
    leave_out: bool

    def level(self) -> xr.DataArray:
        sums = cluster_sums(self.employment)
        if "cluster" in self.employment.dims:
            return location_quotient(self.employment, self.scope)
        # totals run over the industries in scope, also those without a cluster
        counted = self.employment if self.scope is None else self.employment.where(self.scope, 0.0)
        by_region = counted.sum("industry", skipna=False)
        national = _ratio(sums.sum("region", skipna=False), counted.sum(skipna=False))
        return _ratio(_ratio(sums, by_region), national)

    def linked(self) -> xr.DataArray:
        if self.linkages is None:
            msg = "linked_strength: got no linkage table; expected one. Pass linkages= or --linkages FILE."
            raise SpecError(msg)
        return linked_strength(self.level(), self.linkages)

    def neighbor(self) -> xr.DataArray:
        if self.weights is None:
            msg = "neighbor_strength: got no weights; expected spatial weights. Pass weights= or --weights."
            raise SpecError(msg)
        if self.leave_out and "industry" in self.employment.dims:
            return neighbor_strength(cluster_strength(self.employment, self.scope), self.weights)
        return neighbor_strength(self.level(), self.weights)


MEASURES: Final[dict[str, Callable[[_Inputs], xr.DataArray]]] = {
    "location_quotient": lambda given: location_quotient(given.employment, given.scope),
    "industry_strength": lambda given: location_quotient(given.employment, given.scope),
    "cluster_strength": lambda given: cluster_strength(given.employment, given.scope),
    "cluster_level": _Inputs.level,
    "linked_strength": _Inputs.linked,
    "neighbor_strength": _Inputs.neighbor,
    "rest_of_cluster": lambda given: rest_of_cluster(given.employment),
}
_NEEDS_INDUSTRIES: Final = ("industry_strength", "cluster_strength", "rest_of_cluster")


def compute_measures(
    panel: Panel,
    names: Sequence[str],
    variable: str,
    period: str | None,
    *,
    rule: CellRule,
    totals: Literal["all", "traded"] = "all",
    weights: Weights | None = None,
    linkages: xr.DataArray | None = None,
    neighbor_leave_out: bool = False,
) -> xr.Dataset:
    """Compute the named measures over (region, industry) or (region, cluster).

    Parameters
    ----------
    panel
        The whole base-year panel.
    names
        Keys of :data:`MEASURES`.
    variable, period
        Which variable counts as employment, and its base year's label.
    rule
        What withheld and absent cells count as.
    totals
        ``all``, or ``traded``: totals over units whose column ``traded`` is 1.
    weights
        Aligned to the panel, for ``neighbor_strength``.
    linkages
        For ``linked_strength``.
    neighbor_leave_out
        Leave industry i out of its neighbors' clusters as well.

    Raises
    ------
    SpecError
        A measure is unknown or needs industries, weights or linkages.
    """
    unit = panel.unit
    for name in names:
        if name not in MEASURES:
            msg = f"measures: got {name!r}; expected one of {listing(MEASURES)}."
            raise SpecError(msg + suggestion(name, MEASURES))
        if unit is None or (unit == "cluster" and name in _NEEDS_INDUSTRIES):
            need = "industry" if unit else "industry or cluster"
            msg = f"{name}: got a panel without a column {need!r}; expected one. Use another model."
            raise SpecError(msg)
        if unit == "industry" and "cluster_of" not in panel.data.coords and name not in (
            "location_quotient", "industry_strength"
        ):  # fmt: skip
            msg = (
                f"{name}: got a panel without a column 'cluster'; expected each industry's cluster."
            )
            raise SpecError(msg)
    given = _Inputs(
        employment=base_cells(panel, variable, period, rule)["value"],
        scope=_scope(panel, totals, period),
        weights=weights,
        linkages=linkages,
        leave_out=neighbor_leave_out,
    )
    return xr.Dataset({name: _spread(MEASURES[name](given), given.employment) for name in names})


def _scope(panel: Panel, totals: str, period: str | None) -> xr.DataArray | None:
    if totals == "all":
        return None
    if "traded" not in panel.variables:
        msg = "[measures] totals = 'traded': got no column 'traded'; expected 1 for traded units, else 0."
        raise SpecError(msg)
    return panel.values("traded", period).max("region") > 0.0


def growth(start: xr.DataArray, end: xr.DataArray, years: int, *, annualized: bool) -> xr.DataArray:
    """Return ``ln(E_t1 / E_t0)``, or that divided by the years between when annualized.

    Its unit is stored in the attributes ``unit`` and ``years``. NaN where a
    cell is unpublished or zero at either end.

    Examples
    --------
    >>> import xarray as xr
    >>> out = growth(xr.DataArray([100.0, 0.0]), xr.DataArray([110.0, 5.0]), 3, annualized=False)
    >>> out.values.round(4).tolist(), out.attrs["unit"]
    ([0.0953, nan], 'log change over 3 years')
    """
    change: xr.DataArray = xr.apply_ufunc(np.log, end.where(end > 0.0) / start.where(start > 0.0))
    unit = (
        "log change per year"
        if annualized
        else f"log change over {years} {'year' if years == 1 else 'years'}"
    )
    result = change / years if annualized else change
    return result.assign_attrs(unit=unit, years=years)


def log_with_zeros(values: np.ndarray, rule: ZeroRule) -> tuple[np.ndarray, np.ndarray | None]:
    """Take the log of values of which some are 0, by the named rule.

    Returns
    -------
    tuple
        The transformed values, NaN where the row is to be dropped, and for
        ``minimum-and-dummy`` (zeros become the smallest positive value of the
        sample) the indicator of those rows.

    Examples
    --------
    >>> import numpy as np
    >>> logs, dummy = log_with_zeros(np.array([0.0, 0.5, 1.0]), "minimum-and-dummy")
    >>> logs.round(3).tolist(), dummy.tolist()
    ([-0.693, -0.693, 0.0], [1.0, 0.0, 0.0])
    """
    if rule == "asinh":
        return np.arcsinh(values), None
    if rule == "log1p":
        return np.log1p(values), None
    zero = values == 0.0
    positive = np.where(zero, np.nan, values)
    if rule == "drop":
        return np.log(positive), None
    return np.log(np.where(zero, np.nanmin(positive), values)), zero.astype(np.float64)


def _unit_of(array: xr.DataArray) -> str:
    return "industry" if "industry" in array.dims else "cluster"


def _ratio(above: xr.DataArray, below: xr.DataArray) -> xr.DataArray:
    """Divide; 0 in the denominator gives NaN instead of an infinity."""
    return above / below.where(below != 0.0)


def _spread(by_cluster: xr.DataArray, employment: xr.DataArray) -> xr.DataArray:
    """Give every industry the value of its cluster; NaN where it has none."""
    if "industry" in by_cluster.dims or "cluster" in employment.dims:
        return by_cluster
    cluster_of = employment["cluster_of"].values
    known = {label: i for i, label in enumerate(by_cluster["cluster"].values)}
    position = np.array([known.get(label, -1) for label in cluster_of])
    values = by_cluster.transpose("region", "cluster").values
    spread = (
        np.where(position >= 0, values[:, position], np.nan)
        if values.size
        else np.full(employment.shape, np.nan)
    )
    coords = (
        {
            "region": by_cluster["region"],
            "industry": employment["industry"],
            "cluster_of": employment["cluster_of"],
        }
        if "industry" in employment.coords
        else {"cluster_of": employment["cluster_of"]}
    )
    return xr.DataArray(spread, dims=("region", "industry"), coords=coords)
