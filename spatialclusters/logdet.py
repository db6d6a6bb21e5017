r"""What is known of log|I - rho W| for one W or a combination, and of sums over (I - rho W)^-1.

W is analyzed once (:func:`spectrum`); each rho then costs O(n). Functions of rho with an
argument ``xp``, NumPy or ``jax.numpy``, are NaN outside the support.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.polynomial.chebyshev import chebder, chebinterpolate, chebval
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import eigs, splu

from spatialclusters.errors import WeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DenseDeterminant",
    "Spectrum",
    "dense_determinant",
    "log_determinant",
    "spectrum",
    "total",
    "trace_inverse",
    "trace_lag",
]

EXACT = 2000
"""Regions in the largest component whose eigenvalues are computed."""

_CUT: Final = 1e-3  # with larger components, |rho| stays below (1 - _CUT) / radius
_HALF: Final = math.atanh(1 - _CUT)
_TOLERANCE: Final = 1e-11  # what the degree of an interpolation is chosen for
_AGREEMENT: Final = 1e-10  # relative: what a total must reach
_ROUNDING: Final = 1e-12  # relative: what differs by less is equal
_ORDERS: Final = 6
_REMEMBERED: Final = 4  # matrices
_BLOCK: Final = 1 << 16  # numbers that are computed at once: half a megabyte


@dataclass(frozen=True, eq=False)
class Spectrum:
    r"""Eigenvalues of W; where components are large, an interpolation instead.

    .. math:: \log|I - \rho W| = \sum_i \log|1 - \rho\lambda_i| + \sum_k c_k T_k(t/h),
        \quad t = \tanh^{-1}(\rho r),\ h = \tanh^{-1}(1 - 10^{-3})

    In t the function is analytic for :math:`|\Im t| < \pi/2` (:math:`\pi/4` if eigenvalues are
    complex), up to the ends of the support: the second sum converges geometrically.

    Attributes
    ----------
    matrix
        W, shape (n, n).
    radius
        Spectral radius r, to 1e-6 where components are large. With links but no circle of
        links r is 0, the determinant 1 for every rho, and the largest row sum stands in.
    lower, upper
        Open support of rho: :math:`\pm 1/r`, times :math:`1 - 10^{-3}` with interpolation.
    eigenvalues
        Of all components with at most ``EXACT`` regions, complex, shape (m,).
    coefficients
        :math:`c_k`, for the larger components; empty if there are none.
    error
        Largest error of the log determinant found between nodes, plus the last
        two coefficients; 0 without interpolation.
    power_traces
        :math:`\mathrm{tr}(W^k)` for k = 0 to 6, shape (7,).

    References
    ----------
    Trefethen (2019), Approximation Theory and Approximation Practice, chapter 8,
    doi:10.1137/1.9781611975949.
    """

    matrix: sparse.csr_array
    radius: float
    lower: float
    upper: float
    eigenvalues: NDArray[np.complex128]
    coefficients: NDArray[np.float64]
    error: float
    power_traces: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of regions."""
        return int(self.matrix.shape[0])

    @property
    def trace_error(self) -> float:
        """Bound on the error of ``trace_inverse / n``: that of a derivative, after Markov."""
        return len(self.coefficients) ** 2 * self.error / (2 * _CUT * _HALF * self.n)


def spectrum(W: sparse.csr_array) -> Spectrum:
    r"""Analyze W, shape (n, n): nonnegative, rows may be empty or sum to anything.

    The eigenvalues of W are those of its strongly connected components. They are real if
    :math:`d_i w_{ij} = d_j w_{ji}` for some d > 0, as where rows of a symmetric matrix were
    standardized (Ord 1975): the numbers are checked for that. The last few matrices are
    remembered: models that are compared share their W.

    Raises
    ------
    WeightsError
        W is not square, has negative, infinite or diagonal weights, or no link at all.

    References
    ----------
    Ord (1975), doi:10.1080/01621459.1975.10480272.

    Examples
    --------
    >>> pair = spectrum(sparse.csr_array([[0.0, 1.0], [1.0, 0.0]]))
    >>> pair.lower, pair.upper, pair.eigenvalues.real.round(9).tolist()
    (-1.0, 1.0, [-1.0, 1.0])
    """
    matrix = _checked(W)
    numbers = (part.tobytes() for part in (matrix.data, matrix.indices, matrix.indptr))
    return _analyzed(_Key((EXACT, *numbers), matrix))


@dataclass(frozen=True)
class _Key:
    """A matrix as an argument that is remembered: equal to another with the same numbers."""

    content: tuple[int | bytes, ...]
    matrix: sparse.csr_array = field(compare=False)


@lru_cache(maxsize=_REMEMBERED)
def _analyzed(key: _Key) -> Spectrum:
    matrix = key.matrix
    labels = csgraph.connected_components(matrix, connection="strong")[1]
    # stable: the columns of a component stay sorted
    sizes, order = np.bincount(labels), np.argsort(labels, kind="stable")
    together, ends = matrix[order][:, order], np.cumsum(sizes)
    values = [np.zeros(np.count_nonzero(sizes == 1), dtype=np.complex128)]
    large, roots, strip = [], [0.0], math.pi / 2
    for end, size in zip(ends[sizes > 1], sizes[sizes > 1], strict=True):
        block = together[end - size : end, end - size : end]
        similar, real = _similar(block)
        if size <= EXACT:
            values.append(_eigenvalues(similar, real))
            roots.append(float(values[-1].real.max()))
        else:
            large.append(similar)
            roots.append(_perron(block, similar))
            strip = strip if real else math.pi / 4
    radius = max(roots) or float(matrix.sum(axis=1).max())
    radius = 1.0 if abs(radius - 1) <= _ROUNDING else radius
    upper, coefficients, error = 1 / radius, np.empty(0), 0.0
    eigenvalues = np.concatenate(values)
    traces = (eigenvalues[:, None] ** np.arange(_ORDERS + 1)).sum(axis=0).real
    if large:
        rest = sparse.block_diag(large, format="csr")
        traces, upper = traces + _power_traces(rest), (1 - _CUT) / radius
        coefficients, error = _interpolated(rest, radius, strip)
    return Spectrum(matrix, radius, -upper, upper, eigenvalues, coefficients, error, traces)


def log_determinant(spectrum: Spectrum, rho: Any, xp: Any = np) -> Any:
    r"""Return :math:`\log|I - \rho W|` in the shape of ``rho``.

    Examples
    --------
    >>> pair = spectrum(sparse.csr_array([[0.0, 1.0], [1.0, 0.0]]))
    >>> log_determinant(pair, np.array([0.0, 0.6])).round(6).tolist()  # log(1 - rho^2)
    [0.0, -0.446287]
    """
    re, im = spectrum.eigenvalues.real, spectrum.eigenvalues.imag
    rho = _inside(spectrum, rho, xp)

    def exact(r: Any) -> Any:
        return xp.sum(xp.log((1 - r * re) ** 2 + (r * im) ** 2), axis=-1) / 2

    value = _at_each(exact, rho, len(re), xp)
    if not spectrum.coefficients.size:
        return value
    return value + chebval(xp.arctanh(rho * spectrum.radius) / _HALF, spectrum.coefficients)


def trace_lag(spectrum: Spectrum, rho: Any, xp: Any = np) -> Any:
    r"""Return :math:`\mathrm{tr}\,W(I - \rho W)^{-1} = -d\log|I - \rho W|/d\rho`, shaped as ``rho``.

    Examples
    --------
    >>> pair = spectrum(sparse.csr_array([[0.0, 1.0], [1.0, 0.0]]))
    >>> trace_lag(pair, np.array([0.0, 0.5])).round(6).tolist()  # 2 rho / (1 - rho^2)
    [0.0, 1.333333]
    """
    re, im = spectrum.eigenvalues.real, spectrum.eigenvalues.imag
    square, rho = re**2 + im**2, _inside(spectrum, rho, xp)

    def exact(r: Any) -> Any:
        return xp.sum((re - r * square) / ((1 - r * re) ** 2 + (r * im) ** 2), axis=-1)

    value = _at_each(exact, rho, len(re), xp)
    if not spectrum.coefficients.size:
        return value
    scaled = rho * spectrum.radius
    slope = chebval(xp.arctanh(scaled) / _HALF, chebder(spectrum.coefficients)) / _HALF
    return value - slope * spectrum.radius / (1 - scaled**2)


def trace_inverse(spectrum: Spectrum, rho: Any, xp: Any = np) -> Any:
    r"""Return :math:`\mathrm{tr}\,(I - \rho W)^{-1}`: n times the direct impact of a unit coefficient.

    References
    ----------
    LeSage and Pace (2009), doi:10.1201/9781420064254.

    Examples
    --------
    >>> pair = spectrum(sparse.csr_array([[0.0, 1.0], [1.0, 0.0]]))
    >>> trace_inverse(pair, np.array([0.0, 0.5])).round(6).tolist()  # 2 / (1 - rho^2)
    [2.0, 2.666667]
    """
    return spectrum.n + rho * trace_lag(spectrum, rho, xp)


def total(
    spectrum: Spectrum,
    rho: Any,
    left: NDArray[np.float64] | None = None,
    right: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    r"""Return :math:`u'(I - \rho W)^{-1}v`, shaped as ``rho``; u and v, shape (n,), default to ones.

    It is :math:`u'v/(1 - \rho)` if :math:`Wv = v`, as where all rows sum to one. Otherwise few
    values of rho are solved for; many are interpolated over their range in
    :math:`\tanh^{-1}(\rho r)`, at more and more nodes until solutions between them agree.

    Raises
    ------
    WeightsError
        A value of rho is not inside the support.

    Examples
    --------
    >>> chain = spectrum(sparse.csr_array([[0.0, 1.0], [0.0, 0.0]]))
    >>> total(chain, np.array([0.0, 0.5])).tolist()  # 2 + rho, not 2 / (1 - rho)
    [2.0, 2.5]
    """
    W, radius = spectrum.matrix, spectrum.radius
    u, v = (np.ones(spectrum.n) if given is None else given for given in (left, right))
    distinct, place = np.unique(rho, return_inverse=True)
    if not ((spectrum.lower < distinct) & (distinct < spectrum.upper)).all():
        msg = f"rho: got values from {distinct[0]} to {distinct[-1]}; expected values inside "
        raise WeightsError(f"{msg}({spectrum.lower}, {spectrum.upper}). Correct them.")
    if np.abs(W @ v - v).max() <= 1e-14 * np.abs(v).max():
        return np.asarray(u @ v / (1 - np.asarray(rho)))
    t = np.arctanh(distinct * radius)
    middle, half = (t[0] + t[-1]) / 2, max((t[-1] - t[0]) / 2, 1e-3)

    def solved(rho: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([u @ _factored(W, each).solve(v) for each in rho])

    def damped(x: NDArray[np.float64]) -> Any:
        scaled = np.tanh(middle + half * x)  # 1 - scaled^2 takes away the poles at 1/r and -1/r
        return solved(scaled / radius) * (1 - scaled**2)

    degree = _degree(1 / _TOLERANCE, math.pi / 4, half)
    while degree < len(distinct):
        coefficients, exact, wrong = _chebyshev(damped, degree)
        if (np.abs(wrong) <= _AGREEMENT * np.abs(exact)).all():
            smooth = chebval((t - middle) / half, coefficients)
            return np.asarray((smooth / (1 - np.tanh(t) ** 2))[place])
        degree *= 2
    return np.asarray(solved(distinct)[place])


@dataclass(frozen=True, eq=False)
class DenseDeterminant:
    r"""Log determinants of :math:`I - \rho \sum_k c_k W_k`: dense, component by component.

    Strongly connected components are padded to those of similar size and factored together.

    Attributes
    ----------
    shapes
        By bucket, number of components and their padded size.
    index
        By bucket, where entries stand in its flat array (components, size, size).
    values
        By bucket, entries of the K matrices, (K, entries).
    """

    shapes: tuple[tuple[int, int], ...]
    index: tuple[NDArray[np.int64], ...]
    values: tuple[NDArray[np.float64], ...]

    def log_determinant(
        self, rho: Any, c: Any, xp: Any = np, values: Sequence[Any] | None = None
    ) -> Any:
        """Return the log of the absolute determinant.

        Parameters
        ----------
        rho
            A number.
        c
            The K coefficients.
        xp
            NumPy or ``jax.numpy``.
        values
            Stands in for ``values``, where these are an argument of a compiled function.
        """
        out = xp.zeros(())
        given = self.values if values is None else values
        for (count, size), index, entries in zip(self.shapes, self.index, given, strict=True):
            flat, data = xp.zeros(count * size * size), -rho * (c @ entries)
            if xp is np:
                flat[index] = data
            else:
                flat = flat.at[index].set(data, unique_indices=True)
            out = out + xp.linalg.slogdet(xp.eye(size) + flat.reshape(count, size, size))[1].sum()
        return out


def dense_determinant(pattern: sparse.csr_array, values: NDArray[np.float64]) -> DenseDeterminant:
    """Lay out log determinants of combinations of K matrices with entries on one pattern.

    Parameters
    ----------
    pattern
        Where any of them has an entry, (n, n).
    values
        The entries, (K, entries).

    Examples
    --------
    >>> pair = sparse.csr_array([[0.0, 1.0], [1.0, 0.0]])
    >>> both = dense_determinant(pair, np.array([[1.0, 1.0], [0.5, 0.5]]))
    >>> round(float(both.log_determinant(0.8, np.array([0.5, 0.5]))), 6)  # log(1 - 0.6^2)
    -0.446287
    """
    labels = csgraph.connected_components(pattern, connection="strong")[1]
    sizes = np.bincount(labels)
    # of one bucket are sizes within a quarter of each other; who is alone has determinant one
    grade = np.ceil(np.log(np.maximum(sizes, 1)) / math.log(1.25)).astype(int)
    order = np.argsort(labels, kind="stable")
    position = np.empty(len(labels), dtype=np.int64)
    position[order] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row, column = pattern.tocoo().row, pattern.tocoo().col
    inside = labels[row] == labels[column]
    shapes, index, kept = [], [], []
    for each in np.unique(grade[sizes > 1]):
        chosen = np.flatnonzero((grade == each) & (sizes > 1))
        slot = np.full(len(sizes), -1)
        slot[chosen] = np.arange(len(chosen))
        mine = inside & (slot[labels[row]] >= 0)
        size = int(sizes[chosen].max())
        at = slot[labels[row[mine]]] * size + position[row[mine]]
        shapes.append((len(chosen), size))
        index.append(np.asarray(at * size + position[column[mine]], dtype=np.int64))
        kept.append(values[:, mine])
    return DenseDeterminant(tuple(shapes), tuple(index), tuple(kept))


def _checked(W: sparse.csr_array) -> sparse.csr_array:
    matrix = sparse.csr_array(W, dtype=np.float64, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    square = matrix.shape[0] == matrix.shape[1]
    numbers = np.isfinite(matrix.data).all() and (matrix.data > 0).all()
    if not (square and numbers and matrix.nnz) or matrix.diagonal().any():
        got = f"shape {matrix.shape}, {matrix.nnz} links"
        got += f" from {matrix.data.min()} to {matrix.data.max()}" if matrix.nnz else ""
        msg = f"log|I - rho W|: got {got}; expected a square W, w >= 0, diag(W) = 0, and a link,"
        raise WeightsError(f"{msg} without which rho changes nothing. Correct the weights.")
    return matrix


def _inside(spectrum: Spectrum, rho: Any, xp: Any) -> Any:
    return xp.where((rho > spectrum.lower) & (rho < spectrum.upper), rho, xp.nan)


def _at_each(function: Any, rho: Any, terms: int, xp: Any) -> Any:
    """Return sums over ``terms`` numbers, of a function of rho, at every rho."""
    if xp is not np:
        return xp.vectorize(function)(rho)
    flat = np.ravel(rho)
    # an array (draws, n) may not fit into memory: some rows of it at a time do
    pieces = np.array_split(flat, math.ceil(flat.size * terms / _BLOCK) or 1)
    return np.concatenate([function(piece[:, None]) for piece in pieces]).reshape(np.shape(rho))


def _similar(block: sparse.csr_array) -> tuple[sparse.csr_array, bool]:
    r"""Return :math:`D^{1/2} W D^{-1/2} = (\sqrt{w_{ij}w_{ji}})` if symmetric for some D, else W."""
    back, pattern = block.T.tocsr(), (block.indices, block.indptr)
    if not all(map(np.array_equal, pattern, (back.indices, back.indptr))):
        return block, False
    ratio = np.log(block.data) - np.log(back.data)  # log d_j - log d_i, if d exists
    order, parent = csgraph.breadth_first_order(block, 0)
    nodes, above = order[1:], parent[order[1:]]
    steps, log_d = sparse.csr_array((ratio, *pattern))[above, nodes], np.zeros(len(order))
    for node, origin, step in zip(nodes, above, steps, strict=True):
        log_d[node] = log_d[origin] + step
    found = log_d[block.indices] - np.repeat(log_d, np.diff(block.indptr))
    if np.abs(ratio - found).max() > _ROUNDING:
        return block, False
    return sparse.csr_array((np.sqrt(block.data * back.data), *pattern)), True


def _eigenvalues(block: sparse.csr_array, symmetric: bool) -> NDArray[np.complex128]:
    dense = block.toarray()
    return (np.linalg.eigvalsh(dense) if symmetric else np.linalg.eigvals(dense)).astype(complex)


def _perron(block: sparse.csr_array, similar: sparse.csr_array) -> float:
    if np.abs(block.sum(axis=1) - 1).max() <= _ROUNDING:
        return 1.0
    start = np.ones(block.shape[0])  # by default it is random
    root = eigs(similar, 1, which="LR", v0=start, tol=1e-6, return_eigenvectors=False)
    return float(root[0].real)


def _factored(W: sparse.csr_array, rho: float, ordering: str = "MMD_AT_PLUS_A") -> Any:
    """Factor I - rho W: an H-matrix if |rho| < 1/r, with positive pivots on the diagonal."""
    return splu(
        (sparse.eye_array(W.shape[0]) - rho * W).tocsc(),
        permc_spec=ordering,
        diag_pivot_thresh=0.0,
        panel_size=1,  # factors of maps are too sparse for wider panels to pay
        options={"SymmetricMode": True},
    )


def _degree(accuracy: float, strip: float, half: float) -> int:
    """Return where exp(-k asinh(strip/half)), the fall of the coefficients, is 1/accuracy."""
    return math.ceil(math.log(accuracy) / math.asinh(strip / half))


def _chebyshev(function: Any, degree: int) -> tuple[NDArray[np.float64], ...]:
    """Interpolate on [-1, 1]; return coefficients, and values and errors between nodes."""
    coefficients = chebinterpolate(function, degree)
    between = np.cos(np.pi * np.linspace(0, degree, 12).round() / degree)
    exact = function(between)
    return coefficients, exact, chebval(between, coefficients) - exact


def _interpolated(
    W: sparse.csr_array, radius: float, strip: float
) -> tuple[NDArray[np.float64], float]:
    # the order of elimination depends on the links alone: it is found once for all rho
    order = np.argsort(_factored(W, 0.5 / radius).perm_c)
    ordered = W[order][:, order]

    def exact(x: NDArray[np.float64]) -> NDArray[np.float64]:
        factors = (_factored(ordered, rho, "NATURAL") for rho in np.tanh(_HALF * x) / radius)
        return np.array([np.log(each.U.diagonal()).sum() for each in factors])

    # coefficients are at most 4n times the fall
    degree = _degree(4 * W.shape[0] / _TOLERANCE, strip, _HALF)
    coefficients, _, wrong = _chebyshev(exact, degree)
    return coefficients, float(np.abs(wrong).max() + np.abs(coefficients[-2:]).sum())


def _power_traces(W: sparse.csr_array) -> NDArray[np.float64]:
    powers = [sparse.eye_array(W.shape[0]).tocsr(), W]
    while 2 * len(powers) <= _ORDERS + 1:
        powers.append(powers[-1] @ W)
    return np.array(
        [powers[k // 2].multiply(powers[k - k // 2].T).sum() for k in range(_ORDERS + 1)]
    )
