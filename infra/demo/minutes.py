"""How many minutes late will a flight arrive? The events, features and network of `flights`; a number for an answer."""

from dataclasses import replace

from headrace import Gate, Regression
from headrace.infra.demo import flights

flight_minutes = replace(
    flights.flight_delay,
    name="flight-minutes",
    label=Regression(flights.arrivals, "arr_delay", within="36h", if_absent="drop", prior=7.0),
    gate=Gate("rmse", max_loss=0.5, must_not_fall={"mae": 1.0}),  # minutes
)
