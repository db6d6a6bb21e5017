"""Lines -> a workbook whose numbers are numbers and whose labels are never formulas."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from typing import Any, Final

from spatialclusters.regression_tables.lines import Line
from spatialclusters.regression_tables.office import MADE, archive, require

__all__ = ["workbook"]

_CODE: Final = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")
_NUMBER: Final = re.compile(r"(\()?(−)?([\d,]+)(?:\.(\d+))?\)?")
_WIDEST: Final = 60.0  # characters


def workbook(title: str, lines: Sequence[Line], notes: Sequence[str]) -> bytes:
    """Return a workbook with one sheet: title, lines, notes."""
    require(".xlsx")
    from openpyxl import Workbook
    from openpyxl.styles import Alignment, Border, Font, Side
    from openpyxl.worksheet.properties import PageSetupProperties
    from openpyxl.writer.excel import ExcelWriter

    book = Workbook()
    book.properties.creator = "spatialclusters"
    book.properties.created = book.properties.modified = MADE
    sheet = book.active
    sheet.title = "table"
    sheet.page_setup.orientation, sheet.page_setup.fitToHeight = "landscape", 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    texts: list[tuple[str, ...]] = []
    for number, line in enumerate(lines, 3 if title else 1):
        texts.append((line.label, *line.cells))
        above = "medium" if number == 1 + 2 * bool(title) else "thin" if line.rule else None
        for column, text in enumerate(texts[-1], 1):
            cell = _fill(sheet.cell(number, column), text, number=column > 1 and line.numbers)
            cell.alignment = Alignment(horizontal="center" if column > 1 else "left")
            cell.font = Font(bold=line.kind == "head", italic=line.kind == "section")
            cell.border = Border(top=Side(style=above))
    if title:
        _fill(sheet.cell(1, 1), title).font = Font(bold=True)
    for number, note in enumerate(notes or [""], sheet.max_row + 1):
        _fill(sheet.cell(number, 1), note)
    under = sheet.max_row + 1 - len(notes or [""])
    for column, width in enumerate(_widths(lines), 1):
        cell = sheet.cell(under, column)
        cell.border = Border(top=Side(style="medium"))
        sheet.column_dimensions[cell.column_letter].width = width
    # Workbook.save would set the time of the change to now
    return archive(lambda file: ExcelWriter(book, zipfile.ZipFile(file, "w")).save())


def _fill(cell: Any, text: str, *, number: bool = False) -> Any:
    """Set a cell to a number, or to text that is no formula, not even when it is edited."""
    found = _NUMBER.fullmatch(text) if number else None
    if found is not None:
        bracket, sign, whole, decimals = found.groups()
        size = float(f"{whole.replace(',', '')}.{decimals or 0}")
        form = "#,##0" + (f".{'0' * len(decimals)}" if decimals else "")
        form = f'"("{form}")"' if bracket else form
        cell.value, cell.number_format = -size if sign else size, f'{form};"−"{form}'
    elif text:
        # Excel reads _x003D_ as the character with that code
        cell.value = _CODE.sub("_x005F_", text)
        cell.data_type, cell.quotePrefix = "s", True
    return cell


def _widths(lines: Sequence[Line]) -> list[float]:
    texts = [(line.label, *line.cells) for line in lines if line.kind != "section"]
    return [min(max(map(len, column)) + 2.0, _WIDEST) for column in zip(*texts, strict=True)]
