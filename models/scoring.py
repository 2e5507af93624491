"""What is scored by schedule, beside events and requests, and when: the declaration `Pipeline.score` is made of."""

from dataclasses import KW_ONLY, dataclass
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from headrace.models.errors import DeclarationError
from headrace.models.features import Topic
from headrace.models.protocols import Scheduled, Trigger


@dataclass(frozen=True)
class Score:
    """Every row of a source, scored at each tick of a schedule by the version that is the champion then.

    `source` is a topic with an `id`, of which the latest row per message key counts, as compaction keeps it; or the URL
    of a Parquet file, or of a folder of them, as fsspec opens it. `at` is a schedule: `Cron`, `Every`, or `AnyOf` them.
    """

    source: Topic | str
    _: KW_ONLY
    at: Any  # a Trigger that is Scheduled: Python has no type for both

    def __post_init__(self) -> None:
        if isinstance(self.source, Topic):
            if not self.source.id:
                raise DeclarationError("Score.source", "a Topic with an id", self.source, "Topic(name, id=…, time=…).")
        elif not isinstance(self.source, str) or not self.source:
            remedy = 'Score(customers, …) or Score("s3://bucket/customers.parquet", …).'
            raise DeclarationError("Score.source", "a Topic or the URL of Parquet files", self.source, remedy)
        elif "@" in urlsplit(self.source).netloc:  # every prediction names its source
            raise DeclarationError("Score.source", "a URL without a password", "one with it", "Set it as fsspec says.")
        scheduled = isinstance(self.at, Scheduled) and isinstance(self.at, Trigger) and not isinstance(self.at, type)
        if not scheduled or not getattr(self.at, "only_scheduled", True):
            raise DeclarationError("Score.at", "a schedule", self.at, "For example Cron('0 6 * * *', timezone=…).")

    @property
    def name(self) -> str:
        """What identifies it in its pipeline: the topic's name, or the URL."""
        return self.source.name if isinstance(self.source, Topic) else self.source

    def rows(self, events: Topic) -> Topic:
        """How its rows are decoded: those of Parquet as the events are, from JSON."""
        return self.source if isinstance(self.source, Topic) else replace(events, format="json")


def expect_scores(given: object) -> None:
    if not isinstance(given, list | tuple) or not all(isinstance(one, Score) for one in given):
        raise DeclarationError("Pipeline.score", "a list of Score", given, "[Score(customers, at=Cron(…))].")
    names = [one.name for one in given]
    for name in names:
        if names.count(name) > 1:
            raise DeclarationError("Pipeline.score", "each source once", name, "Join its schedules by AnyOf(…).")
