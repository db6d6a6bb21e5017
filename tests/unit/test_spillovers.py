"""Impacts against dense inverses, draw by draw: whatever W, rows and groups are."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import spatialclusters as sc
from spatialclusters.effects import speed
from spatialclusters.result import assemble
from spatialclusters.spillovers import (
    ORDERS,
    approximation,
    has_lags,
    impact_terms,
    impacts_by_order,
    term_impacts,
)

EXACT = 1e-10  # relative: the same algebra in another order
INTERPOLATED = 1e-9  # relative: and a polynomial in rho between the two
CHAINS, DRAWS = 2, 30


def edges(pairs, both=True):
    """Return an edge table with weight one; ``alone`` regions get a link of weight zero."""
    rows = [(a, b, 1.0) for a, b in pairs if a != b]
    rows += [(b, a, 1.0) for a, b in pairs if a != b and both]
    rows += [(a, a, 0.0) for a, b in pairs if a == b]
    return pd.DataFrame(rows, columns=["region_i", "region_j", "weight"]).drop_duplicates()


REGIONS = [f"r{i}" for i in range(9)]
RING = [(f"r{i}", f"r{(i + 1) % 6}") for i in range(6)] + [("r0", "r3")]
# a ring with a chord, a pair that knows nobody else, and r8 without neighbors
ISLANDS = edges([*RING, ("r6", "r7"), ("r8", "r8")])
# two neighbors each, seldom mutual: eigenvalues are complex
ONE_WAY = edges([(f"r{i}", f"r{(i + k) % 9}") for i in range(9) for k in (1, 3)], both=False)
WEIGHTS = {
    "islands": lambda: sc.read_weights(ISLANDS),
    "raw": lambda: sc.read_weights(ISLANDS.assign(weight=ISLANDS["weight"] * 0.4),
                                   row_standardize=False),
    "one-way": lambda: sc.read_weights(ONE_WAY),
}  # fmt: skip


def table_of(rows):
    """Rows that are regions, region-clusters or industries, with x, z and a response."""
    rng = np.random.default_rng(3)
    if rows == "regions":
        table = pd.DataFrame({"region": REGIONS})
    else:
        most = 3 if rows == "industries" else 1
        cells = [(r, c, f"{c}{k}") for r in REGIONS for c in "uvw"
                 for k in range(1 + rng.integers(most)) if rng.random() < 0.8]  # fmt: skip
        cells = [cell for cell in cells if cell[1] != "w"] + [("r2", "w", "w0")]  # w: one region
        table = pd.DataFrame(cells, columns=["region", "cluster", "industry"])
        table = table if most > 1 else table.drop(columns="industry")
    return table.assign(**{name: rng.uniform(1.0, 5.0, len(table)) for name in "xzy"})


def made_up(formula, outcome="none", rows="regions", weights="islands", rho=(-0.7, 0.8), **more):
    """A fit with draws chosen by hand: rho anywhere in a part of its support."""
    spec = sc.parse_spec(f'formula = "{formula}"\nspatial.outcome = "{outcome}"')
    panel = sc.read_panel(table_of(rows))
    return fit_of(spec, sc.build_design(spec, panel, WEIGHTS[weights]()), rho, **more)


def fit_of(spec, design, rho=(-0.7, 0.8), **more):
    rng, shape = np.random.default_rng(7), (CHAINS, DRAWS)
    posterior = {"coefficient": rng.normal(0.5, 1.0, (*shape, len(design.terms)))}
    for group in design.groups:
        size = (*shape, len(group.levels), len(group.labels))
        posterior[f"effect({group.name})"] = rng.normal(size=size)
    if "rho" in spec.spatial.parameters:
        posterior["rho"] = rng.uniform(*rho, shape) / design.lag.spectrum.radius
    if "lambda" in spec.spatial.parameters:
        posterior["lambda"] = rng.uniform(-0.5, 0.5, shape)
    return assemble(spec, design, posterior, {}, panel=xr.Dataset(), geometry=None,
                    provenance={}, **more)  # fmt: skip


def slopes(fit, term):
    drawn, terms = fit.draws("coefficient"), fit.design.terms
    return [drawn[..., terms.index(t)] if t in terms else np.zeros((CHAINS, DRAWS))
            for t in (term, f"lag({term})")]  # fmt: skip


def dense(fit, term):
    """Return P of every draw, (chain, draw, N, N), from the definition."""
    L, (beta, theta) = fit.design.lag.matrix.toarray(), slopes(fit, term)
    rho = fit.draws("rho") if "rho" in fit.posterior else np.zeros((CHAINS, DRAWS))
    eye = np.eye(len(L))
    change = beta[..., None, None] * eye + theta[..., None, None] * L
    return np.linalg.solve(eye - rho[..., None, None] * L, change)


def close(got, expected, rtol=EXACT):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def means(P):
    """Return the mean diagonal and mean row sum of matrices."""
    return np.trace(P, axis1=-2, axis2=-1) / P.shape[-1], P.sum(axis=(-2, -1)) / P.shape[-1]


CASES = {
    "SAR": ("y ~ x + z", "sar", "regions", "islands"),
    "SDM": ("y ~ x + lag(x)", "sar", "regions", "islands"),
    "SLX": ("y ~ x + lag(x)", "none", "regions", "islands"),
    "SDEM": ("y ~ x + lag(x)", "sem", "regions", "islands"),
    "GNS": ("y ~ x + lag(x)", "sac", "regions", "one-way"),
    "lag alone": ("y ~ z + lag(x)", "sar", "regions", "islands"),
    "raw weights": ("y ~ x + lag(x)", "sar", "regions", "raw"),
    "one-way": ("y ~ x + lag(x)", "sar", "regions", "one-way"),
    "clusters": ("y ~ x + lag(x) + (1 | region)", "sar", "clusters", "islands"),
    "clusters, one-way": ("y ~ x + lag(x)", "sar", "clusters", "one-way"),
    "industries": ("y ~ x + lag(x) + (1 | region:cluster)", "sar", "industries", "islands"),
    "industries, SLX": ("y ~ x + lag(x)", "none", "industries", "one-way"),
}


@pytest.fixture(params=CASES, name="fit")
def _fit(request):
    return made_up(*CASES[request.param])


def test_by_draw(fit):
    direct, total = means(dense(fit, "x"))
    if "x" in fit.design.terms:
        found = {group: draws for group, draws, _ in term_impacts(fit, "x")}
        assert list(found) == ["overall", "common"]
        close(found["overall"], direct)
        close(found["common"], total)
    close(impacts_by_order(fit, "x")[1], total)


def test_summaries_are_those_of_the_draws(fit):
    table, several = sc.impacts(fit), (fit.design.lag.counts > 1).any()
    assert table["term"].unique().tolist() == impact_terms(fit)
    assert table["group"].unique().tolist() == (["row", "cell"] if several else ["row"])
    for term in impact_terms(fit):
        P = dense(fit, term)
        M = np.eye(len(fit.design.lag.counts))[:, fit.design.lag.cell]
        levels = {"row": P, "cell": (M / M.sum(axis=1, keepdims=True)) @ P @ M.T}
        for level in table["group"].unique():
            rows = table[(table["term"] == term) & (table["group"] == level)].set_index("effect")
            direct, total = means(levels[level])
            for effect, draws in (
                ("direct", direct),
                ("indirect", total - direct),
                ("total", total),
            ):
                ends = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
                expected = (draws.mean(), *ends)
                close(rows.loc[effect, ["estimate", "ci_low", "ci_high"]].to_numpy(float), expected)
                assert rows.loc[effect, "unit"] == "y per unit of the term"
            parts = rows.loc["direct", "estimate"] + rows.loc["indirect", "estimate"]
            assert parts == pytest.approx(rows.loc["total", "estimate"], rel=1e-14)


def test_orders(fit):
    orders, total = impacts_by_order(fit, "x")
    L, (beta, theta) = fit.design.lag.matrix.toarray(), slopes(fit, "x")
    if "rho" not in fit.posterior:
        assert len(orders) == 2
        close(orders.sum(axis=0), total)
    else:
        assert len(orders) == ORDERS + 1
        rho = fit.draws("rho")
        for k, draws in enumerate(orders):
            here = np.linalg.matrix_power(L, k).sum() / len(L)
            passed = rho ** (k - 1) * (rho * beta + theta) if k else beta
            close(draws, passed * here)
    table = sc.impacts(fit, by="order").query("term == 'x'")
    assert table["effect"].unique().tolist() == ["order_k"]
    assert table["group"].tolist() == [str(k) for k in range(len(orders))]
    close(table["estimate"], orders.mean(axis=(1, 2)))


def test_regions(fit):
    P = dense(fit, "x")
    P[..., range(P.shape[-1]), range(P.shape[-1])] = 0.0
    table = sc.regional_impacts(fit, "x")
    region = fit.design.data["row_region"].values
    assert table["group"].tolist() == 2 * sorted(set(region))
    for effect, axis in (("spill_in", -1), ("spill_out", -2)):
        rows = table[table["effect"] == effect]
        draws = [P.sum(axis=axis)[..., region == name].mean(axis=-1) for name in rows["group"]]
        close(rows["estimate"], [each.mean() for each in draws], INTERPOLATED)
        ends = [np.quantile(each, [0.025, 0.975], method="inverted_cdf") for each in draws]
        close(rows[["ci_low", "ci_high"]], ends, INTERPOLATED)
        shares = rows["group"].map(pd.Series(region).value_counts(normalize=True))
        indirect = sc.impacts(fit).query("term == 'x' and effect == 'indirect' and group == 'row'")
        close((rows["estimate"] * shares).sum(), indirect["estimate"].item(), INTERPOLATED)


def test_orders_sum_to_the_total_in_the_limit():
    fit = made_up("y ~ x + lag(x)", "sar", rho=(-0.04, 0.05))
    orders, total = impacts_by_order(fit, "x")
    beta, theta = slopes(fit, "x")
    left_out = 0.05**ORDERS * (np.abs(beta) + np.abs(theta)) * 1.1
    assert (np.abs(orders.sum(axis=0) - total) <= left_out).all()
    assert np.abs(orders[:3].sum(axis=0) - total).max() > left_out.max()


@pytest.mark.parametrize("rho", [(-0.999, -0.9), (0.9, 0.999), (-0.99, 0.995)])
def test_near_the_ends_of_the_support(rho):
    fit = made_up("y ~ x + lag(x)", "sar", "clusters", rho=rho)
    direct, total = means(dense(fit, "x"))
    found = {group: draws for group, draws, _ in term_impacts(fit, "x")}
    close(found["overall"], direct, 1e-9)  # the condition of I - rho L is a thousand
    close(found["common"], total, 1e-9)
    P = dense(fit, "x")
    expected = P.sum(axis=-1) - np.diagonal(P, axis1=-2, axis2=-1)
    region = fit.design.data["row_region"].values
    table = sc.regional_impacts(fit, "x").query("effect == 'spill_in'").set_index("group")
    got = table.loc["r0", ["ci_low", "ci_high"]].to_numpy(float)
    draws = expected[..., region == "r0"].mean(axis=-1)
    close(got, np.quantile(draws, [0.025, 0.975], method="inverted_cdf"), 1e-8)


def test_the_shortcut_is_wrong_where_a_region_has_no_neighbors():
    fit = made_up("y ~ x + lag(x)", "sar", rho=(0.3, 0.7))
    assert fit.design.lag.isolates == 1
    beta, theta = slopes(fit, "x")
    total = impacts_by_order(fit, "x")[1]
    shortcut = (beta + theta) / (1.0 - fit.draws("rho"))
    close(total, (8 * shortcut + beta) / 9)  # of nine regions one passes nothing on
    assert np.abs(total / shortcut - 1.0).min() > 0.001
    assert np.abs(total / shortcut - 1.0).mean() > 0.02


def test_a_cluster_in_one_region_passes_nothing_on():
    fit = made_up("y ~ x + lag(x) + (1 + x | cluster)", "sar", "clusters")
    cluster = fit.design.data["row_cluster"].values
    assert (cluster == "w").sum() == 1
    assert len(set(fit.design.lag.components[cluster == "u"])) > 1
    found = {group: draws for group, draws, _ in term_impacts(fit, "x")}
    effect = fit.draws("effect(cluster)")[:, :, 2, 1]
    np.testing.assert_array_equal(found["w"], slopes(fit, "x")[0] + effect)


@pytest.mark.parametrize("weights", ["islands", "one-way", "raw"])
@pytest.mark.parametrize("rows", ["clusters", "industries"])
@pytest.mark.parametrize("varying", ["1 + x", "x + lag(x)"])
def test_slopes_by_cluster(varying, rows, weights):
    """Each cluster is a block of its own, with the slopes of x and of its lag."""
    fit = made_up(f"y ~ x + lag(x) + ({varying} | cluster)", "sar", rows, weights)
    (group,) = fit.design.groups
    effects, L = fit.draws("effect(cluster)"), fit.design.lag.matrix.toarray()
    own = [effects[..., group.labels.index(t)] if t in group.labels else 0.0 * effects[..., 0]
           for t in ("x", "lag(x)")]  # fmt: skip
    beta, theta = (a[..., None] + b for a, b in zip(slopes(fit, "x"), own, strict=True))
    eye = np.eye(len(L))
    change = beta[..., group.codes, None] * eye + theta[..., group.codes, None] * L
    P = np.linalg.solve(eye - fit.draws("rho")[..., None, None] * L, change)
    found = {name: draws for name, draws, _ in term_impacts(fit, "x")}
    assert list(found) == ["overall", "common", "u", "v", "w"]
    for i, level in enumerate(group.levels):
        inside = group.codes == i
        direct = np.diagonal(P[:, :, inside][..., inside], axis1=-2, axis2=-1).mean(axis=-1)
        close(found[level], direct, INTERPOLATED)
    close(found["overall"], means(dense(fit, "x"))[0])  # of the common slope


def test_a_cluster_without_a_circle_of_links():
    """What comes back is nothing, also where rho is beyond what such a cluster alone allows."""
    links = pd.DataFrame(
        {"region_i": list("abc"), "region_j": list("bad"), "weight": [0.5, 0.5, 5.0]}
    )
    table = pd.DataFrame({"region": list("abcd"), "cluster": list("uuvv")})
    table = table.assign(x=[1.0, 2.0, 4.0, 3.0], y=[0.0, 1.0, 0.5, 2.0])
    spec = sc.parse_spec('formula = "y ~ x + (1 + x | cluster)"\nspatial.outcome = "sar"')
    weights = sc.read_weights(links, row_standardize=False)
    fit = fit_of(spec, sc.build_design(spec, sc.read_panel(table), weights), rho=(0.2, 0.95))
    assert fit.draws("rho").max() > 0.2 * 1.5
    found = {group: draws for group, draws, _ in term_impacts(fit, "x")}
    slope = slopes(fit, "x")[0][..., None] + fit.draws("effect(cluster)")[..., 1]
    np.testing.assert_array_equal(found["v"], slope[..., 1])
    close(found["u"], slope[..., 0] / (1.0 - (0.5 * fit.draws("rho")) ** 2))


def test_levels_that_share_components_are_left_out():
    fit = made_up("y ~ x + (1 + x | region)", "sar", "clusters")
    assert [group for group, _, _ in term_impacts(fit, "x")] == ["overall", "common"]
    fit = made_up("y ~ x + lag(x) + (1 + x | region)", "none", "clusters")  # nothing comes back
    found = {group: draws for group, draws, _ in term_impacts(fit, "x")}
    assert list(found) == ["overall", "common", *sorted(set(fit.design.data["row_region"].values))]
    effect = fit.draws("effect(region)")[..., 3, 1]
    np.testing.assert_array_equal(found["r3"], slopes(fit, "x")[0] + effect)


def test_without_a_lag_of_the_response_the_direct_impact_is_the_coefficient():
    rng = np.random.default_rng(2)
    moments = [{"coefficient": rng.uniform(1, 2, (CHAINS, DRAWS, 2))} for _ in range(2)]
    fit = made_up("y ~ x + lag(x)", moments=tuple(moments))
    overall, common = term_impacts(fit, "x")
    np.testing.assert_array_equal(overall[1], slopes(fit, "x")[0])
    np.testing.assert_array_equal(overall[2][1], moments[1]["coefficient"][..., 0])
    assert common[2] is None
    sar = made_up("y ~ x + lag(x)", "sar", moments=tuple(moments))
    assert next(iter(term_impacts(sar, "x")))[2] is None


def test_columns_that_are_no_covariates_of_their_own():
    formula = "y ~ x + lag(x) + z + log(lag(z)) + x:z + lag(x):z + (1 | region)"
    spec = sc.parse_spec(f'formula = "{formula}"\n[groups.region]\neffect = "correlated"')
    panel = sc.read_panel(table_of("clusters"))
    weights = sc.read_weights(edges([*RING, ("r5", "r6"), ("r6", "r7"), ("r7", "r8")]))
    spec = sc.override(spec, {"zeros": {"lag(z)": "minimum-and-dummy"}})
    design = sc.build_design(spec, panel, weights)
    assert "mean(x | region)" in design.terms
    assert "zero(lag(z))" in design.terms
    fit = fit_of(spec, design)
    assert impact_terms(fit) == ["x", "z", "log(lag(z))", "x:z", "lag(x):z"]
    table = sc.impacts(fit).set_index(["term", "effect"])["estimate"]
    np.testing.assert_array_equal(table.loc[["z", "x:z", "lag(x):z"], "indirect"], 0.0)


def test_errors():
    for formula, outcome in (("y ~ x", "none"), ("y ~ x", "sem"), ("y ~ x + lag(x):z", "none")):
        fit = made_up(formula, outcome)
        assert not has_lags(fit)
        with pytest.raises(sc.FitError, match="coefficients are its impacts"):
            sc.impacts(fit)
        with pytest.raises(sc.FitError, match="coefficients are its impacts"):
            sc.regional_impacts(fit, "x")
    fit = made_up("y ~ x + lag(x)", "sar")
    with pytest.raises(sc.FitError, match=r"got by = 'region'; expected 'overall' or 'order'"):
        sc.impacts(fit, by="region")
    for function in (sc.regional_impacts, impacts_by_order):
        with pytest.raises(sc.FitError, match=r"got the term 'lag\(x\)'; expected one of 'x'"):
            function(fit, "lag(x)")
    with pytest.raises(sc.FitError, match="without covariates"):
        sc.impacts(made_up("y ~ 1", "sar"))
    twice = made_up("y ~ x + lag(x) + lag(lag(x)) + z", "none")
    assert impact_terms(twice) == ["x", "z"]
    with pytest.raises(sc.FitError, match=r"lag\(lag\(x\)\); expected no lag of a lag"):
        sc.impacts(twice)
    assert len(list(term_impacts(twice, "z"))) == 2


def test_convergence_and_specialization_are_direct_and_common():
    table = table_of("clusters").rename(columns={"y": "income_start"}).drop(columns="z")
    table["income_end"] = table["income_start"] * np.exp(0.1 * table["x"])
    spec = sc.parse_spec(
        """
        formula = "growth ~ log(income) + lag(log(income)) + log(x) + (1 + log(income) | cluster)"
        roles = { convergence = "log(income)", specialization = ["log(x)"] }
        growth = { variable = "income", from = 2000, to = 2010 }
        spatial.outcome = "sar"
        """
    )
    design = sc.build_design(spec, sc.read_panel(table), WEIGHTS["islands"]())
    fit = fit_of(spec, design)
    frame = sc.convergence(fit)
    assert frame["group"].unique().tolist() == ["overall", "common", "u", "v", "w"]
    drawn = dict(zip(("overall", "common"), means(dense(fit, "log(income)")), strict=True))
    for group, change in drawn.items():
        rows = frame[frame["group"] == group].set_index("effect")["estimate"]
        assert rows["change"] == pytest.approx(change.mean(), rel=EXACT)
        median = np.quantile(speed(change, 10.0), 0.5, method="inverted_cdf")
        assert rows["speed"] == pytest.approx(median, rel=EXACT)
    frame = sc.specialization(fit).query("effect == 'plus10pct'").set_index("group")["estimate"]
    close(frame, 10 * np.log(1.1) * np.array([each.mean() for each in means(dense(fit, "log(x)"))]))


def test_an_interpolation_says_how_far_off_it_may_be(monkeypatch):
    fit = made_up("y ~ x", "sar", rho=(-0.7, 0.8))
    assert approximation(fit) is None
    exact = sc.impacts(fit)
    monkeypatch.setattr("spatialclusters.logdet.EXACT", 2)
    fresh = made_up("y ~ x", "sar", rho=(-0.7, 0.8))
    assert "With 9 regions log|I - rho W| is interpolated" in approximation(fresh)
    bound = fresh.design.lag.spectrum.trace_error * np.abs(fresh.draws("coefficient")).max()
    gap = (sc.impacts(fresh)["estimate"] - exact["estimate"]).abs().max()
    assert gap <= bound + INTERPOLATED
