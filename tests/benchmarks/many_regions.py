"""Spatial lag models of thousands of regions: time, memory, and the error of approximations.

    python tests/benchmarks/many_regions.py --output docs/records

Simulated lattices (queen contiguity, one region without neighbors). Each size runs in a process
of its own; memory is the peak of that process and of its largest child. At 3,025 regions impacts
of the same draws are computed with eigenvalues as well as by interpolation, and the log
determinant at every draw: the error that 20,000 regions cannot show.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

import spatialclusters as sc
from spatialclusters import logdet
from spatialclusters.program import build_target

SIZES = {"SDM, 3,025 regions": (55, 55, True), "SAR, 20,000 regions": (125, 160, False)}
RHO, BETA, THETA, SIGMA = 0.5, (1.0, -0.5), (0.3, 0.2), 1.0


def lattice(rows: int, columns: int) -> sc.Weights:
    """Queen contiguity; the last region is cut off."""
    place = np.arange(rows * columns).reshape(rows, columns)
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)]
    pairs = []
    for down, right in steps:
        a = place[: rows - down, max(0, -right) : columns - max(0, right)]
        b = place[down:, max(0, right) : columns + min(0, right)]
        pairs.append(np.stack([a.ravel(), b.ravel()]))
    i, j = np.concatenate(pairs, axis=1)
    kept = (i != place[-1, -1]) & (j != place[-1, -1])
    i, j = i[kept], j[kept]
    n = rows * columns
    A = sparse.coo_array((np.ones(2 * len(i)), (np.r_[i, j], np.r_[j, i])), shape=(n, n)).tocsr()
    W = sparse.csr_array(sparse.diags_array(1.0 / np.maximum(A.sum(axis=1), 1.0)) @ A)
    return sc.Weights(tuple(f"r{k:05d}" for k in range(n)), W, "lattice", row_standardized=True)


def simulate(rows: int, columns: int, *, durbin: bool, seed: int):
    """A panel, its weights and the model."""
    weights, rng = lattice(rows, columns), np.random.default_rng(seed)
    n = rows * columns
    X = rng.normal(size=(n, 2))
    mean = 1.0 + X @ BETA + (weights.matrix @ X @ THETA if durbin else 0.0)
    system = sparse.csc_array(sparse.eye_array(n) - RHO * weights.matrix)
    y = sparse.linalg.spsolve(system, mean + SIGMA * rng.normal(size=n))
    table = pd.DataFrame({"region": weights.regions, "x": X[:, 0], "z": X[:, 1], "y": y})
    formula = "y ~ x + z + lag(x) + lag(z)" if durbin else "y ~ x + z"
    spec = sc.parse_spec(f'formula = "{formula}"\n[spatial]\noutcome = "sar"')
    return sc.read_panel(table), weights, spec


def run(name: str, seed: int) -> dict:
    """Fit one size; return what it took and what it found."""
    import jax

    rows, columns, durbin = SIZES[name]
    panel, weights, spec = simulate(rows, columns, durbin=durbin, seed=seed)
    started = time.perf_counter()
    design = sc.build_design(spec, panel, weights)
    known = design.lag.spectrum
    analyzed = time.perf_counter() - started
    target = build_target(spec, design, {"engine": "collapsed", "jitter": 0.5})
    data, z = target.prepare(design.y, None), target.start(jax.random.key(0))
    gradient = jax.jit(jax.value_and_grad(target.potential))
    jax.block_until_ready(gradient(z, data))
    each = []
    for _ in range(50):
        began = time.perf_counter()
        jax.block_until_ready(gradient(z, data))
        each.append(time.perf_counter() - began)
    began = time.perf_counter()
    fit = sc.fit(spec, panel, weights, seed=seed, progress=False)
    fitted = time.perf_counter() - began
    began = time.perf_counter()
    impacts = sc.impacts(fit)
    summarized = time.perf_counter() - began
    table = sc.coefficients(fit)
    memory = sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    keys = ["term", "effect", "estimate", "std_error", "ess_bulk", "ess_tail"]
    exact, gap = None, None
    if durbin:
        logdet.EXACT = rows * columns
        again = sc.Fit(fit.tree)  # whose design knows no spectrum yet
        exact = sc.impacts(again)[keys].to_dict("records")
        rho = fit.draws("rho").ravel()
        both = [logdet.log_determinant(d.lag.spectrum, rho) for d in (fit.design, again.design)]
        gap = float(np.abs(both[0] - both[1]).max())
    return {
        "name": name,
        "regions": rows * columns,
        "spectrum_seconds": analyzed,
        "log_det_error": known.error,
        "trace_error": known.trace_error,
        "gradient_ms": 1e3 * min(each),
        "fit_seconds": fitted,
        "impact_seconds": summarized,
        "memory_gb": memory / 1e6,
        "passed": sc.check(fit).passed,
        "coefficients": table[keys].to_dict("records"),
        "impacts": impacts[keys].to_dict("records"),
        "exact_impacts": exact,
        "largest_gap": gap,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--one", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(run(arguments.one, arguments.seed)))
        return 0
    found = []
    for name in SIZES:
        command = [sys.executable, __file__, "--seed", str(arguments.seed), "--one", name]
        found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    text = page(found, arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "many-regions.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if all(each["passed"] for each in found) else 3


def page(found: list[dict], seed: int) -> str:
    """Word the record."""
    out = [
        "# Thousands of regions",
        "",
        f"`python tests/benchmarks/many_regions.py --seed {seed}`",
        "",
        "| model | bound on the error of log\\|I - rho W\\| | error of tr (I - rho W)^-1 / n | analysis of W, s | gradient, ms "
        "| fit, s (4 chains, 2 cores, all included) | impacts, s | smallest ESS | GB | checks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        ess = min(min(r["ess_bulk"], r["ess_tail"]) for r in each["coefficients"] + each["impacts"])
        out.append(
            f"| {each['name']} | {each['log_det_error']:.1e} | {each['trace_error']:.1e} "
            f"| {each['spectrum_seconds']:.1f} | {each['gradient_ms']:.2f} | {each['fit_seconds']:.0f} "
            f"| {each['impact_seconds']:.1f} | {ess:.0f} | {each['memory_gb']:.1f} "
            f"| {'passed' if each['passed'] else '**failed**'} |"
        )
    out += [
        "",
        "Impacts at 3,025 regions from the same draws, by eigenvalues and by interpolation; the log "
        f"determinants differ by {found[0]['largest_gap']:.1e} at most over these draws.",
        "",
    ]
    out += [
        "| term | effect | exact | interpolated | difference | posterior sd |",
        "|---|---|---|---|---|---|",
    ]
    for a, b in zip(found[0]["exact_impacts"], found[0]["impacts"], strict=True):
        out.append(
            f"| {a['term']} | {a['effect']} | {a['estimate']:.6f} | {b['estimate']:.6f} "
            f"| {b['estimate'] - a['estimate']:+.1e} | {a['std_error']:.4f} |"
        )
    return "\n".join([*out, ""])


if __name__ == "__main__":
    sys.exit(main())
