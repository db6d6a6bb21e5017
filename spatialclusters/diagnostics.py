"""Verdicts in words: may the draws be trusted, and does the model describe the data?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.collapsed.mode import PARETO_GOOD
from spatialclusters.effects import (
    coefficients,
    convergence,
    group_effects,
    specialization,
)
from spatialclusters.ranges import uninformed_weights
from spatialclusters.result import Fit
from spatialclusters.simulation import (
    expected_response,
    linear_predictor,
    posterior_predictive,
    thinned,
)
from spatialclusters.summaries import ESS_FAMILY, ESS_HEADLINE, R_HAT, R_HAT_FAMILY

__all__ = ["Check", "check", "residual_spread", "short_trajectories"]

E_BFMI: Final = 0.3
FAMILY_SHARE: Final = 0.95
_MEAN_DRAWS: Final = 500  # behind the mean response where it is not linear in the parameters


@dataclass(frozen=True, eq=False)
class Check:
    """The verdict on the sampling.

    Attributes
    ----------
    table
        One row a check: ``check, value, expected, passed, advice``.
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

    Hyperparameters and headline quantities need rank-normalized R-hat below 1.01
    and bulk and tail ESS of at least 1,000; families of effects ESS of at least
    400, each R-hat below 1.05 and 95 % of them below 1.01. No divergence; E-BFMI
    above 0.3; no chain at the maximum tree depth in more than 1 % of its draws. With the
    collapsed engine the Pareto k of the warm start is shown as well (see
    :func:`spatialclusters.collapsed.mode.importance`): below 0.5 trajectories are three steps
    long and their depth is not judged; a large one means that only NUTS can be believed. Of
    estimated weights it is said whether the data know them: that is no fault of the sampling.

    References
    ----------
    Vehtari et al. (2021), doi:10.1214/20-BA1221; Betancourt (2016), arXiv:1604.00695.
    """
    rows = [*_headline_checks(fit), *_family_checks(fit), *_sampler_checks(fit)]
    rows += list(_warm_start_check(fit))
    rows += list(_weights_check(fit))
    return Check(pd.DataFrame(rows, columns=["check", "value", "expected", "passed", "advice"]))


def residual_spread(fit: Fit, *, draws: int = 100, seed: int = 1, parts: int = 10) -> pd.DataFrame:
    """Compare the spread of residuals with its posterior predictive, by decile of size.

    Size is the base-year level behind a row, or the expected response where the
    response is not growth.

    Returns
    -------
    pandas.DataFrame
        Per decile: ``size`` (median), ``observed`` standard deviation of the
        residual, its predictive mean and 95 % interval, and whether it is inside.
    """
    design = fit.design
    mean = _posterior_mean(fit)
    size = design.data["size"].values if "size" in design.data else mean
    replicated = posterior_predictive(fit, draws=draws, seed=seed) - mean
    bins = pd.qcut(pd.Series(size).rank(method="first"), parts, labels=False).to_numpy()
    rows = []
    for part in range(parts):
        inside = bins == part
        spread = replicated[:, inside].std(axis=1, ddof=1)
        low, high = np.quantile(spread, [0.025, 0.975])
        observed = float((design.y - mean)[inside].std(ddof=1))
        rows.append(
            {
                "decile": part + 1,
                "size": float(np.median(size[inside])),
                "observed": observed,
                "predicted": float(spread.mean()),
                "ci_low": float(low),
                "ci_high": float(high),
                "inside": bool(low <= observed <= high),
            }
        )
    return pd.DataFrame(rows)


def _posterior_mean(fit: Fit) -> np.ndarray:
    if fit.spec.spatial.parameters or fit.design.psi is not None:
        chosen = thinned(fit, _MEAN_DRAWS)
        return np.mean([expected_response(fit.spec, fit.design, p) for p in chosen], axis=0)
    means = {str(name): fit.draws(str(name)).mean(axis=(0, 1)) for name in fit.posterior.data_vars}
    # the linear predictor is linear in the parameters, so its mean is that of the means
    return linear_predictor(fit.design, means)


def _headline_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    frames = [coefficients(fit)]
    if fit.spec.roles.convergence and fit.design.years is not None:
        frames.append(convergence(fit).query("group == 'overall'"))
    if fit.spec.roles.specialization:
        frames.append(specialization(fit).query("group == 'overall'"))
    headline = pd.concat(frames, ignore_index=True)
    headline = headline[headline["verdict"] != "constant"]
    name = headline["term"] + headline["group"].map(lambda g: f" [{g}]" if g else "")
    more = "Run longer: --draws with at least twice as many."
    names = name.tolist()
    value = float(headline["r_hat"].max())
    yield (
        "R-hat of hyperparameters and headline quantities",
        f"{value:.4f} at {names[int(headline['r_hat'].argmax())]}",
        f"< {R_HAT}",
        bool(value < R_HAT),
        "Chains disagree (or there is only one): tune longer, or the model is not identified. "
        + more,
    )
    for kind in ("bulk", "tail"):
        column = headline[f"ess_{kind}"]
        yield (
            f"{kind} ESS of hyperparameters and headline quantities",
            f"{column.min():.0f} at {names[int(column.argmin())]}",
            f">= {ESS_HEADLINE:.0f}",
            bool(column.min() >= ESS_HEADLINE),
            more,
        )


def _family_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    for group in fit.design.groups:
        for column in group.labels:
            frame = group_effects(fit, group.name, column)
            name = f"effects ({column} | {group.name})"
            smallest = float(min(frame["ess_bulk"].min(), frame["ess_tail"].min()))
            largest = float(frame["r_hat"].max())
            share = float((frame["r_hat"] < R_HAT).mean())
            yield (
                f"ESS of the {len(frame)} {name}",
                f"{smallest:.0f}",
                f">= {ESS_FAMILY:.0f}",
                smallest >= ESS_FAMILY,
                "Run longer: more --draws.",
            )
            yield (
                f"R-hat of the {len(frame)} {name}",
                f"{largest:.4f} at most, {share:.0%} below {R_HAT}",
                f"< {R_HAT_FAMILY}, {FAMILY_SHARE:.0%} below {R_HAT}",
                largest < R_HAT_FAMILY and share >= FAMILY_SHARE,
                "Chains disagree: tune longer, or look at what identifies this group.",
            )


def _sampler_checks(fit: Fit) -> Iterator[tuple[Any, ...]]:
    stats = fit.sample_stats
    divergences = int(stats["diverging"].sum())
    yield (
        "divergent transitions",
        str(divergences),
        "0",
        divergences == 0,
        "The posterior has a region NUTS cannot follow: a tighter prior on the smallest "
        "standard deviation, or another noise model.",
    )
    energy = stats["energy"].values
    e_bfmi = (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)
    yield (
        "E-BFMI, smallest of the chains",
        f"{e_bfmi.min():.2f}",
        f"> {E_BFMI}",
        bool(e_bfmi.min() > E_BFMI),
        "Energy is explored slowly: tune longer, or simplify the group effects.",
    )
    if short_trajectories(fit):  # trajectories that stop after three steps do so by design
        return
    depth = int(fit.provenance["settings"]["max_tree_depth"])
    share = float((stats["tree_depth"] >= depth).mean(dim="draw").max())
    yield (
        "draws at the maximum tree depth",
        f"{share:.1%}",
        "<= 1%",
        share <= 0.01,
        "Trajectories are cut short: tune longer; look for nearly collinear covariates.",
    )


def short_trajectories(fit: Fit) -> bool:
    """Tell whether a good warm start made trajectories short."""
    k = fit.provenance["timings"].get("pareto_k")
    return k is not None and k < PARETO_GOOD


def _warm_start_check(fit: Fit) -> Iterator[tuple[Any, ...]]:
    k = fit.provenance["timings"].get("pareto_k")
    if k is None:
        return
    yield (
        "Pareto k of importance sampling from the warm start",
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
    yield "estimated weights", nothing or "the data narrow them", expected, True, ""
