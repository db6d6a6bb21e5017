"""Checks of the sampling, its settings, timings and versions."""

from __future__ import annotations

from typing import Any

import pandas as pd

from spatialclusters.diagnostics import by_nuts, short_trajectories
from spatialclusters.plots import plot_traces
from spatialclusters.reporting.blocks import Block, Paragraph, Section, Table
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.tables import check_table, precision_table
from spatialclusters.reporting.values import Shown, fixed, join, number, quoted, say
from spatialclusters.reporting.verdicts import verdict_sentence
from spatialclusters.result import Fit

__all__ = ["computation_section"]


def computation_section(results: Results) -> Section:
    """Show the checks of the sampling, its settings, timings and versions."""
    fit, verdict = results.fit, results.check
    known = fit.provenance
    facts: list[tuple[Shown, ...]] = [
        *((name.replace("_", " "), _fact(value)) for name, value in _settings(fit).items()),
        _moves(fit),
        *((name.replace("_", " "), _timing(value)) for name, value in known["timings"].items()),
        ("sampler", f"{known['sampler']}, {known['engine']} model"),
        ("fitted", known["created"]),
    ]
    versions = {
        "spatialclusters": known["version"],
        "python": known["python"],
        **known["versions"],
    }
    frames = [results.coefficients, results.convergence, results.specialization, results.impacts]
    overall = [frame[~frame["group"].isin(_levels(fit))] for frame in frames if frame is not None]
    blocks: list[Block] = [
        Paragraph(verdict_sentence(verdict), "good" if verdict.passed else "bad"),
        check_table(verdict.table, "Checks of the sampling", ("passed", "FAILED")),
        picture(
            plot_traces(fit),
            "Rank plots of coefficients and hyperparameters, one panel each and one line per chain. "
            "Lines near 1 everywhere mean that the chains agree.",
            "Ranks of the draws by chain. Lines that stay near 1 agree; a slope or a bulge is a "
            "chain that has been elsewhere.",
        ),
        precision_table(
            pd.concat(overall, ignore_index=True), "Monte Carlo error of the numbers reported"
        ),
        Table("Settings and timings", ("what", "value"), facts, "Settings and timings"),
        Table("Versions", ("package", "version"), list(versions.items()), "Versions"),
    ]
    return Section("computation", "Computation", "What it rests on", blocks)


def _moves(fit: Fit) -> tuple[Shown, ...]:
    """Say what a draw took."""
    if not by_nuts(fit):
        return "densities a draw", "1, without a gradient"
    steps = fit.sample_stats["n_steps"].values
    many = say("{}, at most {}", fixed(steps.mean(), 1), fixed(steps.max(), 0))
    return "leapfrog steps a draw", many


def _levels(fit: Fit) -> set[str]:
    return {str(level) for group in fit.design.groups for level in group.levels}


def _settings(fit: Fit) -> dict[str, Any]:
    """Return the settings of the sampler that were in force."""
    unused = ("target_accept", "max_tree_depth") if short_trajectories(fit) else ()
    return {k: v for k, v in fit.provenance["settings"].items() if k not in unused}


def _fact(value: Any) -> Shown:
    return number(float(value)) if isinstance(value, float) else quoted(str(value))


def _timing(value: Any) -> Shown:
    if isinstance(value, list | tuple):
        return join((fixed(float(each), 1) for each in value), ", ")
    return fixed(float(value), 1) if isinstance(value, int | float) else str(value)
