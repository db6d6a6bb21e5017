"""The demo writes fits, reports and the truth beside its posterior, and overwrites nothing."""

import pytest

import spatialclusters as sc
from spatialclusters import demo
from spatialclusters.cli import main
from spatialclusters.demo import FOLDER, TRUTH_FILE, choose_folder, read_truth, truth_table
from spatialclusters.errors import FitError
from spatialclusters.parameters import sd_names


def test_default_folders_are_new(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        folder = choose_folder()
        folder.mkdir()
        names.append(str(folder))
    assert names == [FOLDER, f"{FOLDER}-2", f"{FOLDER}-3"]


def test_a_chosen_folder_must_be_empty(capsys, tmp_path):
    assert choose_folder(tmp_path) == tmp_path
    (tmp_path / "file").write_text("precious")
    for wanted in (tmp_path, tmp_path / "file"):
        with pytest.raises(FitError, match="expected a new one"):
            choose_folder(wanted)
        assert main(["demo", "-o", str(wanted)]) == 2
    assert capsys.readouterr().out == ""
    with pytest.raises(FitError, match="cannot be made"):
        demo.run_demo(tmp_path / "file" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_the_demo(capsys, tmp_path):
    folder = tmp_path / "out"
    words = ["demo", "-o", str(folder), "--draws", "50", "--tune", "50", "--chains", "1", "-q"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert sorted(path.name for path in folder.iterdir()) == [
        "simulated_economy.html",
        "simulated_economy.nc",
        TRUTH_FILE,
        "us_income.html",
        "us_income.nc",
    ]
    for name in ("simulated_economy.html", "us_income.html"):
        assert f"  {folder / name}" in printed.out.splitlines()
        assert b"<html" in (folder / name).read_bytes()
    assert "SIMULATED" in (folder / "simulated_economy.html").read_text(encoding="utf-8")
    assert "log(neighbor_strength)" in printed.out
    assert "of 16 intervals hold the truth" in printed.out
    check_truth(folder)
    assert main(words) == 2


def check_truth(folder) -> None:
    """Every row of the table is the truth of its own term."""
    economy, fit = sc.simulated_economy(), sc.load_fit(folder / "simulated_economy.nc")
    table = truth_table(fit, economy).set_index("term")
    assert (
        table["truth"].to_dict()
        == read_truth(folder / TRUTH_FILE).set_index("term")["truth"].to_dict()
    )
    for term, value in zip(fit.design.terms, economy.truth["coefficient"], strict=True):
        assert table["truth"][term] == value
    for name in ("intercept", "sigma", "size.share", "size.power"):
        assert table["truth"][name] == economy.truth[name]
    (cluster,) = [group for group in fit.design.groups if group.name == "cluster"]
    assert len(sd_names(cluster)) == 2
    assert table["truth"]["sd(cluster)"] == economy.truth["sd(cluster)"][0]
    assert table["truth"]["sd(cluster) [log(cluster_level)]"] == economy.truth["sd(cluster)"][1]
