"""Topic, group and transactional names: one table, prefixed for shared clusters."""

from dataclasses import dataclass

from headrace.models.pipeline import Pipeline
from headrace.streams.infer import Topics

REGISTRY, ARTIFACTS, RUNS = "headrace.registry", "headrace.artifacts", "headrace.runs"


@dataclass(frozen=True)
class Names:
    """What a pipeline's things are called on the cluster, where `prefix` is put before every name."""

    prefix: str
    pipeline: Pipeline

    def of(self, topic: str) -> str:
        return self.prefix + topic

    @property
    def topics(self) -> Topics:
        return Topics(
            predictions=self.of(self.pipeline.topic("predictions")),
            served=self.of(self.pipeline.topic("served")),
            dead_letters=self.of(self.pipeline.topic("dead-letters")),
            history=self.of(self.pipeline.topic("history")),
        )

    @property
    def events(self) -> str:
        return self.of(self.pipeline.events.name)

    @property
    def labels(self) -> str:
        return self.of(self.pipeline.label.topic.name)

    @property
    def infer_group(self) -> str:
        return self.of(f"{self.pipeline.name}.infer")

    @property
    def features_group(self) -> str:
        return self.of(f"{self.pipeline.name}.features")

    @property
    def leader_group(self) -> str:
        return self.of(f"{self.pipeline.name}.leader")

    @property
    def leader_transaction(self) -> str:
        return self.of(f"{self.pipeline.name}.leader")

    @property
    def store_namespace(self) -> str:
        return self.of(self.pipeline.name)
