"""Deep Domain Confusion: a narrow adaptation layer with one kernel (Tzeng, Hoffman, Zhang, Saenko, Darrell, 2014).

    L = L_C(source labels) + lambda MMD^2(adaptation layer of the source, of the target)    (arXiv:1412.3474, eq. 2)

The adaptation layer is the last hidden one of the spec; its width is part of the preset. The paper measures with a
linear kernel; ours is one Gaussian kernel, which sees more than a difference of means.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.deep.dan import Dan
from models.deep.spec import DeepSpec


class Ddc(Dan):
    """DAN's distance with one kernel on one layer."""

    def __init__(self, spec: DeepSpec, seeds: Sequence[int], prior_target: float | None) -> None:
        super().__init__(spec, seeds, prior_target)
        if spec.kernels.num != 1 or len(spec.layers) != 1:
            raise ValueError(
                f"ddc has one kernel on one layer, got {spec.kernels.num} kernels on {spec.layers}; take dan for more"
            )
