"""A start for one's own data: look at a Parquet file, write a portfolio and a suite, say what was concluded.

Here are the edges: where the data lie, what was asked, which files are written, what the terminal shows. Conclusions
are `crossrisk.starting.profiling`, the text is `crossrisk.starting.drafting`. Data are read and never written: a row id
or a label that is not there is asked for, with the line that makes it.
"""

from __future__ import annotations

import difflib
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

from crossrisk.errors import ConfigError, InputError
from crossrisk.starting.columns import FEATURE_ROLES, KEY_ROLES, Role
from crossrisk.starting.drafting import Draft, Place, Populations, draft_portfolio
from crossrisk.starting.populations import (
    check_values,
    count_populations,
    parse_targets,
    parse_value,
    split_assignment,
    write_rules,
)
from crossrisk.starting.profiling import Profile, Told, profile_table
from crossrisk.store import write_text

WIDTH = 118
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
SEPARATED = frozenset({".csv", ".tsv", ".txt"})
"""Suffixes of files that Polars makes Parquet of in one line."""


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
            "renamed": {one.ours: one.theirs for one in profile.renamed},
            "populations": {name: asdict(count) for name, count in counts.items()},
            "notes": list(self.draft.notes),
            "paths": {"config": str(self.config), "suite": str(self.suite)},
            "next": self.next_command,
        }


def start_portfolio(question: Question, out: Path, environ: Mapping[str, str], *, force: bool = False) -> Start:
    """Draft a portfolio from data and write `<name>.toml` and `<name>.expectations.json` into a folder.

    Raises:
        InputError: no such data, not readable as one table, or no portfolio can be made of them as asked.
        ConfigError: a name that no portfolio may have, files that are there already and `force` was not given, or a
            folder that cannot be written.
    """
    try:
        files, place = find_data(question.data, environ)
    except OSError as error:
        raise InputError(f"{question.data}: cannot be read: {error.strerror}; give a file that you may read") from error
    name = question.name or _default_name(place)
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--name {name!r}: expected a lower-case letter, then up to 62 lower-case letters, digits, underscores; "
            "give another --name"
        )
    config, suite = out / f"{name}.toml", out / f"{name}.expectations.json"
    there = [path for path in (config, suite) if path.exists()]
    if there and not force:
        raise ConfigError(f"{there[0]} is there already; choose another --name or --out, or write over it with --force")
    try:
        draft, populations = _draft(question, files, place, name, suite.name)
    except ValueError as error:
        raise InputError(f"{question.data}: {error}") from error
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{question.data}: {_why_unreadable(files, error)}") from error
    try:
        write_text(suite, json.dumps(draft.suite, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        write_text(config, draft.toml)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot write there: {error.strerror}; choose another folder") from error
    return Start(name, question.data, draft, populations, config, suite)


def _why_unreadable(files: Sequence[Path], error: pl.exceptions.PolarsError) -> str:
    said = str(error).split("\n", 1)[0]
    if len(files) == 1:
        return f"not readable as Parquet (truncated or corrupt): {said}; deliver it again"
    return (
        f"expected one table, came {len(files)} files that do not fit together: {said}; name one file, or a folder "
        "whose files have the same columns of the same types"
    )


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
        label=_label_column(question.label, rows, schema),
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
    return Populations(targets, count_populations(rows, rules, label=label.name, decision_date=dated))


def _label_column(asked: str, rows: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> str | None:
    """The label's column. A portfolio reads 0 and 1, so another coding is refused with the line that recodes it."""
    if asked in schema or "=" not in asked:
        return asked or None  # whether there is such a column is the profile's to say
    column, text = split_assignment(asked, schema, flag="--label")
    bad = parse_value(text, schema[column], column)
    check_values(rows, {column: [bad]})
    held = (
        rows.select(cs.by_name(column).unique().sort()).collect(engine="streaming").to_series().drop_nulls().to_list()
    )
    others = [value for value in held if value != bad]
    if bad == 1 and others == [0]:
        return column
    raise ValueError(_how_to_recode(column, bad, others, schema))


def _how_to_recode(column: str, bad: Any, others: Sequence[Any], schema: Mapping[str, pl.DataType]) -> str:
    label = "bad" if column == "bad" or "bad" not in schema else "is_bad"
    drop = "" if column == label else f".drop({column!r})"
    shown = ", ".join(repr(value) for value in others[:5]) + (", ..." if len(others) > 5 else "")
    return (
        f"expected a label of 1 = bad and 0 = good, came {column!r} with {bad!r} = bad, and init writes no data. Make "
        f"one with polars, and run init on the new file with --label {label}: polars.scan_parquet(DATA).with_columns("
        f"{label}=polars.col({column!r}) == {bad!r}){drop}.sink_parquet(NEW). Every other value ({shown}) is good "
        "then, and a missing one unknown: leave out first what is still undecided"
    )


def _delivered(files: Sequence[Path]) -> date:
    return datetime.fromtimestamp(max(file.stat().st_mtime for file in files), UTC).date()


# --- where the data lie ---


def find_data(data: str, environ: Mapping[str, str]) -> tuple[list[Path], Place]:
    """The Parquet files, and how a portfolio names their place: below CROSSRISK_DATA, else with their own root.

    Raises:
        InputError: nothing there, only names that ingest skips, or files that are no Parquet.
    """
    home = Path(environ.get("CROSSRISK_HOME") or ".").resolve()
    common_root = (home / (environ.get("CROSSRISK_DATA") or "data")).resolve()
    place = next((path for path in (Path(data), common_root / data) if path.exists()), None)
    if place is None:
        raise InputError(
            f"no file or folder {data!r}, neither here nor below {common_root}, where CROSSRISK_DATA (default: data/) "
            f"points{_nearest_file(Path(data), common_root / data)}; correct the path, or set CROSSRISK_DATA"
        )
    place = place.resolve()
    root = common_root if _is_seen_from(common_root, place) else place.parent
    found = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    files = [file for file in found if _is_seen_from(root, file)]
    if not files:
        raise InputError(
            f"{data}: no Parquet file there (*.parquet) whose name and folders start with neither '.' nor '_'"
            f"{_of_another_kind(place)}"
        )
    for file in files:
        _refuse_other_formats(file)
    return files, Place(path=str(place.relative_to(root)), root=_written_root(root, common_root, home))


def _nearest_file(*wanted: Path) -> str:
    for path in wanted:
        there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, there, n=1)
        if close:
            return f"; the nearest is {str(path.parent / close[0])!r}"
    return ""


def _of_another_kind(folder: Path) -> str:
    other = next((file for file in sorted(folder.glob("*")) if file.suffix.lower() in SEPARATED), None)
    return f"; {_how_to_convert(other)}" if other else "; name the file, or the folder that holds it"


def _refuse_other_formats(file: Path) -> None:
    with file.open("rb") as opened:
        begins = opened.read(4)
    if begins != b"PAR1":
        came = f"a file that begins with {begins!r}" if begins else "an empty file"
        hint = _how_to_convert(file) if file.suffix.lower() in SEPARATED else "export it as Parquet first"
        raise InputError(f"{file}: expected Parquet, came {came}; {hint}")


def _how_to_convert(file: Path) -> str:
    separator = ', separator="\\t"' if file.suffix.lower() == ".tsv" else ""
    old, new = (json.dumps(str(path), ensure_ascii=False) for path in (file, file.with_suffix(".parquet")))
    code = f"import polars; polars.scan_csv({old}{separator}, try_parse_dates=True).sink_parquet({new})"
    return f"of {file.name} Parquet is made by: python -c {shlex.quote(code)}"


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
    if profile.renamed:
        said = (f"{one.ours} = {_shown(one.theirs)}" for one in profile.renamed)
        yield "name here = theirs", "; ".join(said)
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
