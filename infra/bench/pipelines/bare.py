"""What every contender does, and nothing else: eight numbers, one model, one prediction per event.

Each run copies this file and its model into a folder of its own, which names the pipeline: its topics and its group.
"""

from pathlib import Path

from headrace import Number, Pipeline, Regression, Topic

bare = Pipeline(
    name=Path(__file__).parent.name,
    events=Topic("events", id="id", time="time"),
    features=[Number(f"f{number}") for number in range(8)],
    label=Regression(Topic("labels", id="id", time="time"), "value", within="1h", if_absent="drop"),
    initial="model.onnx",
)
