"""Model files: what they hold, what is refused and how it is worded."""

import json
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from spatialclusters.errors import SpecError
from spatialclusters.spec import ModelSpec, json_schema, override, parse_spec, spec_to_toml

GROWTH = '''
schema = 1
name = "example"
title = 'A "quoted" title, \t\N{EURO SIGN} and \\ '
cite = ["Delgado2014"]
formula = """growth ~ log(cluster_level) + log(linked_strength)
             + (1 | region) + (1 + log(cluster_level) | cluster)"""
[roles]
convergence = "log(cluster_level)"
specialization = ["log(linked_strength)"]
[growth]
variable = "employment"
from = 2018
to = 2021
[cells]
absent = "zero"
withheld = "filled"
fill = "midpoint"
[zeros]
linked_strength = "minimum-and-dummy"
[groups.region]
effect = "correlated"
[likelihood]
scale = "size"
[priors]
"log(cluster_level)" = { distribution = "normal", mean = 0, sd = 0.5 }
"zero(linked_strength)" = { distribution = "student_t", nu = 4, mean = 0, sd = 1e-7 }
"mean(log(cluster_level) | region)" = { distribution = "flat" }
"sd(cluster, log(cluster_level))" = { distribution = "half_normal", sd = 0.25 }
"cor(cluster)" = { distribution = "lkj", eta = 2.0 }
"size.power" = { distribution = "uniform", lower = 0, upper = 1e16 }
[expects]
"log(cluster_level)" = "negative"
'''
PLAIN = 'formula = "y ~ x + log(z) + (1 | region)"\n'


@pytest.fixture
def spec():
    return parse_spec(GROWTH)


def refused(text):
    with pytest.raises(SpecError) as error:
        parse_spec(text)
    message = str(error.value)
    assert message.startswith("model file: ")
    assert len(message) < 20_000
    return message


def test_a_plain_cross_section_needs_only_a_formula():
    spec = parse_spec('formula = "CRIME ~ INC + HOVAL"')
    assert spec.growth is None
    assert spec.cells is None
    assert (spec.spatial.outcome, spec.spatial.blocks) == ("none", "restandardize")
    assert (spec.likelihood.family, spec.likelihood.scale) == ("gaussian", "constant")
    assert (spec.weights.kind, spec.weights.row_standardize) == ("queen", True)


def test_values_of_a_growth_model(spec):
    assert (spec.growth.from_year, spec.growth.to_year, spec.growth.years) == (2018, 2021, 3)
    assert spec.roles.specialization == ("log(linked_strength)",)
    assert spec.priors["log(cluster_level)"].describe() == "normal(0, 0.5)"
    assert spec.parsed_formula.response == "growth"
    assert spec.parsed_formula is spec.parsed_formula


def test_every_group_of_the_formula_has_an_entry_in_its_order(spec):
    assert list(spec.groups) == ["region", "cluster"]
    assert [group.effect for group in spec.groups.values()] == ["correlated", "random"]


def test_the_spec_is_frozen(spec):
    with pytest.raises(ValidationError):
        spec.name = "other"
    with pytest.raises(ValidationError):
        spec.growth.to_year = 2022


@pytest.mark.parametrize("text", [GROWTH, PLAIN])
def test_written_text_reads_back_and_states_every_default(text):
    spec = parse_spec(text)
    written = spec_to_toml(spec)
    again = parse_spec(written)
    assert again == spec
    assert again.digest == spec.digest
    assert spec_to_toml(again) == written
    data = tomllib.loads(written)
    assert data["measures"] == {"totals": "all", "neighbor_leave_out": False}
    assert data["groups"]["region"]["structure"] == "iid"


def test_awkward_strings_survive_writing():
    title = '"""\\" \\u0041 \n\r\t\x7f\x00\x1b \N{GRINNING FACE} \u2028 = [x] # '
    spec = override(parse_spec(PLAIN), {"description": title})
    assert parse_spec(spec_to_toml(spec)).description == title


def test_digest_sees_values_and_not_layout():
    one = parse_spec(PLAIN)
    same = parse_spec('name="model"\nformula = """y ~ x\n + log(z) + (1 | region)"""')
    other = parse_spec(PLAIN + "[weights]\nrow_standardize = false")
    assert one.digest == same.digest
    assert one.digest != other.digest


def test_covariate_labels_say_where_they_come_from(spec):
    labels = spec.covariate_labels
    assert labels["asinh(cluster_level)"] == "log(cluster_level)"
    assert labels["zero(linked_strength)"] == "zero(linked_strength)"
    assert labels["mean(log1p(cluster_level) | region)"] == "mean(log(cluster_level) | region)"
    assert "lag(cluster_level)" not in labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo = 1", ["foo: got 'foo'; expected one of the keys: 'schema'"]),
        ("nmae = 'a'", ["Did you mean 'name'?"]),
        ("schema = 2", ["schema: got 2; expected 1."]),
        ("[likelihood]\nfamly = 'gaussian'", ["likelihood.famly", "Did you mean 'family'?"]),
        ("[likelihood]\nscale = 'bycluster'", ["likelihood.scale", "Did you mean 'by-cluster'?"]),
        (
            "[spatial]\noutcome = 'sdm'",
            ["spatial.outcome: got 'sdm'; expected 'none', 'sar', 'sem' or 'sac'."],
        ),
        ("name = '../../etc/passwd'", ["name: got '../../etc/passwd'"]),
        ("name = 3", ["name: got 3; expected a valid string."]),
        ("cite = 'x'", ["cite: got 'x'; expected a list."]),
        ("cite = [1]", ["cite.0: got 1"]),
        ("roles = 3", ["roles: got 3; expected a table."]),
        ("[weights]\nkind = '/etc/passwd'", ["weights.kind: got '/etc/passwd'"]),
        ("[weights]\nrow_standardize = 1", ["weights.row_standardize: got 1"]),
        ("[groups.regon]\neffect = 'fixed'", ["groups: got 'regon'", "Did you mean 'region'?"]),
        ("[groups.region]\nstructure = 'bym'", ["groups.region.structure: got 'bym'"]),
        ("[groups.region]\nstructure = 'bym2'\neffect = 'fixed'", ["got 'bym2' for fixed effects"]),
        ("[zeros]\nz = 'ignore'", ["zeros.z: got 'ignore'"]),
        ("[zeros]\nx = 'drop'", ["zeros: got 'x'; expected what the formula takes a log of: 'z'"]),
        ("[roles]\nconvergence = 'log(x)'", ["roles.convergence: got 'log(x)'", "'log(z)'"]),
        ("[roles]\nspecialization = ['__import__(\"os\")']", ["roles.specialization: got '__imp"]),
        ("[expects]\n'log(zz)' = 'positive'", ["expects: got 'log(zz)'", "mean 'log(z)'?"]),
        ("[expects]\nx = 'up'", ["expects.x: got 'up'; expected 'negative' or 'positive'."]),
        ("[cells]\nabsent = 'zero'", ["cells.withheld: got nothing"]),
        ("[cells]\nabsent='zero'\nwithheld='filled'", ["cells: got withheld = 'filled', fill = N"]),
        (
            "[cells]\nabsent='zero'\nwithheld='zero'\nfill='midpoint'",
            ["cells: got withheld = 'zer"],
        ),
        ("[growth]\nvariable='e'\nfrom=1\nto=2", ["formula: got response 'y'; expected 'growth'"]),
        ("[growth]\nvariable='a.b'\nfrom='1'\nto=true", ["growth.from", "growth.to", "variable"]),
        ("[likelihood]\nscale = 'size'", ["likelihood.scale: got 'size'; expected [growth]"]),
    ],
)
def test_what_is_refused_is_named(text, expected):
    message = refused(text + "\n" + PLAIN if "[" not in text else PLAIN + text)
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("x = { distribution = 'norml', mean = 0, sd = 1 }", "Did you mean 'normal'?"),
        ("x = { mean = 0, sd = 1 }", "priors.x.distribution: got nothing"),
        ("x = { distribution = 'normal', mean = 0, sd = 0 }", "priors.x.sd: got 0; expected a num"),
        ("x = { distribution = 'normal', mean = nan, sd = 1 }", "priors.x.mean: got nan"),
        ("x = { distribution = 'normal', mean = 0, sd = inf }", "priors.x.sd: got inf"),
        ("x = { distribution = 'normal', mean = 0, sd = 1e999 }", "priors.x.sd: got inf"),
        ("x = { distribution = 'normal', mean = '0', sd = 1 }", "priors.x.mean: got '0'"),
        ("x = { distribution = 'normal', mean = true, sd = 1 }", "priors.x.mean: got True"),
        ("x = { distribution = 'normal', mean = 0 }", "priors.x.sd: got nothing"),
        ("x = { distribution = 'normal', mean = 0, sd = 1, std = 2 }", "Did you mean 'sd'?"),
        ("x = { distribution = 'uniform', lower = 1, upper = 1 }", "expected lower < upper."),
        ("x = { distribution = 'half_normal', sd = 1 }", "priors.x: got half_normal(1)"),
        ("sigma = { distribution = 'normal', mean = 0, sd = 1 }", "priors.sigma: got normal(0, 1)"),
        ("sigma = { distribution = 'uniform', lower = -1, upper = 1 }", "lower of at least 0"),
        ("'sd(regon)' = { distribution = 'flat' }", "Did you mean 'sd(region)'?"),
        ("'cor(region)' = { distribution = 'lkj', eta = 1 }", "priors: got 'cor(region)'"),
        ("'mean(x | cluster)' = { distribution = 'flat' }", "priors: got 'mean(x | cluster)'"),
        ("\"__import__('os')\" = { distribution = 'flat' }", "priors: got \"__import__('os')\""),
        ("x = { distribution = 'pymc.Normal' }", "priors.x.distribution: got 'pymc.Normal'"),
        ("x = 3", "priors.x: got 3; expected a table."),
    ],
)
def test_priors_are_checked(prior, expected):
    assert expected in refused(f"{PLAIN}[priors]\n{prior}")


def test_all_problems_come_at_once():
    message = refused("nmae = 'a'\n" + PLAIN + "[weights]\nkind = 3\n[growth]\nto = 2\n")
    assert message.startswith("model file: 4 problems\n")
    for part in ("nmae", "weights.kind", "growth.variable", "growth.from"):
        assert part in message


def test_growth_needs_its_table_and_measures_their_cells():
    message = refused('formula = "growth ~ log(industry_strength)"')
    assert "growth: got no such table" in message
    assert "cells: got no such table" in message
    assert "from < to" in refused(GROWTH.replace("to = 2021", "to = 2018"))


def test_a_fixed_effect_has_no_slopes():
    message = refused(GROWTH + "[groups.cluster]\neffect = 'fixed'")
    assert "groups.cluster.effect: got 'fixed'" in message
    assert override(parse_spec(GROWTH), {"groups.region.effect": "fixed"}).groups["region"]


def test_a_parameters_name_is_no_variable():
    assert "got the variable 'sigma'" in refused('formula = "y ~ sigma"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("formula = ", "invalid TOML"),
        ("x = '" + "a" * 1_000_000 + "'", "1000006 characters"),
        ("a = " + "[" * 100_000, "too deep"),
        ("a = " + "[" * 5000 + "]" * 5000, "too deep"),
        ("a = " + "9" * 5000, "too long"),
        (PLAIN + "title = 0x" + "f" * 50_000, "title: got a very large integer"),
        (".".join("a" * 50_000) + " = 1", "more than 200 dots"),  # would take a minute
        (".".join("a" * 200) + " = 1", "a: got 'a'"),
        ("[priors.a.b.c]\nd = 1", "priors.a.distribution: got nothing"),
        ("[[priors]]\nx = 1", "priors: got [{'x': 1}]; expected a table."),
        ("\n".join(f"k{i} = 1" for i in range(1000)), "more than 20 problems"),
        ("formula = 'y ~ x.__class__'", "formula: got 'x.__class__'"),
        ("formula = 3", "formula: got 3"),
        ("formula = 1979-05-27", "formula: got "),
        ("", "formula: got nothing"),
        ("\x00", "invalid TOML"),
    ],
)
def test_attacks_end_in_one_worded_error(text, expected):
    assert expected in refused(text)


def test_many_nested_logs_do_not_multiply():
    nested = ["log(" * 15 + name + ")" * 15 for name in "abc"]
    spec = parse_spec(f'formula = "y ~ {":".join(nested)} + (1 | region)"')
    assert len(spec.covariate_labels) < 100


def test_many_unknown_labels_cost_no_minute():
    """Suggestions compare every label with every name: only the first problems are worded."""
    terms = " + ".join(f"log(a{i}):log(b{i}):log(c{i})" for i in range(50))
    expects = "\n".join(f"k{i} = 'positive'" for i in range(5000))
    assert "more than 20 problems" in refused(f"formula = '{'y ~ ' + terms}'\n[expects]\n{expects}")


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"growth.to": 2019}, lambda spec: spec.growth.years == 1),
        ({"growth.to": "2019"}, lambda spec: spec.growth.years == 1),
        ({"weights.kind": "knn:5"}, lambda spec: spec.weights.kind == "knn:5"),
        ({"weights.row_standardize": "false"}, lambda spec: not spec.weights.row_standardize),
        ({"zeros.linked_strength": "asinh"}, lambda spec: "asinh" in spec.zeros.values()),
        ({"likelihood.scale": "constant"}, lambda spec: spec.likelihood.scale == "constant"),
        ({'priors."log(cluster_level)".sd': "2"}, lambda s: s.priors["log(cluster_level)"].sd == 2),
        ({"priors.sigma": '{distribution="half_normal", sd=3}'}, lambda s: s.priors["sigma"].sd),
        ({"cells.fill": None, "cells.withheld": "lower"}, lambda s: s.cells.withheld == "lower"),
        ({"cite": '["a", "b"]'}, lambda spec: spec.cite == ("a", "b")),
        ({"title": "1\n[growth]"}, lambda spec: spec.title == "1\n[growth]"),
        ({"title": "1\nformula = 2"}, lambda spec: spec.title == "1\nformula = 2"),
    ],
)
def test_overrides(spec, changes, read):
    before = spec.digest
    changed = override(spec, changes)
    assert read(changed)
    assert changed.digest != before == spec.digest
    assert changed.formula == spec.formula


def test_overrides_leave_their_arguments_alone(spec):
    prior = {"distribution": "half_normal", "sd": 1}
    changed = override(spec, {"priors.sigma": prior, "priors.sigma.sd": 3})
    assert changed.priors["sigma"].sd == 3
    assert prior["sd"] == 1


def test_a_changed_formula_drops_default_groups():
    changed = override(parse_spec(PLAIN), {"formula": "y ~ x"})
    assert changed.groups == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"growth.two": 2019}, "override: 2 problems|growth.two: got 'two'"),
        ({"grwth.to": 2019}, "Did you mean 'growth'?"),
        ({"growth.to": "soon"}, "growth.to: got 'soon'"),
        ({"growth.to": 10**5000}, "got a very large integer"),
        ({"growth..to": 1}, "expected a key like"),
        ({"": 1}, "expected a key like"),
        ({"growth.to = 1\nname": 1}, "expected a key like"),
        ({"__class__.__init__": 1}, "__class__: got '__class__'"),
        ({"name.x": 1}, "'name' is a value"),
        ({"name": "[" * 100_000}, "name: got '[[["),
        ({"growth": None}, "growth: got no such table"),
    ],
)
def test_wrong_overrides(spec, changes, expected):
    with pytest.raises(SpecError) as error:
        override(spec, changes)
    assert any(part in str(error.value) for part in expected.split("|"))
    assert len(str(error.value)) < 2000


def test_the_published_schema_is_current():
    path = Path(__file__).parents[2] / "models" / "schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema()


def test_measures_are_those_that_can_be_computed():
    from spatialclusters.measures import MEASURES
    from spatialclusters.spec.checks import MEASURES as NAMES

    assert set(NAMES) == set(MEASURES)


def test_the_schema_covers_every_key():
    assert set(json_schema()["properties"]) == {
        field.alias or name for name, field in ModelSpec.model_fields.items()
    }


def test_none_in_an_override_removes_the_key():
    spec = parse_spec('formula = "y ~ x"\npriors.x = { distribution = "flat" }')
    assert set(override(spec, {"priors.x": None}).priors) == set()
