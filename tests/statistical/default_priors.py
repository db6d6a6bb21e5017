"""What do the default priors cost? The posterior under them beside that under wide ones.

    python tests/statistical/default_priors.py --output docs/records --seed 20261125

Crime in Columbus (49 neighborhoods) as a linear model, SAR, SEM, SAC and SDM, and growth of
income in the US states. Wide priors are flat for coefficients and rho, lambda, and 1 / sigma: those
of ``models/reference``. A quantity may move by 0.15 standard deviations of the posterior under
wide priors. The center of impacts is their median and their spread that of the central 95 %: near
rho = 1 they have no variance.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from libpysal.examples import get_path

import spatialclusters as sc
from spatialclusters.spillovers import impact_terms, term_impacts

LIMIT = 0.15
DRAWS, SAC_DRAWS = 6000, 20_000  # SAC moves slowly along rho against lambda


def columbus() -> sc.Panel:
    import geopandas as gpd

    shapes = gpd.read_file(get_path("columbus.shp"))
    shapes["region"] = [f"{i:02d}" for i in range(len(shapes))]
    return sc.read_panel(
        pd.DataFrame(shapes[["region", "CRIME", "INC", "HOVAL"]]), shapes[["region", "geometry"]]
    )


def cases() -> dict[str, tuple[str, sc.Panel]]:
    """Return the formula with its tables, and the panel, of each case."""
    crime, states = columbus(), sc.us_income()
    growth = '[growth]\nvariable = "income"\nfrom = 1969\nto = 2009'
    plain, durbin = "CRIME ~ INC + HOVAL", "CRIME ~ INC + HOVAL + lag(INC) + lag(HOVAL)"
    found = {
        f"Columbus, {process.upper()}": (
            f'formula = "{plain}"\n[spatial]\noutcome = "{process}"',
            crime,
        )
        for process in ("none", "sar", "sem", "sac")
    }
    found["Columbus, SDM"] = (f'formula = "{durbin}"\n[spatial]\noutcome = "sar"', crime)
    found["US states, convergence"] = (f'formula = "growth ~ log(income)"\n{growth}', states)
    return found


def wide(spec: sc.ModelSpec) -> sc.ModelSpec:
    flat = {"distribution": "flat"}
    names = ["intercept", *map(str, spec.parsed_formula.terms)]
    priors = {f'priors."{name}"': flat for name in names}
    priors["priors.sigma"] = {"distribution": "inverse_scale"}
    uniform = {"distribution": "uniform", "lower": -1.0, "upper": 1.0}
    priors |= {f"priors.{name}": uniform for name in spec.spatial.parameters}
    return sc.override(spec, priors)


def quantities(fit: sc.Fit) -> dict[str, tuple[float, float, float]]:
    """Return center, spread and Monte Carlo error in spreads of everything reported."""
    from arviz_stats.base import array_stats

    draws = dict(zip(fit.design.terms, np.moveaxis(fit.draws("coefficient"), -1, 0), strict=True))
    draws |= {name: fit.draws(name) for name in ("sigma", *fit.spec.spatial.parameters)}
    found = {
        name: (x.mean(), x.std(), array_stats.mcse(x, method="mean") / x.std())
        for name, x in draws.items()
    }
    for term in impact_terms(fit) if "rho" in draws else ():
        by_group = {group: x for group, x, _ in term_impacts(fit, term)}
        direct, total = by_group["overall"], by_group["common"]
        for effect, x in (("direct", direct), ("indirect", total - direct), ("total", total)):
            low, high = np.quantile(x, [0.025, 0.975])
            error = array_stats.mcse(x, method="median") / ((high - low) / 3.92)
            found[f"{term}, {effect}"] = (np.median(x), (high - low) / 3.92, error)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20261125)
    arguments = parser.parse_args()
    rows, passed = [], True
    for name, (text, panel) in cases().items():
        spec = sc.parse_spec(f'name = "case"\n{text}')
        weights = sc.contiguity(panel)
        draws = SAC_DRAWS if name.endswith("SAC") else DRAWS
        fits = [
            sc.fit(each, panel, weights, seed=arguments.seed, draws=draws, progress=False)
            for each in (spec, wide(spec))
        ]
        default, reference = map(quantities, fits)
        moves = {q: (default[q][0] - c) / s for q, (c, s, _) in reference.items()}
        errors = {q: np.hypot(default[q][2], e) for q, (_, _, e) in reference.items()}
        worst = max(moves, key=lambda q: abs(moves[q]))
        inside = abs(moves[worst]) <= LIMIT
        passed &= inside
        rows.append(
            f"| {name} | {len(moves)} | {worst.replace('|', '')} | {moves[worst]:+.3f}"
            f"{'' if inside else ' **outside**'} | {max(errors.values()):.3f} |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    verdict = "All inside." if passed else "**Not all inside.**"
    text = f"""# What the default priors cost

`python tests/statistical/default_priors.py --seed {arguments.seed}`

The posterior under the default priors beside that under wide ones: flat for coefficients, rho and lambda,
1 / sigma for the noise, those of the reference models. How far anything that is reported (coefficients,
sigma, rho, lambda; direct, indirect and total impacts by their medians) moves, in standard deviations of
the posterior under wide priors. Allowed: {LIMIT}. {verdict}

| case | quantities | moves most | by | largest Monte Carlo error of a move |
|---|---:|---|---:|---:|
""" + "\n".join(rows)
    (arguments.output / "default-priors.md").write_text(text + "\n", encoding="utf-8")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
