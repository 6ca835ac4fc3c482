"""The contenders of the credit splits: what they are called, which of them borrow how, and what a draw is told.

No TensorFlow, no rows: the table is made without them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from crossrisk.contenders import (
    ADAPTERS,
    HONEST_LINEUP,
    NETWORKS,
    POOLED,
    SOURCE_ONLY,
    TARGET_ONLY,
    AdapterConfig,
    LineupConfig,
)
from crossrisk.store import digest_of
from models.deep.presets import PRESETS
from models.deep.spec import DeepSpec

SOURCE_NETWORK, FINE_TUNED = "source_network", "fine_tuned"
UNALIGNED = "unaligned"
"""candidate 0 of the adapters: source labels and known target labels, no alignment; ddc's has its layer more"""

CHOSEN, CHOSEN_POOLED = "chosen", "chosen_pooled"
"""the challenger where pooled contenders are references, and where they may be published"""


def _preferred() -> tuple[str, ...]:
    others = [name for name in NETWORKS if name not in HONEST_LINEUP]
    place = HONEST_LINEUP.index("dan") + 1
    return (*HONEST_LINEUP[:place], *others, *HONEST_LINEUP[place:])


PREFERRED = _preferred()
"""the product's order of preference, the other networks behind dan"""
REFERENCES = (*SOURCE_ONLY, *TARGET_ONLY, "stacked")
"""what the chosen contender may not be worse than"""
REFERENCES_POOLED = (*REFERENCES, *POOLED)


@dataclass(frozen=True)
class Settings:
    """What a draw is told apart from its rows."""

    contenders: tuple[str, ...]
    """in the product's order of preference"""
    networks: int
    """seeds of an ensemble"""
    max_steps: int | None
    """in the place of the presets'"""

    @property
    def digest(self) -> str:
        """Of all that decides the figures but the code: draws of another digest do not belong into one table."""
        specs = {name: asdict(self.spec(name)) for name in self.contenders if name in NETWORKS}
        return digest_of({**asdict(self), "specs": specs, "weights": {name: weights_of(name) for name in ADAPTERS}})

    def spec(self, name: str, **changes: Any) -> DeepSpec:
        """The preset of a network with some fields replaced."""
        if self.max_steps is not None:
            changes["max_steps"] = self.max_steps
        return replace(PRESETS[name], logs_no_shift_band=False, **changes)  # the band is drawn for reports only


def default_contenders() -> tuple[str, ...]:
    """All whose networks there are presets for."""
    return tuple(name for name in PREFERRED if name not in NETWORKS or name in PRESETS)


def at_weight(adapter: str, weight: float) -> str:
    """Name of an adapter's candidate of one weight."""
    return f"{adapter}@{weight:g}"


def weights_of(adapter: str) -> tuple[float, ...]:
    """The grid of the product, ascending: 0 first."""
    settings: AdapterConfig = getattr(LineupConfig(), adapter)
    return tuple(sorted(settings.mmd_weights))


def unaligned_of(adapter: str) -> str:
    """The candidate of weight 0: the same network for all adapters of dan's shape."""
    return UNALIGNED if PRESETS[adapter].hidden == PRESETS[ADAPTERS[0]].hidden else at_weight(adapter, 0.0)


def base_of(name: str) -> str:
    """The contender behind a candidate's name: its spec, and what its loss saw."""
    return ADAPTERS[0] if name == UNALIGNED else name.partition("@")[0]
