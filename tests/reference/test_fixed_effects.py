"""Fixed group effects of the full model against pyfixest, on real region-cluster data."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

import spatialclusters as sc

# Monte Carlo errors allowed: P(miss) < 1e-4 for each of five coefficients. The default
# priors (without those of the model file, which matter for the dummies of zeros) move a
# coefficient by about (se / prior sd)^2 < 1e-4 of itself, far below one error.
MONTE_CARLO_ERRORS = 4.0

CHANGES = {
    "formula": "growth ~ log(cluster_level) + log(linked_strength) + log(neighbor_strength)"
    " + (1 | region) + (1 | cluster)",
    "groups": {"region": {"effect": "fixed"}, "cluster": {"effect": "fixed"}},
    "likelihood.scale": "constant",
    "priors": None,
}


@pytest.mark.slow
def test_fixed_effects_agree_with_pyfixest(data_folder):
    panel = sc.read_panel(data_folder / "us_ea" / "clusters_2018_2021.parquet")
    weights = sc.read_weights(data_folder / "us_ea" / "queen.parquet")
    spec = sc.load_model("cluster_growth", CHANGES)
    fit = sc.fit(
        spec,
        panel,
        weights,
        linkages=data_folder / "concordance" / "linked_clusters.csv",
        seed=20261122,
        chains=2,
        tune=500,
        draws=1000,
        progress=False,
    )
    frame = sc.fit_frequentist(fit).estimates
    absorbed = frame[(frame["estimator"] == "fixed effects") & (frame["effect"] == "coefficient")]
    expected = absorbed.set_index("term")["estimate"]
    draws = fit.draws("coefficient")
    for position, term in enumerate(fit.design.terms):
        values = draws[..., position]
        error = array_stats.mcse(values, chain_axis=0, draw_axis=1, method="mean")
        assert abs(values.mean() - expected[term]) < MONTE_CARLO_ERRORS * error, term
    assert np.abs(fit.draws("effect(region)").sum(axis=2)).max() < 1e-9
