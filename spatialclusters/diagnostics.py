"""A verdict in words: may the draws be trusted?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.collapsed.mode import ACCEPTED as SURROGATE_ACCEPTED
from spatialclusters.collapsed.mode import PARETO_GOOD
from spatialclusters.effects import (
    coefficients,
    convergence,
    group_effects,
    specialization,
)
from spatialclusters.errors import expect
from spatialclusters.ranges import uninformed_weights
from spatialclusters.result import Fit
from spatialclusters.spillovers import has_lags, impacts
from spatialclusters.summaries import ESS_FAMILY, ESS_HEADLINE, R_HAT, R_HAT_FAMILY

__all__ = ["Check", "by_nuts", "check", "short_trajectories"]

E_BFMI: Final = 0.3
FAMILY_SHARE: Final = 0.95
ACCEPTED: Final = 0.4
"""Below this a chain that proposes from a surrogate stands still most of the time."""
MCSE: Final = 0.05
"""Largest Monte Carlo error of a reported number, in its posterior standard deviations."""

_COLUMNS: Final = ["check", "number", "value", "expected", "passed", "advice"]
_OVERALL: Final = ("overall", "common")


@dataclass(frozen=True, eq=False)
class Check:
    """The verdict on the sampling.

    Attributes
    ----------
    table
        One row a check: ``check, number, value, expected, passed, advice``; ``value`` is the
        number in words.
    """

    table: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.table["passed"].all())

    def __str__(self) -> str:
        head = (
            "Sampling: converged, all checks passed."
            if self.passed
            else "Sampling: NOT converged, do not report these numbers."
        )
        lines = [
            f"  {'ok  ' if row.passed else 'FAIL'} {row.check}: {row.value} (expected {row.expected})"
            + ("" if row.passed else f". {row.advice}")
            for row in self.table.itertuples()
        ]
        return "\n".join([head, *lines])


def check(fit: Fit) -> Check:
    """Judge a fit by R-hat, effective sample sizes, divergences and energy.

    Hyperparameters and headline quantities (convergence, specialization and impacts among them)
    need rank-normalized R-hat below 1.01, bulk and tail ESS of at least 1,000, and a Monte Carlo
    error below 5 % of their posterior standard deviation; quantities with infinite draws, such as
    half-lives, are judged on the change they come from. Families (effects, and convergence and
    specialization by group) need ESS of at least 400, each R-hat below 1.05 and 95 % of them below
    1.01. No divergence; E-BFMI above 0.3; no chain at the maximum tree depth in more than 1 % of
    its draws. Where proposals came from a surrogate, at least 40 % of them accepted instead. With
    the collapsed engine the Pareto k of the warm start is shown as well (see
    :func:`spatialclusters.collapsed.mode.importance`): below 0.5 trajectories are three steps
    long and their depth is not judged; a large one means that only NUTS can be believed. Of
    estimated weights it is said whether the data know them: that is no fault of the sampling.

    References
    ----------
    Vehtari et al. (2021), doi:10.1214/20-BA1221; Betancourt (2016), arXiv:1604.00695.
    """
    expect(fit, Fit, "check(fit)")
    rows = [*_headline_checks(fit), *_family_checks(fit), *_sampler_checks(fit)]
    rows += [*_warm_start_check(fit), *_weights_check(fit)]
    return Check(pd.DataFrame(rows, columns=_COLUMNS))


def _headline_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    frames = [coefficients(fit), *(f[f["group"].isin(_OVERALL)] for f in _derived(fit))]
    if has_lags(fit):
        frames.append(impacts(fit))
    headline = pd.concat(frames, ignore_index=True)
    headline = headline[headline["verdict"] != "constant"].reset_index(drop=True)
    effect = headline["effect"].where(
        ~headline["effect"].isin(["coefficient", "sd", "spatial"]), ""
    )
    labels = headline["group"].where(~headline["group"].isin(["overall", "row"]), "")
    names = [
        term + "".join(f" [{text}]" for text in more if text)
        for term, *more in zip(headline["term"], effect, labels, strict=True)
    ]
    more = _more(fit, "Run longer: --draws with at least twice as many.")
    worst = float(headline["r_hat"].max())
    yield (
        "R-hat of hyperparameters and headline quantities",
        worst,
        f"{worst:.4f} at {names[int(headline['r_hat'].argmax())]}",
        f"< {R_HAT}",
        bool(worst < R_HAT),
        "Chains disagree (or there is only one): tune longer, or the model is not identified. "
        + more,
    )
    for kind in ("bulk", "tail"):
        column = headline[f"ess_{kind}"]
        yield (
            f"{kind} ESS of hyperparameters and headline quantities",
            float(column.min()),
            f"{column.min():.0f} at {names[int(column.argmin())]}",
            f">= {ESS_HEADLINE:.0f}",
            bool(column.min() >= ESS_HEADLINE),
            more,
        )
    error = (headline["mcse"] / headline["std_error"]).fillna(0.0)
    yield (
        "Monte Carlo error over standard deviation",
        float(error.max()),
        f"{error.max():.3f} at {names[int(error.argmax())]}",
        f"< {MCSE}",
        bool(error.max() < MCSE),
        more,
    )


def _more(fit: Fit, longer: str) -> str:
    """Say what makes more effective draws."""
    if "panel" in fit.sample_stats:
        return "Complete more --panels: each is one draw of the withheld cells."
    return longer


def _derived(fit: Fit) -> Iterator[pd.DataFrame]:
    """Yield convergence and specialization, where the model has them."""
    if fit.spec.roles.convergence and fit.design.years is not None:
        yield convergence(fit)
    if fit.spec.roles.specialization:
        yield specialization(fit)


def _family_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    more = _more(fit, "Run longer: more --draws.")
    for group in fit.design.groups:
        for column in group.labels:
            yield from _family(
                f"effects ({column} | {group.name})", group_effects(fit, group.name, column), more
            )
    for frame, name in zip(_derived(fit), _derived_names(fit), strict=True):
        by_group = frame[~frame["group"].isin(_OVERALL)]
        if not by_group.empty:
            yield from _family(f"{name} by group", by_group, more)


def _derived_names(fit: Fit) -> list[str]:
    names = ["convergence"] if fit.spec.roles.convergence and fit.design.years is not None else []
    return names + (["specialization"] if fit.spec.roles.specialization else [])


def _family(name: str, frame: pd.DataFrame, more: str) -> Iterator[tuple[Any, ...]]:
    smallest = float(min(frame["ess_bulk"].min(), frame["ess_tail"].min()))
    largest = float(frame["r_hat"].max())
    share = float((frame["r_hat"] < R_HAT).mean())
    apart = "Chains disagree: tune longer, or look at what identifies this group."
    yield (
        f"ESS of {name}, smallest",
        smallest,
        f"{smallest:.0f}",
        f">= {ESS_FAMILY:.0f}",
        smallest >= ESS_FAMILY,
        more,
    )
    yield (
        f"R-hat of {name}, largest",
        largest,
        f"{largest:.4f}",
        f"< {R_HAT_FAMILY}",
        largest < R_HAT_FAMILY,
        apart,
    )
    yield (
        f"R-hat of {name}, below {R_HAT}",
        100.0 * share,
        f"{share:.1%}",
        f">= {FAMILY_SHARE:.0%}",
        share >= FAMILY_SHARE,
        apart,
    )


def _sampler_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    stats = fit.sample_stats
    if not by_nuts(fit):
        rate = float(stats["acceptance_rate"].mean(dim="draw").min())
        yield (
            "proposals accepted, smallest share of the chains",
            100.0 * rate,
            f"{rate:.0%}",
            f">= {ACCEPTED:.0%}",
            rate >= ACCEPTED,
            'The surrogate is another shape than the posterior: use sampler "nuts".',
        )
        return
    divergences = int(stats["diverging"].sum())
    yield (
        "divergent transitions",
        divergences,
        str(divergences),
        "0",
        divergences == 0,
        "The posterior has a region NUTS cannot follow: a tighter prior on the smallest "
        "standard deviation, or another noise model.",
    )
    energy = stats["energy"].values
    if "panel" in stats:  # each has another response, so energies of two do not compare
        energy = energy.reshape(int(stats["panel"].max()), -1)
    e_bfmi = float(((np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)).min())
    yield (
        "E-BFMI, smallest of the chains",
        e_bfmi,
        f"{e_bfmi:.2f}",
        f"> {E_BFMI}",
        e_bfmi > E_BFMI,
        "Energy is explored slowly: tune longer, or simplify the group effects.",
    )
    if short_trajectories(fit):  # trajectories that stop after three steps do so by design
        return
    depth = int(fit.provenance["settings"]["max_tree_depth"])
    share = float((stats["tree_depth"] >= depth).mean(dim="draw").max())
    yield (
        "draws at the maximum tree depth",
        100.0 * share,
        f"{share:.1%}",
        "<= 1%",
        share <= 0.01,
        "Trajectories are cut short: tune longer; look for nearly collinear covariates.",
    )


def by_nuts(fit: Fit) -> bool:
    """Tell whether NUTS drew it; otherwise proposals came from a surrogate."""
    return "diverging" in fit.sample_stats


def short_trajectories(fit: Fit) -> bool:
    """Tell whether a good warm start made trajectories short, or proposals needed none."""
    known = fit.provenance["timings"]
    if not by_nuts(fit):
        return True
    close = known.get("surrogate_acceptance", 1.0) >= SURROGATE_ACCEPTED
    return "pareto_k" in known and known["pareto_k"] < PARETO_GOOD and close


def _warm_start_check(fit: Fit) -> Iterator[tuple[Any, ...]]:
    k = fit.provenance["timings"].get("pareto_k")
    if k is None:
        return
    yield (
        "Pareto k of importance sampling from the warm start",
        float(k),
        f"{k:.2f}",
        "any; < 0.7: a second method agrees",
        True,
        "",
    )


def _weights_check(fit: Fit) -> Iterator[tuple[Any, ...]]:
    if fit.design.psi is None:
        return
    nothing = uninformed_weights(fit)
    expected = "any; a posterior like the prior is no finding"
    yield "estimated weights", np.nan, nothing or "the data narrow them", expected, True, ""
