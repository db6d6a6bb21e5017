"""What the documents say works, and no file says what it must not."""

import re
import shlex
import subprocess
import sys
import zipfile
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
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PYTHON = re.compile(r"\bpython (?:-m (pytest|tests\.[\w.]+)|([\w/]+\.py))((?: [^`\n]*)?)")


def python_commands() -> list[tuple[Path, str, str, list[str]]]:
    """Document, module, script and further words of every command of this repository's Python."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        found += [
            (path, module, script, shlex.split(words))
            for module, script, words in PYTHON.findall(text)
        ]
    return found


def test_commands_name_what_exists():
    """Files of the tests that are to be run, and options that the scripts have."""
    commands = python_commands()
    assert len(commands) > 40
    for path, module, script, words in commands:
        told = f"{path.name}: {module or script} {' '.join(words)}"
        if module == "pytest":
            files = [word for word in words if word.startswith("tests/")]
            assert all((ROOT / name).exists() for name in files), told
            continue
        source = ROOT / (script or f"{module.replace('.', '/')}.py")
        assert source.is_file(), told
        text = source.read_text(encoding="utf-8")
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert all(f'"{option}"' in text for option in options), told


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


# --- the tutorial on raw files ----------------------------------------------------------------

TUTORIAL = ROOT / "docs" / "tutorial-raw-files.md"
CBP = (
    "fipstate,fipscty,naics,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n<5,n5_9,n10_19,n20_49,n50_99,"
    "n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4"
)


def tutorial_commands() -> list[list[str]]:
    """The words of each command of the package that the tutorial gives, in its order."""
    text = TUTORIAL.read_text(encoding="utf-8")
    found = "".join(re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    lines = found.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("spatialclusters ")]


@pytest.fixture(scope="module")
def raw_files(tmp_path_factory) -> Path:
    """What the tutorial starts from: two files of the Bureau, packed, and four tables."""
    gpd, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    folder, rng = tmp_path_factory.mktemp("tutorial"), np.random.default_rng(1)
    counties = [f"{state:02d}{county:03d}" for state in (17, 18) for county in range(1, 41, 2)]
    codes = {"Food": ["311811", "311812", "312120"], "Metal": ["332111", "332112", "332710"]}
    every = [code for own in codes.values() for code in own]
    (folder / "downloads").mkdir()
    level = rng.normal(5.0, 1.0, size=(len(counties), 6))
    for year in (18, 21):
        level += rng.normal(0.1, 0.2, size=level.shape)
        jobs = np.exp(level).round().astype(int)
        lines = [CBP]
        for county, row in zip(counties, jobs, strict=True):
            place = f"{county[:2]},{county[2:]}"
            cells = [("------", row.sum(), 60), ("31----", row.sum(), 60)]
            cells += [(code, n, 10) for code, n in zip(every, row, strict=True)]
            for code, n, count in cells:
                hidden = code[0] == "3" and n < 40  # small cells are withheld
                shown = "S,0,S,0,S,0" if hidden else f"G,{n},G,{n * 10},G,{n * 40}"
                lines.append(f"{place},{code},{shown},{count}" + ",N" * 13)
        with zipfile.ZipFile(folder / "downloads" / f"cbp{year}co.zip", "w") as archive:
            archive.writestr(f"cbp{year}co.txt", "\n".join(lines) + "\n")
    rows = [f"{code},Traded,{cluster}" for cluster, own in codes.items() for code in own]
    (folder / "traded.csv").write_text("\n".join(["industry,traded,cluster", *rows]) + "\n")
    areas = [f"{county},{number // 2 + 1}" for number, county in enumerate(counties)]
    (folder / "county_to_area.csv").write_text("\n".join(["county,economic_area", *areas]) + "\n")
    (folder / "linked_clusters.csv").write_text("cluster,linked_cluster\nFood,Metal\nMetal,Food\n")
    squares = [shapely.box(i % 5, i // 5, i % 5 + 1, i // 5 + 1) for i in range(20)]
    shapes = gpd.GeoDataFrame(
        {"region": [str(i + 1) for i in range(20)]}, geometry=squares, crs=3035
    )
    shapes.to_file(folder / "areas.geojson")
    return folder


def test_the_tutorial_runs_until_the_fit(raw_files, monkeypatch, capsys):
    monkeypatch.chdir(raw_files)
    commands = tutorial_commands()
    names = [" ".join(words[:2]) if words[0] == "data" else words[0] for words in commands]
    assert names == ["data cbp", "data check", "data build", "validate", "fit", "report"]
    for words in commands[:4]:
        assert main([*words, *(["--force"] if "-o" in words else [])]) == 0, words
    out, err = capsys.readouterr()
    assert "withheld" in err
    assert "Sample: " in out
    assert "(withheld-cells.md)" in TUTORIAL.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tutorial_ends_in_a_report(raw_files, monkeypatch):
    monkeypatch.chdir(raw_files)
    short = ["--draws", "50", "--tune", "50", "--chains", "1", "--force"]
    for words in tutorial_commands():
        name = words[0]
        more = short if name == "fit" else ["--force"] if "-o" in words else []
        assert main([*words, *more]) in ((0, 3) if name == "fit" else (0,)), words
    page = (raw_files / "report.html").read_text(encoding="utf-8")
    assert "cbp18co.zip" in page
    assert "What is withheld" in page
