"""County Business Patterns of every vintage, as hand-made files in the agency's layouts."""

import gzip
import hashlib
import math
import zipfile
from dataclasses import replace

import polars as pl
import pytest

from spatialclusters.errors import PanelError
from spatialclusters.sources import (
    Cells,
    combine_cells,
    leaves,
    read_cbp,
    read_cells,
    regime_for,
    write_cells,
)  # fmt: skip

CLASSES = (
    "n5_9,n10_19,n20_49,n50_99,n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4"
)
NOISY = "emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est"
LAYOUTS = {
    "1990": f"FIPSTATE,FIPSCTY,SIC,EMPFLAG,EMP,QP1,AP,EST,N1_4,{CLASSES.upper()},CENSTATE,CENCTY",
    "2001": f"fipstate,fipscty,naics,empflag,emp,qp1,ap,est,n1_4,{CLASSES},censtate,cencty",
    "2010": f"fipstate,fipscty,naics,empflag,{NOISY},n1_4,{CLASSES},censtate,cencty",
    "2015": f"FIPSTATE,FIPSCTY,NAICS,EMPFLAG,{NOISY.upper()},N1_4,{CLASSES.upper()},CENSTATE,CENCTY",
    "2017": f"fipstate,fipscty,naics,empflag,{NOISY},n<5,{CLASSES},censtate,cencty",
    "2018": f"fipstate,fipscty,naics,{NOISY},n<5,{CLASSES}",
    "2023": f"fipstate,fipscty,naics,{NOISY},n<5,{CLASSES}",
}
SMALLEST, MIDDLE, OPEN = "2,1" + ",0" * 11, "0,0,3" + ",0" * 10, "0,0,0,0,0,0,0,0,2,1,0,0,1"


def row(year, code, emp, classes, *, est, flag="", noise="G", place="01,001"):
    """One line in the layout of a year."""
    head, tail = f"{place},{code}", ",63,1" if int(year) < 2018 else ""
    if int(year) < 2007:
        return f"{head},{flag},{emp},{emp * 5},{emp * 20},{est},{classes}{tail}"
    mid = f"{noise},{emp},{noise},{emp * 5},{noise},{emp * 20},{est},{classes}{tail}"
    return f"{head},{mid}" if int(year) >= 2018 else f"{head},{flag},{mid}"


def text(year):
    """A total, an observed and two withheld cells, in the layout of a year."""
    total, codes = ("----", ("2011", "2092", "399/")) if int(year) < 1998 else (
        "------", ("311811", "31131/", "511210"))  # fmt: skip
    early = int(year) <= 2017
    noise, missing = ("D", "B") if int(year) < 2017 else ("S", "B")
    seen, hidden, giant = codes
    return "\n".join([
        LAYOUTS[year],
        row(year, total, 4000, OPEN, est=4),
        row(year, seen, 24, SMALLEST, est=3),
        row(year, hidden, 0, MIDDLE, est=3, flag=missing if early else "", noise=noise),
        row(year, giant, 0, OPEN, est=3, flag="I" if early else "", noise=noise),
    ]) + "\n"  # fmt: skip


def saved(folder, year, content=None, name=None, encoding="utf-8"):
    path = folder / (name or f"cbp{year[2:]}co.txt")
    path.write_bytes((text(year) if content is None else content).encode(encoding))
    return path


def refused(path, **options):
    with pytest.raises(PanelError) as caught:
        read_cbp(path, **options)
    message = str(caught.value)
    assert 0 < len(message) < 2_000
    assert str(path.parent) not in message
    return message


# --- every vintage --------------------------------------------------------------------------


@pytest.mark.parametrize("year", LAYOUTS)
def test_every_vintage_parses_to_one_schema(tmp_path, year):
    cells = read_cbp(saved(tmp_path, year))
    frame = cells.frame
    assert frame.columns == ["region", "industry", "year", "value", "lower", "upper", "status",
                             "flag_raw", "establishments", "payroll"]  # fmt: skip
    assert frame["region"].to_list() == ["01001"] * 4
    assert frame["year"].to_list() == [int(year)] * 4
    assert frame["value"].to_list() == [4000.0, 24.0, None, None]
    assert frame["payroll"].to_list() == [80000.0, 480.0, None, None]
    assert frame["status"].to_list() == ["observed"] * 2 + ["withheld"] * 2
    assert cells.counts == {"observed": 2, "withheld": 2, "filled": 0}
    bounds = frame.select("lower", "upper").rows()
    early = int(year) <= 2017
    assert bounds[2] == (30.0, 57.0)  # three of 10 to 19, inside B
    assert bounds[3] == ((6_000.0, 9_999.0) if early else (6_000.0, math.inf))
    (origin,) = cells.origins
    assert origin.vintage == f"{year} county"
    assert origin.digest == hashlib.sha256(text(year).encode()).hexdigest()


@pytest.mark.parametrize(
    ("year", "flags", "names"),
    [("1990", ["", "", "B", "I"], "SIC 1987"), ("2010", ["/G", "/G", "B/D", "I/D"], "NAICS 2007"),
     ("2017", ["/G", "/G", "B/S", "I/S"], "NAICS 2017"), ("2018", ["G", "G", "S", "S"], "NAICS 2017")],
)  # fmt: skip
def test_flags_are_kept_as_published(tmp_path, year, flags, names):
    cells = read_cbp(saved(tmp_path, year))
    assert cells.frame["flag_raw"].to_list() == flags
    assert cells.origins[0].classification == names


def test_a_zero_without_a_withheld_flag_is_a_zero(tmp_path):
    content = f"{LAYOUTS['2018']}\n{row('2018', '311811', 0, '3' + ',N' * 12, est=3)}\n"
    cells = read_cbp(saved(tmp_path, "2018", content))
    assert cells.frame.select("value", "lower", "upper", "status").row(0) == (
        0.0,
        0.0,
        0.0,
        "observed",
    )


def test_classes_that_are_not_available_are_bounded_by_the_rest(tmp_path):
    # 5 establishments, 3 of under 5: the other two are somewhere in the classes marked N
    line = row("2018", "311811", 0, "3,0,N,N" + ",0" * 9, est=5, noise="S")
    cells = read_cbp(saved(tmp_path, "2018", f"{LAYOUTS['2018']}\n{line}\n"))
    assert cells.frame.select("lower", "upper").row(0) == (20.0, 110.0)


def test_flag_and_classes_that_contradict_each_other_are_both_kept(tmp_path):
    line = row("2001", "311811", 0, MIDDLE, est=3, flag="E")
    cells = read_cbp(saved(tmp_path, "2001", f"{LAYOUTS['2001']}\n{line}\n"))
    assert cells.frame.select("lower", "upper").row(0) == (30.0, 499.0)
    assert "contradicts" in cells.origins[0].notes[0]


@pytest.mark.parametrize(
    ("name", "place", "head", "region"),
    [("cbp18st.txt", "01,-", "fipstate,lfo", "01000"), ("cbp18msa.txt", "10180", "msa", "10180"),
     ("cbp18us.txt", "-", "lfo", "US000")],
)  # fmt: skip
def test_states_metropolitan_areas_and_the_nation(tmp_path, name, place, head, region):
    header = LAYOUTS["2018"].replace("fipstate,fipscty", head)
    lines = [row("2018", "311811", 24, SMALLEST, est=3, place=place)]
    if "lfo" in head:  # a part of the row before, which would count twice
        lines.append(row("2018", "311811", 11, SMALLEST, est=3, place=place.replace("-", "C")))
    cells = read_cbp(saved(tmp_path, "2018", "\n".join([header, *lines]), name))
    assert cells.frame.select("region", "value").rows() == [(region, 24.0)]
    if region == "US000":  # nothing in the file says that it is about the nation
        assert "'fipstate'" in refused(
            saved(tmp_path, "2018", "\n".join([header, *lines]), "x.txt"), year=2018
        )
        assert cells.origins[0].vintage == "2018 nation"


def test_large_noise_was_suppressed_before_2015_and_d_means_withheld_in_all_years(tmp_path):
    for year, letter, fine in (("2010", "J", False), ("2015", "J", True), ("2010", "H", True)):
        line = row(year, "311811", 24, SMALLEST, est=3, noise=letter)
        path = saved(tmp_path, year, f"{LAYOUTS[year]}\n{line}\n")
        if fine:
            assert read_cbp(path).counts["observed"] == 1
        else:
            assert "'J'" in refused(path)
    line = row("2018", "311811", 0, SMALLEST, est=3, noise="D")
    assert read_cbp(saved(tmp_path, "2018", f"{LAYOUTS['2018']}\n{line}\n")).counts["withheld"] == 1


def test_the_smallest_class_may_have_nobody_in_march(tmp_path):
    for year in ("2001", "2018"):
        line = row(
            year, "311811", 0, "3" + ",0" * 12, est=3, flag="A" if year == "2001" else "", noise="S"
        )
        cells = read_cbp(saved(tmp_path, year, f"{LAYOUTS[year]}\n{line}\n"))
        assert cells.frame.select("lower", "upper").row(0) == (0.0, 12.0)


def test_statewide_rows_are_kept_and_named(tmp_path):
    line = row("2018", "311811", 24, SMALLEST, est=3, place="01,999")
    cells = read_cbp(saved(tmp_path, "2018", f"{text('2018')}{line}\n"))
    assert "SS999" in cells.origins[0].notes[0]


# --- how files arrive -----------------------------------------------------------------------


def test_archives_byte_order_marks_latin1_and_windows_line_ends(tmp_path):
    expected = read_cbp(saved(tmp_path, "2018")).frame
    content = text("2018")
    with zipfile.ZipFile(tmp_path / "cbp18co.zip", "w") as archive:
        archive.writestr("cbp18co.txt", content)
    (tmp_path / "cbp18co.txt.gz").write_bytes(gzip.compress(content.encode()))
    latin = content.replace("n1000_4\n", "n1000_4,name\n").replace("\n01", ",Do\xf1a Ana\n01") + ""
    latin = latin.replace(",name,Do\xf1a Ana", ",name").rstrip("\n") + ",x\n"
    others = [
        tmp_path / "cbp18co.zip",
        tmp_path / "cbp18co.txt.gz",
        saved(tmp_path, "2018", content, "cbp18co_bom.txt", "utf-8-sig"),
        saved(tmp_path, "2018", content.replace("\n", "\r\n"), "cbp18co_crlf.txt"),
        saved(tmp_path, "2018", latin, "cbp18co_latin.txt", "latin-1"),
        saved(tmp_path, "2018", content.rstrip("\n"), "cbp18co_no_end.txt"),
    ]
    for path in others:
        assert read_cbp(path).frame.equals(expected), path.name


def test_a_truncated_archive_is_refused(tmp_path):
    path = tmp_path / "cbp18co.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cbp18co.txt", text("2018") * 50)
    path.write_bytes(path.read_bytes()[:-40])
    assert "truncated" in refused(path)
    packed = gzip.compress(text("2018").encode())
    (tmp_path / "cbp18co.gz").write_bytes(packed[: len(packed) // 2])
    assert "truncated" in refused(tmp_path / "cbp18co.gz")


def test_a_cut_off_line_is_refused(tmp_path):
    content = text("2018")[:-12]
    assert "cut off" in refused(saved(tmp_path, "2018", content))


def test_a_wrong_digest_is_refused(tmp_path):
    path = saved(tmp_path, "2018")
    assert "SHA-256" in refused(path, sha256="0" * 64)
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_cbp(path, sha256=good.upper()).counts["observed"] == 2


@pytest.mark.parametrize(
    ("layout", "year"),
    [("1990", 2001), ("2001", 1990), ("2010", 2001), ("2001", 2010), ("2017", 2010), ("2010", 2017),
     ("2018", 2017), ("2017", 2018)],
)  # fmt: skip
def test_a_file_of_another_vintage_is_refused(tmp_path, layout, year):
    message = refused(saved(tmp_path, layout), year=year)
    assert str(year) in message


def test_a_year_without_known_rules_says_how_to_supply_them(tmp_path):
    path = saved(tmp_path, "2018", name="cbp24co.txt")
    assert "regime=" in refused(path)
    own = replace(regime_for("cbp", 2023), first=2024, last=2024)
    assert read_cbp(path, regime=own).frame["year"].unique().to_list() == [2024]


def test_a_name_without_a_year_asks_for_it(tmp_path):
    path = saved(tmp_path, "2018", name="county.txt")
    assert "Give the year" in refused(path)
    assert read_cbp(path, year=2018).counts["observed"] == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("01,001,31131/", "1,1,31131/", "leading zeros"),
        ("31131/", "0.3113", "industry codes"),
        (",S,0,S,0,S,0,3,0,0,3", ",S,7,S,0,S,0,3,0,0,3", "withheld flag and a number"),
        (",S,0,S,0,S,0,3,0,0,3", ",X,0,S,0,S,0,3,0,0,3", "'X'"),
        (",G,24,", ",G,-24,", "emp"),
        (",G,24,", ",G,1e999,", "emp"),
        ("n<5", "n5_9", "twice"),
        (",est,", ",estab,", "'est'"),
        ("01,001,31131/", "01,001,311811", "different numbers"),
    ],
)
def test_what_somebody_did_to_the_file_is_refused(tmp_path, old, new, told):
    content = text("2018")
    assert old in content
    assert told in refused(saved(tmp_path, "2018", content.replace(old, new)))


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "empty"), ("<html><p>not found, sorry</p></html>", "first line"),
     (LAYOUTS["2018"] + "\n", "no rows"), ("\0\1\2binary", "binary")],
)  # fmt: skip
def test_what_is_no_table_is_refused(tmp_path, content, told):
    assert told in refused(saved(tmp_path, "2018", content))
    assert "no such file" in refused(tmp_path / "cbp17co.txt")


def test_rows_repeated_word_for_word_are_dropped_and_counted(tmp_path):
    content = text("2018") + text("2018").splitlines()[2] + "\n"
    cells = read_cbp(saved(tmp_path, "2018", content))
    assert cells.frame.height == 4
    assert "1 rows that repeat" in cells.origins[0].notes[0]


# --- cells ----------------------------------------------------------------------------------


def test_cells_survive_writing_with_their_origins(tmp_path):
    years = [read_cbp(saved(tmp_path, year)) for year in ("2017", "2018")]
    cells = combine_cells(years)
    write_cells(cells, tmp_path / "cells.parquet")
    again = read_cells(tmp_path / "cells.parquet")
    assert again.frame.equals(cells.frame)
    assert again.origins == cells.origins
    assert [o.vintage for o in again.origins] == ["2017 county", "2018 county"]


def test_other_parquet_files_are_not_cells(tmp_path):
    pl.DataFrame({"region": ["a"]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(PanelError, match="without the mark"):
        read_cells(tmp_path / "x.parquet")
    with pytest.raises(PanelError, match="cannot be read"):
        read_cells(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("change", "told"),
    [({"value": 1.0}, "withheld cell with a value"), ({"lower": 99.0}, "bounds"), ({"upper": None}, "bounds"),
     ({"status": "hidden"}, "status"), ({"status": "observed"}, "without a value"),
     ({"year": None}, "empty"), ({"region": 1}, "not text"), ({"lower": -1.0}, "negative")],
)  # fmt: skip
def test_cells_refuse_what_would_be_read_wrongly(change, told):
    base = {"region": "01", "industry": "31", "year": 2018, "value": None, "lower": 0.0, "upper": 9.0,
            "status": "withheld", "flag_raw": "A", "establishments": 1.0, "payroll": None}  # fmt: skip
    with pytest.raises(PanelError, match=told):
        Cells(pl.DataFrame([base | change]), ())


def test_the_same_cell_of_two_files_is_refused(tmp_path):
    cells = read_cbp(saved(tmp_path, "2018"))
    with pytest.raises(PanelError, match="occurs twice"):
        combine_cells([cells, cells])


def test_leaves_of_a_file_are_its_deepest_rows(tmp_path):
    for year in ("1990", "2018"):
        kept = leaves(read_cbp(saved(tmp_path, year))).frame["industry"].to_list()
        assert len(kept) == 3
        assert not {"----", "------"} & {*kept}


def test_a_short_line_in_the_middle_is_refused(tmp_path):
    lines = text("2018").splitlines()
    lines[2] = lines[2][:-12]
    assert "line 3" in refused(saved(tmp_path, "2018", "\n".join(lines)))
