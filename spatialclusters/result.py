"""Fit: everything that was estimated and everything needed to read it, in one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Concatenate, Final
from weakref import WeakKeyDictionary

import numpy as np
import xarray as xr

from spatialclusters.design import Design
from spatialclusters.errors import FitError, SpecError, WeightsError, listing, suggestion
from spatialclusters.files import replace_file, write_netcdf
from spatialclusters.fit_files import UNREADABLE, read_tree, seal
from spatialclusters.fit_structure import check_structure, dimensions
from spatialclusters.measures import MEASURES
from spatialclusters.spec import ModelSpec, parse_spec, spec_to_toml
from spatialclusters.weights import Weights

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

__all__ = ["FORMAT", "Fit", "assemble", "kept_variables", "load_fit", "once_per_fit"]

FORMAT: Final = "spatialclusters-fit/1"
_READABLE: Final = ("spatialclusters-fit/1",)
_DRAWS: Final = ("posterior", "conditional_mean", "conditional_variance")
"""The groups that are large."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A posterior with its model, its data and its provenance; needs no other file.

    Attributes
    ----------
    tree
        DataTree with groups ``posterior``, ``sample_stats``, ``constant_data``
        (the design), ``panel`` (base-year cells of every region), and, where there are
        any, ``weights``, ``linkages`` and ``geometry``; from the collapsed engine also
        ``conditional_mean`` and ``conditional_variance`` of coefficients and effects
        given the hyperparameters, per draw. Variables have named dims and labels.
    """

    tree: xr.DataTree

    def __repr__(self) -> str:
        chains, draws = (self.posterior.sizes[name] for name in ("chain", "draw"))
        engine = self.provenance.get("engine", "no")
        return (
            f"Fit({self.spec.name!r}: {self.design.n_rows:,} rows, {chains} x {draws:,} draws, "
            f"{engine} engine)"
        )

    @cached_property
    def spec(self) -> ModelSpec:
        """The model, from its TOML text."""
        return parse_spec(self.tree.attrs["model"], where="the model inside the fit")

    @cached_property
    def design(self) -> Design:
        """The arrays that were fitted."""
        return Design(self.tree["constant_data"].to_dataset(), self.weights)

    @cached_property
    def weights(self) -> Weights | None:
        """The spatial weights, aligned to the panel's regions."""
        if "weights" not in self.tree.children:
            return None
        return Weights.from_dataset(self.tree["weights"].to_dataset())

    @cached_property
    def geometry(self) -> gpd.GeoSeries | None:
        """Region polygons indexed by region, or None."""
        if "geometry" not in self.tree.children:
            return None
        import geopandas as gpd
        from pyproj.exceptions import CRSError
        from shapely.errors import ShapelyError

        shapes = self.tree["geometry"].to_dataset()
        try:
            return gpd.GeoSeries.from_wkt(
                shapes["wkt"].values, index=shapes["region"].values, crs=shapes.attrs["crs"] or None
            ).rename_axis("region")
        except (CRSError, KeyError, ShapelyError, TypeError, ValueError) as cause:
            msg = f"fit: got shapes that cannot be read ({str(cause)[:200]}). Fit again."
            raise FitError(msg) from cause

    @property
    def posterior(self) -> xr.Dataset:
        """Draws with dims (chain, draw, ...)."""
        return self.tree["posterior"].to_dataset()

    @property
    def sample_stats(self) -> xr.Dataset:
        """NUTS statistics and log densities per draw.

        ``conditional_log_likelihood`` is log p(y | effects, theta), from the full engine;
        ``marginal_log_likelihood`` is log p(y | theta), from the collapsed engine.
        ``log_prior`` is that of the sampled parameters: without the effects if collapsed.
        """
        return self.tree["sample_stats"].to_dataset()

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Versions, seed, settings, digests and timings."""
        return dict(json.loads(self.tree.attrs["provenance"]))

    @cached_property
    def given_rows(self) -> Fit:
        """The fit with the draws given the rows that it holds: all, but of completed panels.

        A posterior pooled over completed panels holds the rows of the first panel, and effects
        given the other panels belong to other rows.
        """
        stats = self.sample_stats
        if "panel" not in stats:
            return self
        chains = stats.sizes["chain"]
        kept = int((stats["panel"].values == 1).sum())

        def own(data: xr.Dataset) -> xr.Dataset:
            data = data.drop_vars("panel", errors="ignore")
            # the panel's chains stand one after the other at the start of the first
            parts = {n: np.asarray(x[0, :kept].values) for n, x in data.data_vars.items()}
            arrays = {
                n: (data[n].dims, x.reshape(chains, -1, *x.shape[1:])) for n, x in parts.items()
            }
            return xr.Dataset(arrays, coords=data.coords, attrs=data.attrs)

        drawn = {*_DRAWS, "sample_stats"}
        groups = {
            name: own(node.to_dataset()) if name in drawn else node.to_dataset()
            for name, node in self.tree.children.items()
        }
        root = xr.Dataset(attrs=self.tree.attrs)
        part = Fit(xr.DataTree.from_dict({"/": root, **groups}))
        vars(part)["design"] = self.design
        return part

    def draws(self, name: str, at: Mapping[str, Any] | None = None) -> np.ndarray:
        """Return the draws of one variable, shape (chain, draw, ...).

        Parameters
        ----------
        name
            Of the variable.
        at
            Positions by dimension, as xarray's ``isel`` takes them: only these are read.

        Raises
        ------
        FitError
            The fit has no such variable.
        """
        posterior = self.tree["posterior"]
        if name not in posterior.data_vars:
            known = list(map(str, posterior.data_vars))
            msg = f"fit: got no variable {name!r}; expected one of {listing(known, 20)}."
            raise FitError(msg + suggestion(name, known))
        return np.asarray(posterior[name].isel(at or {}).values)

    def moments(
        self, name: str, at: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return conditional mean and variance per draw, where the engine knows them.

        Besides the posterior's names there is ``total(g)``: coefficient plus effect.
        ``at`` is that of :meth:`draws`.
        """
        if (
            "conditional_mean" not in self.tree.children
            or name not in self.tree["conditional_mean"].data_vars
        ):
            return None
        mean, variance = (
            self.tree[f"conditional_{k}"][name].isel(at or {}).values for k in ("mean", "variance")
        )
        return np.asarray(mean), np.asarray(variance)

    def save(self, path: str | Path) -> Path:
        """Write to NetCDF; the file appears whole or not at all.

        Raises
        ------
        FitError
            The file cannot be written.
        """
        target = Path(path)
        try:
            replace_file(target, self._write)
        except OSError as cause:
            msg = f"{target.name}: cannot be written ({cause}). Choose another place with -o."
            raise FitError(msg) from cause
        return target

    def _write(self, file: BinaryIO) -> None:
        write_netcdf(file, self.tree)
        seal(file)


def once_per_fit[**P](
    function: Callable[Concatenate[Fit, P], pd.DataFrame],
) -> Callable[Concatenate[Fit, P], pd.DataFrame]:
    """Let a frame of a fit be computed once for as long as the fit lives; each call gets a copy.

    A report, the verdict and a comparison ask for the same frames.
    """
    known: WeakKeyDictionary[Fit, dict[tuple[Any, ...], pd.DataFrame]] = WeakKeyDictionary()

    @wraps(function)
    def remembered(fit: Fit, /, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        frames = known.setdefault(fit, {})
        key = (*args, *sorted(kwargs.items()))
        if key not in frames:
            frames[key] = function(fit, *args, **kwargs)
        return frames[key].copy()

    return remembered


def load_fit(path: str | Path, *, lazy: bool = False) -> Fit:
    """Read a saved fit.

    Parameters
    ----------
    path
        A file that :meth:`Fit.save` wrote.
    lazy
        Leave the draws in the file and read what is asked for, when it is: the file stays
        open, and must stay where it is, as long as the fit lives.

    Raises
    ------
    FitError
        The file is missing, is not a fit, was changed since it was written, links to other
        files, or has a format that this version does not read.
    """
    source = Path(path)
    name = source.name[:80]
    try:
        with ExitStack() as stack:
            tree = read_tree(source, _READABLE, leave=_DRAWS if lazy else ())
            stack.callback(tree.close)
            check_structure(tree)
            stack.pop_all()
    except UNREADABLE as cause:
        kind = "" if isinstance(cause, OSError | ValueError) else f"{type(cause).__name__}: "
        reason = kind + " ".join(str(cause).split())[:200]
        msg = f"{name}: got a file that is not a fit ({reason}). Expected one written by 'fit'."
        raise FitError(msg) from cause
    except (SpecError, WeightsError) as cause:
        msg = f"{name}: got a file that is not a fit: {cause}"
        raise FitError(msg) from cause
    return Fit(tree)


def assemble(
    spec: ModelSpec,
    design: Design,
    posterior: dict[str, np.ndarray],
    stats: dict[str, np.ndarray],
    *,
    panel: xr.Dataset,
    geometry: gpd.GeoSeries | None,
    provenance: dict[str, Any],
    moments: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {}),
    linkages: xr.DataArray | None = None,
) -> Fit:
    """Put draws, data and provenance into one tree, with labels on every dimension.

    ``moments`` are conditional means and variances per draw, empty for the full engine;
    ``linkages`` are those that ``linked_strength`` was computed with.
    """
    dims = dimensions(spec, design)

    def labeled(arrays: dict[str, np.ndarray]) -> xr.Dataset:
        return xr.Dataset(
            {n: (("chain", "draw", *dims[n][0]), values) for n, values in sorted(arrays.items())},
            coords={k: v for name in arrays for k, v in dims[name][1].items()},
        )

    groups: dict[str, xr.Dataset] = {
        "posterior": labeled(posterior),
        "sample_stats": xr.Dataset({n: (("chain", "draw"), v) for n, v in stats.items()}),
        "constant_data": design.data,
        "panel": panel,
    }
    if moments[0]:
        groups["conditional_mean"], groups["conditional_variance"] = map(labeled, moments)
    if design.weights is not None:
        groups["weights"] = design.weights.to_dataset()
    if linkages is not None:
        groups["linkages"] = linkages.drop_attrs().to_dataset(name="weight")
    if geometry is not None:
        groups["geometry"] = xr.Dataset(
            {"wkt": ("region", np.array(geometry.to_wkt(), dtype=object))},
            coords={"region": np.array(geometry.index, dtype=object)},
            attrs={"crs": "" if geometry.crs is None else geometry.crs.to_wkt()},
        )
    root = xr.Dataset(
        attrs={
            "format": FORMAT,
            "model": spec_to_toml(spec),
            "provenance": json.dumps(provenance),
        }
    )
    fit = Fit(xr.DataTree.from_dict({"/": root, **groups}))
    # the cached property, as what it has found out of its weights need not be found again
    vars(fit)["design"] = design
    return fit


def kept_variables(spec: ModelSpec) -> list[str]:
    r"""Return the variables of the panel, at the base year, that the covariates are made of.

    Examples
    --------
    >>> cells = 'cells = { absent = "zero", withheld = "zero" }'
    >>> kept_variables(parse_spec(f'formula = "y ~ log(cluster_level) + age"\n{cells}'))
    ['employment', 'age']
    """
    named = spec.parsed_formula.variables
    measured = any(name in MEASURES for name in named)
    level = [spec.growth.variable] if spec.growth else ["employment"] if measured else []
    traded = ["traded"] if measured and spec.measures.totals == "traded" else []
    others = [name for name in named if name not in MEASURES]
    return list(dict.fromkeys([*level, *traded, *others]))
