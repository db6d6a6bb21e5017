"""Time samplers of the spatial lag model, ours among them, each in a process on one core.

``y = rho W y + a + X b + e``, ``e ~ Normal(0, sigma2)``, four chains of 2,000 draws after 500.
What is finished in the folder of results is not run again::

    python tests/benchmarks/spatial_rivals.py build columbus lattice -o data
    python tests/benchmarks/spatial_rivals.py run data/columbus data/lattice -o results \\
        --neighbayes-python PATH
    python tests/benchmarks/spatial_rivals.py table -o results

A data set is a folder of ``table.csv`` (y, then the covariates, no intercept) and ``edges.csv``
(from, to, weight; rows from 0, row-standardized, none without neighbours). A result is
``DATA-SAMPLER-SEED.json`` beside an ``.npz`` of rho, beta (intercept first), sigma2 and the
sampler's own direct, indirect and total impacts, each of shape (chain, draw, ...).

neighbayes needs Python 3.12 or later and an environment of its own, since it wants arviz below
1. Its requirement scikit-sparse is not needed here, and has to be compiled with SuiteSparse 7::

    pip install --no-deps neighbayes
    pip install "pymc<6" "arviz<1" formulaic libpysal lazy_loader joblib rich
    pip install jax equinox  # for neighbayes-jax

spBreg_lag needs Debian's r-cran-spatialreg.

Priors
------
neighbayes
    beta ~ Normal(0, 1e6 sd), where its default is sd 2.5 sd(y) / sd(x); sigma2 ~
    InverseGamma(0, 0), the improper 1 / sigma2, where its default is (2, Var(y)); rho ~
    Uniform(-1, 1), its default. Its draws of rho take beta flat and sigma2 as 1 / sigma2
    whatever the priors are.
spBreg_lag
    beta ~ Normal(0, 1e12 variance) and 1 / sigma2 (nu = d0 = 0), its defaults. rho is drawn from
    2,000 points that are 0.001 apart on [-1, 1], with its default ldet_method "SE_classic". Its
    Beta(1.01, 1.01) density is looked up at rho itself, hence zero below 0, and is added to the
    log density, which makes positive rho e times as likely. With a1 = 2 and a2 = 1e9 it is zero
    on all the points: the prior is uniform.

spatialclusters
    All flat: beta, 1 / sigma, rho uniform on (-1, 1). Chains of 2,300 draws after 300, so that the
    smallest ESS is not below the rivals'. ``cold`` starts with an empty compilation cache,
    ``warm`` with the one that ``cold`` left.

Burn-in
-------
spBreg_lag's ``nomit`` discards the last draws, not the first ones (coda cuts the end off where
the data are longer than start and end say), so it is 0 here and the script drops the burn-in.
neighbayes' default is 1,000 draws; 500 are taken.

Which draws belong together
---------------------------
Both draw beta and sigma2 first, given the rho of the sweep before, then rho from its marginal
posterior, which takes no notice of them, and store the three as one draw: within it beta and rho
are independent. The beta that belongs to ``rho[:, i]`` is ``beta[:, i + 1]`` (``beta_lag`` in the
result). Draws are saved as stored, and the impacts that either reports are of mismatched pairs:
the posterior sd of Columbus' total impact of income is 0.81 then, and 0.57 by quadrature as well
as by the right pairs. The table has the smallest ESS both ways.

Seconds
-------
``total`` starts when the modules are imported and ends with the last impact, before results are
written. No garbage is collected among what was imported. ``setup`` is all before sampling: reading the data, eigenvalues or other preparation of
the log determinant, which spBreg_lag repeats in every chain. ``sampling`` has the burn-in, and
for neighbayes the compilation by JAX and the pointwise log likelihood that it always stores.
Ours counts as ``sampling`` what the compiled chains take, burn-in and the recovery of
coefficients included; building the model, compiling and the warm start are ``setup``.
``process`` is the whole process with start-up and imports.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

# this file also runs in neighbayes' environment: what only one of the two has is imported late

NEIGHBAYES = {
    "neighbayes-eigenvalue": ("eigenvalue", "numpy"),
    "neighbayes-aaa": ("aaa", "numpy"),  # fastest where its default, by CHOLMOD, is not there
    "neighbayes-jax": ("eigenvalue", "jax"),  # its default backend, where JAX is installed
}
"""Method of the log determinant, and backend, by sampler."""

OURS = ("spatialclusters-cold", "spatialclusters-warm")
SAMPLERS = (*NEIGHBAYES, "spbreg", *OURS)
STAGES = ("import", "setup", "sampling", "impacts", "total")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Length:
    """Of a run; ``burn`` more draws in every chain are discarded."""

    chains: int = 4
    draws: int = 2000
    burn: int = 500


@dataclass(frozen=True)
class Lag:
    """A data set; ``X`` has no intercept."""

    y: np.ndarray
    X: np.ndarray
    W: sparse.csr_array


def columbus() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return crime in 49 neighbourhoods, and who shares a border or a corner."""
    import geopandas
    from libpysal import examples, graph

    shapes = geopandas.read_file(examples.get_path("columbus.shp"))
    W = graph.Graph.build_contiguity(shapes, rook=False).transform("r").sparse
    table = pd.DataFrame(shapes[["CRIME", "INC", "HOVAL"]].astype(float))
    return table.rename(columns={"CRIME": "y", "INC": "inc", "HOVAL": "hoval"}), _edges(W)


def lattice(side: int = 55, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate a square grid of cells with common edges; rho 0.5, a 1, b (1, -0.5), sigma 1."""
    rng = np.random.default_rng(seed)
    line = sparse.diags_array([np.ones(side - 1)] * 2, offsets=[-1, 1])
    both = sparse.kron(line, sparse.eye_array(side)) + sparse.kron(sparse.eye_array(side), line)
    W = sparse.csr_array(sparse.diags_array(1 / both.sum(axis=1)) @ both)
    X = rng.standard_normal((side**2, 2))
    right = 1 + X @ [1.0, -0.5] + rng.standard_normal(side**2)
    y = sparse.linalg.spsolve((sparse.eye_array(side**2) - 0.5 * W).tocsc(), right)
    return pd.DataFrame({"y": y, "x1": X[:, 0], "x2": X[:, 1]}), _edges(W)


DATA = {"columbus": columbus, "lattice": lattice}


def _edges(W: Any) -> pd.DataFrame:
    full = sparse.coo_array(W)
    edges = pd.DataFrame({"from": full.coords[0], "to": full.coords[1], "weight": full.data})
    return edges[edges["weight"] != 0].sort_values(["from", "to"])


def build(name: str, out: Path) -> None:
    """Write a data set to the folder of its name."""
    (out / name).mkdir(parents=True, exist_ok=True)
    table, edges = DATA[name]()
    table.to_csv(out / name / "table.csv", index=False)
    edges.to_csv(out / name / "edges.csv", index=False)


def read(folder: Path) -> Lag:
    """Read a data set."""
    table = pd.read_csv(folder / "table.csv")
    edges = pd.read_csv(folder / "edges.csv")
    ends = (edges["from"].to_numpy(), edges["to"].to_numpy())
    W = sparse.csr_array((edges["weight"].to_numpy(), ends), shape=(len(table), len(table)))
    return Lag(table["y"].to_numpy(), table.drop(columns="y").to_numpy(), W)


def eigenvalues(W: sparse.csr_array) -> np.ndarray:
    """Return all eigenvalues, real ones if W is a symmetric matrix with scaled rows."""
    counts = np.sqrt(np.diff(W.indptr))
    similar = counts[:, None] * W.toarray() / counts
    if np.allclose(similar, similar.T, rtol=0.0, atol=1e-12):
        return np.linalg.eigvalsh(similar)
    return np.linalg.eigvals(W.toarray())


def impacts(rho: np.ndarray, beta: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return average direct and total impacts of every covariate, draw by draw.

    Parameters
    ----------
    rho
        Shape (chain, draw).
    beta
        Shape (chain, draw, 1 + covariates), intercept first.
    values
        Eigenvalues of W, whose rows add up to one.
    """
    rows = [(1 / (1 - np.outer(chain, values))).mean(axis=1).real for chain in rho]
    slopes = beta[..., 1:]
    return np.stack(rows)[..., None] * slopes, slopes / (1 - rho)[..., None]


def judge(draws: Mapping[str, np.ndarray], values: np.ndarray, *, lag: int = 0) -> dict[str, float]:
    """Return bulk ESS of rho, beta and the direct and total impacts, the same for all samplers.

    The impacts pair ``rho[:, i]`` with ``beta[:, i + lag]``.
    """
    from arviz_stats.base import array_stats

    n = draws["rho"].shape[1] - lag
    direct, total = impacts(draws["rho"][:, :n], draws["beta"][:, lag:], values)
    found = {"rho": draws["rho"][..., None], "beta": draws["beta"]}
    return {
        f"{name}[{i}]": float(
            array_stats.ess(each[..., i], chain_axis=0, draw_axis=1, method="bulk")
        )
        for name, each in (found | {"direct": direct, "total": total}).items()
        for i in range(each.shape[2])
    }


def _forget() -> None:
    """Spare what was imported the collections of garbage, which take a tenth of a second each."""
    gc.collect()
    gc.freeze()


def run_neighbayes(sampler: str, folder: Path, out: Path, length: Length, seed: int) -> None:
    """Sample with neighbayes, in whose environment this runs."""
    launched = time.perf_counter()
    import arviz  # noqa: F401
    import joblib  # noqa: F401
    import neighbayes
    from neighbayes.models import SAR
    from scipy import linalg  # noqa: F401

    method, backend = NEIGHBAYES[sampler]
    if backend == "jax":
        import equinox  # noqa: F401
        import jax  # noqa: F401

    _forget()
    marks, cpu = [launched, time.perf_counter()], [time.process_time()]
    data = read(folder)
    names = ["Intercept", *(f"x{i}" for i in range(data.X.shape[1]))]
    model = SAR(
        y=data.y,
        X=pd.DataFrame(np.column_stack([np.ones(len(data.y)), data.X]), columns=names),
        W=sparse.csr_matrix(data.W),
        priors={
            "beta_mu": 0.0,
            "beta_sigma": 1e6,
            "sigma2_alpha": 0.0,
            "sigma2_beta": 0.0,
            "rho_lower": -1.0,
            "rho_upper": 1.0,
        },
        logdet_method=method,
    )
    for lazy in ("_logdet_eigs", "_logdet_numpy_fn", "_logdet_numpy_vec_fn"):
        getattr(model, lazy)
    marks.append(time.perf_counter())
    cpu.append(time.process_time())
    posterior = model.fit(
        draws=length.draws,
        tune=length.burn,
        chains=length.chains,
        random_seed=seed,
        sampler="gibbs",
        gibbs_backend=backend,
        n_jobs=1,
        progressbar=False,
    ).posterior
    marks.append(time.perf_counter())
    cpu.append(time.process_time())
    effects = model.spatial_effects(return_posterior_samples=True)[1]
    marks.append(time.perf_counter())
    cpu.append(time.process_time())
    shape = (length.chains, length.draws, data.X.shape[1])
    draws = {name: posterior[name].values for name in ("rho", "beta", "sigma2")}
    draws |= {name: each.reshape(shape) for name, each in effects.items()}
    np.savez(out / "draws.npz", **draws)
    wall = dict(zip(STAGES, [*np.diff(marks).tolist(), marks[-1] - marks[1]], strict=True))
    spent = {
        "wall": wall,
        "cpu": {"sampling": cpu[2] - cpu[1], "total": cpu[3] - cpu[0]},
        "version": f"neighbayes {neighbayes.__version__}, Python {sys.version.split()[0]}",
    }
    (out / "spent.json").write_text(json.dumps(spent), encoding="utf-8")


def run_ours(folder: Path, out: Path, length: Length, seed: int) -> None:
    """Sample with spatialclusters."""
    launched = time.perf_counter()
    import arviz_stats  # noqa: F401
    import geopandas  # noqa: F401
    import pymc  # noqa: F401
    from pandera.backends.pandas import builtin_checks  # noqa: F401
    from scipy import stats  # noqa: F401

    import spatialclusters as sc
    from spatialclusters.run import fit as sample

    _forget()  # modules above that are not used here are imported late by what is timed
    marks, cpu = [launched, time.perf_counter()], [time.process_time()]
    data = read(folder)
    names = [f"x{i}" for i in range(data.X.shape[1])]
    regions = [f"r{i:05d}" for i in range(len(data.y))]
    table = pd.DataFrame(data.X, columns=names).assign(y=data.y, region=regions)
    weights = sc.Weights(tuple(regions), data.W, "given", row_standardized=True)
    flat = {"distribution": "flat"}
    spec = sc.override(
        sc.parse_spec(f'formula = "y ~ {" + ".join(names)}"'),
        {
            "spatial.outcome": "sar",
            "priors": dict.fromkeys(("intercept", *names), flat)
            | {"sigma": {"distribution": "inverse_scale"}}
            | {"rho": {"distribution": "uniform", "lower": -1.0, "upper": 1.0}},
        },
    )
    fit = sample(
        spec, sc.read_panel(table), weights, seed=seed, chains=length.chains, tune=300,
        draws=length.draws * 23 // 20, progress=False,
    )  # fmt: skip
    fitted = time.perf_counter()
    sc.impacts(fit)
    marks.append(time.perf_counter())
    center = fit.design.data["center"].values
    slopes = fit.draws("coefficient")
    first = fit.draws("intercept") - slopes @ center
    draws = {
        "rho": fit.draws("rho"),
        "beta": np.concatenate([first[..., None], slopes], axis=2),
        "sigma2": fit.draws("sigma") ** 2,
    }
    np.savez(out / "draws.npz", **draws)
    timings = fit.provenance["timings"]
    sampling = float(sum(timings["sampling_seconds"]))
    setup = fitted - marks[1] - sampling
    stages = [marks[1] - marks[0], setup, sampling, marks[2] - fitted, marks[2] - marks[1]]
    spent = {
        "wall": dict(zip(STAGES, stages, strict=True)),
        "cpu": {
            "sampling": sampling,
            "total": time.process_time() - cpu[0],  # all in this process
        },
        "version": f"spatialclusters {sc.__version__}, Python {sys.version.split()[0]}",
    }  # fmt: skip
    (out / "spent.json").write_text(json.dumps(spent), encoding="utf-8")


def _spbreg_results(out: Path, length: Length) -> None:
    """Turn what spbreg.R wrote into what the others write."""
    rows = pd.read_csv(out / "draws.csv")
    parts = rows.columns.str.partition(".").get_level_values(0)
    draws = {}
    for name in dict.fromkeys(parts):
        each = rows.loc[:, parts == name].to_numpy()
        each = each.reshape(length.chains, length.draws, -1)
        draws[name] = each[..., 0] if name in ("rho", "sigma2") else each
    np.savez(out / "draws.npz", **draws)
    row = pd.read_csv(out / "spent.csv").iloc[0]
    spent = {
        "wall": {stage: float(row[stage]) for stage in STAGES},
        "cpu": {stage: float(row[f"cpu_{stage}"]) for stage in ("sampling", "total")},
        "version": row["version"],
    }
    (out / "spent.json").write_text(json.dumps(spent), encoding="utf-8")


def measure(
    sampler: str, data: Path, out: Path, length: Length, seed: int, python: str | None
) -> None:
    """Run one sampler and write what it drew, then what it cost: the second says done."""
    target = out / f"{data.name}-{sampler}-{seed}.json"
    if target.is_file():
        return
    print(f"{time.strftime('%H:%M:%S')} {sampler}, {data.name}", file=sys.stderr, flush=True)
    scratch = out / "scratch" / target.stem
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    here = Path(__file__).resolve()
    sizes = [str(size) for size in (*asdict(length).values(), seed)]
    if sampler == "spbreg":
        command = ["Rscript", str(here.with_name("spbreg.R")), str(data), str(scratch), *sizes]
    elif sampler in OURS:
        command = [sys.executable, str(here), "ours", str(data), str(scratch), *sizes]
    else:
        if python is None:
            msg = f"{sampler} needs --neighbayes-python"
            raise SystemExit(msg)
        command = [python, str(here), "neighbayes", sampler, str(data), str(scratch), *sizes]
    load = os.getloadavg()
    cache = out / "cache" / f"{data.name}-{seed}"
    if sampler == OURS[0]:
        shutil.rmtree(cache, ignore_errors=True)
    process = _finished(command, scratch, {"XDG_CACHE_HOME": str(cache)})
    lag = 0 if sampler in OURS else 1
    if sampler == "spbreg":
        _spbreg_results(scratch, length)
    spent = json.loads((scratch / "spent.json").read_text(encoding="utf-8"))
    with np.load(scratch / "draws.npz", allow_pickle=False) as arrays:
        draws = dict(arrays)
    problem = read(data)
    values = eigenvalues(problem.W)
    record = {
        "sampler": sampler,
        "data": data.name,
        "rows": len(problem.y),
        "seed": seed,
        **asdict(length),
        **spent,
        "process": process,
        "load": load,
        "beta_lag": lag,
        "ess": judge(draws, values),
        "ess_paired": judge(draws, values, lag=lag),
        "mean": {name: each.mean(axis=(0, 1)).tolist() for name, each in draws.items()},
        "sd": {name: each.std(axis=(0, 1)).tolist() for name, each in draws.items()},
    }
    np.savez(target.with_suffix(".npz"), **draws)
    temporary = target.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    temporary.replace(target)
    shutil.rmtree(scratch)


def _finished(command: list[str], folder: Path, setting: Mapping[str, str]) -> dict[str, float]:
    """Run a process on one core to its end; return the seconds that it took."""
    core = {max(os.sched_getaffinity(0))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with (folder / "log.txt").open("ab") as log:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | ONE_THREAD | setting,
            preexec_fn=lambda: os.sched_setaffinity(0, core),
            check=False,
        )
    wall = time.perf_counter() - start
    if done.returncode:
        msg = f"{command}: exit code {done.returncode}, see {folder / 'log.txt'}"
        raise RuntimeError(msg)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu}


def table(out: Path) -> pd.DataFrame:
    """Return a row a result."""
    rows = []
    for path in sorted(out.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        ess, paired = record["ess"], record["ess_paired"]
        worst = min(paired, key=lambda name: paired.get(name, math.inf))
        rows.append(
            {name: record[name] for name in ("data", "sampler", "seed")}
            | {f"{stage} s": record["wall"][stage] for stage in STAGES}
            | {f"CPU {stage} s": record["cpu"][stage] for stage in ("sampling", "total")}
            | {"process CPU s": record["process"]["cpu"]}
            | {"min ESS": min(ess.values()), "paired": paired[worst], "of": worst}
            | {"ESS / s": paired[worst] / record["wall"]["total"], "load": record["load"][0]}
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Build data, or run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    building.add_argument("names", nargs="+", choices=DATA)
    running = commands.add_parser("run")
    running.add_argument("data", nargs="+", type=Path, help="folders of data sets")
    running.add_argument("--only", choices=SAMPLERS, action="append", help="default: all")
    running.add_argument("--seed", type=int, default=1)
    running.add_argument("--neighbayes-python", help="interpreter of its environment")
    for name, default in asdict(Length()).items():
        running.add_argument(f"--{name}", type=int, default=default)
    for each in (building, running, commands.add_parser("table")):
        each.add_argument("-o", "--output", type=Path, required=True)
    inner = commands.add_parser("neighbayes", help="what run starts")
    inner.add_argument("sampler", choices=NEIGHBAYES)
    inner.add_argument("folders", nargs=2, type=Path)
    inner.add_argument("sizes", nargs=4, type=int)
    own = commands.add_parser("ours", help="what run starts")
    own.add_argument("folders", nargs=2, type=Path)
    own.add_argument("sizes", nargs=4, type=int)
    given = parser.parse_args()
    if given.command == "ours":
        *sizes, seed = given.sizes
        run_ours(*given.folders, Length(*sizes), seed)
        return
    if given.command == "neighbayes":
        *sizes, seed = given.sizes
        run_neighbayes(given.sampler, *given.folders, Length(*sizes), seed)
        return
    out = given.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if given.command == "build":
        for name in given.names:
            build(name, out)
        return
    if given.command == "run":
        length = Length(given.chains, given.draws, given.burn)
        for data in given.data:
            for sampler in given.only or SAMPLERS:
                measure(sampler, data.resolve(), out, length, given.seed, given.neighbayes_python)
    print(table(out).to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
