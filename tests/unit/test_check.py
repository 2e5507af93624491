"""`headrace check`: what a sample of rows says about a pipeline before anything is published."""

import json
import random
import sys

import msgspec
import pytest
import torch

from headrace import (
    Aggregate,
    Anchor,
    Binary,
    Category,
    Checks,
    Last,
    Number,
    Pipeline,
    Regression,
    Tensor,
    Topic,
    Torch,
)
from headrace.infra.services.start.check import check
from headrace.models.protocols import Trained

START = 1_372_939_200_000  # 2013-07-04T12:00:00Z, Unix ms
MINUTE = 60_000  # ms
NOW = START + 10_000 * MINUTE
EVENTS = Topic("events", id="id", time="at")
LABELS = Topic("labels", id="id", time="at")
SIDE = Topic("side", time="at")


class Net(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.tables = torch.nn.ModuleList(torch.nn.Embedding(size, 4) for size in inputs.categories)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(inputs.numbers + 4 * len(inputs.categories), 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
        )

    def forward(self, numbers, categories, *_tensors):
        embedded = [table(categories[:, place]) for place, table in enumerate(self.tables)]
        return self.layers(torch.cat([numbers, *embedded], 1)).squeeze(1)


class Deaf(torch.nn.Module):
    """It looks at nothing."""

    def __init__(self, _inputs):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, numbers, _categories, *_tensors):
        return self.bias + 0 * numbers[:, 0]


class Wide(Deaf):
    def forward(self, numbers, _categories, *_tensors):
        return numbers


def pipeline(**fields):
    declared = {
        "name": "clicks",
        "events": EVENTS,
        "features": [Number("x"), Number("y", nullable=True), Category("kind")],
        "label": Binary(LABELS, "clicked", within="1h", if_absent="drop"),
        "learner": Torch(Net, lr=0.05),
        "train_on": Last("4w", holdout="1d"),
    }
    return Pipeline(**{**declared, **fields})


def rows(count=200, **fields):
    dice = random.Random(5)
    events, labels = [], []
    for number in range(count):
        x, at = dice.gauss(0, 1), START + number * MINUTE
        y = None if number % 4 == 0 else dice.random()
        event = {"id": f"e{number}", "at": at, "x": x, "y": y, "kind": dice.choice("abb"), **fields}
        events.append(json.dumps(event).encode())
        clicked = x + dice.gauss(0, 1) > 0
        labels.append(json.dumps({"id": f"e{number}", "at": at + MINUTE, "clicked": clicked}).encode())
    return events, labels


def texts(report, level):
    return [finding.text for finding in report.findings if finding.severity == level]


def test_a_healthy_sample_has_no_findings_and_its_batch_is_learnt_by_heart():
    report = check(pipeline(), *rows(), now_ms=NOW)
    assert report.findings == ()
    assert report.ok
    assert (report.events, report.decoded, report.rejected) == (200, 200, ())
    assert (report.first_event, report.last_event) == ("2013-07-04T12:00:00Z", "2013-07-04T15:19:00Z")
    assert (report.labels.rows, report.labels.joined, report.labels.matched) == (200, 200, 1.0)
    assert 0.3 < report.labels.mean < 0.7
    assert (report.shapes.numbers, report.shapes.categories) == (3, {"kind": 3})
    assert report.overfit.rows == 64
    assert report.overfit.last_loss < 0.1 < report.overfit.first_loss


def test_columns_are_described():
    number, nullable, category = check(pipeline(learner=None), rows()[0], now_ms=NOW).columns
    assert (number.name, number.kind, number.missing, number.distinct) == ("x", "number", 0.0, 200)
    assert number.minimum < number.mean < number.maximum
    assert nullable.missing == pytest.approx(0.25)
    assert (category.kind, category.distinct, [value for value, _ in category.top]) == ("category", 2, ["b", "a"])


def test_the_report_is_json_and_text_that_a_terminal_does_not_obey():
    events, labels = rows()
    report = check(pipeline(), [*events, b"[red]\x1b[2J{", None, b"{}"], labels, now_ms=NOW)
    assert msgspec.json.decode(msgspec.json.encode(report))["decoded"] == 200
    text = report.to_text()
    assert "\x1b" not in text
    for expected in ("200 of 203 events decode", "[red]", "tombstone", "labels: 200", "float32[n, 3]", "ONNX:"):
        assert expected in text


def test_rejected_rows_are_counted_by_topic_and_reason_with_an_example():
    events, labels = rows()
    report = check(pipeline(learner=None), [*events, b"{", b"[", b"{}"], [*labels, b"{}"], now_ms=NOW)
    assert [(found.topic, found.reason, found.count) for found in report.rejected] == [
        ("events", "not_json", 1),
        ("events", "wrong_shape", 2),
        ("labels", "wrong_shape", 1),
    ]
    assert report.rejected[0].example == "{"
    assert texts(report, "warning") == ["3 of 203 events would end as dead letters."]


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"y": None}, "column 'y' is missing in every row"),
        ({"x": 3}, "column 'x' has one value only"),
        ({"kind": "a"}, "column 'kind' has one value only"),
        ({"id": "same"}, "199 event ids are there again, 'same'"),
    ],
)
def test_columns_that_say_nothing_and_ids_that_are_not_unique_are_found(fields, warning):
    (found,) = texts(check(pipeline(learner=None), rows(**fields)[0], now_ms=NOW), "warning")
    assert warning in found


def test_the_checks_of_a_training_are_those_of_the_sample_and_so_is_what_they_make_an_error():
    events, _ = rows()
    labels = [json.dumps({**json.loads(event), "clicked": json.loads(event)["x"] > 0}).encode() for event in events]
    declared = pipeline(checks=Checks(errors=["leakage"], own=["test_check:few"]), anchor=Anchor(rows=5_000))
    report = check(declared, events, labels, now_ms=NOW)
    assert [(found.name, found.severity) for found in report.findings] == [("leakage", "error"), ("few", "warning")]
    assert report.findings[1].text == "200 rows are few."
    assert not report.ok
    assert check(pipeline(checks=Checks(off=["leakage"])), events, labels, now_ms=NOW).findings == ()


def few(train, _holdout):
    return f"{len(train)} rows are few."


def test_a_category_that_identifies_rows_is_found():
    declared = pipeline(features=[Category("place")], learner=None)
    events = [json.dumps({**json.loads(event), "place": place}).encode() for place, event in enumerate(rows()[0])]
    assert "looks like an id" in texts(check(declared, events, now_ms=NOW), "warning")[0]


def test_a_number_that_was_measured_after_the_label_is_found():
    events, _ = rows()
    labels = [json.dumps({**json.loads(event), "clicked": json.loads(event)["x"] > 0}).encode() for event in events]
    assert "column 'x' alone knows the label" in texts(check(pipeline(), events, labels, now_ms=NOW), "warning")[0]


@pytest.mark.parametrize(
    ("label", "error"),
    [
        ({"id": "E1"}, "no label has the id of an event: events have 'e0', labels 'E1'"),
        ({"at": START - 1}, "no label lies within its event's horizon: 200 come before their event, 0 after"),
        ({"at": START + 2_000 * MINUTE}, "no label lies within its event's horizon: 0 come before their event, 200"),
        ({"clicked": False}, "every label is 0"),
        ({"clicked": True}, "every label is 1"),
        ({"clicked": "yes"}, "no label of the sample decodes"),
    ],
)
def test_labels_that_teach_nothing_are_errors(label, error):
    events, labels = rows()
    labels = [json.dumps({**json.loads(row), **label}).encode() for row in labels]
    report = check(pipeline(learner=None), events, labels, now_ms=NOW)
    assert not report.ok
    assert error in texts(report, "error")[0]


def test_no_event_that_decodes_is_an_error():
    assert texts(check(pipeline(), [], []), "error")[0].startswith("there is no event")
    assert "none of 1 events decodes" in texts(check(pipeline(), [b"{}"], []), "error")[0]


def test_events_older_than_the_window_are_pointed_to_backfill():
    late = NOW + 365 * 24 * 60 * MINUTE
    assert "use backfill" in texts(check(pipeline(learner=None), *rows(), now_ms=late), "note")[0]


def test_a_side_topic_that_was_not_given_is_said_and_one_that_was_is_used():
    declared = pipeline(features=[Number("x"), Aggregate(SIDE, "v", "mean", over="1h", by="kind")], learner=None)
    events, _ = rows()
    assert "'side'" in texts(check(declared, events, now_ms=NOW), "note")[0]
    side = [
        json.dumps({"at": START - MINUTE + n * 600_000, "kind": k, "v": n}).encode() for n in range(20) for k in "ab"
    ]
    report = check(declared, events, side_rows={"side": side}, now_ms=NOW)
    assert report.findings == ()
    assert report.side_rows == {"side": 40}
    assert report.columns[1].missing == 0


def test_a_network_that_cannot_learn_a_batch_is_found():
    report = check(pipeline(learner=Torch(Deaf)), *rows(), now_ms=NOW)
    assert "does not learn one batch by heart" in texts(report, "warning")[0]


def test_a_network_of_the_wrong_shape_is_an_error_with_the_shapes():
    report = check(pipeline(learner=Torch(Wide)), *rows(), now_ms=NOW)
    assert "expected one value per row, (64,)" in texts(report, "error")[0]
    assert report.overfit is None


def test_a_network_that_cannot_be_imported_is_an_error():
    report = check(pipeline(learner=Torch("nowhere_net:build")), *rows(), now_ms=NOW)
    assert "nowhere_net" in texts(report, "error")[0]


def test_another_learner_is_not_overfitted_and_that_is_said():
    class Mine:
        def train(self, _dataset, _context):
            return Trained(onnx=b"", hyperparameters={})

    report = check(pipeline(learner=Mine()), *rows(), now_ms=NOW)
    assert (report.overfit, report.skipped) == (None, "Mine is not a Torch learner.")
    assert check(pipeline(learner=None), *rows(), now_ms=NOW).skipped == "the pipeline has no learner."
    assert check(pipeline(), rows()[0], now_ms=NOW).skipped == "no labels in the sample."


def test_without_torch_everything_else_is_checked(monkeypatch):
    monkeypatch.setitem(sys.modules, "headrace.trainer.torch_training", None)
    monkeypatch.delitem(sys.modules, "headrace.trainer.torch_training")
    monkeypatch.setitem(sys.modules, "torch", None)
    report = check(pipeline(), *rows(), now_ms=NOW)
    assert report.skipped == "Torch needs torch where it trains. Run: pip install 'headrace[train]'"
    assert report.ok


def test_a_regression_and_a_tensor_go_the_same_way():
    declared = pipeline(
        features=[Number("x"), Tensor("v", shape=[2])],
        label=Regression(LABELS, "clicked", within="1h", if_absent="drop"),
    )
    report = check(declared, *rows(v=[0.5, 2]), now_ms=NOW)
    assert report.ok
    assert report.shapes.tensors == {"v": (2,)}
    assert "v float32[n, 2]" in report.to_text()
    assert report.overfit.last_loss < report.overfit.first_loss
