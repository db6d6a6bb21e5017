"""The lines of a table as text, from which every format is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["STATISTICS", "Kind", "Line"]

Kind = Literal["head", "section", "estimate", "error", "interval", "footer"]
STATISTICS: tuple[Kind, ...] = ("estimate", "error", "interval")
"""What stands below one another for each term."""


@dataclass(frozen=True)
class Line:
    """One line: a label, and one text per column.

    ``position`` counts the lines of one term, of which there are ``span``; ``rule`` tells a
    line with a rule above.
    """

    kind: Kind
    label: str
    cells: tuple[str, ...]
    position: int = 0
    span: int = 1
    rule: bool = False

    @property
    def numbers(self) -> bool:
        """Whether the cells are numbers of ours, not labels."""
        return self.kind in STATISTICS
