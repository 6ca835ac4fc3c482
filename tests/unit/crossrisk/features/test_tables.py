"""Rules of values a level or bin: WOE, target means, frequencies, aggregates; no row's own label is in its value."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrisk.features import (
    Aggregate,
    FitSettings,
    RowPlan,
    crossfit,
    encoding_expressions,
    fit_plan,
)
from crossrisk.features.tables import bin_keys, count_labels, label_values, level_keys

ROWS = RowPlan(decision_date=None, numbers=("x",), categories=("c",), sentinels=(), ratios=(), ages=())
FRAME = pl.DataFrame(
    {
        "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, None, None],
        "c": ["a", "a", "a", "b", "b", "b", "rare", None, None, "a"],
    }
)
LABEL = pl.Series([1, 1, 0, 0, 0, 1, 0, 1, None, 0], dtype=pl.Int8)


def fit(settings_, label=LABEL):
    return fit_plan(FRAME, ROWS, FitSettings(min_level_rows=2, clip_quantiles=(0, 1), **settings_), label=label)


def outputs(plan, frame=FRAME):
    return frame.select(encoding_expressions(plan))


def test_woe_is_worked_out_by_hand_with_half_a_row_more_a_bin():
    (table,) = fit({"encodings": {"c": ("woe",)}}).level_tables
    # bads, goods of a, b, other (rare), missing: (2, 2), (1, 2), (0, 1), (1, 0); 4 bads and 5 goods in 4 bins
    expected = [np.log(((b + 0.5) / 6) / ((g + 0.5) / 7)) for b, g in ((2, 2), (1, 2), (0, 1), (1, 0))]
    assert [*table.values, table.other, table.missing] == pytest.approx(expected)
    assert table.levels == ("a", "b")


def test_target_mean_is_drawn_to_the_overall_rate_by_so_many_rows():
    (table,) = fit({"encodings": {"c": ("target_mean",)}, "smoothing": 3.0}).level_tables
    prior = 4 / 9
    expected = [(b + 3 * prior) / (n + 3) for b, n in ((2, 4), (1, 3), (0, 1), (1, 1))]
    assert [*table.values, table.other, table.missing] == pytest.approx(expected)


def test_a_table_of_numbers_is_cut_at_quantiles_and_keeps_missing_apart():
    (table,) = fit({"encodings": {"x": ("woe",)}, "bins": 2}).bin_tables
    assert table.edges == (5.0,)
    counts = ((2, 3), (2, 1), (0, 1))  # up to 5, above, missing: the row without a label counts nowhere
    expected = [np.log(((b + 0.5) / 5.5) / ((g + 0.5) / 6.5)) for b, g in counts]
    assert [*table.values, table.missing] == pytest.approx(expected)


def test_frequency_is_the_share_of_training_rows():
    (table,) = fit({"encodings": {"c": ("frequency",)}}).level_tables
    assert (*table.values, table.other, table.missing) == (0.4, 0.3, 0.1, 0.2)
    assert not table.uses_labels


def test_aggregate_is_that_of_the_rows_of_the_same_level_and_the_overall_one_where_there_are_none():
    aggregate = Aggregate(name="mean x of c", number="x", statistic="mean", by="c")
    (table,) = fit({"aggregates": (aggregate,)}).level_tables
    assert table.values == (2.0, 5.0)
    assert (table.other, table.missing) == (7.0, 8.0)
    never_missing = fit_plan(
        FRAME.filter(pl.col("c").is_not_null()), ROWS, FitSettings(min_level_rows=2, aggregates=(aggregate,))
    )
    assert never_missing.level_tables[0].missing == pytest.approx((1 + 2 + 3 + 4 + 5 + 6 + 7) / 7)


def test_the_matrix_holds_tables_standardised_over_training_rows():
    plan = fit({"encodings": {"x": ("woe",), "c": ("woe", "frequency")}, "bins": 3})
    matrix = outputs(plan)
    assert matrix.columns == ["x woe", "c woe", "c frequency"]
    for name in matrix.columns:
        assert matrix[name].mean() == pytest.approx(0, abs=1e-6)
        assert matrix[name].std(ddof=0) == pytest.approx(1, rel=1e-6)


def test_labels_are_asked_for_where_an_encoding_needs_them():
    for label in (None, pl.Series([0] * 10, dtype=pl.Int8)):
        with pytest.raises(ValueError, match="labels of both classes"):
            fit({"encodings": {"c": ("woe",)}}, label)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"encodings": {"c": ("standard",)}}, "features.encodings.c: expected some of one_hot"),
        ({"encodings": {"x": ("one_hot",)}}, "features.encodings.x: expected some of standard"),
        ({"encodings": {"y": ("woe",)}}, "'y', which is no feature"),
        ({"logs": {"c": "log1p"}}, "'c', which is no numeric feature"),
        ({"constants": {"y": 1.0}}, "'y', which is no numeric feature"),
        ({"encodings": {"c": ("woe", "woe")}}, "features.encodings.c: expected some of .* each once"),
        ({"encodings": {"c": ()}}, "features.encodings.c: expected some of .* each once"),
        ({"aggregates": (Aggregate(name="x", number="x", statistic="mean", by="c"),)}, "a feature is called so"),
        ({"aggregates": (Aggregate(name="m", number="c", statistic="mean", by="x"),)}, "features.aggregates.m"),
    ],
)
def test_settings_of_features_that_have_no_such_encoding_are_refused(bad, said):
    with pytest.raises(ValueError, match=said):
        fit(bad)


# --- cross-fitting ---


@st.composite
def labelled(draw):
    n = draw(st.integers(4, 30))
    frame = pl.DataFrame(
        {
            "x": draw(st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), min_size=n, max_size=n)),
            "c": draw(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=n, max_size=n)),
        },
        schema={"x": pl.Float64, "c": pl.String},
    )
    label = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.int8)
    label[:2] = [0, 1]
    return frame, label, np.arange(n) % 3


@settings(deadline=None)
@given(labelled(), st.data())
def test_the_labels_of_a_fold_change_no_value_of_that_fold(drawn, data):
    frame, label, fold = drawn
    chosen = FitSettings(min_level_rows=1, bins=3, encodings={"x": ("woe", "target_mean"), "c": ("woe", "target_mean")})
    plan = fit_plan(frame, ROWS, chosen, label=pl.Series(label))
    before = crossfit(plan, frame, label, fold, smoothing=20.0)
    flipped = data.draw(st.integers(0, 2))
    other = np.where(fold == flipped, 1 - label, label).astype(np.int8)
    after = crossfit(plan, frame, other, fold, smoothing=20.0)
    for name in plan.label_outputs:
        assert before[name].to_numpy()[fold == flipped].tolist() == after[name].to_numpy()[fold == flipped].tolist()


def test_crossfitted_value_is_that_of_the_other_folds_in_the_plan_s_scale():
    plan = fit({"encodings": {"c": ("woe",)}})
    known = FRAME.filter(LABEL.is_not_null())
    label, fold = LABEL.drop_nulls().to_numpy(), np.arange(9) % 2
    table = plan.level_tables[0]
    keys = level_keys(known["c"], table.levels)
    odd = fold == 1
    seen = count_labels(level_keys(known["c"].filter(pl.Series(odd)), table.levels), label[odd])
    expected = table.standardised(label_values(*seen, "woe", 20.0)[keys.codes[0]])
    got = crossfit(plan, known, label, fold, smoothing=20.0)
    assert got["c woe"][0] == pytest.approx(expected, rel=1e-6)
    assert tuple(got.columns) == plan.label_outputs


def test_noise_that_is_crossfitted_carries_no_label_and_plain_woe_does():
    # 300 levels of 5 rows: in its own sample WOE ranks labels that it has memorised
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({"x": rng.normal(size=1500), "c": [f"level {i}" for i in rng.integers(0, 300, 1500)]})
    label = rng.integers(0, 2, 1500).astype(np.int8)
    plan = fit_plan(frame, ROWS, FitSettings(min_level_rows=1, encodings={"c": ("woe",)}), label=pl.Series(label))
    plain = frame.select(encoding_expressions(plan))["c woe"].to_numpy()
    crossfitted = crossfit(plan, frame, label, np.arange(1500) % 5, smoothing=20.0)["c woe"].to_numpy()
    assert np.corrcoef(plain, label)[0, 1] > 0.3
    assert abs(np.corrcoef(crossfitted, label)[0, 1]) < 0.1


def test_one_fold_alone_is_refused():
    plan = fit({"encodings": {"c": ("woe",)}})
    with pytest.raises(ValueError, match="at least two folds"):
        crossfit(plan, FRAME, np.zeros(10, np.int8), np.zeros(10, np.int64), smoothing=20.0)


@given(st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=1), st.sets(st.integers(-9, 9), min_size=1))
def test_every_row_lies_in_the_bin_that_holds_it(values, cuts):
    edges = sorted(map(float, cuts))
    codes = bin_keys(pl.Series(values, dtype=pl.Float64), edges).codes
    for value, code in zip(values, codes, strict=True):
        if value is None:
            assert code == len(edges) + 1
        else:
            assert code == 0 or value > edges[code - 1]
            assert code == len(edges) or value <= edges[code]
