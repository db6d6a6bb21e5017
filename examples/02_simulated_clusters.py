"""Does the model find the parameters it should, where they are known?

A simulated economy of 41 clusters in the 159 counties of Georgia: its polygons are
real, its employment is not. Growth follows the shipped model `cluster_growth`, so each
estimate can be held against the truth. Run it as

    python examples/02_simulated_clusters.py [FOLDER]
"""

import os
import sys
import tempfile
from pathlib import Path

import spatialclusters as sc
from spatialclusters.demo import truth_table

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
draws = int(os.environ.get("SPATIALCLUSTERS_DRAWS", "2000"))

economy = sc.simulated_economy(seed=1)
print(economy.spec.formula)

# Not every cell is a row. Some are zero, some withheld, some absent: the design says how
# many of each, and which rows were dropped for which reason.
design = sc.build_design(economy.spec, economy.panel, economy.weights, linkages=economy.linkages)
print(f"{design.n_rows} rows; dropped: {design.record['dropped']}")

# Before the data: what growth does the prior think possible?
imagined = sc.prior_predictive(economy.spec, design, draws=50, seed=1)
print(f"growth sd: {imagined.std():.2f} by the prior, {design.y.std():.2f} in the data")

fit = sc.fit(
    economy.spec,
    economy.panel,
    economy.weights,
    linkages=economy.linkages,
    seed=1,
    draws=draws,
    tune=min(draws, 1000),
)
fit.save(folder / "simulated_economy.nc")
print(sc.check(fit))

# The truth beside the posterior. Of many 95 % intervals some 5 % miss.
print(truth_table(fit, economy).round(3).to_string(index=False))

# What a stronger cluster next door goes with, in points of annual growth.
columns = ["term", "effect", "estimate", "ci_low", "ci_high", "unit"]
print(sc.specialization(fit)[columns].round(3).to_string(index=False))

# Small cells grow more erratically. Does the noise model know? Observed spread of the
# residuals by decile of size, and the spread that the model predicts.
print(sc.residual_spread(fit, draws=min(draws, 100)).round(3).to_string(index=False))

print(sc.write_report(fit, path=folder / "simulated_economy.html"))
