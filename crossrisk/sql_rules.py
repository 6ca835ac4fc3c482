"""The one door through which SQL of a portfolio becomes an expression over the columns of a row.

A rule is `product = 'card'`, never a query: Polars resolves a query inside an expression as soon as it is parsed, also
`read_csv('/etc/hostname')` and `read_parquet('http://...')` (measured, polars 2.1), so that reading a TOML would open
files and addresses of its writer's choice. What may hold a query is refused before Polars sees it.
"""

from __future__ import annotations

import re

import polars as pl

from crossrisk.limits import MOST_RULE_CHARACTERS

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")
"""Texts and quoted names, in which everything is allowed."""
_QUERY = re.compile(r"\b(SELECT|WITH|VALUES|TABLE)\b|\(\s*(FROM)\b")
"""How a query begins; `EXTRACT(year FROM d)` and `IS DISTINCT FROM` are none."""
_OTHER_QUOTES = re.compile(r"--|/\*|[;`$\\{]|[\w&]['\"]")
"""Comments, and other ways to quote (`E'\\''`, `$$...$$`): in them a query could hide from us and not from Polars."""


def parse_rule(sql: str) -> pl.Expr:
    """The expression of a rule.

    Raises:
        ValueError: too long, a query, or a way to quote that is not ours.
        polars.exceptions.PolarsError: no SQL expression.
    """
    if len(sql) > MOST_RULE_CHARACTERS:
        raise ValueError(
            f"a rule of {len(sql):,} characters, at most {MOST_RULE_CHARACTERS:,} are read; make a column of it in the "
            "data, or use IN (...) for many values"
        )
    # upper case as the parser makes it, not re.IGNORECASE: `ſelect` is SELECT to it
    bare = _QUOTED.sub(lambda quoted: quoted[0][0] * 2, sql).upper()
    query = _QUERY.search(bare)
    if query:
        raise ValueError(
            f"a rule says something about the columns of a row and holds no query, but {_shorten(sql)} has "
            f"{query[1] or query[2]}; put a column of that name in double quotes"
        )
    other = _OTHER_QUOTES.search(bare)
    if other:
        raise ValueError(
            f"{_shorten(sql)} holds {other[0].lower()!r}: texts stand in 'single quotes', names in \"double quotes\", "
            "both after a space or a sign; comments belong into the TOML"
        )
    return pl.sql_expr(sql)


def _shorten(sql: str) -> str:
    return repr(sql if len(sql) <= 120 else f"{sql[:117]}...")
