"""Row 16: clocks that jump, months that end oddly, runs scheduled twice, six months missed: one result a period."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest
from builders import FLOW_TOML, TOML, loans_with_noise, portfolio
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled
from prefect.testing.utilities import prefect_test_harness
from registries import publish

from crossrisk.config import expiry
from crossrisk.periods import find_decision, question_of, setting_of, version_made, why_superfluous
from crossrisk.registry import Registry
from crossrisk.runs import read_runs
from flows import dates
from flows.periods import SCHEDULED_TAG
from flows.retrain import retrain

pytestmark = pytest.mark.fault(16)

NOW = 1_700_000_000
QUICK = ["lineup.contenders=['source_logistic']", "gate.observed_expected=[0.2, 5.0]", "gate.replicates=100"]


def at(tmp_path, as_of: str):
    return portfolio(tmp_path, toml=TOML.replace("2024-12-31", as_of)).portfolio


def decision(one, run_id="r", verdict="keep", **more):
    facts = {"kind": "decision", "run_id": run_id, "as_of": one.as_of.isoformat(), "setting": setting_of(one)}
    return {**facts, "decision": {"verdict": verdict}, "version": None, **more}


# --- records ---


def test_a_period_that_has_a_result_needs_no_second(tmp_path):
    march = at(tmp_path, "2025-03-08")
    assert why_superfluous([], march) is None
    assert why_superfluous([decision(at(tmp_path, "2025-02-08"))], march) is None
    said = why_superfluous([decision(march, "first", "promote")], march)
    assert said is not None
    assert said.startswith("as of 2025-03-08 was decided before (run first: promote)")


def test_a_late_period_is_superseded_by_any_later_one(tmp_path):
    later = [decision(at(tmp_path, day), day) for day in ("2025-04-08", "2025-06-08", "2025-05-08")]
    said = why_superfluous(later, at(tmp_path, "2025-03-08"))
    assert said == "as of 2025-03-08 is superseded: as of 2025-06-08 was decided before (run 2025-06-08: keep)"


def test_what_was_tried_out_with_other_values_settles_nothing(tmp_path):
    march = at(tmp_path, "2025-03-08")
    assert why_superfluous([decision(march, setting="another")], march) is None
    first_release = {"run_id": "old", "as_of": "2025-03-08", "decision": {"verdict": "keep"}, "version": None}
    assert why_superfluous([first_release], march) is None


def test_a_question_is_its_config_date_and_fits_and_nothing_else(tmp_path):
    march, april = at(tmp_path, "2025-03-08"), at(tmp_path, "2025-04-08")
    asked = question_of(march, calibrated="c", diagnosed="d")
    assert asked == question_of(at(tmp_path, "2025-03-08"), calibrated="c", diagnosed="d")
    others = [(april, "c", "d"), (march, "x", "d"), (march, "c", "x")]
    assert asked not in {question_of(one, calibrated=c, diagnosed=d) for one, c, d in others}
    assert setting_of(march) == setting_of(april)


def test_the_answer_to_a_question_is_its_decision_and_what_a_person_made_of_it(tmp_path):
    march = at(tmp_path, "2025-03-08")
    asked = decision(march, "first", "needs_approval", question="q")
    ruled = {"kind": "ruling", "run_id": "first", "version": 17}
    back = {"kind": "rollback", "run_id": "first", "version": 18}
    records = [asked, decision(march, "other", question="p"), ruled, back]
    assert find_decision(records, "q") == asked
    assert find_decision(records, "x") is None
    assert version_made(records, "first") == 17
    assert version_made(records, "other") is None


# --- calendars and clocks ---


@pytest.mark.parametrize(
    ("scheduled", "logical"),
    [
        (datetime(2024, 2, 29, 6, tzinfo=UTC), "2024-02-29"),  # leap day
        (datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC), "2024-12-31"),  # the year's last second
        (datetime.fromisoformat("2025-03-30T02:30:00+01:00"), "2025-03-30"),  # the hour that summer time leaves out
        (datetime.fromisoformat("2025-10-26T02:30:00+01:00"), "2025-10-26"),  # and the one that comes twice
        (datetime.fromisoformat("2025-10-26T02:30:00+02:00"), "2025-10-26"),
        (datetime.fromisoformat("2025-04-01T00:30:00+02:00"), "2025-03-31"),  # the day is that of UTC
    ],
)
def test_the_logical_date_is_the_scheduled_day_in_utc(monkeypatch, scheduled, logical):
    monkeypatch.setattr(dates, "deployment", SimpleNamespace(id="some"))
    monkeypatch.setattr(dates, "flow_run", SimpleNamespace(scheduled_start_time=scheduled.astimezone(UTC)))
    assert dates.logical_date("") == logical


@given(st.dates(date(2000, 1, 1), date(2100, 12, 31)), st.integers(1, 60))
def test_a_model_expires_in_the_month_it_says_whatever_days_that_month_has(as_of, months):
    one = SimpleNamespace(as_of=as_of, publish=SimpleNamespace(expiry_months=months))
    until = expiry(one)
    assert (until.year - as_of.year) * 12 + until.month - as_of.month == months
    assert until.day == as_of.day or (until.day < as_of.day and (until.replace(day=28) - until).days <= 0)


@pytest.mark.parametrize("jump", [-3600 * 24 * 365 * 20, -3600, -1, 0, 3600 * 24 * 365 * 20])
def test_a_clock_that_jumps_between_publications_never_lets_an_older_version_answer(tmp_path, jump):
    registry = Registry(tmp_path / "r")
    clock = [NOW, NOW + jump, NOW + 1, NOW + 2]
    versions = [publish(registry, now, str(place)).version for place, now in enumerate(clock)]
    assert versions == sorted(set(versions))
    assert registry.champion().version == versions[-1]
    assert max(path.name for path in registry.models.iterdir()) == str(versions[-1])


# --- schedules, on a server ---


@pytest.mark.heavy
def test_of_six_missed_months_the_newest_runs_and_one_that_is_scheduled_twice_runs_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    (tmp_path / "data").mkdir()
    loans_with_noise().write_parquet(tmp_path / "data" / "loans.parquet")
    (tmp_path / "mini.toml").write_text(FLOW_TOML)
    parameters = {"config": str(tmp_path / "mini.toml"), "overrides": QUICK}
    registry = Registry(tmp_path / "registry" / "mini")
    with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
        deployed = client.create_deployment(client.create_flow(retrain), name="monthly", parameters=parameters)

        def due(month: int, *tags: str):
            scheduled = Scheduled(scheduled_time=datetime(2026, month, 8, 6, tzinfo=UTC))
            return client.create_flow_run_from_deployment(
                deployed, parameters=parameters, state=scheduled, tags=list(tags)
            )

        def execute(run):
            given = {"as_of": "", "preset": "", "requested_by": ""}
            return run_flow(retrain, flow_run=run, parameters={**parameters, **given}, return_type="state").name

        late = [due(month, SCHEDULED_TAG) for month in range(4, 10)]
        assert [execute(run) for run in late] == ["Skipped"] * 5 + ["Completed"]
        (only,) = registry.records()
        assert only["as_of"] == "2026-09-08"
        states = {run.as_of: (run.state, run.message) for run in read_runs(tmp_path / "work" / "mini" / "runs")}
        assert states["2026-04-08"][0] == "skipped"
        assert "the run scheduled for 2026-09-08 06:00 UTC is due as well" in states["2026-04-08"][1]

        assert execute(due(9, SCHEDULED_TAG)) == "Skipped"  # scheduled twice
        assert execute(due(5, SCHEDULED_TAG)) == "Skipped"  # late, and alone
        assert registry.records() == [only]
        assert execute(due(9)) == "Completed"  # a person asked: told what was decided
        assert registry.records() == [only]
    page = next(path for path in tmp_path.glob("work/mini/runs/2026-04-08-*/report.html")).read_text()
    assert "Skipped" in page
