"""The target's bad rate from scores alone, if nothing but the class mix differs. Scores in, an estimate out.

Black box shift estimation (BBSE; Lipton, Wang & Smola, ICML 2018, section 3), with soft predictions. It assumes label
shift, p(x | y) alike in both populations; whether that holds is judged beside it, from labels where they are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2

from crossrisk.metrics import MINIMUM_OF_EACH_CLASS
from crossrisk.shift.base import Floats, check_rows, fit_line

ILL_POSED = 20.0
"""Condition number of the confusion matrix from which no estimate is relied on: that of a score with AUC .55."""

NOTICED_Z = 1.96
"""of a bad rate: what is beyond noise, in either direction"""

LabelStatus = Literal["ok", "insufficient", "ill-posed", "undefined"]

PriorRule = Literal["bbse", "em"]

MIXTURE_BINS = 10
NO_MIXTURE_P = 0.001
"""Below, the target's scores are no mix of the source's bads and goods, and no bad rate is read from them."""


@dataclass(frozen=True)
class LabelShift:
    """The target's bad rate under label shift, and what of it can be checked."""

    status: LabelStatus
    prior_source: float | None
    """bad rate of the held-out source rows"""
    prior_target: float | None
    """the estimate, held within [0, 1]"""
    standard_error: float | None
    """of the estimate (delta method)"""
    condition: float | None
    """of the soft confusion matrix; ILL_POSED and above: the score hardly tells bads from goods"""
    observed: float | None
    """bad rate of the labelled target rows among those scored"""
    z: float | None
    """(estimate - observed) / its standard error under label shift: what speaks against that assumption"""

    @property
    def is_seen(self) -> bool:
        """Whether the scores alone say that the bad rate differs from the source's, and can be relied on."""
        if self.prior_target is None or self.prior_source is None or self.standard_error is None:
            return False
        return self.status == "ok" and abs(self.prior_target - self.prior_source) > NOTICED_Z * self.standard_error

    @property
    def agrees(self) -> bool:
        """Whether the bad rate observed is the one that label shift implies, within noise; False where unknown."""
        return self.z is not None and abs(self.z) <= NOTICED_Z


def estimate_label_shift(
    raw_source: Floats, y_source: NDArray[Any], raw_target: Floats, y_target: Floats
) -> LabelShift:
    """BBSE with f = the midrank of a score among the held-out source rows, in [0, 1].

    E_target f = q E[f | bad] + (1 - q) E[f | good], solved for the target's bad rate q. Ranks need no calibration, lose
    5% of the efficiency of normal scores, and make the determinant of the confusion matrix AUC - 1/2.

    Args:
        raw_source: (n,) logits of source rows that the model was not fitted on.
        y_source: (n,) their labels.
        raw_target: (k,) logits of target rows.
        y_target: (k,) their labels, NaN where unknown. They do not enter the estimate, only the check beside it.
    """
    check_rows(raw_source, y_source)
    known = ~np.isnan(y_target)
    check_rows(raw_target[known], y_target[known])
    observed = float(y_target[known].mean()) if known.any() else None
    n_bad, n_good = int(y_source.sum()), int(len(y_source) - y_source.sum())
    if min(n_bad, n_good, len(raw_target)) == 0:
        return LabelShift("undefined", None, None, None, None, observed, None)
    f_source, f_target = midranks(raw_source, raw_source), midranks(raw_source, raw_target)
    bad, good = f_source[y_source == 1], f_source[y_source == 0]
    gap = float(bad.mean() - good.mean())
    condition = float(np.linalg.cond([[1 - good.mean(), 1 - bad.mean()], [good.mean(), bad.mean()]]))
    if gap == 0:
        return LabelShift("ill-posed", n_bad / len(y_source), None, None, None, observed, None)
    estimate = float((f_target.mean() - good.mean()) / gap)
    q = min(max(estimate, 0.0), 1.0)
    from_source = q**2 * bad.var() / n_bad + (1 - q) ** 2 * good.var() / n_good
    from_target = f_target.var() / len(f_target)
    # against the bad rate of the same rows only the spread within the classes is noise, not their mix
    within = (q * bad.var() + (1 - q) * good.var()) / max(int(known.sum()), 1)
    few = min(n_bad, n_good) < MINIMUM_OF_EACH_CLASS or len(f_target) < MINIMUM_OF_EACH_CLASS
    return LabelShift(
        status="ill-posed" if condition >= ILL_POSED or gap < 0 else "insufficient" if few else "ok",
        prior_source=n_bad / len(y_source),
        prior_target=q,
        standard_error=float(np.sqrt(from_source + from_target)) / abs(gap),
        condition=condition,
        observed=observed,
        z=None if observed is None else (estimate - observed) * abs(gap) / float(np.sqrt(from_source + within)),
    )


@dataclass(frozen=True)
class PriorEstimate:
    """A bad rate of the target for the weights of rows."""

    rule: str
    """labels, bbse or em: where it is from; none: not asked for"""
    value: float | None
    """in (0, 1); None: not to be relied on"""
    reason: str | None
    """why there is none"""


def estimate_prior(rule: PriorRule, raw_source: Floats, y_source: NDArray[Any], raw_target: Floats) -> PriorEstimate:
    """The target's bad rate under label shift from scores alone, where it can be relied on.

    Args:
        rule: "bbse" `estimate_label_shift`, or "em" `em_prior` of scores calibrated on the held-out source rows.
        raw_source: (n,) logits of source rows that the model was not fitted on.
        y_source: (n,) their labels.
        raw_target: (k,) logits of target rows.
    """
    found = estimate_label_shift(raw_source, y_source, raw_target, np.full(len(raw_target), np.nan))
    if found.status != "ok" or found.prior_target is None or found.prior_source is None:
        return PriorEstimate(rule, None, f"label shift cannot be estimated from these scores: {found.status}")
    value = found.prior_target
    if rule == "em":
        line = fit_line(raw_source, y_source)
        value = em_prior(np.asarray(expit(line.logit(raw_target)), np.float64), found.prior_source)
    if not 0.0 < value < 1.0:
        return PriorEstimate(rule, None, f"the estimate is {value:g}: no mix of the source's bads and goods")
    p = mixture_p(raw_source, y_source, raw_target, value)
    if p < NO_MIXTURE_P:
        reason = f"the target's scores are no mix of the source's bads' and goods' (p = {p:.1g}): not a shift of labels"
        return PriorEstimate(rule, None, reason)
    return PriorEstimate(rule, value, None)


def mixture_p(raw_source: Floats, y_source: NDArray[Any], raw_target: Floats, prior: float) -> float:
    """Chance of target scores that fit the mixture q bads + (1 - q) goods of the source no better, under label shift.

    Pearson's chi-square over MIXTURE_BINS equal shares of the source's scores, with the noise of all three samples and
    a degree of freedom less for q: the one thing that label shift claims and scores alone can refute.

    Args:
        raw_source: (n,) logits of source rows that the model was not fitted on.
        y_source: (n,) their labels, both classes.
        raw_target: (k,) logits of target rows.
        prior: q, in [0, 1].
    """
    edges = np.unique(np.quantile(raw_source, np.arange(1, MIXTURE_BINS) / MIXTURE_BINS))

    def shares(raw: Floats) -> Floats:
        counts = np.bincount(np.searchsorted(edges, raw, side="right"), minlength=len(edges) + 1)
        return np.asarray((counts + 0.5) / (len(raw) + 0.5 * len(counts)), np.float64)

    bads, goods = raw_source[y_source == 1], raw_source[y_source == 0]
    of_bads, of_goods, of_target = shares(bads), shares(goods), shares(raw_target)
    expected = prior * of_bads + (1.0 - prior) * of_goods
    noise = prior**2 * of_bads / len(bads) + (1.0 - prior) ** 2 * of_goods / len(goods) + expected / len(raw_target)
    return float(chi2.sf(np.sum((of_target - expected) ** 2 / noise), max(len(edges) - 1, 1)))


def em_prior(probability: Floats, prior_source: float, *, tolerance: float = 1e-9, most_rounds: int = 10_000) -> float:
    """The target's bad rate by maximum likelihood under label shift (Saerens, Latinne, Decaestecker 2002, eq. 2.9).

    Args:
        probability: (k,) calibrated probabilities of bad of target rows under the SOURCE's bad rate, in [0, 1].
        prior_source: that bad rate, in (0, 1).
        tolerance: a round that changes the estimate by less is the last.
        most_rounds: the last in any case; the likelihood rises with every round, so the last is the best.

    Returns:
        In [0, 1].
    """
    # densities of the classes up to a common factor, not odds: a probability that rounds to 1 divides nothing by 0
    of_bads, of_goods = probability / prior_source, (1.0 - probability) / (1.0 - prior_source)
    prior = prior_source
    for _ in range(most_rounds):
        posterior = prior * of_bads / (prior * of_bads + (1.0 - prior) * of_goods)
        before, prior = prior, float(posterior.mean())
        if abs(prior - before) < tolerance:
            break
    return prior


def midranks(reference: Floats, values: Floats) -> Floats:
    """Share of the reference below each value (k,), plus half of what ties with it, in [0, 1]."""
    ordered = np.sort(reference)
    below, up_to = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    return np.asarray((below + up_to) / (2 * len(ordered)), np.float64)
