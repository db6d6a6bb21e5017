"""Posterior beside frequentist, models beside models: on the same rows or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from spatialclusters.effects import coefficients, convergence, specialization
from spatialclusters.errors import FitError, expect
from spatialclusters.frequentist import Frequentist
from spatialclusters.mixed import MixedModel
from spatialclusters.result import Fit
from spatialclusters.spatial_gmm import SpatialGMM
from spatialclusters.spatial_ml import SpatialML
from spatialclusters.spillovers import has_lags, impacts

__all__ = [
    "Result",
    "compare",
    "estimator_frames",
    "refuse_other_rows",
    "sample_of",
]

type Result = Fit | Frequentist | MixedModel | SpatialGMM | SpatialML
"""What can stand side by side."""

_STATISTICS: Final = ["estimate", "std_error", "ci_low", "ci_high"]


def compare(fit: Fit, *others: Result) -> pd.DataFrame:
    """Put estimates side by side.

    Parameters
    ----------
    fit
        The posterior to which frequentist estimates are compared.
    *others
        Fits (say, with groups treated otherwise), frequentist results, mixed models, and
        spatial models by maximum likelihood and by moments.

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
        Rows, response, unit or, between a fit and an estimate beside it, W differ.

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
    expect(fit, Fit, "compare(fit, ...), fit")
    for other in others:
        if not isinstance(other, Frequentist | MixedModel | SpatialML | SpatialGMM):
            expect(other, Fit, "compare(fit, ...), others")
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


def refuse_other_rows(one: Result, other: Result) -> None:
    """Refuse to put side by side what was estimated from different samples.

    Fits may differ in W, that they may be compared; estimates beside a fit may not.

    Raises
    ------
    FitError
        Rows, response, unit or W differ.
    """
    both = zip(("rows", "response", "unit"), sample_of(one), sample_of(other), strict=True)
    for what, a, b in both:
        if a != b:
            got = "other rows" if what == "rows" else f"{what} {a!r} and {b!r}"
            msg = f"compare: got {got}; expected the same rows, response and unit. Refit on one panel."
            raise FitError(msg)
    digests = {_weights_digest(one), _weights_digest(other)} - {None}
    if len(digests) > 1 and not (isinstance(one, Fit) and isinstance(other, Fit)):
        msg = "compare: got other weights; expected the same W in a fit and in what is beside it."
        raise FitError(f"{msg} Estimate both from one design.")


def _weights_digest(result: Result) -> str | None:
    if not isinstance(result, Fit):
        return result.weights_digest
    return result.weights.digest if result.weights else None


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
        frame = result.estimates
        components = frame["effect"].isin(["sd", "correlation"])
        parts = pd.concat([_labeled(frame[components]), frame[~components]]).sort_index()
        return {str(name): part for name, part in parts.groupby("estimator", sort=False)}
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


def _labeled(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the group's column, or the pair of columns, into the term."""
    labels = frame["group"].fillna("").map(lambda group: f" [{group}]" if group else "")
    return frame.assign(term=frame["term"] + labels)


def _posterior(fit: Fit) -> pd.DataFrame:
    roles = fit.spec.roles
    parts = [_labeled(coefficients(fit))]
    if roles.convergence and fit.design.years is not None:
        parts.append(convergence(fit).query("group == 'overall'"))
    if roles.specialization:
        parts.append(specialization(fit).query("group == 'overall'"))
    if has_lags(fit):
        # a change in one row, as in the impacts of maximum likelihood
        parts.append(impacts(fit).query("group == 'row'"))
    return pd.concat(parts, ignore_index=True)
