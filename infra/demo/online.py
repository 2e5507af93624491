"""The question, events and features of `flights`, by a linear model that goes on learning every day."""

from dataclasses import replace

from headrace import Cron, Gate, Last, Online
from headrace.infra.demo import flights

flight_online = replace(
    flights.flight_delay,
    name="flight-online",
    learner=Online(rehearse=1.0),
    train_on=Last("2w", holdout="1d"),
    retrain=[Cron("0 3 * * *", timezone="America/New_York")],
    gate=Gate("log_loss", max_loss=0.02),
)
