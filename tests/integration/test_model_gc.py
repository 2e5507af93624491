"""`headrace model gc` on a real broker: what is needed stays readable, whatever dies in between."""

import os
import subprocess
import sys
from contextlib import closing

import msgspec
import numpy as np
import onnx
import pytest
from kit import Facts, linear, read_all, transaction, wait_for
from msgspec.structs import replace
from onnx import numpy_helper
from test_source import worker_of
from test_swap import PIPELINE, Publisher
from typer.testing import CliRunner

from headrace.infra.artifacts import CHUNK, Artifacts, put, write_blob
from headrace.infra.cli.app import app
from headrace.infra.names import ARTIFACTS, REGISTRY
from headrace.infra.services.changes.artifact_gc import Plan, collect
from headrace.infra.topics import apply
from headrace.models import manifest as manifests
from headrace.models import registry
from headrace.models.errors import BadInput, BrokerUnavailable, RegistryRefused
from headrace.models.facts import Refused, Swapped
from headrace.models.pipeline import Pipeline
from headrace.models.records import Archived, Published, Relocated

OTHER = Pipeline(name="other", events=PIPELINE.events, features=PIPELINE.features, label=PIPELINE.label)
STEPS = ["planned", "copied", "recorded", "deleting", "deleted"]


class Line(Publisher):
    """A pipeline's versions, whose graphs are large beside their manifests."""

    def __init__(self, settings, pipeline=PIPELINE):
        super().__init__(settings, pipeline)
        self.graphs = {}

    def make(self):
        sources = put(self.settings, f"sources of {self.pipeline.name} {self.version + 1}".encode())
        data = graph(self.pipeline.name, self.version + 1)
        number = self.publish(data, change=lambda made: replace(made, sources=sources))
        self.graphs[number] = data
        return number

    def archive(self, number):
        self.producer.begin_transaction()
        self._write(Archived(**self._record() | {"version": number}))


def graph(name, version):
    """Of three chunks and a little, by weights that nothing uses."""
    proto = onnx.load_model_from_string(linear([0.0, float(version)], bias=1.0))
    idle = np.random.default_rng([version, *name.encode()]).normal(0, 1, CHUNK * 3 // 4).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(idle, "idle"))
    return proto.SerializeToString()


@pytest.fixture
def lines(settings):
    """Two pipelines on one topic; the first versions of one are archived, and an import came to nothing."""
    for pipeline in (PIPELINE, OTHER):
        apply(settings, pipeline, 2)
    first, second = Line(settings), Line(settings, OTHER)
    first.producer = second.producer  # of the same name, so the newer has fenced the older
    first.make()
    first.make()
    second.make()
    put(settings, os.urandom(2 * CHUNK))
    first.make()
    second.make()
    for number in (1, 2):
        first.archive(number)
    return first, second


def records(settings):
    return [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))]


def size(settings):
    return sum(len(message.value()) for message in read_all(settings, settings.prefixed(ARTIFACTS)))


def expect_readable(settings, *lines):
    """Everything but graphs of archived versions."""
    archived = {(one.pipeline, one.version) for one in records(settings) if isinstance(one, Archived)}
    by_name = {line.pipeline.name: line for line in lines}
    with closing(Artifacts(settings)) as artifacts:
        for record in records(settings):
            if isinstance(record, Published):
                made = manifests.decode(artifacts.read(record.manifest))
                assert artifacts.read(made.sources) == f"sources of {record.pipeline} {record.version}".encode()
                if (record.pipeline, record.version) not in archived:
                    assert artifacts.read(made.onnx) == by_name[record.pipeline].graphs[record.version]


def test_archived_graphs_and_leftovers_go_and_all_else_stays_readable(settings, lines):
    first, second = lines
    before = size(settings)
    done = collect(settings, keep_ms=0)
    assert (done.bytes_before, done.bytes_after) == (before, size(settings))
    assert before - done.bytes_after > 3 * CHUNK
    assert done.archived == 2
    expect_readable(settings, first, second)
    with closing(Artifacts(settings)) as artifacts:
        old = next(one for one in records(settings) if isinstance(one, Published))
        with pytest.raises(RegistryRefused, match="missing_chunks"):
            artifacts.read(manifests.decode(artifacts.read(old.manifest)).onnx)
    again = collect(settings, keep_ms=0)
    assert (again.cut, again.copied) == (again.begin, 0), "a second one finds nothing to gain"
    first.make()
    expect_readable(settings, first, second)


def test_a_dry_run_and_what_is_young_change_nothing(settings, lines):
    before, known = size(settings), records(settings)
    plan = collect(settings, keep_ms=0, dry_run=True)
    assert plan.bytes_after < plan.bytes_before
    young = collect(settings)
    assert young.cut == young.begin
    assert (size(settings), records(settings)) == (before, known)


def test_the_command_says_what_it_would_do_and_does_it_when_told(settings, lines, monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("HEADRACE_PREFIX", settings.prefix)
    before = size(settings)
    arguments = ["model", "gc", "--older-than", "1s", "--output", "json"]

    def run(*further):
        done = CliRunner().invoke(app, [*arguments, *further])
        assert done.exit_code == 0, done.output
        return msgspec.json.decode(done.stdout, type=Plan)

    wait_for("a second to pass", lambda: run().cut > run().begin)
    assert size(settings) == before
    done = run("--yes")
    assert size(settings) == done.bytes_after < before
    expect_readable(settings, *lines)


def test_only_the_archived_versions_of_the_pipeline_that_is_named_lose_their_graphs(settings, lines):
    plan = collect(settings, pipeline="other", keep_ms=0, dry_run=True)
    assert plan.archived == 0
    assert collect(settings, pipeline="delay", keep_ms=0, dry_run=True).archived == 2


DRIVER = """
import signal, sys
from headrace.infra.services.changes import artifact_gc
from headrace.infra.settings import Settings

artifact_gc._TOGETHER = 2  # several transactions

def said(step):
    print(step, flush=True)
    if step == sys.argv[1]:
        signal.pause()

artifact_gc.collect(Settings.load(), keep_ms=0, said=said)
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_gc_that_is_killed_after_any_step_loses_nothing_and_the_next_one_finishes(settings, lines, step):
    environment = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "HEADRACE_PREFIX": settings.prefix,
        "HEADRACE_HOME": str(settings.home),
    }
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, step], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        heard = []
        for line in process.stdout:
            heard.append(line.strip())
            if line.strip() == step:
                break
        process.kill()
    assert heard[-1] == step, heard
    first, _ = lines
    expect_readable(settings, *lines)
    first.make()  # life goes on
    expect_readable(settings, *lines)
    collect(settings, keep_ms=0)
    expect_readable(settings, *lines)
    assert size(settings) < 14.5 * CHUNK  # of 20: two graphs are gone, one leftover is not worth the copy before it
    facts = Facts()
    with worker_of(settings, PIPELINE, facts):
        facts.wait(Swapped, lambda fact: fact.version == 4)
    assert facts.of(Refused) == []


def test_an_older_gc_that_wakes_up_is_fenced_and_names_no_place_that_is_gone(settings, lines):
    """It was asleep with its copies written and not committed, while another one did all of the work."""

    def asleep(step):
        if step == "copied":
            collect(settings, keep_ms=0)

    with pytest.raises(BrokerUnavailable, match="nothing is lost"):
        collect(settings, keep_ms=0, said=asleep)
    expect_readable(settings, *lines)


def test_what_is_published_while_a_gc_works_is_kept(settings, lines):
    first, second = lines
    steps = []

    def meanwhile(step):
        steps.append(step)
        if step in ("planned", "recorded"):
            first.make()
            second.make()

    collect(settings, keep_ms=0, said=meanwhile)
    assert steps[-1] == "deleted"
    expect_readable(settings, first, second)


def test_an_artifact_of_an_open_transaction_is_behind_the_cut(settings, lines):
    with transaction(settings, "leader-of-a-third") as producer:
        blob = write_blob(producer, settings.prefixed(ARTIFACTS), b"not committed yet" * CHUNK)
        collect(settings, keep_ms=0)
    with closing(Artifacts(settings)) as artifacts:
        assert artifacts.read(blob) == b"not committed yet" * CHUNK


def test_a_manifest_that_this_headrace_does_not_understand_stops_it(settings, lines):
    first, _ = lines
    number = first.publish(data=b'{"from":"the future"}')
    with pytest.raises(BadInput, match=rf"version {number} says nothing to this headrace"):
        collect(settings, keep_ms=0)
    first.promote(3)
    first.archive(number)
    collect(settings, keep_ms=0)
    expect = [one for one in records(settings) if isinstance(one, Relocated)]
    assert all(one.pipeline == "" and len(msgspec.json.encode(one)) <= 4_096 for one in expect)


def test_records_that_point_at_nothing_do_not_stop_it(settings, lines):
    first, _ = lines
    first.publish(place=lambda blob: replace(blob, offset=1_000_000))
    first.publish(change=lambda made: replace(made, onnx=replace(made.onnx, sha256="0" * 64, offset=0)))
    first.raw(b"garbage", b'{"kind":"relocated"}')
    assert collect(settings, keep_ms=0).cut > 0


def test_a_record_of_a_copy_that_is_not_there_makes_nobody_lose_anything(settings, lines):
    first, _ = lines
    with closing(Artifacts(settings)) as artifacts:
        old = next(one for one in records(settings) if isinstance(one, Published) and one.pipeline == "other").manifest
        graph_there = manifests.decode(artifacts.read(old)).onnx
    for offset in (1 << 40, 0, read_all(settings, settings.prefixed(ARTIFACTS))[-1].offset()):
        false = tuple(replace(blob, offset=offset) for blob in (old, graph_there))
        first.raw(msgspec.json.encode(Relocated(pipeline="", seq=0, at="", by="nobody", blobs=false)))
    expect_readable(settings, *lines)
    collect(settings, keep_ms=0)
    expect_readable(settings, *lines)
