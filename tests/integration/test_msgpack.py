"""Topics in MessagePack through a real worker, a real leader's labels and the command line; rubbish is parked."""

import base64
import json
import math
import os

import msgspec
import numpy as np
from kit import Facts, read_all, wait_for
from test_cli import Cli
from test_dead_letters import check_parked, send_among_good
from test_source import worker_of

from headrace.infra.live import LiveLabels
from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.topics import apply
from headrace.models.durations import iso
from headrace.models.facts import Predicted, SideRowsApplied
from headrace.streams.codec import clock_ms
from headrace.streams.served import decode_served

PIPELINE = """
from headrace import Aggregate, Binary, Pipeline, Tensor, Topic

cats = Pipeline(
    name="cats",
    events=Topic("images", id="id", time="at", format="msgpack"),
    features=[
        Tensor("pixels", shape=[3, 64, 64]),
        Aggregate(Topic("cameras", time="at", format="msgpack"), "light", "mean", over="2h", by="camera"),
    ],
    label=Binary(Topic("seen", id="id", time="at", format="msgpack"), "cat", within="1h", if_absent="drop", prior=0.25),
)
"""
SIZE = 3 * 64 * 64
NOW, SOON = "2013-07-04T11:00:00Z", iso(clock_ms() + 3_600_000)
PIXELS = np.linspace(0, 1, SIZE, dtype="<f4")
EVENT = {"id": "i1", "at": NOW, "camera": "north", "pixels": PIXELS.tobytes()}
ROW = {"at": NOW, "camera": "north", "light": 5}
LABEL = {"id": "i1", "at": NOW, "cat": True}
packed = msgspec.msgpack.encode


def bad_bytes(good, number):
    """What is bad on every topic, with the reason's first words; `number` is a field that holds one."""
    return [
        (None, "tombstone"),
        (b"", "empty"),
        (b"a cat", "not_msgpack"),
        (json.dumps({"id": "i1", "at": NOW}).encode(), "not_msgpack"),
        (packed(good)[:-3], "not_msgpack"),
        (packed(good) * 2, "not_msgpack"),
        (packed([1, 2]), "wrong_shape"),
        (packed({1: 2}), "wrong_shape"),
        (b"\xdf\xff\xff\xff\xff", "not_msgpack"),
        (b"\x81\xa1y" + b"\x91" * 100_000, "not_msgpack"),
        (os.urandom(900_000), ""),
        (packed({**good, "at": None}), ""),
        (packed({**good, "at": "yesterday"}), ""),
        (packed({**good, "at": -1}), ""),
        (packed({**good, "at": msgspec.msgpack.Ext(5, b"1234")}), ""),
        (packed({**good, "at": SOON}), "future"),
        (packed({**good, number: math.nan}), "wrong_shape"),
        (packed({**good, number: math.inf}), "wrong_shape"),
        (packed({**good, number: "five"}), "wrong_shape"),
    ]


def with_pixels(value):
    return packed({**EVENT, "pixels": value})


BAD_EVENTS = [
    *bad_bytes(EVENT, "camera")[:-1],  # a camera may be text
    (packed({"id": "i1", "at": NOW}), "wrong_shape"),
    (with_pixels(None), "wrong_shape"),
    (with_pixels("cat"), "wrong_shape"),
    (with_pixels(b""), "wrong_shape"),
    (with_pixels(PIXELS.tobytes()[:-1]), "wrong_shape"),
    (with_pixels(PIXELS.tobytes() + bytes(4)), "wrong_shape"),
    (with_pixels(np.where(PIXELS == 1, np.nan, PIXELS).astype("<f4").tobytes()), "wrong_shape"),
    (with_pixels(np.where(PIXELS == 1, np.inf, PIXELS).astype("<f4").tobytes()), "wrong_shape"),
    (with_pixels([1, 2, 3]), "wrong_shape"),
    (with_pixels(["1"] * SIZE), "wrong_shape"),
    (with_pixels(0)[:-1] + b"\xdd\xff\xff\xff\xff", "not_msgpack"),
]


def pipeline_in(folder):
    (folder / "cats.py").write_text(PIPELINE)
    return read_pipeline(str(folder / "cats.py"))


def test_bad_events_are_parked_with_their_bytes_and_the_images_beside_them_predicted(settings, tmp_path):
    pipeline = pipeline_in(tmp_path)
    apply(settings, pipeline, 2)
    names, facts = Names(settings.prefix, pipeline), Facts()
    with worker_of(settings, pipeline, facts):
        send_among_good(settings, names.events, BAD_EVENTS, packed(EVENT))
        check_parked(settings, names, names.events, BAD_EVENTS)
        wait_for("the good ones", lambda: sum(fact.rows for fact in facts.of(Predicted)) == len(BAD_EVENTS))
    assert len(read_all(settings, names.topics.predictions)) == len(BAD_EVENTS)
    batches = [decode_served(message.value()) for message in read_all(settings, names.topics.served)]
    rows = np.array([row for batch in batches for row in batch.column("pixels").to_pylist()], np.float32)
    assert rows.shape == (len(BAD_EVENTS), SIZE)
    assert (rows == PIXELS).all()


def test_bad_side_rows_and_labels_are_parked_and_the_good_ones_used(settings, tmp_path):
    pipeline = pipeline_in(tmp_path)
    apply(settings, pipeline)
    names, facts = Names(settings.prefix, pipeline), Facts()
    rows, labels = bad_bytes(ROW, "light"), bad_bytes(LABEL, "cat")
    with worker_of(settings, pipeline, facts):
        send_among_good(settings, names.of("cameras"), rows, packed(ROW))
        check_parked(settings, names, names.of("cameras"), rows)
        wait_for("the good ones", lambda: sum(fact.rows for fact in facts.of(SideRowsApplied)) == len(rows))
    send_among_good(settings, names.labels, labels, packed(LABEL))
    live = LiveLabels(settings, names, facts)
    live.now()
    live.close()
    check_parked(settings, names, names.labels, labels)


def test_rows_of_json_are_produced_in_the_topics_format_and_what_was_parked_is_readable(settings, tmp_path):
    pipeline, cli = pipeline_in(tmp_path), Cli(settings, tmp_path)
    names = Names(settings.prefix, pipeline)
    apply(settings, pipeline)
    text = base64.b64encode(EVENT["pixels"]).decode()
    ways = {"i1": text, "i2": PIXELS.reshape(3, 64, 64).tolist(), "i3": text[:100]}
    lines = [json.dumps({**EVENT, "id": name, "pixels": value}) for name, value in ways.items()]
    (tmp_path / "images.jsonl").write_text("\n".join(lines))

    report = cli("check", "cats.py", "--events", "images.jsonl", "--output", "json", code=0).json
    assert (report["decoded"], report["rejected"][0]["reason"]) == (2, "wrong_shape")
    assert json.loads(report["rejected"][0]["example"])["pixels"] == "<75 bytes>"

    refused = cli.refused("produce", "flights", "images.jsonl", "--pipeline", "cats.py")
    assert "expected 'cameras' or 'seen' or 'images' of cats, got 'flights'" in refused
    cli("produce", "images", "images.jsonl", "--pipeline", "cats.py", "--key", "id")
    cli("produce", "images", "images.jsonl")  # JSON
    sent = read_all(settings, names.events)
    assert [message.key() for message in sent] == [b"i1", b"i2", b"i3", None, None, None]
    assert msgspec.msgpack.decode(sent[0].value()) == EVENT

    facts = Facts()
    with worker_of(settings, pipeline, facts):
        wait_for("the first two", lambda: sum(fact.rows for fact in facts.of(Predicted)) == 2)
        wait_for("the others", lambda: len(read_all(settings, names.topics.dead_letters)) == 4)
    shown = cli("dead-letters", "show", "cats.py", f"{names.events}/0/2").out
    assert "expected 12288 finite numbers of shape [3, 64, 64] or in a row, or 49152 bytes of float32" in shown
    assert '"pixels":"<75 bytes>"' in shown
    shown = cli("dead-letters", "show", "cats.py", f"{names.events}/0/3").out
    assert "begins as JSON does" in shown
    assert '"camera": "north"' in shown
