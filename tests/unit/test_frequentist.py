"""Fixed effects and OLS against the textbook, and what must never reach pyfixest."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spatialclusters.design import Design, build_design
from spatialclusters.errors import FitError
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.panel import read_panel
from spatialclusters.spec import parse_spec
from spatialclusters.weights import read_weights

DUMMIES = 1e-8  # alternating projections stop at 1e-9 of a standard deviation
EXACT = 1e-9  # the same closed form by another factorization, on columns of order one
GROUPS = "y ~ x + z + (1 | region) + (1 | industry)"
GROWTH = """
name = "growth"
formula = "growth ~ log(employment) + z + (1 | region) + (1 | industry)"
[roles]
convergence = "log(employment)"
specialization = ["z"]
[growth]
variable = "employment"
from = 2000
to = 2005
"""
YEARS = 5


def cells(seed=1, regions=9, industries=12, share=0.7):
    """An unbalanced table of regions by industries; four industries make a cluster."""
    draw = np.random.default_rng(seed)
    grid = [(r, i) for r in range(regions) for i in range(industries)]
    table = pd.DataFrame([pair for pair in grid if draw.random() < share], columns=["r", "i"])
    n = len(table)
    ups, downs = draw.normal(size=regions), draw.normal(size=industries)
    x = draw.normal(size=n) + ups[table["r"]]
    z = draw.normal(3.0, 20.0, size=n)
    noise = draw.normal(size=n) * (1.0 + abs(x)) + draw.normal(size=regions)[table["r"]]
    start = np.exp(draw.normal(5.0, 1.0, size=n))
    end = start * np.exp(-0.4 * np.log(start) + 0.01 * z + 0.02 * noise + 0.1 * downs[table["i"]])
    return pd.DataFrame(
        {
            "region": "r" + table["r"].astype(str),
            "industry": "i" + table["i"].astype(str).str.zfill(2),
            "cluster": "c" + (table["i"] // 4).astype(str),
            "y": 0.5 * x - 0.02 * z + ups[table["r"]] + downs[table["i"]] + noise,
            "x": x,
            "z": z,
            "employment_start": start,
            "employment_end": end,
        }
    )


def design_of(table, formula=GROUPS, weights=None, more=""):
    growth = [name for name in table if name.startswith("employment_")]
    spec = parse_spec(f'formula = "{formula}"\n{more}')
    return build_design(spec, read_panel(table.drop(columns=growth)), weights)


def growth_of(table, more=""):
    spec = parse_spec(GROWTH + more)
    return build_design(spec, read_panel(table.drop(columns=["y", "x"]))), spec


def ring(regions):
    """Each region next to the following two, and they to it."""
    pairs = [
        (regions[i], regions[(i + k) % len(regions)]) for i in range(len(regions)) for k in (1, 2)
    ]
    edges = {*pairs, *((b, a) for a, b in pairs)}
    return read_weights(pd.DataFrame(sorted(edges), columns=["region_i", "region_j"]))


def row(result, estimator, term, effect="coefficient"):
    frame = result.estimates
    found = frame[
        (frame["estimator"] == estimator) & (frame["term"] == term) & (frame["effect"] == effect)
    ]
    assert len(found) == 1
    return found.iloc[0]


def dummy_regression(design, factors, clusters):
    """Least squares on every dummy, and the sandwich summed by cluster, without corrections."""
    dummies = pd.concat([pd.get_dummies(pd.Series(f), dtype=float) for f in factors], axis=1)
    full = np.hstack([design.X, dummies.to_numpy()])
    b = np.linalg.lstsq(full, design.y, rcond=None)[0]
    e = design.y - full @ b
    hat = dummies.to_numpy() @ np.linalg.pinv(dummies.to_numpy())
    inner = design.X - hat @ design.X
    bread = np.linalg.inv(inner.T @ inner)
    scores = np.array(
        [(inner[clusters == c] * e[clusters == c, None]).sum(0) for c in set(clusters)]
    )
    return b[: design.X.shape[1]], bread @ scores.T @ scores @ bread, np.linalg.matrix_rank(full)


def test_fixed_effects_are_dummy_variables_with_clustered_errors():
    design = design_of(cells())
    region, industry = (design.data[f"row_{d}"].values for d in ("region", "industry"))
    b, V, _ = dummy_regression(design, (region, industry), region)
    n, G, K = design.n_rows, len(set(region)), 2 + len(set(industry))  # regions nest in clusters
    V = V * G / (G - 1) * (n - 1) / (n - K)
    result = fit_frequentist(design)
    for i, term in enumerate(design.terms):
        got = row(result, "fixed effects", term)
        se = np.sqrt(V[i, i])
        reach = stats.t.ppf(0.975, G - 1) * se
        np.testing.assert_allclose(got["estimate"], b[i], rtol=DUMMIES)
        np.testing.assert_allclose(got["std_error"], se, rtol=DUMMIES)
        np.testing.assert_allclose(got["ci_low"], b[i] - reach, rtol=DUMMIES)
        np.testing.assert_allclose(got["ci_high"], b[i] + reach, rtol=DUMMIES)
        assert (got["ci_kind"], got["ci_prob"], got["point"]) == ("confidence", 0.95, "OLS")
        assert got["unit"] == "y per unit of the term"
    assert result.absorbed == ("region", "industry")
    assert any(f"clustered by region: {G} clusters, {n} rows" in note for note in result.notes)


@pytest.mark.parametrize("by", ["industry", "cluster", "region:cluster"])
def test_clusters_can_be_chosen(by):
    design = design_of(cells())
    region, industry = (design.data[f"row_{d}"].values for d in ("region", "industry"))
    ids = [design.data[f"row_{d}"].values.astype(str) for d in by.split(":")]
    clusters = np.array(["/".join(pair) for pair in zip(*ids, strict=True)])
    _, V, _ = dummy_regression(design, (region, industry), clusters)
    n, G, R, levels = design.n_rows, len(set(clusters)), len(set(region)), len(set(industry))
    K = {"industry": 2 + R, "cluster": 2 + R, "region:cluster": 2 + R + levels - 1}[by]
    se = np.sqrt(V.diagonal() * G / (G - 1) * (n - 1) / (n - K))
    got = fit_frequentist(design, cluster=by)
    found = [row(got, "fixed effects", term)["std_error"] for term in design.terms]
    np.testing.assert_allclose(found, se, rtol=DUMMIES)


def test_one_row_per_cluster_gives_robust_errors():
    design = design_of(cells())
    region, industry = (design.data[f"row_{d}"].values for d in ("region", "industry"))
    _, V, rank = dummy_regression(design, (region, industry), np.arange(design.n_rows))
    result = fit_frequentist(design, cluster="region:industry")
    se = np.sqrt(V.diagonal() * design.n_rows / (design.n_rows - rank))
    found = [row(result, "fixed effects", term)["std_error"] for term in design.terms]
    np.testing.assert_allclose(found, se, rtol=DUMMIES)
    assert any("robust to heteroskedasticity (HC1)" in note for note in result.notes)


def test_one_cluster_gives_robust_errors():
    table = cells(regions=1, share=1.0)
    result = fit_frequentist(design_of(table, "y ~ x + (1 | cluster)"))
    assert any("(HC1): 1 clusters" in note for note in result.notes)
    assert np.isfinite(row(result, "fixed effects", "x")["std_error"])


def test_unknown_cluster_is_refused():
    with pytest.raises(FitError, match="cluster: got 'county'; expected one of 'region'"):
        fit_frequentist(design_of(cells()), cluster="county")


def test_labels_never_reach_pyfixest(monkeypatch, tmp_path):
    import pyfixest

    marker = tmp_path / "ran"
    evil = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    plain = design_of(cells())
    data = plain.data.assign_coords(
        term=np.array([evil, "__import__('os').system('true')"], object)
    )
    text = data.attrs["groups"].replace('"region"', '"' + evil.replace('"', "") + '"')
    data = data.rename({"code_region": f"code_{evil}", "region": evil}).assign_attrs(groups=text)
    seen, real = [], pyfixest.feols

    def spy(fml, data, **options):
        seen.append((fml, list(data.columns), options))
        return real(fml, data, **options)

    monkeypatch.setattr(pyfixest, "feols", spy)
    result = fit_frequentist(Design(data, plain.weights))
    ((formula, columns, options),) = seen
    assert formula == "y ~ x0 + x1 | f0 + f1"
    assert all(re.fullmatch(r"y|c0|[xf]\d+", name) for name in columns)
    assert options["vcov"] == {"CRV1": "c0"}
    assert set(options) == {"vcov", "collin_tol", "demeaner"}
    assert not marker.exists()
    assert result.absorbed[0] == evil
    monkeypatch.undo()
    for old, new in zip(plain.terms, (evil, "__import__('os').system('true')"), strict=True):
        want = row(fit_frequentist(plain), "fixed effects", old)["estimate"]
        assert row(result, "fixed effects", new)["estimate"] == want


def test_slopes_means_and_nested_groups():
    formula = "y ~ x + z + (1 | region) + (1 | industry) + (1 + x | cluster)"
    more = '[groups.region]\neffect = "correlated"\n[groups.cluster]\neffect = "correlated"'
    design = design_of(cells(), formula, more=more)
    assert "mean(x | region)" in design.terms
    result, plain = fit_frequentist(design), fit_frequentist(design_of(cells()))
    assert result.absorbed == ("region", "industry")
    notes = "\n".join(result.notes)
    assert "cluster needs no fixed effects of its own: industry nests in it." in notes
    assert "Slopes by group, left out: x by cluster." in notes
    assert "Group means, left out as absorbed: mean(x | region)" in notes
    assert not result.estimates["term"].str.startswith("mean(").any()
    for estimator in ("fixed effects", "OLS"):
        a, b = (row(each, estimator, "x") for each in (result, plain))
        np.testing.assert_allclose(a["estimate"], b["estimate"], rtol=DUMMIES)
        np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=DUMMIES)


def test_a_group_that_would_absorb_a_term_is_left_out():
    table = cells()
    table["level"] = table.groupby(["region", "cluster"])["x"].transform("mean")
    formula = "y ~ x + level + (1 | region) + (1 | region:cluster)"
    more = '[groups."region:cluster"]\neffect = "correlated"'
    result = fit_frequentist(design_of(table, formula, more=more))
    assert (result.absorbed, result.left_out) == (("region",), ("region:cluster",))
    expected = "region:cluster is not absorbed: its fixed effects would absorb 'level'."
    assert expected in result.notes
    assert row(result, "fixed effects", "level")["std_error"] > 0


def test_only_roles_keep_a_group_from_being_absorbed():
    table = cells()
    table["level"] = table.groupby("region")["x"].transform("mean")
    text = 'formula = "y ~ x + level + (1 | region) + (1 | industry)"\n'
    spec = parse_spec(text + '[roles]\nspecialization = ["x"]')
    table = table.drop(columns=["employment_start", "employment_end"])
    design = build_design(spec, read_panel(table))
    assert fit_frequentist(design).absorbed == ("industry",)
    result = fit_frequentist(design, spec=spec)
    assert result.absorbed == ("region", "industry")
    assert "level" not in set(result.estimates.query("estimator == 'fixed effects'")["term"])
    assert any("collinear" in note and "'level'" in note for note in result.notes)


def test_a_column_that_two_groups_absorb_together_is_left_out():
    table = cells()
    part = {d: table.groupby(d)["x"].transform("mean") for d in ("region", "industry")}
    table["both"] = part["region"] + 3.0 * part["industry"]
    result = fit_frequentist(design_of(table, "y ~ x + both + (1 | region) + (1 | industry)"))
    assert result.absorbed == ("region", "industry")
    assert "both" not in set(result.estimates.query("estimator == 'fixed effects'")["term"])
    lone = fit_frequentist(design_of(table, "y ~ both + (1 | region) + (1 | industry)"))
    assert "No fixed-effects regression: its fixed effects absorb every covariate." in lone.notes
    assert set(lone.estimates["estimator"]) == {"OLS"}
    assert lone.absorbed == ()


def test_singletons_are_counted():
    table = cells()
    extra = table.iloc[[0]].assign(region="alone")
    result = fit_frequentist(design_of(pd.concat([table, extra])))
    same = fit_frequentist(design_of(table))
    assert f"It uses {len(table)} rows: 1 singletons say nothing about its slopes." in result.notes
    assert result.n_rows == len(table) + 1
    a, b = (row(each, "fixed effects", "x")["std_error"] for each in (result, same))
    np.testing.assert_allclose(a, b, rtol=DUMMIES)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ 1 + (1 | region)"])
def test_without_groups_or_covariates_there_are_no_fixed_effects(formula):
    result = fit_frequentist(design_of(cells(), formula))
    assert set(result.estimates["estimator"]) == {"OLS"}
    assert any(
        note.startswith("No fixed-effects regression: the model has no") for note in result.notes
    )


@pytest.mark.parametrize("constant", [True, False])
def test_ols_is_least_squares(constant, capsys):
    formula = "y ~ x + z" if constant else "y ~ 0 + x + z"
    design = design_of(cells(), formula)
    result = fit_frequentist(design)
    X = np.hstack([np.ones((design.n_rows, int(constant))), design.X])
    b = np.linalg.lstsq(X, design.y, rcond=None)[0]
    e, df = design.y - X @ b, design.n_rows - X.shape[1]
    V = np.linalg.inv(X.T @ X) * (e @ e) / df
    names = ["intercept at zero"] * constant + ["x", "z"]
    for i, term in enumerate(names):
        got, se = row(result, "OLS", term), np.sqrt(V[i, i])
        np.testing.assert_allclose(got["estimate"], b[i], rtol=EXACT)
        np.testing.assert_allclose(got["std_error"], se, rtol=EXACT)
        np.testing.assert_allclose(got["ci_high"], b[i] + stats.t.ppf(0.975, df) * se, rtol=EXACT)
    if constant:
        got = row(result, "OLS", "intercept")
        np.testing.assert_allclose(got["estimate"], design.y.mean(), rtol=EXACT)
        np.testing.assert_allclose(got["std_error"], np.sqrt(e @ e / df / len(e)), rtol=EXACT)
    else:
        assert set(result.estimates["term"]) == {"x", "z"}
    assert capsys.readouterr().out == ""


def moments(W, X):
    """Expectation and variance of Moran's I of least-squares residuals, by full matrices."""
    n, k = X.shape
    M = np.eye(n) - X @ np.linalg.inv(X.T @ X) @ X.T
    A = M @ (W + W.T) / 2.0 @ M * n / W.sum()
    mean = np.trace(A) / (n - k)
    square = (np.trace(A) ** 2 + 2.0 * np.trace(A @ A)) / ((n - k) * (n - k + 2))
    return mean, square - mean**2


def check_moran(found, W, X, e):
    statistic = e @ W @ e / (e @ e) * len(e) / W.sum()
    mean, variance = moments(W, X)
    z = (statistic - mean) / np.sqrt(variance)
    want = {"statistic": statistic, "expected": mean, "z": z, "p_value": 2 * stats.norm.sf(abs(z))}
    assert set(found) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, rtol=EXACT, err_msg=name)


def residuals(design):
    X = np.hstack([np.ones((design.n_rows, 1)), design.X])
    return X, design.y - X @ np.linalg.lstsq(X, design.y, rcond=None)[0]


def test_moran_of_regions():
    table = cells(regions=15).drop_duplicates("region").drop(columns=["industry", "cluster"])
    weights = ring(sorted(table["region"], reverse=True))
    table = table.drop(columns=["employment_start", "employment_end"])
    spec, gone = parse_spec('formula = "y ~ x"'), table["region"].iloc[3]
    table.loc[table["region"] == gone, "y"] = np.nan  # in the panel and in W, not in the sample
    design = build_design(spec, read_panel(table), weights)
    X, e = residuals(design)
    regions = list(design.data["row_region"].values)
    order = [weights.regions.index(r) for r in regions]
    W = weights.matrix.toarray()[np.ix_(order, order)] > 0
    assert gone not in regions
    check_moran(fit_frequentist(design).moran, W / W.sum(axis=1, keepdims=True), X, e)


def test_moran_of_region_clusters_has_a_block_per_cluster():
    table = cells(regions=12).drop_duplicates(["region", "cluster"]).drop(columns="industry")
    table = table.sample(frac=0.7, random_state=1)
    weights = ring([f"r{i}" for i in range(12)])
    design = design_of(table, "y ~ x", weights)
    X, e = residuals(design)
    region, cluster = (design.data[f"row_{d}"].values for d in ("region", "cluster"))
    W = np.zeros((len(e), len(e)))
    for i, j in np.ndindex(W.shape):
        a, b = weights.regions.index(region[i]), weights.regions.index(region[j])
        W[i, j] = cluster[i] == cluster[j] and weights.matrix[a, b] > 0
    total = W.sum(axis=1, keepdims=True)
    result = fit_frequentist(design)
    check_moran(result.moran, W / np.where(total, total, 1.0), X, e)
    assert "one block of W per cluster" in result.notes[-1]
    assert f"{int((total == 0).sum())} without neighbors" in result.notes[-1]


def test_moran_of_region_industries_takes_means_by_region():
    weights = ring([f"r{i}" for i in range(9)])
    design = design_of(cells(), "y ~ x", weights)
    means = pd.Series(residuals(design)[1]).groupby(design.data["row_region"].values).mean()
    order = [weights.regions.index(region) for region in means.index]
    W = weights.matrix.toarray()[np.ix_(order, order)]
    result = fit_frequentist(design)
    check_moran(result.moran, W, np.ones((len(means), 1)), (means - means.mean()).to_numpy())
    assert "mean residuals by region" in result.notes[-1]


def test_no_weights_no_moran():
    result = fit_frequentist(design_of(cells()))
    assert result.moran is None
    assert result.notes[-1].startswith("No Moran's I")


@pytest.mark.parametrize("annualized", [False, True])
def test_convergence_by_the_delta_method(annualized):
    text = GROWTH.replace("to = 2005", f"to = 2005\nannualized = {str(annualized).lower()}")
    spec = parse_spec(text)
    design = build_design(spec, read_panel(cells().drop(columns=["y", "x"])))
    result = fit_frequentist(design, spec=spec)
    for estimator in ("fixed effects", "OLS"):
        b = row(result, estimator, "log(employment)")
        factor = YEARS if annualized else 1
        B, se = b["estimate"] * factor, b["std_error"] * factor
        t = (b["ci_high"] - b["estimate"]) / b["std_error"]
        change, speed, half = (
            row(result, estimator, "log(employment)", e) for e in ("change", "speed", "half_life")
        )
        np.testing.assert_allclose([change["estimate"], change["std_error"]], [B, se], rtol=EXACT)
        rate, error = -np.log(1 + B) / YEARS, se / ((1 + B) * YEARS)
        low, high = rate - t * error, rate + t * error
        got = speed[["estimate", "std_error", "ci_low", "ci_high"]].to_numpy(float)
        np.testing.assert_allclose(got, [rate, error, low, high], rtol=EXACT)
        got = half[["estimate", "ci_low", "ci_high"]].to_numpy(float)
        np.testing.assert_allclose(got, np.log(2) / np.array([rate, high, low]), rtol=EXACT)
        assert np.isnan(half["std_error"])
        z = row(result, estimator, "z")
        points = (
            100.0 * design.X[:, design.terms.index("z")].std(ddof=1) / (1 if annualized else YEARS)
        )
        sd = row(result, estimator, "z", "per_sd")
        got = sd[["estimate", "std_error", "ci_low", "ci_high"]].to_numpy(float)
        want = points * z[["estimate", "std_error", "ci_low", "ci_high"]].to_numpy(float)
        np.testing.assert_allclose(got, want, rtol=EXACT)
        assert (sd["unit"], sd["group"]) == ("points of annual growth", "overall")


def test_half_life_is_infinite_without_convergence():
    table = cells()
    table["employment_end"] = table["employment_start"] * np.exp(0.001 * table["x"])
    design, spec = growth_of(table)
    half = row(fit_frequentist(design, spec=spec), "fixed effects", "log(employment)", "half_life")
    assert half["ci_high"] == np.inf
    assert half["ci_low"] > 0


def test_overshooting_has_infinite_speed_and_no_interval():
    table = cells()
    level = np.log(table["employment_start"])
    table["employment_end"] = np.exp(-0.5 * level + 0.01 * table["x"])
    design, spec = growth_of(table)
    result = fit_frequentist(design, spec=spec)
    rate, half = (row(result, "OLS", "log(employment)", e) for e in ("speed", "half_life"))
    assert (rate["estimate"], half["estimate"]) == (np.inf, 0.0)
    assert rate[["std_error", "ci_low", "ci_high"]].isna().all()
    assert half[["std_error", "ci_low", "ci_high"]].isna().all()


def test_what_a_comparison_needs_is_kept():
    design, spec = growth_of(cells())
    result = fit_frequentist(design, spec=spec)
    assert result.rows_digest == design.rows_digest
    assert (result.response, result.unit) == ("growth", "log change over 5 years")
    assert result.n_rows == design.n_rows
    assert set(result.estimates["model"]) == {"growth"}
    empty = ["prob_positive", "mcse", "ess_bulk", "ess_tail", "r_hat", "verdict"]
    assert result.estimates[empty].isna().all(axis=None)
