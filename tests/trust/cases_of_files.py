"""Bad saved fits, files of agencies, and words on the command line."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import polars as pl
import xarray as xr

from tests.trust.cases import Case, flipped, saved_fit, spoiled
from tests.trust.made import fit_bytes

REPORT = ("report", "fit.nc", "-o", "report.html", "--quiet")


def _set(place: str, value: object, at: object = 0) -> object:
    """Return what sets one number or text of an array, or an attribute (``group@name``)."""

    def change(file) -> None:
        group, marked, name = place.partition("@")
        if marked:
            file[group or "/"].attrs[name] = value
        else:
            file[place][at] = value

    return spoiled(change)


def _without(place: str) -> object:
    return spoiled(lambda file: file.__delitem__(place))


def _virtual(file) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("posterior/stolen", layout)


def _foreign(path: Path) -> None:
    xr.Dataset({"x": ("i", [1.0])}).to_netcdf(path, engine="h5netcdf")


def _resized(place: str) -> object:
    def change(file) -> None:
        values = np.asarray(file[place])
        del file[place]
        file[place] = values[:-1]

    return spoiled(change)


FITS = [
    saved_fit("as it was written", "12 rows in 12 regions", lambda path: path.write_bytes(fit_bytes()), fits=True),
    saved_fit("no such file", "got no such file", "", "summary", "other.nc"),
    saved_fit("a folder", "got no such file", lambda path: path.mkdir()),
    saved_fit("a name of 5,000 characters", "File name too long", "", "summary", "f" * 5000 + ".nc"),
    saved_fit("an empty file", "not a fit", b""),
    saved_fit("text", "not a fit", "hello"),
    saved_fit("NetCDF of another program", "got format None", _foreign),
    saved_fit("NetCDF of another version", "got format 'spatialclusters-fit/2'; this version reads",
              _set("@format", "spatialclusters-fit/2")),
    saved_fit("a format that is a list of numbers", "got format array([1, 2])", _set("@format", np.array([1, 2]))),
    *(saved_fit(f"cut off after {share:.0%}", "truncated", fit_bytes()[: int(share * len(fit_bytes()))])
      for share in (0.1, 0.5, 0.9)),
    *(saved_fit(f"one bit flipped at {share:.0%}", "changed or damaged", flipped(share))
      for share in (0.02, 0.3, 0.5, 0.7, 0.99)),
    saved_fit("bytes behind the end", "changed or damaged", fit_bytes() + b"more"),
    saved_fit("an external link", "got a link at 'stolen'",
              spoiled(lambda f: f.__setitem__("posterior/stolen", h5py.ExternalLink("/etc/passwd", "/")))),
    saved_fit("a soft link", "got a link at 'stolen'",
              spoiled(lambda f: f.__setitem__("posterior/stolen", h5py.SoftLink("/posterior/sigma")))),
    saved_fit("an array stored in another file", "'stolen' stored in another file",
              spoiled(lambda f: f.create_dataset("posterior/stolen", (8,), "u1", external=[("/etc/passwd", 0, 8)]))),
    saved_fit("a virtual array over another file", "'stolen' stored in another file", spoiled(_virtual)),
    saved_fit("a group inside itself", "'loop' in two places",
              spoiled(lambda f: f["posterior"].__setitem__("loop", f["/"]))),
    saved_fit("an array of 8 TB that takes no room", "got 8000000",
              spoiled(lambda f: f.create_dataset("posterior/bomb", (10**6, 10**6), "f8", chunks=(1000, 1000)))),
    saved_fit("2,000 groups", "groups; a fit has none", spoiled(lambda f: [f.create_group(f"g{i}") for i in range(2000)])),
    saved_fit("groups nested 3,000 deep", "groups; a fit has none", spoiled(lambda f: f.create_group("/".join("g" * 3000)))),
    saved_fit("a model that is no TOML", "the model inside: got invalid TOML", _set("@model", "x = ")),
    saved_fit("a model whose formula reaches for Python", "the model inside: formula: got 'y ~ __import__(x)'",
              _set("@model", 'formula = "y ~ __import__(x)"')),
    saved_fit("the model of another fit", "other groups than the formula's",
              _set("@model", 'formula = "y ~ x + z + (1 | region)"')),
    saved_fit("a model that is a number", "not a fit", _set("@model", 3)),
    saved_fit("provenance that is no JSON", "provenance: Invalid JSON", _set("@provenance", "{")),
    saved_fit("provenance nested 20,000 deep", "recursion limit exceeded", _set("@provenance", "[" * 20_000)),
    saved_fit("provenance without a seed", "provenance.version: Field required", _set("@provenance", "{}")),
    *(saved_fit(f"no group {name}", "not a fit", _without(name))
      for name in ("posterior", "sample_stats", "constant_data", "panel", "weights")),
    *(saved_fit(f"no {name}", "not a fit", _without(name))
      for name in ("posterior/rho", "posterior/coefficient", "sample_stats/energy", "constant_data/X",
                   "constant_data/row_region", "constant_data/term", "weights/focal")),
    saved_fit("draws of another shape", "not a fit", _resized("posterior/sigma")),
    saved_fit("draws of another variable", "no draws of 'sigma'",
              spoiled(lambda f: f.move("posterior/sigma", "posterior/sigmo"))),
    saved_fit("draws of one variable more", "draws of 'sigmo', which the model does not have",
              spoiled(lambda f: f.copy("posterior/sigma", "posterior/sigmo"))),
    saved_fit("NaN in the response", "y that is not finite", _set("constant_data/y", np.nan)),
    saved_fit("a covariate of scale 0", "scale of zero", _set("constant_data/scale", 0.0)),
    saved_fit("a neighbor that does not exist", "exceeds matrix dimension", _set("weights/focal", 10**6)),
    saved_fit("a negative weight", "got bad numbers; expected w >= 0", _set("weights/weight", -1.0)),
    saved_fit("rho of 5 among the draws, for impacts", "expected values inside (-1.0, 1.0)",
              _set("posterior/rho", 5.0, (0, 0)), "impacts", "fit.nc"),
    saved_fit("a polygon that is none, for the report", "shapes that cannot be read", _set("geometry/wkt", "POLYGON((("),
              *REPORT),
    saved_fit("a reference system that is none, for the report", "shapes that cannot be read",
              _set("geometry@crs", "nonsense"), *REPORT),
]  # fmt: skip


def _raw(name, says, *words, **files) -> Case:
    return Case(
        "Raw file",
        name,
        says,
        ("data", *words),
        {k.replace("_", ".", 1): v for k, v in files.items()},
    )


def _zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _cells(**metadata: str) -> object:
    frame = pl.DataFrame({"region": ["01001"], "value": [1.0]})
    return lambda path: frame.write_parquet(path, metadata=metadata)


CBP = ("fipstate,fipscty,naics,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n<5,n5_9,n10_19,n20_49,n50_99,n100_249,n250_499,"
       "n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4\n01,001,------,G,50,G,9,G,90,7" + ",N" * 13 + "\n")  # fmt: skip
READ = ("cbp", "cbp18co.txt", "-o", "cells.parquet")
MARK = "spatialclusters-cells/1"

RAW = [
    _raw("no such file", "got no such file", *READ),
    _raw("a folder", "got Is a directory", *READ, cbp18co_txt=lambda path: path.mkdir()),
    _raw("an empty file", "got an empty file", *READ, cbp18co_txt=b""),
    _raw("a web page", "Download the file again", *READ, cbp18co_txt="<!DOCTYPE html>\n<html>, </html>\n"),
    _raw("bytes", "binary content", *READ, cbp18co_txt=bytes(range(256))),
    _raw("the columns of another agency", "got no column", *READ, cbp18co_txt="area_fips,own_code\n01001,5\n"),
    _raw("a file that is cut off", "The file is cut", *READ, cbp18co_txt=CBP[:-20]),
    _raw("a year nobody knows", "got the year 2031", *READ, "--year", "2031", cbp18co_txt=CBP),
    _raw("a truncated zip file", "damaged archive", *READ, cbp18co_txt=_zipped(a=CBP.encode() * 50)[:-30]),
    _raw("two files in a zip file", "got 2 files in the archive", *READ, cbp18co_txt=_zipped(a=b"1", b=b"2")),
    _raw("a zip file of 70 MB of zeros", "bytes out of an archive", *READ,
         cbp18co_txt=lambda path: path.write_bytes(_zipped(a=bytes(70 * 2**20)))),
    _raw("a gzip file of 70 MB of zeros", "bytes out of an archive", *READ,
         cbp18co_txt=lambda path: path.write_bytes(gzip.compress(bytes(70 * 2**20), 9))),
    _raw("cells that are a table of somebody else", "without the mark", "check", "cells.parquet",
         cells_parquet=pd.DataFrame({"region": ["a"]})),
    _raw("cells whose origins are no JSON", "origins that cannot be read", "check", "cells.parquet",
         cells_parquet=_cells(format=MARK, origins="{")),
    _raw("cells without the columns of cells", "got no column 'industry'", "check", "cells.parquet",
         cells_parquet=_cells(format=MARK, origins="[]")),
]  # fmt: skip


def _words(name, says, *words, **files) -> Case:
    return Case(
        "Command line", name, says, words, {k.replace("_", ".", 1): v for k, v in files.items()}
    )


WORDS = [
    _words("a command that does not exist", "No such command", "nonsense"),
    _words("--draws 1", "--draws", "fit", "income_convergence", "--data", "x.csv", "-o", "x.nc", "--draws", "1"),
    _words("a model that does not exist", "Did you mean 'cluster_growth'?", "models", "show", "cluster_grwth"),
    _words("a model that is a path", "or a path ending in .toml", "models", "show", "../../etc/passwd"),
    _words("a model that is a folder", "expected a readable file", "models", "show", "folder.toml",
           folder_toml=lambda path: path.mkdir()),
    _words("a shipped model with the suffix of a file", "without .toml", "models", "show", "cluster_growth.toml"),
    _words("a fit into a CSV file", "expected .nc", "fit", "income_convergence", "--data", "x.csv", "-o", "x.csv"),
    _words("a work that is not in the bibliography", "expected a key of references.bib", "cite", "m.toml",
           m_toml='formula = "y ~ x"\ncite = ["Nobody2099"]\n'),
    _words("the output is the fit itself", "got the fit itself", "report", "fit.nc", "-o", "fit.nc", "--force",
           fit_nc=lambda path: path.write_bytes(fit_bytes())),
    _words("the output is in a folder that does not exist", "cannot be written there", "report", "fit.nc",
           "-o", "no/where.html", fit_nc=lambda path: path.write_bytes(fit_bytes())),
    _words("the output has a name of 300 characters", "expected a shorter name", "report", "fit.nc",
           "-o", "r" * 300, fit_nc=lambda path: path.write_bytes(fit_bytes())),
]  # fmt: skip
