"""The accepted posterior of every shipped model: refit it and compare, or accept a new one.

    python tests/statistical/reference_posteriors.py --model all --output docs/records
    python tests/statistical/reference_posteriors.py --model cluster_growth --accept

Without ``--accept`` every model is fitted again at the recorded settings but another seed, and
each coefficient, hyperparameter, convergence, specialization and impact compared with
``models/reference/NAME.posterior.json``: differences of means and standard deviations (medians and
ends of the 95 % interval where moments may not exist) over their combined Monte Carlo error must
stay below the 0.999 quantile of the largest of that many normals. ``--same-seed`` asks for the same
bits instead, on the versions and the kind of machine that are recorded. ``--accept`` fits at the
seed below and writes the file if every check passes.

Exit codes: 0 all agree, or accepted; 2 the model, its priors or the data are not those that were
accepted; 3 something disagrees, or a check failed.
"""

import argparse
import hashlib
import json
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from agreement import LEVEL, bound, gaps, largest, mean_and_sd, median_and_interval
from reference_data import DATA, MODELS, tables

import spatialclusters as sc
from spatialclusters.effects import annual_points, speed
from spatialclusters.parameters import model_priors
from spatialclusters.run import default_weights, model_linkages
from spatialclusters.spillovers import has_lags, impact_terms, term_impacts
from spatialclusters.summaries import summarize_draws

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "models" / "reference"
RECORD = "reference-posteriors.md"
FORMAT = "spatialclusters-reference-posterior/1"
COMMAND = "python tests/statistical/reference_posteriors.py"
SEED = 20261126  # of what is accepted; comparisons take SEED + 1
DIGITS = 9  # of data in a digest: other processors round the last bits of logs differently


class NotComparableError(Exception):
    """What was accepted is another model, other data, or not a reference."""


def digest(*parts):
    """Return the SHA-256 of datasets and tables: labels, and numbers to ``DIGITS`` digits."""
    found = hashlib.sha256()
    for part in parts:
        columns = [] if part is None else [*part.variables.items()]
        for name, column in sorted((str(name), column.values) for name, column in columns):
            numeric = column.dtype.kind == "f"
            values = np.char.mod(f"%.{DIGITS}g", column) if numeric else column
            found.update(json.dumps([name, column.shape, values.tolist()]).encode())
    return found.hexdigest()


def inputs(name):
    """Return spec, panel, weights and linkages of a model, and the digest of the data."""
    panel, links = tables(name)
    spec = sc.load_model(name)
    weights = default_weights(spec, panel)
    linkages = model_linkages(spec, panel, links)
    linked = None if linkages is None else linkages.to_dataset(name="weight")
    return spec, panel, weights, links, digest(panel.data, weights.to_dataset(), linked)


def identity(name):
    """Return what must be as it was accepted: data, model, and every prior in words."""
    spec, panel, weights, links, data = inputs(name)
    design = sc.build_design(spec, panel, weights, linkages=links)
    priors = {key: each.prior.describe() for key, each in model_priors(spec, design).items()}
    return {"data": data, "model": spec.digest, "priors": priors}


def parameters(fit):
    """Yield name, draws and moments of coefficients and hyperparameters."""
    if fit.design.intercept:
        yield "intercept", fit.draws("intercept"), fit.moments("intercept")
    moments = fit.moments("coefficient")
    for i, term in enumerate(fit.design.terms):
        own = None if moments is None else (moments[0][..., i], moments[1][..., i])
        yield term, fit.draws("coefficient")[..., i], own
    for name in sorted(map(str, fit.posterior.data_vars)):
        if name in ("intercept", "coefficient") or name.startswith("effect("):
            continue
        values, variable = fit.draws(name), fit.posterior[name]
        if values.ndim == 2:
            yield name, values, None
        else:
            for i, label in enumerate(variable[variable.dims[2]].values):
                yield f"{name}[{label}]", values[..., i], None


def headline(fit):
    """Yield name, draws and moments of convergence, specialization and impacts, not by group."""
    roles, design = fit.spec.roles, fit.design
    role = design.label(roles.convergence)
    scale = design.years if design.annualized else 1.0
    for group, draws, moments in term_impacts(fit, role):
        if group in ("overall", "common"):
            own = moments and (moments[0] * scale, moments[1] * scale**2)
            yield f"convergence, {group}: change", draws * scale, own
            yield f"convergence, {group}: speed", speed(draws * scale, design.years), None
    points, _ = annual_points(design)
    for term in map(design.label, roles.specialization):
        size = points * float(design.X[:, design.terms.index(term)].std(ddof=1))
        for group, draws, moments in term_impacts(fit, term):
            if group in ("overall", "common"):
                own = moments and (moments[0] * size, moments[1] * size**2)
                yield f"specialization, {group}: {term} per sd", draws * size, own
    for term in impact_terms(fit) if has_lags(fit) else ():
        by_group = {group: draws for group, draws, _ in term_impacts(fit, term)}
        direct, total = by_group["overall"], by_group["common"]
        for effect, draws in (("direct", direct), ("indirect", total - direct), ("total", total)):
            yield f"impact of {term}: {effect}", draws, None


def summaries(fit):
    """Return the table of quantities: center, spread, their errors, ESS and R-hat."""
    lagged = "rho" in fit.spec.spatial.parameters
    rows = {
        name: mean_and_sd(draws, moments) | checks(draws)
        for name, draws, moments in parameters(fit)
    }
    for name, draws, moments in headline(fit):
        # 1 / (1 - rho) may have no variance, and a speed is infinite where a change is below -1
        steep = lagged or name.endswith("speed")
        rows[name] = median_and_interval(draws) if steep else mean_and_sd(draws, moments)
        rows[name] |= checks(np.minimum(draws, draws[np.isfinite(draws)].max()))
    table = pd.DataFrame.from_dict(rows, orient="index")
    last = ["ess_bulk", "ess_tail", "r_hat"]
    return table[[*table.columns.drop(last), *last]]


def checks(draws):
    found = summarize_draws(draws)
    return {name: found[name] for name in ("ess_bulk", "ess_tail", "r_hat")}


def refit(name, **settings):
    """Fit a model to its data."""
    spec, panel, weights, links, _ = inputs(name)
    return sc.fit(spec, panel, weights, linkages=links, progress=False, **settings)


def bits(fit):
    """Return the SHA-256 of all draws."""
    found = hashlib.sha256()
    for name in sorted(map(str, fit.posterior.data_vars)):
        found.update(name.encode() + np.ascontiguousarray(fit.draws(name), dtype="<f8").tobytes())
    return found.hexdigest()


def software(fit):
    """Return versions and the kind of machine, on which bits depend."""
    known = fit.provenance
    own = {"spatialclusters": known["version"], "python": known["python"]}
    return own | known["versions"] | {"machine": f"{platform.system()} {platform.machine()}"}


def path_of(name):
    return FOLDER / f"{name}.posterior.json"


def accept(name):
    """Fit a model and write its reference if every check passes; return fit and verdict."""
    fit = refit(name, seed=SEED)
    check = sc.check(fit)
    if check.passed:
        now, data = identity(name), MODELS[name]
        content = {
            "format": FORMAT,
            "command": f"{COMMAND} --model {name} --accept",
            "model": {"name": name, "sha256": now["model"]},
            "data": {
                "name": data,
                "what": DATA[data],
                "rows": fit.design.n_rows,
                "sha256": now["data"],
            },
            "settings": fit.provenance["settings"],
            "versions": software(fit),
            "draws": {"sha256": bits(fit)},
            "priors": now["priors"],
            "checks": check.table.drop(columns="advice").to_dict(orient="records"),
            "quantities": summaries(fit).to_dict(orient="index"),
        }
        path_of(name).write_text(as_text(content), encoding="utf-8")
    return fit, check


def as_text(content):
    """Write JSON with a line for every check, prior and quantity."""

    def flat(value):
        return json.dumps(rounded(value), ensure_ascii=False)

    def block(value):
        if isinstance(value, list):
            return "[\n    " + ",\n    ".join(map(flat, value)) + "\n  ]"
        if isinstance(value, dict):
            lines = (f"{json.dumps(key)}: {flat(each)}" for key, each in value.items())
            return "{\n    " + ",\n    ".join(lines) + "\n  }"
        return flat(value)

    return (
        "{\n" + ",\n".join(f'  "{key}": {block(value)}' for key, value in content.items()) + "\n}\n"
    )


def rounded(value):
    """Keep ten digits of numbers, four of errors and checks; what is missing is left out."""
    if isinstance(value, float):
        return None if np.isnan(value) else float(f"{value:.10g}")
    if not isinstance(value, dict):
        return value
    return {
        key: float(f"{x:.4g}") if key.startswith(("mcse", "ess", "r_hat")) else rounded(x)
        for key, x in value.items()
        if not (isinstance(x, float) and np.isnan(x))
    }


def advice(name):
    return f"If the change is wanted, accept it: {COMMAND} --model {name} --accept"


def read(name):
    """Read a reference, and refuse it if model, priors or data are not what they were."""
    again = advice(name)
    try:
        reference = json.loads(path_of(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        msg = f"{path_of(name).name}: got {cause}; expected a reference. {again}"
        raise NotComparableError(msg) from cause
    if reference.get("format") != FORMAT:
        msg = f"{path_of(name).name}: got format {reference.get('format')!r}; expected {FORMAT!r}."
        raise NotComparableError(f"{msg} {again}")
    now = identity(name)
    for what in ("model", "data"):
        if now[what] != reference[what]["sha256"]:
            msg = f"{name}: got {what} with SHA-256 {now[what][:12]}; expected the accepted "
            msg += f"{reference[what]['sha256'][:12]}. {again}"
            raise NotComparableError(msg)
    if changed := sorted(
        f"{key}: {now['priors'].get(key)} (accepted: {reference['priors'].get(key)})"
        for key in now["priors"] | reference["priors"]
        if now["priors"].get(key) != reference["priors"].get(key)
    ):
        msg = f"{name}: got other priors than accepted: {'; '.join(changed)}. {again}"
        raise NotComparableError(msg)
    return reference


def disagreements(reference, summary):
    """Return gaps, quantity by statistic, and the bound that the largest must stay below."""
    table = pd.DataFrame.from_dict(reference["quantities"], orient="index")
    if set(table.index) != set(summary.index):
        odd = sorted(set(table.index) ^ set(summary.index))
        name = reference["model"]["name"]
        msg = f"{name}: got other quantities than accepted: {', '.join(odd)}. {advice(name)}"
        raise NotComparableError(msg)
    found = gaps(table, summary.loc[table.index])
    return found, bound(int(found.count().sum()))


def compare(name, seed=None, *, same_seed=False):
    """Refit a model and compare; return the row of the record and whether it passed."""
    reference = read(name)
    settings = reference["settings"]
    seed = settings["seed"] if same_seed else settings["seed"] + 1 if seed is None else seed
    own = {key: settings[key] for key in ("chains", "tune", "draws", "engine")}
    fit = refit(name, seed=seed, **own)
    found, limit = disagreements(reference, summaries(fit))
    gap, where = largest(found)
    where = where.replace("|", "\\|")  # a table is written of it
    timings, check = fit.provenance["timings"], sc.check(fit)
    row = {
        "model": name,
        "data": reference["data"]["name"],
        "rows": fit.design.n_rows,
        "draws": settings["chains"] * settings["draws"],
        "seed": seed,
        "quantities": len(found),
        "statistics": int(found.count().sum()),
        "largest difference": f"{gap:.2f} ({where})",
        "band": f"{limit:.2f}",
        "checks": "pass" if check.passed else "FAIL",
        "CPU s": round(sum(timings["cpu_seconds"]) + timings["preparation_cpu_seconds"]),
    }
    if not check.passed:
        print(check, file=sys.stderr)
    passed = gap < limit and check.passed
    if not same_seed:
        return row, passed
    same = bits(fit) == reference["draws"]["sha256"]
    here, there = software(fit), reference["versions"]
    others = [f"{k} {there.get(k)} -> {v}" for k, v in here.items() if there.get(k) != v]
    reason = f" with {', '.join(others)}" if others else " on the recorded versions"
    return row | {"bits": "the same" if same else f"DIFFERENT{reason}"}, passed and same


def record(rows, passed):
    text = f"""# Reference posteriors, refitted

`{COMMAND} --model all{" --same-seed" if "bits" in rows[0] else ""}`

Shipped models at the recorded settings and a seed that is {"" if "bits" in rows[0] else "not "}the recorded
one, beside `models/reference/NAME.posterior.json`. Statistics are means and standard deviations, or medians and ends
of the 95 % interval, of every quantity; differences are in units of the combined Monte Carlo error. The
band is the {LEVEL} quantile of the largest of that many independent normals. CPU seconds are those of the fit.
**{"All agree." if passed else "NOT all agree."}**

"""
    used = dict.fromkeys(row["data"] for row in rows)
    text += "\n".join(f"- `{data}`: {DATA[data]}." for data in used)
    return f"{text}\n\n{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}\n"


def main(words=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=[*MODELS, "all"], required=True)
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("--same-seed", action="store_true")
    parser.add_argument("--seed", type=int, help="of the comparison; the accepted one plus 1")
    parser.add_argument("--output", type=Path, help=f"folder in which to write {RECORD}")
    given = parser.parse_args(words)
    names = list(MODELS) if given.model == "all" else [given.model]
    rows, passed, comparable = [], True, True
    for name in names:
        try:
            if given.accept:
                fit, check = accept(name)
                print(f"{name}: {fit.design.n_rows} rows. {check}", flush=True)
                passed &= check.passed
            else:
                row, good = compare(name, given.seed, same_seed=given.same_seed)
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
                passed &= good
        except NotComparableError as problem:
            print(problem, file=sys.stderr)
            comparable = False
    if rows:
        text = record(rows, passed and comparable)
        sys.stdout.write(text)
        if given.output is not None:
            (given.output / RECORD).write_text(text, encoding="utf-8")
    return 2 if not comparable else 0 if passed else 3


if __name__ == "__main__":
    sys.exit(main())
