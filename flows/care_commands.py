"""Commands that look after what runs have left: clean, reproduce. Parse, call, print; exit codes are the CLI's."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossrisk.config import load_run
from crossrisk.errors import CrossriskError
from crossrisk.pages.texts import visible_text
from crossrisk.quiet import set_log_level
from flows.registry_commands import AddCommand


def add_care_commands(add: AddCommand) -> None:
    """Add the commands.

    Args:
        add: `add(name, help)` gives a parser that has CONFIG, --set and --json.
    """
    clean = add("clean", "remove stages and runs that nobody needs any more; nothing of the registry")
    clean.add_argument("--stages-days", metavar="N", help="days since a stage was used; default: retention.stages_days")
    clean.add_argument("--runs-days", metavar="N", help="days since a run ended; default: retention.runs_days")
    clean.add_argument("--dry-run", action="store_true", help="say what would be removed")
    clean.set_defaults(run=_clean)

    reproduce = add("reproduce", "re-derive every number published with a version from its recorded inputs")
    reproduce.add_argument("version", type=int, metavar="VERSION", help="as in history; pruned ones too")
    reproduce.add_argument("--keep", metavar="FOLDER", help="leave what was made there; default: removed")
    reproduce.set_defaults(run=_reproduce)


# --- clean ---


def _clean(options: argparse.Namespace) -> int:
    given = {"stages_days": options.stages_days, "runs_days": options.runs_days}
    days = [f"retention.{key}={value}" for key, value in given.items() if value is not None]
    loaded = load_run(options.config, os.environ, overrides=[*options.overrides, *days])
    from crossrisk.retention import plan_cleaning, remove_leftovers

    folders = loaded.folders
    chosen = plan_cleaning(loaded, now=time.time())
    gone = chosen.removed if options.dry_run else remove_leftovers(chosen.removed, folders)
    megabytes = sum(one.megabytes for one in gone)
    if options.json:
        document = {
            "schema_version": 1,
            "portfolio": loaded.portfolio.name,
            "dry_run": options.dry_run,
            "megabytes": round(megabytes, 3),
            "removed": [one.to_json() for one in gone],
            "kept": {str(path): why for path, why in chosen.kept.items()},
        }
        print(json.dumps(document, allow_nan=False))
        return 0
    verb = "would be removed" if options.dry_run else "removed"
    lines = []
    for one in gone:
        day = time.strftime("%Y-%m-%d", time.gmtime(one.used_unix_s))
        said = f"{verb}: {one.kind}, last used {day}, {one.megabytes:.1f} MB"
        lines.append(f"{one.path.relative_to(folders.work)}  {said}")
    lines += [f"{path.relative_to(folders.work)}  stays: {why}" for path, why in chosen.kept.items()]
    kinds = Counter(one.kind for one in gone)
    counted = ", ".join(f"{count} of kind {kind}" for kind, count in kinds.items()) or "nothing"
    print(visible_text("\n".join([*lines, f"{counted} {verb}, {megabytes:.1f} MB"])))
    return 0


# --- reproduce ---


def _reproduce(options: argparse.Namespace) -> int:
    load_run(options.config, os.environ, overrides=options.overrides)  # refused before Prefect is imported
    set_log_level(os.environ, "WARNING" if options.json else "INFO")
    from flows.reproduce import reproduce

    keep = str(Path(options.keep).resolve()) if options.keep else ""
    result: dict[str, Any] = reproduce(options.config, options.version, keep=keep, overrides=options.overrides)
    if options.json:
        print(json.dumps(result, allow_nan=False))
    else:
        _show_reproduction(result)
    return 0 if result["reproduced"] else CrossriskError.exit_code


def _show_reproduction(result: Mapping[str, Any]) -> None:
    from rich.table import Table

    from flows.screen import open_console, plain

    console = open_console()
    table = Table(title=f"{result['portfolio']}, version {result['version']}", title_style="bold")
    for name in ("published", "recorded", "re-derived", "difference", "same"):
        table.add_column(name, no_wrap=True)
    for line in result["lines"]:
        difference = "" if line["difference"] is None else f"{line['difference']:.1e}"
        cells = (line["name"], _value_text(line["recorded"]), _value_text(line["derived"]), difference)
        table.add_row(*map(plain, cells), "✓" if line["same"] else "✗", style=None if line["same"] else "bold")
    console.print(table)
    for warning in result["warnings"]:
        console.print(plain(f"note: {warning}"), soft_wrap=True)
    differing = [line["name"] for line in result["lines"] if not line["same"]]
    count = len(result["lines"])
    said = f"differ: {', '.join(differing)}" if differing else f"all {count} came out again"
    console.print(plain(said), soft_wrap=True)
    if result["folder"]:
        console.print(plain(f"kept     {result['folder']}"), soft_wrap=True)


def _value_text(value: Any) -> str:
    from crossrisk.pages.texts import DASH, metric_text

    if isinstance(value, Mapping):
        return metric_text(value, 6)
    return DASH if value is None else str(value)[:16]
