"""What integration and system tests share: records in and out, facts to wait for, a pipeline, small ONNX graphs."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import msgspec
import numpy as np
import onnx
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from onnx import TensorProto, helper, numpy_helper

from headrace.infra.kafka import consumer_config, producer_config
from headrace.infra.names import Names
from headrace.infra.processes.scheduler import LeaderThread
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import partitions_of
from headrace.infra.training import Origin
from headrace.models.manifest import Blob, Manifest
from headrace.models.pipeline import Pipeline
from headrace.models.records import SOURCE_HEADER
from headrace.models.session import CATEGORIES, NUMBERS, PREDICTION
from headrace.streams.served import decode_served
from headrace.trainer.process import Trainer

DEADLINE = 180.0  # seconds: long after anything is late, a test that waits in vain says for what


def wait_for(what: str, fact: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """What `fact` answers as soon as it is true."""
    pause, deadline = threading.Event(), monotonic() + seconds
    while not (found := fact()):
        if monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        pause.wait(0.01)
    return found


class Facts:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __call__(self, fact: object) -> None:
        self.all.append(fact)

    def of(self, kind: type) -> list[Any]:
        return [fact for fact in list(self.all) if isinstance(fact, kind)]

    def wait(self, kind: type, holds: Callable[[Any], bool] = lambda _: True, seconds: float = DEADLINE) -> Any:
        return wait_for(
            f"a {kind.__name__} among {self.all[-5:]}",
            lambda: next((fact for fact in self.of(kind) if holds(fact)), None),
            seconds,
        )


# ── records ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def produce(settings: Settings, topic: str, records: Sequence[dict[str, Any]], **options: Any) -> None:
    """Each record is a dict of `value`, and perhaps `key`, `headers`, `partition`; acknowledged when it returns."""
    failed: list[Any] = []
    quick = {"enable_idempotence": False, "linger_ms": 0}  # an idempotent producer asks for its id first
    producer = Producer(producer_config(settings, on_delivery=lambda error, _: failed.append(error), **quick | options))
    for record in records:
        producer.produce(topic, **record)
    assert producer.flush(DEADLINE) == 0
    assert failed == []


def read_all(settings: Settings, topic: str) -> list[Any]:
    """Every committed record, by partition and offset."""
    consumer = Consumer(consumer_config(settings, "kit", enable_partition_eof=True))
    open_ends = set(partitions_of(consumer, topic))
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in open_ends])
    found = []
    while open_ends:
        for message in consumer.consume(10_000, timeout=0.1):
            if message.error() is None:
                found.append(message)
            else:
                assert message.error().name() == "_PARTITION_EOF", message.error()
                open_ends.discard(message.partition())
    consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


class Ends:
    """How many records a topic has, without reading them (and without transactions: their markers count)."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._asker = Consumer(consumer_config(settings, "kit"))
        self._places = [TopicPartition(topic, number) for number in partitions_of(self._asker, topic)]

    def __call__(self) -> int:
        return sum(self._asker.get_watermark_offsets(place, timeout=DEADLINE)[1] for place in self._places)


def sources(messages: Sequence[Any]) -> list[tuple[str, int, int]]:
    """Where predictions or dead letters say that they come from."""
    found = []
    for message in messages:
        headers = dict(message.headers() or [])
        if SOURCE_HEADER in headers:
            topic, partition, offset = headers[SOURCE_HEADER].decode().rsplit("/", 2)
            found.append((topic, int(partition), int(offset)))
        else:
            found.append(tuple(msgspec.json.decode(message.value())["source"]))
    return found


def places(messages: Sequence[Any]) -> Counter[tuple[str, int, int]]:
    """Where the records are, to be compared with the `sources` of what came of them."""
    return Counter((message.topic(), message.partition(), message.offset()) for message in messages)


def served_places(settings: Settings, names: Names) -> Counter[tuple[str, int, int]]:
    """Where served rows say that they come from."""
    found: Counter[tuple[str, int, int]] = Counter()
    for message in read_all(settings, names.topics.served):
        rows = decode_served(message.value()).select(["partition", "offset"]).to_pylist()
        found.update((names.events, row["partition"], row["offset"]) for row in rows)
    return found


def committed(settings: Settings, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Positions of a group; -1001 where it has none."""
    consumer = Consumer(consumer_config(settings, group))
    places = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=DEADLINE)
    consumer.close()
    return {place.partition: place.offset for place in places}


@contextmanager
def transaction(settings: Settings, name: str = "kit") -> Iterator[Producer]:
    """A producer in a transaction that is committed at the end."""
    config = producer_config(settings, transactional_id=settings.prefixed(name), delivery_report_only_error=False)
    producer = Producer(config)
    producer.init_transactions(DEADLINE)
    producer.begin_transaction()
    yield producer
    producer.commit_transaction(DEADLINE)


# ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def leading(settings: Settings, origin: Origin) -> Iterator[LeaderThread]:
    """A scheduler's leader, without its clock."""
    with Trainer() as trainer:
        leader = LeaderThread(settings, origin, trainer, Facts())
        leader.start()
        try:
            yield leader
        finally:
            leader.stop()
    assert leader.failure is None


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def linear(
    weights: Sequence[float], bias: float = 0.0, *, rows: int | str = "n", name: str = NUMBERS, categories: int = 0
) -> bytes:
    """sigmoid(numbers · weights + bias) by the contract of `models.session`; a fixed number of `rows` breaks it.

    `categories` are so many columns that it takes and does not look at.
    """
    size = len(weights)
    given = helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, size])
    answer = helper.make_tensor_value_info(PREDICTION, TensorProto.FLOAT, [rows])
    constants = [
        numpy_helper.from_array(np.array(weights, np.float32).reshape(size, 1), "weights"),
        numpy_helper.from_array(np.array(bias, np.float32), "bias"),
        numpy_helper.from_array(np.array([-1] if rows == "n" else [rows], np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("MatMul", [name, "weights"], ["product"]),
        helper.make_node("Reshape", ["product", "shape"], ["flat"]),
        helper.make_node("Add", ["flat", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], [PREDICTION]),
    ]
    inputs = [given]
    if categories:
        inputs.append(helper.make_tensor_value_info(CATEGORIES, TensorProto.STRING, [rows, categories]))
    graph = helper.make_graph(nodes, "linear", inputs, [answer], constants)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=min(onnx.IR_VERSION, 10)
    ).SerializeToString()
    return made


def hanging() -> bytes:
    """sigmoid(first number) after as many rounds of a loop as the largest second number of the batch says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Add", ["sum_in", "sum_in"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(value, kind), name)
        for name, value, kind in (("first", 0, np.int64), ("second", 1, np.int64), ("zero", 0.0, np.float32))
    ] + [numpy_helper.from_array(np.array(True), "true")]
    nodes = [
        helper.make_node("Gather", [NUMBERS, "first"], ["logits"], axis=1),
        helper.make_node("Gather", [NUMBERS, "second"], ["rounds"], axis=1),
        helper.make_node("ReduceMax", ["rounds"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "true", "zero"], ["sum"], body=body),
        helper.make_node("Add", ["logits", "sum"], ["moved"]),
        helper.make_node("Sigmoid", ["moved"], [PREDICTION]),
    ]
    given = helper.make_tensor_value_info(NUMBERS, TensorProto.FLOAT, ["n", 2])
    answer = helper.make_tensor_value_info(PREDICTION, TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "hanging", [given], [answer], constants)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=min(onnx.IR_VERSION, 10)
    ).SerializeToString()
    return made


def manifest(pipeline: Pipeline, version: int, onnx: Blob, **said: str) -> Manifest:
    """A version of the pipeline's own features; `said` is what it tells of its run."""
    texts = ["run", "tick", "trigger", "created_at", "created_by", "dataset_sha256", "trained_from", "trained_through"]
    mappings = ["null_shares", "hyperparameters", "metrics", "champion_metrics", "libraries"]
    return Manifest(
        pipeline=pipeline.name,
        version=version,
        parent=0,
        task="binary",
        features=tuple(pipeline.features),
        schema=pipeline.schema,
        onnx=onnx,
        ranges=(),
        rows=1,
        holdout_rows=1,
        **{name: {} for name in mappings},
        **dict.fromkeys([*texts, "verdict", "source"], "") | said,
    )
