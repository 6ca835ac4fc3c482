"""Months, cohorts and lights of the monthly watch, and the page that shows them."""

from __future__ import annotations

import copy
from datetime import date, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from builders import TOML, portfolio
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.config import GateConfig
from crossrisk.errors import ConfigError
from crossrisk.metrics import METRICS, Metric, evaluate
from crossrisk.monitoring import (
    Cohort,
    Signal,
    judge_auc,
    judge_calibration,
    judge_features,
    judge_score,
    last_complete_month,
    months_up_to,
    newest_sufficient,
    overall,
    watched_month,
)
from crossrisk.pages.monitor_page import feature_rows, month_lines, month_rows, render_month, summarise_month
from crossrisk.stability import Stability, describe_numbers, psi

GATE = GateConfig()
HOSTILE = "<script>alert(1)</script>&\"'$x$|"


# --- months ---


@pytest.mark.parametrize(
    ("day", "month"),
    [
        (date(2026, 5, 30), "2026-04"),
        (date(2026, 5, 31), "2026-05"),
        (date(2026, 6, 1), "2026-05"),
        (date(2026, 1, 1), "2025-12"),
        (date(2024, 2, 28), "2024-01"),
        (date(2024, 2, 29), "2024-02"),
    ],
)
def test_a_month_is_complete_on_its_last_day(day, month):
    assert last_complete_month(day) == month


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)))
def test_the_last_complete_month_has_ended_and_the_next_has_not(day):
    following = months_up_to(f"{day:%Y-%m}", 2)
    assert last_complete_month(day) in following
    if last_complete_month(day) == following[1]:
        assert (day + timedelta(days=1)).day == 1


def test_months_run_over_the_new_year_oldest_first():
    assert months_up_to("2024-02", 4) == ("2023-11", "2023-12", "2024-01", "2024-02")
    assert len(months_up_to("2024-02")) == 12


def test_the_default_month_keeps_the_reporting_lag(tmp_path):
    plain = portfolio(tmp_path, overrides=("as_of=2024-12-31",)).portfolio
    lagged = portfolio(tmp_path, overrides=("as_of=2024-12-31", "label.reporting_lag_days=30")).portfolio
    assert (watched_month("", plain), watched_month("", lagged)) == ("2024-12", "2024-11")
    assert watched_month("2023-01", lagged) == "2023-01"


@pytest.mark.parametrize(("month", "message"), [("2025-01", "begins after as_of"), ("2024-13", "expected YYYY-MM")])
def test_a_month_that_cannot_be_seen_is_refused(tmp_path, month, message):
    with pytest.raises(ConfigError, match=message):
        watched_month(month, portfolio(tmp_path).portfolio)


def test_without_dates_there_is_no_month(tmp_path):
    undated = portfolio(tmp_path, toml=TOML.replace('decision_date = "opened_on"\n', "")).portfolio
    with pytest.raises(ConfigError, match=r"needs data\.decision_date"):
        watched_month("2024-01", undated)


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ([(40, 400), (40, 400)], ("b",)),
        ([(20, 400), (15, 400)], ("a", "b")),
        ([(35, 400), (20, 400), (20, 400)], ("b", "c")),
        ([(40, 400), (0, 0)], ("a",)),
        ([(3, 40), (0, 20)], ("a", "b")),
        ([(0, 0)], ()),
        ([], ()),
    ],
)
def test_the_fewest_newest_months_with_enough_bads_judge(counts, chosen):
    cohorts = [Cohort(month, bads, goods) for month, (bads, goods) in zip("abc", counts, strict=False)]
    assert newest_sufficient(cohorts, 30) == chosen


# --- lights ---


def signal(light: str) -> Signal:
    return Signal("x", light, "because")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lights", "light"),
    [
        (("green", "green"), "green"),
        (("green", "grey"), "grey"),
        (("grey", "amber", "green"), "amber"),
        (("amber", "red", "grey"), "red"),
    ],
)
def test_green_needs_everything_judged_and_the_worst_wins(lights, light):
    assert overall([signal(one) for one in lights]) == light


def test_nothing_looked_at_is_no_light():
    with pytest.raises(ValueError, match="no signal"):
        overall([])


TENTHS = [515] * 10


@pytest.mark.parametrize(
    ("month", "light"),
    [
        ([100] * 10, "green"),
        ([4] * 10, "grey"),
        ([0] * 10, "grey"),
        ([150, 150, 100, 100, 100, 100, 100, 100, 50, 50], "amber"),
        ([400, 300, 100, 100, 50, 50, 0, 0, 0, 0], "red"),
        ([5600, 5300, *[5000] * 6, 4700, 4400], "green"),  # detected, and too small to matter
    ],
)
def test_the_score_has_the_light_of_its_verdict(month, light):
    judged = judge_score(psi(TENTHS, month))
    assert judged.light == light
    assert judged.reason


def stability(value: float, p: float, verdict: str = "red", n: int = 400) -> Stability:
    return Stability(value, 10, p, 0.05, verdict, n, 5150)  # type: ignore[arg-type]


def test_one_feature_of_three_hundred_is_not_alarmed_by_chance():
    quiet = {f"x{i}": stability(0.01, 0.5, "ok") for i in range(299)}
    assert judge_features(quiet | {"unlucky": stability(0.3, 0.005)}).light == "green"
    alarmed = judge_features(quiet | {"broken": stability(0.3, 1e-9)})
    assert (alarmed.light, "broken" in alarmed.reason) == ("amber", True)


def test_features_of_a_small_month_are_grey_and_many_are_counted_not_listed():
    assert judge_features({"x": stability(0.2, 0.5, "small sample", 40)}).light == "grey"
    assert judge_features({"x": Stability(None, 10, None, None, "small sample", 0, 10)}).light == "grey"
    many = judge_features({f"x{i}": stability(1 + i, 0.0) for i in range(9)})
    assert "9 of 9" in many.reason
    assert "x8, x7, x6, x5, x4 and 4 more" in many.reason


def metric(value: float, low: float, high: float, status: str = "ok") -> Metric:
    return Metric(value, low, high, status, 50, 500)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("auc", "recorded", "light"),
    [
        (metric(0.65, 0.60, 0.70), 0.66, "green"),
        (metric(0.58, 0.52, 0.64), 0.66, "amber"),
        (metric(0.75, 0.70, 0.80), 0.66, "amber"),  # better than promised is a difference too
        (metric(0.44, 0.40, 0.49), 0.66, "red"),
        (metric(0.65, 0.60, 0.70), None, "grey"),
        (metric(0.65, 0.60, 0.70, "insufficient"), 0.66, "grey"),
        (None, 0.66, "grey"),
    ],
)
def test_auc_is_read_against_its_interval(auc, recorded, light):
    assert judge_auc(auc, recorded, GATE, ["2024-01"]).light == light


@pytest.mark.parametrize(
    ("ratio", "light"),
    [
        (metric(1.1, 0.9, 1.3), "green"),
        (metric(1.2, 1.05, 1.35), "amber"),
        (metric(1.5, 1.3, 1.7), "red"),
        (metric(0.5, 0.4, 0.6), "red"),
        (metric(1.5, 0.8, 2.4), "green"),  # outside the band, and not told apart from 1
        (metric(1.5, 1.3, 1.7, "insufficient"), "grey"),
        (None, "grey"),
    ],
)
def test_observed_over_expected_is_red_only_where_noise_cannot_explain_it(ratio, light):
    assert judge_calibration(ratio, GATE, ["2024-01", "2024-02"]).light == light


def test_too_few_bads_are_said_with_their_numbers():
    few = Metric(0.7, 0.5, 0.9, "insufficient", 3, 37)
    assert "3 bads and 37 goods of 2024-01, 30 of each needed" in judge_auc(few, 0.6, GATE, ["2024-01"]).reason


# --- the page ---


def document(rows: int = 500, *, labels: bool = True) -> dict[str, Any]:
    """A plausible result over two months; without labels or rows where asked."""
    rng = np.random.default_rng(4)
    reference = describe_numbers(rng.beta(2, 9, 2000), decimals=6)
    counts = reference.bins.count(rng.beta(2.4, 9, rows))  # type: ignore[arg-type]
    score = psi(reference.counts, counts)
    measured = {**score.to_json(), "verdict": score.verdict if rows else None}
    label, probability = (rng.random(400) < 0.2).astype(int), rng.beta(2, 9, 400)
    evaluation = evaluate(label, {"m": probability}, replicates=100, seed=1).metrics["m"]
    known = {key: evaluation[key].to_json() if labels else None for key in METRICS}
    shown = {key: known[key] for key in ("auc", "ks", "observed_expected")}
    volume = {"rows": rows, "matured": 0, "bads": 0, "mean_probability": 0.18 if rows else None}
    moved = {"label": "missing", "share_reference": 0.05, "share": 0.31} if rows else None
    signals = [judge_score(score), judge_auc(None, 0.6, GATE, [])]
    return {
        "schema_version": 1,
        "run_id": "2024-02-29-abcd1234",
        "portfolio": "toy",
        "as_of": "2024-02-29",
        "month": "2024-02",
        "champion": {
            "version": 1727697600,
            "contender": "dan",
            "as_of": "2024-01-31",
            "reference_rows": 2000,
            "reference_months": ["2023-01", "2023-12"],
        },
        "light": overall(signals),
        "reasons": [one.reason for one in signals],
        "signals": [vars(one) for one in signals],
        "volumes": {
            **volume,
            "last_month_with_rows": "2024-02" if rows else None,
            "months": [{"month": month, **volume} for month in ("2024-01", "2024-02")],
        },
        "score_psi": {
            **measured,
            "months": [{"month": month, **measured} for month in ("2024-01", "2024-02")],
            "histogram": {"labels": reference.bins.labels, "reference": reference.counts, "month": counts.tolist()},
        },
        "hidden": {"status": "ok", "mmd2": 0.012, "null_sd": 0.002, "p": 0.002, "n_first": 1000, "n_second": 640},
        "feature_psi": [{"feature": f"f{i}", **measured, "moved": moved} for i in range(30)],
        "performance": {
            "judged_months": ["2024-01"] if labels else [],
            **shown,
            "recorded_auc": 0.61,
            "left_out": 3,
            "months": [
                {"month": "2024-01", **shown},
                {"month": "2024-02", **dict.fromkeys(shown)},
            ],
        },
        "gate": GATE.model_dump(mode="json"),
        "gate_confidence": GATE.confidence,
        "notes": ["3 rows with a known label judge nothing"],
        "warnings": [],
        "files": [{"path": "loans.parquet", "sha256": "0" * 64}],
        "paths": {"report": "monitor.html", "json": "monitor.json"},
    }


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, text: str) -> None:
        self.words.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_stands_alone():
    page = Page(render_month(document()))
    assert page.tags.count("svg") == 4
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)


def test_the_page_shows_the_numbers_of_the_document():
    made = document()
    page = Page(render_month(made))
    assert f"{made['score_psi']['value']:.3f}" in page.text
    assert f"{made['performance']['auc']['value']:.3f}" in page.text
    assert "missing: 5.0% → 31.0%" in page.text
    assert "The other 5 are in the JSON twin" in page.text
    for reason in made["reasons"]:
        assert reason in page.text


@pytest.mark.parametrize(("rows", "labels"), [(0, False), (40, False), (0, True), (40, True)])
def test_little_to_show_is_said_in_grey_and_never_raised(rows, labels):
    made = document(rows, labels=labels)
    assert made["light"] == "grey"
    page = Page(render_month(made))
    assert ("No target row in 2024-02: there is nothing to compare" in page.text) == (rows == 0)
    assert ("No label is known as of" in page.text) == (not labels)
    assert "○ Grey" in " ".join(month_lines(made))
    assert summarise_month(made).startswith("# ○ Grey")
    assert len(month_rows(made)) == 2
    assert len(feature_rows(made)) == 25


def test_a_month_without_rows_is_said_as_that_and_names_the_last_one_that_has_some():
    made = document(0, labels=False)
    made["volumes"]["last_month_with_rows"] = "2024-01"
    said = "o target row in 2024-02: the last month with rows is 2024-01, watch it with --month 2024-01"
    for shown in (Page(render_month(made)).text, summarise_month(made)):
        assert f"N{said}." in shown
        assert "Nothing has moved" not in shown
    lines = month_lines(made)
    assert f"  n{said}" in lines
    assert not [line for line in lines if "0 rows" in line]


def test_where_no_month_has_a_row_it_says_what_to_check():
    text = " ".join(month_lines(document(0, labels=False)))
    assert "no target row in 2024-02, nor in any month up to as_of: check population.target" in text


def test_performance_of_earlier_months_keeps_its_light_where_the_watched_month_is_empty():
    made = document(0) | {"light": "red"}
    text = Page(render_month(made)).text
    assert "retrain, or roll back. No target row in 2024-02" in text


def test_a_month_without_rows_has_no_verdict():
    page = Page(render_month(document(0, labels=False)))
    assert "small sample" not in page.text.partition("Words")[0]
    assert page.text.count("no row") == 1
    assert {row["verdict"] for row in month_rows(document(0))} == {None}
    assert {row["verdict"] for row in feature_rows(document(0))} == {None}


def test_warnings_of_the_input_stand_outside_the_verdict():
    made = document() | {"warnings": ["column 'branch' is missing"]}
    verdict, _, rest = render_month(made).partition("</section>")
    assert "branch" not in verdict
    assert "branch" in rest
    assert "Warnings of the input" not in render_month(document())


def test_the_hidden_features_of_a_network_are_told_beside_their_noise_and_of_nothing_else():
    page = render_month(document())
    assert "0.01200" in page
    assert "beyond noise, also where no single feature shows it" in page
    quiet = document()
    quiet["hidden"]["p"] = 0.4
    assert "nothing beyond noise" in render_month(quiet)
    for status in ("no network", "no golden batch", "small sample"):
        assert "Hidden features" not in render_month({**document(), "hidden": {"status": status}})


def test_names_from_the_data_are_text_on_the_page():
    made = document()
    made["feature_psi"][0]["feature"] = made["portfolio"] = made["champion"]["contender"] = HOSTILE
    made["feature_psi"][0]["moved"]["label"] = HOSTILE
    html = render_month(made)
    assert "<script" not in html
    assert HOSTILE in Page(html).text
    assert "<script" not in summarise_month(made)


def test_the_same_document_gives_the_same_bytes():
    made = document()
    assert render_month(made) == render_month(copy.deepcopy(made))


def test_another_schema_version_is_refused():
    with pytest.raises(ValueError, match="schema_version 2"):
        render_month({**document(), "schema_version": 2})
