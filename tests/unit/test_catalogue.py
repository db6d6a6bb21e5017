"""The shipped models load, say what they cite, and nothing outside the folder is read by name."""

import re

import pytest

from spatialclusters import catalogue
from spatialclusters.catalogue import citation, list_models, load_model, model_text
from spatialclusters.errors import SpecError
from spatialclusters.spec import parse_spec, spec_to_toml

NAMES = [
    "cluster_growth",
    "cluster_growth_bym2",
    "cluster_growth_lag",
    "employment_growth",
    "employment_growth_bym2",
    "income_convergence",
    "income_convergence_distance",
    "income_convergence_error",
    "income_convergence_lag",
]
REFERENCE = ["columbus_sac", "columbus_sar", "columbus_sem"]


def test_the_table_of_models():
    table = list_models()
    assert list(table.columns) == ["name", "title", "formula", "cite"]
    assert table["name"].tolist() == NAMES
    assert table["title"].str.len().min() > 10


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_are_consistent(name):
    spec = load_model(name)
    assert spec.name == name
    assert parse_spec(spec_to_toml(spec)) == spec
    assert spec.roles.convergence in spec.expects
    assert spec.expects[spec.roles.convergence] == "negative"
    terms = {str(term) for term in spec.parsed_formula.terms}
    assert terms <= set(spec.priors)
    assert {"intercept", "sigma"} <= set(spec.priors)
    assert len(re.findall(r"^@", citation(spec), flags=re.MULTILINE)) == len(spec.cite)


def test_growth_models_use_correlated_region_effects():
    for name in (n for n in NAMES if n.startswith(("employment_growth", "cluster_growth"))):
        spec = load_model(name)
        assert spec.groups["region"].effect == "correlated"
        assert spec.likelihood.scale == "size"
        assert all(rule == "minimum-and-dummy" for rule in spec.zeros.values())
        if "industry" in spec.groups:
            assert spec.groups["industry"].effect == "correlated"


def test_a_model_and_its_spatial_kin_differ_in_what_their_names_say():
    """One key at a time: whatever else is changed in one file belongs into the others."""
    for name in ("cluster_growth", "employment_growth"):
        plain, shared = load_model(name), load_model(f"{name}_bym2")
        assert shared.groups["region"].structure == "bym2"
        assert parts(plain, {"groups"}) == parts(shared, {"groups"})
        assert plain.priors == {k: v for k, v in shared.priors.items() if k != "phi(region)"}
    plain = load_model("income_convergence")
    for ending, outcome, extra in (
        ("lag", "sar", {"rho", "lag(log(income))"}),
        ("error", "sem", {"lambda"}),
    ):
        spec = load_model(f"income_convergence_{ending}")
        assert spec.spatial.outcome == outcome
        assert parts(plain, {"spatial", "formula"}) == parts(spec, {"spatial", "formula"})
        assert plain.priors == {k: v for k, v in spec.priors.items() if k not in extra}
        assert extra <= set(spec.priors)
    distance, lag = (load_model(f"income_convergence_{e}") for e in ("distance", "lag"))
    assert parts(lag, {"spatial", "weights"}) == parts(distance, {"spatial", "weights"})
    assert distance.weights.kind == "decay-power:1000"
    assert {k: v for k, v in lag.priors.items() if k != "rho"} == {
        k: v for k, v in distance.priors.items() if k != "delta"
    }
    lag = load_model("cluster_growth_lag")
    assert lag.spatial.outcome == "sar"
    terms = {str(term) for term in lag.parsed_formula.terms}
    assert {t for t in terms if t.startswith("lag(")} == {
        f"lag({t})" for t in terms if t.startswith("log(")
    }


def parts(spec, without):
    names = without | {"name", "title", "description", "cite", "priors"}
    return {k: v for k, v in spec.model_dump().items() if k not in names}


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_runs_are_loaded_by_path_alone(name):
    path = catalogue._folder() / "reference" / f"{name}.toml"
    spec = load_model(path)
    assert spec.name == name
    assert parse_spec(spec_to_toml(spec)) == spec
    assert {"flat", "inverse_scale", "uniform"} <= {p.distribution for p in spec.priors.values()}
    assert len(re.findall(r"^@", citation(spec), flags=re.MULTILINE)) == len(spec.cite)
    with pytest.raises(SpecError, match=r"a path ending in \.toml"):
        load_model(name)
    assert sorted(p.stem for p in path.parent.glob("*.toml")) == REFERENCE


def test_every_reference_has_a_doi():
    text = (catalogue._folder() / "references.bib").read_text(encoding="utf-8")
    assert text.count("\n@") + 1 == text.count("doi ") == 12
    assert "10.1016/j.respol.2014.05.007" in citation(load_model("employment_growth"))


def test_overrides():
    spec = load_model("employment_growth", {"growth.to": "2020", "zeros.cluster_strength": "asinh"})
    assert spec.growth.years == 2
    assert spec.zeros["cluster_strength"] == "asinh"
    with pytest.raises(SpecError, match="override of employment_growth: "):
        load_model("employment_growth", {"growth.too": 2020})


def test_a_model_by_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('formula = "y ~ x"\r\n', encoding="utf-8", newline="")
    assert load_model(path) == load_model(str(path)) == parse_spec('formula = "y ~ x"')
    assert model_text(path) == 'formula = "y ~ x"\n'


@pytest.mark.parametrize(
    "name",
    [
        "../models/employment_growth",
        "employment_growth/",
        "/etc/passwd",
        "employment_growth\n",
        "Employment_growth",
        "os.system",
        "schema.json",
        "",
        "*",
        "a" * 10_000,
        "employment_growth\x00",
    ],
)
def test_names_reach_nothing_else(name):
    with pytest.raises(
        SpecError, match=r"model: got .*; expected one of 'cluster_growth'"
    ) as error:
        load_model(name)
    assert len(str(error.value)) < 500


def test_a_misspelled_name_gets_a_suggestion():
    with pytest.raises(SpecError, match="Did you mean 'employment_growth'"):
        load_model("employment_growht")


def test_unreadable_files(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "big.toml").write_bytes(b"#" * 300_000)
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe9"')
    for name, problem in {
        "none.toml": "No such file",
        "folder.toml": "Is a directory",
        "big.toml": "more than 262144 bytes",
        "latin.toml": "not UTF-8",
        "nul\x00.toml": "null",
    }.items():
        with pytest.raises(SpecError, match=problem):
            load_model(str(tmp_path / name))


def test_an_unknown_citation_is_refused():
    spec = parse_spec('formula = "y ~ x"\ncite = ["Mundlack1978"]')
    with pytest.raises(SpecError, match="Did you mean 'Mundlak1978'"):
        citation(spec)
    assert citation(parse_spec('formula = "y ~ x"')) == ""


def test_models_inside_the_package_come_first(monkeypatch, tmp_path):
    package = tmp_path / "spatialclusters"
    (package / "models").mkdir(parents=True)
    (package / "models" / "only.toml").write_text('name = "only"\nformula = "y ~ x"')
    monkeypatch.setattr(catalogue, "__file__", str(package / "catalogue.py"))
    assert list_models()["name"].tolist() == ["only"]
