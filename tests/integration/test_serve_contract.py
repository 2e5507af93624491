"""`headrace serve` against its own OpenAPI description, behind keys, and as a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from kit import linear, wait_for
from test_serve import EVENT, ROW, Client, infer_body, server_of
from test_swap import PIPELINE, Publisher
from tritonclient.utils import InferenceServerException

from headrace.infra.api_keys import ApiKeys
from headrace.infra.processes.registered import living
from headrace.infra.processes.together import environment
from headrace.infra.topics import apply
from headrace.trainer.priority import are_sessions_groups

_EXAMPLES = 20  # of each operation, beside those that cover each constraint
_CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance"
FILE = """
from headrace import Binary, Number, Pipeline, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance"), Number("wind")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop", prior=0.25),
)
"""


@pytest.fixture
def published(settings):
    apply(settings, PIPELINE)
    Publisher(settings, PIPELINE).publish(linear([0.5, -0.25]))
    return settings


def test_schemathesis_finds_no_500_and_no_answer_that_the_description_does_not_know(published, tmp_path):
    """503 and 504 are answers: a deadline of 1 ms is one that the description allows."""
    (tmp_path / "schemathesis.toml").write_text(
        "[checks.not_a_server_error]\nexpected-statuses = ['2xx', '4xx', 503, 504]\n"
    )
    with server_of(published, PIPELINE) as (_, client):
        url = f"http://127.0.0.1:{client.port}/openapi.json"
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", url, "--checks", _CHECKS]
        more = ["--max-examples", str(_EXAMPLES), "--phases", "coverage,fuzzing", "--seed", "7", "--no-color"]
        ran = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
        assert ran.returncode == 0, ran.stdout[-5_000:] + ran.stderr[-2_000:]
        assert "Tested: 14" in ran.stdout
        assert client.post("/v2/models/delay/infer", infer_body(ROW))[0] == 200


def test_the_page_needs_no_network(published):
    with server_of(published, PIPELINE) as (_, client):
        status, page = client.get("/docs")
        assert (status, page.count(b"<tr><td>")) == (200, 14)
        assert b"//" not in page.replace(b"<!doctype", b"")


def test_keys_say_who_may_do_what_over_http_and_grpc(published):
    keys = ApiKeys(published.api_keys)
    tokens = {role: keys.add(role, role)[1] for role in ("read", "predict", "operate")}
    with server_of(published, PIPELINE) as (server, client):
        asked = {
            "read": lambda **headers: client("GET", "/v2/models/delay", headers=headers)[0],
            "predict": lambda **headers: client("POST", "/v1/pipelines/delay/predict", EVENT, headers)[0],
            "operate": lambda **headers: client("POST", "/v1/pipelines/delay/retrain", None, headers)[0],
        }
        answers = {"read": [200, 403, 403], "predict": [200, 200, 403], "operate": [200, 200, 202]}
        for role, token in tokens.items():
            assert [ask(Authorization=f"Bearer {token}") for ask in asked.values()] == answers[role]
        assert [ask() for ask in asked.values()] == [401, 401, 401]
        assert client.get("/v2/health/ready")[0] == 200  # probes have no key
        assert client("GET", "/v2")[2]["www-authenticate"] == "Bearer"
        given = tritonclient.grpc.InferInput("numbers", [1, 2], "FP32")
        given.set_data_from_numpy(np.array([ROW], np.float32))
        remote = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        assert remote.is_server_ready()
        for headers, code in ((None, "UNAUTHENTICATED"), ({"authorization": f"Bearer {tokens['read']}"}, "PERMISSION")):
            with pytest.raises(InferenceServerException, match=code):
                remote.infer("delay", [given], headers=headers)
        trusted = {"authorization": f"Bearer {tokens['predict']}"}
        assert remote.infer("delay", [given], headers=trusted).as_numpy("prediction").shape == (1,)
        (entry,) = [key for key in keys.all() if key.role == "predict"]
        ApiKeys(published.api_keys).revoke(entry.id)
        predict = asked["predict"]
        wait_for("the revocation", lambda: predict(Authorization=f"Bearer {tokens['predict']}") == 401)


def test_another_site_s_page_and_another_host_s_name_are_refused(published):
    with server_of(published, PIPELINE, allow_hosts=("models.example.com",)) as (_, client):
        path = "/v2/models/delay/infer"
        assert client.post(path, infer_body(ROW), Host="models.example.com")[0] == 200
        assert client.post(path, infer_body(ROW), Host="evil.example.com")[0] == 403
        assert client.post(path, infer_body(ROW), Origin="https://evil.example.com")[0] == 403
        status, _, headers = client("OPTIONS", path, headers={"Origin": "https://evil.example.com"})
        assert (status, [name for name in headers if name.startswith("access-control")]) == (405, [])


def test_the_command_serves_and_ends_in_order(published, tmp_path):
    (tmp_path / "delay.py").write_text(FILE)
    place = environment(published)
    metrics = ["--port", "0", "--grpc-port", "0", "--drain-seconds", "0"]
    command = [sys.executable, "-m", "headrace.infra.cli", "serve", str(tmp_path / "delay.py"), *metrics]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=place, stdout=log, stderr=log, cwd=tmp_path)
    try:
        said = (tmp_path / "log").read_text
        wait_for("the server", lambda: "REST on http://127.0.0.1:" in said() or process.poll() is not None)
        client = Client(int(said().partition("REST on http://127.0.0.1:")[2].partition(",")[0]))
        assert client.post("/v2/models/delay/infer", infer_body(ROW))[1]["model_version"] == "1"
        (found,) = [one for one in living(published.home) if one.role == "serve"]
        serving = psutil.Process(found.process.pid)
        assert process.pid in (serving.pid, serving.ppid())  # a child with a session of its own, where those count
        assert os.getsid(serving.pid) == serving.pid or not are_sessions_groups()
        status, metrics_page, _ = Client(found.metrics_port)("GET", "/metrics")
        assert status == 200
        for name in ("headrace_serve_request_seconds_bucket", "headrace_serve_stage_seconds_bucket"):
            assert name.encode() in metrics_page
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0, said()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert [one for one in living(published.home) if one.role == "serve"] == []


def test_the_command_says_in_one_line_why_it_does_not_listen_to_everybody(published, tmp_path):
    (tmp_path / "delay.py").write_text(FILE)
    command = [sys.executable, "-m", "headrace.infra.cli", "serve", str(tmp_path / "delay.py"), "--host", "0.0.0.0"]  # noqa: S104
    ran = subprocess.run(command, env=environment(published), capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1
    assert "expected API keys where others than this machine may ask" in ran.stderr.splitlines()[-1]
