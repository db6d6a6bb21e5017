r"""How much the posterior owes to the prior.

Power scaling asks what happens if a prior, or the likelihood, is raised to a power near one. The
draws are reweighted: by :math:`p(\theta)^{a - 1}` for the prior of hyperparameters, by
:math:`p(\beta)^{a - 1}` at the drawn coefficients for theirs, and by
:math:`p(y \mid \theta)^{a - 1}` for the likelihood, with effects integrated out where the engine
does that: with thousands of effects the likelihood given all of them could not be reweighted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from spatialclusters.parameters import model_priors, sd_names
from spatialclusters.processes import supports
from spatialclusters.result import Fit, once_per_fit
from spatialclusters.spec import Prior
from spatialclusters.spec.distributions import Dirichlet, Lkj
from spatialclusters.spillovers import has_lags, impact_terms, term_impacts

__all__ = ["THRESHOLD", "power_scaling", "prior_and_posterior"]

THRESHOLD: Final = 0.05
"""Sensitivity from which on a change of the posterior is worth a look."""

_ALPHAS: Final = (0.99, 1.01)
_UNIT: Final = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Known:
    """A parameter whose prior has a density.

    ``kind`` is ``coefficients``, ``groups``, ``noise`` or ``space``; ``draws`` are (chain, draw, n)
    with one label each; ``log_density`` takes them to (chain, draw), up to a constant; ``quantile``
    is that of each marginal, None where the prior is improper.
    """

    kind: str
    labels: tuple[str, ...]
    draws: np.ndarray
    log_density: Callable[[np.ndarray], np.ndarray]
    quantile: Callable[[float], float] | None
    prior: str


@once_per_fit
def power_scaling(fit: Fit) -> pd.DataFrame:
    """Return how sensitive each parameter is to its priors and to the likelihood.

    Parameters
    ----------
    fit
        A fit of either engine.

    Returns
    -------
    pandas.DataFrame
        One row a coefficient, direct and total impact, and hyperparameter: ``quantity``; ``prior``
        (all priors scaled together), and of its parts ``coefficients``, ``groups``, ``noise`` and
        ``space`` those that the model has; ``likelihood``; and ``diagnosis``. The likelihood is
        missing where the fit holds none; and for coefficients and impacts where it is that of the
        hyperparameters alone, given which coefficients are what the data make them. Numbers are distances between cumulative distributions per doubling of the
        power (cumulative Jensen-Shannon); below 0.05 nothing happens.

    References
    ----------
    Kallioinen, Paananen, Buerkner and Vehtari (2023), doi:10.1007/s11222-023-10366-5.
    """
    fit = fit.given_rows  # likelihoods of different responses do not compare
    known, components = list(_parameters(fit)), {}
    for kind in dict.fromkeys(each.kind for each in known):
        parts = [each.log_density(each.draws) for each in known if each.kind == kind]
        components[kind] = np.sum(parts, axis=0)
    components = {"prior": np.sum(list(components.values()), axis=0)} | components
    stats = fit.sample_stats
    for name in ("marginal_log_likelihood", "conditional_log_likelihood"):
        if name in stats:
            components["likelihood"] = np.asarray(stats[name].values)
            break
    weights = {name: _weights(values) for name, values in components.items()}
    rows = []
    marginal = "marginal_log_likelihood" in stats
    for label, draws, theta in _quantities(fit, known):
        row: dict[str, Any] = {"quantity": label}
        row |= {name: _sensitivity(draws, *pair) for name, pair in weights.items()}
        if marginal and not theta:
            row["likelihood"] = np.nan
        rows.append(row | {"diagnosis": _diagnosis(row)})
    return pd.DataFrame(rows)


@once_per_fit
def prior_and_posterior(fit: Fit) -> pd.DataFrame:
    """Put the central 95 % of every marginal prior beside those of the posterior.

    Returns
    -------
    pandas.DataFrame
        ``parameter``, ``prior``, ``prior_low``, ``prior_high`` (missing if improper), ``estimate``,
        ``ci_low``, ``ci_high``, and ``width``: that of the posterior interval over the prior's.
    """
    rows = []
    for known in _parameters(fit):
        ends = [np.nan, np.nan]
        if known.quantile is not None:
            ends = [known.quantile(p) for p in (0.025, 0.975)]
        for label, draws in zip(known.labels, np.moveaxis(known.draws, 2, 0), strict=True):
            low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
            rows.append(
                {
                    "parameter": label,
                    "prior": known.prior,
                    "prior_low": ends[0],
                    "prior_high": ends[1],
                    "estimate": float(draws.mean()),
                    "ci_low": float(low),
                    "ci_high": float(high),
                    "width": float((high - low) / (ends[1] - ends[0])),
                }
            )
    return pd.DataFrame(rows)


def _weights(log_component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return smoothed importance weights at the lower and the upper power, (chain, draw)."""
    from arviz_stats.base import array_stats

    found = []
    for alpha in _ALPHAS:
        if np.ptp(log_component) == 0.0:
            log_weights = np.zeros_like(log_component)
        else:
            log_weights = array_stats.power_scale_lw(log_component, alpha=alpha, axis=(0, 1))
        weights = np.exp(log_weights - log_weights.max())
        found.append(weights / weights.sum())
    return found[0], found[1]


def _sensitivity(draws: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    from arviz_stats.base import array_stats

    if np.ptp(draws) == 0.0 or np.ptp(lower) == 0.0:
        return 0.0
    low, high = _ALPHAS
    return float(array_stats.power_scale_sense(draws, lower, upper, low, high, 0, 1))


def _diagnosis(row: dict[str, Any]) -> str:
    if row["prior"] < THRESHOLD:
        return "prior matters little"
    if np.isnan(row.get("likelihood", np.nan)):
        return "prior matters"
    if row["likelihood"] < THRESHOLD:
        return "prior matters, data hardly do"
    return "prior and data both matter"


def _quantities(fit: Fit, known: list[_Known]) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Yield name, draws, and whether it is a hyperparameter."""
    for each in known:
        for k, label in enumerate(each.labels):
            yield label, each.draws[..., k], each.kind != "coefficients"
    # where the response is lagged by an estimated W impacts rest on fewer draws than there are
    if has_lags(fit) and fit.design.blended_lag is None:
        for term in impact_terms(fit):
            if term in fit.design.terms:
                for group, draws, _ in term_impacts(fit, term):
                    if group in ("overall", "common"):
                        what = {"overall": "direct", "common": "total"}[group]
                        yield f"{term}: {what} impact", draws, False


def _parameters(fit: Fit) -> Iterator[_Known]:
    """Yield every parameter with a prior of its own, in the order of the priors."""
    design, psi = fit.design, fit.design.psi
    support = supports(fit.spec, design)
    if psi is not None and psi.nodes:
        support[psi.parameter] = psi.support
    positions = {
        name: (group, k)
        for group in design.groups
        if group.effect != "fixed"
        for k, name in enumerate(sd_names(group))
    }
    for name, resolved in model_priors(fit.spec, design).items():
        prior = resolved.prior
        if name == "intercept" or name in design.terms:
            values = fit.draws("intercept")[..., None]
            if name != "intercept":
                values = fit.draws("coefficient", {"term": [design.terms.index(name)]})
            yield _simple("coefficients", name, values, prior, _UNIT)
        elif name in positions:
            group, k = positions[name]
            values = fit.draws(f"sd({group.name})")[..., k : k + 1]
            yield _simple("groups", name, values, prior, _UNIT)
        elif isinstance(prior, Lkj):
            yield _correlations(fit, name, prior)
        elif isinstance(prior, Dirichlet):
            yield _shares(fit, name, prior)
        else:
            shift = 2.0 if name == "nu" else 0.0  # its prior is that of nu - 2
            kind = "groups" if "(" in name and name in support else "noise"
            kind = "space" if "(" not in name and name in support else kind
            values, ends = fit.draws(name)[..., None], support.get(name, _UNIT)
            yield _simple(kind, name, values, prior, ends, shift)


def _simple(
    kind: str,
    name: str,
    draws: np.ndarray,
    prior: Prior,
    support: tuple[float, float],
    shift: float = 0.0,
) -> _Known:
    """Return a scalar; a beta prior is stretched over the support."""
    density, quantile = _law(prior, support)

    def log_density(values: np.ndarray) -> np.ndarray:
        return np.asarray(density(values[..., 0] - shift))

    shifted = None if quantile is None else lambda p: shift + float(quantile(p))
    return _Known(kind, (name,), draws, log_density, shifted, prior.describe())


def _law(
    prior: Prior, support: tuple[float, float]
) -> tuple[Callable[[Any], Any], Callable[[float], Any] | None]:
    """Return log density and quantiles of a scalar; an improper prior has no quantiles."""
    from scipy import stats

    low, high = support
    match prior.distribution:
        case "normal":
            law = stats.norm(prior.mean, prior.sd)
        case "student_t":
            law = stats.t(prior.nu, prior.mean, prior.sd)
        case "half_normal":
            law = stats.halfnorm(scale=prior.sd)
        case "half_student_t":
            whole = stats.t(prior.nu, scale=prior.sd)
            return (
                lambda x: np.log(2.0) + whole.logpdf(x),
                lambda p: whole.ppf((1.0 + p) / 2.0),
            )
        case "exponential":
            law = stats.expon(scale=1.0 / prior.rate)
        case "uniform":
            law = stats.uniform(prior.lower, prior.upper - prior.lower)
        case "beta":
            law = stats.beta(prior.a, prior.b, low, high - low)
        case "inverse_scale":
            return lambda x: -np.log(x), None
        case _:
            return np.zeros_like, None
    return law.logpdf, law.ppf


def _correlations(fit: Fit, name: str, prior: Lkj) -> _Known:
    r"""Return the correlations of a group: density :math:`|R|^{\eta - 1}`, marginals beta."""
    from scipy import stats

    draws = fit.draws(name)
    size = round((1.0 + np.sqrt(1.0 + 8.0 * draws.shape[2])) / 2.0)
    lower = np.tril_indices(size, -1)

    def log_density(values: np.ndarray) -> np.ndarray:
        R = np.broadcast_to(np.eye(size), (*values.shape[:2], size, size)).copy()
        R[..., lower[0], lower[1]] = R[..., lower[1], lower[0]] = values
        return np.asarray((prior.eta - 1.0) * np.linalg.slogdet(R)[1])

    shape = prior.eta + (size - 2) / 2.0
    marginal = stats.beta(shape, shape, -1.0, 2.0)
    pairs = fit.posterior[name].coords[fit.posterior[name].dims[2]].values
    labels = tuple(f"{name} [{pair}]" for pair in pairs)
    return _Known("groups", labels, draws, log_density, marginal.ppf, prior.describe())


def _shares(fit: Fit, name: str, prior: Dirichlet) -> _Known:
    from scipy import stats

    draws, c = fit.draws(name), prior.concentration
    labels = tuple(f"{name} [{label}]" for label in fit.posterior["matrix"].values)
    return _Known(
        "space",
        labels,
        draws,
        lambda values: (c - 1.0) * np.log(values).sum(axis=-1),
        stats.beta(c, (len(labels) - 1) * c).ppf,
        prior.describe(),
    )
