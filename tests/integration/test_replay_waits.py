"""What a replay waits for: its own rows, and not a marker that another's transaction left at a topic's end."""

import numpy as np
from kit import Ends, Facts, transaction, wait_for
from test_source import worker_of
from test_swap import PIPELINE

from headrace.infra.names import Names
from headrace.infra.replay import Replay, Rows
from headrace.infra.rows import EventStream
from headrace.infra.topics import apply

AT = 1_372_935_600_000  # 2013-07-04T11:00Z


def test_a_topic_that_ends_in_a_transactions_marker_holds_no_replay_up(settings, monkeypatch):
    monkeypatch.setattr("headrace.infra.replay._WAIT_SECONDS", 30.0)
    apply(settings, PIPELINE, 4)
    names = Names(settings.prefix, PIPELINE)
    with transaction(settings) as producer:
        for partition in range(4):
            producer.produce(names.events, b'{"id":"old"}', partition=partition)
    values = [b'{"id":"e%d","at":"2013-07-04T11:00:00Z","distance":1,"wind":1}' % number for number in range(3)]
    keys = [b"one key"] * 3  # all in one partition
    events = EventStream(topic="flights", times=np.full(3, AT, np.int64), keys=keys, values=values)
    replay, facts = Replay(settings, names, None), Facts()
    try:
        with worker_of(settings, PIPELINE, facts):
            (done,) = replay.run(Rows(events=events, labels=None, side=[]), longest_ms=86_400_000)
    finally:
        replay.close()
    assert done.events == 3


def test_what_comes_of_others_behind_the_rows_of_a_slice_holds_no_replay_up(settings, monkeypatch):
    """Such as a redriven event, while a backfill runs."""
    monkeypatch.setattr("headrace.infra.replay._WAIT_SECONDS", 30.0)
    apply(settings, PIPELINE, 1)
    names = Names(settings.prefix, PIPELINE)
    values = [b'{"id":"e%d","at":"2013-07-04T11:00:00Z","distance":1,"wind":1}' % number for number in range(2)]
    times = np.array([AT, AT + 3 * 86_400_000], np.int64)
    events = EventStream(topic="flights", times=times, keys=[b"k"] * 2, values=values)
    replay, facts = Replay(settings, names, None), Facts()
    try:
        with worker_of(settings, PIPELINE, facts):
            slices = replay.run(Rows(events=events, labels=None, side=[]), longest_ms=86_400_000)
            done = [next(slices)]
            with transaction(settings) as producer:
                producer.produce(names.events, b'{"id":"redriven"}', partition=0)
            wait_for("the marker", lambda: Ends(settings, names.events)() == 3)
            done += slices
    finally:
        replay.close()
    assert sum(one.events for one in done) == 2
