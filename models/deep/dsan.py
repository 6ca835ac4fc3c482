"""Deep Subdomain Adaptation Network: alignment class by class (Zhu, Zhuang, Wang et al., IEEE TNNLS 32, 2021).

    L = J(source labels) + lambda sum_l (1/C) sum_c MMD_k^2(rows of class c of the source, of the target)   (eq. 4, 8)

Target rows count to a class with the network's own probability, or with their label where it is known and used.
"""

from __future__ import annotations

import tensorflow as tf

from models.deep.method import Batch, LayerMethod
from models.deep.weights import class_weights
from models.kernel_family import KernelFamily
from models.mmd import Estimator, mk_mmd2


class Dsan(LayerMethod):
    """Local MMD on each aligned layer, both classes counting alike."""

    def distance(self, layer: str, batch: Batch) -> tf.Tensor:
        """`local_mmd2` (S,) of one layer."""
        spec = self.spec
        return local_mmd2(
            batch.source[layer],
            batch.target[layer],
            batch.y_s,
            batch.bad_t(self.prior_target),
            spec.kernels,
            spec.estimator,
        )


def local_mmd2(
    x_s: tf.Tensor,
    x_t: tf.Tensor,
    bad_s: tf.Tensor,
    bad_t: tf.Tensor,
    family: KernelFamily,
    estimator: Estimator = "biased",
) -> tf.Tensor:
    """Mean over the two classes of the MK-MMD^2 between their rows (Zhu et al. 2021, eq. 8), one bandwidth for both.

    Args:
        x_s: source rows (..., n_s, d).
        x_t: target rows (..., n_t, d).
        bad_s: (..., n_s) probability of bad, 0 or 1 for labels.
        bad_t: (..., n_t) the same of the target rows; a constant to the gradient.
        family: kernels.
        estimator: "biased" or "unbiased".

    Returns:
        (...) as `mk_mmd2`; a class that one side lacks adds 0.
    """
    weights_s, weights_t = class_weights(bad_s, bad_t, 0.5)
    return mk_mmd2(x_s, x_t, family, estimator, weights_s=weights_s, weights_t=weights_t)
