"""The harmonized panel of Eckert, Fort, Schott and Yang, as hand-made files in its layout."""

import math
import zipfile

import pandas as pd
import pytest

from spatialclusters.errors import PanelError
from spatialclusters.sources import leaves, read_clusters, read_efsy, to_panel

HEAD = "v1,fipstate,fipscty,naics12,emp,year"
ROWS = [
    "1,1,1,311811,24.25,1996",
    "2,1,1,311811,30,2010",
    "3,1,1,31----,7,2010",  # what was not assigned
    "4,6,37,311811,-1e-9,2010",
    "5,6,37,311812,12,2018",
    "6,6,37,311811,0,2018",
]


def saved(folder, *rows, head=HEAD, name="efsy_panel_naics.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(("\n".join([head, *(rows or ROWS)]) + "\n").encode(encoding))
    return path


def refused(path, **options):
    with pytest.raises(PanelError) as caught:
        read_efsy(path, **options)
    assert 0 < len(str(caught.value)) < 2_000
    return str(caught.value)


def test_ids_get_their_zeros_back_and_imputed_cells_are_said_to_be_unmarked(tmp_path):
    cells = read_efsy(saved(tmp_path))
    found = cells.frame.sort("year", "region", "industry")
    assert found.select("region", "industry", "year", "value", "upper").rows() == [
        ("01001", "311811", 1996, 24.25, 24.25),
        ("01001", "311811", 2010, 30.0, 30.0),
        ("06037", "311811", 2010, 0.0, 0.0),
        ("06037", "311811", 2018, None, math.inf),  # not imputed, and not zero
        ("06037", "311812", 2018, 12.0, 12.0),
    ]
    older, newer = cells.origins
    assert (older.classification, older.vintage) == ("NAICS 2012", "1996-2010 county, harmonized")
    assert (newer.classification, newer.vintage) == ("NAICS 2017", "2018 county, harmonized")
    assert "not marked" in older.rule
    told = " ".join(older.notes)
    assert "7 employees in 1 cells of aggregate industries" in told
    assert "read as 0" in told
    assert "SIC" in told
    assert leaves(read_efsy(saved(tmp_path), years=[2010])).frame.height == 2


def test_years_are_chosen_while_reading_and_do_not_cross_the_break(tmp_path):
    path = saved(tmp_path)
    cells = read_efsy(path, years=[1996, 2010])
    assert [o.classification for o in cells.origins] == ["NAICS 2012"]
    assert "1975 to 2018" in refused(path, years=[2010, 2011])


def test_growth_into_the_years_that_are_not_imputed_is_refused(tmp_path):
    food = read_clusters(pd.DataFrame({"industry": ["311811"], "cluster": ["Food"]}))
    with pytest.raises(PanelError, match="concordance"):
        to_panel(read_efsy(saved(tmp_path)), food, ends=(2010, 2018))
    table = to_panel(read_efsy(saved(tmp_path), years=[1996, 2010]), food, ends=(1996, 2010))
    assert table.loc[0, ["employment_start", "employment_end"]].tolist() == [24.25, 30.0]


def test_archives_byte_order_marks_and_windows_line_ends(tmp_path):
    expected = read_efsy(saved(tmp_path)).frame
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(saved(tmp_path), "efsy_panel_naics.csv")
    marked = saved(tmp_path, name="bom.csv", encoding="utf-8-sig")
    windows = tmp_path / "crlf.csv"
    windows.write_bytes(saved(tmp_path).read_bytes().replace(b"\n", b"\r\n"))
    for path in (tmp_path / "x.zip", marked, windows):
        assert read_efsy(path).frame.equals(expected)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("7,1,1,311812,-20,2010", "below zero"),
        ("7,1,1,311812,many,2010", "no number"),
        ("7,1,1,311812,inf,2010", "no number"),
        ("7,1,1001,311812,2,2010", "county codes"),
        ("7,AL,1,311812,2,2010", "county codes"),
        ("7,1,1,0.3118,2,2010", "industry codes"),
        ("7,1,1,311811,2,2010", "occurs twice"),
        ("7,1,1,311812,2,2010.5", "no year"),
        ("7,1,1,311812,2,2022", "1975 to 2018"),
        ("7,1,1,311812,2", "cut off"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(tmp_path, row, told):
    assert told in refused(saved(tmp_path, *ROWS, row))


def test_other_files_are_refused(tmp_path):
    native = HEAD.replace("naics12", "naics,sic")
    assert "harmonized codes" in refused(saved(tmp_path, "1,1,1,311811,,3,2010", head=native))
    assert "'fipscty'" in refused(saved(tmp_path, head=HEAD.replace("fipscty", "county")))
    assert "SHA-256" in refused(saved(tmp_path), sha256="0" * 64)
    assert "6 digits" in refused(saved(tmp_path, ROWS[2]))
