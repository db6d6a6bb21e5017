"""Rows that a fit has not seen, given the neighbors that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from spatialclusters.design import Design, GroupDesign
from spatialclusters.errors import FitError, listing
from spatialclusters.lags import row_lag
from spatialclusters.parameters import noise_clusters, reference_size
from spatialclusters.predictions import (
    DRAWS,
    columns_again,
    each_draw,
    kept_panel,
    own_rows,
    row_keys,
    row_labels,
    rows_again,
    summaries_frame,
)
from spatialclusters.processes import FIELDS, outcome_process
from spatialclusters.result import Fit
from spatialclusters.rows import Rows
from spatialclusters.simulation import linear_predictor, noise_scale

__all__ = ["predict_left_out"]


def predict_left_out(
    fit: Fit, regions: Sequence[str] | None = None, *, draws: int = DRAWS, seed: int
) -> pd.DataFrame:
    r"""Predict the response of rows that are not in the fit, given those that are.

    Leave the response of some regions empty, fit, and ask for them. With o the rows left out
    and i those of the fit, :math:`Q = A'B'D^{-1}BA`, :math:`\mu = A^{-1}\eta` (their BP),

    .. math:: y_o \mid y_i \sim N\big(\mu_o - Q_{oo}^{-1} Q_{oi} (y_i - \mu_i),\; Q_{oo}^{-1}\big)

    L and the structures of effects are those of all rows here, of i alone in the fit, as if
    nothing passed through o: with a spatial process an approximation, the better the fewer rows
    are left out. Centers, substitutes of zeros and mean(x | g) are the fit's; mean(x | g) of a
    new level is that of its new rows. Effects of new levels are drawn together with y: normal
    given the hyperparameters, and in a spatial structure given the effects of the levels in the
    fit (ICAR without its constraint: levels follow from differences to their neighbors).

    Parameters
    ----------
    fit
        One that keeps its panel, as :func:`spatialclusters.fit` makes them.
    regions
        Whose rows that are not in the fit are predicted. By default all regions without any
        row in it, which take part in L in any case.
    draws
        Evenly spaced posterior draws, each with one draw of y.
    seed
        Of the draws of y.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates with effect ``prediction``, a group for every row. Intervals are
        predictive: they contain the noise.

    Raises
    ------
    FitError
        The fit lacks its panel; there are no such rows with known covariates; they need what
        only an estimate could give (a fixed effect, the noise of a new cluster, what a zero
        does); or noise is Student-t and the outcome has a spatial process.
    """
    fit = fit.given_rows
    whole, wanted = _with_left_out(fit, regions)
    system, rng = _LeftOut(fit, whole), np.random.default_rng(seed)

    def response(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        factor, target = system.whitened(parameters, rng)
        noisy = target + rng.standard_normal(len(target))
        solved = splu(sparse.csc_array(factor.T @ factor)).solve(factor.T @ noisy)
        return np.asarray(solved[wanted - fit.design.n_rows])

    values, labels = each_draw(fit, draws, response), row_labels(whole)
    asked = [labels[i] for i in wanted]
    return summaries_frame(fit, values, asked, term="left out", effect="prediction")


def _with_left_out(fit: Fit, regions: Sequence[str] | None) -> tuple[Design, np.ndarray]:
    """Return the fit's rows followed by those left out, and which of these are asked for."""
    panel, linkages = kept_panel(fit)
    inside = set(fit.design.data["row_region"].values.tolist())
    unseen = [region for region in panel.regions if region not in inside]
    asked = unseen if regions is None else list(regions)
    if unknown := [region for region in asked if region not in panel.regions]:
        raise FitError(f"prediction: got regions {listing(unknown)}; expected some of the panel's.")
    rows = rows_again(fit, panel, linkages)
    own, there = own_rows(fit, rows), rows.ids["region"]
    free = np.isin(there, [*unseen, *asked])
    free[own] = False
    left = np.flatnonzero(free)
    wanted = np.flatnonzero(np.isin(there[left], asked)) + len(own)
    if not len(wanted):
        msg = "prediction: got no row outside the fit with known covariates; expected some. Leave"
        raise FitError(f"{msg} the response of regions empty, fit, and ask for these.")
    return _extended(fit, rows, np.concatenate([own, left])), wanted


def _extended(fit: Fit, rows: Rows, order: np.ndarray) -> Design:
    """Lay out the fit's rows and others as one design in the fit's terms and levels."""
    design, n = fit.design, fit.design.n_rows
    ids = {name: values[order] for name, values in rows.ids.items()}
    restandardize = design.data.attrs["blocks"] == "restandardize"
    lag = row_lag(fit.weights, ids, restandardize=restandardize) if fit.weights else None
    own, every = ({name: x[at] for name, x in rows.variables.items()} for at in (order[:n], order))
    columns = {k: new for k, (_, new) in columns_again(fit, own, every, (design.lag, lag)).items()}
    data: dict[str, Any] = {f"row_{name}": ("obs", values) for name, values in ids.items()}
    coords: dict[str, Any] = {"term": design.data["term"]}
    for group in design.groups:
        keys = row_keys(ids, group.name.split(":"))
        place = dict(zip(keys[:n], group.codes.tolist(), strict=True))
        codes = np.array([place.setdefault(key, len(place)) for key in keys])
        added = [" : ".join(key) for key in list(place)[len(group.levels) :]]
        if added and group.effect == "fixed":
            msg = f"prediction: got fixed effects of {group.name!r} and levels without one:"
            raise FitError(f"{msg} {listing(added)}; expected none. Make the effects random.")
        data[f"code_{group.name}"] = ("obs", codes)
        coords[group.name] = np.array([*group.levels, *added], dtype=object)
        for label, values in list(columns.items()):
            if (name := f"mean({label} | {group.name})") in design.terms:
                mean = np.bincount(codes, values) / np.bincount(codes)
                mean[group.codes] = design.X[:, design.terms.index(name)]
                columns[name] = mean[codes]
    X = np.column_stack([columns[term] for term in design.terms] or [np.empty((len(order), 0))])
    y = np.concatenate([design.y, np.zeros(len(order) - n)])
    data |= {"X": (("obs", "term"), X), "y": ("obs", y), "size": ("obs", rows.size[order])}
    data |= {name: design.data[name] for name in ("center", "scale")}
    return Design(xr.Dataset(data, coords=coords, attrs=design.data.attrs), fit.weights)


class _LeftOut:
    """What is unknown of a design whose first rows are the fit's: y, and effects of new levels.

    These effects are m + F z with standard normal z.
    """

    def __init__(self, fit: Fit, whole: Design) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)  # for the fields
        self.fit, self.whole, self.n = fit, whole, fit.design.n_rows
        self.space = outcome_process(fit.spec, whole)
        self.surfaces = {
            new.name: list(_surfaces(whole, new, len(old.levels)))
            for old, new in zip(fit.design.groups, whole.groups, strict=True)
            if new.structure != "iid"
        }
        self.loadings = {
            new.name: _loadings(whole, new, len(old.levels))
            for old, new in zip(fit.design.groups, whole.groups, strict=True)
        }
        if self.space is not None and fit.spec.likelihood.family == "student-t":
            msg = "prediction: got Student-t noise and a spatial process of the outcome; expected"
            raise FitError(f"{msg} one of the two: y given its neighbors is not normal.")
        lower, upper = (-1.0, 1.0) if self.space is None else self.space.support
        for name in () if self.space is None else self.space.parameters:
            if fit.draws(name).min() <= lower or fit.draws(name).max() >= upper:
                msg = f"prediction: got {name} outside {lower:.4g} to {upper:.4g}; expected it"
                raise FitError(f"{msg} inside, where the process exists on all rows.")
        if fit.spec.likelihood.scale == "by-cluster":
            known = noise_clusters(fit.design)[1].tolist()
            here = whole.data["row_cluster"].values[self.n :].tolist()
            if unknown := {*here} - {*known}:
                msg = f"prediction: got clusters whose noise is unknown: {listing(unknown)};"
                raise FitError(f"{msg} expected those of the fit.")
            self.cluster = np.array([known.index(label) for label in here])

    def whitened(
        self, parameters: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> tuple[sparse.csr_array, np.ndarray]:
        """Return R and t: x = (left-out y, z) has precision R'R and mean (R'R)^-1 R't.

        R x - t is the whitened noise of all rows, followed by z.
        """
        whole, n, N = self.whole, self.n, self.whole.n_rows
        A = B = eye = sparse.eye_array(N, format="csr")
        if self.space is not None:
            A, B = (
                eye - float(parameters.get(name, 0.0)) * self.space.lag.matrix
                for name in ("rho", "lambda")
            )
        effects, columns = dict(parameters), [A[:, n:]]
        for group in whole.groups:
            name = f"effect({group.name})"
            mean, root = self._new_levels(group, parameters)
            effects[name] = np.vstack([parameters[name], mean])
            columns.append(-self.loadings[group.name] @ root)
        unknown = sparse.hstack(columns, format="csr")
        scaled = sparse.diags_array(1.0 / self._noise(parameters, rng)) @ B
        known = linear_predictor(whole, effects) - A[:, :n] @ whole.y[:n]
        z = unknown.shape[1] - (N - n)
        prior = sparse.eye_array(z, N - n + z, k=N - n)
        factor = sparse.vstack([scaled @ unknown, prior], format="csr")
        return factor, np.concatenate([scaled @ known, np.zeros(z)])

    def _noise(self, parameters: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Return standard deviations of the noise; t noise is normal with a random one."""
        spec, design, count = self.fit.spec, self.fit.design, self.whole.n_rows - self.n
        if spec.likelihood.scale == "by-cluster":
            new = parameters["sigma(cluster)"][self.cluster]
        else:
            new = np.full(count, float(parameters["sigma"]))
        if spec.likelihood.scale == "size":
            small = reference_size(design) / self.whole.data["size"].values[self.n :]
            share, power = (float(parameters[f"size.{name}"]) for name in ("share", "power"))
            new = new * np.sqrt(1.0 - share + share * small**power)
        if spec.likelihood.family == "student-t":
            nu = float(parameters["nu"])
            new = new / np.sqrt(rng.gamma(nu / 2.0, 2.0 / nu, size=count))
        return np.concatenate([noise_scale(spec, design, parameters), new])

    def _new_levels(
        self, group: GroupDesign, parameters: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, Any]:
        """Return mean (levels, columns) and root of the effects of levels that the fit lacks."""
        known = parameters[f"effect({group.name})"]
        count, K = len(group.levels) - len(known), len(group.columns)
        mean = np.zeros((count, K))
        if not count:
            return mean, sparse.csr_array((0, 0))
        sd = parameters[f"sd({group.name})"]
        if group.structure == "iid":
            correlation = np.eye(K)
            if K > 1:
                lower = np.tril_indices(K, -1)
                correlation[lower] = correlation.T[lower] = parameters[f"cor({group.name})"]
            return mean, sparse.kron(
                sparse.eye_array(count), sd[:, None] * np.linalg.cholesky(correlation), "csr"
            )
        field, root = FIELDS[group.structure], np.zeros((count, count))
        value = parameters.get(f"{field.parameter}({group.name})")
        for inside, arrays, free in self.surfaces[group.name]:
            Q = np.asarray(field.precision(arrays, value)[0])[0] - free
            new = inside >= len(known)
            at, C = inside[new] - len(known), np.linalg.cholesky(Q[np.ix_(new, new)])
            mean[at] = -np.linalg.solve(
                Q[np.ix_(new, new)], Q[np.ix_(new, ~new)] @ known[inside[~new]]
            )
            root[np.ix_(at, at)] = sd[0] * np.linalg.inv(C).T
        return mean, sparse.csr_array(root)


def _surfaces(
    design: Design, group: GroupDesign, known: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]:
    """Yield the pieces of a structure with new levels: levels, arrays, and what is free in Q."""
    field, graph = FIELDS[group.structure], design.graph(group)
    for k in range(int(graph.piece.max()) + 1):
        inside = np.flatnonzero(graph.piece == k)
        if inside[-1] < known:
            continue
        adjacency = graph.adjacency[inside][:, inside].toarray()
        arrays = field.prepare(adjacency[None], np.ones((1, len(inside)), dtype=bool))
        free = np.zeros_like(adjacency)
        if field.constrained:  # the field's Q has a variance for what the intercept takes
            part = connected_components(adjacency)[1]
            size = np.bincount(part)[part]
            free = np.where((part[:, None] == part) & (size > 1), 1.0 / size, 0.0)
            alone = ~np.isin(part, part[inside < known]) & (size > 1)
            if alone.any():
                msg = f"prediction: got {listing(group.levels[inside[alone]])} with no neighbor in"
                raise FitError(f"{msg} the fit, near or far; expected one for structure 'icar'.")
        yield inside, arrays, free


def _loadings(design: Design, group: GroupDesign, known: int) -> sparse.csr_array:
    """Return the columns of the effects of new levels, (N, levels x columns)."""
    rows, K = np.flatnonzero(group.codes >= known), len(group.columns)
    centered = design.X[rows] - design.data["center"].values
    values = np.column_stack(
        [np.ones(len(rows)) if c < 0 else centered[:, c] for c in group.columns]
    )
    at = ((group.codes[rows, None] - known) * K + np.arange(K)).ravel()
    shape = (design.n_rows, (len(group.levels) - known) * K)
    return sparse.csr_array((values.ravel(), (np.repeat(rows, K), at)), shape=shape)
