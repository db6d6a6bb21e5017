"""What the documents say works, and no file says what it must not."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spatialclusters.cli import main
from spatialclusters.cli.commands import app, models_app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# in pieces, or this file would say it
FORBIDDEN = ("py" + "pi", "python" + "hosted", "anaconda" + ".org", "/wo" + "rk/", "/tm" + "p/w")


def text_files() -> list[Path]:
    """Return what is committed, or will be; without git, everything but hidden folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        paths = [path for path in ROOT.rglob("*") if "/." not in str(path.relative_to(ROOT))]
    binary = {".png", ".nc", ".parquet", ".npz", ".pyc"}
    return [path for path in paths if path.is_file() and path.suffix not in binary]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def shell_commands() -> list[str]:
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines]


def test_no_file_says_what_it_must_not():
    files = text_files()
    assert len(files) > 40
    for path in files:
        text = path.read_text(encoding="utf-8").lower()
        found = [word for word in FORBIDDEN if word in text]
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_links_lead_somewhere():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_readme_commands_are_those_that_ci_runs():
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip(".ci/run is not here: this is not the repository")
    ran = [line.replace(" -q ", " ") for line in script.read_text(encoding="utf-8").splitlines()]
    demo, tests = [line for line in shell_commands() if line.startswith("python3 -m venv")]
    assert tests in ran
    assert demo.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . &&")
    assert demo.endswith("spatialclusters demo")
    assert any("spatialclusters demo" in line for line in ran)


def test_readme_names_every_command():
    names = [each.name or each.callback.__name__ for each in app.registered_commands]
    assert len(names) > 8
    for name in (*names, "models"):
        assert f"`{name}" in README, name
    assert [each.name for each in models_app.registered_commands] == ["show"]


@pytest.fixture(scope="module")
def given_files(tmp_path_factory) -> Path:
    """The files that the README's script reads: 30 regions, 3 clusters of 3 industries."""
    gpd, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    folder, rng = tmp_path_factory.mktemp("readme"), np.random.default_rng(1)
    regions, industries = [f"{i:02d}" for i in range(30)], [f"i{k}" for k in range(9)]
    table = pd.MultiIndex.from_product([regions, industries], names=["region", "industry"])
    table = table.to_frame(index=False)
    table["cluster"] = table["industry"].map({f"i{k}": "abc"[k // 3] for k in range(9)})
    start = np.exp(rng.normal(5.0, 1.0, len(table))).round()
    table["employment_start"] = start
    table["employment_end"] = start * np.exp(
        rng.normal(0.3, 0.2, len(table)) - 0.05 * np.log(start)
    )
    table.to_parquet(folder / "employment.parquet")
    squares = [shapely.box(i % 6, i // 6, i % 6 + 1, i // 6 + 1) for i in range(30)]
    shapes = gpd.GeoDataFrame({"region": regions}, geometry=squares, crs=3035)
    shapes.to_file(folder / "regions.geojson")
    links = pd.DataFrame(
        [("a", "b"), ("b", "a"), ("c", "a")], columns=["cluster", "linked_cluster"]
    )
    links.to_csv(folder / "linked_clusters.csv", index=False)
    return folder


def test_readme_validates(given_files, monkeypatch, capsys):
    monkeypatch.chdir(given_files)
    (command,) = [line for line in shell_commands() if line.startswith("spatialclusters validate")]
    assert main(shlex.split(command)[1:]) == 0
    assert "Sample: 270 rows in 30 regions" in capsys.readouterr().out


@pytest.mark.slow
def test_readme_script_runs_as_printed(given_files):
    (script,) = blocks("python")
    shorten = (
        "import functools, sys, spatialclusters as sc\n"
        "sc.fit = functools.partial(sc.fit, draws=50, tune=50, chains=1, progress=False)\n"
        "exec(compile(sys.argv[1], 'README.md', 'exec'), {'__name__': '__main__'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", shorten, script],
        cwd=given_files, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Sampling:" in done.stdout
    assert (given_files / "employment_growth.nc").is_file()
    assert "<html" in (given_files / "employment_growth.html").read_text(encoding="utf-8")
