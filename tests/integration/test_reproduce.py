"""a version → trained again from what its manifest says → equal, or where it parts."""

import os
from contextlib import ExitStack, closing, contextmanager

import msgspec
import pytest
from confluent_kafka import TopicPartition
from kit import Facts, produce, read_all
from msgspec.structs import replace
from test_leader import FILE, HOUR, NET, NOON, PIPELINE, ask, serve_and_label
from typer.testing import CliRunner

from headrace.infra.artifacts import Artifacts, put
from headrace.infra.cli.app import app
from headrace.infra.kafka import admin
from headrace.infra.names import ARTIFACTS, REGISTRY, Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.processes.scheduler import LeaderThread
from headrace.infra.services.runs.reproduce import Reproduction, _expected_sources, reproduce
from headrace.infra.services.versions.catalog import version
from headrace.infra.sources import contents
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models import registry
from headrace.models.errors import BadInput
from headrace.models.facts import RunEnded
from headrace.models.records import Published, Relocated
from headrace.trainer.process import Trainer

LEARNS = FILE.replace("MOOD.read_text()", '"good"')  # an archive has no data files


@contextmanager
def leading(settings, folder, facts, file):
    (folder / "moody.py").write_text(file)
    (folder / "moody_net.py").write_text(NET)
    with ExitStack() as stack:
        trainer = stack.enter_context(Trainer())
        thread = LeaderThread(settings, origin(folder), trainer, facts)
        thread.start()
        stack.callback(thread.stop)
        yield


def trained(settings, folder, *runs, file=LEARNS):
    """Versions of real trainings, each on the rows up to so many hours from noon."""
    facts = Facts()
    with leading(settings, folder, facts, file):
        for run, hours in runs:
            ask(settings, run, NOON + hours * HOUR, on_demand=True)
            ended = facts.wait(RunEnded, lambda fact, run=run: fact.run == run)
            assert ended.outcome == "promoted", ended
    return origin(folder)


def origin(folder):
    file = read_pipelines(str(folder / "moody.py"))
    return Origin(file=file, pipeline=file.pipelines["delay"])


@pytest.fixture
def made(settings, tmp_path):
    """Two versions; the second was judged against the first."""
    apply(settings, PIPELINE)
    serve_and_label(settings, 400)
    return trained(settings, tmp_path, ("a", 300), ("b", 401))


def registry_records(settings):
    return [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))]


def manifest_of(settings, number):
    return version(settings, Names(settings.prefix, PIPELINE), number).manifest


def command(settings, monkeypatch, *arguments):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("HEADRACE_PREFIX", settings.prefix)
    monkeypatch.setenv("HEADRACE_HOME", str(settings.home))
    return CliRunner().invoke(app, ["model", "reproduce", *arguments, "--output", "json"])


def test_a_manifest_says_all_that_made_its_version(settings, made, tmp_path):
    first, second = manifest_of(settings, 1), manifest_of(settings, 2)
    assert (first.parent, second.parent, first.run, second.run) == (0, 1, "a", "b")
    assert first.sources == second.sources, "the same sources are on the topic once"
    with closing(Artifacts(settings)) as artifacts:
        files = contents(artifacts.read(first.sources))
    assert files == {name: (tmp_path / name).read_bytes() for name in ("moody.py", "moody_net.py")}
    assert second.pipeline_file == "moody.py:delay"
    assert second.as_of == "2013-07-21T05:00:00Z"
    assert second.libraries.keys() >= {"headrace", "python", "numpy", "onnx", "onnxruntime", "torch"}
    assert (second.platform, second.hyperparameters["seed"]) != ("", None)
    assert {part.topic: part.end - part.first for part in second.ranges}[Names(settings.prefix, PIPELINE).labels] == 400
    assert second.dataset_sha256
    assert second.created_by


def test_a_version_that_is_trained_again_is_the_same_to_the_bit(settings, made, tmp_path, monkeypatch):
    before = registry_records(settings)
    for number in (1, 2):
        found = reproduce(settings, made, number)
        assert found.equal, found
        assert found.graph_sha256[0] == found.graph_sha256[1]
        assert found.dataset_sha256[0] == found.dataset_sha256[1]
        assert found.champion_metrics["roc_auc"][0] == found.champion_metrics["roc_auc"][1]
        assert (found.max_difference, found.libraries, found.parent) == (0.0, {}, number - 1)
    assert registry_records(settings) == before
    assert list(settings.home.glob("reproduce-*")) == []
    done = command(settings, monkeypatch, str(tmp_path / "moody.py"), "2")
    assert done.exit_code == 0, done.output
    assert msgspec.json.decode(done.stdout, type=Reproduction).reason == "the same graph, to the bit"


def test_the_recorded_sources_are_run_only_where_that_is_asked_for(settings, made, tmp_path):
    net = tmp_path / "moody_net.py"
    net.write_text(net.read_text() + "\nraise RuntimeError('the code of today')\n")
    here = origin(tmp_path)
    with pytest.raises(BadInput, match=r"moody_net\.py differ.*--recorded-sources"):
        reproduce(settings, here, 2)
    assert reproduce(settings, here, 2, run_recorded=True).equal


def test_code_that_is_not_the_same_every_time_is_told_by_its_scores(settings, tmp_path, monkeypatch):
    apply(settings, PIPELINE)
    serve_and_label(settings, 400)
    count = tmp_path / "count"
    count.write_text("1")
    changing = LEARNS.replace("epochs=3", "epochs=int(open(os.environ['COUNT']).read())")
    monkeypatch.setitem(os.environ, "COUNT", str(count))
    trained(settings, tmp_path, ("a", 401), file=changing)
    count.write_text("3")
    done = command(settings, monkeypatch, str(tmp_path / "moody.py"), "1")
    assert done.exit_code == 3, done.output
    found = msgspec.json.decode(done.stdout, type=Reproduction)
    assert not found.equal
    assert found.reason.startswith("the same rows gave another model")
    assert found.max_difference > 1e-6
    then, now = found.metrics["log_loss"]
    assert then != now


def test_rows_that_retention_took_are_named(settings, made):
    names = Names(settings.prefix, PIPELINE)
    client, place = admin(settings), TopicPartition(names.labels, 0, 150)
    client.delete_records([place])[place].result(30)
    with pytest.raises(BadInput, match=r"arrivals/0 from 0 to 400, it begins at 150 now: 150 offsets are gone"):
        reproduce(settings, made, 2)


def test_what_was_not_trained_here_is_not_trained_again(settings, made):
    known = manifest_of(settings, 2)
    with closing(Artifacts(settings)) as artifacts:
        for change, why in (
            ({"ranges": ()}, "was not trained here"),
            ({"sources": None}, "without its sources"),
            ({"pipeline_file": "../other.py:delay"}, "lack '../other.py:delay'"),
        ):
            with pytest.raises(BadInput, match=why):
                _expected_sources(replace(known, **change), made, artifacts, run_recorded=True)


def test_a_version_whose_parent_is_gone_is_judged_against_the_baseline(settings, made):
    """Of the first version only manifest and sources were copied on before its chunks went, as `model gc` does."""
    records = [record for record in registry_records(settings) if isinstance(record, Published)]
    with closing(Artifacts(settings)) as artifacts:
        kept = [artifacts.read(blob) for blob in (records[0].manifest, manifest_of(settings, 1).sources)]
    moved = Relocated(pipeline="", seq=0, at="", by="test", blobs=tuple(put(settings, data) for data in kept))
    produce(settings, settings.prefixed(REGISTRY), [{"value": msgspec.json.encode(moved)}])
    client = admin(settings)
    place = TopicPartition(settings.prefixed(ARTIFACTS), 0, manifest_of(settings, 2).onnx.offset)
    client.delete_records([place])[place].result(30)
    found = reproduce(settings, made, 2)
    assert found.equal
    assert "judged against the baseline, as version 1 is gone: missing_chunks" in found.remarks[0]
    then, now = found.champion_metrics["log_loss"]
    assert then != now
