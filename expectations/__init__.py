"""Suites of expectations, read from JSON: what must hold of a table, what follows when it does not, and who says so.

Here lives the loader: JSON in, one frozen `Suite` out, every mistake named with its file and expectation. The table
is not read here and nothing is judged: that is `tasks.validate`. How a suite is written: README.md beside this file.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from crossrisk.errors import ConfigError
from crossrisk.limits import read_document, refuse_depth

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

Action = Literal["stop", "quarantine", "warn"]

COMMON_SUITE = "portfolio"
"""The suite every portfolio must satisfy; `load_suites` always puts it first."""

ROLES = ("id", "label", "decision_date", "customer", "known_date")
"""Roles that a suite may write as `${role}`; the portfolio's config says which column plays them."""

ROW_RULES: Mapping[str, frozenset[str]] = {
    "expect_column_values_to_not_be_null": frozenset({"column"}),
    "expect_column_values_to_be_null": frozenset({"column"}),
    "expect_column_values_to_be_between": frozenset({"column", "min_value", "max_value", "strict_min", "strict_max"}),
    "expect_column_values_to_be_in_set": frozenset({"column", "value_set"}),
    "expect_column_values_to_not_be_in_set": frozenset({"column", "value_set"}),
    "expect_column_value_lengths_to_be_between": frozenset({"column", "min_value", "max_value"}),
    "expect_column_pair_values_a_to_be_greater_than_b": frozenset({"column_A", "column_B", "or_equal"}),
}
"""Types that may quarantine, with the kwargs they may have: `tasks.quarantine` knows exactly which rows fail these."""

_FREE_SQL = frozenset({"unexpected_rows_expectation", "expect_query_results_to_match_comparison"})
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Rule:
    """One expectation of a suite, its roles replaced by columns."""

    name: str
    """Unique in the suite, short, in kebab-case: what people call the rule."""
    type: str
    """Name of the expectation in Great Expectations."""
    kwargs: Mapping[str, Any]
    action: Action
    """What a failure does: block the run, set the failing rows aside, or be shown."""
    why: str
    owner: str
    """Who answers for the numbers in `kwargs`."""
    source: str
    """File the rule was read from, for messages."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the expectation reads; empty for a rule about the table as a whole."""
        named = [self.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        return tuple(str(name) for name in (*named, *self.kwargs.get("column_list", ())) if name is not None)


@dataclass(frozen=True)
class SkippedRule:
    """An expectation that does not apply to this portfolio."""

    name: str
    reason: str


@dataclass(frozen=True)
class Suite:
    """What one run checks: the common rules, then those of the portfolio."""

    name: str
    """Names of the suites it was merged from, joined by ` + `."""
    max_quarantined_share: float
    """Largest share of rows that may be set aside, in [0, 1]; the last suite's number."""
    rules: tuple[Rule, ...]
    skipped: tuple[SkippedRule, ...]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class _Meta(_Strict):
    action: Action
    why: str = pydantic.Field(min_length=1)
    owner: str = pydantic.Field(min_length=1)


class _Expectation(_Strict):
    name: str = pydantic.Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    type: str
    kwargs: dict[str, Any]
    meta: _Meta


class _SuiteFile(_Strict):
    schema_version: Literal[1]
    name: str
    max_quarantined_share: float = pydantic.Field(ge=0, le=1)
    expectations: tuple[_Expectation, ...]


def shipped_suites() -> tuple[str, ...]:
    """Names of the suites that come with the package, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


def load_suites(names: Sequence[str], roles: Mapping[str, str | None]) -> Suite:
    """Merge the common suite and the named ones, with roles replaced by the portfolio's columns.

    Args:
        names: Shipped suites by name, or JSON files by absolute path, in order. The common suite is always first,
            named or not.
        roles: Role (one of ROLES) -> column. A rule that names a role without a column is skipped, with the reason.

    Raises:
        ConfigError: A suite is missing or malformed, or an expectation is unknown, wrongly written, named twice or
            cannot quarantine; the message names the file and the expectation.
    """
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise ConfigError(f"role {unknown[0]!r} is unknown; {_nearest(unknown[0], ROLES)}")
    rules: dict[str, Rule] = {}
    skipped: list[SkippedRule] = []
    files = [_read_suite(name) for name in dict.fromkeys((COMMON_SUITE, *names))]
    for source, suite in files:
        for expectation in suite.expectations:
            where = f"{source}, expectation {expectation.name!r}"
            absent = _roles_without_column(expectation, roles, where)
            if absent:
                skipped.append(
                    SkippedRule(expectation.name, f"the portfolio names no {' and no '.join(absent)} column")
                )
                continue
            if expectation.name in rules:
                raise ConfigError(f"{where}: the name is taken in {rules[expectation.name].source}; rename one of them")
            rules[expectation.name] = _checked_rule(expectation, roles, source, where)
    return Suite(
        name=" + ".join(suite.name for _, suite in files),
        max_quarantined_share=files[-1][1].max_quarantined_share,
        rules=tuple(rules.values()),
        skipped=tuple(skipped),
    )


def build_expectation(rule: Rule) -> Expectation:
    """Make the Great Expectations object for a rule; its meta carries the rule's name.

    Raises:
        ConfigError: Great Expectations does not know the type or does not take the kwargs.
    """
    # Must be said before the import: it is read there. Imported here because it takes seconds.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations.expectations  # noqa: F401  the core expectations register themselves
    from great_expectations.expectations import registry

    where = f"{rule.source}, expectation {rule.name!r}"
    known = registry.list_registered_expectation_implementations()
    if rule.type not in known:
        raise ConfigError(f"{where}: Great Expectations has no type {rule.type!r}; {_nearest(rule.type, known)}")
    try:
        return registry.get_expectation_impl(rule.type)(**rule.kwargs, meta={"rule": rule.name})
    except ValueError as error:  # pydantic's own error, of whichever of its versions GX is built on, is a ValueError
        raise ConfigError(f"{where}: {rule.type} does not take these kwargs: {_one_line(error)}") from error


def _read_suite(name: str) -> tuple[str, _SuiteFile]:
    source, text = _read_text(name)
    document = _parse_json(text, source)
    try:
        return source, _SuiteFile.model_validate(document, strict=False)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{source}{_first_mistake(document, error)}") from error


def _parse_json(text: str, source: str) -> Any:
    try:
        document = json.loads(text)
        refuse_depth(document)
    except RecursionError:
        raise ConfigError(f"{source}: nests lists so deep that nobody reads it; a suite has 4 levels") from None
    except ValueError as error:  # of JSON, or of a number with thousands of digits
        raise ConfigError(f"{source}: not valid JSON, {error}") from error
    return document


def _read_text(name: str) -> tuple[str, str]:
    """Short name for messages, and the text, of a shipped suite or of a file."""
    if not name.endswith(".json"):
        if name not in shipped_suites():
            raise ConfigError(
                f"no suite {name!r} is shipped; {_nearest(name, shipped_suites())}, or give the absolute path of a "
                "JSON file"
            )
        return f"expectations/{name}.json", (resources.files(__name__) / f"{name}.json").read_text("utf-8")
    path = Path(name)
    if not path.is_absolute():
        raise ConfigError(f"suite {name!r}: expected an absolute path, or the name of a shipped suite without .json")
    try:
        return path.name, read_document(path).decode("utf-8")
    except (OSError, ValueError) as error:  # a wrong encoding is a ValueError, and so is what is too large
        raise ConfigError(f"suite {name!r} cannot be read: {error}") from error


def _first_mistake(suite: Any, error: pydantic.ValidationError) -> str:
    """The first thing wrong with a suite file, with the name of the expectation it is in."""
    mistake = error.errors(include_url=False)[0]
    location = list(mistake["loc"])
    where = ""
    if location[:1] == ["expectations"] and len(location) > 1:
        index = int(location[1])
        written = suite["expectations"][index]
        name = written.get("name", index) if isinstance(written, dict) else index
        where, location = f", expectation {name!r}", location[2:]
    key = ".".join(str(part) for part in location) or "the whole"
    return f"{where}: {key}: {mistake['msg']}, came {str(mistake['input'])[:80]!r}"


def _roles_without_column(expectation: _Expectation, roles: Mapping[str, str | None], where: str) -> list[str]:
    named = dict.fromkeys(_placeholders(expectation.kwargs.values()))
    for role in named:
        if role not in ROLES:
            raise ConfigError(f"{where}: ${{{role}}} is not a role; {_nearest(role, ROLES)}")
    return [role for role in named if roles.get(role) is None]


def _placeholders(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, list):
            yield from _placeholders(value)
        elif isinstance(value, str) and (match := _PLACEHOLDER.fullmatch(value)):
            yield match[1]


def _substitute(value: Any, roles: Mapping[str, str | None]) -> Any:
    if isinstance(value, list):
        return [_substitute(item, roles) for item in value]
    match = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    return roles[match[1]] if match else value


def _checked_rule(expectation: _Expectation, roles: Mapping[str, str | None], source: str, where: str) -> Rule:
    rule = Rule(
        name=expectation.name,
        type=expectation.type,
        kwargs={key: _substitute(value, roles) for key, value in expectation.kwargs.items()},
        action=expectation.meta.action,
        why=expectation.meta.why,
        owner=expectation.meta.owner,
        source=source,
    )
    build_expectation(rule)
    _refuse_unnamed_columns(rule, where)
    if rule.action == "quarantine":
        _refuse_unless_rows_are_known(rule, where)
    return rule


def _refuse_unnamed_columns(rule: Rule, where: str) -> None:
    """Great Expectations is shown the columns that rules name and no others: what reads more would read wrongly."""
    if rule.type.startswith("expect_table_column"):
        raise ConfigError(f"{where}: which columns there are is checked against the config, before any suite; drop it")
    if rule.type in _FREE_SQL or rule.kwargs.get("row_condition"):
        raise ConfigError(f"{where}: SQL or conditions of one's own are not supported; say it with a rule per column")


def _refuse_unless_rows_are_known(rule: Rule, where: str) -> None:
    if rule.type not in ROW_RULES:
        raise ConfigError(
            f"{where}: {rule.type} does not say which rows fail, so it cannot quarantine; make it stop or warn, or "
            f"use one of {', '.join(ROW_RULES)}"
        )
    extra = sorted(set(rule.kwargs) - ROW_RULES[rule.type])
    if extra:
        raise ConfigError(
            f"{where}: a quarantine rule of this type takes {', '.join(sorted(ROW_RULES[rule.type]))}, not "
            f"{extra[0]!r}; how many rows may go is the suite's max_quarantined_share"
        )
    if None in rule.kwargs.get("value_set", ()):
        raise ConfigError(f"{where}: value_set holds null, which no comparison meets; a missing value always passes")


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}" if close else f"known are {', '.join(names)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
