"""Posterior beside frequentist, models beside models: on the same rows or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import pandas as pd

from spatialclusters.effects import coefficients, convergence, specialization
from spatialclusters.errors import FitError
from spatialclusters.frequentist import Frequentist
from spatialclusters.result import Fit
from spatialclusters.spatial_ml import SpatialML
from spatialclusters.spillovers import has_lags, impacts

__all__ = ["Result", "compare", "expected_gaps", "regression_table"]

type Result = Fit | Frequentist | SpatialML
"""What can stand side by side."""

_IMPACTS: Final = ("direct", "indirect", "total")
_TABLE: Final = ("coefficient", "spatial", *_IMPACTS, "speed", "half_life", "per_sd")
_STATISTICS: Final = ["estimate", "std_error", "ci_low", "ci_high"]


def compare(fit: Fit, *others: Result) -> pd.DataFrame:
    """Put estimates side by side.

    Parameters
    ----------
    fit
        The posterior to which frequentist estimates are compared.
    *others
        Fits (say, with groups treated otherwise), frequentist results, and maximum
        likelihood of spatial models.

    Returns
    -------
    pandas.DataFrame
        One row per (term, effect), in units of the tidy frame. Columns (estimator,
        statistic): ``estimate, std_error, ci_low, ci_high``, and for frequentist estimators
        ``difference`` = (posterior - estimate) / std_error. Convergence and specialization
        by group stay in the tidy frames.

    Raises
    ------
    FitError
        Rows, response or unit differ.

    References
    ----------
    Mundlak (1978), doi:10.2307/1913646, on random against fixed effects.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.frequentist import fit_frequentist
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.result import assemble
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2, 2.5, 4], "x": [0.0, 1, 2, 3]})
    >>> spec = parse_spec('formula = "y ~ x"')
    >>> design = build_design(spec, read_panel(table))
    >>> draws = {"coefficient": np.random.default_rng(1).normal(0.9, 0.1, size=(2, 100, 1))}
    >>> fit = assemble(spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance={})
    >>> compare(fit, fit_frequentist(fit)).loc[("x", "coefficient"), ("OLS", "estimate")].round(6)
    np.float64(0.95)
    """
    for other in others:
        _refuse_other_rows(fit, other)
    frames = _frames((fit, *others))
    posterior = next(iter(frames.values()))["estimate"]
    parts = {}
    for title, frame in frames.items():
        parts[title] = frame[_STATISTICS]
        if not frame["estimator"].eq("posterior").any():
            gap = (posterior - frame["estimate"]) / frame["std_error"]
            parts[title] = parts[title].assign(difference=gap.reindex(frame.index))
    return pd.concat(parts, axis=1, names=["estimator", "statistic"], sort=False)


def expected_gaps(fit: Fit, frequentist: Frequentist) -> list[str]:
    """Say in sentences where the posterior and the frequentist estimates should differ.

    Raises
    ------
    FitError
        Rows, response or unit differ.
    """
    _refuse_other_rows(fit, frequentist)
    groups, noise = fit.design.groups, fit.spec.likelihood
    random = [g.name for g in groups if g.effect == "random" and g.name in frequentist.absorbed]
    means = [group.name for group in groups if group.effect == "correlated"]
    slopes = [f"{term} by {g.name}" for g in groups for term in g.labels if term != "1"]
    unequal = noise.scale != "constant" or noise.family != "gaussian"
    reasons = (
        (random, "Random effects ({}) are taken to be uncorrelated with the covariates; where they "
         "are correlated, fixed effects differ. Set their effect to 'correlated' to see."),
        (means if len(groups) > 1 else [], "Group means ({}) stand in for fixed effects, but only "
         "approximately where groups cross in unbalanced rows."),
        (["both"], "Priors and partial pooling pull the posterior; the regressions have neither."),
        (slopes, "Slopes by group ({}): the posterior coefficient is the mean of the groups, while "
         "a common slope counts each group by its rows and their variance."),
        ([f"{noise.family}, scale {noise.scale}"] if unequal else [], "The noise ({}) makes the "
         "posterior count precise rows more; the regressions count all rows alike."),
        (frequentist.left_out, "Effects of {} are in the model only: as fixed effects they would "
         "absorb a reported term."),
        (groups, "OLS has no group effects: what groups share goes into its coefficients."),
    )  # fmt: skip
    return [text.format(", ".join(map(str, found))) for found, text in reasons if found]


def regression_table(*results: Result) -> str:
    """Lay estimates out as text: estimate, (standard error) and [interval] below one another.

    Each estimator of the fits and frequentist results becomes a column; the footer gives
    rows, group effects and W.

    Raises
    ------
    FitError
        Rows, response or unit differ.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.frequentist import fit_frequentist
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2, 2.5, 4], "x": [0.0, 1, 2, 3]})
    >>> design = build_design(parse_spec('formula = "y ~ x"'), read_panel(table))
    >>> for line in regression_table(fit_frequentist(design)).splitlines()[4:7]:
    ...     print(line.split())
    ['x', '0.95']
    ['(0.1323)']
    ['[0.3808,', '1.519]']
    """
    for other in results[1:]:
        _refuse_other_rows(results[0], other)
    frames = _frames(results)
    lines = [["", *frames]]
    for term, effect in dict.fromkeys(key for frame in frames.values() for key in frame.index):
        if effect in _TABLE:
            cells = [_cell(frame, (term, effect)) for frame in frames.values()]
            labels = (term if effect in ("coefficient", "spatial") else f"{term}, {effect}", "", "")
            lines += [list(line) for line in zip(labels, *cells, strict=True)]
    footer = [note for result in results for note in _footer(result)]
    names = ("rows", "group effects", "W")
    lines += [[name, *notes] for name, *notes in zip(names, *footer, strict=True)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    return "\n".join([*map(str.rstrip, text), "(standard error or posterior sd) [95 % interval]"])


def _refuse_other_rows(one: Result, other: Result) -> None:
    for what, a, b in zip(("rows", "response", "unit"), _sample(one), _sample(other), strict=True):
        if a != b:
            got = "other rows" if what == "rows" else f"{what} {a!r} and {b!r}"
            msg = f"compare: got {got}; expected the same rows, response and unit. Refit on one panel."
            raise FitError(msg)


def _sample(result: Result) -> tuple[str, str, str]:
    if not isinstance(result, Fit):
        return result.rows_digest, result.response, result.unit
    attrs = result.design.data.attrs
    return result.design.rows_digest, str(attrs["response"]), str(attrs["unit"])


def _treatment(fit: Fit) -> str:
    """Say what the groups are taken for."""
    return ", ".join(
        f"{group.name} {group.effect}" + ("" if group.structure == "iid" else f" {group.structure}")
        for group in fit.design.groups
    )


def _frames(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Return one frame per estimator, indexed by (term, effect), under distinct titles."""
    frames: dict[str, pd.DataFrame] = {}
    for result in results:
        if not isinstance(result, Fit):
            parts = {
                str(name): part for name, part in result.estimates.groupby("estimator", sort=False)
            }
        else:
            process = result.spec.spatial.outcome
            named = ["posterior", *([] if process == "none" else [process.upper()])]
            title = ", ".join([*named, *filter(None, [_treatment(result)])])
            parts = {title: _posterior(result)}
        for name, part in parts.items():
            title = name if name not in frames else f"{name}, {part['model'].iloc[0]}"
            number = 1 + sum(known.startswith(title) for known in frames)
            title = title if title not in frames else f"{title} ({number})"
            frames[title] = part.set_index(["term", "effect"])
    return frames


def _posterior(fit: Fit) -> pd.DataFrame:
    roles = fit.spec.roles
    parts = [coefficients(fit)]
    labeled = parts[0]["group"].fillna("").map(lambda group: f" [{group}]" if group else "")
    parts[0] = parts[0].assign(term=parts[0]["term"] + labeled)
    if roles.convergence and fit.design.years is not None:
        parts.append(convergence(fit).query("group == 'overall'"))
    if roles.specialization:
        parts.append(specialization(fit).query("group == 'overall'"))
    if has_lags(fit):
        # a change in one row, as in the impacts of maximum likelihood
        parts.append(impacts(fit).query("group == 'row'"))
    return pd.concat(parts, ignore_index=True)


def _cell(frame: pd.DataFrame, key: tuple[str, str]) -> tuple[str, str, str]:
    if key not in frame.index:
        return "", "", ""
    estimate, error, low, high = frame[_STATISTICS].loc[[key]].to_numpy(float)[0]
    spread = "" if math.isnan(error) else f"({error:.4g})"
    return f"{estimate:.4g}", spread, "" if math.isnan(low) else f"[{low:.4g}, {high:.4g}]"


def _footer(result: Result) -> list[tuple[str, str, str]]:
    """Return rows, group effects and W, for each estimator of a result."""
    if isinstance(result, Fit):
        kind = result.weights.kind if result.weights else "none"
        return [(str(result.design.n_rows), _treatment(result) or "none", kind)]
    absorbed = ""
    if isinstance(result, Frequentist):
        absorbed = f"absorbed: {', '.join(result.absorbed)}"
    return [
        (
            str(result.n_rows),
            absorbed if name == "fixed effects" else "none",
            result.weights or "none",
        )
        for name, _ in result.estimates.groupby("estimator", sort=False)
    ]
