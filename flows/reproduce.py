"""Re-derive what was published: the recorded inputs through the steps of a run again, number beside number.

The steps run in a folder of their own, laid out as things were (`tasks.past`); nothing is decided, published or
recorded, and a difference is a result, not an error.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import flow

from crossrisk.config import Folders, load_run
from crossrisk.errors import InputError
from crossrisk.provenance import code_version
from crossrisk.quiet import make_quiet
from crossrisk.reproduction import Line, code_warning, compare_recorded, stage_warning
from crossrisk.retention import REPRODUCING
from crossrisk.runs import alive
from crossrisk.store import Stage, make_private
from flows.retrain import make_comparison
from tasks.past import Past, lay_out, read_past
from tasks.publish import identify

P = ParamSpec("P")
R = TypeVar("R")


class Unrecorded:
    """Runs steps and leaves no record: what a reproduction finds is its result."""

    def step(self, name: str, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one step."""
        return step(*args, **kwargs)

    def attach(self, page: Path) -> Path:
        """A page stays where it was made."""
        return page


@flow(name="reproduce", flow_run_name="reproduce-{version}")
def reproduce(config: str, version: int, keep: str = "", overrides: list[str] | None = None) -> dict[str, Any]:
    """Re-derive every number that was published with a version. Returns the result, schema_version 1.

    Args:
        config: path of the portfolio's TOML, which says where registry, data and suites lie.
        version: published once.
        keep: folder to work in and to leave, empty or not there; default: one that is gone afterwards.
        overrides: dotted key=value on top of the TOML.

    Raises:
        InputError: an input is gone or has changed; names each, before anything is computed.
        PublishError: ledger or manifest was changed.
    """
    make_quiet(os.environ)
    loaded = load_run(config, os.environ, overrides=overrides or [])
    past = read_past(loaded, version)
    with _folder(loaded.folders, keep) as folder:
        made = make_comparison(Unrecorded(), lay_out(past, loaded, folder, may_link=not keep))
        lines = _compare(past, made.stages)
    return {
        "schema_version": 1,
        "portfolio": loaded.portfolio.name,
        "version": version,
        "reproduced": all(line.same for line in lines),
        "warnings": _warnings(past, made.stages),
        "lines": [line.to_json() for line in lines],
        "folder": keep or None,
    }


@contextmanager
def _folder(folders: Folders, keep: str) -> Iterator[Path]:
    """Where the steps work; below the portfolio's own work, because rows of customers lie there meanwhile."""
    if keep:
        yield _empty_folder(Path(keep))
        return
    (folders.work / REPRODUCING).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=folders.work / REPRODUCING))
    try:
        with alive(folder):  # `crossrisk clean` removes what a killed reproduction left
            yield folder
    finally:
        shutil.rmtree(folder)


def _empty_folder(kept: Path) -> Path:
    """A folder for its owner alone: copies of customers' rows stay in it."""
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(kept.iterdir()):
            raise InputError(f"--keep {kept} is not empty; name a folder that is, or none that is there")
        return make_private(kept)
    except OSError as error:
        raise InputError(
            f"--keep {kept} is no folder to work in ({error.strerror}); name an empty one, or none that is there"
        ) from error


def _compare(past: Past, stages: Mapping[str, Stage]) -> list[Line]:
    """Metrics first, then what the version is; parts that the first release did not record are left out."""
    manifest, compared = past.manifest, stages["compared"].facts
    contender = manifest["contender"]
    parts = identify(stages, contender)
    recorded = {name: manifest["identity_of"][name] for name in parts} if "identity_of" in manifest else {}
    return [
        *compare_recorded(manifest["metrics"], compared["metrics"].get(contender, {})),
        *compare_recorded({"challenger": contender}, {"challenger": compared["challenger"]}),
        *compare_recorded(recorded, {name: parts[name] for name in recorded}),
    ]


def _warnings(past: Past, stages: Mapping[str, Stage]) -> list[str]:
    other_code = code_warning(past.manifest["code"], code_version())
    digests = {name: made.digest for name, made in stages.items()}
    # under other code every step has another digest, and none tells anything
    found = other_code or stage_warning(past.manifest["digests"], digests)
    return [*past.notes, *([found] if found else [])]
