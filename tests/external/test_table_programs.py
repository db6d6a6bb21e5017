"""Regression tables in the programs that people open them with: LaTeX, LibreOffice."""

import csv
import shutil
import subprocess

import pandas as pd
import pytest

from spatialclusters.cli.output import show
from tests.table_readers import read_html
from tests.trust.labels import LABELS
from tests.unit.test_regression_tables import HOSTILE, hostile_table

pytestmark = pytest.mark.external

LATEX = ("pdflatex", "lualatex", "tectonic")
OFFICE = ("soffice", "libreoffice")
DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[margin=1cm,paperwidth=60cm,paperheight=90cm]{geometry}
\usepackage{booktabs}
\begin{document}
\input{table.tex}
\end{document}
"""


def program(names):
    found = next(filter(None, map(shutil.which, names)), None)
    return found or pytest.skip(f"none of {', '.join(names)} is installed")


def convert(file, kind, folder):
    """Let LibreOffice open a file and save it as another kind."""
    words = ["--headless", f"-env:UserInstallation={(folder / 'profile').as_uri()}"]
    words += ["--convert-to", kind, "--outdir", folder, file]
    done = subprocess.run(
        [program(OFFICE), *words], cwd=folder, capture_output=True, text=True, check=False
    )
    made = folder / f"{file.stem}.{kind.partition(':')[0]}"
    assert made.is_file(), done.stdout + done.stderr
    return made


def said(pdf):
    """The text of a document without its spaces: lines may have been broken."""
    text = subprocess.run(
        [program(["pdftotext"]), "-raw", pdf, "-"], capture_output=True, text=True, check=True
    ).stdout
    return "".join(text.split())


def table_of(synthetic_fit):
    from spatialclusters.frequentist import fit_frequentist
    from spatialclusters.regression_tables import regression_table

    fit = synthetic_fit("clusters")
    return regression_table(fit, fit_frequentist(fit), title="Growth of clusters")


@pytest.mark.parametrize("labels", ["usual", "hostile"])
def test_latex_compiles(synthetic_fit, tmp_path, labels):
    latex = program(LATEX)
    table = table_of(synthetic_fit) if labels == "usual" else hostile_table()
    table.save(tmp_path / "table.tex")
    (tmp_path / "document.tex").write_text(DOCUMENT, encoding="utf-8")
    words = [] if latex.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(
        [latex, *words, "document.tex"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    # what the log of a run without errors may not say
    for told in ("! ", "Overfull", "Missing character", "runsystem(id)"):
        assert told not in done.stdout
    text = said(tmp_path / "document.pdf")
    wanted = [label for label in HOSTILE if not set("'`\"-") & set(label)]  # else fonts have a say
    wanted = ["log(cluster_level):speed"] if labels == "usual" else wanted
    assert len(wanted) == 1 or len(wanted) > 10
    for label in wanted:
        assert "".join(label.split()) in text
    assert "root:" not in text  # of /etc/passwd


@pytest.mark.parametrize("labels", ["usual", "hostile"])
def test_word_documents_open(synthetic_fit, tmp_path, labels):
    table = table_of(synthetic_fit) if labels == "usual" else hostile_table()
    text = said(convert(table.save(tmp_path / "table.docx"), "pdf", tmp_path))
    rows = read_html(table.to_html())
    assert len(rows) > 50
    for row in rows:
        for cell in row:
            assert "".join(cell.split()) in text


@pytest.mark.parametrize("labels", ["usual", "hostile"])
def test_excel_shows_what_the_other_formats_show(synthetic_fit, tmp_path, labels):
    table = table_of(synthetic_fit) if labels == "usual" else hostile_table()
    book = table.save(tmp_path / "table.xlsx")
    sheet = convert(book, "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true", tmp_path)
    with sheet.open(encoding="utf-8") as file:
        shown = list(csv.reader(file))
    rows = read_html(table.to_html())
    width = len(rows[0])
    assert [row[:width] for row in shown[2 : 2 + len(rows)]] == [
        row + [""] * (width - len(row)) for row in rows
    ]
    assert [row[0] for row in shown[2 + len(rows) :]][:2] == [
        " ".join(note.split()) for note in table.notes[:2]
    ]
    assert convert(book, "pdf", tmp_path).stat().st_size > 1000


@pytest.mark.parametrize("escaped", [True, False])
def test_spreadsheets_calculate_nothing_of_csv_output(capsys, tmp_path, escaped):
    """What ``--format csv`` prints; and the labels as they are, of which some are calculated."""
    frame = pd.DataFrame({"group": LABELS, "estimate": -1.5})
    if escaped:
        show(frame, "csv")
        text = capsys.readouterr().out
    else:
        text = frame.to_csv(index=False)
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    sheet = convert(tmp_path / "table.csv", "fods", tmp_path).read_text(encoding="utf-8")
    assert ("table:formula" in sheet) is not escaped
    assert sheet.count('office:value="-1.5"') == len(LABELS)  # numbers keep their sign
