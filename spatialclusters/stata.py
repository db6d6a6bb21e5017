"""Stata's .dta files as tables in which ids are text and numbers stay numbers."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from spatialclusters.errors import listing

__all__ = ["read_stata"]


def read_stata(path: Path, ids: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read a .dta file; also return notes.

    Numbers with value labels stay numbers (1 is not "Traded"), but for ids: where these are
    labeled numbers, what Stata shows is the id. Years stay years, whatever their display format.

    Parameters
    ----------
    path
        Of the file.
    ids
        Names, in the file, of the columns that hold ids.

    Raises
    ------
    ValueError
        The file cannot be read, or ids are numbers without labels: their leading zeros are
        not known.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of labels is looked at below
            frame = pd.read_stata(path, convert_categoricals=False, convert_dates=False)
            numbers = [
                name
                for name in frame.columns
                if name in ids and pd.api.types.is_numeric_dtype(frame[name])
            ]
            shown = pd.read_stata(path, columns=numbers) if numbers else pd.DataFrame()
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, struct.error) as cause:
        msg = f"it is no Stata file, or is damaged: {cause}"
        raise ValueError(msg) from cause
    bare = [
        name
        for name in numbers
        if not all(isinstance(value, str) for value in shown[name].astype(object).dropna())
    ]
    if bare:
        msg = (
            f"ids in {listing(bare)} are numbers, and their leading zeros are not known; in Stata: "
            f"tostring {bare[0]}, replace format(%02.0f), with as many digits as codes have"
        )
        raise ValueError(msg)
    frame = frame.assign(**{name: shown[name].astype(object) for name in numbers})
    return frame, [f"ids are the value labels of {listing(numbers)}"] if numbers else []
