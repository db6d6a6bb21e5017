r"""Simulation-based calibration: is what the sampler draws from the posterior of the model?

Parameters are drawn from the prior, a response from the model at these, and the model is fitted
to it. If everything is right, the rank of a true value among its posterior draws is uniform,
whatever the quantity, also one that depends on the data. Of these the log likelihood finds
samplers that ignore some of the data, which ranks of parameters alone do not.

References
----------
Talts et al. (2018), arXiv:1804.06788; Modrák et al. (2023), doi:10.1214/23-BA1404;
Säilynoja, Bürkner & Vehtari (2022), doi:10.1007/s11222-022-10090-6.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters._version import __version__, version_of
from spatialclusters.design import Design
from spatialclusters.errors import FitError, SamplingError, listing
from spatialclusters.files import replace_file
from spatialclusters.likelihood import joint_log_likelihood, marginal_density
from spatialclusters.ranks import coverage, uniformity
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.result import Fit, assemble
from spatialclusters.run import choose_settings
from spatialclusters.sampling import Sampled
from spatialclusters.simulation import draw_parameters, simulate_response
from spatialclusters.spec import ModelSpec, spec_to_toml
from spatialclusters.spillovers import has_lags, impact_terms, impacts_by_order

__all__ = ["FAMILY_WISE", "FORMAT", "Calibration", "calibrate", "read_calibration"]

FORMAT: Final = "spatialclusters-calibration/1"

FAMILY_WISE: Final = 0.01
"""Probability that any quantity of a correct sampler is found outside its band."""

THIN: Final = {"collapsed": 40, "full": 20}
"""Iterations from one kept draw to the next: ranks need draws that are about independent."""

_WIDTHS: Final = (0.5, 0.9)
_FIRST_ONLY: Final = ("effect(", "sigma(cluster)")
_FIELDS: Final = frozenset(("dataset", "seconds", "diverging", "pareto_k", "ranks", "ess"))
_RECORDED: Final = ("jax", "numpy", "numpyro", "pymc")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true values among posterior draws, over simulated data sets.

    Attributes
    ----------
    ranks
        How many draws are below the truth, 0 to ``draws``: one row a data set, one column a
        quantity.
    ess
        Bulk effective sample size of the kept draws, in the same shape.
    runs
        By data set: ``seconds``, ``diverging`` (transitions of NUTS, missing where proposals came
        from a surrogate) and ``pareto_k`` of the warm start (missing with the full engine).
    draws
        L, the number of draws that each rank is among.
    provenance
        Model, digests, seed, settings and versions.
    """

    ranks: pd.DataFrame
    ess: pd.DataFrame
    runs: pd.DataFrame
    draws: int
    provenance: Mapping[str, Any]

    def table(
        self, family_wise: float = FAMILY_WISE, quantities: int | None = None
    ) -> pd.DataFrame:
        """Judge every quantity.

        Parameters
        ----------
        family_wise
            Probability that any quantity of a correct sampler is outside its band.
        quantities
            Number of quantities that share it; more than there are here if several models are
            judged together.

        Returns
        -------
        pandas.DataFrame
            One row a quantity: ``p_value`` of uniform ranks, ``uniform`` (whether that is above
            ``family_wise`` over the number of quantities, as Bonferroni has it: whether the ranks
            are inside their band), ``coverage_50`` and ``coverage_90`` (shares of central
            intervals that hold the truth) and ``ess`` (median over data sets).
        """
        level = family_wise / (quantities or len(self.ranks.columns))
        rows = []
        for name, p_value in self.p_values.items():
            ranks = self.ranks[name].to_numpy()
            row: dict[str, Any] = {"quantity": name, "p_value": p_value, "uniform": p_value > level}
            for width in _WIDTHS:
                row[f"coverage_{100 * width:.0f}"] = coverage(ranks, self.draws, width)[0] / len(
                    ranks
                )
            rows.append(row | {"ess": float(self.ess[name].median())})
        return pd.DataFrame(rows)

    @cached_property
    def p_values(self) -> dict[str, float]:
        """P-values of uniform ranks, by quantity."""
        columns = self.ranks.items()
        return {str(name): uniformity(ranks.to_numpy(), self.draws) for name, ranks in columns}

    @property
    def passed(self) -> bool:
        """Whether all ranks are inside their bands, with the usual family-wise error."""
        return bool(min(self.p_values.values()) > FAMILY_WISE / len(self.p_values))

    def __str__(self) -> str:
        table = self.table()
        outside = table.loc[~table["uniform"], "quantity"].tolist()
        n = len(self.ranks)
        if outside:
            head = (
                f"Calibration: NOT calibrated, {len(outside)} of {len(table)} quantities are off."
            )
            rest = f"Outside their bands: {listing(outside)}."
        else:
            head = f"Calibration: ranks of all {len(table)} quantities are uniform."
            rest = f"Smallest p-value {table['p_value'].min():.2g}."
        return (
            f"{head}\n{rest} {n} data sets, {self.draws} draws each; over all quantities a correct "
            f"sampler is found off with probability {FAMILY_WISE:g}."
        )


def calibrate(
    spec: ModelSpec,
    design: Design,
    *,
    seed: int,
    datasets: int = 500,
    draws: int = 99,
    thin: int | None = None,
    tune: int | None = None,
    engine: str = "auto",
    file: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    sampler: RepeatedSampler | None = None,
) -> Calibration:
    r"""Fit many data sets whose parameters are known, and rank the truth among the draws.

    Covariates, groups and weights are those of the design; of its response only what default
    priors take from it is used. Ranked are all hyperparameters and coefficients, the effects of
    the first level of each group, the log likelihood (given the effects and, with the collapsed
    engine, with these integrated out as well) and total impacts where the model has lags. No data
    set is left out.

    Parameters
    ----------
    spec, design
        The model, with proper priors, and its data.
    seed
        Data set n and its chain depend on (seed, n) alone.
    datasets
        Number of data sets; with 500, posteriors that are off by a third of their standard
        deviation are found out.
    draws
        L: how many are kept of each chain; with 99, intervals of 50 % and 90 % are exact.
    thin
        Iterations from one to the next; by default :data:`THIN`.
    tune
        Warm-up; by default that of ``fit``.
    engine
        As for ``fit``.
    file
        Where every finished data set is written as a line of JSON.
    resume
        Continue what is in ``file``: the result is the same as without interruption.
    progress
        Show a bar on stderr.
    sampler
        What to judge; by default the sampler of the package for this model. Chains are as long
        as it says then.

    Returns
    -------
    Calibration

    Raises
    ------
    SpecError
        A prior is improper, or a group has fixed effects: there is no truth to draw.
    SamplingError
        ``file`` exists, or holds another calibration.
    FitError
        ``file`` cannot be read or written.

    Examples
    --------
    >>> import pandas as pd
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("abcde"), "y": [1.0, 2.0, 2.5, 4.0, 4.5],
    ...                       "x": [0.0, 1.0, 2.0, 3.0, 4.0]})
    >>> spec = parse_spec('formula = "y ~ x"')
    >>> design = build_design(spec, read_panel(table))
    >>> found = calibrate(spec, design, seed=1, datasets=5, draws=9, thin=5, tune=50)
    >>> list(found.ranks)
    ['intercept', 'x', 'sigma', 'log p(y | theta)', 'log p(y | effects, theta)']
    """
    if datasets < 1:
        msg = f"calibration: got datasets = {datasets}; expected at least 1."
        raise SamplingError(msg)
    if sampler is None:
        chosen = choose_settings(spec, seed=seed, engine=engine).engine
        thin = THIN[chosen] if thin is None else thin
        settings = choose_settings(spec, seed=seed, engine=chosen, tune=tune, draws=draws * thin)
        sampler = RepeatedSampler(spec, design, settings, thin=thin)
    header = _header(spec, design, seed, sampler)
    lines = _begin(None if file is None else Path(file), header, resume=resume)[:datasets]
    measure = _measure(spec, design, sampler.settings.engine)
    with _appended(file) as write, _bar(datasets, len(lines), shown=progress) as advance:
        for number in range(len(lines), datasets):
            lines.append(_one(spec, design, sampler, measure, seed, number))
            write(lines[-1])
            advance()
    return _calibration(header, lines)


def read_calibration(path: str | Path) -> Calibration:
    """Read what :func:`calibrate` wrote, also while it still runs.

    Raises
    ------
    FitError
        The file is missing, is no calibration, or holds no finished data set.
    """
    header, lines = _read(Path(path))
    if not lines:
        msg = f"{Path(path).name}: got no finished data set; expected some. Continue it."
        raise FitError(msg)
    return _calibration(header, lines)


_Measure = Callable[[np.ndarray, Mapping[str, np.ndarray], Sampled], dict[str, np.ndarray]]


def _one(
    spec: ModelSpec,
    design: Design,
    sampler: RepeatedSampler,
    measure: _Measure,
    seed: int,
    number: int,
) -> dict[str, Any]:
    """Simulate one data set, fit it, and rank the truth."""
    from arviz_stats.base import array_stats

    started = time.perf_counter()
    rng = np.random.default_rng([seed, number])
    truth = draw_parameters(spec, design, rng)
    y = simulate_response(spec, design, truth, rng)
    sampled = sampler.sample(y, seed=seed, chain=number)
    values = measure(y, truth, sampled)
    ranks, ess = {}, {}
    for name, (known, *drawn) in values.items():
        kept = np.array(drawn)
        # equal values do not happen, unless both underflow: they are put in a random order
        below, equal = int((kept < known).sum()), int((kept == known).sum())
        ranks[name] = below + int(rng.integers(0, equal + 1))
        ess[name] = _number(array_stats.ess(kept[None], method="bulk"))
    return {
        "dataset": number,
        "seconds": round(time.perf_counter() - started, 3),
        # proposals from a surrogate do not diverge
        "diverging": int(found.sum())
        if (found := sampled.stats.get("diverging")) is not None
        else None,
        "pareto_k": _number(sampled.timings.get("pareto_k", np.nan)),
        "ranks": ranks,
        "ess": ess,
    }


def _number(value: float) -> float | None:
    """Return a number as JSON has them, three digits of it."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


def _measure(spec: ModelSpec, design: Design, engine: str) -> _Measure:
    """Return what names quantities and computes them, (1 + L,), of the truth and of the draws."""
    marginal = marginal_density(spec, design) if engine == "collapsed" else None

    def measure(
        y: np.ndarray, truth: Mapping[str, np.ndarray], sampled: Sampled
    ) -> dict[str, np.ndarray]:
        # by the same code for both, so that no difference between codes is seen as one of draws
        both = {
            name: np.concatenate([np.asarray(truth[name])[None, None], drawn], axis=1)
            for name, drawn in sampled.posterior.items()
        }
        fit = assemble(spec, design, both, {}, panel=xr.Dataset(), geometry=None, provenance={})
        found = dict(_parameters(fit))
        if has_lags(fit):
            for term in impact_terms(fit):
                found[f"total impact of {term}"] = impacts_by_order(fit, term)[1][0]
        if marginal is not None:
            drawn = sampled.stats["marginal_log_likelihood"][0]
            found["log p(y | theta)"] = np.concatenate([marginal(y, [truth]), drawn])
        n = len(next(iter(found.values())))
        each = ({name: values[0, i] for name, values in both.items()} for i in range(n))
        found["log p(y | effects, theta)"] = np.array(
            [joint_log_likelihood(spec, design, y, parameters) for parameters in each]
        )
        return found

    return measure


def _parameters(fit: Fit) -> Iterator[tuple[str, np.ndarray]]:
    """Yield scalars by name, the linear part first; of effects those of the first level."""
    posterior, first = fit.posterior, ("intercept", "coefficient")
    for name in sorted(map(str, posterior), key=lambda n: (n not in first, n != "intercept", n)):
        values, draws = posterior[name], fit.draws(name)[0]
        labels = [values[dim].values.astype(str) for dim in values.dims[2:]]
        few = 1 if name.startswith(_FIRST_ONLY) else None
        labels[:1] = [each[:few] for each in labels[:1]]
        for at in np.ndindex(*(len(each) for each in labels)):
            place = ", ".join(each[i] for each, i in zip(labels, at, strict=True))
            own = place if name == "coefficient" else f"{name}[{place}]" if place else name
            yield own, draws[(slice(None), *at)]


def _header(spec: ModelSpec, design: Design, seed: int, sampler: RepeatedSampler) -> dict[str, Any]:
    settings = asdict(sampler.settings)
    named = ["engine", "tune", "target_accept", "max_tree_depth"]
    named += ["sampler"] if settings["engine"] == "collapsed" else []
    return {
        "format": FORMAT,
        "version": __version__,
        "versions": {name: version_of(name) for name in _RECORDED},
        "model": spec_to_toml(spec),
        "design": design.digest,
        "weights": design.weights.digest if design.weights else None,
        "seed": seed,
        "draws": settings["draws"] // sampler.thin,
        "thin": sampler.thin,
        **{name: settings[name] for name in named},
    }


def _begin(path: Path | None, header: dict[str, Any], *, resume: bool) -> list[dict[str, Any]]:
    """Return the finished data sets of a file, and leave it whole: its header, whole lines."""
    if path is None:
        return []
    if path.exists() and not resume:
        msg = f"{path.name}: got an existing file; expected a new one. Continue it with --resume, "
        raise SamplingError(f"{msg}or choose another.")
    before, lines = _read(path) if path.exists() else (header, [])
    changed = [name for name in header if before.get(name) != header[name]]
    if changed:
        msg = f"{path.name}: got a calibration with other {listing(changed)}; expected the same."
        raise SamplingError(f"{msg} Undo the change, or choose another file.")
    text = "".join(json.dumps(each) + "\n" for each in (header, *lines))
    try:
        replace_file(path, lambda out: out.write(text.encode()))
    except OSError as cause:
        msg = f"{path.name}: cannot be written ({cause.strerror}). Choose another place."
        raise FitError(msg) from cause
    return lines


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read header and data sets; a last line without its end was being written."""
    try:
        *whole, _ = path.read_text(encoding="utf-8").split("\n")
        header, *lines = (json.loads(line) for line in whole)
        found = header["format"]
        if found == FORMAT and not (header["draws"] and all(set(x) >= _FIELDS for x in lines)):
            raise ValueError("lines that lack something")
    except (OSError, ValueError, KeyError, TypeError) as cause:
        msg = f"{path.name}: got a file that is no calibration ({cause!r}); expected one that"
        raise FitError(f"{msg} 'calibrate' wrote.") from cause
    if found != FORMAT:
        msg = f"{path.name}: got format {found!r}; expected {FORMAT!r}. Calibrate again."
        raise FitError(msg)
    return header, lines


@contextmanager
def _appended(file: str | Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what writes a data set to the end of a file, and sees that it is on disk."""
    if file is None:
        yield lambda _: None
        return
    path = Path(file)
    with path.open("ab") as out:

        def write(line: dict[str, Any]) -> None:
            try:
                out.write(json.dumps(line).encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())
            except OSError as cause:
                msg = (
                    f"{path.name}: cannot be written ({cause.strerror}). Data sets before this are"
                )
                raise FitError(f"{msg} kept: make room and continue with --resume.") from cause

        yield write


@contextmanager
def _bar(total: int, done: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("data sets"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        task = progress.add_task("", total=total, completed=done)
        yield lambda: progress.advance(task)


def _calibration(header: Mapping[str, Any], lines: list[dict[str, Any]]) -> Calibration:
    index = pd.Index([line["dataset"] for line in lines], name="dataset")
    runs = {name: [line[name] for line in lines] for name in ("seconds", "diverging", "pareto_k")}
    return Calibration(
        pd.DataFrame([line["ranks"] for line in lines], index=index),
        pd.DataFrame([line["ess"] for line in lines], index=index, dtype=float),
        pd.DataFrame(runs, index=index).astype({"pareto_k": float, "diverging": float}),
        int(header["draws"]),
        header,
    )
