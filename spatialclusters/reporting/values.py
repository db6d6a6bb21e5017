"""What a report shows: numbers together with how they are written, and sentences that hold them.

A page and its machine-readable twin are made from these, so that neither can say what the other
does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import Formatter
from typing import Any, Final

from spatialclusters.reporting import text as written

__all__ = [
    "Interval",
    "Link",
    "Mark",
    "Number",
    "Sentence",
    "Shown",
    "count",
    "finite",
    "fixed",
    "interval",
    "join",
    "number",
    "percent",
    "plain",
    "probability",
    "quoted",
    "say",
]

_ALONE: Final = re.compile(
    r"(?<![\w.,:−/-])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+−]?\d+)?(?![\w/-]|[.,:]\w)"
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number in the unit that is shown, and its text."""

    text: str
    value: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends in the unit that is shown, and their text."""

    text: str
    low: float
    high: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Link:
    """Words that lead to a section of the page."""

    text: str
    section: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Mark:
    """Words with a tone: good, bad, again where they repeat those above, word if unbroken."""

    text: str
    tone: str

    def __str__(self) -> str:
        return self.text


type Part = str | Number | Interval | Link | Mark


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words and numbers in order."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "".join(map(str, self.parts))

    @property
    def numbers(self) -> tuple[Number | Interval, ...]:
        """The numbers in order."""
        return tuple(part for part in self.parts if isinstance(part, Number | Interval))


type Shown = Part | Sentence


def say(template: str, /, *fields: Shown, **named: Shown) -> Sentence:
    """Fill a template as ``str.format`` does, and keep the numbers.

    Examples
    --------
    >>> found = say("It grew by {} points {ends}.", fixed(1.234, 1), ends=interval(1.0, 1.5, 1))
    >>> str(found), [part.text for part in found.numbers]
    ('It grew by 1.2 points [1.0, 1.5].', ['1.2', '[1.0, 1.5]'])
    """
    pieces: list[Shown] = []
    rest = iter(fields)
    for literal, name, _, _ in Formatter().parse(template):
        pieces.append(literal)
        if name is not None:
            pieces.append(named[name] if name else next(rest))
    return Sentence(tuple(_flat(pieces)))


def join(sentences: Iterable[Shown], between: str = " ") -> Sentence:
    """Put sentences after one another.

    Examples
    --------
    >>> str(join(["One.", count(2000)]))
    'One. 2,000'
    """
    pieces: list[Shown] = []
    for each in sentences:
        pieces += [between, each] if pieces else [each]
    return Sentence(tuple(_flat(pieces)))


def _flat(pieces: Iterable[Shown]) -> Iterator[Part]:
    """Yield the parts of sentences among others, strings that meet as one."""
    words = ""
    for piece in pieces:
        for part in piece.parts if isinstance(piece, Sentence) else (piece,):
            if isinstance(part, str):
                words += part
                continue
            if words:
                yield words
            words = ""
            yield part
    if words:
        yield words


def count(value: float) -> Number:
    """Return a whole number with thousands separators."""
    return Number(written.count(value), float(value))


def fixed(value: float, decimals: int) -> Number:
    """Return a number with so many decimals."""
    return Number(written.fixed(value, decimals), float(value))


def number(value: float, digits: int = 3) -> Number:
    """Return a number with significant digits."""
    return Number(written.number(value, digits), float(value))


def percent(part: float, whole: float = 1.0, decimals: int = 1) -> Number:
    """Return a part of a whole in percent; its value is in percent, too.

    Examples
    --------
    >>> percent(1, 4), percent(1, 0).text
    (Number(text='25.0 %', value=25.0), '—')
    """
    value = 100.0 * part / whole if whole else math.nan
    return Number(f"{written.fixed(value, decimals)} %" if whole else "—", value)


def probability(value: float) -> Number:
    """Return a probability; what draws cannot tell from 0 or 1 is not called that."""
    return Number(written.probability(value), float(value))


def interval(low: float, high: float, decimals: int) -> Interval:
    """Return an interval in brackets."""
    return Interval(written.interval(low, high, decimals), float(low), float(high))


def quoted(text: str) -> Sentence:
    """Return a finished text with the numbers that stand alone in it.

    Examples
    --------
    >>> [each.value for each in quoted("29,912 rows, x1 among them, p = 0.05.").numbers]
    [29912.0, 0.05]
    """
    pieces: list[Shown] = []
    start = 0
    for found in _ALONE.finditer(text):
        value = float(found[0].replace("−", "-").replace(",", ""))
        pieces += [text[start : found.start()], Number(found[0], value)]
        start = found.end()
    return Sentence(tuple(_flat([*pieces, text[start:]])))


def plain(shown: Shown) -> Any:
    """Return what JSON holds of something shown: text, with the numbers beside it.

    Examples
    --------
    >>> plain(say("up to {}", number(math.inf)))
    {'text': 'up to ∞', 'numbers': [{'text': '∞', 'value': 'inf'}]}
    """
    if isinstance(shown, Number):
        return {"text": shown.text, "value": finite(shown.value)}
    if isinstance(shown, Interval):
        return {"text": shown.text, "low": finite(shown.low), "high": finite(shown.high)}
    if isinstance(shown, Link):
        return {"text": shown.text, "section": shown.section}
    if isinstance(shown, Sentence) and shown.numbers:
        return {"text": str(shown), "numbers": [plain(each) for each in shown.numbers]}
    return str(shown)


def finite(value: float) -> float | str | None:
    """Return a number as JSON can hold it: missing as null, infinity as the text ``inf``."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
