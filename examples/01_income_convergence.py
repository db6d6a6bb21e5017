"""Did poorer US states catch up between 1929 and 1994?

One row per state and one covariate: the smallest model that the package ships, and
a fit of a minute or two. Run it as

    python examples/01_income_convergence.py [FOLDER]
"""

import os
import sys
import tempfile
from pathlib import Path

import spatialclusters as sc

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
draws = int(os.environ.get("SPATIALCLUSTERS_DRAWS", "2000"))

# Income per head of the 48 contiguous states, with their polygons, comes with libpysal.
panel = sc.us_income()

# The model says what is estimated: growth of income on its initial log. Everything it
# leaves to defaults can be seen with `spatialclusters models show income_convergence`.
spec = sc.load_model("income_convergence")

# Two states are neighbors if they touch. This model has no term that looks at neighbors,
# but the report uses the weights to ask whether its residuals cluster on the map.
weights = sc.contiguity(panel)
print(f"{len(panel.regions)} states, {weights.mean_neighbors:.1f} neighbors on average")

# Chains run in processes of their own; the same seed gives the same draws.
fit = sc.fit(spec, panel, weights, seed=1929, draws=draws, tune=min(draws, 1000))
fit.save(folder / "us_income.nc")

# First of all: may the draws be trusted?
print(sc.check(fit))

# B is the change in growth over 65 years that goes with one more log point of income in
# 1929. B < 0 is convergence; speed and half-life are computed draw by draw.
columns = ["effect", "estimate", "ci_low", "ci_high", "unit"]
print(sc.convergence(fit)[columns].to_string(index=False))

# The same rows by ordinary least squares.
frequentist = sc.fit_frequentist(fit)
print(sc.regression_table(fit, frequentist))

# One page with all of it, to be opened in a browser.
print(sc.write_report(fit, frequentist, path=folder / "us_income.html"))
