"""The article's door: a SavedModel whose tensors carry the article's names, and the reader that goes by them.

The article's reader takes the newest version, loads it under the tag `serve`, feeds the op `source_input_x` with the
encoded matrix and fetches `output/prob:0`. TensorFlow 2's exporter chooses op names itself, so this one graph is
written with compat.v1: raw columns -> feature plan -> `source_input_x` -> network -> `output/prob`. The signatures of
`models.serving_graph` look at the same graph from its front, so that both doors say the same of a customer. Which
portfolio gets this door is decided in `tasks.candidate`; what all SavedModels share is `models.bundle`'s.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from crossrisk.errors import PublishError
from crossrisk.features import FeaturePlan, check_servable_names
from crossrisk.scoring import Scaling
from models import warmup
from models.bundle import named_failures, require_empty
from models.fitted import Contender, Floats, Matrix
from models.serving_graph import EXAMPLES, SCORES, ServingGraph, input_specs
from models.verification import largest_difference

INPUT_OP = "source_input_x"
"""The encoded matrix (n, d) float32; fed by the article's reader, computed from raw columns for everybody else."""
PROBABILITY_OP = "output/prob"
"""Calibrated probability of bad (n, 1) float64: one column, as the article's dense layer 64 -> 1 gives."""

# placeholders stand apart, or a raw column called `output` would take that name from the op above
_RAW_SCOPE, _EXAMPLES_SCOPE = "raw", "from_examples"


def export(
    plan: FeaturePlan, contender: Contender, scaling: Scaling, directory: Path, *, reference: Matrix | None = None
) -> None:
    """Write a contender as `models.bundle.export` does, in a graph that the article's reader can read as well.

    Arguments and errors are those of `models.bundle.export`.
    """
    columns = plan.rows.raw_columns
    check_servable_names(columns)
    require_empty(directory)
    describe = tf.compat.v1.saved_model.predict_signature_def
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = ServingGraph(plan, contender, scaling, reference)
        with tf.name_scope(_RAW_SCOPE):
            specs = input_specs(columns).items()
            raw = {name: tf.compat.v1.placeholder(spec.dtype, spec.shape, name=name) for name, spec in specs}
        with tf.name_scope(_EXAMPLES_SCOPE):
            examples = tf.compat.v1.placeholder(tf.string, [None], name=EXAMPLES)
            signatures = {EXAMPLES: describe({EXAMPLES: examples}, graph.of_examples(examples))}
        matrix = tf.identity(graph.encode(raw), name=INPUT_OP)
        for name, of_matrix in graph.of_matrix.items():
            outputs = of_matrix(matrix)
            signatures[name] = describe(raw, outputs)
            if name == SCORES:
                tf.identity(outputs["probability"][:, tf.newaxis], name=PROBABILITY_OP)
        session.run(tf.compat.v1.global_variables_initializer())
        builder = tf.compat.v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING], signature_def_map=signatures, clear_devices=True
        )
        builder.save()
    warmup.write_requests(directory, columns, list(signatures))


def read_probability(directory: Path, matrix: Matrix) -> Floats:
    """What the article's reader gets of a version: `output/prob:0` (n, 1) of the encoded matrix (n, d).

    Raises:
        PublishError: no SavedModel, a damaged one, or one without the article's names.
    """
    with (
        named_failures(directory, "the article's reader"),
        tf.Graph().as_default(),
        tf.compat.v1.Session() as session,
    ):
        tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(directory))
        probability: Floats = session.run(f"{PROBABILITY_OP}:0", {f"{INPUT_OP}:0": matrix})
    return probability


def verify(directory: Path, matrix: Matrix, expected_probability: Floats, tolerance: float = 1e-6) -> float:
    """Read a directory the article's way and compare with what was expected; `models.verification` does the others.

    Args:
        directory: the SavedModel; verify in another process than the one that exported.
        matrix: (n, d), the Polars-encoded golden rows, n at least 1.
        expected_probability: (n,), from `Contender.probability` on that matrix.
        tolerance: largest absolute difference allowed.

    Returns:
        The largest absolute difference found, at most the tolerance.

    Raises:
        PublishError: the reader fails, or a probability is not finite or off by more than the tolerance.
    """
    difference = largest_difference(read_probability(directory, matrix), expected_probability[:, None])
    # `not <=` and not `>`: a difference that is NaN must fail
    if not difference <= tolerance:
        raise PublishError(
            f"{directory}: {PROBABILITY_OP}:0 of {len(matrix)} golden rows fed to {INPUT_OP} differs by up to "
            f"{difference:.3g} from the contender's probability, at most {tolerance:.3g} allowed; do not publish, "
            "compare the feature plans of both"
        )
    return difference
