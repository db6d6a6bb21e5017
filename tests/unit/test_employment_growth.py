"""The equation of the 2014 paper, end to end on a small simulated economy of industries."""

import numpy as np
import pandas as pd
import pytest
import shapely

import spatialclusters as sc

TUNE = DRAWS = 30


@pytest.fixture(scope="module")
def fit():
    import geopandas as gpd

    rng = np.random.default_rng(5)
    regions = [f"{i:02d}" for i in range(16)]
    cells = [shapely.box(i % 4, i // 4, i % 4 + 1, i // 4 + 1) for i in range(16)]
    shapes = gpd.GeoDataFrame({"region": regions}, geometry=cells, crs="EPSG:32616")
    industries = [f"3{i:02d}" for i in range(24)]
    index = pd.MultiIndex.from_product([regions, industries], names=["region", "industry"])
    table = index.to_frame(index=False)
    table["cluster"] = [f"cluster {int(i) % 5}" for i in table["industry"]]
    table["employment_start"] = np.round(rng.lognormal(4.0, 1.2, len(table)))
    table["employment_end"] = np.round(
        table["employment_start"] * rng.lognormal(0, 0.3, len(table))
    )
    table = table[rng.uniform(size=len(table)) > 0.2]
    links = pd.DataFrame(
        {
            "cluster": [f"cluster {i}" for i in range(5)],
            "linked_cluster": [f"cluster {(i + 1) % 5}" for i in range(5)],
        }
    )
    spec = sc.load_model("employment_growth")
    return sc.fit(
        spec, sc.read_panel(table, shapes), linkages=links, seed=1, chains=1, tune=TUNE,
        draws=DRAWS, progress=False,
    )  # fmt: skip


def test_every_effect_of_the_equation_is_there(fit):
    design = fit.design
    assert [group.name for group in design.groups] == [
        "industry",
        "region",
        "region:cluster",
        "cluster",
    ]
    assert fit.posterior["effect(region:cluster)"].shape[2] == len(design.groups[2].levels)
    assert fit.posterior["cor(cluster)"].shape == (1, DRAWS, 3)
    assert np.isfinite(fit.draws("coefficient")).all()
    assert {"industry", "region"} == {g.name for g in design.groups if g.effect == "correlated"}


def test_the_region_cluster_effect_is_not_absorbed(fit):
    found = sc.fit_frequentist(fit)
    assert set(found.absorbed) == {"industry", "region"}
    assert "region:cluster" in found.left_out


def test_the_report_holds_the_paper_s_roles(fit, tmp_path):
    page = sc.write_report(fit, path=tmp_path / "report.html").read_text(encoding="utf-8")
    for term in ("industry_strength", "cluster_strength", "linked_strength", "neighbor_strength"):
        assert f"log({term})" in page
