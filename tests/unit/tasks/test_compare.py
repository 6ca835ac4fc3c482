"""Rules of the comparison: who is chosen, and on which rows nobody may be judged."""

import builders
import numpy as np
import polars as pl
import pytest

from crossrisk.errors import TrainingError
from crossrisk.metrics import auc_value, evaluate
from tasks.breakdowns import CHAMPION, article_figures, cutoff_table, group_table, swap_set
from tasks.calibrate import _prior_shift
from tasks.compare import _untouched, choose_challenger
from tasks.matrix import Part

RNG = np.random.default_rng(0)
LABEL = (RNG.random(4000) < 0.2).astype(int)


def model(strength, seed=1):
    raw = strength * LABEL + np.random.default_rng(seed).normal(size=len(LABEL))
    return 1 / (1 + np.exp(-raw + 2))


def chosen(tmp_path, models, *overrides, test_bads=100, drivers_differ=False):
    loaded = builders.portfolio(tmp_path, overrides=overrides)
    evaluation = evaluate(LABEL, models, replicates=300, seed=3)
    return choose_challenger(
        list(models), evaluation, loaded.portfolio, test_bads=test_bads, drivers_differ=drivers_differ
    )


def test_a_contender_that_is_clearly_best_is_chosen_wherever_it_stands(tmp_path):
    models = {"stacked": model(0.5), "source_logistic": model(0.5, 2), "target_logistic": model(1.5, 3)}
    assert chosen(tmp_path, models) == "target_logistic"


def test_where_contenders_cannot_be_told_apart_the_order_of_the_lineup_decides(tmp_path):
    alike = {"stacked": model(1.0, seed=1), "source_logistic": model(1.0, seed=2)}
    assert auc_value(LABEL, alike["stacked"]) != auc_value(LABEL, alike["source_logistic"])
    assert chosen(tmp_path, alike) == "stacked"
    assert chosen(tmp_path, dict(reversed(alike.items()))) == "source_logistic"


def test_where_drivers_differ_what_the_target_taught_comes_first_unless_another_leads_beyond_noise(tmp_path):
    alike = {"source_logistic": model(1.0, seed=1), "target_logistic": model(1.0, seed=2)}
    assert chosen(tmp_path, alike) == "source_logistic"
    assert chosen(tmp_path, alike, drivers_differ=True) == "target_logistic"
    leads = {"source_logistic": model(1.5, seed=1), "target_logistic": model(0.5, seed=2)}
    assert chosen(tmp_path, leads, drivers_differ=True) == "source_logistic"


def test_where_drivers_differ_stacked_counts_to_what_the_target_taught(tmp_path):
    alike = {"stacked": model(1.0, seed=1), "target_logistic": model(1.0, seed=2), "source_logistic": model(1.0, 3)}
    assert chosen(tmp_path, alike, drivers_differ=True) == "stacked"
    assert chosen(tmp_path, dict(reversed(alike.items())), drivers_differ=True) == "target_logistic"


def test_pooled_contenders_are_only_references_unless_pooling_is_allowed(tmp_path):
    models = {"pooled_logistic": model(2.0), "source_logistic": model(0.5)}
    assert chosen(tmp_path, models) == "source_logistic"
    assert chosen(tmp_path, models, "lineup.pooling=allowed") == "pooled_logistic"


def test_with_few_test_bads_only_a_source_model_may_be_chosen(tmp_path):
    models = {"stacked": model(2.0), "source_logistic": model(0.5)}
    assert chosen(tmp_path, models, test_bads=29) == "source_logistic"


def test_the_article_judges_its_network(tmp_path):
    models = {"source_forest": model(2.0), "dan": model(0.1)}
    assert chosen(tmp_path, models, "preset=article") == "dan"


def test_nothing_to_publish_is_said(tmp_path):
    with pytest.raises(TrainingError, match="no contender that may be published"):
        chosen(tmp_path, {"pooled_logistic": model(1.0)})


def test_a_row_whose_label_was_used_is_refused_as_a_test_row():
    rows = pl.DataFrame({"id": [1, 2], "part": ["target_test"] * 2, "label_used": [False, True]})
    with pytest.raises(AssertionError, match="not a test"):
        _untouched(rows, "target_test")
    assert _untouched(rows.head(1), "target_test")["id"].to_list() == [1]


def test_groups_are_counted_and_few_bads_are_said(tmp_path):
    loaded = builders.portfolio(tmp_path, overrides=("gate.min_segment_bads=10", "use.cutoff_probability=0.5"))
    judged = pl.DataFrame({"id": range(200), "label": [1, 0] * 100, "m": [0.6, 0.4] * 100})
    raw = pl.DataFrame({"id": range(200), "region": ["a"] * 190 + [None] * 10})
    table = group_table(raw, judged, "m", ["region"], loaded.portfolio)
    assert [(r["segment"], r["rows"], r["bads"], r["auc"]["value"], r["status"]) for r in table] == [
        ("a", 190, 95, 1.0, "ok"),
        ("missing", 10, 5, 1.0, "insufficient"),
    ]
    assert table[0]["observed_expected"]["value"] == pytest.approx(1.0)
    assert [(r["approved_share"], r["goods_approved"], r["bads_approved"], r["approval_ratio"]) for r in table] == [
        (0.5, 1.0, 0.0, 1.0)
    ] * 2


def test_a_swap_set_holds_every_row_once(tmp_path):
    loaded = builders.portfolio(tmp_path, overrides=("use.cutoff_probability=0.5",))
    judged = pl.DataFrame({"label": [1, 0, 1, 0], "m": [0.9, 0.1, 0.2, 0.6], CHAMPION: [0.9, 0.9, 0.1, 0.1]})
    table = {line["set"]: (line["rows"], line["bads"]) for line in swap_set(judged, "m", loaded.portfolio)}
    assert table == {"approved by both": (1, 1), "swapped in": (1, 0), "swapped out": (1, 0), "declined": (1, 1)}
    assert swap_set(judged.drop(CHAMPION), "m", loaded.portfolio) == []


def test_the_cut_off_says_who_is_approved_and_how_bad_they_are(tmp_path):
    loaded = builders.portfolio(tmp_path, overrides=("use.cutoff_probability=0.5",))
    judged = pl.DataFrame({"label": [1, 0, 1, 0], "m": [0.9, 0.1, 0.2, 0.3], CHAMPION: [0.9, 0.9, 0.9, 0.9]})
    table = cutoff_table(judged, "m", loaded.portfolio)
    assert table[0] == {"model": "m", "approved_share": 0.75, "approved_bad_rate": pytest.approx(1 / 3)}
    assert table[1] == {"model": CHAMPION, "approved_share": 0.0, "approved_bad_rate": None}


def test_article_figures_are_told_apart():
    rows = pl.DataFrame(
        {
            "part": ["target_select"] * 2 + ["target_unlabelled"] * 2 + ["source_fit"],
            "label": [1, 0, 1, 0, 1],
            "dan": [0.9, 0.1, 0.2, 0.8, 0.5],
        }
    )
    figures = article_figures(rows)
    assert [round(f["auc"], 2) for f in figures.values()] == [1.0, 0.75, 0.0]


def rows_with_rates(source_rate, target_rate):
    label = np.repeat([1.0, 0, 1, 0], [source_rate, 100 - source_rate, target_rate, 100 - target_rate])
    parts = pl.Series(["source_fit"] * 100 + ["target_fit"] * 100)
    return Part(pl.Series(range(200)), parts, np.zeros((200, 1), np.float32), label)


class Trained:
    def __init__(self, target_loss_weight):
        self.facts = {"target_loss_weight": target_loss_weight}


@pytest.mark.parametrize(
    ("name", "target_loss_weight", "seen"),
    [("source_logistic", 0.0, 0.1), ("source_network", 0.0, 0.1), ("dan", 0.0, 0.1), ("dan", 1.0, 0.15),
     ("dsan", 3.0, 0.175), ("fine_tuned", 0.5, 0.2), ("stacked", 0.0, 0.2), ("pooled_boosted", 0.0, 0.2)],
)  # fmt: skip
def test_the_prior_is_corrected_from_the_one_the_loss_really_saw(name, target_loss_weight, seen):
    expected = np.log(0.2 / 0.8) - np.log(seen / (1 - seen))
    assert _prior_shift(name, rows_with_rates(10, 20), Trained(target_loss_weight)) == pytest.approx(
        expected, abs=1e-12
    )
