"""Time the engines on a simulated problem of the paper's size: 55,000 rows, 8,000 effects.

All samplers get the same data and priors and run one process at a time, each rival for at
most 900 CPU seconds. What is finished in the folder is not run again::

    python tests/benchmarks/paper_scale.py -o results --seed 1 --seed 2 --seed 3
    python tests/benchmarks/paper_scale.py -o results --seed 1 --only full-numpyro
    python tests/benchmarks/paper_scale.py -o results --seed 1 --table

Needs ``pip install nutpie`` and, for lme4, Debian's r-cran-lme4.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rivals import RIVALS, Budget, Problem, Run
from scipy.optimize import brentq
from scipy.special import expit

from spatialclusters.design import build_design
from spatialclusters.files import replace_file
from spatialclusters.panel import read_panel
from spatialclusters.parameters import pair_labels, sd_names
from spatialclusters.spec import parse_spec

FORMULA = (
    "y ~ level + cluster_x + neighbor_x + linked_x + noise_x + region_x + industry_x "
    "+ (1 | industry) + (1 | region) + (1 | region:cluster) "
    "+ (1 + level + cluster_x + neighbor_x | cluster)"
)
COEFFICIENTS = (-0.4, 0.12, 0.06, 0.05, 0.03, 0.02, 0.04)
CLUSTER_SDS = (0.10, 0.05, 0.05, 0.05)
CLUSTER_CORRELATIONS = (-0.4, 0.2, -0.2, 0.0, 0.1, 0.3)  # by row below the diagonal
TRUTH = {
    "intercept": 0.1, "sigma": 0.8, "sd(industry)": 0.3, "sd(region)": 0.15,
    "sd(region:cluster)": 0.25,
}  # fmt: skip

STAGES = ("start-up", "preparation", "warm-up", "sampling", "recovery")
FAMILIES = ("hyper", "fixed", "cluster", "industry", "other")


@dataclass(frozen=True)
class Scale:
    """How large the economy is; ``occupancy`` is the share of cells with employment."""

    regions: int = 177
    clusters: int = 41
    industries: int = 589
    occupancy: float = 0.53


def simulate(scale: Scale, seed: int) -> pd.DataFrame:
    """Draw an economy: which cells exist, their covariates, and growth from the model."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    n_regions, n_industries = scale.regions, scale.industries
    cluster_of = _nested(scale, rng)
    attraction = 0.9 * normal(n_regions)[:, None] + 0.9 * normal(n_industries)
    level = brentq(lambda a: expit(a + attraction).mean() - scale.occupancy, -20.0, 20.0)
    present = rng.random(attraction.shape) < expit(level + attraction)
    region, industry = np.nonzero(present)
    cluster = cluster_of[industry]
    cell = region * scale.clusters + cluster

    n_rows, n_cells = len(region), n_regions * scale.clusters
    strength = normal(n_cells)[cell]
    cluster_x = 0.6 * strength + 0.8 * normal(n_rows)
    columns = {
        "level": 0.45 * cluster_x + 0.9 * normal(n_rows),
        "cluster_x": cluster_x,
        "neighbor_x": 0.7 * normal(n_cells)[cell] + 0.5 * normal(n_rows),
        "linked_x": normal(n_cells)[cell],
        "noise_x": normal(n_rows),
        "region_x": normal(n_regions)[region],
        "industry_x": normal(n_industries)[industry],
    }
    X = np.column_stack(list(columns.values()))
    root = np.linalg.cholesky(_correlation())
    slopes = normal((scale.clusters, 4)) @ root.T * CLUSTER_SDS
    y = TRUTH["intercept"] + X @ COEFFICIENTS
    y += (np.column_stack([np.ones(n_rows), X[:, :3]]) * slopes[cluster]).sum(axis=1)
    y += TRUTH["sd(industry)"] * normal(n_industries)[industry]
    y += TRUTH["sd(region)"] * normal(n_regions)[region]
    y += TRUTH["sd(region:cluster)"] * normal(n_cells)[cell]
    y += TRUTH["sigma"] * normal(n_rows)
    ids = {"region": region, "industry": industry, "cluster": cluster}
    named = {name: [f"{name[0]}{code:03d}" for code in codes] for name, codes in ids.items()}
    return pd.DataFrame(named | {"y": y} | columns)


def _nested(scale: Scale, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster of every industry; clusters have 3 to about 45 industries."""
    shares = rng.dirichlet(np.full(scale.clusters, 2.5))
    sizes = 3 + rng.multinomial(scale.industries - 3 * scale.clusters, shares)
    return np.repeat(np.arange(scale.clusters), sizes)


def _correlation() -> np.ndarray:
    matrix = np.eye(4)
    matrix[np.tril_indices(4, -1)] = CLUSTER_CORRELATIONS
    return matrix + np.tril(matrix, -1).T


def make_problem(scale: Scale, seed: int) -> Problem:
    """Lay the simulated table out as the package does."""
    table = simulate(scale, seed)
    spec = parse_spec(f'name = "paper_scale"\nformula = "{FORMULA}"')
    return Problem(table, spec, build_design(spec, read_panel(table)))


def family(name: str) -> str:
    """Say which family of parameters a monitored name belongs to."""
    if name in ("intercept", "coefficient"):
        return "fixed"
    if not name.startswith("effect("):
        return "hyper"
    return {"effect(cluster)": "cluster", "effect(industry)": "industry"}.get(name, "other")


def judge(draws: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Return the worst bulk ESS and the worst R-hat of every family, and whose ESS it is."""
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1}
    found: dict[str, dict[str, Any]] = {f: {"ess": math.inf, "r_hat": 1.0} for f in FAMILIES}
    for name, values in draws.items():
        worst = found[family(name)]
        flat = values.reshape(*values.shape[:2], -1)
        for i in range(flat.shape[2]):
            ess = float(array_stats.ess(flat[..., i], **axes, method="bulk"))
            r_hat = float(array_stats.rhat(flat[..., i], **axes, method="rank"))
            worst["r_hat"] = max(worst["r_hat"], r_hat)
            if ess < worst["ess"]:
                worst |= {"ess": ess, "worst": f"{name}[{i}]"}
    return found


def estimates(problem: Problem, run: Run) -> dict[str, list[float]]:
    """Return posterior mean and sd of what is not an effect; without draws, the estimate."""
    design = problem.design
    labels = {"intercept": ["intercept"], "sigma": ["sigma"], "coefficient": list(design.terms)}
    for group in design.groups:
        labels[f"sd({group.name})"] = sd_names(group)
        labels[f"cor({group.name})"] = [f"cor({pair})" for pair in pair_labels(group)]
    found = {name: [value] for name, value in run.estimates.items()}
    for name, values in run.draws.items():
        flat = values.reshape(values.shape[0] * values.shape[1], -1)
        for i, label in enumerate(labels.get(name, ())):
            found[label] = [float(flat[:, i].mean()), float(flat[:, i].std(ddof=1))]
    return found


def measure(sampler: str, scale: Scale, seed: int, budget: Budget, out: Path) -> None:
    """Run one sampler and write what it drew, then what it cost: the second says done."""
    target = out / f"{sampler}-{seed}.json"
    if target.is_file():
        return
    print(f"{time.strftime('%H:%M:%S')} {sampler}, seed {seed}", file=sys.stderr, flush=True)
    problem = make_problem(scale, seed)
    scratch = out / "scratch" / f"{sampler}-{seed}"
    shutil.rmtree(scratch, ignore_errors=True)
    run = RIVALS[sampler](problem, seed, scratch, budget)
    shape = next(iter(run.draws.values())).shape[:2] if run.draws else (0, 0)
    record = {
        "sampler": sampler,
        "seed": seed,
        "rows": problem.design.n_rows,
        "scale": asdict(scale),
        "budget": asdict(budget),
        "cpu": run.cpu,
        "chains": shape[0],
        "draws": shape[1],
        "divergences": run.divergences,
        "note": run.note,
        "families": judge(run.draws) if run.draws else {},
        "estimates": estimates(problem, run),
    }
    arrays: dict[str, Any] = dict(run.draws)
    replace_file(target.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    replace_file(target, lambda file: file.write(json.dumps(record, indent=1).encode()))
    shutil.rmtree(scratch)


def rate(record: Mapping[str, Any], families: tuple[str, ...] = FAMILIES) -> float:
    """Return the smallest bulk ESS in the families per CPU second, start-up included."""
    if not record["families"]:
        return math.nan
    ess = min(float(record["families"][name]["ess"]) for name in families)
    return ess / float(sum(record["cpu"].values()))


def table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per sampler: cost, length, and ESS per CPU second by family."""
    rows = {}
    for record in records:
        cpu, judged = record["cpu"], record["families"]
        rows[record["sampler"]] = (
            {"CPU s": sum(cpu.values())}
            | {stage: cpu.get(stage) for stage in STAGES}
            | {"draws": f"{record['chains']} x {record['draws']}", "div": record["divergences"]}
            | {"R-hat": max((f["r_hat"] for f in judged.values()), default=None)}
            | {f"{name} /s": rate(record, (name,)) for name in FAMILIES}
            | {"note": record["note"]}
        )
    return pd.DataFrame.from_dict(rows, orient="index")


def ratios(records: list[dict[str, Any]]) -> Iterator[str]:
    """Say how many times better the collapsed engine is, where the runs are there."""
    by_name = {record["sampler"]: record for record in records}
    rivals = [r for name, r in by_name.items() if name.startswith("full") and r["families"]]
    lme4 = by_name.get("lme4")
    for name, ours in by_name.items():
        if not name.startswith("collapsed"):
            continue
        for label, families in (("worst hyperparameter", ("hyper",)), ("worst of all", FAMILIES)):
            if rivals:
                best = max(rivals, key=lambda record: rate(record, families))
                factor = rate(ours, families) / rate(best, families)
                yield f"{name}, {label}: {factor:.1f} times the rate of {best['sampler']}"
        spent = sum(ours["cpu"].values())
        smallest = min(found["ess"] for found in ours["families"].values())
        yield f"{name}: smallest bulk ESS {smallest:.0f} in {spent:.0f} CPU s" + (
            f", {spent / lme4['cpu']['sampling']:.2f} times lmer's" if lme4 else ""
        )


def main() -> None:
    """Run what is missing and print the table of every seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of results")
    parser.add_argument("--seed", type=int, action="append", required=True)
    parser.add_argument("--only", choices=RIVALS, action="append", help="default: all samplers")
    parser.add_argument("--table", action="store_true", help="run nothing")
    for name, default in (asdict(Scale()) | asdict(Budget())).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = parser.parse_args()
    scale = Scale(**{name: getattr(given, name) for name in asdict(Scale())})
    budget = Budget(**{name: getattr(given, name) for name in asdict(Budget())})
    out = given.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for seed in given.seed:
        for sampler in given.only or RIVALS:
            if not given.table:
                measure(sampler, scale, seed, budget, out)
        paths = [out / f"{sampler}-{seed}.json" for sampler in RIVALS]
        records = [json.loads(p.read_text(encoding="utf-8")) for p in paths if p.is_file()]
        print(f"\nseed {seed}")
        print(table(records).to_string(float_format="{:.3g}".format, na_rep="-"))
        print(*ratios(records), sep="\n")


if __name__ == "__main__":
    main()
