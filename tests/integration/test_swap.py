"""registry → the live model, through real topics: laws 4 and 5."""

import gc
import weakref
from contextlib import contextmanager

import msgspec
import psutil
import pytest
from confluent_kafka import Producer
from kit import Facts, linear, manifest, produce, read_all, wait_for
from test_source import worker_of

from headrace.infra.artifacts import write_blob
from headrace.infra.kafka import producer_config
from headrace.infra.names import ARTIFACTS, REGISTRY, Names
from headrace.infra.topics import apply
from headrace.models import manifest as manifests
from headrace.models.durations import iso
from headrace.models.facts import Predicted, Refused, Swapped
from headrace.models.features import Aggregate, Category, Column, Number, Topic
from headrace.models.labels import Binary
from headrace.models.manifest import Blob
from headrace.models.pipeline import Pipeline
from headrace.models.records import Promoted, Published
from headrace.models.schema import Schema
from headrace.models.session import Session
from headrace.streams.codec import clock_ms

PIPELINE = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)
GOOD = linear([0.0, 0.0], bias=1.0)  # answers 0.731 to finite numbers


class Publisher:
    """Writes the registry by hand, as a leader does."""

    def __init__(self, settings, pipeline=PIPELINE):
        self.settings, self.pipeline = settings, pipeline
        self.names, self.seq, self.version = Names(settings.prefix, pipeline), 0, 0
        quick = {"delivery_report_only_error": False, "linger_ms": 0, "retry_backoff_ms": 5, "retry_backoff_max_ms": 50}
        self.producer = Producer(producer_config(settings, transactional_id=settings.prefixed("publisher"), **quick))
        self.producer.init_transactions(60)

    def publish(self, onnx=GOOD, *, change=lambda manifest: manifest, place=lambda blob: blob, data=None):
        """One version and its promotion. `change` alters the manifest, `place` where its record points."""
        self.version += 1
        self.producer.begin_transaction()
        blob = write_blob(self.producer, self.names.of(ARTIFACTS), onnx)
        encoded = manifests.encode(change(manifest(self.pipeline, self.version, blob))) if data is None else data
        pointer = place(write_blob(self.producer, self.names.of(ARTIFACTS), encoded))
        self._write(Published(**self._record(), manifest=pointer), Promoted(**self._record(), why="test"))
        return self.version

    def promote(self, version):
        self.producer.begin_transaction()
        self._write(Promoted(**self._record() | {"version": version}, why="back"))

    def raw(self, *values):
        produce(self.settings, self.names.of(REGISTRY), [{"value": value} for value in values])

    def _record(self):
        self.seq += 1
        return {
            "pipeline": self.pipeline.name,
            "seq": self.seq,
            "version": self.version,
            "at": iso(clock_ms()),
            "by": "test",
        }

    def _write(self, *records):
        for record in records:
            self.producer.produce(self.names.of(REGISTRY), msgspec.json.encode(record))
        self.producer.commit_transaction(60)


@pytest.fixture
def publisher(settings):
    apply(settings, PIPELINE, 2)
    return Publisher(settings)


def send(publisher, first, last):
    produce(
        publisher.settings,
        publisher.names.events,
        [
            {"value": msgspec.json.encode({"id": f"e{n}", "at": "2013-07-04T11:00:00Z", "distance": n, "wind": 1})}
            | {"partition": n % 2}
            for n in range(first, last)
        ],
    )


def predicted(facts):
    return sum(fact.rows for fact in facts.of(Predicted))


def predictions(publisher):
    return [msgspec.json.decode(m.value()) for m in read_all(publisher.settings, publisher.names.topics.predictions)]


@contextmanager
def serving(publisher, facts=None):
    facts = facts or Facts()
    with worker_of(publisher.settings, publisher.pipeline, facts):
        yield facts


def test_a_cold_worker_reads_the_registry_to_its_end_before_its_first_event(publisher):
    for _ in range(3):
        publisher.publish()
    send(publisher, 0, 100)
    with serving(publisher) as facts:
        wait_for("predictions", lambda: predicted(facts) == 100)
    assert {prediction["version"] for prediction in predictions(publisher)} == {3}


def test_a_promotion_swaps_between_two_chunks_and_history_agrees_with_every_prediction(publisher):
    with serving(publisher) as facts:
        for round_ in range(6):
            send(publisher, round_ * 400, round_ * 400 + 400)
            if round_ % 2 == 0:  # the other rounds are under way while the model changes
                wait_for("predictions", lambda round_=round_: predicted(facts) == round_ * 400 + 400)
            else:
                version = publisher.publish(linear([0.001, 0.0], bias=round_))
                facts.wait(Swapped, lambda fact, version=version: fact.version == version)
        publisher.promote(1)  # a rollback is a promotion, too
        facts.wait(Swapped, lambda fact: fact.seq == publisher.seq)
        send(publisher, 2_400, 2_500)
        wait_for("predictions", lambda: predicted(facts) == 2_500)
    history = [msgspec.json.decode(m.value()) for m in read_all(publisher.settings, publisher.names.topics.history)]
    answers = predictions(publisher)
    assert {answer["version"] for answer in answers} >= {0, 1, 2}
    assert answers[-1]["version"] == 1
    for answer in answers:
        _, partition, offset = answer["source"]
        switches = [h for h in history if h["partition"] == partition and h["first_offset"] <= offset]
        assert max(switches, key=lambda h: h["seq"])["version"] == answer["version"]
    scores = {(answer["version"], answer["source"][2], answer["source"][1]): answer["prediction"] for answer in answers}
    assert len(scores) == 2_500


def nan(publisher):
    publisher.publish(linear([float("nan"), 0.0]))


def changed(**fields):
    return lambda publisher: publisher.publish(change=lambda manifest: msgspec.structs.replace(manifest, **fields))


def moved(**fields):
    return lambda publisher: publisher.publish(place=lambda blob: msgspec.structs.replace(blob, **fields))


def graph_moved(**fields):
    def change(manifest):
        return msgspec.structs.replace(manifest, onnx=msgspec.structs.replace(manifest.onnx, **fields))

    return lambda publisher: publisher.publish(change=change)


LACKING = Aggregate(Topic("departures", time="at"), "delay", "mean", over="2h", by="carrier")
BAD_VERSIONS = {
    "NaN weights": (nan, "not_finite"),
    "garbage for a graph": (lambda p: p.publish(b"not a graph"), "not_onnx"),
    "an empty graph": (lambda p: p.publish(b""), "not_onnx"),
    "half a graph": (lambda p: p.publish(GOOD[: len(GOOD) // 2]), "not_onnx"),
    "a graph with other inputs": (lambda p: p.publish(linear([1.0, 1.0], name="others")), "wrong_inputs"),
    "a graph with other shapes": (lambda p: p.publish(linear([1.0, 1.0, 1.0])), "wrong_inputs"),
    "a graph for one row only": (lambda p: p.publish(linear([0.0, 0.0], rows=1)), ""),
    "a graph for two rows only": (lambda p: p.publish(linear([0.0, 0.0], rows=2)), ""),
    "garbage for a manifest": (lambda p: p.publish(data=b"\xff garbage"), "bad_manifest"),
    "a manifest that is deeply nested": (lambda p: p.publish(data=b'{"x":' + b"[" * 100_000), "bad_manifest"),
    "a manifest of another version": (changed(version=99), "wrong_manifest"),
    "a manifest of another pipeline": (changed(pipeline="other"), "wrong_manifest"),
    "a manifest with a wrong hash": (moved(sha256="0" * 64), ""),
    "a graph with a wrong hash": (graph_moved(sha256="0" * 64), ""),
    "a graph with a wrong size": (graph_moved(size=7), "bad_hash"),
    "missing chunks": (graph_moved(chunks=3), "missing_chunks"),
    "an offset beyond the end": (graph_moved(offset=1_000_000), "missing_chunks"),
    "an offset that is none": (graph_moved(offset=(1 << 63) + 7), "bad_blob"),
    "a partition that is none": (graph_moved(partition=7), ""),
    "2 GB": (graph_moved(size=1 << 31, chunks=4_096), "bad_blob"),
    "a negative size": (moved(size=-1), "bad_blob"),
    "an aggregate that the file lacks": (changed(features=(*PIPELINE.features, LACKING)), "lacks_feature"),
    "a column that no feature makes": (
        changed(schema=Schema((*PIPELINE.columns, Column("other", "number", nullable=True)))),
        "",
    ),
    "a field of another kind": (changed(features=(Number("wind"), Category("distance"))), ""),
}


def test_what_must_not_serve_is_refused_by_name_and_the_old_version_goes_on(publisher):
    publisher.publish()
    with serving(publisher) as facts:
        facts.wait(Swapped, lambda fact: fact.version == 1)
        for what, (publish, reason) in BAD_VERSIONS.items():
            publish(publisher)
            refused = facts.wait(Refused, lambda fact: fact.version == publisher.version)
            assert refused.reason.startswith(reason), (what, refused)
            assert refused.detail, what
        send(publisher, 0, 10)
        wait_for("predictions", lambda: predicted(facts) == 10)
        last = publisher.publish(linear([0.0, 0.0], bias=2.0))  # and then a good one serves
        facts.wait(Swapped, lambda fact: fact.version == last)
    assert {prediction["version"] for prediction in predictions(publisher)} == {1}


def test_records_that_are_not_the_registry_s_next_change_nothing(publisher):
    publisher.publish()
    with serving(publisher) as facts:
        facts.wait(Swapped, lambda fact: fact.version == 1)
        nested = b'{"kind":"published","x":' + b"[" * 100_000
        publisher.raw(b"garbage", b"", b"\xff\xfe", b"[1]", nested, b'{"kind":"dropped"}', None)
        wait_for("seven refusals", lambda: len(facts.of(Refused)) == 7)
        blob = Blob(sha256="0" * 64, size=1, partition=0, offset=0, chunks=1)
        common = {"pipeline": "delay", "at": "", "by": ""}
        for record, reason in [
            (Promoted(**common, seq=1, version=1, why="again"), "old"),
            (Promoted(**common, seq=9, version=1, why="ahead"), "gap"),
            (Promoted(**common, seq=3, version=7, why="nobody's"), "unknown_version"),
            (Published(**common, seq=3, version=1, manifest=blob), "reused"),
        ]:
            publisher.raw(msgspec.json.encode(record))
            facts.wait(Refused, lambda fact, reason=reason: fact.reason == reason)
        other = Promoted(**common | {"pipeline": "other"}, seq=3, version=1, why="another pipeline's")
        publisher.raw(msgspec.json.encode(other))
        publisher.publish()
        facts.wait(Swapped, lambda fact: fact.version == 2)


def test_a_cold_worker_falls_back_to_the_newest_promotion_that_proves_itself(publisher):
    publisher.publish()
    publisher.publish()
    publisher.publish(b"garbage")
    publisher.publish(linear([float("nan"), 0.0]))
    publisher.raw(b'{"kind":"published","x":' + b"[" * 100_000)
    send(publisher, 0, 10)
    with serving(publisher) as facts:
        wait_for("predictions", lambda: predicted(facts) == 10)
        assert [fact.version for fact in facts.of(Refused)] == [0, 4, 3]
    assert {prediction["version"] for prediction in predictions(publisher)} == {2}


def test_a_cold_worker_serves_the_baseline_where_nothing_proves_itself(publisher):
    publisher.publish(b"garbage")
    send(publisher, 0, 10)
    with serving(publisher) as facts:
        wait_for("predictions", lambda: predicted(facts) == 10)
    assert {(p["version"], p["prediction"]) for p in predictions(publisher)} == {(0, 0.25)}


def test_eighty_swaps_leave_no_session_behind_and_memory_flat(publisher, monkeypatch):
    sessions = []
    original = Session.__init__

    def remembered(self, *args, **options):
        original(self, *args, **options)
        sessions.append(weakref.ref(self))

    monkeypatch.setattr(Session, "__init__", remembered)
    process, early = psutil.Process(), 0
    with serving(publisher) as facts:
        for round_ in range(80):
            if round_ % 8 == 0:
                send(publisher, 0, 20)
            version = publisher.publish(linear([0.001, 0.0], bias=round_ / 80))
            facts.wait(Swapped, lambda fact, version=version: fact.version == version)
            if round_ == 20:
                early = process.memory_info().rss
        wait_for("predictions", lambda: predicted(facts) == 200)
        send(publisher, 0, 20)  # the last chunk under the old version has gone
        wait_for("predictions", lambda: predicted(facts) == 220)
        gc.collect()
        assert len(sessions) == 80
        assert sum(reference() is not None for reference in sessions) <= 2
        assert process.memory_info().rss - early < 60 * 2**20
