"""Rules of retention: what is old and needed by nobody goes, whole; everything else stays."""

import errno
import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from builders import portfolio
from hypothesis import given
from hypothesis import strategies as st
from registries import publish

from crossrisk.config import RetentionConfig
from crossrisk.errors import InputError, PublishError
from crossrisk.registry import Registry, digest_tree
from crossrisk.retention import (
    REPRODUCING,
    Leftover,
    choose_leftovers,
    find_leftovers,
    plan_cleaning,
    remove_leftovers,
)
from crossrisk.runs import Run, alive, keep_run
from crossrisk.store import STAGE, stage
from flows.cli import main

DAY = 86_400.0
NOW = 1_790_000_000.0
KEEPS = RetentionConfig(stages_days=35, runs_days=400)


@pytest.fixture
def loaded(tmp_path):
    return portfolio(tmp_path)


def a_stage(loaded, key, *, days, size=1000):
    made = stage(
        loaded.folders.stages, "plan", {"key": key}, lambda folder: {"n": (folder / "x").write_bytes(b"x" * size)}
    )
    os.utime(made.folder / STAGE, (NOW - days * DAY,) * 2)
    return made.folder


def a_run(loaded, run_id, *, days, state="completed"):
    ended = None if state == "running" else NOW - days * DAY
    folder = loaded.folders.runs / run_id
    keep_run(folder, Run(run_id, "retrain", "mini", "2024-12-31", state, NOW - days * DAY - 60, ended))
    (folder / "report.html").write_text("page")
    return folder


def clean(loaded, now=NOW):
    return remove_leftovers(plan_cleaning(loaded, now=now).removed, loaded.folders)


def leftovers():
    kinds = st.sampled_from(["stage", "half made stage", "run", "reproduction"])
    paths = st.uuids().map(lambda name: Path(str(name)))
    return st.builds(Leftover, kinds, paths, st.floats(NOW - 1000 * DAY, NOW), st.just(1))


# --- choosing ---


@given(st.lists(leftovers(), max_size=20, unique_by=lambda one: one.path), st.floats(NOW - 500 * DAY, NOW))
def test_what_goes_is_older_than_its_limit_and_no_living_run_can_need_it(found, running_since):
    chosen = choose_leftovers(found, KEEPS, now=NOW, running_since=running_since, needed_runs={})
    days = {"stage": 35, "half made stage": 1, "run": 400, "reproduction": 1}
    for one in chosen.removed:
        assert NOW - one.used_unix_s > days[one.kind] * DAY
        if "stage" in one.kind:
            assert one.used_unix_s < running_since
    old = {one.path for one in found if NOW - one.used_unix_s > days[one.kind] * DAY}
    assert {one.path for one in chosen.removed} | set(chosen.kept) == old


def test_a_stage_goes_when_nobody_used_it_for_that_long(loaded):
    young, old = a_stage(loaded, "young", days=34.9), a_stage(loaded, "old", days=35.1)
    (gone,) = clean(loaded)
    assert (gone.path, gone.kind, round(gone.megabytes, 3)) == (old, "stage", pytest.approx(0.001, abs=2e-4))
    assert (young / STAGE).exists()
    assert not old.exists()


def test_finding_a_stage_made_is_using_it(loaded):
    folder = a_stage(loaded, "again", days=300)
    assert stage(loaded.folders.stages, "plan", {"key": "again"}, lambda _: {}).reused
    assert time.time() - (folder / STAGE).stat().st_mtime < 60


def test_who_may_not_write_a_stage_still_finds_it(loaded, monkeypatch):
    a_stage(loaded, "theirs", days=3)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("crossrisk.store.os.utime", refuse)
    assert stage(loaded.folders.stages, "plan", {"key": "theirs"}, lambda _: {}).reused


def test_a_stage_that_a_living_run_has_used_stays_however_old_the_run(loaded):
    before, since = a_stage(loaded, "before", days=50), a_stage(loaded, "since", days=40)
    with alive(loaded.folders.runs / "long"):
        a_run(loaded, "long", days=45, state="running")
        plan = plan_cleaning(loaded, now=NOW)
        assert [one.path for one in plan.removed] == [before]
        assert plan.kept == {since: "a run that lives may need it"}
    assert {one.path for one in plan_cleaning(loaded, now=NOW).removed} == {before, since}


def test_what_a_killed_process_left_half_made_goes_a_day_later_and_never_while_its_run_may_live(loaded):
    making = loaded.folders.stages / "plan" / ".making-abc-1"
    making.mkdir(parents=True)
    os.utime(making, (NOW - 2 * DAY,) * 2)
    assert plan_cleaning(loaded, now=NOW - 1.5 * DAY).removed == ()
    with alive(loaded.folders.runs / "long"):
        a_run(loaded, "long", days=3, state="running")
        assert plan_cleaning(loaded, now=NOW).removed == ()
    assert [one.path for one in clean(loaded)] == [making]


def test_a_run_goes_by_its_record_and_never_one_that_the_registry_points_to(loaded):
    registry = Registry(loaded.folders.registry)
    publish(registry, 1_700_000_000, record={"run_id": "first"})
    publish(registry, 1_700_000_001, record={"run_id": "champion"})
    (registry.pending / "waits").mkdir(parents=True)
    for run_id in ("first", "champion", "waits"):
        a_run(loaded, run_id, days=401)
    a_run(loaded, "young", days=399)
    before = digest_tree(registry.root)
    plan = plan_cleaning(loaded, now=NOW)
    assert {path.name: why for path, why in plan.kept.items()} == {
        "champion": "champion 1700000001 came from it",
        "waits": "its challenger is pending",
    }
    assert [one.path.name for one in remove_leftovers(plan.removed, loaded.folders)] == ["first"]
    assert sorted(path.name for path in loaded.folders.runs.iterdir()) == ["champion", "waits", "young"]
    assert digest_tree(registry.root) == before


def test_a_run_that_lives_or_whose_record_cannot_be_read_stays(loaded):
    a_run(loaded, "broken", days=500)
    (loaded.folders.runs / "broken" / "run.json").write_text("{")
    with alive(loaded.folders.runs / "living"):
        a_run(loaded, "living", days=500, state="running")
        assert find_leftovers(loaded.folders) == []


def test_a_record_leads_nowhere_but_to_its_own_folder(loaded):
    a_run(loaded, "honest", days=500)
    record = loaded.folders.runs / "honest" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "run_id": "../stages"}))
    assert find_leftovers(loaded.folders) == []


def test_without_a_ledger_that_can_be_read_nothing_is_removed(loaded):
    registry = Registry(loaded.folders.registry)
    publish(registry, 1_700_000_000)
    registry.ledger.unlink()
    a_run(loaded, "old", days=500)
    with pytest.raises(PublishError, match="lines were taken away"):
        plan_cleaning(loaded, now=NOW)


def test_what_a_dead_reproduction_left_goes_and_a_living_one_stays(loaded):
    dead, living = (loaded.folders.work / REPRODUCING / name for name in ("dead", "living"))
    with alive(dead), alive(living):
        pass
    for folder in (dead, living):
        os.utime(folder, (NOW - 2 * DAY,) * 2)
    with alive(living):
        assert [one.path for one in clean(loaded)] == [dead]
    assert living.exists()


# --- removing ---


def test_a_stage_used_after_it_was_looked_at_is_moved_back(loaded):
    folder = a_stage(loaded, "just now", days=60)
    plan = plan_cleaning(loaded, now=NOW)
    assert stage(loaded.folders.stages, "plan", {"key": "just now"}, lambda _: {}).reused
    assert remove_leftovers(plan.removed, loaded.folders) == ()
    assert (folder / "x").read_bytes() == b"x" * 1000


def test_a_stage_that_is_gone_at_the_moment_of_its_use_is_made_again(loaded, monkeypatch):
    folder = a_stage(loaded, "gone", days=60)
    utime = os.utime

    def used_and_gone(path):
        utime(path)
        folder.rename(folder.with_name("elsewhere"))

    monkeypatch.setattr("crossrisk.store.os.utime", used_and_gone)
    assert not stage(loaded.folders.stages, "plan", {"key": "gone"}, lambda _: {"made": "again"}).reused
    assert (folder / STAGE).exists()


def test_a_removal_that_died_leaves_no_stage_half_there_and_the_next_finishes_it(loaded, monkeypatch):
    folder = a_stage(loaded, "old", days=60)

    def die(path):
        (next(path.iterdir()) / STAGE).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("crossrisk.retention.shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            clean(loaded)
    assert not folder.exists()
    assert any((loaded.folders.work / "trash").iterdir())
    assert clean(loaded) == ()
    assert not (loaded.folders.work / "trash").exists()


def test_two_never_remove_at_once(loaded):
    loaded.folders.work.mkdir(parents=True)
    with (loaded.folders.work / "clean.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another crossrisk clean"):
            remove_leftovers((), loaded.folders)


@pytest.mark.parametrize("as_link", [True, False])
def test_a_trash_that_is_a_link_or_a_file_is_refused_and_nothing_goes(loaded, tmp_path, as_link):
    folder, trash = a_stage(loaded, "old", days=60), loaded.folders.work / "trash"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("kept")
    trash.symlink_to(tmp_path / "elsewhere") if as_link else trash.write_text("a file")
    with pytest.raises(InputError, match="nothing was removed; move it away"):
        clean(loaded)
    assert (folder / STAGE).exists()
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_where_one_cannot_be_moved_nothing_is_removed(loaded, monkeypatch):
    stages = [a_stage(loaded, key, days=60) for key in ("a", "b", "c")]
    last, rename = max(stages), Path.rename

    def refuse(path, to):
        if path == last:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputError, match=r"Invalid cross-device link.*nothing was removed"):
        clean(loaded)
    assert all((folder / STAGE).exists() for folder in stages)


# --- the command ---


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    return tmp_path


def test_a_dry_run_says_what_would_go_and_touches_nothing(home, loaded, capsys):
    folder = a_stage(loaded, "old", days=10_000, size=2_000_000)
    before = digest_tree(home)
    assert main(["clean", str(home / "mini.toml"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"stages/plan/{folder.name}  would be removed: stage, last used " in printed
    assert printed.endswith("1 of kind stage would be removed, 2.0 MB\n")
    assert digest_tree(home) == before


def test_the_command_removes_by_the_days_that_were_given_and_counts_them(home, loaded, capsys):
    made = stage(loaded.folders.stages, "plan", {}, lambda _: {})
    os.utime(made.folder / STAGE, (time.time() - 3 * DAY,) * 2)
    assert main(["clean", str(home / "mini.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == []
    assert main(["clean", str(home / "mini.toml"), "--json", "--stages-days", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["path"]) for one in document["removed"]] == [("stage", str(made.folder))]
    assert not made.folder.exists()


@pytest.mark.parametrize("days", ["0", "-3", "soon"])
def test_days_that_are_none_are_refused(home, loaded, days, capsys):
    assert main(["clean", str(home / "mini.toml"), f"--runs-days={days}"]) == 2
    assert "retention.runs_days" in capsys.readouterr().err
