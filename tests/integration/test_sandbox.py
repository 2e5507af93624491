"""Graphs that loop, hog, crash and lie, in real processes: the worker's own goes on, and the next good one passes."""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic

import hostile
import numpy as np
import onnx
import psutil
import pytest
from kit import linear, wait_for
from onnx import helper

from headrace.infra import sandbox as sandboxes
from headrace.infra.sandbox import Sandbox
from headrace.models.errors import RegistryRefused
from headrace.models.features import Column
from headrace.models.schema import CATEGORIES, NUMBERS, PREDICTION, Schema

SCHEMA = Schema((Column("distance", "number"), Column("wind", "number", nullable=True)))
ROWS = {"distance": np.array([1.0, 2.0]), "wind": np.array([np.nan, 0.5])}
GOOD = linear([0.0, 0.0], bias=1.0)
FOR_EVER = {"operators": ["Loop"]}


@pytest.fixture
def sandbox():
    with Sandbox(memory_mb=256, seconds=60.0) as made:
        yield made


def good(sandbox):
    columns = {"distance": np.array([1.0, 2.0]), "wind": np.array([3.0, 4.0])}
    return sandbox.prove(GOOD, SCHEMA, columns, 2)


def refused(sandbox, onnx, **more):
    with pytest.raises(RegistryRefused) as error:
        sandbox.prove(onnx, SCHEMA, ROWS, 2, **more)
    return error.value


def children(sandbox):
    return psutil.Process(sandbox._process.pid).children(recursive=True)


def test_a_good_graph_answers_its_scores(sandbox):
    assert good(sandbox) == pytest.approx([0.731, 0.731], abs=1e-3)


def every_kind():
    """number + what the category stands for + the sum of the tensor."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            [CATEGORIES],
            ["labels"],
            domain="ai.onnx.ml",
            keys_strings=["", "é"],
            values_floats=[10.0, 20.0],
            default_float=30.0,
        ),
        helper.make_node("ReduceSum", ["image", "inner"], ["bright"], keepdims=0),
        helper.make_node("Reshape", ["labels", "flat"], ["label"]),
        helper.make_node("Reshape", [NUMBERS, "flat"], ["number"]),
        helper.make_node("Sum", ["number", "label", "bright"], [PREDICTION]),
    ]
    float_, text = hostile.FLOAT, onnx.TensorProto.STRING
    inputs = [(NUMBERS, float_, ["n", 1]), (CATEGORIES, text, ["n", 1]), ("image", float_, ["n", 2, 3])]
    graph = helper.make_graph(
        nodes,
        "every kind",
        [helper.make_tensor_value_info(*given) for given in inputs],
        [helper.make_tensor_value_info(PREDICTION, float_, ["n"])],
        [hostile.constant("inner", [1, 2]), hostile.constant("flat", [-1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return hostile.data(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def test_numbers_categories_and_tensors_arrive_as_they_are(sandbox):
    carrier, image = Column("carrier", "category", nullable=True), Column("image", "tensor", shape=(2, 3))
    schema = Schema((carrier, Column("distance", "number"), image))
    columns = {
        "distance": np.array([1.0, 2.0, 3.0]),
        "carrier": np.array([None, "é", "unseen"], object),
        "image": np.arange(18, dtype=np.float32).reshape(3, 2, 3) * 100,
        "another": np.array([0.0, 0.0, 0.0]),
    }
    assert sandbox.prove(every_kind(), schema, columns, 3).tolist() == [1511.0, 5122.0, 8733.0]


ENDINGS = {
    "memory without an end": (hostile.many_large(), "memory"),
    "an external tensor": (hostile.external_initializer(), "external_data"),
    "a graph that shape inference cannot hold": (hostile.rows_times_rows(), "shape_budget"),
    "nonsense": (b"nonsense", "not_onnx"),
    "other inputs": (linear([1.0, 1.0, 1.0]), "wrong_inputs"),
    "one row only": (linear([0.0, 0.0], rows=1), "raised"),
    "NaN": (linear([0.0, 0.0], bias=float("nan")), "not_finite"),
}


@pytest.mark.parametrize("what", ENDINGS)
def test_a_hostile_graph_is_refused_by_name_and_the_next_good_one_passes(sandbox, what):
    onnx, reason = ENDINGS[what]
    error = refused(sandbox, onnx)
    assert error.reason == reason, error
    assert good(sandbox) == pytest.approx([0.731, 0.731], abs=1e-3)


def test_a_graph_that_is_larger_than_the_sandbox_is_not_even_sent(sandbox):
    assert refused(sandbox, bytes(257 << 20)).reason == "too_large"


def test_a_loop_without_an_end_is_ended_in_its_time():
    with Sandbox(seconds=1.0) as sandbox:
        begun = monotonic()
        assert refused(sandbox, hostile.endless_loop(), **FOR_EVER).reason == "timeout"
        assert monotonic() - begun < sandboxes._START_SECONDS  # its own time, not the one that we wait for a dead one
        assert good(sandbox) == pytest.approx([0.731, 0.731], abs=1e-3)


def test_what_takes_the_sandbox_s_memory_takes_none_of_ours(sandbox):
    good(sandbox)
    before = psutil.Process().memory_info().rss
    for _ in range(3):
        assert refused(sandbox, hostile.many_large()).reason == "memory"
    assert psutil.Process().memory_info().rss - before < 32 << 20


def busy(sandbox):
    """The child in which a loop runs."""
    for child in children(sandbox):
        with suppress(psutil.NoSuchProcess):
            if child.cpu_times().user > 0.3:
                return child
    return None


def test_a_graph_that_kills_its_process_is_refused_and_its_sandbox_is_not_used_again():
    with Sandbox(seconds=60.0) as sandbox:
        good(sandbox)
        first = sandbox._process.pid
        killer = threading.Thread(target=lambda: wait_for("work", lambda: busy(sandbox)).kill())
        killer.start()
        error = refused(sandbox, hostile.endless_loop(), **FOR_EVER)
        killer.join()
        assert (error.reason, "SIGKILL" in error.detail) == ("crashed", True)
        assert sandbox._process.pid != first
        assert good(sandbox) == pytest.approx([0.731, 0.731], abs=1e-3)


def test_a_sandbox_that_dies_between_two_versions_is_replaced(sandbox):
    good(sandbox)
    for _ in range(3):
        os.kill(sandbox._process.pid, signal.SIGKILL)
        assert good(sandbox) == pytest.approx([0.731, 0.731], abs=1e-3)


def test_many_versions_leave_no_process_and_no_descriptor_behind(sandbox):
    good(sandbox)
    server = psutil.Process(sandbox._process.pid)
    ours, theirs = psutil.Process().num_fds(), server.num_fds()
    for round_ in range(60):
        good(sandbox)
        if round_ % 3 == 0:
            assert refused(sandbox, b"nonsense").reason == "not_onnx"
    wait_for("one child that waits", lambda: len(children(sandbox)) == 1)
    assert psutil.Process().num_fds() == ours
    assert abs(server.num_fds() - theirs) <= 1  # the socket of the child that waits
    assert server.pid == sandbox._process.pid


def test_replacing_it_leaves_no_process_and_no_descriptor_behind(sandbox):
    good(sandbox)
    ours = psutil.Process().num_fds()
    known = [psutil.Process(sandbox._process.pid), *children(sandbox)]
    for _ in range(5):
        assert refused(sandbox, hostile.many_large()).reason == "memory"
        known += [psutil.Process(sandbox._process.pid)]
    good(sandbox)
    assert psutil.Process().num_fds() == ours
    wait_for("the others to be gone", lambda: sum(process.is_running() for process in known) == 1)


def test_close_ends_what_is_being_tried_and_every_process():
    ended = []
    with Sandbox(seconds=60.0) as sandbox:
        good(sandbox)
        trying = threading.Thread(target=lambda: ended.append(refused(sandbox, hostile.endless_loop(), **FOR_EVER)))
        trying.start()
        processes = [wait_for("work", lambda: busy(sandbox)), psutil.Process(sandbox._process.pid)]
    trying.join(30)
    assert [error.reason for error in ended] == ["sandbox"]
    wait_for("them to be gone", lambda: not any(process.is_running() for process in processes))


def test_it_has_no_secrets_no_files_and_no_sockets_of_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD", "canary")
    monkeypatch.setenv("REDIS_URL", "redis://:canary@localhost")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(np.array([7.0], np.float32).tobytes())
    with (tmp_path / "secret.bin").open("rb"), Sandbox() as sandbox:
        good(sandbox)
        gone = {child.pid for child in children(sandbox)}  # what has answered is on its way out
        (child,) = wait_for("the next", lambda: [one for one in children(sandbox) if one.pid not in gone])
        for process in (psutil.Process(sandbox._process.pid), child):
            place = Path(f"/proc/{process.pid}")
            assert b"canary" not in (place / "environ").read_bytes()
            assert (place / "cwd").readlink().name.endswith("(deleted)")
            # descriptor 2 is standard error, which a child has not
            opened = {file.readlink().as_posix().split(":")[0] for file in (place / "fd").iterdir() if file.name != "2"}
            assert opened <= {"/dev/null", "socket", "pipe"}
            assert not process.net_connections("inet")
        wait_for("limits", lambda: "Max file size             0  " in (place / "limits").read_text())


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("speaks nonsense", "sandbox"),
        ("speaks at length", "sandbox"),
        ("is silent", "crashed"),
        ("hands on nonsense", "crashed"),
        ("hands on something else", "crashed"),
        ("sends too many scores", "wrong_shape"),
        ("sends half a score", "wrong_shape"),
        ("sends NaN", "not_finite"),
    ],
)
def test_a_process_that_was_taken_over_can_say_what_it_wants(monkeypatch, what, reason):
    monkeypatch.setattr(sandboxes, "_SERVER", "misbehaving")
    with Sandbox(seconds=5.0) as sandbox:
        before = psutil.Process().memory_info().rss
        assert refused(sandbox, what.encode()).reason == reason
        assert sandbox.prove(b"is good", SCHEMA, ROWS, 2).tolist() == [0.5, 0.5]
        assert psutil.Process().memory_info().rss - before < 32 << 20


def test_a_sandbox_that_cannot_start_is_a_refusal(monkeypatch):
    monkeypatch.setattr(sandboxes, "_SERVER", "headrace.no_such_module")
    with Sandbox() as sandbox:
        assert refused(sandbox, GOOD).reason == "sandbox"
