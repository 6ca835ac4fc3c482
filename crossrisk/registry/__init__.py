"""Versions, ledger and champion of a portfolio, on a file system with atomic rename.

    registry/<portfolio>/models/<Unix seconds>/   SavedModels and nothing else: the largest name is the champion
    registry/<portfolio>/manifests/<version>.json what each version is, with the digest of every file of it; beside it
                                                  <version>.<name>, the files that go with a version
    registry/<portfolio>/ledger.jsonl             append-only, hash-chained: one line a decision, rollback or pruning
    registry/<portfolio>/champion.json            pointer and the ledger's head, replaced whole
    registry/<portfolio>/intent.json              what a publisher is about to do; there only while it is being done
    registry/<portfolio>/lock                     held (flock) while a publisher works; freed by its death
    registry/<portfolio>/staging/                 where a version is built; swept by the next publisher
    registry/<portfolio>/trash/                   versions on their way out, under names that are no number
    registry/<portfolio>/pending/<run_id>/        challengers that wait for a person, or were kept
    registry/<portfolio>/canary/<Unix seconds>/   a challenger on trial: base path of a second model
    registry/<portfolio>/serving/                 generated configuration of a server

`layout` names these and reads versions, `ledger` is the chain, `protocol` the one way in (lock, stage, verify, intent,
rename, commit, recover), `pending` what waits, `pruning` the one way out, `audit` what can be checked without
TensorFlow. Building and loading SavedModels stays in `models`; deciding in `crossrisk.policy`.
"""

from crossrisk.registry.layout import Champion, Registry, digest_tree, read_manifest
from crossrisk.registry.ledger import append_ledger, read_ledger
from crossrisk.registry.protocol import locked, publish_version, staging_folder

__all__ = [
    "Champion",
    "Registry",
    "append_ledger",
    "digest_tree",
    "locked",
    "publish_version",
    "read_ledger",
    "read_manifest",
    "staging_folder",
]
