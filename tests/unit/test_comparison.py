"""Side by side: the right numbers in the right columns, and nothing across other rows."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from spatialclusters.comparison import compare
from spatialclusters.design import build_design
from spatialclusters.effects import coefficients, convergence
from spatialclusters.errors import FitError
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.gaps import expected_gaps
from spatialclusters.panel import read_panel
from spatialclusters.regression_tables import regression_table
from spatialclusters.result import assemble
from spatialclusters.spec import parse_spec

EXACT = 1e-12  # one subtraction and one division
MODEL = """
name = "{name}"
formula = "growth ~ log(employment) + z + (1 | region) + (1 + z | industry)"
[roles]
convergence = "log(employment)"
specialization = ["z"]
[growth]
variable = "employment"
from = 2000
to = {to}
annualized = {annualized}
[groups.region]
effect = "{effect}"
[likelihood]
scale = "{scale}"
"""
PLAIN = {"name": "growth", "to": 2005, "annualized": "false", "effect": "random", "scale": "size"}


def table(rows=72):
    draw = np.random.default_rng(4)
    start = np.exp(draw.normal(5.0, 1.0, size=rows))
    z = draw.normal(size=rows)
    end = start * np.exp(-0.2 * np.log(start) + 0.1 * z + 0.1 * draw.normal(size=rows))
    return pd.DataFrame(
        {
            "region": [f"r{i // 9}" for i in range(rows)],
            "industry": [f"i{i % 9}" for i in range(rows)],
            "cluster": "c",
            "employment_start": start,
            "employment_end": end,
            "z": z,
        }
    )


def fit_of(rows=72, weights=None, formula=None, **changes):
    """A fit whose draws come from a generator: what matters here is where they end up."""
    text = MODEL.format(**PLAIN | changes)
    spec = parse_spec(text if formula is None else f'formula = "{formula}"')
    panel = table(rows)
    if formula is not None:
        panel = panel.drop(columns=["employment_start", "employment_end"])
    design = build_design(spec, read_panel(panel), weights)
    draw = np.random.default_rng(8)

    def normal(mean, *shape):
        return draw.normal(mean, 0.02, size=(2, 100, *shape))

    posterior = {
        "intercept": normal(-1.0),
        "coefficient": normal(-0.15, len(design.terms)),
        "sigma": normal(0.3),
    }
    for group in design.groups:
        columns = len(group.columns)
        posterior[f"effect({group.name})"] = normal(0.0, len(group.levels), columns)
        posterior[f"sd({group.name})"] = normal(0.2, columns)
        if columns > 1:
            posterior[f"cor({group.name})"] = normal(0.1, columns * (columns - 1) // 2)
    return assemble(spec, design, posterior, {}, panel=xr.Dataset(), geometry=None, provenance={})


@pytest.fixture(scope="module")
def fit():
    return fit_of()


@pytest.fixture(scope="module")
def frequentist(fit):
    return fit_frequentist(fit)


TITLE = "posterior, region random, industry random"


def test_every_estimator_has_its_columns(fit, frequentist):
    result = compare(fit, frequentist)
    assert list(result.columns.get_level_values(0).unique()) == [TITLE, "fixed effects", "OLS"]
    statistics = ["estimate", "std_error", "ci_low", "ci_high"]
    assert list(result[TITLE].columns) == statistics
    assert list(result["OLS"].columns) == [*statistics, "difference"]
    assert result.index.names == ["term", "effect"]
    assert result.index.is_unique
    for key, draws in (
        (("log(employment)", "coefficient"), fit.draws("coefficient")[..., 0]),
        (("sd(industry) [z]", "sd"), fit.draws("sd(industry)")[..., 1]),
    ):
        found = result.loc[key, TITLE]
        assert found["estimate"] == pytest.approx(draws.mean(), rel=EXACT)
        assert found["std_error"] == pytest.approx(draws.std(ddof=1), rel=EXACT)
    rows = frequentist.estimates.set_index(["estimator", "term", "effect"])
    for estimator, term, effect in rows.index:
        want = rows.loc[(estimator, term, effect), statistics].to_numpy(float)
        got = result.loc[(term, effect), estimator][statistics].to_numpy(float)
        np.testing.assert_array_equal(got, want)


def test_differences_are_in_frequentist_standard_errors(fit, frequentist):
    result = compare(fit, frequentist)
    for key in (("z", "coefficient"), ("z", "per_sd"), ("log(employment)", "speed")):
        for estimator in ("fixed effects", "OLS"):
            own, other = result.loc[key, TITLE], result.loc[key, estimator]
            want = (own["estimate"] - other["estimate"]) / other["std_error"]
            assert other["difference"] == pytest.approx(want, rel=EXACT)
            assert abs(want) > 0
    assert np.isnan(result.loc[("sigma", "sd"), ("OLS", "difference")])
    assert np.isnan(result.loc[("log(employment)", "half_life"), ("OLS", "difference")])


def test_convergence_is_the_overall_one(fit, frequentist):
    frame = convergence(fit)
    want = frame[(frame["group"] == "overall") & (frame["effect"] == "speed")]["estimate"].item()
    got = compare(fit, frequentist).loc[("log(employment)", "speed"), (TITLE, "estimate")]
    assert got == want


def test_models_side_by_side_are_named_by_their_groups(fit):
    others = [
        fit_of(effect="correlated"),
        fit_of(effect="fixed"),
        fit_of(name="again"),
        fit_of(name="again"),
    ]
    result = compare(fit, *others)
    titles = list(result.columns.get_level_values(0).unique())
    assert titles == [
        TITLE,
        "posterior, region correlated, industry random",
        "posterior, region fixed, industry random",
        f"{TITLE}, again",
        f"{TITLE}, again (2)",
    ]
    assert "difference" not in result.columns.get_level_values(1)
    means = result.loc[("mean(z | region)", "coefficient")]
    assert means[titles[1], "estimate"] == pytest.approx(-0.15, abs=0.01)  # 200 draws, sd 0.02
    assert np.isnan(means[TITLE, "estimate"])


def test_three_frequentist_results_keep_their_columns(fit, frequentist):
    titles = compare(fit, frequentist, frequentist, frequentist).columns.get_level_values(0)
    assert titles.nunique() == 1 + 3 * 2


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"rows": 63}, "got other rows"),
        ({"to": 2006}, "got unit 'log change over 5 years' and 'log change over 6 years'"),
        ({"formula": "z ~ 1 + (1 | region)"}, "got other rows"),
    ],
)
def test_other_samples_are_refused(fit, frequentist, other, what):
    different = fit_of(**other)
    for call in (
        lambda: compare(fit, different),
        lambda: compare(fit, fit_frequentist(different)),
        lambda: compare(fit, frequentist, different),
        lambda: regression_table(fit, different),
        lambda: regression_table(frequentist, different),
        lambda: expected_gaps(fit, fit_frequentist(different)),
    ):
        with pytest.raises(FitError, match=what):
            call()


def test_gaps_name_random_effects_first(fit, frequentist):
    gaps = expected_gaps(fit, frequentist)
    assert gaps[0].startswith("Random effects (region, industry) are taken to be uncorrelated")
    text = "\n".join(gaps)
    for part in ("Priors", "Slopes by group (z by industry)", "gaussian, scale size", "OLS has no"):
        assert part in text
    assert "Group means" not in text
    assert "in the model only" not in text


def test_gaps_depend_on_the_model():
    correlated = fit_of(effect="correlated", scale="constant")
    gaps = "\n".join(expected_gaps(correlated, fit_frequentist(correlated)))
    assert "Random effects (industry)" in gaps
    assert "Group means (region)" in gaps
    assert "noise" not in gaps
    plain = fit_of(formula="z ~ 1")
    prior, warning = expected_gaps(plain, fit_frequentist(plain))
    assert prior == "Priors and partial pooling pull the posterior; the regressions have neither."
    assert warning.startswith("Warning: for intercept the posterior is ")


def test_a_group_left_out_is_named(fit, frequentist):
    from dataclasses import replace

    changed = replace(frequentist, absorbed=("industry",), left_out=("region",))
    gaps = expected_gaps(fit, changed)
    assert gaps[0].startswith("Random effects (industry)")
    assert any(gap.startswith("Effects of region are in the model only") for gap in gaps)


def test_noise_of_clusters_is_in_the_unit_of_the_response():
    """Whatever the clusters are called: the intercept's column is called "1", too."""
    draw = np.random.default_rng(1)
    rows = pd.DataFrame({"region": np.repeat([f"r{i}" for i in range(12)], 3)})
    rows["cluster"], rows["y"], rows["x"] = ["a", "b", "1"] * 12, *draw.normal(size=(2, 36))
    spec = parse_spec('formula = "y ~ x + (1 + x | region)"\n[likelihood]\nscale = "by-cluster"')
    posterior = {
        "intercept": np.ones((2, 50)), "coefficient": draw.normal(size=(2, 50, 1)),
        "effect(region)": draw.normal(size=(2, 50, 12, 2)), "sigma": np.ones((2, 50)),
        "sd(region)": draw.uniform(1.0, 2.0, (2, 50, 2)), "cor(region)": np.zeros((2, 50, 1)),
        "sd(log sigma)": np.ones((2, 50)), "sigma(cluster)": draw.uniform(1.0, 2.0, (2, 50, 3)),
    }  # fmt: skip
    fit = assemble(
        spec, build_design(spec, read_panel(rows)), posterior, {},
        panel=xr.Dataset(), geometry=None, provenance={},
    )  # fmt: skip
    frame = coefficients(fit)
    noise = frame[frame["term"] == "sigma(cluster)"]
    assert dict(zip(noise["group"], noise["unit"], strict=True)) == dict.fromkeys(
        ["a", "b", "1"], "y"
    )
    sd = frame[frame["term"] == "sd(region)"]
    assert dict(zip(sd["group"], sd["unit"], strict=True)) == {
        "": "y",
        "x": "y per unit of the term",
    }
