"""Rules of what a person reads of a scoring: nothing from the data is markup, nothing undefined is a number."""

import pytest

from crossrisk.pages.score_page import psi_text, render_scores, score_lines

PSI = {"value": 0.0123, "verdict": "ok", "critical": 0.0204}
HISTOGRAM = {"labels": ["up to 0.1", "above 0.1", "missing"], "reference": [5, 5, 0], "scored": [4, 6, 0]}


def summary(**changed):
    return {
        "schema_version": 1,
        "run_id": "2024-12-31-abcd",
        "portfolio": "mini",
        "version": 17,
        "contender": "dan",
        "as_of": "2024-12-31",
        "rows": 1234,
        "scored": 1232,
        "unscored": {"id twice": 2},
        "mean_probability": 0.0523,
        "score_psi": {**PSI, "histogram": HISTOGRAM},
        "bands": [{"band": 1, "holds": "above 0.1", "rows": 600}, {"band": 2, "holds": "up to 0.1", "rows": 632}],
        "bands_by": {"quantity": "probability", "source": "tenths"},
        "unseen": {
            "region": {"rows": 12, "share": 0.0097, "values": ["<u>atlantis", "b"]},
            "grade": {"rows": 0, "share": 0.0, "values": []},
            "job": {"rows": None, "share": None, "values": []},
            "town": {"rows": None, "share": None, "values": []},
        },
        "rules": {
            "applied": ["r"],
            "failed": [{"rule": "r", "action": "warn", "unexpected_count": None, "why": "<b>why</b>", "owner": "o"}],
            "left_out": [{"rule": "q", "reason": "about <i>"}],
        },
        "notes": ["look"],
        "input": [{"path": "<script>.parquet", "rows": 1234, "sha256": "f" * 64}],
        "seconds": 2.04,
        "rows_per_second": 604,
        "paths": {"output": "out"},
        **changed,
    }


def test_a_terminal_shows_rows_reasons_bands_and_speed_in_two_columns():
    assert score_lines(summary()) == [
        "version      17 of mini (dan, as of 2024-12-31)",
        "rows         1,234 of 1 files, 1,232 scored",
        "             2 id twice",
        "probability  5.23% on average",
        "score PSI    0.012 (ok, noise up to 0.020)",
        "bands          1           600  above 0.1",
        "               2           632  up to 0.1",
        "             of the probability, by tenths; 1 is the riskiest",
        "unseen       region: 12 rows (1.0%), such as '<u>atlantis', 'b'",
        "unseen       cannot be told of job, town: not all levels of the version are listed",
        "rule         r (warn): <b>why</b>",
        "note         look",
        "seconds      2.0, 604 rows a second",
        "output       out",
    ]


def test_the_page_escapes_what_comes_from_the_data():
    page = render_scores(summary())
    assert "<script>" not in page
    assert "&lt;script&gt;.parquet" in page
    assert "<b>why" not in page
    assert "<u>atlantis" not in page
    assert "region: 12 rows (1.0%), such as &#39;&lt;u&gt;atlantis&#39;" in page
    assert "about &lt;i&gt;" in page
    assert "<svg" in page


def test_where_every_level_was_known_the_page_says_so_and_a_terminal_nothing():
    known = summary(unseen={"grade": {"rows": 0, "share": 0.0, "values": []}})
    assert "Training knew every level of the 1 category column." in render_scores(known)
    assert not [line for line in score_lines(known) if line.startswith("unseen")]


def test_where_nothing_was_scored_or_all_was_there_no_number_is_made_up():
    psi = {"value": None, "verdict": "small sample", "critical": None}
    histogram = {**HISTOGRAM, "scored": [0, 0, 0]}
    nothing = summary(scored=0, mean_probability=None, rows_per_second=None, score_psi={**psi, "histogram": histogram})
    assert psi_text(nothing) == "–"
    page = render_scores(nothing)
    assert "there is nothing to compare" in page
    assert "<svg" not in page
    lines = score_lines(nothing)
    assert "probability  – on average" in lines
    assert "seconds      2.0" in lines


def test_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema_version 2"):
        render_scores(summary(schema_version=2))
