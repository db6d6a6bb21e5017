"""The shipped employment_growth end to end on real data: time, memory, verdict, report.

    SPATIALCLUSTERS_DATA=... python tests/statistical/employment_growth.py us_ea --output docs/records
    SPATIALCLUSTERS_DATA=... python tests/statistical/employment_growth.py us_cea us_cz

``us_ea`` and ``us_cea`` are fitted with correlated (as shipped), random and fixed effects of
region and industry, beside pyfixest on the same rows; ``us_cz``, 1980 to 1990, once, without
linked clusters, which its headings do not have. Fits and reports go to ``--fits``, and what
is there already is not fitted again.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil

import spatialclusters as sc

ADJACENCY = {"us_ea": "queen", "us_cea": "adjacency", "us_cz": "adjacency"}
TITLES = {
    "us_ea": "US Economic Areas, 2018 to 2021",
    "us_cea": "US Component Economic Areas, 2018 to 2021",
    "us_cz": "US commuting zones, 1980 to 1990",
}
TREATMENTS = ("correlated", "random", "fixed")
WITHOUT_LINKS = {
    "formula": "growth ~ log(industry_strength) + log(cluster_strength) + log(neighbor_strength)"
    " + (1 | industry) + (1 | region) + (1 | region:cluster)"
    " + (1 + log(industry_strength) + log(cluster_strength) | cluster)",
    "growth.from": 1980,
    "growth.to": 1990,
    "roles.specialization": ["log(cluster_strength)", "log(neighbor_strength)"],
    "zeros": dict.fromkeys(("cluster_strength", "neighbor_strength"), "minimum-and-dummy"),
    "priors": None,
    "expects": None,
}


class Memory(threading.Thread):
    """Watch the memory of this process and its children together, each page once."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0
        self.start()

    def run(self):
        me = psutil.Process()
        while True:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().uss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)
            time.sleep(0.5)


def inputs(name, data):
    """Read the panel, the weights and the linkages of one data set."""
    file = "industries_1980_1990" if name == "us_cz" else "industries_2018_2021"
    table = pd.read_parquet(data / name / f"{file}.parquet")
    if name == "us_cz":
        table = table[~table["broken_code"]].drop(columns=["broken_code", "sh_1980", "sh_1990"])
    weights = sc.read_weights(data / name / f"{ADJACENCY[name]}.parquet")
    links = None if name == "us_cz" else data / "concordance" / "linked_clusters.csv"
    return sc.read_panel(table), weights, links


def fitted(name, effect, given):
    """Fit one treatment and write its report, or load both; return fit and what it took."""
    path = given.fits / f"{name}-{effect}.nc"
    took = path.with_suffix(".json")
    if not took.is_file():
        panel, weights, links = inputs(name, Path(os.environ["SPATIALCLUSTERS_DATA"]))
        groups = {g: {"effect": effect} for g in ("industry", "region")}
        changes = WITHOUT_LINKS if name == "us_cz" else {}
        spec = sc.load_model("employment_growth", changes | {"groups": groups})
        memory, started = Memory(), time.perf_counter()
        fit = sc.fit(spec, panel, weights, linkages=links, seed=given.seed, progress=False)
        found = {"fit wall s": time.perf_counter() - started, "fit MB": memory.peak / 1e6}
        del panel
        fit.save(path)
        found["file MB"] = path.stat().st_size / 1e6
        started = time.perf_counter()
        sc.write_report(fit, sc.fit_frequentist(fit), path=path.with_suffix(".html"))
        found |= {"report wall s": time.perf_counter() - started, "all MB": memory.peak / 1e6}
        took.write_text(json.dumps(found))
        del fit
    fit = sc.load_fit(path)
    timings = fit.provenance["timings"]
    cpu = sum(timings["cpu_seconds"]) + timings["preparation_cpu_seconds"]
    numbers = {"effects": effect, "CPU s": cpu} | json.loads(took.read_text())
    stats = fit.sample_stats
    steps = float(stats["n_steps"].mean()) if "n_steps" in stats else "none, proposals"
    numbers |= {"leapfrogs a draw": steps, "Pareto k": timings["pareto_k"]}
    return fit, numbers


def record(name, given):
    """Word the record of one data set; tell whether everything converged."""
    treatments = given.effects or (TREATMENTS[:1] if name == "us_cz" else TREATMENTS)
    tables, rows, verdicts, passed, first = [], [], [], True, None
    for effect in treatments:
        fit, numbers = fitted(name, effect, given)
        check = sc.check(fit)
        passed &= check.passed
        verdicts += [f"**{effect}.**", "", "```", str(check), "```", ""]
        rows.append(numbers)
        tables.append(sc.coefficients(fit).assign(model=effect))
        first = first or str(sc.regression_table(fit, sc.fit_frequentist(fit)))
        size = fit.design.n_rows, {g.name: len(g.levels) for g in fit.design.groups}
    terms = pd.concat(tables)
    side = terms.assign(
        text=[f"{r.estimate:+.4f} ({r.std_error:.4f})" for r in terms.itertuples()],
        name=terms["term"] + terms["group"].fillna("").map(lambda g: f" [{g}]" if g else ""),
    ).pivot_table(index="name", columns="model", values="text", aggfunc="first", sort=False)
    text = f"""# Growth of industries: {TITLES[name]}

`python tests/statistical/employment_growth.py {name}\
{" --effects " + " ".join(given.effects) if given.effects else ""} --seed {given.seed}`

{size[0]:,} rows; levels {", ".join(f"{k} {v:,}" for k, v in size[1].items())}. Model
`employment_growth`{" without linked clusters, default priors" if name == "us_cz" else " as shipped"},
noise by size, cells without a number count as zero in sums; 4 chains of 300 + 1,500.
{"Everything converged by the rules of `check`." if passed else "NOT everything converged."}

{pd.DataFrame(rows).to_markdown(index=False, floatfmt=".1f")}

CPU seconds include compilation with a cold or warm cache as it came; MB is the largest memory of
all processes together that they do not share (below the first row, earlier fits included).

Posterior mean (standard deviation), by treatment of industry and region:

{side[list(treatments)].to_markdown()}

Beside the frequentist estimates on the same rows:

```
{first}
```

{chr(10).join(verdicts)}"""
    (given.output / f"employment-growth-{name.replace('_', '-')}.md").write_text(text)
    sys.stdout.write(text)
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", choices=ADJACENCY, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--fits", type=Path, required=True, help="folder of fits and reports")
    parser.add_argument("--effects", choices=TREATMENTS, nargs="+", help="default: all, us_cz one")
    parser.add_argument("--seed", type=int, default=20261125)
    given = parser.parse_args()
    for folder in (given.output, given.fits):
        folder.mkdir(parents=True, exist_ok=True)
    return 0 if min(record(name, given) for name in given.data) else 3


if __name__ == "__main__":
    sys.exit(main())
