"""What a column rests on: estimator, groups, W, sample, sampling, prediction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from spatialclusters.comparison import Result, sample_of
from spatialclusters.frequentist import Frequentist
from spatialclusters.mixed import MixedModel
from spatialclusters.regression_tables.columns import SHOWN, Column
from spatialclusters.reporting.text import count, fixed
from spatialclusters.result import Fit

__all__ = ["footer_lines", "group_names"]

_SOLVERS: Final = {
    "fixed effects": "within",
    "OLS": "least squares",
    "REML": "restricted maximum likelihood",
    "ML SAR": "maximum likelihood, SAR",
    "ML SEM": "maximum likelihood, SEM",
    "ML SDM": "maximum likelihood, SDM",
    "GMM SAR": "two-stage least squares, SAR",
    "GMM SEM": "generalized moments, SEM",
    "GMM SDM": "two-stage least squares, SDM",
}
_ERRORS: Final = {"REML": "given the components", "ML": "information matrix", "GMM": "robust"}


def footer_lines(
    columns: Sequence[Column], groups: Sequence[str], labels: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the lines of the footer that say something of a column."""
    by = next((column.loo.by for column in columns if column.loo), "row")
    effects = [_group_effects(column, groups) for column in columns]
    lines = {
        "model": [str(column.frame["model"].iloc[0]) for column in columns],
        "estimator": [_estimator(column) for column in columns],
        "errors": [_errors(column) for column in columns],
        **{
            f"effects of {labels.get(name, name)}": [treated[name] for treated in effects]
            for name in groups
        },
        "W": [column.weights for column in columns],
        "rows": [count(column.rows) for column in columns],
        "regions": [count(_regions(column.result)) for column in columns],
        "R-hat, largest": [_worst(column, "r_hat") for column in columns],
        "ESS, smallest": [_worst(column, "ess_bulk", "ess_tail") for column in columns],
        f"elpd, one {by} left out": [_elpd(column) for column in columns],
        "sample": [sample_of(column.result)[0][:SHOWN] for column in columns],
    }
    for name, cells in lines.items():
        if any(cells):
            yield name, tuple(cells)


def group_names(results: Iterable[Result]) -> list[str]:
    """Return the groups of all results in order."""
    named: list[str] = []
    for result in results:
        if isinstance(result, Fit):
            named += [group.name for group in result.design.groups]
        elif isinstance(result, Frequentist):
            named += [*result.absorbed, *result.implied, *result.left_out]
        elif isinstance(result, MixedModel):
            named += result.groups
    return list(dict.fromkeys(named))


def _group_effects(column: Column, names: Iterable[str]) -> dict[str, str]:
    """Say what each group's effects are taken for."""
    found: dict[str, str] = {}
    if isinstance(column.result, Fit):
        for group in column.result.design.groups:
            structure = "" if group.structure == "iid" else f", {group.structure}"
            found[group.name] = f"{group.effect}{structure}"
    elif isinstance(column.result, MixedModel):
        found = dict(column.result.groups)
    elif isinstance(column.result, Frequentist) and column.estimator.startswith("fixed effects"):
        # effects of what a group nests in are sums of its own
        found = dict.fromkeys((*column.result.absorbed, *column.result.implied), "absorbed")
    return {name: found.get(name, "none") for name in names}


def _estimator(column: Column) -> str:
    result = column.result
    if isinstance(result, Fit):
        process, engine = result.spec.spatial.outcome, result.provenance.get("engine")
        named = ["Bayes", *([] if process == "none" else [process.upper()])]
        return ", ".join([*named, *([f"{engine} engine"] if engine else [])])
    return _SOLVERS[column.estimator.split(", Conley")[0]]


def _errors(column: Column) -> str:
    if isinstance(column.result, Fit):
        return "posterior sd"
    if isinstance(column.result, Frequentist):
        return column.result.errors[column.estimator]
    return _ERRORS[column.estimator.split()[0]]


def _regions(result: Result) -> int:
    return int(result.design.record["regions"]) if isinstance(result, Fit) else result.n_regions


def _worst(column: Column, *names: str) -> str:
    """Return the largest R-hat or the smallest sample size of all but the group effects."""
    found = [float(value) for name in names for value in column.frame[name].dropna()]
    if not found:
        return ""
    return fixed(max(found), 3) if names == ("r_hat",) else fixed(min(found), 0)


def _elpd(column: Column) -> str:
    loo = column.loo
    return "" if loo is None else f"{fixed(loo.elpd, 1)} ({fixed(loo.std_error, 1)})"
