"""Commands that look after what runs have left: clean, reproduce. Parse, call, print; exit codes are the CLI's."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter

from crossrisk.config import load_run
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
    for one in gone:
        day = time.strftime("%Y-%m-%d", time.gmtime(one.used_unix_s))
        print(f"{one.path.relative_to(folders.work)}  {verb}: {one.kind}, last used {day}, {one.megabytes:.1f} MB")
    for path, why in chosen.kept.items():
        print(f"{path.relative_to(folders.work)}  stays: {why}")
    kinds = Counter(one.kind for one in gone)
    counted = ", ".join(f"{count} of kind {kind}" for kind, count in kinds.items()) or "nothing"
    print(f"{counted} {verb}, {megabytes:.1f} MB")
    return 0
