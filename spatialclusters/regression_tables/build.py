"""Results -> a regression table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import pandas as pd

from spatialclusters.comparison import Result, refuse_other_rows, sample_of
from spatialclusters.errors import FitError, listing, suggestion
from spatialclusters.mixed import MixedModel
from spatialclusters.regression_tables.columns import SHOWN, Column, columns_of
from spatialclusters.regression_tables.footer import footer_lines, group_names
from spatialclusters.regression_tables.numbers import Estimate
from spatialclusters.regression_tables.table import RegressionTable, Row
from spatialclusters.result import Fit
from spatialclusters.spillovers import has_lags

if TYPE_CHECKING:
    from spatialclusters.loo import Loo

__all__ = ["EFFECTS", "regression_table"]

_SECTIONS: Final = {
    "coefficient": "Coefficients",
    "spatial": "Spatial dependence",
    "direct": "Direct impacts",
    "indirect": "Indirect impacts",
    "total": "Total impacts",
    "change": "Convergence",
    "speed": "Convergence",
    "half_life": "Convergence",
    "per_sd": "One standard deviation more",
    "sd": "Standard deviations and noise",
    "correlation": "Correlations of effects",
}
EFFECTS: Final = tuple(effect for effect in _SECTIONS if effect not in ("change", "correlation"))
"""Effects that a table shows if it is not told which, in order."""
_AT_THE_END: Final = ("intercept", "intercept at zero")
_CONVERGENCE: Final = {
    "change": "total change",
    "speed": "speed (per year)",
    "half_life": "half-life (years)",
}
_STATISTICS: Final = ["estimate", "std_error", "ci_low", "ci_high"]
_MOST: Final = 6  # significant digits of a standard error


def regression_table(
    *results: Result,
    labels: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    digits: int = 2,
    effects: Sequence[str] = EFFECTS,
    loo: Sequence[Loo | None] = (),
) -> RegressionTable:
    """Put estimates side by side as a table for publication.

    Each estimator of each result is a column. Below an estimate stand its (posterior standard
    deviation or standard error) and its [95 % interval]; no stars. All numbers of a cell are
    rounded at the place of the last of ``digits`` significant digits of the standard error. A
    number whose uncertainty is not known is left out. The footer says what a column rests on.

    Parameters
    ----------
    *results
        Fits, frequentist results, mixed models, and spatial models by maximum likelihood and by
        moments, on the same rows.
    labels
        What to print for a term, by its name in the table, or for a group.
    columns
        Names of the columns in order; by default those of the estimators.
    title
        Stands above the table.
    digits
        From 1 to 6. Two are what draws support: with an effective sample size of 1,000 the
        Monte Carlo error of a posterior mean is 3 % of its standard deviation.
    effects
        Which to show, in the vocabulary of the tidy frame; ``change`` and ``correlation``
        are not shown by default.
    loo
        For each result its :func:`~spatialclusters.loo.marginal_loo`, or None.

    Returns
    -------
    RegressionTable
        ``to_text``, ``to_markdown``, ``to_html``, ``to_latex``, ``to_excel``, ``to_word``, and
        ``save``, which goes by the suffix.

    Raises
    ------
    FitError
        Rows, response, unit or W differ, there is nothing to show, or an argument names what
        there is not.

    References
    ----------
    Vehtari et al. (2021), doi:10.1214/20-BA1221, on Monte Carlo errors; American Statistical
    Association, Wasserstein and Lazar (2016), doi:10.1080/00031305.2016.1154108, on stars.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.frequentist import fit_frequentist
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> data = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2, 2.5, 4], "x": [0.0, 1, 2, 3]})
    >>> design = build_design(parse_spec('formula = "y ~ x"'), read_panel(data))
    >>> table = regression_table(fit_frequentist(design), labels={"x": "Distance"})
    >>> for line in table.to_text().splitlines()[5:8]:
    ...     print(line)
    Distance                     0.95
                               (0.13)
                         [0.38, 1.52]
    """
    _check(results, digits, effects, loo)
    found = columns_of(results, loo)
    if columns is not None and len(columns) != len(found):
        msg = f"columns: got {len(columns)} names; expected {len(found)}, one for each of "
        raise FitError(msg + listing(column.estimator for column in found) + ". Name all of them.")
    groups, labels = group_names(results), labels or {}
    rows = list(_rows(found, effects, labels))
    if not rows:
        msg = f"regression table: got no estimates of {listing(effects)}; expected some."
        raise FitError(f"{msg} Choose other effects.")
    _check_labels(labels, {row.term for row in rows} | set(groups))
    return RegressionTable(
        title=title,
        columns=tuple(columns or [column.estimator for column in found]),
        rows=tuple(rows),
        footer=tuple(footer_lines(found, groups, labels)),
        notes=tuple(_notes(found, rows)),
        digits=digits,
    )


def _check(
    results: Sequence[Result], digits: int, effects: Sequence[str], loo: Sequence[Loo | None]
) -> None:
    if not results:
        raise FitError("regression table: got no result; expected at least one. Fit a model.")
    for other in results[1:]:
        refuse_other_rows(results[0], other)
    if not 1 <= digits <= _MOST:
        raise FitError(f"digits: got {digits}; expected 1 to {_MOST}. Two are enough.")
    for effect in effects:
        if effect not in _SECTIONS:
            msg = f"effects: got {listing([effect])}; expected some of {listing(_SECTIONS, 20)}."
            raise FitError(msg + suggestion(effect, _SECTIONS))
    if loo and len(loo) != len(results):
        msg = f"loo: got {len(loo)} for {len(results)} results; expected one, or None, for each."
        raise FitError(f"{msg} Give them in the order of the results.")
    given = [each for each in loo if each is not None]
    regressions = [
        r for r, each in zip(results, loo, strict=False) if each and not isinstance(r, Fit)
    ]
    if regressions:
        msg = "loo: got one for a regression; expected None there. Only fits have it."
        raise FitError(msg)
    if any((*each.identity, each.by) != (*sample_of(results[0]), given[0].by) for each in given):
        msg = "loo: got other rows, or rows and regions left out; expected the rows of the table"
        raise FitError(f"{msg} and one kind of unit. Compute them from these fits.")


def _check_labels(labels: Mapping[str, str], known: set[str]) -> None:
    for name in labels:
        if name not in known:
            msg = f"labels: got {listing([name])}; expected terms or groups of the table: "
            raise FitError(msg + listing(sorted(known), 20) + "." + suggestion(name, known))


def _rows(
    columns: Sequence[Column], effects: Sequence[str], labels: Mapping[str, str]
) -> Iterator[Row]:
    """Yield rows by effect, and in the order in which terms come; intercepts are the last."""
    frames = [column.frame.set_index(["effect", "term"]) for column in columns]
    keys = dict.fromkeys(key for frame in frames for key in frame.index)
    units = {e: u for c in columns for e, u in zip(c.frame["effect"], c.frame["unit"], strict=True)}
    for section in dict.fromkeys(_SECTIONS[effect] for effect in effects):
        wanted = [(effect, term) for effect, term in keys
                  if effect in effects and _SECTIONS[effect] == section]  # fmt: skip
        for effect, term in sorted(wanted, key=lambda key: key[1] in _AT_THE_END):
            cells = tuple(_estimate(frame, (effect, term)) for frame in frames)
            if not any(cells):
                continue
            label = labels.get(term, term)
            if effect in _CONVERGENCE:
                label = f"{label}: {_CONVERGENCE[effect]}"
            unit = f" ({units[effect]})" if effect == "per_sd" else ""
            yield Row(f"{section}{unit}", label, term, effect, cells)


def _estimate(frame: pd.DataFrame, key: tuple[str, str]) -> Estimate | None:
    if key not in frame.index:
        return None
    found = Estimate(*frame[_STATISTICS].loc[[key]].to_numpy(float)[0].tolist())
    return found if found.shown else None


def _notes(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Say what the numbers are, and which of them may not be relied upon."""
    panels = [c.result.design.record["panel"] for c in columns if isinstance(c.result, Fit)]
    if any(panel.get("simulated") for panel in panels):
        yield "SIMULATED DATA: nothing in this table describes a real place."
    _, response, unit = sample_of(columns[0].result)
    yield f"Response: {response}{'' if unit in ('', response) else f' ({unit})'}."
    effects = {row.effect for row in rows}
    fits = [isinstance(column.result, Fit) for column in columns]
    spreads = ["posterior standard deviation"] * any(fits) + ["standard error"] * (not all(fits))
    kinds = ["equal-tailed posterior"] * any(fits) + ["confidence"] * (not all(fits))
    yield (f"Below an estimate: ({' or '.join(spreads)}) and [95 % {' or '.join(kinds)} interval].")
    if any(fits):
        medians = effects & {"speed", "half_life"}
        yield "Posterior means" + ("; of speed and half-life medians." if medians else ".")
    if effects & {*_CONVERGENCE, "per_sd"} and any(
        has_lags(column.result) for column in columns if isinstance(column.result, Fit)
    ):
        yield (
            "With spatial lags convergence and one standard deviation more are those of one row "
            "alone: direct impacts."
        )
    used = "W and sample" if any(column.weights != "none" for column in columns) else "Sample"
    yield f"{used}: the first {SHOWN} characters of a SHA-256; the same sample has the same."
    if sum(column.loo is not None for column in columns) > 1:
        yield "A difference of two elpd has an error of its own: see compare_loo."
    for number, column in enumerate(columns, 1):
        yield from (f"Column ({number}): {text}" for text in _warnings(column))


def _warnings(column: Column) -> Iterator[str]:
    frame = column.frame
    if isinstance(column.result, Fit):
        for verdict in frame["verdict"].drop_duplicates():
            if verdict not in ("ok", "constant"):
                terms = frame.loc[frame["verdict"] == verdict, "term"].drop_duplicates()
                named = listing(terms, 3)
                yield f"{verdict} for {named}: do not report these numbers."
    elif isinstance(column.result, MixedModel):
        for term in column.result.singular:
            yield f"{term} is at the end of what is possible, and has no error."
    elif (rest := column.result.n_rows - column.rows) > 0:
        yield f"{rest} rows are alone in an absorbed group and say nothing."
    if column.loo is not None and column.loo.reliable < 1.0:
        share = 1.0 - column.loo.reliable
        above = f"Pareto k of {column.loo.good_k:.2g} or more"
        yield f"the elpd is not reliable for {share:.1%} of the units ({above})."
