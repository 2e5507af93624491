"""The comparison of servers, small: real processes that answer right, wrong or not at all, and real load generators."""

import shutil
import sys
from pathlib import Path

import pytest

from headrace.infra.bench.peers import SERVERS
from headrace.infra.bench.run import Options, run_bench
from headrace.infra.bench.serve import compare, load
from headrace.infra.bench.serve.headrace_serve import headrace_server
from headrace.infra.bench.serve.peer_servers import peer_servers
from headrace.infra.bench.serve.servers import Launched, Questions, Server, answering, inference_protocol
from headrace.infra.bench.session import Session
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, HeadraceError, ServerMissing

# The Open Inference Protocol in a few lines: the model's scores plus --off, each after --ms.
PROGRAM = """
import argparse, json, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np, onnxruntime

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--model")
parser.add_argument("--off", type=float, default=0)
parser.add_argument("--ms", type=float, default=0)
given = parser.parse_args()
session = onnxruntime.InferenceSession(given.model)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): ...
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"][0]
        time.sleep(given.ms / 1000)
        numbers = np.array(asked["data"], np.float32).reshape(asked["shape"])
        score = session.run(None, {"numbers": numbers})[0].tolist()[0] + given.off
        body = json.dumps({"outputs": [{"data": [score]}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(ThreadingHTTPServer):
    request_queue_size = 128

Server(("127.0.0.1", given.port), Handler).serve_forever()
"""


@pytest.fixture
def session(tmp_path):
    said = []
    yield Session(settings=Settings(home=tmp_path), servers={}, say=said.append)
    print("\n".join(said))  # noqa: T201  shown where a test fails


@pytest.fixture
def server(tmp_path, session):
    program, model = tmp_path / "program.py", tmp_path / "model.onnx"
    program.write_text(PROGRAM, encoding="utf-8")
    model.write_bytes(session.graph)

    def named(name, **settings):
        def launched(options, port, folder):
            command = [sys.executable, str(program), "--port", str(port), "--model", str(model), *options]
            return Launched(command=command, environment={"PYTHONPATH": "", "PATH": "/usr/bin:/bin"}, folder=folder)

        return Server(
            name=name, question=inference_protocol("mlp"), settings=settings or {"plain": ()}, launched=launched
        )

    return named


@pytest.fixture
def generators(tmp_path):
    try:
        return load.found(tmp_path)
    except ServerMissing as error:
        pytest.skip(str(error))


def test_a_server_is_compared_in_its_fastest_setting_and_an_absent_one_says_why(
    tmp_path, session, server, generators, monkeypatch
):
    monkeypatch.setattr(compare, "_SECONDS", 1.0)
    monkeypatch.setattr(compare, "_WARM_SECONDS", 1.0)
    servers = [
        server("headrace"),
        server("mlserver", quick=("--ms", "20"), slow=("--ms", "60")),
        *(one for one in peer_servers(tmp_path, tmp_path / "model.onnx") if one.name == "bentoml"),
    ]
    names = ["serve_rate_mlserver", "serve_p99_mlserver", "serve_rate_bentoml"]
    rate, absent, tail = compare.compare(session, generators, servers, rounds=1, names=names)
    assert (rate.name, len(rate.runs), rate.better) == ("serve_rate_mlserver", 2, "higher")
    assert (tail.name, len(tail.runs), tail.better) == ("serve_p99_mlserver", 2, "lower")
    assert absent.measured is None
    assert "not installed" in absent.detail["skipped"]
    found = session.reports["serve"]["servers"]["mlserver"]
    assert found["setting"] == "quick"
    assert found["tried"]["quick"] > found["tried"]["slow"] > 0
    speed = found["at_full_load"][0]["64 connections"]
    assert (speed["refused"], speed["failed"]) == (0, 0)
    assert 20 < speed["p50_ms"] <= speed["p99_ms"]
    assert speed["cpu_seconds_per_1000"] > 0
    assert found["at_the_rate"][0]["requests_per_second"] > 0


def test_headrace_serve_answers_all_rows_as_onnxruntime_does(settings, tmp_path):
    session = Session(settings=settings, servers={}, say=lambda _: None)
    (options,) = (server := headrace_server(session)).settings.values()
    with answering(server, options, tmp_path / "headrace", Questions(session.graph)) as running:
        assert running.url.endswith("/infer")


def test_a_server_that_answers_other_scores_takes_no_part(session, server, tmp_path):
    wrong = server("headrace")
    with (
        pytest.raises(HeadraceError, match="expected the score"),
        answering(wrong, ("--off", "0.001"), tmp_path / "wrong", Questions(session.graph)),
    ):
        pass


def test_a_server_that_ends_says_its_last_words(session, server, tmp_path):
    with (
        pytest.raises(HeadraceError, match="unrecognized arguments: --what"),
        answering(server("headrace"), ("--what",), tmp_path / "ended", Questions(session.graph)),
    ):
        pass


def test_where_no_load_generator_is_installed_the_error_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ServerMissing, match=r"apt-get install wrk.* cargo install oha --version"):
        load.found(tmp_path)


def test_what_was_answered_with_an_error_is_not_counted():
    line = b'{"requests":90,"seconds":2.0,"refused":30,"failed":1,"p50_ms":1.0,"p99_ms":2.0}\n'
    assert load.counted(b"Running\n" + line).rate == 30


def test_rows_are_chosen_by_a_pattern_and_a_wrong_one_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"got nothing_\*"):
        run_bench(Settings(home=tmp_path), Options(home=tmp_path, only=["serve_*", "nothing_*"]), None)


def test_each_peer_has_a_program_and_settings(tmp_path):
    servers = {server.name: server for server in peer_servers(tmp_path, tmp_path / "model.onnx")}
    assert set(servers) == {peer.name for peer in SERVERS} == set(compare.PEERS)
    assert all(server.settings for server in servers.values())
    for peer in SERVERS:
        assert (Path(compare.__file__).parents[1] / "peers" / peer.script).is_file()
