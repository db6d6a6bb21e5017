"""What a newcomer does wrong first, and whether the message says what to do instead."""

import pandas as pd
import pytest

import spatialclusters as sc
from spatialclusters.cli import main
from spatialclusters.cli.inputs import check_fit_target

# --- arguments of another type, and outputs of another kind ----------------------------------


@pytest.fixture(scope="module")
def income():
    panel = sc.us_income()
    return sc.load_model("income_convergence"), panel, sc.contiguity(panel)


@pytest.mark.parametrize("name", ["cg.csv", "cg.HTML", "cg.xlsx", "cg.json"])
def test_a_fit_is_not_written_into_a_file_of_another_kind(name, tmp_path, capsys):
    with pytest.raises(sc.FitError, match=r"expected \.nc.*Write -o cg\.nc"):
        check_fit_target(tmp_path / name, force=False)
    words = ["cluster_growth", "--data", "none.csv", "-o", str(tmp_path / name)]
    for command in ("fit", "complete"):  # before the table is looked for
        assert main([command, *words]) == 2
        assert "expected .nc" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cg.nc", "cg", "cg.2018", "cg.fit"])
def test_a_fit_may_have_any_name_that_says_no_other_format(name, tmp_path):
    check_fit_target(tmp_path / name, force=False)


def test_arguments_of_another_type_are_refused_with_what_makes_the_right_one(income):
    spec, panel, weights = income
    edges = pd.DataFrame({"region_i": ["a"], "region_j": ["b"]})
    table = pd.DataFrame({"region": ["a"]})
    for call, error, got, remedy in (
        (lambda: sc.fit("cluster_growth", panel, weights, seed=1), sc.SpecError,
         "spec: got 'cluster_growth', a str", "load_model("),
        (lambda: sc.fit(panel, spec, weights, seed=1), sc.SpecError, "spec: got Panel", "load_model("),
        (lambda: sc.fit(spec, table, weights, seed=1), sc.PanelError, "panel: got DataFrame", "read_panel("),
        (lambda: sc.fit(spec, "a.csv", seed=1), sc.PanelError, "panel: got 'a.csv', a str", "read_panel("),
        (lambda: sc.fit(spec, panel, "queen", seed=1), sc.WeightsError, "got 'queen', a str", "contiguity("),
        (lambda: sc.fit(spec, panel, edges, seed=1), sc.WeightsError, "got DataFrame", "read_weights("),
        (lambda: sc.fit(spec, panel, weights.graph(), seed=1), sc.WeightsError, "got Graph", "libpysal"),
        (lambda: sc.build_design(spec, panel, "queen"), sc.WeightsError, "build_design(", "contiguity("),
        (lambda: sc.fit(spec, panel, weights, seed=None), sc.SamplingError, "seed: got None", "whole number"),
        (lambda: sc.fit(spec, panel, weights, seed=1, chains="two"), sc.SamplingError,
         "chains: got 'two'", "whole number"),
        (lambda: sc.fit(spec, panel, weights, seed=True), sc.SamplingError, "got True, a bool", "whole"),
        (lambda: sc.check("cg.nc"), sc.FitError, "got 'cg.nc', a str", "load_fit("),
        (lambda: sc.compare("cg.nc"), sc.FitError, "got 'cg.nc', a str", "load_fit("),
        (lambda: sc.make_report("cg.nc"), sc.FitError, "got 'cg.nc', a str", "load_fit("),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            call()
        assert got in str(caught.value)
        assert remedy in str(caught.value)


def test_the_remedy_works(income):
    """A libpysal object goes through ``read_weights``, as the message says."""
    weights = income[2]
    assert sc.read_weights(weights.graph()).n_links == weights.n_links
    assert sc.read_weights(weights.graph().to_W()).n_links == weights.n_links
