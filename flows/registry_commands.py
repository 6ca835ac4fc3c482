"""Commands about what was published: history, verify, rollback, prune, serving, canary.

Parse, call, print; exit codes are the CLI's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from crossrisk.config import Loaded, load_run
from crossrisk.errors import CrossriskError, InputError
from crossrisk.pages.texts import visible_text
from crossrisk.registry import Registry, locked
from crossrisk.registry.ledger import champion_in, kind_of, signed
from crossrisk.registry.protocol import prune_versions
from crossrisk.registry.pruning import Pruning, choose_versions, held
from crossrisk.registry.serving import labelled_versions

KEEP_VERSIONS = 12
"""A year of monthly versions."""

AddCommand = Callable[..., argparse.ArgumentParser]


def add_registry_commands(add: AddCommand) -> None:
    """Add the commands.

    Args:
        add: `add(name, help)` gives a parser that has CONFIG, --set and --json.
    """
    history = add("history", "every decision, rollback and pruning: when, what, which version, who and why")
    history.set_defaults(run=_history)

    verify = add("verify", "check digests, the ledger's chain, signature and golden batch of the champion")
    verify.add_argument("--all", action="store_true", dest="all_versions", help="of all versions, not of the champion")
    verify.set_defaults(run=_verify)

    rollback = add("rollback", "make an earlier version answer again, under a new number, after verifying it")
    rollback.add_argument("--to", type=int, metavar="V", help="default: the champion before the last decision")
    rollback.add_argument("--by", required=True, metavar="NAME", help="typed, not authenticated")
    rollback.add_argument("--reason", required=True, metavar="TEXT", help="kept in the ledger")
    rollback.set_defaults(run=_rollback)

    prune = add("prune", "remove old versions; never the champion, the one before, a labelled one or one being read")
    prune.add_argument("--keep", type=int, default=KEEP_VERSIONS, metavar="N", help=f"default {KEEP_VERSIONS}")
    prune.add_argument("--by", required=True, metavar="NAME", help="typed, not authenticated")
    prune.add_argument("--dry-run", action="store_true", help="say what would be removed, and why the others stay")
    prune.set_defaults(run=_prune)

    serving = add("serving", "write a server's configuration, say where it is, and move its label to a new version")
    step = serving.add_mutually_exclusive_group()
    step.add_argument(
        "--server",
        nargs="?",
        const="",
        metavar="URL",
        help="wait until this TF Serving has loaded the champion and its label names it; without URL: publish.server",
    )
    step.add_argument("--advance", action="store_true", help="move the label without asking: you have looked yourself")
    serving.add_argument("--timeout", type=float, metavar="S", help="seconds for each of two waits; default 120")
    serving.set_defaults(run=_serving)

    canary = add("canary", "serve a pending challenger as a second model, beside the champion, or end that")
    change = canary.add_mutually_exclusive_group(required=True)
    change.add_argument("--run", metavar="RUN", dest="run_id", help="as under registry/.../pending")
    change.add_argument("--end", action="store_true", help="take it out of service and remove its copy")
    canary.add_argument("--by", required=True, metavar="NAME", help="typed, not authenticated")
    canary.set_defaults(run=_canary)


def _load(options: argparse.Namespace) -> tuple[Loaded, Registry]:
    loaded = load_run(options.config, os.environ, overrides=options.overrides)
    return loaded, Registry(loaded.folders.registry)


def _load_published(options: argparse.Namespace) -> tuple[Loaded, Registry]:
    """As `_load`; a portfolio that has no registry gets none by being asked about.

    Raises:
        InputError: there is none.
    """
    loaded, registry = _load(options)
    if not registry.root.is_dir():
        raise InputError(f"nothing was published yet: {registry.root} is not there; crossrisk retrain comes first")
    return loaded, registry


def _print(options: argparse.Namespace, document: Mapping[str, Any], lines: Sequence[str]) -> None:
    print(
        json.dumps({"schema_version": 1, **document}, allow_nan=False)
        if options.json
        else visible_text("\n".join(lines))
    )


# --- history ---


def _history(options: argparse.Namespace) -> int:
    loaded, registry = _load(options)
    records = registry.records()
    if options.json:
        _print(options, {"portfolio": loaded.portfolio.name, "records": records}, [])
    else:
        from flows.screen import show_history

        show_history(loaded.portfolio.name, [history_line(record) for record in records], champion_in(records))
    return 0


def history_line(record: Mapping[str, Any]) -> dict[str, str]:
    """A line of the ledger in words: when, as_of, what, version, who, why."""
    kind = kind_of(record)
    verdict = record.get("decision", {}).get("verdict", "")
    what = {"decision": verdict, "ruling": f"{record.get('settles', '')} -> {verdict}"}.get(kind, kind)
    if kind == "rollback":
        what = f"rollback to {record['restores']}"
    elif kind == "canary":
        what = f"canary {record['canary']} {'ended' if record['ended'] else 'begun'}"
    who = record.get("by") or record.get("ruling", {}).get("by") or record.get("requested_by") or ""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime(record.get("at_unix_s", 0))),
        "as of": str(record.get("as_of") or ""),
        "what": what,
        "version": str(record.get("version") or ""),
        "who": str(who),
        "why": _why(record),
    }


def _why(record: Mapping[str, Any]) -> str:
    if kind_of(record) == "prune":
        return f"removed {', '.join(map(str, record['pruned']))}"
    if kind_of(record) == "canary":
        return f"challenger of run {record['run_id']}"
    if "ruling" in record:
        return str(record["ruling"]["reason"])
    return str(record.get("reason") or "; ".join(record.get("decision", {}).get("reasons", ())))


# --- verify ---


def _verify(options: argparse.Namespace) -> int:
    loaded, registry = _load(options)
    from flows.screen import show_finding
    from tasks.audit import audit

    show = (lambda finding: None) if options.json else show_finding
    findings = audit(registry, all_versions=options.all_versions, on_finding=show)
    broken = [finding for finding in findings if not finding.holds]
    said = f"{len(findings)} checks, {len(broken)} do not hold" if broken else f"all {len(findings)} checks hold"
    document = {
        "portfolio": loaded.portfolio.name,
        "holds": not broken,
        "findings": [finding.to_json() for finding in findings],
    }
    _print(options, document, [said])
    return CrossriskError.exit_code if broken else 0


# --- rollback, prune ---


def _rollback(options: argparse.Namespace) -> int:
    loaded, registry = _load_published(options)
    from tasks.rollback import roll_back
    from tasks.serving import follow_publication

    done = roll_back(registry, to=options.to, by=options.by, reason=options.reason, now=time.time())
    if done.taken_back is None:
        said = f"version {done.version} already answers with the content of {done.restores}; nothing was done"
    else:
        said = f"version {done.version} answers: version {done.restores} again, instead of {done.taken_back}"
    served = follow_publication(loaded)  # also of a rollback that was done before: a server may still have to follow
    document = {"version": done.version, "restores": done.restores, "taken_back": done.taken_back, "serving": served}
    _print(options, document, [said, *filter(None, [served])])
    return 0


def _prune(options: argparse.Namespace) -> int:
    _, registry = _load_published(options)
    by = signed(options.by, "a pruning")
    # a dry run only reads, and so waits for nobody
    with nullcontext() if options.dry_run else locked(registry), held(registry, registry.versions()) as unread:
        chosen = _choose_pruned(registry, options.keep, unread)
        if chosen.removed and not options.dry_run:
            record = {"kind": "prune", "version": None, "pruned": list(chosen.removed), "by": by}
            prune_versions(registry, chosen.removed, {**record, "at_unix_s": int(time.time())})
    verb = "would be removed" if options.dry_run else "removed"
    lines = [f"{version}  {verb}" for version in chosen.removed]
    lines += [f"{version}  stays: {why}" for version, why in chosen.kept.items()]
    _print(options, {"removed": chosen.removed, "kept": chosen.kept, "dry_run": options.dry_run}, lines)
    return 0


def _choose_pruned(registry: Registry, keep: int, unread: Collection[int]) -> Pruning:
    registry.champion()  # a damaged registry is no place to remove from
    present = registry.versions()
    try:
        return choose_versions(
            present,
            registry.records(),
            keep=keep,
            labelled=labelled_versions(registry),
            is_read=set(present) - set(unread),
        )
    except ValueError as error:
        raise InputError(str(error)) from error


# --- serving, canary ---


def _serving(options: argparse.Namespace) -> int:
    loaded, registry = _load_published(options)
    from crossrisk.registry.serving import canary_left_over, canary_name, config_path, model_name, running_canary
    from tasks.serving import WAIT_S, advance_unasked, bring_in, configure

    timeout_s = WAIT_S if options.timeout is None else options.timeout
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise InputError(f"expected --timeout to be a number of seconds above 0, got {timeout_s:g}")

    serving = configure(registry, loaded.portfolio.publish.serving)
    if options.advance:
        serving = advance_unasked(registry)
    elif options.server is not None:
        server = options.server or loaded.portfolio.publish.server
        if not server:
            raise InputError("--server needs a URL here: publish.server is not set in the portfolio's TOML")
        serving = bring_in(registry, server, timeout_s=timeout_s, say=_say)
    records = registry.records()
    canary, left_over = running_canary(registry, records), canary_left_over(registry, records)
    document = {"portfolio": loaded.portfolio.name, **serving.to_json(), "canary": canary, "note": left_over}
    lines = [f"{model_name(registry)} ({serving.way}): stable is {serving.stable or 'none yet'}"]
    if serving.arriving:
        lines.append(f"{serving.arriving} is arriving: stable moves once a server has loaded it (--server URL)")
    if serving.leaving:
        lines.append(f"{serving.leaving} stays loaded until the next publication")
    if canary:
        lines.append(f"{canary_name(registry)}: {canary}")
    if left_over:
        lines.append(left_over)
    if serving.stable:
        lines.append(f"configuration: {config_path(registry)}")
    _print(options, document, lines)
    return 0


def _canary(options: argparse.Namespace) -> int:
    _, registry = _load_published(options)
    from tasks.canary import begin_canary, end_canary

    if options.end:
        canary = end_canary(registry, by=options.by, now=time.time())
        said = f"canary {canary.number} (run {canary.run_id}) ended; {canary.model} leaves the configuration"
    else:
        canary = begin_canary(registry, options.run_id, by=options.by, now=time.time())
        said = f"canary {canary.number}, the challenger of run {canary.run_id}, is configured as {canary.model}"
    document = {"canary": canary.number, "model": canary.model, "run_id": canary.run_id, "ended": options.end}
    _print(options, document, [said])
    return 0


def _say(text: str) -> None:
    print(visible_text(text), file=sys.stderr)
