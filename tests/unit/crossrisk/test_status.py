"""Rules of the status line: every part says what is there, or that nothing is."""

from builders import portfolio

from crossrisk.registry import Registry, append_ledger, locked, place_version
from crossrisk.runs import Run, keep_run
from crossrisk.status import NextRun, read_status, status_line

PUBLISHED = 1_750_000_000
NOBODY = NextRun(None, None, "unknown: no server")


def a_version(loaded, *, now=PUBLISHED):
    registry = Registry(loaded.folders.registry)
    with locked(registry):
        staged = registry.root / "staged"
        staged.mkdir()
        (staged / "saved_model.pb").write_text("x")
        place_version(registry, staged, {"contender": "stacked", "as_of": "2024-12-31"}, now=now)
        append_ledger(registry, {"as_of": "2024-12-31", "decision": {"verdict": "bootstrap"}, "version": now})


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
