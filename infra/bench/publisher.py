"""a graph → the next version of a pipeline, promoted at once: by the leader's own transactions, without a training."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from time import monotonic
from typing import Final

from msgspec.structs import replace

from headrace.infra.leadership import KafkaRegistry, KafkaRunsLog, KafkaWriter
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.models import registry
from headrace.models.errors import Stalled
from headrace.models.manifest import Blob, Manifest
from headrace.models.records import Promoted, Published, RegistryRecord

_LEAD_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1


class Publisher:
    """Leads instead of a scheduler. `manifest` and `seq` are the newest version's."""

    def __init__(self, log: KafkaRunsLog, writer: KafkaWriter, manifest: Manifest, seq: int) -> None:
        self._log, self._writer, self._manifest, self._seq = log, writer, manifest, seq

    def publish(self, graph: bytes) -> int:
        """Gives its version. The transaction is committed when it returns."""
        self._log.poll(0)
        self._writer.publish(graph, self._next, self._records)
        return self._manifest.version

    def _next(self, graph: Blob) -> Manifest:
        self._manifest = replace(self._manifest, version=self._manifest.version + 1, onnx=graph)
        return self._manifest

    def _records(self, manifest: Blob) -> Sequence[RegistryRecord]:
        pipeline, version = self._manifest.pipeline, self._manifest.version
        self._seq += 2
        return (
            Published(pipeline=pipeline, version=version, seq=self._seq - 1, manifest=manifest, at="", by="bench"),
            Promoted(pipeline=pipeline, version=version, seq=self._seq, why="bench", at="", by="bench"),
        )


@contextmanager
def publishing(settings: Settings, names: Names) -> Iterator[Publisher]:
    """Begins behind the newest version. Raises Stalled where somebody else goes on leading."""
    versions = registry.Versions()
    with closing(KafkaRegistry(settings)) as asked:
        for record in map(registry.decode, asked.catch_up()):
            if record.pipeline == names.pipeline.name:
                versions.apply(record)
        manifest = asked.manifest(versions.published[versions.promotions[-1].version].manifest)
    log = KafkaRunsLog(settings, names)
    writer = KafkaWriter(settings, names, log)
    try:
        deadline = monotonic() + _LEAD_SECONDS
        while not log.leads:
            log.poll(_POLL_SECONDS)
            if monotonic() > deadline:
                raise Stalled(f"{names.pipeline.name}: somebody else leads; its scheduler has to stop first")
        yield Publisher(log, writer, manifest, versions.seq)
    finally:
        writer.close()
        log.consumer.close()
