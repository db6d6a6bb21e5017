"""Annual QCEW files, as hand-made ones in the agency's layouts."""

import math
import zipfile

import pytest

from spatialclusters.errors import PanelError
from spatialclusters.sources import leaves, read_qcew, tighten_bounds

STEMS = ("annual_avg_estabs", "annual_avg_emplvl", "total_annual_wages", "taxable_annual_wages",
         "annual_contributions", "annual_avg_wkly_wage", "avg_annual_pay")  # fmt: skip
CHANGES = ",".join(f"oty_{stem}_chg,oty_{stem}_pct_chg" for stem in STEMS)
KEYS = "area_fips,own_code,industry_code,agglvl_code,size_code,year,qtr,disclosure_code"
TITLES = "area_title,own_title,industry_title,agglvl_title,size_title"
VALUES = ",".join(STEMS) + ",lq_disclosure_code," + ",".join(f"lq_{stem}" for stem in STEMS)
SINGLE = f"{KEYS},{VALUES},oty_disclosure_code,{CHANGES}"
BY_INDUSTRY = f"{KEYS},{TITLES},{VALUES},oty_disclosure_code,{CHANGES}"
assert len(SINGLE.split(",")) == 38


def line(area, own, industry, level, flag, establishments, emp, year=2018, titles=""):
    keys = f'"{area}","{own}","{industry}","{level}","0","{year}","A","{flag}"'
    values = f"{establishments},{emp},{emp * 40_000},0,0,800,40000"
    return f"{keys}{titles},{values}" + ',"",' + "0," * 7 + '"",' + ",".join(["0"] * 14)


ROWS = [
    ("01001", "0", "10", "70", "", 12, 130),
    ("01001", "5", "10", "71", "", 10, 100),
    ("01001", "5", "101", "72", "", 6, 60),
    ("01001", "5", "1013", "73", "", 6, 60),
    ("01001", "5", "31-33", "74", "", 6, 60),
    ("01001", "5", "311", "75", "N", 2, 0),
    ("01001", "5", "312", "75", "", 4, 20),
    ("01999", "5", "312", "75", "", 1, 0),
    ("01000", "5", "10", "51", "", 10, 100),
    ("US000", "5", "10", "11", "", 10, 100),
    ("C1018", "5", "10", "41", "", 10, 100),
]


def saved(
    folder, rows=ROWS, header=SINGLE, name="2018_annual_singlefile.csv", encoding="utf-8", **more
):
    titles = ',"Do\xf1a Ana","p","i","l","s"' if "area_title" in header else ""
    path = folder / name
    lines = [header, *(line(*row, titles=titles, **more) for row in rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def refused(path, **options):
    with pytest.raises(PanelError) as caught:
        read_qcew(path, **options)
    assert 0 < len(str(caught.value)) < 2_000
    return str(caught.value)


def test_one_ownership_and_one_kind_of_area_at_all_levels(tmp_path):
    cells = read_qcew(saved(tmp_path))
    found = cells.frame.select("region", "industry", "value", "lower", "upper", "status").rows()
    assert found == [
        ("01001", "10", 100.0, 100.0, 100.0, "observed"),
        ("01001", "31-33", 60.0, 60.0, 60.0, "observed"),
        ("01001", "311", None, 0.0, math.inf, "withheld"),
        ("01001", "312", 20.0, 20.0, 20.0, "observed"),
        ("01999", "312", 0.0, 0.0, 0.0, "observed"),
    ]
    assert cells.frame["payroll"].to_list() == [4000.0, 2400.0, None, 800.0, 0.0]  # $1,000
    (origin,) = cells.origins
    assert (origin.classification, origin.vintage) == ("NAICS 2017", "2018 county, private")
    assert "SS999" in origin.notes[0]
    assert leaves(cells).frame["industry"].to_list() == ["311", "312", "312"]


@pytest.mark.parametrize(
    ("geography", "ownership", "region", "value"),
    [("county", "total", "01001", 130.0), ("state", "private", "01000", 100.0),
     ("nation", "private", "US000", 100.0), ("msa", "private", "C1018", 100.0)],
)  # fmt: skip
def test_areas_and_ownerships(tmp_path, geography, ownership, region, value):
    cells = read_qcew(saved(tmp_path), geography=geography, ownership=ownership)
    assert cells.frame.select("region", "value").rows() == [(region, value)]


def test_files_by_industry_older_names_archives_and_latin1(tmp_path):
    expected = read_qcew(saved(tmp_path)).frame
    by_industry = saved(tmp_path, header=BY_INDUSTRY, name="latin.csv", encoding="latin-1")
    older = SINGLE.replace("annual_avg_estabs,", "annual_avg_estabs_count,", 1).upper()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(saved(tmp_path, header=older, name="older.csv"), "older.csv")
    assert read_qcew(by_industry).frame.equals(expected)
    assert read_qcew(tmp_path / "x.zip").frame.equals(expected)


def test_before_2001_a_zero_with_establishments_is_withheld(tmp_path):
    rows = [("01001", "5", "311", "75", "", 2, 0), ("01001", "5", "312", "75", "", 0, 0)]
    cells = read_qcew(saved(tmp_path, rows, year=1999))
    assert cells.frame["status"].to_list() == ["withheld", "observed"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("1001", "5", "311", "75", "", 2, 3), "leading zeros"),
        (("01001", "5", "SIC_20", "75", "", 2, 3), "other classification"),
        (("01001", "5", "311", "75", "X", 2, 3), "disclosure_code"),
        (("01001", "5", "311", "75", "N", 2, 3), "not disclosed"),
        (("01001", "5", "311", "75", "", 2, -3), "annual_avg_emplvl"),
        (("01001", "5", "Infinity", "75", "", 2, 3), "industry codes"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(tmp_path, row, told):
    assert told in refused(saved(tmp_path, [*ROWS, row]))


def test_other_files_are_refused(tmp_path):
    path = saved(tmp_path)
    content = path.read_text()
    path.write_text(content[:-90])
    assert "cut off" in refused(path)
    path.write_text(content.rstrip()[:-10])
    assert "cut off" in refused(path)
    path.write_text(content.replace('"A"', '"1"'))
    assert "annual averages" in refused(path)
    path.write_text(content.replace('"2018"', '"2031"'))
    assert "regime=" in refused(path)
    path.write_text(content.replace("own_code", "owner", 1))
    assert "'own_code'" in refused(path)
    assert "one of 'nation'" in refused(path, geography="town")
    assert "no rows" in refused(saved(tmp_path), ownership="federal")


# --- files by SIC -----------------------------------------------------------------------------

BY_SIC = [
    ("01001", "0", "SIC_0Z", "26", "", 12, 130),
    ("01001", "5", "SIC_0Z", "27", "", 10, 100),
    ("01001", "5", "SIC_0D", "28", "", 6, 60),
    ("01001", "5", "SIC_0D20", "29", "", 6, 60),
    ("01001", "5", "SIC_0D201", "30", "", 4, 0),  # withheld: nothing marks it
    ("01001", "5", "SIC_0D2011", "31", "", 4, 0),
    ("01001", "5", "SIC_0D202", "30", "", 2, 20),
    ("01001", "5", "SIC_0A074", "30", "", 2, 8),
    ("01001", "5", "SIC_0A0740", "31", "", 2, 8),  # a group and its only industry: two codes
    ("01001", "5", "SIC_0K", "28", "", 1, 2),
    ("01000", "5", "SIC_0Z", "19", "", 10, 100),
    ("US000", "5", "SIC_0Z", "2", "", 10, 100),  # its leading zero is lost
    ("US000", "5", "SIC_0D", "03", "", 10, 60),
    ("01000", "5", "SIC_0Z", "24", "", 3, 30),  # of a size class
    ("C1018", "5", "SIC_0Z", "13", "", 10, 100),
]


def test_files_by_sic(tmp_path):
    cells = read_qcew(saved(tmp_path, BY_SIC, year=1990, name="sic_1990_annual_singlefile.csv"))
    found = cells.frame.select("region", "industry", "value", "upper").rows()
    assert found == [
        ("01001", "SIC_0Z", 100.0, 100.0),
        ("01001", "SIC_0D", 60.0, 60.0),
        ("01001", "SIC_0D20", 60.0, 60.0),
        ("01001", "SIC_0D201", None, math.inf),
        ("01001", "SIC_0D2011", None, math.inf),
        ("01001", "SIC_0D202", 20.0, 20.0),
        ("01001", "SIC_0A074", 8.0, 8.0),
        ("01001", "SIC_0A0740", 8.0, 8.0),
        ("01001", "SIC_0K", 2.0, 2.0),
    ]
    (origin,) = cells.origins
    assert (origin.source, origin.classification) == ("qcew", "SIC 1987")
    kept = leaves(cells).frame["industry"].to_list()
    assert kept == ["SIC_0A0740", "SIC_0D2011", "SIC_0D202", "SIC_0K"]
    # what the division leaves: 60 less 20
    tight = tighten_bounds(cells, complete=True).frame.filter(industry="SIC_0D2011")
    assert tight.select("lower", "upper").row(0) == (40.0, 40.0)
    older = read_qcew(saved(tmp_path, BY_SIC, year=1980))
    assert older.origins[0].classification == "SIC 1972"


@pytest.mark.parametrize(
    ("geography", "ownership", "found"),
    [("county", "total", [("01001", "SIC_0Z", 130.0)]), ("state", "private", [("01000", "SIC_0Z", 100.0)]),
     ("msa", "private", [("C1018", "SIC_0Z", 100.0)]),
     ("nation", "private", [("US000", "SIC_0Z", 100.0), ("US000", "SIC_0D", 60.0)])],
)  # fmt: skip
def test_areas_and_ownerships_by_sic(tmp_path, geography, ownership, found):
    path = saved(tmp_path, BY_SIC, year=1990)
    cells = read_qcew(path, geography=geography, ownership=ownership)
    assert cells.frame.select("region", "industry", "value").rows() == found


def test_files_by_sic_that_would_be_read_wrongly_are_refused(tmp_path):
    mixed = [*BY_SIC, ("01001", "5", "311", "29", "", 2, 3)]
    assert "other classification" in refused(saved(tmp_path, mixed, year=1990))
    assert "not codes" in refused(
        saved(tmp_path, [*BY_SIC, ("01001", "5", "SIC_2011", "31", "", 2, 3)], year=1990)
    )
    assert "regime=" in refused(saved(tmp_path, BY_SIC, year=2001))
