"""The command `score`: parse, call the flow, print the summary; exit codes are the CLI's."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from crossrisk.config import load_run
from crossrisk.pages.texts import visible_text
from crossrisk.quiet import set_log_level
from flows.registry_commands import AddCommand


def add_score_command(add: AddCommand) -> None:
    """Add the command.

    Args:
        add: `add(name, help)` gives a parser that has CONFIG, --set and --json.
    """
    score = add("score", "score the rows of Parquet files with a published model")
    score.add_argument(
        "--input", required=True, metavar="PATH", help="Parquet file, folder or glob; absolute, or below data.root"
    )
    score.add_argument(
        "--output", required=True, metavar="DIR", help="folder to write; the same question is answered once"
    )
    score.add_argument("--version", type=int, default=0, metavar="N", help="default: the champion")
    score.add_argument("--reasons", type=int, default=0, metavar="K", help="reasons of each row; default: none")
    score.add_argument(
        "--rows-per-partition", type=int, metavar="N", help="rows of each file written; default: 500,000"
    )
    score.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    load_run(options.config, os.environ, overrides=options.overrides)  # refused before Prefect is imported
    set_log_level(os.environ, "WARNING" if options.json else "INFO")
    from crossrisk.pages.score_page import score_lines
    from flows.score import ROWS_PER_PARTITION, score

    result: dict[str, Any] = score(
        config=options.config,
        input=options.input,
        output=str(Path(options.output).resolve()),
        version=options.version,
        reasons=options.reasons,
        rows_per_partition=ROWS_PER_PARTITION if options.rows_per_partition is None else options.rows_per_partition,
        overrides=options.overrides,
    )
    if options.json:
        print(json.dumps(result, allow_nan=False))
    else:
        print(visible_text("\n".join(score_lines(result))))
    return 0
