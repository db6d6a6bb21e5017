"""Small inputs and a made-up fit that the corpus, the fuzzer and the kill tests spoil."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

import spatialclusters as sc
from spatialclusters.result import assemble
from spatialclusters.sampling import Settings

REGIONS = tuple(f"r{number:02d}" for number in range(12))
PLAIN = 'name = "plain"\nformula = "y ~ x + z"\n'
SAR = PLAIN + '[spatial]\noutcome = "sar"\n'
GROWTH = """name = "growth"
formula = "growth ~ log(cluster_level) + (1 | region) + (1 | cluster)"
growth = { variable = "employment", from = 2018, to = 2021 }
cells = { absent = "zero", withheld = "zero" }
"""


def squares(regions=REGIONS) -> gpd.GeoDataFrame:
    """Unit squares in rows of four."""
    boxes = [shapely.box(i % 4, i // 4, i % 4 + 1, i // 4 + 1) for i in range(len(regions))]
    return gpd.GeoDataFrame({"region": list(regions)}, geometry=boxes, crs=3857)


def table(regions=REGIONS, **columns) -> pd.DataFrame:
    """A cross-section: y, x and z by region."""
    rng = np.random.default_rng(2)
    numbers = {name: rng.normal(size=len(regions)) for name in "yxz"}
    return pd.DataFrame({"region": list(regions), **numbers, **columns})


def economy(regions: int = 12, clusters: int = 6) -> pd.DataFrame:
    """Employment by region and cluster at both ends."""
    rng = np.random.default_rng(3)
    places, names = [f"r{i:02d}" for i in range(regions)], [f"c{i}" for i in range(clusters)]
    index = pd.MultiIndex.from_product([places, names], names=["region", "cluster"])
    frame = index.to_frame(index=False)
    frame["employment_start"] = np.round(rng.lognormal(5.0, 1.0, len(frame))) + 1.0
    growth = rng.lognormal(0.0, 0.3, len(frame))
    frame["employment_end"] = np.round(frame["employment_start"] * growth) + 1.0
    return frame


def ring(regions=REGIONS, weight: float = 1.0) -> pd.DataFrame:
    """Everyone's neighbors are the one before and the one after."""
    n = len(regions)
    pairs = [(i, (i + 1) % n) for i in range(n)] + [((i + 1) % n, i) for i in range(n)]
    rows = [(regions[i], regions[j], weight) for i, j in pairs]
    return pd.DataFrame(rows, columns=["region_i", "region_j", "weight"])


def made_up_fit(spec=SAR, draws: int = 20, regions=REGIONS) -> sc.Fit:
    """A fit of a spatial lag whose draws nobody sampled."""
    model, panel = sc.parse_spec(spec), sc.read_panel(table(regions), squares(regions))
    design = sc.build_design(model, panel, sc.contiguity(panel))
    rng, shape = np.random.default_rng(1), (4, draws)
    posterior = {
        "intercept": rng.normal(size=shape),
        "coefficient": rng.normal(size=(*shape, 2)),
        "sigma": np.abs(rng.normal(size=shape)),
        "rho": rng.uniform(0.0, 0.5, shape),
    }
    stats = {
        "diverging": np.zeros(shape, dtype=bool),
        "energy": rng.normal(size=shape),
        "tree_depth": np.full(shape, 3),
        "n_steps": np.full(shape, 7),
    }
    digests = {"model": model.digest, "design": design.digest, "rows": design.rows_digest}
    provenance = {
        "version": "0", "created": "2026-01-01T00:00:00+00:00", "engine": "full",
        "settings": vars(Settings(seed=1, draws=draws)), "sampler": "none: made up", "python": "3",
        "versions": {}, "digests": {**digests, "weights": None}, "timings": {"wall_seconds": 1.0},
    }  # fmt: skip
    return assemble(
        model, design, posterior, stats,
        panel=xr.Dataset(), geometry=panel.geometry, provenance=provenance,
    )  # fmt: skip


@functools.cache
def fit_bytes() -> bytes:
    """The made-up fit as a file."""
    with tempfile.TemporaryDirectory() as folder:
        return made_up_fit().save(Path(folder) / "fit.nc").read_bytes()
