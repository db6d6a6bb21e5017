"""Recovery on the simulated economy: are 50 % and 90 % intervals hit as often as they say?

    python tests/statistical/recovery.py --datasets 50 --seed 20261122 --output docs/records

Truth is drawn uniformly from the region of the prior in ``REGION``, effects from their
distribution, responses from the model on the design of the simulated economy; every
data set is fitted with the shipped priors of ``cluster_growth``. The sampler is
compiled once per process; the response is its argument. No data set is left out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

FAMILY_WISE = 0.01  # over all quantities and both interval widths, by Bonferroni
TUNE, DRAWS = 300, 1000
REGION = {
    "intercept": (-0.5, 0.5),
    "log(cluster_level)": (-0.4, 0.2),
    "log(linked_strength)": (-0.2, 0.3),
    "log(neighbor_strength)": (-0.2, 0.3),
    "zero(linked_strength)": (-0.5, 0.5),
    "zero(neighbor_strength)": (-0.5, 0.5),
    "mean(log(cluster_level) | region)": (-0.3, 0.3),
    "mean(log(linked_strength) | region)": (-0.3, 0.3),
    "mean(log(neighbor_strength) | region)": (-0.3, 0.3),
    "sd(region)": (0.02, 0.4),
    "sd(cluster)": (0.03, 0.6),
    "sd(cluster, log(cluster_level))": (0.02, 0.3),
    "sigma": (0.1, 0.8),
    "size.share": (0.1, 0.95),
    "size.power": (0.2, 1.2),
}
SETTINGS = {
    "engine": "collapsed",
    "tune": TUNE,
    "target_accept": 0.8,
    "max_tree_depth": 10,
    "jitter": 0.5,
}


def quantities(parameters, terms):
    """Flatten what is checked: every hyperparameter, one effect of each kind, the speed."""
    named = {n: parameters[n] for n in ("intercept", "sigma", "size.share", "size.power")}
    named |= {term: parameters["coefficient"][..., i] for i, term in enumerate(terms)}
    named["sd(region)"] = parameters["sd(region)"][..., 0]
    for i, kind in enumerate(("intercept", "slope")):
        named[f"sd(cluster) of the {kind}"] = parameters["sd(cluster)"][..., i]
    named["cor(cluster)"] = parameters["cor(cluster)"][..., 0]
    named["effect(region) first"] = parameters["effect(region)"][..., 0, 0]
    for i, kind in enumerate(("intercept", "slope")):
        named[f"effect(cluster) first {kind}"] = parameters["effect(cluster)"][..., 0, i]
    change = parameters["coefficient"][..., 0]
    named["speed of convergence"] = -np.log1p(np.maximum(change, -0.999)) / 3.0
    return {name: np.asarray(value) for name, value in named.items()}


def run(part: int, parts: int, datasets: int, seed: int, folder: Path) -> None:
    """Fit every ``parts``-th data set, one line of JSON each."""
    import jax
    from arviz_stats.base import array_stats

    import spatialclusters as sc
    from spatialclusters.exported import chain_key
    from spatialclusters.kernels import make_program
    from spatialclusters.program import build_target
    from spatialclusters.simulation import draw_parameters, simulate_response

    economy = sc.simulated_economy(seed=1)
    design = sc.build_design(
        economy.spec, economy.panel, economy.weights, linkages=economy.linkages
    )
    uniform = {"distribution": "uniform"}
    priors = {
        f'priors."{name}"': uniform | {"lower": low, "upper": high}
        for name, (low, high) in REGION.items()
    }
    truth_spec = sc.override(economy.spec, priors)
    target = build_target(economy.spec, design, SETTINGS)
    gradient = jax.jit(jax.value_and_grad(target.potential))
    programs = {}  # one for good warm starts, one for others
    with (folder / f"part-{part}.jsonl").open("w") as out:
        for number in range(part, datasets, parts):
            started = time.perf_counter()
            rng = np.random.default_rng([seed, number])
            truth = draw_parameters(truth_spec, design, rng)
            y = simulate_response(economy.spec, design, truth, rng)
            key = chain_key(seed, number)
            warm = target.warm_up(gradient, y, seed)
            if warm.good not in programs:
                programs[warm.good] = make_program(target, SETTINGS, warm)
            program, data = programs[warm.good], target.prepare(y, warm)
            state = program.first(key, data)
            for _ in range(TUNE):
                state = program.step(state, data)
            states = []
            for _ in range(DRAWS):
                state = program.step(state, data)
                states.append(state)
            recorded = [program.record(state, key, data) for state in states]
            arrays = {name: np.stack([r[name] for r in recorded]) for name in recorded[0]}
            draws = {n.removeprefix("posterior "): v for n, v in arrays.items()}
            known, sampled = quantities(truth, design.terms), quantities(draws, design.terms)
            line = {"dataset": number, "seconds": time.perf_counter() - started}
            line["pareto k"] = float(warm.pareto_k)
            line["diverging"] = int(np.sum(arrays.get("stat diverging", 0)))
            line["rank"] = {n: float((sampled[n] < known[n]).mean()) for n in known}
            checks = {n: v.reshape(2, -1) for n, v in sampled.items()}  # halves of the chain
            line["ess"] = {n: float(array_stats.ess(v, method="bulk")) for n, v in checks.items()}
            line["r_hat"] = {
                n: float(array_stats.rhat(v, method="rank")) for n, v in checks.items()
            }
            out.write(json.dumps(line) + "\n")
            out.flush()


def summarize(lines: list[dict], arguments: argparse.Namespace) -> tuple[str, bool]:
    """Compare hits with the binomial band and word the record."""
    names = list(lines[0]["rank"])
    level = 1.0 - FAMILY_WISE / (2 * len(names))
    n, rows, passed = len(lines), [], True
    bands = {}
    for width in (0.5, 0.9):
        tail = (1.0 - level) / 2.0
        bands[width] = [int(stats.binom.ppf(p, n, width)) for p in (tail, 1.0 - tail)]
    for name in names:
        rank = np.array([line["rank"][name] for line in lines])
        cells = [name.replace("|", "\\|")]
        for width, (low, high) in bands.items():
            hits = int((np.abs(rank - 0.5) <= width / 2.0).sum())
            inside = low <= hits <= high
            passed &= inside
            cells.append(f"{hits}{'' if inside else ' **outside**'}")
        ess = [line["ess"][name] for line in lines]
        r_hat = [line["r_hat"][name] for line in lines]
        rows.append([*cells, f"{min(ess):.0f}", f"{max(r_hat):.3f}"])
    seconds = np.array([line["seconds"] for line in lines])
    head = [
        "# Recovery on the simulated economy",
        "",
        f"`python tests/statistical/recovery.py --datasets {arguments.datasets} --seed {arguments.seed}`",
        "",
        f"{n} data sets, truth uniform on the region below, model `cluster_growth` with its shipped "
        f"priors, collapsed engine, one chain of {TUNE} + {DRAWS} iterations each; "
        f"{np.median(seconds):.0f} s a data set (median), {sum(x['diverging'] for x in lines)} "
        f"divergent transitions in all, no data set left out.",
        "",
        f"Binomial bands at 1 - {FAMILY_WISE}/{2 * len(names)}: 50 % intervals {bands[0.5][0]} to "
        f"{bands[0.5][1]} hits, 90 % intervals {bands[0.9][0]} to {bands[0.9][1]} hits of {n}. "
        f"**{'All inside.' if passed else 'NOT all inside.'}**",
        "",
        "| quantity | hits of 50 % | hits of 90 % | smallest bulk ESS | largest R-hat |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "Region of the truth:",
        "",
        *(f"- `{name}` from {low:g} to {high:g}" for name, (low, high) in REGION.items()),
        "- `cor(cluster)` from its prior, LKJ(2)",
        "",
    ]
    return "\n".join(head), passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=50)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--part", type=int)
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.part is not None:
        run(arguments.part, arguments.processes, arguments.datasets, arguments.seed, folder)
        return 0
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NPROC": "1"}
    workers = [
        subprocess.Popen([sys.executable, *sys.argv, "--part", str(k)], env=os.environ | threads)
        for k in range(arguments.processes)
    ]
    if any(worker.wait() for worker in workers):
        return 1
    parts = [folder / f"part-{k}.jsonl" for k in range(arguments.processes)]
    lines = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    text, passed = summarize(sorted(lines, key=lambda line: line["dataset"]), arguments)
    (folder / "recovery-cluster-growth.md").write_text(text)
    for part in parts:
        part.unlink()
    sys.stdout.write(text)
    return 0 if passed else 3


if __name__ == "__main__":
    sys.exit(main())
