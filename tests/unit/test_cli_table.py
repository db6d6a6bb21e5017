"""`spatialclusters table`: every format, on standard output or in a file, and what it refuses."""

import subprocess
import sys

import pytest

import spatialclusters as sc
from spatialclusters.cli import main
from spatialclusters.regression_tables.table import FORMATS
from tests.unit.test_cli import made_up_fit, refused


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return made_up_fit().save(tmp_path_factory.mktemp("fits") / "states.nc")


def run(capsys, *words):
    assert main(["table", *map(str, words)]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("style", "method"),
    [(None, "to_text"), ("text", "to_text"), ("markdown", "to_markdown"), ("html", "to_html"),
     ("latex", "to_latex")],
)  # fmt: skip
def test_formats_on_standard_output(saved, capsys, style, method):
    printed = run(capsys, saved, *([] if style is None else ["--format", style]))
    made = getattr(sc.regression_table(sc.load_fit(saved)), method)()
    assert printed.out.rstrip("\n") == made.rstrip("\n")
    assert printed.err == ""


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_go_by_their_suffix(saved, capsys, tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    printed = run(
        capsys, saved, saved, "--frequentist", "-o", path, "--title", "States", "--digits", "3",
        "--label", "log(income)=Income, log=1929", "--column", "A", "--column", "B",
        "--column", "=C", "--effect", "coefficient", "--effect", "speed",
    )  # fmt: skip
    assert printed.out == f"{path}\n"
    assert "OLS pools all rows" in printed.err
    fit = sc.load_fit(saved)
    table = sc.regression_table(
        fit, fit, sc.fit_frequentist(fit), labels={"log(income)": "Income, log=1929"},
        columns=["A", "B", "=C"], effects=["coefficient", "speed"], title="States", digits=3,
    )  # fmt: skip
    assert path.read_bytes() == table.save(tmp_path / f"same{suffix}").read_bytes()


def test_leave_one_out_and_maximum_likelihood(saved, capsys):
    printed = run(capsys, saved, "--spatial-ml", "--loo")
    loo = sc.marginal_loo(sc.load_fit(saved))
    line = next(line for line in printed.out.splitlines() if line.startswith("elpd, one row"))
    wanted = f"{loo.elpd:.1f} ({loo.std_error:.1f})".replace("-", "−")
    assert line.removeprefix("elpd, one row left out").strip() == wanted
    assert f"states.nc: elpd {loo.elpd:.1f}" in printed.err
    assert "ML SDM" in printed.out
    assert "information matrix" in printed.out
    assert run(capsys, saved, "--frequentist", "--quiet").err == ""


def test_refusals_exit_2_and_write_nothing(saved, capsys, tmp_path):
    there = tmp_path / "there.tex"
    there.write_text("before")
    for words, told in (
        ([saved, "-o", there], "existing file"),
        ([saved, "-o", saved], "the fit itself"),
        ([saved, saved, "-o", tmp_path], "got a folder"),
        ([saved, "-o", tmp_path / "table.pdf"], "expected one of '.txt', '.md'"),
        ([saved, "-o", tmp_path / "new.tex", "--format", "latex"], "got --format and -o"),
        ([saved, "--format", "pdf"], "'pdf'"),
        ([saved, "--digits", "9"], "--digits"),
        ([saved, "--label", "income"], "expected NAME=TEXT"),
        ([saved, "--label", "incme=x"], "got 'incme'"),
        ([saved, "--column", "A", "--column", "B"], "got 2 names; expected 1"),
        ([saved, "--effect", "half-life"], "Did you mean 'half_life'"),
        ([tmp_path / "none.nc"], "no such file"),
    ):
        assert told in refused(capsys, "table", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["there.tex"]
    assert there.read_text() == "before"
    assert run(capsys, saved, "-o", there, "--force").out == f"{there}\n"
    assert there.read_text().startswith("% \\usepackage{booktabs,graphicx}")


def test_labels_do_nothing_in_a_terminal(saved, capsys):
    printed = run(capsys, saved, "--label", "log(income)=\x1b[31mred", "--title", "a\x9bb\u202ec")
    assert "\x1b" not in printed.out
    assert "\x9b" not in printed.out
    assert "\u202e" not in printed.out


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from spatialclusters.cli import main; main(['table', '--help']);"
        "assert not {'pandas', 'numpy', 'openpyxl', 'docx', 'pymc'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
