"""What is asked of a scoring: version, input, rules, bands; settled, and refused where it cannot be, before any work.

The input's files are opened by `tasks.score_input`. Nothing is scored or written here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.bands import Bands, band_by_points, band_by_tenths
from crossrisk.config import Loaded
from crossrisk.errors import InputError
from crossrisk.partitions import Partition, plan_partitions
from crossrisk.registry import Champion, Registry
from crossrisk.registry.asking import raw_columns_of
from crossrisk.stability import CategoryBins, Histogram, NumberBins
from crossrisk.store import canonical_json, code_digest, digest_file, digest_of
from crossrisk.unseen import read_known_levels
from expectations import Suite
from tasks.reference import read_reference, reference_path
from tasks.score_folder import refuse_unwritable
from tasks.score_input import Delivery, open_delivery
from tasks.score_rules import serving_rules

BATCH_ROWS = 50_000
"""In memory at a time. Part of the question: TensorFlow's last bit may depend on how many rows it is given at once."""
REASONS = "reasons"
"""Signature of the versions that give reasons, as `models.serving_graph` names it."""
_SCALE = ("score_at_odds", "odds", "points_to_double")


@dataclass(frozen=True)
class Order:
    """What is to be scored, by whom, how, and where it goes."""

    answering: Champion
    """the version that scores; its lock is held by whoever made this"""
    is_champion: bool
    delivery: Delivery
    rules: Suite
    """the serving subset of the portfolio's suites, about columns by their names in the files"""
    partitions: tuple[Partition, ...]
    bands: Bands
    reference: Histogram
    """of the probability, as the version was published with"""
    known_levels: Mapping[str, CategoryBins]
    """of each category column that the score depends on; `rare` is None where an unseen level cannot be told"""
    reasons: int
    """of each row; 0 for none"""
    output: Path
    question: Mapping[str, Any]
    """everything that the answer depends on, as plain data: the same question has the same answer"""


@task(name="read the input", cache_policy=NO_CACHE)
def read_order(
    loaded: Loaded, answering: Champion, path: str, output: Path, *, reasons: int, rows_per_partition: int
) -> Order:
    """Open what is to be scored and settle how.

    Args:
        loaded: the portfolio and its folders.
        answering: the version that scores, its files checked.
        path: Parquet file, folder or glob; absolute, or relative to data.root.
        output: folder to write, absolute.
        reasons: of each row; 0 for none.
        rows_per_partition: rows of each file that is written, the last apart.

    Raises:
        ConfigError: a suite is missing or malformed.
        InputError: as `open_delivery`; an output among the input or the versions, or that cannot be made; a version
            without a reference, or that gives no reasons where some are asked for; bands in other points than the
            version's; partitions of no row, or too many of them.
        PublishError: a manifest that does not say what the version reads, levels that cannot be read.
    """
    registry = Registry(loaded.folders.registry)
    _refuse_reasons(answering, reasons)
    delivery = open_delivery(loaded, path, raw_columns_of(answering), answering.version)
    _refuse_place(output, delivery, registry)
    try:
        partitions = plan_partitions(delivery.rows, rows_per_partition)
    except ValueError as error:
        raise InputError(f"--rows-per-partition {rows_per_partition}: {error}") from error
    reference = _reference(registry, answering.version)
    known_levels = read_known_levels(registry, answering)
    rules, bands = serving_rules(loaded, delivery), _bands(loaded, answering, reference)
    question = {
        "version": answering.version,
        "manifest": digest_file(registry.manifest_path(answering.version)),
        "reference": digest_of(reference.to_json()),
        "known_levels": digest_of({name: asdict(one) for name, one in known_levels.items()}),
        "input": delivery.to_json(),
        "id": delivery.id,
        "columns": dict(delivery.columns),
        "rules": digest_of(asdict(rules)),
        "bands": bands.to_json(),
        "reasons": reasons,
        "rows_per_partition": rows_per_partition,
        "batch_rows": BATCH_ROWS,
        "code": code_digest(),
    }
    return Order(
        answering=answering,
        is_champion=answering.version == max(registry.versions()),
        delivery=delivery,
        rules=rules,
        partitions=partitions,
        bands=bands,
        reference=reference,
        known_levels=known_levels,
        reasons=reasons,
        output=output,
        question=json.loads(canonical_json(question)),  # as it will be read back
    )


def _refuse_reasons(answering: Champion, reasons: int) -> None:
    """Raise InputError where the manifest says that the version gives none; the child sees what an older one hides."""
    if reasons and REASONS not in answering.manifest.get("signatures", (REASONS,)):
        raise InputError(f"version {answering.version} gives no reasons for its scores; leave --reasons out")


def _refuse_place(output: Path, delivery: Delivery, registry: Registry) -> None:
    """Raise InputError where nothing can be written, or what is would be taken for a version, or for input."""
    for folder, holds in ((registry.root, "what is published"), (delivery.asked, "the input")):
        if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"--output {output} lies in {folder}, which holds {holds}; write to a folder elsewhere")
    refuse_unwritable(output)


def _reference(registry: Registry, version: int) -> Histogram:
    path = reference_path(registry, version)
    if not path.exists():
        raise InputError(
            f"version {version} has no reference at {path}: nobody could say how its scores have moved, nor what their "
            "tenths are; score with a later version, or restore the file from a backup"
        )
    return read_reference(path).score


def _bands(loaded: Loaded, answering: Champion, reference: Histogram) -> Bands:
    """The portfolio's own bands where it has some, else the tenths that the version was published with."""
    use = loaded.portfolio.use
    if not use.bands:
        assert isinstance(reference.bins, NumberBins), "of a probability"
        return band_by_tenths(reference.bins)
    published = answering.manifest.get("config", {}).get("use", {})
    differing = [f"{key} {published.get(key)}" for key in _SCALE if published.get(key) != getattr(use, key)]
    if differing:
        raise InputError(
            f"use.bands are points of the portfolio's scale, but version {answering.version} was published with "
            f"use.{', use.'.join(differing)}; state that scale beside the bands, or leave use.bands out"
        )
    return band_by_points(use.bands)
