"""What is said of the networks' trainings: means over seeds, layers, the target's bad rate, earlier releases."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from documents import Json, document, earlier_release, training_history

from crossrisk.pages.networks import (
    chosen_trainings,
    describe_layers,
    describe_network,
    read_trainings,
    say_deciders,
    say_layer,
    say_prior,
    stop_aucs,
)
from crossrisk.pages.training_plots import draw_training


def two_seeds() -> Json:
    """dan with two seeds; the second keeps its first evaluation."""
    history = training_history("dan", seeds=2)
    for candidate in history["candidates"]:
        candidate["trainings"] = copy.deepcopy(candidate["trainings"])
    (chosen,) = (one for one in history["candidates"] if one["mmd_weight"] == 0.1)
    chosen["trainings"][1]["best_step"] = 20
    return history


def test_layers_are_means_over_the_chosen_networks_at_the_steps_they_kept() -> None:
    hidden_1, hidden_2 = describe_layers(two_seeds())
    assert (hidden_1["layer"], hidden_2["layer"]) == ("hidden_1", "hidden_2")
    assert hidden_2["unbiased"] == pytest.approx((0.021 + 0.15) / 2)
    assert hidden_2["noise"] == pytest.approx((0.001 + 0.002) / 2)
    assert hidden_2["fixed"] == pytest.approx((0.031 + 0.15) / 2)
    assert (hidden_2["fixed_first"], hidden_2["first_step"], hidden_2["networks"]) == (0.15, 20, 2)


def test_other_weights_than_the_chosen_do_not_enter() -> None:
    history = two_seeds()
    for candidate in history["candidates"]:
        if candidate["mmd_weight"] != 0.1:
            candidate["trainings"] = []
    assert len(describe_layers(history)) == 2
    assert stop_aucs(chosen_trainings(history)) == [0.62, 0.6]


def test_a_layer_that_was_not_measured_is_left_out() -> None:
    assert describe_layers(training_history("fine_tuned")) == []
    history = two_seeds()
    history["layers"].append("logits")
    assert [line["layer"] for line in describe_layers(history)] == ["hidden_1", "hidden_2"]


LINE = {"layer": "hidden_2", "unbiased": 0.021, "noise": 0.001, "fixed_first": 0.15, "fixed": 0.031, "first_step": 20}


@pytest.mark.parametrize(
    ("unbiased", "said"),
    [
        (0.021, "differ by 0.0210 where 0.0010 would be noise;"),
        (0.0021, "differ by 0.0021 where 0.0010 would be noise;"),
        (0.0019, "differ by 0.0019, no more than noise (0.0010);"),
        (-0.0005, "differ by -0.0005, no more than noise (0.0010);"),
    ],
)
def test_a_layer_within_two_bands_is_called_noise(unbiased: float, said: str) -> None:
    assert said in say_layer(LINE | {"unbiased": unbiased})


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ({"value": 0.081, "from": "labels", "reason": None}, "8.1%, that of its known labels."),
        ({"value": 0.081, "from": "bbse", "reason": None}, "8.1%, estimated from scores alone (BBSE)."),
        ({"value": 0.081, "from": "em", "reason": None}, "8.1%, estimated from scores alone (EM)."),
        ({"value": None, "from": "bbse", "reason": "ill-posed"}, "No bad rate of the target was told to the alignment: "
         "ill-posed."),
    ],
)  # fmt: skip
def test_the_targets_bad_rate_is_said_with_where_it_is_from_or_why_there_is_none(prior: Json, said: str) -> None:
    sentence = say_prior(training_history() | {"target_prior": prior})
    assert sentence is not None
    assert sentence.endswith(said)


def test_nothing_is_said_of_a_bad_rate_that_was_not_asked_for() -> None:
    assert say_prior(training_history("source_network")) is None
    assert describe_network("fine_tuned", training_history("fine_tuned"))["sentences"] == []


def test_an_earlier_releases_one_network_is_read_as_dan() -> None:
    assert list(read_trainings(earlier_release(document()))) == ["dan"]
    assert read_trainings(earlier_release(document(("source_logistic",)))) == {}
    network = describe_network("dan", read_trainings(earlier_release(document()))["dan"])
    assert (network["method"], network["mmd_weight"], network["layers"], network["sentences"]) == ("dan", 0.1, [], [])


def test_a_document_without_trainings_is_refused() -> None:
    with pytest.raises(KeyError, match="training"):
        read_trainings({key: value for key, value in document().items() if key != "trainings"})


# --- the picture ---


def words(history: Any, name: str = "dan") -> str:
    return str(draw_training(name, history))


def test_the_picture_names_what_the_method_makes_small() -> None:
    for method, title in (("dan", "MMD (batch)"), ("deep_coral", "CORAL distance"), ("dann", "domain loss")):
        assert title in words(training_history(method) | {"method": method})
    assert "nothing is aligned" in words(training_history("source_network"))
    assert "MMD, unbiased (hidden_2)" in words(training_history())


def test_the_picture_of_an_earlier_release_is_that_of_dan() -> None:
    assert "MMD (batch)" in words(earlier_release(document())["training"])


def test_ten_seeds_of_unequal_length_are_drawn_without_a_gap() -> None:
    history = training_history("dan", seeds=10)
    for candidate in history["candidates"]:
        candidate["trainings"] = copy.deepcopy(candidate["trainings"])
        short = candidate["trainings"][4]["history"]
        for name, values in short.items():
            short[name] = values[: len(values) // 2]
        candidate["trainings"][4]["best_step"] = 20
    drawn = words(history)
    assert "nan" not in drawn
    assert drawn.count("mean of the seeds") == 2
    assert "chosen, a line a seed" in drawn


def test_equal_histories_give_equal_bytes() -> None:
    assert words(two_seeds()) == words(copy.deepcopy(two_seeds()))


def test_it_is_said_whose_rows_decided_the_stop_and_chose_the_weight() -> None:
    history = {"candidates": [{}, {}], "decided_by": {"stop": ["source_stop"], "mmd_weight": ["target_select"]}}
    assert say_deciders(history) == (
        "Checkpoint and stop were decided on source_stop, mmd_weight was chosen on target_select."
    )
    assert say_deciders(history | {"candidates": [{}]}) == "Checkpoint and stop were decided on source_stop."
    tuned = {
        "candidates": [{}],
        "decided_by": {**history["decided_by"], "stop": ["target_select"], "first_stage": ["source_stop"]},
    }
    assert say_deciders(tuned) == (
        "Checkpoint and stop were decided on target_select, of the source network that is tuned on source_stop."
    )
    assert say_deciders({"candidates": [{}, {}]}) is None  # of an earlier release
