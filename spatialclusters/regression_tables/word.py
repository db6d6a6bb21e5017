"""Lines -> a Word document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from spatialclusters.regression_tables.lines import Line
from spatialclusters.regression_tables.office import MADE, archive, require

__all__ = ["document"]

_UPRIGHT: Final = 3  # columns of numbers that fit on a page; with more it is turned
_LABEL: Final = 0.3  # share of the width
_THICK, _THIN = "12", "6"  # eighths of a point


def document(title: str, lines: Sequence[Line], notes: Sequence[str]) -> bytes:
    """Return a document with one table, whose head is repeated on every page."""
    require(".docx")
    from docx import Document
    from docx.enum.section import WD_ORIENT
    from docx.shared import Pt

    file, width = Document(), len(lines[0].cells)
    about, page, normal = file.core_properties, file.sections[0], file.styles["Normal"]
    about.author, about.title, about.comments = "spatialclusters", title[:255], ""
    about.created = about.modified = MADE
    normal.font.size, normal.paragraph_format.space_after = Pt(9), Pt(0)
    if width > _UPRIGHT:
        page.orientation = WD_ORIENT.LANDSCAPE
        page.page_width, page.page_height = page.page_height, page.page_width
    if title:
        paragraph = file.add_paragraph()
        paragraph.add_run(title).bold = True
        paragraph.paragraph_format.keep_with_next = True
        paragraph.paragraph_format.space_after = Pt(6)
    terms = _terms(lines)
    table = file.add_table(len(terms), width + 1)
    space = page.page_width - page.left_margin - page.right_margin
    label = int(space * _LABEL)
    for column, size in zip(
        table.columns, [label, *[(space - label) // width] * width], strict=True
    ):
        column.width = size
    for position, (row, term) in enumerate(zip(table.rows, terms, strict=True)):
        above = _THICK if position == 0 else _THIN if term[0].rule else ""
        _fill(row, term, above, _THICK if position == len(terms) - 1 else "")
    for note in notes:
        file.add_paragraph().add_run(note).font.size = Pt(8)
    return archive(file.save)


def _terms(lines: Sequence[Line]) -> list[list[Line]]:
    """Put the lines of a term together: they become one row."""
    terms: list[list[Line]] = []
    for line in lines:
        if line.position:
            terms[-1].append(line)
        else:
            terms.append([line])
    return terms


def _fill(row: Any, term: Sequence[Line], above: str, below: str) -> None:
    """Fill a row, one paragraph for each line."""
    from docx.enum.text import WD_ALIGN_PARAGRAPH
    from docx.oxml import OxmlElement
    from docx.shared import Pt

    first, properties, cells = term[0], row._tr.get_or_add_trPr(), row.cells
    properties.append(OxmlElement("w:cantSplit"))
    if first.kind == "head":
        properties.append(OxmlElement("w:tblHeader"))
    if first.kind == "section":
        cells = [cells[0].merge(cells[-1])]
    for column, cell in enumerate(cells):
        texts = [line.cells[column - 1] for line in term] if column else [first.label]
        for number, text in enumerate(texts):
            paragraph = cell.add_paragraph() if number else cell.paragraphs[0]
            paragraph.alignment = WD_ALIGN_PARAGRAPH.CENTER if column else WD_ALIGN_PARAGRAPH.LEFT
            paragraph.paragraph_format.keep_with_next = first.kind == "section"
            if number == 0 and first.kind in ("section", "estimate"):
                paragraph.paragraph_format.space_before = Pt(3)
            run = paragraph.add_run(text)
            run.bold, run.italic = first.kind == "head", first.kind == "section"
        _border(cell, above, below)


def _border(cell: Any, above: str, below: str) -> None:
    """Rule a cell, which python-docx leaves to the XML."""
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    borders = OxmlElement("w:tcBorders")
    for side, size in (("w:top", above), ("w:bottom", below)):
        if size:
            edge = OxmlElement(side)
            edge.set(qn("w:val"), "single")
            edge.set(qn("w:sz"), size)
            borders.append(edge)
    if len(borders):
        cell._tc.get_or_add_tcPr().append(borders)
