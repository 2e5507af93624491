"""a pipeline file and its model → `headrace worker`, as a user starts it, with the model as version 1."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final

from headrace.infra.bench.contender import Run, Started
from headrace.infra.bench.verify import Expected, verified
from headrace.infra.bench.workload import Numbers
from headrace.infra.leadership import KafkaRegistry
from headrace.infra.names import Names
from headrace.infra.pipeline_file import PipelineFile, one_of, read_pipelines
from headrace.infra.processes.scheduler import LeaderThread
from headrace.infra.processes.together import environment
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.infra.training import Origin
from headrace.models import registry
from headrace.models.errors import Stalled
from headrace.models.facts import ignore
from headrace.trainer.process import Trainer

PIPELINES: Final = Path(__file__).with_name("pipelines")
_EVENTS: Final = "events"  # as the pipeline file names its topic
_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Headrace:
    """The bare pipeline: what every contender does."""

    name: str = "headrace"
    exactly_once: bool = False
    workers: int = 1

    def prepare(self, run: Run) -> Started:
        events = run.filled()
        settings = run.settings.model_copy(update={"prefix": events.removesuffix(_EVENTS)})
        _, started = prepared(
            run,
            settings,
            "bare.py",
            run.graph,
            Numbers(run.graph),
            options=("--delivery", "exactly_once") if self.exactly_once else (),
            workers=self.workers,
        )
        return started


def prepared(
    run: Run,
    settings: Settings,
    file_name: str,
    graph: bytes,
    expected: Expected,
    *,
    options: Sequence[str] = (),
    workers: int = 1,
) -> tuple[Names, Started]:
    """A folder of the run's own, which names the pipeline, with one of `pipelines/`; its topics; version 1."""
    folder = run.prepared_folder(graph)
    file = read_pipelines(str(shutil.copy(PIPELINES / file_name, folder)))
    names = published(settings, file, run.partitions)
    predictions, events = names.topics.predictions, names.events
    return names, Started(
        command=[sys.executable, "-m", "headrace.infra.cli", "worker", str(file.path), *options],
        environment=environment(settings.model_copy(update={"home": folder})),
        folder=folder,
        events=events,
        predictions=predictions,
        group=names.infer_group,
        verify=lambda: verified(settings, predictions, events, run.events, run.partitions, expected),
        processes=workers,
    )


def published(settings: Settings, file: PipelineFile, partitions: int) -> Names:
    """`headrace apply`, then leads, as a scheduler does, until the `initial` model is version 1. Raises Stalled."""
    pipeline = one_of(file, str(file.path))
    apply(settings, pipeline, partitions)
    asked = KafkaRegistry(settings)
    versions, deadline = registry.Versions(), monotonic() + _SECONDS
    with Trainer() as trainer:
        leader = LeaderThread(settings, Origin(file=file, pipeline=pipeline), trainer, ignore)
        leader.start()
        try:
            while not versions.promotions:
                if leader.failure is not None:
                    raise leader.failure
                if monotonic() > deadline:
                    raise Stalled(f"{pipeline.name}: no version 1 within {_SECONDS:.0f} s")
                Event().wait(0.02)
                for record in map(registry.decode, asked.catch_up()):
                    if record.pipeline == pipeline.name and record.seq > versions.seq:
                        versions.apply(record)
        finally:
            leader.stop()
            asked.close()
    return Names(settings.prefix, pipeline)
