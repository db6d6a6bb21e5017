"""What a report is made of: sections of paragraphs, tables, figures, lists and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from spatialclusters.reporting.values import Interval, Number, Shown, finite, plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EMPTY", "Block", "Code", "Notes", "Paragraph", "Picture", "Section", "Table"]

EMPTY: Final = ("", "—")
_LONG: Final = 80  # rows from which a folded table stays folded in print


@dataclass(frozen=True)
class Paragraph:
    """Text; ``tone`` is plain, lead, subhead, good, bad or equation."""

    kind: ClassVar[str] = "paragraph"
    text: Shown
    tone: str = "plain"

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {"text": plain(self.text), "tone": self.tone}


@dataclass(frozen=True)
class Notes:
    """A list of sentences under a short title."""

    kind: ClassVar[str] = "notes"
    title: Shown
    items: Sequence[Shown]

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {"title": plain(self.title), "items": [plain(item) for item in self.items]}


@dataclass(frozen=True)
class Table:
    """A table; ``folded`` is the title behind which it hides, if it does.

    Columns whose cells are all numbers or intervals are aligned on the decimal point.
    """

    kind: ClassVar[str] = "table"
    caption: Shown
    columns: Sequence[str]
    rows: Sequence[Sequence[Shown]]
    folded: Shown = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        return [
            bool(self.rows)
            and any(isinstance(row[k], Number | Interval) for row in self.rows)
            and all(isinstance(row[k], Number | Interval) or row[k] in EMPTY for row in self.rows)
            for k in range(len(self.columns))
        ]

    @property
    def long(self) -> bool:
        """Whether it is too long to be printed."""
        return len(self.rows) > _LONG

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {
            "folded": plain(self.folded),
            "caption": plain(self.caption),
            "columns": list(self.columns),
            "rows": [[plain(cell) for cell in row] for row in self.rows],
        }


@dataclass(frozen=True)
class Picture:
    """A finished image with its text alternative, and the numbers that it draws."""

    kind: ClassVar[str] = "picture"
    uri: str
    alt: Shown
    caption: Shown
    width: int
    data: pd.DataFrame | None = None

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it: everything but the image."""
        found: dict[str, Any] = {"caption": plain(self.caption), "alternative": plain(self.alt)}
        if self.data is not None:
            found["data"] = {
                str(name): [_value(value) for value in self.data[name]] for name in self.data
            }
        return found


@dataclass(frozen=True)
class Code:
    """Text to copy, as it is; folded behind a title if it has one."""

    kind: ClassVar[str] = "code"
    text: str
    folded: str = ""

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {"folded": self.folded, "code": self.text}


type Block = Paragraph | Notes | Table | Picture | Code


@dataclass(frozen=True)
class Section:
    """One section; ``name`` is the anchor, ``part`` what of the report it belongs to."""

    name: str
    title: str
    part: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        blocks = [{"kind": block.kind} | block.record() for block in self.blocks]
        return {"name": self.name, "title": self.title, "part": self.part, "blocks": blocks}


def _value(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return finite(float(value))
