"""Built-in data: a real one to check against, and a simulated one whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from spatialclusters.catalogue import load_model
from spatialclusters.design import build_design
from spatialclusters.neighbors import contiguity
from spatialclusters.panel import Panel, read_panel
from spatialclusters.simulation import simulate_response
from spatialclusters.spec import ModelSpec
from spatialclusters.weights import Weights

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["SimulatedEconomy", "simulated_economy", "us_income"]

CLUSTERS: Final = 41
_TRUTH: Final[dict[str, Any]] = {
    "intercept": -0.05,
    "log(cluster_level)": -0.06,
    "log(linked_strength)": 0.04,
    "log(neighbor_strength)": 0.05,
    "sd(region)": 0.05,
    "sd(cluster)": (0.10, 0.03),
    "cor(cluster)": -0.3,
    "sigma": 0.30,
    "size.share": 0.9,
    "size.power": 0.5,
}


def us_income() -> Panel:
    """Return income per head of the 48 contiguous US states, 1929 to 2009, with polygons.

    Nominal dollars per person and year (Bureau of Economic Analysis), as bundled with
    libpysal. Region ids are the names of the states.

    Returns
    -------
    Panel
        ``income`` over region (48) and year (81).

    References
    ----------
    Rey and Montouri (1999), doi:10.1080/00343409950122945.

    Examples
    --------
    >>> panel = us_income()
    >>> len(panel.regions), panel.years[0], float(panel.values("income", "1929").max())
    (48, '1929', 1152.0)
    """
    import geopandas as gpd
    from libpysal import examples

    wide = pd.read_csv(examples.get_path("usjoin.csv"))
    years = [column for column in wide.columns if column.isdigit()]
    table = wide.melt("Name", years, var_name="year", value_name="income")
    table = table.rename(columns={"Name": "region"}).astype({"year": int})
    # the file has no CRS; its coordinates are degrees
    states = gpd.read_file(examples.get_path("us48.shp")).set_crs(4326)
    shapes = states.rename(columns={"STATE_NAME": "region"})[["region", "geometry"]]
    panel = read_panel(table, shapes)
    return Panel(
        panel.data, panel.geometry, {**panel.provenance, "source": "us_income of libpysal"}
    )


@dataclass(frozen=True, eq=False)
class SimulatedEconomy:
    """A simulated economy on real polygons, and the parameters it was drawn at.

    Attributes
    ----------
    panel
        Employment by region and cluster at both ends; SIMULATED, with zero,
        withheld and absent cells.
    weights
        Queen contiguity of the polygons.
    linkages
        Table of linked clusters.
    spec
        The model whose equation the growth of the published cells follows.
    truth
        Every parameter and effect, named as in a fit's posterior.
    """

    panel: Panel
    weights: Weights
    linkages: pd.DataFrame
    spec: ModelSpec
    truth: Mapping[str, np.ndarray]


def simulated_economy(seed: int = 1) -> SimulatedEconomy:
    """Simulate 41 clusters of unequal size in the 159 counties of Georgia.

    The base year has spatially correlated specialization, clusters that are absent
    from many counties (zero cells) and small cells that are withheld. Growth of the
    published cells follows the shipped model ``cluster_growth`` exactly, with the
    measures as an analyst computes them, so that its parameters are known. None of
    it describes Georgia.

    Parameters
    ----------
    seed
        Of everything that is drawn.

    Examples
    --------
    >>> economy = simulated_economy()
    >>> dict(economy.panel.data.sizes), float(economy.truth["sigma"])
    ({'region': 159, 'cluster': 41, 'year': 2}, 0.3)
    """
    rng = np.random.default_rng(seed)
    shapes = _counties()
    names = [f"Cluster {number:02d}" for number in range(1, CLUSTERS + 1)]
    spec = load_model("cluster_growth")
    regions = shapes["region"].tolist()
    level = read_panel(pd.DataFrame({"region": regions}), shapes)
    weights = contiguity(level)
    employment = _base_year(rng, weights)
    table = pd.DataFrame(
        {
            "region": np.repeat(regions, CLUSTERS),
            "cluster": np.tile(names, len(regions)),
            "employment_start": employment.ravel(),
        }
    )
    table = table[rng.uniform(size=len(table)) > 0.02]  # cells that nobody published
    small = (table["employment_start"] > 0) & (table["employment_start"] < 20)
    withheld = small & (rng.uniform(size=len(table)) < 0.4)
    table["employment_start"] = table["employment_start"].mask(withheld)
    linkages = _linkages(rng, names)
    # measures and rows depend on the base year alone, so growth can be drawn afterwards
    some = table["employment_start"] * (1.0 + np.arange(len(table)) % 2)
    still = read_panel(table.assign(employment_end=some), shapes)
    design = build_design(spec, still, weights, linkages=linkages)
    truth = _parameters(rng, design)
    growth = pd.Series(
        simulate_response(spec, design, truth, rng),
        index=pd.MultiIndex.from_arrays(
            [design.data["row_region"].values, design.data["row_cluster"].values]
        ),
    )
    keys = pd.MultiIndex.from_frame(table[["region", "cluster"]])
    change = growth.reindex(keys).fillna(0.0).to_numpy()
    table["employment_end"] = table["employment_start"] * np.exp(change)
    panel = read_panel(table, shapes)
    assert spec.growth is not None  # it is a model of growth
    provenance = {
        **panel.provenance,
        "source": f"SIMULATED economy, seed {seed}",
        "simulated": True,
        "ends": [spec.growth.from_year, spec.growth.to_year],
    }
    return SimulatedEconomy(
        Panel(panel.data, panel.geometry, provenance), weights, linkages, spec, truth
    )


@cache
def _counties() -> gpd.GeoDataFrame:
    import geopandas as gpd
    from libpysal import examples

    shapes = gpd.read_file(examples.load_example("georgia").get_path("G_utm.shp"))
    # UTM zone 16 N by its coordinates; the file does not say
    shapes = shapes.set_crs(32616)
    shapes["region"] = shapes["AreaKey"].astype(int).astype(str)
    return shapes.sort_values("region")[["region", "geometry"]].reset_index(drop=True)


def _base_year(rng: np.random.Generator, weights: Weights) -> np.ndarray:
    """Draw whole persons employed by region and cluster, (R, C), with zeros where tiny."""
    regions = len(weights.regions)
    region_size = np.exp(rng.normal(9.0, 1.1, size=regions))
    cluster_share = np.exp(rng.normal(0.0, 1.0, size=CLUSTERS))
    cluster_share /= cluster_share.sum()
    shock = rng.normal(size=(regions, CLUSTERS))
    smooth = np.linalg.solve(np.eye(regions) - 0.7 * weights.matrix.toarray(), shock)
    special = 0.9 * smooth / smooth.std()
    expected = region_size[:, None] * cluster_share * np.exp(special)
    present = expected * rng.lognormal(0.0, 0.8, size=expected.shape) > 8.0
    return np.where(present, np.maximum(np.round(expected), 1.0), 0.0)


def _linkages(rng: np.random.Generator, names: list[str]) -> pd.DataFrame:
    """Link every cluster to two to five others, with weights 1 to 3."""
    rows = [
        (name, names[other], float(rng.integers(1, 4)))
        for i, name in enumerate(names)
        for other in rng.choice(
            [k for k in range(len(names)) if k != i], size=rng.integers(2, 6), replace=False
        )
    ]
    return pd.DataFrame(rows, columns=["cluster", "linked_cluster", "weight"])


def _parameters(rng: np.random.Generator, design: Any) -> dict[str, np.ndarray]:
    """State the truth: numbers above, and effects drawn at those standard deviations."""
    sds = np.array(_TRUTH["sd(cluster)"])
    correlation = np.array([[1.0, _TRUTH["cor(cluster)"]], [_TRUTH["cor(cluster)"], 1.0]])
    root = np.linalg.cholesky(correlation)
    levels = {group.name: len(group.levels) for group in design.groups}
    return {
        "intercept": np.array(_TRUTH["intercept"]),
        "coefficient": np.array([float(_TRUTH.get(term, 0.0)) for term in design.terms]),
        "sd(region)": np.array([_TRUTH["sd(region)"]]),
        "sd(cluster)": sds,
        "cor(cluster)": np.array([_TRUTH["cor(cluster)"]]),
        "effect(region)": float(_TRUTH["sd(region)"]) * rng.normal(size=(levels["region"], 1)),
        "effect(cluster)": rng.normal(size=(levels["cluster"], 2)) @ root.T * sds,
        **{name: np.array(_TRUTH[name]) for name in ("sigma", "size.share", "size.power")},
    }
