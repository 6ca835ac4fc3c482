"""Ugly months and awkward inputs: what Crossrisk answers, and what toad, scorecardpy and optbinning do.

    python benchmarks/bench_correctness.py [--peers PEERS/bin/python ...] [--markdown | --json]

The others live in an environment of their own, built on Python 3.11 by

    python3 -m venv PEERS
    PEERS/bin/pip install toad==0.1.7 scorecardpy==0.1.9.7 optbinning==1.0.0 pandas==3.1.1 numpy==2.4.6

and a library that is in several such environments, over several versions of pandas, has a column for each, such as

    OLDER/bin/pip install scorecardpy==0.1.9.7 pandas==1.5.3 numpy==1.26.4

Each library is asked in a process of its own, by this file run with that interpreter, where it imports NumPy, pandas
and the library. Both sides draw the same arrays from the same seeds: a digest of them is compared. A library is called
as its documentation shows, on its own defaults and in its own bins. A cell says what came back, whether the user was
warned, or the type of the exception; a wrong one is red, and bold in Markdown. The exit status is 1 where one of ours
is wrong. The rules behind the cases are tests of ours in tests/golden.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import math
import re
import subprocess
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Data = tuple[Array, ...]

PEERS = ("toad", "scorecardpy", "optbinning")
OURS = "Crossrisk"
SECONDS = 300
"""that a library may take over all cases"""
ORDERS = 20


# --- answers ---


@dataclass(frozen=True)
class Answer:
    """What a library said to one question."""

    text: str
    numbers: tuple[float, ...] = ()
    raised: bool = False


@dataclass(frozen=True)
class Right:
    """What a right answer looks like."""

    text: str
    """as printed"""
    low: float = -math.inf
    high: float = math.inf
    """of every number in the answer"""
    pattern: str = ""
    """found in its text"""
    refusal: bool = False
    """an exception is as good"""

    def holds(self, answer: Answer) -> bool:
        """Whether this answer is one."""
        if answer.raised:
            return self.refusal
        in_range = all(math.isfinite(number) and self.low <= number <= self.high for number in answer.numbers)
        return in_range and re.search(self.pattern, answer.text) is not None


@dataclass(frozen=True)
class Column:
    """One library's answers."""

    name: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """of the library and of what it stands on"""
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """by the title of the case; none where the library is absent"""
    absence: str = ""
    """why there is no answer at all"""


def shown(numbers: tuple[float, ...]) -> str:
    """One number, or the range of several that differ."""
    low, high = (f"{number:.3f}" for number in (min(numbers), max(numbers)))
    return low if low == high else f"{low} to {high}"


def attempt(ask: Callable[[], str | float | tuple[float, ...]]) -> Answer:
    """What comes back, as an answer; an exception is one too."""
    try:
        found = ask()
    except Exception as error:  # whatever a library raises is what the table is about
        return Answer(f"raises {type(error).__name__}", raised=True)
    if isinstance(found, str):
        return Answer(found)
    numbers = found if isinstance(found, tuple) else (float(found),)
    return Answer(shown(numbers), numbers)


# --- libraries, each behind the same questions ---


class Sample(NamedTuple):
    """A column and its labels, NaN where there is none yet."""

    values: Array
    label: Array


class Library(ABC):
    """The questions. Labels are 1 for a bad, and a higher value is riskier."""

    @abstractmethod
    def auc(self, label: Any, score: Any) -> float:
        """Area under the ROC curve, of (n,) labels and scores."""

    @abstractmethod
    def ks(self, label: Any, score: Any) -> float:
        """Largest gap between the distributions of bads and goods."""

    @abstractmethod
    def iv(self, feature: Sample) -> float:
        """Information value of a feature of few distinct values."""

    @abstractmethod
    def psi(self, reference: Sample, month: Sample) -> float:
        """PSI of a score in bins that the library makes of the reference."""

    @abstractmethod
    def moved(self, reference: Sample, month: Sample) -> str:
        """The bin that adds most to the PSI of a feature, with its shares."""

    def psi_as_given(self, reference: Sample, month: Sample) -> float:
        """PSI of two columns handed over as they are."""
        return self.psi(reference, month)

    def month(self, reference: Sample, month: Sample) -> str:
        """AUC and PSI of a score, whatever becomes of either: two functions, unless a library has one for both."""
        auc = attempt(lambda: self.auc(month.label, month.values))
        return f"AUC {auc.text}, PSI {attempt(lambda: self.psi(reference, month)).text}"


class _Crossrisk(Library):
    """Ours."""

    def __init__(self) -> None:
        from crossrisk import metrics, stability
        from crossrisk.metrics.woe import information_value

        self.metrics, self.stability, self.information_value = metrics, stability, information_value

    def auc(self, label: Any, score: Any) -> float:
        return self.metrics.auc_value(label, score)

    def ks(self, label: Any, score: Any) -> float:
        return self.metrics.ks_value(label, score)

    def iv(self, feature: Sample) -> float:
        kinds = np.unique(feature.values)
        bads, goods = ([np.sum(feature.label[feature.values == kind] == y) for kind in kinds] for y in (1, 0))
        found = self.information_value(bads, goods, names=[str(kind) for kind in kinds], sign="ln(bad/good)")
        assert found.iv.value is not None
        return found.iv.value

    def psi(self, reference: Sample, month: Sample) -> float:
        frozen, counts = self._count(reference, month)
        found = self.stability.psi(frozen.counts, counts).value
        assert found is not None
        return found

    def moved(self, reference: Sample, month: Sample) -> str:
        frozen, counts = self._count(reference, month)
        move = self.stability.largest_move(frozen, counts)
        assert move is not None
        return f"{move.label}: {move.share_reference:.1%} to {move.share:.1%}"

    def month(self, reference: Sample, month: Sample) -> str:
        known = self.metrics.known_rows(month.label, month.values)
        auc = self.metrics.auc_metric(known.label, known.score)
        return f"AUC {auc.status if auc.value is None else auc.value}, PSI {self.psi(reference, month):.3f}"

    def _count(self, reference: Sample, month: Sample) -> tuple[Any, Array]:
        is_text = reference.values.dtype.kind == "U"
        describe = self.stability.describe_categories if is_text else self.stability.describe_numbers
        frozen = describe(reference.values.tolist())
        return frozen, frozen.bins.count(month.values.tolist())


class _Toad(Library):
    """toad: metrics, and its Combiner for bins."""

    def __init__(self) -> None:
        import pandas as pd
        import toad

        self.toad, self.pd = toad, pd

    def auc(self, label: Any, score: Any) -> float:
        return float(self.toad.metrics.AUC(score, label))

    def ks(self, label: Any, score: Any) -> float:
        return float(self.toad.metrics.KS(score, label))

    def iv(self, feature: Sample) -> float:
        return float(self.toad.stats.IV(feature.values, feature.label))

    def psi_as_given(self, reference: Sample, month: Sample) -> float:
        return float(self.toad.metrics.PSI(self.pd.Series(month.values), self.pd.Series(reference.values)))

    def psi(self, reference: Sample, month: Sample) -> float:
        return float(self._compare(reference, month)[0]["x"])

    def moved(self, reference: Sample, month: Sample) -> str:
        frame = self._compare(reference, month)[1].fillna(0)
        return _largest(frame["value"], frame["base"].to_numpy(), frame["test"].to_numpy())

    def _compare(self, reference: Sample, month: Sample) -> Any:
        before, after = (self.pd.DataFrame({"x": sample.values}) for sample in (reference, month))
        combiner = self.toad.transform.Combiner()
        combiner.fit(before.assign(y=reference.label), y="y", method="quantile", n_bins=10, empty_separate=True)
        return self.toad.metrics.PSI(after, before, combiner=combiner, return_frame=True)


class _ScorecardPy(Library):
    """scorecardpy: perf_eva, perf_psi and woebin."""

    def __init__(self) -> None:
        import pandas as pd
        import scorecardpy

        self.sc, self.pd = scorecardpy, pd

    def auc(self, label: Any, score: Any) -> float:
        return float(self.sc.perf_eva(label, score, show_plot=False)["AUC"])

    def ks(self, label: Any, score: Any) -> float:
        return float(self.sc.perf_eva(label, score, show_plot=False)["KS"])

    def iv(self, feature: Sample) -> float:
        frame = self.pd.DataFrame({"x": feature.values, "y": feature.label})
        return float(self.sc.woebin(frame, y="y", no_cores=1)["x"]["total_iv"].iloc[0])

    def psi(self, reference: Sample, month: Sample) -> float:
        return float(self._compare(reference, month)["psi"]["PSI"].iloc[0])

    def moved(self, reference: Sample, month: Sample) -> str:
        frame = self._compare(reference, month)["dat"]["x"]
        before, after = (frame["N"][side].fillna(0).to_numpy() for side in ("reference", "month"))
        return _largest(frame["bin"], before / before.sum(), after / after.sum())

    def _compare(self, reference: Sample, month: Sample) -> Any:
        sides = {"month": month, "reference": reference}
        labels = {side: self.pd.Series(sample.label) for side, sample in sides.items()}
        return self.sc.perf_psi(
            score={side: self.pd.DataFrame({"x": sample.values}) for side, sample in sides.items()},
            label=None if np.isnan(month.label).all() else labels,
            show_plot=False,
            return_distr_dat=True,
        )


class _OptBinning(Library):
    """optbinning: metrics, OptimalBinning, and the monitoring of a scorecard of one feature."""

    def __init__(self) -> None:
        import optbinning
        import pandas as pd
        from optbinning import metrics, scorecard
        from sklearn.linear_model import LogisticRegression

        self.ob, self.metrics, self.scorecard = optbinning, metrics.classification, scorecard
        self.pd, self.regression = pd, LogisticRegression

    def auc(self, label: Any, score: Any) -> float:
        return (1 + float(self.metrics.gini(label, score))) / 2

    def ks(self, label: Any, score: Any) -> float:
        return float(self.metrics.ks(label, score)[0])

    def iv(self, feature: Sample) -> float:
        fitted = self.ob.OptimalBinning().fit(feature.values, feature.label)
        return float(fitted.binning_table.build().loc["Totals", "IV"])

    def psi(self, reference: Sample, month: Sample) -> float:
        return float(self._monitor(reference, month).psi_table().loc["Totals", "PSI"])

    def psi_as_given(self, reference: Sample, month: Sample) -> float:
        return float(self._monitor(reference, month).psi_variable_table()["PSI"].sum())

    def moved(self, reference: Sample, month: Sample) -> str:
        frame = self._monitor(reference, month).psi_variable_table(style="detailed")
        return _largest(frame["Bin"], frame["Count E (%)"].to_numpy(), frame["Count A (%)"].to_numpy())

    def month(self, reference: Sample, month: Sample) -> str:
        monitor = self._monitor(reference, month)
        probability = monitor.scorecard.predict_proba(self.pd.DataFrame({"x": month.values}))[:, 1]
        psi = monitor.psi_table().loc["Totals", "PSI"]
        return f"AUC {self.auc(month.label, probability):.3f}, PSI {psi:.3f}"

    def _monitor(self, reference: Sample, month: Sample) -> Any:
        before, after = (self.pd.DataFrame({"x": sample.values}) for sample in (reference, month))
        texts = ["x"] if reference.values.dtype.kind == "U" else None
        card = self.scorecard.Scorecard(
            binning_process=self.ob.BinningProcess(["x"], categorical_variables=texts),
            estimator=self.regression(),
            scaling_method="pdo_odds",
            scaling_method_params={"pdo": 20, "odds": 30, "scorecard_points": 600},
        ).fit(before, reference.label)
        monitor = self.scorecard.ScorecardMonitoring(card)
        return monitor.fit(after, month.label, before, reference.label)


def _largest(labels: Any, before: Array, after: Array) -> str:
    """The bin that adds most to a PSI, of a library's table of shares, with at least .0005 in each."""
    e, a = np.maximum(before, 5e-4), np.maximum(after, 5e-4)
    at = int(((a - e) * np.log(a / e)).argmax())
    name = re.sub(r"(\.\d)\d+", r"\1", str(list(labels)[at]))
    return f"{name}: {before[at]:.1%} to {after[at]:.1%}"


LIBRARIES: dict[str, Callable[[], Library]] = {
    OURS: _Crossrisk,
    "toad": _Toad,
    "scorecardpy": _ScorecardPy,
    "optbinning": _OptBinning,
}


# --- data, by NumPy alone ---


def scores(rows: int, seed: int, shift: float = 0.0) -> Data:
    """Values in points, normal about 600 and `shift` standard deviations of 100, and labels: higher is riskier."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=rows)
    label = (rng.random(rows) < 1 / (1 + np.exp(2.5 - 0.9 * z))).astype(float)
    return 600 + 100 * (z + shift), label


def texts(levels: Mapping[str, int], seed: int) -> Data:
    """So many rows of each level, and labels: the later in the alphabet, the riskier."""
    values = np.repeat(list(levels), list(levels.values()))
    rate = np.array([0.05 + 0.2 * (ord(value) - ord("a")) for value in values])
    return values, (np.random.default_rng(seed).random(len(values)) < rate).astype(float)


def probabilities() -> Data:
    """Labels, and the probabilities that they were drawn from, as log odds."""
    rng = np.random.default_rng(1)
    z = rng.normal(-2.5, 1.2, 4000)
    return (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(int), z


def tied() -> Data:
    """Labels and scores of one decimal whose exact KS is .556 - .200 = .356, with the orders to read them in."""
    goods, bads, grid = (300, 256, 244, 120, 80), (100, 100, 250, 275, 275), np.arange(1, 6) / 10
    label, score = np.repeat([0, 1], 1000), np.r_[np.repeat(grid, goods), np.repeat(grid, bads)]
    return label, score, *(np.random.default_rng(seed).permutation(2000) for seed in range(ORDERS))


def grades() -> Data:
    """Four values of a feature and labels."""
    rng = np.random.default_rng(2)
    values = rng.integers(0, 4, 4000)
    return values, (rng.random(4000) < np.array([0.05, 0.1, 0.2, 0.4])[values]).astype(float)


def month_with_missing() -> Data:
    """6,000 rows of reference; a month of 3,000 of which every other value is missing."""
    values, label = scores(3000, seed=4)
    values[::2] = np.nan
    return *scores(6000, seed=3), values, label


def month_without_lowest() -> Data:
    """5,150 rows of reference; a month of 400 with no value in the reference's lowest tenth."""
    before, labels = scores(5150, seed=5)
    values, label = scores(600, seed=6)
    kept = np.flatnonzero(values > np.quantile(before, 0.1))[:400]
    return before, labels, values[kept], label[kept]


def month_labelled(label: float) -> Data:
    """5,150 rows of reference; a month of 400 with one label throughout."""
    return *scores(5150, seed=5), scores(400, seed=7)[0], np.full(400, label)


# --- cases ---


@dataclass(frozen=True)
class Case:
    """One question to every library."""

    title: str
    draw: Callable[[], Data]
    ask: Callable[..., str | float | tuple[float, ...]]
    """(library, *data) -> answer"""
    right: Callable[..., Right]
    """(*data) -> the right answer, by another road than any of the libraries"""


def exact(value: float, *, refusal: bool = False) -> Right:
    """Equal to three decimals."""
    return Right(f"{value:.3f}{' or a refusal' if refusal else ''}", value - 6e-4, value + 6e-4, refusal=refusal)


def all_pairs(label: Array, score: Array) -> float:
    """AUC by comparing every bad with every good."""
    bads, goods = score[label == 1, None], score[None, label == 0]
    return float(np.mean((bads > goods) + 0.5 * (bads == goods)))


def distinct_gap(label: Array, score: Array) -> float:
    """KS as the largest gap at any distinct score."""
    return max(abs(float(np.mean(score[label == 1] <= s) - np.mean(score[label == 0] <= s))) for s in np.unique(score))


def divergence(values: Array, label: Array) -> float:
    """IV of counts none of which is 0, without smoothing."""
    shares = [np.array([np.mean(values[label == y] == kind) for kind in np.unique(values)]) for y in (1, 0)]
    return float(np.sum((shares[0] - shares[1]) * np.log(shares[0] / shares[1])))


def compared(question: str) -> Callable[..., Any]:
    """Ask `question` of a reference and a month."""
    return lambda library, *data: getattr(library, question)(Sample(*data[:2]), Sample(*data[2:]))


def large(*_: Array) -> Right:
    """At least 1, four times the customary limit of red, and finite: which number it is, bins and zero rule decide."""
    return Right("large and finite", 1.0)


def rest_renders(*_: Array) -> Right:
    """No AUC, if need be by an exception, and the month's PSI nevertheless, for that needs no label."""
    return Right("no AUC, and a PSI nevertheless", pattern=r"^AUC (undefined|nan|raises \w+), PSI 0\.0")


CASES = (
    Case(
        "ordinary month of 2,000 rows (control): PSI of a score",
        lambda: (*scores(6000, seed=8), *scores(2000, seed=9)),
        compared("psi"),
        lambda *_: Right("below 0.1", 0.0, 0.1),
    ),
    Case(
        "reference all a and b, month all c: PSI",
        lambda: (*texts({"a": 500, "b": 500}, seed=10), *texts({"c": 1000}, seed=11)),
        compared("psi_as_given"),
        large,
    ),
    Case(
        "40% of the month is a new category: PSI",
        lambda: (*texts({"a": 500, "b": 500}, seed=10), *texts({"a": 300, "b": 300, "c": 400}, seed=12)),
        compared("psi_as_given"),
        large,
    ),
    Case(
        "continuous score as it is, mean shifted by 3 sd: PSI",
        lambda: (*scores(5000, seed=13), *scores(5000, seed=14, shift=3)),
        compared("psi_as_given"),
        large,
    ),
    Case(
        "score shifted by 8 sd: PSI",
        lambda: (*scores(5000, seed=13), *scores(5000, seed=14, shift=8)),
        compared("psi"),
        large,
    ),
    Case(
        "disjoint scores, 400 to 600 and 700 to 900: PSI",
        lambda: (400 + np.arange(1000) / 5, scores(1000, 15)[1], 700 + np.arange(1000) / 5, scores(1000, 16)[1]),
        compared("psi"),
        large,
    ),
    Case(
        "scores are log odds, some above 1: AUC",
        probabilities,
        lambda library, label, score: library.auc(label, score),
        lambda label, score: exact(all_pairs(label, score)),
    ),
    Case(
        "lists in place of arrays: KS",
        probabilities,
        lambda library, label, score: library.ks(label.tolist(), (1 / (1 + np.exp(-score))).tolist()),
        lambda label, score: exact(distinct_gap(label, score), refusal=True),
    ),
    Case(
        f"scores tied at one decimal, {ORDERS} orders of the rows: KS",
        tied,
        lambda library, label, score, *orders: tuple(library.ks(label[order], score[order]) for order in orders),
        lambda label, score, *_: exact(distinct_gap(label, score)),
    ),
    Case(
        "feature of four values: IV",
        grades,
        lambda library, *data: library.iv(Sample(*data)),
        lambda *data: Right(f"{divergence(*data):.3f}, within .01", divergence(*data) - 0.01, divergence(*data) + 0.01),
    ),
    Case(
        "half of the values turn missing: bin that moved most",
        month_with_missing,
        compared("moved"),
        lambda *_: Right("missing: 0.0% to 50.0%", pattern="(?i)^(missing|nan).*50.0%$"),
    ),
    Case(
        "lowest tenth of the score empty in a month of 400: PSI",
        month_without_lowest,
        compared("psi"),
        lambda *_: Right("above 0.1 and finite", 0.1),
    ),
    Case("no bad in a month of 400: report", lambda: month_labelled(0.0), compared("month"), rest_renders),
    Case("no labels yet in a month of 400: report", lambda: month_labelled(np.nan), compared("month"), rest_renders),
)


# --- asking ---


def digest(cases: tuple[Case, ...] = CASES) -> str:
    """SHA-256 of every array of every case."""
    found = hashlib.sha256()
    for case in cases:
        for array in case.draw():
            found.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def answer_all(name: str) -> Column:
    """Import one library and ask it every case; what it prints goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            library = LIBRARIES[name]()
        except Exception as error:  # broken installations fail in many ways
            missing = isinstance(error, ModuleNotFoundError) and error.name == name
            return Column(name, absence="not installed" if missing else f"import raises {type(error).__name__}")
        answers = {case.title: _answer(case, library) for case in CASES}
    distributions = ("crossrisk", "polars", "numpy") if name == OURS else (name, "pandas", "numpy", "scikit-learn")
    return Column(name, {each: importlib.metadata.version(each) for each in distributions}, answers)


def _answer(case: Case, library: Library) -> Answer:
    """With a word where the library warned its user; deprecations and the like speak to its developers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = attempt(lambda: case.ask(library, *case.draw()))
    is_warned = not answer.raised and any(issubclass(one.category, UserWarning) for one in caught)
    return replace(answer, text=f"{answer.text} (warns)") if is_warned else answer


def ask_peer(python: Path, name: str) -> Column:
    """`answer_all` in a process of another interpreter."""
    command = [str(python), "-I", str(Path(__file__).resolve()), "--answer", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Column(name, absence=f"no answer within {SECONDS} s")
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        return Column(name, absence=f"process ended with {done.returncode}")
    document = json.loads(done.stdout)
    if document["digest"] != digest():
        raise RuntimeError(f"{python} draws other arrays than this interpreter: compare their versions of NumPy")
    column = document["column"]
    answers = {
        title: Answer(one["text"], tuple(one["numbers"]), one["raised"]) for title, one in column["answers"].items()
    }
    return Column(name, column["versions"], answers, column["absence"])


def ask_peers(pythons: Sequence[Path], names: Sequence[str] = PEERS) -> list[Column]:
    """Every library in each environment that has it, or once to say why there is no answer."""
    columns = []
    for name in names if pythons else ():
        print(f"asking {name}", file=sys.stderr)
        found = [ask_peer(python, name) for python in pythons]
        columns += [column for column in found if column.answers] or found[:1]
    return columns


# --- showing ---


@dataclass(frozen=True)
class Cell:
    """One answer as printed."""

    text: str
    right: bool | None
    """None where there is no answer"""


def cells(case: Case, right: Right, columns: list[Column]) -> list[Cell]:
    """One row of the table, from the third column on."""
    row = []
    for column in columns:
        answer = column.answers.get(case.title)
        row.append(Cell(column.absence, None) if answer is None else Cell(answer.text, right.holds(answer)))
    return row


def main() -> int:
    """Ask and print. 1 where an answer of ours is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", type=Path, nargs="+", default=[], metavar="PYTHON", help="interpreters that have the other libraries"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the table for docs/benchmarks.md")
    form.add_argument("--json", action="store_true", help="print a JSON document in place of the table")
    parser.add_argument("--answer", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for python in options.peers:
        if not python.is_file():
            parser.error(f"--peers: expected an interpreter such as PEERS/bin/python, found no file {python}")
    if options.answer:
        print(json.dumps({"digest": digest(), "column": asdict(answer_all(options.answer))}))
        return 0

    columns = [answer_all(OURS), *ask_peers(options.peers)]
    rights = [case.right(*case.draw()) for case in CASES]
    rows = [cells(case, right, columns) for case, right in zip(CASES, rights, strict=True)]
    if options.json:
        print(json.dumps(as_document(CASES, columns, rights, rows), indent=1))
    elif options.markdown:
        print(as_markdown(CASES, columns, rights, rows))
    else:
        show(CASES, columns, rights, rows)
    return 0 if all(row[0].right for row in rows) else 1


def headings(columns: list[Column]) -> list[str]:
    """The libraries' names, with pandas where one is there twice."""
    names = [column.name for column in columns]
    return [
        f"{column.name} (pandas {column.versions['pandas']})" if names.count(column.name) > 1 else column.name
        for column in columns
    ]


def versions_of(column: Column) -> str:
    """On one line."""
    found = ", ".join(f"{name} {version}" for name, version in column.versions.items())
    return found or f"{column.name}: {column.absence}"


def as_document(cases: Sequence[Case], columns: list[Column], rights: list[Right], rows: list[list[Cell]]) -> Any:
    """Plain data."""
    return {
        "versions": {heading: column.versions for heading, column in zip(headings(columns), columns, strict=True)},
        "cases": [
            {
                "case": case.title,
                "right": right.text,
                "answers": {heading: asdict(cell) for heading, cell in zip(headings(columns), row, strict=True)},
            }
            for case, right, row in zip(cases, rights, rows, strict=True)
        ],
    }


def as_markdown(cases: Sequence[Case], columns: list[Column], rights: list[Right], rows: list[list[Cell]]) -> str:
    """The table and the versions under it."""
    lines = [
        ["case", "right answer", *headings(columns)],
        ["---"] * (2 + len(columns)),
        *(
            [case.title, right.text, *(f"**{cell.text}**" if cell.right is False else cell.text for cell in row)]
            for case, right, row in zip(cases, rights, rows, strict=True)
        ),
    ]
    table = "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)
    return f"{table}\n\nBold: wrong. " + "; ".join(map(versions_of, columns)) + "."


def show(cases: Sequence[Case], columns: list[Column], rights: list[Right], rows: list[list[Cell]]) -> None:
    """The same on a terminal, wrong answers in red."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console(highlight=False)
    table = Table("case", "right answer", *headings(columns), show_lines=True)
    style = {True: "green", False: "red", None: "dim"}
    for case, right, row in zip(cases, rights, rows, strict=True):
        table.add_row(case.title, right.text, *(Text(cell.text, style[cell.right]) for cell in row))
    out.print(table)
    for column in columns:
        out.print(versions_of(column), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
