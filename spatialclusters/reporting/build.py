"""Fit -> one HTML page that needs nothing else, and its machine-readable twin."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, Final

from markupsafe import Markup, escape

from spatialclusters._version import __version__
from spatialclusters.comparison import Result
from spatialclusters.diagnostics import Check
from spatialclusters.errors import FitError, expect
from spatialclusters.files import replace_file
from spatialclusters.frequentist import Frequentist, fit_frequentist
from spatialclusters.plots import printable
from spatialclusters.reporting.blocks import Section
from spatialclusters.reporting.headline import headline
from spatialclusters.reporting.layout import lay_out, pieces
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.sections import SECTIONS
from spatialclusters.reporting.values import Interval, Link, Mark, Number, Sentence, Shown, plain
from spatialclusters.reporting.verdicts import verdict_sentence, verdicts
from spatialclusters.result import Fit

__all__ = ["FORMAT", "Report", "make_report", "save_report", "write_report"]

FORMAT: Final = "spatialclusters-report/1"

type Progress = Callable[[str, float | None], None]
"""Told the name of each step when it begins, and again with its seconds when it has ended."""


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says, before it is a page or JSON.

    Attributes
    ----------
    title, name, created
        Of the model, and when it was fitted.
    simulated
        Whether the data are made up.
    headline
        Subject and sentence of each line.
    verdicts
        Subject, tone (``good`` or ``bad``) and sentence of each verdict.
    check
        The verdict on the sampling.
    sections
        In reading order.
    """

    title: str
    name: str
    created: str
    simulated: bool
    headline: Sequence[tuple[str, Shown]]
    verdicts: Sequence[tuple[str, str, Shown]]
    check: Check
    sections: Sequence[Section]

    def html(self) -> str:
        """Return the page: it asks the network for nothing and runs no script."""
        from jinja2 import Environment, StrictUndefined

        folder = files("spatialclusters.reporting")
        environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_without_controls,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["glue"] = _glued
        template = environment.from_string((folder / "template.html").read_text("utf-8"))
        return template.render(
            # the only text taken as it is: our own style sheet
            style=Markup((folder / "style.css").read_text("utf-8")),  # noqa: S704
            title=self.title,
            name=self.name,
            simulated=self.simulated,
            passed=self.check.passed,
            verdict=verdict_sentence(self.check),
            headline=self.headline,
            verdicts=self.verdicts,
            contents=self._contents(),
            version=__version__,
            created=self.created,
            lay_out=lay_out,
            pieces=pieces,
        )

    def json(self) -> str:
        """Return every number of the page, unrounded, where the page has it."""
        record = {
            "format": FORMAT,
            "title": self.title,
            "model": self.name,
            "created": self.created,
            "version": __version__,
            "simulated": self.simulated,
            "converged": self.check.passed,
            "verdict": plain(verdict_sentence(self.check)),
            "headline": [{"subject": s, "sentence": plain(text)} for s, text in self.headline],
            "verdicts": [
                {"subject": s, "tone": tone, "sentence": plain(text)}
                for s, tone, text in self.verdicts
            ],
            "sections": [section.record() for section in self.sections],
        }
        return json.dumps(record, allow_nan=False, ensure_ascii=False, indent=1) + "\n"

    def _contents(self) -> list[tuple[str, list[tuple[int, Section]]]]:
        """Return the sections, numbered, by the part of the report they belong to."""
        parts: dict[str, list[tuple[int, Section]]] = {}
        for number, section in enumerate(self.sections, 1):
            parts.setdefault(section.part, []).append((number, section))
        return list(parts.items())


def make_report(
    fit: Fit,
    frequentist: Frequentist | None = None,
    *,
    others: Mapping[str, Fit] | Sequence[Fit] = (),
    beside: Sequence[Result] = (),
    progress: Progress | None = None,
) -> Report:
    """Compute everything that a report says of a fit.

    Parameters
    ----------
    fit
        The posterior; nothing else is read.
    frequentist
        Estimates to compare with; computed here by default.
    others
        Fits of the same rows by other models or with other weights, under the names they are
        to have, by default those of their models: they are compared by leave-one-out.
    beside
        Further estimates on the same rows, such as from ``fit_reml`` or ``fit_spatial_ml``.
    progress
        Called with the name of each step and None when it begins, and with its seconds after it.

    Raises
    ------
    FitError
        The estimates, or one of the other fits, are of other rows.
    """
    expect(fit, Fit, "make_report(fit)")
    clock = _Clock(progress)
    if frequentist is None:
        frequentist = clock("frequentist estimates", lambda: fit_frequentist(fit))
    results = Results(fit, frequentist, _named(fit, others), beside)
    clock("checks of the sampling", lambda: results.check)
    clock("leave-one-out", lambda: results.loo)
    clock("checks of the model", lambda: results.criticism)
    if results.others:
        clock("leave-one-out of the other models", lambda: results.ladder)
    sections = [clock(f"section {name}", partial(make, results)) for name, make in SECTIONS]
    return Report(
        title=fit.spec.title or fit.spec.name,
        name=fit.spec.name,
        created=str(fit.provenance["created"]),
        simulated=bool(fit.design.record["panel"].get("simulated")),
        headline=headline(results),
        verdicts=list(verdicts(results)),
        check=results.check,
        sections=sections,
    )


def write_report(
    fit: Fit,
    frequentist: Frequentist | None = None,
    *,
    path: str | Path,
    numbers: str | Path | None = None,
    others: Mapping[str, Fit] | Sequence[Fit] = (),
    beside: Sequence[Result] = (),
    progress: Progress | None = None,
) -> Path:
    """Write everything there is to know of a fit as one self-contained HTML page.

    The page asks the network for nothing and runs no script; the same fit gives the
    same bytes.

    Parameters
    ----------
    fit, frequentist, others, beside, progress
        As for :func:`make_report`.
    path
        Of the HTML file, which appears whole or not at all.
    numbers
        Of a JSON file with every number of the page, unrounded, if there is to be one.

    Returns
    -------
    pathlib.Path
        Where the page is.

    Raises
    ------
    FitError
        A file cannot be written; or the estimates, or one of the other fits, are of other rows.
    """
    report = make_report(fit, frequentist, others=others, beside=beside, progress=progress)
    return save_report(report, path, numbers)


def save_report(report: Report, path: str | Path, numbers: str | Path | None = None) -> Path:
    """Write a report that was made."""
    for target, make in ((numbers, report.json), (path, report.html)):
        if target is None:
            continue
        content = make().encode("utf-8")
        try:
            replace_file(Path(target), partial(_write, content))
        except OSError as cause:
            msg = f"{Path(target).name}: cannot be written ({cause}). Choose another place."
            raise FitError(msg) from cause
    return Path(path)


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _named(fit: Fit, others: Mapping[str, Fit] | Sequence[Fit]) -> dict[str, Fit]:
    """Return the other fits under distinct names."""
    pairs = others.items() if isinstance(others, Mapping) else ((f.spec.name, f) for f in others)
    named: dict[str, Fit] = {}
    for name, other in pairs:
        taken, unique, number = {fit.spec.name, *named}, name, 2
        while unique in taken:
            unique, number = f"{name} ({number})", number + 1
        named[unique] = other
    return named


class _Clock:
    """Takes steps, and tells how long each took."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def __call__[T](self, step: str, take: Callable[[], T]) -> T:
        if self.progress is None:
            return take()
        self.progress(step, None)
        start = time.perf_counter()
        found = take()
        self.progress(step, time.perf_counter() - start)
        return found


def _glued(text: Any) -> Any:
    """Keep a number with its sign of percent, and an equality together, in a line."""
    if isinstance(text, Markup):
        return text
    clean = str(_without_controls(text))
    return Markup(escape(clean).replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0"))  # noqa: S704


def _without_controls(value: Any) -> Any:
    """Drop characters that HTML forbids or that reorder text; keep lines of code as they are."""
    if isinstance(value, Sentence | Number | Interval | Link | Mark):
        value = str(value)
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(
            line if line.isprintable() else printable(line) for line in value.split("\n")
        )
    return value
