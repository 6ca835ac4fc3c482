"""The recipes that have a name: the article's, and one for each contender of the lineup. Plain data, no TensorFlow.

Changed by measurement on the real splits (docs/benchmarks.md); what each method is stands in its own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar

from crossrisk.errors import InputError
from models.deep.spec import DeepSpec, FineTuning
from models.kernel_family import KernelFamily

ARTICLE_KERNELS = KernelFamily(reduce="sum", gradient=True)
"""The sum of five, with the gradient through the bandwidth; the estimate itself keeps its diagonals."""

ARTICLE = DeepSpec(
    method="dan",
    hidden=(256, 64),
    activation="sigmoid",
    initializer="glorot_uniform",  # TensorFlow 1's default for dense layers; the article names none
    dropout=0.0,
    optimizer="adam",
    learning_rate=0.005,
    epsilon=1e-8,
    weight_decay=0.0,
    l2_scale=0.0,
    batch_size=512,
    epochs=100,
    max_steps=None,
    keep_tails=False,
    mmd_weight=1.0,
    schedule="article",
    kernels=ARTICLE_KERNELS,
    estimator="biased",
    row_weights="equal",
    use_target_labels=False,
    evaluate_every=3,
    patience=15,
    logs_no_shift_band=False,
)
"""The article's run, as pinned in docs/method.md."""

DAN = DeepSpec(
    method="dan",
    hidden=(128, 32),
    activation="relu",
    initializer="he_normal",
    dropout=0.2,
    optimizer="adamw",
    learning_rate=2e-3,
    epsilon=1e-7,
    weight_decay=1e-2,
    l2_scale=0.0,
    batch_size=256,
    epochs=None,
    max_steps=600,
    keep_tails=False,
    mmd_weight=1.0,
    schedule="article",
    kernels=KernelFamily(),
    estimator="biased",
    row_weights="label_shift",
    use_target_labels=True,
    evaluate_every=20,
    patience=10,
    logs_no_shift_band=True,
)
"""The contender `dan` of the default lineup; mmd_weight is chosen from a grid that holds 0."""

PRESETS: Mapping[str, DeepSpec] = MappingProxyType(
    {
        "article": ARTICLE,
        "source_network": replace(DAN, method="source_only", mmd_weight=0.0, use_target_labels=False),
        "dan": DAN,
        "ddc": replace(DAN, method="ddc", hidden=(128, 32, 16), kernels=KernelFamily(num=1)),
        "deep_coral": replace(DAN, method="deep_coral"),
        "dann": replace(DAN, method="dann", schedule="dann"),
        "dsan": replace(DAN, method="dsan"),
        "fine_tuned": replace(DAN, method="fine_tuned", mmd_weight=0.0, use_target_labels=False),
    }
)
"""Name of a contender -> its recipe, and the article's under its own name."""


def preset_with_overrides(preset: str, overrides: Mapping[str, Any]) -> DeepSpec:
    """The named preset with some fields replaced. Raises InputError on a name or value that it does not know."""
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; expected one of {sorted(PRESETS)}")
    try:
        return _replaced(PRESETS[preset], overrides)
    except ValueError as error:
        raise InputError(f"preset {preset!r} with {dict(overrides)}: {error}") from error


Settings = TypeVar("Settings", DeepSpec, KernelFamily, FineTuning)


def _replaced(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    known = [field.name for field in fields(settings)]
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            raise InputError(
                f"unknown training option {name!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
            )
        if isinstance(value, Mapping):
            values[name] = _replaced(getattr(settings, name), value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return replace(settings, **values)
