"""What a case of bad input is, and how one is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from tests.trust.made import PLAIN, fit_bytes, table

type Content = str | bytes | pd.DataFrame | Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """Files in a folder, the command that is given them, and what comes of it.

    Attributes
    ----------
    group, name
        What is wrong, and with what.
    says
        Part of the one message; of what is printed, if the input fits after all.
    words
        The command line, run in the folder of the files.
    files
        Content by name.
    fits
        Whether the input can be used, correctly.
    """

    group: str
    name: str
    says: str
    words: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict, repr=False)
    fits: bool = False

    def write(self, folder: Path) -> None:
        """Write the files."""
        for name, content in self.files.items():
            write(folder / name, content)


def write(path: Path, content: Any) -> None:
    """Write text, bytes, a frame in the format of the file's name, or what a function writes."""
    if isinstance(content, gpd.GeoDataFrame):
        content.to_parquet(path) if path.suffix == ".parquet" else content.to_file(path)
    elif isinstance(content, pd.DataFrame):
        if path.suffix == ".parquet":
            content.to_parquet(path)
        else:
            content.to_csv(path, index=False)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        content(path)


def validated(
    group: str,
    name: str,
    says: str,
    *words: str,
    fits: bool = False,
    spec: Content = PLAIN,
    data: Content | None = None,
    panel: str = "",
    **files: Content,
) -> Case:
    """A model, a table and more files by keyword, for ``validate`` (and ``fit``).

    ``weights_csv=...`` is a file ``weights.csv``; those called ``weights``, ``regions`` and
    ``linkages`` are handed to the option of that name. ``data`` in a frame goes to Parquet, so
    that types stay.
    """
    data = table() if data is None else data
    panel = panel or ("panel.parquet" if isinstance(data, pd.DataFrame) else "panel.csv")
    named = {key.replace("_", "."): content for key, content in files.items()}
    flags = [
        word
        for file in named
        if file.partition(".")[0] in ("weights", "regions", "linkages")
        for word in (f"--{file.partition('.')[0]}", file)
    ]
    given = ("validate", "model.toml", "--data", panel, *flags, *words)
    return Case(group, name, says, given, {"model.toml": spec, panel: data, **named}, fits)


def saved_fit(name: str, says: str, content: Content, *words: str, fits: bool = False) -> Case:
    """A file that claims to be a fit, for ``summary`` or another command."""
    return Case("Saved fit", name, says, words or ("summary", "fit.nc"), {"fit.nc": content}, fits)


def spoiled(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Return what writes the made-up fit and then changes it with h5py."""
    import h5py

    def make(path: Path) -> None:
        path.write_bytes(fit_bytes())
        with h5py.File(path, "r+") as file:
            change(file)

    return make


def flipped(at: float) -> bytes:
    """Return the made-up fit with one bit flipped, at a share of its length."""
    content = bytearray(fit_bytes())
    content[int(at * len(content))] ^= 0x10
    return bytes(content)
