"""Generated configuration of TF Serving: what a server loads, and which version its label `stable` names.

    registry/<portfolio>/serving/models.config  for --model_config_file, read again while the server runs
    registry/<portfolio>/serving/state.json     the way that was chosen, and how far a change of version has come

`latest`: the server keeps the two newest versions. It loads a new one by itself and refuses the label's move until
then, so one file is enough. `specific`: the server loads what the file names, so a change takes two files: one that
names old and new with the label at the old, and, once the server has loaded the new, one that moves the label. Why
that is so, by the server's own rules: docs/decisions/0009-serving.md. Asking a server is `tasks.serving`'s.

The file follows from state, ledger and folders alone: writing it again changes nothing, and mends what a death left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from crossrisk.errors import InputError, PublishError
from crossrisk.registry.layout import Registry, read_object
from crossrisk.registry.ledger import SCHEMA_VERSION, Record, kind_of, versions_in
from crossrisk.store import canonical_json, write_text

STABLE = "stable"
"""The label that clients ask for."""
LOADED_VERSIONS = 2
"""Under `latest`: the new one, and the one that the label names until the new one is loaded."""

Way = Literal["latest", "specific"]


@dataclass(frozen=True)
class Serving:
    """What a server is told about the champion's model."""

    way: Way = "latest"
    stable: int | None = None
    """the version that the label names; None before the first"""
    arriving: int | None = None
    """loaded beside it, and labelled next; `specific` only"""
    leaving: int | None = None
    """labelled before, and still loaded: the quick way back; `specific` only"""

    @property
    def versions(self) -> tuple[int, ...]:
        """All that are named, ascending."""
        return tuple(sorted({v for v in (self.stable, self.arriving, self.leaving) if v is not None}))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def model_name(registry: Registry) -> str:
    """Under which the champion is asked for: the portfolio's, also where its folder is a link to another."""
    return registry.root.name


def canary_name(registry: Registry) -> str:
    """Under which a challenger on trial is asked for."""
    return f"{model_name(registry)}_canary"


def config_path(registry: Registry) -> Path:
    """The file for --model_config_file."""
    return registry.serving / "models.config"


# --- state ---


def read_serving(registry: Registry) -> Serving:
    """What was told last.

    Raises:
        PublishError: state.json cannot be read, or a newer release wrote it.
    """
    path = _state_path(registry)
    if not path.exists():
        return Serving()
    document = read_object(path)
    versions = [document.get(name) for name in ("stable", "arriving", "leaving")]
    if document.get("way") not in get_args(Way) or not all(isinstance(v, int | None) for v in versions):
        raise PublishError(f"{path} says nothing that a server could be told: {document}; move it aside and go on")
    return Serving(document["way"], *versions)


def labelled_versions(registry: Registry) -> set[int]:
    """Versions that the configuration names: a server may be asked for each of them."""
    return set(read_serving(registry).versions)


def write_configuration(registry: Registry) -> Serving:
    """Bring state and file to what the registry holds now. Needs the lock; done twice it is done once."""
    return _write(registry, read_serving(registry))


def choose_way(registry: Registry, way: Way) -> Serving:
    """Write the configuration in another way from now on. Needs the lock.

    Raises:
        InputError: a change of version is under way, which only its own way can finish.
    """
    before = read_serving(registry)
    if way != before.way and before.arriving is not None:
        raise InputError(
            f"version {before.arriving} is on its way to the label {STABLE}; finish that first (crossrisk serving "
            f"CONFIG --server URL), then change publish.serving to {way!r}"
        )
    return _write(registry, replace(before, way=way))


def is_told(registry: Registry, way: Way) -> bool:
    """Whether writing the configuration in that way would change nothing, and nobody left or does anything half.

    Needs no lock and writes nothing: what changes meanwhile is written by who changes it.
    """
    if registry.intent.exists():
        return False
    _, files = _settled(registry, replace(read_serving(registry), way=way))
    return all(path.is_file() and path.read_text(encoding="utf-8") == text for path, text in files.items())


def advance(registry: Registry, version: int) -> Serving:
    """The second step: the label moves to the version that arrived; the one before stays loaded. Needs the lock.

    A server that has not loaded the version by then refuses this file and every later one: ask it before.

    Raises:
        PublishError: another version is arriving, or none.
    """
    before = read_serving(registry)
    if before.arriving != version:
        raise PublishError(
            f"version {version} is not on its way to the label {STABLE}, but {before.arriving or 'none'}: another "
            "publisher was faster; run crossrisk serving again"
        )
    return _write(registry, replace(before, stable=version, arriving=None, leaving=before.stable))


def settle_state(before: Serving, *, champion: int, present: Collection[int]) -> Serving:
    """What a server should be told, given what it was told before.

    Args:
        before: the last state, of either way.
        champion: the newest version.
        present: versions in the base path; a label cannot stay with one that is gone.
    """
    if before.way == "latest":
        return Serving("latest", stable=champion)
    stable = before.stable if before.stable in present else champion
    if stable == champion:
        leaving = before.leaving if before.leaving in present else None
        return Serving("specific", stable=stable, leaving=leaving)
    return Serving("specific", stable=stable, arriving=champion)


def _state_path(registry: Registry) -> Path:
    return registry.serving / "state.json"


def _write(registry: Registry, serving: Serving) -> Serving:
    settled, files = _settled(registry, serving)
    for path, text in files.items():
        write_text(path, text)
    return settled


def _settled(registry: Registry, serving: Serving) -> tuple[Serving, dict[Path, str]]:
    """What a server should be told, and the files that tell it: state first."""
    records = registry.records()
    published = versions_in(records)
    if published:
        serving = settle_state(serving, champion=max(published), present=registry.versions())
    state = {"schema_version": SCHEMA_VERSION, **serving.to_json()}
    files = {_state_path(registry): canonical_json(state, indent=1) + "\n"}
    if published:  # before that there is no base path, and one that is missing stops a server from reading any other
        has_canary = running_canary(registry, records) is not None
        files[config_path(registry)] = config_text(registry, serving, has_canary=has_canary)
    return serving, files


# --- canary ---


def running_canary(registry: Registry, records: Sequence[Record]) -> int | None:
    """The number of the challenger on trial: begun in the ledger, not ended, and there."""
    lines = [record for record in records if kind_of(record) == "canary"]
    if not lines or lines[-1]["ended"]:
        return None
    number = int(lines[-1]["canary"])
    return number if (registry.canary / str(number)).is_dir() else None


def canary_left_over(registry: Registry, records: Sequence[Record]) -> str | None:
    """That the challenger on trial waits for nobody any more, what became of it, and the next move; else None."""
    number = running_canary(registry, records)
    if number is None:
        return None
    run_id = next(str(record["run_id"]) for record in reversed(records) if record.get("canary") == number)
    if (registry.pending / run_id).is_dir():
        return None
    ruled = [record for record in records if kind_of(record) == "ruling" and record["run_id"] == run_id]
    if not ruled:
        became = "gave way to a later decision"
    elif ruled[-1].get("version"):
        became = f"was published as version {ruled[-1]['version']}"
    else:
        became = "was rejected"
    return (
        f"canary {number} is still on trial, though its challenger, of run {run_id}, {became}; end it: "
        "crossrisk canary CONFIG --end --by NAME"
    )


# --- the file ---


_HEAD = """\
# Generated: changes are overwritten by the next publication. Start the server with
#   --model_config_file={path}
#   --model_config_file_poll_wait_seconds=30
#   --allow_version_labels_for_unavailable_models
# The last lets it start with a label, when nothing is loaded yet; a label in use still moves to loaded versions only.
# Base paths are absolute, as the server demands: mount the registry where it lies here.
"""
_WHY = {
    "latest": """\
# Two versions, not one: `stable` stays where it is until the new version is loaded, and the server looks at this file
# less often than at the base path. With one, the version that `stable` names would be unloaded before it moves.
""",
    "specific": """\
# The server refuses a file whose label names a version that is not loaded, and then loads nothing of it: a new version
# is named first, and `stable` moves in a second file, once the server says AVAILABLE (crossrisk serving).
""",
}


def config_text(registry: Registry, serving: Serving, *, has_canary: bool) -> str:
    """ModelServerConfig as protobuf text. The canary's model is named only while there is one."""
    if serving.way == "latest":
        policy = [f"latest {{ num_versions: {LOADED_VERSIONS} }}"]
    else:
        policy = ["specific {", *(f"  versions: {version}" for version in serving.versions), "}"]
    models = [
        *_model(model_name(registry), registry.models, policy),
        f'    version_labels {{ key: "{STABLE}" value: {serving.stable} }}',
        "  }",
    ]
    if has_canary:
        models += [*_model(canary_name(registry), registry.canary, ["latest { num_versions: 1 }"]), "  }"]
    head = _HEAD.format(path=_quoted(str(config_path(registry).resolve()))) + _WHY[serving.way]
    return "\n".join([head + "model_config_list {", *models, "}", ""])


def _model(name: str, base_path: Path, policy: Sequence[str]) -> list[str]:
    return [
        "  config {",
        f"    name: {_quoted(name)}",
        f"    base_path: {_quoted(str(base_path.resolve()))}",
        '    model_platform: "tensorflow"',
        "    model_version_policy {",
        *(f"      {line}" for line in policy),
        "    }",
    ]


def _quoted(text: str) -> str:
    """A protobuf text string: UTF-8 stays, what would end or break it is escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
