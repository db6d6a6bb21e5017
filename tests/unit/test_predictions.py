"""Predictions against dense normals, and counterfactuals against measures by their definitions."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import spatialclusters as sc
from spatialclusters import run
from spatialclusters.left_out import _LeftOut, _with_left_out, predict_left_out
from spatialclusters.predictions import counterfactual, each_draw, predict
from spatialclusters.processes import FIELDS, OUTCOMES
from spatialclusters.result import assemble
from spatialclusters.run import _levels, model_linkages
from spatialclusters.simulation import draw_parameters
from tests.contracts.test_processes import covariance, design_of, lag_matrix, links

EXACT = 1e-9  # relative: the same algebra through dense inverses
CHAINS, DRAWS = 2, 20
TAIL = (1.0 - 0.95) / 2.0
CI = TAIL, 1.0 - TAIL

PROVENANCE = {
    "version": sc.__version__, "created": "2026-11-22T12:00:00+00:00", "engine": "full",
    "settings": {"seed": 7, "chains": 4, "tune": 600, "draws": 500, "max_tree_depth": 10},
    "sampler": "none: made up", "python": "3.12.1", "versions": {}, "digests": {}, "timings": {},
}  # fmt: skip


def fit_of(spec, design, panel=None, linkages=None, draws=DRAWS, seed=3, constant=False, **fixed):
    """A fit whose draws come from the prior, or are one such draw again and again."""
    rng = np.random.default_rng(seed)
    drawn = [draw_parameters(spec, design, rng) for _ in range(CHAINS * draws)]
    drawn = [drawn[0]] * len(drawn) if constant else drawn
    posterior = {
        name: np.stack([np.asarray(fixed.get(name, p[name]), dtype=float) for p in drawn])
        for name in drawn[0]
    }
    shape = (CHAINS, draws)
    statistics = {
        "diverging": np.zeros(shape, dtype=bool), "energy": np.zeros(shape),
        "n_steps": np.full(shape, 3), "tree_depth": np.full(shape, 2),
    }  # fmt: skip
    return assemble(
        spec, design,
        {name: x.reshape(CHAINS, draws, *x.shape[1:]) for name, x in posterior.items()},
        statistics, panel=xr.Dataset() if panel is None else _levels(spec, panel), geometry=None,
        provenance=PROVENANCE, linkages=None if panel is None else model_linkages(spec, panel, linkages),
    )  # fmt: skip


def draws_of(fit):
    """Every draw in order, all parameters of a draw together."""
    stacked = fit.posterior.stack(sample=("chain", "draw"), create_index=False)
    return [
        {str(n): x.isel(sample=i).values for n, x in stacked.data_vars.items()}
        for i in range(stacked.sizes["sample"])
    ]


def predictor(design, X, codes, parameters):
    """The linear predictor by loops; effects of levels beyond those drawn count zero."""
    out = np.zeros(len(X))
    center = design.data["center"].values
    for n in range(len(X)):
        out[n] = parameters.get("intercept", 0.0) + (X[n] - center) @ parameters["coefficient"]
        for group in design.groups:
            effect = parameters[f"effect({group.name})"]
            if (level := codes[group.name][n]) < len(effect):
                columns = [1.0 if c < 0 else X[n, c] - center[c] for c in group.columns]
                out[n] += np.dot(effect[level], columns)
    return out


def assert_summarizes(frame, values, rtol=EXACT):
    """Estimates and intervals are those of the draws (draw, row): so every draw is right."""
    scale = rtol * np.abs(values).max()
    np.testing.assert_allclose(frame["estimate"], values.mean(axis=0), rtol=rtol, atol=scale)
    for name, probability in zip(("ci_low", "ci_high"), CI, strict=True):
        wanted = np.quantile(values, probability, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(frame[name], wanted, rtol=rtol, atol=scale)


# the fit's own rows


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("shape", ["industries", "clusters", "cross-section"])
def test_trend_and_signal_are_those_of_dense_matrices(shape, outcome):
    spec, design = design_of(shape, outcome)
    fit = fit_of(spec, design)
    L, eye = lag_matrix(design), np.eye(design.n_rows)
    codes = {group.name: group.codes for group in design.groups}
    trend, signal = [], []
    for parameters in draws_of(fit):
        rho, lam = (float(parameters.get(name, 0.0)) for name in ("rho", "lambda"))
        eta = predictor(design, design.X, codes, parameters)
        trend.append(np.linalg.inv(eye - rho * L) @ eta)
        error = design.y - rho * L @ design.y - eta
        signal.append(rho * L @ design.y + eta + lam * L @ error)
    assert_summarizes(predict(fit, draws=CHAINS * DRAWS), np.array(trend))
    assert_summarizes(predict(fit, "signal", draws=CHAINS * DRAWS), np.array(signal))


def test_predictions_are_labeled_by_row():
    spec, design = design_of("industries", "sar")
    frame = predict(fit_of(spec, design))
    rows = design.data
    assert frame["group"].tolist() == [
        f"{r} : {i}"
        for r, i in zip(rows["row_region"].values, rows["row_industry"].values, strict=True)
    ]
    assert set(frame["effect"]) == {"prediction"}
    assert set(frame["term"]) == {"trend"}
    assert predict(fit_of(*design_of("cross-section")))["group"].tolist()[0] == "r00"


def test_every_chain_gives_as_many_draws():
    fit = fit_of(*design_of("cross-section"))
    assert each_draw(fit, 7, lambda p: p["coefficient"]).shape == (CHAINS, 4, 2)
    assert each_draw(fit, 10**6, lambda p: p["coefficient"]).shape == (CHAINS, DRAWS, 2)
    with pytest.raises(sc.FitError, match="'trend' or 'signal'"):
        predict(fit, "noise")


# rows left out

GROUPS = {
    "cross-section": "y ~ x + lag(x)",
    "clusters": "y ~ x + center(x):z + (1 | region) + (1 + x | cluster)",
    "industries": "y ~ x + (1 | region) + (1 | region:cluster) + (1 + x | cluster)",
    "surfaces": "y ~ x + (1 | region:cluster) + (1 | cluster)",
    "slopes": "y ~ x + lag(x) + (1 + x | region)",
}
LEFT = ("r01", "r04", "r10")  # two in the ring, and one of the pair that only know each other


def left_out_of(shape, outcome="none", structure="iid", *, left=LEFT, more="", **changes):
    """Two designs of one table: without the responses of some regions, and with them."""
    rng = np.random.default_rng(11)
    regions = [f"r{i:02d}" for i in range(12)]
    if shape == "cross-section":
        table = pd.DataFrame({"region": regions})
    else:
        inside = 2 if shape == "industries" else 1
        rows = [
            (r, f"c{c}", f"i{c}{k}")
            for r in regions for c in range(3) for k in range(inside)
            if rng.random() < 0.8 or r in left
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=["region", "cluster", "industry"])
        table = table if inside > 1 else table.drop(columns="industry")
    table = table.assign(**{name: rng.normal(1.0, 2.0, len(table)) for name in "xz"})
    table["y"] = 0.5 * table["x"] + rng.normal(size=len(table))
    table = table.assign(**changes)
    group = "region:cluster" if shape == "surfaces" else "region"
    chosen = f'[groups."{group}"]\nstructure = "{structure}"\n' if structure != "iid" else ""
    spec = sc.parse_spec(
        f'formula = "{GROUPS[shape]}"\n{chosen}[spatial]\noutcome = "{outcome}"\n{more}'
    )
    masked = sc.read_panel(table.assign(y=table["y"].where(~table["region"].isin(left))))
    whole = sc.build_design(spec, sc.read_panel(table), links(12))
    return spec, sc.build_design(spec, masked, links(12)), masked, whole


def order_of(part, whole):
    """Positions in the whole of the fit's rows, and of the others."""
    names = [n for n in ("row_region", "row_industry", "row_cluster") if n in whole.data]
    keys = [list(zip(*(d.data[n].values for n in names), strict=True)) for d in (part, whole)]
    own = np.array([keys[1].index(key) for key in keys[0]])
    return own, np.setdiff1d(np.arange(len(keys[1])), own)


def conditional(fit, whole, parameters, noise):
    """Mean and covariance of the left-out given the fit's rows, from dense covariances."""
    design = fit.design
    own, left = order_of(design, whole)
    order = np.concatenate([own, left])
    L, eye = lag_matrix(whole)[np.ix_(order, order)], np.eye(len(order))
    x = whole.data["X"].sel(term="x").values[order]
    X = np.empty((len(order), len(design.terms)))
    for j, term in enumerate(design.terms):
        if term == "x":
            X[:, j] = x
        elif term == "lag(x)":
            X[:, j] = L @ x
        else:  # center(x):z, by the mean of the fit's rows
            assert term == "center(x):z"
            z = whole.data["X"].sel(term=term).values[order] / (x - whole.X[:, 0].mean())
            X[:, j] = (x - design.X[:, 0].mean()) * z
    codes, V, more = {}, np.diag(noise**2), np.zeros(len(order))
    A, B = (eye - float(parameters.get(name, 0.0)) * L for name in ("rho", "lambda"))
    V = np.linalg.inv(B) @ V @ np.linalg.inv(B).T
    for old, new in zip(design.groups, whole.groups, strict=True):
        labels = [*old.levels, *(level for level in new.levels if level not in set(old.levels))]
        codes[old.name] = np.array([labels.index(new.levels[c]) for c in new.codes[order]])
        n, K = len(old.levels), len(old.columns)
        columns = np.column_stack(
            [np.ones(len(order)) if c < 0 else X[:, c] - design.data["center"].values[c]
             for c in old.columns]
        )  # fmt: skip
        Z = np.zeros((len(order), len(labels), K))
        Z[np.arange(len(order)), codes[old.name]] = columns
        Z = Z[:, n:].reshape(len(order), -1)
        sd = parameters[f"sd({old.name})"]
        R = np.eye(K)
        if K > 1:
            R[0, 1] = R[1, 0] = parameters[f"cor({old.name})"][0]
        P, mean = np.kron(np.eye(len(labels) - n), np.outer(sd, sd) * R), np.zeros(Z.shape[1])
        if old.structure != "iid" and len(labels) > n:
            # levels of the whole in the order of the labels
            at = [new.levels.tolist().index(label) for label in labels]
            adjacency = whole.graph(new).adjacency.toarray()[np.ix_(at, at)]
            effect = parameters[f"effect({old.name})"][:, 0]
            P, mean = field_given(old.structure, adjacency, parameters, old.name, effect, sd[0])
        V, more = V + Z @ P @ Z.T, more + Z @ mean
    mu = np.linalg.solve(A, predictor(design, X, codes, parameters) + more)
    V = np.linalg.inv(A) @ V @ np.linalg.inv(A).T
    n = len(own)
    gain = np.linalg.solve(V[:n, :n], V[:n, n:]).T
    return mu[n:] + gain @ (design.y - mu[:n]), V[n:, n:] - gain @ V[:n, n:]


def field_given(structure, adjacency, parameters, name, effect, sd):
    """Covariance and mean of new levels given the drawn ones, by the structure's covariance."""
    n = len(effect)
    if structure == "icar":  # intrinsic: only differences between neighbors have a density
        C = covariance("icar", adjacency, 0.0)
        Q = np.zeros_like(C)
        reach = np.linalg.matrix_power(np.eye(len(C)) + adjacency, len(C)) > 0
        for inside in {tuple(np.flatnonzero(row)) for row in reach}:
            block = np.ix_(inside, inside)
            Q[block] = np.linalg.pinv(C[block]) if len(inside) > 1 else 1.0
        covered = np.linalg.inv(Q[n:, n:])
        return sd**2 * covered, -covered @ Q[n:, :n] @ effect
    value = float(parameters[f"{FIELDS[structure].parameter}({name})"])
    C = covariance(structure, adjacency, value)
    gain = np.linalg.solve(C[:n, :n], C[:n, n:]).T
    return sd**2 * (C[n:, n:] - gain @ C[:n, n:]), gain @ effect


def moments(fit, parameters, regions=None):
    """What the module says of the left-out rows: mean and covariance."""
    whole, wanted = _with_left_out(fit, regions)
    factor, target = _LeftOut(fit, whole).whitened(parameters, np.random.default_rng(0))
    precision = (factor.T @ factor).toarray()
    chosen = wanted - fit.design.n_rows
    mean = np.linalg.solve(precision, factor.T @ target)
    return mean[chosen], np.linalg.inv(precision)[np.ix_(chosen, chosen)]


CASES = [
    *((shape, outcome, "iid") for shape in ("cross-section", "clusters", "industries", "slopes")
      for outcome in OUTCOMES),
    *(("clusters", "sac", structure) for structure in FIELDS),
    *(("surfaces", "none", structure) for structure in FIELDS),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "outcome", "structure"), CASES)
def test_left_out_rows_follow_the_conditional_normal(shape, outcome, structure):
    spec, design, panel, whole = left_out_of(shape, outcome, structure)
    fit = fit_of(spec, design, panel)
    for parameters in draws_of(fit)[:3]:
        noise = np.full(whole.n_rows, float(parameters["sigma"]))
        mean, spread = conditional(fit, whole, parameters, noise)
        found = moments(fit, parameters)
        np.testing.assert_allclose(found[0], mean, rtol=1e-7, atol=1e-7 * np.abs(mean).max())
        np.testing.assert_allclose(found[1], spread, rtol=1e-7, atol=1e-7 * spread.max())


def test_the_best_predictor_is_the_formula_of_goulard_and_others():
    """mu_o - Q_oo^-1 Q_oi (y_i - mu_i), spread Q_oo^-1, for a model without effects."""
    spec, design, panel, whole = left_out_of("cross-section", "sac")
    fit = fit_of(spec, design, panel)
    parameters = draws_of(fit)[0]
    own, left = order_of(design, whole)
    L, eye = lag_matrix(whole), np.eye(12)
    A, B = (eye - float(parameters[name]) * L for name in ("rho", "lambda"))
    Q = A.T @ B.T @ B @ A / float(parameters["sigma"]) ** 2
    x = whole.data["X"].sel(term="x").values
    X = np.column_stack([x, L @ x]) - design.data["center"].values
    mu = np.linalg.solve(A, float(parameters["intercept"]) + X @ parameters["coefficient"])
    apart = np.linalg.solve(Q[np.ix_(left, left)], Q[np.ix_(left, own)] @ (design.y - mu[own]))
    mean, spread = moments(fit, parameters)
    np.testing.assert_allclose(mean, mu[left] - apart, rtol=EXACT)
    np.testing.assert_allclose(spread, np.linalg.inv(Q[np.ix_(left, left)]), rtol=EXACT)


def test_draws_have_the_moments_of_the_conditional_normal():
    spec, design, panel, whole = left_out_of("clusters", "sar", "leroux")
    n = 1000
    fit = fit_of(spec, design, panel, draws=n // CHAINS, constant=True)
    parameters = draws_of(fit)[0]
    noise = np.full(whole.n_rows, float(parameters["sigma"]))
    mean, spread = conditional(fit, whole, parameters, noise)
    frame = predict_left_out(fit, seed=1)
    sd = np.sqrt(np.diag(spread))
    # five Monte Carlo errors: of a mean, a standard deviation, and a quantile
    assert (np.abs(frame["estimate"] - mean) < 5.0 * sd / math.sqrt(n)).all()
    assert (np.abs(frame["std_error"] - sd) < 5.0 * sd / math.sqrt(2 * n)).all()
    z = stats.norm.ppf(1.0 - TAIL)
    error = math.sqrt(TAIL * (1.0 - TAIL) / n) / stats.norm.pdf(z)
    assert (np.abs(frame["ci_high"] - mean - z * sd) < 5.0 * error * sd).all()
    assert set(frame["verdict"]) == {"ok"}
    pd.testing.assert_frame_equal(frame, predict_left_out(fit, draws=n, seed=1))


def test_what_is_asked_does_not_change_what_is_said():
    spec, design, panel, _ = left_out_of("clusters", "sac")
    fit = fit_of(spec, design, panel)
    every = predict_left_out(fit, seed=2)
    one = predict_left_out(fit, ["r04"], seed=2)
    assert one["group"].tolist() == ["r04 : c0", "r04 : c1", "r04 : c2"]
    chosen = every[every["group"].isin(one["group"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, chosen)
    assert [g.split(" : ")[0] for g in every["group"][::3]] == list(LEFT)


def test_single_cells_of_a_region_in_the_fit_can_be_asked_for():
    spec, _, _, whole = left_out_of("clusters", "sar", left=())
    table = whole.data
    y = table["y"].values.copy()
    hole = int(np.flatnonzero(table["row_region"].values == "r02")[0])
    frame = pd.DataFrame({n: table[f"row_{n}"].values for n in ("region", "cluster")})
    frame["x"] = table["X"].sel(term="x").values
    frame["z"] = 1.0 + np.arange(len(frame)) % 3
    y[hole] = np.nan
    panel = sc.read_panel(frame.assign(y=y))
    fit = fit_of(spec, sc.build_design(spec, panel, links(12)), panel)
    with pytest.raises(sc.FitError, match="no row outside the fit"):
        predict_left_out(fit, seed=1)
    found = predict_left_out(fit, ["r02"], seed=1)
    assert found["group"].tolist() == [f"r02 : {frame['cluster'][hole]}"]


def test_noise_of_left_out_rows_is_that_of_their_size_or_cluster():
    rng = np.random.default_rng(0)
    table = growing(rng)
    for scale in ("size", "by-cluster"):
        spec = growth_spec("growth ~ log(employment)", f'[likelihood]\nscale = "{scale}"')
        masked = table.assign(
            employment_end=table["employment_end"].where(~table["region"].isin(["r1", "r5"]))
        )
        panel = sc.read_panel(masked)
        design = sc.build_design(spec, panel)
        fit = fit_of(spec, design, panel)
        parameters = draws_of(fit)[0]
        spread = np.sqrt(np.diag(moments(fit, parameters)[1]))
        left = masked[masked["employment_end"].isna()].sort_values(["region", "cluster"])
        if scale == "size":
            share, power = (float(parameters[f"size.{n}"]) for n in ("share", "power"))
            relative = np.median(design.data["size"].values) / left["employment_start"].to_numpy()
            wanted = float(parameters["sigma"]) * np.sqrt(1 - share + share * relative**power)
        else:
            labels = sorted(set(table["cluster"]))
            at = [labels.index(c) for c in left["cluster"]]
            wanted = parameters["sigma(cluster)"][at]
        np.testing.assert_allclose(spread, wanted, rtol=EXACT)


def test_student_t_noise_has_its_tails():
    spec, design, panel, whole = left_out_of(
        "cross-section", more='[likelihood]\nfamily = "student-t"', left=("r04",)
    )
    fit = fit_of(spec, design, panel, draws=1000, constant=True, nu=3.0, sigma=0.5)
    frame = predict_left_out(fit, draws=2000, seed=5)
    left = order_of(design, whole)[1]
    parameters = draws_of(fit)[0]
    x = whole.data["X"].sel(term="x").values
    X = np.column_stack([x, lag_matrix(whole) @ x])[left] - design.data["center"].values
    center = float(parameters["intercept"]) + X @ parameters["coefficient"]
    wanted = center + 0.5 * stats.t.ppf(0.975, 3.0)
    # the error of a quantile: sqrt(p (1 - p) / n) over the density there
    error = math.sqrt(0.975 * 0.025 / 2000) / (stats.t.pdf(stats.t.ppf(0.975, 3.0), 3.0) / 0.5)
    assert abs(frame["ci_high"].item() - wanted.item()) < 5.0 * error


def test_new_rows_take_means_minima_and_levels_of_the_fit():
    """Group means, centers and substitutes of zeros are the fit's, not those of all rows."""
    rng = np.random.default_rng(8)
    table = pd.DataFrame(
        [(r, c) for r in "abcdef" for c in "uvw"], columns=["region", "cluster"]
    ).assign(x=lambda t: rng.uniform(1.0, 3.0, len(t)), y=lambda t: rng.normal(size=len(t)))
    table.loc[[0, 4], "x"] = 0.0
    table.loc[table["region"] == "f", "x"] = [0.5, 0.0, 2.0]  # smaller than any of the fit's
    table.loc[table["region"] == "f", "y"] = np.nan
    spec = sc.parse_spec(
        'formula = "y ~ log(x) + (1 | region) + (1 | cluster)"\nzeros.x = "minimum-and-dummy"\n'
        'groups.region.effect = "correlated"\ngroups.cluster.effect = "correlated"'
    )
    panel = sc.read_panel(table)
    design = sc.build_design(spec, panel)
    fit = fit_of(spec, design, panel)
    whole, wanted = _with_left_out(fit, None)
    assert wanted.tolist() == [15, 16, 17]
    np.testing.assert_allclose(whole.X[:15], design.X, rtol=EXACT)
    column = dict(zip(design.terms, whole.X[15:].T, strict=True))
    own = table["x"][:15]
    least = own[own > 0].min()
    logs = np.log([0.5, least, 2.0])
    np.testing.assert_allclose(column["log(x)"], logs, rtol=EXACT)
    assert column["zero(x)"].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(column["mean(log(x) | region)"], logs.mean(), rtol=EXACT)
    known = np.log(own.where(own > 0, least)).groupby(table["cluster"][:15]).mean()
    np.testing.assert_allclose(column["mean(log(x) | cluster)"], known, rtol=EXACT)
    assert whole.groups[0].levels.tolist() == list("abcdef")
    assert whole.groups[0].codes[15:].tolist() == [5, 5, 5]


def test_what_only_an_estimate_could_give_is_refused():
    def refused(match, *, shape="clusters", outcome="none", structure="iid", regions=None, **how):
        spec, design, panel, _ = left_out_of(shape, outcome, structure, **how)
        fit = fit_of(spec, design, panel) if "fixed" not in match else fake(spec, design, panel)
        with pytest.raises(sc.FitError, match=match):
            predict_left_out(fit, regions, seed=1)

    def fake(spec, design, panel):
        n = {g.name: (CHAINS, DRAWS, len(g.levels), len(g.labels)) for g in design.groups}
        posterior = {f"effect({name})": np.ones(size) for name, size in n.items()}
        posterior |= {"coefficient": np.ones((CHAINS, DRAWS, 2)), "sigma": np.ones((CHAINS, DRAWS))}
        return assemble(spec, design, posterior, {}, panel=_levels(spec, panel), geometry=None,
                        provenance={})  # fmt: skip

    refused("fixed effects of 'region'", more='[groups.region]\neffect = "fixed"')
    refused("Student-t", outcome="sar", more='[likelihood]\nfamily = "student-t"')
    refused("got regions 'nowhere'", regions=["nowhere"])
    refused("no row outside the fit", regions=["r00"], left=())
    refused("no neighbor in the fit.*'icar'", structure="icar", left=("r09", "r10"))


def test_parameters_and_panels_that_do_not_fit_are_refused():
    spec, design, panel, _ = left_out_of("clusters", "sar")
    with pytest.raises(sc.FitError, match="got rho outside"):
        predict_left_out(fit_of(spec, design, panel, rho=1.2), seed=1)
    table = growing(np.random.default_rng(2))
    panel = sc.read_panel(table)
    spec = growth_spec("growth ~ log(cluster_level) + (1 | region)")
    design = sc.build_design(spec, panel)
    fewer = sc.read_panel(table[table["region"] != "r3"])
    with pytest.raises(sc.FitError, match="rows that its panel does not have"):
        counterfactual(fit_of(spec, design, fewer), "r1", "v")
    same = table.rename(columns={"employment_start": "employment"}).drop(columns="employment_end")
    spec = sc.parse_spec(
        'formula = "employment ~ log(cluster_level) + (1 | region)"\n'
        'cells = { absent = "zero", withheld = "zero" }'
    )
    design = sc.build_design(spec, sc.read_panel(same))
    with pytest.raises(sc.FitError, match="the response 'employment' among"):
        counterfactual(fit_of(spec, design, sc.read_panel(same)), "r1", "v")


def test_a_cluster_of_unknown_noise_is_refused():
    table = growing(np.random.default_rng(0))
    table = table[(table["cluster"] != "w") | (table["region"] == "r1")]
    table.loc[table["region"] == "r1", "employment_end"] = np.nan
    spec = growth_spec("growth ~ log(employment)", '[likelihood]\nscale = "by-cluster"')
    panel = sc.read_panel(table)
    fit = fit_of(spec, sc.build_design(spec, panel), panel)
    with pytest.raises(sc.FitError, match="clusters whose noise is unknown: 'w'"):
        predict_left_out(fit, seed=1)


def test_zeros_that_the_fit_never_saw_are_refused():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"region": list("abcdef"), "x": [1.0, 2, 3, 4, 5, 0], "y": rng.normal(size=6)}
    )
    table.loc[5, "y"] = np.nan
    for rule in ('zeros.x = "minimum-and-dummy"', ""):
        spec = sc.parse_spec(f'formula = "y ~ log(x)"\n{rule}')
        panel = sc.read_panel(table)
        fit = fit_of(spec, sc.build_design(spec, panel), panel)
        with pytest.raises(sc.FitError, match="got zeros"):
            predict_left_out(fit, seed=1)
    spec = sc.parse_spec('formula = "y ~ log(x)"\nzeros.x = "drop"')
    fit = fit_of(spec, sc.build_design(spec, panel), panel)
    with pytest.raises(sc.FitError, match="no row outside the fit"):
        predict_left_out(fit, seed=1)


# counterfactuals

MEASURED = """
[growth]
variable = "employment"
from = 2018
to = 2021
[cells]
absent = "zero"
withheld = "zero"
"""
LINKS = pd.DataFrame(
    {"cluster": list("uuvw"), "linked_cluster": list("vwuv"), "weight": [1.0, 2.0, 1.0, 3.0]}
)
PAIRS = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (4, 5), (5, 6)]  # r7 has no neighbors
EDGES = pd.DataFrame(
    [(f"r{i}", f"r{j}", 1.0) for a, b in PAIRS for i, j in ((a, b), (b, a))] + [("r7", "r7", 0.0)],
    columns=["region_i", "region_j", "weight"],
)
REGIONS = [f"r{i}" for i in range(8)]


def growth_spec(formula, more=""):
    return sc.parse_spec(f'formula = "{formula}"\n{MEASURED}\n{more}')


def growing(rng, industries=False):
    """Cells of eight regions and three clusters, some absent, some without employment."""
    table = pd.DataFrame(
        [(r, c, f"{c}{k}") for r in REGIONS for c in "uvw" for k in range(2)],
        columns=["region", "cluster", "industry"],
    )
    table = table if industries else table[table["industry"].str[1] == "0"].drop(columns="industry")
    table = table.reset_index(drop=True)
    table["employment_start"] = np.round(rng.lognormal(5.0, 1.0, len(table))) + 1.0
    table["employment_end"] = np.round(
        table["employment_start"] * rng.lognormal(0, 0.3, len(table))
    )
    return table


def shares(E):
    """Location quotients of the columns, (region, unit)."""
    return (E / E.sum(axis=1, keepdims=True)) / (E.sum(axis=0) / E.sum())


def measures_of(E, cluster):
    """Every measure by its definition: loops over regions and industries, with NumPy alone."""
    names = sorted(set(cluster))
    C = np.column_stack([E[:, np.array(cluster) == c].sum(axis=1) for c in names])
    level = shares(C) * (C.sum() / E.sum()) / (C.sum(axis=1) / E.sum(axis=1))[:, None]
    W = np.zeros((8, 8))
    for i, j in PAIRS:
        W[i, j] = W[j, i] = 1.0
    out = {n: np.full(E.shape, np.nan) for n in
           ("industry_strength", "cluster_strength", "cluster_level", "linked_strength",
            "neighbor_strength", "rest_of_cluster", "employment")}  # fmt: skip
    weight = {(c, k): w for c, k, w in LINKS.itertuples(index=False)}
    for r in range(E.shape[0]):
        for i, c in enumerate(cluster):
            k = names.index(c)
            rest, nation = C[r, k] - E[r, i], C[:, k].sum() - E[:, i].sum()
            out["employment"][r, i] = E[r, i]
            out["rest_of_cluster"][r, i] = rest
            out["industry_strength"][r, i] = (E[r, i] / E[r].sum()) / (E[:, i].sum() / E.sum())
            if nation:
                out["cluster_strength"][r, i] = (rest / E[r].sum()) / (nation / E.sum())
            out["cluster_level"][r, i] = level[r, k]
            linked = [(weight.get((c, n), 0.0), level[r, m]) for m, n in enumerate(names)]
            out["linked_strength"][r, i] = sum(a * b for a, b in linked) / sum(a for a, _ in linked)
            if W[r].sum():
                out["neighbor_strength"][r, i] = W[r] @ level[:, k] / W[r].sum()
    return out


def world(formula, more="", *, industries=False, seed=2, empty=(), table=None):
    """A fit with draws from the prior, its table, and employment (region, unit)."""
    table = growing(np.random.default_rng(seed), industries) if table is None else table
    table.loc[list(empty), ["employment_start", "employment_end"]] = 0.0
    spec = growth_spec(formula, more)
    panel = sc.read_panel(table)
    design = sc.build_design(spec, panel, sc.read_weights(EDGES), linkages=LINKS)
    unit = "industry" if industries else "cluster"
    wide = table.pivot_table(index="region", columns=unit, values="employment_start")
    cluster = [str(name)[0] for name in wide.columns]
    return fit_of(spec, design, panel, LINKS), wide.fillna(0.0), cluster


def by_hand(fit, wide, cluster, region, label, change):
    """Draws of the difference of every row from measures by their definitions."""
    design = fit.design
    E = wide.to_numpy()
    raised = E.copy()
    raised[np.ix_([REGIONS.index(region)], np.array(cluster) == label)] *= 1.0 + change
    ends = [measures_of(x, cluster) for x in (E, raised)]
    unit = "industry" if "row_industry" in design.data else "cluster"
    rows = [(REGIONS.index(r), list(wide.columns).index(u)) for r, u in zip(
        design.data["row_region"].values, design.data[f"row_{unit}"].values, strict=True)]  # fmt: skip
    moved = np.zeros_like(design.X)
    L = lag_matrix(design)
    for j, term in enumerate(design.terms):
        if term.startswith(("mean(", "zero(")):
            continue
        name = term.removeprefix("lag(").removeprefix("log(").rstrip(")")
        old, new = (np.array([end[name][at] for at in rows]) for end in ends)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(old > 0.0, np.log(new) - np.log(old), 0.0)
        moved[:, j] = L @ step if term.startswith("lag(") else step
    out = []
    for p in draws_of(fit):
        delta = moved @ p["coefficient"]
        for group in design.groups:
            for k, column in enumerate(group.columns):
                if column >= 0:
                    delta += p[f"effect({group.name})"][group.codes, k] * moved[:, column]
        out.append(np.linalg.solve(np.eye(len(L)) - float(p.get("rho", 0.0)) * L, delta))
    return np.array(out)


FORMULAS = {
    "clusters": "growth ~ log(cluster_level) + log(linked_strength) + log(neighbor_strength)"
    " + (1 | region) + (1 + log(cluster_level) | cluster)",
    "lags": "growth ~ log(cluster_level) + lag(log(cluster_level)) + (1 | region)",
    "industries": "growth ~ log(industry_strength) + log(cluster_strength) + log(linked_strength)"
    " + log(neighbor_strength) + (1 | region) + (1 + log(cluster_strength) | cluster)",
    "level": "growth ~ log(employment) + log(rest_of_cluster) + (1 | region)",
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("shape", FORMULAS)
def test_counterfactuals_follow_the_definitions_of_the_measures(shape, outcome):
    fit, wide, cluster = world(
        FORMULAS[shape],
        f'[spatial]\noutcome = "{outcome}"',
        industries=shape in ("industries", "level"),
    )
    wanted = by_hand(fit, wide, cluster, "r1", "v", 0.25)
    found = counterfactual(fit, "r1", "v", 0.25, by="row")
    assert_summarizes(found, wanted)
    regions = fit.design.data["row_region"].values
    means = np.column_stack([wanted[:, regions == r].mean(axis=1) for r in pd.unique(regions)])
    frame = counterfactual(fit, "r1", "v", 0.25)
    assert_summarizes(frame, means)
    assert frame["group"].tolist() == list(pd.unique(regions))
    assert set(frame["effect"]) == {"counterfactual"}
    assert set(frame["term"]) == {"v in r1 +25 %"}


def test_zeros_keep_their_substitute_and_groups_their_means():
    more = (
        '[zeros]\ncluster_strength = "minimum-and-dummy"\nlinked_strength = "minimum-and-dummy"\n'
        '[groups.region]\neffect = "correlated"'
    )
    # u1 is nowhere but in r0, so that u0 has no rest of its cluster elsewhere
    fit, wide, cluster = world(FORMULAS["industries"], more, industries=True, empty=range(7, 48, 6))
    zeros = fit.design.data["X"].sel(term="zero(cluster_strength)").values
    assert 3 <= zeros.sum() < fit.design.n_rows
    assert any(term.startswith("mean(") for term in fit.design.terms)
    wanted = by_hand(fit, wide, cluster, "r1", "u", 0.5)
    assert_summarizes(counterfactual(fit, "r1", "u", 0.5, by="row"), wanted)


@pytest.mark.parametrize("shape", ["clusters", "lags", "level"])
def test_a_counterfactual_is_the_difference_to_the_design_of_a_changed_table(shape):
    industries = shape == "level"
    fit, _, _ = world(FORMULAS[shape], industries=industries)
    table = growing(np.random.default_rng(2), industries)
    cell = (table["region"] == "r2") & (table["cluster"] == "w")
    factor = np.where(cell, 0.6, 1.0)  # at both ends: the response stays
    changed = table.assign(**{n: table[n] * factor for n in ("employment_start", "employment_end")})
    other = sc.build_design(
        fit.spec, sc.read_panel(changed), sc.read_weights(EDGES), linkages=LINKS
    )
    assert other.terms == fit.design.terms
    codes = {group.name: group.codes for group in fit.design.groups}
    wanted = [
        predictor(fit.design, other.X, codes, p) - predictor(fit.design, fit.design.X, codes, p)
        for p in draws_of(fit)
    ]
    assert_summarizes(counterfactual(fit, "r2", "w", -0.4, by="row"), np.array(wanted))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_no_change_changes_nothing(outcome):
    fit, _, _ = world(FORMULAS["clusters"], f'[spatial]\noutcome = "{outcome}"')
    frame = counterfactual(fit, "r0", "u", 0.0, by="row")
    assert (frame[["estimate", "ci_low", "ci_high"]] == 0.0).all(axis=None)


def test_the_own_effect_is_the_coefficient_times_the_log_change_but_for_totals():
    fit, wide, _ = world("growth ~ log(cluster_level) + (1 | region)")
    E = wide.to_numpy()
    added = 0.1 * E[3, 1]
    region, cluster, nation = (
        math.log((x + added) / x) for x in (E[3].sum(), E[:, 1].sum(), E.sum())
    )
    beta = fit.draws("coefficient")[..., 0].mean()
    frame = counterfactual(fit, "r3", "v", by="region:cluster").set_index("group")["estimate"]
    own = math.log(1.1) - region - cluster + nation
    assert frame["r3 : v"] == pytest.approx(beta * own, rel=EXACT)
    assert frame["r3 : u"] == pytest.approx(beta * (nation - region), rel=EXACT)
    assert frame["r5 : v"] == pytest.approx(beta * (nation - cluster), rel=EXACT)
    assert frame["r5 : u"] == pytest.approx(beta * nation, rel=EXACT)


def test_a_local_spillover_reaches_neighbors_and_others_only_through_the_nation():
    fit, wide, _ = world("growth ~ log(neighbor_strength) + (1 | region)")
    E = wide.to_numpy()
    added = 0.1 * E[1, 1]
    cluster, nation = (math.log((x + added) / x) for x in (E[:, 1].sum(), E.sum()))
    beta = fit.draws("coefficient")[..., 0].mean()
    frame = counterfactual(fit, "r1", "v", by="row").set_index("group")["estimate"]
    assert "r7 : v" not in frame.index  # no neighbors, no row
    for r in REGIONS[:7]:
        through = beta * (nation - cluster)
        near = r in ("r0", "r2")
        assert (frame[f"{r} : v"] == pytest.approx(through, rel=EXACT)) is not near
        assert (frame[f"{r} : u"] == pytest.approx(beta * nation, rel=EXACT)) is not near
        if near:
            assert (frame[f"{r} : v"] - through) * beta > 0.0


def test_a_lag_of_the_response_passes_it_on_within_the_component_only():
    """Of employment itself, which no total enters."""
    fit, _, _ = world("growth ~ log(employment)", '[spatial]\noutcome = "sar"', industries=False)
    fit = fit_of(fit.spec, fit.design, sc.read_panel(growing(np.random.default_rng(2))), rho=0.5)
    frame = counterfactual(fit, "r1", "v", by="row").set_index("group")["estimate"]
    assert (frame[[f"r{i} : v" for i in range(4)]] != 0.0).all()
    assert (
        frame[[g for g in frame.index if g not in [f"r{i} : v" for i in range(4)]]] == 0.0
    ).all()
    local, _, _ = world("growth ~ log(employment)")
    alone = counterfactual(local, "r1", "v", by="row").set_index("group")["estimate"]
    assert (alone != 0.0).sum() == 1
    assert alone["r1 : v"] == pytest.approx(
        local.draws("coefficient").mean() * math.log(1.1), rel=EXACT
    )


@pytest.mark.parametrize("withheld", ["zero", "lower", "filled"])
def test_withheld_cells_grow_as_they_count(withheld):
    table = growing(np.random.default_rng(4), industries=True)
    table["traded"] = (table["cluster"] != "w") * 1.0
    hidden = (table["region"] == "r1") & (table["industry"] == "v1")
    table["employment_lower"] = np.where(hidden, 40.0, table["employment_start"])
    table["employment_upper"] = np.where(hidden, 100.0, table["employment_start"])
    counted = {"zero": 0.0, "lower": 40.0, "filled": 70.0}[withheld]
    table.loc[hidden, "employment_start"] = np.nan
    fill = 'fill = "midpoint"' if withheld == "filled" else ""
    spec = sc.parse_spec(
        'formula = "growth ~ log(cluster_level) + (1 | region)"\n'
        f'growth = {{ variable = "employment", from = 2018, to = 2021 }}\n'
        f'[cells]\nabsent = "zero"\nwithheld = "{withheld}"\n{fill}\n[measures]\ntotals = "traded"'
    )
    panel = sc.read_panel(table)
    fit = fit_of(spec, sc.build_design(spec, panel, sc.read_weights(EDGES)), panel)
    E = table.assign(employment_start=table["employment_start"].fillna(counted)).pivot_table(
        index="region", columns="industry", values="employment_start"
    ).to_numpy()  # fmt: skip
    added = 0.1 * E[1, 2:4].sum()
    region, cluster, nation = (
        math.log((x + added) / x) for x in (E[1, :4].sum(), E[:, 2:4].sum(), E[:, :4].sum())
    )
    beta = fit.draws("coefficient")[..., 0].mean()
    frame = counterfactual(fit, "r1", "v", by="region:cluster").set_index("group")["estimate"]
    own = math.log(1.1) - region - cluster + nation
    assert frame["r1 : v"] == pytest.approx(beta * own, rel=EXACT)
    assert frame["r2 : v"] == pytest.approx(beta * (nation - cluster), rel=EXACT)
    assert frame["r2 : w"] == pytest.approx(beta * nation, rel=EXACT)


def test_what_a_counterfactual_lacks_is_named():
    fit, _, _ = world(FORMULAS["clusters"])

    def refused(match, fit=fit, region="r1", cluster="v", change=0.1, **how):
        with pytest.raises(sc.FitError, match=match):
            counterfactual(fit, region, cluster, change, **how)

    refused("above -1", change=-1.0)
    refused("above -1", change=math.nan)
    refused("expected one of 'region', 'region:cluster', 'row'", by="cluster")
    refused("the region 'r9'", region="r9")
    refused("the cluster 'V'; expected one of 'u', 'v', 'w'", cluster="V")
    bare = fit_of(fit.spec, fit.design)
    refused("does not keep 'present', 'employment', 'linkages'", fit=bare)
    panel = fit.tree["panel"].to_dataset()
    arrays = {str(n): fit.draws(str(n)) for n in fit.posterior}
    made = {"geometry": None, "provenance": {}}
    unlinked = assemble(fit.spec, fit.design, arrays, {}, panel=panel, **made)
    refused("does not keep 'linkages'", fit=unlinked)
    linked = fit.tree["linkages"].to_dataset()["weight"]
    other = panel.assign(employment=panel["employment"] + 1.0)
    changed = assemble(fit.spec, fit.design, arrays, {}, panel=other, linkages=linked, **made)
    refused("another column 'log\\(cluster_level\\)'", fit=changed)
    income = sc.parse_spec('formula = "y ~ x"')
    table = pd.DataFrame({"region": REGIONS, "x": np.arange(8.0) ** 2, "y": np.ones(8) * 2})
    table["y"] = np.sin(table["x"])
    plain = sc.read_panel(table)
    refused(
        "nothing depends on employment", fit=fit_of(income, sc.build_design(income, plain), plain)
    )
    empty, _, _ = world("growth ~ log(cluster_level) + (1 | region)", empty=[4])
    refused("no employment of 'v' in 'r1'", fit=empty)


def test_fits_of_earlier_versions_answer_what_they_can():
    fit, _, _ = world("growth ~ log(cluster_level) + log(neighbor_strength) + (1 | region)")
    panel = fit.tree["panel"].to_dataset()[["employment", "status"]]
    arrays = {str(n): fit.draws(str(n)) for n in fit.posterior}
    old = assemble(fit.spec, fit.design, arrays, {}, panel=panel, geometry=None, provenance={})
    pd.testing.assert_frame_equal(counterfactual(old, "r1", "v"), counterfactual(fit, "r1", "v"))


def test_a_saved_fit_gives_the_same(tmp_path):
    table = growing(np.random.default_rng(2), industries=True)
    table.loc[table["region"] == "r2", "employment_end"] = np.nan
    fit, _, _ = world(
        FORMULAS["industries"], '[spatial]\noutcome = "sar"', industries=True, table=table
    )
    again = sc.load_fit(fit.save(tmp_path / "fit.nc"))
    xr.testing.assert_identical(
        again.tree["linkages"].to_dataset(), fit.tree["linkages"].to_dataset()
    )
    for call in (
        lambda f: counterfactual(f, "r1", "v"),
        lambda f: predict(f, "signal"),
        lambda f: predict_left_out(f, seed=4),
    ):
        pd.testing.assert_frame_equal(call(again), call(fit))


def test_the_panel_is_kept_at_the_base_year():
    long = growing(np.random.default_rng(3)).melt(
        ["region", "cluster"], var_name="year", value_name="employment"
    )
    long["year"] = long["year"].map({"employment_start": 2018, "employment_end": 2021})
    long["age"] = np.arange(len(long)) * 1.0
    gone = (long["region"] == "r3") & (long["cluster"] == "u") & (long["year"] == 2018)
    spec = growth_spec("growth ~ log(cluster_level) + age + (1 | region)")
    kept = _levels(spec, sc.read_panel(long[~gone]))
    assert set(kept) == {"employment", "age", "present", "status"}
    assert kept.sizes == {"region": 8, "cluster": 3}
    assert not kept["present"].sel(region="r3", cluster="u")
    assert float(kept["age"].max()) == 23.0
    plain = sc.parse_spec('formula = "y ~ x"')
    table = pd.DataFrame({"region": list("ab"), "x": [1.0, 2.0], "y": [1.0, np.nan], "z": 0.0})
    assert set(_levels(plain, sc.read_panel(table))) == {"x", "present"}


def test_fit_keeps_what_predictions_need(monkeypatch, tmp_path):
    """Of the table as given, without sampling."""

    def nothing(spec, design, settings, *, folder, **_):
        folder.mkdir()
        return SimpleNamespace(
            posterior={"sigma": np.ones((1, 2))}, stats={}, timings={}, means={}, variances={}
        )

    monkeypatch.setattr(run, "is_small", lambda *_: False)
    monkeypatch.setattr(run, "sample", nothing)
    LINKS.to_csv(tmp_path / "links.csv", index=False)
    panel = sc.read_panel(growing(np.random.default_rng(2)))
    given = {"weights": sc.read_weights(EDGES), "linkages": tmp_path / "links.csv", "seed": 1}
    fit = run.fit(growth_spec(FORMULAS["clusters"]), panel, **given)
    assert fit.tree["linkages"]["weight"].values.tolist() == [[0, 1, 2], [1, 0, 0], [0, 3, 0]]
    assert set(fit.tree["panel"].data_vars) == {"employment", "present", "status"}
    lags = run.fit(growth_spec(FORMULAS["lags"]), panel, **given)
    assert "linkages" not in lags.tree.children


@pytest.mark.slow
def test_a_fit_predicts_the_regions_it_did_not_see():
    """Intervals cover the truth about as often as they say; linkages are kept by fit()."""
    rng = np.random.default_rng(6)
    side = 9
    names = [f"r{i:02d}" for i in range(side * side)]
    pairs = [(i, i + d) for i in range(side * side) for d in (1, side)
             if i + d < side * side and (d > 1 or (i + 1) % side)]  # fmt: skip
    edges = pd.DataFrame(
        [(names[i], names[j]) for a, b in pairs for i, j in ((a, b), (b, a))],
        columns=["region_i", "region_j"],
    )
    weights = sc.read_weights(edges)
    table = pd.DataFrame({"region": names, "x": rng.normal(size=len(names))})
    order = [weights.regions.index(name) for name in names]
    W = weights.matrix.toarray()[np.ix_(order, order)]
    eta = 1.0 + 0.8 * table["x"] + 0.5 * rng.normal(size=len(names))
    truth = np.linalg.solve(np.eye(len(W)) - 0.6 * W, eta)
    left = rng.choice(len(names), 20, replace=False)
    table["y"] = np.where(np.isin(np.arange(len(names)), left), np.nan, truth)
    spec = sc.parse_spec('formula = "y ~ x"\nspatial.outcome = "sar"')
    fit = sc.fit(spec, sc.read_panel(table), weights, seed=1, chains=2, tune=200, draws=500,
                 progress=False)  # fmt: skip
    frame = predict_left_out(fit, seed=1).set_index("group")
    y = pd.Series(truth, index=names)[frame.index]
    inside = (frame["ci_low"] < y) & (y < frame["ci_high"])
    assert len(frame) == 20
    assert inside.sum() >= 16  # of 20 at 95 %: less has probability 0.003
    # neighbors help: the error is smaller than that of the trend alone
    plain = 1.0 + 0.8 * table.set_index("region")["x"][frame.index]
    assert ((frame["estimate"] - y) ** 2).mean() < ((plain / 0.4 - y) ** 2).mean()
