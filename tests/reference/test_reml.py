"""The mixed model by restricted maximum likelihood against lme4, and what it refuses.

Estimates and data come from ``lme4/reml.R``. RELATIVE and ABSOLUTE are the agreement with lme4,
whose optimizer stops at 1e-9 of theta; 1e-4 was asked for. PUBLISHED numbers have the digits
that are printed.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import spatialclusters as sc
from spatialclusters.collapsed.layout import Problem, lay_out
from spatialclusters.collapsed.plan import Factor
from spatialclusters.design import build_design
from spatialclusters.errors import FitError
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.mixed import fit_reml
from spatialclusters.panel import read_panel
from spatialclusters.restricted import restricted_maximum
from spatialclusters.spec import parse_spec

RELATIVE = 1e-6
ABSOLUTE = 1e-6  # of the criterion, and of quantities at zero
SINGULAR = 1e-5  # beside a component at a thousandth of sigma instead of zero
ABOVE = 1e-4  # by which that raises the criterion, for some ten levels
WIDE = 1e-5  # fixed effects have a prior of 100 standard deviations of the response
CURVATURE = 1e-5  # differences of gradients, beside a closed form
NLME = 1e-3  # its curvature is made of differences of values
PUBLISHED = 0.51  # of the last digit

FOLDER = Path(__file__).with_name("lme4")
REFERENCE = json.loads((FOLDER / "reml.json").read_text(encoding="utf-8"))
LME4 = REFERENCE["models"]

# a region, an industry in one cluster, and the rest: rows of a panel
LAYOUT = {
    "Dyestuff": lambda t: (t["Batch"], _number(t, "Batch"), "c"),
    "Dyestuff2": lambda t: (t["Batch"], _number(t, "Batch"), "c"),
    "Penicillin": lambda t: (t["plate"], t["sample"], "c"),
    "Pastes": lambda t: (t["batch"], t["cask"] + _number(t, ["batch", "cask"]), t["cask"]),
    "sleepstudy": lambda t: (t["Subject"], "d" + t["Days"].astype(str), "c"),
    "cake": lambda t: (t["recipe"], t["replicate"] + "t" + t["temp"].astype(str), t["replicate"]),
}
FORMULAS = {
    "Dyestuff": "Yield ~ 1 + (1 | region)",
    "Dyestuff2": "Yield ~ 1 + (1 | region)",
    "Penicillin": "diameter ~ 1 + (1 | region) + (1 | industry)",
    "Pastes": "strength ~ 1 + (1 | region) + (1 | region:cluster)",
    "sleepstudy": "Reaction ~ Days + (1 + Days | region)",
    "cake": "angle ~ temp + (1 | region) + (1 | region:cluster)",
}
GROUPS = {
    "Batch": "region",
    "plate": "region",
    "sample": "industry",
    "batch": "region",
    "batch:cask": "region:cluster",
    "Subject": "region",
    "recipe": "region",
    "recipe:replicate": "region:cluster",
}


def _number(table, by):
    return table.groupby(by).cumcount().astype(str)


@functools.cache
def fitted(name, data=None, more="", rows=None):
    """Fit a data set of lme4 through a panel, as a user would."""
    data = data or name
    table = pd.read_csv(FOLDER / f"{data}.csv", keep_default_na=False)
    table = table if rows is None else table[rows(table)]
    region, industry, cluster = LAYOUT[data](table)
    response = FORMULAS[data].split(" ~ ")[0]
    numbers = table[[c for c in (response, "Days", "temp") if c in table]]
    panel = numbers.assign(region=region, industry=industry, cluster=cluster)
    spec = parse_spec(f'formula = "{FORMULAS[data]}"\n{more}')
    design = build_design(spec, read_panel(panel))
    return fit_reml(design, spec=spec), design


def value(result, term, group="", column="estimate"):
    frame = result.estimates
    found = frame[(frame["term"] == term) & (frame["group"].fillna("") == group)]
    found = found[found["effect"].isin(["coefficient", "sd", "correlation"])]
    assert len(found) == 1, term
    return found.iloc[0][column]


def covariance(result, design, group):
    """Covariance of effects on raw columns: ours are those at the covariates' means."""
    labels = next(g.labels for g in design.groups if g.name == group)
    sds = [value(result, f"sd({group})", "" if label == "1" else label) for label in labels]
    if len(labels) == 1:
        return np.array([[sds[0] ** 2]])
    r = value(result, f"cor({group})", f"{labels[0]}, {labels[1]}")
    r = 0.0 if np.isnan(r) else r
    at_mean = np.array([[sds[0] ** 2, r * sds[0] * sds[1]], [r * sds[0] * sds[1], sds[1] ** 2]])
    center = design.data["center"].values[design.terms.index(labels[1])]
    to_raw = np.array([[1.0, -center], [0.0, 1.0]])
    return to_raw @ at_mean @ to_raw.T


def matches(result, design, reference, tolerance, above=ABSOLUTE):
    fixed = reference["fixed"]
    for name, b, se in zip(*(fixed[k] for k in ("names", "estimate", "std_error")), strict=True):
        alone = name == "(Intercept)" and not design.terms
        term = "intercept" if alone else {"(Intercept)": "intercept at zero"}.get(name, name)
        assert value(result, term) == pytest.approx(b, rel=tolerance)
        assert value(result, term, column="std_error") == pytest.approx(se, rel=tolerance)
    for term in reference["random"]:
        want = np.reshape(term["covariance"], (len(term["columns"]), -1))
        got = covariance(result, design, GROUPS[term["group"]])
        np.testing.assert_allclose(
            np.sqrt(got.diagonal()), np.sqrt(want.diagonal()), rtol=tolerance, atol=ABSOLUTE
        )
        np.testing.assert_allclose(got, want, rtol=10 * tolerance, atol=ABSOLUTE)
    assert value(result, "sigma") == pytest.approx(reference["sigma"][0], rel=tolerance)
    assert result.criterion == pytest.approx(reference["criterion"][0], abs=above)


@pytest.mark.parametrize("name", ["Dyestuff", "Penicillin", "Pastes", "sleepstudy"])
def test_estimates_are_those_of_lme4(name):
    result, design = fitted(name)
    assert result.n_rows == LME4[name]["rows"]
    assert not result.singular
    matches(result, design, LME4[name], RELATIVE)


def test_published_estimates():
    """What lme4's own documentation and article print (doi:10.18637/jss.v067.i01)."""
    result, design = fitted("sleepstudy")
    for found, printed in (
        (value(result, "intercept at zero"), "251.405"),
        (value(result, "intercept at zero", column="std_error"), "6.825"),
        (value(result, "Days"), "10.467"),
        (value(result, "Days", column="std_error"), "1.546"),
        (value(result, "sigma"), "25.592"),
        (result.criterion, "1743.6"),
        (np.sqrt(covariance(result, design, "region")[0, 0]), "24.74"),
        (np.sqrt(covariance(result, design, "region")[1, 1]), "5.922"),
    ):
        digits = len(printed.split(".")[1])
        assert found == pytest.approx(float(printed), abs=PUBLISHED * 10.0**-digits)
    penicillin, _ = fitted("Penicillin")
    for term, printed in (
        ("intercept", 22.972),
        ("sd(region)", 0.847),
        ("sd(industry)", 1.932),
        ("sigma", 0.550),
    ):
        assert value(penicillin, term) == pytest.approx(printed, abs=PUBLISHED * 1e-3)


def test_errors_of_a_balanced_layout_have_a_closed_form():
    """Mean squares within and between batches are independent, with known curvature."""
    result, design = fitted("Dyestuff")
    y = design.y.reshape(6, 5)
    within = ((y - y.mean(axis=1, keepdims=True)) ** 2).sum() / 24
    between = 5.0 * y.mean(axis=1).var(ddof=1)
    spread = 2.0 * within**2 / 24, 2.0 * between**2 / 5  # inverse curvature of each
    tau = np.sqrt((between - within) / 5.0)
    assert value(result, "sd(region)") == pytest.approx(tau, rel=RELATIVE)
    error = np.sqrt(sum(spread)) / (2.0 * 5.0 * tau)
    assert value(result, "sd(region)", column="std_error") == pytest.approx(error, rel=CURVATURE)
    error = np.sqrt(spread[0]) / (2.0 * np.sqrt(within))
    assert value(result, "sigma", column="std_error") == pytest.approx(error, rel=CURVATURE)


def test_intervals_are_those_of_nlme():
    result, _ = fitted("sleepstudy")
    reference = REFERENCE["intervals"]["sleepstudy"]
    keys = {
        "sd": ("sd(region)", ""),
        "sd Days": ("sd(region)", "Days"),
        "cor": ("cor(region)", "1, Days"),
        "sigma": ("sigma", ""),
    }
    for name, low, high in zip(*(reference[k] for k in ("names", "lower", "upper")), strict=True):
        assert value(result, *keys[name], column="ci_low") == pytest.approx(low, rel=NLME)
        assert value(result, *keys[name], column="ci_high") == pytest.approx(high, rel=NLME)


@pytest.mark.parametrize("name", ["Dyestuff2", "cake"])
def test_a_variance_of_zero(name):
    result, design = fitted(name)
    assert value(result, "sd(region)") == 0.0
    assert result.singular == ("sd(region)",)
    assert np.isnan(value(result, "sd(region)", column="std_error"))
    assert value(result, "sigma", column="std_error") > 0.0
    assert "REML is singular: sd(region) at the end of what is possible." in result.notes
    matches(result, design, LME4[name], SINGULAR, ABOVE)


def test_a_correlation_at_its_end():
    few = [f"S{n}" for n in (309, 332, 333, 337, 369, 372)]
    result, design = fitted(
        "sleepstudy_singular", "sleepstudy", rows=lambda t: t["Subject"].isin(few)
    )
    assert result.singular == ("cor(region)",)
    assert value(result, "cor(region)", "1, Days") == 1.0
    assert np.isnan(value(result, "cor(region)", "1, Days", "std_error"))
    matches(result, design, LME4["sleepstudy_singular"], SINGULAR, ABOVE)


def test_fixed_effects_are_dummies():
    """Effects that sum to zero: the intercept is the mean of lme4's batches."""
    result, _ = fitted("Pastes", more='[groups.region]\neffect = "fixed"')
    want = LME4["Pastes_fixed"]
    first, *others = want["fixed"]["estimate"]
    mean = first + sum(others) / (1 + len(others))
    assert value(result, "intercept") == pytest.approx(mean, rel=WIDE)
    sd = np.sqrt(want["random"][0]["covariance"][0])
    assert value(result, "sd(region:cluster)") == pytest.approx(sd, rel=WIDE)
    assert value(result, "sigma") == pytest.approx(want["sigma"][0], rel=WIDE)
    assert "sd(region)" not in set(result.estimates["term"])
    assert result.groups == {"region": "fixed", "region:cluster": "random"}


@pytest.mark.slow
def test_students_and_lecturers():
    """73,421 rows, 2,972 x 1,128 crossed levels: the maximum itself, without a panel."""
    table = pd.read_parquet(FOLDER / "InstEval.parquet")
    factors = tuple(
        Factor(name, *_levels(table[name]), np.ones((len(table), 1))) for name in ("s", "d", "dept")
    )
    X = np.column_stack([np.ones(len(table)), table["lectage_numeric"]])
    n = len(table)
    problem = Problem(X, np.zeros(n), np.zeros(2, bool), factors, np.zeros(n, int), 1)
    found, want = restricted_maximum(lay_out(problem), table["y"].to_numpy(float)), LME4["InstEval"]
    np.testing.assert_allclose(found.coefficients, want["fixed"]["estimate"], rtol=RELATIVE)
    # lme4 knows the sds of departments to some 1e-5, and the intercept's error is made of them: two
    # searches of ours agree to 1e-12
    errors = np.sqrt(found.covariance.diagonal())
    np.testing.assert_allclose(errors, want["fixed"]["std_error"], rtol=10 * RELATIVE)
    for term in want["random"]:
        sd = found.theta.roots[term["group"]][0, 0]
        assert sd == pytest.approx(np.sqrt(term["covariance"][0]), rel=10 * RELATIVE)
    assert found.theta.sigma[0] == pytest.approx(want["sigma"][0], rel=RELATIVE)
    assert -2.0 * found.log_likelihood == pytest.approx(want["criterion"][0], abs=ABSOLUTE)


def _levels(labels):
    codes, levels = pd.factorize(labels)
    return codes, len(levels)


# --- what it is beside: a fit, a regression, a refusal ---------------------------------------


def simulated(seed=1, regions=12, industries=9):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        [(f"r{i:02d}", f"i{k}", "ab"[k % 2]) for i in range(regions) for k in range(industries)],
        columns=["region", "industry", "cluster"],
    )
    ups = rng.normal(size=regions)[table["region"].str[1:].astype(int)]
    table["x"] = rng.normal(size=len(table)) + ups
    table["y"] = 0.5 * table["x"] + ups + rng.normal(size=len(table))
    return table[rng.random(len(table)) < 0.8]


def test_without_random_effects_it_is_least_squares_on_dummies():
    spec = parse_spec('formula = "y ~ x + (1 | region)"\n[groups.region]\neffect = "fixed"')
    design = build_design(spec, read_panel(simulated()))
    result = fit_reml(design, spec=spec)
    frame = fit_frequentist(design, spec=spec, cluster="region:industry").estimates
    within = frame[(frame["estimator"] == "fixed effects") & (frame["term"] == "x")].iloc[0]
    assert value(result, "x") == pytest.approx(within["estimate"], rel=WIDE)


def test_what_a_fit_has_beside_it(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    result = fit_reml(fit)
    frame = result.estimates
    assert set(frame["estimator"]) == {"REML"}
    assert set(frame["point"]) == {"REML"}
    mine = set(zip(frame["term"], frame["effect"], frame["group"].fillna(""), strict=True))
    theirs = sc.coefficients(fit)
    for term, effect, group in zip(
        theirs["term"], theirs["effect"], theirs["group"].fillna(""), strict=True
    ):
        if not term.startswith("size."):
            assert (term, effect, group) in mine
    assert {"speed", "half_life", "change", "per_sd"} <= set(frame["effect"])
    expected = "REML has Gaussian, constant noise; the model's is gaussian, scale size."
    assert expected in result.notes
    assert (result.rows_digest, result.unit) == (
        fit.design.rows_digest,
        fit.design.data.attrs["unit"],
    )
    assert result.weights_digest == fit.weights.digest


def test_structures_and_other_noise_are_named(synthetic_fit):
    result = fit_reml(synthetic_fit("student"))
    assert "REML has Gaussian, constant noise; the model's is student-t, scale constant." in (
        result.notes
    )
    text = 'formula = "y ~ x + (1 | region)"\n[groups.region]\nstructure = "icar"'
    spec = parse_spec(text)
    ring = pd.DataFrame({"region_i": [f"r{i:02d}" for i in range(12)]})
    ring["region_j"] = [f"r{(i + 1) % 12:02d}" for i in range(12)]
    both = pd.concat([ring, ring.rename(columns={"region_i": "region_j", "region_j": "region_i"})])
    design = build_design(spec, read_panel(simulated()), sc.read_weights(both))
    result = fit_reml(design, spec=spec)
    assert "REML takes levels as independent; the model's are not (region icar)." in result.notes
    plain = parse_spec('formula = "y ~ x + (1 | region)"')
    want = fit_reml(build_design(plain, read_panel(simulated())), spec=plain)
    assert value(result, "sd(region)") == pytest.approx(value(want, "sd(region)"), rel=RELATIVE)


def test_refusals():
    plain = parse_spec('formula = "y ~ x"')
    design = build_design(plain, read_panel(simulated()))
    with pytest.raises(FitError, match="REML: got a model without group effects"):
        fit_reml(design, spec=plain)
    with pytest.raises(FitError, match="REML: got a design without its model"):
        fit_reml(design)
    lag = parse_spec('formula = "y ~ x + (1 | region)"\n[spatial]\noutcome = "sar"')
    with pytest.raises(FitError, match=r"REML: got spatial.outcome = 'sar'; expected 'none'"):
        fit_reml(design_with_groups(), spec=lag)


def design_with_groups():
    spec = parse_spec('formula = "y ~ x + (1 | region)"')
    return build_design(spec, read_panel(simulated()))


def test_a_likelihood_without_a_maximum_is_refused():
    """A response that the effects explain without rest: the likelihood rises as sigma falls."""
    table = simulated()
    table["y"] = table["region"].str[1:].astype(float)
    spec = parse_spec('formula = "y ~ x + (1 | region)"')
    design = build_design(spec, read_panel(table))
    with pytest.raises(FitError, match="REML: got a search that ended"):
        fit_reml(design, spec=spec)


def test_columns_that_say_the_same_are_refused():
    """A panel would have refused them before: here they come without one."""
    n, codes = 12, np.repeat(np.arange(4), 3)
    factor = Factor("g", codes, 4, np.ones((n, 1)))
    X = np.column_stack([np.ones(n), np.arange(n), -np.arange(n)])
    problem = Problem(X, np.zeros(n), np.zeros(3, bool), (factor,), np.zeros(n, int), 1)
    with pytest.raises(FitError, match="REML: got a likelihood that is no number"):
        restricted_maximum(lay_out(problem), np.random.default_rng(1).normal(size=n))


def test_without_an_intercept_against_the_dense_criterion():
    """The criterion of y = x b + a_region + e, written down with dense matrices."""
    rng = np.random.default_rng(5)
    at = np.repeat(np.arange(12), 8)
    table = pd.DataFrame({"region": [f"r{k:02d}" for k in at], "x": rng.normal(3.0, 2.0, at.size)})
    table["industry"], table["cluster"] = [f"i{k % 8}" for k in range(at.size)], "c"
    table["y"] = 1.0 + 0.5 * table["x"] + rng.normal(size=12)[at] + rng.normal(0.0, 0.6, at.size)
    spec = parse_spec('formula = "y ~ 0 + x + (1 | region)"')
    found = fit_reml(build_design(spec, read_panel(table)), spec=spec)
    terms = found.estimates.set_index("term")["estimate"]
    x, y = table["x"].to_numpy(), table["y"].to_numpy()

    def criterion(sd, sigma):
        V = sd**2 * (at[:, None] == at) + sigma**2 * np.eye(at.size)
        Vx = np.linalg.solve(V, x)
        b = Vx @ y / (Vx @ x)
        e = y - x * b
        value = np.linalg.slogdet(V)[1] + np.log(Vx @ x) + e @ np.linalg.solve(V, e)
        return value + (at.size - 1) * np.log(2.0 * np.pi), b

    best = scipy.optimize.minimize(
        lambda p: criterion(*np.exp(p))[0], [0.0, 0.0], method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12},
    )  # fmt: skip
    value, b = criterion(*np.exp(best.x))
    assert found.criterion == pytest.approx(value, rel=RELATIVE)
    got = [terms["x"], terms["sd(region)"], terms["sigma"]]
    np.testing.assert_allclose(got, [b, *np.exp(best.x)], rtol=SINGULAR)
