"""The pipeline: the one declaration that a user writes. Checked when made; reading it needs no heavy library."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from headrace.models.checks import Checks
from headrace.models.durations import milliseconds
from headrace.models.errors import DeclarationError
from headrace.models.features import Aggregate, AnyFeature, Column, Function, Lookup, Topic, columns_of, fields_of
from headrace.models.labels import Label
from headrace.models.limits import RunLimits
from headrace.models.metrics import METRICS, OF_TASK
from headrace.models.protocols import Judge, Learner, Shadows, TakesBack, Trigger
from headrace.models.reweighting import Balance, LabelDelay
from headrace.models.schema import CATEGORIES, NUMBERS, PREDICTION, Schema
from headrace.models.scoring import Score, expect_scores
from headrace.models.windows import Anchor, Last, Window

PROBABILITIES = "probabilities"  # of each class, beside the score, where there are several
SERVED_FIELDS = frozenset(
    {"id", "event_time", "partition", "offset", "version", "score", PROBABILITIES}
)  # beside the features
JOINED_FIELDS = frozenset({"label", "label_delay_ms"})  # of a dataset, beside these
Delivery = Literal["at_least_once", "exactly_once"]
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")  # topic names are made of it: 249 characters at most, dots are ours


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Events in, predictions out, and how the model behind them stays fresh.

    `baseline` is version 0's answer to every event, or a `Function` on columns that gives one per row; without it the
    label's prior. `initial` is the path of an ONNX file that becomes version 1.
    """

    name: str
    events: Topic
    features: Sequence[AnyFeature]
    label: Label
    learner: Learner | None = None
    train_on: Window = field(default_factory=lambda: Last("52w"))
    run: RunLimits = field(default_factory=RunLimits)  # what a training may take of its machine
    anchor: Anchor | None = None  # older rows, never trained on, that each candidate is judged on beside the newest
    importance: LabelDelay | None = None  # of rows by how long their label took, where quick ones are there first
    balance: Balance | None = None  # of a binary label's classes
    checks: Checks = field(default_factory=Checks)  # what a training looks for, and what of it is an error
    retrain: Sequence[Trigger] = ()
    score: Sequence[Score] = ()  # by schedule, beside the events
    gate: Judge | None = None
    shadow: Shadows | None = None  # what passed the gate waits beside the champion until labels say that it is better
    rollback: TakesBack | None = None  # and goes back when they say that it is worse
    segments: Sequence[str] = ()  # category columns: live metrics in each of their values, too
    baseline: float | Function | None = None
    initial: str | None = None
    delivery: Delivery = "at_least_once"  # or "exactly_once": subscribers then read with isolation.level=read_committed
    signed: bool = False  # only versions that a trusted key signed: see `trusted_keys` of the settings
    operators: Sequence[str] = ()  # of ONNX that a version may have beside the usual ones: Loop, If, Scan, …
    max_future: str = "5m"  # an event time further ahead of the clock is parked before it touches a watermark

    def __post_init__(self) -> None:
        expect_scores(self.score)
        self._check_inputs()
        self._check_trust()
        self._check_learning()
        self._check_rows()
        self._check_segments()
        self._check_names()
        self._check_function_inputs()
        self._check_fields()
        self._check_topics()
        self._check_score()

    @property
    def columns(self) -> tuple[Column, ...]:
        return columns_of(self.features)

    @property
    def schema(self) -> Schema:
        """What the next training uses."""
        return Schema(self.columns)

    @property
    def side_topics(self) -> tuple[Topic, ...]:
        """Topics that feed lookups and aggregates, each once."""
        found = {
            feature.topic.name: feature.topic for feature in self.features if isinstance(feature, Lookup | Aggregate)
        }
        return tuple(found.values())

    @property
    def inputs(self) -> tuple[Topic, ...]:
        """Every topic that users write, each once: events, labels, side topics, those that are scored by schedule."""
        found = {topic.name: topic for topic in (*self.scored_topics, *self.side_topics, self.label.topic, self.events)}
        return tuple(found.values())

    @property
    def scored_topics(self) -> tuple[Topic, ...]:
        return tuple(one.source for one in self.score if isinstance(one.source, Topic))

    @property
    def stored(self) -> tuple[Lookup | Aggregate, ...]:
        """Features that live in the feature store."""
        return tuple(feature for feature in self.features if isinstance(feature, Lookup | Aggregate))

    @property
    def reach_ms(self) -> int | None:
        """How far back a training reads served rows; None where it reads all of them."""
        return None if self.anchor is not None else self.train_on.reach_ms

    @property
    def max_future_ms(self) -> int:
        return milliseconds("Pipeline.max_future", self.max_future)

    def topic(self, kind: str) -> str:
        """headrace's own topics of this pipeline: predictions, served, dead-letters, history (without the prefix)."""
        return f"{self.name}.{kind}"

    @property
    def metric(self) -> str:
        """What versions are judged by: the gate's, where it says so, else the first one of the task."""
        of_task = OF_TASK[self.label.task]
        given = getattr(self.gate, "metric", None)
        return given if given in of_task else of_task[0]

    def _check_inputs(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise DeclarationError("Pipeline.name", "lower-case letters, digits, - and _", self.name, "Rename it.")
        if not isinstance(self.events, Topic) or not self.events.id:
            raise DeclarationError("Pipeline.events", "a Topic with an id", self.events, "Topic(name, id=…, time=…).")
        if not self.features or not all(isinstance(feature, AnyFeature) for feature in self.features):
            raise DeclarationError("Pipeline.features", "features", self.features, "A list of Number(…), Lookup(…), …")
        if not isinstance(self.label, Label):
            raise DeclarationError(
                "Pipeline.label", "Binary, Multiclass or Regression", self.label, "Binary(topic, field, …)."
            )
        milliseconds("Pipeline.max_future", self.max_future)
        if self.delivery not in get_args(Delivery):
            expected = " or ".join(get_args(Delivery))
            raise DeclarationError("Pipeline.delivery", expected, self.delivery, "Choose what a crash may repeat.")
        baseline = self.baseline
        if isinstance(baseline, bool) or not isinstance(baseline, int | float | Function | None):
            raise DeclarationError("Pipeline.baseline", "a number or a Function", baseline, "What version 0 answers.")
        if isinstance(baseline, int | float) and self.label.classes:
            raise DeclarationError("Pipeline.baseline", "a Function", baseline, "Or the label's prior, per class.")
        if isinstance(baseline, Function) and baseline.kind != "number":
            raise DeclarationError("Pipeline.baseline", 'a Function of kind "number"', baseline.kind, "Scores are.")
        if self.initial is not None and not isinstance(self.initial, str):
            raise DeclarationError("Pipeline.initial", "the path of an ONNX file", self.initial, "Beside this file.")

    def _check_trust(self) -> None:
        if not isinstance(self.signed, bool):
            raise DeclarationError("Pipeline.signed", "True or False", self.signed, "Keys are in the settings.")
        if not isinstance(self.operators, list | tuple) or not all(isinstance(name, str) for name in self.operators):
            raise DeclarationError("Pipeline.operators", "a list of names", self.operators, 'For example ["If"].')

    def _check_learning(self) -> None:
        for name, protocol in (("learner", Learner), ("gate", Judge), ("shadow", Shadows), ("rollback", TakesBack)):
            given = getattr(self, name)
            if given is not None and (isinstance(given, type) or not isinstance(given, protocol)):
                raise DeclarationError(f"Pipeline.{name}", f"a {protocol.__name__}", given, "See docs/reference.md.")
        if not isinstance(self.retrain, list | tuple):
            raise DeclarationError("Pipeline.retrain", "a list of triggers", self.retrain, "Put it into brackets.")
        for trigger in self.retrain:
            if isinstance(trigger, type) or not isinstance(trigger, Trigger):
                raise DeclarationError("Pipeline.retrain", "triggers", trigger, "For example [Cron('0 3 * * mon', …)].")
        if not isinstance(self.run, RunLimits):
            raise DeclarationError("Pipeline.run", "RunLimits(…)", self.run, 'For example RunLimits(time="2h").')
        metric, known = getattr(self.gate, "metric", None), OF_TASK[self.label.task]
        if metric in METRICS and metric not in known:
            raise DeclarationError("Pipeline.gate", " or ".join(known), metric, "Take a metric of the task.")

    def _check_segments(self) -> None:
        categories = [column.name for column in self.columns if column.kind == "category"]
        if not isinstance(self.segments, list | tuple) or not set(self.segments) <= set(categories):
            expected = f"category columns ({', '.join(categories) or 'there are none'})"
            raise DeclarationError("Pipeline.segments", expected, self.segments, 'For example ["carrier"].')

    def _check_rows(self) -> None:
        if isinstance(self.train_on, type) or not isinstance(self.train_on, Window):
            raise DeclarationError("Pipeline.train_on", "a window", self.train_on, 'For example Last("52w").')
        if not isinstance(self.anchor, Anchor | None):
            raise DeclarationError("Pipeline.anchor", "an Anchor", self.anchor, "For example Anchor(rows=5_000).")
        self._check_weights()
        if not isinstance(self.checks, Checks):
            raise DeclarationError("Pipeline.checks", "Checks(…)", self.checks, 'For example Checks(errors=["drift"]).')
        if getattr(self.gate, "max_anchor_loss", None) is not None and self.anchor is None:
            raise DeclarationError("Pipeline.anchor", "an Anchor, as the gate limits its loss", None, "Anchor(rows=…).")

    def _check_weights(self) -> None:
        if not isinstance(self.importance, LabelDelay | None):
            raise DeclarationError("Pipeline.importance", "LabelDelay(…)", self.importance, "LabelDelay() will do.")
        if self.importance is not None and self.label.if_absent != "drop":
            said = f"if_absent={self.label.if_absent!r}"
            raise DeclarationError("Pipeline.importance", 'if_absent="drop"', said, "Rows wait for their horizon here.")
        if not isinstance(self.balance, Balance | None):
            raise DeclarationError("Pipeline.balance", "Balance(…)", self.balance, "Balance() will do.")
        if self.balance is not None and self.label.task != "binary":
            raise DeclarationError("Pipeline.balance", "a Binary label", self.label.task, "Leave it out.")

    def _check_fields(self) -> None:
        """The event's own time and id are decoded as such, whatever else reads them."""
        for read in fields_of(self.features):
            if read.name == self.events.time and read.kind != "datetime":
                raise DeclarationError(
                    f"field {read.name!r}", "to be read by Datetime", read.kind, "It is the event time."
                )
            if read.name == self.events.id and read.kind not in ("category", "entity"):
                raise DeclarationError(f"field {read.name!r}", "to be read as text", read.kind, "It is the event's id.")

    def _check_topics(self) -> None:
        """One topic that is declared twice is one thing."""
        formats = {topic.name: topic.format for topic in self.inputs}
        for topic in (self.label.topic, *self.scored_topics, *(feature.topic for feature in self.stored)):
            if topic.format != formats[topic.name]:
                raise DeclarationError(f"Topic({topic.name!r}).format", "one format", topic.format, "Choose.")
        times = {topic.name: topic.time for topic in self.side_topics}
        for feature in self.stored:
            if times[feature.topic.name] != feature.topic.time:
                raise DeclarationError(
                    f"Topic({feature.topic.name!r}).time", "one field", feature.topic.time, "Choose."
                )
            if feature.topic.time in feature.by:
                raise DeclarationError(f"{feature.topic.name!r} by", "an entity", feature.topic.time, "Not the time.")

    def _check_score(self) -> None:
        """Its rows go through what events go through: so they are checked as events are."""
        for one in self.score:
            replace(self, events=one.rows(self.events), score=())

    def _check_names(self) -> None:
        for column in self.columns:
            if column.kind == "tensor" and column.name in (NUMBERS, CATEGORIES, PREDICTION):
                raise DeclarationError(
                    "Tensor", "a name that the graph has not taken", column.name, "Rename the field."
                )
            if column.name in SERVED_FIELDS | JOINED_FIELDS:
                raise DeclarationError("feature", "a name that served rows have not taken", column.name, "Rename it.")

    def _check_function_inputs(self) -> None:
        plain = [feature for feature in self.features if not isinstance(feature, Function)]
        known = {column.name for column in columns_of(plain)}
        functions = [feature for feature in self.features if isinstance(feature, Function)]
        if isinstance(self.baseline, Function):
            if self.baseline.own_inputs:
                raise DeclarationError(
                    "Pipeline.baseline inputs", "names of columns", self.baseline.inputs, "Name them."
                )
            functions.append(self.baseline)
        for function in functions:
            own = {column.name for feature in function.own_inputs for column in feature.columns}
            for name in function.input_columns:
                if name not in known | own:
                    raise DeclarationError(
                        f"Function {function.name!r} inputs", f"one of {sorted(known)}", name, "Declare it, too."
                    )
