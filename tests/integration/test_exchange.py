"""models from elsewhere → versions that serve; versions → MLflow's directories and registry. With mlflow itself."""

import hashlib
from contextlib import closing

import msgspec
import numpy as np
import onnx
import pytest
from kit import Facts, linear, manifest, read_all
from onnx import numpy_helper
from test_source import worker_of
from typer.testing import CliRunner

from headrace.infra.artifacts import Artifacts
from headrace.infra.cli.app import app
from headrace.infra.mlflow_model import write_model
from headrace.infra.names import REGISTRY, Names
from headrace.infra.pipeline_file import read_pipelines
from headrace.infra.services.changes.exchange import Exported, Imported, export_model, import_model
from headrace.infra.services.versions.catalog import version
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models import registry
from headrace.models.errors import BadInput
from headrace.models.facts import Swapped
from headrace.models.manifest import Blob, OffsetRange
from headrace.models.records import Published
from headrace.models.session import Session

FILE = """
from headrace import Binary, Number, Pipeline, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)
"""
GRAPH = linear([0.5, -0.25], bias=1.0)
ROWS = np.array([[0.0, 0.0], [1.0, 2.0], [-3.0, 0.5]], np.float32)
SCORES = 1 / (1 + np.exp(-(ROWS @ np.array([0.5, -0.25]) + 1.0)))


@pytest.fixture
def place(settings, tmp_path, monkeypatch):
    """A pipeline file whose topics are there; commands find this broker."""
    (tmp_path / "brought.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("HEADRACE_PREFIX", settings.prefix)
    monkeypatch.setenv("HEADRACE_HOME", str(settings.home))
    apply(settings, origin(tmp_path).pipeline, 2)
    return tmp_path


@pytest.fixture
def mlflow():
    return pytest.importorskip("mlflow", reason="mlflow is in headrace[mlflow], and in dev")


def origin(folder):
    file = read_pipelines(str(folder / "brought.py"))
    return Origin(file=file, pipeline=file.pipelines["delay"])


def model(*arguments, kind=None):
    done = CliRunner().invoke(app, ["model", *map(str, arguments), "--output", "json"])
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.stdout, type=kind) if kind else done.stdout


def refused(*arguments):
    done = CliRunner().invoke(app, ["model", *map(str, arguments)])
    assert done.exit_code == 1
    return str(done.exception)


def published(settings):
    records = [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))]
    return [record for record in records if isinstance(record, Published)]


def test_an_onnx_file_becomes_a_version_and_serves_when_it_is_promoted(settings, place):
    (place / "model.onnx").write_bytes(GRAPH)
    first = model("import", "brought.py", "model.onnx", "--why", "from the notebook", kind=Imported)
    assert (first.version, first.promoted) == (1, False)
    second = model("import", "brought.py", "model.onnx", "--promote", kind=Imported)
    assert (second.version, second.promoted) == (2, True)
    assert [(record.version, record.why) for record in published(settings)] == [
        (1, "from the notebook"),
        (2, "import of model.onnx"),
    ]
    names = Names(settings.prefix, origin(place).pipeline)
    made = version(settings, names, 2)
    assert made.aliases == ("champion",)
    assert (made.manifest.trigger, made.manifest.ranges, made.manifest.parent) == ("import of model.onnx", (), 0)
    with closing(Artifacts(settings)) as artifacts:
        assert artifacts.read(made.manifest.onnx) == GRAPH
    facts = Facts()
    with worker_of(settings, origin(place).pipeline, facts):
        facts.wait(Swapped, lambda fact: fact.version == 2)


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (b"no model", "expected an ONNX file"),
        (linear([1.0, 2.0, 3.0]), "wrong_inputs"),
        (linear([1.0, 2.0], name="features"), "wrong_inputs"),
    ],
    ids=["garbage", "three columns", "another name"],
)
def test_a_model_that_could_not_serve_is_refused_before_anything_is_written(settings, place, graph, why):
    (place / "model.onnx").write_bytes(graph)
    assert why in refused("import", "brought.py", "model.onnx")
    assert read_all(settings, settings.prefixed("headrace.artifacts")) == []


def test_a_model_that_mlflow_logged_is_imported_and_serves(settings, place, mlflow):
    import mlflow.onnx

    mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(onnx.load_model_from_string(GRAPH), name="net", save_as_external_data=True)
    folder = mlflow.artifacts.download_artifacts(logged.model_uri)
    done = model("import", "brought.py", folder, "--promote", kind=Imported)
    made = version(settings, Names(settings.prefix, origin(place).pipeline), done.version).manifest
    assert made.hyperparameters["mlflow_run_id"] == logged.run_id
    facts = Facts()
    with worker_of(settings, origin(place).pipeline, facts):
        facts.wait(Swapped, lambda fact: fact.version == done.version)


def test_weights_that_mlflow_keeps_beside_the_graph_go_into_it(settings, place, mlflow):
    import mlflow.onnx

    proto = onnx.load_model_from_string(GRAPH)
    wide = np.tile(np.array([[0.5], [-0.25]], np.float32) / 1_024, 1_024)
    proto.graph.initializer.extend(
        [numpy_helper.from_array(wide, "wide"), numpy_helper.from_array(np.ones((1_024, 1), np.float32), "sum")]
    )
    (product,) = [node for node in proto.graph.node if "weights" in node.input]
    product.input[:] = ["hidden", "sum"]
    proto.graph.node.insert(0, onnx.helper.make_node("MatMul", ["numbers", "wide"], ["hidden"]))
    mlflow.onnx.save_model(proto, str(place / "saved"), save_as_external_data=True)
    assert (place / "saved" / "model.onnx").stat().st_size < wide.nbytes, "the weights are beside it"
    done = model("import", "brought.py", "saved", kind=Imported)
    made = version(settings, Names(settings.prefix, origin(place).pipeline), done.version).manifest
    with closing(Artifacts(settings)) as artifacts:
        session = Session(artifacts.read(made.onnx), made.schema)
    columns = {"distance": ROWS[:, 0].astype(float), "wind": ROWS[:, 1].astype(float)}
    assert np.allclose(session.predict(columns, 3), SCORES, atol=1e-6)


def test_other_flavours_are_told_how_to_become_onnx(place):
    folder = place / "forest"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n  python_function: {}\n")
    why = refused("import", "brought.py", folder)
    assert "with the onnx flavour, it has ['python_function', 'sklearn']" in why
    assert "skl2onnx" in why


def test_a_directory_may_not_name_files_outside_of_itself(place):
    folder = place / "sly"
    folder.mkdir()
    (place / "model.onnx").write_bytes(GRAPH)
    (folder / "MLmodel").write_text("flavors: {onnx: {data: ../model.onnx}}")
    assert "expected a file of its directory" in refused("import", "brought.py", folder)


def test_what_is_exported_scores_the_same_in_mlflow_and_is_registered_once_with_its_lineage(settings, place, mlflow):
    import mlflow.onnx

    (place / "model.onnx").write_bytes(GRAPH)
    model("import", "brought.py", "model.onnx", "--promote")
    uri = f"sqlite:///{place}/mlflow.db"
    done = model("export", "brought.py", "--to", "out", "--mlflow", uri, kind=Exported)
    assert {path.name for path in (place / "out").iterdir()} == {
        "MLmodel",
        "model.onnx",
        "manifest.json",
        "requirements.txt",
        "python_env.yaml",
    }
    assert (place / "out" / "model.onnx").read_bytes() == GRAPH
    loaded = mlflow.pyfunc.load_model(str(place / "out"))
    assert np.allclose(loaded.predict({"numbers": ROWS})["prediction"], SCORES, atol=1e-6)
    assert [one.name for one in loaded.metadata.signature.inputs.inputs] == ["numbers"]
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    proto = mlflow.onnx.load_model("models:/delay@champion")
    assert hashlib.sha256(proto.SerializeToString()).hexdigest() == hashlib.sha256(GRAPH).hexdigest()
    client = mlflow.MlflowClient(uri, uri)
    registered = client.get_model_version("delay", done.registered.mlflow_version)
    tags = {name.removeprefix("headrace."): value for name, value in registered.tags.items()}
    assert (tags["version"], tags["parent"], tags["trigger"]) == ("1", "0", "import of model.onnx")
    assert tags["graph_sha256"] == done.graph_sha256
    again = model("export", "brought.py", "1", "--to", "again", "--mlflow", uri, kind=Exported)
    assert not again.registered.new
    assert again.registered.mlflow_version == done.registered.mlflow_version
    assert len(client.search_model_versions("name='delay'")) == 1


def test_lineage_metrics_and_parameters_are_in_mlflow_and_come_back_with_the_directory(settings, place, mlflow):
    """As of a trained version: from one cluster through a directory to another."""
    from headrace.infra.mlflow_registry import register_model

    pipeline, sha256 = origin(place).pipeline, hashlib.sha256(GRAPH).hexdigest()
    blob = Blob(sha256=sha256, size=len(GRAPH), partition=0, offset=0, chunks=1)
    trained = msgspec.structs.replace(
        manifest(pipeline, 7, blob, created_at="2013-07-04T12:00:00Z", trigger="cron", git_commit="abc-dirty"),
        ranges=(OffsetRange(topic="delay.served", partition=0, first=3, end=900),),
        hyperparameters={"epochs": 3, "seed": 7},
        metrics={"roc_auc": 0.75},
        champion_metrics={"roc_auc": 0.5},
        dataset_sha256="d" * 64,
        parent=6,
    )
    write_model(place / "seven", trained, GRAPH)
    uri = f"sqlite:///{place}/mlflow.db"
    done = register_model(uri, trained, place / "seven", ["champion", "eu-west"])
    client = mlflow.MlflowClient(uri, uri)
    run = client.get_run(done.run_id)
    assert run.data.metrics == {"roc_auc": 0.75, "champion_roc_auc": 0.5}
    assert run.data.params == {"epochs": "3", "seed": "7"}
    tags = client.get_model_version("delay", done.mlflow_version).tags
    assert tags["headrace.ranges"] == "delay.served/0 3..900"
    assert (tags["headrace.git_commit"], tags["headrace.dataset_sha256"]) == ("abc-dirty", "d" * 64)
    assert str(client.get_model_version_by_alias("delay", "eu-west").version) == done.mlflow_version

    imported = import_model(settings, origin(place), place / "seven")
    assert imported.origin == "import of delay version 7"
    again = version(settings, Names(settings.prefix, pipeline), imported.version).manifest
    assert (again.metrics, again.hyperparameters, again.dataset_sha256) == (
        trained.metrics,
        trained.hyperparameters,
        trained.dataset_sha256,
    )
    assert (again.version, again.parent, again.ranges) == (1, 0, ())


def test_an_export_overwrites_nothing(settings, place):
    (place / "model.onnx").write_bytes(GRAPH)
    model("import", "brought.py", "model.onnx")
    (place / "out").mkdir()
    export_model(settings, origin(place), 1, place / "out")
    with pytest.raises(BadInput, match="not there yet or is empty"):
        export_model(settings, origin(place), 1, place / "out")


def test_mlflow_s_own_refusal_is_one_sentence(settings, place, mlflow):
    (place / "model.onnx").write_bytes(GRAPH)
    model("import", "brought.py", "model.onnx")
    assert "--mlflow nosuch://there" in refused(
        "export", "brought.py", "1", "--to", "out", "--mlflow", "nosuch://there"
    )
