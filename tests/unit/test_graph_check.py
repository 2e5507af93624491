"""What can be told of a graph without running it: hostile ones by name, and every kind of ours passes."""

import hostile
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit import hanging, linear
from onnx import TensorProto, helper

from headrace.infra.bench.graphs import Chain
from headrace.models import graph_check
from headrace.models.errors import RegistryRefused
from headrace.models.features import Column
from headrace.models.graph_check import check
from headrace.models.schema import NUMBERS, Schema
from headrace.trainer.encoding import fit
from headrace.trainer.export import export
from headrace.trainer.head import Head

GOOD = linear([0.5, -0.5], bias=1.0)
NAN, INF = float("nan"), float("inf")


def unknown_field() -> bytes:
    """A field that a newer ONNX may have and ours passes over: 999, two bytes."""
    made = onnx.load_from_string(GOOD)
    return made.SerializeToString() + b"\xba\x3e\x02hi"


def changed_tensor(**fields) -> bytes:
    made = onnx.load_from_string(GOOD)
    for name, value in fields.items():
        target = getattr(made.graph.initializer[0], name)
        if name == "dims":
            target[:] = value
        else:
            setattr(made.graph.initializer[0], name, value)
    return made.SerializeToString()


def out_of_order() -> bytes:
    made = onnx.load_from_string(GOOD)
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))
    return made.SerializeToString()


REFUSED = {
    "no bytes": (b"", "not_onnx"),
    "text": (b"<html><body>404</body></html>", "not_onnx"),
    "half a graph": (GOOD[: len(GOOD) // 2], "not_onnx"),
    "a graph without nodes": (onnx.ModelProto(ir_version=9).SerializeToString(), "not_onnx"),
    "a field that is not known here": (unknown_field(), "not_onnx"),
    "a tensor larger than its bytes": (changed_tensor(dims=[1 << 40]), "not_onnx"),
    "a tensor of a negative size": (changed_tensor(dims=[-2, -1]), "not_onnx"),
    "a tensor of complex numbers": (changed_tensor(data_type=TensorProto.COMPLEX64), "not_onnx"),
    "nodes out of order": (out_of_order(), "not_onnx"),
    "an initializer in a file": (hostile.external_initializer(), "external_data"),
    "a node's attribute in a file": (hostile.external_attribute(), "external_data"),
    "a tensor of a branch in a file": (hostile.external_in_a_branch(), "external_data"),
    "a function's tensor in a file": (hostile.external_in_a_function(), "external_data"),
    "a sparse initializer in a file": (hostile.external_in_a_sparse_initializer(), "external_data"),
    "a sparse initializer's places in a file": (hostile.external_in_sparse_indices(), "external_data"),
    "an operator of another domain": (hostile.custom_domain(), "operator"),
    "a function of its own": (hostile.own_function(), "operator"),
    "random numbers": (hostile.random_numbers(), "operator"),
    "a loop without an end": (hostile.endless_loop(), "operator"),
    "16 GB by ConstantOfShape": (hostile.giant_constant(), "shape_budget"),
    "4 GB by Tile": (hostile.giant_tile(), "shape_budget"),
    "4 GB by Range": (hostile.giant_range(), "shape_budget"),
    "rows by rows by rows by rows": (hostile.rows_times_rows(), "shape_budget"),
    "as many zeros as an event says": (hostile.sized_by_the_event("ConstantOfShape"), "shape_budget"),
    "as many tiles as an event says": (hostile.sized_by_the_event("Tile"), "shape_budget"),
    "as wide as an event says": (hostile.sized_by_the_event("Expand"), "shape_budget"),
    "graphs in graphs": (hostile.nested(12), "too_deep"),
    "graphs in graphs, deeper than parsers go": (hostile.nested_without_end(), "not_onnx"),
    "10,001 nodes": (hostile.many_nodes(10_001), "too_many_nodes"),
    "a weight that is NaN": (hostile.weighted([NAN, 1.0]), "not_finite_weights"),
    "a weight that is infinite": (hostile.weighted([INF, 1.0]), "not_finite_weights"),
    "a weight that is -infinite": (hostile.weighted([-INF, 1.0]), "not_finite_weights"),
    "a coefficient that is NaN": (hostile.linear_regressor([NAN, 1.0]), "not_finite_weights"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_graph_is_refused_by_name(what):
    data, reason = REFUSED[what]
    with pytest.raises(RegistryRefused) as refused:
        check(data)
    assert refused.value.reason == reason, refused.value
    assert refused.value.detail


def test_more_bytes_than_a_model_has_are_refused_before_they_are_parsed(monkeypatch):
    monkeypatch.setattr(graph_check, "MAX_BYTES", len(GOOD) - 1)
    with pytest.raises(RegistryRefused, match="too_large"):
        check(GOOD)


@pytest.mark.parametrize("data", [hostile.endless_loop(), hanging(), hostile.nested(3)])
def test_control_flow_passes_where_the_pipeline_names_it_and_then_its_sizes_are_to_be_tried(data):
    with pytest.raises(RegistryRefused, match=r"Pipeline\(operators="):
        check(data)
    assert not check(data, ["Loop", "If"]).sizes_known


def test_an_operator_of_another_domain_cannot_be_named_by_a_pipeline():
    with pytest.raises(RegistryRefused, match="operator"):
        check(hostile.custom_domain(), ["Open", "evil:Open"])


def test_a_size_from_an_event_is_refused_also_inside_of_control_flow():
    inner = onnx.load_from_string(hostile.sized_by_the_event()).graph
    nodes = [node for node in inner.node if node.output[0] in ("most", "whole", "size", "giant")]
    nodes.append(hostile.summed("giant", "x"))
    branch = helper.make_graph(
        nodes,
        "branch",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [constant for constant in inner.initializer if constant.name == "flat"],
    )
    node = helper.make_node("If", ["yes"], ["extra"], then_branch=branch, else_branch=branch)
    with pytest.raises(RegistryRefused, match="depends on input values"):
        check(hostile.data(hostile.model([node], [hostile.constant("yes", True)])), ["If"])


# ── what has to pass ──────────────────────────────────────────────────────────────────────────────────────────────────


class Net(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.embeddings = torch.nn.ModuleList(torch.nn.Embedding(size, 4) for size in inputs.categories)
        self.norm = torch.nn.BatchNorm1d(inputs.numbers) if inputs.numbers else torch.nn.Identity()
        width = inputs.numbers + 4 * len(inputs.categories) + sum(int(np.prod(shape)) for shape in inputs.tensors)
        self.body = torch.nn.Sequential(torch.nn.Linear(width, 16), torch.nn.GELU(), torch.nn.LayerNorm(16))
        self.last = torch.nn.Linear(16, 1)

    def forward(self, numbers, categories, *tensors):
        embedded = [embedding(categories[:, place]) for place, embedding in enumerate(self.embeddings)]
        flat = [tensor.flatten(1) for tensor in tensors]
        return self.last(self.body(torch.cat([self.norm(numbers), *embedded, *flat], 1))).squeeze(1)


NUMBER, NULLABLE = Column("distance", "number"), Column("wind", "number", nullable=True)
CATEGORY, IMAGE = Column("carrier", "category", nullable=True), Column("image", "tensor", shape=(2, 3))
COLUMNS = {
    "distance": np.array([1.0, 2.0, 3e38, 5.0]),
    "wind": np.array([np.nan, 1.0, 2.0, np.nan]),
    "carrier": np.array(["UA", None, "é", "AA"], object),
    "image": np.ones((4, 2, 3), np.float32),
}


@pytest.mark.parametrize("columns", [(NUMBER, NULLABLE, CATEGORY, IMAGE), (NUMBER,), (CATEGORY,), (IMAGE,)])
def test_what_training_exports_passes_and_its_sizes_are_known(columns, tmp_path):
    encoder = fit(COLUMNS, Schema(columns))
    sample = {column.name: COLUMNS[column.name] for column in columns}
    data = export(Net(encoder.inputs), encoder, Head(task="binary"), sample, tmp_path)
    assert check(data).sizes_known
    head = Head(task="regression", center=2.0, spread=3.0)
    assert check(export(Net(encoder.inputs), encoder, head, sample, tmp_path)).sizes_known


def test_networks_on_images_and_wide_ones_pass():
    image = Chain("image", [3, 224, 224], 0)
    image.convolution(3, 32, 2)
    image.relu()
    image.pooled()
    image.dense(32, 1)
    assert check(image.finished()).sizes_known
    wide = Chain(NUMBERS, [64], 0)
    wide.dense(64, 450)
    wide.dense(450, 1)
    assert check(wide.finished()).sizes_known


@pytest.mark.parametrize("values", [[0.0, -INF], [-INF, -INF], [3e38, -3e38], [0.0, 0.0]])
def test_masks_and_large_weights_are_not_broken(values):
    check(hostile.weighted(values, "Add"))


def test_a_single_value_that_stands_for_missing_is_no_weight():
    nodes = [helper.make_node("Where", ["missing", "nan", "headrace_logits"], ["extra"])]
    flag = helper.make_node("IsNaN", ["headrace_logits"], ["missing"])
    check(hostile.data(hostile.model([flag, *nodes], [hostile.constant("nan", np.float32(NAN))])))


def test_trees_and_imputers_with_their_marks_for_missing_values_pass():
    imputer = helper.make_node(
        "Imputer", [NUMBERS], ["filled"], domain="ai.onnx.ml", imputed_value_floats=[0.0, 1.0], replaced_value_float=NAN
    )
    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["filled"],
        ["answers"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_falsenodeids=[2, 0, 0],
        nodes_featureids=[0, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_nodeids=[0, 1, 2],
        nodes_treeids=[0, 0, 0],
        nodes_truenodeids=[1, 0, 0],
        nodes_values=[INF, 0.0, 0.0],
        post_transform="NONE",
        target_ids=[0, 0],
        target_nodeids=[1, 2],
        target_treeids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    nodes = [imputer, tree, helper.make_node("Reshape", ["answers", "flat"], ["extra"])]
    check(hostile.data(hostile.model(nodes, [hostile.constant("flat", [-1])])))


def test_sizes_that_follow_the_rows_pass():
    """What torch writes for `x.expand(len(x), …)`: sizes from the shape of an input, not from its values."""
    nodes = [
        helper.make_node("Shape", ["headrace_logits"], ["rows"]),
        helper.make_node("ConstantOfShape", ["rows"], ["zeros"]),
        helper.make_node("Expand", ["one", "rows"], ["ones"]),
        helper.make_node("Add", ["zeros", "ones"], ["extra"]),
    ]
    assert check(hostile.data(hostile.model(nodes, [hostile.constant("one", np.ones(1, np.float32))]))).sizes_known


# ── any bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=300))
def test_any_bytes_are_a_graph_or_a_refusal(data):
    try_(data)


@given(st.data())
def test_a_graph_with_any_bytes_changed_is_a_graph_or_a_refusal(data):
    source = data.draw(st.sampled_from([GOOD, hanging(), hostile.linear_regressor([1.0, 2.0])]))
    changed = bytearray(source)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try_(bytes(changed), ["Loop"])


def try_(data, operators=()):
    try:
        check(data, operators)
    except RegistryRefused as refused:
        assert refused.detail  # noqa: PT017  a graph is as good an outcome
