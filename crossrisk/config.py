"""The portfolio's TOML as one frozen tree, and the folders it leads to.

Everything a person may choose is here, with its default and its bounds; nothing here opens data. Unknown keys are
refused with the nearest known name. Clock and environment are arguments, never read.
"""

from __future__ import annotations

import calendar
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import polars as pl
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from crossrisk.contenders import ARTICLE_LINEUP, HONEST_LINEUP, POOLED, LineupConfig
from crossrisk.errors import ConfigError
from crossrisk.features import (
    Age,
    Aggregate,
    DatePart,
    Difference,
    FitSettings,
    Ratio,
    RowPlan,
    SelectionRules,
    Sentinels,
    View,
    check_servable_names,
)
from crossrisk.features.rows import Part
from crossrisk.features.settings import OF_CATEGORIES, OF_NUMBERS, EncodingName, check_settings
from crossrisk.features.tables import Statistic
from crossrisk.forms import Form, Names, nearest
from crossrisk.limits import MOST_COLUMNS, MOST_DEPTH, MOST_FAULTS_SAID, read_document, refuse_depth
from crossrisk.sql_rules import parse_rule

Month = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
Months = Annotated[tuple[Month, Month], Field(description="first and last month, both included")]
Share = Annotated[float, Field(gt=0, lt=1)]
Said = Annotated[str, Field(min_length=1)]
"""Text that says something: an empty rule, path or column is a key that was meant to be left out."""

INPUT_COLUMN = "crossrisk_input"
"""Where source and target come from two inputs: which of the two a row came from."""
KNOWN_COLUMN, GREY_COLUMN = "crossrisk_known_date", "crossrisk_grey"
"""What ingest computes of the SQL of label.known_date and label.grey, beside the columns of the data."""
INGEST_NAMES = frozenset({INPUT_COLUMN, KNOWN_COLUMN, GREY_COLUMN})
"""Columns that ingest adds to those of the data: no file, map or rule may hold them."""
RESERVED_NAMES = INGEST_NAMES | frozenset(
    {"id", "customer", "population", "part", "month", "label", "why_unknown", "stratum", "label_used"}
)
"""Columns of our own tables. What is carried beside them may not be called so; a key may: `id` may be the id's name."""


ColumnMap = Annotated[
    Mapping[str, str], Field(description="name in this TOML = name in the files", max_length=MOST_COLUMNS)
]


class InputConfig(Form):
    """Files of one layout, and what their columns are called here."""

    path: Said = Field(description="file, folder (hive-partitioned or flat) or glob, relative to root")
    columns: ColumnMap = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> Self:
        theirs = list(self.columns.values())
        twice = sorted({name for name in theirs if theirs.count(name) > 1})
        if twice:
            raise ValueError(f"column {twice[0]!r} of the files is given two names; a column has one name here")
        return self


class DataConfig(Form):
    """Where the loans are and which column is what: one input for both populations, or one for each."""

    path: Said | None = Field(default=None, description="of one input; as in [data.source]")
    columns: ColumnMap = Field(default={})
    source: InputConfig | None = None
    target: InputConfig | None = None
    root: str | None = Field(default=None, description="default: the environment variable CROSSRISK_DATA, else data/")
    id: Said
    customer: Said | None = Field(default=None, description="key of the person; one customer is on one side of a split")
    decision_date: Said | None = Field(
        default=None, description="none: splits are random by hash, nothing is out of time"
    )
    ignore: Names = Field(default=(), description="columns known and not used; any other extra column is a warning")
    expectations: Names = Field(default=(), description="suites beside the common one: a name, or a .json by this file")
    max_quarantined_share: float | None = Field(default=None, ge=0, le=1, description="default: the suite's")

    @model_validator(mode="after")
    def _one_or_two_inputs(self) -> Self:
        if self.path is not None and self.source is None and self.target is None:
            InputConfig(path=self.path, columns=self.columns)
        elif self.path is not None or self.columns or self.source is None or self.target is None:
            raise ValueError(
                "expected either path (one input, with columns where names differ) or both [data.source] and "
                "[data.target], each with its path and columns"
            )
        return self

    @field_validator("expectations")
    @classmethod
    def _are_beside_this_file(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"suite {name!r} does not lie beside this file or below it; put it there")
        return names

    @property
    def inputs(self) -> dict[str, InputConfig]:
        """`{"": ...}` where both populations come from one input, else one for `source` and one for `target`."""
        if self.source is not None and self.target is not None:
            return {"source": self.source, "target": self.target}
        assert self.path is not None
        return {"": InputConfig(path=self.path, columns=self.columns)}

    @property
    def has_two_inputs(self) -> bool:
        """Whether source and target have files of their own."""
        return self.path is None


class LabelFiles(Form):
    """Files beside the loans, one for each of two inputs; one of them may do without."""

    source: Said | None = None
    target: Said | None = None


_TAGS = ("one path", "a path each")
LabelPaths = Annotated[
    Annotated[Said, Tag(_TAGS[0])] | Annotated[LabelFiles, Tag(_TAGS[1])],
    Discriminator(lambda given: _TAGS[0] if isinstance(given, str) else _TAGS[1]),
]
"""Told apart before they are checked, so that a fault is that of the form which was meant."""


class LabelConfig(Form):
    """The label as a contract with time (docs/labels.md). Not matured at as_of is unknown, never good."""

    event: str = Field(default="", description="what makes a customer bad, in words, for memo and model card")
    column: Said = Field(description="1 = bad, 0 = good, null = unknown")
    window_months: int = Field(default=0, ge=0, le=120, description="months on book that the label looks at")
    reporting_lag_days: int = Field(default=0, ge=0, le=720, description="from the end of the window to a known label")
    known_date: Said | None = Field(
        default=None, description="column, or SQL over columns: the date at which the label became known"
    )
    within_window: bool = Field(
        default=False,
        description="bad only where known_date lies in the window; known later, a good of this label",
    )
    grey: Said | None = Field(
        default=None, description="SQL rule: neither good nor bad; scored and counted, never fitted or judged on"
    )
    outcomes: LabelPaths | None = Field(
        default=None, description="a file or folder below data.root with one line an id: columns for the label alone"
    )
    revisions: LabelPaths | None = Field(
        default=None, description="likewise, any number of lines an id: the id, known_date and column; the last counts"
    )
    amount: Said | None = Field(default=None, description="column: amount booked, for vintages by amount")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, sql in (("known_date", self.known_date if self.is_known_date_sql else None), ("grey", self.grey)):
            try:
                parse_rule(sql or "TRUE")
            except pl.exceptions.PolarsError as error:
                raise ValueError(f"{key} is no SQL: {sql!r}: {error}") from error
        if self.within_window and not (self.window_months and self.known_date):
            raise ValueError("within_window needs window_months, and known_date to say when the event became known")
        if self.within_window and self.revisions:
            raise ValueError(
                "within_window is for a column that tells of events at any later day; revisions restate the label of "
                "the window itself: leave one of the two out"
            )
        if self.revisions and (self.known_date is None or self.is_known_date_sql):
            raise ValueError("revisions need known_date: the name of their column that says when a label became known")
        return self

    @property
    def is_known_date_sql(self) -> bool:
        """Whether known_date is an expression: it holds a parenthesis, a quote or a plus; a column's name does not."""
        return bool(set(self.known_date or "") & set("()'\"+"))

    @property
    def known_column(self) -> str | None:
        """The column of the ingested table that holds the date at which a label became known."""
        return KNOWN_COLUMN if self.is_known_date_sql else self.known_date

    @property
    def is_derived(self) -> bool:
        """Whether ingest has to compute or join anything for the label."""
        return bool(self.is_known_date_sql or self.grey or self.outcomes or self.revisions)

    @property
    def rule_columns(self) -> frozenset[str]:
        """What the SQL of known_date and grey reads."""
        rules = (self.known_date if self.is_known_date_sql else None, self.grey)
        return frozenset(name for rule in rules if rule for name in parse_rule(rule).meta.root_names())

    def files_of(self, kind: Literal["outcomes", "revisions"], population: str) -> str | None:
        """The path of one kind of label file for an input; `population` is empty where there is one input."""
        files: str | LabelFiles | None = getattr(self, kind)
        if isinstance(files, LabelFiles):
            path: str | None = getattr(files, population)
            return path
        return files


class PopulationConfig(Form):
    """SQL filters over the columns of the data. A row of neither is left out; a row of both is an error.

    With two inputs each rule looks at the rows of its own input, and all of them are meant where there is none.
    """

    source: Said | None = None
    target: Said | None = None

    @field_validator("source", "target")
    @classmethod
    def _is_sql(cls, rule: str | None) -> str | None:
        try:
            parse_rule(rule or "TRUE")
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"expected a filter in SQL, such as product = 'card'; got {rule!r}: {error}") from error
        return rule

    @property
    def has_both(self) -> bool:
        """Whether each population has a rule of its own."""
        return self.source is not None and self.target is not None

    def columns_of(self, population: str) -> frozenset[str]:
        """The columns that the rule of `source` or `target` reads."""
        return frozenset(parse_rule(getattr(self, population) or "TRUE").meta.root_names())


class FeaturesConfig(Form):
    """Which columns become features, and how."""

    numeric: Names = ()
    categorical: Names = ()
    protected: Names = Field(default=(), description="never enter a model; kept for reports")
    ratios: Mapping[str, tuple[str, str]] = Field(default={}, description="name = [numerator, denominator]")
    differences: Mapping[str, tuple[str, str]] = Field(default={}, description="name = [minuend, subtrahend]")
    ages: Mapping[str, str] = Field(default={}, description="name = date column; months from it to the decision date")
    date_parts: Mapping[str, tuple[str, Part]] = Field(
        default={}, description="name = [date column, part]: year, quarter, month, day or weekday (1 = Monday)"
    )
    sentinels: Mapping[str, tuple[float, ...]] = Field(default={}, description="codes of a column that mean missing")
    timestamps: Mapping[str, str] = Field(
        default={}, description="column = date column of when it was known; after the decision date: the run is refused"
    )
    clip_quantiles: tuple[float, float] = (0.005, 0.995)
    min_level_rows: int = Field(default=20, ge=1, description="training rows a level or missing flag needs")
    constants: Mapping[str, float] = Field(
        default={}, description="number = what missing is filled with; default: the median"
    )
    logs: Mapping[str, Literal["log1p", "signed_log"]] = Field(
        default={}, description="number = ln(1 + x) or sign(x) ln(1 + |x|), taken after clipping"
    )
    encodings: Mapping[str, tuple[EncodingName, ...]] = Field(
        default={},
        description=f"feature = how it enters the matrix: numbers {', '.join(OF_NUMBERS)} (default standard), "
        f"categories {', '.join(OF_CATEGORIES)} (default one_hot). woe and target_mean see labels of the source alone",
    )
    aggregates: Mapping[str, tuple[str, Statistic, str]] = Field(
        default={}, description="name = [number, statistic, category]: of the training rows of the same level"
    )
    bins: int = Field(default=10, ge=2, le=50, description="of a number that is binned, at quantiles")
    smoothing: float = Field(default=20.0, gt=0, description="rows of the overall bad rate in a target mean")
    crossfit_folds: int = Field(default=5, ge=2, le=20, description="of the training rows of woe and target_mean")
    select: SelectionRules = SelectionRules()

    @model_validator(mode="after")
    def _check(self) -> Self:
        used = [
            *self.numeric,
            *self.categorical,
            *self.ages.values(),
            *(date_column for date_column, _ in self.date_parts.values()),
            *(c for pair in (*self.ratios.values(), *self.differences.values()) for c in pair),
        ]
        stray = sorted(set(self.timestamps) - set(used))
        if stray:
            raise ValueError(
                f"timestamps name {stray[0]!r}, of which no feature is made; list columns of features there"
            )
        leaked = sorted(set(used) & set(self.protected))
        if leaked:
            raise ValueError(f"protected column {leaked[0]!r} is also a feature; take it out of one of the two lists")
        for key, pairs in (("ratios", self.ratios), ("differences", self.differences)):
            for name, pair in pairs.items():
                texts = sorted(set(pair) & set(self.categorical))
                if texts or pair[0] == pair[1]:
                    wrong = f"{texts[0]!r} is a category" if texts else f"{pair[0]!r} and itself say nothing"
                    raise ValueError(f"{key}.{name}: {wrong}; expected two different numeric columns")
        made = [*self.ratios, *self.ages, *self.differences, *self.date_parts]
        names = [*self.numeric, *self.categorical, *made]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"feature {twice[0]!r} is listed twice")
        if not names:
            raise ValueError("no feature at all; list columns under features.numeric or features.categorical")
        parts = {c for pair in (*self.ratios.values(), *self.differences.values()) for c in pair}
        unknown = sorted(set(self.sentinels) - {*self.numeric, *parts})
        if unknown:
            raise ValueError(f"sentinels name {unknown[0]!r}, which is not a numeric feature")
        low, high = self.clip_quantiles
        if not 0 <= low < high <= 1:
            raise ValueError(f"clip_quantiles must be 0 <= low < high <= 1, got {low} and {high}")
        check_settings(self.fit_settings, [*self.numeric, *made], self.categorical)
        return self

    @property
    def fit_settings(self) -> FitSettings:
        """What `crossrisk.features.fit_plan` is told; the lineup has its part in `Portfolio.fit_settings`."""
        return FitSettings(
            clip_quantiles=self.clip_quantiles,
            min_level_rows=self.min_level_rows,
            constants=self.constants,
            logs=self.logs,
            encodings=self.encodings,
            aggregates=tuple(
                Aggregate(name=name, number=number, statistic=statistic, by=by)
                for name, (number, statistic, by) in sorted(self.aggregates.items())
            ),
            bins=self.bins,
            smoothing=self.smoothing,
            select=self.select,
        )


class SplitConfig(Form):
    """Who is fitted on, who chooses, who judges. See docs/method.md."""

    source_stop_share: Share = 0.2
    target_select_share: Share = Field(default=0.3, description="of the target rows that are not in the test")
    target_test_share: Share = Field(default=0.4, description="only where there is no decision date")
    target_test_last_months: int = Field(default=6, ge=1, le=60, description="last matured months, unless named below")
    matured_share: float = Field(
        default=0.95, gt=0, le=1, description="a month counts as matured when so many of its labels are known"
    )
    target_fit_months: Months | None = None
    target_select_months: Months | None = None
    target_test_months: Months | None = None
    target_label_budget_bads: int | None = Field(default=None, ge=1, description="use at most so many target bads")
    min_stratum_rows: int = Field(default=10, ge=1, description="smaller label-by-month cells are merged, and named")
    generation: int = Field(default=1, ge=1, description="raise it to draw all parts afresh, giving up comparability")
    seed: int = 20260131


class GateConfig(Form):
    """The rule of the decision, fixed before the run. Every number of it is here, with its default and the reason."""

    rule: Literal["superiority", "non_inferiority", "none"] = Field(
        default="superiority",
        description="what the challenger must show against the champion: better by more than the margin, or not worse "
        "by more than it (where the new one is wanted for other reasons); none: no threshold, so it never promotes",
    )
    primary_metric: Literal["auc", "gini", "ks", "brier", "log_loss"] = Field(
        default="auc", description="of the rule above; AUC has a paired test with the most power at few bads (DeLong)"
    )
    margin: float = Field(
        default=0.0, ge=0, le=0.2, description="in units of primary_metric; 0: any gain beyond noise is one"
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="of the paired test, two-sided; also 1 - share of every interval. A look at rows that an earlier "
        "decision about the same champion saw is tested at a smaller one (crossrisk.policy.alpha_of_look)",
    )
    replicates: int = Field(default=1000, ge=100, le=100_000, description="resamples where an interval needs them")
    min_test_bads: int = Field(
        default=30, ge=1, description="below, nothing is claimed about the target: AUC is within 0.1 at best there"
    )
    auc_floor: float = Field(
        default=0.5, ge=0.5, lt=1, description="the AUC interval must lie above it: chance, constants, a flipped sign"
    )
    auc_ceiling: float = Field(
        default=0.95, gt=0.5, le=1, description="an AUC interval above it is a leak until a person has looked"
    )
    observed_expected: tuple[float, float] = Field(
        default=(0.8, 1.25), description="observed/expected must lie within: a risk understated by a quarter is priced"
    )
    calibration_slope: tuple[float, float] = Field(
        default=(0.67, 1.5),
        description="the slope's interval must reach it; at 105 bads the slope itself is known to about a quarter",
    )
    score_psi: float = Field(
        default=0.25, gt=0, description="PSI of challenger against champion: above it a person decides, cut-offs move"
    )
    segment_margin_auc: float = Field(
        default=0.03, ge=0, description="fall of AUC against the champion that a segment may not show beyond noise"
    )
    min_segment_bads: int = Field(default=30, ge=5, description="bads, and goods, of a segment or group that is judged")
    source_auc_margin: float = Field(
        default=0.02, ge=0, description="networks only: fall allowed on source_stop, two standard errors of it there"
    )
    latency_p95_ms: float = Field(
        default=50.0, gt=0, description="95th percentile for one row: a tenth of the half second an applicant notices"
    )
    size_mb: float = Field(default=200.0, gt=0, description="of the SavedModel; TF Serving holds two versions at once")
    approval: Literal["automatic", "required"] = Field(
        default="automatic", description="required: what would be promoted waits for a named person"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("observed_expected", "calibration_slope"):
            low, high = getattr(self, key)
            if not 0 < low < 1 < high:
                raise ValueError(f"{key} must be 0 < low < 1 < high, got {low} and {high}")
        if self.rule == "non_inferiority" and self.margin == 0:
            raise ValueError("rule non_inferiority needs a margin above 0: how much worse is still as good")
        if self.auc_floor >= self.auc_ceiling:
            raise ValueError(f"auc_floor {self.auc_floor} must lie below auc_ceiling {self.auc_ceiling}")
        return self

    @property
    def confidence(self) -> float:
        """Share of every interval."""
        return 1 - self.alpha


class UseConfig(Form):
    """How the probability is used, for the tables of the report and the points."""

    cutoff_probability: float | None = Field(default=None, gt=0, lt=1, description="applicants above are declined")
    segments: Names = Field(default=(), description="columns by which the report breaks the result down")
    score_at_odds: float = Field(default=600, description="points at `odds` good:bad")
    odds: float = Field(default=30, gt=0)
    points_to_double: float = Field(default=20, gt=0)
    bands: Annotated[tuple[float, ...], Field(max_length=1_000)] = Field(
        default=(),
        exclude=True,  # how scores are grouped is no part of what is asked, decided or published
        description="points, ascending, between the bands of `crossrisk score`: band 1 lies below the first and is the "
        "riskiest; default: tenths of the score that the version was published with",
    )

    @field_validator("bands")
    @classmethod
    def _ascend(cls, bands: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(bands)):
            raise ValueError(f"expected points in ascending order, none of them twice, got {list(bands)}")
        return bands


def check_address(server: str) -> str:
    """The address of a server's REST interface, such as http://localhost:8501, without the slash at its end.

    Raises:
        ValueError: it is none: another scheme, no host, a port that is no number, a bracket that does not close.
    """
    try:
        parts = urlsplit(server)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not server.isprintable() or " " in server:  # urlsplit drops line ends and tabs in silence
        raise ValueError(f"expected a server's REST address such as http://localhost:8501, got {server!r}")
    return server.rstrip("/")


class PublishConfig(Form):
    """Where versions go."""

    registry: str = "registry"
    expiry_months: int = Field(
        default=12, ge=1, le=120, description="after its as_of, a champion that nobody replaced is due for review"
    )
    serving: Literal["latest", "specific"] = Field(
        default="latest",
        exclude=True,  # how a version is served is no part of what is asked, decided or published
        description="who moves a server to a new version: the server itself, or we, in two steps (docs/decisions/0009)",
    )
    server: str | None = Field(
        default=None,
        exclude=True,
        description="TF Serving's REST address; it is asked after each publication whether it serves the new version",
    )

    @field_validator("server")
    @classmethod
    def _is_address(cls, server: str | None) -> str | None:
        return None if server is None else check_address(server)


class RetentionConfig(Form):
    """How long `crossrisk clean` leaves what runs made. What is published is not meant: `crossrisk prune`."""

    stages_days: int = Field(
        default=35,
        ge=1,
        description="since a stage was last used: the next monthly run still finds it. Quarantined rows lie in stages",
    )
    runs_days: int = Field(
        default=400, ge=1, description="since a run ended: its report is there when the month comes round again"
    )


class Portfolio(Form):
    """One target population and all that is decided about it."""

    name: str = Field(description="lower-case letters, digits, underscores: folders are called so")
    as_of: date = Field(description="nothing later may be seen; never today's date")
    preset: Literal["honest", "article"] = "honest"
    work: str = "work"
    data: DataConfig
    label: LabelConfig
    population: PopulationConfig = PopulationConfig()
    features: FeaturesConfig
    split: SplitConfig = SplitConfig()
    lineup: LineupConfig = LineupConfig()
    gate: GateConfig = GateConfig()
    use: UseConfig = UseConfig()
    publish: PublishConfig = PublishConfig()
    # Not dumped: how long things are left lying is no part of what a run asks, nor of what a version is.
    retention: RetentionConfig = Field(default=RetentionConfig(), exclude=True)

    @field_validator("name")
    @classmethod
    def _is_safe_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):  # no capitals: there are file systems that know no case
            raise ValueError(
                "expected a lower-case letter, then up to 62 lower-case letters, digits and underscores, for folders "
                f"are called so; got {name!r}"
            )
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("source", "target"):
            if not self.data.has_two_inputs and getattr(self.population, name) is None:
                raise ValueError(f"population.{name} is missing: one input needs a rule for each population")
        if self.data.decision_date is None:
            needs = {
                "label.window_months": self.label.window_months,
                "features.ages": self.features.ages,
                "features.timestamps": self.features.timestamps,
                "split.target_fit_months": self.split.target_fit_months,
                "split.target_select_months": self.split.target_select_months,
                "split.target_test_months": self.split.target_test_months,
            }
            for key, value in needs.items():
                if value:
                    raise ValueError(f"{key} needs data.decision_date, which is not set")
        for kind in ("outcomes", "revisions"):
            files = getattr(self.label, kind)
            if files is not None and isinstance(files, str) == self.data.has_two_inputs:
                raise ValueError(
                    f"label.{kind}: two inputs number their loans on their own, so each has its own file: write "
                    f'label.{kind} = {{ source = "...", target = "..." }}'
                    if self.data.has_two_inputs
                    else f"label.{kind}: one input has one path there, not one for each population"
                )
        check_servable_names(self.row_plan.raw_columns)
        rules = self.label.rule_columns - {self.data.decision_date}
        roles = {self.label.column, self.label.known_date, self.data.id, self.data.customer, *rules} - {None}
        read = {column.name for column in self.row_plan.raw_columns}
        self._refuse_reserved()
        self._refuse_patterns()
        leaked = sorted(str(name) for name in roles & read)
        if leaked:
            raise ValueError(
                f"column {leaked[0]!r} is a label, its date, a key or read by the rules of [label]: no feature may be "
                "made of it; a rule about applicants belongs to [population]"
            )
        if not self.can_publish:
            raise ValueError("every contender is pooled, and lineup.pooling is 'reference': nothing could be published")
        return self

    def _refuse_reserved(self) -> None:
        """No column that stages carry beside their own may take the name of one of these."""
        data, features = self.data, self.features
        keys = {data.id, data.customer, data.decision_date, self.label.column, self.label.known_date}
        raw = {column.name for column in self.row_plan.raw_columns} - {data.decision_date}
        named = {
            "a feature": {*self.row_plan.numeric_features, *features.categorical, *features.aggregates, *raw},
            "a segment": set(self.use.segments),
            "a protected column": set(features.protected),
            "a column": {ours for one in data.inputs.values() for ours in one.columns if ours not in keys},
        }
        for what, names in named.items():
            for name in sorted(names & RESERVED_NAMES):
                raise ValueError(
                    f"{what} may not be called {name!r}: stages use that name for themselves; give it another in the "
                    f'map of columns, such as {name}_given = "its name in the files"'
                )
        reads = {f"population.{one}": self.population.columns_of(one) for one in ("source", "target")}
        reads |= {"the SQL of label": self.label.rule_columns, "a key of data or label": frozenset(filter(None, keys))}
        for where, read in reads.items():
            for name in sorted(read & INGEST_NAMES):
                raise ValueError(
                    f"{where} reads {name!r}, which is no column of the data: ingest adds it; leave it out (of two "
                    "inputs, each rule looks at the rows of its own)"
                )

    def _refuse_patterns(self) -> None:
        """No column may have a name here that Polars takes for many: `*`, or a regular expression `^...$`."""
        data, label, features = self.data, self.label, self.features
        named = {data.id, data.customer, data.decision_date, label.column, label.known_column, label.amount}
        named |= {*features.numeric, *features.categorical, *features.protected, *features.ages.values()}
        named |= {*features.timestamps, *features.timestamps.values(), *self.use.segments}
        named |= {name for pair in (*features.ratios.values(), *features.differences.values()) for name in pair}
        named |= {name for name, _ in features.date_parts.values()}
        named |= {ours for one in data.inputs.values() for ours in one.columns}
        for name in sorted(filter(None, named)):
            if name == "*" or (name.startswith("^") and name.endswith("$")):
                raise ValueError(
                    f"a column may not be called {name!r} here, for that means many; give it another name in the map "
                    f"of columns, such as stars = {name!r}"
                )

    @property
    def contenders(self) -> tuple[str, ...]:
        """The lineup of this run."""
        return self.lineup.contenders or (ARTICLE_LINEUP if self.preset == "article" else HONEST_LINEUP)

    @property
    def can_publish(self) -> bool:
        """Whether any contender of the lineup may become the champion."""
        return self.lineup.pooling == "allowed" or bool(set(self.contenders) - set(POOLED))

    def view_of(self, contender: str) -> View:
        """Which matrix of the feature plan a contender is fitted on."""
        return self.lineup.boosted_inputs if contender.endswith("_boosted") else "encoded"

    @property
    def fit_settings(self) -> FitSettings:
        """What `crossrisk.features.fit_plan` is told."""
        has_native = any(self.view_of(name) == "native" for name in self.contenders)
        return self.features.fit_settings.model_copy(update={"native": has_native})

    @property
    def row_plan(self) -> RowPlan:
        """The row-wise part of the feature plan.

        Tables are in the order of their names: the order of columns is part of a fit, and a config that was written as
        JSON has no other.
        """
        f = self.features
        return RowPlan(
            decision_date=self.data.decision_date,
            numbers=f.numeric,
            categories=f.categorical,
            sentinels=tuple(Sentinels(column=c, codes=codes) for c, codes in sorted(f.sentinels.items())),
            ratios=tuple(Ratio(name=n, numerator=a, denominator=b) for n, (a, b) in sorted(f.ratios.items())),
            ages=tuple(Age(name=n, date=c) for n, c in sorted(f.ages.items())),
            differences=tuple(
                Difference(name=n, minuend=a, subtrahend=b) for n, (a, b) in sorted(f.differences.items())
            ),
            date_parts=tuple(DatePart(name=n, date=c, part=p) for n, (c, p) in sorted(f.date_parts.items())),
        )


def expiry(portfolio: Portfolio) -> date:
    """The day on which a model of this run is due for review: publish.expiry_months after as_of."""
    months = portfolio.as_of.year * 12 + portfolio.as_of.month - 1 + portfolio.publish.expiry_months
    year, month = divmod(months, 12)
    return date(year, month + 1, min(portfolio.as_of.day, calendar.monthrange(year, month + 1)[1]))


@dataclass(frozen=True)
class Folders:
    """The resolved folders of a portfolio."""

    data_root: Path
    work: Path
    registry: Path
    config: Path
    """the folder of the TOML: suites named by file lie beside it"""

    @property
    def stages(self) -> Path:
        """Outputs addressed by digest."""
        return self.work / "stages"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.work / "runs"


@dataclass(frozen=True)
class Loaded:
    """A portfolio with its folders."""

    portfolio: Portfolio
    folders: Folders


def load_portfolio(
    path: Path,
    *,
    environ: Mapping[str, str],
    overrides: Sequence[str] = (),
) -> Loaded:
    """Read a portfolio's TOML.

    Args:
        path: the TOML file.
        environ: CROSSRISK_DATA (default of data.root) and CROSSRISK_HOME (what relative folders are relative to;
            default the current folder) are looked up here.
        overrides: `key=value` with dotted keys, as of `--set`; the value is TOML, or a plain string.

    Raises:
        ConfigError: unreadable or too large a file, a folder to write to outside CROSSRISK_HOME, unknown key (with the
            nearest known one), value out of bounds.
    """
    try:
        document = _parse_toml(read_document(path).decode("utf-8-sig"))  # editors of Windows put a mark in front
    except OSError as error:
        raise ConfigError(f"cannot read the portfolio {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} {error}") from error
    _refuse_folders_outside(document, path.name)
    for override in overrides:
        _apply_override(document, override)
    portfolio = parse_portfolio(document, where=path.name)
    home = Path(environ.get("CROSSRISK_HOME") or ".").resolve()
    root = portfolio.data.root or environ.get("CROSSRISK_DATA") or "data"
    return Loaded(
        portfolio,
        Folders(
            data_root=(home / root).resolve(),
            work=home / portfolio.work / portfolio.name,
            registry=home / portfolio.publish.registry / portfolio.name,
            config=path.resolve().parent,
        ),
    )


def load_run(
    config: str, environ: Mapping[str, str], *, as_of: str = "", preset: str = "", overrides: Sequence[str] = ()
) -> Loaded:
    """The portfolio of a run: its TOML, then the overrides, then the run's own date and preset where given.

    A relative config is relative to CROSSRISK_HOME (default: the current folder), as all folders are: a worker starts
    its runs in a folder of its own.

    Raises:
        ConfigError: as `load_portfolio`.
    """
    own = [f'{key}="{value}"' for key, value in (("as_of", as_of), ("preset", preset)) if value]
    path = Path(environ.get("CROSSRISK_HOME") or ".") / config
    return load_portfolio(path, environ=environ, overrides=[*overrides, *own])


def parse_portfolio(document: Mapping[str, Any], *, where: str) -> Portfolio:
    """Build the tree from parsed TOML; every fault is named, in one ConfigError."""
    try:
        return Portfolio.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False)
        faults = [_describe(fault) for fault in found[:MOST_FAULTS_SAID]]
        more = f"; and {len(found) - MOST_FAULTS_SAID:,} more" if len(found) > MOST_FAULTS_SAID else ""
        raise ConfigError(f"{where}: " + "; ".join(faults) + more) from error


_KEY = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_KEY}\.[ \t]*+){{{MOST_DEPTH}}}")
"""of so many parts: tomllib keeps every beginning of a key, so one of 200 KB takes more memory than there is"""


def _parse_toml(text: str) -> dict[str, Any]:
    if _LONG_KEY.search(text):
        raise ValueError(f"nests tables by a key of more than {MOST_DEPTH} parts; ours have 3")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nests lists so deep that nobody reads it; ours have 3") from None
    refuse_depth(document)
    return document


def _refuse_folders_outside(document: Mapping[str, Any], where: str) -> None:
    """A TOML names the folders that are written to below CROSSRISK_HOME; who starts a run may say others (`--set`)."""
    publish = document.get("publish")
    named = {
        "work": document.get("work"),
        "publish.registry": publish.get("registry") if isinstance(publish, Mapping) else None,
    }
    for key, folder in named.items():
        if isinstance(folder, str) and (Path(folder).is_absolute() or ".." in Path(folder).parts):
            raise ConfigError(
                f"{where}: {key} {folder!r} leads outside CROSSRISK_HOME; name a folder below it (which may be a link "
                f"that you made), or start the run with --set {key}=FOLDER"
            )


def _apply_override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set expects key=value with a dotted key, such as gate.replicates=500; got {override!r}")
    try:
        value: Any = _parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    except ValueError as error:
        raise ConfigError(f"--set {key} {error}") from error
    *parents, last = key.strip().split(".")
    table = document
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {key}: {parent!r} is a value, not a table")
    table[last] = value


def _describe(fault: Mapping[str, Any]) -> str:
    location = [str(part) for part in fault["loc"] if part not in _TAGS]
    key = ".".join(location) or "portfolio"
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}{nearest(location[-1], _known_keys(location[:-1]))}"
        case "missing":
            return f"key {key!r} is missing"
        case "string_too_short":
            return f"{key} is empty; write what is meant, or leave the key out"
        case "value_error":
            return f"{key}: {fault['ctx']['error']}"
        case _:
            return f"{key}: {fault['msg']}, got {_shorten(fault['input'])}"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _known_keys(location: Sequence[str]) -> tuple[str, ...]:
    form: type[BaseModel] | None = Portfolio
    for part in location:
        field = form.model_fields.get(part) if form else None
        form = _form_of(field.annotation) if field else None
    return tuple(form.model_fields) if form else ()


def _form_of(annotation: Any) -> type[BaseModel] | None:
    """The form that a field holds, also where it may be left out (`Form | None`) or is one of several things."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((form for part in get_args(annotation) if (form := _form_of(part))), None)
