"""Declarations: what a user writes is checked when it is made, and says what to do."""

import pytest

from headrace import (
    Aggregate,
    Always,
    Binary,
    Category,
    Cron,
    Datetime,
    Every,
    Function,
    Gate,
    Last,
    Lookup,
    NewLabels,
    Number,
    Pipeline,
    Tensor,
    Topic,
    Torch,
)
from headrace.infra.pipeline_file import read_pipeline, read_pipelines
from headrace.models.durations import milliseconds
from headrace.models.errors import BadInput, DeclarationError
from headrace.models.features import columns_of, fields_of, fingerprint, from_json, to_json

EVENTS = Topic("events", id="id", time="at")
SIDE = Topic("side", time="at")
LABEL = Binary(Topic("labels", id="id", time="at"), "y", within="1h", if_absent="drop")


def rule(numbers):
    return numbers


def pipeline(**fields):
    return Pipeline(**{"name": "clicks", "events": EVENTS, "features": [Number("x")], "label": LABEL, **fields})


def refused(make):
    """The error's text, which has a field, what was expected, what came, and a remedy."""
    with pytest.raises(DeclarationError, match=r"^.+: expected .+, got .+\. .+") as caught:
        make()
    return str(caught.value)


WRONG = {
    "a topic without a name": (lambda: Topic("", time="at"), "Topic"),
    "a topic without a time": (lambda: Topic("t", time=""), "Topic('t').time"),
    "a topic with a name that Kafka refuses": (lambda: Topic("t/1", time="at"), "Topic"),
    "a topic whose id is its time": (lambda: Topic("t", time="at", id="at"), "Topic('t').id"),
    "a lookup of a topic by its name": (lambda: Lookup("side", by="a", fields=["x"]), "Lookup.topic"),
    "an aggregate of a topic by its name": (
        lambda: Aggregate("side", "x", "mean", over="1h", by="a"),
        "Aggregate.topic",
    ),
    "a number that reads the event time": (lambda: pipeline(features=[Number("at")]), "field 'at'"),
    "a number that reads the event's id": (lambda: pipeline(features=[Number("id")]), "feature"),
    "one side topic with two times": (
        lambda: pipeline(
            features=[
                Lookup(SIDE, by="a", fields=["x"]),
                Lookup(Topic("side", time="when"), by="a", fields=["y"]),
            ]
        ),
        "Topic('side').time",
    ),
    "an aggregate by the time": (
        lambda: pipeline(features=[Aggregate(SIDE, "x", "mean", over="1h", by="at")]),
        "field 'at'",
    ),
    "a threshold that is text": (
        lambda: Binary(LABEL.topic, "y", at_least="15", within="1h", if_absent="drop"),
        "Binary.at_least",
    ),
    "a decision that is text": (
        lambda: Binary(LABEL.topic, "y", decide_at="0.5", within="1h", if_absent="drop"),
        "Binary.decide_at",
    ),
    "a label that is its own id": (lambda: Binary(LABEL.topic, "id", within="1h", if_absent="drop"), "Binary.field"),
    "a trigger without a list": (lambda: pipeline(retrain=Always()), "Pipeline.retrain"),
    "a class for a trigger": (lambda: pipeline(retrain=[Always]), "Pipeline.retrain"),
    "a class for a gate": (lambda: pipeline(gate=Gate), "Pipeline.gate"),
    "a class for a learner": (lambda: pipeline(learner=Torch), "Pipeline.learner"),
    "a gate of another task": (lambda: pipeline(gate=Gate("rmse", max_loss=1.0)), "Pipeline.gate"),
    "a baseline that is text": (lambda: pipeline(baseline="0.5"), "Pipeline.baseline"),
    "a feature with a name that served rows have": (lambda: pipeline(features=[Number("score")]), "feature"),
    "a topic that starts in the middle": (lambda: Topic("t", time="at", start="middle"), "start"),
    "a topic of no partition": (lambda: Topic("t", time="at", partitions=0), "partitions"),
    "a number without a field": (lambda: Number(""), "Number"),
    "a category without a field": (lambda: Category(" "), "Category"),
    "a datetime without parts": (lambda: Datetime("at", parts=[], timezone="UTC"), "Datetime('at').parts"),
    "a datetime of an unknown part": (lambda: Datetime("at", parts=["season"], timezone="UTC"), "parts"),
    "a datetime of one part twice": (lambda: Datetime("at", parts=["hour", "hour"], timezone="UTC"), "parts"),
    "a datetime of no timezone": (lambda: Datetime("at", parts=["hour"], timezone="Mars/Utopia"), "timezone"),
    "a tensor without a shape": (lambda: Tensor("v", shape=[]), "Tensor('v').shape"),
    "a tensor of size 0": (lambda: Tensor("v", shape=[2, 0]), "Tensor('v').shape"),
    "a lookup by nothing": (lambda: Lookup(SIDE, by=[], fields=["v"]), "Lookup('side').by"),
    "a lookup of nothing": (lambda: Lookup(SIDE, by="k", fields=[]), "Lookup('side').fields"),
    "a lookup of one field twice": (lambda: Lookup(SIDE, by="k", fields=["v", "v"]), "fields"),
    "a lookup of an odd age": (lambda: Lookup(SIDE, by="k", fields=["v"], max_age="3 hours"), "max_age"),
    "a lookup of an odd lateness": (lambda: Lookup(SIDE, by="k", fields=["v"], lateness="-1d"), "lateness"),
    "an aggregate of an unknown statistic": (lambda: Aggregate(SIDE, "v", "median", over="1h", by="k"), "statistic"),
    "an aggregate over nothing": (lambda: Aggregate(SIDE, "v", "mean", over="0h", by="k"), "over"),
    "an aggregate without a field": (lambda: Aggregate(SIDE, "", "mean", over="1h", by="k"), "field"),
    "an aggregate by one field twice": (lambda: Aggregate(SIDE, "v", "mean", over="1h", by=["k", "k"]), "by"),
    "a function that is none": (lambda: Function(7, inputs=["x"]), "Function"),
    "a lambda, which has no name": (lambda: Function(lambda x: x, inputs=["x"]), "Function"),
    "a function of nothing": (lambda: Function(rule, inputs=[]), "Function.inputs"),
    "a function of one text": (lambda: Function(rule, inputs="x"), "Function.inputs"),
    "a holdout as long as the window": (lambda: Last("7d", holdout="1w"), "Last.holdout"),
    "a window that is no duration": (lambda: Last("a year"), "Last.window"),
    "a training on no rows": (lambda: Last("4w", min_rows=0), "Last.min_rows"),
    "a cron line of another language": (lambda: Cron("every day", timezone="UTC"), "Cron"),
    "a cron line without a timezone that exists": (lambda: Cron("0 3 * * *", timezone="Nowhere"), "timezone"),
    "a period that is none": (lambda: Every("often"), "Every.period"),
    "no new labels": (lambda: NewLabels(0), "NewLabels.count"),
    "a gate on an unknown metric": (lambda: Gate("beauty", max_loss=0.1), "Gate.metric"),
    "a gate that asks for nothing": (lambda: Gate("roc_auc"), "Gate"),
    "a gate that asks for both": (lambda: Gate("roc_auc", max_loss=0.1, min_gain=0.1), "Gate"),
    "a learner of no network": (lambda: Torch("flight_net"), "Torch.build"),
    "a learner of no epochs": (lambda: Torch("a:b", epochs=0), "Torch.epochs"),
    "a pipeline without a name": (lambda: pipeline(name=""), "Pipeline.name"),
    "a pipeline whose name is no topic's": (lambda: pipeline(name="Flight Delay"), "Pipeline.name"),
    "a pipeline of a topic's name": (lambda: pipeline(events="events"), "Pipeline.events"),
    "a pipeline of events without ids": (lambda: pipeline(events=SIDE), "Pipeline.events"),
    "a pipeline without features": (lambda: pipeline(features=[]), "Pipeline.features"),
    "a pipeline of field names": (lambda: pipeline(features=["x"]), "Pipeline.features"),
    "a pipeline without a label": (lambda: pipeline(label=None), "Pipeline.label"),
    "a learner that does not train": (lambda: pipeline(learner="flight_net:build"), "Pipeline.learner"),
    "a gate that does not judge": (lambda: pipeline(gate="roc_auc"), "Pipeline.gate"),
    "a trigger that is never due": (lambda: pipeline(retrain=["0 3 * * *"]), "Pipeline.retrain"),
    "a window as text": (lambda: pipeline(train_on="52w"), "Pipeline.train_on"),
    "a future that is no duration": (lambda: pipeline(max_future="soon"), "Pipeline.max_future"),
    "one field read in two ways": (
        lambda: pipeline(features=[Number("x"), Datetime("x", parts=["hour"], timezone="UTC")]),
        "event field 'x'",
    ),
    "one column made by two features": (lambda: pipeline(features=[Number("x"), Category("x")]), "column 'x'"),
    "a function of a column that nobody makes": (
        lambda: pipeline(features=[Number("x"), Function(rule, inputs=["y"])]),
        "Function 'rule' inputs",
    ),
    "a baseline with fields of its own": (
        lambda: pipeline(baseline=Function(rule, inputs=[Number("y")])),
        "Pipeline.baseline inputs",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_declaration_fails_when_it_is_made_with_field_expectation_and_remedy(name):
    make, field = WRONG[name]
    assert field in refused(make).partition(": expected")[0]


def test_a_right_declaration_says_its_columns_fields_and_side_topics():
    declared = pipeline(
        features=[
            Number("x"),
            Category("kind", nullable=True),
            Lookup(SIDE, by="kind", fields=["v", "w"]),
            Aggregate(SIDE, "v", "count", over="2h", by=["kind", "place"]),
            Function(rule, inputs=["x"], name="ruled"),
        ],
        baseline=Function(rule, inputs=["x"]),
        retrain=[Always()],
    )
    assert [(column.name, column.kind, column.nullable) for column in declared.columns] == [
        ("x", "number", False),
        ("kind", "category", True),
        ("side_v_by_kind", "number", True),
        ("side_w_by_kind", "number", True),
        ("side_v_count_2h_by_kind_place", "number", False),
        ("ruled", "number", True),
    ]
    assert [(field.name, field.kind, field.required) for field in fields_of(declared.features)] == [
        ("x", "number", True),
        ("kind", "category", False),
        ("place", "entity", False),
    ]
    assert declared.side_topics == (SIDE,)
    assert declared.topic("dead-letters") == "clicks.dead-letters"


def test_a_feature_that_is_declared_twice_makes_one_column():
    assert len(columns_of([Number("x"), Number("x")])) == 1


def test_features_travel_as_json_and_keep_their_meaning():
    features = (
        Number("x", nullable=True),
        Datetime("at", parts=["hour"], timezone="UTC"),
        Tensor("v", shape=[2, 3]),
        Lookup(SIDE, by="k", fields=["v"], max_age="3h"),
        Aggregate(SIDE, "v", "mean", over="1h", by="k"),
    )
    assert from_json(to_json(features)) == features
    assert fingerprint(features) == fingerprint(from_json(to_json(features)))
    assert fingerprint(features) != fingerprint(features[:-1])


def test_a_function_travels_as_its_place_and_never_as_code():
    (back,) = from_json(to_json([Function(rule, inputs=["x"])]))
    assert (back.fn, back.name) == (f"{__name__}:rule", "rule")


@pytest.mark.parametrize(("text", "expected"), [("90s", 90_000), ("15m", 900_000), ("52w", 31_449_600_000)])
def test_durations_are_whole_numbers_of_one_unit(text, expected):
    assert milliseconds("x", text) == expected


# ── pipeline files ────────────────────────────────────────────────────────────────────────────────────────────────────

TWO = """
from headrace import Binary, Number, Pipeline, Topic
events, labels = Topic("e", id="id", time="at"), Topic("l", id="id", time="at")
label = Binary(labels, "y", within="1h", if_absent="drop")
one = Pipeline(name="one", events=events, features=[Number("x")], label=label)
two = Pipeline(name="two", events=events, features=[Number("x")], label=label)
"""


def test_a_file_means_all_its_pipelines_and_a_name_behind_a_colon_one(tmp_path):
    file = tmp_path / "two_pipelines.py"
    file.write_text(TWO)
    assert list(read_pipelines(str(file)).pipelines) == ["one", "two"]
    assert read_pipeline(f"{file}:two").name == "two"
    with pytest.raises(BadInput, match="several pipelines: add :one or :two"):
        read_pipeline(str(file))
    with pytest.raises(BadInput, match=r"named 'three'.*\['one', 'two'\]"):
        read_pipeline(f"{file}:three")


@pytest.mark.parametrize(
    ("text", "error"),
    [("", "none"), ("import nowhere", "ModuleNotFoundError"), ("def", "SyntaxError")],
)
def test_a_file_that_is_no_pipeline_file_says_why(tmp_path, text, error):
    file = tmp_path / f"no_pipeline_{error.lower()}.py"
    file.write_text(text)
    with pytest.raises(BadInput, match=error):
        read_pipeline(str(file))


def test_a_file_that_is_not_there_names_the_remedy():
    with pytest.raises(BadInput, match="headrace init"):
        read_pipeline("nowhere.py")


def test_a_wrong_declaration_in_a_file_comes_through_as_it_is(tmp_path):
    file = tmp_path / "wrong_pipeline.py"
    file.write_text('from headrace import Topic\nTopic("", time="at")\n')
    with pytest.raises(DeclarationError, match="Topic: expected a Kafka topic's name"):
        read_pipeline(str(file))
