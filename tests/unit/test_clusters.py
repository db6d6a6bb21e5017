"""From cells to the table that a panel is made of: nothing dropped, nothing invented."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from spatialclusters.errors import PanelError
from spatialclusters.panel import ABSENT, WITHHELD, read_panel
from spatialclusters.sources import (
    combine_cells,
    read_cell_table,
    read_clusters,
    read_region_map,
    to_panel,
)

TABLE = pd.DataFrame(
    [
        ("01001", "311811", 2018, 20.0, 3.0, 300.0),
        ("01003", "311811", 2018, 0.0, 4.0, 0.0),  # withheld: four establishments pay somebody
        ("01001", "311811", 2021, 30.0, 3.0, 500.0),
        ("01001", "312120", 2018, 0.0, 3.0, 7.0),  # closed in mid-March: a zero
        ("01001", "541511", 2018, 9.0, 3.0, 90.0),
        ("09999", "311811", 2018, 5.0, 1.0, 50.0),
    ],
    columns=["region", "industry", "year", "employment", "establishments", "payroll"],
)
CLUSTERS = pd.DataFrame(
    {"industry": ["311811", "312120", "999990"], "cluster": ["Food", "Food", "None"],
     "traded": ["Traded", "Local", "Local"]}
)  # fmt: skip
AREAS = pd.DataFrame({"county": ["01001", "01003", "46113"], "area": ["7", "7", "8"]})


def cells(table=TABLE, classification="NAICS 2017", **options):
    return read_cell_table(table, classification=classification, **options)


def areas(table=AREAS):
    return read_region_map(table, region="county", area="area")


def refused(call, *arguments, **options):
    with pytest.raises(PanelError) as caught:
        call(*arguments, **options)
    assert 0 < len(str(caught.value)) < 2_000
    return str(caught.value)


def test_a_sum_with_a_withheld_part_is_withheld_and_bounded():
    table = to_panel(cells(), read_clusters(CLUSTERS), areas())
    rows = table.set_index(["industry", "year"]).sort_index()
    assert rows["region"].unique().tolist() == ["7"]
    bread = rows.loc[("311811", 2018)]
    assert np.isnan(bread["employment"])
    assert bread["employment_lower"] == 20.0
    assert np.isnan(bread["employment_upper"])  # nothing bounds it
    assert bread["establishments"] == 7.0
    assert np.isnan(bread["payroll"])
    assert rows.loc[("311811", 2021), "employment"] == 30.0
    assert rows.loc[("312120", 2018), "employment"] == 0.0
    assert rows["traded"].tolist() == [1.0, 1.0, 0.0]
    notes = " ".join(table.attrs["spatialclusters"]["notes"])
    assert "'541511'" in notes
    assert "5 employees in 1 cells without a county" in notes
    assert json.dumps(table.attrs["spatialclusters"])


def test_bounds_of_the_parts_add_up():
    bounded = TABLE.assign(employment_lower=1.0, employment_upper=19.0)
    table = to_panel(cells(bounded), read_clusters(CLUSTERS), areas())
    bread = table[(table["industry"] == "311811") & (table["year"] == 2018)].iloc[0]
    assert (bread["employment_lower"], bread["employment_upper"]) == (21.0, 39.0)


def test_the_panel_knows_what_is_withheld_and_what_is_absent(tmp_path):
    table = to_panel(cells(), read_clusters(CLUSTERS), areas())
    table.to_parquet(tmp_path / "panel.parquet")
    panel = read_panel(tmp_path / "panel.parquet")
    status = panel.status("employment", "2018").sel(region="7")
    assert int(status.sel(industry="311811")) == WITHHELD
    assert int(panel.status("employment", "2021").sel(region="7", industry="312120")) == ABSENT
    assert (
        float(panel.values("employment_lower", "2018").sel(region="7", industry="311811")) == 20.0
    )


def test_both_ends_in_one_row():
    table = to_panel(cells(), read_clusters(CLUSTERS), ends=(2018, 2021))
    assert table.loc[table["region"] == "01001", "employment_start"].tolist() == [20.0, 0.0]
    ends = table.loc[table["region"] == "01001", "employment_end"].tolist()
    assert ends[0] == 30.0
    assert np.isnan(ends[1])
    assert read_panel(table).years == ("start", "end")
    later = cells(pd.concat([TABLE, TABLE.tail(1).assign(year=2019, employment=np.nan)]))
    notes = to_panel(later, read_clusters(CLUSTERS), ends=(2018, 2021)).attrs["spatialclusters"][
        "notes"
    ]
    assert notes[-1].startswith("1 of 5 published cells")  # of these two years
    assert "years" in refused(to_panel, cells(), read_clusters(CLUSTERS), ends=(2018, 2020))


def test_no_row_is_zero_in_years_in_which_every_cell_was_published():
    """Until 2016 the Census Bureau withheld numbers, not rows; since 2017 it leaves rows out."""
    rows = [
        ("01001", "311811", 2012, 20.0), ("01001", "312120", 2012, 7.0),
        ("01003", "311811", 2012, 5.0), ("01001", "311811", 2016, 25.0),
        ("01003", "312120", 2016, 4.0), ("01005", "311811", 2016, 6.0),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["region", "industry", "year", "employment"])

    def built(source, later):
        table = cells(frame.replace({"year": {2016: later}}))
        table = replace(table, origins=(replace(table.origins[0], source=source),))
        panel = to_panel(table, read_clusters(CLUSTERS), ends=(2012, later))
        ends = panel.set_index(["region", "industry"])[["employment_start", "employment_end"]]
        return ends.T.to_dict("list"), panel

    nan = pytest.approx(np.nan, nan_ok=True)
    found, panel = built("cbp", 2016)
    assert found == {
        ("01001", "311811"): [20.0, 25.0],
        ("01001", "312120"): [7.0, 0.0],
        ("01003", "311811"): [5.0, 0.0],
        ("01003", "312120"): [0.0, 4.0],
        ("01005", "311811"): [nan, 6.0],  # the file of 2012 does not have this county at all
    }
    bounds = panel.set_index(["region", "industry"]).loc[("01001", "312120")]
    assert bounds[["employment_lower_end", "employment_upper_end"]].tolist() == [0.0, 0.0]
    notes = panel.attrs["spatialclusters"]["notes"]
    assert "2012: 1 cells without a row are zero, as all cells were published" in notes
    assert "2016: 2 cells without a row are zero, as all cells were published" in notes
    found, _ = built("cbp", 2018)
    assert found["01001", "312120"] == [7.0, nan]
    assert found["01003", "312120"] == [0.0, 4.0]
    found, panel = built("table", 2016)  # of which nobody knows
    assert found["01001", "312120"] == [7.0, nan]
    assert found["01003", "312120"] == [nan, 4.0]
    assert "without a row" not in str(panel.attrs["spatialclusters"]["notes"])


@pytest.mark.parametrize(
    ("code", "known", "area"),
    [
        ("46102", "46113", "8"),
        ("46113", "46102", "8"),
        ("51515", "51019", "8"),
        ("12025", "12086", "8"),
    ],
)
def test_counties_with_new_codes_are_found_and_named(code, known, area):
    table = TABLE.head(1).assign(region=code)
    definition = areas(pd.DataFrame({"county": [known], "area": [area]}))
    result = to_panel(cells(table), read_clusters(CLUSTERS), definition)
    assert result["region"].tolist() == [area]
    assert any(code in note and known in note for note in result.attrs["spatialclusters"]["notes"])


@pytest.mark.parametrize(
    ("code", "told"),
    [("09110", "Connecticut"), ("08014", "Broomfield"), ("51019", "Add them"), ("99001", "Add")],
)
def test_counties_without_an_area_are_refused(code, told):
    known = {"51019": "51515"}.get(code, "01001")  # a merger cannot be undone
    table, definition = TABLE.head(1).assign(region=code), AREAS.head(1).assign(county=known)
    message = refused(to_panel, cells(table), read_clusters(CLUSTERS), areas(definition))
    assert told in message
    assert code in message


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (CLUSTERS.rename(columns={"industry": "naics"}), "expected 'industry'"),
        (CLUSTERS.assign(industry=[311811, 312120, 999990]), "as text"),
        (pd.concat([CLUSTERS, CLUSTERS.head(1).assign(cluster="Bread")]), "several groups"),
        (CLUSTERS.assign(industry=["311811", " ", "x"]), "1 of 3 rows without industry"),
        (CLUSTERS.assign(traded=["Traded", "both", "Local"]), "'both'"),
    ],
)
def test_cluster_tables_that_cannot_be_meant_are_refused(table, told):
    assert told in refused(read_clusters, table)


def test_an_industry_may_be_in_no_cluster():
    own = read_clusters(CLUSTERS.assign(cluster=["Food", None, "None"]))
    table = to_panel(cells(), own)
    assert table[table["cluster"].isna()]["industry"].tolist() == ["312120"]
    assert read_panel(table).data["cluster_of"].values.tolist() == ["Food", ""]


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (["311811", "311///"], "counted twice"),
        (["111111"], "no industry"),
        (["Bread"], "NAICS codes"),
    ],
)
def test_cluster_tables_that_do_not_fit_are_refused(codes, told):
    own = read_clusters(pd.DataFrame({"industry": codes, "cluster": "Food"}))
    assert told in refused(to_panel, cells(), own)


def test_growth_across_classifications_is_refused():
    older = cells(TABLE.assign(year=TABLE["year"] - 10), classification="NAICS 2007")
    assert "concordance" in refused(
        to_panel, combine_cells([older, cells()]), read_clusters(CLUSTERS)
    )


def test_definitions_from_files_keep_their_zeros_and_have_a_digest(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbfNAICS,Cluster\r\n011111,Farms\r\n")
    mine = read_clusters(path, rename={"industry": "NAICS", "cluster": "Cluster"})
    assert mine.frame.rows() == [("011111", "Farms")]
    assert mine.source == "mine.csv"
    assert len(mine.digest) == 64
    CLUSTERS.to_parquet(tmp_path / "mine.parquet")
    assert read_clusters(tmp_path / "mine.parquet").frame.height == 3
    assert "cannot be read" in refused(read_clusters, tmp_path / "none.parquet")


def test_tables_that_cannot_be_cells_are_refused():
    assert "'employment'" in refused(cells, TABLE.drop(columns="employment"))
    assert "text" in refused(cells, TABLE.assign(employment="D"))
    assert "not text" in refused(cells, TABLE.assign(region=[1001, 1003, 1001, 1001, 1001, 9999]))
    assert "twice" in refused(cells, pd.concat([TABLE, TABLE]))
    assert "whole" in refused(cells, TABLE.assign(year=2018.5))


def test_a_table_from_csv_is_the_same_table(tmp_path):
    TABLE.to_csv(tmp_path / "tidy.csv", index=False)
    again = cells(tmp_path / "tidy.csv", withheld_zeros=[2018])
    assert again.frame.equals(cells(withheld_zeros=[2018]).frame)
    assert again.counts == {"observed": 4, "withheld": 2, "filled": 0}


# --- real files -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(data_folder):
    found = read_cell_table(
        data_folder / "cbp" / "county_naics6_2017_2021.parquet",
        classification="NAICS 2017", withheld_zeros=[2017], rename={"region": "county"},
    )  # fmt: skip
    concordance = data_folder / "concordance"
    clusters = read_clusters(concordance / "naics6_to_bcd_cluster.csv")
    regions = read_region_map(
        concordance / "county_to_ea1995.csv", region="county", area="economic_area"
    )
    return found, clusters, regions


def test_county_files_become_the_economic_areas_value_for_value(real, data_folder):
    table = pl.from_pandas(to_panel(*real))
    wanted = pl.read_parquet(data_folder / "us_ea" / "industry_years_2017_2021.parquet")
    keys, numbers = ["region", "industry", "year"], ["employment", "establishments", "payroll"]
    columns = [*keys, *numbers, "cluster", "subcluster"]
    for first in (2017, 2018):
        mine, theirs = (
            f.filter(pl.col("year") == 2017 if first == 2017 else pl.col("year") > 2017)
            .select(columns).sort(keys) for f in (table, wanted)
        )  # fmt: skip
        if first == 2018:
            assert mine.equals(theirs)
        else:
            assert mine.select(keys).equals(theirs.select(keys))
            zero = theirs["employment"] == 0
            assert zero.sum() > 6_000
            assert mine.filter(zero)["employment"].is_null().all()


def test_the_window_of_the_main_case_is_rebuilt_exactly(real, data_folder):
    result = to_panel(*real, ends=(2018, 2021))
    notes = " ".join(result.attrs["spatialclusters"]["notes"])
    assert "region 46102 read as 46113" in notes
    assert "region 02158 read as 02270" in notes
    wanted = pl.read_parquet(data_folder / "us_ea" / "industries_2018_2021.parquet")
    # the table leaves out what is local, Alaska and Hawaii
    mine = pl.from_pandas(result).filter(
        (pl.col("traded") == 1) & ~pl.col("region").is_in(["171", "172"])
    )
    keys = ["region", "industry"]
    assert mine.select(wanted.columns).sort(keys).equals(wanted.sort(keys))
