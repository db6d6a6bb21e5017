"""The page and its machine-readable twin say the same, and every number has its value."""

import html
import json
import math
import re

import numpy as np
import pytest

from spatialclusters.effects import coefficients, convergence
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.loo import marginal_loo
from spatialclusters.rankings import rank_levels
from spatialclusters.reporting import make_report, write_report
from spatialclusters.residuals import residual_moran
from spatialclusters.sensitivity import power_scaling, prior_and_posterior
from tests.pages import Page, part

HALF = 0.5000001  # of the last digit shown
VARIANTS = [
    ("clusters", {"geometry": True}), ("clusters", {"sick": True}), ("student", {}),
    ("noise by cluster", {}), ("fixed", {}), ("regions", {"geometry": True}),
    ("plain", {"weights": False}),
]  # fmt: skip

# numbers of the wording itself: what intervals and limits are, orders, years of publications
WORDS = re.compile(
    r"95 %|50 %|95 %?|2\.5|0\.7\b|1\.01|1\.05|0\.05|0\.025|0\.975|0\.3\b|3\.45|\b99th|\b1st|\b25th|"
    r"\b75th|\b5th|\b95th|10 % more|25 %|75 %|ln 2|order [012]|k < 0\.7|P\(> 0\)|> 0\)|= 1\b|"
    r"1 is the smallest|, 1 the (?:largest|fastest)|near 1|−1 or less|(?:19|20)\d\d|first 5|eta 1|"
    r"concentration 1|doi:\S+|\b\d{1,2}[A-F](?:-[A-F])?\b|[Hh]uman Behaviour 5|Methods 22|SHA-256|"
    r"over \d+ years|^\d{1,2} (?=[A-Z])|cor\([^)]*\)(?:: | \[)1,|step=\d+|\(1 \||sd of 100|HC1|CRV1|minus 2|by 1\b"
)


@pytest.fixture(scope="module")
def twins(synthetic_fit, tmp_path_factory):
    """Write page and JSON of a variant once, and return fit, page and record."""
    folder, done = tmp_path_factory.mktemp("twins"), {}

    def write(variant, **how):
        key = (variant, *sorted(how.items()))
        if key not in done:
            fit, stem = synthetic_fit(variant, **how), folder / str(len(done))
            write_report(fit, path=f"{stem}.html", numbers=f"{stem}.json")
            record = json.loads((folder / f"{stem}.json").read_text("utf-8"))
            done[key] = fit, (folder / f"{stem}.html").read_text("utf-8"), record
        return done[key]

    return write


def walk(record):
    """Yield everything in a JSON record that has a text and numbers."""
    if isinstance(record, dict):
        if "text" in record and ({"value", "low", "numbers"} & set(record)):
            yield record
        for value in record.values():
            yield from walk(value)
    elif isinstance(record, list):
        for value in record:
            yield from walk(value)


def texts(record):
    """Yield each text shown, with the texts of the numbers in it."""
    if isinstance(record, str):
        yield record, []
    elif isinstance(record, dict) and "text" in record and isinstance(record["text"], str):
        own = record.get("numbers", [record] if {"value", "low"} & set(record) else [])
        yield record["text"], [each["text"] for each in own]
    elif isinstance(record, dict):
        for name, value in record.items():
            if name not in ("format", "version", "data", "code", "name", "kind", "tone", "part"):
                yield from texts(value)
    elif isinstance(record, list):
        for value in record:
            yield from texts(value)


def reading(text):
    """Return the number that a text shows, and what its last digit is worth."""
    plain = text.replace("−", "-").replace(",", "").replace(" %", "").strip()
    if plain in ("∞", "-∞"):
        return math.inf if plain == "∞" else -math.inf, 0.0
    digits, _, power = plain.partition("e")
    last = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    return float(plain), last


def agree(text, value):
    if text == "—":
        assert value is None
        return
    if isinstance(value, str):
        assert float(value) == reading(text)[0]
    elif text[0] in "<>":
        bound = reading(text[2:])[0]
        assert value <= bound if text[0] == "<" else value >= bound
    else:
        shown, last = reading(text)
        assert abs(shown - value) <= HALF * last + 1e-12 * abs(value), (text, value)


@pytest.mark.parametrize(("variant", "how"), VARIANTS)
def test_every_number_shown_is_its_value_at_the_printed_precision(twins, variant, how):
    _, _, record = twins(variant, **how)
    seen = 0
    for each in walk(record):
        if "value" in each:
            agree(each["text"], each["value"])
            seen += 1
        if "low" in each:
            ends = ("—", "—")
            if each["text"] != "—":
                ends = re.split(", |–", each["text"].strip("[]").removesuffix(" %"))
            agree(ends[0], each["low"])
            agree(ends[1], each["high"])
            seen += 1
        for part_ in each.get("numbers", []):
            assert part_["text"] in each["text"]
    assert seen > 200


def words(text):
    return " ".join(html.unescape(text).replace("\u00a0", " ").split())


def told(block):
    """Yield the texts of a block in the order of the page."""

    def of(shown):
        return shown if isinstance(shown, str) else shown["text"]

    if block["kind"] == "paragraph":
        text = of(block["text"])
        yield re.sub(r"<[^>]*>", "", text) if block["tone"] == "equation" else text
    elif block["kind"] == "notes":
        yield from [of(block["title"]), *map(of, block["items"])]
    elif block["kind"] == "picture":
        yield of(block["caption"])
    elif block["kind"] == "code":
        yield from [block["folded"], block["code"]]
    else:
        yield from [of(block["folded"]), of(block["caption"]), *block["columns"]]
        yield from (of(cell) for row in block["rows"] for cell in row)


@pytest.mark.parametrize(("variant", "how"), VARIANTS)
def test_the_page_says_what_the_record_says_and_nothing_else(twins, variant, how):
    _, page, record = twins(variant, **how)
    for number, section in enumerate(record["sections"], 1):
        apart = r"(</(?:t[dh]|p|li|h\d|summary|caption|figcaption|pre)>)"
        shown = Page(re.sub(apart, r" \1", part(page, section["name"]))).spoken
        wanted = [str(number), section["title"]]
        wanted += [text for block in section["blocks"] for text in told(block)]
        assert words(shown) == words(" ".join(wanted)), section["name"]
    headline = words(Page(part(page, "headline")).spoken)
    for line in record["headline"] + record["verdicts"]:
        sentence = line["sentence"]
        assert words(sentence if isinstance(sentence, str) else sentence["text"]) in headline


def labels(fit):
    """Return every text of a fit that may hold digits of its own."""
    design, known = fit.design, set()
    for group in design.groups:
        known |= {group.name, *map(str, group.levels), *group.labels}
    known |= {*design.terms, fit.spec.name, fit.spec.title, fit.spec.description}
    known |= set(design.data["row_region"].values.tolist())
    known |= {str(design.data.attrs["unit"]), fit.provenance["created"], fit.provenance["version"]}
    known |= {*fit.provenance["versions"].values(), fit.provenance["python"]}
    return sorted(known - {None, "", "1"}, key=len, reverse=True)


@pytest.mark.parametrize(("variant", "how"), VARIANTS)
def test_no_number_is_mere_text(twins, variant, how):
    fit, _, record = twins(variant, **how)
    own, mere = labels(fit), {}
    for text, numbers in texts(record):
        left = "" if "<sub>" in text else text  # but equations, whose numbers are indices
        at = 0
        for each in numbers:
            found = re.compile(rf"(?<![\w.]){re.escape(each)}(?!\w)").search(left, at)
            left, at = left[: found.start()] + left[found.end() :], found.start()
        for label in own:
            left = re.sub(rf"(?<!\w){re.escape(label)}(?!\w)", "", left)
        left = re.sub(r"[0-9a-f]{64}|<[^>]*>|\w+\d\w*\([^)]*\)", "", left)
        left = WORDS.sub("", left)
        if re.search(r"\d", left):
            mere[text] = left
    assert mere == {}


def tables(record, section):
    (found,) = [each for each in record["sections"] if each["name"] == section]
    return [block for block in found["blocks"] if block["kind"] == "table"]


def column(block, head):
    return [row[block["columns"].index(head)] for row in block["rows"]]


def test_tables_hold_the_frames(twins):
    fit, _, record = twins("clusters", geometry=True)
    frame = coefficients(fit).query("effect == 'coefficient'").set_index("term")
    for block in tables(record, "coefficients"):
        terms = column(block, "term")
        mine = frame.loc[terms]
        for head, name in (("estimate", "estimate"), ("sd", "std_error")):
            values = [cell["value"] for cell in column(block, head)]
            np.testing.assert_array_equal(values, mine[name])
        ends = column(block, "95 % interval")
        np.testing.assert_array_equal([cell["low"] for cell in ends], mine["ci_low"])
        np.testing.assert_array_equal([cell["high"] for cell in ends], mine["ci_high"])
    speeds = convergence(fit).query("effect == 'speed' and group != 'overall'")
    (by_group,) = [b for b in tables(record, "convergence") if b["columns"][0] == "group"
                   and len(b["columns"]) > 6]  # fmt: skip
    values = [row[3]["value"] for row in by_group["rows"]]
    np.testing.assert_array_equal(values, speeds["estimate"])
    power = power_scaling(fit)
    (block,) = tables(record, "sensitivity")
    values = [cell["value"] for cell in column(block, "all priors")]
    np.testing.assert_array_equal(values, power["prior"])
    widths = prior_and_posterior(fit)
    (block,) = [b for b in tables(record, "priors") if "width ratio" in b["columns"]]
    values = [cell["value"] for cell in column(block, "width ratio")]
    np.testing.assert_array_equal(values, widths["width"])


def test_figures_hold_what_they_draw(twins):
    fit, _, record = twins("clusters", geometry=True)
    drawn = {
        section["name"]: [b["data"] for b in section["blocks"] if b.get("data")]
        for section in record["sections"]
    }
    both = drawn["coefficients"][0]
    other = fit_frequentist(fit).estimates.query("effect == 'coefficient'")
    ols = other.query("estimator == 'OLS'").set_index("term")["estimate"]
    for estimator, term, value in zip(
        both["estimator"], both["term"], both["estimate"], strict=True
    ):
        if estimator == "OLS":
            assert value == ols[term]
    ranks = rank_levels(fit, "region")
    assert drawn["regions"][1]["rank"] == ranks["rank"].tolist()
    moran = residual_moran(fit)
    assert next(d for d in drawn["fit"] if "moran" in d)["moran"] == moran["moran"].tolist()
    pit = marginal_loo(fit)
    shares = next(d for d in drawn["fit"] if "share" in d)["share"]
    counts = np.histogram(pit.pointwise["pit"], np.linspace(0.0, 1.0, 21))[0]
    np.testing.assert_allclose(shares, counts * 20 / len(pit.pointwise))


def test_the_same_fit_gives_the_same_record(synthetic_fit, twins):
    fit, _, record = twins("regions", geometry=True)
    again = make_report(type(fit)(fit.tree.copy(deep=True)))
    assert json.loads(again.json()) == record


def test_steps_are_told_when_they_begin_and_when_they_end(synthetic_fit):
    told_ = []
    make_report(
        synthetic_fit("plain", weights=False), progress=lambda step, s: told_.append((step, s))
    )
    begun = [step for step, seconds in told_ if seconds is None]
    ended = [step for step, seconds in told_ if seconds is not None]
    assert begun == ended
    assert begun[:3] == ["frequentist estimates", "checks of the sampling", "leave-one-out"]
    assert all(seconds >= 0.0 for _, seconds in told_ if seconds is not None)
