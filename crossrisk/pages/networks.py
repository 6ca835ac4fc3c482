"""What the pages say of a run's networks: how they trained, what the seed moves, how far apart each layer still is.

Pure: the result document (`tasks.report.build_result`, schema_version 1) in, plain data and sentences out; numbers stay
numbers. The histories are those of `models.deep_worker`, of schema_version 2; an earlier release wrote one history, of
`dan`, without layers and without the target's bad rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrisk.pages.texts import Document, number_text, percent_text

Json = dict[str, Any]

NOISE_BANDS = 2.0
"""An unbiased MMD up to so many no-shift bands, which are standard deviations, is no more than noise."""

PRIOR_SOURCES: Mapping[str, str] = {
    "labels": "that of its known labels",
    "bbse": "estimated from scores alone (BBSE)",
    "em": "estimated from scores alone (EM)",
}


def read_trainings(result: Document) -> Mapping[str, Document]:
    """Contender -> history of its networks, in alphabetical order: a JSON twin may have turned theirs.

    Raises:
        KeyError: the document lacks them.
    """
    if "trainings" in result:
        return dict(sorted(result["trainings"].items()))
    return {"dan": result["training"]} if result["training"] else {}  # of an earlier release


def describe_networks(result: Document) -> list[Json]:
    """Every network of the run: its grid of mmd_weights, the shift of its layers, the target's bad rate it was told."""
    return [describe_network(name, history) for name, history in read_trainings(result).items()]


def describe_network(name: str, history: Document) -> Json:
    """One network of the run, as `describe_networks`."""
    layers = describe_layers(history)
    said = [*(say_layer(line) for line in layers), say_prior(history), say_deciders(history)]
    return {
        "contender": name,
        "method": history.get("method", "dan"),
        "mmd_weight": history["chosen_mmd_weight"],
        "grid": [_describe_candidate(one, history["chosen_mmd_weight"]) for one in history["candidates"]],
        "layers": layers,
        "target_prior": dict(history.get("target_prior", {"value": None, "from": "none", "reason": "not recorded"})),
        "sentences": [sentence for sentence in said if sentence],
    }


def chosen_trainings(history: Document) -> Sequence[Document]:
    """The trainings of the mmd_weight that was kept, one a seed."""
    (chosen,) = (one for one in history["candidates"] if one["mmd_weight"] == history["chosen_mmd_weight"])
    trainings: Sequence[Document] = chosen["trainings"]
    return trainings


def stop_aucs(trainings: Sequence[Document]) -> list[float]:
    """AUC on the stop rows of each network at the step that was kept."""
    return [_at_kept_step(one, "stop_auc") for one in trainings]


def describe_layers(history: Document) -> list[Json]:
    """How far apart source and target are in each aligned layer of the networks kept: means over the seeds.

    Empty where the training did not measure it (preset article, fine_tuned). `unbiased` and its `noise` have a
    bandwidth that follows the features; `fixed` keeps that of the first evaluation, so that it can be compared with
    `fixed_first`.
    """
    trainings = chosen_trainings(history)
    return [
        {
            "layer": layer,
            "unbiased": _mean([_at_kept_step(one, f"mmd_unbiased_{layer}") for one in trainings]),
            "noise": _mean([_at_kept_step(one, f"mmd_no_shift_band_{layer}") for one in trainings]),
            "fixed_first": _mean([one["history"][f"mmd_fixed_{layer}"][0] for one in trainings]),
            "fixed": _mean([_at_kept_step(one, f"mmd_fixed_{layer}") for one in trainings]),
            "first_step": int(trainings[0]["history"]["evaluation_step"][0]),
            "networks": len(trainings),
        }
        for layer in history.get("layers", ())
        if all(one["history"].get(f"mmd_unbiased_{layer}") for one in trainings)
    ]


def say_layer(line: Document) -> str:
    """One layer in plain words."""
    apart, noise, first, now = (number_text(line[key], 4) for key in ("unbiased", "noise", "fixed_first", "fixed"))
    found = f"source and target differ by {apart} where {noise} would be noise"
    if line["unbiased"] <= NOISE_BANDS * line["noise"]:
        found = f"source and target differ by {apart}, no more than noise ({noise})"
    kept = f"at step {line['first_step']} it was {first}, in the networks kept {now} (one bandwidth for both)"
    return f"{line['layer']}: {found}; {kept}."


def say_prior(history: Document) -> str | None:
    """The target's bad rate that an alignment was told, and where it is from; None where none was asked for."""
    prior = history.get("target_prior", {"from": "none"})
    if prior["from"] == "none":
        return None
    if prior["value"] is None:
        return f"No bad rate of the target was told to the alignment: {prior['reason']}."
    source = PRIOR_SOURCES.get(prior["from"], prior["from"])
    return f"Bad rate of the target told to the alignment: {percent_text(prior['value'])}, {source}."


def say_deciders(history: Document) -> str | None:
    """Whose rows decided the stop and chose the weight; None where an earlier release did not write it."""
    decided = history.get("decided_by")
    if decided is None:
        return None
    stop, weight = (" and ".join(decided[what]) for what in ("stop", "mmd_weight"))
    said = f"Checkpoint and stop were decided on {stop}"
    if first := decided.get("first_stage"):
        said += f", of the source network that is tuned on {' and '.join(first)}"
    return f"{said}, mmd_weight was chosen on {weight}." if len(history["candidates"]) > 1 else f"{said}."


def _describe_candidate(candidate: Document, chosen: float) -> Json:
    trainings = candidate["trainings"]
    aucs = stop_aucs(trainings)
    return {
        "mmd_weight": candidate["mmd_weight"],
        "is_chosen": candidate["mmd_weight"] == chosen,
        "stop_auc": candidate["stop_auc"],
        "choose_auc": candidate.get("choose_auc"),
        "networks": len(trainings),
        "auc_low": min(aucs),
        "auc_high": max(aucs),
        "kept_steps": _range([one["best_step"] for one in trainings]),
        "last_steps": _range([one["stopped_step"] for one in trainings]),
        "ends": sorted({one["stop_reason"] for one in trainings}),
    }


def _at_kept_step(training: Document, key: str) -> float:
    history = training["history"]
    value: float = history[key][history["evaluation_step"].index(training["best_step"])]
    return value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _range(steps: Sequence[int]) -> list[int]:
    return sorted({min(steps), max(steps)})
