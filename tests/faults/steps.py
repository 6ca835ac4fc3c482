"""The steps of a retrain as plain functions, without Prefect: what a fault is sent through, as far as it comes.

The order is that of `flows.retrain`; publishing and the report stay out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from crossrisk.config import Loaded
from crossrisk.contenders import NETWORKS
from crossrisk.periods import question_of
from crossrisk.store import Stage
from tasks.calibrate import calibrate
from tasks.candidate import stage_candidate
from tasks.compare import compare
from tasks.decide import Decided, make_decision
from tasks.diagnose import diagnose
from tasks.features import apply_encodings, fit_encodings, make_row_features
from tasks.ingest import ingest
from tasks.labels import mature_labels
from tasks.leaks import check_leaks
from tasks.split import split_populations
from tasks.train_baselines import train_baseline
from tasks.train_network import train_network
from tasks.validate import validate


@dataclass
class Walk:
    """A retrain on its way: the stages that were made, by name."""

    loaded: Loaded
    stages: dict[str, Stage] = field(default_factory=dict)
    trained: dict[str, Stage] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What a run like this one asks of the ledger."""
        digests = {name: self[name].digest for name in ("calibrated", "diagnosed")}
        return question_of(self.loaded.portfolio, **digests)

    def __getitem__(self, name: str) -> Stage:
        return self.stages[name]

    def check_input(self) -> Walk:
        """Ingest and validate."""
        self.stages["ingest"] = ingest.fn(self.loaded)
        self.stages["validate"] = validate.fn(self.loaded, self["ingest"])
        return self

    def mature(self) -> Walk:
        """And say of every row who it is and what is known of it."""
        self.check_input()
        self.stages["labels"] = mature_labels.fn(self.loaded, self["ingest"], self["validate"])
        return self

    def encode(self) -> Walk:
        """And split, and make what is trained on."""
        loaded = self.mature().loaded
        self.stages["rows"] = make_row_features.fn(loaded, self["ingest"], self["labels"])
        self.stages["split"] = split_populations.fn(loaded, self["labels"])
        self.stages["plan"] = fit_encodings.fn(loaded, self["rows"], self["split"])
        self.stages["encoded"] = apply_encodings.fn(loaded, self["rows"], self["split"], self["plan"])
        return self

    def judge(self) -> Walk:
        """And train every contender and judge them on the untouched rows."""
        loaded = self.encode().loaded
        encoded, plan = self["encoded"], self["plan"]
        for name in loaded.portfolio.contenders:
            train = train_network if name in NETWORKS else train_baseline
            self.trained[name] = train.fn(loaded, name, encoded, plan)
        calibrated = self.stages["calibrated"] = calibrate.fn(loaded, encoded, plan, self.trained)
        self.stages["diagnosed"] = diagnose.fn(loaded, self["rows"], encoded, plan, calibrated)
        self.stages["compared"] = compare.fn(
            loaded,
            self["ingest"],
            encoded,
            plan,
            self["split"],
            calibrated,
            self["diagnosed"],
            self.trained,
            self.question,
        )
        return self

    def decide(self) -> Decided:
        """And export the challenger (a child process with TensorFlow) and decide."""
        self.judge()
        compared = self["compared"]
        self.stages["leaks"] = check_leaks.fn(self.loaded, self["rows"], self["split"])
        candidate = stage_candidate.fn(self.loaded, self["plan"], self["encoded"], self["calibrated"], compared)
        self.stages["candidate"] = candidate
        return make_decision.fn(self.loaded, compared, candidate, self["diagnosed"], self["leaks"], self.question)
