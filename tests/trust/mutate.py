"""Mutations of text and numbers, from an explicit generator."""

from __future__ import annotations

import numpy as np

NUMBERS = (
    "0", "-0.0", "-1", "1e999", "-1e999", "nan", "inf", "1e-320", "1e308", "9" * 400, "0x10", "1_000",
    "1,5", "2.5", "true", "2018", "9999", "10000", "'1'", "1e", "--1", "٣", "",
)  # fmt: skip
WORDS = (
    "x", "z", "y", "region", "cluster", "industry", "year", "log(", ")", "(1 | region)", "(1 + x | cluster)",
    "lag(x)", "center(x)", ":", "*", "+", "-", "~", "|", "__import__('os')", "x.__class__", "`", "\\", '"', "'",
    '"""', "'''", "=", "==", "[", "]", "[[a]]", "{", "}", ",", ";", "\n", "\r", "\t", "#", "%", "\x00", "\x1b[31m",
    "\u202e", "\ufeff", "é", "東京", "😀", "<script>", "=1+1", "{{7*7}}", "NA", "None", "null", "../../etc/passwd",
    "normal", "uniform", "flat", "sar", "sem", "icar", "bym2", "fixed", "drop", "asinh", "size", "student-t",
    "a" * 300, "1979-05-27", "a.b.c", "\ufffd",
)  # fmt: skip


def mutated(text: str, rng: np.random.Generator, others: tuple[str, ...] = ()) -> str:
    """Return a text after one or a few mutations; ``others`` may be spliced in."""
    for _ in range(rng.geometric(0.6)):
        text = _once(text, rng, others)
    return text


def mutated_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes after a few of them were changed, dropped or doubled."""
    out = bytearray(content)
    for _ in range(rng.geometric(0.5)):
        at = int(rng.integers(0, len(out) + 1))
        match rng.integers(4):
            case 0 if at < len(out):
                out[at] = int(rng.integers(256))
            case 1:
                del out[at : at + int(rng.integers(1, 20))]
            case 2:
                out[at:at] = out[at : at + int(rng.integers(1, 20))]
            case _:
                out[at:at] = bytes(rng.integers(0, 256, 3, dtype=np.uint8))
    return bytes(out)


def _once(text: str, rng: np.random.Generator, others: tuple[str, ...]) -> str:
    at, end = sorted(int(i) for i in rng.integers(0, len(text) + 1, 2))
    end = min(end, at + 40)
    lines = text.split("\n")
    line = int(rng.integers(len(lines)))
    match rng.integers(9):
        case 0:
            return text[:at] + text[end:]
        case 1:
            return text[:at] + text[at:end] + text[at:]
        case 2:
            return text[:at] + _one(WORDS, rng) + text[at:]
        case 3:
            return text[:at] + _one(WORDS, rng) + text[end:]
        case 4:
            return "\n".join(lines[:line] + lines[line + 1 :])
        case 5:
            return "\n".join([*lines[: line + 1], *lines[line:]])
        case 6:
            return _other_number(text, at, rng)
        case 7 if others:
            other = _one(others, rng)
            return text[:at] + other[int(rng.integers(len(other) + 1)) :]
        case _:
            other_line = int(rng.integers(len(lines)))
            lines[line], lines[other_line] = lines[other_line], lines[line]
            return "\n".join(lines)


def _other_number(text: str, at: int, rng: np.random.Generator) -> str:
    """Replace the first number behind a place."""
    start = next((i for i in range(at, len(text)) if text[i].isdecimal()), len(text))
    end = next((i for i in range(start, len(text)) if text[i] not in "0123456789.e"), len(text))
    return text[:start] + _one(NUMBERS, rng) + text[end:]


def _one(values: tuple[str, ...], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]
