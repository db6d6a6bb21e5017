"""What a newcomer does wrong first, and whether the message says what to do instead."""

import geopandas as gpd
import numpy as np
import pandas as pd
import polars as pl
import pytest
import shapely

import spatialclusters as sc
import spatialclusters.run
from spatialclusters import sampling
from spatialclusters.catalogue import model_text
from spatialclusters.cli import commands, main
from spatialclusters.cli.inputs import check_fit_target
from spatialclusters.errors import suggestion
from spatialclusters.neighbors import parse_weights
from spatialclusters.sampling import Settings

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


# --- tables as programs write them -----------------------------------------------------------

TABLE = pd.DataFrame(
    {
        "region": ["01", "02", "03"],
        "cluster": ["a", "a", "b"],
        "employment_start": [4455.5, np.nan, 7.0],
        "employment_end": [5372.0, 3.0, 1008.25],
        "traded": [1, 0, 1],
    }
)


def refusal(call, error=sc.PanelError):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n\n" not in message
    return message


def written(folder, text, name="table.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def same_data(path, **options):
    panel = sc.read_panel(path, **options)
    assert panel.data.identical(sc.read_panel(TABLE).data)
    return panel


def test_semicolons_and_decimal_commas_are_read(tmp_path):
    text = TABLE.to_csv(index=False, sep=";", decimal=",")
    assert "4455,5" in text
    panel = same_data(written(tmp_path, text, encoding="utf-8-sig"))
    assert panel.provenance["notes"] == ["table.csv: columns between semicolons, decimal commas"]
    panel = same_data(written(tmp_path, TABLE.to_csv(index=False, sep=";")))
    assert panel.provenance["notes"] == ["table.csv: columns between semicolons, decimal points"]


@pytest.mark.parametrize(
    ("number", "beside", "advice"),
    [
        ("1.234,5", "2,5", "Write '1.234,5' without a sign that groups thousands"),
        ("5.372", "2,5", "Write '5.372' as 5372 if the sign groups thousands, as 5.372 if"),
        ("5.372", "2", "Write '5.372' as 5372 if the sign groups thousands, as 5.372 if"),
        ("1.234.567", "2", "Write '1.234.567' as 1234567: no sign groups thousands."),
    ],
)
def test_numbers_that_may_be_grouped_are_not_guessed(tmp_path, number, beside, advice):
    text = f"region;employment_start;employment_end\na;{number};{beside}\nb;7;8\n"
    message = refusal(lambda: sc.read_panel(written(tmp_path, text)))
    assert advice in message
    assert "withheld" not in message


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        ("5,372", "Write '5,372' as 5372 if"),
        ("4455,5", "Write '4455,5' with a decimal point: 4455.5."),
        ("5 372", "Write '5 372' as 5372 if"),
        ("1,234.5", "Write '1,234.5' without a sign that groups thousands"),
        ("D", "Leave withheld cells empty."),
    ],
)
def test_text_among_numbers_is_advised_by_what_it_is(tmp_path, number, advice):
    table = TABLE.astype({"employment_end": object})
    table.loc[0, "employment_end"] = number
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False)
    for source in (path, table):  # read as text, and text in a frame
        message = refusal(lambda source=source: sc.read_panel(source))
        assert advice in message
        assert ("withheld" in message) == ("withheld" in advice)


def test_other_encodings_are_named(tmp_path):
    text = "region,x\nZürich,1\n"
    for encoding in ("latin-1", "utf-16"):
        message = refusal(lambda e=encoding: sc.read_panel(written(tmp_path, text, encoding=e)))
        assert "Save it as UTF-8" in message
        assert "\n" not in message


def test_row_numbers_are_left_out_and_nothing_else_is(tmp_path):
    path = tmp_path / "table.csv"
    TABLE.to_csv(path)
    notes = same_data(path).provenance["notes"]
    assert notes == ["column 'Unnamed: 0' left out: it numbers the rows"]
    TABLE.set_axis([5, 3, 9]).to_csv(path)  # not the numbers of the rows: some variable
    assert "Unnamed: 0" in sc.read_panel(path).variables


def test_lazy_frames_are_collected():
    same_data(pl.from_pandas(TABLE).with_columns(pl.col("employment_start").fill_nan(None)).lazy())
    assert "got int; expected the path" in refusal(lambda: sc.read_panel(3))


def test_spreadsheets_name_the_conversion(tmp_path):
    message = refusal(lambda: sc.read_panel(written(tmp_path, "PK", "my table.xlsx")))
    assert 'pandas.read_excel("my table.xlsx"' in message
    assert 'to_parquet("my table.parquet")' in message


# --- Stata -----------------------------------------------------------------------------------


def test_stata_files_are_read(tmp_path):
    path = tmp_path / "table.dta"
    traded = pd.Categorical.from_codes(TABLE["traded"], ["local", "traded"])
    TABLE.assign(traded=traded).to_stata(path, write_index=False)
    same_data(path)  # labeled numbers stay numbers
    TABLE.rename(columns={"region": "ea"}).to_stata(path, write_index=False)
    same_data(path, rename={"region": "ea"})


def test_labels_of_stata_are_ids(tmp_path):
    path = tmp_path / "table.dta"
    TABLE.assign(ea=pd.Categorical(TABLE["region"])).drop(columns="region").to_stata(
        path, write_index=False
    )
    panel = same_data(path, rename={"region": "ea"})
    assert panel.provenance["notes"] == ["ids are the value labels of 'ea'"]


def test_years_of_stata_stay_years(tmp_path):
    path = tmp_path / "table.dta"
    table = pd.DataFrame(
        {"region": ["a", "a"], "year": pd.to_datetime(["2018", "2021"]), "x": [1.0, 2]}
    )
    table.to_stata(path, write_index=False, convert_dates={"year": "ty"})
    assert sc.read_panel(path).years == ("2018", "2021")


def test_stata_ids_without_labels_are_refused(tmp_path):
    path = tmp_path / "table.dta"
    TABLE.assign(region=[1, 2, 3]).to_stata(path, write_index=False)
    assert "tostring region, replace format(" in refusal(lambda: sc.read_panel(path))
    some = TABLE.assign(region=[1.0, 2.0, 3.0])
    some.to_stata(path, write_index=False, value_labels={"region": {1: "one"}})
    assert "tostring region, replace format(" in refusal(lambda: sc.read_panel(path))


def test_weights_and_linkages_may_be_stata_files(tmp_path, income):
    edges = pd.DataFrame({"region_i": ["a", "b"], "region_j": ["b", "a"], "weight": [1.0, 2.0]})
    edges.to_stata(tmp_path / "w.dta", write_index=False)
    assert sc.read_weights(tmp_path / "w.dta").digest == sc.read_weights(edges).digest
    message = refusal(lambda: parse_weights(str(tmp_path / "w.dta"), income[1]), sc.WeightsError)
    assert "got no row for 48 of 48 regions" in message
    links = pd.DataFrame({"cluster": ["a"], "linked_cluster": ["b"]})
    links.to_stata(tmp_path / "l.dta", write_index=False)
    assert sc.read_linkages(tmp_path / "l.dta", ["a", "b"]).values.tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_damaged_stata_files_are_refused(tmp_path, share):
    path = tmp_path / "table.dta"
    pd.concat([TABLE] * 20).to_stata(path, write_index=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cannot be read" in refusal(lambda: sc.read_panel(path))


# --- ids and names ---------------------------------------------------------------------------


def shapes(**columns):
    squares = [shapely.box(i, 0, i + 1, 1) for i in range(3)]
    return gpd.GeoDataFrame(columns, geometry=squares, crs=3857)


def test_a_map_with_another_id_column_needs_no_other_option(tmp_path, income):
    ids = list(TABLE["region"])
    for source in (shapes(EA=ids), tmp_path / "ea.gpkg"):
        if not isinstance(source, gpd.GeoDataFrame):
            shapes(EA=ids).to_file(source)
        assert sc.read_panel(TABLE, source, rename={"region": "EA"}).geometry.index.tolist() == ids
    both = TABLE.rename(columns={"region": "EA"})
    assert sc.read_panel(both, shapes(EA=ids), rename={"region": "EA"}).regions == tuple(ids)
    assert sc.read_panel(both, shapes(region=ids), rename={"region": "EA"}).regions == tuple(ids)
    # a name that nobody has is not passed over
    message = refusal(lambda: sc.read_panel(TABLE, shapes(region=ids), rename={"region": "EA"}))
    assert "got no column 'EA'" in message
    message = refusal(lambda: sc.read_panel(TABLE, shapes(name=["x", "y", "z"], EA=ids)))
    assert 'rename={"region": "EA"}, or --map region=EA' in message  # the column that has the ids
    assert "GeoDataFrame" in refusal(lambda: sc.read_panel(TABLE, TABLE))


def test_columns_that_are_called_otherwise():
    message = refusal(lambda: sc.read_panel(TABLE.rename(columns={"region": "Region"})))
    assert 'rename={"region": "Region"}, or --map region=Region on the command line' in message
    for index in ("region", ["region", "cluster"]):
        message = refusal(lambda index=index: sc.read_panel(TABLE.set_index(index)))
        assert "reset_index()" in message
        assert "--map" not in message
    message = refusal(lambda: sc.read_panel(TABLE.assign(region=[1, 2, 3])))
    assert "dtype={'region': str}" in message
    assert ".astype(str).str.zfill(" in message
    assert message.count("row ") == 1  # one example, not five
    assert suggestion("region", ["region"]) == ""


def test_dates_as_years():
    table = TABLE[["region", "cluster"]].assign(year=pd.to_datetime(["2018"] * 3), employment=1.0)
    assert "table['year'].dt.year" in refusal(lambda: sc.read_panel(table))


# --- the years of a period -------------------------------------------------------------------

GROWTH = """formula = "growth ~ x"
[growth]
variable = "employment"
from = 2018
to = 2021
"""
NOTE = (
    "the table says start and end, not which years: 2018 to 2021 are those of the model file "
    "(growth.from, growth.to)"
)


def cells(**names):
    rng = np.random.default_rng(2)
    table = {"region": list("abcdefgh"), "x": rng.normal(size=8)}
    table |= {name: rng.uniform(1.0, 9.0, size=8) for name in names.values()}
    return pd.DataFrame(table)


def test_the_years_of_start_and_end_are_the_models_word(tmp_path, capsys, monkeypatch):
    table = cells(a="employment_start", b="employment_end")
    spec = sc.parse_spec(GROWTH)
    assert NOTE in sc.build_design(spec, sc.read_panel(table)).record["notes"]
    monkeypatch.chdir(tmp_path)
    table.to_csv("table.csv", index=False)
    written(tmp_path, GROWTH, "model.toml")
    assert main(["validate", "model.toml", "--data", "table.csv"]) == 0
    assert f"Note: {NOTE}" in capsys.readouterr().out

    def sample(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(spatialclusters.run, "is_small", lambda *_: False)
    monkeypatch.setattr(spatialclusters.run, "sample", sample)
    assert main(["fit", "model.toml", "--data", "table.csv", "-o", "fit.nc"]) == 130
    assert f"note: {NOTE}" in capsys.readouterr().err
    long = table.melt(["region", "x"], value_name="employment").assign(
        year=lambda f: f["variable"].map({"employment_start": 2018, "employment_end": 2021})
    )
    assert sc.build_design(spec, sc.read_panel(long)).record["notes"] == []


def test_years_that_are_known_are_checked():
    renamed = {"employment_start": "emp_2018", "employment_end": "emp_2021"}
    told = cells(a="employment_start", b="employment_end")
    told.attrs["spatialclusters"] = {"ends": [2018, 2021]}  # as the table of ``to_panel`` says
    wrong = sc.parse_spec(GROWTH.replace("2021", "2019"))
    for panel in (
        sc.read_panel(cells(a="emp_2018", b="emp_2021"), rename=renamed),
        sc.read_panel(told),
    ):
        assert sc.build_design(sc.parse_spec(GROWTH), panel).record["notes"] == []
        message = refusal(lambda panel=panel: sc.build_design(wrong, panel))
        assert "got 2021 as the end of the period" in message
        assert "--set growth.to=2021" in message


def test_columns_of_single_years_are_explained():
    panel = sc.read_panel(cells(a="emp_2018", b="emp_2021"))
    message = refusal(lambda: sc.build_design(sc.parse_spec(GROWTH), panel))
    assert "--map employment_start=emp_2018 --map employment_end=emp_2021" in message
    assert "column 'year'" in message
    assert "--map emp_start=emp_2018" in refusal(lambda: panel.values("emp", None))


def test_absent_and_withheld_cells_are_counted_apart():
    table = cells(a="employment_start", b="employment_end").assign(cluster="k")
    table.loc[0, "employment_start"] = np.nan
    table = pd.concat([table, table[:5].assign(cluster="l")])
    spec = sc.parse_spec(GROWTH)
    dropped = sc.build_design(spec, sc.read_panel(table)).record["dropped"]
    assert dropped == {"employment absent in 2018": 3, "employment withheld in 2018": 2}


def test_one_is_singular():
    table = cells(a="employment_start", b="employment_end")
    spec = sc.parse_spec(GROWTH.replace("2021", "2019"))
    assert (
        sc.build_design(spec, sc.read_panel(table)).data.attrs["unit"] == "log change over 1 year"
    )


# --- weights and linkages of something else --------------------------------------------------


def test_weights_of_another_geography_are_asked_about(income):
    spec, panel, _ = income
    ids = [*panel.regions[1:], *map(str, range(100))]
    ring = sc.read_weights(pd.DataFrame({"region_i": ids, "region_j": [*ids[1:], ids[0]]}))
    message = refusal(lambda: sc.build_design(spec, panel, ring), sc.WeightsError)
    assert "got no row for 1 of 48 regions" in message
    assert "have 147 regions, of which 100 are not in the data: are they of another" in message
    ids = [*panel.regions, *map(str, range(100))]
    ring = sc.read_weights(pd.DataFrame({"region_i": ids, "region_j": [*ids[1:], ids[0]]}))
    assert "are they of another geography?" in sc.align(ring, panel.regions).notes[-1]


def test_regions_without_neighbors_are_no_surprise(income):
    panel = income[1]
    text = 'formula = "growth ~ log(income) + lag(log(income))"\n[growth]\nvariable = "income"\n'
    spec = sc.parse_spec(f"{text}from = 1929\nto = 1994\n")
    message = refusal(
        lambda: sc.build_design(spec, panel, sc.distance_band(panel, 10)), sc.WeightsError
    )
    assert "48 of 48 regions have no neighbor within 10 km; the nearest two regions are " in message
    some = sc.distance_band(panel, 150)
    assert some.n_links > 0
    assert 24 < len(some.isolates) < 48
    told = f"weights distance:150: {len(some.isolates)} of 48 regions have no neighbor"
    assert told in sc.build_design(spec, panel, some).record["notes"]


def test_linkages_of_other_names_are_shown_beside_the_tables():
    links = pd.DataFrame(
        {"cluster": ["AEROSPACE", "FOOD"], "linked_cluster": ["FOOD", "AEROSPACE"]}
    )
    message = refusal(lambda: sc.read_linkages(links, ["Aerospace", "Food"]))
    assert (
        "0 of 2 clusters of the linkages occur in the table: 'AEROSPACE' against 'Aerospace'"
        in message
    )
    few = pd.DataFrame({"cluster": ["Food", "X", "Y"], "linked_cluster": ["X", "Y", "Food"]})
    notes = sc.read_linkages(few, ["Aerospace", "Food"]).attrs["notes"]
    assert notes == [
        "linkages: 1 of 3 clusters of the linkages occur in the table: 'X' against 'Aerospace'"
    ]
    assert sc.read_linkages(few, ["Food", "X"]).attrs["notes"] == []


# --- model files -----------------------------------------------------------------------------


def shipped(formula: dict[str, str], rest: dict[str, str] | None = None) -> str:
    """The text of ``cluster_growth`` with words of its formula, and of the rest, replaced."""
    text = model_text("cluster_growth")
    at = text.index("[roles]")
    head, tail = text[:at], text[at:]
    for old, new in formula.items():
        head = head.replace(old, new)
    for old, new in (rest or {}).items():
        tail = tail.replace(old, new, 1)
    return head + tail


def test_one_misspelled_variable_is_one_problem():
    message = refusal(
        lambda: sc.parse_spec(shipped({"cluster_level": "clster_level"})), sc.SpecError
    )
    assert message == (
        "model file: formula: got the variable 'clster_level'; expected 'cluster_level', a measure. "
        "Correct its spelling."
    )
    other = {"linked_strength = ": "linkd_strength = "}
    message = refusal(
        lambda: sc.parse_spec(shipped({"cluster_level": "clster_level"}, other)), sc.SpecError
    )
    assert message.startswith("model file: 2 problems\n  formula: got the variable 'clster_level'")
    assert "zeros: got 'linkd_strength'" in message
    assert "Did you mean 'clster_level'" not in message


def test_a_name_that_other_tables_agree_on_is_meant():
    text = (
        'formula = "y ~ incme"\n[expects]\nincome = "positive"\n[roles]\nconvergence = "income"\n'
    )
    message = refusal(lambda: sc.parse_spec(text), sc.SpecError)
    assert "expected 'income', as other tables of the model call it" in message
    # one label against the formula: either may be wrong, and the label is named
    message = refusal(lambda: sc.parse_spec(text[: text.index("[roles]")]), sc.SpecError)
    assert "expects: got 'income'" in message
    # the formula has a measure: the table is wrong
    text = shipped({}, {'"log(cluster_level)" = {': '"log(clster_level)" = {'})
    message = refusal(lambda: sc.parse_spec(text), sc.SpecError)
    assert message.startswith("model file: priors: got 'log(clster_level)'")


def test_habits_of_other_programs():
    for formula, advice in (
        ("y ~ ln(x)", "Use log."),
        ("y = x + z", "Write ~ between the response"),
    ):
        message = refusal(
            lambda formula=formula: sc.parse_spec(f'formula = "{formula}"'), sc.SpecError
        )
        assert advice in message


def test_a_shipped_model_is_not_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(lambda: sc.load_model("cluster_growth.toml"), sc.SpecError)
    assert "called 'cluster_growth', without .toml" in message
    written(tmp_path, 'formula = "y ~ x"', "cluster_growth.toml")
    assert sc.load_model("cluster_growth.toml").formula == "y ~ x"


# --- interrupted and resumed -----------------------------------------------------------------


def job(spec, panel, folder, *, resume=False, **settings):
    """Write the job of a run, or check it, without running it."""
    design = sc.build_design(spec, panel, sc.contiguity(panel))
    sampling._prepare(spec, design, Settings(seed=1, **settings), folder, resume=resume)


def test_a_changed_setting_is_named(income, tmp_path):
    spec, panel, _ = income
    folder = tmp_path / "fit.nc.partial"
    job(spec, panel, folder, draws=1500)
    job(spec, panel, folder, draws=1500, resume=True)
    again = refusal(lambda: job(spec, panel, folder, draws=1500), sc.SamplingError)
    assert "delete the folder to start anew; --force does not touch it" in again
    message = refusal(
        lambda: job(spec, panel, folder, draws=2000, chains=2, resume=True), sc.SamplingError
    )
    assert "chains was 4, is 2; draws was 1500, is 2000" in message
    assert "another settings" not in message
    other = sc.override(spec, {"growth.to": 1990}, where="test")
    message = refusal(lambda: job(other, panel, folder, draws=1500, resume=True), sc.SamplingError)
    assert "the model changed; the sample (data, formula or period) changed" in message


def test_an_interruption_before_the_first_draw_promises_no_draws(tmp_path):
    folder = tmp_path / "fit.nc.partial"
    assert "nothing was sampled yet" in commands._interrupted(folder)
    written_folder = folder / "chain-0"
    written_folder.mkdir(parents=True)
    written(folder, "{}", "job.json")
    assert "nothing was drawn yet" in commands._interrupted(folder)
    assert "--resume" in commands._interrupted(folder)
    written(written_folder, "", "block-000000.npz")
    assert "what was drawn is kept" in commands._interrupted(folder)


def test_whole_numbers_of_numpy_are_whole_numbers():
    settings = Settings(seed=np.int64(3), chains=np.int32(2))
    assert (settings.seed, settings.chains) == (3, 2)
    assert {type(settings.seed), type(settings.chains)} == {int}
