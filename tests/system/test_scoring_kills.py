"""Two schedulers that score by schedule, killed in the middle of transactions: each id once per tick (law 8)."""

import os
import signal
import threading
from collections import Counter, defaultdict

import msgspec
from confluent_kafka import Consumer, TopicPartition
from kit import produce, read_all, wait_for

from headrace.infra.kafka import consumer_config
from headrace.infra.names import RUNS, Names
from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.processes.supervisor import Supervisor
from headrace.infra.processes.together import environment
from headrace.infra.topics import apply

IDS = 60_000  # two parts a tick
KILLS = 4
FILE = """
from headrace import Binary, Every, Number, Pipeline, Score, Topic

delay = Pipeline(
    name="delay",
    events=Topic("flights", id="id", time="at"),
    features=[Number("distance")],
    label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
    score=[Score(Topic("customers", id="id", time="at", partitions=2), at=Every("10s"))],
)
"""


def runs(settings, kind):
    found = [msgspec.json.decode(message.value()) for message in read_all(settings, settings.prefixed(RUNS))]
    return [one for one in found if one["kind"] == kind]


class Written:
    """Whether a transaction with predictions is open: some are written that nobody who reads committed ones sees."""

    def __init__(self, settings, names):
        levels = ("read_committed", "read_uncommitted")
        self._askers = [Consumer(consumer_config(settings, "kit", isolation_level=level)) for level in levels]
        self._places = [TopicPartition(names.topics.predictions, number) for number in range(2)]

    def __call__(self):
        committed, written = (
            sum(asker.get_watermark_offsets(place, timeout=60)[1] for place in self._places) for asker in self._askers
        )
        return committed < written


def test_schedulers_that_are_killed_while_they_score_predict_each_id_once_per_tick(settings, tmp_path):
    (tmp_path / "delay.py").write_text(FILE)
    names = Names(settings.prefix, read_pipeline(str(tmp_path / "delay.py")))
    apply(settings, names.pipeline, 2)
    rows = [{"id": f"c{number}", "at": "2013-07-04T11:00:00Z", "distance": number} for number in range(IDS)]
    values = [{"key": one["id"], "value": msgspec.json.encode(one)} for one in rows]
    produce(settings, names.of("customers"), [*values, *values[: IDS // 2]], linger_ms=5)
    is_open = Written(settings, names)
    schedulers = Supervisor(settings.home / "logs", environment(settings, 2))
    for number in (1, 2):
        schedulers.start(f"scheduler-{number}", ["scheduler", str(tmp_path / "delay.py")])
    try:
        for _ in range(KILLS):
            wait_for("a scorer", lambda: runs(settings, "scored"))
            kill_in_a_transaction(settings, is_open)
            known = len(runs(settings, "scored"))
            wait_for("somebody to go on", lambda known=known: len(runs(settings, "scored")) > known)
        wait_for("every tick that was begun to end", lambda: not unfinished(settings))
        schedulers.check()
    finally:
        schedulers.stop()

    by_tick = defaultdict(Counter)
    for message in read_all(settings, names.topics.predictions):
        one = msgspec.json.decode(message.value())
        by_tick[one["tick"]][one["id"]] += 1
    scored = {one["tick"]: one["rows"] for one in runs(settings, "scored") if one["outcome"] == "scored"}
    assert len(scored) >= 2
    assert set(scored.values()) == {IDS}
    for tick, ids in by_tick.items():
        assert set(ids.values()) == {1}, tick
        assert len(ids) == IDS or tick not in scored, tick
    assert set(scored) <= set(by_tick)


def kill_in_a_transaction(settings, is_open):
    """Whoever scores is stopped while predictions are written and not committed, and then killed."""
    pause = threading.Event()
    while True:
        pid = int(runs(settings, "scored")[-1]["by"].rsplit("-", 1)[1])
        wait_for("predictions in an open transaction", is_open)
        os.kill(pid, signal.SIGSTOP)
        pause.wait(0.3)  # a commit that was under way is through by then
        if is_open():
            os.kill(pid, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGCONT)


def unfinished(settings):
    ended = {one["tick"] for one in runs(settings, "scored") if one.get("outcome")}
    return {one["tick"] for one in runs(settings, "scoring")} - ended
