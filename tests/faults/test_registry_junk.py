"""Rows 9, 10, 11, 23 and 24: strangers in the base path, rollbacks, prunings, tampering, other releases' files."""

import hashlib
import json
import shutil
import signal
import threading

import pytest
from deaths import LIMIT_S, assert_settled, run, start, wait_until_stopped
from registries import accept, publish

from crossrisk.errors import InputError, PublishError
from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry, locked
from crossrisk.registry.audit import check_registry, check_version, kept_versions
from crossrisk.registry.ledger import SCHEMA_VERSION, append_ledger
from crossrisk.registry.protocol import prune_versions
from crossrisk.registry.pruning import choose_versions, held
from crossrisk.store import canonical_json
from tasks import rollback
from tasks.rollback import roll_back

NOW = 1_700_000_000


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Three versions; a rollback verifies nothing with TensorFlow (row 8 does)."""
    monkeypatch.setattr(rollback, "_verify_restored", accept)
    made = Registry(tmp_path / "r")
    for place in range(3):
        publish(made, NOW + place, str(place), companions={"rows": str(place)})
    return made


def back(registry, to=None):
    return roll_back(registry, to=to, by="Grace", reason="bad month", now=NOW + 60)


# --- 9: junk ---


@pytest.mark.fault(9)
@pytest.mark.parametrize("junk", ["7", "0007", "-1", "+5", "9", "model", ".hidden", "٧", "1e9", "0x11"])
@pytest.mark.parametrize("kind", ["file", "empty folder", "folder"])
def test_junk_in_the_base_path_is_named_and_the_next_number_is_right(registry, junk, kind):
    path = registry.models / junk
    path.write_text("junk") if kind == "file" else path.mkdir()
    if kind == "folder":
        (path / "README").write_text("junk")
    assert registry.champion().version == NOW + 2
    assert publish(registry, 0.0, "next").version == NOW + 3 == registry.champion().version
    (found,) = (finding for finding in check_registry(registry) if finding.what == "base path")
    assert not found.holds
    assert repr(junk) in found.said


@pytest.mark.fault(9)
def test_a_junk_number_above_the_champion_is_passed_by_the_next_version(registry):
    (registry.models / str(NOW + 900)).write_text("junk")
    assert publish(registry, NOW + 3, "next").version == NOW + 901
    assert max(path.name for path in registry.models.iterdir()) == str(NOW + 901)


@pytest.mark.fault(9)
def test_junk_before_the_first_version_stops_nothing(tmp_path):
    registry = Registry(tmp_path / "r")
    registry.models.mkdir(parents=True)
    (registry.models / "7").write_text("junk")
    (registry.models / "0009").mkdir()
    assert registry.champion() is None
    assert publish(registry, NOW).version == NOW == registry.champion().version


# --- 10: rollback ---


@pytest.mark.fault(10)
def test_a_rollback_shows_the_old_bytes_under_a_new_higher_number(registry):
    done = back(registry)
    assert (done.version, done.restores, done.taken_back) == (NOW + 60, NOW + 1, NOW + 2)
    assert (registry.models / str(done.version) / "saved_model.pb").read_text() == "1"
    assert registry.companion_path(done.version, "rows").read_text() == "1"
    line = registry.records()[-1]
    assert (line["kind"], line["by"], line["reason"], line["from"]) == ("rollback", "Grace", "bad month", NOW + 2)
    assert assert_settled(registry) == done.version


@pytest.mark.fault(10)
def test_a_rollback_typed_twice_is_one_rollback(registry):
    first = back(registry)
    lines = registry.records()
    for again in (back(registry), back(registry, to=NOW + 1), back(registry, to=first.version)):
        assert (again.version, again.restores, again.taken_back) == (first.version, NOW + 1, None)
    assert registry.records() == lines


@pytest.mark.fault(10)
def test_a_version_that_was_taken_back_can_be_asked_for_by_its_number(registry):
    back(registry)
    done = back(registry, to=NOW + 2)
    assert (done.version, done.restores) == (NOW + 61, NOW + 2)
    assert back(registry).restores == NOW + 1


@pytest.mark.fault(10)
def test_a_rollback_to_what_is_missing_or_broken_is_refused_with_the_reason(registry):
    (registry.models / str(NOW + 1) / "saved_model.pb").write_text("broken")
    with pytest.raises(PublishError, match=rf"version {NOW + 1} differs from its manifest in saved_model\.pb"):
        back(registry)
    shutil.rmtree(registry.models / str(NOW + 1))
    with pytest.raises(InputError, match=rf"the version before, {NOW + 1}, is no longer .*present, newest first: "):
        back(registry)
    with pytest.raises(InputError, match=f"expected --to to be a version .*; got {NOW + 1}"):
        back(registry, to=NOW + 1)
    registry.companion_path(NOW, "rows").write_text("changed")
    with pytest.raises(PublishError, match=f"not what was published with version {NOW}"):
        back(registry, to=NOW)
    registry.companion_path(NOW, "rows").unlink()
    with pytest.raises(PublishError, match=f"version {NOW} has lost rows"):
        back(registry, to=NOW)
    assert registry.champion().version == NOW + 2
    assert len(registry.records()) == 3


@pytest.mark.fault(10)
def test_a_version_that_somebody_planted_cannot_be_rolled_back_to(registry):
    planted = 1_500_000_000
    shutil.copytree(registry.models / str(NOW), registry.models / str(planted))
    for path in (registry.manifest_path(NOW), *registry.companions(NOW).values()):
        shutil.copyfile(path, path.with_name(path.name.replace(str(NOW), str(planted))))
    with pytest.raises(InputError, match=rf"that was published and is in .*; got {planted}"):
        back(registry, to=planted)


@pytest.mark.fault(10)
def test_a_registry_without_its_ledger_is_not_rolled_back(registry):
    registry.ledger.unlink()
    registry.pointer.unlink()
    for to in (None, NOW):
        with pytest.raises(InputError):
            back(registry, to=to)


@pytest.mark.fault(10)
def test_the_first_version_has_nothing_to_go_back_to(tmp_path):
    registry = Registry(tmp_path / "r")
    with pytest.raises(InputError, match=r"nothing to go back to\. Versions: none"):
        back(registry)
    publish(registry, NOW)
    with pytest.raises(InputError, match=rf"nothing to go back to\. Versions: {NOW}; name one"):
        back(registry)


@pytest.mark.fault(10)
@pytest.mark.parametrize("damage", ["file", "gone"])
def test_a_champion_that_is_broken_or_gone_can_be_rolled_back_from(registry, damage):
    champion = registry.models / str(NOW + 2)
    shutil.rmtree(champion) if damage == "gone" else (champion / "saved_model.pb").write_text("broken")
    with pytest.raises(PublishError, match="crossrisk rollback"):
        registry.champion()
    assert back(registry).restores == NOW + 1
    assert registry.champion().version == NOW + 60


@pytest.mark.fault(10)
def test_a_rollback_during_a_publication_comes_after_it_and_goes_to_the_version_before_it(registry):
    publisher = start(registry, "publish", failpoint="publish.verified=stop")
    try:
        wait_until_stopped(publisher)
        waiting = threading.Thread(target=back, args=(registry,))
        waiting.start()
        publisher.send_signal(signal.SIGCONT)
        published = int(publisher.communicate(timeout=LIMIT_S)[0])
        waiting.join(LIMIT_S)
    finally:
        publisher.kill()
        publisher.communicate()
    champion = registry.version(assert_settled(registry))
    assert champion.version > published
    assert champion.manifest["restores"] == NOW + 2


# --- 11: pruning ---


def prune(registry, keep=2, labelled=()):
    with locked(registry):
        present = registry.versions()
        with held(registry, present) as unread:
            reading = set(present) - unread
            chosen = choose_versions(present, registry.records(), keep=keep, labelled=labelled, is_read=reading)
            record = {"kind": "prune", "version": None, "pruned": list(chosen.removed)}
            if chosen.removed:
                prune_versions(registry, chosen.removed, record)
        return chosen


@pytest.mark.fault(11)
def test_champion_previous_labelled_and_read_versions_are_never_pruned(registry):
    for place in range(3, 8):
        publish(registry, NOW + place, str(place))
    with registry.reading(NOW + 3):
        chosen = prune(registry, labelled=[NOW + 1])
    assert chosen.removed == (NOW, NOW + 2, NOW + 4, NOW + 5)
    assert registry.versions() == [NOW + 1, NOW + 3, NOW + 6, NOW + 7]
    assert prune(registry).removed == (NOW + 1, NOW + 3)
    assert assert_settled(registry) == NOW + 7
    assert back(registry).restores == NOW + 6


@pytest.mark.fault(11)
def test_a_version_that_is_gone_without_having_been_pruned_is_missed_by_the_audit(registry):
    prune(registry)
    assert kept_versions(registry) == registry.versions() == [NOW + 1, NOW + 2]
    shutil.rmtree(registry.models / str(NOW + 1))
    assert kept_versions(registry) == [NOW + 1, NOW + 2]
    (gone, _) = check_version(registry, NOW + 1)
    assert not gone.holds
    assert "is not in" in gone.said


@pytest.mark.fault(11)
def test_a_pruned_version_leaves_by_a_rename_to_a_name_that_is_no_number(registry, monkeypatch):
    monkeypatch.setenv(VARIABLE, "prune.moved=enospc")
    with pytest.raises(PublishError, match="No space left"):
        prune(registry)
    assert [path.name for path in registry.trash.iterdir()] == [f"pruned-{NOW}"]
    assert registry.versions() == [NOW + 1, NOW + 2]
    monkeypatch.delenv(VARIABLE)
    assert assert_settled(registry) == NOW + 2


# --- 23: tampering ---


def change_line(registry, number, **change):
    lines = registry.ledger.read_text().splitlines(keepends=True)
    lines[number] = json.dumps({**json.loads(lines[number]), **change}) + "\n"
    registry.ledger.write_text("".join(lines))


def rewrite_line(registry, number, **change):
    """As somebody who knows the format would: the line's own digest is right again."""
    lines = registry.ledger.read_text().splitlines(keepends=True)
    record = {**json.loads(lines[number]), **change}
    record.pop("digest")
    record["digest"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    lines[number] = canonical_json(record) + "\n"
    registry.ledger.write_text("".join(lines))


@pytest.mark.fault(23)
@pytest.mark.parametrize("tamper", [change_line, rewrite_line])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_line_of_the_ledger_that_was_changed_is_detected_by_readers_and_publishers(registry, tamper, number):
    tamper(registry, number, by="somebody else")
    for act in (registry.champion, lambda: publish(registry, NOW + 9), lambda: back(registry)):
        with pytest.raises(PublishError, match=r"was changed after it was written|names as its last"):
            act()
    assert registry.versions() == [NOW, NOW + 1, NOW + 2]


@pytest.mark.fault(23)
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_lines_taken_from_the_end_of_the_ledger_are_missed(registry, kept):
    lines = registry.ledger.read_text().splitlines(keepends=True)
    registry.ledger.write_text("".join(lines[:kept]))
    with pytest.raises(PublishError, match="lines were taken away"):
        registry.champion()


@pytest.mark.fault(23)
@pytest.mark.parametrize("number", [0, 2])
def test_a_manifest_that_was_changed_is_detected_even_where_it_fits_its_model(registry, number):
    version = NOW + number
    (registry.models / str(version) / "saved_model.pb").write_text("swapped")
    manifest = json.loads(registry.manifest_path(version).read_text())
    manifest["files"]["saved_model.pb"] = hashlib.sha256(b"swapped").hexdigest()
    registry.manifest_path(version).write_text(json.dumps(manifest))
    with pytest.raises(PublishError, match=f"changed after version {version} was published"):
        registry.version(version)


# --- 24: other releases ---


@pytest.mark.fault(24)
@pytest.mark.parametrize("name", ["manifest", "champion.json", "intent.json"])
def test_a_file_of_a_newer_release_is_refused_with_its_version(registry, name):
    path = registry.manifest_path(NOW + 2) if name == "manifest" else registry.root / name
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "version": NOW + 2, "files": {}}))
    with pytest.raises(PublishError, match=rf"schema_version {SCHEMA_VERSION + 1}.*(upgrade|was changed)"):
        registry.champion()


@pytest.mark.fault(24)
def test_a_line_of_a_newer_release_is_refused_and_nothing_is_written_after_it(registry):
    append_ledger(registry.ledger, {"schema_version": 99})
    content = registry.ledger.read_bytes()
    for act in (registry.champion, lambda: publish(registry, NOW + 9), lambda: back(registry)):
        with pytest.raises(PublishError, match=r"line 4 has schema_version 99.*upgrade"):
            act()
    assert registry.ledger.read_bytes() == content


@pytest.mark.fault(24)
def test_a_registry_of_the_first_release_is_read_published_to_and_rolled_back(tmp_path, monkeypatch):
    """Its lines have no kind and no schema_version, its manifests no identity, its pointer no head."""
    monkeypatch.setattr(rollback, "_verify_restored", accept)
    registry = Registry(tmp_path / "r")
    publish(registry, NOW)
    manifest = json.loads(registry.manifest_path(NOW).read_text())
    for added in ("identity", "run_id"):
        manifest.pop(added)
    registry.manifest_path(NOW).write_text(json.dumps({**manifest, "schema_version": 1}))
    registry.pointer.write_text(json.dumps({"version": NOW, "path": f"models/{NOW}"}))
    registry.ledger.unlink()
    registry.ledger.touch()
    old = {"run_id": "a", "as_of": "2024-11-30", "decision": {"verdict": "bootstrap"}, "version": NOW}
    line = {**old, "previous": "0" * 64}
    line["digest"] = hashlib.sha256(canonical_json(line).encode()).hexdigest()
    registry.ledger.write_text(canonical_json(line) + "\n")
    assert registry.champion().version == NOW
    publish(registry, NOW + 1, "new")
    assert back(registry).restores == NOW
    assert assert_settled(registry) == NOW + 60


@pytest.mark.fault(24)
def test_an_intent_of_a_newer_release_is_left_to_it(registry):
    registry.intent.write_text(json.dumps({"schema_version": 99, "version": NOW + 9, "record": {}}))
    with pytest.raises(PublishError, match=r"intent\.json has schema_version 99"):
        publish(registry, NOW + 3)
    assert registry.intent.exists()
    assert run(registry, "publish").returncode == 1
