"""Attacks by a suite's JSON: its size, its nesting, and SQL of its own."""

import json

import pytest

from crossrisk.errors import ConfigError
from expectations import load_suites

ROLES = {"id": "id", "label": "bad"}


def suite(kind: str, action: str = "warn", **kwargs) -> dict:
    meta = {"action": action, "why": "It matters.", "owner": "credit risk"}
    rule = {"name": "the-rule", "type": kind, "kwargs": kwargs, "meta": meta}
    return {"schema_version": 1, "name": "mine", "max_quarantined_share": 0.1, "expectations": [rule]}


def load(tmp_path, text: str):
    file = tmp_path / "mine.json"
    file.write_text(text)
    return load_suites([str(file)], ROLES)


def test_a_suite_of_hundreds_of_megabytes_is_refused_unread(tmp_path):
    file = tmp_path / "large.json"
    with file.open("wb") as opened:
        opened.truncate(500 << 20)
    with pytest.raises(ConfigError, match="is larger than 4 MiB"):
        load_suites([str(file)], ROLES)


@pytest.mark.parametrize("deep", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 40 + "1" + "}" * 40])
def test_lists_within_lists_without_end_are_refused_in_words(tmp_path, deep):
    with pytest.raises(ConfigError, match=r"mine\.json: .*nests"):
        load(tmp_path, deep)


def test_a_number_of_ten_thousand_digits_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.json: not valid JSON"):
        load(tmp_path, "1" * 10_000)


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("unexpected_rows_expectation", {"unexpected_rows_query": "SELECT * FROM read_csv('/etc/passwd')"}),
        ("expect_column_values_to_be_null", {"column": "x", "row_condition": "1=1", "condition_parser": "duckdb"}),
    ],
)
def test_a_suite_brings_no_sql_of_its_own(tmp_path, kind, kwargs):
    with pytest.raises(ConfigError, match=r"SQL or conditions of one's own|does not take these kwargs"):
        load(tmp_path, json.dumps(suite(kind, **kwargs)))
