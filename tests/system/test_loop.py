"""The whole loop as processes: flights in, a training, a swap, a worker killed in the middle; nothing is missing."""

import os
import re
import signal
import threading
import urllib.request

import msgspec
from kit import read_all, sources, wait_for

from headrace.infra.demo import run as demo
from headrace.infra.demo.data import START, load_flights
from headrace.infra.names import Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.processes.together import running
from headrace.infra.replay import Replay, Rows, feature_store
from headrace.infra.topics import apply
from headrace.models.durations import to_ms
from headrace.models.records import Switched

DAYS = 15  # the first training that has enough rows is on 14 January
KILLED_AT = 3_000  # predictions
METRICS = (
    "headrace_predictions_total",
    "headrace_latency_seconds_bucket",
    "headrace_consumer_lag_records",
    "headrace_swaps_total",
    "headrace_model_served_since_timestamp_seconds",
    "headrace_stage_seconds_bucket",
)


def test_flights_are_predicted_learnt_and_swapped_while_a_worker_is_killed(settings):
    flights = load_flights(DAYS)
    file = read_pipelines(str(demo.FILE))
    names = Names(settings.prefix, one_of(file, demo.FILE.name))
    apply(settings, names.pipeline, 2)
    rows = Rows(events=flights["flights"], labels=flights["arrivals"], side=[flights["departures"], flights["weather"]])
    with running(settings, [file], workers=2, clock=False, started=to_ms(START)) as children:
        victim = children.child("worker-flight-delay-1")
        first_life = victim.process.pid
        killer = threading.Thread(target=_kill_when_busy, args=(settings, names, first_life))
        killer.start()
        replay = Replay(settings, names, feature_store(settings, names), children.check)
        runs = [done.finished for done in replay.run(rows, longest_ms=86_400_000, start=to_ms(START)) if done.finished]
        replay.close()
        killer.join()
        assert victim.process.pid != first_life  # its supervisor started another
        exposed = _metrics((settings.home / "logs" / "worker-flight-delay-2.log").read_text())
        assert [name for name in METRICS if name not in exposed] == []
        assert "headrace_training_runs_total" in _metrics(
            (settings.home / "logs" / f"scheduler-{demo.FILE.stem}.log").read_text()
        )

    assert [run.outcome for run in runs] == ["failed", "promoted"]  # after a week there is nothing to hold out from
    assert runs[0].reason.startswith("too_few_rows")
    predictions = read_all(settings, names.topics.predictions)
    events = read_all(settings, names.events)
    assert {(m.topic(), m.partition(), m.offset()) for m in events} == set(sources(predictions))
    assert read_all(settings, names.topics.dead_letters) == []
    switched = [msgspec.json.decode(m.value(), type=Switched) for m in read_all(settings, names.topics.history)]
    assert {(record.partition, record.version) for record in switched} == {(0, 0), (1, 0), (0, 1), (1, 1)}


def _kill_when_busy(settings, names, pid):
    wait_for("predictions to flow", lambda: len(read_all(settings, names.topics.predictions)) > KILLED_AT, seconds=120)
    os.kill(pid, signal.SIGKILL)


def _metrics(log):
    url = re.findall(r"metrics on (http://127\.0\.0\.1:\d+/metrics)", log)[-1]
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  our own process said it
        return answer.read().decode()
