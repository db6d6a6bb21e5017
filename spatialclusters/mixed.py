"""Design -> the linear mixed model of its groups by restricted maximum likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from spatialclusters.collapsed.layout import lay_out
from spatialclusters.collapsed.problem import column_factors, mixed_model
from spatialclusters.design import Design, GroupDesign
from spatialclusters.errors import FitError
from spatialclusters.estimates import estimates_frame
from spatialclusters.parameters import WIDE, pair_labels
from spatialclusters.restricted import Maximum, restricted_maximum
from spatialclusters.result import Fit
from spatialclusters.wald import CI_PROB, Coefficient, coefficient_rows, from_standardized

if TYPE_CHECKING:
    from spatialclusters.collapsed.layout import Problem
    from spatialclusters.spec import ModelSpec

__all__ = ["MixedModel", "fit_reml"]

_Z: Final = NormalDist().inv_cdf(0.5 + CI_PROB / 2.0)


@dataclass(frozen=True, eq=False)
class MixedModel:
    """A mixed model by restricted maximum likelihood (REML) on the rows of a design.

    Attributes
    ----------
    estimates
        Tidy frame; ``estimator`` is ``"REML"``.
    notes
        What was simplified, and which variance components are zero, in sentences.
    criterion
        -2 log restricted likelihood, in raw units of the columns as lme4 has it.
    singular
        Standard deviations that are zero, and groups whose correlations are at their end.
    groups
        What the effects of each group are taken for.
    rows_digest, response, unit, weights_digest
        What a comparison must agree on.
    n_rows, n_regions
        Rows and regions of the design.
    weights
        Kind of W, or None.
    """

    estimates: pd.DataFrame
    notes: tuple[str, ...]
    criterion: float
    singular: tuple[str, ...]
    groups: Mapping[str, str]
    rows_digest: str
    n_rows: int
    n_regions: int
    response: str
    unit: str
    weights: str | None
    weights_digest: str | None


def fit_reml(source: Fit | Design, *, spec: ModelSpec | None = None) -> MixedModel:
    r"""Estimate the model's mixed model as lme4 does, by restricted maximum likelihood.

    .. math::

        y = X b + \sum_g Z_g u_g + e, \quad u_{gj} \sim N(0, \Sigma_g), \quad
        e \sim N(0, \sigma^2 I)

    with the covariates, groups and slopes of the model: group means are covariates, effects
    that are fixed have a standard deviation of a hundred times that of the response. The
    restricted likelihood is :math:`\int p(y \mid b, \Sigma, \sigma)\, db`. It is maximized
    over :math:`\sigma` and the roots of :math:`\Sigma_g / \sigma^2`, whose diagonal is at
    least 0. Errors of coefficients take the variance components as known; those of the
    components come from the curvature, by the delta method. Whatever the model says of them,
    noise is Gaussian and constant, and levels are independent.

    Parameters
    ----------
    source
        A fit, or a design.
    spec
        The model; by default that of the fit.

    Returns
    -------
    MixedModel
        Coefficients as in :func:`fit_frequentist`, with z intervals; ``sd(g)`` and ``sigma``
        as in a fit, with intervals on the log scale, ``cor(g)`` on Fisher's. Groups at the
        end of what is possible have no errors.

    Raises
    ------
    FitError
        A design without its model, a model without group effects or with a spatial process
        of the outcome, or a likelihood without a maximum.

    References
    ----------
    Patterson and Thompson (1971), doi:10.1093/biomet/58.3.545. Bates, Maechler, Bolker and
    Walker (2015), doi:10.18637/jss.v067.i01.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("aabbcc"), "y": [1.0, 2, 4, 5, 7, 8.0]})
    >>> table["industry"] = table["cluster"] = list("ijijij")
    >>> spec = parse_spec('formula = "y ~ 1 + (1 | region)"')
    >>> result = fit_reml(build_design(spec, read_panel(table)), spec=spec)
    >>> result.estimates.set_index("term")["estimate"].round(3).to_dict()
    {'intercept': 4.5, 'sd(region)': 2.958, 'sigma': 0.707}
    """
    design = source.design if isinstance(source, Fit) else source
    spec = source.spec if spec is None and isinstance(source, Fit) else spec
    problem = _problem(design, spec)
    assert spec is not None  # or the problem was refused
    layout = lay_out(problem)
    wide = np.full((1, 1), WIDE * float(design.y.std(ddof=1)))
    fixed = {group.name: wide for group in design.groups if group.effect == "fixed"}
    found = restricted_maximum(layout, design.y, fixed)
    rows: list[dict[str, Any]] = []
    singular: list[str] = []
    for coefficient in _coefficients(design, found):
        rows += coefficient_rows(design, spec, "REML", coefficient, point="REML")
    base: dict[str, Any] = {"model": spec.name, "estimator": "REML", "point": "REML"}
    base |= {"ci_prob": CI_PROB, "ci_kind": "confidence"}
    for group in design.groups:
        if group.name not in fixed:
            more, at_end = _components(design, group, found)
            rows += [base | row for row in more]
            singular += at_end
    unit = str(design.data.attrs["unit"])
    sigma, first = float(found.theta.sigma[0]), np.eye(len(found.spread))[0]
    noise: dict[str, Any] = {"term": "sigma", "group": "", "unit": unit}
    noise |= _scale(sigma, sigma * first, found.spread)
    # Lebesgue measure of raw coefficients: that of standardized ones over the product of scales
    height = found.log_likelihood - float(np.log(design.data["scale"].values).sum())
    return MixedModel(
        estimates=estimates_frame([*rows, base | noise]),
        notes=tuple(_notes(spec, design, singular)),
        criterion=-2.0 * height,
        singular=tuple(singular),
        groups={group.name: group.effect for group in design.groups},
        rows_digest=design.rows_digest,
        n_rows=design.n_rows,
        n_regions=int(design.record["regions"]),
        response=str(design.data.attrs["response"]),
        unit=unit,
        weights=design.weights.kind if design.weights else None,
        weights_digest=design.weights.digest if design.weights else None,
    )


def _problem(design: Design, spec: ModelSpec | None) -> Problem:
    """Return the model's groups and columns with flat coefficients and constant noise."""
    if spec is None:
        raise FitError("REML: got a design without its model; expected both. Give spec=.")
    if not design.groups:
        msg = "REML: got a model without group effects; expected some. Use fit_frequentist."
        raise FitError(msg)
    if spec.spatial.outcome != "none":
        msg = f"REML: got spatial.outcome = {spec.spatial.outcome!r}; expected 'none'."
        raise FitError(f"{msg} Use fit_spatial_ml or fit_spatial_gmm.")
    full = mixed_model(spec, design)
    ones = np.ones((design.n_rows, int(design.intercept)))
    return replace(
        full,
        X=np.column_stack([ones, design.standardized]),
        shift=np.zeros(design.n_rows),
        proper=np.zeros_like(full.proper),
        factors=tuple(replace(factor, surface=None) for factor in full.factors),
        classes=np.zeros_like(full.classes),
        n_classes=1,
        blend=None,
    )


def _coefficients(design: Design, found: Maximum) -> Iterator[Coefficient]:
    center, scale = (design.data[name].values for name in ("center", "scale"))
    names, back = from_standardized(list(design.terms), center, scale, intercept=design.intercept)
    b = back @ found.coefficients
    errors = np.sqrt((back @ found.covariance @ back.T).diagonal())
    for each in zip(names, b, errors, strict=True):
        yield Coefficient(*each, _Z)


def _components(
    design: Design, group: GroupDesign, found: Maximum
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return standard deviations and correlations in raw units; name those at their ends."""
    zero, unit = found.zero[group.name], str(design.data.attrs["unit"])
    root = found.theta.roots[group.name] * (1.0 - np.diag(zero.astype(float)))
    S = root @ root.T
    half = np.einsum("ikd,jk->ijd", found.slopes[group.name], root)
    dS = half + half.transpose(1, 0, 2)
    sds = np.sqrt(S.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):  # a standard deviation of zero
        slopes = dS.diagonal(axis1=0, axis2=1).T / (2.0 * sds[:, None])
        relative = slopes / sds[:, None]
        R = S / np.outer(sds, sds)
        dR = dS / np.outer(sds, sds)[:, :, None]
        dR = dR - R[:, :, None] * (relative[:, None] + relative[None])
    # beside a component that is zero the curvature says nothing
    spread = found.spread * (np.nan if zero.any() else 1.0)
    rows: list[dict[str, Any]] = []
    singular = []
    names = (group.labels, sds, slopes, column_factors(design, group))
    for label, sd, slope, factor in zip(*names, strict=True):
        per = "" if label == "1" else " per unit of the term"
        row = {"term": f"sd({group.name})", "group": "" if label == "1" else label}
        rows.append(row | {"unit": unit + per} | _scale(sd / factor, slope / factor, spread))
        if sd == 0.0:
            singular.append(f"sd({group.name})" + ("" if label == "1" else f" [{label}]"))
    if zero.any() and (sds > 0.0).sum() > zero.size - zero.sum():
        singular.append(f"cor({group.name})")
    for label, i, j in zip(pair_labels(group), *np.tril_indices(len(sds), -1), strict=True):
        row = {"term": f"cor({group.name})", "group": label, "unit": ""}
        rows.append(row | _correlation(R[i, j], dR[i, j], spread))
    return rows, singular


def _scale(value: float, slope: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
    """Return a standard deviation with its error and an interval on the log scale."""
    error = float(np.sqrt(slope @ spread @ slope))
    reach = np.exp(_Z * error / value) if value > 0.0 else np.nan
    ends = {"ci_low": value / reach, "ci_high": value * reach}
    return {"effect": "sd", "estimate": value, "std_error": error} | ends


def _correlation(value: float, slope: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
    """Return a correlation with its error and an interval on Fisher's scale."""
    value, error = float(np.clip(value, -1.0, 1.0)), float(np.sqrt(slope @ spread @ slope))
    ends = {"ci_low": np.nan, "ci_high": np.nan}
    if abs(value) < 1.0:
        reach = _Z * error / (1.0 - value**2)
        low, high = np.tanh(np.arctanh(value) + np.array([-reach, reach]))
        ends = {"ci_low": low, "ci_high": high}
    return {"effect": "correlation", "estimate": value, "std_error": error} | ends


def _notes(spec: ModelSpec, design: Design, singular: list[str]) -> Iterator[str]:
    yield (
        "REML: errors of coefficients take the standard deviations as known; those of standard "
        "deviations come from the curvature of the restricted likelihood."
    )
    noise = spec.likelihood
    if noise.family != "gaussian" or noise.scale != "constant":
        yield f"REML has Gaussian, constant noise; the model's is {noise.family}, scale {noise.scale}."
    shaped = [f"{g.name} {g.structure}" for g in design.groups if g.structure != "iid"]
    if shaped:
        yield f"REML takes levels as independent; the model's are not ({', '.join(shaped)})."
    if design.psi is not None:
        yield "Columns of REML are those of the reference W: W is estimated by the posterior only."
    if singular:
        yield f"REML is singular: {', '.join(singular)} at the end of what is possible."
