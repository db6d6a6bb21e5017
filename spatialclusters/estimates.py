"""The one tidy frame in which every estimator reports.

A posterior, a fixed-effects regression and a derived quantity all become rows
with the same columns, so that anything downstream (tables, plots, comparison,
JSON) needs to know one vocabulary only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

__all__ = ["COLUMNS", "EFFECTS", "estimates_frame", "estimates_json"]

COLUMNS: Final = (
    "model",
    "estimator",
    "term",
    "effect",
    "group",
    "unit",
    "estimate",
    "point",
    "std_error",
    "ci_low",
    "ci_high",
    "ci_prob",
    "ci_kind",
    "prob_positive",
    "mcse",
    "ess_bulk",
    "ess_tail",
    "r_hat",
    "verdict",
)
"""Columns in order. ``point`` says what the estimate is (mean, median, OLS, ...)."""

EFFECTS: Final = (
    "coefficient",
    "direct",
    "indirect",
    "total",
    "order_k",
    "spill_in",
    "spill_out",
    "change",
    "speed",
    "half_life",
    "half_distance",
    "mean_distance",
    "per_sd",
    "per_sd_within",
    "p25_p75",
    "plus10pct",
    "prediction",
    "counterfactual",
    "sd",
    "correlation",
    "spatial",
)
"""What a row may be an estimate of."""

_TEXT = ("model", "estimator", "term", "effect", "group", "unit", "point", "ci_kind", "verdict")


def estimates_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Build the tidy frame; columns that a row does not have are missing.

    Parameters
    ----------
    rows
        One mapping per estimate, keys among :data:`COLUMNS`.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`; text columns hold strings or ``None``, the
        others float64.

    Raises
    ------
    ValueError
        A key or an effect is not in the vocabulary.

    Examples
    --------
    >>> frame = estimates_frame([{"term": "log(x)", "effect": "coefficient", "estimate": -0.1}])
    >>> frame["term"].item(), frame["estimate"].item()
    ('log(x)', -0.1)
    """
    listed = [dict(row) for row in rows]
    for row in listed:
        unknown = set(row) - set(COLUMNS)
        if unknown or row.get("effect", "coefficient") not in EFFECTS:
            msg = f"estimates: got keys {sorted(unknown)} and effect {row.get('effect')!r}; see COLUMNS"
            raise ValueError(msg)
    columns: dict[str, pd.Series[Any]] = {}
    for name in COLUMNS:
        values = [row.get(name) for row in listed]
        if name in _TEXT:
            columns[name] = pd.Series(values, dtype=object)
        else:
            columns[name] = pd.Series(
                [np.nan if value is None else float(value) for value in values], dtype=np.float64
            )
    return pd.DataFrame(columns)


def estimates_json(frame: pd.DataFrame) -> str:
    """Serialize to JSON records: missing is null, infinity the string ``"inf"``.

    Examples
    --------
    >>> estimates_json(estimates_frame([{"term": "x", "estimate": float("inf")}]))[:60]
    '[{"model": null, "estimator": null, "term": "x", "effect": n'
    """
    records = [
        {str(key): _plain(value) for key, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]
    return json.dumps(records, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, np.integer):
        return int(value)
    return value
