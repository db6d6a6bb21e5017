r"""What a model expects: of its own rows, of regions it has not seen, and after a change.

With the lag L of the rows, :math:`A = I - \rho L`, :math:`B = I - \lambda L`, linear predictor
:math:`\eta` with all effects, and D the diagonal matrix of noise variances,

.. math:: A y = \eta + B^{-1} \nu, \quad \nu \sim N(0, D)

Everything is computed draw by draw. Predictors are named as by Goulard, Laurent and
Thomas-Agnan (2017), doi:10.1080/17421772.2017.1300679.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr

from spatialclusters.design import Design
from spatialclusters.errors import FitError, listing, suggestion
from spatialclusters.estimates import estimates_frame
from spatialclusters.formula import DIMS, Expression, Variable
from spatialclusters.lags import RowLag
from spatialclusters.measures import MEASURES
from spatialclusters.panel import ABSENT, Panel
from spatialclusters.processes import outcome_process
from spatialclusters.result import Fit, kept_variables
from spatialclusters.rows import Rows, choose_rows
from spatialclusters.simulation import linear_predictor
from spatialclusters.summaries import summarize_draws

__all__ = [
    "DRAWS",
    "columns_again",
    "counterfactual",
    "each_draw",
    "kept_panel",
    "own_rows",
    "predict",
    "row_keys",
    "row_labels",
    "rows_again",
    "summaries_frame",
]

DRAWS: Final = 1000  # of fewer, effective sizes do not reach what a verdict asks for
_SAME: Final = 1e-9  # relative: columns computed again from the same cells
_Pair = tuple[np.ndarray, np.ndarray]
_FUNCTIONS: Final = {"log": np.log, "log1p": np.log1p, "asinh": np.arcsinh}


def predict(fit: Fit, kind: str = "trend", *, draws: int = DRAWS) -> pd.DataFrame:
    r"""Return the expected response of every row of the fit, given its effects.

    Parameters
    ----------
    fit
        Of any model.
    kind
        ``"trend"``: :math:`A^{-1}\eta`, what the model expects without seeing a response
        (their TC). ``"signal"``: what it expects of each row beside the responses next door,
        :math:`y - \nu = \rho L y + \eta + \lambda L (A y - \eta)` (their TS); not the best
        predictor, since those responses depend on the row's own. Without a spatial process
        of the outcome both are :math:`\eta`.
    draws
        Evenly spaced posterior draws.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates with effect ``prediction``, a group for every row in the fit's order.
        Intervals are of the expectation: noise is left out.

    Raises
    ------
    FitError
        ``kind`` is neither of the two.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.result import assemble
    >>> from spatialclusters.spec import parse_spec
    >>> from spatialclusters.weights import read_weights
    >>> table = pd.DataFrame({"region": list("abcd"), "y": [1.0, 2, 2.5, 4], "x": [0.0, 1, 2, 3]})
    >>> pairs = pd.DataFrame({"region_i": list("abcd"), "region_j": list("badc")})
    >>> spec = parse_spec('formula = "y ~ x"\nspatial.outcome = "sar"')
    >>> design = build_design(spec, read_panel(table), read_weights(pairs))
    >>> draws = {"coefficient": np.full((2, 50, 1), 0.9), "rho": np.full((2, 50), 0.5),
    ...          "intercept": np.full((2, 50), 1.2)}
    >>> fit = assemble(spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance={})
    >>> predict(fit)["estimate"].round(6).tolist(), predict(fit, "signal")["estimate"].round(6).tolist()
    ([0.3, 0.9, 3.9, 4.5], [0.85, 1.25, 3.65, 3.8])
    """
    if kind not in ("trend", "signal"):
        raise FitError(f"predict: got kind {kind!r}; expected 'trend' or 'signal'.")
    design, space = fit.design, outcome_process(fit.spec, fit.design)

    def expected(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        mean = linear_predictor(design, parameters)
        if space is None:
            return mean
        if kind == "trend":
            return space.response(parameters, mean, np.zeros(len(mean)))
        return np.asarray(design.y - space.filtered(parameters, design.y, mean))

    values = each_draw(fit.given_rows, draws, expected)
    return summaries_frame(fit, values, row_labels(design), term=kind, effect="prediction")


def counterfactual(
    fit: Fit,
    region: str,
    cluster: str,
    change: float = 0.10,
    *,
    by: str = "region",
    draws: int = DRAWS,
) -> pd.DataFrame:
    r"""Return what a larger cluster in one region does to the response there and everywhere.

    Base-year employment of the cluster's cells in the region, as they count in sums, is
    multiplied by 1 + ``change``, the totals of region, cluster and nation with it; measures and
    covariates X follow from that, and with the slopes of each row's own groups

    .. math:: \Delta E[y] = A^{-1} \Delta\eta, \quad
        \Delta\eta_n = \Delta x_n' \Big(\beta + \sum_g b_{g(n)}\Big)

    Held fixed: group means mean(x | g), since the row moves and not its group; other variables;
    substitutes of zeros. Where every region is compared with the nation, all regions change a
    little. For growth this is the change in growth from the base year on, without the larger
    start itself.

    Parameters
    ----------
    fit
        One that keeps its panel, as :func:`spatialclusters.fit` makes them.
    region, cluster
        Labels in the panel.
    change
        Relative to the base year, above -1.
    by
        ``"region"``: means over a region's rows, all alike; ``"region:cluster"``; or ``"row"``.
    draws
        Evenly spaced posterior draws.

    Returns
    -------
    pandas.DataFrame
        Tidy estimates with effect ``counterfactual`` in the unit of the response.

    Raises
    ------
    FitError
        The fit lacks its panel or linkages; no covariate depends on employment; there is no
        such region or cluster, or nothing to multiply; ``change`` or ``by`` is out of range.

    Examples
    --------
    >>> from spatialclusters.design import build_design
    >>> from spatialclusters.panel import read_panel
    >>> from spatialclusters.result import assemble
    >>> from spatialclusters.spec import parse_spec
    >>> table = pd.DataFrame({"region": list("aabbcc"), "cluster": list("uvuvuv"),
    ...                       "employment": [50.0, 50, 20, 80, 30, 70], "y": [1.0, 2, 2, 3, 1, 4]})
    >>> spec = parse_spec('formula = "y ~ log(cluster_level)"\n'
    ...                   'cells = { absent = "zero", withheld = "zero" }')
    >>> panel = read_panel(table)
    >>> draws = {"coefficient": np.full((2, 50, 1), -0.5), "intercept": np.zeros((2, 50))}
    >>> fit = assemble(spec, build_design(spec, panel), draws, {}, panel=panel.data,
    ...                geometry=None, provenance={})
    >>> counterfactual(fit, "a", "u", 0.1, by="row")["estimate"].round(4).tolist()[:4]
    [-0.0071, 0.0161, 0.0161, -0.0083]
    """
    if not (np.isfinite(change) and change > -1.0):
        raise FitError(f"counterfactual: got change {change}; expected a number above -1.")
    design, (panel, linkages), space = (
        fit.design,
        kept_panel(fit),
        outcome_process(fit.spec, fit.design),
    )
    ids = _ids(design)
    levels = {"region": ["region"], "region:cluster": ["region", "cluster"], "row": _unit(ids)}
    if by not in levels:
        raise FitError(f"counterfactual: got by = {by!r}; expected one of {listing(levels)}.")
    raised = Panel(_raised(fit, panel, region, cluster, 1.0 + change))
    rows = [rows_again(fit, each, linkages) for each in (panel, raised)]
    at = own_rows(fit, rows[0])
    before, after = ({name: x[at] for name, x in each.variables.items()} for each in rows)
    moved = np.zeros_like(design.X)
    for label, (old, new) in columns_again(fit, before, after, (design.lag, design.lag)).items():
        moved[:, design.terms.index(label)] = new - old
    groups = pd.DataFrame(ids)[levels[by]]
    codes = groups.groupby(levels[by], sort=False).ngroup().to_numpy()
    labels = groups.drop_duplicates().agg(" : ".join, axis=1)

    def difference(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        out = moved @ parameters["coefficient"]
        for group in design.groups:
            effect = parameters[f"effect({group.name})"][group.codes]
            for position, column in enumerate(group.columns):
                out += effect[:, position] * (moved[:, column] if column >= 0 else 0.0)
        if space is not None:
            out = space.response(parameters, out, np.zeros(len(out)))
        return np.asarray(np.bincount(codes, out) / np.bincount(codes))

    term = f"{cluster} in {region} {100.0 * change:+.4g} %"
    values = each_draw(fit, draws, difference)
    return summaries_frame(fit, values, labels, term=term, effect="counterfactual")


def each_draw(
    fit: Fit, draws: int, function: Callable[[Mapping[str, np.ndarray]], np.ndarray]
) -> np.ndarray:
    """Apply a function to evenly spaced draws, equally many of each chain: (chain, draw, ...)."""
    chains, each = (fit.posterior.sizes[name] for name in ("chain", "draw"))
    kept = np.unique(np.linspace(0, each - 1, min(each, -(-draws // chains))).astype(int))
    names = list(map(str, fit.posterior.data_vars))
    drawn = {name: fit.draws(name, {"draw": kept}) for name in names}
    return np.array(
        [
            [function({name: drawn[name][chain, i] for name in names}) for i in range(len(kept))]
            for chain in range(chains)
        ]
    )


def summaries_frame(
    fit: Fit, values: np.ndarray, labels: Iterable[str], **identity: str
) -> pd.DataFrame:
    """Summarize draws (chain, draw, label), in the unit of the response, one group a label."""
    shared = {"model": fit.spec.name, "estimator": "posterior"} | identity
    shared["unit"] = str(fit.design.data.attrs["unit"])
    return estimates_frame(
        shared | {"group": label} | summarize_draws(values[..., i], family=True)
        for i, label in enumerate(labels)
    )


def _ids(design: Design) -> dict[str, np.ndarray]:
    """Return what identifies the rows, by dimension."""
    return {
        name: design.data[f"row_{name}"].values for name in DIMS if f"row_{name}" in design.data
    }


def _unit(ids: Mapping[str, np.ndarray]) -> list[str]:
    """Return the dimensions of which each row is one cell: an industry has but one cluster."""
    return [name for name in ("region", "industry", "cluster") if name in ids][:2]


def row_labels(design: Design) -> list[str]:
    """Name the rows: by region, or by region and industry or cluster."""
    ids = _ids(design)
    return [" : ".join(key) for key in row_keys(ids, _unit(ids))]


def row_keys(ids: Mapping[str, np.ndarray], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return what identifies each row by these dimensions."""
    return list(zip(*(ids[name].tolist() for name in names), strict=True))


def kept_panel(fit: Fit) -> tuple[Panel, xr.DataArray | None]:
    """Return the base-year panel and the linkages that the fit keeps, or say what it lacks."""
    if fit.design.psi is not None:
        msg = "prediction: got weights that are estimated; expected given ones for other covariates"
        raise FitError(f"{msg} and rows than those of the fit. Fit with weights that are fixed.")
    children = fit.tree.children
    data = children["panel"].to_dataset() if "panel" in children else xr.Dataset()
    if "present" not in data and "status" in data:  # saved by an earlier version
        data = data.assign(present=data["status"] != ABSENT)
    missing = [name for name in ("present", *kept_variables(fit.spec)) if name not in data]
    linkages = children["linkages"].to_dataset()["weight"] if "linkages" in children else None
    if "linked_strength" in fit.spec.parsed_formula.variables and linkages is None:
        missing.append("linkages")
    if missing:
        msg = f"fit: got one that does not keep {listing(missing)} of its panel; expected it, as"
        raise FitError(f"{msg} fit() of this version makes it. Fit the model again.")
    return Panel(data), linkages


def rows_again(fit: Fit, panel: Panel, linkages: xr.DataArray | None) -> Rows:
    """Choose the cells whose covariates are known, whatever their response."""
    spec, present = fit.spec, panel.data["present"]
    name = spec.growth.variable if spec.growth else spec.parsed_formula.response
    if spec.growth:
        response = panel.data[name].expand_dims(year=["start", "end"])
    elif name in kept_variables(spec):
        msg = f"fit: got the response {name!r} among what covariates are made of; expected it not."
        raise FitError(msg)
    else:
        response = present.astype(np.float64).where(present)
    return choose_rows(spec, Panel(panel.data.assign({name: response})), fit.weights, linkages)


def own_rows(fit: Fit, rows: Rows) -> np.ndarray:
    """Return the positions of the fit's rows among others."""
    ids = _ids(fit.design)
    place = {key: i for i, key in enumerate(row_keys(rows.ids, _unit(ids)))}
    found = np.array([place.get(key, -1) for key in row_keys(ids, _unit(ids))])
    if (found < 0).any():
        raise FitError("fit: got rows that its panel does not have; expected them. Fit it again.")
    return found


def columns_again(
    fit: Fit,
    own: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray],
    lags: tuple[RowLag | None, RowLag | None],
) -> dict[str, _Pair]:
    """Evaluate columns on the fit's rows and on others, with means and minima of the fit's.

    Group means are not among them.
    """
    design, zeros = fit.design, fit.spec.zeros
    columns: dict[str, _Pair] = {}
    dummies: dict[str, _Pair] = {}

    def evaluate(node: Expression) -> tuple[str, _Pair]:
        if isinstance(node, Variable):
            return node.name, (own[node.name], others[node.name])
        name, (inner, (mine, theirs)) = node.function, evaluate(node.argument)
        if name == "lag":
            assert lags[0] is not None  # a design with lag() has weights
            assert lags[1] is not None
            return f"lag({inner})", (lags[0] @ mine, lags[1] @ theirs)
        if name == "center":
            return f"center({inner})", (mine - mine.mean(), theirs - mine.mean())
        rule = zeros.get(inner) if name == "log" else None
        if rule == "minimum-and-dummy":
            dummies[f"zero({inner})"] = (mine == 0.0) * 1.0, (theirs == 0.0) * 1.0
            least = mine[mine > 0.0].min()
            mine, theirs = (np.where(x == 0.0, least, x) for x in (mine, theirs))
        name = rule if rule in _FUNCTIONS else name
        with np.errstate(divide="ignore", invalid="ignore"):
            return f"{name}({inner})", (_FUNCTIONS[name](mine), _FUNCTIONS[name](theirs))

    for term in fit.spec.parsed_formula.terms:
        labels, pairs = zip(*map(evaluate, term.factors), strict=True)
        mine, theirs = (np.prod(x, axis=0) for x in zip(*pairs, strict=True))
        columns[":".join(labels)] = mine, theirs
    for label, pair in (columns | dummies).items():
        known = design.X[:, design.terms.index(label)] if label in design.terms else 0.0
        if not np.allclose(pair[0], known, rtol=_SAME, atol=_SAME * np.abs(known).max()):
            msg = f"fit: got another column {label!r} from its panel than was fitted; expected the"
            raise FitError(f"{msg} same. Fit the model again.")
        if not np.isfinite(pair[1]).all() or (label not in design.terms and pair[1].any()):
            msg = f"prediction: got zeros or values outside the domain of {label!r} in new rows;"
            raise FitError(f"{msg} expected none, since the fit had none.")
    return {label: pair for label, pair in (columns | dummies).items() if label in design.terms}


def _raised(fit: Fit, panel: Panel, region: str, cluster: str, factor: float) -> xr.Dataset:
    """Return the panel with employment of a region's cluster multiplied, bounds included."""
    growth, named, data = fit.spec.growth, fit.spec.parsed_formula.variables, panel.data
    if not any(name in MEASURES or (growth and name == growth.variable) for name in named):
        msg = "counterfactual: got a model in which nothing depends on employment; expected a"
        raise FitError(f"{msg} measure such as log(cluster_level). Use another model.")
    of = data["cluster"] if "cluster" in data.dims else data.coords.get("cluster_of")
    known = {
        "region": panel.regions,
        "cluster": () if of is None else sorted({*of.values.tolist()} - {""}),
    }
    for name, value in {"region": region, "cluster": cluster}.items():
        if value not in known[name]:
            allowed = listing(known[name]) or "none"
            msg = f"counterfactual: got the {name} {value!r}; expected one of {allowed}."
            raise FitError(msg + suggestion(value, known[name]))
    inside = (data["region"] == region) & (of == cluster)
    level = kept_variables(fit.spec)[0]
    names = [name for name in (level, f"{level}_lower", f"{level}_upper") if name in data]
    if not any(bool((data[name].where(inside) > 0.0).any()) for name in names):
        msg = f"counterfactual: got no {level} of {cluster!r} in {region!r}; expected some."
        raise FitError(f"{msg} Choose another cell.")
    return data.assign({name: data[name].where(~inside, data[name] * factor) for name in names})
