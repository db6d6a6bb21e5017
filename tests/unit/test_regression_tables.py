"""Regression tables: the numbers of the tidy frames in every format, and labels that do nothing."""

import dataclasses
import json
import math
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spatialclusters.design import build_design
from spatialclusters.effects import coefficients, convergence, specialization
from spatialclusters.errors import FitError
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.loo import Loo
from spatialclusters.mixed import fit_reml
from spatialclusters.panel import read_panel
from spatialclusters.regression_tables import RegressionTable, office, regression_table
from spatialclusters.regression_tables.build import EFFECTS
from spatialclusters.regression_tables.numbers import Estimate
from spatialclusters.regression_tables.table import FORMATS, Row, check_format
from spatialclusters.spatial_gmm import fit_spatial_gmm
from spatialclusters.spatial_hac import spatial_kernel
from spatialclusters.spatial_ml import fit_spatial_ml
from spatialclusters.spec import parse_spec
from spatialclusters.spillovers import impacts
from tests.table_readers import Page, read_all
from tests.unit.test_report import spatial

HALF = 0.5 * (1 + 1e-9)  # of the last place: rounding, and the error of adding it up in binary
POWERS = 5e-9  # relative: nine significant digits where a number has a power of ten
NAMES = ["text", "markdown", "html", "latex", "excel", "word"]
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '=HYPERLINK("http://evil.example","click")',
    "=cmd|'/C calc'!A0",
    "@SUM(1+1)",
    "+1+1",
    "-2+3",
    "_x003D_1+1",
    r"\input{/etc/passwd}",
    r"\write18{id} ^^5cinput \end{tabular} $\alpha$",
    "100 % & more # of {it} ~ x_1^2",
    "a | b || c \\| d \\",
    "[link](http://evil.example) ![image](x) [@key]",
    "http://evil.example www.evil.example a@evil.example :tada:",
    "**bold** _em_ `code` ~~gone~~ $x^2$ &lt; &#60;",
    "[2em] * *{3}c",
    "--- '' `` \"quoted\" ?` !`",
    "{{ 7*7 }} {% raw %}",
    "# heading",
    "1. item",
    "> quote",
)
UNPRINTABLE = {
    "two\nlines\r\n\tand a tab": "two lines and a tab",
    "a\x00b\x1b[31mred\u202ethgir": "ab[31mredthgir",
}


@pytest.fixture(scope="module")
def results(synthetic_fit):
    """A spatial lag, a correlated one, and what regressions say on the same rows."""
    fit = synthetic_fit("clusters")
    lagged = spatial(fit, "sar", "bym2")
    ml = fit_spatial_ml(fit, processes=["sar"], draws=200)
    return lagged, fit, fit_frequentist(fit), ml


@pytest.fixture(scope="module")
def table(results):
    return regression_table(*results, title="Growth of clusters")


@pytest.fixture(scope="module")
def read(table, tmp_path_factory):
    return read_all(table, tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def frames(results):
    """The frames of the columns, straight from the functions that estimate."""
    out = []
    for fit in results[:2]:
        parts = [coefficients(fit)]
        parts[0]["term"] += [f" [{g}]" if g else "" for g in parts[0]["group"].fillna("")]
        parts += [f(fit).query("group == 'overall'") for f in (convergence, specialization)]
        parts += [impacts(fit).query("group == 'row'")] if "rho" in fit.posterior else []
        out.append(pd.concat(parts))
    for result, name in ((2, "fixed effects"), (2, "OLS"), (3, "ML SAR")):
        frame = results[result].estimates
        out.append(frame[frame["estimator"] == name])
    return [frame[frame["effect"].isin(EFFECTS)].set_index(["effect", "term"]) for frame in out]


def numbers(text):
    """The numbers of a cell, and half a unit of their last place."""
    out = []
    for found in re.findall(r"−?(?:∞|[\d,]*\d(?:\.\d+)?(?:e[−+]\d+)?)", text):
        plain = found.replace("−", "-").replace("∞", "inf")
        plain = plain.replace(",", "") if "e" not in plain else plain
        mantissa, _, power = plain.partition("e")
        last = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
        out.append((float(plain), HALF * last))
    return out


def cells_of(lines, table):
    """The texts of each row's cells: estimate, (error), [interval]."""
    body = [line for line in lines[2:] if len(line) > 1][: -len(table.footer)]
    found, current = [], None
    for line in body:
        if line[0]:
            current = (line[0], [[] for _ in line[1:]])
            found.append(current)
        for cell, text in zip(current[1], line[1:], strict=True):
            cell += [text] * bool(text)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_format_shows_the_same_lines(read, table, name):
    assert read[name] == read["html"]
    assert read[name][1][1:] == list(table.columns)
    assert len(read[name]) > 60


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_that_of_the_tidy_frame(read, table, frames, name):
    shown = cells_of(read[name], table)
    assert [label for label, _ in shown] == [row.label for row in table.rows]
    count = 0
    for row, (_, cells) in zip(table.rows, shown, strict=True):
        for frame, texts in zip(frames, cells, strict=True):
            if (row.effect, row.term) not in frame.index:
                assert texts == []
                continue
            own = frame.loc[[(row.effect, row.term)]].iloc[0]
            wanted = [own["estimate"]]
            forms = [r"[^()\[\]]+"]
            if not math.isnan(own["std_error"]):
                wanted.append(own["std_error"])
                forms.append(r"\([^()]+\)")
            wanted += [own["ci_low"], own["ci_high"]]
            forms.append(r"\[[^\[\]]+, [^\[\]]+\]")
            assert len(texts) == len(forms)
            assert all(map(re.fullmatch, forms, texts))
            got = [number for text in texts for number in numbers(text)]
            for (value, half), want in zip(got, wanted, strict=True):
                assert value == want or abs(value - want) <= half
            count += len(got)
    keys = {key for frame in frames for key in frame.index}
    assert {(row.effect, row.term) for row in table.rows} == keys
    assert count > 150


def test_sections_and_their_order(read):
    sections = [line[0] for line in read["html"] if len(line) == 1]
    assert sections == [
        "Coefficients", "Spatial dependence", "Direct impacts", "Indirect impacts",
        "Total impacts", "Convergence", "One standard deviation more (points of annual growth)",
        "Standard deviations and noise",
    ]  # fmt: skip
    labels = [line[0] for line in read["html"]]
    last = labels.index("Spatial dependence")
    assert [label for label in labels[:last] if label][-2:] == ["intercept", "intercept at zero"]
    assert "log(cluster_level): half-life (years)" in labels


def test_the_footer_says_what_columns_rest_on(read, results, table):
    fit = results[1]
    foot = {line[0]: line[1:] for line in read["html"][-len(table.footer) :]}
    W, rows = f"queen, {fit.weights.digest[:8]}", fit.design.rows_digest[:8]
    overall = [f(fit).query("group == 'overall'") for f in (convergence, specialization)]
    parts = pd.concat([coefficients(fit), *overall])
    assert foot["model"] == ["synthetic"] * 5
    assert foot["estimator"] == ["Bayes, SAR, full engine", "Bayes, full engine", "within",
                                 "least squares", "maximum likelihood, SAR"]  # fmt: skip
    assert foot["errors"] == ["posterior sd"] * 2 + ["clustered by region", "homoskedastic",
                                                     "information matrix"]  # fmt: skip
    assert foot["effects of region"] == [
        "correlated, bym2",
        "correlated",
        "absorbed",
        "none",
        "none",
    ]
    assert foot["effects of cluster"] == ["random", "random", "absorbed", "none", "none"]
    assert foot["W"] == [W] * 5
    assert foot["rows"] == ["105"] * 5
    assert foot["regions"] == ["12"] * 5
    assert foot["sample"] == [rows] * 5
    assert foot["R-hat, largest"][1:] == [f"{parts['r_hat'].max():.3f}", "", "", ""]
    least = parts[["ess_bulk", "ess_tail"]].min().min()
    assert foot["ESS, smallest"][1:] == [f"{least:,.0f}", "", "", ""]
    assert not any(name.startswith("elpd") for name in foot)


def test_w_is_named_only_where_it_is_used(synthetic_fit):
    fit = synthetic_fit("plain")
    assert fit.weights is not None
    error = spatial(fit, "sem")
    foot = dict(regression_table(fit, error, fit_frequentist(fit)).footer)
    assert foot["W"] == ("none", f"queen, {fit.weights.digest[:8]}", "none")
    assert "effects of region" not in foot


def test_what_other_estimators_rest_on(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    regressions = fit_frequentist(fit, conley=spatial_kernel(fit, 0.0012))
    mixed, moments = fit_reml(fit), fit_spatial_gmm(fit, draws=20)
    table = regression_table(regressions, mixed, moments)
    assert table.columns[2:5] == (
        "fixed effects, Conley bartlett 0.0012 km",
        "OLS, Conley bartlett 0.0012 km",
        "REML",
    )
    foot = dict(table.footer)
    assert foot["estimator"] == (
        *["within", "least squares"] * 2, "restricted maximum likelihood",
        "two-stage least squares, SAR", "generalized moments, SEM", "two-stage least squares, SDM",
    )  # fmt: skip
    assert foot["errors"] == (
        "clustered by region", "homoskedastic", *["Conley, bartlett 0.0012 km"] * 2,
        "given the components", *["robust"] * 3,
    )  # fmt: skip
    assert foot["effects of region"] == (*["absorbed", "none"] * 2, "correlated", *["none"] * 3)
    assert foot["effects of cluster"] == (*["absorbed", "none"] * 2, "random", *["none"] * 3)
    assert foot["rows"] == ("105",) * 8
    assert mixed.singular == ("sd(region)",)
    ending = "sd(region) is at the end of what is possible, and has no error."
    assert f"Column (5): {ending}" in table.notes


def test_a_regression_without_singletons_and_nested_groups():
    """Rows alone in a group are not counted; effects of groups of groups are absorbed as well."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {
            "region": [f"r{i // 6}" for i in range(48)],
            "industry": [f"i{i % 6}" for i in range(48)],
            "cluster": [f"c{i % 6 // 2}" for i in range(48)],
            "x": rng.normal(size=48),
            "y": rng.normal(size=48),
        }
    ).drop(index=[1, 3])  # r0 keeps one industry in each of two clusters
    formula = 'formula = "y ~ x + (1 | region) + (1 | region:cluster)"'
    design = build_design(parse_spec(formula), read_panel(data))
    result = fit_frequentist(design)
    alone = (data.groupby(["region", "cluster"])["x"].transform("size") == 1).sum()
    assert (result.absorbed, result.implied) == (("region:cluster",), ("region",))
    assert result.rows_used == {"fixed effects": 46 - alone, "OLS": 46}
    table = regression_table(result)
    foot = dict(table.footer)
    assert foot["rows"] == ("44", "46")
    assert foot["effects of region"] == foot["effects of region:cluster"] == ("absorbed", "none")
    assert table.notes[-1].startswith("Column (1): 2 rows are alone")
    single = fit_frequentist(design, cluster="region:industry")
    assert single.errors == {"fixed effects": "robust (HC1)", "OLS": "homoskedastic"}


def loo_of(fit, *, by="row", elpd=-123.456, k=0.1, rows=None):
    attrs = fit.design.data.attrs
    identity = (rows or fit.design.rows_digest, attrs["response"], attrs["unit"])
    pointwise = pd.DataFrame({"unit": list("abcd"), "elpd": elpd / 4, "pareto_k": [0.1] * 3 + [k]})
    return Loo(elpd, 7.89, pointwise, by, 4000, identity)


def test_elpd_stands_with_its_error(results):
    lagged, fit, frequentist, _ = results
    table = regression_table(lagged, fit, frequentist, loo=[loo_of(fit), loo_of(fit, k=0.9), None])
    assert dict(table.footer)["elpd, one row left out"] == ("−123.5 (7.9)",) * 2 + ("", "")
    told = [note for note in table.notes if "elpd" in note]
    assert told.pop(0) == "A difference of two elpd has an error of its own: see compare_loo."
    assert told == ["Column (2): the elpd is not reliable for 25.0% of the units (Pareto k of 0.7 or "
                    "more)."]  # fmt: skip
    by_region = regression_table(fit, loo=[loo_of(fit, by="region")])
    assert "elpd, one region left out" in dict(by_region.footer)
    for loo, told in (
        ([loo_of(fit)], "got 1 for 2 results"),
        ([loo_of(fit), loo_of(fit)], "got one for a regression"),
        ([loo_of(fit, rows="other"), None], "got other rows"),
    ):
        with pytest.raises(FitError, match=told):
            regression_table(fit, frequentist, loo=loo)
    with pytest.raises(FitError, match="one kind of unit"):
        regression_table(fit, lagged, loo=[loo_of(fit), loo_of(fit, by="region")])


def test_notes_say_what_numbers_are(results, synthetic_fit):
    lagged, fit, frequentist = results[:3]
    notes = regression_table(fit, frequentist).notes
    assert notes[0] == "Response: growth (log change over 3 years)."
    assert "(posterior standard deviation or standard error)" in notes[1]
    assert "[95 % equal-tailed posterior or confidence interval]" in notes[1]
    assert notes[2] == "Posterior means; of speed and half-life medians."
    assert len(notes) == 4
    only = regression_table(fit, effects=["coefficient"]).notes
    assert "(posterior standard deviation) and [95 % equal-tailed posterior interval]" in only[1]
    assert only[2] == "Posterior means."
    alone = regression_table(frequentist).notes
    assert "(standard error) and [95 % confidence interval]" in alone[1]
    assert not any("osterior" in note for note in alone)
    lags = regression_table(lagged, effects=["per_sd"]).notes
    assert any(note.endswith("alone: direct impacts.") for note in lags)
    assert not any("direct impacts" in note for note in [*notes, *only, *alone])
    simulated = regression_table(synthetic_fit("regions", simulated=True)).notes
    assert simulated[0].startswith("SIMULATED DATA")
    sick = regression_table(fit, synthetic_fit("clusters", sick=True))
    assert sick.notes[-1] == "Column (2): chains disagree for 'sigma': do not report these numbers."


def test_labels_and_columns_are_renamed(results, tmp_path):
    fit, frequentist = results[1:3]
    labels = {"log(cluster_level)": "Size", "region": "Area", "sd(cluster)": "Clusters"}
    table = regression_table(
        fit, frequentist, labels=labels, columns=["A", "B", "C"], effects=["sd", "speed"]
    )
    lines = read_all(table, tmp_path)["word"]
    assert lines[1] == ["", "A", "B", "C"]
    names = [line[0] for line in lines if line[0]]
    assert names[:2] == ["Standard deviations and noise", "Clusters"]
    assert "Size: speed (per year)" in names
    assert "effects of Area" in names
    assert "Coefficients" not in names
    for keywords, told in (
        ({"labels": {"log(cluster_levl)": "x"}}, "Did you mean 'log\\(cluster_level\\)'"),
        ({"columns": ["A"]}, "got 1 names; expected 3, one for each of 'posterior', 'fixed eff"),
        ({"digits": 0}, "got 0; expected 1 to 6"),
        ({"digits": 7}, "got 7; expected 1 to 6"),
        ({"effects": ["speeed"]}, "Did you mean 'speed'"),
        ({"effects": ["direct"]}, "got no estimates of 'direct'"),
    ):
        with pytest.raises(FitError, match=told):
            regression_table(fit, frequentist, **keywords)
    with pytest.raises(FitError, match="got no result"):
        regression_table()


def test_effects_that_are_not_shown_by_default(results):
    table = regression_table(results[1], effects=["correlation", "change"])
    assert [(row.section, row.label) for row in table.rows] == [
        ("Correlations of effects", "cor(cluster) [1, log(cluster_level)]"),
        ("Convergence", "log(cluster_level): total change"),
    ]


# numbers


@pytest.mark.parametrize(
    ("number", "texts"),
    [
        ((-0.0004, 0.5, -0.98, 0.98), ("0.00", "(0.50)", "[−0.98, 0.98]")),
        ((12345.678, 1234.5, 9926.0, 14765.0), ("12,346", "(1,234)", "[9,926, 14,765]")),
        ((1.2e-12, 3e-13, 6e-13, 1.8e-12), ("1.20e−12", "(3.0e−13)", "[6.0e−13, 1.80e−12]")),
        ((2.5e10, 1.1e9, 2.3e10, 2.7e10), ("2.50e+10", "(1.1e+09)", "[2.30e+10, 2.70e+10]")),
        ((0.5, 0.0, 0.5, 0.5), ("0.50", "(0.00)", "[0.50, 0.50]")),
        ((math.inf, math.nan, 40.771, math.inf), ("∞", "", "[40.8, ∞]")),
        ((96.53, math.nan, 22.987, math.inf), ("96.5", "", "[23.0, ∞]")),
        ((0.95, 0.13, math.nan, math.nan), ("0.95", "(0.13)", "")),
    ],
)
def test_rounding(number, texts):
    assert Estimate(*number).texts(2) == texts


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ((1.0, math.nan, math.nan, math.nan), False),
        ((math.nan, 0.1, 0.0, 1.0), False),
        ((1.0, 0.1, math.nan, math.nan), True),
        ((1.0, math.nan, 0.5, math.inf), True),
    ],
)
def test_no_number_without_its_uncertainty(number, shown):
    assert Estimate(*number).shown == shown


@given(st.floats(-1e15, 1e15), st.floats(1e-15, 1e15), st.integers(1, 6))
@example(-1e-9, 0.99999, 2)
@example(0.0, 1e-12, 3)
@example(1e15, 1e-15, 6)
@example(5000000030001.0, 1e13, 1)  # rounds up to the place
def test_digits_follow_the_error(estimate, error, digits):
    texts = Estimate(estimate, error, estimate - 2 * error, estimate + 2 * error).texts(digits)
    shown = texts[1].strip("()").replace(",", "")
    mantissa, _, power = shown.partition("e")
    significant = mantissa.replace(".", "").lstrip("0")
    whole = "." not in mantissa and not power  # integers keep all their digits
    assert len(significant) in (digits, digits + 1) or (whole and len(significant) >= digits)
    wanted = (estimate, error, estimate - 2 * error, estimate + 2 * error)
    place = numbers(texts[1])[0][1]  # also of what is smaller, and zero with a power of ten
    for (value, half), want in zip(numbers(" ".join(texts)), wanted, strict=True):
        assert abs(value - want) <= max(half, place) + POWERS * abs(want)
    for text in texts:
        assert "-" not in text
        assert not re.search(r"−0(\.0*)?(?![\d.])", text)  # no negative zero


# what labels may not do


def hostile_table(texts=(*HOSTILE, *UNPRINTABLE)):
    """A table in which every text that can come from a file is hostile."""
    number = Estimate(-0.05588, 0.00837, -0.0723, -0.0395)
    rows = tuple(Row(texts[0], text, text, "coefficient", (number, None)) for text in texts)
    footer = (*((text, (text, "none")) for text in texts), ("rows", ("10", "10")))
    return RegressionTable(texts[0], (texts[1], texts[8]), rows, footer, tuple(texts), 2)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return folder, read_all(hostile_table(), folder)


@pytest.mark.parametrize("name", ["markdown", "html", "latex", "excel", "word"])
def test_hostile_labels_are_read_back_as_they_are(hostile, name):
    wanted = [*HOSTILE, *UNPRINTABLE.values()]
    lines = hostile[1][name]
    # Excel alone would read a code in a label as a character
    wanted = [w.replace("_x003D_", "_x005F_x003D_") if name == "excel" else w for w in wanted]
    body = [line[0] for line in lines[2:] if len(line) > 1 and line[0]]
    assert body[: len(wanted)] == wanted
    if name != "markdown":  # whose head is one line
        assert lines[1] == ["", HOSTILE[1], HOSTILE[8]]
    assert [line[:2] for line in lines[-1 - len(wanted) : -1]] == [[w, w] for w in wanted]
    assert [line[0] for line in lines if len(line) == 1] == [HOSTILE[0]]


def test_the_text_has_no_control_characters(hostile):
    text = (hostile[0] / "table.txt").read_text("utf-8")
    assert all(line.isprintable() for line in text.splitlines())
    assert all(label in text for label in (*HOSTILE, *UNPRINTABLE.values()))


def test_html_and_markdown_hold_no_tags_of_labels(hostile):
    from markdown_it import MarkdownIt

    folder, _ = hostile
    page = (folder / "table.html").read_text("utf-8")
    rendered = [
        MarkdownIt(kind, {"html": True, "linkify": False})
        .enable(["table", "strikethrough"])
        .render((folder / "table.md").read_text("utf-8"))
        for kind in ("commonmark", "js-default")
    ]
    own = {"html", "head", "meta", "title", "style", "body", "table", "caption", "thead", "tbody",
           "tfoot", "tr", "th", "td", "p", "strong"}  # fmt: skip
    for text in (page, hostile_table()._repr_html_(), *rendered):
        tags = Page(text).tags
        assert {tag for tag, _ in tags} <= own
        for tag, attrs in tags:
            assert {*attrs} <= {"class", "scope", "rowspan", "colspan", "lang", "charset", "name",
                                "content", "http-equiv", "style"}  # fmt: skip
            assert tag != "strong" or not attrs
    assert "default-src 'none'" in page
    assert "http://evil" not in (folder / "table.md").read_text("utf-8")
    assert "<html" not in hostile_table()._repr_html_()


def test_latex_holds_no_command_of_labels(hostile):
    text = (hostile[0] / "table.tex").read_text("utf-8")
    commands = set(re.findall(r"\\([a-zA-Z]+|.)", text.replace("\n", " ")))
    assert commands <= {
        "usepackage", "begin", "end", "centering", "small", "setlength", "belowcaptionskip",
        "caption", "toprule", "midrule", "bottomrule", "addlinespace", "multicolumn", "textit",
        "medskip", "linewidth", "footnotesize", "par", "symbol", "textbackslash", "infty",
        "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
        "textasciigrave", "sbox", "ifdim", "wd", "ifdefined", "resizebox", "usebox", "else", "fi", "\\", "&", "%", "$", "#", "_", "{", "}",
    }  # fmt: skip
    assert text.count(r"\begin{") == text.count(r"\end{") >= 3
    assert "^^" not in text
    assert not re.search(r"(?<!\\)%(?! \\usepackage)", text)
    for row in re.split(r"\\\\(?:\[2pt\])?\n", text):
        assert not row.lstrip().startswith(("[", "*"))


def test_excel_holds_no_formula(hostile):
    import openpyxl

    sheet = openpyxl.load_workbook(hostile[0] / "table.xlsx").worksheets[0]
    kinds = {cell.data_type for row in sheet.iter_rows() for cell in row if cell.value is not None}
    assert kinds == {"s", "n"}
    texts = [cell for row in sheet.iter_rows() for cell in row if cell.data_type == "s"]
    assert all(cell.quotePrefix for cell in texts)
    with zipfile.ZipFile(hostile[0] / "table.xlsx") as archive:
        assert b"<f" not in re.sub(
            rb"<(fonts?|fills?|family)\b", b"", archive.read("xl/worksheets/sheet1.xml")
        )
        assert not [name for name in archive.namelist() if "external" in name.lower()]


def test_labels_of_the_data_go_the_same_way(synthetic_fit, tmp_path):
    labels = (*HOSTILE[:3], "C4", "C5", "C6", "C7", "C8", "C9")
    table = regression_table(synthetic_fit("noise by cluster", labels=labels))
    for name, lines in read_all(table, tmp_path).items():
        shown = {line[0] for line in lines}
        assert {f"sigma(cluster) [{label}]" for label in labels} <= shown, name


# files


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_table_gives_the_same_bytes(table, results, tmp_path, suffix):
    again = regression_table(*results, title="Growth of clusters")
    one, two = table.save(tmp_path / f"one{suffix}"), again.save(tmp_path / f"two{suffix.upper()}")
    assert one.read_bytes() == two.read_bytes()
    if suffix in (".xlsx", ".docx"):
        with zipfile.ZipFile(one) as archive:
            members = archive.infolist()
            core = archive.read("docProps/core.xml").decode()
        assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
        assert {*re.findall(r"20\d\d-\d\d-\d\d", core)} == {"2000-01-01"}
        assert "python-docx" not in core


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_appear_whole_or_not_at_all(table, tmp_path, monkeypatch, suffix):
    from spatialclusters import files

    with pytest.raises(FitError, match="cannot be written"):
        table.save(tmp_path / "missing" / f"table{suffix}")
    path = tmp_path / f"table{suffix}"
    path.write_text("before")

    def full(_):
        raise OSError("no space")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FitError, match=r"table\.\w+: cannot be written \(no space\)"):
        table.save(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "before"


def test_formats_are_those_of_suffixes(table, tmp_path, monkeypatch):
    for name in ("table.pdf", "table"):
        with pytest.raises(FitError, match=r"expected one of '\.txt', '\.md'"):
            table.save(tmp_path / name)
    monkeypatch.setattr(office, "find_spec", lambda name: None)
    for suffix, package in ((".xlsx", "openpyxl"), (".docx", "python-docx")):
        told = rf"\{suffix} files: got no {package}; .* spatialclusters\[office\]"
        with pytest.raises(FitError, match=told):
            check_format(tmp_path / f"table{suffix}")
    with pytest.raises(FitError, match="got no openpyxl"):
        table.to_excel(tmp_path / "table.xlsx")
    with pytest.raises(FitError, match="got no python-docx"):
        table.to_word(tmp_path / "table.docx")
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_a_value(table):
    assert str(table) == table.to_text()
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.digits = 3
    fine = dataclasses.replace(table, digits=4)
    first = fine.rows[0].cells[0]
    assert f"{first.estimate:.5f}".replace("-", "−") in fine.to_text()
    assert json.dumps(fine.notes) == json.dumps(table.notes)
