"""How large what comes from outside may be: beyond these it is refused in words, before memory is gone.

Numbers that a person can think of, far above any portfolio we know and far below what hurts. What is counted where:
documents in `crossrisk.config` and `expectations`, SQL in `crossrisk.sql_rules`, Parquet in `tasks.input_files`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MIB = 1 << 20

MOST_DOCUMENT_BYTES = 4 * MIB
"""of a TOML or a suite: a thousand times the largest that is shipped"""
MOST_DEPTH = 32
"""tables within tables: ours have 3"""
MOST_COLUMNS = 10_000
"""of a file, and names in one list of a TOML: the article has 291"""
MOST_ROWS = 100_000_000
"""of all files of one kind of one input: the books of a large lender over decades"""
MOST_CELL_BYTES = 10_000
"""of a text that a portfolio reads: six pages of print are no category and no id"""
MOST_LONG_TEXT_BYTES = 16 * MIB
"""of all longer texts of a delivery to be scored, which are passed over row by row: more of them are no slips"""
MOST_CHUNK_BYTES = 1024 * MIB
"""one column of one row group, unpacked: what a reader must hold at once. Writers make row groups of 1 to 100 MiB"""
MOST_RULE_CHARACTERS = 10_000
"""of one SQL rule: the parser's stack ended at about 64,000 (measured: polars 2.1, a stack of 8 MiB)"""
MOST_FAULTS_SAID = 20
"""in one message"""


def read_document(path: Path) -> bytes:
    """The bytes of a TOML or a suite.

    Raises:
        ValueError: it is too large. What has no size, such as a device, is read no further than the limit.
        OSError: it cannot be read.
    """
    with path.open("rb") as opened:
        read = opened.read(MOST_DOCUMENT_BYTES + 1)
    if len(read) > MOST_DOCUMENT_BYTES:
        raise ValueError(f"is larger than {MOST_DOCUMENT_BYTES // MIB} MiB, the most that is read of such a file")
    return read


def refuse_depth(document: Any) -> None:
    """See to it that parsed TOML or JSON is nested no deeper than what recursive readers can follow.

    Raises:
        ValueError: it is.
    """
    level = [document]
    for _ in range(MOST_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [value for values in inner for value in values]
        if not level:
            return
    raise ValueError(f"nests tables or lists more than {MOST_DEPTH} deep; ours have 3")
