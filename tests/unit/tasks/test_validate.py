"""Rules of validation: what each action does, exactly which rows go to quarantine, and what a person is shown."""

import json
import re
import subprocess
import sys
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossrisk.errors import CrossriskError, InputError
from expectations import ROW_RULES, Rule, SkippedRule, Suite
from tasks import quarantine
from tasks.quarantine import failing_rows
from tasks.validate import validate_files
from tasks.validation_report import render_html

NAN = float("nan")
BETWEEN = "expect_column_values_to_be_between"


def rule(kind: str, action: str = "quarantine", name: str = "the-rule", **kwargs) -> Rule:
    return Rule(name, kind, kwargs, action, "It matters.", "credit risk", "test.json")


def suite(*rules: Rule, share: float = 1.0, skipped: tuple[SkippedRule, ...] = ()) -> Suite:
    return Suite("test", share, rules, skipped)


def run(tmp_path: Path, frame: pl.DataFrame, *rules: Rule, share: float = 1.0):
    file = tmp_path / "rows.parquet"
    frame.write_parquet(file)
    return validate_files([file], suite(*rules, share=share), tmp_path / "out", id_column="id", hive=False)


def quarantined(report) -> list[tuple[str, int]]:
    frame = pl.read_parquet(report.quarantine_file)
    return list(zip(frame["quarantine_rule"], frame["id"], strict=True))


def column(values, **more) -> pl.DataFrame:
    return pl.DataFrame({"id": range(len(values)), "x": values, **more})


# Kind of rule, its kwargs, the column x (and y), and the ids that fail. A missing value is in every one of them.
ROW_CASES = [
    ("expect_column_values_to_not_be_null", {}, {"x": [1.0, None, 2.0]}, [1]),
    ("expect_column_values_to_not_be_null", {}, {"x": [1.0, NAN, 2.0]}, [1]),
    ("expect_column_values_to_not_be_null", {}, {"x": [1.0, NAN, 1.0]}, [1]),
    ("expect_column_values_to_not_be_null", {}, {"x": [NAN, NAN]}, [0, 1]),
    ("expect_column_values_to_be_null", {}, {"x": [None, "a", None]}, [1]),
    ("expect_column_values_to_be_between", {"min_value": 0, "max_value": 2}, {"x": [0, 2, None, -1, 3]}, [3, 4]),
    ("expect_column_values_to_be_between", {"min_value": 0, "strict_min": True}, {"x": [0.0, 0.1, None]}, [0]),
    ("expect_column_values_to_be_between", {"max_value": 2, "strict_max": True}, {"x": [2.0, 1.9, NAN]}, [0]),
    ("expect_column_values_to_be_between", {"max_value": 2}, {"x": [float("inf"), float("-inf"), None]}, [0]),
    (
        "expect_column_values_to_be_between",
        {"min_value": "1990-01-01"},
        {"x": [date(1989, 12, 31), date(1990, 1, 1), None]},
        [0],
    ),
    ("expect_column_values_to_be_in_set", {"value_set": [0, 1]}, {"x": [0, 1, None, 2, -1]}, [3, 4]),
    ("expect_column_values_to_be_in_set", {"value_set": [0, 1]}, {"x": [True, False, None]}, []),
    ("expect_column_values_to_be_in_set", {"value_set": ["a'b", ""]}, {"x": ["a'b", "", None, "a"]}, [3]),
    ("expect_column_values_to_not_be_in_set", {"value_set": [999]}, {"x": [1, 999, None]}, [1]),
    (
        "expect_column_value_lengths_to_be_between",
        {"min_value": 1, "max_value": 2},
        {"x": ["", "ab", None, "abc"]},
        [0, 3],
    ),
    (
        "expect_column_pair_values_a_to_be_greater_than_b",
        {},
        {"x": [2, 1, 0, None, None, 1], "y": [1, 1, 1, 1, None, None]},
        [1, 2],
    ),
    (
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"or_equal": True},
        {"x": [2, 1, 0, None, None, 1], "y": [1, 1, 1, 1, None, None]},
        [2],
    ),
]  # fmt: skip


def columns_of(kind: str) -> dict[str, str]:
    return {"column_A": "x", "column_B": "y"} if "pair" in kind else {"column": "x"}


@pytest.mark.parametrize(("kind", "kwargs", "values", "failing"), ROW_CASES)
def test_quarantine_holds_exactly_the_failing_rows(tmp_path, kind, kwargs, values, failing):
    frame = pl.DataFrame({"id": range(len(values["x"])), **values})
    report = run(tmp_path, frame, rule(kind, **columns_of(kind), **kwargs))
    assert [result.error for result in report.results] == [None]
    assert quarantined(report) == [("the-rule", id_) for id_ in failing]
    assert report.quarantined_ids == len(failing)


@pytest.mark.parametrize(("kind", "kwargs", "values", "failing"), ROW_CASES)
def test_nothing_is_set_aside_when_all_rows_pass(tmp_path, kind, kwargs, values, failing):
    frame = pl.DataFrame({"id": range(len(values["x"])), **values}).filter(~pl.col("id").is_in(failing))
    report = run(tmp_path, frame, rule(kind, **columns_of(kind), **kwargs))
    assert report.results[0].success
    assert quarantined(report) == []
    assert report.quarantined_share == 0


def test_every_kind_that_may_quarantine_has_a_case_above():
    assert {kind for kind, *_ in ROW_CASES} == set(ROW_RULES)


def test_failing_rows_refuses_a_rule_that_is_not_about_rows():
    with pytest.raises(ValueError, match="does not say which rows fail"):
        failing_rows(rule("expect_column_max_to_be_between", column="x"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    x=st.lists(st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 1.0])), min_size=1, max_size=30),
    low=st.floats(-2, 2),
    width=st.floats(0, 2),
    strict=st.booleans(),
)
def test_quarantine_agrees_with_a_plain_reading_of_the_range(tmp_path, x, low, width, strict):
    bounds = {"min_value": low, "max_value": low + width, "strict_min": strict}
    report = run(tmp_path, column(pl.Series(x, dtype=pl.Float64)), rule(BETWEEN, column="x", **bounds))

    def passes(value):
        missing = value is None or value != value
        return missing or ((value > low if strict else value >= low) and value <= low + width)

    assert quarantined(report) == [("the-rule", id_) for id_, value in enumerate(x) if not passes(value)]


def test_row_that_fails_two_rules_is_written_once_per_rule_and_counted_once(tmp_path):
    report = run(
        tmp_path,
        column([-1, 5, 7]),
        rule("expect_column_values_to_be_between", name="low", column="x", max_value=4),
        rule("expect_column_values_to_be_between", name="lower", column="x", max_value=6),
    )
    assert quarantined(report) == [("low", 1), ("low", 2), ("lower", 2)]
    assert report.quarantined_ids == 2
    assert report.quarantined_share == pytest.approx(2 / 3)


def test_quarantine_keeps_all_columns_of_the_row(tmp_path):
    frame = column([-1, 5], name=["a", "b"], when=[date(2020, 1, 1), None])
    report = run(tmp_path, frame, rule("expect_column_values_to_be_between", column="x", min_value=0))
    assert pl.read_parquet(report.quarantine_file).drop("quarantine_rule").equals(frame[:1])


def test_failed_stop_rule_blocks_and_says_why(tmp_path):
    report = run(tmp_path, column([1, None]), rule("expect_column_values_to_not_be_null", "stop", column="x"))
    assert report.outcome == "blocked"
    assert report.reasons == ("stop rule 'the-rule': 50.000% of the rows fail (1). It matters.",)
    assert quarantined(report) == []


def test_failed_warning_never_blocks(tmp_path):
    report = run(
        tmp_path, column([None, None]), rule("expect_column_values_to_not_be_null", "warn", column="x"), share=0
    )
    assert (report.outcome, report.reasons, len(report.warnings)) == ("pass", (), 1)


@pytest.mark.parametrize(("share", "outcome"), [(0.5, "pass"), (0.49, "blocked"), (0.0, "blocked")])
def test_more_quarantined_than_allowed_blocks_and_exactly_as_many_do_not(tmp_path, share, outcome):
    failing = rule("expect_column_values_to_not_be_null", column="x")
    report = run(tmp_path, column([1, None]), failing, share=share)
    assert report.outcome == outcome
    assert report.quarantined_ids == 1


def test_missing_column_fails_its_rule_with_a_readable_reason_and_no_other(tmp_path):
    report = run(
        tmp_path,
        column([1, 2]),
        rule("expect_column_values_to_not_be_null", "warn", name="typo", column="X"),
        rule("expect_column_values_to_not_be_null", "stop", name="fine", column="x"),
    )
    by_name = {result.rule: result for result in report.results}
    assert by_name["typo"].error == "the data have no column 'X', the nearest is 'x'"
    assert not by_name["typo"].success
    assert by_name["fine"].success


@pytest.mark.parametrize("action", ["stop", "quarantine"])
def test_rule_that_cannot_be_evaluated_blocks_and_leaves_the_others_alone(tmp_path, action):
    report = run(
        tmp_path,
        column(["a", "b"], y=[1.0, 9.0]),
        rule("expect_column_values_to_be_between", action, name="text-as-number", column="x", min_value=0),
        rule("expect_column_mean_to_be_between", "warn", name="mean-of-text", column="x", min_value=0),
        rule("expect_column_values_to_be_between", name="number", column="y", max_value=5),
        rule("expect_column_mean_to_be_between", "warn", name="mean", column="y", min_value=0),
    )
    by_name = {result.rule: result for result in report.results}
    assert report.outcome == "blocked"
    assert by_name["text-as-number"].error == (
        "Binder Error: Cannot compare values of type VARCHAR and type DOUBLE - an explicit cast is required"
    )
    assert "text-as-number" in report.reasons[0]
    assert by_name["mean-of-text"].error is not None
    assert by_name["mean"].observed == 5.0
    assert quarantined(report) == [("number", 1)]


def test_aggregate_rules_show_what_was_observed(tmp_path):
    report = run(
        tmp_path,
        column([0, 0, 2]),
        rule("expect_table_row_count_to_be_between", "stop", name="rows", min_value=4),
        rule("expect_column_proportion_of_unique_values_to_be_between", "stop", name="unique", column="x", min_value=1),
        rule("expect_column_distinct_values_to_contain_set", "stop", name="both", column="x", value_set=[0, 1]),
        rule("expect_column_mean_to_be_between", "stop", name="mean", column="x", max_value=0.5),
    )
    assert {result.rule: result.observed for result in report.results} == {
        "rows": 3,
        "unique": 0.6666666667,
        "both": "without 1",
        "mean": 0.6666666667,
    }
    assert report.reasons[0] == "stop rule 'rows': observed 3, expected min_value 4. It matters."
    assert len(report.reasons) == 4


def test_examples_are_the_first_failing_values_in_file_order(tmp_path):
    values = [date(1900, 1, day) for day in range(1, 20)]
    failing = rule("expect_column_values_to_be_between", column="x", min_value="1990-01-01")
    assert run(tmp_path, column(values), failing).results[0].examples == tuple(f"1900-01-0{day}" for day in range(1, 6))


def test_results_are_ordered_by_weight_and_failing_first(tmp_path):
    known = "expect_column_values_to_not_be_null"
    report = run(
        tmp_path,
        column([1, None]),
        rule(known, "warn", name="a", column="x"),
        rule(known, "stop", name="b", column="id"),
        rule(known, "stop", name="c", column="x"),
        rule(known, "quarantine", name="d", column="id"),
    )
    assert [result.rule for result in report.results] == ["c", "b", "d", "a"]


def test_months_in_hive_folders_are_one_table_with_a_column_for_the_folder(tmp_path):
    for month, values in (("2020-01", [1, 2]), ("2020-02", [-3])):
        (tmp_path / f"month={month}").mkdir()
        frame = pl.DataFrame({"id": [f"{month}-{value}" for value in values], "x": values})
        frame.write_parquet(tmp_path / f"month={month}" / "part-0.parquet")
    files = sorted(tmp_path.rglob("*.parquet"))
    rules = suite(
        rule("expect_column_values_to_be_between", column="x", min_value=0),
        rule(
            "expect_column_values_to_be_in_set", "stop", name="month", column="month", value_set=["2020-01", "2020-02"]
        ),
    )
    report = validate_files(files, rules, tmp_path / "out", id_column="id", hive=True)
    assert (report.rows, report.outcome) == (3, "pass")
    assert pl.read_parquet(report.quarantine_file).rows() == [("the-rule", "2020-02--3", -3, "2020-02")]


def test_column_that_one_file_lacks_is_missing_there(tmp_path):
    column([1, 2]).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"id": [9]}).write_parquet(tmp_path / "b.parquet")
    known = suite(rule("expect_column_values_to_not_be_null", column="x"))
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    report = validate_files(files, known, tmp_path / "out", id_column="id", hive=False)
    assert quarantined(report) == [("the-rule", 9)]


def test_empty_table_has_no_share_and_every_row_rule_holds(tmp_path):
    report = run(tmp_path, column([]).cast({"x": pl.Float64}), rule("expect_column_values_to_not_be_null", column="x"))
    assert (report.rows, report.quarantined_share, report.outcome) == (0, 0.0, "pass")


def test_suite_without_rules_passes(tmp_path):
    report = run(tmp_path, column([1]))
    assert (report.outcome, report.results, quarantined(report)) == ("pass", (), [])


HOSTILE = ['a"b', "a'); DROP VIEW applications; --", "%s", ":x $1 {y}", "<script>alert(1)</script>", "a|b`c", "été 月"]


@pytest.mark.parametrize("name", HOSTILE)
def test_column_name_is_a_name_whatever_it_spells(tmp_path, name):
    frame = pl.DataFrame({"id": [1, 2], name: [1.5, -1.0]})
    report = run(
        tmp_path,
        frame,
        rule("expect_column_values_to_be_between", column=name, min_value=0),
        rule("expect_column_max_to_be_between", "warn", name="largest", column=name, max_value=1),
    )
    assert [result.error for result in report.results] == [None, None]
    assert quarantined(report) == [("the-rule", 2)]
    assert report.results[1].observed == 1.5


@pytest.mark.parametrize("name", HOSTILE)
def test_id_column_and_values_are_text_whatever_they_spell(tmp_path, name):
    frame = pl.DataFrame({name: [name, "b"], "x": [name, "other"]})
    frame.write_parquet(tmp_path / "rows.parquet")
    known = suite(rule("expect_column_values_to_be_in_set", column="x", value_set=[name]))
    report = validate_files([tmp_path / "rows.parquet"], known, tmp_path / "out", id_column=name, hive=False)
    assert pl.read_parquet(report.quarantine_file)[name].to_list() == ["b"]


@pytest.mark.parametrize(
    "name", ["it's.parquet", "a'] ); --.parquet", "part[1].parquet", "st*r?.parquet", "{a,b}.parquet"]
)
def test_file_name_is_a_name_not_sql_and_not_a_pattern(tmp_path, name):
    folder = tmp_path / "o'ut"
    column([1, None]).write_parquet(tmp_path / name)
    column([None] * 5).write_parquet(tmp_path / "part1.parquet")
    column([None] * 5).write_parquet(tmp_path / "star1.parquet")
    known = suite(rule("expect_column_values_to_not_be_null", column="x"))
    report = validate_files([tmp_path / name], known, folder, id_column="id", hive=False)
    assert (report.rows, quarantined(report)) == (2, [("the-rule", 1)])


def test_truncated_file_is_named(tmp_path):
    column([1, 2]).write_parquet(tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cannot read cut\.parquet as Parquet"):
        validate_files([tmp_path / "cut.parquet"], suite(), tmp_path / "out", id_column="id", hive=False)


def test_no_file_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="no Parquet file"):
        validate_files([], suite(), tmp_path / "out", id_column="id", hive=False)


def test_missing_id_column_is_refused_with_the_nearest_name(tmp_path):
    pl.DataFrame({"ID": [1]}).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="no column 'id', the nearest is 'ID'"):
        validate_files([tmp_path / "rows.parquet"], suite(), tmp_path / "out", id_column="id", hive=False)


def test_column_that_the_quarantine_file_needs_is_refused(tmp_path):
    with pytest.raises(InputError, match="quarantine_rule"):
        run(tmp_path, column([1], quarantine_rule=["a"]))


def test_two_readings_of_a_rule_that_differ_are_an_error_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(quarantine, "failing_rows", lambda _: "x > 0")
    with pytest.raises(CrossriskError, match="the two readings of a rule differ"):
        run(tmp_path, column([1, 2, None]), rule("expect_column_values_to_not_be_null", column="x"))
    assert list((tmp_path / "out").iterdir()) == []


def test_only_the_quarantine_file_remains_and_replaces_the_one_before(tmp_path):
    known = rule("expect_column_values_to_not_be_null", column="x")
    run(tmp_path, column([None]), known)
    report = run(tmp_path, column([1]), known)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quarantine.parquet"]
    assert quarantined(report) == []


def reported(tmp_path):
    """A report with every kind of finding in it, one of them full of markup."""
    report = run(
        tmp_path,
        column(["<b>bold</b>", None, "ok"], **{"<img src=x>|`": [0.1, NAN, 1e300]}),
        rule("expect_column_values_to_be_in_set", column="x", value_set=["ok"]),
        rule("expect_column_values_to_not_be_null", "warn", name="known", column="<img src=x>|`"),
        rule("expect_column_mean_to_be_between", "stop", name="mean", column="x", min_value=0),
        rule("expect_table_row_count_to_be_between", "stop", name="rows", min_value=9),
        share=0.1,
    )
    return report


def test_json_is_plain_the_same_on_every_run_and_holds_no_path(tmp_path):
    first, second = (json.dumps(reported(tmp_path).to_json(), allow_nan=False, ensure_ascii=False) for _ in range(2))
    assert first == second
    assert str(tmp_path) not in first
    document = json.loads(first)
    assert (document["schema_version"], document["outcome"], document["rows"]) == (1, "blocked", 3)
    assert document["quarantine_file"] == "quarantine.parquet"
    assert document["results"][2]["examples"] == ["<b>bold</b>"]


def test_markdown_shows_verdict_and_failing_rules_and_nothing_breaks_its_table(tmp_path):
    text = reported(tmp_path).to_markdown()
    assert text.startswith("## Validation: blocked\n")
    assert "<img" not in text
    assert "<b>" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}


class Tags(HTMLParser):
    """All tags, attributes and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_page_escapes_whatever_the_data_spell(tmp_path):
    tags = parse(render_html(reported(tmp_path), "<script>title</script>"))
    assert {"script", "img", "b"}.isdisjoint(tags.tags)
    assert "<b>bold</b>" in tags.text
    assert "<img src=x>" in tags.text


def test_page_fetches_nothing(tmp_path):
    page = render_html(reported(tmp_path), "Title")
    tags = parse(page)
    assert {name for name, _ in tags.attributes}.isdisjoint({"src", "href", "srcset", "onload", "onclick"})
    assert {"link", "script", "iframe", "object"}.isdisjoint(tags.tags)
    assert not re.search(r"@import|url\(|https?:", page)


def test_page_says_the_verdict_in_a_word_before_any_table(tmp_path):
    text = parse(render_html(reported(tmp_path), "Title")).text
    assert 0 < text.index("Blocked") < text.index("Rules that stop")
    passed = parse(render_html(run(tmp_path, column([1])), "Title")).text
    assert "Passed" in passed
    assert "Blocked" not in passed


def test_skipped_rules_are_shown_everywhere(tmp_path):
    column([1]).write_parquet(tmp_path / "rows.parquet")
    skipping = suite(skipped=(SkippedRule("customer-present", "the portfolio names no customer column"),))
    report = validate_files([tmp_path / "rows.parquet"], skipping, tmp_path / "out", id_column="id", hive=False)
    for text in (json.dumps(report.to_json()), report.to_markdown(), render_html(report, "Title")):
        assert "customer-present" in text
        assert "the portfolio names no customer column" in text


def test_a_process_that_validates_prints_nothing_and_ends_quietly(tmp_path):
    column([1, None], y=["a", "b"]).write_parquet(tmp_path / "rows.parquet")
    program = f"""
from pathlib import Path
from expectations import Rule, Suite
from tasks.validate import validate_files
rules = (
    Rule("known", "expect_column_values_to_not_be_null", {{"column": "x"}}, "quarantine", "w", "o", "s"),
    Rule("raises", "expect_column_values_to_be_between", {{"column": "y", "min_value": 0}}, "warn", "w", "o", "s"),
)
folder = Path({str(tmp_path)!r})
suite = Suite("s", 1.0, rules, ())
report = validate_files([folder / "rows.parquet"], suite, folder / "out", id_column="id", hive=False)
assert report.results[1].error, report
"""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-W", "always::UserWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
