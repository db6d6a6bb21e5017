"""From a table and a map of your own to a report.

The files are made up here; put yours in their place. Run it as

    python examples/03_your_own_table.py [FOLDER]
"""

import os
import sys
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

import spatialclusters as sc

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
draws = int(os.environ.get("SPATIALCLUSTERS_DRAWS", "2000"))

# A long table: one row per cell, here region and cluster, with employment at both ends.
# An empty number is a withheld cell, a missing row an absent one; neither is a zero.
rng = np.random.default_rng(1)
names = [f"R{i:02d}" for i in range(36)]
cells = pd.MultiIndex.from_product([names, ["food", "metal", "software"]]).to_frame(index=False)
table = cells.set_axis(["region", "cluster"], axis=1)
table["emp_start"] = np.exp(rng.normal(6.0, 1.0, len(table))).round()
growth = 0.3 - 0.05 * np.log(table["emp_start"]) + rng.normal(0.0, 0.1, len(table))
table["emp_end"] = (table["emp_start"] * np.exp(growth)).round()
table.loc[3, ["emp_start", "emp_end"]] = np.nan
table.drop(index=7).to_csv(folder / "employment.csv", index=False)

# The map: polygons with the same ids, as text.
squares = [shapely.box(i % 6, i // 6, i % 6 + 1, i // 6 + 1) for i in range(36)]
gpd.GeoDataFrame({"region": names}, geometry=squares, crs=3035).to_file(folder / "map.geojson")

# Reading checks everything at once: ids, duplicates, negative counts, missing polygons.
panel = sc.read_panel(
    folder / "employment.csv", regions=folder / "map.geojson", rename={"employment": "emp"}
)
weights = sc.contiguity(panel)

# A model of your own: what is not said here has a default, and `[cells]` has none, since
# what a withheld cell counts as in a sum is a decision.
spec = sc.parse_spec("""
name = "my_growth"
title = "Growth of clusters, 2018 to 2021"
formula = "growth ~ log(cluster_level) + log(neighbor_strength) + (1 | region)"
roles = { convergence = "log(cluster_level)", specialization = ["log(neighbor_strength)"] }
growth = { variable = "employment", from = 2018, to = 2021 }
cells = { absent = "zero", withheld = "zero" }
zeros = { neighbor_strength = "drop" }
expects = { "log(cluster_level)" = "negative" }
""")

fit = sc.fit(spec, panel, weights, seed=20261122, draws=draws, tune=min(draws, 1000))
fit.save(folder / "my_growth.nc")
print(sc.check(fit))
columns = ["term", "effect", "estimate", "ci_low", "ci_high", "unit"]
print(sc.convergence(fit)[columns].to_string(index=False))
print(sc.specialization(fit)[columns].to_string(index=False))

frequentist = sc.fit_frequentist(fit)
print(sc.compare(fit, frequentist).round(3).to_string())
print(sc.write_report(fit, frequentist, path=folder / "my_growth.html"))
