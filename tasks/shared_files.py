"""Files that source and target have in common: the same loans must not be fitted on as one and tested as the other.

Two systems number their loans on their own, so ids alone cannot tell; bytes can. Loans that were written to two
different files are not found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from crossrisk.config import Portfolio
from crossrisk.errors import InputError
from crossrisk.labels import SOURCE, TARGET, population
from tasks.input_files import InputFile

Pairs = Sequence[tuple[str, str]]
"""Names of a file of the source and one of the target: the same one, or a copy."""


def shared_files(source: Sequence[InputFile], target: Sequence[InputFile], digests: Mapping[str, str]) -> Pairs:
    """The pairs with the same bytes; files without rows, as engines write them, are no pair.

    Args:
        source: files of data.source.
        target: files of data.target.
        digests: of the files, by name.
    """
    of_source = {digests[file.name]: file.name for file in source if file.rows}
    return [(of_source[digests[f.name]], f.name) for f in target if f.rows and digests[f.name] in of_source]


def refuse_shared_files(shared: Pairs, portfolio: Portfolio) -> None:
    """Files may be shared only where two rules say whose each row is.

    Raises:
        InputError: shared files, and a population without a rule.
    """
    if shared and not portfolio.population.has_both:
        raise InputError(
            f"{_describe(shared)}: a model would be tested on loans that it was fitted on. Give each population files "
            "of its own, or say whose each row is by both rules, population.source and population.target"
        )


def refuse_shared_loans(rows: pl.LazyFrame, portfolio: Portfolio, shared: Pairs) -> None:
    """Of inputs that share files an id is one loan, whatever input it was read by: it has one population.

    Args:
        rows: of both inputs, as `tasks.column_map.join_inputs` puts them together.
        portfolio: the rules of the populations.
        shared: files of both inputs.

    Raises:
        InputError: loans of both populations, with how many and one of them.
    """
    if not shared:
        return
    one = portfolio.data.id
    own = pl.col(one).str.replace(f"^({SOURCE}|{TARGET})/", "")
    used = rows.select(own, population(portfolio).alias("population")).drop_nulls(one)
    by_loan = (
        used.filter(pl.col("population").is_in([SOURCE, TARGET])).group_by(one).agg(pl.col("population").n_unique())
    )
    in_both = by_loan.filter(pl.col("population") > 1).sort(one).collect(engine="streaming")
    if in_both.height:
        raise InputError(
            f"{in_both.height:,} loans are in both populations, such as {one} {in_both[one][0]!r}, for "
            f"{_describe(shared)}; make population.source and population.target exclusive"
        )


def _describe(shared: Pairs) -> str:
    of_source, of_target = shared[0]
    more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
    if of_source == of_target:
        return f"{of_source}{more} is read by data.source and by data.target"
    return f"{of_target}{more} of data.target has the bytes of {of_source} of data.source"
