"""A model that costs more than all else: a picture as a tensor in, in MessagePack, one number out."""

from pathlib import Path

from headrace import Pipeline, Regression, Tensor, Topic

heavy = Pipeline(
    name=Path(__file__).parent.name,
    events=Topic("pictures", id="id", time="time", format="msgpack"),
    features=[Tensor("picture", shape=(3, 64, 64))],
    label=Regression(Topic("labels", id="id", time="time"), "value", within="1h", if_absent="drop"),
    initial="model.onnx",
)
