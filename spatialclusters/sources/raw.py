"""Files as agencies send them -> a table of text, read in a stream."""

from __future__ import annotations

import csv
import gzip
import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import polars as pl
import polars.exceptions as pl_errors

from spatialclusters.errors import PanelError, listing

__all__ = [
    "RawFile",
    "bad_numbers",
    "collected",
    "number",
    "opened",
    "refuse_bad_numbers",
    "require",
]

_ZIP: Final = b"PK\x03\x04"
_GZIP: Final = b"\x1f\x8b"
_GROWTH, _SMALL = 200, 2**26  # how many times larger a large archive's content may be
_TAIL: Final = 1_000_000  # bytes: longer than any line
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class RawFile:
    """An uncompressed text file with the name and digest of what was given."""

    text: Path
    name: str
    digest: str

    def header(self, separator: str = ",", *, lower: bool = True) -> list[str]:
        """Return the names of the columns, lower-cased unless asked not to.

        Raises
        ------
        PanelError
            No columns, a name twice, or a web page in place of a table.
        """
        with self.text.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = file.readline(1_000_000)
        names = [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
        names = [name.lower() for name in names] if lower else names
        if len(names) < 2 or line.lstrip().startswith("<"):
            msg = (
                f"{self.name}: got a first line {line[:60]!r}; expected column names separated by "
                f"{separator!r}. Download the file again, or save it as the agency sent it."
            )
            raise PanelError(msg)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"{self.name}: got the columns {listing(twice)} twice; expected each once."
            raise PanelError(msg)
        return names

    def scan(self, names: list[str], separator: str = ",") -> pl.LazyFrame:
        """Return all columns as text, with ``line`` counted as an editor does.

        Raises
        ------
        PanelError
            The last line is shorter than the first: the file is cut off.
        """
        self._refuse_cut(len(names), separator)
        return pl.scan_csv(
            self.text, separator=separator, infer_schema=False, new_columns=names,
            encoding="utf8-lossy", row_index_name="line", row_index_offset=2, glob=False,
        ).with_columns(pl.col(names).str.strip_chars())  # fmt: skip

    def _refuse_cut(self, width: int, separator: str) -> None:
        with self.text.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            last = file.read().decode("utf-8", errors="replace").strip("\r\n").splitlines()[-1]
        found = len(next(csv.reader([last], delimiter=separator), []))
        if found != width:
            msg = (
                f"{self.name}: got {found} values in the last line; expected {width}. The file is cut "
                "off: download it again."
            )
            raise PanelError(msg)


@contextmanager
def opened(path: str | Path, *, sha256: str | None = None) -> Iterator[RawFile]:
    """Open a text file, or the only one in a zip or gzip file, after checking its digest.

    Raises
    ------
    PanelError
        No such file, another digest than ``sha256``, a truncated archive, several
        tables in one archive, or UTF-16 text.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            start = file.read(4)
    except OSError as cause:
        problem = "no such file" if isinstance(cause, FileNotFoundError) else cause.strerror
        msg = f"{path.name[:80]}: got {problem}; expected a file as the agency sends it."
        raise PanelError(f"{msg} Check the path.") from cause
    if sha256 is not None and digest != sha256.lower():
        msg = (
            f"{path.name}: got the SHA-256 {digest}; expected {sha256[:64]}. The file is truncated, "
            "revised or another one: download it again, or state the digest of this one."
        )
        raise PanelError(msg)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "table.txt"
        try:
            if start == _ZIP:
                _unzip(path, text)
            elif start[:2] == _GZIP:
                with gzip.open(path) as packed, text.open("wb") as plain:
                    _unpack(packed, plain, path)
            else:
                text = path
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as cause:
            msg = (
                f"{path.name}: got a damaged archive ({cause}). It is truncated: download it again."
            )
            raise PanelError(msg) from cause
        with text.open("rb") as plain:
            _refuse_binary(plain, path.name)
        yield RawFile(text, path.name, digest)


def _unzip(path: Path, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        if len(members) != 1:
            msg = (
                f"{path.name}: got {len(members)} files in the archive "
                f"({listing(m.filename for m in members)}); expected one. Unpack it and name one."
            )
            raise PanelError(msg)
        with archive.open(members[0]) as packed, target.open("wb") as plain:
            _unpack(packed, plain, path)  # reading to the end checks the CRC


def _unpack(packed: IO[bytes] | gzip.GzipFile, plain: IO[bytes], path: Path) -> None:
    """Copy, unless there is no end: tables shrink 20 times at most, and bombs 1,000 times."""
    most, written = max(_SMALL, _GROWTH * path.stat().st_size), 0
    while block := packed.read(2**20):
        plain.write(block)
        written += len(block)
        if written > most:
            msg = f"{path.name}: got over {most} bytes out of an archive of {path.stat().st_size};"
            raise PanelError(f"{msg} expected a table. Download the file again.")


def _refuse_binary(file: IO[bytes], name: str) -> None:
    start = file.read(4096)
    if not start.strip():
        msg = f"{name}: got an empty file; expected a table. Download it again."
        raise PanelError(msg)
    if start[:2] in _UTF16 or b"\0" in start:
        msg = (
            f"{name}: got UTF-16 or binary content; expected UTF-8 or Latin-1 text. Save it as CSV."
        )
        raise PanelError(msg)


def require(name: str, columns: Iterable[str], needed: Iterable[str], what: str) -> None:
    """Refuse a table that lacks columns.

    Raises
    ------
    PanelError
        With the missing columns, and those that came.
    """
    have = list(columns)
    missing = [column for column in needed if column not in have]
    if missing:
        msg = (
            f"{name}: got no column {listing(missing, 20)} among {listing(have, 40)}; expected those "
            f"of {what}. Check the year and the kind of the file."
        )
        raise PanelError(msg)


def collected(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
    """Run a query in a stream, and restore the order of lines, which a stream does not keep.

    Rows with too many values become an error of the file.

    Raises
    ------
    PanelError
        The text cannot be read as a table, or has no rows.
    """
    try:
        found = frame.collect(engine="streaming")
    except pl_errors.PolarsError as cause:
        msg = (
            f"{name}: got text that cannot be read as a table ({' '.join(str(cause).split())[:160]}). "
            "Download the file again."
        )
        raise PanelError(msg) from cause
    if not found.height:
        msg = f"{name}: got no rows that were asked for; expected at least one. Check the choice."
        raise PanelError(msg)
    return found.sort("line", maintain_order=True) if "line" in found.columns else found


def number(column: str, missing: tuple[str, ...] = ()) -> pl.Expr:
    """Return a text column as float64: null where it is empty, ``missing`` or not a number."""
    text = pl.col(column)
    return pl.when(~text.is_in(missing)).then(text.cast(pl.Float64, strict=False))


def bad_numbers(columns: Iterable[str], missing: tuple[str, ...] = ()) -> pl.Expr:
    """Name the columns of a row that hold neither a number nor one of ``missing``.

    An empty one counts: it is what a line cut off by a broken download looks like.
    """
    return pl.concat_str(
        [
            pl.when(pl.col(c).is_null() | (~pl.col(c).is_in(missing) & ~_readable(c))).then(
                pl.lit(f" {c}")
            )
            for c in columns
        ],
        ignore_nulls=True,
    )


def _readable(column: str) -> pl.Expr:
    value = pl.col(column).cast(pl.Float64, strict=False)
    return (value.is_finite() & (value >= 0)).fill_null(value=False)


def refuse_bad_numbers(frame: pl.DataFrame, name: str) -> None:
    """Refuse rows in which :func:`bad_numbers` (column ``bad``) found something.

    Raises
    ------
    PanelError
        With the first lines and their columns.
    """
    rows = frame.filter(pl.col("bad") != "")
    if rows.height:
        shown = listing(
            f"line {line}:{bad}" for line, bad in rows.select("line", "bad").head(8).rows()
        )
        msg = (
            f"{name}: got {rows.height} rows with values that are not counts ({shown}); expected "
            "numbers of at least 0. The file is cut off or was edited: download it again."
        )
        raise PanelError(msg)
