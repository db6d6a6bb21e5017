"""What a report is made of: sections of paragraphs, tables, figures, lists and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

__all__ = ["Block", "Code", "Notes", "Paragraph", "Picture", "Section", "Table"]


@dataclass(frozen=True)
class Paragraph:
    """Text; ``tone`` is plain, good, bad or equation."""

    kind: ClassVar[str] = "paragraph"
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Notes:
    """A list of sentences under a short title."""

    kind: ClassVar[str] = "notes"
    title: str
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of finished cells.

    ``text`` are the columns set as text, the others as numbers; ``folded`` is the title
    behind which it hides, if it does.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[int] = (0,)
    folded: str = ""


@dataclass(frozen=True)
class Picture:
    """A finished image with its text alternative."""

    kind: ClassVar[str] = "picture"
    uri: str
    alt: str
    caption: str
    width: int


@dataclass(frozen=True)
class Code:
    """Text to copy, as it is; folded behind a title if it has one."""

    kind: ClassVar[str] = "code"
    text: str
    folded: str = ""


type Block = Paragraph | Notes | Table | Picture | Code


@dataclass(frozen=True)
class Section:
    """One section; ``name`` is the anchor."""

    name: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
