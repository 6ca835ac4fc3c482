"""Rules of scoring many rows: every row is in the output, in order; the same question once; nothing is mixed.

The child's work is done in this process: that a child does it is in tests/flows/test_score.py.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import loans, portfolio
from scoring import FIRST_VERSION, SCALING, WITH_RULES, Published, write_published

import tasks.score
import tasks.score_rules
from crossrisk.config import Loaded
from crossrisk.errors import ConfigError, CrossriskError, InputError, PublishError
from crossrisk.limits import MOST_CELL_BYTES
from crossrisk.partitions import plan_partitions
from crossrisk.registry import Registry
from crossrisk.store import Stage
from expectations import Rule, Suite
from models import score_worker
from tasks.score import score_partitions, summarise
from tasks.score_folder import complete, find_answer, partial_of, writing
from tasks.score_order import Order, read_order
from tasks.score_rules import check_rows, name_as_files_do, serving_suite

OUTPUT = ["id", "probability", "score", "band", "version", "status", "detail"]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Published:
    return write_published(tmp_path_factory.mktemp("published"), intercepts=(-2.0, 0.5))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    def run(module, spec, *, workdir, on_event, failure):
        assert module == "models.score_worker"
        return score_worker.score(json.loads(json.dumps(spec)), on_event)

    monkeypatch.setattr(tasks.score, "run_worker", run)


TWO_INPUTS = WITH_RULES.replace(
    'path = "loans.parquet"',
    'source = { path = "loans" }\ntarget = { path = "cards", columns = { income_usd = "Income" } }',
).replace("source = \"product = 'loan'\"\ntarget = \"product = 'card'\"", "")


@dataclass
class Bench:
    """A folder of data of its own for the published portfolio."""

    folder: Path
    published: Published
    overrides: tuple[str, ...] = ()
    toml: str = WITH_RULES

    def loaded(self) -> Loaded:
        own = portfolio(self.folder, toml=self.toml, overrides=self.overrides)
        (self.folder / "own.json").write_text((self.published.loaded.folders.config / "own.json").read_text())
        (self.folder / "data").mkdir(exist_ok=True)
        return replace(own, folders=replace(own.folders, registry=self.published.loaded.folders.registry))

    def order(self, path: str = "new.parquet", *, version: int | None = None, **options: Any) -> Order:
        registry = Registry(self.published.loaded.folders.registry)
        answering = registry.version(version or FIRST_VERSION + 1)
        options = {"reasons": 0, "rows_per_partition": 100, **options}
        return read_order.fn(self.loaded(), answering, path, self.folder / "out", **options)

    def check(self, order: Order) -> Stage:
        return check_rows.fn(self.loaded(), order.delivery, order.rules)

    def score(self, path: str = "new.parquet", **options: Any) -> tuple[pl.DataFrame, dict[str, Any]]:
        """All rows of the output, and the summary."""
        order = self.order(path, **options)
        checked = self.check(order)
        assert checked.facts["outcome"] == "pass", checked.facts["reasons"]
        with writing(order.output, order.question) as partial:
            scored = score_partitions.fn(order, checked, partial)
            summary = summarise("mini", "run", order, checked, scored)
            complete(partial, order.output, order.question, summary)
        return pl.read_parquet(order.output / "part-*.parquet"), summary

    def write(self, frame: pl.DataFrame, name: str = "new.parquet", **options: Any) -> None:
        path = self.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path, **options)


@pytest.fixture
def bench(tmp_path, published) -> Bench:
    return Bench(tmp_path, published)


def applicants(rows: int = 250, *, seed: int = 5) -> pl.DataFrame:
    """Rows as they come before anything is known of them: no label, no product, no date."""
    return loans(rows, seed=seed).drop("bad", "product", "opened_on")


def where(frame: pl.DataFrame, row: int, **values: Any) -> pl.DataFrame:
    """The frame with other values in one row."""
    at = pl.int_range(pl.len()) == row
    return frame.with_columns(
        pl.when(at).then(pl.lit(value)).otherwise(name).alias(name) for name, value in values.items()
    )


# --- every row, in order ---


def test_every_row_has_the_probability_and_the_points_of_the_version_in_the_order_of_the_input(bench):
    rows = applicants()
    bench.write(rows)
    scored, summary = bench.score()
    expected = bench.published.probability(rows)
    assert scored.columns == OUTPUT
    assert scored["id"].equals(rows["loan_id"], check_names=False)
    np.testing.assert_allclose(scored["probability"], expected, atol=1e-9)
    np.testing.assert_allclose(scored["score"], SCALING.score(expected), atol=1e-6)
    assert set(scored["status"]) == {"scored"}
    assert set(scored["version"]) == {FIRST_VERSION + 1}
    assert (summary["rows"], summary["scored"], summary["unscored"]) == (250, 250, {})
    assert [one["rows"] for one in summary["partitions"]] == [100, 100, 50]


def test_rows_that_cannot_be_scored_are_there_with_the_reason(bench):
    rows = applicants().with_columns(pl.col("loan_id").cast(pl.Int64))
    rows = where(where(where(where(rows, 3, loan_id=None), 120, loan_id=7), 9, income_usd=-1.0), 7, income_usd=-1.0)
    bench.write(rows)
    scored, summary = bench.score()
    assert scored["id"].equals(rows["loan_id"], check_names=False, null_equal=True)
    unscored = scored.with_row_index().filter(pl.col("status") != "scored")
    assert unscored.select("index", "status", "detail").rows() == [
        (3, "id missing", "the row has no id"),
        (7, "id twice", "2 rows have this id; fails income-positive"),
        (9, "quarantined", "fails income-positive"),
        (120, "id twice", "2 rows have this id"),
    ]
    assert unscored.select(pl.col("probability", "score", "band").null_count()).row(0) == (4, 4, 4)
    assert summary["unscored"] == {"id missing": 1, "id twice": 2, "quarantined": 1}
    assert [one["rule"] for one in summary["rules"]["failed"]] == ["income-positive"]
    assert summary["notes"] == [
        "1.6% of the rows are not scored; in training more than 1.0% would stop the run: look at the delivery"
    ]


def test_where_no_row_can_be_scored_all_are_there_all_the_same(bench):
    bench.write(applicants(120).with_columns(income_usd=-1.0))
    scored, summary = bench.score()
    assert scored.height == 120
    assert summary["scored"] == 0
    assert (summary["mean_probability"], summary["score_psi"]["value"]) == (None, None)
    assert sum(one["rows"] for one in summary["bands"]) == 0


def test_text_ids_stay_text_and_order(bench):
    rows = applicants(150).with_columns(loan_id=pl.format("b-{}", pl.col("loan_id").reverse()))
    bench.write(where(rows, 4, loan_id="b-0"))
    scored, _ = bench.score()
    assert scored.schema["id"] == pl.String
    assert scored.filter(pl.col("status") == "id twice")["id"].to_list() == ["b-0", "b-0"]


def test_what_the_model_takes_for_missing_is_scored(bench):
    rows = where(where(applicants(), 0, income_usd=None), 1, region="never seen", balance_usd=-1.0)
    bench.write(rows)
    scored, _ = bench.score()
    np.testing.assert_allclose(scored["probability"], bench.published.probability(rows), atol=1e-9)


@pytest.mark.parametrize("rows_per_partition", [1, 60, 1000])
def test_partitions_and_files_do_not_change_a_score(bench, rows_per_partition, monkeypatch):
    rows = applicants(90)
    monkeypatch.setattr("tasks.score.BATCH_ROWS", 7)
    for number, (first, last) in enumerate([(0, 40), (40, 40), (40, 90)]):
        bench.write(rows[first:last], f"parts/{number}.parquet", row_group_size=11)
    scored, _ = bench.score("parts", rows_per_partition=rows_per_partition)
    assert scored["id"].equals(rows["loan_id"], check_names=False)
    np.testing.assert_allclose(scored["probability"], bench.published.probability(rows), atol=1e-9)
    assert len(list((bench.folder / "out").glob("part-*.parquet"))) == -(-90 // rows_per_partition)


def test_files_are_their_owners_alone(bench):
    bench.write(applicants())
    bench.score()
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in (bench.folder / "out").rglob("*")}
    assert modes == {True: 0o700, False: 0o600}
    assert stat.S_IMODE((bench.folder / "out").stat().st_mode) == 0o700


def test_a_named_version_answers_and_is_not_taken_for_the_champion(bench):
    rows = applicants()
    bench.write(rows)
    scored, summary = bench.score(version=FIRST_VERSION)
    champions = bench.published.probability(rows)
    assert (scored["probability"].to_numpy() < champions - 0.01).any()
    assert set(scored["version"]) == {FIRST_VERSION}
    assert summary["notes"] == [f"version {FIRST_VERSION} is not the champion"]


def test_reasons_are_features_that_cost_points_the_largest_first(bench):
    rows = where(applicants(), 3, income_usd=-1.0)
    bench.write(rows)
    scored, summary = bench.score(reasons=2)
    assert scored.columns[7:] == ["reason_1", "reason_1_points", "reason_2", "reason_2_points"]
    assert summary["reasons"] == 2
    features = {"income_usd", "balance_usd", "balance_to_income", "region"}
    assert set(scored["reason_1"].drop_nulls()) <= features
    assert scored["reason_1"].null_count() < 50  # few have nothing that speaks against them
    both = scored.drop_nulls("reason_2")
    assert (both["reason_1_points"] <= both["reason_2_points"]).all()
    assert (both["reason_2_points"] < 0).all()
    assert (both["reason_1"] != both["reason_2"]).all()
    assert scored.select(scored.columns[7:]).row(3) == (None, None, None, None)


def test_reasons_that_the_manifest_rules_out_are_refused_before_anything_is_read(bench):
    answering = Registry(bench.published.loaded.folders.registry).champion()
    silent = replace(answering, manifest={**answering.manifest, "signatures": ["examples", "serving_default"]})
    with pytest.raises(InputError, match="gives no reasons for its scores; leave --reasons out"):
        read_order.fn(bench.loaded(), silent, "none.parquet", bench.folder / "out", reasons=1, rows_per_partition=10)


def test_reasons_of_a_version_that_gives_none_are_refused_and_nothing_is_kept(bench):
    bench.write(applicants())
    with pytest.raises(InputError, match=rf"version {FIRST_VERSION} gives no reasons"):
        bench.score(version=FIRST_VERSION, reasons=1)
    assert not list(bench.folder.rglob("part-*.parquet"))
    scored, _ = bench.score(version=FIRST_VERSION)  # another question, and nothing stands in its way
    assert scored.height == 250


# --- levels that training did not know ---


def test_rows_of_unseen_levels_are_counted_where_they_have_a_score_and_noted_from_5_percent_on(bench):
    rows = applicants()
    for row in (0, 120, 121, 249):
        rows = where(rows, row, region="lemuria")
    bench.write(where(where(rows, 3, region="mu"), 249, income_usd=-1.0))
    _, summary = bench.score()
    assert summary["unseen"] == {"region": {"rows": 4, "share": 4 / 249, "values": ["lemuria", "mu"]}}
    assert not any("did not know" in note for note in summary["notes"])


def test_a_column_written_in_another_way_than_for_training_is_asked_about(bench):
    bench.write(applicants().with_columns(region=pl.lit("North")))
    scored, summary = bench.score()
    assert set(scored["status"]) == {"scored"}
    assert summary["unseen"]["region"] == {"rows": 250, "share": 1.0, "values": ["North"]}
    assert summary["notes"] == [
        "100.0% of the scored rows have a region that training did not know, such as 'North': scored as if rare; was "
        "it written in another way than for training?"
    ]


def test_unseen_levels_of_partitions_that_an_earlier_run_finished_are_counted_too(bench):
    bench.write(where(where(applicants(), 1, region="lemuria"), 240, region="lemuria"))
    resumable(bench)
    _, summary = bench.score()
    assert summary["reused_partitions"] == 1
    assert summary["unseen"]["region"]["rows"] == 2


def test_where_no_plan_lies_beside_the_version_it_says_that_nothing_can_be_told(bench):
    registry = Registry(bench.published.loaded.folders.registry)
    plan = registry.companion_path(FIRST_VERSION + 1, "plan.json")
    kept = plan.read_text()
    plan.unlink()
    try:
        bench.write(applicants())
        _, summary = bench.score()
    finally:
        plan.write_text(kept)
    assert summary["unseen"] == {"region": {"rows": None, "share": None, "values": []}}


# --- texts too long ---


def test_a_text_too_long_is_the_matter_of_its_row_and_the_others_are_scored(bench):
    rows = where(where(applicants(), 4, region="é" * 10_000), 130, region="x" * MOST_CELL_BYTES)
    bench.write(where(rows, 4, income_usd=-1.0))
    scored, summary = bench.score()
    assert summary["unscored"] == {"text too long": 1}
    assert scored.row(4)[1:4] == (None, None, None)
    assert scored["detail"][4] == (
        "column 'region' holds a text of 20,000 bytes, at most 10,000 are read; fails income-positive"
    )
    assert scored["status"][130] == "scored"
    others = rows.with_row_index().filter(pl.col("index") != 4)
    expected = bench.published.probability(others)
    np.testing.assert_allclose(scored["probability"].drop_nulls(), expected, atol=1e-9)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_a_long_text_is_found_in_every_type_that_a_category_may_have(bench, kind, packed):
    table = where(applicants(20), 4, region="x" * 20_000).to_arrow()
    regions = table.column("region").cast(pa.string()).cast(kind)
    table = table.set_column(table.schema.get_field_index("region"), "region", regions)
    (bench.folder / "data").mkdir()
    pq.write_table(table, bench.folder / "data" / "new.parquet", use_dictionary=packed)
    _, summary = bench.score()
    assert summary["unscored"] == {"text too long": 1}


def test_long_texts_that_unpack_to_more_than_a_few_megabytes_are_refused(bench):
    """A small file: the dictionary holds the text once, the rows 300 times."""
    text = "x" * (1 << 20)
    bench.write(applicants(300).with_columns(region=pl.lit(text)))
    assert (bench.folder / "data" / "new.parquet").stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"'region' holds 300 MiB of texts .* at most 16 are passed over"):
        bench.check(bench.order())


def test_a_long_text_that_is_an_id_is_refused_for_nobody_could_be_named(bench):
    rows = applicants(20).with_columns(pl.col("loan_id").cast(pl.String))
    bench.write(where(rows, 4, loan_id="x" * 20_000))
    with pytest.raises(InputError, match="'loan_id' holds a text of 20,000 bytes"):
        bench.check(bench.order())


# --- where the input lies ---


def test_hive_folders_are_columns(bench):
    rows = applicants(100).sort("region", maintain_order=True)
    for (region,), some in rows.group_by("region", maintain_order=True):
        bench.write(some.drop("region"), f"new/region={region}/0.parquet")
    scored, summary = bench.score("new")
    assert summary["input"][0]["path"] == "new/region=north/0.parquet"
    assert scored["id"].equals(rows["loan_id"], check_names=False)
    np.testing.assert_allclose(scored["probability"], bench.published.probability(rows), atol=1e-9)


@pytest.mark.parametrize(
    "path", ["{data}/new.parquet", "new.*", "{elsewhere}/new.parquet", "{elsewhere}", "{elsewhere}/*.parquet"]
)
def test_a_file_a_folder_or_a_glob_may_lie_anywhere(bench, path):
    rows = applicants(20)
    bench.write(rows)
    bench.write(rows, "../elsewhere/new.parquet")
    folders = {"data": bench.folder / "data", "elsewhere": bench.folder / "elsewhere"}
    scored, _ = bench.score(path.format(**folders))
    assert scored.height == 20


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.parquet", "no Parquet file at 'none.parquet'"),
        ("../new.parquet", "leads outside"),
        ("/nowhere/at/all/*.parquet", "there is no folder"),
        ("broken.parquet", r"broken.parquet: not readable as Parquet .* Nothing was made of it; deliver it again"),
    ],
)
def test_an_input_that_cannot_be_is_named(bench, path, message):
    bench.loaded()
    (bench.folder / "data" / "broken.parquet").write_text("PAR1")
    with pytest.raises(InputError, match=message):
        bench.order(path)


def test_the_portfolios_names_are_those_of_the_files_as_far_as_the_version_reads(bench):
    rows = applicants(30)
    bench.write(rows.rename({"loan_id": "Number", "income_usd": "Income"}))
    bench.overrides = ('data.columns={loan_id = "Number", income_usd = "Income", bad = "Defaulted"}',)
    bench.write(where(rows, 2, income_usd=0.0).rename({"loan_id": "Number", "income_usd": "Income"}))
    scored, _ = bench.score()
    assert scored["detail"].to_list()[:4] == [None, None, "fails income-positive", None]
    kept = scored["probability"].drop_nulls()
    np.testing.assert_allclose(kept, np.delete(bench.published.probability(rows), 2), atol=1e-9)


def test_of_two_inputs_the_names_are_the_targets_and_ids_stay_as_they_came(bench):
    rows = applicants(30)
    bench.toml = TWO_INPUTS
    bench.write(rows.rename({"income_usd": "Income"}))
    scored, _ = bench.score()
    assert scored["id"].equals(rows["loan_id"], check_names=False)
    np.testing.assert_allclose(scored["probability"], bench.published.probability(rows), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("income_usd"), r"new.parquet: column 'income_usd' is missing.* Version \d+ reads 3 columns"),
        (lambda f: f.rename({"region": "Region"}), "column 'region' came as 'Region'"),
        (lambda f: f.with_columns(pl.col("income_usd").cast(pl.String)), "'income_usd': expected a number .*string"),
        (lambda f: f.drop("loan_id"), "column 'loan_id' is missing"),
        (lambda f: f.with_columns(pl.col("loan_id").cast(pl.Float64)), "'loan_id': expected a string or an integer"),
        (lambda f: f.clear(), "new.parquet, and there is no row in it"),
    ],
)  # fmt: skip
def test_a_column_that_the_version_cannot_read_is_named_and_nothing_scored(bench, change, message):
    bench.write(change(applicants(20)))
    with pytest.raises(InputError, match=message):
        bench.order()
    assert not partial_of(bench.folder / "out").exists()


def test_files_of_two_types_are_not_one_table(bench):
    bench.write(applicants(20), "new/a.parquet")
    bench.write(applicants(20).with_columns(pl.col("loan_id").cast(pl.String)), "new/b.parquet")
    with pytest.raises(InputError, match=r"column 'loan_id' is int64 in new/a\.parquet"):
        bench.order("new")


def test_broken_pages_are_found_before_anything_is_scored(bench):
    bench.write(applicants(5000))
    path = bench.folder / "data" / "new.parquet"
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    pages = content[:-footer]
    path.write_bytes(pages[: len(pages) // 2].ljust(len(pages), b"\0") + content[-footer:])  # half was never flushed
    with pytest.raises(InputError, match=r"new\.parquet: not readable as Parquet"):
        bench.check(bench.order())


def test_an_input_that_changes_after_validation_gives_no_answer_and_the_next_run_starts_anew(bench):
    bench.write(applicants())
    order = bench.order()
    checked = bench.check(order)
    rows = applicants(seed=6)
    bench.write(rows)
    with writing(order.output, order.question) as partial, pytest.raises(InputError, match="run again once it is writ"):
        score_partitions.fn(order, checked, partial)
    scored, summary = bench.score()
    np.testing.assert_allclose(scored["probability"], bench.published.probability(rows), atol=1e-9)
    assert summary["reused_partitions"] == 0


def test_an_input_that_changes_during_validation_leaves_no_finding_behind(bench, monkeypatch):
    bench.write(applicants())
    order = bench.order()
    real = tasks.score_rules.validate_files

    def change_after(*args, **options):
        found = real(*args, **options)
        bench.write(applicants(seed=6))
        return found

    monkeypatch.setattr(tasks.score_rules, "validate_files", change_after)
    with pytest.raises(InputError, match="changed while it was read"):
        bench.check(order)
    assert not list(bench.folder.rglob("stage.json"))


@pytest.mark.parametrize("finished", [0, 1])
def test_a_partition_of_an_input_that_changed_is_not_kept_and_what_is_in_the_way_is_named(bench, monkeypatch, finished):
    bench.write(applicants())
    order = bench.order()
    checked = bench.check(order)

    def change_before(module, spec, *, workdir, on_event, failure):
        def pass_on(event):
            if event["event"] == "partition" and event["index"] == finished:
                bench.write(applicants(seed=6))
            on_event(event)

        return score_worker.score(json.loads(json.dumps(spec)), pass_on)

    monkeypatch.setattr(tasks.score, "run_worker", change_before)
    in_the_way = r"remove .*out\.partial before: it holds" if finished else "once it is written$"
    with writing(order.output, order.question) as partial, pytest.raises(InputError, match=in_the_way):
        score_partitions.fn(order, checked, partial)
    monkeypatch.undo()
    monkeypatch.setattr(tasks.score, "run_worker", lambda _, spec, **o: score_worker.score(spec, o["on_event"]))
    if finished:
        with pytest.raises(InputError, match=r"out\.partial holds scores of another question: its input differs"):
            bench.score()
    else:
        assert bench.score()[0].height == 250


def test_a_child_that_fails_because_the_input_changed_is_not_what_is_said(bench, monkeypatch):
    bench.write(applicants())
    order = bench.order()
    checked = bench.check(order)

    def fail(*_, **__):
        (bench.folder / "data" / "new.parquet").write_bytes(b"half")
        raise CrossriskError("models.score_worker failed with ArrowInvalid")

    monkeypatch.setattr(tasks.score, "run_worker", fail)
    with writing(order.output, order.question) as partial, pytest.raises(InputError, match="changed while it was read"):
        score_partitions.fn(order, checked, partial)


# --- rules ---


def test_a_stop_rule_about_a_column_that_is_read_refuses_the_delivery(bench):
    bench.write(where(applicants(), 3, region="atlantis"))
    facts = bench.check(bench.order()).facts
    assert facts["outcome"] == "blocked"
    assert "stop rule 'region-sold': 0.400% of the rows fail (1)" in facts["reasons"][0]


def test_the_label_populations_and_volumes_are_no_business_of_a_delivery(bench):
    bench.write(applicants(3))
    _, summary = bench.score()
    assert summary["rules"]["applied"] == ["region-sold", "income-positive", "balance-small"]
    why = {one["rule"]: one["reason"] for one in summary["rules"]["left_out"]}
    assert why["product-known"] == "about product, which the version does not read"
    assert why["rows-present"].startswith("about the table as a whole")
    assert why["id-unique"] == "a row's own matter here: 'id missing' or 'id twice'"
    assert {"label-binary", "label-both-classes", "decision-date-present", "customer-present"} <= set(why)


def rule(kind: str, **kwargs: Any) -> Rule:
    return Rule("r", f"expect_{kind}", kwargs, "stop", "why", "owner", "test")


@pytest.mark.parametrize(
    ("one", "is_kept"),
    [
        (rule("column_values_to_be_between", column="x"), True),
        (rule("column_mean_to_be_between", column="x"), True),
        (rule("column_value_lengths_to_be_between", column="id"), True),
        (rule("column_pair_values_a_to_be_greater_than_b", column_A="x", column_B="y"), True),
        (rule("column_pair_values_a_to_be_greater_than_b", column_A="x", column_B="bad"), False),
        (rule("column_values_to_be_unique", column="id"), False),
        (rule("column_values_to_be_unique", column="x"), False),
        (rule("column_distinct_values_to_contain_set", column="x"), False),
        (rule("table_row_count_to_be_between", min_value=1), False),
    ],
)
def test_a_rule_is_kept_where_it_concerns_what_is_read_and_not_how_much(one, is_kept):
    suite = serving_suite(Suite("s", 0.01, (one,), ()), id_column="id", columns={"x", "y"})
    assert [kept.name for kept in suite.rules] == (["r"] if is_kept else [])
    assert [left.name for left in suite.skipped] == ([] if is_kept else ["r"])


def test_rules_are_asked_of_the_names_in_the_files():
    names = {"x": "X", "y": "Y"}
    assert name_as_files_do(rule("a", column="x", min_value=1), names).columns == ("X",)
    assert name_as_files_do(rule("a", column_A="x", column_B="z"), names).columns == ("X", "z")
    assert name_as_files_do(rule("a", column_list=["y", "z"]), names).columns == ("Y", "z")


# --- stability and bands ---


def test_the_rows_of_publication_have_psi_0_and_others_a_large_one(bench):
    rows = loans().drop("bad", "product", "opened_on")
    bench.write(rows)
    _, same = bench.score()
    assert same["score_psi"]["value"] == pytest.approx(0.0, abs=1e-12)
    assert sum(same["score_psi"]["histogram"]["scored"]) == rows.height
    bench.write(rows.with_columns(pl.col("income_usd") / 50))
    (bench.folder / "out").rename(bench.folder / "before")
    _, shifted = bench.score()
    assert shifted["score_psi"]["value"] > 0.25
    assert shifted["score_psi"]["verdict"] == "red"


def test_bands_are_tenths_of_the_version_unless_the_portfolio_draws_its_own(bench):
    bench.write(loans().drop("bad", "product", "opened_on"))
    scored, summary = bench.score()
    assert [one["rows"] for one in summary["bands"]] == [60] * 10
    assert (
        scored.group_by("band").agg(pl.col("probability").mean()).sort("band")["probability"].is_sorted(descending=True)
    )
    (bench.folder / "out").rename(bench.folder / "before")
    bench.overrides = ("use.bands=[500, 550]",)
    scored, summary = bench.score()
    expected = (scored["score"] >= 500).cast(int) + (scored["score"] >= 550).cast(int) + 1
    assert scored["band"].cast(int).to_list() == expected.to_list()
    assert [one["holds"] for one in summary["bands"]] == ["below 500", "500 to 550", "550 and above"]


def test_bands_in_points_of_another_scale_are_refused(bench):
    bench.write(applicants(20))
    bench.overrides = ("use.bands=[500, 550]", "use.odds=50")
    with pytest.raises(InputError, match=r"was published with use.odds 30"):
        bench.order()


def test_boundaries_of_bands_ascend(bench):
    bench.overrides = ("use.bands=[550, 500]",)
    with pytest.raises(ConfigError, match=r"use\.bands: expected points in ascending order"):
        bench.loaded()


# --- what is there already ---


def resumable(bench: Bench) -> tuple[Order, Stage]:
    """Three partitions, of which a run that was cut off has finished the first."""
    order = bench.order()
    checked = bench.check(order)
    cut_off = replace(order, partitions=plan_partitions(250, 100)[:1])
    with writing(order.output, order.question) as partial:
        score_partitions.fn(cut_off, checked, partial)
        (partial / ".part-00001.parquet.1234.tmp").write_text("half")
        (partial / ".worker-1234").mkdir()
    return order, checked


def test_a_run_that_is_taken_up_again_keeps_what_is_finished_and_ends_with_the_same_bytes(bench):
    bench.write(applicants())
    bench.score()
    whole = {path.name: path.read_bytes() for path in (bench.folder / "out").glob("part-*")}
    (bench.folder / "out").rename(bench.folder / "uninterrupted")
    order, _ = resumable(bench)
    first = partial_of(order.output) / "part-00000.parquet"
    before = first.stat()
    _, summary = bench.score()
    after = (order.output / first.name).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert summary["reused_partitions"] == 1
    assert {path.name: path.read_bytes() for path in order.output.glob("part-*")} == whole
    assert sorted(path.name for path in order.output.iterdir()) == ["_scoring", *sorted(whole), "summary.json"]


def test_a_finished_partition_that_was_changed_is_made_again(bench):
    bench.write(applicants())
    order, _ = resumable(bench)
    (partial_of(order.output) / "part-00000.parquet").write_text("other")
    scored, summary = bench.score()
    assert (scored.height, summary["reused_partitions"]) == (250, 0)


def test_partitions_of_another_question_are_not_mixed(bench):
    bench.write(applicants())
    resumable(bench)
    bench.overrides = ("use.bands=[550]",)
    with pytest.raises(
        InputError, match=r"scores of another question: its bands differs .* or remove it to start anew"
    ):
        bench.score()
    bench.overrides = ()
    bench.write(applicants(seed=6))
    with pytest.raises(InputError, match="its input differs"):
        bench.score()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reasons": 1}, "reasons"),
        ({"version": FIRST_VERSION}, "manifest, reference, version"),
        ({"rows_per_partition": 99}, "rows_per_partition"),
    ],
)
def test_a_folder_that_answers_another_question_is_not_written_over(bench, options, said):
    bench.write(applicants())
    bench.score()
    before = {path: path.stat().st_mtime_ns for path in (bench.folder / "out").rglob("*")}
    order = bench.order(**options)
    with pytest.raises(
        InputError, match=f"its .*{said}.* from what is asked now; give another --output, or move it away"
    ):
        find_answer(order.output, order.question)
    assert {path: path.stat().st_mtime_ns for path in (bench.folder / "out").rglob("*")} == before


def test_the_same_question_is_answered_from_the_folder(bench):
    bench.write(applicants())
    _, summary = bench.score()
    order = bench.order()
    assert find_answer(order.output, order.question) == json.loads(json.dumps(summary))


def test_an_answer_that_was_changed_is_no_answer(bench):
    bench.write(applicants())
    bench.score()
    order = bench.order()
    applicants().write_parquet(order.output / "part-00001.parquet")
    with pytest.raises(InputError, match=r"part-00001\.parquet is not what was written"):
        find_answer(order.output, order.question)


def test_a_folder_of_somebody_else_is_left_alone_and_an_empty_one_taken(bench):
    bench.write(applicants())
    order = bench.order()
    order.output.mkdir()
    assert find_answer(order.output, order.question) is None
    (order.output / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="was not written by crossrisk score"):
        find_answer(order.output, order.question)
    (order.output / "mine.txt").unlink()
    scored, _ = bench.score()
    assert scored.height == 250


@pytest.mark.parametrize("name", ["part-00000.parquet", ".settings", "data.csv"])
def test_a_partial_folder_of_somebody_else_is_left_alone(bench, name):
    bench.write(applicants())
    order = bench.order()
    partial_of(order.output).mkdir()
    (partial_of(order.output) / name).write_text("mine")
    with pytest.raises(InputError, match="holds what crossrisk score did not write"), writing(order.output, {}):
        pass
    assert (partial_of(order.output) / name).read_text() == "mine"


def test_two_do_not_write_one_folder_at_once(bench):
    bench.write(applicants())
    order = bench.order()
    with (
        writing(order.output, order.question),
        pytest.raises(InputError, match="another crossrisk score writes"),
        writing(order.output, order.question),
    ):
        pass


def test_the_second_of_two_that_ask_the_same_drops_its_copy(bench):
    bench.write(applicants())
    _, summary = bench.score()
    order = bench.order()
    with writing(order.output, order.question) as partial:
        complete(partial, order.output, order.question, summary)
    assert not partial.exists()
    assert pl.read_parquet(order.output / "part-*.parquet").height == 250


def test_a_partition_of_too_few_rows_ends_the_run(bench):
    bench.write(applicants())
    order, checked = resumable(bench)
    record = partial_of(order.output) / "_scoring" / "00000.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "rows": 99}))
    with (
        writing(order.output, order.question) as partial,
        pytest.raises(CrossriskError, match=r"holds 100 rows, 100 were"),
    ):
        score_partitions.fn(order, checked, partial)


# --- places and versions that cannot be ---


@pytest.mark.parametrize(("place", "holds"), [("data/new/out", "the input"), ("registry", "what is published")])
def test_nothing_is_written_among_the_input_or_the_versions(bench, place, holds, published):
    bench.write(applicants(), "new/a.parquet")
    loaded = bench.loaded()
    output = loaded.folders.registry / "models" / "1" if place == "registry" else bench.folder / place
    champion = Registry(loaded.folders.registry).champion()
    with pytest.raises(InputError, match=holds):
        read_order.fn(loaded, champion, "new", output, reasons=0, rows_per_partition=10)


@pytest.mark.parametrize("place", ["/proc/nowhere", "/proc/no/where", "{folder}/file/below", "{folder}/" + "n" * 300])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_validated(bench, place):
    bench.write(applicants())
    (bench.folder / "file").write_text("")
    output, loaded = Path(place.format(folder=bench.folder)), bench.loaded()
    champion = bench.order().answering
    before = sorted(bench.folder.rglob("*"))
    with pytest.raises(InputError, match=rf"--output {output}.* name one elsewhere"):
        read_order.fn(loaded, champion, "new.parquet", output, reasons=0, rows_per_partition=10)
    with pytest.raises(InputError, match=rf"--output {output}.* name one elsewhere"), writing(output, {}):
        pass
    assert sorted(bench.folder.rglob("*")) == before


def test_a_version_of_an_earlier_release_is_refused_before_anything_is_read(bench):
    bench.write(applicants())
    champion = bench.order().answering
    older = replace(champion, manifest={k: v for k, v in champion.manifest.items() if k != "raw_columns"})
    with pytest.raises(PublishError, match="does not list raw_columns"):
        read_order.fn(bench.loaded(), older, "new.parquet", bench.folder / "out", reasons=0, rows_per_partition=10)


def test_a_version_without_a_reference_is_refused(bench):
    bench.write(applicants())
    champion = bench.order().answering
    stranger = replace(champion, version=1_600_000_000)
    with pytest.raises(InputError, match="has no reference"):
        read_order.fn(bench.loaded(), stranger, "new.parquet", bench.folder / "out", reasons=0, rows_per_partition=10)


def test_partitions_of_no_row_are_refused(bench):
    bench.write(applicants())
    with pytest.raises(InputError, match="--rows-per-partition 0: expected at least 1 row"):
        bench.order(rows_per_partition=0)
