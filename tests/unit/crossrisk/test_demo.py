"""Rules of the demo portfolio: exact counts, independent months, and a truth that really is the truth."""

import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from crossrisk import demo, demo_risk
from crossrisk.errors import InputError

SMALL = demo.DemoSpec(
    target_bads=60, target_goods=440, source_bads=200, source_goods=1_300, features=10, months=6
)  # 2,000 rows x 10 features


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    return demo.write_demo(directory, SMALL)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return demo.write_demo(tmp_path_factory.mktemp("full"), demo.DemoSpec())


def read(directory: Path) -> pl.DataFrame:
    return pl.read_parquet(directory / "*" / "*.parquet")


def counts(frame: pl.DataFrame, product: str) -> tuple[int, int]:
    bad = frame.filter(pl.col("product") == product)["bad"]
    return int((bad == 1).sum()), int((bad == 0).sum())


def test_default_portfolio_has_the_articles_shape(full):
    rows = read(full.data_directory)
    roles = demo.column_roles(demo.DemoSpec())
    assert counts(rows, roles.target_value) == (350, 4_800)
    assert counts(rows, roles.source_value) == (1_000, 5_500)
    assert len(roles.numeric) + len(roles.categorical) == 291
    assert len(list(full.data_directory.iterdir())) == 24
    assert rows["customer_id"].n_unique() == rows.height == full.source_rows + full.target_rows


def test_every_role_is_a_column_of_the_type_it_needs(full):
    schema = pl.read_parquet_schema(full.data_directory / "month=2024-01" / "part-0.parquet")
    roles = demo.column_roles(demo.DemoSpec())
    assert {schema[name] for name in roles.numeric} == {pl.Float64()}
    assert {schema[name] for name in (*roles.categorical, roles.population)} == {pl.String()}
    assert schema[roles.label] == pl.Int8()
    assert schema[roles.decision_date] == schema[roles.label_known_date] == pl.Date()
    named = {name for pair in roles.ratios.values() for name in pair} | roles.sentinels.keys()
    assert named <= set(roles.numeric)
    assert set(schema) == {
        *roles.numeric, *roles.categorical, *roles.protected, roles.customer_id, roles.decision_date,
        roles.population, roles.label, roles.label_known_date,
    }  # fmt: skip


def test_protected_columns_are_no_features():
    roles = demo.column_roles(demo.DemoSpec())
    assert not set(roles.protected) & {*roles.numeric, *roles.categorical}


@settings(max_examples=25, deadline=None)
@given(total=st.integers(0, 10_000), parts=st.integers(1, 60))
def test_an_even_spread_loses_no_row(total, parts):
    shares = [demo._share(total, parts, part) for part in range(parts)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_months_with_fewer_bads_than_months_still_sum_to_the_recipe(tmp_path):
    spec = demo.DemoSpec(target_bads=3, target_goods=50, source_bads=5, source_goods=90, features=10, months=7)
    rows = read(demo.write_demo(tmp_path, spec).data_directory)
    assert counts(rows, "card") == (3, 50)
    assert counts(rows, "term_loan") == (5, 90)


def test_counts_stay_exact_when_a_month_takes_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_BLOCK_ROWS", 100)
    facts = demo.write_demo(tmp_path, SMALL)
    rows = read(facts.data_directory)
    assert counts(rows, "card") == (60, 440)
    assert counts(rows, "term_loan") == (200, 1_300)
    assert rows["customer_id"].n_unique() == 2_000


def test_no_more_rows_than_a_block_are_drawn_at_once(tmp_path, monkeypatch):
    heights = []
    complete = demo._complete

    def observed(*arguments):
        frame = complete(*arguments)
        heights.append(frame.height)
        return frame

    monkeypatch.setattr(demo, "_BLOCK_ROWS", 100)
    monkeypatch.setattr(demo, "_complete", observed)
    demo.write_demo(tmp_path, SMALL)
    assert sum(heights) == 2_000
    assert max(heights) <= 102  # bads and goods are each rounded up


def test_same_recipe_writes_the_same_bytes(small, tmp_path):
    again = demo.write_demo(tmp_path, SMALL)
    for path in small.data_directory.parent.rglob("*.parquet"):
        twin = again.data_directory.parent / path.relative_to(small.data_directory.parent)
        assert twin.read_bytes() == path.read_bytes()


def test_another_seed_writes_other_rows(small, tmp_path):
    other = demo.write_demo(tmp_path, demo.DemoSpec(**{**SMALL.__dict__, "seed": 7}))
    score = "external_score_points"
    assert not read(other.data_directory)[score].equals(read(small.data_directory)[score])


def test_a_month_does_not_depend_on_the_months_written_before_it(small, tmp_path):
    facts = demo.DemoFacts(tmp_path / "demo", tmp_path / "demo_truth", 6, 1_500, 500, 0.8, 0.8)
    for month in reversed(range(6)):
        demo._write_month(facts, SMALL, month)
    assert read(facts.data_directory).equals(read(small.data_directory))
    assert read(facts.truth_directory).equals(read(small.truth_directory))


def test_each_partition_holds_its_own_month_only(small):
    for partition in small.data_directory.iterdir():
        applied = pl.read_parquet(partition / "part-0.parquet")["application_date"]
        assert applied.dt.strftime("month=%Y-%m").unique().to_list() == [partition.name]


def test_each_month_is_reported_once_and_in_order(tmp_path):
    seen = []
    demo.write_demo(tmp_path, SMALL, on_month=lambda done, months: seen.append((done, months)))
    assert seen == [(month, 6) for month in range(1, 7)]


def test_a_crash_leaves_whole_files_or_none(tmp_path, monkeypatch):
    blocks = demo._month_blocks

    def broken(spec, month):
        yield next(blocks(spec, month))
        if month == 2:
            raise OSError("no space left on device")

    monkeypatch.setattr(demo, "_month_blocks", broken)
    with pytest.raises(OSError, match="no space left"):
        demo.write_demo(tmp_path, SMALL)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        f"{table}/month=2024-0{month}/part-0.parquet" for table in ("demo", "demo_truth") for month in (1, 2)
    ]


def test_months_of_another_portfolio_are_not_mixed_in(small):
    shorter = demo.DemoSpec(**{**SMALL.__dict__, "months": 3})
    with pytest.raises(InputError, match=r"month=2024-04.*3 in all.*write elsewhere"):
        demo.write_demo(small.data_directory.parent, shorter)


def test_truth_lies_beside_the_data_and_never_in_it(small):
    rows, truth = read(small.data_directory), read(small.truth_directory)
    assert truth.columns == ["customer_id", "true_probability"]
    assert truth["customer_id"].equals(rows["customer_id"])
    assert "true_probability" not in rows.columns
    numbers = rows.select(pl.col(pl.Float64))
    assert not any(numbers[name].equals(truth["true_probability"], null_equal=True) for name in numbers.columns)


def test_truth_is_a_function_of_the_written_row(small):
    both = read(small.data_directory).join(read(small.truth_directory), on="customer_id")
    for product, population in (("card", "target"), ("term_loan", "source")):
        rows = both.filter(pl.col("product") == product)
        recomputed = demo_risk.true_probability(rows, SMALL, population)
        np.testing.assert_allclose(recomputed, rows["true_probability"].to_numpy(), rtol=1e-12)


def test_true_probability_of_a_hand_worked_row():
    spec = demo.DemoSpec(**{**SMALL.__dict__, "concept_shift": 0.0})
    row = pl.DataFrame(
        {
            "external_score_points": [700.0],  # one scale above 640
            "income_monthly_usd": [None],  # 0.2, and no ratio
            "payment_monthly_usd": [300.0],
            "debt_to_income": [0.36],
            "utilisation_share": [0.63],  # one scale above 0.45
            "inquiries_last_6m_count": [6.0],  # two scales above 3
            "months_since_last_delinquency": [999.0],
            "savings_balance_usd": [None],
            "home_ownership": ["own"],
            "purpose": [None],
        },
        schema_overrides={"income_monthly_usd": pl.Float64, "savings_balance_usd": pl.Float64, "purpose": pl.String},
    )
    effects = -1.05 + 0.2 + 0.5 + 2 * 0.1 - 0.6 + 0.5 - 0.1 + 0.2 + 2 * 0.08
    intercept, _ = demo_risk.calibrate(spec, "source")
    expected = 1 / (1 + math.exp(-(intercept + effects)))
    assert demo_risk.true_probability(row, spec, "source")[0] == pytest.approx(expected, rel=1e-12)


def test_true_probability_is_calibrated_in_every_decile_of_fresh_rows():
    rows, probability = demo.draw_target(SMALL, 100_000, seed=1)
    by_risk = np.argsort(probability)
    for decile in np.split(by_risk, 10):
        p, bad = probability[decile], rows["bad"].to_numpy()[decile]
        error = math.sqrt(float(np.sum(p * (1 - p))))
        assert abs(bad.sum() - p.sum()) < 4 * error


def test_true_probability_stays_calibrated_where_values_are_missing():
    rows, probability = demo.draw_target(SMALL, 100_000, seed=2)
    for name in ("savings_balance_usd", "utilisation_share", "purpose", "income_monthly_usd"):
        lost = rows[name].is_null().to_numpy()
        p, bad = probability[lost], rows["bad"].to_numpy()[lost]
        assert abs(bad.sum() - p.sum()) < 4 * math.sqrt(float(np.sum(p * (1 - p))))


@pytest.mark.parametrize("population", demo_risk.POPULATIONS)
def test_natural_bad_rate_is_the_quotas(population):
    spec = demo.DemoSpec()
    drawn = demo_risk.draw_named(spec, population, 100_000, np.random.default_rng(5))
    p = demo_risk.true_probability(drawn, spec, population)
    bads, goods = spec.counts(population)
    assert p.mean() == pytest.approx(bads / (bads + goods), abs=5 * p.std() / math.sqrt(100_000))


def test_written_labels_agree_with_their_truth(full):
    rows = read(full.data_directory).join(read(full.truth_directory), on="customer_id")
    for product, best in (("term_loan", full.source_bayes_auc), ("card", full.target_bayes_auc)):
        part = rows.filter(pl.col("product") == product)
        reached = roc_auc_score(part["bad"].to_numpy(), part["true_probability"].to_numpy())
        assert reached == pytest.approx(best, abs=0.04)  # four standard errors of an AUC on 350 bads


def test_bayes_auc_of_two_rows_by_hand():
    # bad weights .2 and .8, good weights .8 and .2: (.2 x .4 + .8 x (.8 + .1)) / (1 x 1)
    assert demo_risk.bayes_auc(np.array([0.8, 0.2])) == pytest.approx(0.8)


def test_bayes_auc_is_what_labels_drawn_from_the_truth_reach_on_average():
    rows, probability = demo.draw_target(SMALL, 60_000, seed=3)
    measured = roc_auc_score(rows["bad"].to_numpy(), probability)
    assert measured == pytest.approx(demo_risk.bayes_auc(probability), abs=0.012)


def test_default_bayes_auc_leaves_models_room_below_it(full):
    assert 0.80 <= full.target_bayes_auc <= 0.85
    assert 0.78 <= full.source_bayes_auc <= 0.85


def mean_gap(spec: demo.DemoSpec, name: str) -> float:
    """Distance of the two populations' means, in standard deviations."""
    source, target = (
        demo_risk.draw_named(spec, population, 20_000, np.random.default_rng(number))[name].drop_nulls().to_numpy()
        for number, population in enumerate(demo_risk.POPULATIONS)
    )
    return abs(float(target.mean() - source.mean())) / float(source.std())


@pytest.mark.parametrize("name", ["external_score_points", "income_monthly_usd", "utilisation_share"])
def test_covariate_shift_moves_the_named_columns_and_strength_zero_does_not(name):
    assert mean_gap(SMALL, name) > 0.2
    assert mean_gap(demo.DemoSpec(**{**SMALL.__dict__, "covariate_shift": 0.0}), name) < 0.04


def test_category_shares_shift_with_the_covariates():
    def rent(spec, population):
        drawn = demo_risk.draw_named(spec, population, 20_000, np.random.default_rng(1))
        return (drawn["home_ownership"] == "rent").mean()

    still = demo.DemoSpec(**{**SMALL.__dict__, "covariate_shift": 0.0})
    assert rent(SMALL, "target") - rent(SMALL, "source") > 0.1
    assert rent(still, "target") == rent(still, "source")


def log_odds_gap(spec: demo.DemoSpec) -> np.ndarray:
    drawn = demo_risk.draw_named(spec, "source", 2_000, np.random.default_rng(4))
    logits = [
        np.log(p) - np.log1p(-p)
        for p in (demo_risk.true_probability(drawn, spec, who) for who in demo_risk.POPULATIONS)
    ]
    return logits[1] - logits[0]


def test_without_concept_shift_the_populations_differ_by_an_intercept():
    assert np.ptp(log_odds_gap(demo.DemoSpec(concept_shift=0.0))) < 1e-9


def test_concept_shift_changes_effects_in_proportion_to_its_strength():
    single, double = (log_odds_gap(demo.DemoSpec(concept_shift=strength)) for strength in (1.0, 2.0))
    assert single.std() > 0.05
    assert double.std() == pytest.approx(2 * single.std(), rel=1e-6)


def test_no_value_is_missing_at_share_zero():
    spec = demo.DemoSpec(missing_share=0.0, features=60)
    rows, _ = demo.draw_target(spec, 2_000, seed=1)
    assert sum(rows.null_count().row(0)) == 0


def test_numbers_and_categories_are_missing_as_nulls_never_nan():
    rows, _ = demo.draw_target(demo.DemoSpec(features=60), 5_000, seed=1)
    roles = demo.column_roles(demo.DemoSpec(features=60))
    lost = {name: rows[name].null_count() / 5_000 for name in (*roles.numeric, *roles.categorical)}
    assert lost["savings_balance_usd"] == pytest.approx(0.15, abs=0.02)
    assert lost["purpose"] == pytest.approx(0.05, abs=0.015)
    assert lost["x_002"] == pytest.approx(0.05, abs=0.015)
    assert not any(rows[name].is_nan().any() for name in roles.numeric)


def test_unnamed_columns_say_nothing_of_the_label_and_the_last_is_constant():
    rows, probability = demo.draw_target(demo.DemoSpec(features=60, missing_share=0.0), 20_000, seed=6)
    names = [name for name in rows.columns if name.startswith("x_")]
    correlations = [abs(np.corrcoef(rows[name].to_numpy(), probability)[0, 1]) for name in names[:-1]]
    assert max(correlations) < 0.03  # four standard errors
    assert rows[names[-1]].n_unique() == 1


def test_goods_are_known_after_the_whole_window_and_bads_within_it(small):
    rows = read(small.data_directory).with_columns(
        end=pl.col("application_date").dt.offset_by("6mo"), lag=pl.lit(timedelta(days=30))
    )
    goods, bads = rows.filter(pl.col("bad") == 0), rows.filter(pl.col("bad") == 1)
    assert (goods["label_known_date"] == goods["end"] + goods["lag"]).all()
    resolved = bads["label_known_date"] - bads["lag"]
    assert (resolved <= bads["end"]).all()
    assert (resolved - bads["application_date"] >= timedelta(days=90)).all()  # half of 181 days or more
    assert resolved.n_unique() > 50


def test_fresh_rows_have_the_files_columns_and_no_customer_of_theirs(small):
    rows, probability = demo.draw_target(SMALL, 1_000, seed=1)
    written = read(small.data_directory)
    assert rows.schema == written.schema
    assert rows["product"].unique().to_list() == ["card"]
    assert not set(rows["customer_id"]) & set(written["customer_id"])
    assert probability.shape == (1_000,)
    assert rows["application_date"].is_between(date(2024, 1, 1), date(2024, 6, 30)).all()


def test_fresh_rows_follow_their_seed():
    once, again = (demo.draw_target(SMALL, 200, seed=9)[0] for _ in range(2))
    other = demo.draw_target(SMALL, 200, seed=10)[0]
    assert once.equals(again)
    assert not once.drop("customer_id").equals(other.drop("customer_id"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": 9}, "features is 9, at least 10"),
        ({"target_bads": 0}, "target_bads is 0, at least 1"),
        ({"months": 0}, "months is 0, at least 1"),
        ({"covariate_shift": -0.1}, "covariate_shift is -0.1, at least 0"),
        ({"missing_share": 0.5}, "missing_share is 0.5, at most 0.3"),
        ({"first_month": date(2024, 1, 2)}, "first_month is 2024-01-02, expected the first day"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        demo.DemoSpec(**wrong)
