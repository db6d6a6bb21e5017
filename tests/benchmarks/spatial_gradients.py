"""What one gradient of the collapsed posterior costs with each spatial process.

    SPATIALCLUSTERS_DATA=... python tests/benchmarks/spatial_gradients.py --output docs/records

Real rows of the US Economic Areas, by cluster and by industry, and lattices of growing size; one
core, best of ten after compilation. The size of the dense block and of the widest local block
explain the cost.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import jax
from many_regions import simulate

import spatialclusters as sc
from spatialclusters.collapsed.layout import lay_out
from spatialclusters.collapsed.problem import mixed_model
from spatialclusters.program import build_target

CLUSTERS = "growth ~ log(cluster_level) + (1 | region) + (1 | cluster)"
SURFACES = "growth ~ log(cluster_level) + (1 | region:cluster) + (1 | cluster)"
INDUSTRIES = "growth ~ log(industry_strength) + (1 | industry) + (1 | region) + (1 | region:cluster) + (1 | cluster)"
CASES = [
    *(("clusters", CLUSTERS, {"spatial.outcome": o}) for o in ("none", "sar", "sem", "sac")),
    *(
        ("clusters", CLUSTERS, {"groups": {"region": {"structure": s}}})
        for s in ("icar", "car", "leroux", "bym2", "sar")
    ),
    *(
        ("clusters", SURFACES, {"groups": {"region:cluster": {"structure": s}}})
        for s in ("leroux", "bym2")
    ),
    *(("industries", INDUSTRIES, {"spatial.outcome": o}) for o in ("none", "sar", "sem")),
]


def gradient_ms(spec, design):
    """Best of ten gradients, in milliseconds, and the seconds of the first."""
    target = build_target(spec, design, {"engine": "collapsed", "jitter": 0.5})
    data, z = target.prepare(design.y, None), 0.1 * target.start(jax.random.key(0))
    gradient = jax.jit(jax.value_and_grad(target.potential))
    began = time.perf_counter()
    jax.block_until_ready(gradient(z, data))
    first, times = time.perf_counter() - began, []
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(gradient(z, data))
        times.append(time.perf_counter() - began)
    return 1e3 * min(times), first


def row(what, spec, design):
    """One line of the record."""
    layout = lay_out(mixed_model(spec, design))
    milliseconds, compiled = gradient_ms(spec, design)
    widest = max((bucket.width for bucket in layout.buckets), default=0)
    line = f"| {what} | {design.n_rows} | {layout.dense_width} | {widest} | {milliseconds:.2f} | {compiled:.1f} |"
    print(line, file=sys.stderr, flush=True)
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    arguments = parser.parse_args()
    data = Path(os.environ["SPATIALCLUSTERS_DATA"])
    weights = sc.read_weights(data / "us_ea" / "queen.parquet")
    panels = {
        name: sc.read_panel(data / "us_ea" / f"{name}_2018_2021.parquet")
        for name in ("clusters", "industries")
    }
    common = {"likelihood.scale": "constant", "priors": None, "zeros": None, "expects": None}
    lines = []
    for name, formula, changes in CASES:
        term = formula.split()[2]
        given = (
            common | {"formula": formula, "groups": {}, "roles": {"convergence": term}} | changes
        )
        spec = sc.load_model("cluster_growth", given)
        design = sc.build_design(spec, panels[name], weights)
        structure = next(
            (f"{g} {e.structure}" for g, e in spec.groups.items() if e.structure != "iid"), ""
        )
        lines.append(row(f"{name}: {structure or spec.spatial.outcome}", spec, design))
    for side in (20, 40, 80, 140):
        panel, lattice, spec = simulate(side, side, durbin=True, seed=1)
        lines.append(
            row(f"lattice, SDM, {side} x {side}", spec, sc.build_design(spec, panel, lattice))
        )
    text = "\n".join(
        [
            "# Gradients with spatial processes",
            "",
            "`python tests/benchmarks/spatial_gradients.py`",
            "",
            "One core, constant noise, best of ten. `clusters`: 170 areas by 48 clusters, with effects of areas "
            "and clusters, or of each cluster's areas (surfaces). `industries`: effects of industries, areas, "
            "region-clusters and clusters.",
            "",
            "| model | rows | dense block | widest local block | gradient, ms | compilation, s |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "spatial-gradients.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
