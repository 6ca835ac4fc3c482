"""Rules of comparing what was recorded with what came out again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.reproduction import TOLERANCE, code_warning, compare_recorded, stage_warning

AUC = {"value": 0.7, "low": 0.6, "high": 0.8, "status": "ok", "n_bad": 40, "n_good": 200, "interval": "DeLong"}
NOW = {"release": "0.2.0", "commit": "b2", "digest": "d2", "lock_sha256": "l"}

metrics = st.fixed_dictionaries(
    {
        "value": st.none() | st.floats(-1e6, 1e6),
        "low": st.none() | st.floats(0, 1),
        "status": st.sampled_from(["ok", "undefined"]),
    }
)


@given(st.dictionaries(st.text(max_size=5), metrics, max_size=5))
def test_what_equals_itself_is_the_same(recorded):
    lines = compare_recorded(recorded, recorded)
    assert [line.name for line in lines] == sorted(recorded)
    assert all(line.same and line.difference in (None, 0.0) for line in lines)


@pytest.mark.parametrize("field", ["value", "low", "high"])
@pytest.mark.parametrize(("by", "same"), [(TOLERANCE / 2, True), (TOLERANCE * 2, False), (0.01, False)])
def test_a_number_may_move_by_the_tolerance_and_intervals_count_as_much_as_values(field, by, same):
    (line,) = compare_recorded({"auc": AUC}, {"auc": {**AUC, field: AUC[field] + by}})
    assert line.same is same
    assert line.difference == pytest.approx(by, rel=1e-3)


@pytest.mark.parametrize(
    "derived",
    [{**AUC, "status": "insufficient"}, {**AUC, "value": None}, {**AUC, "n_bad": 41}, {"value": 0.7}, None],
)
def test_whatever_else_differs_is_not_the_same(derived):
    (line,) = compare_recorded({"auc": AUC}, {"auc": derived})
    assert not line.same


def test_what_only_one_side_has_is_a_line_and_is_not_the_same():
    lines = compare_recorded({"auc": AUC, "plan": "a"}, {"ks": AUC, "plan": "a"})
    assert [(line.name, line.same) for line in lines] == [("auc", False), ("ks", False), ("plan", True)]


def test_other_code_is_said_with_what_was_and_is():
    then = {**NOW, "commit": "a1", "digest": "d1"}
    said = code_warning(then, NOW)
    assert "commit a1, now b2; digest d1, now d2" in said
    assert "release" not in said
    assert "digest old, now d2" in code_warning("old", NOW)


def test_a_commit_that_changed_no_source_is_not_worth_a_word():
    assert code_warning({**NOW, "commit": "a1"}, NOW) is None
    assert code_warning("d2", NOW) is None


def test_the_first_step_that_was_made_from_something_else_is_named():
    then = {"ingest": "1", "validate": "2", "labels": "3", "compared": "4"}
    assert stage_warning(then, then) is None
    assert "step validate was made from suites" in stage_warning(then, {**then, "validate": "x", "labels": "y"})
    assert "step labels was made from something other" in stage_warning(then, {**then, "labels": "y", "compared": "z"})
    assert stage_warning({}, then) is None
