r"""Weights to be estimated: combinations of given matrices, :math:`W(\psi) = \sum_k c_k(\psi) W_k`.

The matrices are known, so every sum over rows is computed once; only the coefficients move.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse

from spatialclusters.errors import WeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Blend",
    "Combination",
    "Decay",
    "Mixture",
    "blend_from_arrays",
    "on_one_pattern",
    "standardize",
]

TOLERANCE: Final = 1e-6
"""Largest error of an entry of an interpolated W."""

_ROUNDING: Final = 1e-12  # a row sum this close to one is one
_SIZES: Final = (4, 6, 8, 11, 15, 20, 27, 36, 48, 64)  # numbers of nodes that are tried
_BETWEEN: Final = 4  # points between two nodes at which the interpolation is checked


@dataclass(frozen=True)
class Combination:
    r"""How the coefficients :math:`c_k` depend on the parameter :math:`\psi`; they sum to one.

    Without nodes :math:`\psi` are the coefficients themselves, shares on the simplex. With
    nodes it is a number, and :math:`c_k` the Lagrange polynomial that is one at node k: written
    in Chebyshev polynomials, it has a derivative everywhere.

    Attributes
    ----------
    parameter
        ``share`` or ``delta``.
    labels
        What the K matrices are called.
    nodes
        Chebyshev points on ``support``, ends included, ascending; empty for shares.
    support
        Range of the parameter.

    References
    ----------
    Trefethen (2019), Approximation Theory and Approximation Practice, chapter 3,
    doi:10.1137/1.9781611975949.

    Examples
    --------
    >>> line = Combination("delta", ("0", "1", "2"), (0.0, 1.0, 2.0), (0.0, 2.0))
    >>> (line.coefficients(0.5).round(9) + 0.0).tolist(), line.coefficients(1.0).round(9).tolist()
    ([0.375, 0.75, -0.125], [0.0, 1.0, 0.0])
    """

    parameter: str
    labels: tuple[str, ...]
    nodes: tuple[float, ...] = ()
    support: tuple[float, float] = (0.0, 1.0)

    def coefficients(self, psi: Any, xp: Any = np) -> Any:
        """Return c in the shape of ``psi`` and one more axis for k (or psi, if these are shares)."""
        psi = xp.asarray(psi)
        if not self.nodes:
            return psi
        low, high = self.support
        x = (2.0 * psi - low - high) / (high - low)
        polynomials = [xp.ones_like(x), x]
        for _ in range(len(self.nodes) - 2):
            polynomials.append(2.0 * x * polynomials[-1] - polynomials[-2])
        return xp.stack(polynomials, axis=-1) @ self._transform

    @cached_property
    def _transform(self) -> NDArray[np.float64]:
        """Chebyshev coefficients (row) of each Lagrange polynomial (column)."""
        n = len(self.nodes) - 1
        k = np.arange(n + 1)
        half = np.where((k == 0) | (k == n), 0.5, 1.0)
        return np.asarray(2.0 / n * np.outer(half, half) * np.cos(np.pi * np.outer(k, n - k) / n))

    def to_json(self) -> str:
        """Return the text that :meth:`from_json` reads."""
        names = ("parameter", "labels", "nodes", "support")
        return json.dumps({name: getattr(self, name) for name in names})

    @classmethod
    def from_json(cls, text: str) -> Combination:
        """Return the combination that :meth:`to_json` wrote."""
        found = json.loads(text)
        return cls(
            str(found["parameter"]),
            tuple(map(str, found["labels"])),
            tuple(map(float, found["nodes"])),
            (float(found["support"][0]), float(found["support"][1])),
        )


@dataclass(frozen=True, eq=False)
class Mixture:
    """Shares of several given matrices.

    A row that is empty in one of the matrices passes nothing on for that one's share, so rows
    sum to one only where every matrix has neighbors.

    Attributes
    ----------
    labels
        Kinds of the matrices.
    matrices
        Row-standardized, over the same regions.

    References
    ----------
    Debarsy and LeSage (2018), Flexible dependence modeling using convex combinations of
    different types of connectivity structures, Regional Science and Urban Economics 69.
    """

    labels: tuple[str, ...]
    matrices: tuple[sparse.csr_array, ...]

    @property
    def combination(self) -> Combination:
        """How the matrices combine."""
        return Combination("share", self.labels)

    def reference(self) -> sparse.csr_array:
        """Return the mixture with equal shares, its rows standardized."""
        return standardize(sparse.csr_array(sum(self.matrices) / len(self.matrices)))

    def restricted(self, restrict: Callable[[sparse.csr_array], sparse.csr_array]) -> Mixture:
        """Return the mixture of the restricted matrices, standardized again."""
        parts = (standardize(restrict(matrix)) for matrix in self.matrices)
        return Mixture(self.labels, tuple(map(_canonical, parts)))

    @property
    def partial(self) -> NDArray[np.int64]:
        """Rows that are empty in some of the matrices, but not in all."""
        empty = np.stack([np.diff(matrix.indptr) == 0 for matrix in self.matrices])
        return np.flatnonzero(empty.any(axis=0) & ~empty.all(axis=0))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over labels and matrices."""
        return _digest(json.dumps(self.labels), *self.matrices)

    def describe(self) -> dict[str, object]:
        """Return what a summary shows, as plain values."""
        names = ", ".join(self.labels)
        text = f"W is estimated: shares of {names}. What is shown of W is that of equal shares."
        return {"parameter": "share", "labels": list(self.labels), "text": text}

    def to_arrays(self) -> tuple[dict[str, tuple[tuple[str, ...], Any]], dict[str, Any]]:
        """Return variables of a dataset, as dims and values, and plain attributes."""
        pattern, values = on_one_pattern(self.matrices)
        return _pairs(pattern) | {"basis_weight": (("basis", "pair"), values)}, {
            "kind": "mixture",
            "labels": list(self.labels),
        }


@dataclass(frozen=True, eq=False)
class Decay:
    r"""Weights that fall with distance, :math:`w_{ij} \propto d_{ij}^{-\delta}` or :math:`e^{-\delta d_{ij}}`.

    Rows sum to one. Between the Chebyshev nodes of its range W is interpolated; their number
    is the smallest tried with which no entry is off by more than 1e-6 halfway between nodes
    and around.

    Attributes
    ----------
    form
        ``power`` or ``exponential``.
    distances
        d within the cutoff, in units of ``unit_km``, over pairs of regions.
    cutoff_km, unit_km
        Largest distance of neighbors, and the median distance to the nearest region.
    support
        Range of :math:`\delta`.
    size
        Number of nodes; 0 chooses it.

    Raises
    ------
    WeightsError
        64 nodes are too few: the distances span too much for this range.

    References
    ----------
    Halleck Vega and Elhorst (2015), doi:10.1111/jors.12188.

    Examples
    --------
    >>> line = sparse.csr_array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> decay = Decay("power", line, cutoff_km=20.0, unit_km=10.0, support=(0.0, 2.0))
    >>> decay.weights(1.0).toarray().round(3).tolist()[0], decay.error < 1e-6
    ([0.0, 0.667, 0.333], True)
    """

    form: str
    distances: sparse.csr_array
    cutoff_km: float
    unit_km: float
    support: tuple[float, float]
    size: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "distances", _canonical(self.distances))
        if self.size:
            return
        for size in _SIZES:
            if self._error(size) <= TOLERANCE:
                object.__setattr__(self, "size", size)
                return
        low, high = self.support
        msg = (
            f"decay-{self.form} weights: got distances of {self.distances.data.min():.3g} to "
            f"{self.distances.data.max():.3g} units of {self.unit_km:.6g} km for delta in "
            f"({low:g}, {high:g}); expected W to be smooth enough in delta for {_SIZES[-1]} nodes."
        )
        raise WeightsError(f"{msg} Choose a smaller cutoff or a narrower range.")

    @property
    def combination(self) -> Combination:
        """How the matrices combine."""
        return self._combination(self.size)

    @cached_property
    def error(self) -> float:
        """Largest error of an entry between nodes."""
        return self._error(self.size, stop=False)

    @cached_property
    def matrices(self) -> tuple[sparse.csr_array, ...]:
        """W at every node."""
        return tuple(map(self.weights, self.combination.nodes))

    def weights(self, delta: float) -> sparse.csr_array:
        """Return W at a value of delta, not interpolated."""
        return self._like(self._values(delta))

    def reference(self) -> sparse.csr_array:
        """Return W in the middle of the range."""
        return self.weights(0.5 * sum(self.support))

    def restricted(self, restrict: Callable[[sparse.csr_array], sparse.csr_array]) -> Decay:
        """Return the decay over fewer pairs, its rows summing to one again."""
        inside = restrict(self.distances)
        return Decay(self.form, inside, self.cutoff_km, self.unit_km, self.support)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over distances and how weights depend on them."""
        return _digest(json.dumps(self._attributes(), sort_keys=True), self.distances)

    def describe(self) -> dict[str, object]:
        """Return what a summary shows, as plain values."""
        low, high = self.support
        weight = "d^-delta" if self.form == "power" else "exp(-delta d)"
        text = (
            f"W is estimated: weights {weight} within {self.cutoff_km:g} km, delta in ({low:g}, "
            f"{high:g}), d in units of {self.unit_km:.4g} km (median distance to the nearest "
            f"region); interpolated between {self.size} nodes, entries within {self.error:.1g}. "
            f"What is shown of W is that of delta = {0.5 * (low + high):g}."
        )
        facts = {**self._attributes(), "parameter": "delta", "error": self.error, "text": text}
        return dict(facts)

    def to_arrays(self) -> tuple[dict[str, tuple[tuple[str, ...], Any]], dict[str, Any]]:
        """Return variables of a dataset, as dims and values, and plain attributes."""
        arrays = _pairs(self.distances) | {"distance": (("pair",), self.distances.data)}
        return arrays, {"kind": "decay"} | self._attributes()

    def _attributes(self) -> dict[str, Any]:
        names = ("form", "cutoff_km", "unit_km", "size")
        return {name: getattr(self, name) for name in names} | {"support": list(self.support)}

    def _combination(self, size: int) -> Combination:
        low, high = self.support
        steps = np.cos(np.pi * np.arange(size - 1, -1, -1) / (size - 1))
        nodes = tuple((0.5 * (low + high) + 0.5 * (high - low) * steps).tolist())
        return Combination("delta", tuple(f"{node:.6g}" for node in nodes), nodes, self.support)

    @cached_property
    def _decline(self) -> NDArray[np.float64]:
        """What delta multiplies, zero for the nearest region of each row."""
        own = self.distances.data
        own = np.log(own) if self.form == "power" else own
        filled = np.flatnonzero(np.diff(self.distances.indptr))
        least = np.zeros(self.distances.shape[0])
        if len(own):
            least[filled] = np.minimum.reduceat(own, self.distances.indptr[filled])
        return np.asarray(own - least[self._rows])

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(self.distances.shape[0]), np.diff(self.distances.indptr))

    def _values(self, delta: float) -> NDArray[np.float64]:
        raw = np.exp(-delta * self._decline)
        return np.asarray(raw / np.bincount(self._rows, raw)[self._rows] if len(raw) else raw)

    def _like(self, values: NDArray[np.float64]) -> sparse.csr_array:
        shape = self.distances.shape
        return sparse.csr_array((values, self.distances.indices, self.distances.indptr), shape)

    def _error(self, size: int, *, stop: bool = True) -> float:
        """Return the largest error between nodes, or one that is too large already."""
        if not self.distances.nnz:
            return 0.0
        combination, worst = self._combination(size), 0.0
        table = np.stack([self._values(node) for node in combination.nodes])
        n = (size - 1) * _BETWEEN
        angles = np.pi * (np.arange(n) + 0.5) / n
        low, high = self.support
        for x in np.cos(angles):
            delta = 0.5 * (low + high) + 0.5 * (high - low) * x
            wrong = np.abs(combination.coefficients(delta) @ table - self._values(delta)).max()
            worst = max(worst, float(wrong))
            if stop and worst > TOLERANCE:
                break
        return worst


Blend = Mixture | Decay


def blend_from_arrays(
    arrays: Mapping[str, Any], attributes: Mapping[str, Any], n: int
) -> Mixture | Decay:
    """Return the blend that ``to_arrays`` wrote, over n regions."""
    at = arrays["pair_focal"], arrays["pair_neighbor"]
    if attributes["kind"] == "mixture":
        parts = [
            _canonical(sparse.csr_array((w, at), shape=(n, n))) for w in arrays["basis_weight"]
        ]
        return Mixture(tuple(map(str, attributes["labels"])), tuple(parts))
    low, high = map(float, attributes["support"])
    return Decay(
        str(attributes["form"]),
        sparse.csr_array((arrays["distance"], at), shape=(n, n)),
        float(attributes["cutoff_km"]),
        float(attributes["unit_km"]),
        (low, high),
        int(attributes["size"]),
    )


def on_one_pattern(
    matrices: Sequence[sparse.csr_array],
) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Return where any of the matrices has an entry, and the entries of each there, (K, links)."""
    n = matrices[0].shape[0]
    links = [matrix.tocoo() for matrix in matrices]
    keys = [link.row.astype(np.int64) * n + link.col for link in links]
    every = np.unique(np.concatenate(keys))
    values = np.zeros((len(matrices), len(every)))
    for own, key, link in zip(values, keys, links, strict=True):
        own[np.searchsorted(every, key)] = link.data
    pattern = sparse.csr_array((np.ones(len(every)), (every // n, every % n)), shape=(n, n))
    return pattern, values


def standardize(matrix: sparse.csr_array) -> sparse.csr_array:
    """Divide rows by their sums; rows that sum to one already keep their bits."""
    sums = matrix.sum(axis=1)
    done = (sums == 0) | (abs(sums - 1) < _ROUNDING)
    return sparse.csr_array(sparse.diags_array(1 / np.where(done, 1.0, sums)) @ matrix)


def _canonical(matrix: sparse.csr_array) -> sparse.csr_array:
    out = sparse.csr_array(matrix, dtype=np.float64, copy=True)
    out.sum_duplicates()
    out.eliminate_zeros()
    return out


def _pairs(pattern: sparse.csr_array) -> dict[str, tuple[tuple[str, ...], Any]]:
    links = pattern.tocoo()
    return {
        "pair_focal": (("pair",), links.row.astype(int)),
        "pair_neighbor": (("pair",), links.col.astype(int)),
    }


def _digest(text: str, *matrices: sparse.csr_array) -> str:
    found = hashlib.sha256(text.encode())
    for matrix in matrices:
        for part, kind in (("indptr", "<i8"), ("indices", "<i8"), ("data", "<f8")):
            found.update(getattr(matrix, part).astype(kind).tobytes())
    return found.hexdigest()
