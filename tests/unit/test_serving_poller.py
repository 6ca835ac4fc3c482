"""The poller of the tests against TF Serving's rules, and its reading of names against TensorFlow's own parser."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from registries import publish
from serving_poller import All, Latest, Poller, Specific, Watch, aspired_versions, look, parse_version, watching

from crossrisk.registry import Registry

NAMES = ["7", "0007", "+7", "-7", " 7 ", "\t8\n", "+", "", "--7", "+-7", "7.0", "0x7", "1_0", "٧", "7\x00", "1e3"]
LIMITS = [str(2**63 - 1), str(2**63), str(-(2**63)), str(-(2**63) - 1), "0" * 30 + "9"]


def model(base, name):
    (base / name).mkdir(parents=True)
    (base / name / "saved_model.pb").write_text(name)


def read_by_tensorflow(names):
    import tensorflow as tf

    def read(name):
        try:
            return int(tf.strings.to_number(name.encode(), tf.int64))
        except tf.errors.InvalidArgumentError:
            return None

    return [read(name) for name in names]


def test_names_are_read_as_tensorflow_reads_them():
    names = [*NAMES, *LIMITS]
    assert [parse_version(name) for name in names] == read_by_tensorflow(names)


@given(st.text("0123456789+- \t.x", max_size=6))
@example("0007")
def test_any_name_is_read_as_tensorflow_reads_it(name):
    assert [parse_version(name)] == read_by_tensorflow([name])


def test_names_that_are_no_numbers_are_passed_over_and_files_count():
    names = ["staging", ".7", "trash-7", "7", "8"]
    assert aspired_versions(names, All()) == {7: "7", 8: "8"}


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Latest(), {12: "12"}),
        (Latest(0), {12: "12"}),
        (Latest(2), {12: "12", 7: "7"}),
        (Specific(frozenset({7, 99})), {7: "7"}),
        (All(), {7: "+7", 12: "12", 1: "1"}),
    ],
)
def test_of_two_names_for_a_number_the_later_listed_wins_but_under_all_the_first(policy, wanted):
    assert aspired_versions(["12", "7", "0007", "+7", "1"], policy) == wanted


def test_latest_is_by_number_and_not_by_name(tmp_path):
    for name in ("9", "10", "-5"):
        model(tmp_path, name)
    assert Poller(tmp_path).poll(0) == {10}


def test_the_version_before_answers_until_the_new_one_is_loaded(tmp_path):
    poller = Poller(tmp_path)
    model(tmp_path, "1")
    assert poller.poll(0) == {1}
    (tmp_path / "2").mkdir()
    assert poller.poll(1) == {1}
    (tmp_path / "2" / "saved_model.pb").write_text("late")
    assert poller.poll(60) == {1}
    assert poller.poll(61) == {2}


def test_after_five_retries_a_version_stays_in_error_until_its_name_is_gone(tmp_path):
    poller = Poller(tmp_path)
    model(tmp_path, "1")
    assert poller.poll(0) == {1}
    (tmp_path / "2").write_text("a file is a version too")
    for minute in range(7):
        assert poller.poll(60 * minute) == {1}
    assert (poller.managed[2].state, poller.managed[2].attempts) == ("END", 6)
    (tmp_path / "2").unlink()
    model(tmp_path, "2")
    assert poller.poll(9999) == {1}  # it never saw the name go
    (tmp_path / "2").rename(tmp_path / "elsewhere")
    assert poller.poll(10000) == {1}
    (tmp_path / "elsewhere").rename(tmp_path / "2")
    assert poller.poll(10001) == {2}


def test_a_base_path_that_is_gone_unloads_nothing_and_an_empty_one_everything(tmp_path):
    base = tmp_path / "models"
    poller = Poller(base)
    assert poller.poll(0) == set()
    model(base, "1")
    assert poller.poll(1) == {1}
    base.rename(tmp_path / "away")
    assert poller.poll(2) == {1}
    base.mkdir()
    assert poller.poll(3) == set()


def test_a_name_with_leading_zeros_is_loaded_as_the_number_it_is_read_as(tmp_path):
    poller = Poller(tmp_path)
    model(tmp_path, "0007")
    assert poller.poll(0) == {7}
    assert poller.managed[7].path.name == "0007"


def test_specific_versions_are_loaded_and_left_as_they_are_named(tmp_path):
    for name in ("1", "2", "3"):
        model(tmp_path, name)
    poller = Poller(tmp_path, Specific(frozenset({1, 2})))
    assert poller.poll(0) == {1, 2}
    poller.policy = Specific(frozenset({2, 3}))
    assert poller.poll(1) == {2, 3}


# --- the watcher ---


def test_the_watcher_checks_what_appears_against_its_manifest(tmp_path):
    registry = Registry(tmp_path)
    publish(registry, 1_700_000_000)
    watch = Watch()
    look(tmp_path, watch)
    assert not watch.failures
    model(registry.models, "1700000009")
    (registry.models / "1700000000" / "saved_model.pb").write_text("other")
    look(tmp_path, watch)
    assert [said.split(":")[0] for said in watch.failures] == ["1700000009"]  # of old ones it looks at the newest only
    assert "FileNotFoundError" in watch.failures[0]


def test_the_watching_process_sees_every_version_and_one_that_is_written_in_place(tmp_path):
    registry = Registry(tmp_path)
    with watching(tmp_path) as watch:
        first = publish(registry, 1_700_000_000).version
        model(registry.models, "0007")
    assert sorted(watch.sightings) == [7, first]
    assert watch.polls > 1
    assert [said.split(":")[0] for said in watch.failures] == ["7"]
