"""Log likelihoods of a fit, on demand: given the effects, and with them integrated out.

The two answer different questions and are never both called "the likelihood":
*conditional* is log p(y | effects, theta), which factors over rows; *marginal* is
log p(y | theta), which does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from spatialclusters.design import Design
from spatialclusters.errors import FitError
from spatialclusters.parameters import noise_classes
from spatialclusters.processes import dependence_names, outcome_process
from spatialclusters.result import Fit
from spatialclusters.simulation import linear_predictor, noise_scale, thinned
from spatialclusters.spec import ModelSpec

if TYPE_CHECKING:
    from spatialclusters.collapsed.layout import Theta

__all__ = [
    "conditional_log_likelihood",
    "conditional_log_likelihood_chunks",
    "joint_log_likelihood",
    "marginal_density",
    "marginal_log_likelihood",
    "theta_at",
]

_CELLS: Final = 4_000_000
"""Most numbers in a chunk: 32 MB."""


def conditional_log_likelihood(fit: Fit, *, draws: int = 200) -> np.ndarray:
    r"""Return the log likelihood of every row given the effects, at evenly spaced draws.

    .. math:: \log p(y_n \mid \alpha, \beta, b, \theta)

    Parameters
    ----------
    fit
        Of either engine.
    draws
        Number of posterior draws.

    Returns
    -------
    numpy.ndarray
        Shape (draw, obs), natural logarithm of a density in the unit of the response.

    Raises
    ------
    FitError
        The outcome has a spatial process: rows are not independent given the effects.

    See Also
    --------
    conditional_log_likelihood_chunks : For designs whose array does not fit into memory.
    marginal_log_likelihood : With the effects integrated out.
    """
    return np.concatenate(list(conditional_log_likelihood_chunks(fit, draws=draws)), axis=1)


def conditional_log_likelihood_chunks(fit: Fit, *, draws: int = 200) -> Iterator[np.ndarray]:
    """Yield :func:`conditional_log_likelihood` by chunks of rows, (draw, rows), in order."""
    from scipy import stats

    if fit.spec.spatial.parameters:
        msg = f"conditional likelihood: got outcome = {fit.spec.spatial.outcome!r}, in which rows depend on each other"
        raise FitError(f"{msg} given the effects; expected 'none'. Use marginal_log_likelihood.")
    chosen, design = thinned(fit, draws), fit.design
    classes, _ = noise_classes(fit.spec, design)
    sigmas = [_class_sigma(fit.spec, design, classes, parameters) for parameters in chosen]
    step = max(1, _CELLS // len(chosen))
    for start in range(0, design.n_rows, step):
        part = Design(design.data.isel(obs=slice(start, start + step)))
        rows = []
        for parameters, sigma in zip(chosen, sigmas, strict=True):
            residual = part.y - linear_predictor(part, parameters)
            scale = sigma[classes[start : start + step]]
            if fit.spec.likelihood.family == "student-t":
                rows.append(stats.t.logpdf(residual, float(parameters["nu"]), scale=scale))
            else:
                rows.append(stats.norm.logpdf(residual, scale=scale))
        yield np.stack(rows)


def marginal_log_likelihood(fit: Fit, *, draws: int = 200) -> np.ndarray:
    r"""Return the log likelihood with coefficients and effects integrated out.

    .. math:: \log p(y \mid \theta) = \log \int p(y \mid \beta, b, \theta)\,
        p(\beta)\, p(b \mid \theta)\, d\beta\, db

    Parameters
    ----------
    fit
        Of either engine, with Gaussian noise and normal or flat priors of coefficients.
    draws
        Number of posterior draws of the hyperparameters, evenly spaced.

    Returns
    -------
    numpy.ndarray
        Shape (draw,).

    Raises
    ------
    FitError
        The effects of this model cannot be integrated out exactly.
    """
    return marginal_density(fit.spec, fit.design)(fit.design.y, thinned(fit, draws))


def marginal_density(
    spec: ModelSpec, design: Design
) -> Callable[[np.ndarray, Sequence[Mapping[str, np.ndarray]]], np.ndarray]:
    """Return log p(y | theta) as a function of a response and draws; it compiles once.

    Raises
    ------
    FitError
        The effects of this model cannot be integrated out exactly.
    """
    import jax

    from spatialclusters.collapsed.density import log_marginal_likelihood
    from spatialclusters.collapsed.layout import lay_out
    from spatialclusters.collapsed.problem import mixed_model, why_not_collapsed
    from spatialclusters.collapsed.statistics import statistics

    reason = why_not_collapsed(spec)
    if reason is not None:
        msg = f"marginal likelihood: got a model whose effects cannot be integrated out: {reason}."
        raise FitError(msg + " Use conditional_log_likelihood.")
    jax.config.update("jax_enable_x64", True)
    layout = lay_out(mixed_model(spec, design))
    density = jax.jit(lambda theta, sums: log_marginal_likelihood(layout, sums, theta))

    def evaluate(y: np.ndarray, chosen: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        sums = jax.tree_util.tree_map(jax.numpy.asarray, statistics(layout, y))
        return np.array([float(density(theta_at(spec, design, p), sums)) for p in chosen])

    return evaluate


def joint_log_likelihood(
    spec: ModelSpec, design: Design, y: np.ndarray, parameters: Mapping[str, np.ndarray]
) -> float:
    r"""Return the log likelihood of all rows together given the effects, of any process.

    .. math:: \log p(y \mid \alpha, \beta, b, \theta)
        = \sum_n \log p(\nu_n) + \log|I - \rho L| + \log|I - \lambda L|

    with the noise :math:`\nu` behind the response.

    Parameters
    ----------
    spec, design
        The model; of the design's response nothing is used.
    y
        Response, (N,).
    parameters
        One draw, named as in a fit's posterior.

    Returns
    -------
    float
        Natural logarithm of a density in the unit of the response.
    """
    from scipy import stats

    space, mean = outcome_process(spec, design), linear_predictor(design, parameters)
    noise = y - mean if space is None else space.filtered(parameters, y, mean)
    scale = noise_scale(spec, design, parameters)
    if spec.likelihood.family == "student-t":
        density = stats.t.logpdf(noise, float(parameters["nu"]), scale=scale).sum()
    else:
        density = stats.norm.logpdf(noise, scale=scale).sum()
    return float(density if space is None else density + space.log_jacobian(parameters))


def _class_sigma(
    spec: ModelSpec, design: Design, classes: np.ndarray, parameters: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the standard deviation (or t scale) of every noise class."""
    sigma = np.zeros(int(classes.max()) + 1)
    sigma[classes] = noise_scale(spec, design, parameters)
    return sigma


def theta_at(spec: ModelSpec, design: Design, parameters: Mapping[str, np.ndarray]) -> Theta:
    """Return the hyperparameters of one draw as the collapsed engine takes them."""
    from spatialclusters.collapsed.hyperparameters import theta_of
    from spatialclusters.collapsed.problem import column_factors

    classes, _ = noise_classes(spec, design)
    sigma = _class_sigma(spec, design, classes, parameters)
    roots = []
    for group in design.groups:
        if group.effect == "fixed":
            continue
        sds = parameters[f"sd({group.name})"] * column_factors(design, group)
        correlation = np.eye(len(sds))
        if len(sds) > 1:
            lower = np.tril_indices(len(sds), -1)
            correlation[lower] = correlation.T[lower] = parameters[f"cor({group.name})"]
        roots.append(sds[:, None] * np.linalg.cholesky(correlation))
    names, psi = dependence_names(spec), design.psi
    names = names if psi is None else [*names, psi.parameter]
    values = [sigma, *roots, *(parameters[name] for name in names)]
    return theta_of(spec, design, values)
