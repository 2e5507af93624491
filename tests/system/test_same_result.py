"""A replay owns event time: how it is cut into slices, and how many workers share the work, changes nothing."""

from datetime import UTC, datetime

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from kit import read_all

from headrace.infra.demo import run as demo
from headrace.infra.demo.data import START, load_flights
from headrace.infra.names import Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.processes.together import running
from headrace.infra.replay import Replay, Rows, feature_store
from headrace.infra.topics import apply
from headrace.models.durations import milliseconds, to_ms
from headrace.streams.served import decode_served

DAYS = 5
WEEKLY, DAILY = 'Cron("0 3 * * mon"', 'Cron("0 3 * * *"'
WINDOW, SHORT = 'Last("52w", holdout="7d")', 'Last("52w", holdout="1d")'


@pytest.fixture(scope="module")
def flights():
    return load_flights(DAYS)


def replayed(settings, folder, flights, *, longest, workers):
    """Served rows of the first days of 2013 with a training each night, sorted by id, and the versions made."""
    folder.mkdir()
    source = demo.FILE.read_text().replace(WEEKLY, DAILY).replace(WINDOW, SHORT)
    assert DAILY in source
    assert SHORT in source
    (folder / "flights.py").write_text(source)
    (folder / "flight_net.py").write_text(demo.FILE.with_name("flight_net.py").read_text())
    file = read_pipelines(str(folder / "flights.py"))
    settings = settings.model_copy(update={"prefix": f"{settings.prefix}{folder.name}.", "home": folder / "home"})
    names = Names(settings.prefix, one_of(file, "flights.py"))
    apply(settings, names.pipeline, 3)
    rows = Rows(events=flights["flights"], labels=flights["arrivals"], side=[flights["departures"], flights["weather"]])
    with running(settings, [file], workers=workers, clock=False, started=to_ms(START)) as children:
        replay = Replay(settings, names, feature_store(settings, names), children.check)
        slices = replay.run(rows, longest_ms=milliseconds("slice", longest), start=to_ms(START))
        runs = [done.finished for done in slices if done.finished is not None]
        replay.close()
    batches = [decode_served(message.value()) for message in read_all(settings, names.topics.served)]
    table = pa.Table.from_batches([batch.cast(batches[0].schema) for batch in batches])
    return table.sort_by("id"), [run for run in runs if run.outcome == "promoted"], names


def test_one_hour_and_one_day_slices_one_and_three_workers_give_the_same_rows(settings, tmp_path, flights):
    hours, hourly, _ = replayed(settings, tmp_path / "hours", flights, longest="1h", workers=3)
    days, daily, names = replayed(settings, tmp_path / "days", flights, longest="1d", workers=1)

    assert len(hourly) >= 2
    assert [(run.version, run.metrics) for run in hourly] == [(run.version, run.metrics) for run in daily]
    assert hours.num_rows == len(flights["flights"]) == len(set(hours["id"].to_pylist()))
    assert set(hours["version"].to_pylist()) == {0, *[run.version for run in hourly]}
    for column in hours.schema.names:
        assert hours[column].equals(days[column]), column
    _holds_nothing_of_its_own_flight(days, flights, names)


def _holds_nothing_of_its_own_flight(served, flights, names):
    """The mean delay of an aircraft over 12 hours, counted anew from what had departed by then."""
    departed = [msgspec.json.decode(value) for value in flights["departures"].values]
    by_tail, own = {}, {}
    for row, time in zip(departed, flights["departures"].times.tolist(), strict=True):
        by_tail.setdefault(row["tailnum"], []).append((time, row["dep_delay"]))
        own[row["flight_id"]] = time
    tails = {
        event["flight_id"]: event["tailnum"]
        for event in (msgspec.json.decode(value) for value in flights["flights"].values)
    }
    column = next(c.name for c in names.pipeline.columns if c.name.endswith("12h_by_tailnum"))
    times = served["event_time"].cast(pa.int64()).to_pylist()
    checked = 0
    for row_id, time, given in zip(served["id"].to_pylist(), times, served[column].to_pylist(), strict=True):
        assert own.get(row_id, time) >= time  # its own departure is not in the past of its event
        known = [delay for at, delay in by_tail.get(tails[row_id], ()) if time - 12 * 3_600_000 <= at < time]
        assert (given is None) == (not known)
        if known:
            assert given == pytest.approx(np.mean(known))
            checked += 1
    assert checked > 1_000
    assert datetime.fromtimestamp(max(times) / 1000, UTC).year == 2013
