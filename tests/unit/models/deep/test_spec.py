"""What a recipe may say: presets, layers by name, refusals; rows that fit together."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from networks import training_set

from crossrisk.contenders import NETWORKS
from models.deep.presets import ARTICLE, DAN, PRESETS
from models.deep.spec import FineTuning, Method
from models.kernel_family import KernelFamily

ROOT = Path(__file__).parents[4]

# --- presets ---


def test_presets_hold_what_the_method_pins() -> None:
    assert (ARTICLE.hidden, ARTICLE.activation, ARTICLE.batch_size, ARTICLE.epochs) == ((256, 64), "sigmoid", 512, 100)
    assert (ARTICLE.optimizer, ARTICLE.learning_rate, ARTICLE.epsilon) == ("adam", 0.005, 1e-8)
    assert (ARTICLE.evaluate_every, ARTICLE.patience, ARTICLE.use_target_labels) == (3, 15, False)
    assert (ARTICLE.schedule, ARTICLE.aligned, ARTICLE.row_weights) == ("article", ("hidden_2",), "equal")
    assert (DAN.hidden, DAN.activation, DAN.dropout, DAN.max_steps) == ((128, 32), "relu", 0.2, 600)
    assert (DAN.optimizer, DAN.learning_rate, DAN.weight_decay) == ("adamw", 2e-3, 1e-2)


def test_the_article_sums_its_kernels_keeps_its_diagonals_and_the_gradient_through_the_bandwidth() -> None:
    assert (ARTICLE.kernels.num, ARTICLE.kernels.mul, ARTICLE.kernels.bandwidth) == (5, 2.0, "mean")
    assert (ARTICLE.kernels.reduce, ARTICLE.kernels.gradient, ARTICLE.estimator) == ("sum", True, "biased")
    assert (DAN.kernels.reduce, DAN.kernels.gradient) == ("mean", False)


def test_every_network_of_the_lineup_has_a_recipe_and_every_method_a_contender() -> None:
    assert set(PRESETS) == {*NETWORKS, "article"}
    assert {spec.method for spec in PRESETS.values()} == set(get_args(Method))


@pytest.mark.parametrize("name", ["dan", "ddc", "deep_coral", "dann", "dsan"])
def test_adapters_differ_from_dan_in_what_makes_them_themselves_alone(name: str) -> None:
    own = {"ddc": ("hidden", "kernels"), "dann": ("schedule",)}.get(name, ())
    alike = replace(PRESETS[name], method="dan", **{field: getattr(DAN, field) for field in own})
    assert alike == DAN


@pytest.mark.parametrize("module", ["spec", "presets", "steps", "schedules"])
def test_recipes_and_rules_are_read_without_tensorflow(module: str) -> None:
    program = f"import sys, models.deep.{module}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# --- layers ---


def test_layers_are_named_from_the_input_and_the_last_hidden_one_by_its_place_too() -> None:
    assert DAN.layer_names == ("hidden_1", "hidden_2", "logits")
    assert DAN.aligned == ("hidden_2",)
    assert replace(DAN, hidden=(64, 32, 16)).aligned == ("hidden_3",)
    every = replace(DAN, layers=("hidden_1", "last_hidden", "logits"))
    assert every.aligned == ("hidden_1", "hidden_2", "logits")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("hidden_3",), r"'hidden_3', which a network of \(128, 32\) has not; it has last_hidden, hidden_1, hidden_2"),
        (("output",), "'output', which a network"),
        ((), "layers must name what is aligned"),
        (("logits", "logits"), "each once"),
        (("hidden_2", "last_hidden"), "each once"),
    ],
)
def test_layers_that_the_network_has_not_or_has_twice_are_refused(layers: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DAN, layers=layers)


# --- refusals ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": None, "max_steps": None}, "never end"),
        ({"batch_size": 0}, "batch_size"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"warm_up_steps": 0}, "warm_up_steps"),
        ({"mmd_weight": -0.1}, "mmd_weight"),
        ({"target_row_weight": -1.0}, "target_row_weight"),
        ({"hidden": ()}, "hidden layer"),
        ({"hidden": (8, 0)}, "hidden layer"),
        ({"dropout": 0.995}, "dropout must lie in"),
        ({"max_steps": 2}, "max_steps = 2 ends before the first evaluation, at step 3"),
        ({"method": "fine_tuned", "fine_tuning": FineTuning(max_steps=2)}, "tuning_steps.* = 2 ends before"),
        ({"method": "ddc"}, "ddc has one kernel on one layer, got 5 kernels.*take dan for more"),
        (
            {"method": "ddc", "kernels": KernelFamily(num=1), "layers": ("hidden_1", "logits")},
            "one kernel on one layer",
        ),
        ({"method": "dann", "row_weights": "class_conditional"}, "dann has no distance for each class"),
        ({"method": "deep_coral", "row_weights": "class_conditional"}, "deep_coral has no distance for each class"),
        ({"estimator": "linear", "row_weights": "class_conditional"}, "for each class"),
        ({"estimator": "linear", "method": "dsan"}, "for each class"),
    ],
)
def test_a_spec_refuses_what_cannot_train(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ARTICLE, **changes)


def test_the_linear_estimator_goes_with_weights_of_single_rows() -> None:
    assert replace(DAN, estimator="linear", row_weights="label_shift").estimator == "linear"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "fine_tuning.learning_rate"),
        ({"layer_decay": -1.0}, "fine_tuning.layer_decay"),
        ({"max_steps": 0}, "fine_tuning.max_steps"),
        ({"head_steps": -1}, "head_steps"),
        ({"thaw_every": -1}, "thaw_every"),
    ],
)
def test_fine_tuning_refuses_a_stage_that_cannot_train(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTuning(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num": 0}, "kernel_num"),
        ({"mul": 1.0}, "kernel_mul"),
        ({"bandwidth": "widest"}, "bandwidth must be"),
        ({"reduce": "max"}, "reduce must be"),
        ({"sigma": 1.0}, "fix_sigma goes with"),
        ({"bandwidth": "fixed"}, "fix_sigma goes with"),
        ({"bandwidth": "fixed", "sigma": 0.0}, "fix_sigma must be positive"),
        ({"bandwidth": "fixed", "sigma": float("nan")}, "fix_sigma must be positive"),
        ({"num": 40, "mul": 10.0}, "40 kernels of ratio 10 span more than 1e\\+30.*take fewer"),
        ({"bandwidth": "median", "gradient": True}, "no useful gradient"),
    ],
)
def test_a_kernel_family_refuses_what_has_no_width(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelFamily(**changes)


# --- rows ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_s": np.full(200, np.nan)}, "source labels"),
        ({"y_stop": np.zeros(300)}, "both goods and bads"),
        ({"y_t": np.zeros(149)}, "x_t and y_t"),
        ({"x_t": np.zeros((150, 4), np.float32)}, "x_t and y_t"),
        ({"x_t": np.zeros((0, 3), np.float32), "y_t": np.zeros(0)}, "x_t has no rows"),
    ],
)
def test_a_training_set_refuses_rows_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(training_set(), **changes)
