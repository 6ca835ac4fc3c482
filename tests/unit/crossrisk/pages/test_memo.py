"""The decision memo, from documents made up here: as data, as HTML that prints on two sheets, as Markdown."""

from __future__ import annotations

import copy
import html
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import (
    HOSTILE,
    Json,
    champion_manifest,
    document,
    earlier_release,
    group_line,
    portfolio,
    smallest,
    training_history,
    undefined,
)
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.contenders import HONEST_LINEUP
from crossrisk.metrics import METRICS
from crossrisk.pages.memo import MOST_GROUPS, MOST_REASONS, build_memo, render_memo_html, render_memo_markdown
from crossrisk.pages.reporting import OUTCOMES, contender_lines
from crossrisk.pages.run_facts import markdown_environment
from crossrisk.pages.texts import markdown_text, metric_text, signed_text
from crossrisk.rules import alpha_of_look
from flows.cli import command_parser

# --- documents ---


def whole_lineup(challenger: str = HONEST_LINEUP[0]) -> Json:
    """As large as a real run: the default lineup, a champion, many groups, a leak, a diagnosis of six sentences."""
    result = document((*(name for name in HONEST_LINEUP if name != challenger), challenger), champion=True)
    result["segments"] = [group_line(column, f"{column} {i}", 0.6) for column in ("purpose", "home") for i in range(14)]
    result["protected"] = [group_line("zip3", f"{i:03}", 0.6 if i < 5 else None) for i in range(800)]
    for line in [*result["segments"], *result["protected"]]:
        line["auc"] |= {"low": 0.512, "high": 0.688}
    leak = "'payments_usd' alone ranks bads and goods with AUC 0.912 (at least 0.905; 94 bads and 506 goods)"
    result["leaks"]["leaks"] = [leak]
    result["diagnosis"] = {
        "risk_drivers": "small",
        "meaning": "Risk drivers differ little between the populations.",
        "sentences": [f"Finding {i}: source and target differ by {i / 7:.3f} (0.101 to 0.203)." for i in range(5)],
    }
    rules = {"source": "term_months = 36 AND issue_d < DATE '2011-01-01' AND meets_credit_policy", "target": "x = 60"}
    result["config"]["population"] = rules
    result["reasons"] = [f"{check['rule']}: {check['found']} (rule: {check['limit']})" for check in result["checks"]]
    return result


def text_of(page: str) -> str:
    """The words of an HTML page, as a reader sees them."""
    body = page.split("</style>")[1]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def html_words(result: Json) -> str:
    return text_of(render_memo_html(build_memo(result)))


def markdown(result: Json) -> str:
    return render_memo_markdown(build_memo(result))


def numbers(value: Any) -> Iterator[Any]:
    """Every leaf of plain data."""
    if isinstance(value, dict):
        for one in value.values():
            yield from numbers(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from numbers(one)
    else:
        yield value


# --- the whole ---


def test_memo_is_plain_json_without_nan() -> None:
    for result in (document(), document(champion=True), whole_lineup(), smallest()):
        memo = build_memo(result)
        assert json.loads(json.dumps(memo, allow_nan=False)) == memo
        assert all(isinstance(one, str | int | float | None) for one in numbers(memo))


def test_json_twins_give_the_same_bytes_and_are_left_alone() -> None:
    first = whole_lineup()
    twin = json.loads(json.dumps(first, sort_keys=True))
    before = copy.deepcopy(twin)
    one, other = build_memo(first), build_memo(twin)
    assert render_memo_html(one) == render_memo_html(other)
    assert render_memo_markdown(one) == render_memo_markdown(json.loads(json.dumps(other, sort_keys=True)))
    assert twin == before


def test_memo_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1"):
        build_memo(document() | {"schema_version": 2})


@pytest.mark.parametrize("build", [smallest, document, lambda: document(champion=True)])
def test_memo_renders_whatever_the_run_had(build: Callable[[], Json]) -> None:
    for text in (html_words(build()), markdown(build())):
        assert "None" not in text
        assert "nan" not in text


def test_memo_of_one_class_has_dashes_and_says_that_nothing_is_claimed() -> None:
    result = smallest()
    result["contenders"]["source_logistic"] = dict.fromkeys(METRICS, undefined())
    result["calibration_slope"] = undefined()
    result["judged"]["bads"] = 0
    words = html_words(result)
    assert "– undefined" in words
    assert "nothing is claimed about the target" in words


def test_page_fetches_nothing_and_runs_nothing() -> None:
    page = render_memo_html(build_memo(whole_lineup()))
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert re.findall(r'(?:href|src)="([^"]*)"', page) == ["model_card.html", "report.html"]


# --- the decision ---


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        ("promote", "Promote dan"),
        ("keep", "Keep the champion: insufficient evidence"),
        ("reject", "Reject dan"),
        ("needs_approval", "dan needs approval"),
        ("bootstrap", "Bootstrap with dan"),
        ("override", "Override: dan was published by a named person"),
        ("postponed", "postponed: dan"),
    ],
)
def test_recommendation_is_said_in_words(verdict: str, title: str) -> None:
    result = document(champion=True) | {"verdict": verdict}
    assert title in html_words(result)
    assert markdown_text(title) in markdown(result)


def test_rejection_names_the_rules_that_failed() -> None:
    result = document(champion=True) | {"verdict": "reject", "version": None}
    result["checks"][4]["outcome"] = result["checks"][9]["outcome"] = "fail"
    assert build_memo(result)["recommendation"]["failed_rules"] == ["observed/expected", "score PSI"]
    assert "Reject dan: observed/expected, score PSI" in html_words(result)


def test_rejection_for_what_is_not_known_names_that() -> None:
    result = document() | {"verdict": "reject", "version": None}
    result["checks"][-1]["outcome"] = "unknown"
    assert "Reject dan: size" in html_words(result)


def test_approval_is_asked_for_with_the_command_that_gives_it() -> None:
    assert "crossrisk promote CONFIG --run 2024-09-30-abcd1234 --decision approve" in html_words(
        document(champion=True) | {"verdict": "needs_approval", "version": None}
    )


def test_headline_is_the_primary_difference_at_the_alpha_of_its_look() -> None:
    result = document(champion=True)
    result["judged"]["look"] = 3
    headline = build_memo(result)["headline"]
    assert headline["value"] == result["differences"]["auc"]["value"]
    assert headline["confidence"] == pytest.approx(1 - alpha_of_look(0.05, 3))
    words = html_words(result)
    assert signed_text(headline["value"]) in words
    assert "look 3" in words
    assert "Repeated look 3" in words


def test_headline_without_a_champion_is_the_auc() -> None:
    headline = build_memo(document())["headline"]
    assert (headline["metric"], headline["is_difference"]) == ("auc", False)
    assert headline["value"] == document()["contenders"]["dan"]["auc"]["value"]
    assert "No champion to compare with" in html_words(document())


def test_more_reasons_than_the_page_holds_are_counted_there_and_kept_whole_in_the_data() -> None:
    memo = build_memo(whole_lineup())
    assert len(memo["recommendation"]["reasons"]) == 13
    assert f"and {13 - MOST_REASONS} more, in the rules below" in text_of(render_memo_html(memo))


def test_leak_stands_above_the_verdict() -> None:
    words, text = html_words(whole_lineup()), markdown(whole_lineup())
    assert 0 < words.index("Possible leak") < words.index("Promote stacked")
    assert 0 < text.index("Possible leak") < text.index("Promote stacked")
    assert "Possible leak" not in html_words(document())


def test_p_is_shown_where_a_test_gave_one() -> None:
    result = document(champion=True)
    assert "p 0.012" not in html_words(result)
    result["differences"]["auc"]["p"] = 0.0123
    assert "p 0.012" in html_words(result)
    assert " | 0.012 |" in markdown(result)


# --- the parts ---


def test_every_rule_stands_on_the_memo_with_its_text_and_outcome() -> None:
    result = document(champion=True)
    for check, outcome in zip(result["checks"], [*OUTCOMES] * 3, strict=False):
        check["outcome"] = outcome
    assert build_memo(result)["checks"] == result["checks"]
    words, text = html_words(result), markdown(result)
    for check in result["checks"]:
        line = [OUTCOMES[check["outcome"]], check["rule"], check["limit"], check["found"]]
        assert " ".join(line) in words
        assert f"| {' | '.join(markdown_text(cell) for cell in line)} |" in text


def test_every_contender_stands_on_the_memo_losers_and_unfitted_too() -> None:
    result = whole_lineup()
    lost = {"fitted": False, "reason": "12 bads", "publishable": True, "select_auc": None, "calibration": None}
    result["contender_facts"]["target_boosted"] = lost
    del result["contenders"]["target_boosted"]
    memo = build_memo(result)
    assert [line["name"] for line in memo["contenders"]] == [line.name for line in contender_lines(result)]
    assert {line["name"] for line in memo["contenders"]} == {*HONEST_LINEUP, "champion"}
    words, text = render_memo_html(memo), render_memo_markdown(memo)
    for line in memo["contenders"]:
        assert f'<td class="name">{line["name"]}</td>' in words
        assert f"| {markdown_text(line['name'])} |" in text
    assert "not fitted: 12 bads" in words


def test_numbers_are_those_of_the_report() -> None:
    result = document(champion=True)
    memo = build_memo(result)
    for line in memo["contenders"]:
        assert line["metrics"] == result["contenders"][line["name"]]
    text = render_memo_markdown(memo)
    for metrics in result["contenders"].values():
        assert metric_text(metrics["auc"], 3) in text
        assert metric_text(metrics["observed_expected"], 2) in text
    assert {line["metric"]: line["value"] for line in memo["comparison"]["lines"]} == {
        key: result["differences"][key]["value"] for key in METRICS if key != "gini"
    }
    assert memo["cutoff"]["swap_set"] == result["swap_set"]


def test_refit_of_the_same_kind_says_so() -> None:
    result = document(champion=True)
    result["champion"]["before_contender"] = "dan"
    assert build_memo(result)["replacement"]["change"]["classes"] == ["refit of the same kind"]


def test_first_model_has_nothing_to_replace() -> None:
    assert build_memo(document())["replacement"]["change"]["classes"] == ["first model"]


def test_change_of_features_label_and_population_is_material_and_named() -> None:
    result = document(champion=True)
    features = portfolio().features.model_dump(mode="json")
    features |= {"numeric": ["income_usd", "old_column"], "ratios": {"balance_to_income": ["income_usd", "flat"]}}
    features["sentinels"] = {}
    result["champion"]["manifest"] = champion_manifest(
        features=features, label={"column": "bad", "window_months": 12}, population={"source": "x = 1", "target": "y"}
    )
    change = build_memo(result)["replacement"]["change"]
    assert change["classes"] == ["other label contract", "other populations", "other features", "other kind of model"]
    assert "label.window_months: 12 → 6." in change["sentences"]
    assert "population.source: x = 1 → product = 'loan'." in change["sentences"]
    assert "Features added (1): flat." in change["sentences"]
    assert "Features dropped (1): old_column." in change["sentences"]
    assert "Features defined otherwise (1): balance_to_income." in change["sentences"]


def test_key_that_an_earlier_release_did_not_know_is_no_change_while_unset() -> None:
    result = document(champion=True)
    result["config"]["label"] |= {"event": "", "grey": None, "within_window": False}
    assert build_memo(result)["replacement"]["change"]["classes"] == ["other kind of model"]


def test_label_contract_is_one_sentence_with_all_its_terms() -> None:
    result = document()
    result["config"]["label"] |= {
        "event": "ever 30 days past due",
        "known_date": "known_on",
        "grey": "dpd BETWEEN 1 AND 29",
    }
    assert build_memo(result)["label"]["sentence"] == (
        "Bad: ever 30 days past due; within 6 months on book; known 30 days after the window closes; not before "
        "known_on; neither good nor bad where dpd BETWEEN 1 AND 29. What has not matured by 2024-09-30 is unknown, "
        "never good."
    )


def test_groups_beyond_the_page_are_counted_and_small_ones_greyed() -> None:
    result = whole_lineup()
    memo = build_memo(result)
    assert sum(column["shown"] for column in memo["segments"]) == MOST_GROUPS
    assert sum(len(column["groups"]) for column in memo["segments"]) == len(result["segments"])
    assert "5 of 800 groups have at least 30 bads and goods" in text_of(render_memo_html(memo))
    few = build_memo(document())
    assert '<tr class="faint"><td>house</td>' in render_memo_html(few)


def test_lowest_approval_ratio_is_that_of_judged_groups() -> None:
    result = document()
    result["protected"] = [group_line("sex", name, auc) | {"approval_ratio": ratio} for name, auc, ratio in
                           (("m", 0.6, 1.0), ("f", 0.6, 0.81), ("x", None, 0.2))]  # fmt: skip
    (column,) = build_memo(result)["protected"]
    assert (column["lowest_approval_ratio"], column["lowest_approval_group"]) == (0.81, "f")


def test_swap_set_says_that_outcomes_of_the_declined_are_unknown() -> None:
    words = html_words(document(champion=True))
    for name in ("approved by both", "swapped in", "swapped out", "declined"):
        assert name in words
    assert "Unknown outcomes: declined applicants are not in the data" in words


def test_seed_spread_needs_more_than_one_seed() -> None:
    spread = build_memo(document())["seed_spread"]
    assert [one["contender"] for one in spread] == ["source_forest"]
    assert spread[0]["spread"] == pytest.approx(0.01)
    result = document(("source_network", "fine_tuned", "dan"))
    for name in ("fine_tuned", "dan"):
        result["trainings"][name] = history = training_history(name, seeds=2)
        (chosen,) = (one for one in history["candidates"] if one["mmd_weight"] == history["chosen_mmd_weight"])
        chosen["trainings"][1]["history"]["stop_auc"] = [0.6, 0.65]
    networks = build_memo(result)["seed_spread"][1:]
    assert [(one["contender"], one["auc"]) for one in networks] == [("dan", [0.62, 0.65]), ("fine_tuned", [0.62, 0.65])]


def test_memo_says_how_far_apart_the_layers_of_the_network_still_are() -> None:
    said = "hidden_2: source and target differ by 0.0210 where 0.0010 would be noise; at step 20 it was 0.1500"
    prior = "Bad rate of the target told to the alignment: 8.1%, estimated from scores alone (BBSE)."
    assert [one["layer"] for one in build_memo(document())["network"]["layers"]] == ["hidden_1", "hidden_2"]
    for text in (html_words(document()), markdown(document()).replace("\\_", "_")):
        assert said in text
        assert prior in text
    other = document(("dan", "source_logistic"))
    assert build_memo(other)["network"] is None
    assert "would be noise" not in html_words(other)


def test_memo_of_an_earlier_releases_result_renders() -> None:
    old = earlier_release(document(champion=True))
    assert build_memo(old)["network"]["layers"] == []
    assert "would be noise" not in html_words(old) + markdown(old)
    assert build_memo(earlier_release(smallest()))["network"] is None


def test_limits_follow_the_run() -> None:
    result = document()
    result["judged"]["notes"] = ["7 rows left out of the comparison"]
    result["checks"][3]["outcome"] = "unknown"
    limits = " ".join(build_memo(result)["limits"])
    assert "Accepted applicants only" in limits
    assert "94 bads judge" in limits
    assert "not stratified" in limits
    assert "7 rows left out" in limits
    assert "leaks (see the gate); whether risk drivers differ" in limits
    assert "reasons for a single customer" in limits
    assert "drawn by lot" in " ".join(build_memo(smallest())["limits"])
    article = " ".join(build_memo(document() | {"preset": "article"})["limits"])
    assert "published whatever the comparison says" in article


def test_memo_speaks_of_evidence_never_of_compliance() -> None:
    for result in (whole_lineup(), smallest()):
        assert "complian" not in (render_memo_html(build_memo(result)) + markdown(result)).lower()
        assert "Evidence for a decision" in markdown(result)


def test_expiry_requester_run_and_room_for_a_signature_stand_at_the_end() -> None:
    words = html_words(document())
    for word in ("2025-09-30", "a.analyst", "2024-09-30-abcd1234", "approver", "signature", "date", "conditions"):
        assert word in words
    assert build_memo(document())["signature"] == {"approver": None, "date": None, "conditions": None}


def test_input_digest_changes_with_a_file() -> None:
    other = document()
    other["input"]["files"][0]["sha256"] = "cd" * 32
    assert build_memo(document())["input"]["digest"] != build_memo(other)["input"]["digest"]


# --- the way back ---


def test_way_back_in_the_memo_is_a_command_that_the_command_line_takes() -> None:
    fallback = build_memo(document(champion=True))["fallback"]
    _, *arguments = shlex.split(fallback["command"])
    options = command_parser().parse_args(arguments)
    assert (options.to, options.by, options.reason) == (fallback["version"], "NAME", "TEXT")
    assert fallback["version"] == document(champion=True)["champion"]["before"]


def test_the_first_version_has_no_way_back_and_says_what_to_do() -> None:
    fallback = build_memo(document(champion=False))["fallback"]
    assert (fallback["version"], fallback["command"]) == (None, None)
    assert "take the model out of service" in fallback["sentence"]


def test_nothing_published_needs_no_way_back() -> None:
    fallback = build_memo(document(champion=True) | {"version": None})["fallback"]
    assert fallback["command"] is None
    assert fallback["sentence"].startswith("Nothing was published: version 1725019200 goes on answering")


# --- names from the data ---


def hostile() -> Json:
    result = document((HOSTILE,), champion=True)
    result["segments"] = [group_line(HOSTILE, HOSTILE, 0.6)]
    result["protected"] = [group_line("sex", HOSTILE, None)]
    result["reasons"] = result["judged"]["notes"] = [HOSTILE]
    result["portfolio"] = result["run_id"] = result["requested_by"] = HOSTILE
    result["config"]["population"] = {"source": HOSTILE, "target": HOSTILE}
    result["config"]["label"]["event"] = HOSTILE
    result["leaks"]["leaks"] = [HOSTILE]
    result["diagnosis"] = {"risk_drivers": None, "sentences": [HOSTILE]}
    result["champion"]["before_contender"] = HOSTILE
    result["checks"][0] |= {"rule": HOSTILE, "limit": HOSTILE, "found": HOSTILE}
    return result


def test_hostile_names_are_inert_in_html() -> None:
    page = render_memo_html(build_memo(hostile()))
    assert "<script" not in page
    assert re.sub(r"\s+", " ", HOSTILE) in text_of(page)


def test_hostile_names_are_inert_in_markdown() -> None:
    text = markdown(hostile())
    assert "<" not in text
    assert "\r" not in text
    assert not re.search(r"^\s*# c", text, re.MULTILINE)
    assert not re.search(r"(?<!\\)\[a\]|(?<!\\)`x|(?<!\\)\*$", text)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.split("## The gate")[1].split("##")[0].splitlines()}
    assert widths == {0, 5}


@given(name=st.text(min_size=1))
def test_any_name_stays_in_its_cell_of_a_markdown_table(name: str) -> None:
    (line,) = markdown_environment().from_string("| {{ name }} |").render(name=name).splitlines()
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 2
    assert "<" not in line


def test_undecided_primary_rule_is_not_called_unmeasured() -> None:
    result = document(champion=True) | {"verdict": "keep"}
    result["checks"][0]["outcome"] = "unknown"
    assert "primary" not in build_memo(result)["limits"][-1]


# --- print ---


@pytest.mark.parametrize("challenger", ["stacked", "dan"])
def test_memo_of_a_large_run_prints_on_two_sheets(challenger: str, tmp_path: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium on PATH to print with")
    page, printed = tmp_path / "memo.html", tmp_path / "memo.pdf"
    page.write_text(render_memo_html(build_memo(whole_lineup(challenger))), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [chromium, *flags, "--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) == 2
