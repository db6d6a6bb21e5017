"""`spatialclusters data`: from the agency's file to what `--data` takes."""

import subprocess
import sys

import pandas as pd
import pytest

from spatialclusters.cli import main
from spatialclusters.panel import read_panel
from spatialclusters.sources import read_cells

CBP = """fipstate,fipscty,naics,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n<5,n5_9,n10_19,n20_49,n50_99,\
n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4
01,001,------,G,{total},G,9,G,90,7,N,N,N,N,N,N,N,N,N,N,N,N,N
01,001,311811,G,{emp},G,9,G,90,3,N,N,3,N,N,N,N,N,N,N,N,N,N
01,003,311811,S,0,S,0,S,0,4,4,N,N,N,N,N,N,N,N,N,N,N,N
"""
QCEW = """area_fips,own_code,industry_code,agglvl_code,size_code,year,qtr,disclosure_code,annual_avg_estabs,annual_avg_emplvl,total_annual_wages
01001,5,311811,78,0,2018,A,,3,30,900000
"""
EUROSTAT = (
    "nace_r2,indic_sbs,geo\\TIME_PERIOD\t2021 \nC10,EMP_LOC_NR,AT11\t5 b\nC10,LOC_NR,AT11\t1 \n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cbp18co.txt").write_text(CBP.format(emp=36, total=50))
    (tmp_path / "cbp21co.txt").write_text(CBP.format(emp=40, total=30))
    (tmp_path / "qcew.csv").write_text(QCEW)
    (tmp_path / "sbs.tsv").write_text(EUROSTAT)
    (tmp_path / "clusters.csv").write_text("naics,cluster\n311811,Food\n")
    (tmp_path / "areas.csv").write_text("county,ea\n01001,7\n01003,7\n")
    return tmp_path


def test_from_census_files_to_a_panel(folder, capsys):
    assert main(["data", "cbp", "cbp18co.txt", "cbp21co.txt", "-o", "cells.parquet"]) == 0
    out, err = capsys.readouterr()
    assert "Saved cells.parquet" in out
    assert "cbp18co.txt: cbp 2018 county, NAICS 2017" in err
    words = ["data", "build", "cells.parquet", "-o", "panel.parquet", "--clusters", "clusters.csv"]
    words += [
        "--areas",
        "areas.csv",
        "--map",
        "industry=naics",
        "--map",
        "region=county",
        "--map",
        "area=ea",
    ]
    assert main(words) == 0
    assert "2 rows, 1 regions" in capsys.readouterr().out
    panel = read_panel(folder / "panel.parquet")
    assert panel.cell_counts("employment", "2018")["withheld"] == 1
    assert float(panel.values("employment_upper", "2018").sum()) == 36 + 16
    # where it comes from travels with it
    assert [o["file"] for o in panel.provenance["origins"]] == ["cbp18co.txt", "cbp21co.txt"]
    assert any("withheld" in note for note in panel.provenance["notes"])
    assert main([*words, "--ends", "2018", "2021", "--force"]) == 0
    assert "employment_start" in pd.read_parquet(folder / "panel.parquet").columns


OLDER = """fipstate,fipscty,naics,empflag,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n1_4,n5_9,n10_19,n20_49,n50_99,\
n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4,censtate,cencty
46,113,------,,G,50,G,9,G,90,7,0,0,3,4,0,0,0,0,0,0,0,0,0,46,113
46,113,311812,,G,30,G,9,G,90,3,0,0,3,0,0,0,0,0,0,0,0,0,0,46,113
46,113,312120,B,D,0,D,0,D,0,4,0,0,4,0,0,0,0,0,0,0,0,0,0,46,113
"""


def test_years_of_different_classifications_and_codes_become_one_panel(folder, capsys):
    (folder / "cbp12co.txt").write_text(OLDER)
    newer = CBP.format(emp=36, total=50).replace("01,001,", "46,102,")
    (folder / "cbp18co.txt").write_text(newer)
    (folder / "bridge.csv").write_text(
        "naics12,naics17,share\n311812,311811,0.5\n311812,311999,0.5\n312120,312120,1\n"
    )
    (folder / "moved.csv").write_text("code,target\n01003,01009\n")
    for year in ("12", "18"):
        assert main(["data", "cbp", f"cbp{year}co.txt", "-o", f"{year}.parquet"]) == 0
    words = [
        "data",
        "build",
        "12.parquet",
        "18.parquet",
        "-o",
        "panel.parquet",
        "--clusters",
        "clusters.csv",
    ]
    words += ["--map", "industry=naics", "--ends", "2012", "2018"]
    assert main(words) == 2
    assert "concordance" in capsys.readouterr().err
    words += [
        "--tighten",
        "--recode",
        "--concordance",
        "bridge.csv",
        "--from",
        "NAICS 2012",
        "--to",
        "NAICS 2017",
    ]
    words += ["--map", "code=naics12", "--map", "target=naics17", "--map", "weight=share"]
    words += ["--region-concordance", "moved.csv"]
    assert main(words) == 0
    table = pd.read_parquet("panel.parquet").set_index("region")
    assert table.loc["46102", ["employment_start", "employment_end"]].tolist() == [15.0, 36.0]
    assert "01009" in table.index
    told = str(read_panel(folder / "panel.parquet").provenance["origins"])
    for step in (
        "tightened",
        "46113 is 46102",
        "converted by bridge.csv",
        "converted by moved.csv",
    ):
        assert step in told
    assert main([*words, "--force", "--complete"]) == 2
    assert "no row" in capsys.readouterr().err
    assert main([*words[:10], "--force", "--concordance", "bridge.csv"]) == 2
    assert "--from" in capsys.readouterr().err


def test_check_names_parts_that_exceed_their_total(folder, capsys):
    assert main(["data", "cbp", "cbp18co.txt", "-o", "a.parquet"]) == 0
    assert main(["data", "cbp", "cbp21co.txt", "-o", "b.parquet"]) == 0
    capsys.readouterr()
    assert main(["data", "check", "a.parquet"]) == 0
    assert "exceed" not in capsys.readouterr().err
    assert main(["data", "check", "a.parquet", "b.parquet", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("year,level,regions,industries,observed,withheld")
    assert "1 regions and years" in err


def test_other_sources(folder, capsys):
    assert main(["data", "qcew", "qcew.csv", "-o", "q.parquet"]) == 0
    assert read_cells("q.parquet").frame["value"].to_list() == [30.0]
    words = ["data", "eurostat", "sbs.tsv", "-o", "e.parquet", "--nuts-year", "2021"]
    assert main(words) == 2
    assert "indic_sbs" in capsys.readouterr().err
    assert main([*words, "--where", "indic_sbs=EMP_LOC_NR"]) == 0
    assert read_cells("e.parquet").frame["value"].to_list() == [5.0]


def test_an_imputed_panel(folder, capsys):
    rows = "fipstate,fipscty,naics12,emp,year\n1,1,311811,4.5,2010\n1,1,311811,5,2012\n"
    (folder / "efsy.csv").write_text(rows)
    assert main(["data", "efsy", "efsy.csv", "--year", "2012", "-o", "i.parquet"]) == 0
    assert read_cells("i.parquet").frame["value"].to_list() == [5.0]
    assert "not marked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cbp", "none18co.txt", "-o", "x.parquet"], "no such file"),
        (["cbp", "cbp18co.txt", "-o", "clusters.csv"], "existing file"),
        (["cbp", "cbp18co.txt", "cbp21co.txt", "--year", "2018", "-o", "x.parquet"], "--year"),
        (["cbp", "cbp18co.txt", "cbp18co.txt", "-o", "x.parquet"], "occurs twice"),
        (["check", "clusters.csv"], "cannot be read"),
        (
            ["build", "clusters.csv", "--clusters", "clusters.csv", "-o", "x.parquet"],
            "cannot be read",
        ),
    ],
)
def test_refusals_exit_2_and_write_nothing(folder, capsys, words, told):
    before = sorted(folder.iterdir())
    assert main(["data", *words]) == 2
    assert told in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from spatialclusters.cli import main; main(['data', 'cbp', '--help']);"
        "assert not {'pandas', 'numpy', 'polars', 'pymc'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
