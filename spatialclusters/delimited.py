"""CSV files as text, whichever program wrote them, and what is wrong with a number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from spatialclusters.errors import listing

__all__ = ["number_advice", "points", "read_delimited"]

_HEADER: Final = 1_000_000  # bytes of a first line
_DECIMAL_COMMA: Final = r"\s*[+-]?\d+,\d+\s*"
_GROUPED: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:[,.'’ \u00a0\u202f]\d{3})+")


def read_delimited(path: Path) -> tuple[pd.DataFrame, Literal["", ".", ","]]:
    """Read a CSV file as text, and say which decimal sign its numbers have.

    Where commas are decimal signs, spreadsheets put semicolons between the columns: such a file
    is known by a first line with semicolons and without commas. The sign is a comma if any of
    its numbers has one, otherwise a point; it is empty for a file with commas between columns,
    whose numbers can have a point only.

    What pandas repairs is an error: rows longer than the header, which it shifts, and a name
    that comes twice, to which it adds a number.

    Raises
    ------
    ValueError
        The text is not UTF-8, a name comes twice, or rows are longer than the header.
    """
    with path.open("rb") as file:
        header = file.readline(_HEADER)
    semicolons = b";" in header and b"," not in header
    as_text: dict[str, Any] = {
        "dtype": str,
        "keep_default_na": False,
        "encoding": "utf-8-sig",
        "sep": ";" if semicolons else ",",
    }
    text: pd.DataFrame = pd.read_csv(path, **as_text)
    names = pd.read_csv(path, header=None, nrows=1, **as_text).iloc[0]
    if twice := names[names.duplicated() & (names != "")].unique().tolist():
        msg = f"it has the columns {listing(twice)} twice"
        raise ValueError(msg)
    if not isinstance(text.index, pd.RangeIndex):
        msg = "its rows have more values than its header has names"
        raise ValueError(msg)
    if not semicolons:
        return text, ""
    commas = any(values.str.fullmatch(_DECIMAL_COMMA).any() for _, values in text.items())
    return text, "," if commas else "."


def points(values: pd.Series[Any], decimal: str) -> pd.Series[Any]:
    """Write numbers of a file with semicolons with a decimal point; what may be grouped stays text.

    Examples
    --------
    >>> points(pd.Series(["4455,5", "1.234", "7"]), ",").tolist()
    ['4455.5', '1.234?', '7']
    """
    if decimal == ",":
        doubtful = values.str.contains(".", regex=False)
        plain = values.str.replace(",", ".", regex=False)
    else:
        doubtful, plain = values.map(lambda value: _GROUPED.fullmatch(value) is not None), values
    return plain.mask(doubtful, values + "?")


def number_advice(values: Iterable[object]) -> str:
    """Say how to write what should have been numbers.

    Examples
    --------
    >>> number_advice(["5,372"])
    "Write '5,372' as 5372 if the sign groups thousands, as 5.372 if it is the decimal sign."
    >>> number_advice(["4455,5"])
    "Write '4455,5' with a decimal point: 4455.5."
    """
    for value in values:
        text = str(value).strip().rstrip("?")[:40]
        if _GROUPED.fullmatch(text):
            bare = re.sub(r"[^\d+-]", "", text)
            if len(re.findall(r"[^\d+-]", text)) > 1:
                return f"Write {text!r} as {bare}: no sign groups thousands."
            split = re.sub(r"[^\d+-]", ".", text)
            return (
                f"Write {text!r} as {bare} if the sign groups thousands, as {split} if it is the "
                "decimal sign."
            )
        if re.fullmatch(_DECIMAL_COMMA, text):
            return f"Write {text!r} with a decimal point: {text.replace(',', '.')}."
        if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+,\d+|[+-]?\d{1,3}(,\d{3})+\.\d+", text):
            return f"Write {text!r} without a sign that groups thousands, and with a decimal point."
    return "Leave withheld cells empty."
