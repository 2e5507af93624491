"""What a second training is compared by: the graph's bytes, else its scores, metrics and rows."""

import pytest
from kit import manifest
from msgspec.structs import replace
from test_artifact_gc import needed

from headrace.infra.services.runs.reproduce import compared
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.trainer.messages import RunResult

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
)
MANIFEST = replace(
    manifest(PIPELINE, 3, needed(0, 1).blob, dataset_sha256="rows"),
    parent=2,
    rows=90,
    holdout_rows=10,
    metrics={"roc_auc": 0.75},
    libraries={"torch": "2.6", "numpy": "2.4"},
)
RESULT = RunResult(
    promote=True,
    verdict="",
    numbers={},
    metrics={"roc_auc": 0.75},
    champion_metrics={},
    task="binary",
    rows=90,
    holdout_rows=10,
    trained_from="",
    trained_through="",
    dataset_sha256="rows",
    counts={},
    lacking={},
    null_shares={},
    hyperparameters={},
    curves={},
    libraries={"torch": "2.7", "numpy": "2.4", "onnx": "1.21"},
    platform="Linux",
    seconds={},
    onnx_bytes=1,
    max_difference=1e-8,
)


def test_the_same_bytes_are_equal_whatever_else_differs():
    found = compared(MANIFEST, replace(RESULT, metrics={}, dataset_sha256="others"), MANIFEST.onnx.sha256)
    assert (found.equal, found.reason) == (True, "the same graph, to the bit")


def test_another_graph_with_the_same_scores_is_equal_and_names_the_libraries_that_differ():
    found = compared(MANIFEST, RESULT, "another")
    assert found.equal
    assert "none differs by more than 1e-08" in found.reason
    assert found.libraries == {"torch": ("2.6", "2.7"), "onnx": ("none", "1.21")}
    assert (found.rows, found.parent) == ((90, 90), 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_difference": 0.25}, "the same rows gave another model: scores differ by up to 0.25"),
        ({"max_difference": None}, "the same rows gave another model: scores differ by up to inf"),
        ({"metrics": {"roc_auc": 0.7}}, "the same rows gave another model"),
        ({"metrics": {}}, "the same rows gave another model"),
        ({"dataset_sha256": "others"}, "the rows are not those that it was trained on"),
    ],
)
def test_what_differs_is_said(change, reason):
    found = compared(MANIFEST, replace(RESULT, **change), "another", ("a remark",))
    assert not found.equal
    assert found.reason.startswith(reason)
    assert found.remarks == ("a remark",)
