"""Deep Adaptation Network: MK-MMD on any set of layers (Long, Cao, Wang, Jordan, ICML 2015).

    L = J(source labels) + lambda sum_l MMD_k^2(layer l of the source, layer l of the target)         (ibid., eq. 5)

The paper learns the kernels' weights beta; they are equal here, as in every implementation since.
"""

from __future__ import annotations

import tensorflow as tf

from models.deep.method import Batch, LayerMethod
from models.deep.weights import row_weights
from models.mmd import mk_mmd2


class Dan(LayerMethod):
    """MK-MMD of the spec's kernels, estimator and weights of rows, on each aligned layer."""

    def distance(self, layer: str, batch: Batch) -> tf.Tensor:
        """MK-MMD^2 (S,) of one layer: in [0, 2] if biased with the mean of kernels, about 0 without a shift."""
        spec = self.spec
        weights_s, weights_t = row_weights(spec.row_weights, batch, self.prior_target)
        return mk_mmd2(
            batch.source[layer],
            batch.target[layer],
            spec.kernels,
            spec.estimator,
            weights_s=weights_s,
            weights_t=weights_t,
        )
