"""registry → the live model: fetched, checked and warmed beside the one that serves, then one assignment.

`Follower` prepares in a thread of its own; `Swap` switches in the source's thread, between two chunks, and says so on
`<pipeline>.history`. Whatever fails leaves the old version serving and is a fact (laws 4, 5).
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Protocol

import msgspec
import numpy as np

from headrace.models import manifest as manifests
from headrace.models import registry
from headrace.models.durations import iso
from headrace.models.errors import BrokerUnavailable, RegistryRefused
from headrace.models.facts import Observer, Refused, Swapped
from headrace.models.manifest import Blob
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns
from headrace.models.records import Promoted, Switched
from headrace.models.session import Runtime, Session
from headrace.streams.chunk import TopicPartition
from headrace.streams.codec import clock_ms
from headrace.streams.features import synthetic_row
from headrace.streams.model import Baseline, LiveModel, live_model
from headrace.streams.out import Out

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 1.0  # when the broker does not hand out an artifact
_START_SECONDS = 60.0  # for the registry and the newest version, before the first event


class RegistryReader(Protocol):
    """The registry topic from its beginning on, never through a consumer group."""

    def poll(self, timeout: float) -> Sequence[bytes | None]: ...

    @property
    def caught_up(self) -> bool:
        """Whether the end was reached that the topic had when this reader began."""


class ArtifactReader(Protocol):
    def read(self, blob: Blob) -> bytes:
        """The blob's bytes, verified by size and sha256; raises RegistryRefused or BrokerUnavailable."""


class Swap:
    """Which model serves. `propose` from any thread; `between` and `current` from the source's."""

    def __init__(self, pipeline: Pipeline, history_topic: str, worker: str, observer: Observer) -> None:
        self._pipeline, self._history, self._worker, self._observer = pipeline, history_topic, worker, observer
        self._current = live_model(pipeline, Baseline(pipeline))
        self._proposed: LiveModel | None = None
        self._recorded: dict[TopicPartition, int] = {}  # partition → seq of its last history record

    def propose(self, model: LiveModel) -> None:
        self._proposed = model

    def current(self) -> LiveModel:
        return self._current

    def between(self, positions: Mapping[TopicPartition, int]) -> list[Out]:
        """Switches if a newer model is ready; gives a history record per partition that it serves from now on."""
        proposed, self._proposed = self._proposed, None
        if proposed is not None and proposed.seq > self._current.seq:
            self._current = proposed
            self._observer(self._swapped(proposed, positions))
        elif positions.keys() == self._recorded.keys():
            return []
        seq = self._current.seq
        news = {partition: at for partition, at in positions.items() if self._recorded.get(partition) != seq}
        self._recorded = dict.fromkeys(positions, seq)
        return [self._record(partition, at) for partition, at in news.items()]

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Their records were taken back, or they went: said again when they are served again."""
        for partition in partitions:
            self._recorded.pop(partition, None)

    def _record(self, partition: TopicPartition, first_offset: int) -> Out:
        switched = Switched(
            pipeline=self._pipeline.name,
            seq=self._current.seq,
            version=self._current.version,
            topic=partition[0],
            partition=partition[1],
            first_offset=first_offset,
            worker=self._worker,
            at=iso(clock_ms()),
        )
        return Out(self._history, self._pipeline.name.encode(), msgspec.json.encode(switched), [])

    def _swapped(self, model: LiveModel, positions: Mapping[TopicPartition, int]) -> Swapped:
        return Swapped(
            pipeline=self._pipeline.name,
            seq=model.seq,
            version=model.version,
            seconds=monotonic() - model.arrived_at,
            first_offsets={f"{topic}/{partition}": at for (topic, partition), at in positions.items()},
        )


class Follower:
    """Reads the registry to its end before the first event, then follows it."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        reader: RegistryReader,
        artifacts: ArtifactReader,
        swap: Swap,
        sample: Callable[[], tuple[Columns, int] | None],
        observer: Observer,
        runtime: Runtime = Runtime(),  # noqa: B008  frozen
    ) -> None:
        self._pipeline, self._reader, self._artifacts = pipeline, reader, artifacts
        self._swap, self._sample, self._observer, self._runtime = swap, sample, observer, runtime
        self._versions = registry.Versions()
        self._proven = 0  # seq of the newest promotion that was proposed
        self._tried = 0  # seq of the newest promotion that was looked at
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)

    def start(self) -> None:
        """Returns when every record that was there is applied and the newest version that proves itself is proposed.

        Raises BrokerUnavailable: without the registry nobody knows which version to serve.
        """
        deadline = monotonic() + _START_SECONDS
        while not self._reader.caught_up:
            self._apply(self._reader.poll(_POLL_SECONDS))
            if monotonic() > deadline:
                raise BrokerUnavailable(f"the registry was not read to its end within {_START_SECONDS:.0f} s")
        while not self._prepare_newest():
            if monotonic() > deadline:
                raise BrokerUnavailable(f"no artifact was to be had within {_START_SECONDS:.0f} s; see the refusals")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._apply(self._reader.poll(_POLL_SECONDS))
                self._prepare_newest()
            except Exception as error:  # noqa: BLE001  a follower that ends unseen would serve one version for ever
                self._refused(RegistryRefused("unexpected", f"{type(error).__name__}: {error}"))
                self._stopping.wait(_RETRY_SECONDS)

    def _apply(self, values: Sequence[bytes | None]) -> None:
        for value in values:
            try:
                record = registry.decode(value)
                if record.pipeline == self._pipeline.name:
                    self._versions.apply(record)
            except RegistryRefused as error:
                self._refused(error)

    def _prepare_newest(self) -> bool:
        """From the newest promotion back to the one that serves: the first that proves itself. False: ask again."""
        for promoted in reversed(self._versions.promotions):
            if promoted.seq <= max(self._proven, self._tried):
                break
            try:
                model = self._prepare(promoted)
            except RegistryRefused as error:
                self._refused(error, promoted.version)
            except BrokerUnavailable as error:
                self._refused(RegistryRefused("unavailable", str(error)), promoted.version)
                self._stopping.wait(_RETRY_SECONDS)
                return False
            else:
                self._proven = promoted.seq
                self._swap.propose(model)
                break
        if self._versions.promotions:
            self._tried = self._versions.promotions[-1].seq
        return True

    def _prepare(self, promoted: Promoted) -> LiveModel:
        """(1) fetch and verify, (2) load and check the contract, (3) warm on rows that are being served."""
        arrived_at = monotonic()
        published = self._versions.published[promoted.version]
        manifest = manifests.decode(self._artifacts.read(published.manifest))
        if (manifest.pipeline, manifest.version) != (promoted.pipeline, promoted.version):
            raise RegistryRefused("wrong_manifest", f"it is of {manifest.pipeline} version {manifest.version}")
        session = Session(self._artifacts.read(manifest.onnx), manifest.schema, self._runtime)
        model = live_model(
            self._pipeline,
            session,
            seq=promoted.seq,
            version=promoted.version,
            features=manifest.features,
            arrived_at=arrived_at,
        )
        columns, rows = self._sample() or (synthetic_row(model.plan), 1)
        if not {column.name for column in manifest.schema.columns} <= columns.keys():
            columns, rows = synthetic_row(model.plan), 1
        for times in (1, 2):  # the graph may have been made for one number of rows
            repeated = {name: np.concatenate([values] * times) for name, values in columns.items()}
            session.warm(repeated, rows * times)
        return model

    def _refused(self, error: RegistryRefused, version: int = 0) -> None:
        self._observer(Refused(pipeline=self._pipeline.name, reason=error.reason, detail=error.detail, version=version))
