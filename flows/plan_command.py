"""`crossrisk plan`: what a version makes of the raw columns, as a table, as sentences about one column, or drawn."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from crossrisk.config import load_run
from crossrisk.errors import InputError
from crossrisk.features.explaining import Way, describe_ways, find_ways
from crossrisk.pages.plan_drawing import draw_plan
from crossrisk.pages.texts import visible_text
from crossrisk.registry import Registry
from crossrisk.registry.asking import find_version, plan_of
from crossrisk.store import digest_of, write_text
from flows.registry_commands import AddCommand

FEATURE_WIDTH, RAW_WIDTH = 32, 44


def add_plan_command(add: AddCommand) -> None:
    """Add the command.

    Args:
        add: `add(name, help)` gives a parser that has CONFIG, --set and --json.
    """
    plan = add("plan", "what a version makes of the raw columns: all features, one column's way, or a drawing")
    plan.add_argument("--version", type=int, metavar="V", help="as in history; default: the champion")
    plan.add_argument("--column", metavar="NAME", help="a raw column, a feature or a column of the encoded matrix")
    plan.add_argument("--draw", type=Path, metavar="FILE.svg", help="write a drawing there")
    plan.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> int:
    loaded = load_run(options.config, os.environ, overrides=options.overrides)
    registry = Registry(loaded.folders.registry)
    version = find_version(registry, options.version)
    plan = plan_of(registry, version)
    try:
        ways = find_ways(plan, options.column) if options.column else describe_ways(plan)
    except ValueError as error:
        raise InputError(f"--column: {error}") from error
    title = f"Feature plan of version {version.version} of {loaded.portfolio.name}"
    if options.draw:
        if not options.draw.parent.is_dir():
            raise InputError(
                f"--draw {options.draw}: there is no folder {options.draw.parent}; make it, or name another"
            )
        write_text(options.draw, draw_plan(ways, title))
    if options.json:
        document = {
            "schema_version": 1,
            "portfolio": loaded.portfolio.name,
            "version": version.version,
            "digest": digest_of(plan.model_dump(mode="json")),
            "outputs": len(plan.columns),
            "ways": [way.to_json() for way in ways],
            "drawing": str(options.draw) if options.draw else None,
        }
        print(json.dumps(document, allow_nan=False))
        return 0
    lines = _sentences(ways) if options.column else _table(ways)
    head = f"{title}: {len(plan.rows.raw_columns)} raw columns, {len(plan.columns)} columns of the matrix"
    drawn = [f"drawn: {options.draw}"] if options.draw else []
    print(visible_text("\n".join([head, "", *lines, *drawn])))
    return 0


def _table(ways: Sequence[Way]) -> list[str]:
    rows = [("feature", "made of", "enters the matrix as")]
    for way in ways:
        enters = f"dropped: {way.dropped}" if way.dropped else "; and ".join(step.sentence for step in way.steps)
        rows.append((way.feature, ", ".join(way.raw), enters))
    widths = [min(most, max(len(row[i]) for row in rows)) for i, most in enumerate((FEATURE_WIDTH, RAW_WIDTH))]
    return [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows]


def _sentences(ways: Sequence[Way]) -> list[str]:
    lines = []
    for way in ways:
        lines += [way.feature, f"  made of    {', '.join(way.raw)}", f"  how        {way.made}"]
        lines += [f"  dropped    {way.dropped}"] if way.dropped else []
        for step in way.steps:
            shown = ", ".join(step.outputs[:5])
            more = f" and {len(step.outputs) - 5} more" if len(step.outputs) > 5 else ""
            lines += [f"  enters as  {step.sentence}", f"             {shown}{more}"]
    return lines
