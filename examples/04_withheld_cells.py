"""What withheld cells do to the estimates, and what completed panels do about it.

    python examples/04_withheld_cells.py OUT --replications 100 --seed 1 --processes 2

Each replication simulates an economy, withholds six cells in ten (those in low brackets first; the
brackets are those that County Business Patterns used to publish) and estimates

    growth ~ log(employment) + log1p(rest_of_cluster) + (1 | region) + (1 | industry)

in five ways: from the true cells; with withheld cells as zeros (and log(1 + x), which has no
trouble with them); from the rows that are published at both ends; with the middle of the bracket
in every cell; and from 20 panels completed under the model. Finished replications are lines of
JSON in OUT, so an interrupted run goes on where it stopped. The last thing written is OUT/table.md.

By default two replications with few draws show how it works.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# one thread each, and compilers that do not optimize what runs for a second
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=1",
    "PYTENSOR_FLAGS": "cxx=",
}

import numpy as np
import pandas as pd

import spatialclusters as sc
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.run import choose_settings
from spatialclusters.spec import parse_spec

REGIONS, CLUSTERS, INDUSTRIES = 30, 6, 6
TRUTH = {"log(employment)": -0.096, "log1p(rest_of_cluster)": 0.04}
WITHHELD = 0.6
BRACKETS = np.array([0, 20, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 1e6])
MODEL = """
name = "withheld"
formula = "growth ~ log(employment) + log1p(rest_of_cluster) + (1 | region) + (1 | industry)"
[growth]
variable = "employment"
from = 2018
to = 2021
[cells]
absent = "zero"
withheld = "zero"
"""
WAYS = ("true cells", "zeros", "published rows", "middle of the bracket", "completed panels")


def economy(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate a true table, and the table that an agency would publish."""
    # the same cells exist in every replication: one compiled sampler serves all
    exists = np.random.default_rng(0).uniform(size=(REGIONS, CLUSTERS * INDUSTRIES)) > 0.15
    shape = exists.shape
    region, industry = rng.normal(0, 0.8, (shape[0], 1)), rng.normal(0, 0.8, shape[1])
    special = np.repeat(rng.normal(0, 0.6, (shape[0], CLUSTERS)), INDUSTRIES, axis=1)
    level = 4.0 + region + industry + special + rng.normal(0, 0.7, shape)
    start = np.where(exists, np.maximum(np.round(np.exp(level)), 1.0), 0.0)
    sums = start.reshape(shape[0], CLUSTERS, INDUSTRIES).sum(axis=2)
    rest = np.repeat(sums, INDUSTRIES, axis=1) - start
    own, cluster = TRUTH.values()
    effects = rng.normal(0, 0.1, (shape[0], 1)) + rng.normal(0, 0.1, shape[1])
    growth = 0.4 + own * np.log(np.maximum(start, 1.0)) + cluster * np.log1p(rest) + effects
    end = start * np.exp(growth + rng.normal(0, 0.25, shape))
    r, i = np.nonzero(exists)
    ids = pd.DataFrame(
        {
            "region": [f"region {k:02d}" for k in r],
            "industry": [f"industry {k:02d}" for k in i],
            "cluster": [f"cluster {k // INDUSTRIES}" for k in i],
        }
    )
    true, published = ids.copy(), ids.copy()
    for name, grid in (("start", start), ("end", end)):
        value = grid[r, i]
        bracket = np.searchsorted(BRACKETS, value, side="right") - 1
        chance = 1.0 / (1.0 + np.exp(0.7 * (np.log(BRACKETS[bracket + 1]) - 4.6)))
        hidden = rng.uniform(size=len(value)) < np.minimum(chance * WITHHELD / chance.mean(), 0.98)
        true[f"employment_{name}"] = value
        published[f"employment_{name}"] = np.where(hidden, np.nan, value)
        published[f"employment_lower_{name}"] = np.where(hidden, BRACKETS[bracket], value)
        published[f"employment_upper_{name}"] = np.where(hidden, BRACKETS[bracket + 1], value)
    return true, published


def filled(published: pd.DataFrame, lower_share: float) -> pd.DataFrame:
    """Put a point of the bracket into every withheld cell: 0.5 is its middle."""
    table = published[["region", "industry", "cluster"]].copy()
    for name in ("start", "end"):
        low, high = (published[f"employment_{side}_{name}"] for side in ("lower", "upper"))
        middle = lower_share * low + (1.0 - lower_share) * high
        table[f"employment_{name}"] = published[f"employment_{name}"].fillna(middle)
    return table


def with_zeros(published: pd.DataFrame, design: sc.Design) -> sc.Design:
    """Return the design of somebody who reads withheld cells as zeros and adds one to all."""
    table = published.fillna({"employment_start": 0.0, "employment_end": 0.0})
    start, end = table["employment_start"], table["employment_end"]
    sums = start.groupby([table["region"], table["cluster"]]).transform("sum")
    table = table.assign(
        y=np.log1p(end) - np.log1p(start), own=np.log1p(start), rest=np.log1p(sums - start)
    )
    keys = [design.data["row_region"].values, design.data["row_industry"].values]
    table = table.set_index(["region", "industry"]).loc[list(zip(*keys, strict=True))]
    X = table[["own", "rest"]].to_numpy()
    return sc.Design(design.data.assign(y=("obs", table["y"]), X=(("obs", "term"), X)))


def published_rows(published: pd.DataFrame) -> dict[str, list[float]]:
    """Estimate from rows published at both ends by two-way fixed effects, as most would."""
    import pyfixest

    table = published.assign(known=published["employment_start"].fillna(0.0))
    sums = table.groupby(["region", "cluster"])["known"].transform("sum")
    table["rest"] = np.log1p(sums - table["known"])
    table["own"] = np.log(table["employment_start"])
    table["growth"] = np.log(table["employment_end"]) - table["own"]
    fit = pyfixest.feols(
        "growth ~ own + rest | region + industry",
        data=table.dropna(subset="growth"),
        vcov={"CRV1": "region"},
    )
    interval = fit.confint(alpha=0.1)
    return {
        term: [float(fit.coef()[name]), *map(float, interval.loc[name])]
        for term, name in zip(TRUTH, ("own", "rest"), strict=True)
    }


def replication(number: int, seed: int, quick: bool) -> dict:
    """Simulate once and estimate in all ways: mean and 90 % interval of both coefficients."""
    started = time.process_time()
    true, published = economy(np.random.default_rng([seed, number]))
    spec, panel = parse_spec(MODEL), sc.read_panel(published)
    design = sc.build_design(spec, sc.read_panel(true))
    if quick not in _SAMPLERS:
        tune, draws = (40, 20) if quick else (100, 100)
        settings = choose_settings(spec, seed=seed, tune=tune, draws=draws)
        _SAMPLERS[quick] = RepeatedSampler(spec, design, settings)

    def draws(data: sc.Design, key: int) -> np.ndarray:
        sampled = _SAMPLERS[quick].sample(data, seed=1000 * number + key)
        return sampled.posterior["coefficient"][0]

    def summary(values: np.ndarray) -> dict[str, list[float]]:
        found = np.column_stack([values.mean(axis=0), *np.quantile(values, [0.05, 0.95], axis=0)])
        return dict(zip(TRUTH, found.tolist(), strict=True))

    many = {"m": 20, "burn": 30, "thin": 2} if quick else {"m": 20, "burn": 150, "thin": 8}
    completed = sc.complete_panels(spec, panel, seed=1000 * number, progress=False, **many)
    each = [draws(sc.build_design(spec, p), k) for k, p in enumerate(completed.panels)]
    middle = sc.build_design(spec, sc.read_panel(filled(published, 0.5)))
    found = {
        "true cells": summary(draws(design, 100)),
        "zeros": summary(draws(with_zeros(published, design), 101)),
        "published rows": published_rows(published),
        "middle of the bracket": summary(draws(middle, 102)),
        "completed panels": summary(np.concatenate(each)),
    }
    means = np.stack([values.mean(axis=0) for values in each])
    total = np.concatenate(each).var(axis=0, ddof=1)
    between = dict(zip(TRUTH, (means.var(axis=0, ddof=1) / total).tolist(), strict=True))
    hidden = {n: float(published[f"employment_{n}"].isna().mean()) for n in ("start", "end")}
    return {
        "replication": number, "withheld": hidden, "found": found, "between": between,
        "effective_draws": completed.record["effective_draws"],
        "cpu_seconds": time.process_time() - started,
    }  # fmt: skip


_SAMPLERS: dict[bool, RepeatedSampler] = {}


def run(part: int, numbers: list[int], seed: int, quick: bool, folder: Path) -> None:
    """Write the replications of one process, a line each."""
    with (folder / f"part-{part}.jsonl").open("a", encoding="utf-8") as out:
        for number in numbers:
            out.write(json.dumps(replication(number, seed, quick)) + "\n")
            out.flush()
            print(f"replication {number} done", file=sys.stderr)


def finished(folder: Path) -> list[dict]:
    """Read the replications that are done."""
    parts = [path.read_text(encoding="utf-8") for path in folder.glob("part-*.jsonl")]
    done = {}
    for line in "".join(parts).splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the line at which the run was stopped
        done[entry["replication"]] = entry
    return [done[number] for number in sorted(done)]


def report(lines: list[dict], seed: int) -> str:
    """Word bias, coverage and width of each way as a Markdown table."""
    rows = []
    for term, truth in TRUTH.items():
        for way in WAYS:
            values = np.array([line["found"][way][term] for line in lines])
            bias = values[:, 0].mean() - truth
            error = values[:, 0].std(ddof=1) / np.sqrt(len(values))
            hit = ((values[:, 1] <= truth) & (truth <= values[:, 2])).mean()
            width = (values[:, 2] - values[:, 1]).mean()
            rows.append(
                f"| `{term}` | {way} | {values[:, 0].mean():+.4f} | {bias:+.4f} ({error:.4f}) "
                f"| {100 * hit:.0f} % | {width:.4f} |"
            )
    between = {t: np.mean([line["between"][t] for line in lines]) for t in TRUTH}
    withheld = np.mean([list(line["withheld"].values()) for line in lines])
    shares = ", ".join(f"{100 * share:.0f} % of `{term}`" for term, share in between.items())
    return "\n".join(
        [
            f"{len(lines)} replications, seed {seed}; {100 * withheld:.0f} % of the cells withheld; "
            f"truth {TRUTH['log(employment)']} and {TRUTH['log1p(rest_of_cluster)']}.",
            "",
            "| coefficient | cells | mean estimate | bias (Monte Carlo error) | 90 % intervals that hold the truth | their width |",
            "|---|---|---:|---:|---:|---:|",
            *rows,
            "",
            f"Share of the pooled variance that is between completed panels: {shares}. CPU seconds "
            f"a replication: {np.median([line['cpu_seconds'] for line in lines]):.0f} (median).",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?", default=Path("withheld-cells"))
    parser.add_argument("--replications", type=int, help="default: two, with few draws")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    quick = arguments.replications is None
    total = arguments.replications or 2
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    done = {line["replication"] for line in finished(folder)}
    todo = [number for number in range(total) if number not in done]
    parts = [todo[k :: arguments.processes] for k in range(arguments.processes)]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for future in [
            pool.submit(run, k, part, arguments.seed, quick, folder) for k, part in enumerate(parts)
        ]:
            future.result()
    text = report(finished(folder), arguments.seed)
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
