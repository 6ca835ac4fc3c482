"""Whether two samples of hidden activations share a distribution: unbiased MK-MMD with a permutation test.

Arrays in, a frozen result out. The loss that training minimises is `models.mmd`'s; which samples are compared, and what
a small p means for a model, is the caller's business.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.kernel_family import KernelFamily
from models.mmd import joint_kernel

FEWEST_ROWS = 4
"""of each sample: the unbiased estimate divides by n (n - 1), and fewer rows have next to no permutations"""
FAMILY = KernelFamily()


@dataclass(frozen=True)
class TwoSample:
    """A discrepancy beside what it is where nothing has changed."""

    mmd2: float
    """unbiased squared MK-MMD, mean of the kernels: in [-1, 2], about 0 without a shift"""
    null_sd: float
    """standard deviation of it over permutations, which have no shift"""
    p: float
    """share of permutations that show this discrepancy or more, the observed one counted: in (0, 1]"""
    n_first: int
    n_second: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def two_sample_test(
    first: NDArray[np.float32], second: NDArray[np.float32], *, permutations: int, seed: int
) -> TwoSample:
    """Test by permutation whether the rows of two samples come from one distribution.

    MMD_u^2 = sum_{i != j} k(x_i, x_j) / (n (n - 1)) + the same of y - 2 sum k(x_i, y_j) / (n m) (Gretton et al.,
    A kernel two-sample test, JMLR 13, 2012, eq. 3), k the mean of five Gaussian kernels around the mean squared
    distance of all rows. Distances and kernels are computed once: bandwidths do not change when rows change sides. p
    counts the observed split among the permutations (Phipson and Smyth, 2010), so that the test is exact.

    Args:
        first: (n, d), n at least 4.
        second: (m, d), m at least 4. Memory is about 4 (n + m)^2 bytes a kernel.
        permutations: at least 1; p is no smaller than 1 / (permutations + 1).
        seed: of the permutations.

    Raises:
        ValueError: shapes that do not fit, too few rows, or activations that are not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"expected samples (n, d) and (m, d), got {first.shape} and {second.shape}")
    n, m = len(first), len(second)
    if min(n, m) < FEWEST_ROWS:
        raise ValueError(f"expected at least {FEWEST_ROWS} rows in each sample, got {n} and {m}")
    joined = np.concatenate([first, second]).astype(np.float32)
    if not np.isfinite(joined).all():
        raise ValueError("expected finite activations, got NaN or infinity")
    estimates = _estimates(_kernel(joined), _sides(n, m, permutations, seed), n, m)
    observed, null = float(estimates[0]), estimates[1:]
    p = (1 + int(np.count_nonzero(null >= observed))) / (1 + permutations)
    return TwoSample(observed, float(np.std(null)), p, n, m)


def _kernel(joined: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean kernel (N, N) of the rows, its diagonal 0."""
    centred = joined - joined.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.asarray(joint_kernel(tf.constant(centred), FAMILY) * FAMILY.scale, np.float64)


def _sides(n: int, m: int, permutations: int, seed: int) -> NDArray[np.float64]:
    """(1 + permutations, n + m): 1 where a row counts to the first sample; the first line is the split as it came."""
    as_it_came = np.repeat(np.array([1.0, 0.0]), [n, m])
    rng = np.random.default_rng(seed)
    return np.stack([as_it_came, *(rng.permutation(as_it_came) for _ in range(permutations))])


def _estimates(kernel: NDArray[np.float64], sides: NDArray[np.float64], n: int, m: int) -> NDArray[np.float64]:
    """The unbiased estimate of every split."""
    of_rows, total = kernel.sum(axis=1), float(kernel.sum())
    within_first = np.einsum("pi,pi->p", sides @ kernel, sides)
    across = sides @ of_rows - within_first
    within_second = total - within_first - 2.0 * across
    estimates: NDArray[np.float64] = (
        within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2.0 * across / (n * m)
    )
    return estimates
