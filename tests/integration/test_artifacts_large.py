"""a model of 60 MB → the leader's transaction → chunks → a worker's session; larger ones by way of an object store."""

import hashlib
import threading
from contextlib import closing

import msgspec
import numpy as np
import psutil
import pytest
from confluent_kafka import TopicPartition
from kit import Facts, manifest, produce, read_all
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from test_leader import NOON, PIPELINE, ask, leading, schedulers, serve_and_label  # noqa: F401  a fixture
from test_source import worker_of

from headrace.infra.artifacts import CHUNK, MB, Artifacts, put
from headrace.infra.kafka import admin
from headrace.infra.leadership import KafkaRegistry
from headrace.infra.names import ARTIFACTS, REGISTRY
from headrace.infra.object_store import ObjectStore
from headrace.infra.topics import apply
from headrace.models import registry
from headrace.models.errors import RegistryRefused
from headrace.models.facts import RunEnded, Swapped
from headrace.models.records import Promoted, Published, Relocated
from headrace.models.session import NUMBERS, PREDICTION, Session

LARGE_MB = 60


def large(megabytes=LARGE_MB):
    """A network of two inputs whose weights take so many MB."""
    width, random = 1_024, np.random.default_rng(5)
    layers = megabytes * MB // (width * width * 4)
    constants = [
        numpy_helper.from_array(random.normal(0, 1, (2, width)).astype(np.float32), "into"),
        numpy_helper.from_array(random.normal(0, 0.1, (width, 1)).astype(np.float32), "out"),
        numpy_helper.from_array(np.array([-1], np.int64), "shape"),
    ]
    nodes = [helper.make_node("MatMul", [NUMBERS, "into"], ["h0"])]
    for number in range(layers):
        weights = random.normal(0, width**-0.5, (width, width)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"h{number}", f"w{number}"], [f"h{number + 1}"]))
    nodes += [
        helper.make_node("MatMul", [f"h{layers}", "out"], ["product"]),
        helper.make_node("Reshape", ["product", "shape"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], [PREDICTION]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info(NUMBERS, TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info(PREDICTION, TensorProto.FLOAT, ["n"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


@pytest.fixture(scope="module")
def graph():
    data = large()
    assert len(data) > LARGE_MB * MB * 0.95
    return data


def published(settings):
    records = [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))]
    return [record for record in records if isinstance(record, Published)]


def test_a_model_of_60_mb_goes_from_the_leader_to_a_session_by_way_of_kafka(settings, schedulers, graph):  # noqa: F811
    scheduler = schedulers()
    scheduler.until("it to lead", lambda: scheduler.log.leads)
    before = psutil.Process().memory_info().rss
    scheduler.writer.publish(
        graph,
        lambda blob: manifest(PIPELINE, 1, blob),
        lambda place: [
            Published(pipeline="delay", seq=1, at="", by="test", version=1, manifest=place),
            Promoted(pipeline="delay", seq=2, at="", by="test", version=1),
        ],
    )
    held = psutil.Process().memory_info().rss - before
    assert held < 1.5 * len(graph), "the client holds some chunks, not a copy of all"
    (record,) = published(settings)
    with closing(KafkaRegistry(settings)) as reader:
        found = reader.manifest(record.manifest)
    assert found.onnx.chunks == -(-len(graph) // CHUNK)
    with closing(Artifacts(settings)) as artifacts:
        data = artifacts.read(found.onnx)
    assert data == graph
    columns = {"distance": np.array([0.1, 0.2]), "wind": np.array([1.0, 2.0])}
    here, there = Session(graph, PIPELINE.schema), Session(data, PIPELINE.schema)
    assert np.array_equal(here.predict(columns, 2), there.predict(columns, 2))
    facts = Facts()
    with worker_of(settings, PIPELINE, facts):
        facts.wait(Swapped, lambda fact: fact.version == 1)


def test_two_artifacts_whose_chunks_lie_between_each_other_are_both_whole(settings, graph):
    apply(settings, PIPELINE)
    other = graph[::-1]
    blobs = {}
    threads = [
        threading.Thread(target=lambda name=name, data=data: blobs.update({name: put(settings, data)}))
        for name, data in (("one", graph[: 20 * MB]), ("two", other[: 20 * MB]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(Artifacts(settings)) as artifacts:
        assert artifacts.read(blobs["one"]) == graph[: 20 * MB]
        assert artifacts.read(blobs["two"]) == other[: 20 * MB]


def test_a_chunk_that_was_changed_on_its_way_is_refused(settings):
    apply(settings, PIPELINE)
    blob = put(settings, b"a" * (CHUNK + 5))
    key = f"{blob.sha256}/1".encode()
    produce(settings, settings.prefixed(ARTIFACTS), [{"value": b"b" * 5, "key": key}, {"value": b"b", "key": key}])
    with closing(Artifacts(settings)) as artifacts:
        assert artifacts.read(blob) == b"a" * (CHUNK + 5)
        with pytest.raises(RegistryRefused, match="missing_chunks"):
            artifacts.read(replace(blob, offset=blob.offset + 1))
        with pytest.raises(RegistryRefused, match="bad_hash"):
            artifacts.read(replace(blob, size=blob.size + 1))


def test_what_was_moved_is_found_where_it_is_now(settings):
    apply(settings, PIPELINE)
    old = put(settings, b"graph" * CHUNK)
    new = put(settings, b"graph" * CHUNK)
    wrong = replace(new, size=3)
    for blobs in ((replace(new, offset=0, chunks=7), wrong), (new,)):
        record = Relocated(pipeline="", seq=0, at="", by="test", blobs=blobs)
        produce(settings, settings.prefixed(REGISTRY), [{"value": msgspec.json.encode(record)}])
    client = admin(settings)
    place = TopicPartition(settings.prefixed(ARTIFACTS), 0, new.offset)
    client.delete_records([place])[place].result(30)
    with closing(Artifacts(settings)) as artifacts:
        assert artifacts.read(old) == b"graph" * CHUNK
        with pytest.raises(RegistryRefused, match="missing_chunks"):
            artifacts.read(replace(old, sha256="0" * 64))


def test_a_training_publishes_through_an_object_store_and_a_worker_reads_it_there(settings, tmp_path):
    """The limit is below every model; sources and manifests stay on the topic with it or not, as they are small."""
    stored = settings.model_copy(update={"artifact_kafka_limit_mb": 0, "artifact_store": f"file://{tmp_path}/store"})
    apply(stored, PIPELINE)
    serve_and_label(stored, 400)
    (tmp_path / "mood").write_text("good")
    facts = Facts()
    with leading(stored, tmp_path, facts):
        ask(stored, "a", NOON + 401 * 3_600_000, on_demand=True)
        ended = facts.wait(RunEnded, lambda fact: fact.run == "a")
    assert ended.outcome == "promoted", ended
    (record,) = published(stored)
    with closing(KafkaRegistry(stored)) as reader:
        made = reader.manifest(record.manifest)
        assert made.onnx.url == f"file://{tmp_path}/store/{made.onnx.sha256}"
        graph = reader.onnx(made)
    assert hashlib.sha256(graph).hexdigest() == made.onnx.sha256
    assert Session(graph, PIPELINE.schema).predict({"distance": np.zeros(3), "wind": np.zeros(3)}, 3).shape == (3,)
    with closing(Artifacts(settings)) as elsewhere, pytest.raises(RegistryRefused, match="foreign_url"):
        elsewhere.read(made.onnx)  # a worker that knows of no store opens none


def test_a_model_that_fits_nowhere_is_a_failed_run_and_the_leader_lives(settings, tmp_path):
    bare = settings.model_copy(update={"artifact_kafka_limit_mb": 0})
    apply(bare, PIPELINE)
    serve_and_label(bare, 400)
    (tmp_path / "mood").write_text("good")
    facts = Facts()
    with leading(bare, tmp_path, facts) as thread:
        ask(bare, "a", NOON + 401 * 3_600_000, on_demand=True)
        ended = facts.wait(RunEnded, lambda fact: fact.run == "a")
        assert thread.failure is None
    assert (ended.outcome, "Set artifact_store" in ended.reason) == ("failed", True), ended


def test_the_largest_that_kafka_takes_is_read_in_memory_once(settings, graph):
    apply(settings, PIPELINE)
    data = (graph + graph)[: 100 * MB]
    blob = put(settings, data)
    with closing(Artifacts(settings)) as artifacts:
        artifacts.read(put(settings, b"first"))  # the client, and its queue
        before = psutil.Process().memory_info().rss
        found = artifacts.read(blob)
        held = psutil.Process().memory_info().rss - before
    assert found == data
    assert held < 2 * len(data)


def test_the_object_store_takes_a_large_model(settings, tmp_path, graph):
    stored = settings.model_copy(update={"artifact_kafka_limit_mb": 50, "artifact_store": f"file://{tmp_path}/store"})
    blob = put(stored, graph)
    assert blob.url
    assert ObjectStore(stored.artifact_store).read(blob) == graph


def test_chunks_of_a_producer_without_a_transaction_are_there_when_it_returns(settings):
    apply(settings, PIPELINE)
    blob = put(settings, b"")
    assert (blob.chunks, blob.size) == (1, 0)
    with closing(Artifacts(settings)) as artifacts:
        assert artifacts.read(blob) == b""
