"""Fifty hostile labels in the report, figures, tables, CSV and JSON: none takes effect."""

import csv
import html
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

import spatialclusters as sc
from spatialclusters.cli import main
from spatialclusters.plots import plot_by_group, printable
from tests.table_readers import read_all
from tests.trust.labels import LABELS
from tests.trust.made import SAR, made_up_fit
from tests.unit import test_regression_tables as tables

DRAWS = 10  # of four chains
SVG = "{http://www.w3.org/2000/svg}"
TAGS = {
    "html", "head", "meta", "title", "style", "body", "div", "table", "caption", "thead", "tbody", "tr", "th", "td",
    "p", "ul", "ol", "li", "figure", "figcaption", "img", "details", "summary", "pre", "header", "main", "section",
    "nav", "a", "strong", "span", "dl", "dt", "dd", "h3", "h4", "footer", "code", "i", "b", "sub", "sup", "h1", "h2",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "name", "content", "http-equiv", "class", "role", "aria-label", "aria-labelledby", "tabindex",
    "scope", "id", "href", "src", "alt", "width", "start", "style",
}  # fmt: skip


class Seen(HTMLParser):
    """The tags, attributes and words of a page, as a browser takes them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.style = [], "", ""
        self._styled = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._styled = tag == "style"

    def handle_endtag(self, tag):
        self._styled = False

    def handle_data(self, data):
        if self._styled:
            self.style += data
        else:
            self.words += data


def harmless(page):
    """Check that a page has our own tags and attributes only, and asks for nothing."""
    seen = Seen(page)
    assert {tag for tag, _ in seen.tags} <= TAGS
    for tag, attributes in seen.tags:
        assert set(attributes) <= ATTRIBUTES, (tag, attributes)
        assert re.fullmatch(r"((min-width|padding-right):[\d.]+ch;?)*", attributes.get("style", ""))
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:image/").startswith("data:image/")
    assert len(re.findall("</style", page, re.IGNORECASE)) == 1
    assert "evil" not in seen.style
    # nothing that reorders or hides text; spaces that do not break are the page's own
    assert not [c for c in page if unicodedata.category(c)[0] == "C" and c != "\n"]
    return seen


def shown(label):
    """A label without what a page drops."""
    return " ".join("".join(c if c.isprintable() else " " for c in label).split())


def legible(words, labels):
    text = " ".join(words.split())
    plain = {label: shown(label) for label in labels}
    return [
        label
        for label, wanted in plain.items()
        if wanted.replace(" ", "") not in text.replace(" ", "")
    ]


def strings(value):
    """Every text in a JSON value."""
    if isinstance(value, dict | list):
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        return [text for each in inside for text in strings(each)]
    return [value] if isinstance(value, str) else []


def test_there_are_fifty():
    assert len(set(LABELS)) == len(LABELS) == 50


@pytest.fixture(scope="module")
def clusters(synthetic_fit):
    """Growth of clusters of these names; few draws, as each is left out of in turn."""
    tree = synthetic_fit("clusters", labels=LABELS, geometry=True).tree
    return sc.Fit(tree.isel(draw=slice(DRAWS), missing_dims="ignore"))


def test_the_report_of_clusters_and_its_json(clusters, tmp_path):
    page, twin = tmp_path / "r.html", tmp_path / "r.json"
    sc.write_report(clusters, path=page, numbers=twin, beside=[sc.fit_reml(clusters)])
    assert legible(harmless(page.read_text("utf-8")).words, LABELS) == []
    text = twin.read_text("utf-8")
    assert set(LABELS) <= set(strings(json.loads(text)))


@pytest.fixture(scope="module")
def regions():
    """A spatial lag over regions of these names, whose title and description are as bad."""
    texts = json.dumps("".join(LABELS).replace("\x9b", "").replace("\ufeff", ""))
    spec = f"title = {texts}\ndescription = {texts}\ncite = {json.dumps(list(LABELS[:5]))}\n{SAR}"
    return made_up_fit(spec, regions=LABELS)


def test_the_report_of_regions(regions, tmp_path):
    tree = regions.tree.copy()
    record = json.loads(tree["constant_data"].attrs["record"])
    names = ("file", "source", "vintage", "classification", "rule", "digest")
    origins = [dict.fromkeys(names, label) | {"notes": [label]} for label in LABELS]
    record["panel"] |= {"source": "".join(LABELS), "notes": list(LABELS), "origins": origins}
    tree["constant_data"].attrs["record"] = json.dumps(record)
    fit = sc.Fit(tree)
    page = sc.write_report(
        fit,
        path=tmp_path / "r.html",
        others=dict.fromkeys(others := [f"other {label}" for label in LABELS[:2]], regions),
        beside=[sc.fit_spatial_ml(fit, draws=20)],
    ).read_text("utf-8")
    assert legible(harmless(page).words, [*LABELS, *others]) == []


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_figures_show_every_label_as_text(clusters, tmp_path, kind):
    """Glyphs for what is not printable would be warnings, and warnings are errors here."""
    labels = [label for label in LABELS if "＝" not in label]  # which few fonts have
    frame = sc.convergence(clusters)
    figure = plot_by_group(frame[frame["group"].isin(labels)], "speed")
    path = tmp_path / f"figure.{kind}"
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(path)
    if kind == "svg":
        texts = "".join(each.text for each in ET.parse(path).iter(f"{SVG}text"))
        # long ones are cut, and there is one for each
        starts = [printable(label)[:30].replace(" ", "") for label in labels]
        assert [start for start in starts if start not in texts.replace(" ", "")] == []
        assert "<script" not in path.read_text("utf-8").lower()


def test_labels_of_columns_in_a_file_of_somebody_else(tmp_path):
    """The formula's grammar has no such names; a file may claim them all the same."""
    for first, second in zip(LABELS[::2], LABELS[1::2], strict=True):
        if "\0" in first + second:
            continue
        tree = made_up_fit().tree
        names = np.array([first, second], dtype=object)
        for group in ("constant_data", "posterior"):
            tree[group] = tree[group].to_dataset().assign_coords(term=names)
        tree["constant_data"].attrs["labels"] = json.dumps({"x": first, "z": second})
        fit = sc.Fit(tree)
        assert fit.design.terms == (first, second)
        text = sc.coefficients(fit)
        assert text["term"].tolist()[1:3] == [first, second]
    page = sc.write_report(fit, path=tmp_path / "r.html").read_text("utf-8")
    assert legible(harmless(page).words, (first, second)) == []


@pytest.fixture(scope="module")
def saved(regions, clusters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")
    regions.save(folder / "regions.nc")
    clusters.save(folder / "clusters.nc")
    return folder


COMMANDS = {
    "regions.nc": ["impacts", "regions.nc", "--by", "region"],
    "clusters.nc": ["effects", "clusters.nc"],
}


def printed(capsys, folder, monkeypatch, *words):
    monkeypatch.chdir(folder)
    assert main(list(words)) == 0
    return capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_terminals_are_sent_nothing_to_obey(name, saved, capsys, monkeypatch):
    out, err = printed(capsys, saved, monkeypatch, *COMMANDS[name])
    for text in (out, err):
        assert all(c.isprintable() or c == "\n" for c in text)
    # what is rich's markup elsewhere is text here, and a line break does not break the table
    assert "[bold red]markup[/bold red]" in out
    assert "two\\nlines" in out
    assert "\\x1b[31mred" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_spreadsheets_calculate_nothing(name, saved, capsys, monkeypatch):
    out, _ = printed(capsys, saved, monkeypatch, *COMMANDS[name], "--format", "csv")
    rows = list(csv.reader(io.StringIO(out)))
    head, body = rows[0], rows[1:]
    assert all(len(row) == len(head) for row in body)
    assert all(c.isprintable() or c == "\n" for c in out)
    groups = {row[head.index("group")] for row in body}
    for row in body:
        for column, cell in zip(head, row, strict=True):
            if cell.lstrip().startswith(tuple("=+-@＝＋－＠")):
                # numbers keep their sign
                assert column not in ("term", "group", "unit", "model")
                float(cell)
    assert {"'=1+1", "'＝1+1", "'@SUM(1+1)*cmd|' /C calc'!A0", "' =1+1"} <= groups
    # a tab and a carriage return are written out, and are no start of a formula any more
    assert {"\\t=1+1", "\\r=1+1"} <= groups


@pytest.mark.parametrize("name", COMMANDS)
def test_json_keeps_every_label(name, saved, capsys, monkeypatch):
    out, _ = printed(capsys, saved, monkeypatch, *COMMANDS[name], "--format", "json")
    assert all(c.isprintable() or c == "\n" for c in out)
    assert set(LABELS) <= {row["group"] for row in json.loads(out)}


def test_titles_are_cleaned(saved, capsys, monkeypatch):
    for words in (["summary", "regions.nc"], ["check", "regions.nc"]):
        monkeypatch.chdir(saved)
        main(words)
        out, err = capsys.readouterr()
        assert all(c.isprintable() or c == "\n" for c in out + err)


def test_a_hostile_name_of_a_file(tmp_path, monkeypatch, capsys):
    name = "\x1b[31m$(id);'\"><script>.nc"
    made_up_fit().save(tmp_path / name)
    out, err = printed(capsys, tmp_path, monkeypatch, "report", name, "-o", f"{name}.html")
    assert all(c.isprintable() or c == "\n" for c in err)
    harmless((tmp_path / f"{name}.html").read_text("utf-8"))
    assert html.escape("<script>") not in out


# --- tables for publication ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A table in which every text that can come from a file is one of the labels."""
    folder = tmp_path_factory.mktemp("published")
    return folder, read_all(tables.hostile_table(LABELS), folder)


@pytest.mark.parametrize("name", ["markdown", "html", "latex", "excel", "word"])
def test_publication_tables_show_every_label(published, name):
    lines = published[1][name]
    body = [line[0] for line in lines[2:] if len(line) > 1 and line[0]]
    assert body[: len(LABELS)] == [printable(label) for label in LABELS]


def test_publication_tables_obey_none(published):
    """By the readers that these tables have of their own: no tag, no command, no formula."""
    tables.test_html_and_markdown_hold_no_tags_of_labels(published)
    tables.test_latex_holds_no_command_of_labels(published)
    tables.test_excel_holds_no_formula(published)
    text = (published[0] / "table.txt").read_text("utf-8")
    assert all(line.isprintable() for line in text.splitlines())
