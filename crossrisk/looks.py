"""How often the rows of a test have been looked at before: monthly tests overlap, and every look may find something.

Ledger records in, a count out. What a look costs is `crossrisk.rules.alpha_of_look`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def count_look(
    ledger: Sequence[Mapping[str, Any]], *, champion: int | None, months: Sequence[str], comparison: str
) -> int:
    """The number of this look, counted from 1, at rows that decide about a champion.

    An earlier decision counts where it was about the same champion and its test shares a month with this one; without
    months (a portfolio without dates) every test of the portfolio holds the same rows. The same comparison told again,
    as by a rerun, is no look of its own.

    Args:
        ledger: records, oldest first; those of other kinds than decisions have no key `judged`.
        champion: the version compared with; before the first there is nothing to look at twice: 1.
        months: of the judged rows, YYYY-MM.
        comparison: digest of what is compared.
    """
    if champion is None:
        return 1
    earlier = {
        record["judged"]["comparison"]
        for record in ledger
        if "judged" in record
        and record["compared_with"] == champion
        and (not months or not record["judged"]["months"] or set(months) & set(record["judged"]["months"]))
    }
    return 1 + len(earlier - {comparison})
