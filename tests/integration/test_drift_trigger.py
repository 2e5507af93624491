"""Served rows that move away from what the champion was trained on make a run, once."""

from dataclasses import replace as changed

import numpy as np
import pytest
from kit import Facts, produce
from msgspec.structs import replace
from test_leader import Scheduler
from test_swap import PIPELINE, Publisher

from headrace.infra.live import LiveLabels
from headrace.infra.names import Names
from headrace.infra.topics import apply
from headrace.models.drift import reference_of
from headrace.scheduler.triggers import Drift
from headrace.streams.codec import clock_ms
from headrace.streams.served import encode_served, served_batch, served_schema

DRIFTING = changed(PIPELINE, retrain=[Drift(rows=1_000)])
RANDOM = np.random.default_rng(2)


def miles(count):
    return RANDOM.lognormal(6, 0.8, count)


def serve(settings, names, distances):
    """Rows as a worker logs them."""
    count = len(distances)
    batch = served_batch(
        served_schema(DRIFTING.schema.columns),
        ids=[f"e{number}" for number in range(count)],
        times=np.full(count, clock_ms(), np.int64),
        partition=0,
        offsets=np.arange(count, dtype=np.int64),
        version=1,
        scores=np.full(count, 0.5),
        columns={"distance": distances, "wind": np.zeros(count)},
    )
    produce(settings, names.topics.served, [{"value": value, "partition": 0} for value, _, _ in encode_served(batch)])


@pytest.fixture
def names(settings):
    apply(settings, DRIFTING, 1)
    reference = reference_of(DRIFTING.schema, {"distance": miles(5_000), "wind": np.zeros(5_000)}, np.full(1_000, 0.5))
    Publisher(settings, DRIFTING).publish(change=lambda manifest: replace(manifest, reference=reference))
    return Names(settings.prefix, DRIFTING)


def test_a_unit_that_changes_upstream_makes_one_run_and_the_rows_after_it_are_counted_anew(settings, names):
    live = LiveLabels(settings, names, Facts())
    scheduler = Scheduler(settings, pipeline=DRIFTING, live=live, started=clock_ms())
    try:
        scheduler.until("to lead", lambda: scheduler.log.leads)
        serve(settings, names, miles(2_000))
        woken(scheduler)
        assert scheduler.training.runs == []
        serve(settings, names, miles(20_000) * 1.609)  # kilometres
        woken(scheduler)
        (run,) = scheduler.training.runs
        assert run.trigger.startswith("distance moved: PSI 0.")
        woken(scheduler)  # nothing was served since
        assert len(scheduler.training.runs) == 1
    finally:
        scheduler.close()
        live.close()


def woken(scheduler):
    """As by the clock, until all of it is done."""
    scheduler.leader.wake(clock_ms())
    for _ in range(20):
        scheduler.leader.step()
