"""Fit -> one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spatialclusters._version import __version__
from spatialclusters.diagnostics import check
from spatialclusters.errors import FitError
from spatialclusters.files import replace_file
from spatialclusters.frequentist import Frequentist, fit_frequentist
from spatialclusters.plots import printable
from spatialclusters.reporting.blocks import Section
from spatialclusters.reporting.findings import result_sections
from spatialclusters.reporting.headline import Results, headline
from spatialclusters.reporting.sections import (
    computation_section,
    data_section,
    model_section,
    reproduction_section,
    verdict_sentence,
    weights_section,
)
from spatialclusters.result import Fit

__all__ = ["write_report"]


def write_report(fit: Fit, frequentist: Frequentist | None = None, *, path: str | Path) -> Path:
    """Write everything there is to know of a fit as one self-contained HTML page.

    The page asks the network for nothing and runs no script; the same fit gives the
    same bytes.

    Parameters
    ----------
    fit
        The posterior; nothing else is read.
    frequentist
        Estimates to compare with; computed here by default.
    path
        Of the HTML file, which appears whole or not at all.

    Returns
    -------
    pathlib.Path
        Where the page is.

    Raises
    ------
    FitError
        The file cannot be written, or the estimates are of other rows.
    """
    target = Path(path)
    page = _render(fit, fit_frequentist(fit) if frequentist is None else frequentist)
    try:
        replace_file(target, lambda file: file.write(page.encode("utf-8")))
    except OSError as cause:
        msg = f"{target.name}: cannot be written ({cause}). Choose another place with -o."
        raise FitError(msg) from cause
    return target


def _render(fit: Fit, frequentist: Frequentist) -> str:
    from jinja2 import Environment, StrictUndefined

    folder = files("spatialclusters.reporting")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_controls,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string((folder / "template.html").read_text("utf-8"))
    results, verdict = Results(fit, frequentist), check(fit)
    return template.render(
        # the only text taken as it is: our own style sheet
        style=Markup((folder / "style.css").read_text("utf-8")),  # noqa: S704
        title=fit.spec.title or fit.spec.name,
        name=fit.spec.name,
        simulated=bool(fit.design.record["panel"].get("simulated")),
        passed=verdict.passed,
        verdict=verdict_sentence(verdict),
        headline=headline(results),
        sections=list(_sections(results, verdict)),
        version=__version__,
        created=fit.provenance["created"],
    )


def _sections(results: Results, verdict: Any) -> Iterator[Section]:
    """Yield all sections in reading order: the findings first, then what they rest on."""
    fit = results.fit
    yield from result_sections(results)
    yield data_section(fit)
    yield weights_section(fit)
    yield model_section(fit)
    yield computation_section(fit, verdict)
    yield reproduction_section(fit)


def _without_controls(value: Any) -> Any:
    """Drop characters that HTML forbids or that reorder text; keep lines of code as they are."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(
            line if line.isprintable() else printable(line) for line in value.split("\n")
        )
    return value
