"""Every case of the corpus fits correctly, or is refused by one clear error before sampling."""

import logging
import re
from collections import Counter
from pathlib import Path

import pytest

import spatialclusters.run
from spatialclusters.cli import main
from tests.trust.corpus import CASES, page

LONGEST = 5_000  # characters of a message: 20 problems of a model file have the most
DOCS = Path(__file__).resolve().parents[2] / "docs"


class Sampling(Exception):  # noqa: N818  not an error: the sign that a fit got as far
    pass


@pytest.fixture(autouse=True)
def no_sampler(monkeypatch):
    """Let a fit get as far as sampling, and say so."""

    def sample(*_, **__):
        raise Sampling

    monkeypatch.setattr(spatialclusters.run, "is_small", lambda *_: False)
    monkeypatch.setattr(spatialclusters.run, "sample", sample)


def run(words, capsys):
    code = main(list(words))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def check_refused(case, code, out, err):
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ") or "\nerror: " in err, err
    told = err[err.index("error: ") :]
    assert case.says in told
    assert len(told) < LONGEST
    assert "Traceback" not in err
    # beside the error there may be warnings of the data, and nothing else
    before = err[: err.index("error: ")]
    assert all(line.startswith("warning: ") for line in before.splitlines())
    assert all(c.isprintable() or c == "\n" for c in err)


@pytest.mark.parametrize("case", CASES, ids=[f"{c.group}: {c.name}"[:90] for c in CASES])
def test_bad_input(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case.write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(case.words, capsys)
    if case.fits:
        assert code == 0, err
        assert "error" not in err
        assert case.says in out
    else:
        check_refused(case, code, out, err)
    if case.words[0] == "validate":
        words = ["fit", *case.words[1:], "-o", "fit.nc", "-q"]
        if case.fits:
            ours = logging.getLogger("spatialclusters")
            level = ours.level  # `main` would put it back
            with pytest.raises(Sampling):
                spatialclusters.cli.app(words, standalone_mode=False)
            ours.setLevel(level)
        else:
            check_refused(case, *run(words, capsys))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_corpus_holds_what_was_promised():
    names = " ".join(f"{case.group}: {case.name}" for case in CASES).lower()
    assert len(CASES) >= 60
    assert max(Counter((case.group, case.name) for case in CASES).values()) == 1
    for thing in (
        "island", "components", "region in two rows", "collinear", "constant covariate", "cluster in one region",
        "all-zero industry", "nan", "infinity", "other regions", "one direction", "negative weight",
        "its own neighbor", "rho in", "one region", "one cluster", "empty file", "10^6 characters",
        "06 and 6", "nothing", "__import__", "100 mb", "another version", "cut off", "external link",
    ):  # fmt: skip
        assert thing in names, thing


def test_the_page_is_current():
    text = (DOCS / "bad-input.md").read_text(encoding="utf-8")
    assert text == page(), "run python -m tests.trust.corpus --output docs/bad-input.md"
    assert not re.search(r"[^\x20-\x7e\n\u00a0-\uffff]", text)
