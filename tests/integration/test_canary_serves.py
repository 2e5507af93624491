"""A share of the keys is served by the challenger, on the champion's real topics: the same keys always, each event by
one version, nothing lost, nothing twice."""

from dataclasses import replace as changed

import msgspec
import pytest
from kit import Facts, leading, linear, produce, read_all, served_places, wait_for
from test_source import worker_of
from test_swap import GOOD, PIPELINE, Publisher, predicted

from headrace.infra.names import Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.services.changes.moves import ask
from headrace.infra.services.data.explain import explain
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models.errors import BadInput
from headrace.models.facts import CanaryServes, Refused
from headrace.models.records import VERSION_HEADER, Aliased
from headrace.streams.canary import Canary

KEYS = 500


class Registry(Publisher):
    def alias(self, version, share):
        self.producer.begin_transaction()
        said = self._record() | {"version": version}
        self._write(Aliased(**said, alias="challenger", share=share))


def send(names, settings, first, last):
    records = [
        {
            "key": f"customer-{number % KEYS}".encode(),
            "value": msgspec.json.encode({"id": f"e{number}", "at": "2013-07-04T11:00:00Z", "distance": 1, "wind": 1}),
            "partition": number % KEYS % 2,
        }
        for number in range(first, last)
    ]
    produce(settings, names.events, records)


def answers(names, settings):
    return [
        (message.key(), msgspec.json.decode(message.value()), dict(message.headers()))
        for message in read_all(settings, names.topics.predictions)
    ]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_stable_share_of_the_keys_is_the_challengers(settings, delivery):
    pipeline = changed(PIPELINE, delivery=delivery)
    names = Names(settings.prefix, pipeline)
    apply(settings, pipeline, 2)
    registry, facts = Registry(settings, pipeline), Facts()
    registry.publish(GOOD)
    registry.publish(linear([0.0, 0.0], bias=-1.0))
    registry.promote(1)
    registry.alias(2, 0.2)
    with worker_of(settings, pipeline, facts):
        facts.wait(CanaryServes, lambda fact: fact.version == 2)
        send(names, settings, 0, 4_000)
        wait_for("predictions", lambda: predicted(facts) == 4_000)
        registry.alias(None, 0.0)
        facts.wait(CanaryServes, lambda fact: fact.version == 0)
        send(names, settings, 4_000, 5_000)
        wait_for("more", lambda: predicted(facts) == 5_000)
    found = answers(names, settings)
    mine = Canary(model=None, share=0.2, pipeline=pipeline.name)  # type: ignore[arg-type]
    for key, answer, headers in found:
        _, challengers = mine.split([_Keyed(key)])
        expected = 2 if challengers and int(answer["id"][1:]) < 4_000 else 1
        assert (answer["version"], headers[VERSION_HEADER]) == (expected, str(expected).encode())
        assert answer["prediction"] == pytest.approx(0.269 if expected == 2 else 0.731, abs=1e-3)
    by_two = {key for key, answer, _ in found if answer["version"] == 2}
    assert 0.1 * KEYS < len(by_two) < 0.3 * KEYS
    assert len({tuple(answer["source"]) for _, answer, _ in found}) == len(found) == 5_000
    assert set(served_places(settings, names).values()) == {1}
    for key in {key for key, _, _ in found}:  # order of a key
        numbers = [int(answer["id"][1:]) for other, answer, _ in found if other == key]
        assert numbers == sorted(numbers)
    some = [one for one in found if int(one[1]["id"][1:]) in (7, 1_234, 3_999, 4_800)]
    explained = [explain(settings, names, answer["id"], look_back=100_000) for _, answer, _ in some]
    assert [one.served.version for one in explained] == [answer["version"] for _, answer, _ in some]


def test_a_challenger_that_is_refused_serves_nobody(settings):
    names = Names(settings.prefix, PIPELINE)
    apply(settings, PIPELINE, 2)
    registry, facts = Registry(settings), Facts()
    registry.publish(GOOD)
    registry.publish(b"no graph")
    registry.promote(1)
    registry.alias(2, 0.5)
    with worker_of(settings, PIPELINE, facts):
        facts.wait(Refused, lambda fact: "as a canary" in fact.detail)
        send(names, settings, 0, 500)
        wait_for("predictions", lambda: predicted(facts) == 500)
    assert {answer["version"] for _, answer, _ in answers(names, settings)} == {1}


def test_a_share_is_asked_for_like_any_move(settings, tmp_path):
    path = tmp_path / "delay.py"
    path.write_text(
        "from headrace import Binary, Number, Pipeline, Topic\n"
        'delay = Pipeline(name="delay", events=Topic("flights", id="id", time="at"),\n'
        '    features=[Number("distance"), Number("wind")],\n'
        '    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25))\n'
    )
    file = read_pipelines(str(path))
    origin = Origin(file=file, pipeline=file.pipelines["delay"], by="alice")
    apply(settings, origin.pipeline, 1)
    registry = Registry(settings, origin.pipeline)
    registry.publish(GOOD)
    registry.publish(GOOD)
    with leading(settings, origin):
        ask(settings, origin, "alias", version=1, alias="challenger", share=0.05, why="try it")
        with pytest.raises(BadInput, match="bad_share"):
            ask(settings, origin, "alias", version=1, alias="other", share=0.05)


class _Keyed:
    def __init__(self, key):
        self._key = key

    def key(self):
        return self._key
