"""Defaults that follow the scale of the data, stated priors, and what they mean."""

import pytest
from scipy import stats

from spatialclusters.errors import SpecError
from spatialclusters.priors import describe_priors, resolve_priors
from spatialclusters.spec import override, parse_spec

SPEC = parse_spec("""
formula = "growth ~ log(x) + z + (1 | region) + (1 + log(x) | cluster)"
[growth]
variable = "employment"
from = 2018
to = 2021
""")
SDS = {"log(x)": 0.5, "z": 4.0}
GROUPS = {"region": ["1"], "cluster": ["1", "log(x)"]}


def resolve(changes=None, sds=SDS, groups=GROUPS, response_sd=0.2):
    spec = override(SPEC, changes or {})
    return resolve_priors(spec, response_sd=response_sd, covariate_sd=sds, groups=groups)


def texts(resolved):
    return {name: each.prior.describe() for name, each in resolved.items()}


def test_defaults_follow_the_standard_deviations():
    found = resolve()
    assert texts(found) == {
        "intercept": "normal(0, 2)",
        "log(x)": "normal(0, 1)",
        "z": "normal(0, 0.125)",
        "sd(region)": "half_normal(0.2)",
        "sd(cluster)": "half_normal(0.2)",
        "sd(cluster, log(x))": "half_normal(0.4)",
        "cor(cluster)": "lkj(2)",
        "sigma": "half_normal(0.5)",
    }
    assert list(found) == list(texts(found))
    assert {each.source for each in found.values()} == {"default"}
    assert all(each.name == name for name, each in found.items())


def test_defaults_scale_with_units():
    """The same model in other units of y and z has the same priors in those units."""
    first = resolve(response_sd=0.25, sds={"log(x)": 1.0, "z": 2.0})
    second = resolve(response_sd=250.0, sds={"log(x)": 1.0, "z": 0.002})
    assert second["z"].prior.sd == pytest.approx(first["z"].prior.sd * 1e6)
    assert second["sigma"].prior.sd == pytest.approx(first["sigma"].prior.sd * 1e3)


def test_the_printed_prior_is_the_prior_used():
    found = resolve(response_sd=1 / 3)
    assert found["sigma"].prior.sd == 0.833
    assert found["sigma"].prior.describe() == "half_normal(0.833)"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"likelihood.scale": "by-cluster"}, ["sigma", "sd(log sigma)"]),
        ({"likelihood.scale": "size"}, ["sigma", "size.share", "size.power"]),
        ({"likelihood.family": "student-t"}, ["sigma", "nu"]),
    ],
)
def test_noise_parameters(changes, names):
    assert list(resolve(changes))[-len(names) :] == names


def test_stated_priors_win_in_raw_units():
    found = resolve({"priors.z": '{distribution="normal", mean=1, sd=3}'})
    assert (found["z"].prior.describe(), found["z"].source) == ("normal(1, 3)", "model file")
    assert found["log(x)"].source == "default"


def test_the_prior_of_a_groups_sds_covers_slopes_without_their_own():
    stated = {'priors."sd(cluster)"': '{distribution="exponential", rate=3}'}
    found = texts(resolve(stated))
    assert found["sd(cluster)"] == found["sd(cluster, log(x))"] == "exponential(3)"
    assert found["sd(region)"] == "half_normal(0.2)"
    stated['priors."sd(cluster, log(x))"'] = '{distribution="exponential", rate=7}'
    found = texts(resolve(stated))
    assert found["sd(cluster)"] == "exponential(3)"
    assert found["sd(cluster, log(x))"] == "exponential(7)"


def test_a_stated_prior_survives_another_zero_rule():
    stated = {
        "zeros.x": "asinh",
        'priors."log(x)"': '{distribution="normal", mean=0, sd=9}',
        'priors."sd(cluster, log(x))"': '{distribution="half_normal", sd=8}',
    }
    sds = {"asinh(x)": 0.5, "z": 4.0, "mean(asinh(x) | region)": 0.1}
    found = resolve(stated, sds=sds, groups={"cluster": ["1", "asinh(x)"]})
    assert found["asinh(x)"].prior.describe() == "normal(0, 9)"
    assert found["sd(cluster, asinh(x))"].prior.describe() == "half_normal(8)"
    assert found["mean(asinh(x) | region)"].source == "default"


def test_fixed_groups_have_no_scale_and_no_intercept_no_prior():
    assert "sd(region)" not in resolve({"groups.region.effect": "fixed"})
    assert "intercept" not in resolve({"formula": "growth ~ 0 + z + log(x)"}, groups={})


@pytest.mark.parametrize("sd", [0.0, -1.0, float("nan"), float("inf")])
def test_a_column_without_spread_is_refused(sd):
    with pytest.raises(SpecError, match="z: got the standard deviation"):
        resolve(sds={"log(x)": 1.0, "z": sd})
    with pytest.raises(SpecError, match="growth: got the standard deviation"):
        resolve(response_sd=sd)


def meaning(name, changes=None, annualize=3.0, **kwargs):
    table = describe_priors(
        resolve(changes, **kwargs), response_unit="crimes", covariate_sd=SDS, annualize=annualize
    )
    assert list(table.columns) == ["parameter", "prior", "source", "meaning"]
    return table.set_index("parameter")["meaning"][name]


def test_meaning_in_points_of_annual_growth():
    bound = 100 * 1.959964 * 1.0 * 0.5 / 3
    expected = f"one SD more of log(x): 95 % of the prior between -{bound:.3g} and +{bound:.3g} "
    assert meaning("log(x)") == expected + "points of annual growth"
    assert meaning("log(x)", annualize=1.0) == (
        "one SD more of log(x): 95 % of the prior between -98 and +98 points of annual growth"
    )
    assert meaning("log(x)", annualize=None).endswith("between -0.98 and +0.98 crimes")


def test_meaning_of_scales():
    top = 100 * stats.halfnorm.ppf(0.95) / 3
    assert f"below {top * 0.5:.3g} points" in meaning("sigma")
    assert f"below {top * 0.2:.3g} points" in meaning("sd(cluster)")
    assert f"below {top * 0.4 * 0.5:.3g} points" in meaning("sd(cluster, log(x))")
    assert "points" not in meaning("size.share", {"likelihood.scale": "size"})
    assert meaning("nu", {"likelihood.family": "student-t"}).startswith("degrees of freedom minus")


@pytest.mark.parametrize(
    ("name", "prior", "expected"),
    [
        ("z", '{distribution="student_t", nu=3, mean=1, sd=2}', stats.t(3, 1, 2).ppf),
        ("z", '{distribution="uniform", lower=-1, upper=3}', stats.uniform(-1, 4).ppf),
        ("z", '{distribution="normal", mean=1, sd=2}', stats.norm(1, 2).ppf),
    ],
)
def test_meaning_uses_the_priors_quantiles(name, prior, expected):
    text = meaning(name, {f"priors.{name}": prior}, annualize=None)
    low, high = expected([0.025, 0.975]) * 4.0
    assert f"between {low:+.3g} and {high:+.3g} crimes" in text


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ('{distribution="exponential", rate=2}', stats.expon(scale=0.5)),
        ('{distribution="half_student_t", nu=3, sd=2}', None),
    ],
)
def test_meaning_of_positive_priors(prior, expected):
    top = expected.ppf(0.95) if expected else 2 * stats.t(3).ppf(0.975)
    assert f"below {top:.3g} crimes" in meaning("sigma", {"priors.sigma": prior}, annualize=None)


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        ("z", '{distribution="flat"}'),
        ("sigma", '{distribution="inverse_scale"}'),
        ("sigma", '{distribution="uniform", lower=0, upper=9}'),
    ],
)
def test_reference_priors_are_marked(name, prior):
    assert meaning(name, {f"priors.{name}": prior}).endswith("reference run only")
    assert "reference" not in meaning(name)
