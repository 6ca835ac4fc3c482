"""The model card, from documents made up here: as data, as HTML, as Markdown."""

from __future__ import annotations

import copy
import html
import json
import re

import pytest
from documents import CONTENDERS as JUDGED
from documents import HOSTILE, Json, document, earlier_release, group_line, smallest, training_history

from crossrisk import stability
from crossrisk.config import GateConfig
from crossrisk.contenders import CONTENDERS, NETWORKS
from crossrisk.metrics import Metric
from crossrisk.monitoring import judge_calibration
from crossrisk.pages.model_card import (
    KINDS,
    MOST_GROUPS,
    NOT_DECLARED,
    NOT_MEASURED,
    NOT_NAMED,
    build_card,
    render_card_html,
    render_card_markdown,
)
from crossrisk.pages.texts import markdown_text, metric_text
from crossrisk.store import digest_of


def html_words(result: Json) -> str:
    body = render_card_html(build_card(result)).split("</style>")[1]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def markdown(result: Json) -> str:
    return render_card_markdown(build_card(result))


def test_card_is_plain_json_without_nan() -> None:
    for result in (document(), document(champion=True), smallest()):
        card = build_card(result)
        assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_json_twins_give_the_same_bytes_and_are_left_alone() -> None:
    twin = json.loads(json.dumps(document(champion=True), sort_keys=True))
    before = copy.deepcopy(twin)
    one, other = build_card(document(champion=True)), build_card(twin)
    assert render_card_html(one) == render_card_html(other)
    assert render_card_markdown(one) == render_card_markdown(other)
    assert twin == before


def test_card_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1"):
        build_card(document() | {"schema_version": 2})


def test_card_renders_whatever_the_run_had() -> None:
    for result in (smallest(), document(), document(champion=True)):
        for text in (html_words(result), markdown(result)):
            assert "None" not in text
            assert "nan" not in text


def test_page_fetches_nothing_and_runs_nothing() -> None:
    page = render_card_html(build_card(document(champion=True)))
    assert "<script" not in page
    assert re.findall(r'(?:href|src)="([^"]*)"', page) == ["memo.html", "report.html"]


def test_identity_carries_the_digests_and_names_no_owner_that_the_portfolio_did_not() -> None:
    result = document()
    own = build_card(result)["identity"]
    assert own["config_digest"] == digest_of(result["config"])
    assert own["model_digest"] == digest_of(result["candidate"]["files"])
    assert own["code_digest"] == result["code"]
    assert own["owner"] == own["tier"] == NOT_NAMED
    assert f"owner {NOT_NAMED}" in html_words(result)
    result["config"]["owner"] = "retail risk"
    assert build_card(result)["identity"]["owner"] == "retail risk"


@pytest.mark.parametrize(("version", "status"), [(7, "published as version 7"), (None, "not published: keep")])
def test_status_says_whether_the_model_answers(version: int | None, status: str) -> None:
    assert build_card(document() | {"version": version, "verdict": "keep"})["identity"]["status"] == status


def test_every_feature_has_its_source_and_nothing_is_made_up() -> None:
    result = document()
    result["config"]["features"]["timestamps"] = {"income_usd": "income_known_on"}
    features = {one["name"]: one for one in build_card(result)["features"]}
    assert list(features) == ["income_usd", "flat", "region", "balance_to_income", "history_months"]
    assert features["balance_to_income"]["columns"] == ["balance_usd", "income_usd"]
    assert features["history_months"]["definition"] == "months from first_account_on to the decision"
    assert features["income_usd"]["known_at"] == "income_known_on"
    assert features["region"]["known_at"] == NOT_DECLARED
    assert {one["importance"] for one in features.values()} == {NOT_MEASURED}
    assert [name for name, one in features.items() if not one["enters"]] == ["flat"]


def test_protected_columns_are_named_as_left_out() -> None:
    assert build_card(document())["protected_columns"] == ["sex"]
    assert "protected columns that enter no model: sex" in html_words(document())
    assert "features.protected names no column" in html_words(smallest())


def test_every_contender_of_the_lineup_is_described() -> None:
    assert set(KINDS) == set(CONTENDERS)


def test_network_has_its_weight_and_grid_and_others_have_none() -> None:
    network = build_card(document())["architecture"]["network"]
    assert network["mmd_weight"] == 0.1
    assert [one["mmd_weight"] for one in network["grid"]] == [0.0, 0.1, 1.0]
    assert [one["seed"] for one in network["trainings"]] == [1]
    assert (network["method"], network["settings"]) == ("dan", "models/deep/presets.py, preset dan")
    other = document(("dan", "source_logistic"))
    assert "dan" in other["trainings"]
    assert build_card(other)["architecture"]["network"] is None


def test_network_says_how_far_apart_its_layers_are_and_what_it_was_told() -> None:
    said = "hidden_1: source and target differ by 0.0210 where 0.0010 would be noise"
    for text in (html_words(document()), markdown(document()).replace("\\_", "_")):
        assert said in text
        assert "Bad rate of the target told to the alignment: 8.1%" in text


@pytest.mark.parametrize("name", NETWORKS)
def test_card_of_every_network_renders(name: str) -> None:
    result = document(("source_logistic", name))
    result["trainings"][name] = training_history(name, seeds=10)
    network = build_card(result)["architecture"]["network"]
    assert len(network["trainings"]) == 10
    assert {one["contender"] for one in build_card(result)["stability"]["seed_spread"]} == {"source_forest", name}
    assert f"models/deep/presets.py, preset {name}" in html_words(result)


def test_card_of_an_earlier_releases_result_renders() -> None:
    network = build_card(earlier_release(document()))["architecture"]["network"]
    assert (network["method"], network["mmd_weight"], network["layers"]) == ("dan", 0.1, [])
    assert "None" not in html_words(earlier_release(document()))


def test_training_prior_is_not_claimed_under_a_label_budget() -> None:
    result = document()
    result["split"]["parts"]["target_fit"]["bads_used"] = 10
    source, target = build_card(result)["training_priors"]
    assert source["bad_rate"] == pytest.approx(40 / 300)
    assert target["bad_rate"] is None


def test_alternatives_and_results_are_the_numbers_of_the_report() -> None:
    result = document(champion=True)
    card, text = build_card(result), markdown(result)
    assert {line["name"] for line in card["alternatives"]} == {*JUDGED, "champion"}
    assert card["results"]["metrics"] == result["contenders"]["dan"]
    for metrics in result["contenders"].values():
        assert metric_text(metrics["auc"], 3) in text
    assert metric_text(result["contenders"]["dan"]["brier"], 4) in text
    assert card["stability"]["score_psi_against_champion"] == result["evidence"]["score_psi"]


def test_groups_beyond_the_page_are_counted_and_kept_in_the_data() -> None:
    result = document()
    result["protected"] = [group_line("zip3", str(i), None) for i in range(100)]
    assert len(build_card(result)["fairness"]) == 100
    assert f"{100 - MOST_GROUPS} smaller groups are in the JSON twin" in html_words(result)
    assert f"{100 - MOST_GROUPS} smaller groups are in the JSON twin" in markdown(result)


def test_watch_uses_the_thresholds_that_the_monitor_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    result = document()
    plan = build_card(result)["monitoring"]
    numbers = plan["thresholds"]
    assert (numbers["amber_psi"], numbers["red_psi"]) == (stability.AMBER_PSI, stability.RED_PSI)
    assert (numbers["amber_p"], numbers["feature_p"]) == (stability.AMBER_P, stability.DETECTED_P)
    gate = GateConfig.model_validate(result["gate"])
    low, high = numbers["observed_expected"]
    within, outside = (Metric(value, value - 0.05, value + 0.05, "ok", 90, 900) for value in (high - 0.1, high + 0.1))
    assert [judge_calibration(one, gate, ["2024-06"]).light for one in (within, outside)] == ["amber", "red"]
    assert low < 1 < high
    assert {one["signal"] for one in plan["signals"]} == {"score PSI", "feature PSI", "AUC", "observed/expected"}


def test_changes_are_told_against_the_last_version_with_what_was_recorded_of_it() -> None:
    changes = build_card(document(champion=True))["changes"]
    assert (changes["version"], changes["classes"]) == (1725019200, ["other kind of model"])
    assert changes["recorded"]["auc"]["value"] == 0.61
    assert "AUC 0.610 (0.570–0.650)" in html_words(document(champion=True))
    assert "No earlier version" in html_words(document())


def test_manifest_of_an_earlier_release_without_metrics_is_no_obstacle() -> None:
    result = document(champion=True)
    result["champion"]["manifest"]["metrics"] = None
    assert build_card(result)["changes"]["recorded"] == {"auc": None, "observed_expected": None}


def test_leak_is_the_first_limit() -> None:
    result = document()
    result["leaks"]["leaks"] = ["'payments' alone ranks bads"]
    assert build_card(result)["limits"][0] == "Possible leak: 'payments' alone ranks bads"


def test_card_speaks_of_evidence_never_of_compliance() -> None:
    for text in (html_words(document(champion=True)), markdown(smallest())):
        assert "complian" not in text.lower()
        assert "Evidence for people who decide" in text


def hostile() -> Json:
    result = document((HOSTILE,), champion=True)
    result["segments"] = [group_line(HOSTILE, HOSTILE, 0.6)]
    result["protected"] = [group_line("sex", HOSTILE, None)]
    result["portfolio"] = result["run_id"] = result["requested_by"] = HOSTILE
    result["config"]["population"] = {"source": HOSTILE, "target": HOSTILE}
    result["config"]["features"] |= {"numeric": [HOSTILE], "protected": [HOSTILE]}
    result["input"]["warnings"] = [HOSTILE]
    result["input"]["files"][0]["path"] = HOSTILE
    result["labels"]["left_out"] = {HOSTILE: 1}
    result["champion"]["before_contender"] = HOSTILE
    return result


def test_hostile_names_are_inert_in_html() -> None:
    assert "<script" not in render_card_html(build_card(hostile()))
    assert re.sub(r"\s+", " ", HOSTILE) in html_words(hostile())


def test_hostile_names_are_inert_in_markdown() -> None:
    text = markdown(hostile())
    assert "<" not in text
    assert "\r" not in text
    assert markdown_text(re.sub(r"\s+", " ", HOSTILE)) in text
    assert not re.search(r"^\s*# c|(?<!\\)\[a\]|(?<!\\)`x", text, re.MULTILINE)
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in text.split("## Features")[1].splitlines()}
    assert cells == {0, 8}
