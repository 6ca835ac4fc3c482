"""A start for one's own data: look at a Parquet file, write a portfolio and a suite, say what was concluded.

Here are the edges: where the data lie, what was asked, which files are written, what the terminal shows. Conclusions
are `crossrisk.profiling`, the text is `crossrisk.drafting`. Data are read and never written: a row id or a label that
is not there is asked for, with the line that makes it.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from crossrisk.columns import FEATURE_ROLES, KEY_ROLES, Role
from crossrisk.drafting import Draft, Place, Populations, draft_portfolio
from crossrisk.errors import ConfigError, InputError
from crossrisk.populations import check_values, count_populations, parse_targets, split_assignment, write_rules
from crossrisk.profiling import Profile, Told, profile_table
from crossrisk.store import write_text

WIDTH = 118
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Question:
    """What a person asked; an empty string is a question left open."""

    data: str
    """file or folder, as it is or below CROSSRISK_DATA"""
    targets: tuple[str, ...] = ()
    """COLUMN=VALUE each"""
    label: str = ""
    """COLUMN, or COLUMN=VALUE with the value that means bad"""
    id: str = ""
    decision_date: str = ""
    name: str = ""


@dataclass(frozen=True)
class Start:
    """What was written, and what it was concluded from."""

    name: str
    data: str
    draft: Draft
    populations: Populations | None
    config: Path
    suite: Path

    @property
    def next_command(self) -> str:
        """What to type next."""
        if self.populations is None:
            return f"crossrisk init {shlex.quote(self.data)} --target COLUMN=VALUE --name {self.name} --force"
        return f"crossrisk retrain {shlex.quote(str(self.config))}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        profile = self.draft.profile
        counts = self.populations.counts if self.populations else {}
        return {
            "schema_version": 1,
            "portfolio": self.name,
            "data": self.data,
            "rows": profile.rows,
            "bads": profile.bads,
            "goods": profile.goods,
            "columns": [column.to_json() for column in profile.columns],
            "populations": {name: asdict(count) for name, count in counts.items()},
            "notes": list(self.draft.notes),
            "paths": {"config": str(self.config), "suite": str(self.suite)},
            "next": self.next_command,
        }


def start_portfolio(question: Question, out: Path, environ: Mapping[str, str], *, force: bool = False) -> Start:
    """Draft a portfolio from data and write `<name>.toml` and `<name>.expectations.json` into a folder.

    Raises:
        InputError: no such data, not readable as one table, or no portfolio can be made of them as asked.
        ConfigError: a name that no portfolio may have, or files that are there already and `force` was not given.
    """
    files, place = find_data(question.data, environ)
    name = question.name or _default_name(place)
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: expected a lower-case letter, then up to 62 letters, digits, underscores")
    config, suite = out / f"{name}.toml", out / f"{name}.expectations.json"
    there = [path for path in (config, suite) if path.exists()]
    if there and not force:
        raise ConfigError(f"{there[0]} is there already; choose another --name or --out, or write over it with --force")
    try:
        draft, populations = _draft(question, files, place, name, suite.name)
    except ValueError as error:
        raise InputError(f"{question.data}: {error}") from error
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{question.data}: not readable as one Parquet table: {error}") from error
    write_text(suite, json.dumps(draft.suite, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(config, draft.toml)
    return Start(name, question.data, draft, populations, config, suite)


def _draft(
    question: Question, files: Sequence[Path], place: Place, name: str, suite_file: str
) -> tuple[Draft, Populations | None]:
    is_hive = "=" in files[0].parent.name
    rows = pl.scan_parquet(list(files), hive_partitioning=is_hive, glob=False, extra_columns="ignore")
    rows = rows.with_columns(cs.by_dtype(pl.Categorical, pl.Enum).cast(pl.String))  # as ingest does
    schema = rows.collect_schema()
    targets = parse_targets(question.targets, schema)
    check_values(rows, targets)
    told = Told(
        label=_label_column(question.label, schema),
        id=question.id or None,
        decision_date=question.decision_date or None,
        population=tuple(targets),
    )
    profile = profile_table(rows, told)
    populations = _populations(rows, profile, targets) if targets else None
    draft = draft_portfolio(
        profile, populations, place=place, name=name, suite_file=suite_file, delivered=_delivered(files)
    )
    return draft, populations


def _populations(rows: pl.LazyFrame, profile: Profile, targets: Mapping[str, Sequence[Any]]) -> Populations:
    label, decision_date = profile.the("label"), profile.the("decision_date")
    assert label is not None, "a profile has a label"
    rules = write_rules(targets)
    dated = decision_date.name if decision_date else None
    return Populations(rules, count_populations(rows, rules, label=label.name, decision_date=dated))


def _label_column(asked: str, schema: Mapping[str, pl.DataType]) -> str | None:
    """The label's column. A portfolio reads 0 and 1, so another coding is refused with the line that recodes it."""
    if not asked or asked in schema:
        return asked or None
    column, value = split_assignment(asked, schema, flag="--label")
    if (schema[column].is_numeric() or schema[column] == pl.Boolean) and value.lower() in ("1", "true"):
        return column
    raise ValueError(
        f"the label must be a column of 1 = bad and 0 = good, and init writes no data. Make one with polars, and run "
        f"init on the new file: polars.scan_parquet(DATA).with_columns((polars.col({column!r}).cast(polars.String) == "
        f"{value!r}).cast(polars.Int8).alias('bad')).sink_parquet(NEW)"
    )


def _delivered(files: Sequence[Path]) -> date:
    return datetime.fromtimestamp(max(file.stat().st_mtime for file in files), UTC).date()


# --- where the data lie ---


def find_data(data: str, environ: Mapping[str, str]) -> tuple[list[Path], Place]:
    """The Parquet files, and how a portfolio names their place: below CROSSRISK_DATA, else with their own root.

    Raises:
        InputError: nothing there, or only names that ingest skips.
    """
    home = Path(environ.get("CROSSRISK_HOME") or ".").resolve()
    common_root = (home / (environ.get("CROSSRISK_DATA") or "data")).resolve()
    place = next((path for path in (Path(data), common_root / data) if path.exists()), None)
    if place is None:
        raise InputError(f"no file or folder {data!r}, neither here nor below {common_root}")
    place = place.resolve()
    root = common_root if _is_seen_from(common_root, place) else place.parent
    found = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    files = [file for file in found if _is_seen_from(root, file)]
    if not files:
        raise InputError(f"{data}: no Parquet file there whose name and folders start with neither '.' nor '_'")
    return files, Place(path=str(place.relative_to(root)), root=_written_root(root, common_root, home))


def _is_seen_from(root: Path, path: Path) -> bool:
    """Whether ingest, looking below a root, would not skip the path as hidden."""
    if path == root or not path.is_relative_to(root):
        return False
    return not any(part.startswith((".", "_")) for part in path.relative_to(root).parts)


def _written_root(root: Path, common_root: Path, home: Path) -> str | None:
    if root == common_root:
        return None
    return str(root.relative_to(home)) if root.is_relative_to(home) else str(root)


def _default_name(place: Place) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", Path(place.path).stem.lower()).strip("_")[:50]
    return slug if slug[:1].isalpha() else f"portfolio_{slug}".strip("_")


# --- what the terminal shows ---

GROUPS: tuple[Role, ...] = ("numeric", "category", "date", "protected")
"""roles shown as one line with all their columns; the others have a line a column, with the reason"""


def describe_start(start: Start) -> str:
    """The conclusions, aligned; then what to look at, what was written and what to type next."""
    profile = start.draft.profile
    lines = [
        f"{start.data}: {profile.rows:,} rows, {len(profile.columns)} columns, {profile.bads:,} bads, "
        f"{profile.goods:,} goods",
        "",
        *_aligned([*_key_lines(start), *_group_lines(profile), *_left_out_lines(profile)]),
    ]
    if start.draft.notes:
        lines += ["", "look at:", *(line for note in start.draft.notes for line in _wrapped(f"- {note}", "  "))]
    closing = [("wrote", str(start.config)), ("", str(start.suite)), ("next", start.next_command)]
    return "\n".join([*lines, "", *(f"{word:<6}{text}" for word, text in closing)])


def _key_lines(start: Start) -> Iterator[tuple[str, str]]:
    for column in start.draft.profile.of(*KEY_ROLES):
        yield column.role, f"{_shown(column.name)}: {column.reason}"
    if start.populations:
        for name, count in start.populations.counts.items():
            if count.rows:
                yield name, f"{count.rows:,} rows, {count.bads:,} bads"


def _group_lines(profile: Profile) -> Iterator[tuple[str, str]]:
    for role in GROUPS:
        columns = profile.of(role)
        if columns:
            yield f"{role} ({len(columns)})", ", ".join(_shown(column.name) for column in columns)
    coded = [column for column in profile.of("numeric") if column.sentinels]
    if coded:
        said = (f"{_shown(c.name)} {', '.join(f'{code:g}' for code in c.sentinels)}" for c in coded)
        yield "codes for missing", "; ".join(said)


def _left_out_lines(profile: Profile) -> Iterator[tuple[str, str]]:
    for column in profile.columns:
        if column.role not in (*KEY_ROLES, *FEATURE_ROLES, "protected"):
            yield column.role, f"{_shown(column.name)} left out: {column.reason}"


def _shown(name: str) -> str:
    """A name that cannot steer a terminal."""
    return name if name.isprintable() else repr(name)


def _aligned(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(word) for word, _ in lines) + 2
    for word, text in lines:
        yield from _wrapped(f"{word:<{width}}{text}", " " * width)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
