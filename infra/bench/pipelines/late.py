"""The demo's question with a short memory, so that two bad weeks are all that a model knows; and with a guard."""

from headrace import Aggregate, Binary, Category, Cron, Datetime, Gate, Last, Number, Pipeline, Rollback, Topic, Torch

departures = Topic("departures", time="departed_at")

late = Pipeline(
    name="late",
    events=Topic("flights", id="flight_id", time="published_at"),
    features=[
        Number("distance"),
        Category("carrier"),
        Category("origin"),
        Category("dest"),
        Datetime("scheduled_departure", parts=["hour", "weekday"], timezone="America/New_York"),
        Aggregate(departures, "dep_delay", "mean", over="2h", by="origin"),
        Aggregate(departures, "dep_delay", "mean", over="3h", by=["origin", "carrier"]),
        Aggregate(departures, "dep_delay", "mean", over="12h", by="tailnum"),
    ],
    label=Binary(
        Topic("arrivals", id="flight_id", time="landed_at"),
        "arr_delay",
        at_least=15,
        within="36h",
        if_absent="drop",
        prior=0.24,
    ),
    learner=Torch("flight_net:build", epochs=4, batch_size=512, lr=3e-3, seed=7),
    train_on=Last("2w", holdout="2d"),
    retrain=[Cron("0 3 1,15 * *", timezone="America/New_York")],
    gate=Gate("roc_auc", max_loss=0.005),
    rollback=Rollback(),
)
