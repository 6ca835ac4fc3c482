"""What a family of Gaussian kernels is told: plain data, read without TensorFlow. `models.kernels` computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bandwidth = Literal["mean", "median", "fixed"]
Reduce = Literal["sum", "mean"]

MOST_RATIO = 1e30
"""Widest bandwidth over the narrowest: float32 ends at 3e38, and its infinity times a distance of 0 is no number."""


@dataclass(frozen=True, kw_only=True)
class KernelFamily:
    """Kernels exp(-|x - x'|^2 / (b mul^l)), l = 0 .. num - 1, their widths, and how they are put together."""

    num: int = 5
    """kernels; the middle one has the bandwidth of the rule"""
    mul: float = 2.0
    """ratio of neighbouring bandwidths, above 1"""
    bandwidth: Bandwidth = "mean"
    """of the squared distances of the joint batch: their mean (over the N^2 - N pairs of different rows), their median
    (their mean where most of them are 0), or `sigma` whatever they are"""
    sigma: float | None = None
    """squared distance of the rule "fixed"; None with the others"""
    reduce: Reduce = "mean"
    """of the kernels: their mean does not depend on their number, so that mmd_weight keeps its meaning; the article
    takes their sum"""
    gradient: bool = False
    """whether the gradient also flows through the bandwidth, as in the article; rules "mean" and "fixed" only"""

    def __post_init__(self) -> None:
        if self.num < 1 or self.mul <= 1.0:
            raise ValueError(f"kernel_num must be at least 1 and kernel_mul above 1, got {self.num} and {self.mul}")
        if self.bandwidth not in ("mean", "median", "fixed"):
            raise ValueError(f'bandwidth must be "mean", "median" or "fixed", got {self.bandwidth!r}')
        if self.reduce not in ("sum", "mean"):
            raise ValueError(f'reduce must be "sum" or "mean", got {self.reduce!r}')
        if (self.sigma is not None) != (self.bandwidth == "fixed"):
            raise ValueError(f'fix_sigma goes with bandwidth "fixed" and only with it, got {self.sigma!r}')
        if self.mul > MOST_RATIO ** (1.0 / max(self.num - 1, 1)):
            raise ValueError(
                f"{self.num} kernels of ratio {self.mul:g} span more than {MOST_RATIO:g}, beyond float32; take fewer "
                "kernels (kernel_num) or a smaller ratio (kernel_mul)"
            )
        if self.sigma is not None and not self.sigma > 0.0:
            raise ValueError(
                f"fix_sigma must be positive, got {self.sigma}; take another rule to read it from the batch"
            )
        if self.gradient and self.bandwidth == "median":
            raise ValueError('the median of the distances has no useful gradient; use bandwidth "mean" or no gradient')

    @property
    def scale(self) -> float:
        """What a sum over the kernels is multiplied by."""
        return 1.0 / self.num if self.reduce == "mean" else 1.0

    @property
    def widest(self) -> float:
        """Widest bandwidth over that of the rule."""
        return self.mul ** (self.num - 1 - self.num // 2)
