"""Gaussian Markov random fields over the levels of a group, of typical variance one.

A field is batched over pieces: independent graphs, padded to the widest with absent slots.
A slot that is alone, because it is absent or has no neighbors, is N(0, 1) in every structure.
One eigendecomposition per connected component, before sampling, leaves no factorization to
the sampler. With A the adjacency and D its degrees, ``L = D - A``. The typical variance s is
the geometric mean of the marginal variances (Sorbye & Rue, 2014,
doi:10.1016/j.spasta.2013.06.004) of a component (Freni-Sterrantino, Ventrucci & Rue, 2018,
doi:10.1016/j.sste.2018.04.002).
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple, final, override

import jax.numpy as jnp
import numpy as np
from scipy.sparse.csgraph import connected_components

from spatialclusters.errors import WeightsError

__all__ = ["FIELDS", "Bym2", "Car", "Field", "Icar", "Leroux", "Sar"]


class Field(abc.ABC):
    """A structure of effects over the levels of a group.

    Attributes
    ----------
    name
        Its key in :data:`FIELDS`.
    parameter
        Name of its parameter, None if it has none.
    support
        Ends of the open interval of the parameter.
    constrained
        Whether the effects sum to zero over every component with more than one level.

    Examples
    --------
    Two neighbors and a level without any:

    >>> adjacency = np.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    >>> field = FIELDS["bym2"]
    >>> arrays = field.prepare(adjacency, np.ones((1, 3), dtype=bool))
    >>> root = np.asarray(field.root(arrays, 0.5))[0]
    >>> (np.round(root @ root.T, 3) + 0.0).tolist()
    [[1.0, -0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    >>> precision, log_det = field.precision(arrays, 0.5)
    >>> precision.shape, round(float(log_det), 3)
    ((1, 3, 3), 0.288)
    """

    name: ClassVar[str]
    parameter: ClassVar[str | None]
    support: ClassVar[tuple[float, float]] = (0.0, 1.0)
    constrained: ClassVar[bool] = False

    @abc.abstractmethod
    def prepare(self, adjacency: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        """Decompose the graphs, once, in NumPy.

        Parameters
        ----------
        adjacency
            A, symmetric and not standardized, (pieces, m, m). Links of absent slots are ignored.
        present
            Which slots hold a level, (pieces, m).

        Returns
        -------
        dict
            What the other methods take as ``arrays``.

        Raises
        ------
        WeightsError
            A is not symmetric.
        """

    @abc.abstractmethod
    def precision(self, arrays: dict[str, Any], parameter: Any) -> tuple[Any, Any]:
        """Return Q (pieces, m, m) and log|Q| summed over pieces, in JAX.

        A constrained field comes augmented by variance one along the constant vector of
        each component: the density given zero sums is then the one with this Q and log|Q|,
        less the normal constants of as many dimensions.
        """

    @abc.abstractmethod
    def root(self, arrays: dict[str, Any], parameter: Any) -> Any:
        """Return a root F of the covariance FF', (pieces, m, m), in JAX; constraints hold."""


@final
class Icar(Field):
    r"""Intrinsic CAR: covariance :math:`L^+ / s`, where s belongs to :math:`L^+`.

    Besag, York & Mollie (1991), doi:10.1007/BF00116466.
    """

    name = "icar"
    parameter = None
    constrained = True

    @override
    def prepare(self, adjacency: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        vectors, variances = _intrinsic(_read(adjacency, present))
        augmented = np.where(variances > 0.0, variances, 1.0)[:, None, :]
        return {
            "precision": (vectors / augmented) @ vectors.swapaxes(1, 2),
            "log_det": -np.log(augmented).sum(),
            "root": vectors * np.sqrt(variances)[:, None, :],
        }

    @override
    def precision(self, arrays: dict[str, Any], parameter: Any) -> tuple[Any, Any]:
        return jnp.asarray(arrays["precision"]), jnp.asarray(arrays["log_det"])

    @override
    def root(self, arrays: dict[str, Any], parameter: Any) -> Any:
        return jnp.asarray(arrays["root"])


@final
class Bym2(Field):
    r"""BYM2: covariance :math:`(1 - \phi) I + \phi L^+ / s`, 0 < phi < 1.

    Riebler, Sorbye, Simpson & Rue (2016), doi:10.1177/0962280216660421.
    """

    name = "bym2"
    parameter = "phi"

    @override
    def prepare(self, adjacency: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        vectors, variances = _intrinsic(_read(adjacency, present))
        return {"vectors": vectors, "variances": variances}

    @override
    def precision(self, arrays: dict[str, Any], parameter: Any) -> tuple[Any, Any]:
        vectors, mixed = arrays["vectors"], self._mixed(arrays, parameter)
        return (vectors / mixed) @ vectors.swapaxes(1, 2), -jnp.log(mixed).sum()

    @override
    def root(self, arrays: dict[str, Any], parameter: Any) -> Any:
        return arrays["vectors"] * jnp.sqrt(self._mixed(arrays, parameter))

    def _mixed(self, arrays: dict[str, Any], parameter: Any) -> Any:
        """Return the eigenvalues of the covariance, (pieces, 1, m)."""
        return (1.0 - parameter + parameter * arrays["variances"])[:, None, :]


class _Proper(Field):
    r"""A structure :math:`Q(t) = Q_0 + t Q_1 + t^2 Q_2`, brought to typical variance one.

    Let :math:`C^{-1/2} L C^{-1/2} = V K V'` with a diagonal C. Then a root of the inverse of
    :math:`(1 - t) C + t L` is :math:`F = C^{-1/2} V (1 - t + t K)^{-1/2}`, and s, which depends
    on t, makes it :math:`\operatorname{diag}(s)^{1/2} Q \operatorname{diag}(s)^{1/2}`.
    """

    power: ClassVar[int] = 1  # of 1 - t + t K in Q

    @override
    def prepare(self, adjacency: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        graph = _read(adjacency, present)
        c = self._diagonal(graph)[:, :, None]
        half = 1.0 / np.sqrt(c)
        normalized = half * graph.laplacian * half.swapaxes(1, 2)
        vectors, values = _spectrum(normalized, graph.components)
        first = c * np.eye(c.shape[1])
        return {
            "terms": np.stack([first, graph.laplacian - first]),
            "left": half * vectors,
            "values": values,
            "average": graph.average,
            "log_det": np.log(c).sum(),
        }

    @override
    def precision(self, arrays: dict[str, Any], parameter: Any) -> tuple[Any, Any]:
        raw = sum(parameter**k * term for k, term in enumerate(arrays["terms"]))
        log_s = _log_scale(jnp, arrays["average"], self._root(arrays, parameter))
        half = jnp.exp(0.5 * log_s)
        log_det = arrays["log_det"] + self.power * jnp.log(self._blend(arrays, parameter)).sum()
        return half[:, :, None] * raw * half[:, None, :], log_det + log_s.sum()

    @override
    def root(self, arrays: dict[str, Any], parameter: Any) -> Any:
        raw = self._root(arrays, parameter)
        return raw * jnp.exp(-0.5 * _log_scale(jnp, arrays["average"], raw))[:, :, None]

    def _diagonal(self, graph: _Graph) -> np.ndarray:
        """Return the diagonal of C, (pieces, m)."""
        return graph.degrees

    def _blend(self, arrays: dict[str, Any], parameter: Any) -> Any:
        """Return ``1 - t + t K``, one for whoever is alone, (pieces, 1, m)."""
        return (1.0 - parameter + parameter * arrays["values"])[:, None, :]

    def _root(self, arrays: dict[str, Any], parameter: Any) -> Any:
        """Return the root before scaling."""
        return arrays["left"] * self._blend(arrays, parameter) ** (-0.5 * self.power)


@final
class Leroux(_Proper):
    r"""Leroux: precision :math:`(1 - \alpha) I + \alpha L`, scaled, 0 < alpha < 1.

    Leroux, Lei & Breslow (2000), doi:10.1007/978-1-4612-1284-3_4.
    """

    name = "leroux"
    parameter = "alpha"

    @override
    def _diagonal(self, graph: _Graph) -> np.ndarray:
        return np.ones_like(graph.degrees)


@final
class Car(_Proper):
    r"""Proper CAR: precision :math:`D - \alpha A = (1 - \alpha) D + \alpha L`, scaled.

    Negative alpha are proper too, but make neighbors unlike: we allow 0 < alpha < 1.
    Besag (1974), doi:10.1111/j.2517-6161.1974.tb00999.x.
    """

    name = "car"
    parameter = "alpha"


@final
class Sar(_Proper):
    r"""SAR: precision :math:`(I - \lambda W)'(I - \lambda W)`, :math:`W = D^{-1} A`, scaled.

    The root is :math:`D^{-1/2} V (1 - \lambda + \lambda K)^{-1} V' D^{1/2}`. Lambda is
    between -1 and 1, where every graph allows it. Dong & Harris (2015),
    doi:10.1111/gean.12049; the eigenvalues as in Ord (1975), doi:10.1080/01621459.1975.10480272.
    """

    name = "sar"
    parameter = "lambda"
    support = (-1.0, 1.0)
    power = 2

    @override
    def prepare(self, adjacency: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
        arrays = super().prepare(adjacency, present)
        degrees = arrays["terms"][0].sum(axis=2, keepdims=True)
        eye, minus_W = arrays["terms"] / degrees
        back = minus_W.swapaxes(1, 2)
        return arrays | {
            "terms": np.stack([eye, minus_W + back, back @ minus_W]),
            "right": (degrees * arrays["left"]).swapaxes(1, 2),
            "log_det": np.zeros(()),
        }

    @override
    def _root(self, arrays: dict[str, Any], parameter: Any) -> Any:
        return super()._root(arrays, parameter) @ arrays["right"]


FIELDS: dict[str, Field] = {field.name: field for field in (Icar(), Bym2(), Leroux(), Car(), Sar())}
"""Every structure by its name; independent levels need none."""


class _Graph(NamedTuple):
    """Graphs in which whoever is alone has degree one and is the whole of its component."""

    laplacian: np.ndarray  # (pieces, m, m)
    degrees: np.ndarray  # (pieces, m)
    average: np.ndarray  # (pieces, m, m): row i averages over the component of i
    components: list[tuple[int, np.ndarray]]  # piece and members, where there are several


def _read(adjacency: np.ndarray, present: np.ndarray) -> _Graph:
    """Check the graphs and find their components."""
    links = np.where(present[:, :, None] & present[:, None, :], adjacency, 0.0)
    if one_way := int((links != links.swapaxes(1, 2)).sum()):
        msg = f"weights: got {one_way} links without an equal one back; expected A = A' as it is"
        raise WeightsError(f"{msg} before rows are standardized. Correct them.")
    average = np.broadcast_to(np.eye(present.shape[1]), links.shape).copy()
    components = []
    for piece, graph in enumerate(links):
        labels = connected_components(graph, directed=False)[1]
        for label in np.flatnonzero(np.bincount(labels) > 1):
            members = np.flatnonzero(labels == label)
            components.append((piece, members))
            average[piece][np.ix_(members, members)] = 1.0 / len(members)
    degrees = links.sum(axis=2)
    degrees[degrees == 0.0] = 1.0
    laplacian = degrees[:, :, None] * np.eye(present.shape[1]) - links
    return _Graph(laplacian, degrees, average, components)


def _spectrum(
    laplacian: np.ndarray, components: list[tuple[int, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvectors (pieces, m, m), one in each column, and eigenvalues (pieces, m)."""
    vectors = np.broadcast_to(np.eye(laplacian.shape[1]), laplacian.shape).copy()
    values = np.ones(laplacian.shape[:2])
    for piece, members in components:
        block = np.ix_(members, members)
        values[piece, members], vectors[piece][block] = np.linalg.eigh(laplacian[piece][block])
        values[piece, members[0]] = 0.0  # a connected graph has one such, known without rounding
    return vectors, values


def _intrinsic(graph: _Graph) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvectors and eigenvalues of ``L^+ / s``: zero in null directions only."""
    vectors, values = _spectrum(graph.laplacian, graph.components)
    variances = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0.0)
    log_s = _log_scale(np, graph.average, vectors * np.sqrt(variances)[:, None, :])
    return vectors, variances / np.exp(log_s)


def _log_scale(xp: Any, average: Any, root: Any) -> Any:
    """Return log geometric means of marginal variances over components, (pieces, m)."""
    return xp.matvec(average, xp.log((root**2).sum(axis=2)))
