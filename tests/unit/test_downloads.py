"""Downloads: whole or not at all, and never another content than before. Served on loopback."""

import gzip
import hashlib
import http.server
import io
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from spatialclusters.cli import main
from spatialclusters.errors import PanelError
from spatialclusters.sources import (
    cbp_file,
    download,
    download_folder,
    eurostat_file,
    qcew_file,
    read_cells,
)
from spatialclusters.sources.downloads import AGENCIES, AgencyFile

TEXT = """fipstate,fipscty,naics,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n<5,n5_9,n10_19,n20_49,n50_99,\
n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4
01,001,311811,G,36,G,9,G,90,3,N,N,3,N,N,N,N,N,N,N,N,N,N
"""
QCEW = """area_fips,own_code,industry_code,agglvl_code,size_code,year,qtr,disclosure_code,annual_avg_estabs,annual_avg_emplvl,total_annual_wages
01001,5,311811,78,0,2018,A,,3,30,900000
"""


def packed(name, text=TEXT):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


ZIP = packed("cbp18co.txt")
GOOD = hashlib.sha256(ZIP).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Answers ``replies[path]`` (status, body, length that it claims), and counts."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.asked, self.agents = {}, [], set()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.asked.append(self.path)
        self.server.agents.add(self.headers["User-Agent"])
        status, body, claimed = self.server.replies.get(path, (404, b"no", None))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server(monkeypatch):
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        for name in AGENCIES:
            monkeypatch.setitem(
                AGENCIES, name, f"http://127.0.0.1:{running.server_address[1]}/{name}"
            )
        running.replies["/cbp/2018/cbp18co.zip"] = (200, ZIP, None)
        yield running
        running.shutdown()
        thread.join()


def refused(*arguments, **options):
    with pytest.raises(PanelError) as caught:
        download(*arguments, **options)
    assert 0 < len(str(caught.value)) < 2_000
    return str(caught.value)


def test_the_first_download_is_trusted_and_recorded(server, tmp_path, caplog):
    got = download(cbp_file(2018), folder=tmp_path)
    assert (got.path, got.digest, got.trust) == (tmp_path / "cbp18co.zip", GOOD, "first use")
    assert got.path.read_bytes() == ZIP
    assert (tmp_path / "cbp18co.zip.sha256").read_text() == f"{GOOD}  cbp18co.zip\n"
    assert "nothing vouches" in caplog.text
    assert GOOD in caplog.text
    assert "nothing vouches" in got.describe()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cbp18co.zip", "cbp18co.zip.sha256"]
    (agent,) = server.agents  # one of these agencies refuses requests that do not say who asks
    assert agent.startswith("spatialclusters/")


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path, caplog):
    download(cbp_file(2018), folder=tmp_path)
    server.replies.clear()
    caplog.clear()
    again = download(cbp_file(2018), folder=tmp_path)
    assert again.trust == "recorded"
    assert not caplog.text
    assert len(server.asked) == 1


def test_offline_from_a_folder(tmp_path):
    (tmp_path / "cbp18co.zip").write_bytes(ZIP)  # by hand; no server is running
    assert download(cbp_file(2018), folder=tmp_path).trust == "first use"
    assert download(cbp_file(2018), folder=tmp_path).trust == "recorded"
    assert download(cbp_file(2018), folder=tmp_path, sha256=GOOD.upper()).trust == "given"


def test_a_stated_digest_is_checked(server, tmp_path):
    got = download(cbp_file(2018), folder=tmp_path, sha256=GOOD)
    assert got.trust == "given"
    other = "1" * 64
    message = refused(cbp_file(2018), folder=tmp_path, sha256=other)
    assert GOOD in message
    assert other in message


def test_a_wrong_digest_leaves_nothing(server, tmp_path):
    other = "1" * 64
    message = refused(cbp_file(2018), folder=tmp_path, sha256=other)
    assert GOOD in message
    assert other in message
    assert not [*tmp_path.iterdir()]


def test_a_revised_file_is_not_taken_for_the_old_one(server, tmp_path):
    download(cbp_file(2018), folder=tmp_path)
    (tmp_path / "cbp18co.zip").unlink()
    newer = packed("cbp18co.txt", TEXT.replace("36", "37"))
    server.replies["/cbp/2018/cbp18co.zip"] = (200, newer, None)
    message = refused(cbp_file(2018), folder=tmp_path)
    assert GOOD in message
    assert hashlib.sha256(newer).hexdigest() in message
    assert "revised" in message
    assert [p.name for p in tmp_path.iterdir()] == ["cbp18co.zip.sha256"]
    (tmp_path / "cbp18co.zip.sha256").unlink()
    assert download(cbp_file(2018), folder=tmp_path).trust == "first use"


def test_a_file_that_was_changed_in_the_folder_is_refused(server, tmp_path):
    path = download(cbp_file(2018), folder=tmp_path).path
    path.write_bytes(ZIP[:-5])
    message = refused(cbp_file(2018), folder=tmp_path)
    assert GOOD in message
    assert hashlib.sha256(ZIP[:-5]).hexdigest() in message


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((200, ZIP[:-100], len(ZIP)), "no whole file"),  # the connection breaks
        ((404, b"no such file", None), "404"),
        ((503, b"busy", None), "503"),
        ((200, b"<html>We have moved</html>", None), "archive"),
    ],
)
def test_what_is_not_the_whole_file_is_never_kept(server, tmp_path, reply, told):
    server.replies["/cbp/2018/cbp18co.zip"] = reply
    assert told in refused(cbp_file(2018), folder=tmp_path)
    assert not [*tmp_path.iterdir()]


def test_without_a_server_the_message_says_what_to_do(tmp_path):
    gone = AgencyFile("http://127.0.0.1:9/cbp18co.zip", "cbp18co.zip")  # nobody listens there
    message = refused(gone, folder=tmp_path)
    assert "by hand" in message
    assert str(tmp_path) in message
    assert not [*tmp_path.iterdir()]


def test_any_address_can_be_downloaded(server, tmp_path):
    server.replies["/mine/clusters.csv"] = (200, b"industry,cluster\n", None)
    port = server.server_address[1]
    got = download(f"http://127.0.0.1:{port}/mine/clusters.csv?x=1", folder=tmp_path)
    assert got.path.name == "clusters.csv"


@pytest.mark.parametrize(
    ("file", "options", "told"),
    [
        ("file:///etc/hosts.zip", {}, "http://"),
        ("https:///x.zip", {}, "http://"),
        ("http://127.0.0.1:9/", {}, "name of a file"),
        (AgencyFile("http://127.0.0.1:9/x.zip", "../x.zip"), {}, "name of a file"),
        (AgencyFile("http://127.0.0.1:9/x.zip", ".x.zip"), {}, "name of a file"),
        ("http://127.0.0.1:9/x.zip", {"sha256": "abc"}, "64 hexadecimal"),
    ],
)
def test_addresses_that_cannot_be_meant_are_refused(tmp_path, file, options, told):
    assert told in refused(file, folder=tmp_path, **options)


def test_a_record_without_a_digest_is_refused(tmp_path):
    (tmp_path / "cbp18co.zip").write_bytes(ZIP)
    (tmp_path / "cbp18co.zip.sha256").write_text("cbp18co.zip\n")
    assert "without a SHA-256" in refused(cbp_file(2018), folder=tmp_path)


def test_names_and_addresses_of_the_agencies_files():
    assert cbp_file(1999, geography="msa").name == "cbp99msa.zip"
    assert cbp_file(2008, geography="nation").name == "cbp08us.zip"
    assert cbp_file(1986, geography="state").url.endswith("/datasets/1986/cbp86st.zip")
    assert qcew_file(2018).url.endswith("/files/2018/csv/2018_annual_singlefile.zip")
    assert qcew_file(1988, system="sic").url.endswith(
        "/1988/sic/csv/sic_1988_annual_singlefile.zip"
    )
    assert eurostat_file("SBS_R_NUTS2021").url.endswith(
        "/data/sbs_r_nuts2021?format=TSV&compressed=true"
    )
    for call, told in (
        (lambda: cbp_file(18), "from 1986"),
        (lambda: cbp_file(2018, geography="zip"), "geography"),
        (lambda: qcew_file(1989), "from 1990"),
        (lambda: qcew_file(2001, system="sic"), "1975 to 2000"),
        (lambda: qcew_file(2001, system="isic"), "'sic'"),
        (lambda: eurostat_file("../x"), "code of a table"),
    ):
        with pytest.raises(PanelError, match=told):
            call()


def test_the_folder_is_named_by_the_environment_or_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIALCLUSTERS_DOWNLOADS", str(tmp_path))
    assert download_folder() == tmp_path
    monkeypatch.delenv("SPATIALCLUSTERS_DOWNLOADS")
    assert download_folder().name == "spatialclusters"


def test_importing_the_sources_loads_no_downloader():
    code = (
        "import sys, spatialclusters.sources;"
        "assert not {'pooch', 'requests', 'urllib3'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the command line -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALCLUSTERS_DOWNLOADS", str(tmp_path / "downloads"))
    return tmp_path


def test_census_files_from_the_agency_to_cells(server, folder, capsys):
    later = packed("cbp21co.txt", TEXT.replace("36", "40"))
    server.replies["/cbp/2021/cbp21co.zip"] = (200, later, None)
    words = ["data", "cbp", "--download", "2018", "--download", "2021", "-o", "cells.parquet"]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert GOOD in err
    assert "cbp21co.zip: http://127.0.0.1" in err
    cells = read_cells("cells.parquet")
    assert cells.frame["value"].to_list() == [36.0, 40.0]
    assert cells.origins[0].digest == GOOD
    assert "/cbp/2018/cbp18co.zip" in cells.origins[0].notes[-1]
    server.replies.clear()  # and now without the agency
    assert main([*words, "--force", "--sha256", f"cbp18co.zip={GOOD}"]) == 0
    assert len(server.asked) == 2
    assert "that was stated" in read_cells("cells.parquet").origins[0].notes[-1]
    assert main([*words, "--force", "--sha256", f"cbp18co.zip={'2' * 64}"]) == 2
    assert GOOD in capsys.readouterr().err


def test_other_agencies(server, folder):
    server.replies["/qcew/2018/csv/2018_annual_singlefile.zip"] = (200, packed("q.csv", QCEW), None)
    assert main(["data", "qcew", "--download", "2018", "-o", "q.parquet"]) == 0
    assert read_cells("q.parquet").frame["value"].to_list() == [30.0]
    table = gzip.compress(b"nace_r2,geo\\TIME_PERIOD\t2021 \nC10,AT11\t5 b\n")
    server.replies["/eurostat/sbs_x"] = (200, table, None)
    words = ["data", "eurostat", "--download", "sbs_x", "--nuts-year", "2021", "-o", "e.parquet"]
    assert main(words) == 0
    assert read_cells("e.parquet").frame["value"].to_list() == [5.0]
    assert server.asked[-1] == "/eurostat/sbs_x?format=TSV&compressed=true"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "x.parquet"], "no files"),
        (["--download", "2019", "-o", "x.parquet"], "404"),
        (["--download", "2018", "-o", "x.parquet", "--sha256", "abc"], "FILE=DIGEST"),
        (["--download", "2018", "-o", "x.parquet", "--sha256", "cbp19co.zip=1"], "'cbp18co.zip'"),
        (["--download", "2018", "-o", "x.parquet", "--year", "2018"], "--year"),
    ],
)
def test_refusals_write_nothing(server, folder, capsys, words, told):
    assert main(["data", "cbp", *words]) == 2
    assert told in capsys.readouterr().err
    assert not Path("x.parquet").exists()


def test_a_file_of_ones_own_must_have_the_stated_digest(folder, capsys):
    Path("cbp18co.txt").write_text(TEXT)
    words = ["data", "cbp", "cbp18co.txt", "-o", "x.parquet", "--sha256"]
    assert main([*words, f"cbp18co.txt={'3' * 64}"]) == 2
    assert "SHA-256" in capsys.readouterr().err
    good = hashlib.sha256(TEXT.encode()).hexdigest()
    assert main([*words, f"cbp18co.txt={good}"]) == 0
