"""The value: a table of estimates, and every format it can be written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from spatialclusters.errors import FitError, listing
from spatialclusters.files import replace_file
from spatialclusters.plots import printable
from spatialclusters.regression_tables import markup, plain
from spatialclusters.regression_tables.excel import workbook
from spatialclusters.regression_tables.lines import STATISTICS, Line
from spatialclusters.regression_tables.numbers import Estimate
from spatialclusters.regression_tables.office import require
from spatialclusters.regression_tables.word import document

__all__ = ["FORMATS", "RegressionTable", "Row", "check_format"]


@dataclass(frozen=True)
class Row:
    """A term and effect, and its estimate in each column: None where there is none."""

    section: str
    label: str
    term: str
    effect: str
    cells: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class RegressionTable:
    """Estimates side by side, made by :func:`regression_table`; printing it prints the text.

    Attributes
    ----------
    title
        May be empty.
    columns
        Names of the columns: models and estimators.
    rows
        Sections of terms and effects with their estimates, not yet rounded.
    footer
        What each column rests on: name, and one text per column.
    notes
        Sentences under the table.
    digits
        Significant digits of standard errors; the other numbers of a cell have as many decimals.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    footer: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    digits: int

    @property
    def _parts(self) -> tuple[str, tuple[Line, ...], tuple[str, ...]]:
        """Title, finished lines and notes, without characters that no document may hold."""
        lines, before = [], ""
        for line in self._lines():
            label, cells = printable(line.label), tuple(map(printable, line.cells))
            rule = line.kind != before and (before == "head" or line.kind == "footer")
            lines.append(replace(line, label=label, cells=cells, rule=rule))
            before = line.kind
        return printable(self.title), tuple(lines), tuple(map(printable, self.notes))

    def _lines(self) -> Iterator[Line]:
        yield Line("head", "", tuple(f"({i})" for i in range(1, len(self.columns) + 1)))
        yield Line("head", "", self.columns)
        empty, section = ("",) * len(self.columns), ""
        for row in self.rows:
            if row.section != section:
                section = row.section
                yield Line("section", section, empty)
            shown = [("", "", "") if c is None else c.texts(self.digits) for c in row.cells]
            found = [
                (kind, cells)
                for kind, cells in zip(STATISTICS, zip(*shown, strict=True), strict=True)
                if any(cells)
            ]
            for position, (kind, cells) in enumerate(found):
                label = row.label if position == 0 else ""
                yield Line(kind, label, cells, position, len(found))
        for name, cells in self.footer:
            yield Line("footer", name, cells)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return markup.html(*self._parts, page=False)

    def to_text(self) -> str:
        """Return lines of aligned columns."""
        return plain.text(*self._parts)

    def to_markdown(self) -> str:
        """Return a Markdown table (with pipes) in which labels are text and nothing else."""
        return plain.markdown(*self._parts)

    def to_html(self) -> str:
        """Return a page that needs no network and runs no script; all labels are escaped."""
        return markup.html(*self._parts, page=True)

    def to_latex(self) -> str:
        r"""Return a ``table`` for the booktabs package; all labels are escaped.

        Letters that pdfLaTeX lacks (say, Chinese) need XeLaTeX or LuaLaTeX and a font.
        """
        return markup.latex(*self._parts)

    def to_excel(self, path: str | Path) -> Path:
        """Write a workbook with one sheet, numbers as they are rounded; no text is a formula.

        Raises
        ------
        FitError
            openpyxl is not installed, or the file cannot be written.
        """
        return _write(Path(path), workbook(*self._parts))

    def to_word(self, path: str | Path) -> Path:
        """Write a Word document that holds the table.

        Raises
        ------
        FitError
            python-docx is not installed, or the file cannot be written.
        """
        return _write(Path(path), document(*self._parts))

    def save(self, path: str | Path) -> Path:
        """Write in the format that the suffix names: .txt .md .html .tex .xlsx .docx.

        The file appears whole or not at all, and the same table gives the same bytes.

        Raises
        ------
        FitError
            The suffix is another, a library is not installed, or the file cannot be written.
        """
        target = Path(path)
        return FORMATS[check_format(target)](self, target)


FORMATS: Final[dict[str, Callable[[RegressionTable, Path], Path]]] = {
    ".txt": lambda table, path: _write(path, f"{table.to_text()}\n".encode()),
    ".md": lambda table, path: _write(path, table.to_markdown().encode()),
    ".html": lambda table, path: _write(path, table.to_html().encode()),
    ".tex": lambda table, path: _write(path, table.to_latex().encode()),
    ".xlsx": RegressionTable.to_excel,
    ".docx": RegressionTable.to_word,
}
"""How a table is written, by suffix."""


def check_format(path: Path) -> str:
    """Return the suffix, if tables can be written so.

    Raises
    ------
    FitError
        The suffix is of no format, or its library is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        msg = (
            f"{path.name}: got {suffix[:20] or 'no suffix'!r}; expected one of {listing(FORMATS)}."
        )
        raise FitError(f"{msg} The suffix says the format.")
    require(suffix)
    return suffix


def _write(path: Path, content: bytes) -> Path:
    try:
        replace_file(path, lambda file: file.write(content))
    except OSError as cause:
        msg = f"{path.name}: cannot be written ({cause}). Choose another place with -o."
        raise FitError(msg) from cause
    return path
