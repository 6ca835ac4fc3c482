"""Rules of files and stages."""

import pytest

from crossrisk.store import canonical_json, digest_of, read_json, stage, whole_file, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "file"

    def fail():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(path.parent.iterdir()) == []
    write_json(path, {"x": 1})
    assert read_json(path) == {"x": 1}
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_json(tmp_path / "file", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": 1}


def test_equal_documents_have_equal_digests_whatever_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a": "é", "b": 1}'


def test_a_stage_is_made_once_and_then_found(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        (folder / "out").write_text("made")
        return {"rows": 3}

    first = stage(tmp_path, "s", {"k": 1}, build)
    again = stage(tmp_path, "s", {"k": 1}, build)
    other = stage(tmp_path, "s", {"k": 2}, build)
    assert (first.reused, again.reused, other.reused) == (False, True, False)
    assert len(calls) == 2
    assert again.facts == {"rows": 3}
    assert (again.folder / "out").read_text() == "made"


def test_a_stage_that_failed_leaves_nothing_and_is_made_again(tmp_path):
    def fail(folder):
        (folder / "out").write_text("half")
        raise RuntimeError("died")

    with pytest.raises(RuntimeError):
        stage(tmp_path, "s", {}, fail)
    assert list((tmp_path / "s").iterdir()) == []
    assert not stage(tmp_path, "s", {}, lambda _: {}).reused


def test_two_that_make_one_stage_at_once_agree(tmp_path):
    def racing(folder):
        stage(tmp_path, "s", {}, lambda _: {"by": "the other"})
        return {"by": "me"}

    assert stage(tmp_path, "s", {}, racing).facts == {"by": "the other"}
    assert len(list((tmp_path / "s").iterdir())) == 1
