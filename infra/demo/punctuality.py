"""Early, on time or late? The events, features and network of `flights`; a probability for each of three answers."""

from dataclasses import replace

from headrace import Gate, Multiclass
from headrace.infra.demo import flights

flight_punctuality = replace(
    flights.flight_delay,
    name="flight-punctuality",
    label=Multiclass(
        flights.arrivals,
        "arr_delay",
        classes=["early", "on time", "late"],
        edges=[0, 15],  # minutes
        within="36h",
        if_absent="drop",
    ),
    gate=Gate("log_loss", max_loss=0.01, must_not_fall={"accuracy": 0.03}),
)
