"""Files of the agencies, downloaded once into a folder, where their digests are recorded.

Nothing is downloaded unless it is asked for, and a file that is in the folder is never
downloaded again. The package ships no digests: agencies revise their files, and a digest
can only say that a file is the one of last time, or the one of somebody else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from spatialclusters._version import __version__
from spatialclusters.errors import PanelError, listing
from spatialclusters.files import replace_file

__all__ = [
    "AgencyFile", "Download", "cbp_file", "download", "download_folder", "eurostat_file", "qcew_file",
]  # fmt: skip

FOLDER: Final = "SPATIALCLUSTERS_DOWNLOADS"
"""Environment variable that names the folder."""

# where the agencies keep their files; a dictionary so that tests can serve their own
AGENCIES: Final = {
    "cbp": "https://www2.census.gov/programs-surveys/cbp/datasets",
    "qcew": "https://data.bls.gov/cew/data/files",
    "eurostat": "https://ec.europa.eu/eurostat/api/dissemination/sdmx/2.1/data",
}
_KINDS: Final = {"county": "co", "state": "st", "msa": "msa", "nation": "us"}
_PACKED: Final = {".zip": b"PK\x03\x04", ".gz": b"\x1f\x8b"}
_RECORD: Final = ".sha256"
_TIMEOUT: Final = 60  # seconds without an answer
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgencyFile:
    """A file that an agency serves.

    Attributes
    ----------
    url
        Where it is.
    name
        Name under which it is kept.
    """

    url: str
    name: str


@dataclass(frozen=True)
class Download:
    """A file in the folder, and what is known of its content.

    Attributes
    ----------
    path
        The file.
    digest
        Its SHA-256, in hexadecimal.
    url
        Where it comes from.
    trust
        ``given``: the digest was stated; ``recorded``: it is that of the first download;
        ``first use``: nothing vouches for the content but the server's word. It is
        recorded from now on.
    fetched
        Whether it was downloaded now; otherwise it was in the folder.
    """

    path: Path
    digest: str
    url: str
    trust: Literal["given", "recorded", "first use"]
    fetched: bool

    def describe(self) -> str:
        """Say in one line where the file comes from and what vouches for it."""
        vouched = {
            "given": "its SHA-256 is the one that was stated",
            "recorded": "its SHA-256 is the recorded one",
            "first use": "nothing vouches for its SHA-256, which is recorded from now on",
        }
        where = "downloaded from" if self.fetched else "taken from the folder of downloads; address"
        return f"{where} {self.url}; {vouched[self.trust]}"


def cbp_file(
    year: int, *, geography: Literal["county", "state", "msa", "nation"] = "county"
) -> AgencyFile:
    """Name a file of County Business Patterns.

    Parameters
    ----------
    year
        Reference year, from 1986.
    geography
        ``county``, ``state``, ``msa`` (metropolitan areas; none in the first years) or ``nation``.

    Raises
    ------
    PanelError
        There is no such file.

    Examples
    --------
    >>> cbp_file(2018).name, cbp_file(2001, geography="nation").name
    ('cbp18co.zip', 'cbp01us.txt')
    """
    if geography not in _KINDS:
        msg = f"cbp: got geography {geography!r}; expected one of {listing(_KINDS)}. Choose one."
        raise PanelError(msg)
    _check_year("cbp", year, 1986)
    # national files were not packed before 2008
    ending = "txt" if geography == "nation" and year < 2008 else "zip"
    name = f"cbp{year % 100:02d}{_KINDS[geography]}.{ending}"
    return AgencyFile(f"{AGENCIES['cbp']}/{year}/{name}", name)


def qcew_file(year: int, *, system: Literal["naics", "sic"] = "naics") -> AgencyFile:
    """Name an annual single file of the Quarterly Census of Employment and Wages.

    Parameters
    ----------
    year
        From 1990 by NAICS, 1975 to 2000 by SIC.
    system
        Classification of the industries.

    Raises
    ------
    PanelError
        There is no such file.

    Examples
    --------
    >>> qcew_file(2018).name, qcew_file(1988, system="sic").name
    ('2018_annual_singlefile.zip', 'sic_1988_annual_singlefile.zip')
    """
    if system not in ("naics", "sic"):
        msg = f"qcew: got the classification {system!r}; expected 'naics' or 'sic'. Choose one."
        raise PanelError(msg)
    _check_year("qcew", year, 1990 if system == "naics" else 1975)
    if system == "sic":
        if year > 2000:
            msg = f"qcew: got {year} by SIC; expected 1975 to 2000. Take the file by NAICS."
            raise PanelError(msg)
        name = f"sic_{year}_annual_singlefile.zip"
        return AgencyFile(f"{AGENCIES['qcew']}/{year}/sic/csv/{name}", name)
    name = f"{year}_annual_singlefile.zip"
    return AgencyFile(f"{AGENCIES['qcew']}/{year}/csv/{name}", name)


def eurostat_file(table: str) -> AgencyFile:
    """Name the TSV file of a table of Eurostat.

    Parameters
    ----------
    table
        Its code, for example ``sbs_r_nuts2021``.

    Raises
    ------
    PanelError
        It cannot be a code.

    Examples
    --------
    >>> eurostat_file("sbs_r_nuts2021").name
    'sbs_r_nuts2021.tsv.gz'
    """
    if not re.fullmatch(r"[A-Za-z0-9_$]{2,64}", table):
        msg = (
            f"eurostat: got {table[:80]!r}; expected the code of a table such as 'sbs_r_nuts2021'."
        )
        raise PanelError(msg)
    table = table.lower()
    url = f"{AGENCIES['eurostat']}/{table}?format=TSV&compressed=true"
    return AgencyFile(url, f"{table}.tsv.gz")


def download_folder() -> Path:
    """Return the folder for downloads: ``SPATIALCLUSTERS_DOWNLOADS``, or the user's cache."""
    place = os.environ.get(FOLDER)
    if place:
        return Path(place)
    import pooch

    return Path(pooch.os_cache("spatialclusters"))


def download(
    file: AgencyFile | str, *, sha256: str | None = None, folder: str | Path | None = None
) -> Download:
    """Get a file from the folder, or from its agency if it is not there.

    The first download of a file is trusted, and its digest recorded beside it
    (``NAME.sha256``, as ``sha256sum --check`` reads it). From then on the file must have that
    digest. A file appears in the folder whole or not at all.

    Parameters
    ----------
    file
        From ``cbp_file``, ``qcew_file`` or ``eurostat_file``; or an address.
    sha256
        Digest that the file must have, in hexadecimal. Without it, the recorded one.
    folder
        Where files are kept; by default :func:`download_folder`.

    Raises
    ------
    PanelError
        The file is not in the folder and cannot be downloaded whole, or has another digest.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:  # somebody has put the file there
    ...     _ = (Path(place) / "cbp18co.zip").write_bytes(b"content")
    ...     download(cbp_file(2018), folder=place).trust
    'first use'
    """
    file = (
        AgencyFile(file, PurePosixPath(urlsplit(file).path).name) if isinstance(file, str) else file
    )
    _check_file(file, sha256)
    place = download_folder() if folder is None else Path(folder)
    path, record = place / file.name, place / f"{file.name}{_RECORD}"
    recorded = _read_record(record)
    expected = sha256.lower() if sha256 is not None else recorded
    fetched = not path.is_file()
    if fetched:
        _fetch(file, place, expected)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if expected is not None and digest != expected:
        whose = "that was stated" if sha256 is not None else f"recorded in {record.name}"
        msg = (
            f"{file.name}: got a file with the SHA-256 {digest}; expected {expected}, the one {whose}. "
            "It is damaged, or another one: remove it to download it again, or state the digest of this one."
        )
        raise PanelError(msg)
    if recorded != digest:
        replace_file(record, lambda out: out.write(f"{digest}  {file.name}\n".encode()))
    trust: Literal["given", "recorded", "first use"] = (
        "given" if sha256 is not None else "recorded" if recorded is not None else "first use"
    )
    if trust == "first use":
        _LOG.warning(
            "downloads: nothing vouches for the content of %s; its SHA-256 %s is recorded, and the file "
            "must have it from now on", file.name, digest,
        )  # fmt: skip
    return Download(path, digest, file.url, trust, fetched)


def _check_year(source: str, year: int, first: int) -> None:
    if not first <= year <= 2100:
        msg = f"{source}: got the year {year}; expected one from {first} on. Choose it."
        raise PanelError(msg)


def _check_file(file: AgencyFile, sha256: str | None) -> None:
    if urlsplit(file.url).scheme not in ("http", "https") or not urlsplit(file.url).hostname:
        msg = f"downloads: got the address {file.url[:120]!r}; expected http:// or https://. Correct it."
        raise PanelError(msg)
    if not re.fullmatch(r"[A-Za-z0-9_][\w.\-]{0,120}", file.name):
        msg = f"downloads: got an address that ends in {file.name[:80]!r}; expected the name of a file."
        raise PanelError(msg)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        msg = f"{file.name}: got the SHA-256 {sha256[:80]!r}; expected 64 hexadecimal digits. State them."
        raise PanelError(msg)


def _read_record(record: Path) -> str | None:
    """Return the digest of an earlier download, if there was one."""
    if not record.is_file():
        return None
    words = record.read_text(encoding="utf-8", errors="replace").split()
    if not words or not re.fullmatch(r"[0-9a-f]{64}", words[0]):
        msg = (
            f"{record.name}: got a record without a SHA-256; expected one and the name of the file. "
            "Remove it, and the file will be trusted as on a first download."
        )
        raise PanelError(msg)
    return words[0]


def _fetch(file: AgencyFile, folder: Path, expected: str | None) -> None:
    """Download into the folder: to another name, and moved when whole and right."""
    import pooch

    http = pooch.HTTPDownloader(
        timeout=_TIMEOUT, headers={"User-Agent": f"spatialclusters/{__version__}"}
    )

    def get(url: str, output_file: Any, caller: Any) -> None:
        http(url, output_file, caller)
        _refuse_page(file.name, Path(output_file))

    try:
        with _quiet(pooch.get_logger()):
            pooch.retrieve(file.url, expected, fname=file.name, path=folder, downloader=get)
    except OSError as cause:  # what requests raises derives from it, too
        answer = getattr(cause, "response", None)
        if answer is not None:  # an answer of 404, which pooch leaves open
            answer.close()
        msg = (
            f"{file.name}: got no whole file from {file.url} ({' '.join(str(cause).split())[:300]}); nothing "
            f"was kept. Try again later, or download it by hand and put it into {folder}."
        )
        raise PanelError(msg) from cause
    except ValueError as cause:  # pooch names both digests
        msg = (
            f"{file.name}: {str(cause)[:400]} The agency may have revised the file: compare, and state "
            f"the new digest, or remove {file.name}{_RECORD} to trust it."
        )
        raise PanelError(msg) from cause


def _refuse_page(name: str, content: Path) -> None:
    """Refuse a page of text in place of an archive: some servers answer so instead of 404."""
    start = _PACKED.get(Path(name).suffix)
    with content.open("rb") as file:
        found = file.read(len(start)) if start else None
    if found != start:
        msg = (
            f"{name}: got something else than an archive (it starts with {found!r}); expected the file. "
            "The agency may not have it: look for it there."
        )
        raise PanelError(msg)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep pooch from printing paths and digests: that is for us to say."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
