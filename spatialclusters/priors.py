"""Every prior of a model in raw units: stated in its file, or a default from the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from spatialclusters.errors import SpecError
from spatialclusters.spec import ModelSpec, Prior
from spatialclusters.spec.distributions import (
    Beta,
    Dirichlet,
    Exponential,
    HalfNormal,
    Lkj,
    Normal,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ResolvedPrior", "describe_priors", "resolve_priors"]

_REFERENCE = ("flat", "inverse_scale", "uniform")


@dataclass(frozen=True, slots=True)
class ResolvedPrior:
    """The prior of one parameter in its raw unit, and where it comes from.

    ``nu`` is the prior of the degrees of freedom minus 2. ``intercept`` is the expected response
    with covariates at their means. ``sd(g)`` belongs to the intercepts of a group, ``sd(g, x)``
    to its slopes, in units of the response and of the coefficient of ``x``.
    """

    name: str
    prior: Prior
    source: str


def resolve_priors(
    spec: ModelSpec,
    *,
    response_sd: float,
    covariate_sd: Mapping[str, float],
    groups: Mapping[str, Sequence[str]],
    weights: str | None = None,
) -> dict[str, ResolvedPrior]:
    """Return the prior of every parameter, in order.

    With ``s_y`` and ``s_j`` the standard deviations of the response and of covariate j, the
    defaults are normal(0, 10 s_y) for the intercept, normal(0, 2.5 s_y / s_j) for coefficients,
    half_normal(s_y) and half_normal(s_y / s_j) for group intercepts and slopes, lkj(2) for their
    correlations, beta(1, 1) for the parameter of a spatial structure, beta(1.01, 1.01) for ``rho``
    and ``lambda``, beta(1, 1) for ``delta`` (all stretched over their support), dirichlet(1) for
    ``share`` and half_normal(2.5 s_y) for the noise;
    numbers are rounded to 3 digits.

    Parameters
    ----------
    spec
        The model.
    response_sd
        ``s_y``, in the unit of the response.
    covariate_sd
        ``s_j`` by the label of the column in the design (``asinh(x)`` under that zero rule).
    groups
        Columns that vary by group: ``"1"`` for the intercept, labels for slopes.
    weights
        The parameter of estimated weights, ``delta`` or ``share``.

    Returns
    -------
    dict
        By parameter: intercept, covariates, groups, noise. Groups with ``effect = "fixed"`` have
        no scale to estimate and are left out.

    Raises
    ------
    SpecError
        If a standard deviation is not a positive number.

    Examples
    --------
    >>> from spatialclusters.spec import parse_spec
    >>> spec = parse_spec('formula = "CRIME ~ INC"')
    >>> found = resolve_priors(spec, response_sd=16.7, covariate_sd={"INC": 5.7}, groups={})
    >>> [(each.name, each.prior.describe()) for each in found.values()]
    [('intercept', 'normal(0, 167)'), ('INC', 'normal(0, 7.32)'), ('sigma', 'half_normal(41.8)')]
    """
    for name, sd in {spec.parsed_formula.response: response_sd, **covariate_sd}.items():
        if not (math.isfinite(sd) and sd > 0.0):
            message = f"{name}: got the standard deviation {sd}; expected a positive number."
            raise SpecError(f"{message} Remove the constant column.")
    resolved = {}
    for name, stated, default in _defaults(spec, response_sd, covariate_sd, groups, weights):
        own = next((spec.priors[key] for key in (name, *stated) if key in spec.priors), None)
        source = "default" if own is None else "model file"
        resolved[name] = ResolvedPrior(name, own or default, source)
    return resolved


def _defaults(
    spec: ModelSpec,
    response_sd: float,
    covariate_sd: Mapping[str, float],
    groups: Mapping[str, Sequence[str]],
    weights: str | None,
) -> Iterator[tuple[str, tuple[str, ...], Prior]]:
    """Yield each parameter, other names its prior may be stated under, and its default."""
    origin = spec.covariate_labels
    if spec.parsed_formula.intercept:
        yield "intercept", (), _normal(10.0 * response_sd)
    for label, sd in covariate_sd.items():
        yield label, (origin.get(label, label),), _normal(2.5 * response_sd / sd)
    for group, columns in groups.items():
        if spec.groups[group].effect == "fixed":
            continue
        for column in columns:
            if column == "1":
                yield f"sd({group})", (), _half_normal(response_sd)
            else:
                stated = (f"sd({group}, {origin.get(column, column)})", f"sd({group})")
                default = _half_normal(response_sd / covariate_sd[column])
                yield f"sd({group}, {column})", stated, default
        if len(columns) > 1:
            yield f"cor({group})", (), Lkj(distribution="lkj", eta=2.0)
        if parameter := spec.groups[group].parameter:
            yield f"{parameter}({group})", (), Beta(distribution="beta", a=1.0, b=1.0)
    for parameter in spec.spatial.parameters:
        yield parameter, (), Beta(distribution="beta", a=1.01, b=1.01)
    if weights == "delta":
        yield weights, (), Beta(distribution="beta", a=1.0, b=1.0)
    if weights == "share":
        yield weights, (), Dirichlet(distribution="dirichlet", concentration=1.0)
    yield "sigma", (), _half_normal(2.5 * response_sd)
    if spec.likelihood.scale == "by-cluster":
        yield "sd(log sigma)", (), _half_normal(0.5)
    if spec.likelihood.scale == "size":
        yield "size.share", (), Beta(distribution="beta", a=1.0, b=1.0)
        yield "size.power", (), _half_normal(1.0)
    if spec.likelihood.family == "student-t":
        yield "nu", (), Exponential(distribution="exponential", rate=0.1)


def _normal(sd: float) -> Normal:
    return Normal(distribution="normal", mean=0.0, sd=float(f"{sd:.3g}"))


def _half_normal(sd: float) -> HalfNormal:
    return HalfNormal(distribution="half_normal", sd=float(f"{sd:.3g}"))


def describe_priors(
    resolved: Mapping[str, ResolvedPrior],
    *,
    response_unit: str,
    covariate_sd: Mapping[str, float],
    annualize: float | None = None,
) -> pd.DataFrame:
    """Say what each prior means in units of the outcome.

    Parameters
    ----------
    resolved
        From :func:`resolve_priors`.
    response_unit
        Unit of the response, used where it is not a growth rate.
    covariate_sd
        Standard deviations as given to :func:`resolve_priors`.
    annualize
        Years of log growth in the response (1 if it is annual already): effects are then in
        points of annual growth, ``100 b sd / years``. None for other responses.

    Returns
    -------
    pandas.DataFrame
        Columns parameter, prior, source, meaning; one row per parameter.

    Examples
    --------
    >>> from spatialclusters.spec import parse_spec
    >>> spec, sds = parse_spec('formula = "CRIME ~ INC"'), {"INC": 5.7}
    >>> found = resolve_priors(spec, response_sd=16.7, covariate_sd=sds, groups={})
    >>> describe_priors(found, response_unit="crimes", covariate_sd=sds).loc[1, "meaning"]
    'one SD more of INC: 95 % of the prior between -81.8 and +81.8 crimes'
    """
    import pandas as pd

    unit = response_unit if annualize is None else "points of annual growth"
    factor = 1.0 if annualize is None else 100.0 / annualize
    rows = []
    for each in resolved.values():
        meaning = _meaning(each, covariate_sd, factor, unit)
        if each.name == "intercept" and "rho" in resolved:
            meaning = meaning.replace("response", "response less rho times its lag,", 1)
        if each.prior.distribution in _REFERENCE:
            meaning += "; reference run only"
        rows.append((each.name, each.prior.describe(), each.source, meaning))
    return pd.DataFrame(rows, columns=["parameter", "prior", "source", "meaning"])


_DEPENDENCE = {
    "rho": "dependence of the response on its neighbors'",
    "lambda": "dependence of the noise on its neighbors'",
    "phi": "share of the effects' variance that neighbors share",
    "alpha": "dependence of the effects on their neighbors'",
    "delta": "how fast weights fall with distance",
}
_PLAIN = {
    "nu": ("degrees of freedom minus 2", ""),
    "sd(log sigma)": ("spread of the log noise between clusters", ""),
    "size.share": ("share of the noise variance of a median-sized row that falls with size", ""),
    "size.power": ("power of size with which that share falls", ""),
}


def _meaning(
    each: ResolvedPrior, covariate_sd: Mapping[str, float], factor: float, unit: str
) -> str:
    if each.name in _PLAIN:
        subject, unit = _PLAIN[each.name]
        return f"{subject}: {_interval(each.prior, 1.0, unit)}"
    covariate = each.name in covariate_sd
    if (kind := each.name.partition("(")[0]) in _DEPENDENCE and not covariate:
        what = _DEPENDENCE["alpha" if each.name.startswith("lambda(") else kind]
        wide = each.name in ("rho", "lambda") or each.name.startswith("lambda(")
        stretched = (
            ", stretched over its support" if wide and "beta" in each.prior.distribution else ""
        )
        return f"{what}: {each.prior.describe()}{stretched}"
    if each.name == "share" and not covariate:
        return "shares of the matrices in W: concentration 1 is uniform, larger favors equal ones"
    if each.name.startswith("cor("):
        return "correlations of the group's effects: eta 1 is uniform, larger favors zero"
    subject, label = _subject(each.name)
    scale = covariate_sd[label] if label and not label.startswith("zero(") else 1.0
    return f"{subject}: {_interval(each.prior, factor * scale, unit)}"


def _subject(name: str) -> tuple[str, str | None]:
    """Return what the parameter is about, and the covariate it belongs to."""
    if name == "intercept":
        return "response with covariates at their means", None
    if name == "sigma":
        return "noise", None
    group, _, column = name.removeprefix("sd(").removesuffix(")").partition(", ")
    if not name.startswith("sd("):
        change = (
            f"{name} = 1 instead of 0" if name.startswith("zero(") else f"one SD more of {name}"
        )
        return change, name
    if column:
        return f"one SD more of {column}, typical difference between levels of {group}", column
    return f"typical difference between levels of {group}", None


def _interval(prior: Prior, factor: float, unit: str) -> str:
    low, high = (_quantile(prior, p) * factor for p in (0.025, 0.975))
    unit = f" {unit}" if unit else ""
    if not math.isfinite(high):
        return "no proper prior"
    if prior.distribution in ("half_normal", "half_student_t", "exponential"):
        return f"95 % of the prior below {_quantile(prior, 0.95) * factor:.3g}{unit}"
    return f"95 % of the prior between {low:+.3g} and {high:+.3g}{unit}"


def _quantile(prior: Prior, p: float) -> float:
    from scipy import special

    match prior.distribution:
        case "normal":
            return NormalDist(prior.mean, prior.sd).inv_cdf(p)
        case "student_t":
            return prior.mean + prior.sd * float(special.stdtrit(prior.nu, p))
        case "half_normal":
            return prior.sd * NormalDist().inv_cdf((1.0 + p) / 2.0)
        case "half_student_t":
            return prior.sd * float(special.stdtrit(prior.nu, (1.0 + p) / 2.0))
        case "exponential":
            return -math.log1p(-p) / prior.rate
        case "uniform":
            return prior.lower + p * (prior.upper - prior.lower)
        case "beta":
            return float(special.betaincinv(prior.a, prior.b, p))
        case _:
            return math.inf
