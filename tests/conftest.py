"""What every test may ask for."""

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

# hundreds of small problems are compiled once and run once: compiling is what costs
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data: absent by name, or there in full."""
    place = os.environ.get("SPATIALCLUSTERS_DATA")
    if not place:
        pytest.skip("SPATIALCLUSTERS_DATA is not set: no real data")
    folder = Path(place)
    if not folder.is_dir():
        pytest.fail(f"SPATIALCLUSTERS_DATA is set to {place!r}, which is not a folder")
    return folder


CLUSTERS = tuple(f"Cluster {number}" for number in range(1, 10))
_BY_CLUSTER = """
formula = "growth ~ log(cluster_level) + log(neighbor_strength) + (1 | region) + (1 + log(cluster_level) | cluster)"
[roles]
convergence = "log(cluster_level)"
specialization = ["log(neighbor_strength)"]
[growth]
variable = "employment"
from = 2018
to = 2021
[cells]
absent = "zero"
withheld = "zero"
[expects]
"log(cluster_level)" = "negative"
"log(neighbor_strength)" = "positive"
"""
_BY_REGION = """
formula = "growth ~ log(income)"
[roles]
convergence = "log(income)"
[growth]
variable = "income"
from = 1990
to = 2010
"""
VARIANTS = {
    "clusters": _BY_CLUSTER
    + '[groups.region]\neffect = "correlated"\n[likelihood]\nscale = "size"\n',
    "student": _BY_CLUSTER + '[likelihood]\nfamily = "student-t"\n',
    "noise by cluster": _BY_CLUSTER + '[likelihood]\nscale = "by-cluster"\n',
    "fixed": _BY_CLUSTER + '[groups.region]\neffect = "fixed"\n',
    "regions": _BY_REGION,
    "plain": 'formula = "crime ~ distance + income"\n',
}


@pytest.fixture(scope="session")
def synthetic_fit() -> Callable[..., object]:
    """Make fits without sampling: ``synthetic_fit("clusters", geometry=True)``.

    Draws are independent normals around plausible values, so that every check of the
    sampling passes, unless ``sick``: then one chain is elsewhere and one draw diverged.
    """
    return functools.cache(_synthetic_fit)


def _synthetic_fit(
    variant, *, labels=CLUSTERS, weights=True, geometry=False, simulated=False, sick=False
):
    import spatialclusters as sc
    from spatialclusters.neighbors import contiguity
    from spatialclusters.result import assemble

    spec = sc.parse_spec(f'name = "synthetic"\ntitle = "A synthetic fit"\n{VARIANTS[variant]}')
    panel = sc.read_panel(_table(variant, labels), _squares())
    panel = dataclasses.replace(panel, provenance={**panel.provenance, "simulated": simulated})
    design = sc.build_design(spec, panel, contiguity(panel) if weights else None)
    rng, shape = np.random.default_rng(5), (4, 500)
    posterior = {
        name: middle + spread * rng.standard_normal((*shape, *np.shape(middle)))
        for name, (middle, spread) in _middles(spec, design).items()
    }
    if sick:
        posterior["sigma"][0] += 0.3
    stats = {
        "diverging": np.zeros(shape, dtype=bool),
        "energy": rng.normal(size=shape),
        "tree_depth": np.full(shape, 3),
        "n_steps": np.full(shape, 7),
    }
    stats["diverging"][0, 0] = sick
    settings = {"seed": 7, "chains": 4, "tune": 600, "draws": 500, "max_tree_depth": 10}
    digests = {"model": spec.digest, "design": design.digest, "rows": design.rows_digest}
    provenance = {
        "version": sc.__version__, "created": "2026-11-22T12:00:00+00:00", "settings": settings,
        "engine": "full", "sampler": "none: made up", "python": "3.12.1",
        "versions": {"numpy": np.__version__}, "digests": {**digests, "weights": None},
        "timings": {"sampling_seconds": [1.25, 1.5], "wall_seconds": 3.0},
    }  # fmt: skip
    shapes = panel.geometry if geometry else None
    return assemble(
        spec, design, posterior, stats, panel=xr.Dataset(), geometry=shapes, provenance=provenance
    )


def _squares():
    import geopandas as gpd
    from shapely.geometry import box

    cells = [box(i % 4, i // 4, i % 4 + 1, i // 4 + 1) for i in range(12)]
    ids = [f"r{number:02d}" for number in range(12)]
    return gpd.GeoDataFrame({"region": ids}, geometry=cells, crs=3857)


def _table(variant, labels):
    rng, regions = np.random.default_rng(3), [f"r{number:02d}" for number in range(12)]
    if variant in ("regions", "plain"):
        table = pd.DataFrame({"region": regions, "income": rng.uniform(1.0, 5.0, size=12)})
        if variant == "plain":
            return table.assign(crime=rng.normal(30, 5, 12), distance=rng.uniform(1, 9, 12))
        table = table.rename(columns={"income": "income_start"})
        return table.assign(income_end=table["income_start"] * rng.uniform(1.1, 1.6, size=12))
    index = pd.MultiIndex.from_product([regions, labels], names=["region", "cluster"])
    table = index.to_frame(index=False)
    table["employment_start"] = np.round(rng.lognormal(6.0, 1.0, size=len(table)))
    table["employment_end"] = np.round(
        table["employment_start"] * rng.lognormal(0.0, 0.3, len(table))
    )
    table.loc[4, "employment_start"] = np.nan  # withheld
    return table.drop(index=[9, 30])  # absent


def _middles(spec, design):
    """Middle and spread of every parameter, named and shaped as in a posterior."""
    betas = np.array([-0.06 if "level" in t or "income" in t else 0.03 for t in design.terms])
    found = {"coefficient": (betas, 0.01), "sigma": (0.3, 0.01)}
    if design.intercept:
        found["intercept"] = (0.1, 0.02)
    for group in design.groups:
        columns = len(group.labels)
        levels = np.linspace(-0.05, 0.05, len(group.levels))
        found[f"effect({group.name})"] = (np.repeat(levels[:, None], columns, axis=1), 0.02)
        if group.effect != "fixed":
            found[f"sd({group.name})"] = (np.full(columns, 0.05), 0.004)
            if columns > 1:
                found[f"cor({group.name})"] = (np.full(columns * (columns - 1) // 2, -0.3), 0.05)
    if spec.likelihood.scale == "size":
        found |= {"size.share": (0.8, 0.02), "size.power": (0.5, 0.05)}
    if spec.likelihood.family == "student-t":
        found["nu"] = (5.0, 0.4)
    if spec.likelihood.scale == "by-cluster":
        clusters = len(set(design.data["row_cluster"].values.tolist()))
        found |= {"sd(log sigma)": (0.2, 0.02), "sigma(cluster)": (np.full(clusters, 0.3), 0.02)}
    return found
