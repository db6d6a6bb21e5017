"""What went into a fit: data, weights, model, computation, and how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from spatialclusters.catalogue import citation
from spatialclusters.design import Design
from spatialclusters.diagnostics import Check, short_trajectories
from spatialclusters.errors import SpecError
from spatialclusters.parameters import WIDE, model_priors
from spatialclusters.plots import plot_traces
from spatialclusters.priors import describe_priors
from spatialclusters.reporting.blocks import Block, Code, Notes, Paragraph, Section, Table
from spatialclusters.reporting.equations import equation, space_sentences
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.origins import origin_blocks
from spatialclusters.reporting.text import count, fixed, number, share
from spatialclusters.result import Fit
from spatialclusters.spillovers import has_lags

__all__ = [
    "computation_section",
    "data_section",
    "model_section",
    "reproduction_section",
    "weights_section",
]

_ABSENT: Final = {"zero": "zero", "withheld": "withheld"}
_WITHHELD: Final = {
    "zero": "zero",
    "lower": "the sum of what is published (a lower bound)",
    "filled": "a filled-in value",
    "missing": "unknown, and so does the sum",
}
_ZERO_RULES: Final = {
    "drop": "its rows are dropped",
    "minimum-and-dummy": "its log is set to the sample minimum, and a dummy zero({0}) is added",
    "asinh": "asinh({0}) stands in for the log, so the coefficient is no elasticity",
    "log1p": "log(1 + {0}) stands in for the log, so the coefficient is no elasticity",
}
_STRUCTURES: Final = {
    "iid": "none: independent",
    "icar": "ICAR",
    "car": "proper CAR",
    "leroux": "Leroux",
    "bym2": "BYM2",
    "sar": "SAR",
}
_LINKS: Final = {
    "symmetric": "",
    "union": ", neighbors if either is linked to the other",
    "mutual": ", neighbors if both are linked to each other",
}
_EFFECTS: Final = {
    "random": "random",
    "correlated": "random, plus the group's means of the covariates (Mundlak)",
    "fixed": f"fixed: a prior sd of {WIDE:g} response sds",
}


def data_section(fit: Fit) -> Section:
    """Say what the data are, what their gaps count as, and which rows are left."""
    design, record = fit.design, fit.design.record
    panel = record["panel"]
    blocks: list[Block] = [
        Paragraph(
            f"Source: {panel.get('source', 'not recorded')}, {count(panel.get('rows', 0))} records "
            f"(SHA-256 {panel.get('digest', 'not recorded')})."
        ),
        Paragraph(" ".join(_sample_sentences(design))),
    ]
    if "cells" in record:
        blocks.append(_cells_table(record["cells"]))
    blocks += origin_blocks(record)
    if fit.spec.cells is not None or fit.spec.zeros:
        blocks.append(Notes("What gaps and zeros count as", list(_gap_rules(fit))))
    if record["dropped"]:
        rows = [(reason, count(lost)) for reason, lost in record["dropped"].items()]
        blocks.append(
            Table("Cells that are not rows, by the first reason", ("reason", "cells"), rows)
        )
    blocks.append(_descriptives(design))
    if "linkages" in record:
        blocks.append(Notes("Linkages between clusters", list(_linkage_notes(record["linkages"]))))
    if panel.get("notes"):
        blocks.append(Notes("Notes on the data", panel["notes"]))
    return Section("data", "Data", blocks)


def weights_section(fit: Fit) -> Section:
    """Describe the spatial weights, with every isolate by name."""
    if fit.weights is None:
        text = "The model was fitted without spatial weights: no term looks at neighboring regions."
        return Section("weights", "Spatial weights", [Paragraph(text)])
    facts = fit.weights.describe()
    rows = [
        ("kind", str(facts["kind"])),
        ("row-standardized", "yes" if facts["row_standardized"] else "no"),
        ("regions", f"{facts['regions']:,}"),
        ("links", f"{facts['links']:,}"),
        ("neighbors of a region: least, mean, most", f"{facts['min_neighbors']}, "
         f"{facts['mean_neighbors']:.2f}, {facts['max_neighbors']}"),
        ("connected components", str(facts["components"])),
        ("symmetric", "yes" if facts["symmetric"] else "no"),
        ("SHA-256", str(facts["digest"])),
    ]  # fmt: skip
    blocks: list[Block] = [
        Table("Which regions are neighbors", ("property", "value"), rows, text=(0, 1))
    ]
    if fit.weights.blend is not None:
        blocks.insert(0, Paragraph(str(fit.weights.blend.describe()["text"])))
    isolates = list(fit.weights.isolates)
    title = f"Regions without neighbors ({len(isolates)})"
    blocks.append(Notes(title, isolates) if isolates else Paragraph("Every region has a neighbor."))
    if fit.spec.spatial.parameters or has_lags(fit):
        blocks.append(Paragraph(_lag_sentence(fit)))
    if fit.weights.notes:
        blocks.append(Notes("Notes on the weights", fit.weights.notes))
    return Section("weights", "Spatial weights", blocks)


def model_section(fit: Fit) -> Section:
    """Typeset the equation; list groups, and priors with what they mean."""
    spec, design = fit.spec, fit.design
    blocks: list[Block] = [Paragraph(line, "equation") for line in equation(fit)]
    less = ", less rho times that of its neighbors" if "rho" in spec.spatial.parameters else ""
    blocks += [
        Paragraph(
            "Covariates enter centered at their sample means: the intercept is the expected "
            f"response of an average row{less}."
        ),
        Code(spec.formula),
    ]
    if told := " ".join(space_sentences(fit)):
        blocks.insert(-1, Paragraph(told))
    if spec.description:
        blocks.insert(0, Paragraph(spec.description))
    if design.groups:
        blocks.append(_groups_table(design))
    priors = describe_priors(
        model_priors(spec, design),
        response_unit=str(design.data.attrs["unit"]),
        covariate_sd=dict(zip(design.terms, design.data["scale"].values.tolist(), strict=True)),
        annualize=(1.0 if design.annualized else design.years) if design.years else None,
    )
    rows = [tuple(map(str, row)) for row in priors.itertuples(index=False)]
    blocks.append(
        Table(
            "Priors, and what they mean",
            tuple(priors.columns),
            rows,
            text=range(4),
            folded=f"Priors of {len(rows)} parameters",
        )
    )
    if design.record["notes"]:
        blocks.append(Notes("Notes on the design", design.record["notes"]))
    return Section("model", "Model", blocks)


def _settings(fit: Fit) -> dict[str, Any]:
    """Return the settings of the sampler that were in force."""
    unused = ("target_accept", "max_tree_depth") if short_trajectories(fit) else ()
    return {k: v for k, v in fit.provenance["settings"].items() if k not in unused}


def computation_section(fit: Fit, verdict: Check) -> Section:
    """Show the checks of the sampling, its settings, timings and versions."""
    checks = [
        ("passed" if row["passed"] else "FAILED", row["check"], row["value"], row["expected"],
         "" if row["passed"] else row["advice"])
        for row in verdict.table.to_dict("records")
    ]  # fmt: skip
    known, steps = fit.provenance, fit.sample_stats["n_steps"].values
    facts = [
        *((name.replace("_", " "), str(value)) for name, value in _settings(fit).items()),
        ("leapfrog steps a draw", f"{steps.mean():.1f}, at most {int(steps.max())}"),
        *((name.replace("_", " "), _timing(value)) for name, value in known["timings"].items()),
        ("sampler", f"{known['sampler']}, {known['engine']} model"),
        ("fitted", known["created"]),
    ]
    versions = {
        "spatialclusters": known["version"],
        "python": known["python"],
        **known["versions"],
    }
    blocks: list[Block] = [
        Paragraph(verdict_sentence(verdict), "good" if verdict.passed else "bad"),
        Table("Checks of the sampling", ("verdict", "check", "value", "expected", "advice"),
              checks, text=range(5)),
        picture(
            plot_traces(fit),
            "Rank plots of coefficients and hyperparameters, one panel each and one line per chain. "
            "Lines near 1 everywhere mean that the chains agree.",
            "Ranks of the draws by chain. Lines that stay near 1 agree; a slope or a bulge is a "
            "chain that has been elsewhere.",
        ),
        Table("Settings and timings", ("what", "value"), facts, text=(0, 1),
              folded="Settings and timings"),
        Table("Versions", ("package", "version"), list(versions.items()), text=(0, 1),
              folded="Versions"),
    ]  # fmt: skip
    return Section("computation", "Computation", blocks)


def reproduction_section(fit: Fit) -> Section:
    """Give the command, the model file, the digests and what to cite."""
    known = fit.provenance
    digests = [(name, value or "—") for name, value in known["digests"].items()]
    digests.append(("data", fit.design.record["panel"].get("digest", "—")))
    try:
        cited = citation(fit.spec)
    except SpecError as problem:
        cited = f"% {problem}"
    blocks: list[Block] = [
        Paragraph(f"Save the model file below as {fit.spec.name}.toml and run:"),
        Code(_command(fit)),
        Paragraph(
            f"Version {known['version']}, seed {known['settings']['seed']}. The same versions on "
            "the same machine give the same draws, bit by bit."
        ),
        Code(fit.tree.attrs["model"], folded=f"The model file, {fit.spec.name}.toml"),
        Table("SHA-256 digests", ("of", "digest"), digests, text=(0, 1), folded="Digests"),
    ]
    if cited:
        blocks += [Paragraph("The model rests on these works:"), Code(cited)]
    else:
        blocks.append(Paragraph("The model file cites no works."))
    return Section("reproduction", "Reproduction and citation", blocks)


def verdict_sentence(verdict: Check) -> str:
    """Return the verdict on the sampling in one or two sentences."""
    total = len(verdict.table)
    if verdict.passed:
        return f"The sampling converged: all {total} checks passed."
    failed = verdict.table[~verdict.table["passed"].astype(bool)]
    reasons = "; ".join(f"{row['check']}: {row['value']}" for row in failed.to_dict("records"))
    return (
        f"The sampling has not converged: do not report the numbers on this page. "
        f"{len(failed)} of {total} checks failed ({reasons}). {failed['advice'].iloc[0]}"
    )


def row_name(design: Design) -> str:
    """Return what one row is: a region, a region-cluster or a region-industry."""
    if "row_industry" in design.data:
        return "region-industry"
    return "region-cluster" if "row_cluster" in design.data else "region"


def _sample_sentences(design: Design) -> Iterator[str]:
    record = design.record
    yield f"The sample has {record['rows']:,} rows ({row_name(design)}) in {record['regions']:,} regions."
    if record.get("share_of_base_in_sample") is not None:
        yield (
            f"They hold {100 * record['share_of_base_in_sample']:.1f} % of what is published for the "
            "base year."
        )
    if "condition_number" in record:
        yield f"Condition number of the standardized covariates: {record['condition_number']:.1f}."


def _cells_table(cells: dict[str, dict[str, int]]) -> Table:
    kinds = ("observed", "zero", "withheld", "absent")
    rows = [
        (year, count(found["cells"]),
         *(f"{count(found[kind])} ({share(found[kind], found['cells'])})" for kind in kinds))
        for year, found in cells.items()
    ]  # fmt: skip
    caption = (
        "Cells by year. Zeros are among the observed; withheld cells are listed without a value."
    )
    return Table(caption, ("year", "cells", *kinds), rows)


def _gap_rules(fit: Fit) -> Iterator[str]:
    cells = fit.spec.cells
    if cells is not None:
        yield f"In sums, an absent cell counts as {_ABSENT[cells.absent]}."
        filled = f" ({cells.fill})" if cells.fill else ""
        yield f"In sums, a withheld cell counts as {_WITHHELD[cells.withheld]}{filled}."
    for variable, rule in fit.spec.zeros.items():
        yield f"Where {variable} is zero, {_ZERO_RULES[rule].format(variable)}."


def _linkage_notes(linkages: dict[str, Any]) -> Iterator[str]:
    yield f"{linkages.get('links', 0):,} links from {linkages.get('source', 'a table')}."
    if linkages.get("outside"):
        yield f"{linkages['outside']:,} links name a cluster that the panel does not have."
    if linkages.get("unlinked"):
        yield f"Clusters without a link: {', '.join(map(str, linkages['unlinked']))}."
    if linkages.get("digest"):
        yield f"SHA-256 {linkages['digest']}."


def _descriptives(design: Design) -> Table:
    columns = {design.data.attrs["response"]: design.y}
    columns |= dict(zip(design.terms, design.X.T, strict=True))
    rows = []
    for name, values in columns.items():
        quartiles = np.quantile(values, [0.25, 0.5, 0.75])
        numbers = (values.mean(), values.std(ddof=1), values.min(), *quartiles, values.max())
        rows.append((str(name), *(number(float(each)) for each in numbers)))
    heads = ("variable", "mean", "sd", "min", "25 %", "median", "75 %", "max")
    unit = design.data.attrs["unit"]
    return Table(f"Response ({unit}) and covariates in the sample", heads, rows)


def _groups_table(design: Design) -> Table:
    singletons = {name: entry["singletons"] for name, entry in design.record["groups"].items()}
    rows = [
        (group.name, count(len(group.levels)), count(singletons.get(group.name, 0)),
         _EFFECTS[group.effect], _STRUCTURES[group.structure] + _LINKS[group.links],
         ", ".join("intercept" if x == "1" else x for x in group.labels))
        for group in design.groups
    ]  # fmt: skip
    heads = ("group", "levels", "with one row", "effects", "spatial structure", "what varies")
    return Table("Groups", heads, rows, text=(0, 3, 4, 5))


def _lag_sentence(fit: Fit) -> str:
    """Say which cells the lag over rows connects."""
    lag, blocks = fit.design.lag, fit.spec.spatial.blocks
    assert fit.weights is not None
    assert lag is not None
    cells, components = len(lag.counts), int(lag.components.max()) + 1
    what = "region-clusters" if "row_cluster" in fit.design.data else "regions"
    plural, alone = "s" if components > 1 else "", f"{lag.isolates:,} have no neighbor there"
    text = (
        f"Over the sample, lag() connects {cells:,} {what} in {components:,} connected "
        f"component{plural}; {alone if lag.isolates else 'all have a neighbor there'}"
    )
    if not fit.weights.row_standardized:
        return f"{text}."
    rule = {"restandardize": "weights of those that are there sum to one again",
            "subset": "absent neighbors count as zero"}[blocks]  # fmt: skip
    return f"{text}. Where neighbors are absent, {rule}."


def _timing(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(fixed(float(each), 1) for each in value)
    return fixed(float(value), 1) if isinstance(value, int | float) else str(value)


def _command(fit: Fit) -> str:
    """Return the command line that repeats the fit, with files by the names they had."""
    record, settings = fit.design.record, fit.provenance["settings"]
    words = ["spatialclusters", "fit", f"{fit.spec.name}.toml"]
    words += ["--data", _file(record["panel"], "PANEL")]
    if fit.geometry is not None:
        words += ["--regions", "REGIONS"]
    if fit.weights is not None:
        for kind in fit.weights.kind.split(" + "):
            built = kind.startswith(("queen", "rook", "knn", "distance", "decay"))
            words += ["--weights", kind if built else "EDGES"]
        words += [] if fit.weights.row_standardized else ["--no-row-standardize"]
    if "linkages" in record:
        words += ["--linkages", _file(record["linkages"], "LINKAGES")]
    for name in ("seed", "chains", "tune", "draws"):
        words += [f"--{name}", str(settings[name])]
    command = shlex.join([*words, "-o", "fit.nc"])
    return command.replace(" --", " \\\n  --")


def _file(origin: dict[str, Any], otherwise: str) -> str:
    """Return the name of the file that a table came from, if it was one."""
    source = str(origin.get("source", ""))
    return source if source.endswith((".csv", ".parquet")) else otherwise
