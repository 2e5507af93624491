"""`headrace dev profile` of a real worker under load, whose user wrote a slow function."""

import json
import os
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
from kit import Ends, produce, wait_for
from test_cli import Cli

from headrace.infra.observe import Metrics, serving
from headrace.infra.processes.registered import living, registered
from headrace.infra.services.watch.live_process import chosen
from headrace.infra.services.watch.scrape import scraped
from headrace.infra.settings import Settings
from headrace.models.facts import Predicted

EVENTS = 100_000  # at 1 ms each, more than anybody looks at
_DATABASE = 63  # the last; number 0 stays empty
_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
_MAY_TRACE = os.geteuid() == 0 or (_SCOPE.exists() and _SCOPE.read_text().strip() == "0")

PIPELINE = """
from time import monotonic

from headrace import Binary, Function, Lookup, Number, Pipeline, Topic


def slow_name(weight):
    until = monotonic() + 0.001 * len(weight)
    while monotonic() < until:
        pass
    return weight * 2


orders = Pipeline(
    name="orders",
    events=Topic("orders", id="order_id", time="ordered_at"),
    features=[
        Number("weight"),
        Lookup(Topic("stock", time="counted_at"), by="weight", fields=["size"]),
        Function(slow_name, inputs=["weight"]),
    ],
    label=Binary(Topic("deliveries", id="order_id", time="delivered_at"), "late", within="14d", if_absent="drop"),
)
"""


@pytest.fixture(scope="module")
def busy(servers, tmp_path_factory):
    """A worker in the midst of more events than it can predict while somebody looks."""
    folder = tmp_path_factory.mktemp("busy")
    url = os.environ.get("REDIS_URL") or f"{servers.redis_url.rpartition('/')[0]}/{_DATABASE}"
    settings = Settings(
        bootstrap_servers=servers.bootstrap_servers,
        redis_url=url,
        prefix=f"t{uuid.uuid4().hex[:10]}.",
        home=folder / "home",
    )
    (folder / "orders.py").write_text(PIPELINE)
    cli = Cli(settings, folder)
    cli("apply", "orders.py")
    rows = [{"weight": n % 50, "counted_at": "2025-01-01T00:00:00Z", "size": n} for n in range(100)]
    produce(settings, settings.prefixed("stock"), [{"value": json.dumps(row)} for row in rows])
    orders = [{"order_id": f"o-{n}", "ordered_at": "2025-01-02T00:00:00Z", "weight": n % 50} for n in range(EVENTS)]
    produce(settings, settings.prefixed("orders"), [{"value": json.dumps(row)} for row in orders])
    predictions = Ends(settings, settings.prefixed("orders.predictions"))
    with cli.running("worker", "orders.py"):
        wait_for("predictions to flow", lambda: predictions() > 0)
        yield cli


def test_a_users_slow_function_is_named_as_the_largest_stage_of_the_worker_that_runs(busy):
    (worker,) = living(busy.settings.home)
    found = busy("dev", "profile", "--seconds", "2", "--output", "json").json
    assert (found["pid"], found["pipelines"]) == (worker.process.pid, ["orders"])
    assert found["events"] > 0
    stages = {one["stage"]: one for one in found["stages"] if one["agent"] == "infer"}
    assert found["largest"] == stages["function:slow_name"]
    assert stages["function:slow_name"]["within"] == stages["feature_store"]["within"] == "features"
    assert stages.keys() >= {"wait", "decode", "features", "infer", "encode", "produce", "acknowledge", "commit"}


def test_the_agents_commits_are_told_apart(busy):
    (worker,) = living(busy.settings.home)
    assert {("features", "commit"), ("infer", "commit")} <= scraped(worker.metrics_port).stages.keys()


@pytest.mark.skipif(not _MAY_TRACE, reason="py-spy may not read another process here: run as root")
def test_a_flame_graph_of_the_same_seconds_has_the_users_function(busy):
    found = busy("dev", "profile", "--seconds", "2", "--flame", "graphs/profile.svg", "--output", "json").json
    assert (found["flame"], found["flame_missing"]) == ("graphs/profile.svg", None)
    drawn = (busy.folder / "graphs" / "profile.svg").read_text()
    assert "slow_name (orders.py:" in drawn
    assert "source-infer" in drawn  # by thread


def test_who_may_not_have_a_flame_graph_still_gets_the_table(busy):
    (worker,) = living(busy.settings.home)
    nowhere = "orders.py/profile.svg"  # a file is no folder
    said = busy("dev", "profile", "--seconds", "1", "--pid", str(worker.process.pid), "--flame", nowhere, code=1)
    assert "function:slow_name" in said.out.splitlines()[-1]
    assert "its folder is not there" in said.err


def test_a_process_is_found_until_it_ends(busy):
    with busy.running("scheduler", "orders.py", "--no-clock"):
        wait_for("the scheduler", lambda: {one.role for one in living(busy.settings.home)} == {"worker", "scheduler"})
    assert [one.role for one in living(busy.settings.home)] == ["worker"]
    assert "Does it still run?" in busy.refused("dev", "profile", "--port", "1")


def test_of_several_workers_the_one_that_predicted_most_is_looked_at(tmp_path):
    busiest = Metrics()
    busiest(Predicted(pipeline="orders", version=1, rows=10, seconds={}, newest_event=1))
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(metrics, 0)) for metrics in (Metrics(), busiest, Metrics())]
        for port in ports:  # each in a home of its own, as demos have
            home = tmp_path / str(port)
            stack.enter_context(registered(home, role="worker", pipelines=["orders"], metrics_port=port))
        live, others = chosen(tmp_path, None, None)
        assert live.metrics_port == ports[1]
        assert {other.metrics_port for other in others} == {ports[0], ports[2]}
        assert chosen(tmp_path, None, ports[2])[0].metrics_port == ports[2]
    assert living(tmp_path) == []


def test_one_that_is_not_registered_here_is_found_by_its_process_id_or_its_port(tmp_path):
    with serving(Metrics(), 0) as port:
        for named in ((os.getpid(), None), (None, port)):
            live, _ = chosen(tmp_path, *named)
            assert (live.pid, live.metrics_port) == (os.getpid(), port)
