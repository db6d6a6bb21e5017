"""Data augmentation: parameters given the cells, cells given the parameters, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from spatialclusters.collapsed.problem import coefficient_scales
from spatialclusters.completion.columns import Columns, make_columns
from spatialclusters.completion.equations import Equation, log_scale_density
from spatialclusters.completion.levels import Levels, make_levels
from spatialclusters.completion.totals import Totals
from spatialclusters.completion.unknowns import Unknowns
from spatialclusters.design import Design, build_design
from spatialclusters.exported import chain_key
from spatialclusters.kernels import Program, make_program
from spatialclusters.panel import ABSENT, Panel
from spatialclusters.parameters import SIZE_GRID, model_priors, size_on_grid, with_size_grid
from spatialclusters.program import Target
from spatialclusters.rows import choose_rows
from spatialclusters.simulation import noise_scale
from spatialclusters.spec import ModelSpec
from spatialclusters.weights import Weights

__all__ = ["Augmentation", "Side", "completed_panel"]

_DEPTH: Final = 6
"""At most 63 leapfrog steps of the cells in an iteration."""


@dataclass(frozen=True, eq=False)
class Side:
    """One end of the growth: its label, its unknown cells, and the totals over it."""

    period: str
    cells: Unknowns
    totals: Totals


def completed_panel(
    spec: ModelSpec,
    panel: Panel,
    sides: tuple[Side, Side],
    x: tuple[np.ndarray, np.ndarray],
    *,
    number: int,
    m: int,
) -> Panel:
    """Write one draw of the unknown cells into the panel."""
    assert spec.growth is not None
    name = spec.growth.variable
    dims = ("region", str(panel.unit), "year")
    values = panel.data[name].transpose(*dims).copy()
    for side, logs in zip(sides, x, strict=True):
        year = list(panel.years).index(side.period)
        status = panel.status(name, side.period).transpose(*dims[:2]).values
        filled = side.cells.known.copy()
        filled[tuple(side.cells.at)] = np.exp(logs)
        here = values.values[:, :, year]
        values.values[:, :, year] = np.where((status != ABSENT) & (filled > 0.0), filled, here)
    provenance = dict(panel.provenance)
    provenance["completed"] = {"panel": number, "of": m, "cells": sum(s.cells.size for s in sides)}
    return Panel(panel.data.assign({name: values}), panel.geometry, provenance)


@dataclass(frozen=True, eq=False)
class Augmentation:
    """The three updates of data augmentation, each given the outcome of the others."""

    spec: ModelSpec
    sides: tuple[Side, Side]
    columns: Columns
    levels: Levels
    growth: Equation
    level: Equation
    cells_target: Target
    cells: Program
    horizon: float

    @classmethod
    def build(
        cls,
        spec: ModelSpec,
        panel: Panel,
        weights: Weights | None,
        linkages: xr.DataArray | None,
        sides: tuple[Side, Side],
        *,
        totals_sd: float,
        predictors: Sequence[str],
        tune: int,
        seed: int,
    ) -> Augmentation:
        """Compile everything at a first panel, which is filled halfway between the bounds."""
        assert spec.growth is not None
        first = completed_panel(
            spec, panel, sides, (sides[0].cells.middle, sides[1].cells.middle), number=0, m=0
        )
        design = build_design(spec, first, weights, linkages=linkages)
        rows = choose_rows(spec, first, weights, linkages)
        columns = make_columns(spec, first, rows, design, linkages)
        design = with_size_grid(design, sides[0].cells.size_grid(tuple(columns.rows)))
        base = sides[0].cells.known.copy()
        base[tuple(sides[0].cells.at)] = np.exp(sides[0].cells.middle)
        levels = make_levels(panel, base, sides[0].period, predictors)
        horizon = float(spec.growth.years) if spec.growth.annualized else 1.0
        target = _cell_target(spec, design, columns, sides, totals_sd, horizon)
        settings = {"tune": tune, "target_accept": 0.8, "max_tree_depth": _DEPTH}
        return cls(
            spec, sides, columns, levels,
            Equation.build(spec, design, tune=tune, seed=seed),
            Equation.build(levels.spec, levels.design, tune=tune, seed=seed),
            target,
            make_program(target, settings, None),
            horizon,
        )  # fmt: skip

    def run(
        self, iterations: int, seed: int, *, progress: bool
    ) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray], dict[str, float]]]:
        """Yield the iteration, log employment of the unknown cells, and what the trace holds."""
        from rich.progress import track

        key = chain_key(seed, 0)
        states = [self.growth.first, self.level.first]
        start, end = (side.cells for side in self.sides)
        evaluate = jax.jit(self._rows)
        z = _origin(self.sides, len(self.columns.terms) + int(self.growth.design.intercept))
        cells, x = None, (start.middle, end.middle)
        for i in track(
            range(iterations), "Completing panels", disable=not progress, transient=True
        ):
            k1, k2, k3 = jax.random.split(jax.random.fold_in(key, i), 3)
            y, X, logs = map(np.asarray, evaluate(*x))
            size = np.exp(logs[tuple(self.columns.rows)])
            states[0], growth = self.growth.step(states[0], self.growth.at(y, X, size), k1)
            design = self.level.at(logs[tuple(self.levels.at)])
            states[1], level = self.level.step(states[1], design, k2)
            conditions = self.given(growth, level)
            energy, gradient = self.cells.gradient(z, conditions)
            if cells is None:
                cells = self.cells.init(k3, z, energy, gradient, conditions)
            cells = self.cells.step(
                cells._replace(potential_energy=energy, z_grad=gradient), conditions
            )
            # the scale of the noise stays where the cells took it; coefficients are drawn anew
            sigma = float(growth["sigma"] * np.exp(cells.z["stretch"]))
            states[0] = self.growth.with_sigma(states[0], sigma)
            z = cells.z | {name: jnp.zeros_like(z[name]) for name in ("shift", "stretch")}
            cells = cells._replace(z=z)
            x = (np.asarray(start.logs(z["start"])[0]), np.asarray(end.logs(z["end"])[0]))
            yield i, x, _summary(growth, level, self.columns.terms)

    def _rows(self, x_start: Any, x_end: Any) -> tuple[Any, Any, Any]:
        """Return response, covariates, and log base levels over (region, unit)."""
        start, end = (side.cells for side in self.sides)
        base, last = start.filled(x_start), end.filled(x_end)
        at = tuple(self.columns.rows)
        y = (jnp.log(last[at]) - jnp.log(base[at])) / self.horizon
        return y, self.columns.evaluate(base), jnp.log(base)

    def given(self, growth: dict[str, np.ndarray], level: dict[str, np.ndarray]) -> Any:
        """Collect what the cells are drawn given."""
        mean = self.levels.grid(self.levels.mean(level), self.sides[0].cells.known.shape)
        intercept = int(self.growth.design.intercept)
        b = growth.get("coefficient", np.zeros(0)) * self.growth.design.data["scale"].values
        effects = {g.name: growth[f"effect({g.name})"] for g in self.growth.design.groups}
        spec, design = self.growth.spec, self.growth.design
        if spec.likelihood.scale == "size":
            noise = {name: growth[f"size.{name}"] for name in ("share", "power")}
            noise["sigma"] = np.full(design.n_rows, growth["sigma"])
        else:
            noise = {"sigma": noise_scale(spec, design, growth)}
        return noise | {
            "standardized": np.concatenate([np.atleast_1d(growth["intercept"])] * intercept + [b]),
            "log_sigma": np.log(growth["sigma"]),
            "effects": effects,
            "mean": mean[tuple(self.sides[0].cells.at)],
            "level_sigma": level["sigma"],
        }


def _summary(
    growth: dict[str, np.ndarray], level: dict[str, np.ndarray], terms: Sequence[str]
) -> dict[str, float]:
    """Return what an iteration leaves in the trace."""
    row = dict(zip(terms, growth.get("coefficient", np.zeros(0)).tolist(), strict=True))
    row |= {n: float(growth[n]) for n in ("sigma", "size.share", "size.power") if n in growth}
    scales = {"": growth, "level ": level}
    for prefix, parameters in scales.items():
        for name, value in parameters.items():
            if name.startswith("sd("):
                row |= {
                    f"{prefix}{name}[{k}]": float(v) for k, v in enumerate(np.atleast_1d(value))
                }
    return row | {"level sigma": float(level["sigma"])}


def _origin(sides: tuple[Side, Side], coefficients: int) -> dict[str, Any]:
    start, end = (side.cells for side in sides)
    return {
        "start": jnp.zeros(start.size), "end": jnp.zeros(end.size),
        "shift": jnp.zeros(coefficients), "stretch": jnp.zeros(()),
    }  # fmt: skip


def _cell_target(
    spec: ModelSpec,
    design: Design,
    columns: Columns,
    sides: tuple[Side, Side],
    totals_sd: float,
    horizon: float,
) -> Target:
    """Write the density of the unknown cells given scales and effects of both equations down.

    Coefficients and the scale of the noise move with the cells: given each other they would move
    little. ``shift`` and ``stretch`` say by how much, in units of the standardized covariates and
    in logs; both are 0 at the values given. Noise that depends on size does so by the class of a
    cell's own base level, as in the equation of growth: the density has steps, which the gradient
    smooths out.
    """
    start, end = (side.cells for side in sides)
    at, first = tuple(columns.rows), int(design.intercept)
    center, scale = (design.data[name].values for name in ("center", "scale"))
    prior_mean, prior_sd, proper = coefficient_scales(spec, design)
    sized, grid = spec.likelihood.scale == "size", design.data.attrs[SIZE_GRID]
    sigma_prior = log_scale_density(model_priors(spec, design)["sigma"].prior)

    def potential(z: Any, given: Any) -> Any:
        (x_start, j_start), (x_end, j_end) = start.logs(z["start"]), end.logs(z["end"])
        base, last = start.filled(x_start), end.filled(x_end)
        y = (jnp.log(last[at]) - jnp.log(base[at])) / horizon
        X = columns.evaluate(base) - center
        moved = given["standardized"] + z["shift"]
        mean = (X / scale) @ moved[first:] + (moved[0] if first else 0.0)
        for group in design.groups:
            effect = given["effects"][group.name][group.codes]
            for position, column in enumerate(group.columns):
                mean += effect[:, position] * (1.0 if column < 0 else X[:, column])
        noise, sums = given["sigma"] * jnp.exp(z["stretch"]), 0.0
        if sized:
            log_size = jnp.log(base[at])
            steps = jax.lax.stop_gradient(size_on_grid(log_size, grid, jnp) - log_size)
            relative = jnp.exp(given["power"] * (grid[2] - log_size - steps))
            factor = 1.0 - given["share"] + given["share"] * relative
            noise, sums = noise * jnp.sqrt(factor), -0.5 * jnp.log(factor).sum()
        squares = (((y - mean) / noise) ** 2).sum()
        squares += (((x_start - given["mean"]) / given["level_sigma"]) ** 2).sum()
        squares += (proper * ((moved - prior_mean) / prior_sd) ** 2).sum()
        sums += sides[0].totals.log_density(base, totals_sd)
        sums += sides[1].totals.log_density(last, totals_sd)
        sums += sigma_prior(given["log_sigma"] + z["stretch"]) - len(y) * z["stretch"]
        return 0.5 * squares - sums - j_start - j_end

    def origin(_: Any) -> Any:
        return _origin(sides, len(proper))

    return Target(lambda y, _: y, potential, origin, lambda *_: {})
