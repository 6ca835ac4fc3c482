"""The main path, top to bottom: Parquet with two populations in; a decision, a published model and a report out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, Protocol, TypeVar

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field, StringConstraints

from crossrisk.config import Loaded, load_run
from crossrisk.contenders import NETWORKS
from crossrisk.errors import ValidationBlockedError
from crossrisk.periods import question_of
from crossrisk.quiet import make_quiet
from crossrisk.store import Stage
from flows.dates import logical_date
from flows.periods import why_superfluous
from flows.recording import recorded, requester, run_name
from tasks.calibrate import calibrate
from tasks.candidate import stage_candidate
from tasks.compare import compare
from tasks.decide import make_decision
from tasks.diagnose import diagnose
from tasks.features import apply_encodings, fit_encodings, make_row_features
from tasks.ingest import ingest
from tasks.labels import mature_labels
from tasks.leaks import check_leaks
from tasks.publish import publish
from tasks.report import report
from tasks.split import split_populations
from tasks.train_baselines import train_baseline
from tasks.train_network import check_networks, train_network
from tasks.validate import validate

P = ParamSpec("P")
R = TypeVar("R")


class Steps(Protocol):
    """What runs the steps under their names: a recorded run, or one that leaves no record."""

    def step(self, name: str, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one step."""

    def attach(self, page: Path) -> Path:
        """Keep a page that a step has made."""


@dataclass(frozen=True)
class Comparison:
    """What the steps up to the comparison made."""

    stages: Mapping[str, Stage]
    """by name, `ingest` to `compared`"""
    trained: Mapping[str, Stage]
    """by contender"""
    question: str
    """of `crossrisk.periods`"""


def make_comparison(run: Steps, loaded: Loaded) -> Comparison:
    """From Parquet to contenders and champion, judged on the same untouched rows. Decides and publishes nothing.

    Raises:
        ValidationBlockedError: a rule that says `stop` failed; the page that shows it is named.
    """
    ingested = run.step("ingest", ingest, loaded)
    validated = run.step("validate", validate, loaded, ingested)
    checked = run.attach(validated.folder / "validation.html")
    if validated.facts["outcome"] == "blocked":
        raise ValidationBlockedError(blocked_message(validated.facts["reasons"], checked))
    labels = run.step("mature labels", mature_labels, loaded, ingested, validated)
    rows = run.step("row-wise features", make_row_features, loaded, ingested, labels)
    split = run.step("split", split_populations, loaded, labels)
    leaks = run.step("check leaks", check_leaks, loaded, rows, split)
    plan = run.step("fit encodings", fit_encodings, loaded, rows, split)
    encoded = run.step("apply encodings", apply_encodings, loaded, rows, split, plan)

    trained: dict[str, Stage] = {}
    for name in loaded.portfolio.contenders:
        if name in NETWORKS:
            trained[name] = run.step(f"train {name}", train_network, loaded, name, encoded, plan)
        else:
            trained[name] = run.step(f"train {name}", train_baseline, loaded, name, encoded, plan)
    calibrated = run.step("calibrate", calibrate, loaded, encoded, plan, trained)

    diagnosed = run.step("diagnose shift", diagnose, loaded, rows, encoded, plan, calibrated)
    question = question_of(loaded.portfolio, calibrated=calibrated.digest, diagnosed=diagnosed.digest)
    compared = run.step(
        "compare", compare, loaded, ingested, encoded, plan, split, calibrated, diagnosed, trained, question
    )
    stages = {
        "ingest": ingested,
        "validate": validated,
        "labels": labels,
        "rows": rows,
        "split": split,
        "leaks": leaks,
        "plan": plan,
        "encoded": encoded,
        "calibrated": calibrated,
        "diagnosed": diagnosed,
        "compared": compared,
    }
    return Comparison(stages, trained, question)


@flow(name="retrain", flow_run_name=run_name)
def retrain(
    config: str = Field(
        json_schema_extra={"title": "Portfolio"}, description="path of the portfolio's TOML, relative to CROSSRISK_HOME"
    ),
    as_of: Annotated[str, StringConstraints(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = Field(
        default="",
        json_schema_extra={"title": "As of"},
        description="logical date, YYYY-MM-DD; nothing later is seen. Empty: the day the run was scheduled for, "
        "else the one in the TOML.",
    ),
    preset: Literal["", "honest", "article"] = Field(
        default="", json_schema_extra={"title": "Preset"}, description="empty: as in the TOML"
    ),
    overrides: list[str] = Field(  # noqa: B008 - Prefect reads the form's fields from here
        default=[], json_schema_extra={"title": "Overrides"}, description="dotted key=value on top of the TOML"
    ),
    requested_by: str = Field(
        default="",
        max_length=100,
        json_schema_extra={"title": "Requested by"},
        description="who asks, and so may not approve; empty: the login name that the run has",
    ),
) -> dict[str, Any] | State[None]:
    """Retrain a portfolio's model and publish it if the gate says so.

    Returns the run's result, schema_version 1; a scheduled run whose period needs none ends in the state Skipped.
    """
    make_quiet(os.environ)
    loaded = load_run(config, os.environ, as_of=logical_date(as_of), preset=preset, overrides=overrides)
    check_networks(loaded.portfolio)
    with recorded("retrain", loaded) as run:
        superfluous = why_superfluous(loaded)
        if superfluous is not None:
            return run.skip(superfluous)
        made = make_comparison(run, loaded)
        plan, encoded = made.stages["plan"], made.stages["encoded"]
        calibrated, compared = made.stages["calibrated"], made.stages["compared"]
        candidate = run.step("stage the candidate", stage_candidate, loaded, plan, encoded, calibrated, compared)
        diagnosed, leaks = made.stages["diagnosed"], made.stages["leaks"]
        decided = run.step("decide", make_decision, loaded, compared, candidate, diagnosed, leaks, made.question)
        stages = {**made.stages, "candidate": candidate}
        asked = requester(requested_by)
        published = run.step("publish", publish, loaded, decided, stages, run.id, asked, made.question)
        result = run.step(
            "report", report, loaded, run.id, stages, made.trained, decided, published, asked, run.seconds
        )
        run.finish(decided.decision.verdict)
        return {**result, "seconds": run.seconds}  # the page cannot know how long it took to write


def blocked_message(reasons: Sequence[str], page: Path) -> str:
    """Why validation ended a run, and the page that shows it; reasons may end in a full stop or not."""
    return f"{'; '.join(reason.rstrip('.') for reason in reasons)}. See {page}"
