"""From a table to a Panel: what survives, and what is refused with all its rows named."""

import json
import os
import random
import re
import stat

import geopandas as gpd
import numpy as np
import pandas as pd
import polars as pl
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialclusters.errors import PanelError, WeightsError
from spatialclusters.files import replace_file
from spatialclusters.panel import ABSENT, OBSERVED, WITHHELD, Panel, read_panel
from spatialclusters.tables import read_table

SHORT = 5_000  # characters: an error is read on a screen, whatever the labels are

WIDE = pd.DataFrame(
    {
        "region": ["06", "6", "NA", "06"],
        "cluster": ["tools", "tools", "tools", "food"],
        "industry": ["311", "311", "311", "44"],
        "employment_start": [10.0, np.nan, 0.0, 7.0],
        "employment_end": [11.0, 3.0, np.nan, 8.0],
        "area": [1.5, 2.5, 3.5, 1.5],
    }
)


def refused(source, regions=None, **options):
    """The message of the refusal, which must be short and have no empty part."""
    with pytest.raises(PanelError) as caught:
        read_panel(source, regions, **options)
    message = str(caught.value)
    assert 0 < len(message) < SHORT
    return message


def frame(**columns):
    return pd.DataFrame(columns)


def csv(folder, text, name="table.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def squares(ids, **columns):
    boxes = [shapely.box(i, 0, i + 1, 1) for i in range(len(ids))]
    return gpd.GeoDataFrame({"region": list(ids), **columns}, geometry=boxes)


# --- what survives --------------------------------------------------------------------------


def sources(folder):
    parquet = folder / "table.parquet"
    WIDE.to_parquet(parquet)
    polars = pl.DataFrame(WIDE.to_dict(orient="list"), nan_to_null=True)
    shuffled = WIDE.sample(frac=1.0, random_state=3).set_index(pd.Index([9, 9, 4, 7]))
    return {
        "csv": csv(folder, WIDE.to_csv(index=False)),
        "csv with a byte order mark": csv(
            folder, WIDE.to_csv(index=False), "bom.csv", encoding="utf-8-sig"
        ),
        "path as text": str(csv(folder, WIDE.to_csv(index=False), "text.csv")),
        "capital suffix": csv(folder, WIDE.to_csv(index=False), "TABLE.CSV"),
        "parquet": parquet,
        "pandas": WIDE,
        "pandas objects": WIDE.astype(object),
        "polars": polars,
        "another order of rows": shuffled,
        "another order of columns": WIDE[WIDE.columns[::-1]],
    }


@pytest.mark.parametrize(
    "kind",
    [
        "csv",
        "csv with a byte order mark",
        "path as text",
        "capital suffix",
        "parquet",
        "pandas",
        "pandas objects",
        "polars",
        "another order of rows",
        "another order of columns",
    ],
)
def test_every_source_gives_the_same_panel(tmp_path, kind):
    panel = read_panel(sources(tmp_path)[kind])
    nan = np.nan
    expected = xr.Dataset(
        {
            "present": (("region", "industry"), [[True, True], [True, False], [True, False]]),
            "employment": (
                ("region", "industry", "year"),
                [
                    [[10.0, 11.0], [7.0, 8.0]],
                    [[nan, 3.0], [nan, nan]],
                    [[0.0, nan], [nan, nan]],
                ],
            ),
            "area": (("region", "industry"), [[1.5, 1.5], [2.5, nan], [3.5, nan]]),
        },
        coords={
            "region": np.array(["06", "6", "NA"], dtype=object),
            "industry": np.array(["311", "44"], dtype=object),
            "year": ["start", "end"],
            "cluster_of": ("industry", np.array(["tools", "food"], dtype=object)),
        },
    )
    xr.testing.assert_identical(panel.data[list(expected)], expected)
    assert set(panel.data.data_vars) == set(expected.data_vars)
    assert panel.regions == ("06", "6", "NA")
    assert panel.unit == "industry"
    assert panel.years == ("start", "end")
    assert set(panel.variables) == {"employment", "area"}
    assert panel.provenance["rows"] == 4


def test_the_table_is_not_changed():
    before = WIDE.copy(deep=True)
    read_panel(WIDE, rename={"jobs": "employment"})
    pd.testing.assert_frame_equal(WIDE, before)


def test_region_called_na_and_missing_numbers_in_a_csv(tmp_path):
    path = csv(
        tmp_path,
        'region,x,y,note\n"NA",1,NA,a\nnan,,2,b\n" 06 ", 3 ,nan,NA\n"a,b\n""c""",4,.,d\n',
    )
    panel = read_panel(path)
    assert panel.regions == ("06", "NA", 'a,b\n"c"', "nan")
    np.testing.assert_array_equal(panel.values("x", None), [3.0, 1.0, 4.0, np.nan])
    np.testing.assert_array_equal(panel.values("y", None), [np.nan, np.nan, np.nan, 2.0])
    assert panel.variables == ("x", "y")
    assert panel.provenance["notes"] == ["text columns ignored: 'note'"]


def test_renamed_ids_of_a_csv_stay_text(tmp_path):
    path = csv(tmp_path, "fips,naics,emp_start,emp_end\n06,0111,1,2\n6,0112,3,4\n")
    panel = read_panel(path, rename={"region": "fips", "industry": "naics", "employment": "emp"})
    assert panel.regions == ("06", "6")
    assert panel.data["industry"].values.tolist() == ["0111", "0112"]
    assert panel.variables == ("employment",)
    assert float(panel.values("employment", "end").sum()) == 6.0


def test_names_can_be_swapped():
    panel = read_panel(frame(region=["a"], x=[1.0], y=[2.0]), rename={"x": "y", "y": "x"})
    assert (panel.values("x", None).item(), panel.values("y", None).item()) == (2.0, 1.0)


@pytest.mark.parametrize(
    "numbers",
    [
        pd.array([1, None], dtype="Int64"),
        np.array([1, None], dtype=object),
        np.array([True, None], dtype=object),
        pd.Series([1.0, None], dtype="Float32"),
        pd.Series([1, None], dtype="float64[pyarrow]"),
    ],
)
def test_numbers_of_any_type(numbers):
    panel = read_panel(frame(region=["a", "b"], x=numbers))
    np.testing.assert_array_equal(panel.values("x", None), [1.0, np.nan])
    assert panel.values("x", None).dtype == np.float64


def test_long_years_and_their_order():
    table = frame(region=["a", "b", "a"], year=[2021, 2018, 2018], x=[3.0, 2.0, 1.0])
    panel = read_panel(table)
    assert panel.years == ("2018", "2021")
    np.testing.assert_array_equal(panel.values("x", "2018"), [1.0, 2.0])
    np.testing.assert_array_equal(panel.values("x", "2021"), [3.0, np.nan])
    assert (panel.period(2018), panel.period(2021, end=True)) == ("2018", "2021")
    assert (panel.period(None), panel.period(None, end=True)) == ("2018", "2021")


def test_years_written_as_floats_or_text_in_a_csv(tmp_path):
    panel = read_panel(csv(tmp_path, "region,year,x\na,2018.0,1\na,2019,2\n"))
    assert panel.years == ("2018", "2019")


def test_periods_of_the_other_forms():
    panel = read_panel(WIDE)
    assert (panel.period(2018), panel.period(2021, end=True)) == ("start", "end")
    section = read_panel(frame(region=["a"], x=[1.0]))
    assert section.years == ()
    assert section.period(2018) is None


def test_a_table_of_regions_only():
    panel = read_panel(frame(region=["b", "a"], income=[2.0, 1.0]))
    assert panel.unit is None
    assert panel.data["income"].dims == ("region",)
    assert panel.values("income", None).values.tolist() == [1.0, 2.0]


def test_a_table_of_clusters():
    panel = read_panel(frame(region=["b", "a"], cluster=["k", "k"], x=[2.0, 1.0]))
    assert panel.unit == "cluster"
    assert panel.data["x"].dims == ("region", "cluster")


@pytest.mark.parametrize("nothing", [None, np.nan, ""])
def test_an_industry_without_cluster(nothing):
    table = frame(region=["a", "b", "a"], industry=["i", "i", "j"], x=[1.0, 2.0, 3.0])
    table["cluster"] = pd.Series([nothing, nothing, "c"], dtype=object)
    panel = read_panel(table)
    assert dict(zip(panel.data["industry"].values, panel.data["cluster_of"].values, strict=True)) == {
        "i": "",
        "j": "c",
    }  # fmt: skip


def test_no_cluster_at_all():
    table = frame(region=["a"], industry=["i"], cluster=[np.nan], x=[1.0])
    assert read_panel(table).data["cluster_of"].values.tolist() == [""]


# --- status ---------------------------------------------------------------------------------


def statuses(panel, variable, period):
    """Status by cell as a plain dict."""
    codes = panel.status(variable, period)
    names = {OBSERVED: "observed", WITHHELD: "withheld", ABSENT: "absent"}
    dims = [codes[dim].values.tolist() for dim in codes.dims]
    return {
        (region, unit): names[int(codes.values[i, j])]
        for i, region in enumerate(dims[0])
        for j, unit in enumerate(dims[1])
    }


def test_status_with_long_years():
    table = frame(
        region=["a", "a", "b", "b"],
        industry=["i", "i", "i", "j"],
        year=[2018, 2021, 2018, 2018],
        employment=[0.0, np.nan, np.nan, 4.0],
    )
    panel = read_panel(table)
    assert statuses(panel, "employment", "2018") == {
        ("a", "i"): "observed",
        ("a", "j"): "absent",
        ("b", "i"): "withheld",
        ("b", "j"): "observed",
    }
    assert statuses(panel, "employment", "2021") == {
        ("a", "i"): "withheld",
        ("a", "j"): "absent",
        ("b", "i"): "absent",
        ("b", "j"): "absent",
    }
    expected = {"cells": 4, "observed": 2, "zero": 1, "withheld": 1, "absent": 1}
    assert panel.cell_counts("employment", "2018") == expected


def test_status_with_start_and_end():
    panel = read_panel(WIDE)
    absent = {("6", "44"): "absent", ("NA", "44"): "absent"}
    seen = {("06", "311"): "observed", ("06", "44"): "observed"}
    assert statuses(panel, "employment", "start") == {
        ("6", "311"): "withheld", ("NA", "311"): "observed", **seen, **absent}  # fmt: skip
    assert statuses(panel, "employment", "end") == {
        ("6", "311"): "observed", ("NA", "311"): "withheld", **seen, **absent}  # fmt: skip


def test_status_of_a_cross_section():
    table = frame(region=["a", "b"], cluster=["k", "m"], x=[np.nan, 0.0])
    assert statuses(read_panel(table), "x", None) == {
        ("a", "k"): "withheld",
        ("a", "m"): "absent",
        ("b", "k"): "absent",
        ("b", "m"): "observed",
    }


# --- provenance -----------------------------------------------------------------------------


def test_digest_changes_with_the_content_and_nothing_else(tmp_path):
    def digest(source):
        return read_panel(source).provenance["digest"]

    changed = WIDE.assign(area=WIDE["area"].replace(3.5, 3.6))
    renamed = WIDE.rename(columns={"area": "era"})
    reindexed = WIDE.set_index(pd.Index([4, 3, 2, 1]))
    assert digest(WIDE) == digest(WIDE.copy()) == digest(reindexed)
    assert len({digest(table) for table in (WIDE, changed, renamed)}) == 3
    first = csv(tmp_path, WIDE.to_csv(index=False), "a.csv")
    second = csv(tmp_path, WIDE.to_csv(index=False), "b.csv")
    other = csv(tmp_path, changed.to_csv(index=False), "c.csv")
    assert digest(first) == digest(second) != digest(other)


def test_provenance_is_plain(tmp_path):
    provenance = read_panel(csv(tmp_path, WIDE.to_csv(index=False))).provenance
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["source"] == "table.csv"


# --- all failing rows of all checks at once ---------------------------------------------------


def test_everything_that_is_wrong_is_said_at_once():
    table = frame(
        region=["06", "06", 7, "", None, "08", "09", "10"],
        industry=["i", "i", "i", "i", "i", "j", "j", "j"],
        cluster=["c", "c", "c", "c", "c", "c", "d", "c"],
        year=[2018, 2018, 2018, 2018, 2018, 2018.5, 2018, np.nan],
        employment=[1.0, 2.0, -9.0, 4.0, 5.0, np.inf, 7.0, 8.0],
        payroll=["1", 2.0, None, 4.0, 5.0, 6.0, 7.0, 8.0],
    )
    message = refused(table)

    def rows(check):
        line = next(line for line in message.split("\n") if line.startswith(f"- {check}"))
        return {int(number) for number in re.findall(r"row (\d+):", line)}

    assert rows("cells must be unique") == {0, 1}
    assert rows("ids must be strings that are not empty") == {2, 3, 4}
    assert rows("counts must not be negative") == {2}
    assert rows("numbers must be finite") == {5}
    assert rows("years must be whole numbers") == {5, 7}
    assert rows("an industry must be in one cluster") == {5, 6, 7}
    assert rows("numbers must not be text") == {0}
    for part in ("'employment'", "-9.0", "region=7", "2018.5", "inf", "cluster='d'", "'payroll'"):
        assert part in message, part


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"region": [1, 2], "x": [1.0, 2.0]}, ["region=1", "06 and 6 are different"]),
        ({"region": ["1", 2], "x": [1.0, 2.0]}, ["1 row: ", "row 1: region=2"]),
        ({"region": ["a", " "], "x": [1.0, 2.0]}, ["row 1: region=' '"]),
        ({"region": ["a", None], "x": [1.0, 2.0]}, ["row 1", "not empty"]),
        ({"region": ["a", "b"], "cluster": ["k", None], "x": [1.0, 2.0]}, ["row 1", "'cluster'"]),
        ({"region": ["a", "b"], "industry": [1, "i"], "x": [1.0, 2.0]}, ["row 0", "'industry'"]),
        (
            {"region": ["a"], "industry": ["i"], "cluster": [3], "x": [1.0]},
            ["row 0", "'cluster'", "cluster=3"],
        ),
        (
            {"region": ["a\0", "b"], "industry": ["i", "j\0"], "x": [1.0, 2.0]},
            ["NUL", "2 rows", "row 0", "row 1"],
        ),
        ({"region": ["a", "a"], "x": [1.0, 2.0]}, ["unique", "2 rows", "row 0", "row 1"]),
        ({"region": ["a"], "employment": [-1.0]}, ["negative", "employment=-1.0"]),
        ({"region": ["a"], "payroll_start": [-1.0], "payroll_end": [1.0]}, ["payroll_start=-1.0"]),
        ({"region": ["a"], "employment_lower": [-1.0]}, ["employment_lower=-1.0"]),
        ({"region": ["a"], "x": [-np.inf]}, ["finite", "x=-inf"]),
        ({"region": ["a"], "year": ["2018"], "x": [1.0]}, ["'year'", "text"]),
        ({"region": ["a"], "year": [np.inf], "x": [1.0]}, ["year=inf"]),
        ({"region": ["a"], "x_start": [1.0], "x_end": ["D"]}, ["'x_end'", "x_end='D'", "row 0"]),
        ({"region": ["a"], "x_start": ["D"], "x_end": [1.0]}, ["'x_start'", "x_start='D'"]),
        ({"region": ["a"], "employment": ["D"]}, ["'employment'", "employment='D'"]),
        ({"region": ["a"], "x_start": [1.0]}, ["'x_start'", "'x_end'"]),
        ({"region": ["a"], "x_end": [1.0]}, ["'x_end'", "'x_start'"]),
        (
            {"region": ["a"], "year": [2018], "x_start": [1.0], "x_end": [1.0]},
            ["'year'", "x_start/x_end"],
        ),
        ({"region": ["a"], "x": [1.0], "x_start": [1.0], "x_end": [1.0]}, ["'x'", "rename"]),
        ({"region": ["a"], "present": [1.0]}, ["'present'", "rename"]),
        ({"region": ["a"], "year_start": [1.0], "year_end": [1.0]}, ["'year'", "rename"]),
        ({"regon": ["a"], "x": [1.0]}, ["'regon'", "--map region=regon", "--map region="]),
        ({"area": ["a"], "x": [1.0]}, ["'area', 'x'", "--map region="]),
        ({"region": [], "x": []}, ["empty table"]),
    ],
)
def test_refused(columns, parts):
    message = refused(pd.DataFrame(columns))
    for part in parts:
        assert part in message, (part, message)


def test_ids_may_be_categories():
    table = frame(region=pd.Categorical(["b", "a"]), x=[1.0, 2.0])
    assert read_panel(table).values("x", None).to_series().to_dict() == {"a": 2.0, "b": 1.0}
    assert "ids must be strings" in refused(frame(region=pd.Categorical(["b", ""]), x=[1.0, 2.0]))


def test_a_rate_may_be_negative():
    panel = read_panel(frame(region=["a"], employment_growth=[-0.1], change=[-3.0]))
    assert panel.values("employment_growth", None).item() == -0.1


def test_many_rows_are_counted_and_a_few_named():
    message = refused(frame(region=["a"] * 1_000, employment=[-1.0] * 1_000))
    assert "1000 rows" in message
    assert "995 more rows" in message


def test_an_industry_with_and_without_cluster():
    message = refused(
        frame(region=["a", "b"], industry=["i", "i"], cluster=["c", None], x=[1.0, 2.0])
    )
    assert "one cluster" in message
    assert "2 rows" in message


@pytest.mark.parametrize(
    ("rename", "parts"),
    [
        ({"region": "fisp"}, ["'fisp'", "Did you mean 'fips'?"]),
        ({"region": "fips", "pay": "emp"}, ["'pay'", "twice"]),
        ({"region": "fips", "pay": "job"}, ["'pay_start', 'pay_end'", "twice"]),
    ],
)
def test_renames_that_do_not_work(rename, parts):
    table = frame(fips=["a"], emp=[1.0], pay=[1.0])
    if rename.get("pay") == "job":
        table = frame(fips=["a"], job_start=[1.0], job_end=[1.0], pay_start=[1.0], pay_end=[1.0])
    message = refused(table, rename=rename)
    for part in parts:
        assert part in message, (part, message)


def test_a_growth_year_that_is_missing():
    panel = read_panel(frame(region=["a", "a"], year=[2018, 2021], x=[1.0, 2.0]))
    with pytest.raises(PanelError, match=r"'2018', '2021'.*growth\.to, got 2020"):
        panel.period(2020, end=True)
    with pytest.raises(PanelError, match=r"growth\.from, got 2017"):
        panel.period(2017)


def test_a_variable_that_is_missing():
    panel = read_panel(frame(region=["a"], income=[1.0]))
    with pytest.raises(PanelError, match=r"'incom'.*Did you mean 'income'\?"):
        panel.values("incom", None)


# --- files ----------------------------------------------------------------------------------


def test_text_in_a_numeric_column_names_its_lines(tmp_path):
    path = csv(tmp_path, "region,x\na,1\nb,D\nc,3\nd,(x)\ne,5\n")
    message = refused(path)
    for part in ("'x'", "2 values", "line 3: D", "line 5: (x)"):
        assert part in message


def test_a_count_that_is_mostly_codes_is_not_taken_for_a_text(tmp_path):
    message = refused(csv(tmp_path, "region,emp\na,D\nb,D\nc,3\n"), rename={"employment": "emp"})
    assert "'employment'" in message
    assert "line 2: D" in message


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        (
            "table.xlsx",
            b"PK",
            ["table.xlsx", "'.xlsx'", ".csv, .parquet or .dta", "read_excel(", "to_parquet("],
        ),
        ("table", b"region,x\n", ["''", ".csv, .parquet or .dta"]),
        ("table.csv", b"", ["table.csv", "cannot be read"]),
        ("table.csv", b"region,x\n", ["empty table"]),
        ("table.csv", b"region,x\n\xff\xfe\x00,1\n", ["not UTF-8", "at 9", "Save it as UTF-8"]),
        ("table.csv", b"region,x\na,1\nb,2,3\n", ["cannot be read", "line 3"]),
        ("table.csv", b"region,x\na,1,2\nb,2,3\n", ["more values"]),
        ("table.parquet", b"PAR1 and no more", ["table.parquet", "cannot be read"]),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, parts):
    path = tmp_path / name
    path.write_bytes(content)
    message = refused(path)
    for part in parts:
        assert part in message, (part, message)


def test_files_that_are_missing(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing.csv")
    assert "no such file" in refused(tmp_path)
    assert "nothing.geojson" in refused(frame(region=["a"], x=[1.0]), tmp_path / "nothing.geojson")
    assert "cannot be read" in refused("a" * 10**6)


def test_a_reader_of_weights_gets_its_own_error(tmp_path):
    path = csv(tmp_path, "region_i,region_j,weight\na,b,1\nb,a,x\nb,c,2\n")
    with pytest.raises(WeightsError, match="line 3: x"):
        read_table(path, error=WeightsError)
    with pytest.raises(WeightsError, match="no such file"):
        read_table(tmp_path / "nothing.csv", error=WeightsError)


def test_a_column_that_ends_like_an_index_is_a_number(tmp_path):
    panel = read_panel(csv(tmp_path, "region,gini_i,ratio_j\na,0.3,4\n"))
    assert panel.variables == ("gini_i", "ratio_j")


# --- geometry -------------------------------------------------------------------------------

TABLE = frame(region=["06", "01"], x=[1.0, 2.0])


@pytest.mark.parametrize("suffix", [".geojson", ".parquet", ".gpkg"])
def test_geometry_is_matched_by_id(tmp_path, suffix):
    shapes = squares(["99", "06", "01"])
    path = tmp_path / f"regions{suffix}"
    if suffix == ".parquet":
        shapes.to_parquet(path)
    else:
        shapes.set_crs("EPSG:4326").to_file(path)
    for source in (path, str(path), shapes):
        panel = read_panel(TABLE, source)
        assert panel.geometry.index.tolist() == ["01", "06"]
        assert [shape.bounds[0] for shape in panel.geometry] == [2.0, 1.0]
        assert panel.provenance["notes"] == ["1 region of the geometry is not in the table"]


def test_geometry_that_fits_leaves_no_note():
    assert read_panel(TABLE, squares(["01", "06"])).provenance["notes"] == []
    assert read_panel(TABLE).geometry is None


def hollow(ids, empty):
    shapes = squares(ids)
    shapes.loc[0, "geometry"] = empty
    return shapes


@pytest.mark.parametrize(
    ("shapes", "parts"),
    [
        (squares(["06"]), ["'01'", "2 regions of the table"]),
        (squares(["6", "1"]), ["'01', '06'", "leading zeros"]),
        (squares(["006", "02"]), ["'01', '06'", "leading zeros"]),
        (squares(["06", "01", "06"]), ["'06'", "twice"]),
        (squares([6, 1]), ["not strings"]),
        (hollow(["06", "01"], shapely.Polygon()), ["empty geometry", "'06'"]),
        (hollow(["06", "01"], None), ["empty geometry", "'06'"]),
        (squares(["06", "01"]).rename(columns={"region": "regio"}), ["--map region=regio"]),
        (gpd.GeoDataFrame({"region": ["06", "01"]}), ["without geometry"]),
    ],
)
def test_geometry_that_is_refused(shapes, parts):
    message = refused(TABLE, shapes)
    for part in parts:
        assert part in message, (part, message)


def test_no_hint_at_zeros_where_that_is_not_the_trouble():
    assert "zeros" not in refused(TABLE, squares(["06", "77"]))


def test_an_empty_shape_of_another_region_does_not_matter():
    panel = read_panel(TABLE, hollow(["77", "06", "01"], shapely.Polygon()))
    assert panel.geometry.index.tolist() == ["01", "06"]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("regions.geojson", "nonsense", "cannot be read"),
        ("regions.parquet", "nonsense", "cannot be read"),
        ("regions.csv", "region,x\n06,1\n01,2\n", "ending in '.csv'; expected one of '.geojson'"),
    ],
)
def test_geometry_files_that_cannot_be_read(tmp_path, name, content, part):
    assert part in refused(TABLE, csv(tmp_path, content, name))


# --- adversarial labels ---------------------------------------------------------------------

LABELS = [
    "<script>alert(1)</script>",
    "長" * 50,
    "x" * 10**6,
    "a",
    "tab\tbell\x07newline\nescape\x1b[31m",
    "{{ 7 * 7 }}",
    "'; DROP TABLE regions; --",
    "../../etc/passwd",
    "\u202eright to left",
    "a : b",
    "-",
    "None",
    "=1+1",
]


def test_adversarial_labels_survive():
    table = frame(region=LABELS, industry=LABELS, cluster=LABELS, x=np.arange(float(len(LABELS))))
    panel = read_panel(table)
    assert panel.regions == tuple(sorted(LABELS))
    assert panel.data["industry"].values.tolist() == sorted(LABELS)
    assert panel.data["cluster_of"].values.tolist() == sorted(LABELS)
    for number, label in enumerate(LABELS):
        assert panel.values("x", None).sel(region=label, industry=label).item() == number


def test_adversarial_labels_make_no_long_message():
    message = refused(frame(region=LABELS * 2, employment=[-1.0] * (2 * len(LABELS))))
    assert "\x1b" not in message
    assert "\x07" not in message
    shapes = squares([label + "!" for label in LABELS])
    refused(frame(region=LABELS, x=1.0), shapes)
    refused(pd.DataFrame({label: ["a"] for label in LABELS}))
    refused(pd.DataFrame({"region": ["a"], "x" * 10**6 + "_start": [1.0]}))
    refused(pd.DataFrame({"region": ["a"], "present": [1.0], "x" * 10**6: [1.0]}))
    refused(frame(region=["a"]), rename={"x": "y" * 10**6})
    with pytest.raises(PanelError) as caught:
        read_panel(frame(region=["a"], x=[1.0])).values("長" * 1_000, None)
    assert len(str(caught.value)) < SHORT


def test_a_csv_with_adversarial_labels(tmp_path):
    path = tmp_path / "labels.csv"
    pd.DataFrame({"region": LABELS, "x": 1.0}).to_csv(path, index=False)
    assert read_panel(path).regions == tuple(sorted(LABELS))
    path.write_text(path.read_text() + '"<b>",1\n"<b>",' + "z" * 10**6 + "\n")
    assert "'x'" in refused(path)


words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6
).filter(lambda word: word.strip() != "")


numbers = st.just(0.0) | st.floats(1e-50, 1e12)


@settings(max_examples=40, deadline=None)
@given(cells=st.dictionaries(st.tuples(words, words), numbers, min_size=1, max_size=12))
def test_every_cell_is_found_again_whatever_it_is_called(cells):
    pairs = list(cells)
    random.Random(4).shuffle(pairs)
    table = frame(
        region=[region for region, _ in pairs],
        industry=[industry for _, industry in pairs],
        employment=[cells[pair] for pair in pairs],
    )
    panel = read_panel(table)
    values = panel.values("employment", None)
    found = {
        (region, industry): values.values[i, j]
        for i, region in enumerate(values["region"].values)
        for j, industry in enumerate(values["industry"].values)
        if not np.isnan(values.values[i, j])
    }
    assert found == cells


def test_a_panel_can_be_built_by_hand():
    data = xr.Dataset({"present": ("region", [True]), "x": ("region", [1.0])}, {"region": ["a"]})
    assert Panel(data).variables == ("x",)


# --- files appear whole -----------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("before")

    def fails(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fails)
    assert path.read_text() == "before"
    replace_file(path, lambda file: file.write(b"after"))
    assert path.read_text() == "after"
    assert [item.name for item in tmp_path.iterdir()] == ["out.txt"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        replace_file(tmp_path / "out.txt", lambda file: file.write(b"x"))
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == 0o644


def test_real_tables_are_read_whole(data_folder):
    path = data_folder / "us_ea" / "industries_2018_2021.parquet"
    table = pd.read_parquet(path)
    panel = read_panel(path, data_folder / "us_ea" / "boundaries.geojson")
    assert len(panel.regions) == table["region"].nunique() == 170
    assert panel.data.sizes["industry"] == table["industry"].nunique() == 661
    assert int(panel.data["present"].sum()) == len(table) == 35_178
    counts = panel.cell_counts("employment", "start")
    assert counts["withheld"] == int(table["employment_start"].isna().sum())
    assert counts["absent"] == 170 * 661 - 35_178
    for end in ("start", "end"):
        total = float(panel.values("employment", end).sum())
        assert total == table[f"employment_{end}"].sum()  # whole numbers: exact in any order
    assert panel.geometry.index.tolist() == list(panel.regions)


def test_real_long_years_are_the_same_panel(data_folder):
    """Years in rows and years in columns hold the same traded cells of the same regions."""
    folder = data_folder / "us_ea"
    long = pd.read_parquet(folder / "industry_years_2017_2021.parquet")
    wide = read_panel(folder / "industries_2018_2021.parquet")
    inside = long["region"].isin(wide.regions) & long["industry"].isin(wide.data["industry"].values)
    panel = read_panel(long[inside & long["year"].isin([2018, 2021])])
    for year, end in (("2018", "start"), ("2021", "end")):
        np.testing.assert_array_equal(
            panel.values("employment", year), wide.values("employment", end)
        )
        status = panel.status("employment", year)
        assert int((status == WITHHELD).sum()) == 0  # what is not published has no row there
