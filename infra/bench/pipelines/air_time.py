"""How long will a flight be in the air? The distance says most of it: in miles, as long as upstream keeps to them."""

from headrace import Category, Cron, Datetime, Gate, Last, Number, Pipeline, Regression, Rollback, Topic, Torch

air_time = Pipeline(
    name="air-time",
    events=Topic("flights", id="flight_id", time="published_at"),
    features=[
        Number("distance"),
        Category("carrier"),
        Category("origin"),
        Datetime("scheduled_departure", parts=["hour"], timezone="America/New_York"),
    ],
    label=Regression(
        Topic("landings", id="flight_id", time="landed_at"), "air_time", within="36h", if_absent="drop", prior=150
    ),
    learner=Torch("flight_net:build", epochs=8, batch_size=512, lr=3e-3, seed=7),
    train_on=Last("2w", holdout="2d"),
    retrain=[Cron("0 3 1,15 * *", timezone="America/New_York")],
    gate=Gate("mae", max_loss=1.0),
    rollback=Rollback(),
)
