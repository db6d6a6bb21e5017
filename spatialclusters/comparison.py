"""Posterior beside frequentist, models beside models: on the same rows or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from spatialclusters.effects import coefficients, convergence, specialization
from spatialclusters.errors import FitError
from spatialclusters.frequentist import Frequentist
from spatialclusters.result import Fit
from spatialclusters.spatial_ml import SpatialML
from spatialclusters.spillovers import has_lags, impacts

__all__ = [
    "Result",
    "compare",
    "estimator_frames",
    "expected_gaps",
    "refuse_other_rows",
    "sample_of",
]

type Result = Fit | Frequentist | SpatialML
"""What can stand side by side."""

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
        refuse_other_rows(fit, other)
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
    refuse_other_rows(fit, frequentist)
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


def refuse_other_rows(one: Result, other: Result) -> None:
    """Refuse to put side by side what was estimated from different samples.

    Raises
    ------
    FitError
        Rows, response or unit differ.
    """
    both = zip(("rows", "response", "unit"), sample_of(one), sample_of(other), strict=True)
    for what, a, b in both:
        if a != b:
            got = "other rows" if what == "rows" else f"{what} {a!r} and {b!r}"
            msg = f"compare: got {got}; expected the same rows, response and unit. Refit on one panel."
            raise FitError(msg)


def sample_of(result: Result) -> tuple[str, str, str]:
    """Return digest of the rows, response and unit."""
    if not isinstance(result, Fit):
        return result.rows_digest, result.response, result.unit
    attrs = result.design.data.attrs
    return result.design.rows_digest, str(attrs["response"]), str(attrs["unit"])


def estimator_frames(result: Result) -> dict[str, pd.DataFrame]:
    """Return the tidy frame of each estimator of a result, by its name.

    A posterior has the coefficients and what follows from them overall: convergence,
    specialization and, with spatial lags, impacts of a change in one row.
    """
    if not isinstance(result, Fit):
        parts = result.estimates.groupby("estimator", sort=False)
        return {str(name): part for name, part in parts}
    process = result.spec.spatial.outcome
    named = ["posterior", *([] if process == "none" else [process.upper()])]
    return {", ".join(named): _posterior(result)}


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
        groups = [_treatment(result)] if isinstance(result, Fit) and result.design.groups else []
        for estimator, part in estimator_frames(result).items():
            name = ", ".join([estimator, *groups])
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
