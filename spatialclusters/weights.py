"""A neighbor list -> Weights: who is whose neighbor, and how much.

Ids meet only in :func:`align`; the rest works on positions in ``regions``. A region
without neighbors (an isolate) keeps an empty row and is reported, never given
neighbors; in a file it is a row ``region_i = region_j`` of weight 0, as in libpysal.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from spatialclusters.blends import Blend, Mixture, blend_from_arrays, standardize
from spatialclusters.errors import WeightsError, counted, listing, suggestion
from spatialclusters.tables import LARGEST, out_of_range, read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = [
    "Weights",
    "align",
    "build_weights",
    "from_graph",
    "mix_weights",
    "read_weights",
]

_MOST_MIXED = 4


@dataclass(frozen=True, eq=False)
class Weights:
    r"""Spatial weights W, sparse (n, n), with the ids of its rows and columns.

    Rows are standardized as :math:`w_{ij} = a_{ij} / \sum_k a_{ik}`, or left as
    :math:`a_{ij}`; :math:`w_{ii} = 0`. ``matrix`` is canonical: sorted, no stored zeros.
    With a ``blend`` W is estimated, and ``matrix`` one of its values: the reference, which is
    used wherever a model does not estimate W.

    Raises
    ------
    WeightsError
        An id repeats or is not text, the shape is wrong, a weight is negative, not
        finite or on the diagonal, or rows do not sum to one as said.

    References
    ----------
    Anselin, L. (1988). Spatial Econometrics. doi:10.1007/978-94-015-7799-1

    Examples
    --------
    >>> table = pd.DataFrame({"region_i": ["a", "b", "b"], "region_j": ["b", "a", "c"]})
    >>> weights = read_weights(table)
    >>> weights.matrix.toarray().tolist(), weights.isolates, weights.symmetric
    ([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]], ('c',), False)
    """

    regions: tuple[str, ...]
    matrix: sparse.csr_array
    kind: str
    row_standardized: bool
    notes: tuple[str, ...] = ()
    blend: Blend | None = None

    def __post_init__(self) -> None:
        given: Any = self.matrix
        matrix = given.astype(np.float64, copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        regions, n = _ids(self.regions, "weights"), len(self.regions)
        own, sums = np.flatnonzero(matrix.diagonal()), matrix.sum(axis=1)
        for wrong, got, expected in (
            (matrix.shape != (n, n), f"a {matrix.shape} matrix", f"{n} x {n}"),
            (len(own), f"diagonal weights of {listing(regions[i] for i in own)}", "diag(W) = 0"),
            (not (np.isfinite(matrix.data) & (matrix.data > 0)).all(), "bad numbers", "w >= 0"),
            (
                self.blend is not None and not self.row_standardized,
                "a blend of raw weights",
                "standardized",
            ),
            (
                self.row_standardized and not (np.isclose(sums, 1, rtol=1e-9) | (sums == 0)).all(),
                "rows that do not sum to one",
                "row-standardized weights",
            ),
        ):
            if wrong:
                raise WeightsError(f"weights: got {got}; expected {expected}. Correct them.")
        object.__setattr__(self, "regions", regions)
        object.__setattr__(self, "matrix", matrix)

    def __repr__(self) -> str:
        scale = "row-standardized" if self.row_standardized else "as given"
        alone = f"{len(self.isolates)} without neighbors"
        return f"Weights({self.kind}, {scale}; {len(self.regions):,} regions, {self.n_links:,} links, {alone})"

    @property
    def n_links(self) -> int:
        """Number of directed links."""
        return int(self.matrix.nnz)

    @cached_property
    def neighbors(self) -> NDArray[np.int64]:
        """Number of neighbors of each region, shape (n,)."""
        return np.asarray(np.diff(self.matrix.indptr), dtype=np.int64)

    @property
    def mean_neighbors(self) -> float:
        """Links per region, isolates included."""
        return float(self.neighbors.mean()) if self.regions else 0.0

    @property
    def isolates(self) -> tuple[str, ...]:
        """Regions without neighbors (empty rows)."""
        return tuple(self.regions[i] for i in np.flatnonzero(self.neighbors == 0))

    @cached_property
    def components(self) -> NDArray[np.int64]:
        """Label of each region's component, links taken in both directions, shape (n,)."""
        labels = sparse.csgraph.connected_components(self.matrix, connection="weak")[1]
        return np.asarray(labels, dtype=np.int64)

    @property
    def n_components(self) -> int:
        """Number of components; an isolate that nobody links to is one."""
        return len(np.unique(self.components))

    @cached_property
    def symmetric(self) -> bool:
        """Whether every link has a counterpart, of whatever weight."""
        return _one_way(self.matrix) == 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over regions and matrix, whatever the order in which links came."""
        text = hashlib.sha256(json.dumps(self.regions).encode())
        for part, kind in (("indptr", "<i8"), ("indices", "<i8"), ("data", "<f8")):
            text.update(getattr(self.matrix, part).astype(kind).tobytes())
        if self.blend is not None:
            text.update(self.blend.digest.encode())
        return text.hexdigest()

    def describe(self) -> dict[str, object]:
        """Return what every summary shows, as plain values."""
        estimated = {} if self.blend is None else {"blend": self.blend.describe()}
        return estimated | {
            "kind": self.kind,
            "row_standardized": self.row_standardized,
            "regions": len(self.regions),
            "links": self.n_links,
            "mean_neighbors": self.mean_neighbors,
            "min_neighbors": min(self.neighbors.tolist(), default=0),
            "max_neighbors": max(self.neighbors.tolist(), default=0),
            "isolates": list(self.isolates),
            "components": self.n_components,
            "symmetric": self.symmetric,
            "digest": self.digest,
            "notes": list(self.notes),
        }

    def graph(self) -> Any:
        """Return a libpysal ``Graph`` whose ``unique_ids`` are ``regions``, in that order."""
        from libpysal.graph import Graph

        graph = Graph.from_sparse(self.matrix, ids=np.array(self.regions, dtype=object))
        return Graph(graph.adjacency, "R" if self.row_standardized else "O", is_sorted=True)

    def to_dataset(self) -> xr.Dataset:
        """Return links by position (``focal, neighbor, weight``) over coordinate ``region``."""
        links = self.matrix.tocoo()
        columns = {"focal": links.row.astype(int), "neighbor": links.col.astype(int)}
        dataset = xr.Dataset(
            {name: ("link", values) for name, values in {**columns, "weight": links.data}.items()},
            coords={"region": np.array(self.regions, dtype=object)},
            attrs={
                "kind": self.kind,
                "row_standardized": int(self.row_standardized),
                "notes": json.dumps(self.notes),
            },
        )
        if self.blend is None:
            return dataset
        arrays, attributes = self.blend.to_arrays()
        return dataset.assign(arrays).assign_attrs(blend=json.dumps(attributes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Weights:
        """Return the weights that :meth:`to_dataset` wrote, with the same digest."""
        focal, neighbor, weight = (dataset[name].values for name in ("focal", "neighbor", "weight"))
        shape = (dataset.sizes["region"],) * 2
        blend = None
        if "blend" in dataset.attrs:
            arrays = {str(name): dataset[name].values for name in dataset.data_vars}
            blend = blend_from_arrays(arrays, json.loads(dataset.attrs["blend"]), shape[0])
        return cls(
            tuple(dataset["region"].values.tolist()),
            sparse.csr_array((weight, (focal, neighbor)), shape=shape),
            kind=str(dataset.attrs["kind"]),
            row_standardized=bool(dataset.attrs["row_standardized"]),
            notes=tuple(json.loads(dataset.attrs["notes"])),
            blend=blend,
        )


def read_weights(source: Any, *, row_standardize: bool = True) -> Weights:
    """Read weights from a ``.gal`` file, an edge table, or a libpysal Graph or W.

    ``source`` is the path of a ``.gal``, ``.csv``, ``.parquet`` or ``.dta`` file, a data frame with
    columns ``region_i, region_j[, weight]``, or a libpysal object with text ids. Links in
    one direction only are kept as they are. The ids of a table are sorted.

    Raises
    ------
    WeightsError
        The file is missing or malformed, columns are missing, ids are not text, links
        repeat or have NaN, infinite or negative weights, or a region neighbors itself.

    Examples
    --------
    >>> table = pd.DataFrame({"region_i": ["01", "02", "03"], "region_j": ["02", "01", "03"]})
    >>> read_weights(table).isolates
    ('03',)
    """
    if isinstance(source, str | Path) and Path(source).suffix.lower() == ".gal":
        table, regions = _read_gal(Path(source))
        return _from_table(table, "gal", regions, row_standardize)
    if type(source).__module__.startswith("libpysal"):
        from libpysal.graph import Graph

        graph = source if isinstance(source, Graph) else Graph.from_W(source)
        return from_graph(graph, "graph", _ids(graph.unique_ids, "graph"), row_standardize)
    return _from_table(read_table(source, error=WeightsError)[0], "edges", None, row_standardize)


def align(
    weights: Weights, regions: Sequence[str], *, row_standardize: bool | None = None
) -> Weights:
    """Return the weights over ``regions``, in that order: the only place where ids meet.

    Other regions are dropped with their links, and a note says so; rows are standardized
    after that, those of every matrix of a blend. ``row_standardize=None`` keeps the setting.

    Raises
    ------
    WeightsError
        A region comes twice or has no row in the weights, or standardized weights are
        asked to become unstandardized.

    Examples
    --------
    >>> table = pd.DataFrame({"region_i": ["a", "b", "b"], "region_j": ["b", "a", "c"]})
    >>> aligned = align(read_weights(table), ["b", "a"])
    >>> aligned.matrix.toarray().tolist(), aligned.notes[-1]
    ([[0.0, 1.0], [1.0, 0.0]], "Dropped 1 region that the data lack, with 1 link: 'c'.")
    """
    wanted = _ids(regions, "regions")
    place = {region: i for i, region in enumerate(weights.regions)}
    missing = [region for region in wanted if region not in place]
    dropped = sorted(place.keys() - set(wanted), key=place.__getitem__)
    if missing:
        raise WeightsError(
            f"weights: got no row for {len(missing)} of {counted(len(wanted), 'region')}: "
            f"{listing(missing)}; expected one for each.{_zeros_hint(missing, place)}"
            f"{_other_ids(len(dropped), len(place))} Correct the ids, or add a row "
            "region_i = region_j with weight 0 to declare a region without neighbors."
        )
    standardized = weights.row_standardized if row_standardize is None else row_standardize
    if weights.row_standardized and not standardized:
        msg = "weights: got standardized rows; expected raw ones, as row_standardize=False asks."
        raise WeightsError(f"{msg} Build or read them with row_standardize=False.")
    order = np.array([place[region] for region in wanted], dtype=np.int64)
    blend = weights.blend
    if blend is not None and not np.array_equal(order, np.arange(len(weights.regions))):
        blend = blend.restricted(lambda matrix: matrix[order][:, order])
    matrix, notes = weights.matrix[order][:, order], weights.notes
    if dropped:
        alone = np.flatnonzero((np.diff(matrix.indptr) == 0) & (weights.neighbors[order] > 0))
        left = listing(wanted[i] for i in alone)
        notes += (
            f"Dropped {counted(len(dropped), 'region')} that the data lack, with "
            f"{counted(weights.n_links - matrix.nnz, 'link')}: {listing(dropped)}."
            + (f" That leaves without neighbors: {left}." if left else "")
            + (_other_ids(len(dropped), len(place)) if 2 * len(dropped) > len(place) else ""),
        )
    if blend is not None and blend is not weights.blend:
        matrix = blend.reference()
    matrix = standardize(matrix) if standardized else matrix
    return Weights(wanted, matrix, weights.kind, standardized, notes, blend)


def mix_weights(*weights: Weights) -> Weights:
    r"""Return weights whose mixture is estimated: :math:`W = \sum_k s_k W_k` with shares s.

    Shares have a Dirichlet prior. A region that lacks neighbors in one of the matrices gets
    nothing for the share of that one, and a note says so.

    Parameters
    ----------
    weights
        Two to four different row-standardized weights over the same regions.

    Raises
    ------
    WeightsError
        They are fewer or more, not standardized, mixtures themselves, over other regions, or
        two of them are the same.

    References
    ----------
    Debarsy and LeSage (2018), Flexible dependence modeling using convex combinations of
    different types of connectivity structures, Regional Science and Urban Economics 69.

    Examples
    --------
    >>> first = pd.DataFrame({"region_i": ["a", "b", "c"], "region_j": ["b", "c", "a"]})
    >>> second = first.rename(columns={"region_i": "region_j", "region_j": "region_i"})
    >>> mixed = mix_weights(read_weights(first), read_weights(second))
    >>> mixed.kind, mixed.blend.labels, mixed.matrix.toarray().tolist()[0]
    ('edges + edges', ('edges', 'edges (2)'), [0.0, 0.5, 0.5])
    """
    where = "mixture of weights"
    if not 2 <= len(weights) <= _MOST_MIXED:
        msg = f"{where}: got {len(weights)}; expected 2 to {_MOST_MIXED}. Choose such a number."
        raise WeightsError(msg)
    kinds = [each.kind for each in weights]
    if raw := [each.kind for each in weights if not each.row_standardized]:
        msg = f"{where}: got raw rows of {listing(raw)}; expected standardized ones."
        raise WeightsError(f"{msg} Build or read them with row_standardize=True.")
    if blends := [each.kind for each in weights if each.blend is not None]:
        msg = f"{where}: got {listing(blends)}, estimated already; expected given matrices."
        raise WeightsError(f"{msg} Leave it out.")
    regions = weights[0].regions
    if other := [each.kind for each in weights if set(each.regions) != set(regions)]:
        msg = (
            f"{where}: got other regions in {listing(other)} than in {kinds[0]}; expected the same."
        )
        raise WeightsError(f"{msg} Align them first.")
    aligned = [align(each, regions) for each in weights]
    if len({each.digest for each in aligned}) < len(aligned):
        msg = f"{where}: got one matrix twice among {listing(kinds)}; expected different ones."
        raise WeightsError(f"{msg} Leave one out.")
    seen: Counter[str] = Counter()
    labels = []
    for kind in kinds:
        seen[kind] += 1
        labels.append(kind if seen[kind] == 1 else f"{kind} ({seen[kind]})")
    blend = Mixture(tuple(labels), tuple(each.matrix for each in aligned))
    notes = [
        f"{label}: {note}" for label, w in zip(labels, weights, strict=True) for note in w.notes
    ]
    if len(blend.partial):
        alone = listing(regions[i] for i in blend.partial)
        notes.append(
            f"Without neighbors in some of the matrices, so that their share passes nothing on: {alone}."
        )
    return Weights(regions, blend.reference(), " + ".join(kinds), True, tuple(notes), blend)


def _other_ids(lacking: int, of: int) -> str:
    """Ask whether weights are of another geography, whose ids may be the same by chance."""
    if not lacking:
        return ""
    are = "is" if lacking == 1 else "are"
    return (
        f" The weights have {counted(of, 'region')}, of which {lacking} {are} not in the data: are "
        "they of another geography?"
    )


def _zeros_hint(missing: Sequence[str], known: Iterable[str]) -> str:
    """Say how many ids differ from a known one only by leading zeros or spaces."""
    bare = {region.strip().lstrip("0"): region for region in known}
    near = {region: bare.get(region.strip().lstrip("0")) for region in missing}
    pairs = [f"{region!r} and {other!r}" for region, other in near.items() if other]
    text = f" {len(pairs)} of them differ only by leading zeros or spaces"
    return f"{text}, such as {pairs[0]}." if pairs else ""


def _ids(regions: Iterable[object], where: str) -> tuple[str, ...]:
    """Check that ids are text and distinct."""
    ids = list(regions)
    _check_text(ids, where)
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise WeightsError(_bad_ids(where, f"{listing(twice)} more than once"))
    return tuple(str(value) for value in ids)


def _check_text(ids: Sequence[object], where: str) -> None:
    """Refuse ids that are not text; what a file holds need not even be comparable."""
    wrong = [value for value in ids if not isinstance(value, str) or not value]
    if wrong:
        raise WeightsError(_bad_ids(where, f"{listing(wrong)} as ids"))


def _bad_ids(where: str, got: str) -> str:
    return f"{where}: got {got}; expected each region once, as text such as '06'. Correct them."


def _one_way(matrix: Any) -> int:
    """Count links without a counterpart in the other direction."""
    return int(matrix.nnz - (matrix != 0).multiply(matrix.T != 0).nnz)


def build_weights(
    regions: Sequence[str], links: Any, kind: str, notes: list[str], row_standardize: bool
) -> Weights:
    """Put links (position of focal, of neighbor, weight) into Weights."""
    focal, neighbor, weight = links
    shape = (len(regions), len(regions))
    matrix = sparse.csr_array((weight, (focal, neighbor)), shape=shape, dtype=np.float64)
    matrix.eliminate_zeros()
    if one_way := _one_way(matrix):
        notes = [*notes, f"{one_way} of {counted(matrix.nnz, 'link')} have no counterpart."]
    matrix = standardize(matrix) if row_standardize else matrix
    return Weights(tuple(regions), matrix, kind, row_standardize, tuple(notes))


def from_graph(graph: Any, kind: str, regions: Sequence[str], row_standardize: bool) -> Weights:
    """Take the links of a libpysal Graph, over ``regions`` in that order."""
    table = graph.adjacency.rename_axis(["region_i", "region_j"]).reset_index()
    return _from_table(table, kind, regions, row_standardize)


def _from_table(
    table: pd.DataFrame, kind: str, regions: Sequence[str] | None, row_standardize: bool
) -> Weights:
    """Check an edge table and build from it; ``regions`` are its ids, sorted if None."""
    absent = [name for name in ("region_i", "region_j") if name not in table]
    if absent or table.empty:
        near = suggestion(absent[0], map(str, table.columns)) if absent else ""
        raise WeightsError(
            f"{kind} weights: got {len(table)} rows with columns {listing(table.columns)}; "
            f"expected rows with columns region_i, region_j and perhaps weight.{near} Correct it."
        )
    focal, neighbor = table["region_i"], table["region_j"]
    _check_text([*focal, *neighbor], f"{kind} weights")
    ids = _ids(sorted({*focal, *neighbor}), f"{kind} weights")
    place = {region: i for i, region in enumerate(ids if regions is None else regions)}
    own = (focal == neighbor).to_numpy(bool)
    given = table.get("weight", pd.Series(1.0 - own))
    weight = pd.to_numeric(given, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    for bad, got, expected in (
        (~np.isfinite(weight) | (weight < 0), "NaN, infinite or negative weights", "numbers >= 0"),
        (
            out_of_range(weight),
            "weights of a size that cannot be added up",
            f"0, or numbers from {1 / LARGEST:g} to {LARGEST:g}",
        ),
        (own & (weight != 0), "regions as their own neighbors", "weight 0 there, diag(W) = 0"),
        (table.duplicated(["region_i", "region_j"]), "links more than once", "each link once"),
    ):
        rows = [
            f"row {i + 1}: {focal.iloc[i][:30]} -> {neighbor.iloc[i][:30]}"
            for i in np.flatnonzero(bad)
        ]
        if rows:
            msg = f"{kind} weights: got {got} ({listing(rows)}); expected {expected}."
            raise WeightsError(f"{msg} Correct these rows.")
    zero = int(((weight == 0) & ~own).sum())
    notes = [f"{counted(zero, 'row')} of weight 0 made no link."] if zero else []
    links = focal.map(place).to_numpy(), neighbor.map(place).to_numpy(), weight
    return build_weights(tuple(place), links, kind, notes, row_standardize)


def _is_count(word: str) -> bool:
    return word.isdecimal() and len(word) <= 9


def _read_gal(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a GAL file. Ids stay text, while libpysal's Graph reader turns 01 into 1."""

    def fail(number: int, words: Sequence[str], expected: str) -> WeightsError:
        got = listing([" ".join(words)])
        return WeightsError(f"{path.name}, line {number}: got {got}; expected {expected}. Fix it.")

    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        msg = f"{path.name}: got a file that cannot be read ({cause}); expected a .gal file."
        raise WeightsError(f"{msg} Check the path.") from cause
    lines = iter([(i, line.split()) for i, line in enumerate(text, 1) if line.strip()])
    number, header = next(lines, (1, []))
    size = [*header[:2], ""][min(len(header), 2) - 1] if header else ""  # 'n' or '0 n file ids'
    if not _is_count(size):
        raise fail(number, header, "the number of regions")
    edges: dict[str, tuple[int, list[str]]] = {}
    for number, words in lines:
        if len(words) != 2 or not _is_count(words[1]) or words[0] in edges:
            raise fail(number, words, "a new region and the number of its neighbors")
        near: list[str] = []
        if int(words[1]):
            number, near = next(lines, (number + 1, []))
        if len({*near} - {words[0]}) != int(words[1]) or len(near) != int(words[1]):
            raise fail(number, near, f"{words[1]} different neighbors of {words[0]!r}")
        edges[words[0]] = number, near
    if len(edges) != int(size):
        raise fail(len(text), [f"{len(edges)} regions"], f"{size} as the first line says")
    for number, near in edges.values():
        if unknown := [name for name in near if name not in edges]:
            raise fail(number, unknown, "neighbors that have a line of their own")
    rows = [(i, j, float(i != j)) for i, (_, near) in edges.items() for j in near or [i]]
    return pd.DataFrame(rows, columns=["region_i", "region_j", "weight"]), list(edges)
