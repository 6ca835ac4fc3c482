"""Rules of the suite loader: what it merges, what it skips, and how it names what is wrong."""

import copy
import json
from pathlib import Path

import pytest

from crossrisk.errors import ConfigError
from expectations import COMMON_SUITE, ROLES, ROW_RULES, build_expectation, load_suites, shipped_suites

ALL_ROLES = {role: f"the_{role}" for role in ROLES}


def suite_document(**changes):
    """A suite of one warning about column `x`; `changes` go into that expectation."""
    expectation = {
        "name": "x-known",
        "type": "expect_column_values_to_not_be_null",
        "kwargs": {"column": "x"},
        "meta": {"action": "warn", "why": "x is needed", "owner": "data engineering"},
    }
    return {"schema_version": 1, "name": "mine", "max_quarantined_share": 0.02, "expectations": [expectation | changes]}


def write_suite(folder: Path, document) -> str:
    path = folder / "mine.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return str(path)


def test_shipped_suites_are_the_common_one_and_one_per_portfolio():
    assert shipped_suites() == ("demo", "lending_club", "portfolio")


@pytest.mark.parametrize("name", shipped_suites())
def test_shipped_suite_loads_with_all_roles_and_skips_nothing(name):
    suite = load_suites([name], ALL_ROLES)
    assert suite.skipped == ()
    assert len(suite.rules) >= 10
    assert all(rule.why.endswith(".") and rule.owner for rule in suite.rules)


@pytest.mark.parametrize("name", shipped_suites())
def test_shipped_suite_leaves_no_placeholder_when_loaded(name):
    suite = load_suites([name], ALL_ROLES)
    assert "${" not in json.dumps([dict(rule.kwargs) for rule in suite.rules])


def test_common_suite_comes_first_named_or_not():
    alone = load_suites([], ALL_ROLES)
    assert alone.name == COMMON_SUITE
    assert load_suites(["demo"], ALL_ROLES) == load_suites([COMMON_SUITE, "demo"], ALL_ROLES)
    assert load_suites(["demo"], ALL_ROLES).rules[: len(alone.rules)] == alone.rules


def test_last_suite_sets_the_quarantined_share(tmp_path):
    assert load_suites([], ALL_ROLES).max_quarantined_share == 0.01
    assert load_suites([write_suite(tmp_path, suite_document())], ALL_ROLES).max_quarantined_share == 0.02


def test_roles_become_the_columns_of_the_portfolio():
    rules = {rule.name: rule for rule in load_suites([], ALL_ROLES).rules}
    assert rules["id-unique"].kwargs["column"] == "the_id"
    assert rules["label-known-after-decision"].columns == ("the_known_date", "the_decision_date")


def test_column_that_looks_like_a_placeholder_is_taken_as_it_is():
    rules = {rule.name: rule for rule in load_suites([], {"id": "${label}"}).rules}
    assert rules["id-present"].columns == ("${label}",)


def test_rule_that_names_a_missing_role_is_skipped_with_the_reason():
    suite = load_suites([], {"id": "id", "label": "bad", "decision_date": None})
    reasons = {skipped.name: skipped.reason for skipped in suite.skipped}
    assert reasons["decision-date-present"] == "the portfolio names no decision_date column"
    assert reasons["label-known-after-decision"] == "the portfolio names no known_date and no decision_date column"
    assert {rule.name for rule in suite.rules}.isdisjoint(reasons)


def test_placeholder_in_a_list_is_replaced(tmp_path):
    pair = {"column_list": ["${id}", "x"]}
    name = write_suite(tmp_path, suite_document(type="expect_compound_columns_to_be_unique", kwargs=pair))
    assert load_suites([name], ALL_ROLES).rules[-1].columns == ("the_id", "x")


def test_expectation_carries_the_name_of_its_rule():
    rule = load_suites([], ALL_ROLES).rules[0]
    assert build_expectation(rule).meta == {"rule": rule.name}


def without(document, *path):
    document = copy.deepcopy(document)
    part = document
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return document


META = {"action": "warn", "why": "w", "owner": "o"}
MISTAKES = {
    "not JSON": ("{", "mine.json: not valid JSON"),
    "no list": (without(suite_document(), "expectations"), "mine.json: expectations: Field required"),
    "no why": (without(suite_document(), "expectations", 0, "meta", "why"), "'x-known': meta.why: Field required"),
    "share above one": (suite_document() | {"max_quarantined_share": 2}, "max_quarantined_share: Input should be less"),
    "unknown key": (suite_document(severity="high"), "'x-known': severity: Extra inputs are not permitted"),
    "unknown action": (
        suite_document(meta=META | {"action": "shout"}),
        "'x-known': meta.action: Input should be 'stop', 'quarantine' or 'warn', came 'shout'",
    ),
    "name not kebab": (suite_document(name="X known"), "'X known': name: String should match pattern"),
    "unknown type": (
        suite_document(type="expect_column_values_to_not_be_nul"),
        "'x-known': Great Expectations has no type .* did you mean 'expect_column_values_to_not_be_null'",
    ),
    "unknown kwarg": (
        suite_document(kwargs={"column": "x", "colour": "red"}),
        "'x-known': expect_column_values_to_not_be_null does not take these kwargs: .*colour",
    ),
    "unknown role": (suite_document(kwargs={"column": "${lable}"}), r"\$\{lable\} is not a role; did you mean 'label'"),
    "name taken": (suite_document(name="id-present"), "'id-present': the name is taken in expectations/portfolio.json"),
    "aggregate that quarantines": (
        suite_document(type="expect_column_max_to_be_between", meta=META | {"action": "quarantine"}),
        "'x-known': expect_column_max_to_be_between does not say which rows fail",
    ),
    "quarantine with mostly": (
        suite_document(kwargs={"column": "x", "mostly": 0.9}, meta=META | {"action": "quarantine"}),
        "'x-known': a quarantine rule of this type takes column, not 'mostly'",
    ),
    "quarantine by null in a set": (
        suite_document(
            type="expect_column_values_to_be_in_set",
            kwargs={"column": "x", "value_set": [1, None]},
            meta=META | {"action": "quarantine"},
        ),
        "'x-known': value_set holds null",
    ),
    "table columns": (
        suite_document(type="expect_table_column_count_to_equal", kwargs={"value": 3}),
        "'x-known': which columns there are is checked against the config",
    ),
    "free SQL": (
        suite_document(type="unexpected_rows_expectation", kwargs={"unexpected_rows_query": "SELECT * FROM {batch}"}),
        "'x-known': SQL or conditions of one's own are not supported",
    ),
}


@pytest.mark.parametrize(("document", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_in_a_suite_is_named_with_file_and_expectation(tmp_path, document, message):
    with pytest.raises(ConfigError, match=message):
        load_suites([write_suite(tmp_path, document)], ALL_ROLES)


def test_unknown_suite_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'lending_club'"):
        load_suites(["lending_clubs"], ALL_ROLES)


@pytest.mark.parametrize("name", ["../secrets", "/etc/hostname", "", "."])
def test_shipped_suite_is_never_looked_for_elsewhere(name):
    with pytest.raises(ConfigError, match=r"no suite .* is shipped"):
        load_suites([name], ALL_ROLES)


@pytest.mark.parametrize("name", ["mine.json", "./mine.json"])
def test_relative_path_of_a_suite_is_refused(name):
    with pytest.raises(ConfigError, match="absolute path"):
        load_suites([name], ALL_ROLES)


def test_missing_suite_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json.* cannot be read"):
        load_suites([str(tmp_path / "absent.json")], ALL_ROLES)


def test_unknown_role_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'customer'"):
        load_suites([], {"custmer": "c"})


def test_every_type_that_may_quarantine_is_one_of_great_expectations(tmp_path):
    some = {"column": "x", "column_A": "x", "column_B": "y", "min_value": 0, "max_value": 1, "value_set": [1]}
    for kind, allowed in ROW_RULES.items():
        kwargs = {key: value for key, value in some.items() if key in allowed}
        document = suite_document(type=kind, kwargs=kwargs, meta=META | {"action": "quarantine"})
        assert load_suites([write_suite(tmp_path, document)], ALL_ROLES).rules[-1].type == kind
