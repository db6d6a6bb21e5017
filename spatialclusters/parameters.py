"""Hyperparameters of a model: their priors, names and symbolic values, for both engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from spatialclusters.blends import Combination
from spatialclusters.columns import is_constant
from spatialclusters.design import Design, GroupDesign
from spatialclusters.errors import SpecError
from spatialclusters.priors import ResolvedPrior, resolve_priors
from spatialclusters.spec import ModelSpec, Prior
from spatialclusters.spec.distributions import Dirichlet, Lkj

__all__ = [
    "LOG_SIZE",
    "SIZE_CLASSES",
    "SIZE_GRID",
    "WIDE",
    "check_support",
    "class_sigma",
    "dependence",
    "draw_parameter",
    "group_columns",
    "hyperparameter_coords",
    "model_priors",
    "noise_classes",
    "noise_clusters",
    "pair_labels",
    "reference_size",
    "relative_size",
    "scale_root",
    "sd_names",
    "size_classes",
    "size_on_grid",
    "weights_parameter",
    "with_size_grid",
]

SIZE_CLASSES = 32
"""Most classes of size in size-dependent noise."""

SIZE_GRID = "size_grid"
"""Attribute of a design whose classes of size are stated: logs of both ends and of the reference."""

LOG_SIZE = "log(relative size)"
"""Data of a model whose noise depends on size: by class, from :func:`size_classes`."""

WIDE = 100.0
"""Standard deviation of fixed group effects, in response standard deviations."""


def model_priors(spec: ModelSpec, design: Design) -> dict[str, ResolvedPrior]:
    """Return every prior of the model in raw units, those of the file and the defaults.

    Raises
    ------
    SpecError
        The response does not vary.
    """
    if is_constant(design.y):
        msg = f"{design.data.attrs['response']}: got a response that does not vary in the sample;"
        raise SpecError(f"{msg} expected one that does. Look at the rows, or choose another.")
    return resolve_priors(
        spec,
        response_sd=float(design.y.std(ddof=1)),
        covariate_sd=dict(zip(design.terms, design.data["scale"].values.tolist(), strict=True)),
        groups={g.name: g.labels for g in design.groups if g.effect != "fixed"},
        weights=None if design.psi is None else design.psi.parameter,
    )


def group_columns(design: Design, group: GroupDesign) -> np.ndarray:
    """Return the columns that vary by group on the standardized scale, shape (obs, K)."""
    ones = np.ones(design.n_rows)
    return np.column_stack([ones if c < 0 else design.standardized[:, c] for c in group.columns])


def noise_clusters(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster code of every row and the labels of the clusters."""
    codes, labels = pd.factorize(design.data["row_cluster"].values.astype(object), sort=True)
    return codes, np.asarray(labels, dtype=object)


def size_classes(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Group rows by base-year size: the code of every row, and each class's relative size.

    With at most :data:`SIZE_CLASSES` different sizes each is a class; otherwise classes
    are equally wide on the log scale and stand for the geometric mean of their rows.
    Noise that depends on size depends on it through these classes, in both engines. Where the
    design states a grid (:data:`SIZE_GRID`), so that designs of other sizes share one model, classes
    are those of :func:`size_on_grid`.

    Returns
    -------
    tuple
        Codes (obs,), and the reference size (:func:`reference_size`) over the size of each class:
        large for small cells.
    """
    log_size = np.log(design.data["size"].values)
    if SIZE_GRID in design.data.attrs:
        on_grid = size_on_grid(log_size, design.data.attrs[SIZE_GRID])
        distinct, codes = np.unique(on_grid, return_inverse=True)
        return codes, reference_size(design) / np.exp(distinct)
    distinct = np.unique(log_size)
    if len(distinct) > SIZE_CLASSES:
        edges = np.linspace(distinct[0], distinct[-1], SIZE_CLASSES + 1)[1:-1]
        _, codes = np.unique(np.digitize(log_size, edges), return_inverse=True)
    else:
        codes = np.searchsorted(distinct, log_size)
    mean = np.bincount(codes, weights=log_size) / np.bincount(codes)
    return codes, reference_size(design) / np.exp(mean)


def reference_size(design: Design) -> float:
    """Return the size at which the noise is sigma: the rows' median, or what the grid states."""
    if SIZE_GRID in design.data.attrs:
        return float(np.exp(design.data.attrs[SIZE_GRID][2]))
    return float(np.median(design.data["size"].values))


def size_on_grid(log_size: Any, grid: Any, xp: Any = np) -> Any:
    """Return the middle of the class of each log size; those beyond the ends are in the last.

    Parameters
    ----------
    grid
        Logs of the lower and the upper end, between which :data:`SIZE_CLASSES` classes are equally
        wide, and of the reference size.
    xp
        NumPy, or JAX's.

    Examples
    --------
    >>> size_on_grid(np.array([-1.0, 0.1, 31.9, 50.0]), (0.0, 32.0, 3.0)).tolist()
    [0.5, 0.5, 31.5, 31.5]
    """
    low, high, _ = grid
    width = (high - low) / SIZE_CLASSES
    return low + width * (0.5 + xp.floor(xp.clip((log_size - low) / width, 0.0, SIZE_CLASSES - 1)))


def with_size_grid(design: Design, grid: Sequence[float]) -> Design:
    """Return the design with stated classes of size."""
    return Design(design.data.assign_attrs({SIZE_GRID: np.array(grid)}), design.weights)


def relative_size(design: Design) -> np.ndarray:
    """Return the reference size over that of each row's class, shape (obs,)."""
    codes, relative = size_classes(design)
    return np.asarray(relative[codes])


def noise_classes(spec: ModelSpec, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise class of every row and the label or relative size of each class."""
    if spec.likelihood.scale == "by-cluster":
        return noise_clusters(design)
    if spec.likelihood.scale == "size":
        return size_classes(design)
    return np.zeros(design.n_rows, dtype=np.int64), np.ones(1)


def sd_names(group: GroupDesign) -> list[str]:
    """Return the parameter name of each column's standard deviation."""
    return [
        f"sd({group.name})" if label == "1" else f"sd({group.name}, {label})"
        for label in group.labels
    ]


def hyperparameter_coords(spec: ModelSpec, design: Design) -> dict[str, Any]:
    """Return the coordinates of groups, their columns and pairs of columns."""
    coords: dict[str, Any] = {}
    for group in design.groups:
        coords[group.name] = group.levels
        coords[f"column({group.name})"] = list(group.labels)
        if group.effect != "fixed" and len(group.labels) > 1:
            coords[f"pair({group.name})"] = pair_labels(group)
    if spec.likelihood.scale == "by-cluster":
        coords["noise_cluster"] = noise_clusters(design)[1]
    if design.psi is not None and not design.psi.nodes:
        coords["matrix"] = list(design.psi.labels)
    return coords


def pair_labels(group: GroupDesign) -> list[str]:
    """Label the correlations of a group's columns, row by row below the diagonal."""
    lower = zip(*np.tril_indices(len(group.labels), -1), strict=True)
    return [f"{group.labels[j]}, {group.labels[i]}" for i, j in lower]


def scale_root(group: GroupDesign, factors: np.ndarray, priors: dict[str, ResolvedPrior]) -> Any:
    """Create sds and correlations; return A with A A' the covariance of standardized effects.

    ``factors`` are the standard deviations of the columns, 1 for the intercept; what is
    recorded is in raw units. A is lower triangular, (K, K).
    """
    import pymc as pm
    import pytensor.tensor as pt

    sds = pt.stack(
        [
            draw_parameter(
                f"raw(sd({group.name}), {position})", priors[name].prior, factor, positive=True
            )
            for position, (name, factor) in enumerate(zip(sd_names(group), factors, strict=True))
        ]
    )
    pm.Deterministic(f"sd({group.name})", sds / factors, dims=f"column({group.name})")
    if len(factors) == 1:
        return pt.diag(sds)
    prior = priors[f"cor({group.name})"].prior
    assert isinstance(prior, Lkj)  # the spec allows no other
    root = pm.LKJCorr(f"root({group.name})", n=len(factors), eta=prior.eta)
    lower = np.tril_indices(len(factors), -1)
    pm.Deterministic(f"cor({group.name})", (root @ root.T)[lower], dims=f"pair({group.name})")
    return sds[:, None] * root


def class_sigma(spec: ModelSpec, design: Design, priors: dict[str, ResolvedPrior]) -> Any:
    """Create the noise parameters; return the standard deviation of every noise class."""
    import pymc as pm
    import pytensor.tensor as pt

    sigma = draw_parameter("sigma", priors["sigma"].prior, positive=True)
    if spec.likelihood.scale == "by-cluster":
        spread = draw_parameter("sd(log sigma)", priors["sd(log sigma)"].prior, positive=True)
        raw = pm.Normal("raw(log sigma)", 0.0, 1.0, dims="noise_cluster")
        return pm.Deterministic(
            "sigma(cluster)", sigma * pt.exp(spread * raw), dims="noise_cluster"
        )
    if spec.likelihood.scale == "size":
        share = draw_parameter("size.share", priors["size.share"].prior)
        power = draw_parameter("size.power", priors["size.power"].prior, positive=True)
        # data, not a constant: a compiled sampler serves designs of other sizes too
        log_size = pm.Data(LOG_SIZE, np.log(size_classes(design)[1]))
        return sigma * pt.sqrt(1.0 - share + share * pt.exp(power * log_size))
    return pt.stack([sigma])


def _quantile() -> Any:
    """Return the transform from shares in (0, 1) to standard normal quantiles."""
    import pytensor.tensor as pt
    from pymc.logprob.transforms import Transform

    class NormalQuantile(Transform):  # type: ignore[misc]
        name = "normal_quantile"

        def forward(self, value: Any, *_: Any) -> Any:
            return np.sqrt(2.0) * pt.erfinv(2.0 * value - 1.0)

        def backward(self, value: Any, *_: Any) -> Any:
            return 0.5 * pt.erfc(-value / np.sqrt(2.0))

        def log_jac_det(self, value: Any, *_: Any) -> Any:
            return -0.5 * value**2 - 0.5 * np.log(2.0 * np.pi)

    return NormalQuantile()


def check_support(name: str, prior: Prior, support: tuple[float, float]) -> None:
    """Refuse a uniform prior of a dependence that reaches outside the support.

    Raises
    ------
    SpecError
        With the support.
    """
    if prior.distribution != "uniform":
        return
    lower, upper = support
    # interpolated log determinants end a thousandth before the ends: (-1, 1) is meant
    reach = 1e-3 * (upper - lower)
    if prior.lower < lower - reach or prior.upper > upper + reach:
        msg = (
            f"priors.{name}: got {prior.describe()}; expected bounds in {lower:.6g} to {upper:.6g}."
        )
        raise SpecError(msg + " These are where the process exists for these weights.")


def dependence(
    name: str, prior: Prior, support: tuple[float, float], *, transform: Any = None
) -> Any:
    """Create a parameter of spatial dependence: its beta prior is stretched over the support.

    ``transform`` stands in for log odds in the coordinates of a beta prior.

    Raises
    ------
    SpecError
        A uniform prior reaches outside the support.
    """
    import pymc as pm

    lower, upper = support
    match prior.distribution:
        case "uniform":
            check_support(name, prior, support)
            return pm.Uniform(name, max(lower, prior.lower), min(upper, prior.upper))
        case "beta":
            chosen = {} if transform is None else {"default_transform": transform}
            share = pm.Beta(f"raw({name})", prior.a, prior.b, **chosen)
            return pm.Deterministic(name, lower + (upper - lower) * share)
    msg = f"priors.{name}: got {prior.describe()}; expected beta or uniform."
    raise SpecError(msg)


def weights_parameter(psi: Combination, prior: Prior) -> Any:
    """Create the parameter of estimated weights: ``delta``, or ``share`` (matrix).

    Delta, and what each share leaves to the next, are sampled as normal quantiles: where the data
    say nothing and the prior is uniform these are normal, while log odds have long tails.
    """
    import pymc as pm
    import pytensor.tensor as pt

    if psi.nodes:
        return dependence(psi.parameter, prior, psi.support, transform=_quantile())
    assert isinstance(prior, Dirichlet)  # the spec allows no other
    left = prior.concentration * np.arange(len(psi.labels) - 1, 0, -1)
    name, chosen = f"raw({psi.parameter})", {"default_transform": _quantile()}
    # breaking a stick by such betas is the Dirichlet distribution
    part = pm.Beta(name, prior.concentration, left, shape=len(left), **chosen)
    first, rest = pt.concatenate([[1.0], pt.cumprod(1.0 - part)]), pt.concatenate([part, [1.0]])
    return pm.Deterministic(psi.parameter, first * rest, dims="matrix")


def draw_parameter(name: str, prior: Prior, factor: float = 1.0, *, positive: bool = False) -> Any:
    """Create a scalar with a prior stated for ``variable / factor``."""
    import pymc as pm
    import pytensor.tensor as pt

    match prior.distribution:
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
        case "normal":
            return pm.Normal(name, prior.mean * factor, prior.sd * factor)
        case "student_t":
            return pm.StudentT(name, nu=prior.nu, mu=prior.mean * factor, sigma=prior.sd * factor)
    msg = f"prior of {name}: got {prior.distribution!r}, which no parameter of this kind can have."
    raise ValueError(msg)
