"""Rules of versions and of their agreement with the ledger."""

import hashlib
import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registries import enter, publish

from crossrisk.errors import PublishError
from crossrisk.registry import Registry
from crossrisk.registry.layout import as_server_reads


def test_a_changed_byte_of_the_champion_is_found(tmp_path):
    registry = Registry(tmp_path / "r")
    champion = publish(registry, 1_700_000_000)
    (champion.folder / "saved_model.pb").write_text("other")
    with pytest.raises(PublishError, match=r"differs from its manifest in saved_model\.pb"):
        registry.champion()


def test_a_version_without_manifest_is_not_trusted(tmp_path):
    registry = Registry(tmp_path / "r")
    champion = publish(registry, 1_700_000_000)
    registry.manifest_path(champion.version).unlink()
    with pytest.raises(PublishError, match="no manifest"):
        registry.champion()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("7", 7),
        ("0007", 7),
        ("+7", 7),
        ("-7", None),
        ("7a", None),
        ("", None),
        ("-0", 0),
        ("9" * 19, None),
        (" 8\n", 8),
        ("8 8", None),
        ("٧", None),
    ],
)
def test_names_are_read_as_a_server_reads_them(name, number):
    assert as_server_reads(name) == number


@given(st.integers(0, 2**63 - 1))
def test_every_number_that_a_server_can_hold_is_read(number):
    assert as_server_reads(str(number)) == number


# --- a registry that contradicts itself ---


@pytest.fixture
def registry(tmp_path):
    """Three versions and a decision that published nothing."""
    made = Registry(tmp_path / "r")
    for now in (1_700_000_000, 1_700_000_001, 1_700_000_002):
        publish(made, now)
    enter(made)
    return made


FIRST, SECOND, THIRD = 1_700_000_000, 1_700_000_001, 1_700_000_002


def test_emptied_models_are_no_first_run(registry):
    shutil.rmtree(registry.models)
    said = rf"version {THIRD} was published, as the ledger and champion\.json and a manifest says, but models holds no"
    with pytest.raises(PublishError, match=said) as refused:
        registry.champion()
    for move in (f"restore models/{THIRD}", "crossrisk rollback", f"move {registry.root} aside"):
        assert move in str(refused.value)


@pytest.mark.parametrize("kept", ["ledger.jsonl", "manifests"])
def test_each_trace_of_a_version_alone_keeps_it_from_being_forgotten(registry, kept):
    for path in registry.root.iterdir():
        if path.name != kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(PublishError, match=r"was published, as .* says, but models holds no version"):
        registry.champion()


def test_a_champion_that_is_gone_does_not_hand_over_in_silence(registry):
    shutil.rmtree(registry.models / str(THIRD))
    with pytest.raises(PublishError, match=f"version {THIRD} was published.*models holds 2, the newest {SECOND}"):
        registry.champion()


@pytest.mark.parametrize("text", [None, ""])
def test_versions_without_a_ledger_are_refused(registry, text):
    registry.pointer.unlink()
    registry.ledger.unlink() if text is None else registry.ledger.write_text(text)
    said = rf"holds version {THIRD}, but ledger\.jsonl is empty or not there; restore it"
    with pytest.raises(PublishError, match=said):
        registry.champion()


def test_a_ledger_that_ends_before_the_last_publication_is_refused(registry):
    lines = registry.ledger.read_text().splitlines(keepends=True)
    registry.ledger.write_text("".join(lines[:2]))
    with pytest.raises(PublishError, match=r"not the one that champion\.json names as its last of 4: lines"):
        registry.champion()
    registry.pointer.unlink()
    with pytest.raises(PublishError, match=f"version {THIRD}, but .* holds 2 lines and none that published it"):
        registry.champion()


def test_a_last_line_that_was_taken_away_is_missed_although_it_published_nothing(registry):
    lines = registry.ledger.read_text().splitlines(keepends=True)
    registry.ledger.write_text("".join(lines[:3]))
    with pytest.raises(PublishError, match=r"holds 3 lines and not the one .* last of 4"):
        registry.champion()


def test_a_ledger_that_began_anew_is_refused(registry):
    registry.ledger.unlink()
    with pytest.raises(PublishError, match="holds 0 lines and not the one"):
        publish(registry, THIRD + 1)
    registry.pointer.unlink()
    publish(registry, THIRD + 1)
    with pytest.raises(PublishError, match=rf"holds version {THIRD}, but .* holds 1 lines and none"):
        registry.champion()


def test_an_old_version_may_be_gone(registry):
    shutil.rmtree(registry.models / str(FIRST))
    assert registry.champion().version == THIRD


def test_a_manifest_that_was_changed_with_its_model_is_found_by_the_ledger(registry):
    (registry.models / str(THIRD) / "saved_model.pb").write_text("other")
    manifest = json.loads(registry.manifest_path(THIRD).read_text())
    manifest["files"]["saved_model.pb"] = hashlib.sha256(b"other").hexdigest()
    registry.manifest_path(THIRD).write_text(json.dumps(manifest))
    with pytest.raises(PublishError, match=r"was changed after version \d+ was published"):
        registry.champion()


@pytest.mark.parametrize("name", ["7", "0007", "-1", "+5", "12a", "tmp"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_junk_below_the_champion_is_no_version_and_stops_nothing(registry, name, as_folder):
    junk = registry.models / name
    junk.mkdir() if as_folder else junk.write_text("junk")
    assert registry.champion().version == THIRD
    assert publish(registry, 0.0).version == THIRD + 1


def test_a_model_that_somebody_laid_above_the_champion_is_refused(registry):
    shutil.copytree(registry.models / str(THIRD), registry.models / str(THIRD + 5))
    with pytest.raises(PublishError, match=f"holds version {THIRD + 5}, but .* none that published it.*move it out"):
        registry.champion()


def test_a_version_that_a_publisher_is_placing_is_believed_before_its_line_is_there(registry):
    lines, pointer = registry.ledger.read_text(), registry.pointer.read_text()
    placed = publish(registry, THIRD + 1)
    registry.ledger.write_text(lines)
    registry.pointer.write_text(pointer)
    registry.intent.write_text(json.dumps({"version": placed.version, "record": {}}))
    assert registry.champion().version == placed.version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("", "is no JSON"),
        ("[]", "expected a JSON object, found list"),
        ("{}", r"is no manifest: expected the digests .*found the keys \[\]"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named_by_its_path(registry, text, message):
    path = registry.manifest_path(THIRD)
    path.write_text(text)
    with pytest.raises(PublishError, match=message) as refused:
        registry.champion()
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["{", "{}", '{"version": "17"}', '{"schema_version": 3, "version": 17}'])
def test_a_broken_pointer_is_named_by_its_path(registry, text):
    (registry.root / "champion.json").write_text(text)
    with pytest.raises(PublishError, match=r"champion\.json"):
        registry.champion()
