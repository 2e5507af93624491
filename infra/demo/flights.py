"""Will a flight out of New York arrive a quarter of an hour late or more? Asked one hour before it is to depart."""

from headrace import Aggregate, Binary, Category, Cron, Datetime, Gate, Last, Lookup, Number, Pipeline, Topic, Torch

flights = Topic("flights", id="flight_id", time="published_at")
departures = Topic("departures", time="departed_at")
weather = Topic("weather", time="observed_at")
arrivals = Topic("arrivals", id="flight_id", time="landed_at")

flight_delay = Pipeline(
    name="flight-delay",
    events=flights,
    features=[
        Number("distance"),
        Category("carrier"),
        Category("origin"),
        Category("dest"),
        Datetime("scheduled_departure", parts=["hour", "weekday"], timezone="America/New_York"),
        Lookup(
            weather, by="origin", fields=["wind_speed", "precip", "visib", "temp", "pressure", "humid"], max_age="3h"
        ),
        Aggregate(departures, "dep_delay", "mean", over="1h", by="origin"),
        Aggregate(departures, "dep_delay", "mean", over="2h", by="origin"),
        Aggregate(departures, "dep_delay", "mean", over="3h", by=["origin", "carrier"]),
        Aggregate(departures, "dep_delay", "mean", over="4h", by="dest"),
        Aggregate(departures, "dep_delay", "mean", over="12h", by="tailnum"),
    ],
    label=Binary(arrivals, "arr_delay", at_least=15, within="36h", if_absent="drop", prior=0.24),
    learner=Torch("flight_net:build", epochs=2, batch_size=1024, lr=3e-3, seed=7),
    train_on=Last("52w", holdout="7d"),
    retrain=[Cron("0 3 * * mon", timezone="America/New_York")],
    gate=Gate("roc_auc", max_loss=0.005),  # a week's AUC has a standard error of about 0.008
)
