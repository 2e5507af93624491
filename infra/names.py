"""Topic, group and transactional names: one table, prefixed for shared clusters."""

from dataclasses import dataclass

from headrace.models.aliases import CHAMPION
from headrace.models.pipeline import Pipeline
from headrace.streams.infer import Topics

REGISTRY, ARTIFACTS, RUNS = "headrace.registry", "headrace.artifacts", "headrace.runs"


@dataclass(frozen=True)
class Names:
    """What a pipeline's things are called on the cluster, where `prefix` is put before every name.

    What a worker of another alias writes, and its group, carry that alias: `flights.predictions.challenger`.
    """

    prefix: str
    pipeline: Pipeline
    alias: str = CHAMPION

    def of(self, topic: str) -> str:
        return self.prefix + topic

    @property
    def topics(self) -> Topics:
        kinds = ("predictions", "served", "dead-letters", "history")
        predictions, served, dead_letters, history = (self.of(self.pipeline.topic(kind) + self._own) for kind in kinds)
        return Topics(predictions=predictions, served=served, dead_letters=dead_letters, history=history)

    @property
    def events(self) -> str:
        return self.of(self.pipeline.events.name)

    @property
    def labels(self) -> str:
        return self.of(self.pipeline.label.topic.name)

    @property
    def infer_group(self) -> str:
        return self.of(self.infer)

    @property
    def infer(self) -> str:
        """The infer agent in groups and transactions, without the prefix: clients put that before it."""
        return f"{self.pipeline.name}.infer{self._own}"

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
    def scorer(self) -> str:
        """The group and the transactional id of scheduled scoring, without the prefix: clients put that before it."""
        return f"{self.pipeline.name}.scorer"

    @property
    def redrive(self) -> str:
        """The transactional id of whoever redrives dead letters, without the prefix, as above."""
        return f"{self.pipeline.name}.redrive"

    @property
    def store_namespace(self) -> str:
        return self.of(self.pipeline.name)

    @property
    def _own(self) -> str:
        return "" if self.alias == CHAMPION else f".{self.alias}"
