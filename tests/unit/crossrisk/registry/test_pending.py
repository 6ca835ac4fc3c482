"""Rules of pending challengers: kept whole, found by run, dropped when nobody can want them any more."""

import pytest

from crossrisk.errors import InputError
from crossrisk.registry import Registry, locked, staging_folder
from crossrisk.registry.pending import drop_settled, find_pending, keep_pending
from crossrisk.registry.protocol import enter_record
from crossrisk.store import write_json


def keep(registry, run_id, verdict, content="x"):
    with staging_folder(registry) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "saved_model.pb").write_text(content)
        (folder / "companions").mkdir()
        (folder / "companions" / "rows.parquet").write_text("y")
        write_json(folder / "manifest.json", {"contender": "stacked"})
        write_json(folder / "decision.json", {"decision": {"verdict": verdict}})
        keep_pending(registry, run_id, folder)


def there(registry):
    return sorted(folder.name for folder in (registry.root / "pending").glob("*"))


def test_a_bundle_is_found_whole_by_its_run(tmp_path):
    registry = Registry(tmp_path)
    keep(registry, "a", "needs_approval")
    bundle = find_pending(registry, "a")
    assert (bundle.folder / "model" / "saved_model.pb").read_text() == "x"
    assert bundle.manifest == {"contender": "stacked"}
    assert (bundle.folder / "companions" / "rows.parquet").read_text() == "y"


def test_what_waits_for_a_person_stays_and_of_other_verdicts_only_the_last(tmp_path):
    registry = Registry(tmp_path)
    for run_id, verdict in (("a", "needs_approval"), ("b", "keep"), ("c", "reject")):
        keep(registry, run_id, verdict)
    assert there(registry) == ["a", "c"]
    drop_settled(registry)
    assert there(registry) == ["a"]


def test_what_a_dead_run_kept_without_entering_its_decision_is_dropped(tmp_path):
    registry = Registry(tmp_path)
    keep(registry, "dead", "needs_approval")
    with locked(registry):
        assert there(registry) == []


def test_what_a_person_has_ruled_on_is_dropped_where_its_ruler_died(tmp_path):
    registry = Registry(tmp_path)
    keep(registry, "a", "needs_approval")
    keep(registry, "b", "needs_approval")
    for run_id in ("a", "b"):
        enter_record(registry, {"kind": "decision", "run_id": run_id, "version": None})
    with locked(registry):
        assert there(registry) == ["a", "b"]
        enter_record(registry, {"kind": "ruling", "run_id": "a", "version": None})
    with locked(registry):
        assert there(registry) == ["b"]


@pytest.mark.parametrize("run_id", ["b", "../pending/a", "", "."])
def test_another_name_is_refused_with_those_that_are_there(tmp_path, run_id):
    registry = Registry(tmp_path)
    keep(registry, "a", "needs_approval")
    with pytest.raises(InputError, match="pending: a"):
        find_pending(registry, run_id)
