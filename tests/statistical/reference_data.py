"""Data on which every shipped model has a reference posterior: anybody has them, or can draw them."""

from functools import cache

import numpy as np
import pandas as pd

import spatialclusters as sc
from spatialclusters.parameters import model_priors
from spatialclusters.run import default_weights
from spatialclusters.simulation import draw_parameters, simulate_response

CLUSTERS, INDUSTRIES = 12, 4  # of the economy of industries; in each cluster
# Where the truth of a simulated economy is drawn from; effects come from their distributions.
WITHIN = {
    "intercept": (-0.06, -0.04),
    "log(cluster_level)": (-0.07, -0.05),
    "log(industry_strength)": (-0.07, -0.05),
    "log(cluster_strength)": (0.03, 0.05),
    "log(linked_strength)": (0.03, 0.05),
    "log(neighbor_strength)": (0.03, 0.05),
    "lag(log(cluster_level))": (0.03, 0.05),
    "lag(log(linked_strength))": (-0.03, -0.01),
    "sd(industry)": (0.08, 0.12),
    "sd(region)": (0.08, 0.12),
    "phi(region)": (0.4, 0.6),
    "sd(region:cluster)": (0.08, 0.12),
    "sd(cluster)": (0.08, 0.12),
    "sd(cluster, log(cluster_level))": (0.03, 0.05),
    "sd(cluster, log(industry_strength))": (0.03, 0.05),
    "sd(cluster, log(cluster_strength))": (0.03, 0.05),
    "rho": (0.25, 0.35),
    "sigma": (0.28, 0.32),
    "size.share": (0.45, 0.55),
    "size.power": (0.9, 1.1),
}
SMALL = (-0.05, 0.05)  # group means and dummies

DATA = {
    "us_income": "income per head of 48 US states, as the package brings it",
    "simulated_clusters": "the base year of `simulated_economy(seed=1)`, 41 clusters in 159 counties; "
    "growth is drawn by this command from the model itself",
    "simulated_industries": f"the first {CLUSTERS} clusters of `simulated_economy(seed=1)`, each split "
    f"into {INDUSTRIES} industries; growth is drawn by this command from the model itself",
}
MODELS = {
    "cluster_growth": "simulated_clusters",
    "cluster_growth_bym2": "simulated_clusters",
    "cluster_growth_lag": "simulated_clusters",
    "employment_growth": "simulated_industries",
    "employment_growth_bym2": "simulated_industries",
    "income_convergence": "us_income",
    "income_convergence_distance": "us_income",
    "income_convergence_error": "us_income",
    "income_convergence_lag": "us_income",
}


@cache
def tables(name):
    """Return panel and linkages of a model."""
    data = MODELS[name]
    if data == "us_income":
        return sc.us_income(), None
    economy = sc.simulated_economy(seed=1)
    start = economy.panel.values("employment", "start").drop_vars("year", errors="ignore")
    table = start.to_dataframe("employment_start").reset_index()
    table = table[economy.panel.data["present"].values.ravel()]
    links, rng = economy.linkages, np.random.default_rng(2)
    if data == "simulated_industries":
        kept = sorted(set(table["cluster"]))[:CLUSTERS]
        table = split(table[table["cluster"].isin(kept)], rng)
        links = links[links[["cluster", "linked_cluster"]].isin(kept).all(axis=1)]
    shapes = economy.panel.geometry.rename("geometry").reset_index()
    return sc.read_panel(grown(name, table, shapes, links, rng), shapes), links


def split(table, rng):
    """Split clusters into industries, cell by cell; what is withheld stays withheld."""
    rows = []
    for cluster, cells in table.groupby("cluster"):
        shares = rng.dirichlet(np.full(INDUSTRIES, 3.0))
        for region, jobs in zip(cells["region"], cells["employment_start"], strict=True):
            own = rng.dirichlet(8.0 * shares)
            known = not np.isnan(jobs)
            parts = rng.multinomial(int(jobs), own) if known else np.full(INDUSTRIES, np.nan)
            rows += [(region, f"{cluster}, {k}", cluster, n) for k, n in enumerate(parts)]
    return pd.DataFrame(rows, columns=["region", "industry", "cluster", "employment_start"])


def grown(name, table, shapes, linkages, rng):
    """Let a table of the base year grow by a model, at a truth drawn ``WITHIN``."""
    # rows depend on the base year alone, so growth can be drawn afterwards
    some = table["employment_start"] * (1.0 + np.arange(len(table)) % 2)
    spec, still = sc.load_model(name), sc.read_panel(table.assign(employment_end=some), shapes)
    design = sc.build_design(spec, still, default_weights(spec, still), linkages=linkages)
    uniform = {}
    for key in model_priors(spec, design):
        if not key.startswith("cor("):
            low, high = WITHIN.get(key, SMALL)
            uniform[f'priors."{key}"'] = {"distribution": "uniform", "lower": low, "upper": high}
    truth = draw_parameters(sc.override(spec, uniform), design, rng)
    cell = "industry" if "industry" in table else "cluster"
    keys = [design.data["row_region"].values, design.data[f"row_{cell}"].values]
    growth = pd.Series(simulate_response(spec, design, truth, rng), pd.MultiIndex.from_arrays(keys))
    change = growth.reindex(pd.MultiIndex.from_frame(table[["region", cell]])).fillna(0.0)
    return table.assign(employment_end=table["employment_start"] * np.exp(change.to_numpy()))
