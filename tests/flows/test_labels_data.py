"""The label of twelve months on the real loans: the counts of issue and docs/labels.md, through the real tasks."""

from pathlib import Path

import pytest

from crossrisk.config import load_portfolio
from tasks.ingest import ingest
from tasks.labels import mature_labels, read_vintages
from tasks.validate import validate

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.data

FINAL = ("label.window_months=0", "label.within_window=false")
"""the label as it is known so far, whatever the months on book"""
WITHIN_POLICY = (
    "population.source=term_months = 36 AND meets_credit_policy",
    "population.target=term_months = 60 AND meets_credit_policy",
)


def mature(real_data, home, as_of, *overrides):
    loaded = load_portfolio(
        ROOT / "configs" / "lending_club_mob12.toml",
        environ={"CROSSRISK_DATA": str(real_data), "CROSSRISK_HOME": str(home)},
        overrides=(f"as_of={as_of}", *overrides),
    )
    ingested = ingest.fn(loaded)
    return loaded, mature_labels.fn(loaded, ingested, validate.fn(loaded, ingested))


def counted(made):
    populations = made.facts["populations"]
    return tuple((populations[name]["matured"], populations[name]["bads"]) for name in ("target", "source"))


@pytest.mark.parametrize(
    ("as_of", "target", "source", "known_so_far"),
    [
        ("2011-06-30", (648, 28), (12_807, 457), 54),
        ("2011-12-31", (3_381, 100), (17_433, 542), 265),
        ("2012-12-31", (11_001, 382), (31_534, 840), 974),
    ],
)
def test_matured_rows_and_bads_are_those_of_the_issue(real_data, tmp_path, as_of, target, source, known_so_far):
    _, made = mature(real_data, tmp_path, as_of)
    assert counted(made) == (target, source)
    _, final = mature(real_data, tmp_path, as_of, *FINAL)
    assert final.facts["populations"]["target"]["bads"] == known_so_far


@pytest.mark.parametrize(
    ("as_of", "target", "source", "known_so_far"),
    [
        ("2011-06-30", (592, 26), (10_666, 299), 47),
        ("2011-12-31", (3_070, 81), (14_995, 372), 231),
        ("2012-12-31", (10_690, 363), (29_096, 670), 899),
    ],
)
def test_the_same_within_the_credit_policy(real_data, tmp_path, as_of, target, source, known_so_far):
    _, made = mature(real_data, tmp_path, as_of, *WITHIN_POLICY)
    assert counted(made) == (target, source)
    _, final = mature(real_data, tmp_path, as_of, *WITHIN_POLICY, *FINAL)
    assert final.facts["populations"]["target"]["bads"] == known_so_far


def test_the_curve_at_twelve_months_is_the_bad_rate_of_the_label(real_data, tmp_path):
    loaded, made = mature(real_data, tmp_path, "2011-12-31")
    described = read_vintages(made, loaded.portfolio)
    assert described["months"] == 12
    pooled = {one["population"]: (one["accounts"], one["bads"][-1]) for one in described["populations"]}
    assert pooled == {"target": (3_381, 100), "source": (17_433, 542)}
    first = next(one for one in described["vintages"] if one["population"] == "target")
    assert (first["vintage"], first["accounts"], first["at_months"]["bads"]) == ("2010-05", 182, 8)
