"""The command line as its users have it: real processes, a real broker, a real Redis."""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from kit import read_all, wait_for

from headrace import Binary, Number, Pipeline, Topic
from headrace.infra.names import Names
from headrace.infra.services.changes.ask import leads_anyone
from headrace.infra.services.start.scaffold import init
from headrace.infra.settings import Settings

_SECONDS = 60.0  # a command takes one; a broken one must not take the whole run's time
_TOLD = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "HEADRACE_PREFIX", "HEADRACE_HOME", "COLUMNS")

STRICT = """
from dataclasses import replace

import orders as base
from headrace.models.protocols import Verdict


class Nobody:
    def judge(self, evidence):
        return Verdict(promote=False, reason="nobody is good enough", numbers={})

orders = replace(base.orders, gate=Nobody())
"""


class Cli:
    """`headrace …` in a folder, told where the servers are by the environment alone."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        told = {
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "REDIS_URL": settings.redis_url,
            "HEADRACE_PREFIX": settings.prefix,
            "HEADRACE_HOME": str(settings.home),
        }
        self.environment = {name: value for name, value in os.environ.items() if name not in _TOLD} | {
            name: value for name, value in told.items() if value is not None
        }

    def __call__(self, *arguments: str, code: int = 0, given: str | None = None) -> "Said":
        done = subprocess.run(
            [sys.executable, "-m", "headrace.infra.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == code, f"headrace {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return Said(done.stdout, done.stderr)

    def refused(self, *arguments: str, given: str | None = None) -> str:
        """The one sentence, without a traceback; processes may have logged a line before it."""
        said = self(*arguments, code=1, given=given)
        assert said.out == ""
        lines = [line for line in said.err.strip().splitlines() if " INFO headrace" not in line]
        assert len(lines) == 1, said.err
        assert lines[0].startswith("headrace: ")
        return lines[0]

    @contextmanager
    def running(self, *arguments: str):
        """Until the block's end, where SIGTERM ends it in order."""
        log = self.folder / f"{arguments[0]}-{uuid.uuid4().hex[:6]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace.infra.cli", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            rest, _ = process.communicate(timeout=_SECONDS)
            assert process.returncode == 0, rest + log.read_text()


class Said:
    def __init__(self, out: str, err: str) -> None:
        self.out, self.err = out, err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


def names_of(cli: Cli) -> Names:
    """As the file's pipeline has them: read here, it would stay on this process's import path."""
    deliveries = Topic("deliveries", id="order_id", time="delivered_at")
    return Names(
        cli.settings.prefix,
        Pipeline(
            name="orders",
            events=Topic("orders", id="order_id", time="ordered_at"),
            features=[Number("weight")],
            label=Binary(deliveries, "days_late", within="14d", if_absent="drop"),
        ),
    )


@pytest.fixture
def cli(settings, tmp_path):
    """In a folder with the pipeline that `headrace init` writes, and its rows."""
    init(tmp_path / "orders", "orders")
    return Cli(settings, tmp_path / "orders")


@pytest.fixture(scope="module")
def trade(servers, tmp_path_factory):
    """The same after a while: its rows are on the topics, and all its orders are predicted."""
    folder = tmp_path_factory.mktemp("trade")
    init(folder, "orders")
    (folder / "strict.py").write_text(STRICT)
    prefix = f"t{uuid.uuid4().hex[:10]}."
    settings = Settings(bootstrap_servers=servers.bootstrap_servers, prefix=prefix, home=folder / "home")
    cli = Cli(settings, folder)
    cli("apply", "orders.py")
    cli("produce", "orders", "events.jsonl", "--key", "order_id")
    cli("produce", "deliveries", "labels.jsonl")
    with cli.running("worker", "orders.py"):
        cli("subscribe", "orders.py", "--from", "beginning", "--count", "800")
    return cli


# ── topics and records ────────────────────────────────────────────────────────────────────────────────────────────────


def test_apply_creates_topics_once_and_refuses_those_that_differ(cli):
    first = cli("apply", "orders.py", "--partitions", "2", "--output", "json").lines
    again = cli("apply", "orders.py", "--output", "json").lines
    assert {one["created"] for one in first} == {True}
    assert {one["created"] for one in again} == {False}
    assert [one["topic"] for one in first] == [one["topic"] for one in again]
    assert {one["topic"]: one["partitions"] for one in again}[f"{cli.settings.prefix}orders.predictions"] == 2
    assert "has 2 partitions, asked for 3" in cli.refused("apply", "orders.py", "--partitions", "3")


def test_a_file_with_a_line_that_is_no_json_is_refused_by_its_number_and_nothing_of_it_is_sent(cli):
    cli("apply", "orders.py")
    (cli.folder / "bad.jsonl").write_text('{"order_id": "o-1"}\nrubbish\n')
    assert "bad.jsonl, line 2" in cli.refused("produce", "orders", "bad.jsonl")
    assert "'number'" in cli.refused("produce", "orders", "bad.jsonl", "--key", "number")
    assert read_all(cli.settings, names_of(cli).events) == []
    said = cli.refused("produce", "orders", "-", given='{"order_id": "o-1"}\nrubbish\n')
    assert "standard input, line 2" in said
    assert "Delivered before it: 1." in said
    assert cli("produce", "orders", "bad.jsonl", "--raw", "--output", "json").json["delivered"] == 2
    assert [message.value() for message in read_all(cli.settings, names_of(cli).events)][1:] == [
        b'{"order_id": "o-1"}',
        b"rubbish",
    ]


def test_orders_typed_in_are_predicted_for_a_subscriber_and_rubbish_is_shown_as_it_was(cli):
    cli("apply", "orders.py")
    order = (cli.folder / "events.jsonl").read_text().splitlines()[0]
    with cli.running("worker", "orders.py"):
        cli("produce", "orders", "--key", "order_id", given=order)
        cli("produce", "orders", "--raw", given="rubbish\n" + order.replace("swift", "x")[:-1] + "\nrubbish")
        (prediction,) = cli("subscribe", "orders.py", "--from", "beginning", "--count", "1").lines
        assert (prediction["id"], prediction["version"]) == ("o-0001", 0)
        names = names_of(cli)
        wait_for("3 dead letters", lambda: len(read_all(cli.settings, names.topics.dead_letters)) == 3)
        assert read_all(cli.settings, names.events)[0].key() == b"o-0001"
    (reason,) = cli("dead-letters", "list", "orders.py", "--output", "json").lines
    assert (reason["reason"], reason["count"], reason["newest"]) == ("not_json", 3, f"{names.events}/0/3")
    letters = cli("dead-letters", "list", "orders.py", "--all", "--output", "json").lines
    assert [letter["value"] for letter in letters][::2] == ["rubbish", "rubbish"]
    shown = cli("dead-letters", "show", "orders.py", f"{names.events}/0/1").out
    assert "rubbish (7 bytes)" in shown
    assert "not_json: " in shown
    assert "no 'orders/9/9'" in cli.refused("dead-letters", "show", "orders.py", "orders/9/9")
    source = f"{names.events}/0/1"
    done = cli("dead-letters", "redrive", "orders.py", source, "--why", "to see", "--output", "json").json
    assert (done["redriven"], done["topics"]) == (1, {names.events: 1})
    assert "redriven already" in cli.refused("dead-letters", "redrive", "orders.py", source)
    assert "one of them says which" in cli.refused("dead-letters", "redrive", "orders.py", source, "--all")
    shown = cli("dead-letters", "show", "orders.py", source).out
    assert f"{names.events}/0/4" in shown
    assert "to see" in shown
    (reason,) = cli("dead-letters", "list", "orders.py", "--output", "json").lines
    assert (reason["count"], reason["open"]) == (3, 2)
    said = cli("dead-letters", "redrive", "orders.py", "--reason", "not_json", "--yes")
    assert tuple(said.out.split()[:2]) == ("redriven", "2")
    assert "redriven at" in cli("dead-letters", "list", "orders.py", "--all").out


def test_a_subscriber_ends_in_order_at_ctrl_c(cli):
    cli("apply", "orders.py")
    with cli.running("subscribe", "orders.py") as process:
        log = next(cli.folder.glob("subscribe-*.log"))
        wait_for("the subscriber to read", lambda: "Ctrl-C ends it" in log.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(_SECONDS) == 0


# ── versions and runs ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_train_leads_while_no_scheduler_does_and_its_version_and_run_are_on_record(trade):
    said = trade("train", "orders.py", "--at", "2025-03-25T00:00:00Z", "--why", "a test", "--output", "json")
    assert "no scheduler leads" in said.err
    assert (said.json["outcome"], said.json["version"]) == ("promoted", 1)
    champion, baseline = trade("model", "list", "orders.py", "--output", "json").lines
    assert (champion["version"], champion["aliases"], baseline["version"]) == (1, ["champion"], 0)
    assert champion["metrics"] == said.json["metrics"]
    detail = trade("model", "show", "orders.py", "--output", "json").json
    assert (detail["manifest"]["parent"], detail["lineage"]) == (0, [0])
    shown = trade("model", "show", "orders.py", "1").out
    assert "1 ← baseline" in shown
    assert "on demand: a test" in shown
    run = trade("runs", "show", "orders.py", said.json["run"], "--output", "json").json
    assert (run["state"], run["version"], run["why"], run["on_demand"]) == ("promoted", 1, "a test", True)
    assert [one["run"] for one in trade("runs", "list", "orders.py", "--output", "json").lines] == [run["run"]]
    assert "expected one of 0, 1, or champion" in trade.refused("model", "show", "orders.py", "9")


def test_train_asks_the_scheduler_that_runs_and_ends_with_3_where_the_gate_says_no(trade):
    with trade.running("scheduler", "strict.py", "--no-clock"):
        wait_for("a leader", lambda: leads_anyone(trade.settings, names_of(trade)))
        asked = trade("train", "strict.py", "--at", "2025-03-25T00:00:00Z", code=3)
        assert "no scheduler leads" not in asked.err
        assert "nobody is good enough" in asked.out
        failed = trade("train", "strict.py", "--at", "2025-01-05T00:00:00Z", "--output", "json", code=1)
        assert failed.json["reason"].startswith("too_few_rows")


def test_a_backfill_trains_in_event_time_and_sums_up(cli):
    backfill = ("backfill", "orders.py", "--events", "events.jsonl", "--labels", "labels.jsonl")
    assert "expected none: no feature reads a side topic, got weather" in cli.refused(*backfill, "--side", "weather=x")
    said = cli(*backfill, "--slice", "4w", "--end", "2025-02-05T00:00:00Z", "--output", "json")
    assert said.json["events"] == said.json["predictions"] == 336
    assert (said.json["trainings"], said.json["promotions"], said.json["failures"]) == (5, 1, 4)
    assert 0 < said.json["labels_joined"] <= said.json["labels"] < 336
    assert "2025-02-03T02:00:00Z  promoted as version 1" in said.err


# ── without servers, and where something is missing ───────────────────────────────────────────────────────────────────


def test_init_writes_a_pipeline_once_and_check_finds_what_is_wrong_with_a_file_of_rows(cli):
    written = cli("init", "new/late-orders", "--output", "json").lines
    assert Path(written[0]["file"]).name == "late_orders.py"
    assert "is there already" in cli.refused("init", "new/late-orders")
    (cli.folder / "bad.jsonl").write_text("rubbish\n" * 3)
    assert "not_json" in cli("check", "new/late-orders/late_orders.py", "--events", "bad.jsonl", code=1).out


def test_check_without_files_looks_at_the_newest_records_of_the_pipelines_own_topics(trade):
    report = trade("check", "orders.py", "--sample", "500", "--output", "json").json
    assert (report["events"], report["decoded"]) == (500, 500)
    assert report["overfit"]["last_loss"] < report["overfit"]["first_loss"]


def test_schedule_list_needs_no_server_and_says_both_times(cli):
    del cli.environment["KAFKA_BOOTSTRAP_SERVERS"]
    (one,) = cli(
        "schedule", "list", "orders.py", "--after", "2025-03-25T00:00:00Z", "--count", "2", "--output", "json"
    ).lines
    assert one["local"] == ["2025-03-31T03:00:00+02:00", "2025-04-07T03:00:00+02:00"]
    assert one["utc"] == ["2025-03-31T01:00:00Z", "2025-04-07T01:00:00Z"]
    assert "expected a time with its offset" in cli.refused("schedule", "list", "orders.py", "--after", "2025-03-25")


def test_what_is_not_there_is_one_sentence(cli):
    assert "headrace apply" in cli.refused("subscribe", "orders.py")
    assert "headrace apply" in cli.refused("produce", "nothing", given="{}")
    assert "headrace apply" in cli.refused("worker", "orders.py")
    assert "'missing.py' is not there" in cli.refused("train", "missing.py")
    cli.environment["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    assert "Expected Kafka at 127.0.0.1:1" in cli.refused("model", "list", "orders.py")
    del cli.environment["KAFKA_BOOTSTRAP_SERVERS"]
    assert "headrace up" in cli.refused("model", "list", "orders.py")


def test_a_metrics_port_that_is_taken_is_one_sentence(cli):
    cli("apply", "orders.py")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"metrics port {port}" in cli.refused("worker", "orders.py", "--metrics-port", port)


def test_the_doctor_names_what_is_missing_and_is_content_once_it_is_there(cli):
    ill = cli("dev", "doctor", "orders.py", "--output", "json", code=1).lines
    assert [check["name"] for check in ill if check["needed"] and not check["ok"]] == ["topics of orders"]
    assert "headrace apply" in ill[-1]["missing"]
    cli("apply", "orders.py")
    assert "missing" not in cli("dev", "doctor", "orders.py").out


# ── all of it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_up_with_a_file_runs_it_until_it_is_told_to_stop_and_leaves_no_process_behind(cli):
    with cli.running("up", "orders.py", "--output", "json") as process:
        said = json.loads(process.stdout.readline())
        assert said["pipelines"] == ["orders"]
        assert said["bootstrap_servers"] == cli.settings.bootstrap_servers
        cli("produce", "orders", given=(cli.folder / "events.jsonl").read_text().splitlines()[0])
        assert len(cli("subscribe", "orders.py", "--from", "beginning", "--count", "1").lines) == 1
        wait_for("the server", lambda: _answers(f"{said['serve']}/v2/health/ready"))
        children = _children_of(process.pid)
        assert len(children) >= 3
    assert not [child for child in children if _lives(child)]


def _answers(url):
    with suppress(OSError), urlopen(url) as answer:  # noqa: S310  our own, on loopback
        return answer.status == 200
    return False


def _children_of(pid):
    import psutil

    return psutil.Process(pid).children(recursive=True)


def _lives(child):
    """A zombie does nothing any more: whoever inherited it has only not looked yet."""
    import psutil

    try:
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_up_prints_what_a_shell_may_evaluate_and_nothing_that_it_was_told(cli):
    assert cli("up").out == ""
    assert cli("up", "--output", "json").json["bootstrap_servers"] == cli.settings.bootstrap_servers
    assert cli("down", "--output", "json").json == {"stopped": []}
