"""A training that is asked for by a record which any Kafka client writes, as docs/topics.md shows it."""

import json
import re
from pathlib import Path

import msgspec
from confluent_kafka import Producer
from kit import read_all
from test_leader import NOON, PIPELINE, Scheduler, finished

from headrace.infra.names import RUNS
from headrace.infra.topics import apply
from headrace.models.records import Started

PAGE = Path(__file__).parents[2] / "docs" / "topics.md"


def documented():
    (block,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return json.loads(block)


def test_the_documented_record_by_a_plain_producer_makes_a_run(settings):
    apply(settings, PIPELINE)
    request = documented()
    assert request["kind"] == "requested"
    request |= {"pipeline": PIPELINE.name, "at": NOON}
    bad = [b"rubbish", b"{}", json.dumps(request | {"run": "bad", "at": "noon"}).encode()]
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    for value in (*bad, json.dumps(request).encode()):
        producer.produce(settings.prefixed(RUNS), value)
    assert producer.flush(60) == 0
    del producer  # or it would look for the broker after the broker's end
    scheduler = Scheduler(settings)
    try:
        done = scheduler.answer(request["run"])
    finally:
        scheduler.close()
    assert (done.outcome, done.version) == ("promoted", 1)
    assert [one.run for one in finished(settings)] == [request["run"]]
    records = [msgspec.json.decode(m.value()) for m in read_all(settings, settings.prefixed(RUNS)) if m.key()]
    (started,) = [msgspec.convert(one, Started) for one in records if one["kind"] == "started"]
    assert started.trigger == f"on demand: {request['why']}"
