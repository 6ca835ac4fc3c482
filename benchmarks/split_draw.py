"""One draw of a credit split: the fitted contenders calibrated and scored, and the challenger chosen, as a run does.

Rows in, probabilities of the rows that judge and plain facts out. Calibration, diagnosis and choice are the product's
own. Files, processes and the table stay out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from credit_splits import Split, draw_parts, read_split
from numpy.typing import NDArray
from split_fits import Encoded, Fitted, Say, encode, fit_all
from split_lineup import ADAPTERS, CHOSEN, CHOSEN_POOLED, PRESETS, Settings, base_of

from crossrisk.contenders import SOURCE_ONLY
from crossrisk.metrics import evaluate
from crossrisk.shift import (
    Diagnosis,
    concept_shift,
    estimate_label_shift,
    level_shift,
    measure_home_error,
    support_of,
)
from models.calibration import fit_calibration, prior_shift_of
from models.deep.steps import target_loss_weight
from models.fitted import Floats, Matrix, sigmoid
from models.shallow.domain import tell_apart
from tasks.compare import choose_challenger
from tasks.split import SOURCE_FIT, SOURCE_STOP, TARGET_FIT, TARGET_SELECT, TARGET_TEST

SEEDS_APART = 1_000
"""between the first seeds of two draws"""


def run_draw(split: Split, draw: int, settings: Settings, say: Say) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Fit, calibrate, choose and score: (id, label and a column of probabilities a contender of the test, facts)."""
    started = time.monotonic()
    rows = read_split(split)
    encoded = encode(rows, draw_parts(rows, split.target_bads, draw))
    first_seed = encoded.portfolio.lineup.seed + SEEDS_APART * draw
    fitted = fit_all(encoded, settings, first_seed, say)
    say("calibrating, choosing")
    test = encoded.drawn.of(TARGET_TEST)
    calibrated = {name: _calibrate(name, raw_logit, encoded) for name, raw_logit in fitted.raw_logit.items()}
    diagnosis = _diagnose(encoded, fitted)
    chosen = _choose(encoded, settings, calibrated, diagnosis, test_bads=int(rows.label[test].sum()))
    scores = {name: probability(encoded.x[test]) for name, probability in calibrated.items()}
    facts = {
        "split": split.name,
        "draw": draw,
        "settings": settings.digest,
        "chosen": chosen,
        "weights": dict(fitted.weights),
        "domain_auc": diagnosis.domain.auc if diagnosis else None,
        "risk_drivers": diagnosis.risk_drivers if diagnosis else None,
        "rates": {part: encoded.rate(part) for part in (SOURCE_FIT, TARGET_FIT)},
        "columns": len(encoded.names),
        "seconds": {**fitted.seconds, "all": time.monotonic() - started},
    }
    return pl.DataFrame({"id": rows.ids.filter(pl.Series(test)), "label": rows.label[test], **scores}), facts


def _calibrate(name: str, raw_logit: Callable[[Matrix], Floats], encoded: Encoded) -> Callable[[Matrix], Floats]:
    """The contender's probability of bad, calibrated on target_select."""
    x, label = encoded.labelled(TARGET_SELECT)
    fitted_as = base_of(name)
    shift = prior_shift_of(
        fitted_as,
        source_rate=encoded.rate(SOURCE_FIT),
        target_rate=encoded.rate(TARGET_FIT),
        target_weight=target_loss_weight(PRESETS[fitted_as], encoded.training_set) if fitted_as in ADAPTERS else 0.0,
    )
    calibration = fit_calibration(raw_logit(x), label, shift=shift)
    return lambda rows: sigmoid(calibration.intercept + calibration.slope * raw_logit(rows))


def _diagnose(encoded: Encoded, fitted: Fitted) -> Diagnosis | None:
    """What `tasks.diagnose` finds; None without a source-only contender that is not a network."""
    name = next((name for name in SOURCE_ONLY if name in fitted.raw_logit), None)
    if name is None:
        return None
    raw_logit, seed = fitted.raw_logit[name], encoded.portfolio.split.seed
    (x_home, y_home), (x, y) = encoded.labelled(SOURCE_STOP), encoded.labelled(TARGET_SELECT)
    raw_home, raw = raw_logit(x_home), raw_logit(x)
    _, y_fit = encoded.labelled(SOURCE_FIT)
    of = encoded.drawn.of
    home = measure_home_error(x_home, raw_home, y_home, y_fit)
    return Diagnosis(
        contender=name,
        domain=tell_apart(encoded.x[of(SOURCE_FIT)], encoded.x[of(TARGET_FIT)], encoded.names, seed=seed),
        support=support_of(
            _columns(encoded, SOURCE_FIT), _columns(encoded, TARGET_FIT), home=_columns(encoded, SOURCE_STOP)
        ),
        label=estimate_label_shift(raw_home, y_home.astype(np.float64), raw, y.astype(np.float64)),
        level=level_shift(raw_home, y_home, raw, y),
        concept=concept_shift(x, raw, y, encoded.names, seed=seed, home=home),
    )


def _columns(encoded: Encoded, part: str) -> dict[str, NDArray[Any]]:
    frame = encoded.features.filter(pl.Series(encoded.drawn.of(part)))
    return {name: frame[name].to_numpy() for name in frame.columns}


def _choose(
    encoded: Encoded,
    settings: Settings,
    calibrated: Mapping[str, Callable[[Matrix], Floats]],
    diagnosis: Diagnosis | None,
    *,
    test_bads: int,
) -> dict[str, str]:
    """The challenger, with pooled contenders as references and with pooling allowed."""
    portfolio, names = encoded.portfolio, settings.contenders
    x, label = encoded.labelled(TARGET_SELECT)
    chosen_on = evaluate(
        label,
        {name: calibrated[name](x) for name in names},
        replicates=portfolio.gate.replicates,
        seed=portfolio.split.seed + 1,
        confidence=portfolio.gate.confidence,
        minimum=portfolio.gate.min_test_bads,
    )
    drivers_differ = diagnosis is not None and diagnosis.blocks_transfer
    return {
        key: choose_challenger(
            names,
            chosen_on,
            portfolio.model_copy(update={"lineup": portfolio.lineup.model_copy(update={"pooling": pooling})}),
            test_bads=test_bads,
            drivers_differ=drivers_differ,
        )
        for key, pooling in ((CHOSEN, "reference"), (CHOSEN_POOLED, "allowed"))
    }
