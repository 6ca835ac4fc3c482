"""A first portfolio written from a profile: readable like a form, the reasons as comments.

A profile and two rules in, text and plain data out; nothing is read or written here. How text is escaped and aligned
is `crossrisk.starting.toml_form`, the expectations beside the portfolio are `crossrisk.starting.draft_suite`.
"""

from __future__ import annotations

import calendar
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from crossrisk.config import parse_portfolio
from crossrisk.starting.columns import FEATURE_ROLES, KEY_ROLES, Column
from crossrisk.starting.draft_suite import draft_suite
from crossrisk.starting.own_names import own_names
from crossrisk.starting.populations import Count, write_rules
from crossrisk.starting.profiling import Profile
from crossrisk.starting.toml_form import array, block, comment_lines, entry, number, toml_string

SEGMENT_LEVELS = 12
CANDIDATE_VALUES = 12
"""Columns of at most so many values are proposed for --target."""
PLACEHOLDER = "FILL_IN"
_TEST_MONTHS = 6
"""the default of split.target_test_last_months"""
_LITTLE = 60
"""the default of lineup.min_target_bads"""


@dataclass(frozen=True)
class Place:
    """Where the data lie, as the portfolio will say it."""

    path: str
    """relative to the root"""
    root: str | None
    """None: the root is CROSSRISK_DATA, else data/"""


@dataclass(frozen=True)
class Populations:
    """What tells the target from the source, and what that finds."""

    targets: Mapping[str, Sequence[Any]]
    """column, as the files call it -> values of the target"""
    counts: Mapping[str, Count]
    """source, target, neither"""


@dataclass(frozen=True)
class Draft:
    """What is to be written."""

    toml: str
    suite: Mapping[str, Any]
    """document of a suite file, as `expectations` reads it"""
    profile: Profile
    """the profile with what drafting changed: columns moved, for the reason they carry, or under names of our own"""
    notes: tuple[str, ...]
    """what a person must look at first"""


def draft_portfolio(
    profile: Profile, populations: Populations | None, *, place: Place, name: str, suite_file: str, delivered: date
) -> Draft:
    """Write the portfolio of a profile, and its suite.

    Args:
        profile: of the table.
        populations: the target and its counts; None: the draft holds a placeholder that no run accepts.
        place: of the data.
        name: of the portfolio, as `crossrisk.config` wants it.
        suite_file: file name under which the suite will lie beside the portfolio.
        delivered: date of the file: as_of where the data have no decision date.

    Raises:
        ValueError: a population without rows, a source without bads or goods, or no column to make a feature of.
    """
    if populations is not None:
        _refuse_empty(populations.counts)
        profile = _without_time(profile, populations.counts["target"])
    _refuse_featureless(profile)
    profile = profile.under_names(own_names(profile.columns))
    as_of = _as_of(profile, delivered)
    toml = "\n".join(
        [
            *_head(profile, place, name, as_of, runs=populations is not None),
            *_data(profile, place, suite_file),
            *_label(profile),
            *_population(profile, populations),
            *_features(profile),
            *_rest(profile, populations),
        ]
    )
    parse_portfolio(tomllib.loads(toml), where="the draft")
    return Draft(toml + "\n", draft_suite(profile, name), profile, tuple(_notes(profile, populations)))


# --- what drafting itself must decide ---


def _refuse_empty(counts: Mapping[str, Count]) -> None:
    if not counts["target"].rows:
        raise ValueError("the target would have no row: none meets --target in all its columns; name fewer columns")
    source = counts["source"]
    if not source.rows:
        raise ValueError(
            f"the source would have no row: it is the rest, and {counts['target'].rows:,} rows meet --target"
            + (f", {counts['neither'].rows:,} have no value there" if counts["neither"].rows else "")
            + "; name fewer values, or another column"
        )
    if not (source.bads and source.goods):
        raise ValueError(
            f"the source would have {source.bads:,} bads and {source.goods:,} goods, and both are needed to train; "
            "choose other values for --target"
        )


def _refuse_featureless(profile: Profile) -> None:
    if not profile.of(*FEATURE_ROLES):
        came = ", ".join(f"{column.name!r} ({column.role})" for column in profile.columns[:10])
        more = f" and {len(profile.columns) - 10} more" if len(profile.columns) > 10 else ""
        raise ValueError(
            f"no column is left to make a feature of: expected numbers, categories or dates known at the decision, "
            f"came {came}{more}; give a file that has some"
        )


def _without_time(profile: Profile, target: Count) -> Profile:
    """A target of one month cannot be tested out of time: then the portfolio has no dates at all."""
    if profile.the("decision_date") is None or target.months > 1:
        return profile
    reason = "the target has loans of one month only, which cannot be tested out of time"
    dated = {column.name for column in profile.of("decision_date", "known_date", "date")}
    moved = (replace(c, role="later date", reason=reason) if c.name in dated else c for c in profile.columns)
    return replace(profile, columns=tuple(moved))


def _as_of(profile: Profile, delivered: date) -> date:
    """End of the last month that the data speak of: a file that holds an outcome of June was cut after it."""
    days = [column.highest for column in profile.of("decision_date", "known_date")]
    if not days:
        return delivered
    last: date = max(days)
    return last.replace(day=calendar.monthrange(last.year, last.month)[1])


def _notes(profile: Profile, populations: Populations | None) -> Iterator[str]:
    yield from profile.notes
    if populations is None:
        yield f"no --target given: [population] holds {PLACEHOLDER}, and no run will accept it"
    elif populations.counts["target"].bads < _LITTLE:
        bads = populations.counts["target"].bads
        yield f"the target has {bads} bads: below {_LITTLE} in fitting no target label is used (lineup.min_target_bads)"
    for column in profile.of("leak"):
        yield f"left out as a leak: {column.name!r}: {column.reason}"
    for column in profile.of(*FEATURE_ROLES):
        yield from (f"kept, but look at it: {finding.sentence}" for finding in column.findings)


# --- TOML, one function a table ---


def _head(profile: Profile, place: Place, name: str, as_of: date, *, runs: bool) -> Iterator[str]:
    share = profile.bads / (profile.bads + profile.goods)
    text = (
        f"Drafted by `crossrisk init` from {place.path}: {profile.rows:,} rows, {len(profile.columns)} columns, "
        f"{profile.bads:,} bads ({share:.1%}). It runs {'as it is' if runs else 'once [population] is filled in'}, and "
        "it is a guess: read it from top to bottom, move what is in the wrong place, and delete a comment when you "
        "agree with it. Every key is described in crossrisk/config.py; a key that is misspelt is refused with the "
        "nearest known one."
    )
    yield from comment_lines(text)
    why = "end of the last month in the data: nothing later is seen; better: the day the outcomes were read"
    if profile.the("decision_date") is None:
        why = "the day the file was written; there is no date in the data that could be compared with it"
    yield from block([(f"name = {toml_string(name)}", ""), (f"as_of = {as_of.isoformat()}", why)])


def _data(profile: Profile, place: Place, suite_file: str) -> Iterator[str]:
    yield from ("", "[data]")
    lines = [] if place.root is None else [(f"root = {toml_string(place.root)}", "relative to CROSSRISK_HOME")]
    below = "CROSSRISK_DATA, else data/" if place.root is None else "root"
    lines.append((f"path = {toml_string(place.path)}", f"below {below}"))
    for role in ("id", "customer", "decision_date"):
        column = profile.the(role)
        if column is not None:
            lines.append((f"{role} = {toml_string(column.name)}", column.reason))
    lines.append((f"expectations = [{toml_string(suite_file)}]", "beside this file: what must hold of the data"))
    yield from block(lines)
    if profile.the("customer") is None:
        yield from comment_lines('customer = "..." names the person, where one can have several rows: none was found')
    ignored = [c for c in profile.columns if c.role not in (*KEY_ROLES, *FEATURE_ROLES, "protected")]
    yield from array("ignore", [(c.name, f"{c.role}: {c.reason}") for c in ignored])
    if profile.renamed:
        yield from ("", "[data.columns]")
        yield from comment_lines(
            "name here = name in the files. All else in this file and the suite speak of the name here: change it "
            "everywhere, or nowhere"
        )
        yield from block([(f"{one.ours} = {toml_string(one.theirs)}", one.why) for one in profile.renamed])


def _label(profile: Profile) -> Iterator[str]:
    label, known_date = profile.the("label"), profile.the("known_date")
    assert label is not None, "a profile has a label"
    yield from ("", "[label]")
    unknown = f"; {profile.labels_unknown:,} unknown" if profile.labels_unknown else ""
    found = f"{profile.bads:,} bad, {profile.goods:,} good{unknown}"
    lines = [(f"column = {toml_string(label.name)}", f"{label.reason}; 1 = bad, 0 = good: {found}")]
    if known_date is not None:
        lines.append((f"known_date = {toml_string(known_date.name)}", known_date.reason))
    if profile.the("decision_date") is not None:
        lines.append(("window_months = 0", "months on book that the label looks at: set it, younger loans are unknown"))
    yield from block(lines)


def _population(profile: Profile, populations: Populations | None) -> Iterator[str]:
    yield from ("", "[population]")
    if populations is None:
        yield from comment_lines(
            "Two SQL filters over the columns, to be filled in: the source is what you know much of, the target what "
            f"the model is for. Run init again with --target COLUMN=VALUE, or write them. {_candidates(profile)}"
        )
        yield f"source = \"{PLACEHOLDER} = 'source'\""
        yield f"target = \"{PLACEHOLDER} = 'target'\""
        return
    ours = {one.theirs: one.ours for one in profile.renamed}
    rules = write_rules({ours.get(column, column): values for column, values in populations.targets.items()})
    for name in ("source", "target"):
        count = populations.counts[name]
        months = f", {count.months} months" if count.months else ""
        said = f"{count.rows:,} rows, {count.bads:,} bads{months}"
        yield from entry(f"{name} = {toml_string(getattr(rules, name))}", said, 0)
    neither = populations.counts["neither"].rows
    if neither:
        yield from comment_lines(f"{neither:,} rows miss a column of these rules: they belong to neither, and stay out")


def _candidates(profile: Profile) -> str:
    few = [c for c in profile.columns if c.role in FEATURE_ROLES and 2 <= c.distinct <= CANDIDATE_VALUES]
    theirs = {one.ours: f", for --target {one.theirs!r}" for one in profile.renamed}
    named = ", ".join(f"{c.name} ({c.distinct} values{theirs.get(c.name, '')})" for c in few[:10])
    return f"Columns of few values: {named}." if named else "No column has few values."


def _features(profile: Profile) -> Iterator[str]:
    yield from ("", "[features]")
    yield from array("numeric", [(c.name, _about(c)) for c in profile.of("numeric")])
    yield from array("categorical", [(c.name, _about(c)) for c in profile.of("category")])
    yield from array("protected", [(c.name, c.reason) for c in profile.of("protected")])
    dates = profile.of("date")
    if dates:
        yield from ("", "[features.ages]")
        taken = {column.name.lower() for column in profile.columns}
        yield from block([(f"{_age_name(c.name, taken)} = {toml_string(c.name)}", _about(c)) for c in dates])
    coded = [column for column in profile.of("numeric") if column.sentinels]
    if coded:
        yield from ("", "[features.sentinels]")
        yield from block(
            [(f"{c.name} = [{', '.join(number(code) for code in c.sentinels)}]", _about_codes(c)) for c in coded]
        )


def _age_name(column: str, taken: set[str]) -> str:
    name = f"months_since_{column}"
    while name.lower() in taken:
        name += "_date"
    return name


def _about(column: Column) -> str:
    parts = [column.reason]
    if column.lowest is not None:
        low, high = column.lowest, column.highest
        parts.append(f"{low} to {high}" if isinstance(low, date) else f"{_shown(low)} to {_shown(high)}")
    if column.missing:
        parts.append(_about_missing(column))
    return "; ".join(parts + [finding.sentence for finding in column.findings])


def _about_codes(column: Column) -> str:
    said = "apart from all other values: read as missing, with a flag"
    return f"{said}; besides {_about_missing(column)}" if column.missing else said


def _about_missing(column: Column) -> str:
    return f"{column.missing_share:.1%} missing" if column.missing_share >= 0.001 else f"{column.missing} missing"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e12 else f"{value:,.6g}"


def _rest(profile: Profile, populations: Populations | None) -> Iterator[str]:
    months = populations.counts["target"].months if populations else 0
    if profile.the("decision_date") is not None and 0 < months < 2 * _TEST_MONTHS:
        yield from ("", "[split]")
        said = f"out of time: the last of the target's {months} months"
        yield from block([(f"target_test_last_months = {max(1, months // 3)}", said)])
    yield from ("", "[lineup]")
    said = '"allowed", where you may merge populations: then pooled models can be published too'
    yield from block([('pooling = "reference"', said)])
    yield from ("", "[use]")
    segments = [c.name for c in profile.of("category") if c.distinct <= SEGMENT_LEVELS][:2]
    yield from comment_lines("cutoff_probability = 0.2   applicants above are declined: for the tables of the report")
    if segments:
        listed = ", ".join(toml_string(name) for name in segments)
        yield from block([(f"segments = [{listed}]", "columns by which the report breaks the result down")])
