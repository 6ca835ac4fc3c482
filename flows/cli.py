"""The command line: parse, call one flow, print the outcome, end with its exit code.

0 any completed decision, 2 bad input or config, 3 blocked by validation, 4 failed. With --json, standard output holds
one JSON object and nothing else. Imports of Prefect and below happen inside the commands: --help needs none of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossrisk.config import load_run
from crossrisk.errors import CrossriskError, InputError
from crossrisk.pages.texts import visible_text
from crossrisk.quiet import make_quiet, set_log_level
from flows.care_commands import add_care_commands
from flows.plan_command import add_plan_command
from flows.registry_commands import add_registry_commands
from flows.score_command import add_score_command

JSON_KEYS = (
    "schema_version", "run_id", "portfolio", "as_of", "verdict", "reasons", "version", "decided_by", "contenders",
    "paths", "seconds",
)  # fmt: skip

MONITOR_KEYS = (
    "schema_version", "run_id", "portfolio", "as_of", "month", "champion", "light", "reasons", "volumes", "score_psi",
    "hidden", "feature_psi", "performance", "paths",
)  # fmt: skip
FEATURES_PRINTED = 10
"""by `monitor --json`, largest PSI first; all are in the report's JSON twin"""

_JSON_HELP = "print one JSON object on standard output"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `crossrisk`."""
    make_quiet(os.environ)
    options = command_parser().parse_args(arguments)
    before = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        _refuse_unwritable(options)
        code: int = options.run(options)
        sys.stdout.flush()  # here and not in the interpreter's last breath, where nobody can answer for it
        return code
    except BrokenPipeError as error:
        if _reader_has_gone():
            return _end_quietly()
        return _fail(options, type(error).__name__, str(error), CrossriskError.exit_code)
    except CrossriskError as error:
        return _fail(options, type(error).__name__, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(options, "Interrupted", "interrupted; finished stages are kept, run again to go on", 130)
    except Exception as error:
        logging.getLogger("crossrisk").debug("failed", exc_info=True)
        return _fail(options, type(error).__name__, str(error), CrossriskError.exit_code)
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_unwritable(options: argparse.Namespace) -> None:
    """Names and reasons are kept in the ledger, which is UTF-8: other bytes arrive here as lone surrogates.

    Raises:
        InputError: one of them holds some.
    """
    for name, flag in {"by": "--by", "requested_by": "--by", "reason": "--reason"}.items():
        try:
            (getattr(options, name, None) or "").encode()
        except UnicodeEncodeError:
            raise InputError(f"{flag} is no UTF-8, as the ledger is; type it in a UTF-8 locale") from None


def _exit_on_signal(number: int, _: object) -> None:
    """End as by an exit: without it the server that Prefect starts for a run without one outlives the command."""
    sys.exit(128 + number)


def command_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="crossrisk",
        description="Retrains a credit-risk model by borrowing from a better known population, when borrowing helps.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_text)
        command.add_argument("config", type=_absolute, help="the portfolio's TOML")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            dest="overrides",
            help="dotted key on top of the TOML",
        )
        command.add_argument("--json", action="store_true", help=_JSON_HELP)
        return command

    retrain = add("retrain", "retrain a portfolio and publish the winner if the gate says so")
    retrain.add_argument("--as-of", default="", metavar="DATE", help="logical date; nothing later is seen")
    retrain.add_argument("--preset", default="", choices=["honest", "article"], help="default: the TOML's")
    retrain.add_argument("--by", default="", metavar="NAME", dest="requested_by", help="who asks; default: login name")
    retrain.set_defaults(run=_retrain)

    monitor = add("monitor", "compare a month with what the champion was published on")
    monitor.add_argument("--month", default="", metavar="YYYY-MM", help="default: the last complete one before as_of")
    monitor.add_argument("--as-of", default="", metavar="DATE", help="logical date; nothing later is seen")
    monitor.set_defaults(run=_monitor)

    decide = commands.add_parser("decide", help="print every number of a decision against every rule")
    decide.add_argument("--explain", required=True, metavar="RUN", help="id or folder of a retrain's run")
    decide.add_argument("--json", action="store_true", help=_JSON_HELP)
    decide.set_defaults(run=_decide)

    promote = add("promote", "approve, reject or override a decision that published nothing")
    promote.add_argument("--run", required=True, metavar="RUN", dest="run_id", help="as under registry/.../pending")
    promote.add_argument("--decision", required=True, choices=["approve", "reject", "override"])
    promote.add_argument("--by", required=True, metavar="NAME", help="typed, not authenticated; not who asked")
    promote.add_argument("--reason", required=True, metavar="TEXT", help="kept in the ledger")
    promote.set_defaults(run=_promote)

    status = add("status", "one line: champion, last and next run, last verdict, last light")
    status.set_defaults(run=_status)

    add_registry_commands(add)
    add_care_commands(add)
    add_plan_command(add)
    add_score_command(add)

    predict = add("predict", "score one customer with the published model")
    predict.add_argument(
        "--row",
        action="extend",
        nargs="+",
        required=True,
        metavar="COLUMN=VALUE",
        help="raw columns of the customer; dates as YYYY-MM-DD; what is not given, or empty, is a missing value",
    )
    predict.add_argument("--version", type=int, metavar="V", help="default: the champion")
    predict.set_defaults(run=_predict)

    init = commands.add_parser(
        "init",
        help="look at a Parquet file and write a portfolio and a suite to start from",
        description="Looks at every column of a Parquet file, concludes what it is for, and writes FOLDER/NAME.toml "
        "and FOLDER/NAME.expectations.json, with the reason beside every line. The data are only read.",
        epilog='example: crossrisk init loans.parquet --target product=card --target "product=credit line"',
    )
    init.add_argument(
        "data",
        metavar="DATA",
        help="Parquet file, or folder of them with the same columns; from here, or from the folder CROSSRISK_DATA",
    )
    init.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="the loans that the model is for; all others are the source. Repeated: values of one column are "
        "alternatives, columns must all be met. Without it the portfolio is written with a place to fill in",
    )
    init.add_argument(
        "--label",
        default="",
        metavar="COLUMN",
        help="column of 0 = good and 1 = bad; COLUMN=VALUE, with the value that means bad, says how to make one. "
        "Default: a column of 0 and 1 that is named like a label",
    )
    init.add_argument("--id", default="", metavar="COLUMN", help="different in every row; default: looked for")
    init.add_argument(
        "--date", default="", metavar="COLUMN", help="date of the decision; default: a date that is named like it"
    )
    init.add_argument("--name", default="", help="of the portfolio; default: that of the file")
    init.add_argument("--out", type=Path, default=Path("configs"), metavar="FOLDER", help="default: configs")
    init.add_argument("--force", action="store_true", help="write over a portfolio of the same name")
    init.add_argument("--json", action="store_true", help=_JSON_HELP)
    init.set_defaults(run=_init)

    demo = commands.add_parser("demo", help="write a generated two-population portfolio with known true probabilities")
    demo.add_argument("directory", type=Path, help="where to write demo/ and demo_truth/; use it as CROSSRISK_DATA")
    _add_demo_sizes(demo)
    demo.set_defaults(run=_demo, json=False)
    return parser


def _absolute(path: str) -> str:
    """What a person types is relative to where they stand, wherever CROSSRISK_HOME is."""
    return str(Path(path).resolve())


def _add_demo_sizes(demo: argparse.ArgumentParser) -> None:
    from dataclasses import fields

    from crossrisk.demo import DemoSpec

    for field in fields(DemoSpec):
        default = getattr(DemoSpec(), field.name)
        if isinstance(default, int | float):
            flag = "--" + field.name.replace("_", "-")
            demo.add_argument(flag, type=type(default), default=default, help=f"default {default}", metavar="N")


def _retrain(options: argparse.Namespace) -> int:
    # a config that cannot be is refused before Prefect and all below it are imported
    load_run(options.config, os.environ, as_of=options.as_of, preset=options.preset, overrides=options.overrides)
    set_log_level(os.environ, "WARNING" if options.json else "INFO")
    from flows.retrain import retrain
    from flows.screen import show_result

    result = retrain(
        config=options.config,
        as_of=options.as_of,
        preset=options.preset,
        overrides=options.overrides,
        requested_by=options.requested_by,
    )
    assert isinstance(result, dict), "only a run that a schedule made is skipped"
    if options.json:
        print(json.dumps({key: result[key] for key in JSON_KEYS}, allow_nan=False))
    else:
        show_result(result)
    return 0


def _monitor(options: argparse.Namespace) -> int:
    from crossrisk.monitoring import watched_month
    from crossrisk.pages.monitor_page import month_lines

    loaded = load_run(options.config, os.environ, as_of=options.as_of, overrides=options.overrides)
    month = watched_month(options.month, loaded.portfolio)
    set_log_level(os.environ, "WARNING" if options.json else "INFO")
    from flows.monitor import monitor

    result: dict[str, Any] = monitor(
        config=options.config,
        month=month,
        as_of=options.as_of,
        overrides=options.overrides,
    )
    if options.json:
        printed = {key: result[key] for key in MONITOR_KEYS}
        printed["feature_psi"] = printed["feature_psi"][:FEATURES_PRINTED]
        print(json.dumps(printed, allow_nan=False))
    else:
        print(visible_text("\n".join(month_lines(result))))
    return 0


def _decide(options: argparse.Namespace) -> int:
    from flows.explain import explain, find_run, show_explanation

    explanation = explain(find_run(options.explain, Path(os.environ.get("CROSSRISK_HOME") or ".")))
    if options.json:
        print(json.dumps(explanation.to_json(), allow_nan=False))
    else:
        show_explanation(explanation)
    return 0


def _promote(options: argparse.Namespace) -> int:
    loaded = load_run(options.config, os.environ, overrides=options.overrides)
    from crossrisk.registry import Registry
    from crossrisk.registry.serving import canary_left_over
    from tasks.publish import settle_pending

    settled = settle_pending(loaded, options.run_id, options.decision, by=options.by, reason=options.reason)
    registry = Registry(loaded.folders.registry)
    left_over = canary_left_over(registry, registry.records())
    document = {
        "schema_version": 1,
        "run_id": options.run_id,
        "version": settled.version,
        "champion": settled.champion,
        "serving": settled.serving,
        "note": left_over,
    }
    if options.json:
        print(json.dumps(document))
    else:
        said = f"published as version {settled.version}" if settled.version else "rejected; nothing was published"
        print(visible_text(f"run {options.run_id}: {said}; champion {settled.champion or 'none'}"))
        for said in filter(None, (settled.serving, left_over)):
            print(visible_text(said))
    return 0


def _status(options: argparse.Namespace) -> int:
    loaded = load_run(options.config, os.environ, overrides=options.overrides)
    from crossrisk.status import read_status, status_line
    from flows.schedule import next_run

    status = read_status(loaded, now=time.time(), next_run=next_run(options.config, os.environ))
    print(json.dumps(status.to_json(), allow_nan=False) if options.json else visible_text(status_line(status)))
    return 0


def _predict(options: argparse.Namespace) -> int:
    from flows.predict import describe, predict

    loaded = load_run(options.config, os.environ, overrides=options.overrides)
    prediction = predict(loaded, options.row, version=options.version)
    print(json.dumps(prediction.to_json(), allow_nan=False) if options.json else visible_text(describe(prediction)))
    return 0


def _init(options: argparse.Namespace) -> int:
    from flows.init import Question, describe_start, start_portfolio

    question = Question(
        data=options.data,
        targets=tuple(options.target),
        label=options.label,
        id=options.id,
        decision_date=options.date,
        name=options.name,
    )
    start = start_portfolio(question, options.out, os.environ, force=options.force)
    print(json.dumps(start.to_json(), allow_nan=False) if options.json else visible_text(describe_start(start)))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from crossrisk.demo import DemoSpec, write_demo

    given = {name: getattr(options, name) for name in vars(DemoSpec()) if hasattr(options, name)}
    spec = replace(DemoSpec(), **given)
    facts = write_demo(options.directory, spec, lambda done, total: _say(f"month {done} of {total}"))
    _say(f"{facts}")
    return 0


def _reader_has_gone() -> bool:
    """Whether whoever read standard output has closed it, as `head` does after its last line."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _end_quietly() -> int:
    """Printing is the last thing a command does: all that was asked is done, and nobody wants to read the rest."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
    return 0


def _say(text: str) -> None:
    print(visible_text(text), file=sys.stderr)


def _fail(options: argparse.Namespace, kind: str, message: str, code: int) -> int:
    if getattr(options, "json", False):
        print(json.dumps({"schema_version": 1, "error": kind, "message": message, "exit_code": code}))
    _say(f"crossrisk: {kind}: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main())
