"""Every contender of the credit splits, fitted on one draw of the target's labels.

Encoded rows in, raw logits out. The fits are the product's own. What is not is the grid of the networks: its candidate
without alignment is the same for all adapters and trained once. What becomes of the logits is `split_draw`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import polars as pl
import tensorflow as tf
from credit_splits import Draw, SplitRows
from numpy.typing import NDArray
from split_lineup import ADAPTERS, FINE_TUNED, NETWORKS, SOURCE_NETWORK, Settings, at_weight, unaligned_of, weights_of
from threadpoolctl import threadpool_limits

from crossrisk.config import Portfolio
from crossrisk.features import encoding_expressions, fit_plan
from models.deep.spec import DeepSpec, TrainingSet
from models.deep.steps import choose_weight
from models.deep.trainer import train_ensemble
from models.fitted import Contender, Floats, Matrix, Network
from models.lineup import TrainingRows, fit_baseline
from models.shallow.trees import ForestSettings
from tasks.split import SOURCE_FIT, SOURCE_STOP, TARGET_FIT, TARGET_SELECT
from tasks.train_network import MIN_BADS_TO_CHOOSE, MIN_BADS_TO_STOP, MIN_BADS_TO_TUNE

THREADS = 2

Say = Callable[[str], None]
Form = Contender | Network


@dataclass(frozen=True)
class Encoded:
    """The rows of one draw as the feature plan encodes them."""

    portfolio: Portfolio
    features: pl.DataFrame
    names: tuple[str, ...]
    """(d,) of the columns"""
    x: Matrix
    """(n, d)"""
    drawn: Draw

    def labelled(self, *parts: str) -> tuple[Matrix, NDArray[np.int8]]:
        """The rows of the parts whose label may be seen, with it."""
        rows = self.drawn.labelled(*parts)
        return self.x[rows], self.drawn.label[rows].astype(np.int8)

    @cached_property
    def training_set(self) -> TrainingSet:
        """The three roles as `tasks.train_network` gives them."""
        target = self.drawn.of(TARGET_FIT)
        x_stop, y_stop = self.deciding(MIN_BADS_TO_STOP)
        x_source, y_source = self.labelled(SOURCE_FIT)
        x_home, y_home = self.labelled(SOURCE_STOP)
        return TrainingSet(
            x_source,
            y_source.astype(np.float32),
            self.x[target],
            self.drawn.label[target].astype(np.float32),
            x_stop,
            y_stop.astype(np.float32),
            target_prior=self.rate(TARGET_FIT),
            held_out=(x_home, y_home.astype(np.float32)),
        )

    def deciding(self, least_bads: int) -> tuple[Matrix, NDArray[np.int8]]:
        """The rows of target_select where they have so many bads, else of source_stop."""
        x, y = self.labelled(TARGET_SELECT)
        return (x, y) if y.sum() >= least_bads else self.labelled(SOURCE_STOP)

    def rate(self, part: str) -> float:
        """Share of bads among the known labels of a part."""
        return float(np.nanmean(self.drawn.label[self.drawn.of(part)]))


def encode(rows: SplitRows, drawn: Draw) -> Encoded:
    """Fit the feature plan on the features of source_fit and target_fit, and encode all rows."""
    portfolio, training = rows.loaded.portfolio, drawn.of(SOURCE_FIT, TARGET_FIT)
    plan = fit_plan(
        rows.features.filter(pl.Series(training)),
        portfolio.row_plan,
        portfolio.fit_settings,
        is_target=pl.Series(rows.is_target[training]),
    )
    x = np.ascontiguousarray(rows.features.select(encoding_expressions(plan)).to_numpy())
    return Encoded(portfolio, rows.features, tuple(plan.outputs), x, drawn)


@dataclass(frozen=True)
class Fitted:
    """All that was fitted on one draw."""

    raw_logit: Mapping[str, Callable[[Matrix], Floats]]
    """contender, and candidate of an adapter, -> raw logits (n,) of encoded rows (n, d)"""
    weights: Mapping[str, float]
    """adapter -> chosen mmd_weight"""
    seconds: Mapping[str, float]


def set_up_tensorflow() -> None:
    """As the product's own worker: two threads, and the same weights for the same inputs. Once a process."""
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.experimental.enable_op_determinism()


def fit_all(encoded: Encoded, settings: Settings, first_seed: int, say: Say) -> Fitted:
    """Fit every contender of the settings.

    Raises:
        TrainingError: one of them could not be fitted.
    """
    fits = _Fits(say)
    _fit_shallow(encoded, settings, first_seed, fits)
    weights = _fit_networks(encoded, settings, first_seed, fits)
    return Fitted({name: form.raw_logit for name, form in fits.forms.items()}, weights, fits.seconds)


@dataclass
class _Fits:
    """What was fitted so far, and how long each took."""

    say: Say
    forms: dict[str, Form] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, fit: Callable[[], Form]) -> Form:
        """Fit one, and say so."""
        self.say(name)
        began = time.monotonic()
        self.forms[name] = fit()
        self.seconds[name] = time.monotonic() - began
        return self.forms[name]


def _fit_shallow(encoded: Encoded, settings: Settings, seed: int, fits: _Fits) -> None:
    lineup = encoded.portfolio.lineup
    rows = TrainingRows(*encoded.labelled(SOURCE_FIT), *encoded.labelled(TARGET_FIT))
    forest = ForestSettings(tuple(range(seed, seed + lineup.forest_seeds)), lineup.forest_depth)

    def fit(name: str) -> Form:
        return fit_baseline(name, rows, seed=seed, forest=forest, threads=THREADS).contender

    # on shared cores the threads of boosting wait for each other: 15 to 34 s instead of 3
    with threadpool_limits(1):
        for name in settings.contenders:
            if name not in NETWORKS:
                fits.add(name, partial(fit, name))


def _fit_networks(encoded: Encoded, settings: Settings, first_seed: int, fits: _Fits) -> dict[str, float]:
    """Fit the networks, and every candidate of an adapter; the chosen mmd_weight of each adapter."""
    networks = [name for name in settings.contenders if name in NETWORKS]
    training_set = encoded.training_set
    x_choose, y_choose = encoded.deciding(MIN_BADS_TO_CHOOSE)
    # the source's own network takes nothing from the target, its stop included; fine_tuned, how far its tuning goes
    x_tune, y_tune = encoded.deciding(MIN_BADS_TO_TUNE)
    tuning = replace(training_set, x_stop=x_tune, y_stop=y_tune.astype(np.float32))
    rows_of = {SOURCE_NETWORK: training_set.at_home, FINE_TUNED: tuning}
    seeds = range(first_seed, first_seed + settings.networks)

    def train(name: str, spec: DeepSpec) -> Form:
        rows = rows_of.get(name, training_set)
        return fits.add(name, lambda: train_ensemble(spec, rows, seeds, None)[0])

    weights = {}
    for name in networks:
        if name not in ADAPTERS:
            train(name, settings.spec(name))
            continue
        grid, plain = weights_of(name), unaligned_of(name)
        if plain not in fits.forms:
            train(plain, settings.spec(name, mmd_weight=0.0, method="source_only"))
        aligned = [train(at_weight(name, w), settings.spec(name, mmd_weight=w)) for w in grid[1:]]
        candidates = [fits.forms[plain], *aligned]
        place = choose_weight([one.raw_logit(x_choose) for one in candidates], y_choose.astype(np.float64))
        fits.forms[name], weights[name] = candidates[place], grid[place]
    return weights
