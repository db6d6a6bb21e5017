"""Do completed panels come from the posterior? Beside one written down in numpyro, in one piece.

    python tests/statistical/completion_agrees.py --replication 3 --output docs/records

An economy of ``examples/04_withheld_cells.py``: some 900 cells, 60 % withheld at either end. The
other sampler is NUTS over every unknown cell, effect and parameter at once, with the same priors;
nothing of the package is in it. Means and standard deviations of coefficients and scales are
compared in units of their combined Monte Carlo error.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import spatialclusters as sc
from spatialclusters.completion.augmentation import Augmentation
from spatialclusters.completion.panels import prepare
from spatialclusters.spec import parse_spec

BOUND = 4.0  # Monte Carlo errors, over 18 comparisons: one false alarm in a thousand runs
NAMES = {
    "log(employment)": "own",
    "log1p(rest_of_cluster)": "cluster",
    "sigma": "sigma",
    "sd(region)[0]": "sd region",
    "sd(industry)[0]": "sd industry",
    "level sigma": "level sigma",
    "level sd(region)[0]": "level sd region",
    "level sd(industry)[0]": "level sd industry",
    "level sd(region:cluster)[0]": "level sd cell",
}


def experiment():
    path = Path(__file__).parents[2] / "examples" / "04_withheld_cells.py"
    spec = importlib.util.spec_from_file_location("withheld_cells", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_one_piece(table: pd.DataFrame, priors: dict[str, float], draws: int, seed: int) -> dict:
    """Draw cells, effects and parameters together."""
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist
    from numpyro import factor, sample
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    codes = {
        "region": pd.factorize(table["region"])[0],
        "industry": pd.factorize(table["industry"])[0],
        "cell": pd.factorize(table["region"] + table["cluster"])[0],
    }
    alone = np.bincount(codes["cell"])[codes["cell"]] == 1

    def logs(end: str) -> jax.Array:
        value = table[f"employment_{end}"].to_numpy()
        at = np.flatnonzero(np.isnan(value))
        low, high = (table[f"employment_{s}_{end}"].to_numpy()[at] for s in ("lower", "upper"))
        low, high = np.log(np.maximum(low, 1.0)), np.log(high)
        share = sample(f"share {end}", dist.Uniform(0.0, 1.0).expand([len(at)]).to_event(1))
        return jnp.log(np.where(np.isnan(value), 1.0, value)).at[at].set(low + (high - low) * share)

    def effects(prefix: str, name: str) -> jax.Array:
        sd = sample(f"{prefix}sd {name}", dist.HalfNormal(priors[f"{prefix}sd {name}"]))
        count = codes[name].max() + 1
        raw = sample(f"{prefix}raw {name}", dist.Normal().expand([count]).to_event(1))
        return sd * raw[codes[name]]

    def model() -> None:
        start, end = logs("start"), logs("end")
        mean = sample("level", dist.Normal(priors["middle"], priors["level intercept"]))
        mean += sum(effects("level ", name) for name in codes)
        scale = sample("level sigma", dist.HalfNormal(priors["level sigma"]))
        factor("levels", dist.Normal(mean, scale).log_prob(start).sum())
        sums = jnp.zeros(codes["cell"].max() + 1).at[codes["cell"]].add(jnp.exp(start))
        rest = jnp.where(alone, 0.0, sums[codes["cell"]] - jnp.exp(start))
        own, cluster = (sample(n, dist.Normal(0.0, priors[n])) for n in ("own", "cluster"))
        growth = sample("growth", dist.Normal(0.0, priors["intercept"]))
        growth += own * (start - priors["own center"])
        growth += cluster * (jnp.log1p(rest) - priors["cluster center"])
        growth += effects("", "region") + effects("", "industry")
        sigma = sample("sigma", dist.HalfNormal(priors["sigma"]))
        factor("growth of cells", dist.Normal(growth, sigma).log_prob(end - start).sum())

    sampler = MCMC(
        NUTS(model, max_tree_depth=8), num_warmup=500, num_samples=draws, progress_bar=False
    )
    sampler.run(jax.random.PRNGKey(seed))
    return {name: np.asarray(sampler.get_samples()[name]) for name in NAMES.values()}


def main() -> int:
    from arviz_stats.base import array_stats

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--replication", type=int, default=3)
    parser.add_argument("--draws", type=int, default=1500)
    arguments = parser.parse_args()
    module = experiment()
    _, table = module.economy(np.random.default_rng([1, arguments.replication]))
    spec, panel = parse_spec(module.MODEL), sc.read_panel(table)
    sides = prepare(spec, panel, None, None, (), 1.0)
    chain = Augmentation.build(
        spec, panel, None, None, sides, totals_sd=0.01, predictors=(), tune=400, seed=1
    )
    growth, level = (each.spec.priors for each in (chain.growth, chain.level))
    priors = {
        "own": growth["log(employment)"].sd,
        "cluster": growth["log1p(rest_of_cluster)"].sd,
        "intercept": growth["intercept"].sd,
        "sigma": growth["sigma"].sd,
        "sd region": growth["sd(region)"].sd,
        "sd industry": growth["sd(industry)"].sd,
        "level intercept": level["intercept"].sd,
        "middle": level["intercept"].mean,
        "level sigma": level["sigma"].sd,
        "level sd region": level["sd(region)"].sd,
        "level sd industry": level["sd(industry)"].sd,
        "level sd cell": level["sd(region:cluster)"].sd,
    }
    center = dict(zip(chain.columns.terms, chain.growth.design.data["center"].values, strict=True))
    priors["own center"] = center["log(employment)"]
    priors["cluster center"] = center["log1p(rest_of_cluster)"]
    rows = [row for _, _, row in chain.run(400 + 2 * arguments.draws, 1, progress=False)]
    trace = pd.DataFrame(rows).iloc[400:]
    other = in_one_piece(table, priors, arguments.draws, 2)
    lines, worst = [], 0.0
    for name, theirs in NAMES.items():
        both = trace[name].to_numpy(), other[theirs]
        halves = [x[: 2 * (len(x) // 2)].reshape(2, -1) for x in both]
        cells = [f"{x.mean():+.4f} ({x.std():.4f})" for x in both]
        gaps = []
        for method, statistic in (("mean", np.mean), ("sd", np.std)):
            errors = [array_stats.mcse(x, method=method) for x in halves]
            gaps.append((statistic(both[0]) - statistic(both[1])) / np.hypot(*errors))
        worst = max(worst, *map(abs, gaps))
        ess = [f"{array_stats.ess(x, method='bulk'):.0f}" for x in halves]
        lines.append(
            f"| {name.replace('[0]', '')} | {cells[0]} | {cells[1]} | {gaps[0]:+.1f} | {gaps[1]:+.1f} "
            f"| {ess[0]} / {ess[1]} |"
        )
    hidden = [int(table[f"employment_{end}"].isna().sum()) for end in ("start", "end")]
    text = f"""# Completed panels come from the posterior

`python tests/statistical/completion_agrees.py --replication {arguments.replication} --draws {arguments.draws}`

An economy of the experiment on withheld cells, {len(table)} cells, {hidden[0]} and {hidden[1]} of them withheld
at the start and the end. Data augmentation ({len(trace)} iterations) beside NUTS over every cell, effect and
parameter at once, written in numpyro without the package. Gaps of means and standard deviations are in
combined Monte Carlo errors; allowed: {BOUND:g}. {"**All inside.**" if worst < BOUND else "**Not all inside.**"}

| parameter | data augmentation: mean (sd) | in one piece: mean (sd) | gap of means | gap of sds | ESS |
|---|---|---|---:|---:|---|
""" + "\n".join(lines)
    (arguments.output / "completion-agrees.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if worst < BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
