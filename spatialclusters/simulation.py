"""Data from a model: predictions given draws, and responses at given parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from spatialclusters.blends import Combination
from spatialclusters.design import Design, GroupDesign
from spatialclusters.errors import SpecError
from spatialclusters.parameters import model_priors, noise_clusters, relative_size, sd_names
from spatialclusters.processes import FIELDS, outcome_process
from spatialclusters.result import Fit
from spatialclusters.spec import ModelSpec, Prior
from spatialclusters.spec.distributions import Dirichlet, Lkj

__all__ = [
    "draw_parameters",
    "expected_response",
    "linear_predictor",
    "lkj_correlation",
    "noise_scale",
    "posterior_predictive",
    "prior_predictive",
    "simulate_noise",
    "simulate_response",
    "surface_effects",
    "thinned",
]


def linear_predictor(design: Design, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    r"""Return :math:`\alpha + x'\beta + \sum_g z_g'b_g` for one set of parameters.

    Parameters
    ----------
    design
        N rows; covariates enter centered at their sample means, or raw without an intercept.
    parameters
        ``intercept``, ``coefficient`` (term) and ``effect(g)`` (level, column) in
        raw units, as a fit's posterior names them, and ``delta`` or ``share`` of an estimated W.

    Returns
    -------
    numpy.ndarray
        Shape (N,), in the unit of the response.
    """
    centered = design.covariates(parameters) - design.data["center"].values
    mean: np.ndarray = np.full(design.n_rows, float(parameters.get("intercept", 0.0)))
    if design.terms:
        mean += centered @ parameters["coefficient"]
    for group in design.groups:
        effect = parameters[f"effect({group.name})"][group.codes]
        for position, column in enumerate(group.columns):
            mean += effect[:, position] * (1.0 if column < 0 else centered[:, column])
    return np.asarray(mean)


def expected_response(
    spec: ModelSpec, design: Design, parameters: Mapping[str, np.ndarray]
) -> np.ndarray:
    r"""Return the mean of the response given the effects, (N,).

    That is the linear predictor, or :math:`(I - \rho L)^{-1}` times it.
    """
    mean, space = linear_predictor(design, parameters), outcome_process(spec, design)
    return mean if space is None else space.response(parameters, mean, np.zeros(len(mean)))


def noise_scale(
    spec: ModelSpec, design: Design, parameters: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the standard deviation (or t scale) of the noise of every row, shape (N,)."""
    if spec.likelihood.scale == "by-cluster":
        return np.take(parameters["sigma(cluster)"], noise_clusters(design)[0])
    sigma = np.full(design.n_rows, float(parameters["sigma"]))
    if spec.likelihood.scale == "size":
        share = float(parameters["size.share"])
        power = float(parameters["size.power"])
        sigma = sigma * np.sqrt(1.0 - share + share * relative_size(design) ** power)
    return sigma


def simulate_response(
    spec: ModelSpec,
    design: Design,
    parameters: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw a response of every row at given parameters, shape (N,)."""
    noise = simulate_noise(spec, design, parameters, rng)
    mean, space = linear_predictor(design, parameters), outcome_process(spec, design)
    return np.asarray(mean + noise if space is None else space.response(parameters, mean, noise))


def simulate_noise(
    spec: ModelSpec,
    design: Design,
    parameters: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the noise of every row at given parameters, before any process, shape (N,)."""
    scale = noise_scale(spec, design, parameters)
    if spec.likelihood.family == "student-t":
        return np.asarray(scale * rng.standard_t(float(parameters["nu"]), size=design.n_rows))
    return np.asarray(scale * rng.standard_normal(design.n_rows))


def posterior_predictive(fit: Fit, *, draws: int = 200, seed: int) -> np.ndarray:
    """Draw replicated responses from evenly spaced posterior draws.

    Returns
    -------
    numpy.ndarray
        Shape (draw, obs), in the unit of the response.
    """
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            simulate_response(fit.spec, fit.design, parameters, rng)
            for parameters in thinned(fit, draws)
        ]
    )


def thinned(fit: Fit, draws: int) -> list[dict[str, np.ndarray]]:
    """Return evenly spaced draws given the fit's rows, each with all parameters of that draw."""
    fit = fit.given_rows
    chains, each = (fit.posterior.sizes[name] for name in ("chain", "draw"))
    total = chains * each
    chosen = np.unique(np.linspace(0, total - 1, min(draws, total)).astype(int))
    chain, draw = np.divmod(chosen, each)
    found: list[dict[str, np.ndarray]] = [{} for _ in chosen]
    for name in map(str, fit.posterior.data_vars):
        parts = [fit.draws(name, {"chain": c, "draw": draw[chain == c]}) for c in range(chains)]
        for parameters, values in zip(found, np.concatenate(parts), strict=True):
            parameters[name] = values
    return found


def prior_predictive(spec: ModelSpec, design: Design, *, draws: int = 200, seed: int) -> np.ndarray:
    """Draw responses from the prior, shape (draw, obs), in the unit of the response.

    Raises
    ------
    SpecError
        A prior is improper.
    """
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            simulate_response(spec, design, draw_parameters(spec, design, rng), rng)
            for _ in range(draws)
        ]
    )


def draw_parameters(
    spec: ModelSpec, design: Design, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw every parameter and every effect from the prior, in raw units.

    Returns
    -------
    dict
        Names and shapes of a fit's posterior, without chain and draw.

    Raises
    ------
    SpecError
        A prior is improper, or a group has fixed effects.
    """
    drawn = {name: each.prior for name, each in model_priors(spec, design).items()}

    def one(name: str) -> float:
        return _draw(name, drawn[name], rng)

    parameters = {"coefficient": np.array([one(term) for term in design.terms])}
    if design.intercept:
        parameters["intercept"] = np.array(one("intercept"))
    for group in design.groups:
        if group.effect == "fixed":
            msg = (
                f"simulation: got fixed effects for {group.name!r}; expected random or correlated."
            )
            raise SpecError(msg)
        sds = np.array([one(name) for name in sd_names(group)])
        root = np.eye(len(sds))
        if len(sds) > 1:
            prior = drawn[f"cor({group.name})"]
            assert isinstance(prior, Lkj)  # the spec allows no other
            correlation = lkj_correlation(len(sds), prior.eta, rng)
            parameters[f"cor({group.name})"] = correlation[np.tril_indices(len(sds), -1)]
            root = np.linalg.cholesky(correlation)
        normal = rng.standard_normal((len(group.levels), len(sds)))
        if group.structure != "iid":
            field, value = FIELDS[group.structure], None
            if field.parameter is not None:
                name = f"{field.parameter}({group.name})"
                value = _draw_dependence(drawn[name], field.support, rng)
                parameters[name] = np.array(value)
            normal = surface_effects(design, group, value, normal)
        parameters[f"sd({group.name})"] = sds
        parameters[f"effect({group.name})"] = normal @ root.T * sds
    space = outcome_process(spec, design)
    if space is not None:
        for name in space.parameters:
            parameters[name] = np.array(_draw_dependence(drawn[name], space.support, rng))
    if design.psi is not None:
        name = design.psi.parameter
        parameters[name] = _draw_weights(design.psi, drawn[name], rng)
    return parameters | _draw_noise(spec, design, one, rng)


def surface_effects(
    design: Design, group: GroupDesign, value: float | None, normal: np.ndarray
) -> np.ndarray:
    """Return effects of scale one that neighbors share, piece by piece, from normals (J, 1)."""
    import jax

    jax.config.update("jax_enable_x64", True)  # for the fields
    field, graph = FIELDS[group.structure], design.graph(group)
    out = np.empty_like(normal)
    for k in range(int(graph.piece.max()) + 1):
        inside = np.flatnonzero(graph.piece == k)
        adjacency = graph.adjacency[inside][:, inside].toarray()[None]
        arrays = field.prepare(adjacency, np.ones(adjacency.shape[:2], dtype=bool))
        out[inside] = np.asarray(field.root(arrays, value))[0] @ normal[inside]
    return out


def _draw_dependence(prior: Prior, support: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw a parameter of spatial dependence; a beta prior is stretched over the support."""
    if prior.distribution == "beta":
        lower, upper = support
        return float(lower + (upper - lower) * rng.beta(prior.a, prior.b))
    return _draw("a dependence", prior, rng)


def _draw_weights(psi: Combination, prior: Prior, rng: np.random.Generator) -> np.ndarray:
    """Draw the parameter of an estimated W."""
    if psi.nodes:
        return np.array(_draw_dependence(prior, psi.support, rng))
    assert isinstance(prior, Dirichlet)  # the spec allows no other
    return np.asarray(rng.dirichlet(np.full(len(psi.labels), prior.concentration)))


def lkj_correlation(size: int, eta: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a correlation matrix by the C-vine of partial correlations.

    References
    ----------
    Lewandowski, Kurowicka and Joe (2009), doi:10.1016/j.jmva.2009.04.008.
    """
    partial, matrix = np.eye(size), np.eye(size)
    shape = eta + (size - 1) / 2.0
    for k in range(size - 1):
        shape -= 0.5
        for i in range(k + 1, size):
            value = partial[k, i] = 2.0 * rng.beta(shape, shape) - 1.0
            for conditioned in range(k - 1, -1, -1):
                a, b = partial[conditioned, i], partial[conditioned, k]
                value = value * np.sqrt((1.0 - a**2) * (1.0 - b**2)) + a * b
            matrix[k, i] = matrix[i, k] = value
    return matrix


def _draw_noise(
    spec: ModelSpec, design: Design, one: Callable[[str], float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    noise = {"sigma": np.array(one("sigma"))}
    if spec.likelihood.family == "student-t":
        noise["nu"] = np.array(2.0 + one("nu"))
    if spec.likelihood.scale == "size":
        noise |= {name: np.array(one(name)) for name in ("size.share", "size.power")}
    if spec.likelihood.scale == "by-cluster":
        labels = noise_clusters(design)[1]
        spread = noise["sd(log sigma)"] = np.array(one("sd(log sigma)"))
        noise["sigma(cluster)"] = noise["sigma"] * np.exp(spread * rng.standard_normal(len(labels)))
    return noise


def _draw(name: str, prior: Prior, rng: np.random.Generator) -> float:
    match prior.distribution:
        case "normal":
            return float(rng.normal(prior.mean, prior.sd))
        case "student_t":
            return float(prior.mean + prior.sd * rng.standard_t(prior.nu))
        case "half_normal":
            return float(abs(rng.normal(0.0, prior.sd)))
        case "half_student_t":
            return float(abs(prior.sd * rng.standard_t(prior.nu)))
        case "exponential":
            return float(rng.exponential(1.0 / prior.rate))
        case "beta":
            return float(rng.beta(prior.a, prior.b))
        case "uniform":
            return float(rng.uniform(prior.lower, prior.upper))
    msg = f"prior of {name}: got {prior.describe()}, which has no draws; expected a proper prior."
    raise SpecError(msg)
