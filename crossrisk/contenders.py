"""The contenders: which there are, what kinds of them, and what a portfolio may say of each (`[lineup]`).

Plain data. How one is fitted is `models.lineup`'s and `models.deep`'s; which of them wins is `tasks.compare`'s.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crossrisk.features import View
from crossrisk.forms import Form, Names, nearest

SOURCE_ONLY = ("source_logistic", "source_boosted", "source_forest", "source_network")
TARGET_ONLY = ("target_logistic", "target_boosted")
TAUGHT_BY_TARGET = (*TARGET_ONLY, "stacked")
"""Every coefficient is fitted on the target's labels, in stacked also what the source counts for: where risk drivers
differ it loses next to nothing to the target's own models (docs/decisions/0005-challenger.md)."""
POOLED = ("pooled_logistic", "pooled_boosted")
ADAPTERS = ("dan", "ddc", "deep_coral", "dann", "dsan")
"""Networks that align the two populations, with a weight on it."""
NETWORKS = (*ADAPTERS, "fine_tuned", "source_network")
HONEST_LINEUP = (
    "stacked",
    "pooled_logistic",
    "source_logistic",
    "dan",
    "fine_tuned",
    "pooled_boosted",
    "source_boosted",
    "source_forest",
    "target_logistic",
    "target_boosted",
)
"""In order of preference where the choosing rows cannot tell contenders apart (docs/decisions/0005-challenger.md)."""
ARTICLE_LINEUP = ("source_forest", "source_boosted", "source_logistic", "dan")
"""No contender of the article sees a target label."""

CONTENDERS = (*HONEST_LINEUP, *(name for name in NETWORKS if name not in HONEST_LINEUP))
"""Every contender that can be named."""

Layer = Annotated[str, Field(pattern=r"^(hidden_[1-9][0-9]?|last_hidden|logits)$")]


class NetworkConfig(Form):
    """What one may change of a network of the lineup; what is left out is the preset's (models/deep/presets.py)."""

    seeds: int = Field(default=10, ge=1, le=50, description="networks in the published ensemble, trained together")
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=8)] | None = (
        Field(default=None, description="units of each hidden layer, input side first")
    )
    dropout: float | None = Field(default=None, ge=0, le=0.99)


class AdapterConfig(NetworkConfig):
    """What one may change of a network that aligns the two populations."""

    mmd_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.0, 0.1, 1.0)
    use_target_labels: bool = Field(default=True, description="those of target_fit that are known and enough")
    schedule: Literal["article", "constant", "warm_up", "dann"] | None = Field(
        default=None, description="how the weight grows: over 1,000 steps, not at all, over warm_up_steps, over the run"
    )
    warm_up_steps: int | None = Field(default=None, ge=1)
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] | None = Field(
        default=None, description="what is aligned: hidden_1, hidden_2 .., last_hidden, logits"
    )
    row_weights: Literal["equal", "label_shift", "class_conditional"] | None = Field(
        default=None,
        description="of aligned rows: source rows to the target's bad rate, or a distance of their own for bads and "
        "goods",
    )
    prior: Literal["bbse", "em"] | None = Field(
        default="bbse", description="how the target's bad rate is estimated while fewer than ten bads are known"
    )

    @model_validator(mode="after")
    def _zero_in_grid(self) -> Self:
        if 0.0 not in self.mmd_weights:
            raise ValueError("mmd_weights must hold 0, so that no adaptation can win on its own merits")
        if len(set(self.mmd_weights)) < len(self.mmd_weights):
            raise ValueError(f"mmd_weights must hold each weight once, got {list(self.mmd_weights)}")
        return self

    @model_validator(mode="after")
    def _warm_up_with_its_schedule(self) -> Self:
        if self.warm_up_steps is not None and self.schedule != "warm_up":
            raise ValueError('warm_up_steps goes with schedule = "warm_up", and only with it')
        return self


class KernelConfig(AdapterConfig):
    """What one may change of a network that measures a maximum mean discrepancy."""

    estimator: Literal["biased", "unbiased", "linear"] | None = None
    bandwidth: Literal["mean", "median", "fixed"] | None = Field(
        default=None, description="of the squared distances in a batch; fixed: fix_sigma"
    )
    fix_sigma: float | None = Field(default=None, gt=0)
    kernel_num: int | None = Field(default=None, ge=1, le=40)
    kernel_mul: float | None = Field(default=None, gt=1)

    @model_validator(mode="after")
    def _sigma_with_its_rule(self) -> Self:
        if (self.fix_sigma is not None) != (self.bandwidth == "fixed"):
            raise ValueError('fix_sigma goes with bandwidth = "fixed", and only with it')
        return self


class CoralConfig(AdapterConfig):
    """What one may change of Deep CORAL, whose distance is ten times smaller than a discrepancy."""

    mmd_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.0, 1.0, 10.0)


class FineTunedConfig(NetworkConfig):
    """What one may change of the fine-tuned network."""

    start: Literal["source", "champion"] = Field(
        default="source",
        description="what is tuned: a network of the source, or the champion's, where it is one of the same shape on "
        "the same features",
    )
    tuning_rate: float | None = Field(default=None, gt=0, description="learning rate of the new head")
    layer_decay: float | None = Field(default=None, ge=1, description="each layer below learns so many times slower")
    head_steps: int | None = Field(default=None, ge=0, description="steps before the layer below the head is thawed")
    thaw_every: int | None = Field(default=None, ge=0, description="steps from one layer's thaw to the next one's")
    tuning_steps: int | None = Field(default=None, ge=1)


class LineupConfig(Form):
    """Which contenders are trained."""

    contenders: Names = Field(default=(), description="in order of preference; default: the preset's")
    pooling: Literal["allowed", "reference"] = Field(
        default="reference", description="reference: pooled_* are compared and shown, never published"
    )
    forest_depth: int = Field(default=10, ge=1, le=14, description="bounded, so that exported lookups stay fast")
    forest_seeds: int = Field(default=5, ge=1, le=50, description="forests averaged; their spread is shown")
    seed: int = Field(default=1, ge=0, description="first seed; forests and networks count up from it")
    boosted_inputs: View = Field(
        default="encoded",
        description="what boosted trees are fitted on: the matrix of all contenders, or numbers with missing left "
        "missing and categories as codes, which the trees split themselves",
    )
    min_target_bads: int = Field(default=60, ge=1, description="below: no contender is fitted on target labels")
    dan: KernelConfig = KernelConfig()
    ddc: KernelConfig = KernelConfig()
    deep_coral: CoralConfig = CoralConfig()
    dann: AdapterConfig = AdapterConfig()
    dsan: KernelConfig = KernelConfig()
    fine_tuned: FineTunedConfig = FineTunedConfig()
    source_network: NetworkConfig = NetworkConfig()

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.contenders:
            if name not in CONTENDERS:
                raise ValueError(f"unknown contender {name!r}{nearest(name, CONTENDERS)}")
        if len(set(self.contenders)) < len(self.contenders):
            raise ValueError(f"contenders must be named once each, got {list(self.contenders)}")
        return self
