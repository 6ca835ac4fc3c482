"""Scoring of many rows, top to bottom: a version and Parquet of any size in; Parquet with a score or a reason out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import Field

from crossrisk.config import load_run
from crossrisk.errors import ValidationBlockedError
from crossrisk.pages.score_page import render_scores
from crossrisk.quiet import make_quiet
from crossrisk.registry import Registry
from crossrisk.registry.asking import find_version
from crossrisk.store import write_text
from flows.recording import PAGES, recorded, run_name
from tasks.score import score_partitions, summarise
from tasks.score_folder import complete, find_answer, writing
from tasks.score_order import read_order
from tasks.score_rules import VALIDATION_PAGE, check_rows

ROWS_PER_PARTITION = 500_000
"""A few tens of megabytes a file, and what a killed run loses at most: some seconds of work."""


@flow(name="score", flow_run_name=run_name)
def score(
    config: str = Field(
        json_schema_extra={"title": "Portfolio"}, description="path of the portfolio's TOML, relative to CROSSRISK_HOME"
    ),
    input: str = Field(
        min_length=1,
        json_schema_extra={"title": "Input"},
        description="Parquet file, folder or glob to score: absolute, or relative to data.root",
    ),
    output: str = Field(
        min_length=1,
        json_schema_extra={"title": "Output"},
        description="folder to write, relative to CROSSRISK_HOME; what is there already is not written over",
    ),
    version: int = Field(
        default=0, ge=0, json_schema_extra={"title": "Version"}, description="of the registry; 0: the champion"
    ),
    reasons: int = Field(
        default=0, ge=0, le=50, json_schema_extra={"title": "Reasons"}, description="of each row; 0: none"
    ),
    rows_per_partition: int = Field(
        default=ROWS_PER_PARTITION,
        ge=1,
        json_schema_extra={"title": "Rows per partition"},
        description="rows of each file that is written, the last apart",
    ),
    overrides: list[str] = Field(  # noqa: B008 - Prefect reads the form's fields from here
        default=[], json_schema_extra={"title": "Overrides"}, description="dotted key=value on top of the TOML"
    ),
) -> dict[str, Any]:
    """Score rows with a published version. Returns the summary that lies beside them, schema_version 1.

    The summary returned has the key `paths` more; and `is_new`: false where the folder answered the question before.
    """
    make_quiet(os.environ)
    loaded = load_run(config, os.environ, overrides=overrides)
    folder = (Path(os.environ.get("CROSSRISK_HOME") or ".") / output).resolve()
    registry = Registry(loaded.folders.registry)
    with recorded("score", loaded, subject=folder.name) as run:
        page = run.folder / PAGES["score"]
        paths = {"output": str(folder), "page": str(page)}
        answering = run.step("find the version", find_version, registry, version or None)
        with registry.reading(answering.version):
            order = run.step(
                "read the input", read_order, loaded, answering, input, folder,
                reasons=reasons, rows_per_partition=rows_per_partition,
            )  # fmt: skip
            told = find_answer(folder, order.question)
            if told is None:
                checked = run.step("validate the input", check_rows, loaded, order.delivery, order.rules)
                validation = run.attach(checked.folder / VALIDATION_PAGE)
                if checked.facts["outcome"] == "blocked":
                    said = "; ".join(reason.rstrip(".") for reason in checked.facts["reasons"])
                    raise ValidationBlockedError(f"nothing was scored: {said}. See {validation}")
                with writing(folder, order.question) as partial:
                    scored = run.step("score the partitions", score_partitions, order, checked, partial)
                    registry.version(answering.version)  # what answered is still what was published
                    summary = summarise(loaded.portfolio.name, run.id, order, checked, scored)
                    complete(partial, folder, order.question, summary)
        result = {**(told or summary), "is_new": told is None, "paths": paths}
        write_text(page, render_scores(result))
        run.finish(f"{result['scored']:,} of {result['rows']:,} rows scored")
        return result
