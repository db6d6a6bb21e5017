"""Spillovers between the US Economic Areas: five spatial models of cluster growth, compared.

    SPATIALCLUSTERS_DATA=... python tests/statistical/spatial_us_ea.py --output docs/records

Same rows, same weights, same priors for what the models share; they differ in how regions
depend on each other. Coefficients, impacts and marginal leave-one-out go to one page. A model
that was fitted is read again from ``--fits`` instead of being refitted.
"""

import argparse
import os
import sys
from pathlib import Path

import spatialclusters as sc

OWN = "growth ~ log(cluster_level) + log(linked_strength)"
NEAR = " + lag(log(cluster_level)) + lag(log(linked_strength))"
EFFECTS = " + (1 | region) + (1 + log(cluster_level) | cluster)"
MODELS = {
    "no space": (OWN, {}),
    "SLX": (OWN + NEAR, {}),
    "SAR": (OWN, {"spatial.outcome": "sar"}),
    "SDM": (OWN + NEAR, {"spatial.outcome": "sar"}),
    "SDEM": (OWN + NEAR, {"spatial.outcome": "sem"}),
    "BYM2": (OWN, {"groups.region": {"effect": "correlated", "structure": "bym2"}}),
}
SHOWN = ("log(cluster_level)", "log(linked_strength)")


def models():
    """The shipped model, its neighbors' strength replaced by the model's own way to space."""
    shipped = sc.load_model("cluster_growth")
    for name, (formula, changes) in MODELS.items():
        kept = {
            key: prior.model_dump()
            for key, prior in shipped.priors.items()
            if "neighbor" not in key
        }
        changed = {
            "name": name.replace(" ", "-"),
            "formula": formula + EFFECTS,
            "roles.specialization": ["log(linked_strength)"],
            "zeros": {"linked_strength": "minimum-and-dummy"},
            "expects": {"log(cluster_level)": "negative", "log(linked_strength)": "positive"},
            "priors": kept,
        }
        yield name, sc.override(shipped, changed | changes)


def line(frame, **where):
    """One row of a tidy frame as mean and interval."""
    for column, value in where.items():
        frame = frame[frame[column] == value]
    if frame.empty:
        return "-"
    row = frame.iloc[0]
    return f"{row.estimate:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--fits", type=Path, default=Path("spatial-us-ea-fits"))
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--only", nargs="*", default=list(MODELS))
    arguments = parser.parse_args()
    data = Path(os.environ["SPATIALCLUSTERS_DATA"])
    panel = sc.read_panel(data / "us_ea" / "clusters_2018_2021.parquet")
    weights = sc.read_weights(data / "us_ea" / "queen.parquet")
    linkages = data / "concordance" / "linked_clusters.csv"
    arguments.fits.mkdir(parents=True, exist_ok=True)
    fits, loos, regions = {}, {}, {}
    for name, spec in models():
        if name not in arguments.only:
            continue
        path = arguments.fits / f"{spec.name}.nc"
        if not path.is_file():
            sc.fit(
                spec, panel, weights, linkages=linkages, seed=arguments.seed, progress=False
            ).save(path)
        fits[name] = sc.load_fit(path)
        print(name, str(sc.check(fits[name])).splitlines()[0], file=sys.stderr)
        loos[name] = sc.marginal_loo(fits[name])
        regions[name] = sc.marginal_loo(fits[name], by="region")
        print(name, loos[name], regions[name], sep="\n  ", file=sys.stderr)
    text, passed = page(fits, loos, regions)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "spatial-us-ea.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if passed else 3


def page(fits, loos, regions):
    """Word the record; tell whether every fit converged."""
    first = next(iter(fits.values()))
    lag = first.design.lag
    checks = {name: sc.check(fit) for name, fit in fits.items()}
    out = [
        "# Spillovers between the US Economic Areas, 2018 to 2021",
        "",
        "`python tests/statistical/spatial_us_ea.py`",
        "",
        f"170 areas, {first.design.n_rows} region-clusters; size-dependent noise, correlated region effects, "
        "intercept and convergence by cluster; W: queen contiguity, one block per cluster over the areas "
        f"that have it, rows restandardized ({lag.isolates} region-clusters without neighbors). Log points "
        "of growth over three years per log point; posterior means and 95 % intervals.",
        "",
        "| model | converged | CPU s | rho or lambda, phi | sd(region) |",
        "|---|---|---|---|---|",
    ]
    for name, fit in fits.items():
        table, times = sc.coefficients(fit), fit.provenance["timings"]
        seconds = sum(times["cpu_seconds"]) + times["preparation_cpu_seconds"]
        spatial = table[table["effect"] == "spatial"]
        dependence = [f"{r.term} {line(spatial, term=r.term)}" for r in spatial.itertuples()]
        verdict = "yes" if checks[name].passed else "**no**"
        spread = line(table, term="sd(region)")
        out.append(
            f"| {name} | {verdict} | {seconds:.0f} | {'; '.join(dependence) or '-'} | {spread} |"
        )
    for term in SHOWN:
        out += [
            "",
            f"`{term}`:",
            "",
            "| model | coefficient | of the lag | direct | indirect | total |",
        ]
        out.append("|---|---|---|---|---|---|")
        for name, fit in fits.items():
            table = sc.coefficients(fit)
            cells = [line(table, term=term), line(table, term=f"lag({term})")]
            impacts = [cells[0], "0", cells[0]]
            if "rho" in fit.posterior or "lag" in "".join(fit.design.terms):
                frame = sc.impacts(fit)
                impacts = [
                    line(frame, term=term, effect=e) for e in ("direct", "indirect", "total")
                ]
            out.append(f"| {name} | {' | '.join(cells + impacts)} |")
    for title, results in (("one row", loos), ("one region", regions)):
        out += ["", f"Marginal leave-one-out, {title} at a time (elpd, natural logarithm):", ""]
        out += ["| model | elpd | difference | its se | Pareto k < 0.7 |", "|---|---|---|---|---|"]
        out += [
            f"| {row.model} | {row.elpd:.1f} | {row.difference:.1f} | {row.difference_error:.1f} | {row.reliable:.1%} |"
            for row in sc.compare_loo(results).itertuples()
        ]
    return "\n".join([*out, ""]), all(check.passed for check in checks.values())


if __name__ == "__main__":
    sys.exit(main())
