"""Design -> pm.Model in which every effect is a parameter.

Covariates are centered and scaled inside; what is recorded (``coefficient``,
``effect(...)``, ``sd(...)``) is in raw units. The overall intercept and the group
intercepts refer to covariates at their sample means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialclusters.design import Design, GroupDesign
from spatialclusters.priors import ResolvedPrior, resolve_priors
from spatialclusters.spec import ModelSpec, Prior
from spatialclusters.spec.distributions import Lkj, Normal

if TYPE_CHECKING:
    import pymc as pm

__all__ = [
    "WIDE",
    "build_model",
    "model_priors",
    "noise_clusters",
    "pair_labels",
    "relative_size",
    "sd_names",
]

WIDE = 100.0
"""Standard deviation of fixed group effects, in response standard deviations."""


def model_priors(spec: ModelSpec, design: Design) -> dict[str, ResolvedPrior]:
    """Return every prior of the model in raw units, those of the file and the defaults."""
    return resolve_priors(
        spec,
        response_sd=float(design.y.std(ddof=1)),
        covariate_sd=dict(zip(design.terms, design.data["scale"].values.tolist(), strict=True)),
        groups={g.name: g.labels for g in design.groups if g.effect != "fixed"},
    )


def build_model(spec: ModelSpec, design: Design) -> pm.Model:
    r"""Build the full hierarchical model.

    .. math::

        y_n = \alpha + x_n'\beta + \sum_g z_{gn}' b_{g, j_g(n)} + \epsilon_n,
        \quad b_{gj} \sim N(0, S_g R_g S_g), \quad \epsilon_n \sim N(0, \sigma_n^2)

    with :math:`R_g` from an LKJ prior where a group has several columns, and
    :math:`\sigma_n` constant, by cluster (:math:`\sigma e^{\tau z_c}`) or by size
    (:math:`\sigma \sqrt{1 - s + s (\tilde E / E_n)^g}`, where :math:`\sigma` is the
    noise of a row of median base-year size :math:`\tilde E`, s is ``size.share`` and
    g is ``size.power``: the form :math:`\sigma_\infty \sqrt{1 + k E^{-g}}` with
    parameters that mean something and hardly depend on each other).
    Random effects are non-centered. Fixed effects sum to zero over levels and
    have standard deviation :data:`WIDE` times that of the response.

    Parameters
    ----------
    spec
        Priors, likelihood and how each group is treated.
    design
        Arrays with N rows, p covariates and J_g levels of each group.

    Returns
    -------
    pymc.Model
        Variables ``intercept``, ``coefficient`` (term), ``sd(g)`` (column),
        ``cor(g)`` (pair), ``effect(g)`` (level, column), ``sigma`` and what the
        likelihood adds.

    References
    ----------
    Gelman et al. (2013), Bayesian Data Analysis, chapter 15;
    Lewandowski, Kurowicka and Joe (2009), doi:10.1016/j.jmva.2009.04.008.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2.0, 2.5, 4.0],
    ...                       "x": [0.0, 1.0, 2.0, 3.0]})
    >>> spec = parse_spec('schema = 1\\nname = "line"\\ntitle = "A line"\\nformula = "y ~ x"')
    >>> model = build_model(spec, build_design(spec, read_panel(table)))
    >>> [variable.name for variable in model.free_RVs]
    ['intercept', 'coefficient (standardized)', 'sigma']
    """
    import pymc as pm

    priors = model_priors(spec, design)
    with pm.Model(coords=_coords(spec, design)) as model:
        mean: Any = _draw("intercept", priors["intercept"].prior) if design.intercept else 0.0
        if design.terms:
            mean = mean + design.standardized @ _coefficients(design, priors)
        for group in design.groups:
            mean = mean + _group_effect(design, group, priors)
        sigma = _noise(spec, design, priors)
        response = pm.Data("response", design.y, dims="obs")
        if spec.likelihood.family == "student-t":
            nu = 2.0 + _draw("nu - 2", priors["nu"].prior, positive=True)
            pm.Deterministic("nu", nu)
            pm.StudentT("y", nu=nu, mu=mean, sigma=sigma, observed=response, dims="obs")
        else:
            pm.Normal("y", mu=mean, sigma=sigma, observed=response, dims="obs")
    return model


def noise_clusters(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster code of every row and the labels of the clusters."""
    codes, labels = pd.factorize(design.data["row_cluster"].values.astype(object), sort=True)
    return codes, np.asarray(labels, dtype=object)


def relative_size(design: Design) -> np.ndarray:
    """Return median base-year size over each row's: large for small cells."""
    size = design.data["size"].values
    return np.asarray(np.median(size) / size)


def sd_names(group: GroupDesign) -> list[str]:
    """Return the parameter name of each column's standard deviation."""
    return [
        f"sd({group.name})" if label == "1" else f"sd({group.name}, {label})"
        for label in group.labels
    ]


def _coords(spec: ModelSpec, design: Design) -> dict[str, Any]:
    coords: dict[str, Any] = {"obs": np.arange(design.n_rows), "term": list(design.terms)}
    for group in design.groups:
        coords[group.name] = group.levels
        coords[f"column({group.name})"] = list(group.labels)
        if group.effect != "fixed" and len(group.labels) > 1:
            coords[f"pair({group.name})"] = pair_labels(group)
    if spec.likelihood.scale == "by-cluster":
        coords["noise_cluster"] = noise_clusters(design)[1]
    return coords


def pair_labels(group: GroupDesign) -> list[str]:
    """Label the correlations of a group's columns, row by row below the diagonal."""
    lower = zip(*np.tril_indices(len(group.labels), -1), strict=True)
    return [f"{group.labels[j]}, {group.labels[i]}" for i, j in lower]


def _coefficients(design: Design, priors: dict[str, ResolvedPrior]) -> Any:
    """Draw on the standardized scale; record in raw units."""
    import pymc as pm
    import pytensor.tensor as pt

    scale = design.data["scale"].values
    name = "coefficient (standardized)"
    chosen = [priors[term].prior for term in design.terms]
    normals = [prior for prior in chosen if isinstance(prior, Normal)]
    if len(normals) == len(chosen):
        standardized = pm.Normal(
            name,
            mu=np.array([prior.mean for prior in normals]) * scale,
            sigma=np.array([prior.sd for prior in normals]) * scale,
            dims="term",
        )
    else:
        parts = [
            _draw(f"{name} {position}", prior, factor)
            for position, (prior, factor) in enumerate(zip(chosen, scale, strict=True))
        ]
        standardized = pt.stack(parts)
    pm.Deterministic("coefficient", standardized / scale, dims="term")
    return standardized


def _group_effect(design: Design, group: GroupDesign, priors: dict[str, ResolvedPrior]) -> Any:
    """Return the group's contribution to the mean of every row, shape (obs,)."""
    import pymc as pm
    import pytensor.tensor as pt

    dims = (group.name, f"column({group.name})")
    if group.effect == "fixed":
        wide = WIDE * float(design.y.std(ddof=1))
        draw = pm.ZeroSumNormal if design.intercept else pm.Normal
        effect = draw(f"fixed({group.name})", sigma=wide, dims=group.name)
        pm.Deterministic(f"effect({group.name})", effect[:, None], dims=dims)
        return effect[group.codes]
    factors = [1.0 if c < 0 else float(design.data["scale"].values[c]) for c in group.columns]
    sds = pt.stack(
        [
            _draw(f"raw(sd({group.name}), {position})", priors[name].prior, factor, positive=True)
            for position, (name, factor) in enumerate(zip(sd_names(group), factors, strict=True))
        ]
    )
    pm.Deterministic(f"sd({group.name})", sds / np.array(factors), dims=dims[1])
    raw = pm.Normal(f"raw({group.name})", 0.0, 1.0, dims=dims)
    if len(factors) > 1:
        prior = priors[f"cor({group.name})"].prior
        assert isinstance(prior, Lkj)  # the spec allows no other
        root = pm.LKJCorr(f"root({group.name})", n=len(factors), eta=prior.eta)
        correlation = root @ root.T
        lower = np.tril_indices(len(factors), -1)
        pm.Deterministic(f"cor({group.name})", correlation[lower], dims=f"pair({group.name})")
        raw = raw @ root.T
    effect = raw * sds
    pm.Deterministic(f"effect({group.name})", effect / np.array(factors), dims=dims)
    columns = np.column_stack(
        [np.ones(design.n_rows) if c < 0 else design.standardized[:, c] for c in group.columns]
    )
    rows = effect[group.codes]
    return rows[:, 0] if group.columns == (-1,) else (columns * rows).sum(axis=1)


def _noise(spec: ModelSpec, design: Design, priors: dict[str, ResolvedPrior]) -> Any:
    import pymc as pm
    import pytensor.tensor as pt

    sigma = _draw("sigma", priors["sigma"].prior, positive=True)
    if spec.likelihood.scale == "by-cluster":
        codes, _ = noise_clusters(design)
        spread = _draw("sd(log sigma)", priors["sd(log sigma)"].prior, positive=True)
        raw = pm.Normal("raw(log sigma)", 0.0, 1.0, dims="noise_cluster")
        by_cluster = pm.Deterministic(
            "sigma(cluster)", sigma * pt.exp(spread * raw), dims="noise_cluster"
        )
        return by_cluster[codes]
    if spec.likelihood.scale == "size":
        share = _draw("size.share", priors["size.share"].prior)
        power = _draw("size.power", priors["size.power"].prior, positive=True)
        log_size = np.log(relative_size(design))
        return sigma * pt.sqrt(1.0 - share + share * pt.exp(power * log_size))
    return sigma


def _draw(name: str, prior: Prior, factor: float = 1.0, *, positive: bool = False) -> Any:
    """Create a scalar with a prior stated for ``variable / factor``."""
    import pymc as pm
    import pytensor.tensor as pt

    match prior.distribution:
        case "normal":
            return pm.Normal(name, prior.mean * factor, prior.sd * factor)
        case "student_t":
            return pm.StudentT(name, nu=prior.nu, mu=prior.mean * factor, sigma=prior.sd * factor)
        case "half_normal":
            return pm.HalfNormal(name, prior.sd * factor)
        case "half_student_t":
            return pm.HalfStudentT(name, nu=prior.nu, sigma=prior.sd * factor)
        case "exponential":
            return pm.Exponential(name, prior.rate / factor)
        case "beta":
            return pm.Beta(name, prior.a, prior.b)
        case "uniform":
            return pm.Uniform(name, prior.lower * factor, prior.upper * factor)
        case "flat":
            return pm.HalfFlat(name) if positive else pm.Flat(name)
        case "inverse_scale":
            variable = pm.HalfFlat(name)
            pm.Potential(f"prior of {name}", -pt.log(variable))
            return variable
    msg = f"prior of {name}: got {prior.distribution!r}, which no parameter of this kind can have."
    raise ValueError(msg)
