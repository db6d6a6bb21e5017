"""Recovery by spatial process: are 50 % and 90 % intervals hit as often as they say?

    python tests/statistical/process_recovery.py --process all --datasets 100 --seed 20261201 \\
        --output docs/records --processes 2

Truth is drawn uniformly from the region of the prior in ``REGION``, effects from their
distribution, responses from the model; every data set is fitted with the default priors.
Those are in units of the response's standard deviation, so responses are brought to standard
deviation one, with the truth: then one compiled sampler has the right priors for all of them.
No data set is left out.

A process with hits outside the band runs once more with the seed plus one, and both runs are
recorded. Finished data sets are kept as lines of JSON in the output folder until the record of
all processes is written, so an interrupted command goes on where it stopped.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

FAMILY_WISE = 0.01  # over all quantities and both interval widths of a process, by Bonferroni
TUNE, DRAWS = 300, 1000
SLOW = 50  # bulk ESS; data sets with less in any quantity are counted
RECORDS = {"auto": "recovery-processes-proposals.md", "nuts": "recovery-processes.md"}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=1",
    "PYTENSOR_FLAGS": "cxx=",
}
REGION = {
    "intercept": (-1.0, 1.0),
    "x": (-1.0, 1.0),
    "z": (-1.0, 1.0),
    "lag(x)": (-1.0, 1.0),
    "lag(z)": (-1.0, 1.0),
    "sd(region)": (0.2, 1.0),
    "sd(cluster)": (0.2, 1.0),
    "alpha(region)": (0.05, 0.95),
    "phi(region)": (0.05, 0.95),
    "lambda(region)": (-0.6, 0.8),
    "rho": (-0.6, 0.8),
    "lambda": (-0.6, 0.8),
    "sigma": (0.3, 1.0),
}


@dataclass(frozen=True)
class Process:
    """A model: covariates, outcome process, structure of region effects (None: no effects)."""

    covariates: str
    outcome: str = "none"
    structure: str | None = None

    @property
    def formula(self) -> str:
        effects = "" if self.structure is None else " + (1 | region) + (1 | cluster)"
        return f"y ~ {self.covariates}{effects}"

    @property
    def toml(self) -> str:
        chosen = self.structure not in (None, "iid")
        group = f'[groups.region]\nstructure = "{self.structure}"\n' if chosen else ""
        return f'formula = "{self.formula}"\n{group}[spatial]\noutcome = "{self.outcome}"\n'


PLAIN, DURBIN = "x + z", "x + z + lag(x) + lag(z)"
PROCESSES = {
    "slx": Process(DURBIN),
    "sar": Process(PLAIN, "sar"),
    "sem": Process(PLAIN, "sem"),
    "sac": Process(PLAIN, "sac"),
    "sdm": Process(DURBIN, "sar"),
    "sdem": Process(DURBIN, "sem"),
    "sdm-effects": Process(DURBIN, "sar", "iid"),
    "icar-effects": Process(PLAIN, "none", "icar"),
    "car-effects": Process(PLAIN, "none", "car"),
    "leroux-effects": Process(PLAIN, "none", "leroux"),
    "bym2-effects": Process(PLAIN, "none", "bym2"),
    "sar-effects": Process(PLAIN, "none", "sar"),
}


def queen(n_rows, n_columns):
    """Return the regions of a lattice, and their weights: whoever shares a side or a corner."""
    import spatialclusters as sc

    places = [(i, j) for i in range(n_rows) for j in range(n_columns)]
    links = [
        (f"r{a[0]:02d}{a[1]:02d}", f"r{b[0]:02d}{b[1]:02d}")
        for a in places
        for b in places
        if max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1
    ]
    weights = sc.read_weights(pd.DataFrame(links, columns=["region_i", "region_j"]))
    return weights.regions, weights


def model_of(process):
    """Return a process's spec and design; its response of standard deviation one only holds the place."""
    import spatialclusters as sc

    rng = np.random.default_rng(1)
    regions, weights = queen(10, 12) if process.structure is None else queen(5, 6)
    table = pd.DataFrame({"region": regions})
    if process.structure is not None:
        clusters = pd.DataFrame({"cluster": [f"c{k}" for k in range(6)]})
        table = table.merge(clusters, how="cross")
        table = table[rng.random(len(table)) < 0.8].reset_index(drop=True)
    for name in ("x", "z", "y"):
        table[name] = rng.standard_normal(len(table))
    table["y"] /= table["y"].std()
    spec = sc.parse_spec(process.toml)
    return spec, sc.build_design(spec, sc.read_panel(table), weights)


def quantities(parameters, design, impacts):
    """Flatten what is checked."""
    named = {"intercept": parameters["intercept"]}
    named |= {term: parameters["coefficient"][..., i] for i, term in enumerate(design.terms)}
    named |= {f"{effect} of x": value for effect, value in impacts.items()}
    for group in design.groups:
        named[f"sd({group.name})"] = parameters[f"sd({group.name})"][..., 0]
    named["sigma"] = parameters["sigma"]
    for name in ("alpha(region)", "phi(region)", "lambda(region)", "rho", "lambda"):
        if name in parameters:
            named[name] = parameters[name]
    if "effect(region)" in parameters:
        named["effect(region) first"] = parameters["effect(region)"][..., 0, 0]
    return {name: np.asarray(value) for name, value in named.items()}


def true_impacts(parameters, design):
    """Return direct and total impact of x from the definition, (I - rho L)^-1 (b I + t L)."""
    lagged = "lag(x)" in design.terms
    if not lagged and "rho" not in parameters:
        return {}
    L, eye = design.lag.matrix.toarray(), np.eye(design.n_rows)
    change = parameters["coefficient"][design.terms.index("x")] * eye
    if lagged:
        change = change + parameters["coefficient"][design.terms.index("lag(x)")] * L
    P = np.linalg.solve(eye - parameters.get("rho", 0.0) * L, change)
    return {"direct": np.trace(P) / len(P), "total": P.sum() / len(P)}


def drawn_impacts(draws, spec, design):
    """Return draws of the direct and total impact of x as the package computes them."""
    import xarray as xr

    from spatialclusters.result import assemble
    from spatialclusters.spillovers import has_lags, term_impacts

    posterior = {name: values[None] for name, values in draws.items()}
    fit = assemble(spec, design, posterior, {}, panel=xr.Dataset(), geometry=None, provenance={})
    if not has_lags(fit):
        return {}
    found = {group: values[0] for group, values, _ in term_impacts(fit, "x")}
    return {"direct": found["overall"], "total": found["common"]}


def simulate(spec, design, rng):
    """Draw truth from the region and a response, both in standard deviations of the response."""
    import spatialclusters as sc
    from spatialclusters.parameters import model_priors
    from spatialclusters.processes import dependence_names
    from spatialclusters.simulation import draw_parameters, simulate_response

    region = {
        f'priors."{name}"': {
            "distribution": "uniform",
            "lower": REGION[name][0],
            "upper": REGION[name][1],
        }
        for name in model_priors(spec, design)
    }
    truth = draw_parameters(sc.override(spec, region), design, rng)
    y = simulate_response(spec, design, truth, rng)
    unit, free = y.std(ddof=1), dependence_names(spec)
    return {n: v if n in free else v / unit for n, v in truth.items()}, y / unit


def fit_datasets(name: str, datasets: int, seed: int, sampler: str, folder: Path) -> None:
    """Fit the data sets of a process that are not there yet, one line of JSON each."""
    from arviz_stats.base import array_stats

    from spatialclusters.repeated import RepeatedSampler
    from spatialclusters.run import choose_settings

    file = lines_file(folder, name, seed, sampler)
    done = file.read_text().count("\n") if file.exists() else 0
    spec, design = model_of(PROCESSES[name])
    settings = choose_settings(
        spec, seed=seed, engine="collapsed", sampler=sampler, tune=TUNE, draws=DRAWS
    )
    repeated = RepeatedSampler(spec, design, settings)
    with file.open("a") as out:
        for number in range(done, datasets):
            started = time.perf_counter()
            rng = np.random.default_rng([seed, list(PROCESSES).index(name), number])
            truth, y = simulate(spec, design, rng)
            sample = repeated.sample(y, seed=seed, chain=number)
            draws = {n: values[0] for n, values in sample.posterior.items()}
            known = quantities(truth, design, true_impacts(truth, design))
            sampled = quantities(draws, design, drawn_impacts(draws, spec, design))
            halves = {n: v.reshape(2, -1) for n, v in sampled.items()}
            line = {
                "dataset": number,
                "seconds": time.perf_counter() - started,
                "pareto k": sample.timings["pareto_k"],
                "by proposals": "diverging" not in sample.stats,
                "diverging": int(np.sum(sample.stats.get("diverging", 0))),
                "truth": {n: float(v) for n, v in known.items()},
                "mean": {n: float(v.mean()) for n, v in sampled.items()},
                "rank": {n: float((sampled[n] < known[n]).mean()) for n in known},
                "ess": {n: float(array_stats.ess(v, method="bulk")) for n, v in halves.items()},
                "r_hat": {n: float(array_stats.rhat(v, method="rank")) for n, v in halves.items()},
            }
            out.write(json.dumps(line) + "\n")
            out.flush()


def lines_file(folder: Path, name: str, seed: int, sampler: str) -> Path:
    return folder / f"recovery-{name}-{sampler}-{seed}.jsonl"


def read_lines(
    folder: Path, name: str, seed: int, sampler: str, datasets: int
) -> list[dict] | None:
    """Return the data sets of a process if all are there."""
    file = lines_file(folder, name, seed, sampler)
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines[:datasets]] if len(lines) >= datasets else None


def hits_of(lines: list[dict]) -> tuple[dict[float, list[int]], dict[str, dict[float, int]]]:
    """Return the binomial bands by width, and the hits by quantity and width."""
    names, n = list(lines[0]["rank"]), len(lines)
    tail = FAMILY_WISE / (2 * len(names)) / 2.0
    bands = {w: [int(stats.binom.ppf(p, n, w)) for p in (tail, 1.0 - tail)] for w in (0.5, 0.9)}
    ranks = {name: np.array([line["rank"][name] for line in lines]) for name in names}
    return bands, {
        name: {w: int((np.abs(rank - 0.5) <= w / 2.0).sum()) for w in bands}
        for name, rank in ranks.items()
    }


def passes(lines: list[dict]) -> bool:
    bands, hits = hits_of(lines)
    return all(bands[w][0] <= h <= bands[w][1] for each in hits.values() for w, h in each.items())


def section(name: str, seed: int, lines: list[dict]) -> tuple[str, str]:
    """Word one run of a process: its line in the summary, and its table."""
    process, n, (bands, hits) = PROCESSES[name], len(lines), hits_of(lines)
    seconds = np.median([line["seconds"] for line in lines])
    diverging = sum(line["diverging"] for line in lines)
    other = sum(not line["pareto k"] < 0.5 for line in lines)
    proposed = sum(line["by proposals"] for line in lines)
    slow = sum(min(line["ess"].values()) < SLOW for line in lines)
    ess = {q: min(line["ess"][q] for line in lines) for q in hits}
    r_hat = {q: max(line["r_hat"][q] for line in lines) for q in hits}
    verdict = "all inside" if passes(lines) else "**NOT all inside**"
    cells = [name, seed, verdict, proposed, diverging, other, slow, f"{min(ess.values()):.0f}"]
    cells += [f"{max(r_hat.values()):.3f}", f"{seconds:.1f}"]
    parts = [f"outcome `{process.outcome}`"]
    if process.structure is not None:
        parts.append(f"region effects `{process.structure}`")
    rows = []
    for quantity, each in hits.items():
        marked = [
            f"{h}{'' if bands[w][0] <= h <= bands[w][1] else ' **outside**'}"
            for w, h in each.items()
        ]
        rows.append([quantity, *marked, f"{ess[quantity]:.0f}", f"{r_hat[quantity]:.3f}"])
    text = [
        f"## {name}, seed {seed}",
        "",
        f"`{process.formula}`, {', '.join(parts)}. Bands at 1 - {FAMILY_WISE}/{2 * len(hits)}: "
        f"{bands[0.5][0]} to {bands[0.5][1]} and {bands[0.9][0]} to {bands[0.9][1]} hits of {n}; "
        f"{verdict}.",
        "",
        "| quantity | hits of 50 % | hits of 90 % | smallest ESS | largest R-hat |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    return f"| {' | '.join(map(str, cells))} |", "\n".join(text)


def record(runs: list[tuple[str, int, list[dict]]], arguments: argparse.Namespace) -> str:
    """Word the record."""
    summary, tables = zip(*(section(*each) for each in runs), strict=True)
    head = [
        "# Recovery by spatial process",
        "",
        f"`python tests/statistical/process_recovery.py --process {arguments.process} "
        f"--datasets {arguments.datasets} --seed {arguments.seed} --sampler {arguments.sampler}`",
        "",
        f"{arguments.datasets} data sets a process, truth uniform on the region below, default "
        f"priors, collapsed engine, one chain of {TUNE} + {DRAWS} iterations each, no data set left "
        "out. Without effects: 120 regions on a queen lattice of 10 x 12. With effects: 30 regions "
        "on one of 5 x 6 and 6 clusters, four of five region-clusters there. A process outside the "
        "bands runs once more with the next seed. Bands are binomial, Bonferroni over the quantities "
        f"and both widths of a process, {FAMILY_WISE} in all.",
        "",
        "One chain each; R-hat is between its halves. `by proposals` counts data sets that were not "
        "left to NUTS, which adapts a mass matrix where the Pareto k of the warm start is 0.5 or more.",
        "",
        "| process | seed | bands | by proposals | divergent transitions | Pareto k >= 0.5 | "
        f"some ESS < {SLOW} | smallest bulk ESS | "
        "largest R-hat | s a data set, median |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *summary,
        "",
        "Region of the truth, as far as a process has the parameter:",
        "",
        *(f"- `{name}` from {low:g} to {high:g}" for name, (low, high) in REGION.items()),
        "",
        "Direct and total impact of `x` where it or the response is lagged: truth from "
        "$(I - \\rho L)^{-1} (\\beta I + \\theta L)$, draws as `impacts` has them. `alpha`, `phi` "
        "and `lambda(region)` belong to the region effects.",
        "",
    ]
    return "\n".join(head) + "\n" + "\n".join(tables)


def run(names: list[str], seed: int, arguments: argparse.Namespace) -> None:
    """Fit the data sets of some processes, each process in a fresh interpreter."""
    with ProcessPoolExecutor(
        arguments.processes, get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        jobs = [
            pool.submit(
                fit_datasets, name, arguments.datasets, seed, arguments.sampler, arguments.output
            )
            for name in names
            if read_lines(arguments.output, name, seed, arguments.sampler, arguments.datasets)
            is None
        ]
        for job in jobs:
            job.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--process", choices=[*PROCESSES, "all"], default="all")
    parser.add_argument("--datasets", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20261201)
    parser.add_argument("--sampler", choices=list(RECORDS), default="auto")
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    folder, n, sampler = arguments.output, arguments.datasets, arguments.sampler
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(ENVIRONMENT)
    names = list(PROCESSES) if arguments.process == "all" else [arguments.process]
    seeds = (arguments.seed, arguments.seed + 1)
    missed = names
    for seed in seeds:
        run(missed, seed, arguments)
        missed = [name for name in missed if not passes(read_lines(folder, name, seed, sampler, n))]
    runs = [
        (name, seed, lines)
        for name in names
        for seed in seeds
        if (lines := read_lines(folder, name, seed, sampler, n)) is not None
    ]
    text = record(runs, arguments)
    sys.stdout.write(text)
    if arguments.process == "all":
        (folder / RECORDS[sampler]).write_text(text)
        for name, seed, _ in runs:
            lines_file(folder, name, seed, sampler).unlink()
    return 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
