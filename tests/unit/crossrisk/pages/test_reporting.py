"""The report page, the Markdown summary and the contender rows, from documents made up here."""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from documents import (
    CONTENDERS,
    Json,
    document,
    earlier_release,
    group_line,
    split_facts,
    training_history,
    undefined,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrisk.metrics import METRICS
from crossrisk.pages import reporting
from crossrisk.pages.plots import Estimate, Panel, Whiskers, draw_intervals, months_between
from crossrisk.pages.reporting import (
    cells_by_month,
    contender_lines,
    contender_rows,
    render_report,
    summarise,
)
from crossrisk.pages.texts import metric_text

HOSTILE = "<script>alert(1)</script>&\"'$x$|"


class _Page(HTMLParser):
    """The tags that a browser would see, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


# --- the page ---


@pytest.fixture(scope="module")
def page_with_champion() -> str:
    return render_report(document(champion=True))


@pytest.fixture
def words_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Json], str]:
    """The text of a document's page, without its pictures: they take a second a page."""
    monkeypatch.setattr(reporting, "_pictures", lambda *_: defaultdict(lambda: None))
    monkeypatch.setattr(reporting, "_draw_trainings", lambda *_: {})
    return lambda result: _Page(render_report(result)).text


def test_json_twin_draws_the_same_bytes_and_is_left_alone(page_with_champion: str) -> None:
    twin = json.loads(json.dumps(document(champion=True), sort_keys=True))
    before = copy.deepcopy(twin)
    assert render_report(twin) == page_with_champion
    assert twin == before


def test_page_fetches_nothing_and_runs_nothing(page_with_champion: str) -> None:
    page = _Page(page_with_champion)
    assert "script" not in {tag for tag, _ in page.tags}
    addresses = set(re.findall(r"https?://[^\"'\s<]+", page_with_champion))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    leading_out = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("href", "src", "xlink:href") and not str(value).startswith("#")
    ]
    assert leading_out == ["memo.html", "model_card.html", "validation.html"]


def test_page_repeats_no_id_within_itself_with_another_meaning(page_with_champion: str) -> None:
    definitions: dict[str, set[str]] = {}
    for tag, name, rest in re.findall(r'<(\w+) id="([^"]+)"([^>]*)>', page_with_champion):
        definitions.setdefault(name, set()).add(tag + rest)
    assert definitions
    assert all(len(meanings) == 1 for meanings in definitions.values())


def _hostile_contender(name: str) -> Json:
    return document((name,))


def _hostile_segment(name: str) -> Json:
    return document(("source_logistic",)) | {"segments": [group_line(name, name, 0.6)]}


def _hostile_texts(name: str) -> Json:
    hostile = document(("source_logistic",))
    hostile["reasons"] = hostile["judged"]["notes"] = hostile["features"]["dropped"] = [name]
    hostile["input"]["warnings"] = hostile["split"]["notes"] = hostile["reused"] = [name]
    hostile["input"]["files"][0]["path"] = hostile["run_id"] = hostile["portfolio"] = name
    hostile["labels"]["left_out"] = {name: 1}
    hostile["seconds"] = {name: 1.0}
    hostile["validation"]["results"][1] |= {"rule": name, "columns": [name], "why": name, "error": name}
    return hostile


@pytest.mark.parametrize("build", [_hostile_contender, _hostile_segment, _hostile_texts])
def test_names_from_the_data_are_shown_as_text(build: Callable[[str], Json]) -> None:
    page = _Page(render_report(build(HOSTILE)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text
    assert [(tag, a) for tag, a in page.tags if any(str(name).startswith("on") for name in a)] == []


@settings(max_examples=15, deadline=None)
@given(name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))
def test_any_name_can_stand_in_a_picture(name: str) -> None:
    row = Whiskers(name, "contender", [Estimate(0.6, 0.5, 0.7)])
    tags = [tag for tag, _ in _Page(draw_intervals([row], [Panel("AUC")])).tags]
    assert set(tags) <= {"svg", "defs", "style", "g", "path", "clippath", "rect", "use", "text", "tspan"}


def test_verdict_reasons_and_both_champions_stand_on_the_page(page_with_champion: str) -> None:
    text = _Page(page_with_champion).text
    assert "▲ Promote" in text
    assert "AUC of dan: better beyond noise" in text
    assert "version 1725019200 (source_logistic) → version 1727697600 (dan)" in text


def test_champion_that_stays_is_called_unchanged(words_of: Callable[[Json], str]) -> None:
    kept = document(champion=True) | {"verdict": "keep", "version": None}
    kept["champion"]["after"] = kept["champion"]["before"]
    text = words_of(kept)
    assert "■ Keep" in text
    assert "version 1725019200 (source_logistic) → unchanged" in text
    assert "challenger; not published" in text


def test_page_without_champion_says_so(words_of: Callable[[Json], str]) -> None:
    text = words_of(document())
    assert "none → version 1727697600 (dan)" in text
    assert "No champion to compare with" in text


def test_verdict_of_a_later_release_is_shown_by_its_own_word(words_of: Callable[[Json], str]) -> None:
    assert "◆ postponed" in words_of(document() | {"verdict": "postponed"})


def test_undefined_metrics_are_dashes_with_their_status() -> None:
    one_class = document(("source_logistic",)) | {"curves": {}}
    one_class["contenders"]["source_logistic"] = dict.fromkeys(METRICS, undefined())
    text = _Page(render_report(one_class)).text
    assert "– undefined" in text
    assert "one class only" in text
    assert "None" not in text
    assert "nan" not in text


def test_document_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1"):
        render_report(document() | {"schema_version": 2})


def test_smallest_result_renders() -> None:
    smallest = document(("source_logistic",), rows=80)
    smallest |= {"trainings": {}, "segments": [], "forest_spread": [], "reused": [], "validation": {"outcome": "pass"}}
    smallest["cutoff"] = {"probability": None, "table": []}
    smallest["input"]["months"] = [row | {"month": None} for row in smallest["input"]["months"][:1]]
    smallest["split"]["strata"] = [{"stratum": "source undated 0", "part": "source_fit", "rows": 9}]
    text = _Page(render_report(smallest)).text
    assert "Training of the network" not in text
    assert "By segment" not in text


def test_failed_rules_are_named_and_held_ones_counted(words_of: Callable[[Json], str]) -> None:
    text = words_of(document())
    assert "income-positive" in text
    assert "id-unique" not in text
    assert "1 of 2 rules hold on 1,300 rows" in text


def test_article_figures_say_which_are_optimistic(words_of: Callable[[Json], str]) -> None:
    figures = {"auc": 0.7811, "ks": 0.4352, "rows": 1545}
    names = ("test (the 30% that chose the stop)", "total target", "unlabelled 70%")
    text = words_of(document() | {"article": dict.fromkeys(names, figures)})
    assert "Optimistic: the same rows chose the step" in text
    assert "Still optimistic" in text
    assert "The cleanest of the three" in text
    assert "0.7811" in text


def test_chosen_mmd_weight_is_marked_once(page_with_champion: str) -> None:
    choices = page_with_champion.split("smallest mmd_weight that the rows")[1].split("</table>")[0]
    strong = re.findall(r'<tr class="strong">(.*?)</tr>', choices, re.DOTALL)
    assert len(strong) == 1
    assert "0.1" in strong[0]
    assert "chosen" in strong[0]


# --- networks ---


def several_networks() -> Json:
    """Three networks; the challenger is aligned in two layers."""
    result = document(("source_network", "fine_tuned", "dan"))
    result["trainings"]["dan"] = training_history("dan", seeds=10)
    return result


def test_every_network_has_its_curves_and_its_grid() -> None:
    page = render_report(several_networks())
    names = ("dan", "fine_tuned", "source_network")
    assert page.count('aria-label="Training curves of the network"') == 3
    assert [name for name in re.findall(r"<h3>(\w+)</h3>", page) if name in names] == list(names)
    assert page.count("smallest mmd_weight that the rows") == 1  # the others have a grid of one


def test_ten_seeds_are_told_by_their_range(words_of: Callable[[Json], str]) -> None:
    result = several_networks()
    (chosen,) = (one for one in result["trainings"]["dan"]["candidates"] if one["mmd_weight"] == 0.1)
    chosen["trainings"][3]["history"]["stop_auc"] = [0.64, 0.62]
    chosen["trainings"][3] |= {"best_step": 20, "stopped_step": 35, "stop_reason": "patience"}
    assert "0.1 0.6280 0.6180 10 0.6200 to 0.6400 20 to 40 35 to 40 max steps, patience chosen" in words_of(result)


def test_every_layers_shift_stands_in_the_diagnosis_with_a_sentence(words_of: Callable[[Json], str]) -> None:
    text = words_of(several_networks()).split("How source and target differ")[1].split("Features that alone")[0]
    for layer in ("hidden_1", "hidden_2"):
        assert f"dan, mmd_weight 0.1 {layer} 0.0210 0.0010 0.1500 0.0310" in text
        assert f"source_network, mmd_weight 0 {layer} 0.0210 0.0010 0.1500 0.0310" in text
    assert (
        "dan: hidden_2: source and target differ by 0.0210 where 0.0010 would be noise; at step 20 it was 0.1500, in "
        "the networks kept 0.0310 (one bandwidth for both)."
    ) in text
    assert "dan: Bad rate of the target told to the alignment: 8.1%, estimated from scores alone (BBSE)." in text
    assert "fine_tuned" not in text


def test_a_result_of_an_earlier_release_is_still_drawn() -> None:
    page = render_report(earlier_release(document(champion=True)))
    text = _Page(page).text
    assert page.count('aria-label="Training curves of the network"') == 1
    assert "The mmd_weight is chosen by AUC of the ensemble on the stop rows" in text
    assert "What is left of it inside the networks" not in text
    assert "Training of the network" not in _Page(render_report(earlier_release(document(("source_logistic",))))).text


# --- rows, summary, small parts ---


def test_contenders_come_by_auc_and_those_not_fitted_last() -> None:
    result = document(champion=True)
    result["contender_facts"]["a_first_by_name"] = {
        "fitted": False,
        "reason": "12 matured target bads to fit on, at least 60 needed",
        "publishable": True,
        "select_auc": None,
        "calibration": None,
    }
    rows = contender_rows(result)
    aucs = [row["auc"] for row in rows[:-1]]
    assert aucs == sorted(aucs, reverse=True)
    assert {row["contender"] for row in rows} == {*CONTENDERS, "champion", "a_first_by_name"}
    assert rows[-1]["contender"] == "a_first_by_name"
    assert rows[-1]["what_it_is"] == "not fitted: 12 matured target bads to fit on, at least 60 needed"
    assert rows[-1]["auc"] is None
    assert rows[-1]["status"] == "not fitted"


def test_contender_rows_say_what_each_is() -> None:
    said = {row["contender"]: row["what_it_is"] for row in contender_rows(document(champion=True))}
    assert said == {
        "dan": "challenger; published as 1727697600",
        "champion": "champion: version 1725019200, source_logistic",
        "pooled_boosted": "reference: shown, never published",
        "source_forest": None,
        "source_logistic": None,
    }


def test_contender_rows_are_plain_json() -> None:
    result = document(("source_logistic",))
    result["contenders"]["source_logistic"]["ks"] = undefined()
    row = json.loads(json.dumps(contender_rows(result), allow_nan=False))[0]
    assert row["ks"] is None
    assert row["ks_interval"] is None
    assert row["auc"] == round(result["contenders"]["source_logistic"]["auc"]["value"], 3)
    assert re.fullmatch(r"0\.\d{3}–0\.\d{3}", row["auc_interval"])


def test_order_of_contenders_does_not_depend_on_the_document() -> None:
    result = document()
    turned = result | {key: dict(reversed(list(result[key].items()))) for key in ("contenders", "contender_facts")}
    assert contender_lines(turned) == contender_lines(result)


def test_summary_has_verdict_reasons_and_every_contender() -> None:
    summary = summarise(document(champion=True))
    assert summary.startswith("# ▲ Promote: dan\n")
    assert "- AUC of dan: better beyond noise\n" in summary
    for name in ("source\\_logistic", "source\\_forest", "pooled\\_boosted", "dan", "champion"):
        assert f"\n| {name} |" in summary


def test_summary_shows_hostile_names_as_text() -> None:
    summary = summarise(document((HOSTILE,)))
    assert "<script>" not in summary
    assert "\\$x\\$\\|" in summary


def test_metric_text_shows_interval_and_doubt() -> None:
    found = {"value": 0.6182, "low": 0.6041, "high": 0.6319, "status": "ok"}
    assert metric_text(found, 3) == "0.618 (0.604–0.632)"
    assert metric_text(found | {"status": "insufficient"}, 2) == "0.62 (0.60–0.63) insufficient"
    assert metric_text(undefined(), 3) == "– undefined"
    assert metric_text(None, 3) == "–"


def test_cells_add_up_labels_and_keep_words_beside_months() -> None:
    assert cells_by_month(split_facts()["strata"]) == [
        ("source_fit", "2024-01", 100),
        ("source_stop", "merged", 4),
        ("target_test", "2024-03", 55),
    ]


def test_months_between_leaves_no_gap_over_a_new_year() -> None:
    assert months_between("2023-11", "2024-02") == ["2023-11", "2023-12", "2024-01", "2024-02"]
    assert months_between("2024-02", "2024-02") == ["2024-02"]
