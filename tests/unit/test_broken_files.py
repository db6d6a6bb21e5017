"""What happens to files on their way: every reader reads it rightly, or says what is wrong."""

import gzip
import hashlib
import io
import zipfile
from functools import partial

import pandas as pd
import pytest

from spatialclusters.errors import PanelError
from spatialclusters.sources import (
    convert_cells,
    read_cbp,
    read_cell_table,
    read_clusters,
    read_concordance,
    read_efsy,
    read_eurostat,
    read_qcew,
    read_region_map,
    to_panel,
)

CLASSES = (
    "n5_9,n10_19,n20_49,n50_99,n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4"
)
CBP = f"""fipstate,fipscty,naics,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n<5,{CLASSES}
01,001,------,G,24,G,9,G,90,3,2,1,0,0,0,0,0,0,0,0,0,0,0
01,001,311811,G,24,G,9,G,90,3,2,1,0,0,0,0,0,0,0,0,0,0,0
01,003,311811,S,0,S,0,S,0,3,3,N,N,N,N,N,N,N,N,N,N,N,N
"""
CBP_SIC = f"""fipstate,fipscty,sic,empflag,emp,qp1,ap,est,n1_4,{CLASSES},censtate,cencty
01,001,----,,24,9,90,3,2,1,0,0,0,0,0,0,0,0,0,0,0,63,1
01,001,0711,,24,9,90,3,2,1,0,0,0,0,0,0,0,0,0,0,0,63,1
"""
KEYS = "area_fips,own_code,industry_code,agglvl_code,size_code,year,qtr,disclosure_code"
QCEW = f"""{KEYS},annual_avg_estabs,annual_avg_emplvl,total_annual_wages
"01001","5","10","71","0","2018","A","",9,90,900000
"01001","5","311","75","0","2018","A","N",2,0,0
"""
QCEW_SIC = f"""{KEYS},annual_avg_estabs_count,annual_avg_emplvl,total_annual_wages
"01001","5","SIC_0Z","27","0","1990","A","",9,90,900000
"01001","5","SIC_0D20","29","0","1990","A","",2,30,300000
"""
EUROSTAT = "freq,nace_r2,geo\\TIME_PERIOD\t2021 \t2022 \nA,C10,AT11\t5 b\t: c\nA,C11,AT11\t1 \t2 \n"
EFSY = "v1,fipstate,fipscty,naics12,emp,year\n1,1,1,311811,4.5,2010\n2,6,37,311811,9,2010\n"

# reader, its text, and a name of a file as the agency would give it
READERS = {
    "cbp": (read_cbp, CBP, "cbp18co.txt"),
    "cbp by sic": (read_cbp, CBP_SIC, "cbp90co.txt"),
    "qcew": (read_qcew, QCEW, "2018_annual_singlefile.csv"),
    "qcew by sic": (read_qcew, QCEW_SIC, "sic_1990_annual_singlefile.csv"),
    "eurostat": (partial(read_eurostat, nuts_year=2021), EUROSTAT, "sbs_r_nuts2021.tsv"),
    "efsy": (read_efsy, EFSY, "efsy_panel_naics.csv"),
}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


def refused(read, path, **options):
    with pytest.raises(PanelError) as caught:
        read(path, **options)
    assert 0 < len(str(caught.value)) < 2_000
    return str(caught.value)


def saved(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def packed(text, name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return buffer.getvalue()


@pytest.mark.parametrize("fault", ["bom", "windows", "no last line end", "zip", "gzip"])
def test_what_changes_no_number_is_read_as_the_file_was_sent(tmp_path, reader, fault):
    read, text, name = reader
    plain = text.encode()
    expected = read(saved(tmp_path, name, plain)).frame
    content = {
        "bom": b"\xef\xbb\xbf" + plain,
        "windows": plain.replace(b"\n", b"\r\n"),
        "no last line end": plain.rstrip(b"\n"),
        "zip": packed(text, name),
        "gzip": gzip.compress(plain),
    }[fault]
    (tmp_path / "there").mkdir()
    assert read(saved(tmp_path / "there", name, content)).frame.equals(expected)


def test_latin_1_text_beside_the_numbers_is_no_obstacle(tmp_path, reader):
    read, text, name = reader
    if "\t" in text:  # all of a TSV file of Eurostat is codes: a letter that is none is refused
        broken = text.replace("AT11", "ATÑ1").encode("latin-1")
        assert read(saved(tmp_path, name, broken)).frame["region"].n_unique() == 1
        return
    lines = text.splitlines()
    named = [f"{lines[0]},area_name", *(f"{line},Do\xf1a Ana" for line in lines[1:])]
    expected = read(saved(tmp_path, name, text.encode())).frame
    latin = saved(tmp_path, name, "\n".join(named).encode("latin-1"))
    assert read(latin).frame.equals(expected)


@pytest.mark.parametrize("kind", ["text", "zip", "gzip"])
def test_a_truncated_file_is_refused(tmp_path, reader, kind):
    read, text, name = reader
    content = {
        "text": text.encode(),
        "zip": packed(text * 1, name),
        "gzip": gzip.compress(text.encode()),
    }
    whole = content[kind]
    cut = whole[: int(0.9 * len(whole))] if kind == "text" else whole[:-20]
    message = refused(read, saved(tmp_path, name, cut))
    assert "cut off" in message or "truncated" in message


def test_another_digest_is_refused_and_both_are_named(tmp_path, reader):
    read, text, name = reader
    path = saved(tmp_path, name, text.encode())
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert read(path, sha256=digest).origins[0].digest == digest
    message = refused(read, path, sha256="4" * 64)
    assert digest in message
    assert "4" * 64 in message


@pytest.mark.parametrize(
    ("read", "text", "name", "told"),
    [
        (read_cbp, CBP, "cbp17co.txt", "2017"),
        (read_cbp, CBP, "cbp97co.txt", "another vintage"),
        (read_cbp, CBP_SIC, "cbp18co.txt", "another vintage"),
        (read_qcew, QCEW.replace("2018", "2031"), "x.csv", "regime="),
        (read_qcew, QCEW_SIC.replace("1990", "2001"), "x.csv", "regime="),
        (read_qcew, QCEW.replace('"A"', '"1"'), "x.csv", "annual"),
        (partial(read_eurostat, nuts_year=2017), EUROSTAT, "x.tsv", "nuts_year"),
        (partial(read_eurostat, nuts_year=2021), EUROSTAT.replace("2022", "2041"), "x.tsv", "regime="),
        (read_efsy, EFSY.replace("2010", "2022"), "x.csv", "1975 to 2018"),
        (read_efsy, EFSY.replace("naics12", "naics"), "x.csv", "harmonized"),
    ],
)  # fmt: skip
def test_a_file_of_another_vintage_is_refused(tmp_path, read, text, name, told):
    assert told in refused(read, saved(tmp_path, name, text.encode()))


# --- codes that a spreadsheet took for numbers -----------------------------------------------


@pytest.mark.parametrize(
    ("read", "text", "name", "told"),
    [
        (read_cbp, CBP.replace("01,001,3", "1,1,3"), "cbp18co.txt", "leading zeros"),
        (read_cbp, CBP_SIC.replace("0711", "711"), "cbp90co.txt", "spreadsheet"),
        (read_cbp, CBP.replace("311811", "311811.0"), "cbp18co.txt", "spreadsheet"),
        (read_qcew, QCEW.replace('"01001"', "1001"), "x.csv", "leading zeros"),
        (read_qcew, QCEW_SIC.replace('"01001"', "1001"), "x.csv", "leading zeros"),
        (read_qcew, QCEW.replace('"311"', "311.0"), "x.csv", "not codes"),
    ],
)  # fmt: skip
def test_codes_without_their_zeros_are_refused(tmp_path, read, text, name, told):
    assert told in refused(read, saved(tmp_path, name, text.encode()))


FOOD = pd.DataFrame({"industry": ["311811"], "cluster": ["Food"]})
TIDY = pd.DataFrame(
    {"region": ["01001"], "industry": ["311811"], "year": [2018], "employment": [4.0]}
)


def test_frames_with_numbers_as_codes_are_refused():
    for call in (
        lambda: read_clusters(FOOD.assign(industry=[311811])),
        lambda: read_region_map(
            pd.DataFrame({"county": [1001], "area": ["7"]}), region="county", area="area"
        ),
        lambda: read_concordance(
            pd.DataFrame({"old": [1], "new": ["a"]}), name="v1", code="old", target="new"
        ),
        lambda: read_cell_table(TIDY.assign(region=[1001]), classification="NAICS 2017"),
        lambda: read_cell_table(TIDY.assign(industry=[311811]), classification="NAICS 2017"),
    ):
        with pytest.raises(PanelError, match="text"):
            call()


def test_tables_whose_text_lost_its_zeros_are_found_where_they_are_used(tmp_path):
    cells = read_cell_table(TIDY, classification="NAICS 2017")
    areas = saved(tmp_path, "areas.csv", b"county,area\n1001,7\n")
    with pytest.raises(PanelError, match="leading zeros"):
        to_panel(cells, read_clusters(FOOD), read_region_map(areas, region="county", area="area"))
    moved = saved(tmp_path, "moved.csv", b"code,target\n1001,01003\n")
    bridge = read_concordance(moved, name="v1", code="code", target="target")
    with pytest.raises(PanelError, match="leading zeros"):
        convert_cells(cells, bridge, along="region")
    # where other codes may be left alone, one that is the same but for its zeros may not
    with pytest.raises(PanelError, match="leading zeros"):
        convert_cells(cells, bridge, along="region", unlisted="keep")


@pytest.mark.parametrize("fault", ["bom", "windows"])
def test_tables_of_ones_own(tmp_path, fault):
    for frame, read in (
        (FOOD, lambda path: read_clusters(path).frame),
        (TIDY, lambda path: read_cell_table(path, classification="NAICS 2017").frame),
    ):
        text = frame.to_csv(index=False).encode()
        plain = saved(tmp_path, "plain.csv", text)
        other = b"\xef\xbb\xbf" + text if fault == "bom" else text.replace(b"\n", b"\r\n")
        assert read(saved(tmp_path, "other.csv", other)).equals(read(plain))


def test_latin_1_in_tables_of_ones_own_is_read_or_refused(tmp_path):
    text = "industry,cluster\n311811,Pa\xefn\n".encode("latin-1")
    found = read_clusters(saved(tmp_path, "clusters.csv", text)).frame["group"][0]
    assert found.startswith("Pa")  # the letter is marked as unreadable, the code is whole
    tidy = "region,industry,year,employment,name\n01001,311811,2018,4,Do\xf1a\n".encode("latin-1")
    message = refused(
        partial(read_cell_table, classification="NAICS 2017"), saved(tmp_path, "tidy.csv", tidy)
    )
    assert "Save it as UTF-8" in message
