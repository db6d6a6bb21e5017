"""Where a posterior and the estimates beside it differ, by how many standard errors, and why.

A gap that no listed reason explains is a warning: of the sampling, of the data, or of a bug.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import pandas as pd

from spatialclusters.comparison import Result, estimator_frames, refuse_other_rows
from spatialclusters.frequentist import Frequentist
from spatialclusters.parameters import model_priors
from spatialclusters.processes import supports
from spatialclusters.result import Fit
from spatialclusters.spatial_gmm import SpatialGMM
from spatialclusters.spec import Prior

__all__ = ["LARGE", "expected_gaps", "judge_gaps"]

LARGE: Final = 2.0
"""Standard errors from which on a gap wants a reason."""

_JUDGED: Final = ("coefficient", "spatial", "direct", "indirect", "total", "sd", "correlation")
_WEAK: Final = 10.0  # first-stage F below which instruments are weak (Staiger and Stock 1997)
_FEW: Final = 10  # levels up to which standard deviations are clearly skewed
_ONE_HALF: Final = 0.5  # share of a gap that the pull of a prior must account for


class _Gap(NamedTuple):
    """A quantity of an estimator, and how far the posterior is from it."""

    estimator: str
    term: str
    effect: str
    estimate: float
    std_error: float
    difference: float


@dataclass(frozen=True)
class _Reason:
    """A sentence, the estimators that it concerns, and the gaps that it explains."""

    text: str
    concerns: Callable[[str], bool]
    explains: Callable[[_Gap], bool] = lambda _: True


def judge_gaps(fit: Fit, *others: Result) -> pd.DataFrame:
    r"""Compare every estimate with the posterior, in units of its standard error.

    Parameters
    ----------
    fit
        The posterior.
    *others
        Frequentist results on the same rows; fits among them are passed over.

    Returns
    -------
    pandas.DataFrame
        ``estimator, term, effect, posterior, estimate, std_error``; ``difference`` =
        (posterior - estimate) / std_error; ``verdict``: ``small`` up to two standard errors,
        ``expected`` if a reason explains a larger one, and else ``warning``; ``reason``, in a
        sentence. Priors explain a gap if their pull, :math:`|\partial \ln p(b) / \partial b|`
        standard errors at the estimate, is half of it or more.

    Raises
    ------
    FitError
        Rows, response, unit or W differ.

    References
    ----------
    Mundlak (1978), doi:10.2307/1913646. Staiger and Stock (1997), doi:10.2307/2171753.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.frequentist import fit_frequentist
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.result import assemble
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2, 2.5, 4], "x": [0.0, 1, 2, 3]})
    >>> spec = parse_spec('formula = "y ~ 0 + x"')
    >>> design = build_design(spec, read_panel(table))
    >>> draws = {"coefficient": np.random.default_rng(1).normal(9.0, 0.1, size=(2, 100, 1))}
    >>> wrong = assemble(spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance={})
    >>> judge_gaps(wrong, fit_frequentist(wrong))["verdict"].tolist()
    ['warning']
    """
    reasons = _reasons(fit, others)
    ((_, posterior),) = estimator_frames(fit).items()
    means = posterior.set_index(["term", "effect"])["estimate"]
    rows = []
    for gap in _gaps(means, others):
        found = [r.text for r in reasons if r.concerns(gap.estimator) and r.explains(gap)]
        large = abs(gap.difference) > LARGE
        verdict = ("expected" if found else "warning") if large else "small"
        rows.append(
            gap._asdict()
            | {"posterior": float(means[gap.term, gap.effect]), "verdict": verdict}
            | {"reason": found[0] if large and found else ""}
        )
    columns = ["estimator", "term", "effect", "posterior", "estimate", "std_error", "difference"]
    return pd.DataFrame(rows, columns=[*columns, "verdict", "reason"])


def expected_gaps(fit: Fit, *others: Result, judged: pd.DataFrame | None = None) -> list[str]:
    """Say in sentences where the posterior and estimates beside it should differ.

    Gaps of more than two standard errors that none of these reasons explains come last, as
    warnings; :func:`judge_gaps` has all of them as numbers, and ``judged`` may be its answer.

    Raises
    ------
    FitError
        Rows, response, unit or W differ.
    """
    named = [name for other in _beside(others) for name in estimator_frames(other)]
    texts = [r.text for r in _reasons(fit, others) if any(map(r.concerns, named))]
    judged = judge_gaps(fit, *others) if judged is None else judged
    for gap in judged[judged["verdict"] == "warning"].to_dict("records"):
        plain = gap["effect"] in ("coefficient", "spatial", "sd", "correlation")
        what = gap["term"] if plain else f"{gap['term']}, {gap['effect']}"
        texts.append(
            f"Warning: for {what} the posterior is {gap['difference']:+.1f} standard errors from "
            f"{gap['estimator']}, and no reason listed here explains it. Look at the checks of the "
            "sampling, and at rows of great influence."
        )
    return texts


def _beside(others: Iterable[Result]) -> list[Result]:
    return [other for other in others if not isinstance(other, Fit)]


def _gaps(means: pd.Series[float], others: Iterable[Result]) -> Iterator[_Gap]:
    for other in _beside(others):
        for estimator, frame in estimator_frames(other).items():
            for row in frame.to_dict("records"):
                key = row["term"], row["effect"]
                if key[1] not in _JUDGED or key not in means.index:
                    continue
                gap = (means[key] - row["estimate"]) / row["std_error"]
                if pd.notna(gap):
                    yield _Gap(estimator, *key, row["estimate"], row["std_error"], float(gap))


def _within(estimator: str) -> bool:
    return estimator.startswith("fixed effects")


def _pooled(estimator: str) -> bool:
    return estimator.startswith("OLS")


def _spatial(estimator: str) -> bool:
    return estimator.startswith(("ML ", "GMM "))


def _mixed(estimator: str) -> bool:
    return estimator == "REML"


def _any(_: str) -> bool:
    return True


def _reasons(fit: Fit, others: Iterable[Result]) -> list[_Reason]:
    """Return what may set the posterior apart from these results, most telling first."""
    for other in others:
        refuse_other_rows(fit, other)
    return [*_of_groups(fit, others), *_of_priors(fit), *_of_noise(fit), *_of_space(fit, others)]


def _of_groups(fit: Fit, others: Iterable[Result]) -> Iterator[_Reason]:
    groups = fit.design.groups
    regressions = [other for other in others if isinstance(other, Frequentist)]
    absorbed = {name for other in regressions for name in other.absorbed}
    left = dict.fromkeys(name for other in regressions for name in other.left_out)
    if random := [g.name for g in groups if g.effect == "random" and g.name in absorbed]:
        yield _Reason(
            f"Random effects ({', '.join(random)}) are taken to be uncorrelated with the "
            "covariates; where they are correlated, fixed effects differ. Set their effect to "
            "'correlated' to see.",
            _within,
        )
    means = [group.name for group in groups if group.effect == "correlated"]
    if means and len(groups) > 1:
        yield _Reason(
            f"Group means ({', '.join(means)}) stand in for fixed effects, but only "
            "approximately where groups cross in unbalanced rows.",
            _within,
        )
    if left:
        yield _Reason(
            f"Effects of {', '.join(left)} are in the model only: as fixed effects they would "
            "absorb a reported term.",
            _within,
        )
    if groups:
        text = "OLS has no group effects: what groups share goes into its coefficients."
        yield _Reason(text, _pooled)
        text = (
            "Spatial models by ML and GMM have no group effects: these go into their coefficients."
        )
        yield _Reason(text, _spatial)
    if slopes := {term: g.name for g in groups for term in g.labels if term != "1"}:
        named = ", ".join(f"{term} by {name}" for term, name in slopes.items())
        yield _Reason(
            f"Slopes by group ({named}): the posterior coefficient is the mean of the groups, "
            "while a common slope counts each group by its rows and their variance.",
            lambda estimator: not _mixed(estimator),
            lambda gap: gap.term in slopes,
        )
    few = [g.name for g in groups if g.effect != "fixed" and len(g.levels) <= _FEW]
    if few:
        yield _Reason(
            f"Standard deviations of few levels ({', '.join(few)}) have skewed posteriors: their "
            "means lie above the maximum that REML reports.",
            _mixed,
            lambda gap: any(gap.term.startswith((f"sd({n})", f"cor({n})")) for n in few),
        )
    if shaped := [g.name for g in groups if g.structure != "iid"]:
        text = (
            f"REML takes the levels of {', '.join(shaped)} as independent; the posterior does not."
        )
        yield _Reason(text, _mixed)


def _of_priors(fit: Fit) -> Iterator[_Reason]:
    priors = {name: each.prior for name, each in model_priors(fit.spec, fit.design).items()}
    widths = {f"cor({group.name})": len(group.columns) for group in fit.design.groups}
    within = supports(fit.spec, fit.design)

    def pulls(gap: _Gap) -> bool:
        name = gap.term.replace(") [", ", ").replace("]", ")") if "[" in gap.term else gap.term
        name = name if gap.effect != "correlation" else gap.term.split(" [")[0]
        if gap.effect in ("direct", "indirect", "total") or name not in priors:
            return False
        score = _score(
            priors[name], gap.estimate, within.get(name, (0.0, 1.0)), widths.get(name, 2)
        )
        towards = score * gap.std_error * math.copysign(1.0, gap.difference)
        return towards >= _ONE_HALF * abs(gap.difference)

    text = "Priors and partial pooling pull the posterior; the regressions have neither."
    yield _Reason(text, _any, pulls)


def _score(prior: Prior, x: float, support: tuple[float, float], width: int = 2) -> float:
    """Return the slope of the log prior density at x; correlations are among ``width`` columns."""
    match prior.distribution:
        case "normal":
            return (prior.mean - x) / prior.sd**2
        case "half_normal":
            return -x / prior.sd**2
        case "student_t":
            z = x - prior.mean
            return -(prior.nu + 1.0) * z / (prior.nu * prior.sd**2 + z**2)
        case "half_student_t":
            return -(prior.nu + 1.0) * x / (prior.nu * prior.sd**2 + x**2)
        case "exponential":
            return -prior.rate
        case "inverse_scale":
            return -1.0 / x
        case "beta":
            low, high = support
            return (prior.a - 1.0) / (x - low) - (prior.b - 1.0) / (high - x)
        case "lkj":
            # the density of one correlation among several
            return -2.0 * (prior.eta - 1.0 + 0.5 * (width - 2)) * x / (1.0 - x**2)
    return 0.0  # flat and uniform ones pull nowhere


def _of_noise(fit: Fit) -> Iterator[_Reason]:
    noise = fit.spec.likelihood
    if noise.scale != "constant" or noise.family != "gaussian":
        yield _Reason(
            f"The noise ({noise.family}, scale {noise.scale}) makes the posterior count precise "
            "rows more; the regressions count all rows alike. Where small and large cells differ, it shows.",
            _any,
        )


def _of_space(fit: Fit, others: Iterable[Result]) -> Iterator[_Reason]:
    process = fit.spec.spatial.parameters
    if "rho" in process:
        yield _Reason(
            "The regressions have no lag of the response: their coefficients take in what comes "
            "back from neighbors, and are not those of the posterior. Compare them with its impacts.",
            lambda estimator: _within(estimator) or _pooled(estimator),
        )
    if "lambda" in process:
        yield _Reason(
            "The noise of neighbors is alike in the posterior only: the regressions count every row "
            "as independent evidence.",
            lambda estimator: _within(estimator) or _pooled(estimator),
        )
    if fit.design.psi is not None:
        text = "W is estimated by the posterior; what stands beside it has the reference W."
        yield _Reason(text, _any)
    beside = {name: part for o in _beside(others) for name, part in estimator_frames(o).items()}
    if unlike := _other_models(fit, beside):
        yield _Reason(
            f"{', '.join(unlike)}: other models than the posterior's "
            f"({'no process' if not process else fit.spec.spatial.outcome.upper()}), by what they lag.",
            lambda estimator: estimator in unlike,
        )
    weak = {
        f"GMM {process.upper()}": F
        for other in others
        if isinstance(other, SpatialGMM)
        for process, F in other.first_stage.items()
        if F < _WEAK
    }
    if weak:
        named = ", ".join(f"{name}: F = {F:.2g}" for name, F in weak.items())
        yield _Reason(
            f"Lags of covariates say little of the lag of the response ({named}): such estimates "
            "of rho are pulled towards that of least squares, and their errors are too small.",
            lambda estimator: estimator in weak,
        )


def _other_models(fit: Fit, beside: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the spatial models by ML and GMM with other lags than the posterior."""
    own = {term for term in fit.design.terms if term.startswith("lag(")}
    found = []
    for name, frame in beside.items():
        if _spatial(name):
            lags = {term for term in frame["term"] if term.startswith("lag(")}
            parameters = set(frame.loc[frame["effect"] == "spatial", "term"])
            if parameters != set(fit.spec.spatial.parameters) or lags != own:
                found.append(name)
    return found
