"""What is unsigned, wrongly signed, replayed or hostile never serves: through a real broker, worker and leader."""

from dataclasses import replace

import hostile
import msgspec
import pytest
from kit import linear, manifest, read_all, wait_for
from test_source import worker_of
from test_swap import GOOD, PIPELINE, Publisher, predicted, predictions, send, serving

from headrace.infra.keys import signer, verifier, write_keys
from headrace.infra.leadership import KafkaRegistry, KafkaRunsLog, KafkaWriter
from headrace.infra.names import REGISTRY, Names
from headrace.infra.services.versions.catalog import versions
from headrace.infra.topics import apply
from headrace.models.errors import SettingsError
from headrace.models.facts import Refused, Swapped
from headrace.models.manifest import Golden
from headrace.models.records import Archived, Promoted, Published
from headrace.scheduler.ledger import Ledger

SIGNED = replace(PIPELINE, signed=True)
COLUMNS = {"distance": [1.0, 5.0], "wind": [2.0, 3.0]}


@pytest.fixture
def keys(tmp_path):
    """Two private keys, and a folder where the first one's public key is."""
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    public, _ = write_keys(tmp_path / "leader")
    public.rename(trusted / "leader.pub")
    write_keys(tmp_path / "stranger")
    return tmp_path / "leader", tmp_path / "stranger", trusted


@pytest.fixture
def trusting(settings, keys):
    """A worker's settings: it believes, and cannot sign."""
    return settings.model_copy(update={"trusted_keys": keys[2]})


class Signing(Publisher):
    """A publisher whose records are signed by `sign`."""

    def __init__(self, settings, key, pipeline=SIGNED):
        super().__init__(settings, pipeline)
        self.sign = signer(settings.model_copy(update={"signing_key_file": key, "trusted_keys": None}), pipeline)

    def _write(self, *records):
        super()._write(*map(self.sign, records))


def next_record(publisher, **fields):
    """A promotion of version 1 that would be the registry's next."""
    return Promoted(**publisher._record() | {"version": 1, "why": "forged"} | fields)


def test_forged_records_of_a_signed_pipeline_take_no_place_and_the_leader_s_next_one_serves(settings, trusting, keys):
    apply(settings, SIGNED, 2)
    publisher = Signing(settings, keys[0])
    stranger = signer(settings.model_copy(update={"signing_key_file": keys[1]}), SIGNED)
    publisher.settings = trusting
    publisher.publish()
    with serving(publisher) as facts:
        facts.wait(Swapped, lambda fact: fact.version == 1)
        record, own = next_record(publisher), publisher.sign.key_id
        good = publisher.sign(record)
        changed = msgspec.structs.replace
        for forged, reason in [
            (record, "unsigned"),
            (changed(record, key_id=own), "unsigned"),
            (stranger(record), "unknown_key"),
            (changed(stranger(record), key_id=own), "bad_signature"),
            (changed(good, version=0), "bad_signature"),
            (changed(good, pipeline="other"), None),  # another pipeline's: passed over
            (publisher.sign(changed(record, pipeline="other")), None),
            (changed(publisher.sign(changed(record, pipeline="other")), pipeline="delay"), "bad_signature"),
            (changed(good, seq=good.seq + 1), "bad_signature"),
            (Archived(pipeline="delay", seq=record.seq, at="", by="x", version=1, signature="none"), "unknown_key"),
        ]:
            before = len(facts.of(Refused))
            publisher.raw(msgspec.json.encode(forged))
            if reason is not None:
                wait_for(reason, lambda before=before: len(facts.of(Refused)) > before)
                assert facts.of(Refused)[-1].reason == reason, forged
        publisher.seq -= 1  # the leader knows nothing of them
        assert publisher.publish(linear([0.0, 0.0], bias=2.0)) == 2
        facts.wait(Swapped, lambda fact: fact.version == 2)
        publisher.promote(1)
        facts.wait(Swapped, lambda fact: fact.seq == publisher.seq)
        older = [message.value() for message in read_all(publisher.settings, publisher.names.of(REGISTRY))]
        publisher.raw(*older)  # all of them again, as they were signed
        wait_for("as many refusals", lambda: len([f for f in facts.of(Refused) if f.reason == "old"]) >= 5)
        send(publisher, 0, 10)
        wait_for("predictions", lambda: predicted(facts) == 10)
        assert len(facts.of(Swapped)) == 3
    assert {prediction["version"] for prediction in predictions(publisher)} == {1}
    with serving(publisher) as facts:  # and whoever starts now reads the same from the same log
        facts.wait(Swapped, lambda fact: fact.version == 1)
        assert {f.reason for f in facts.of(Refused)} >= {"unsigned", "unknown_key", "bad_signature", "old"}


def test_a_leader_signs_what_it_writes_and_believes_what_is_signed(settings, trusting, keys):
    apply(settings, SIGNED, 2)
    leading = trusting.model_copy(update={"signing_key_file": keys[0]})
    names, facts = Names(settings.prefix, SIGNED), []
    forger = Publisher(settings, SIGNED)
    forger.publish()  # unsigned, before anybody leads
    log = KafkaRunsLog(leading, names)
    asked = KafkaRegistry(leading)
    writer = KafkaWriter(leading, names, log)
    try:
        wait_for("the lead", lambda: (log.poll(0.1), log.leads)[1])
        record = {"pipeline": "delay", "version": 1, "at": "2026-01-01T00:00:00Z", "by": "leader"}
        writer.publish(
            GOOD,
            lambda blob: manifest(SIGNED, 1, blob),
            lambda place: [Published(**record, seq=1, manifest=place), Promoted(**record, seq=2)],
        )
        ledger = Ledger("delay", asked, facts.append, verifier(leading, SIGNED))
        ledger.wrote(2)
        assert [(one.seq, bool(one.signature)) for one in ledger.follow()] == [(1, True), (2, True)]
        assert {fact.reason for fact in facts} == {"unsigned"}
    finally:
        writer.close()
        asked.close()
        log.consumer.close()
    shown = {one.version: one.by for one in versions(trusting, names)}
    assert shown[1] == "leader"
    forger.settings = trusting
    with serving(forger) as worker:
        worker.wait(Swapped, lambda fact: fact.version == 1)


def test_a_worker_of_a_signed_pipeline_without_trusted_keys_does_not_start(settings):
    apply(settings, SIGNED, 2)
    with pytest.raises(SettingsError, match="trusted_keys"), worker_of(settings, SIGNED, print):
        pass


HOSTILE = {
    "an external initializer": (hostile.external_initializer(), "external_data"),
    "an external attribute": (hostile.external_attribute(), "external_data"),
    "an external sparse initializer": (hostile.external_in_a_sparse_initializer(), "external_data"),
    "a custom operator": (hostile.custom_domain(), "operator"),
    "a function": (hostile.own_function(), "operator"),
    "16 GB in 300 bytes": (hostile.giant_constant(), "shape_budget"),
    "as much as an event says": (hostile.sized_by_the_event(), "shape_budget"),
    "graphs in graphs": (hostile.nested(12), "too_deep"),
    "deeper than parsers go": (hostile.nested_without_end(), "not_onnx"),
    "weights that are NaN": (hostile.weighted([float("nan"), 1.0]), "not_finite_weights"),
    "2.4 GB, 60 MB each": (hostile.many_large(), "memory"),
    "a loop without an end": (hostile.endless_loop(), "timeout"),
}


def test_a_hostile_graph_is_refused_by_name_the_old_version_goes_on_and_the_next_good_one_serves(settings):
    looping = replace(PIPELINE, operators=["Loop", "If"])
    apply(settings, looping, 2)
    publisher = Publisher(settings, looping)
    publisher.settings = settings.model_copy(update={"model_memory_mb": 256, "onnx_timeout_s": 2.0})
    publisher.publish()
    with serving(publisher) as facts:
        facts.wait(Swapped, lambda fact: fact.version == 1)
        for round_, (what, (onnx, reason)) in enumerate(HOSTILE.items()):
            version = publisher.publish(onnx)
            send(publisher, 10 * round_, 10 * round_ + 10)  # it goes on while the hostile one is tried
            wait_for("predictions", lambda round_=round_: predicted(facts) == 10 * round_ + 10)
            refused = facts.wait(Refused, lambda fact, version=version: fact.version == version)
            assert refused.reason == reason, (what, refused)
        assert len(facts.of(Swapped)) == 1
        last = publisher.publish(linear([0.0, 0.0], bias=2.0))
        facts.wait(Swapped, lambda fact: fact.version == last)
    assert {prediction["version"] for prediction in predictions(publisher)} == {1}


def golden(*scores, columns=None):
    found = Golden(columns=COLUMNS if columns is None else columns, scores=scores)
    return lambda manifest: msgspec.structs.replace(manifest, golden=found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (golden(0.731, 0.9), "golden"),
        (golden(0.731), "bad_manifest"),
        (golden(), "bad_manifest"),
        (golden(*[0.731] * 21, columns={name: [1.0] * 21 for name in COLUMNS}), "bad_manifest"),
        (golden(0.731, 0.731, columns={"distance": [1.0, 2.0]}), "bad_manifest"),
        (golden(0.731, 0.731, columns={"distance": ["x", "y"], "wind": [1.0, 2.0]}), "bad_manifest"),
    ],
)
def test_a_version_that_answers_other_than_where_it_was_made_is_refused(settings, change, reason):
    apply(settings, PIPELINE, 2)
    publisher = Publisher(settings)
    sure = linear([0.0, 0.0], bias=1.0)
    with serving(publisher) as facts:
        version = publisher.publish(sure, change=change)
        assert facts.wait(Refused, lambda fact: fact.version == version).reason == reason
        version = publisher.publish(sure, change=golden(0.7310586, 0.7310586))
        facts.wait(Swapped, lambda fact: fact.version == version)
