"""Rules of the status line: every part says what is there, or that nothing is."""

import fcntl
import json
import re
import shutil

import pytest
from builders import portfolio
from registries import publish

from crossrisk.pages.run_page import render_run
from crossrisk.registry import Registry
from crossrisk.runs import Run, keep_run
from crossrisk.status import NextRun, read_status, status_line

PUBLISHED = 1_750_000_000
NOBODY = NextRun(None, None, "unknown: no server")


def a_version(loaded, *, now=PUBLISHED, **manifest):
    publish(Registry(loaded.folders.registry), now, record={"decision": {"verdict": "bootstrap"}}, **manifest)


def a_run(loaded, run_id, **changes):
    facts = {"kind": "retrain", "state": "completed", "started_unix_s": PUBLISHED + 60.0, "outcome": "keep"}
    run = Run(run_id=run_id, portfolio="mini", as_of="2024-12-31", **{**facts, **changes})
    keep_run(loaded.folders.runs / run_id, run)


def line(loaded, *, next_run=NOBODY):
    return status_line(read_status(loaded, now=PUBLISHED + 3.5 * 86_400, next_run=next_run))


def test_of_a_new_portfolio_nothing_is_known_and_it_says_so(tmp_path):
    assert line(portfolio(tmp_path)) == (
        "mini: no champion | last run none | last verdict none | light none | next run unknown: no server"
    )


def test_champion_age_verdict_run_light_and_next_run_are_on_one_line(tmp_path):
    loaded = portfolio(tmp_path)
    a_version(loaded)
    a_run(loaded, "first")
    a_run(
        loaded,
        "watch",
        kind="monitor",
        outcome="amber",
        subject="2024-11",
        started_unix_s=PUBLISHED + 3600.0,
    )
    a_run(
        loaded,
        "third",
        state="blocked",
        outcome=None,
        step="validate",
        started_unix_s=PUBLISHED + 7200.0,
    )
    assert line(loaded, next_run=NextRun("2026-12-08 06:00 UTC", "retrain/monthly")) == (
        "mini: champion 1750000000 (stacked, as of 2024-12-31), 3 days old | "
        "last run 2025-06-15 17:06 UTC retrain blocked at validate | last verdict bootstrap as of 2024-12-31 | "
        "light amber for 2024-11 | next run 2026-12-08 06:00 UTC (retrain/monthly)"
    )


def test_a_watch_that_failed_sets_no_light(tmp_path):
    loaded = portfolio(tmp_path)
    a_run(loaded, "watch", kind="monitor", outcome="green", subject="2024-10")
    a_run(
        loaded, "again", kind="monitor", outcome=None, subject="2024-11", state="failed", started_unix_s=PUBLISHED + 9e3
    )
    assert "light green for 2024-10" in line(loaded)
    assert "last run 2025-06-15 17:36 UTC monitor failed" in line(loaded)


def test_the_light_is_that_of_the_newest_month_whatever_was_watched_last(tmp_path):
    loaded = portfolio(tmp_path)
    for place, (month, light) in enumerate((("2024-11", "green"), ("2024-11", "amber"), ("2024-03", "red"))):
        a_run(loaded, f"watch-{place}", kind="monitor", outcome=light, subject=month, started_unix_s=PUBLISHED + place)
    assert "light amber for 2024-11" in line(loaded)


# --- expiry ---


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        ("2025-12-31", "3 days old, expires 2025-12-31 (in 195 days) |"),
        ("2025-06-20", "3 days old, expires 2025-06-20 (in 1 day) |"),
        ("2025-06-19", "3 days old, EXPIRED since 2025-06-19 |"),
        ("2025-01-31", "3 days old, EXPIRED since 2025-01-31 |"),
    ],
)
def test_a_champion_says_when_it_is_due_for_review(tmp_path, expires, said):
    loaded = portfolio(tmp_path)
    a_version(loaded, expires=expires)
    assert said in line(loaded)
    assert read_status(loaded, now=PUBLISHED, next_run=NOBODY).to_json()["expires"] == expires


def test_a_champion_without_an_expiry_says_nothing_of_it(tmp_path):
    loaded = portfolio(tmp_path)
    a_version(loaded)
    assert "expire" not in line(loaded).casefold()
    document = read_status(loaded, now=PUBLISHED, next_run=NOBODY).to_json()
    assert (document["expires"], document["days_left"]) == (None, None)


@pytest.mark.parametrize("expires", ["soon", 2026])
def test_an_expiry_that_is_no_date_is_damage(tmp_path, expires):
    loaded = portfolio(tmp_path)
    a_version(loaded, expires=expires)
    assert re.search("DAMAGED: a manifest .* expires .*, which is no date", line(loaded))


# --- a publication that was interrupted ---


def test_a_publication_that_was_interrupted_is_said_and_is_no_damage(tmp_path):
    loaded = portfolio(tmp_path)
    a_version(loaded)
    registry = Registry(loaded.folders.registry)
    registry.intent.write_text(json.dumps({"schema_version": 2, "version": PUBLISHED + 9, "record": {}}))
    printed = line(loaded)
    assert "3 days old, a publication was interrupted: the next run finishes it |" in printed
    assert "DAMAGED" not in printed
    a_version(loaded, now=PUBLISHED + 1)
    assert "interrupted" not in line(loaded)


def test_a_publisher_at_work_is_no_interrupted_one(tmp_path):
    loaded = portfolio(tmp_path)
    a_version(loaded)
    registry = Registry(loaded.folders.registry)
    registry.intent.write_text(json.dumps({"schema_version": 2, "version": PUBLISHED + 9, "record": {}}))
    with (registry.root / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "interrupted" not in line(loaded)


# --- damage ---


def empty_models(registry):
    shutil.rmtree(registry.models)


def lose_the_graph(registry):
    (registry.models / str(PUBLISHED) / "saved_model.pb").unlink()


def lose_the_ledger(registry):
    registry.ledger.unlink()


def break_the_ledger(registry):
    registry.ledger.write_text(registry.ledger.read_text().replace("bootstrap", "promote"))


def empty_the_manifest(registry):
    registry.manifest_path(PUBLISHED).write_text("{}")


def break_the_manifest(registry):
    registry.manifest_path(PUBLISHED).write_text("garbage")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (empty_models, f"no champion, DAMAGED: .*version {PUBLISHED} was published"),
        (lose_the_graph, r"champion 1750000000 \(stacked, as of 2024-12-31\), 3 days old, DAMAGED: .*saved_model\.pb"),
        (
            lose_the_ledger,
            "3 days old, DAMAGED: .*ledger.jsonl holds 0 lines and not the one.*last verdict none",
        ),
        (break_the_ledger, "DAMAGED: .*ledger.jsonl line 1 was changed after it was written"),
        (empty_the_manifest, f"champion 1750000000, 3 days old, DAMAGED: .*{PUBLISHED}.json is no manifest"),
        (break_the_manifest, f"champion 1750000000, 3 days old, DAMAGED: .*{PUBLISHED}.json is no JSON"),
    ],
)
def test_a_damaged_registry_never_reads_as_a_healthy_one_and_hides_no_run(tmp_path, damage, said):
    loaded = portfolio(tmp_path)
    a_version(loaded)
    a_run(loaded, "first")
    assert "DAMAGED" not in line(loaded)
    damage(Registry(loaded.folders.registry))
    printed = line(loaded)
    assert re.search(said, printed)
    assert "\n" not in printed
    assert printed.count("DAMAGED") == 1
    assert "last run 2025-06-15 15:07 UTC retrain completed (keep)" in printed


def test_a_record_that_cannot_be_read_is_named_behind_what_can(tmp_path):
    loaded = portfolio(tmp_path)
    a_run(loaded, "good")
    broken = loaded.folders.runs / "bad" / "run.json"
    broken.parent.mkdir()
    broken.write_text("")
    printed = line(loaded)
    assert "last run 2025-06-15 15:07 UTC retrain completed" in printed
    assert printed.endswith(f"| unreadable, broken or of another release: {broken}")
    document = read_status(loaded, now=PUBLISHED, next_run=NOBODY).to_json()
    assert document["unreadable"] == (str(broken),)
    assert json.loads(json.dumps(document))["damage"] is None


# --- runs that were killed ---


def test_a_killed_run_reads_as_killed_and_so_does_its_page_from_then_on(tmp_path):
    loaded = portfolio(tmp_path)
    a_version(loaded)
    a_run(loaded, "first", state="running", outcome=None, step="train dan", page="report.html")
    page = loaded.folders.runs / "first" / "report.html"
    page.write_text(render_run(Run("first", "retrain", "mini", "2024-12-31", "running", 1.0), champion=None))
    assert "retrain killed at train dan" in line(loaded)
    for said in ("Killed", "train dan", f"version {PUBLISHED}"):
        assert said in page.read_text()
    assert "retrain killed at train dan" in line(loaded)


def test_who_may_only_read_still_sees_that_a_run_was_killed(tmp_path, monkeypatch):
    loaded = portfolio(tmp_path)
    a_run(loaded, "first", state="running", outcome=None, step="train dan")

    def refuse(folder, run):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("crossrisk.runs.keep_run", refuse)
    assert "retrain killed at train dan" in line(loaded)
