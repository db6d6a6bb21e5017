"""Cost of one gradient of the collapsed density, and its memory, from 5,000 to a million rows.

    SPATIALCLUSTERS_DATA=... python tests/benchmarks/scale.py -o scale.json
    python tests/benchmarks/scale.py -o scale.json --only paper --only million

Each case runs in a process of its own on one core. The normal equations and the
elimination are timed apart; products between them that XLA fuses are in neither.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paper_scale import Scale, make_problem
from rivals import ONE_THREAD

import spatialclusters as sc
from spatialclusters.design import Design
from spatialclusters.files import replace_file
from spatialclusters.spec import ModelSpec

DATA = Path(os.environ.get("SPATIALCLUSTERS_DATA", "."))
MILLION = Scale(regions=3100, clusters=51, industries=1000, occupancy=0.323)


def simulated(scale: Scale) -> tuple[ModelSpec, Design]:
    """The economy of paper_scale.py: constant noise, four correlated effects a cluster."""
    problem = make_problem(scale, 1)
    return problem.spec, problem.design


def areas(name: str, adjacency: str, noise: str) -> tuple[ModelSpec, Design]:
    """The shipped employment_growth on 2018 to 2021."""
    panel = sc.read_panel(DATA / name / "industries_2018_2021.parquet")
    weights = sc.read_weights(DATA / name / f"{adjacency}.parquet")
    links = DATA / "concordance" / "linked_clusters.csv"
    spec = sc.load_model("employment_growth", {"likelihood.scale": noise})
    return spec, sc.build_design(spec, panel, weights, linkages=links)


def zones(noise: str) -> tuple[ModelSpec, Design]:
    """The same without linked clusters on commuting zones, 1980 to 1990."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "statistical"))
    from employment_growth import WITHOUT_LINKS, inputs

    panel, weights, _ = inputs("us_cz", DATA)
    spec = sc.load_model("employment_growth", WITHOUT_LINKS | {"likelihood.scale": noise})
    return spec, sc.build_design(spec, panel, weights)


CASES: dict[str, Callable[[], tuple[ModelSpec, Design]]] = {
    "paper": lambda: simulated(Scale()),
    "us_ea, constant": lambda: areas("us_ea", "queen", "constant"),
    "us_ea, size": lambda: areas("us_ea", "queen", "size"),
    "us_ea, by-cluster": lambda: areas("us_ea", "queen", "by-cluster"),
    "us_cea, constant": lambda: areas("us_cea", "adjacency", "constant"),
    "us_cea, size": lambda: areas("us_cea", "adjacency", "size"),
    "us_cz, constant": lambda: zones("constant"),
    "us_cz, size": lambda: zones("size"),
    "million": lambda: simulated(MILLION),
}


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Return CPU seconds of the first call, and the median of later ones in milliseconds."""
    import jax

    before = time.process_time()
    jax.block_until_ready(function(*arguments))
    first, laps = time.process_time() - before, []
    while len(laps) < 5 or (sum(laps) < 2.0 and len(laps) < 50):
        before = time.process_time()
        jax.block_until_ready(function(*arguments))
        laps.append(time.process_time() - before)
    return first, 1e3 * float(np.median(laps))


def measure(name: str) -> dict[str, Any]:
    """Run one case in this process."""
    import jax

    from spatialclusters.collapsed.density import normal_equations
    from spatialclusters.collapsed.elimination import eliminate
    from spatialclusters.collapsed.hyperparameters import theta_of
    from spatialclusters.collapsed.layout import lay_out
    from spatialclusters.collapsed.problem import mixed_model
    from spatialclusters.collapsed.statistics import statistics
    from spatialclusters.program import build_target

    spec, design = CASES[name]()
    target = build_target(spec, design, {"engine": "collapsed"})
    before = time.process_time()
    layout = lay_out(mixed_model(spec, design))
    sums = statistics(layout, design.y)
    summing = time.process_time() - before
    data = target.prepare(design.y, None)
    z = 0.1 * target.start(jax.random.PRNGKey(1))
    _, density = timed(jax.jit(target.potential), z, data)
    compiling, gradient = timed(jax.jit(jax.value_and_grad(target.potential)), z, data)
    sigma = 0.5 * np.ones(layout.problem.n_classes)
    roots = [0.2 * np.eye(g.width) for g in layout.problem.factors if not g.fixed]
    theta = theta_of(design, [sigma, *roots])
    normal = jax.jit(lambda t, s: normal_equations(layout, s, t))(theta, sums)

    def pull_equations(t: Any, s: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda t: normal_equations(layout, s, t), t)[1](cotangent)

    def pull_elimination(parts: Any) -> Any:
        log_det, rest = eliminate(layout.dense_width, *parts)
        return log_det + rest[0, 0]

    _, equations = timed(jax.jit(pull_equations), theta, sums, normal)
    _, elimination = timed(jax.jit(jax.grad(pull_elimination)), normal[:3])
    names = [f.name for f in layout.problem.factors]
    return {
        "rows": design.n_rows,
        "cells": names[layout.plan.cell] if layout.plan.cell is not None else "",
        "blocks of": ", ".join(names[f] for f in layout.plan.local),
        "first": "outer" if layout.plan.outer_first else "blocks",
        "dense": layout.dense_width,
        "sums, s": summing,
        "compile, s": compiling,
        "density, ms": density,
        "gradient, ms": gradient,
        "equations, ms": equations,
        "elimination, ms": elimination,
        "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def main() -> None:
    """Run the cases, each in its own process, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        sys.stdout.write(json.dumps(measure(given.case)))
        return
    path = given.output
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name in given.only or CASES:
        command = [sys.executable, __file__, "-o", str(path), "--case", name]
        done = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=-1, check=True)
        found[name] = json.loads(done.stdout)
        content = json.dumps(found, indent=1).encode()
        replace_file(path, lambda file, b=content: file.write(b))
    print(pd.DataFrame.from_dict(found, orient="index").to_markdown(floatfmt=".1f"))


if __name__ == "__main__":
    main()
