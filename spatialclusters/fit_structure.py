"""What a fit holds: names, dims and labels of its variables, and whether a file has them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from pydantic import BaseModel, Field, ValidationError

from spatialclusters.design import Design
from spatialclusters.errors import listing
from spatialclusters.parameters import SIZE_GRID
from spatialclusters.spec import EffectKind, ModelSpec, Structure, parse_spec
from spatialclusters.weights import Weights

__all__ = ["check_structure", "dimensions"]

_STATISTICS: Final = {
    "NUTS": frozenset(("diverging", "energy", "n_steps", "tree_depth")),
    "proposals": frozenset(("acceptance_rate",)),
}
"""What the checks of the sampling need of either kind."""
_Numbers = float | list[float]


class _Settings(BaseModel):
    seed: int
    chains: int
    tune: int
    draws: int
    max_tree_depth: int


class _Provenance(BaseModel):
    version: str
    created: str
    settings: _Settings
    engine: Literal["collapsed", "full"]
    sampler: str
    python: str
    versions: dict[str, str]
    digests: dict[str, str | None]
    timings: dict[str, _Numbers]


class _PanelRecord(BaseModel):
    source: str = ""
    rows: int = 0
    digest: str = ""
    notes: list[str] = []
    simulated: bool = False


class _GroupRecord(BaseModel):
    levels: int
    singletons: int
    effect: EffectKind
    structure: Structure = "iid"


class _WeightsRecord(BaseModel):
    kind: str
    row_standardized: bool
    links: int
    mean_neighbors: float
    min_neighbors: int
    max_neighbors: int
    isolates: list[str]
    components: int
    notes: list[str]
    blend: dict[Literal["text"], str] | dict[str, Any] = {"text": ""}


class _LinkageRecord(BaseModel):
    source: str = ""
    digest: str = ""
    links: int = 0
    outside: int = 0
    unlinked: list[str] = []


class _Record(BaseModel):
    panel: _PanelRecord
    rows: int
    regions: int
    dropped: dict[str, int]
    groups: dict[str, _GroupRecord]
    notes: list[str]
    cells: dict[str, dict[Literal["cells", "observed", "zero", "withheld", "absent"], int]] = {}
    weights: _WeightsRecord | None = None
    linkages: _LinkageRecord | None = None
    blocks: dict[Literal["isolates", "components"], int] = {}
    condition_number: float = 1.0
    share_of_base_in_sample: float = 1.0


class _Group(BaseModel):
    effect: EffectKind
    columns: list[int] = Field(min_length=1)
    labels: list[str]
    structure: Structure = "iid"
    links: Literal["symmetric", "union", "mutual"] = "symmetric"


def check_structure(tree: xr.DataTree) -> None:
    """Check that a tree has every part that reading a fit relies on, in the right shape.

    Raises
    ------
    ValueError, KeyError, TypeError
        A part is missing or is another thing.
    SpatialClustersError
        The model or the weights inside are malformed.
    """
    spec = parse_spec(tree.attrs["model"], where="the model inside")
    _read(_Provenance, tree.attrs["provenance"], "provenance")
    missing = {"posterior", "sample_stats", "constant_data", "panel"} - {*tree.children}
    _expect(not missing, f"no group {listing(sorted(missing))}")
    weights = None
    if "weights" in tree.children:
        weights = Weights.from_dataset(tree["weights"].to_dataset())
    design = Design(tree["constant_data"].to_dataset(), weights)
    _check_design(spec, design)
    posterior = tree["posterior"].to_dataset()
    known = dimensions(spec, design)
    needed = _needed(spec, design)
    _expect(needed <= {*map(str, posterior)}, f"no draws of {listing(needed - {*posterior})}")
    _check_draws(posterior, known, posterior.sizes)
    for name in ("conditional_mean", "conditional_variance"):
        _expect(
            (name in tree.children) == ("conditional_mean" in tree.children), f"no group {name}"
        )
        if name in tree.children:
            _check_draws(tree[name].to_dataset(), known, posterior.sizes)
    for stat, values in (stats := tree["sample_stats"].to_dataset()).items():
        _shape(values, ("chain", "draw"), posterior.sizes, "bfiu", str(stat))
    recorded = _STATISTICS["NUTS" if "diverging" in stats else "proposals"]
    _expect(recorded <= {*stats}, "not every statistic of the sampler")


def _read[Part: BaseModel](kind: type[Part], text: str, what: str) -> Part:
    """Read JSON, and word the first thing that is wrong with it."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join([what, *map(str, first["loc"])])
        msg = f"{where}: {first['msg']}"
        raise ValueError(msg) from None


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _shape(
    values: xr.DataArray, dims: tuple[str, ...], sizes: Mapping[Any, int], kinds: str, name: str
) -> np.ndarray:
    """Return an array of these dims, and of one of these kinds of dtype."""
    _expect(values.dims == dims, f"{name} over {values.dims}, not {dims}")
    _expect(values.shape == tuple(sizes[dim] for dim in dims), f"{name} of another shape")
    _expect(values.dtype.kind in kinds, f"{name} of the type {values.dtype}")
    return np.asarray(values.values)


def _labels(values: xr.DataArray, name: str) -> list[str]:
    found: list[str] = values.values.tolist()
    _expect(
        values.ndim == 1 and all(isinstance(each, str) for each in found), f"no labels of {name}"
    )
    _expect(len({*found}) == len(found), f"labels of {name} that repeat")
    return found


def _check_design(spec: ModelSpec, design: Design) -> None:
    data, formula = design.data, spec.parsed_formula
    sizes, attributes = data.sizes, data.attrs
    record = _read(_Record, attributes["record"], "record")
    _expect((record.weights is None) == (design.weights is None), "weights that were not recorded")
    for name in ("response", "unit"):
        _expect(isinstance(attributes[name], str), f"no {name}")
    _expect(attributes["response"] == formula.response, "another response than the model's")
    for name in ("years", "annualized", "intercept"):
        _expect(np.ndim(attributes[name]) == 0 and attributes[name] >= 0, f"no number of {name}")
    _expect(sizes["obs"] > 0, "no rows")
    terms = _labels(data["term"], "term")
    labels = json.loads(attributes["labels"])
    _expect({*labels.values()} <= {*terms}, "labels of other columns")
    numbers = {"y": ("obs",), "X": ("obs", "term"), "center": ("term",), "scale": ("term",)}
    numbers |= {"size": ("obs",)} if spec.growth else {}
    for name, dims in numbers.items():
        values = _shape(data[name], dims, sizes, "f", name)
        _expect(bool(np.isfinite(values).all()), f"{name} that is not finite")
        _expect(name not in ("scale", "size") or bool((values > 0).all()), f"{name} of zero")
    if SIZE_GRID in attributes:
        grid = np.asarray(attributes[SIZE_GRID], dtype=float)
        fine = grid.shape == (3,) and bool(np.isfinite(grid).all() and grid[0] < grid[1])
        _expect(fine, "classes of size that are none")
    for name in ("region", "industry", "cluster"):
        if name == "region" or f"row_{name}" in data:
            rows = _shape(data[f"row_{name}"], ("obs",), sizes, "OUT", f"row_{name}")
            _expect(all(isinstance(each, str) for each in rows), f"row_{name} that is no text")
    _check_groups(spec, design, len(terms))
    if design.psi is not None:
        _expect({*json.loads(attributes.get("blended", "[]"))} <= {*terms}, "lags of other columns")
        if "X_blend" in data:
            _shape(data["X_blend"], ("basis", "obs", "blended"), sizes, "f", "X_blend")
            _expect(sizes["blended"] == len(design.blended), "lags of another number")


def _check_groups(spec: ModelSpec, design: Design, n_terms: int) -> None:
    data = design.data
    entries = json.loads(data.attrs["groups"])
    _expect(list(entries) == list(spec.groups), "other groups than the formula's")
    for name, found in entries.items():
        entry = _Group.model_validate(found)
        _expect(len(entry.labels) == len(entry.columns), f"columns without label in {name}")
        _expect(all(-1 <= c < n_terms for c in entry.columns), f"columns of {name} that are not")
        levels = _labels(data[name], name)
        codes = _shape(data[f"code_{name}"], ("obs",), data.sizes, "iu", f"code_{name}")
        _expect(int(codes.min()) >= 0 and int(codes.max()) < len(levels), f"codes beyond {name}")


def _needed(spec: ModelSpec, design: Design) -> set[str]:
    """Return the variables without which there is no posterior of this model."""
    from spatialclusters.processes import dependence_names

    needed = {"sigma", *dependence_names(spec)}
    needed |= {"intercept"} if design.intercept else set()
    needed |= {"coefficient"} if design.terms else set()
    for group in design.groups:
        needed.add(f"effect({group.name})")
        needed |= {f"sd({group.name})"} if group.effect != "fixed" else set()
    return needed


def _check_draws(
    draws: xr.Dataset,
    known: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]],
    sizes: Mapping[Any, int],
) -> None:
    """Check names, dims and lengths of draws against those of the model."""
    for name, values in draws.items():
        _expect(name in known, f"draws of {listing([name])}, which the model does not have")
        dims, labels = known[str(name)]
        lengths = {dim: len(label) for dim, label in labels.items()}
        both = {"chain": sizes["chain"], "draw": sizes["draw"], **lengths}
        _shape(values, ("chain", "draw", *dims), both, "f", str(name))
        _expect(values.size > 0, f"no draws of {name}")


def dimensions(
    spec: ModelSpec, design: Design
) -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
    """Name the dims of every posterior variable and give their labels."""
    from spatialclusters.parameters import noise_clusters, pair_labels
    from spatialclusters.processes import dependence_names

    scalars = ["intercept", "sigma", "size.share", "size.power", "sd(log sigma)", "nu"]
    scalars += dependence_names(spec)
    psi = design.psi
    scalars += [psi.parameter] if psi is not None and psi.nodes else []
    known: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {name: ((), {}) for name in scalars}
    if psi is not None and not psi.nodes:
        labels = np.array(psi.labels, dtype=object)
        known[psi.parameter] = (("matrix",), {"matrix": labels})
    known["coefficient"] = (("term",), {"term": np.array(design.terms, dtype=object)})
    for group in design.groups:
        column = f"column({group.name})"
        columns = {column: np.array(group.labels, dtype=object)}
        known[f"effect({group.name})"] = (
            (group.name, column),
            {group.name: group.levels, **columns},
        )
        known[f"total({group.name})"] = known[f"effect({group.name})"]
        known[f"sd({group.name})"] = ((column,), columns)
        pair = f"pair({group.name})"
        known[f"cor({group.name})"] = ((pair,), {pair: np.array(pair_labels(group), dtype=object)})
    if spec.likelihood.scale == "by-cluster":
        known["sigma(cluster)"] = (("noise_cluster",), {"noise_cluster": noise_clusters(design)[1]})
    return known
