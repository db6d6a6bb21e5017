"""Do the collapsed and the full engine have the same posterior?

    SPATIALCLUSTERS_DATA=... python tests/statistical/engines_agree.py --output docs/records

Designs of at most 200 effects and 1,500 rows, real ones for every spatial process. Means and
standard deviations of every parameter are compared in units of their combined Monte Carlo
error; the largest must stay below the 0.999 quantile of the largest of that many normals.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from agreement import AXES, LEVEL, bound, gaps, mean_and_sd

import spatialclusters as sc

ESS = 4000


def nested():
    """Regions by industries in clusters: cells, a block per cluster, constant noise."""
    rng = np.random.default_rng(11)
    regions, industries, clusters = 18, 25, 5
    index = pd.MultiIndex.from_product([range(regions), range(industries)], names=["r", "i"])
    table = index.to_frame(index=False)[rng.random(regions * industries) < 0.8]
    cluster = table["i"] % clusters
    x = rng.normal(size=len(table))
    y = 0.2 + (0.5 + 0.3 * rng.normal(size=clusters)[cluster]) * x
    y += 0.5 * rng.normal(size=regions)[table["r"]] + 0.4 * rng.normal(size=industries)[table["i"]]
    y += 0.3 * rng.normal(size=regions * clusters)[table["r"] * clusters + cluster]
    columns = {
        "region": "r" + table["r"].astype(str),
        "industry": "i" + table["i"].astype(str),
        "cluster": "c" + cluster.astype(str),
        "x": x,
        "y": y + 0.7 * rng.normal(size=len(table)),
    }
    formula = "y ~ x + (1 | industry) + (1 | region) + (1 | region:cluster) + (1 + x | cluster)"
    return sc.parse_spec(f'name = "nested"\nformula = "{formula}"'), sc.read_panel(
        pd.DataFrame(columns)
    ), None, None  # fmt: skip


def crossed():
    """Regions by clusters, nothing nested; group means, noise by cluster, unbalanced."""
    rng = np.random.default_rng(12)
    regions, clusters = 60, 20
    index = pd.MultiIndex.from_product([range(regions), range(clusters)], names=["r", "c"])
    table = index.to_frame(index=False)[rng.random(regions * clusters) < 0.7]
    u = rng.normal(size=regions)
    x = 0.5 * u[table["r"]] + rng.normal(size=len(table))
    y = -0.3 * x + 0.4 * u[table["r"]] + 0.5 * rng.normal(size=clusters)[table["c"]]
    noise = np.exp(0.3 * rng.normal(size=clusters))[table["c"]] * rng.normal(size=len(table))
    columns = {
        "region": "r" + table["r"].astype(str),
        "cluster": "c" + table["c"].astype(str),
        "x": x,
        "y": y + 0.6 * noise,
    }
    text = (
        'name = "crossed"\nformula = "y ~ x + (1 | region) + (1 + x | cluster)"\n'
        'groups.region.effect = "correlated"\nlikelihood.scale = "by-cluster"'
    )
    return sc.parse_spec(text), sc.read_panel(pd.DataFrame(columns)), None, None


def real(changes=None):
    """The eight largest clusters of the US Economic Areas by the shipped cluster_growth."""
    data = Path(os.environ["SPATIALCLUSTERS_DATA"])
    table = pd.read_parquet(data / "us_ea" / "clusters_2018_2021.parquet")
    largest = table.groupby("cluster")["employment_start"].sum().nlargest(8).index
    table = table[table["cluster"].isin(largest)]
    links = pd.read_csv(data / "concordance" / "linked_clusters.csv")
    links = links[links["cluster"].isin(largest) & links["linked_cluster"].isin(largest)]
    weights = sc.read_weights(data / "us_ea" / "queen.parquet")
    spec = sc.load_model(
        "cluster_growth",
        {
            "formula": "growth ~ log(cluster_level) + log(neighbor_strength)"
            " + (1 | region) + (1 + log(cluster_level) | cluster)",
            "priors": None,
            "roles": {"convergence": "log(cluster_level)"},
            "zeros": {"neighbor_strength": "minimum-and-dummy"},
            "expects": None,
        }
        | (changes or {}),
    )
    return spec, sc.read_panel(table), weights, None


def spatial(outcome, structure="iid"):
    """The same clusters with a spatial process, constant noise and no slopes."""
    return real(
        {
            "formula": "growth ~ log(cluster_level) + (1 | region) + (1 | cluster)",
            "likelihood.scale": "constant",
            "zeros": None,
            "groups": {"region": {"structure": structure}},
            "spatial.outcome": outcome,
        }
    )


DESIGNS = {
    "nested": nested,
    "crossed": crossed,
    "us_ea, eight clusters": real,
    "us_ea, SAR": partial(spatial, "sar"),
    "us_ea, SEM": partial(spatial, "sem"),
    "us_ea, BYM2": partial(spatial, "none", "bym2"),
}


def parameters(fit):
    """Return every parameter's draws by name, (chain, draw)."""
    found = {}
    for name in map(str, fit.posterior.data_vars):
        values = fit.draws(name)
        flat = values.reshape(*values.shape[:2], -1)
        found |= {f"{name}[{i}]": flat[..., i] for i in range(flat.shape[2])}
    return found


def summaries(fit):
    """Return mean, sd, their Monte Carlo errors and bulk ESS of every parameter."""
    from arviz_stats.base import array_stats

    rows = {
        name: mean_and_sd(values) | {"ess": array_stats.ess(values, method="bulk", **AXES)}
        for name, values in parameters(fit).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def compare(name, draws, seed):
    """Fit one design with both engines; return the row of the record and whether it passed."""
    spec, panel, weights, linkages = DESIGNS[name]()
    tables, cpu = {}, {}
    for engine in ("collapsed", "full"):
        fit = sc.fit(
            spec, panel, weights, linkages=linkages, seed=seed, engine=engine, progress=False,
            tune=1000 if engine == "full" else 300, draws=draws[engine],
        )  # fmt: skip
        tables[engine] = summaries(fit)
        timings = fit.provenance["timings"]
        cpu[engine] = sum(timings["cpu_seconds"]) + timings["preparation_cpu_seconds"]
    ours, theirs = tables["collapsed"], tables["full"].loc[tables["collapsed"].index]
    row = {
        "design": name,
        "rows": fit.design.n_rows,
        "parameters": len(ours),
        "smallest ESS, collapsed": ours["ess"].min(),
        "full": theirs["ess"].min(),
    }
    limit, found = bound(len(ours)), gaps(ours, theirs)
    passed = min(ours["ess"].min(), theirs["ess"].min()) > ESS
    for what, gap in found.items():
        row[f"largest gap of {what}s"] = f"{gap.max():.2f} ({gap.idxmax()})"
        passed &= bool(gap.max() < limit)
    row["bound"] = limit
    return row | {"CPU s": f"{cpu['collapsed']:.0f} / {cpu['full']:.0f}"}, passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--draws-collapsed", type=int, default=4000)
    parser.add_argument("--draws-full", type=int, default=6000)
    parser.add_argument("--only", choices=DESIGNS, action="append")
    given = parser.parse_args()
    draws = {"collapsed": given.draws_collapsed, "full": given.draws_full}
    rows, passed = [], True
    for name in given.only or DESIGNS:
        row, good = compare(name, draws, given.seed)
        rows.append(row)
        passed &= good
        print(row, good, file=sys.stderr, flush=True)
    table = pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f")
    text = f"""# The collapsed and the full engine have the same posterior

`python tests/statistical/engines_agree.py --seed {given.seed} --draws-collapsed \
{given.draws_collapsed} --draws-full {given.draws_full}`

Every parameter and effect, 4 chains each. Gaps between the engines' posterior
means and standard deviations are in units of the combined Monte Carlo error; the bound is the
{LEVEL} quantile of the largest of that many independent normals. ESS is to exceed {ESS}.
**{"All inside." if passed else "NOT all inside."}**

{table}
"""
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "engines-agree.md").write_text(text)
    sys.stdout.write(text)
    return 0 if passed else 3


if __name__ == "__main__":
    sys.exit(main())
