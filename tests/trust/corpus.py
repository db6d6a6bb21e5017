"""The corpus of bad input, and the table of it in the documentation.

python -m tests.trust.corpus --output docs/bad-input.md

writes the table; ``test_bad_input.py`` runs every case and checks that the table is current.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

from tests.trust.cases import Case
from tests.trust.cases_of_data import LINKAGES, LINKS, SHAPES, TABLES
from tests.trust.cases_of_files import FITS, RAW, WORDS
from tests.trust.cases_of_models import FORMULAS, MODELS

CASES: tuple[Case, ...] = (
    *TABLES, *SHAPES, *LINKS, *LINKAGES, *MODELS, *FORMULAS, *FITS, *RAW, *WORDS,
)  # fmt: skip

HEAD = """# Bad input

What `spatialclusters` does with {n} malformed and hostile inputs: {refused} are refused by one
message (exit code 2, nothing on standard output, no traceback), before anything is sampled; {fits}
can be used all the same, and what was noticed is said. The second column is part of what is said.

`python -m pytest tests/trust/test_bad_input.py` runs all of them; this page is written by
`python -m tests.trust.corpus --output docs/bad-input.md`. Mutations of good inputs, ten thousand of
them, are [a record of their own](records/fuzz.md).
"""


def page() -> str:
    """Return the table as Markdown."""
    fits = sum(case.fits for case in CASES)
    lines = [HEAD.format(n=len(CASES), fits=fits, refused=len(CASES) - fits)]
    for group, cases in groupby(CASES, key=lambda case: case.group):
        lines += [f"## {group}", "", "| given | outcome | it says |", "|---|---|---|"]
        for case in cases:
            outcome = "fits" if case.fits else "refused"
            lines.append(f"| {_cell(case.name)} | {outcome} | {_cell(case.says)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Escape what Markdown would obey in a cell; code stays code."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    shown = shown.replace("|", "\\|")
    if "`" in shown:
        return shown
    return "".join(f"\\{c}" if c in "_*<>[]" else c for c in shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.parse_args().output.write_text(page(), encoding="utf-8")
