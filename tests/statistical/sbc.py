"""Simulation-based calibration of every model family, and of broken samplers that it must catch.

    python tests/statistical/sbc.py --sampler nuts --family all --output docs/records
    python tests/statistical/sbc.py --sampler auto --family all --output docs/records

With ``auto`` the collapsed engine takes proposals from a surrogate, for some of the families and
fewer data sets, and the full one is left out.
Truth is drawn from the priors of the shipped models, on small fixed designs; every data set is
fitted by the sampler of the package, and none is left out. All quantities of all families, listed
below before anything was run, share one family-wise error. A family with ranks outside their bands
runs once more with the seed plus one, and both runs are recorded.

Finished data sets are kept as lines of JSON in the output folder until the record of all families
is written, so an interrupted command goes on where it stopped.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 20261215  # a family that misses runs once more with SEED + 1
FAMILY_WISE = 0.01  # over all quantities of all families, by Bonferroni
BROKEN_DATASETS = 50
BROKEN_DEPTH = 6  # a density without an end makes trajectories as long as they may be
RECORD = {"nuts": "calibration.md", "auto": "calibration-proposals.md"}
FIGURE = ("growth", "calibration.png")
MOST = {"nuts": 1000, "auto": 200}  # data sets
OTHERS = {"sac": 100, "sdem": 100, "distance": 100}  # with proposals, beside those asked for
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=1",
    "PYTENSOR_FLAGS": "cxx=",
}

LIKELIHOODS = ("log p(y | theta)", "log p(y | effects, theta)")
GROWTH = (
    "intercept",
    "log(cluster_level)",
    "log(linked_strength)",
    "log(neighbor_strength)",
    "zero(linked_strength)",
    "mean(log(cluster_level) | region)",
    "mean(log(linked_strength) | region)",
    "mean(log(neighbor_strength) | region)",
    "cor(cluster)[1, log(cluster_level)]",
    "effect(cluster)[c0, 1]",
    "effect(cluster)[c0, log(cluster_level)]",
    "effect(region)[r00, 1]",
    "sd(cluster)[1]",
    "sd(cluster)[log(cluster_level)]",
    "sd(region)[1]",
    "sigma",
    "size.power",
    "size.share",
    *LIKELIHOODS,
)
INCOME = ("intercept", "log(income)", "sigma", *LIKELIHOODS)
LAGGED = ("lag(log(income))",)
TOTAL = ("total impact of log(income)",)


@dataclass(frozen=True)
class Family:
    """A shipped model, how it is changed, and everything that is ranked.

    ``text`` is replaced in the model file; ``datasets`` is for the collapsed engine and
    ``full`` for the full one, zero where it cannot be used.
    """

    model: str
    quantities: tuple[str, ...]
    datasets: int = 500
    full: int = 200
    text: tuple[tuple[str, str], ...] = ()


NO_LAG = (
    ('formula = "growth ~ log(income) + lag(log(income))"', 'formula = "growth ~ log(income)"'),
    ('"lag(log(income))" = { distribution = "normal", mean = 0.0, sd = 1.0 }', ""),
)
LAMBDA = 'lambda = { distribution = "beta", a = 1.01, b = 1.01 }'
RHO = 'rho = { distribution = "beta", a = 1.01, b = 1.01 }'
SEM_TO_SAC = (('outcome = "sem"', 'outcome = "sac"'), (LAMBDA, f"{LAMBDA}\n{RHO}"))
SDM_TO_SDEM = (('outcome = "sar"', 'outcome = "sem"'), (RHO, LAMBDA))


def structure(name, prior):
    phi = '"phi(region)" = { distribution = "beta", a = 1.0, b = 1.0 }'
    return (('structure = "bym2"', f'structure = "{name}"'), (phi, prior))


ALPHA = '"alpha(region)" = { distribution = "beta", a = 1.0, b = 1.0 }'
SURFACE = '"lambda(region)" = { distribution = "beta", a = 1.0, b = 1.0 }'
STUDENT = (('family = "gaussian"', 'family = "student-t"'),)
FAMILIES = {
    "growth": Family("cluster_growth", GROWTH, 1000),
    "sar": Family("income_convergence_lag", (*INCOME, "rho", *TOTAL), 1000, text=NO_LAG),
    "sem": Family("income_convergence_error", (*INCOME, "lambda")),
    "sdm": Family("income_convergence_lag", (*INCOME, *LAGGED, "rho", *TOTAL)),
    "bym2": Family("cluster_growth_bym2", (*GROWTH, "phi(region)")),
    "leroux": Family(
        "cluster_growth_bym2", (*GROWTH, "alpha(region)"), text=structure("leroux", ALPHA)
    ),
    "sac": Family(
        "income_convergence_error", (*INCOME, "rho", "lambda", *TOTAL), 500, 0, SEM_TO_SAC
    ),
    "sdem": Family(
        "income_convergence_lag", (*INCOME, *LAGGED, "lambda", *TOTAL), 500, 0, SDM_TO_SDEM
    ),
    "distance": Family("income_convergence_distance", (*INCOME, *LAGGED, "delta", *TOTAL), 500, 0),
    "car": Family(
        "cluster_growth_bym2", (*GROWTH, "alpha(region)"), 200, 0, structure("car", ALPHA)
    ),
    "icar": Family("cluster_growth_bym2", GROWTH, 200, 0, structure("icar", "")),
    "sar-effects": Family(
        "cluster_growth_bym2", (*GROWTH, "lambda(region)"), 200, 0, structure("sar", SURFACE)
    ),
    "student-t": Family("income_convergence", (*INCOME, "nu"), 0, 200, STUDENT),
}
ASKED = ("growth", "sar", "sem", "sdm", "bym2", "leroux")  # the others come last
RUNS = {}
for chosen in (ASKED, tuple(name for name in FAMILIES if name not in ASKED)):
    RUNS |= {n: (n, "collapsed", FAMILIES[n].datasets) for n in chosen if FAMILIES[n].datasets}
    RUNS |= {f"{n}, full": (n, "full", FAMILIES[n].full) for n in chosen if FAMILIES[n].full}


def expected(run):
    """Return what is ranked in a run: the full engine does not integrate effects out."""
    name, engine, _ = RUNS[run]
    return [q for q in FAMILIES[name].quantities if engine != "full" or q != LIKELIHOODS[0]]


LEVEL = FAMILY_WISE / sum(len(expected(run)) for run in RUNS)


def queen(n_rows, n_columns):
    """Return the places of a lattice by region, and who shares a side or a corner."""
    import spatialclusters as sc

    places = {f"r{i}{j}": (i, j) for i in range(n_rows) for j in range(n_columns)}
    links = [
        (a, b)
        for a, (i, j) in places.items()
        for b, (k, m) in places.items()
        if max(abs(i - k), abs(j - m)) == 1
    ]
    return places, sc.read_weights(pd.DataFrame(links, columns=["region_i", "region_j"]))


def model_of(name):
    """Return spec and design: 110 region-clusters in 25 regions, or 30 regions."""
    import geopandas
    import shapely

    import spatialclusters as sc
    from spatialclusters.spec import spec_to_toml

    family, rng = FAMILIES[name], np.random.default_rng(1)
    text = spec_to_toml(sc.load_model(family.model))
    for old, new in family.text:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    spec = sc.parse_spec(text)
    if spec.growth.variable == "income":
        places, weights = queen(5, 6)
        table = pd.DataFrame({"region": list(places)})
        table["income_start"] = rng.lognormal(6.0, 0.4, len(table))
        table["income_end"] = table["income_start"] * rng.lognormal(3.0, 0.3, len(table))
        if name != "distance":
            return spec, sc.build_design(spec, sc.read_panel(table), weights)
        points = shapely.points([(3e5 * i, 3e5 * j) for i, j in places.values()])
        shapes = geopandas.GeoDataFrame({"region": list(places)}, geometry=points, crs=5070)
        panel = sc.read_panel(table, shapes)
        return spec, sc.build_design(spec, panel, sc.distance_decay(panel, 1000.0))
    places, weights = queen(5, 5)
    clusters = [f"c{k}" for k in range(6)]
    table = pd.DataFrame([(r, c) for r in places for c in clusters], columns=["region", "cluster"])
    start = np.round(rng.lognormal(4.5, 1.2, len(table))) * (rng.random(len(table)) < 0.7)
    end = np.maximum(np.round(start * rng.lognormal(0.0, 0.3, len(table))), 1.0)
    table["employment_start"], table["employment_end"] = start, end * (start > 0.0)
    links = [(clusters[k], clusters[(k + d) % 6], float(d)) for k in range(6) for d in (1, 2)]
    linkages = pd.DataFrame(links, columns=["cluster", "linked_cluster", "weight"])
    return spec, sc.build_design(spec, sc.read_panel(table), weights, linkages=linkages)


def calibration_file(folder, run, seed):
    return folder / f"sbc-{run.replace(', ', '-')}-{seed}.jsonl"


def calibrate_run(run, seed, folder, kind):
    """Calibrate one run; what is ranked must be what was announced."""
    import spatialclusters as sc
    from spatialclusters.calibration import THIN
    from spatialclusters.repeated import RepeatedSampler
    from spatialclusters.run import choose_settings

    name, engine, _ = RUNS[run]
    spec, design = model_of(name)
    thin = THIN[engine]
    settings = choose_settings(spec, seed=seed, engine=engine, sampler=kind, draws=99 * thin)
    found = sc.calibrate(
        spec,
        design,
        seed=seed,
        datasets=datasets_of(run, kind),
        sampler=RepeatedSampler(spec, design, settings, thin=thin),
        file=calibration_file(folder, run, seed),
        resume=True,
    )
    assert sorted(found.ranks) == sorted(expected(run)), (run, list(found.ranks))


def coordinate(spec, design, name):
    """Return the place of a parameter in the vector that is sampled."""
    from spatialclusters.collapsed.hyperparameters import hyperparameter_model

    model, _ = hyperparameter_model(spec, design)
    sizes = {variable: np.size(value) for variable, value in model.initial_point().items()}
    before = list(sizes)[: [v.rsplit("_", 3)[0] for v in sizes].index(name)]
    return sum(sizes[variable] for variable in before)


def without_jacobian(spec, design, target):
    """Return a target in which the log of sd(cluster) has its prior without the Jacobian."""
    from spatialclusters.collapsed.mode import stretch

    at = coordinate(spec, design, "raw(sd(cluster), 0)")
    return lambda z, data: target.potential(z, data) + stretch(z, data.warm)[0][at]


def with_a_sign_error(spec, design, target):
    """Return a target from which log|I - rho W| is subtracted, not added to it."""
    import jax

    from spatialclusters.collapsed.mode import stretch
    from spatialclusters.processes import outcome_process

    at, space = coordinate(spec, design, "raw(rho)"), outcome_process(spec, design)
    lower, upper = space.support

    def potential(z, data):
        rho = lower + (upper - lower) * jax.nn.sigmoid(stretch(z, data.warm)[0][at])
        return target.potential(z, data) + 2.0 * space.log_jacobian({"rho": rho}, jax.numpy)

    return potential


BROKEN = {
    "the prior of sd(cluster) without its Jacobian": ("growth", without_jacobian),
    "the log determinant of SAR with the wrong sign": ("sar", with_a_sign_error),
}


def calibrate_broken(what, folder):
    """Calibrate a broken sampler."""
    from dataclasses import asdict

    import spatialclusters as sc
    from spatialclusters.calibration import THIN
    from spatialclusters.program import build_target
    from spatialclusters.repeated import RepeatedSampler
    from spatialclusters.run import choose_settings

    name, breaking = BROKEN[what]
    spec, design = model_of(name)
    thin = THIN["collapsed"]
    settings = replace(
        choose_settings(spec, seed=SEED, draws=99 * thin), max_tree_depth=BROKEN_DEPTH
    )
    target = build_target(spec, design, asdict(settings), other_sizes=True)
    broken = replace(target, potential=breaking(spec, design, target))
    sampler = RepeatedSampler(spec, design, settings, thin=thin, target=broken)
    file = calibration_file(folder, f"broken-{name}", SEED)
    sc.calibrate(
        spec, design, seed=SEED, datasets=BROKEN_DATASETS, sampler=sampler, file=file, resume=True
    )


def finished(file, datasets):
    """Return the calibration in a file if all data sets are there."""
    import spatialclusters as sc

    if not file.exists():
        return None
    found = sc.read_calibration(file)
    return found if len(found.ranks) >= datasets else None


def passes(found):
    return min(found.p_values.values()) > LEVEL


def escaped(text):
    return text.replace("|", "\\|")


def summary_row(run, seed, found):
    below = [name for name, p in found.p_values.items() if p <= LEVEL]
    runs, n = found.runs, len(found.ranks)
    verdict = "uniform" if not below else f"**off: {escaped(', '.join(below))}**"
    bad = "" if runs["pareto_k"].isna().all() else int((~(runs["pareto_k"] < 0.5)).sum())
    ess = found.ess.median().min()
    cells = [run, seed, n, len(found.p_values), f"{min(found.p_values.values()):.2g}", verdict]
    cells += [
        int(runs["diverging"].sum()),
        f"{runs['diverging'].isna().mean():.0%}",
        bad,
        f"{ess:.0f}",
        f"{runs['seconds'].median():.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def section(run, seed, found):
    """Word the table of one run."""
    table = found.table(FAMILY_WISE, round(FAMILY_WISE / LEVEL))
    rows = [
        f"| {escaped(row.quantity)} | {row.p_value:.2g} | {row.coverage_50:.1%} | "
        f"{row.coverage_90:.1%} | {row.ess:.0f} |{'' if row.uniform else ' **off** |'}"
        for row in table.itertuples()
    ]
    return [
        f"### {run}, seed {seed}",
        "",
        "| quantity | p-value | 50 % intervals hold | 90 % intervals hold | median ESS of 99 |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def record(found, broken, arguments):
    """Word the record."""
    header = next(iter(found.values())).provenance
    versions = ", ".join(f"{k} {v}" for k, v in header["versions"].items())
    quantities = round(FAMILY_WISE / LEVEL)
    missed = [f"{run} (seed {seed})" for (run, seed), each in found.items() if not passes(each)]
    last = {run: each for (run, _), each in found.items()}
    off = [run for run, each in last.items() if not passes(each)]
    verdict = (
        "**All ranks are inside their bands.**"
        if not missed
        else f"Outside at first: {', '.join(missed)}. "
        + ("**Inside when run once more.**" if not off else f"**NOT inside: {', '.join(off)}.**")
    )
    lines = [
        "# Simulation-based calibration",
        "",
        f"`python tests/statistical/sbc.py --sampler {arguments.sampler} --family {arguments.family}`",
        "",
        "Truth from the priors of the shipped models, a response from the model at the truth, and its "
        "fit: ranks of the truth among 99 draws are uniform if the sampler is right (Talts et al. "
        "2018, arXiv:1804.06788), also those of the log likelihood, which depends on the data (Modrák "
        "et al. 2023, doi:10.1214/23-BA1404). No data set is left out.",
        "",
        verdict,
        "",
        f"P-values are of the largest deviation of the ranks' distribution anywhere (Säilynoja, "
        f"Bürkner and Vehtari 2022, doi:10.1007/s11222-022-10090-6), computed exactly; below "
        f"{LEVEL:.2g} = {FAMILY_WISE}/{quantities} the ranks leave the simultaneous band: over all "
        f"{quantities} quantities of all runs a correct sampler does so with probability "
        f"{FAMILY_WISE:.0%} at most. Seed {SEED}, and {SEED + 1} for a run that misses.",
        "",
        "One chain a data set: 300 iterations of warm-up and 99 draws, each 40th (collapsed engine); "
        "1,000 and each 20th (full engine). The collapsed engine takes proposals from a surrogate where "
        "that is close, for the share of data sets that is given, and NUTS elsewhere. The median effective sample size says how far they are "
        "independent. Designs: 30 regions on a queen lattice of 5 x 6 (`income_convergence...`; "
        "distance: decay with distance up to 1,000 km, 300 km apart), 110 region-clusters in 25 "
        "regions on one of 5 x 5 and 6 clusters (`cluster_growth...`, noise that depends on size). "
        "Priors that the shipped models do not state (of group means, of `nu`) are the defaults of "
        "the fixed design.",
        "",
        f"spatialclusters {header['version']}, {versions}.",
        "",
        "| run | seed | data sets | quantities | smallest p-value | ranks | divergent transitions | "
        "by proposals | Pareto k >= 0.5 | smallest median ESS | s a data set, median |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(summary_row(run, seed, each) for (run, seed), each in found.items()),
        "",
        "## Broken samplers",
        "",
        f"The same with a mistake in the density that is sampled (and trees of depth {BROKEN_DEPTH} at "
        "most):",
        "",
        "| mistake | model | data sets | ranks that are off (p below 0.01 over their number) | "
        "smallest p-value |",
        "|---|---|---|---|---|",
    ]
    for what, each in broken.items():
        level = FAMILY_WISE / len(each.p_values)
        below = [name for name, p in each.p_values.items() if p <= level]
        named = escaped(", ".join(below)) or "**none: not caught**"
        smallest = min(each.p_values.values())
        lines.append(
            f"| {what} | {BROKEN[what][0]} | {len(each.ranks)} | {named} | "
            f"{f'{smallest:.1g}' if smallest > 1e-12 else '< 1e-12'} |"
        )
    lines += ["", "## Every quantity", ""]
    for run in [r for r in RUNS if r in last]:
        for (name, seed), each in found.items():
            if name == run:
                lines += section(run, seed, each)
            if name == run == FIGURE[0] and seed == SEED and arguments.sampler == "nuts":
                lines += [f"![Ranks of {run} minus uniform, with their bands]({FIGURE[1]})", ""]
    return "\n".join(lines)


def datasets_of(run, kind):
    """Return the number of data sets of a run."""
    return min(RUNS[run][2], OTHERS.get(run, MOST[kind]) if kind == "auto" else MOST[kind])


def run_all(names, seed, arguments):
    """Calibrate runs, each in a fresh interpreter."""
    with ProcessPoolExecutor(
        arguments.processes, get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        jobs = [
            pool.submit(calibrate_run, run, seed, arguments.output, arguments.sampler)
            for run in names
            if finished(
                calibration_file(arguments.output, run, seed), datasets_of(run, arguments.sampler)
            )
            is None
        ]
        for job in jobs:
            job.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=[*FAMILIES, "all"], default="all")
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sampler", choices=RECORD, default="auto")
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(ENVIRONMENT)
    names = [run for run in RUNS if arguments.family in ("all", RUNS[run][0])]
    if arguments.sampler == "auto":
        names = [run for run in names if run in (*ASKED, *OTHERS)]
    missed = names
    found = {}
    for seed in (SEED, SEED + 1):
        run_all(missed, seed, arguments)
        for run in missed:
            found[run, seed] = finished(
                calibration_file(folder, run, seed), datasets_of(run, arguments.sampler)
            )
        missed = [run for run in missed if not passes(found[run, seed])]
    broken = {}
    for what, (name, _) in BROKEN.items():
        if arguments.family not in ("all", name):
            continue
        file = calibration_file(folder, f"broken-{name}", SEED)
        if finished(file, BROKEN_DATASETS) is None:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                pool.submit(calibrate_broken, what, folder).result()
        broken[what] = finished(file, BROKEN_DATASETS)
    caught = all(
        min(each.p_values.values()) <= FAMILY_WISE / len(each.p_values) for each in broken.values()
    )
    found = dict(sorted(found.items(), key=lambda item: (names.index(item[0][0]), item[0][1])))
    text = record(found, broken, arguments)
    sys.stdout.write(text)
    if arguments.family == "all":
        from spatialclusters.plots import plot_calibration

        (folder / RECORD[arguments.sampler]).write_text(text, encoding="utf-8")
        if arguments.sampler == "nuts":
            figure = plot_calibration(found[FIGURE[0], SEED], quantities=round(FAMILY_WISE / LEVEL))
            figure.savefig(folder / FIGURE[1], dpi=110)
    return 3 if missed or not caught else 0


if __name__ == "__main__":
    sys.exit(main())
