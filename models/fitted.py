"""Fitted contenders as plain data: dataclasses of arrays, their probability in NumPy, and their file form.

A contender leaves training as one of the four forms here, is stored as `model.json` + `arrays.npz` (no pickle is
ever loaded) and is exported from here by `models.bundle`. What fits them stays out (`models.shallow`, `models.deep`).

Every form maps the encoded float32 matrix (n, d) of the feature plan to a raw logit (n,) in float64;
`Contender.probability` adds the calibration on top.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossrisk.features import View

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]

LOGIT_LIMIT = 16.0
"""Raw logits are held within +/-16 (p = 1.1e-7), where a forest's pure leaves would give infinity."""


def logit(probability: Floats) -> Floats:
    """Log odds of (n,) probabilities, held within +/-LOGIT_LIMIT."""
    p = np.asarray(probability, np.float64)
    with np.errstate(divide="ignore"):
        raw = np.log(p) - np.log1p(-p)
    return np.asarray(np.clip(raw, -LOGIT_LIMIT, LOGIT_LIMIT), np.float64)


def sigmoid(logits: Floats) -> Floats:
    """Logistic function of (n,) logits, in (0, 1), without overflow at either end."""
    half = 0.5 * np.asarray(logits, np.float64)
    return np.asarray(0.5 * (1.0 + np.tanh(half)), np.float64)


@dataclass(frozen=True)
class Logistic:
    """Linear log odds: x @ coefficients + intercept."""

    coefficients: Floats
    """(d,)"""
    intercept: float

    def raw_logit(self, x: Matrix) -> Floats:
        """Raw logits (n,) of the encoded matrix x (n, d)."""
        raw = x.astype(np.float64) @ self.coefficients + self.intercept
        return np.asarray(np.clip(raw, -LOGIT_LIMIT, LOGIT_LIMIT), np.float64)


CATEGORY_CODES = 256
"""A category's codes are 0 to this less one; whatever else stands in its column is missing."""


def category_codes(x: Matrix) -> NDArray[np.int16]:
    """The codes (n, d) of a matrix (n, d) of categories: 0 to 255, and CATEGORY_CODES where a value is no code."""
    is_code = (x >= 0) & (x < CATEGORY_CODES) & (x == np.floor(x))
    return np.where(is_code, x, CATEGORY_CODES).astype(np.int16)


@dataclass(frozen=True)
class CategorySplits:
    """The nodes of an ensemble that split on a set of a category's codes, not on a threshold."""

    which: NDArray[np.int32]
    """(T, M) row of goes_left; 0 where the node compares with its threshold"""
    goes_left: NDArray[np.bool_]
    """(1 + K, CATEGORY_CODES + 1) by code, the last for what is no code; row 0 is no set. A code that no training row
    had goes where a missing value goes."""


@dataclass(frozen=True)
class Trees:
    """Binary trees padded to one shape: T trees of at most M nodes, root at 0; a leaf points to itself.

    A row goes left where x[feature] <= threshold. Thresholds are the library's float64 ones rounded toward minus
    infinity to float32: for a float32 x the comparison is then the same. A missing value (NaN) goes where the library
    learned to send it, node by node.
    """

    feature: NDArray[np.int32]
    """(T, M); 0 at leaves"""
    threshold: NDArray[np.float32]
    """(T, M)"""
    left: NDArray[np.int32]
    """(T, M)"""
    right: NDArray[np.int32]
    """(T, M)"""
    value: Floats
    """(T, M); a probability where link is "mean", a share of the logit where link is "sum"; 0 at inner nodes"""
    depth: int
    """Levels to walk before every row stands on a leaf."""
    link: Literal["mean", "sum"]
    """forest: mean of the leaves' probabilities; boosted: baseline + sum of the leaves' values"""
    baseline: float = 0.0
    missing_left: NDArray[np.bool_] | None = None
    """(T, M) where NaN goes left; None: right at every node, as in files of schema 1"""
    rows: NDArray[np.int32] | None = None
    """(T, M) training rows that came by, which `models.contributions` weighs with; None in files of schema 1"""
    categories: CategorySplits | None = None
    """None: every node compares with its threshold"""

    def raw_logit(self, x: Matrix) -> Floats:
        """Raw logits (n,) of the encoded matrix x (n, d), one tree after the other (memory n, not n * T)."""
        total = np.zeros(len(x), np.float64)
        for leaf, value in zip(self.leaves(x), self.value, strict=True):
            total += value[leaf]
        if self.link == "mean":
            return logit(total / len(self.feature))
        return np.asarray(np.clip(total + self.baseline, -LOGIT_LIMIT, LOGIT_LIMIT), np.float64)

    def leaves(self, x: Matrix) -> Iterator[NDArray[np.int32]]:
        """For each tree in turn, the leaves (n,) that the rows of x (n, d) end on."""
        rows = np.arange(len(x))
        missing = np.isnan(x) if self.missing_left is not None else None
        if missing is not None and not missing.any():
            missing = None  # most plans fill what is missing: two lookups less at every node
        codes = category_codes(x) if self.categories is not None else None
        for tree, feature in enumerate(self.feature):
            node = np.zeros(len(x), np.int32)
            for _ in range(self.depth):
                column = feature[node]
                goes_left = x[rows, column] <= self.threshold[tree, node]
                if self.missing_left is not None and missing is not None:
                    goes_left |= missing[rows, column] & self.missing_left[tree, node]
                if self.categories is not None and codes is not None:
                    which = self.categories.which[tree, node]
                    goes_left = np.where(which > 0, self.categories.goes_left[which, codes[rows, column]], goes_left)
                node = np.where(goes_left, self.left[tree, node], self.right[tree, node])
            yield node


Activation = Literal["relu", "sigmoid"]


@dataclass(frozen=True)
class Network:
    """An ensemble of S multi-layer perceptrons of one shape: the logit of the mean of the S probabilities.

    Dense layers in float32, as trained; the last layer gives one logit, hidden ones pass through `activation`.
    """

    weights: tuple[NDArray[np.float32], ...]
    """one (S, n_in, n_out) array a layer"""
    biases: tuple[NDArray[np.float32], ...]
    """one (S, n_out) array a layer"""
    activation: Activation

    def raw_logit(self, x: Matrix) -> Floats:
        """Raw logits (n,) of the encoded matrix x (n, d)."""
        seeds = len(self.weights[0])
        mean = np.zeros(len(x), np.float64)
        for s in range(seeds):
            hidden = x
            for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                hidden = hidden @ weight[s] + bias[s]
                if layer < len(self.weights) - 1:
                    hidden = _activate(hidden, self.activation)
            mean += sigmoid(hidden[:, 0].astype(np.float64))
        return logit(mean / seeds)


def _activate(hidden: Matrix, activation: Activation) -> Matrix:
    if activation == "relu":
        return np.maximum(hidden, np.float32(0))
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * hidden)), np.float32)


@dataclass(frozen=True)
class Stacked:
    """Logistic regression on (source model's raw logit, a few columns of the matrix)."""

    source: Logistic | Trees
    columns: NDArray[np.int32]
    """(k,) positions in the encoded matrix"""
    coefficients: Floats
    """(1 + k,): first that of the source logit"""
    intercept: float

    def raw_logit(self, x: Matrix) -> Floats:
        """Raw logits (n,) of the encoded matrix x (n, d)."""
        inputs = np.column_stack([self.source.raw_logit(x), x[:, self.columns].astype(np.float64)])
        raw = inputs @ self.coefficients + self.intercept
        return np.asarray(np.clip(raw, -LOGIT_LIMIT, LOGIT_LIMIT), np.float64)


Form = Logistic | Trees | Network | Stacked


@dataclass(frozen=True)
class Calibration:
    """Affine map of the raw logit: intercept + slope * raw. (0, 1) leaves it as it is."""

    intercept: float = 0.0
    slope: float = 1.0


@dataclass(frozen=True)
class Contender:
    """A named, fitted, calibrated model over the encoded matrix."""

    name: str
    form: Form
    calibration: Calibration = field(default_factory=Calibration)
    constants: tuple[float, ...] = ()
    """Values appended as constant columns behind the matrix at serving (the population flag of pooled models: 1)."""
    view: View = "encoded"
    """Which matrix of the feature plan it was fitted on: `x` below is a matrix of this view."""

    def raw_logit(self, x: Matrix) -> Floats:
        """Raw logits (n,) of the encoded matrix x (n, d), before calibration."""
        return self.form.raw_logit(append_constants(x, self.constants))

    def probability(self, x: Matrix) -> Floats:
        """Calibrated probability of bad (n,), in (0, 1), of the encoded matrix x (n, d)."""
        return sigmoid(self.calibration.intercept + self.calibration.slope * self.raw_logit(x))


def append_constants(x: Matrix, constants: tuple[float, ...]) -> Matrix:
    """The matrix (n, d) with one constant column for each value behind it: (n, d + len(constants))."""
    if not constants:
        return x
    tail = np.tile(np.asarray(constants, np.float32), (len(x), 1))
    return np.concatenate([x, tail], axis=1)


# --- file form: arrays in one .npz, everything else in one .json ---

SCHEMA = 2
"""1 had trees without missing_left, rows and categories. It is read; a reader of 1 would walk the new ones wrongly."""
_TREE_ARRAYS = ("feature", "threshold", "left", "right", "value")


def save_contender(contender: Contender, folder: Path) -> None:
    """Write `model.json` and `arrays.npz` into an existing folder."""
    arrays: dict[str, NDArray[Any]] = {}
    document = {
        "schema_version": SCHEMA,
        "name": contender.name,
        "form": _dump(contender.form, "", arrays),
        "calibration": {
            "intercept": contender.calibration.intercept,
            "slope": contender.calibration.slope,
        },
        "constants": list(contender.constants),
        "view": contender.view,
    }
    np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)
    (folder / "model.json").write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")


def load_contender(folder: Path) -> Contender:
    """Read what save_contender wrote. Raises ValueError where the file is of another version or kind."""
    document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    version = document.get("schema_version")
    if version not in (1, SCHEMA):
        raise ValueError(f"{folder / 'model.json'}: expected schema_version 1 or {SCHEMA}, got {version}")
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        form = _load(document["form"], "", arrays)
    return Contender(
        name=document["name"],
        form=form,
        calibration=Calibration(**document["calibration"]),
        constants=tuple(document["constants"]),
        view=document.get("view", "encoded"),
    )


def _dump(form: Form, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    match form:
        case Logistic():
            arrays[prefix + "coefficients"] = form.coefficients
            return {"kind": "logistic", "intercept": form.intercept}
        case Trees():
            optional = [name for name in ("missing_left", "rows") if getattr(form, name) is not None]
            for name in (*_TREE_ARRAYS, *optional):
                arrays[prefix + name] = getattr(form, name)
            if form.categories is not None:
                arrays[prefix + "category_which"] = form.categories.which
                arrays[prefix + "category_goes_left"] = form.categories.goes_left
            return {"kind": "trees", "depth": form.depth, "link": form.link, "baseline": form.baseline}
        case Network():
            for layer, (weight, bias) in enumerate(zip(form.weights, form.biases, strict=True)):
                arrays[f"{prefix}weight_{layer}"], arrays[f"{prefix}bias_{layer}"] = weight, bias
            return {"kind": "network", "layers": len(form.weights), "activation": form.activation}
        case Stacked():
            arrays[prefix + "columns"] = form.columns
            arrays[prefix + "stack_coefficients"] = form.coefficients
            source = _dump(form.source, prefix + "source_", arrays)
            return {"kind": "stacked", "intercept": form.intercept, "source": source}


def _load(document: Mapping[str, Any], prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Form:
    match document["kind"]:
        case "logistic":
            return Logistic(arrays[prefix + "coefficients"], document["intercept"])
        case "trees":
            which, goes_left = (arrays.get(f"{prefix}category_{name}") for name in ("which", "goes_left"))
            return Trees(
                **{name: arrays[prefix + name] for name in _TREE_ARRAYS},
                depth=document["depth"],
                link=document["link"],
                baseline=document["baseline"],
                missing_left=arrays.get(prefix + "missing_left"),
                rows=arrays.get(prefix + "rows"),
                categories=None if which is None or goes_left is None else CategorySplits(which, goes_left),
            )
        case "network":
            layers = range(document["layers"])
            return Network(
                weights=tuple(arrays[f"{prefix}weight_{layer}"] for layer in layers),
                biases=tuple(arrays[f"{prefix}bias_{layer}"] for layer in layers),
                activation=document["activation"],
            )
        case "stacked":
            source = _load(document["source"], prefix + "source_", arrays)
            assert isinstance(source, Logistic | Trees)
            return Stacked(
                source=source,
                columns=arrays[prefix + "columns"],
                coefficients=arrays[prefix + "stack_coefficients"],
                intercept=document["intercept"],
            )
        case kind:
            raise ValueError(f"unknown form {kind!r}; expected logistic, trees, network or stacked")
