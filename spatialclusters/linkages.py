"""A table of related clusters -> a matrix of linkage weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.errors import PanelError, close_to, counted, listing, suggestion
from spatialclusters.tables import out_of_range, read_table

__all__ = ["read_linkages"]

_LOG = logging.getLogger(__name__)


def read_linkages(
    source: str | Path | pd.DataFrame | Any,
    clusters: Sequence[str],
    *,
    strengths: Mapping[str, float] | None = None,
) -> xr.DataArray:
    """Read which clusters are linked, and how strongly.

    Links are directed as given: ``L[c, k]`` is the weight that cluster ``k``
    has in the linked strength of ``c``; ``L[c, c] = 0``.

    Parameters
    ----------
    source
        Columns ``cluster``, ``linked_cluster`` and optionally ``weight``
        (numbers). Without ``weight`` every link counts 1, unless ``strengths``
        maps the values of a text column ``strength`` to numbers.
    clusters
        The clusters of the panel, in order. Links to others are left out and
        counted in the attributes.
    strengths
        For example ``{"very strong": 3, "strong": 2, "lower": 1}``.

    Returns
    -------
    xarray.DataArray
        Shape (cluster, linked_cluster), non-negative, zero diagonal. Attributes:
        ``source``, ``digest``, ``links``, ``outside`` (links to clusters that
        the panel lacks), ``unlinked`` (clusters without a link) and ``notes``.

    Raises
    ------
    PanelError
        Missing columns, duplicate links, weights that are not finite or
        are negative, a strength without a number, or no cluster that the panel has.

    References
    ----------
    Delgado, Porter and Stern (2016), doi:10.1093/jeg/lbv017.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"cluster": ["a"], "linked_cluster": ["b"], "weight": [2.0]})
    >>> matrix = read_linkages(table, ["a", "b"])
    >>> matrix.values.tolist(), matrix.attrs["unlinked"]
    ([[0.0, 2.0], [0.0, 0.0]], ['b'])
    """
    frame, origin, digest = read_table(source, error=PanelError)
    for column in ("cluster", "linked_cluster"):
        if column not in frame.columns:
            msg = f"linkages: got columns {listing(frame.columns)}; expected a column {column!r}."
            others = {*map(str, frame.columns)} - {"cluster", "linked_cluster"}
            raise PanelError(msg + suggestion(column, sorted(others)))
    weight = _weights(frame, strengths)
    pairs = frame[["cluster", "linked_cluster"]].astype(str)
    twice = pairs[pairs.duplicated()]
    if len(twice):
        shown = listing(f"{c} -> {k}" for c, k in twice.itertuples(index=False))
        msg = f"linkages: got {len(twice)} links twice ({shown}); expected one row a link."
        raise PanelError(msg)
    notes = _few_known(pairs, clusters)
    position = {cluster: i for i, cluster in enumerate(clusters)}
    focal, linked = pairs["cluster"].map(position), pairs["linked_cluster"].map(position)
    known = (focal.notna() & linked.notna()).to_numpy()
    inside = known & (pairs["cluster"] != pairs["linked_cluster"]).to_numpy()
    matrix = np.zeros((len(clusters), len(clusters)))
    rows, columns = focal[inside].astype(int), linked[inside].astype(int)
    matrix[rows.to_numpy(), columns.to_numpy()] = weight[inside]
    unlinked = [
        cluster for cluster, total in zip(clusters, matrix.sum(axis=1), strict=True) if not total
    ]
    if unlinked:
        _LOG.info("linkages: %d clusters have no link: %s", len(unlinked), listing(unlinked))
    labels = np.array(clusters, dtype=object)
    return xr.DataArray(
        matrix,
        coords={"cluster": labels, "linked_cluster": labels},
        dims=("cluster", "linked_cluster"),
        attrs={
            "source": origin,
            "digest": digest,
            "links": int((matrix > 0).sum()),
            "outside": int((~known).sum()),
            "unlinked": unlinked,
            "notes": notes,
        },
    )


def _few_known(pairs: pd.DataFrame, clusters: Sequence[str]) -> list[str]:
    """Refuse linkages of other clusters than the table's; return a note if few are the table's.

    Raises
    ------
    PanelError
        Not one cluster of the linkages occurs in the table.
    """
    linked = sorted({*pairs["cluster"], *pairs["linked_cluster"]})
    known = len({*linked} & {*clusters})
    if not linked or 2 * known >= len(linked):
        return []
    others = [name for name in linked if name not in {*clusters}]
    alike = ((name, close_to(name.lower(), clusters)) for name in others)
    pair = next(((a, b) for a, b in alike if b is not None), (others[0], [*clusters, ""][0]))
    told = (
        f"{known} of {counted(len(linked), 'cluster')} of the linkages occur in the table: "
        f"{listing(pair[:1])} against {listing(pair[1:])}"
    )
    if not known:
        raise PanelError(
            f"linkages: got other clusters: {told}; expected the names of the table. Correct one."
        )
    _LOG.warning("linkages: %s", told)
    return [f"linkages: {told}"]


def _weights(frame: pd.DataFrame, strengths: Mapping[str, float] | None) -> np.ndarray:
    if strengths is not None:
        if "strength" not in frame.columns:
            msg = "linkages: got strengths but no column 'strength'; expected the text they map."
            raise PanelError(msg)
        numbers = frame["strength"].map(strengths)
        unknown = frame["strength"][numbers.isna()].unique()
        if len(unknown):
            msg = f"linkages: got strengths without a number: {listing(unknown)}. Add them to the map."
            raise PanelError(msg)
    elif "weight" not in frame.columns:
        return np.ones(len(frame))
    else:
        numbers = frame["weight"]
    if not pd.api.types.is_numeric_dtype(numbers):
        msg = (
            "linkages: got text in column 'weight'; expected numbers. Map a text with `strengths`."
        )
        raise PanelError(msg)
    weight = numbers.to_numpy(np.float64)
    bad = ~np.isfinite(weight) | (weight < 0.0) | out_of_range(weight)
    if bad.any():
        msg = (
            f"linkages: got weights that are missing, infinite, too large or negative in rows "
            f"{listing(np.flatnonzero(bad))}; expected numbers of at least 0."
        )
        raise PanelError(msg)
    return weight
