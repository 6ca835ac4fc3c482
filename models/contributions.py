"""What each encoded column adds to the log odds of a linear contender; other forms follow on another branch."""

from __future__ import annotations

import tensorflow as tf

from models.fitted import Contender, Logistic, Matrix


def graph_contributions(contender: Contender, x: tf.Tensor, reference: Matrix) -> tf.Tensor:
    """Contributions (n, d) float64 to the calibrated log odds of x (n, d) float32, compared with reference (d,).

    Raises:
        ValueError: the contender is not linear.
    """
    if not isinstance(contender.form, Logistic):
        raise ValueError(f"contributions of {type(contender.form).__name__} are not there yet; export without reference")
    of_columns = contender.calibration.slope * contender.form.coefficients[: len(reference)]
    return of_columns * tf.cast(x - reference, tf.float64)
