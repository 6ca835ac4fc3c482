"""TOML that reads like a form: entries with their comments in one column, every text escaped.

Names and values come from a stranger's file: what does not print is written as its code point, in strings and in
comments, so that none of them can end its line or its quotes. What is said stays in `crossrisk.starting.drafting`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

LINE = 120


def toml_string(text: str) -> str:
    """A TOML basic string of any text; what does not print is written as its code point."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_printable(escaped)}"'


def _printable(text: str) -> str:
    """Text without line ends, controls or marks that turn the direction of reading."""
    return "".join(c if c.isprintable() else rf"\U{ord(c):08X}" for c in text)


def comment_lines(text: str) -> list[str]:
    """A comment of as many lines as it needs."""
    return textwrap.wrap(_printable(text), LINE, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def block(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Lines with their comments in one column."""
    width = max((len(code) for code, comment in lines if comment and len(code) < LINE // 2), default=0)
    for code, comment in lines:
        yield from entry(code, comment, width)


def array(key: str, entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    """An array of texts, one a line with its comment."""
    if not entries:
        yield f"{key} = []"
        return
    yield f"{key} = ["
    for line in block([(f"{toml_string(name)},", comment) for name, comment in entries]):
        yield f"  {line}"
    yield "]"


def entry(code: str, comment: str, width: int) -> list[str]:
    """The comment behind the code where it fits, else above it."""
    line = f"{code.ljust(width)}  # {_printable(comment)}"
    if not comment:
        return [code]
    return [line] if len(line) + 2 <= LINE else [*comment_lines(comment), code]


def number(value: float) -> str:
    """A number without a decimal point it does not need."""
    return str(int(value)) if value.is_integer() else repr(value)
