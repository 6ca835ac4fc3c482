"""What a column's name gives away: outcomes, keys, dates, protected attributes, decisions of the lender.

Names in, a word or a reason out; values are looked at in `crossrisk.starting.profiling`. The lists are guesses stated
in one place: a name that they miss is a feature, a name that they wrongly catch is moved back by the person who reads
the draft.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LABEL_WORDS = (
    "bad", "default", "defaulted", "npl", "creditability", "target", "label", "outcome", "delinquent", "dlqin", "y",
)  # fmt: skip
"""Most telling first."""
OUTCOME_WORDS = frozenset({"bad", "default", "defaulted", "npl"})
"""A second column of these names is another outcome, not something known at the decision."""
CUSTOMER_WORDS = frozenset({"customer", "client", "borrower", "member", "applicant", "person", "cust"})
KEY_WORDS = frozenset({"id", "key", "no", "nr", "number", "num", "uuid", "guid", "ref", "reference"})
CODE_WORDS = frozenset(
    {"code", "cd", "id", "type", "category", "class", "segment", "channel", "region", "branch", "product", "group"}
)
"""A whole number of such a name has no order."""
DECISION_DATE_WORDS = frozenset(
    {"application", "applied", "decision", "decided", "issue", "issued", "origination", "originated", "opened", "open",
     "booked", "booking", "disbursed", "disbursement", "disbursal", "funded", "approved", "approval", "granted",
     "contract", "start"}
)  # fmt: skip
OTHER_DATE_WORDS = frozenset(
    {"birth", "dob", "last", "next", "end", "due", "maturity", "close", "closed", "pay", "paid", "payment", "pymnt",
     "default", "settlement", "known", "outcome", "resolved", "report", "reported", "updated", "earliest", "oldest",
     "first", "credit", "valid", "expiry"}
)  # fmt: skip
"""Dates of something else than the decision."""
KNOWN_DATE_WORDS = frozenset({"known", "outcome", "resolved"})

PROTECTED_WORDS = frozenset(
    {"sex", "gender", "race", "racial", "ethnic", "ethnicity", "colour", "color", "religion", "religious", "marital",
     "marriage", "married", "nationality", "citizenship", "citizen", "immigrant", "foreign", "foreigner", "birth",
     "birthday", "birthdate", "dob", "disability", "disabled", "pregnant", "pregnancy", "orientation", "zip",
     "postcode", "postal"}
)  # fmt: skip
"""Attributes that lending law protects somewhere, and codes of neighbourhoods that stand in for them; `age` below."""
_AGE_OF_SOMETHING_ELSE = frozenset(
    {"account", "accounts", "credit", "line", "lines", "loan", "file", "trade", "oldest", "newest", "average", "avg",
     "vehicle", "car", "property", "house", "company", "relationship", "history"}
)  # fmt: skip

_OUTCOME_NAMES = re.compile(
    r"""(^|_)(
        loan_status | (collection_)?recover(y|ies)(_|$) | total_(pymnt|payment|paid|rec)(_|s|$)
        | last_(pymnt|payment|credit_pull)(_|$) | next_(pymnt|payment)(_|$) | out_prncp | outstanding_principal
        | (debt_)?settlement_ | hardship | charged_off | charge_?off_(date|amount|amt|d) | write_?off_(date|amount|amt)
        | written_off | default_(date|amount|amt)
    )""",
    re.VERBOSE,
)
_LENDER_NAMES = re.compile(r"(^|_)(sub_?grade|grade|int(erest)?_rate|installment|apr)$")


def words(name: str) -> tuple[str, ...]:
    """Lower-case words of a name in any of the usual spellings: `SeriousDlqin2yrs` is serious, dlqin, yrs.

    Digits part words and are dropped: `zip3` is zip.
    """
    return tuple(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+", name))


def label_rank(name: str) -> int | None:
    """Place of a name among those of labels, 0 the most telling; None where it is not like one."""
    spoken = set(words(name))
    return next((rank for rank, word in enumerate(LABEL_WORDS) if word in spoken), None)


def protected_word(name: str) -> str | None:
    """The word of a name for which a column never enters a model."""
    spoken = words(name)
    found = _first(spoken, PROTECTED_WORDS)
    if found is None and "age" in spoken and not _AGE_OF_SOMETHING_ELSE.intersection(spoken):
        return "age"
    return found


def outcome_reason(name: str) -> str | None:
    """Why a column of this name is only known after the decision."""
    found = _OUTCOME_NAMES.search("_".join(words(name)))
    return f"named like an outcome ({found[2].strip('_')})" if found else None


def lender_reason(name: str) -> str | None:
    """Why a column of this name is the lender's own decision."""
    found = _LENDER_NAMES.search("_".join(words(name)))
    return f"named so ({found[2]})" if found else None


def customer_word(name: str) -> str | None:
    """The word by which a column names a person: `customer_id`, `member`; not `customer_income`."""
    spoken = words(name)
    found = _first(spoken, CUSTOMER_WORDS)
    return found if found and (len(spoken) == 1 or KEY_WORDS.intersection(spoken)) else None


def key_word(name: str) -> str | None:
    """The word by which a name is that of a key."""
    return _first(reversed(words(name)), KEY_WORDS)


def has_word(name: str, known: frozenset[str]) -> str | None:
    """The first word of a name that is among the known ones."""
    return _first(words(name), known)


def _first(spoken: Iterable[str], known: frozenset[str]) -> str | None:
    return next((word for word in spoken if word in known), None)
