"""Which version is asked, and what it must be told: found by number, its files checked, its inputs as published.

What it answers is `models.bundle`'s.
"""

from __future__ import annotations

from crossrisk.errors import InputError, PublishError
from crossrisk.features import FeaturePlan, RawColumn
from crossrisk.registry.layout import Champion, Registry
from crossrisk.store import digest_file, read_json

SHOWN_VERSIONS = 10
"""in one sentence: a registry may hold hundreds"""
PLAN = "plan.json"
"""companion of a version: the feature plan as it is served"""
REFERENCE = "reference.json"
"""companion of a version: how score and features lay at publication (`tasks.reference`)"""


def find_version(registry: Registry, version: int | None) -> Champion:
    """A version with its files checked against its manifest; the champion where none is asked for.

    Raises:
        InputError: nothing is published, or no such version.
        PublishError: its files are not those of its manifest, or the registry contradicts itself about its champion.
    """
    if version is None:
        champion = registry.champion()
        if champion is None:
            raise InputError(f"{registry.models} holds no version; publish one first: crossrisk retrain CONFIG")
        return champion
    known = registry.versions()
    if version not in known:
        newest = ", ".join(str(number) for number in reversed(known[-SHOWN_VERSIONS:]))
        raise InputError(
            f"expected one of the {len(known)} versions in {registry.models}, newest first: {newest or 'none'}; "
            f"got {version}"
        )
    return registry.version(version)


def raw_columns_of(answering: Champion) -> tuple[RawColumn, ...]:
    """What a version reads, as it was when it was published: the TOML may have changed since.

    Raises:
        PublishError: its manifest does not say.
    """
    if "raw_columns" not in answering.manifest:
        raise PublishError(
            f"the manifest of version {answering.version} does not list raw_columns: an earlier release published it; "
            "retrain, name a later version, or ask it with saved_model_cli"
        )
    return tuple(RawColumn.model_validate(column) for column in answering.manifest["raw_columns"])


def plan_of(registry: Registry, answering: Champion) -> FeaturePlan:
    """The feature plan that lies beside a version.

    Raises:
        InputError: it has none, or one of another schema: another release published it.
        PublishError: the file is not what was published.
    """
    path = registry.companion_path(answering.version, PLAN)
    if not path.exists():
        raise InputError(
            f"version {answering.version} has no feature plan beside it: an earlier release published it; retrain, or "
            "ask a newer version (crossrisk history)"
        )
    if digest_file(path) != answering.manifest.get("companions", {}).get(PLAN):
        raise PublishError(f"{path} is not what was published with version {answering.version}: crossrisk verify")
    document = read_json(path)
    expected = FeaturePlan.model_fields["schema_version"].default
    if document.get("schema_version") != expected:
        raise InputError(
            f"{path}: expected schema_version {expected}, got {document.get('schema_version')}: another release "
            "published it; ask that release, or a version of this one"
        )
    return FeaturePlan.model_validate(document)
