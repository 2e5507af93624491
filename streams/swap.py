"""registry → the live model: fetched, checked and warmed beside the one that serves, then one assignment.

`Follower` prepares in a thread of its own; `Swap` switches in the source's thread, between two chunks, and says so on
`<pipeline>.history`. Whatever fails leaves the old version serving and is a fact (laws 4, 5).
"""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import monotonic
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.models import manifest as manifests
from headrace.models import registry
from headrace.models.aliases import CHALLENGER, CHAMPION
from headrace.models.durations import iso
from headrace.models.errors import BrokerUnavailable, RegistryRefused
from headrace.models.facts import CanaryServes, Observer, Proven, Refused, Swapped
from headrace.models.golden import check_golden, golden_columns
from headrace.models.manifest import Blob, Manifest
from headrace.models.pipeline import Pipeline
from headrace.models.protocols import Columns
from headrace.models.records import Activation, Aliased, Promoted, Switched
from headrace.models.schema import Schema
from headrace.models.session import Runtime, Session, expect_classes
from headrace.models.signing import Verify, accepted
from headrace.streams.canary import Canary, Serving
from headrace.streams.chunk import Part, TopicPartition
from headrace.streams.codec import clock_ms
from headrace.streams.features import synthetic_row
from headrace.streams.model import Baseline, LiveModel, live_model
from headrace.streams.out import Message, Out

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 1.0  # when the broker does not hand out an artifact
_BEHIND_SECONDS = 30.0  # for a promotion that another worker serves already
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


class Sandbox(Protocol):
    """Where a graph runs for the first time: it can do no harm there."""

    def prove(
        self, onnx: bytes, schema: Schema, columns: Columns, rows: int, operators: Collection[str]
    ) -> NDArray[np.float64]:
        """Scores [rows], all finite. Raises RegistryRefused for what must not be loaded here."""


class Served(Protocol):
    """Whoever serves what a follower has proven. Called in the follower's thread."""

    def propose(self, model: LiveModel) -> None: ...

    def propose_canary(self, canary: Canary | None) -> None: ...

    def looked_at(self, seq: int) -> None:
        """Every promotion up to this one is proposed or refused."""


class Swap:
    """Which model serves. `propose` and `looked_at` from the follower's thread; the rest from the source's.

    `last_served` gives the seq of the promotion that each partition was served by last, by its history.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        history_topic: str,
        worker: str,
        observer: Observer,
        last_served: Callable[[Collection[TopicPartition]], Mapping[TopicPartition, int]] = lambda _partitions: {},
    ) -> None:
        self._pipeline, self._history, self._worker, self._observer = pipeline, history_topic, worker, observer
        self._last_served = last_served
        self._current = live_model(pipeline, Baseline(pipeline))
        self._coming: LiveModel | None = None  # proven; serves some partitions, and the others from its offsets on
        self._proposed: LiveModel | None = None
        self._canary: Canary | None = None
        self._recorded: dict[TopicPartition, int] = {}  # partition → seq of its last history record
        self._news = threading.Condition()
        self._looked_at = 0  # the seq up to which promotions are proven or refused

    def propose(self, model: LiveModel) -> None:
        self._proposed = model

    def propose_canary(self, canary: Canary | None) -> None:
        """From the next chunk on it serves its share of the keys, or nobody does."""
        self._canary = canary

    def looked_at(self, seq: int) -> None:
        """Every promotion up to this one is proposed or refused."""
        with self._news:
            self._looked_at = seq
            self._news.notify_all()

    def between(self, positions: Mapping[TopicPartition, int]) -> list[Out]:
        """Switches if a newer model is ready; gives a history record per partition that it serves from now on."""
        if new := positions.keys() - self._recorded.keys():
            self._catch_up_with(new)
        self._take()
        if self._coming is not None and all(at >= self._coming.begins_at(place) for place, at in positions.items()):
            self._switch(self._coming, positions)
        elif self._coming is None and positions.keys() == self._recorded.keys():
            return []
        return self._recorded_at(positions)

    def parts(self, messages: Sequence[Message]) -> Sequence[Part[Serving]]:
        """Who serves these messages, and what history says of it: one part, but for a promotion that waits for its
        offsets, where they lie among the messages: what comes before them, and what comes from them on."""
        coming, canary = self._coming, self._canary
        if coming is None:
            return [(Serving(self._current, canary), messages, ())]
        before, after, records = [], [], []
        for message in messages:
            partition, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
            if self._model_of(partition, offset) is self._current:
                before.append(message)
                continue
            after.append(message)
            if self._recorded.get(partition) != coming.seq:
                self._recorded[partition] = coming.seq
                records.append(self._record(partition, offset, coming))
        parts: list[Part[Serving]] = [
            (Serving(self._current, canary), before, ()),
            (Serving(coming, canary), after, records),
        ]
        return [part for part in parts if part[1]]

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Their records were taken back, or they went: said again when they are served again."""
        for partition in partitions:
            self._recorded.pop(partition, None)

    def _catch_up_with(self, partitions: Collection[TopicPartition]) -> None:
        """Whoever served these partitions before may be ahead of us: until the promotion that it served is proven or
        refused here too, nothing is served (law 5)."""
        wanted = max(self._last_served(partitions).values(), default=0)
        with self._news:
            known = self._news.wait_for(lambda: self._looked_at >= wanted, _BEHIND_SECONDS)
        serves = max(model.seq for model in (self._current, self._coming, self._proposed) if model is not None)
        if serves < wanted:
            why = "was refused here" if known else f"was not to be had within {_BEHIND_SECONDS:.0f} s"
            served = f"promotion {wanted} served the partition before and {why}; going on with {serves}"
            self._observer(Refused(pipeline=self._pipeline.name, reason="behind_history", detail=served))

    def _take(self) -> None:
        """A newer proposal is on its way in; one that waited for its offsets gives way to it."""
        proposed, self._proposed = self._proposed, None
        newest = self._current if self._coming is None else self._coming
        if proposed is not None and proposed.seq > newest.seq:
            self._coming = proposed

    def _recorded_at(self, positions: Mapping[TopicPartition, int]) -> list[Out]:
        records = []
        for partition, at in positions.items():
            model, before = self._model_of(partition, at), self._recorded.get(partition)
            if before != model.seq:
                # a partition that was served here by another: whoever is new to it cannot know
                late = max(0, at - model.begins_at(partition)) if before is not None and model.activation else 0
                records.append(self._record(partition, at, model, late))
        self._recorded = {partition: self._model_of(partition, at).seq for partition, at in positions.items()}
        return records

    def _switch(self, model: LiveModel, positions: Mapping[TopicPartition, int]) -> None:
        self._current, self._coming = model, None
        self._observer(
            Swapped(
                pipeline=self._pipeline.name,
                seq=model.seq,
                version=model.version,
                seconds=monotonic() - model.arrived_at,
                first_offsets={f"{topic}/{partition}": at for (topic, partition), at in positions.items()},
            )
        )

    def _model_of(self, partition: TopicPartition, offset: int) -> LiveModel:
        coming = self._coming
        return coming if coming is not None and offset >= coming.begins_at(partition) else self._current

    def _record(self, partition: TopicPartition, first_offset: int, model: LiveModel, late: int = 0) -> Out:
        switched = Switched(
            pipeline=self._pipeline.name,
            seq=model.seq,
            version=model.version,
            topic=partition[0],
            partition=partition[1],
            first_offset=first_offset,
            worker=self._worker,
            at=iso(clock_ms()),
            late=late,
        )
        return Out(self._history, self._pipeline.name.encode(), msgspec.json.encode(switched), [])


class Follower:
    """Reads the registry to its end before the first event, then follows it."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        reader: RegistryReader,
        artifacts: ArtifactReader,
        sandbox: Sandbox,
        swap: Served,
        sample: Callable[[], tuple[Columns, int] | None],
        observer: Observer,
        verify: Verify = accepted,
        alias: str = CHAMPION,
        topic_id: str = "",
        runtime: Runtime = Runtime(),  # noqa: B008  frozen
    ) -> None:
        """`alias` says whose moves are followed; `topic_id` is that of the events, to which an activation is bound."""
        self._pipeline, self._reader, self._artifacts = pipeline, reader, artifacts
        self._sandbox, self._verify = sandbox, verify
        self._alias, self._topic_id = alias, topic_id
        self._swap, self._sample, self._observer, self._runtime = swap, sample, observer, runtime
        self._versions = registry.Versions()
        self._proven = 0  # seq of the newest promotion that was proposed
        self._tried = 0  # seq of the newest promotion that was looked at
        self._share_seq = 0  # seq of the newest move of the challenger that was looked at
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)

    @property
    def versions(self) -> registry.Versions:
        """The registry as it is known here. To be read; it changes in this follower's thread."""
        return self._versions

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
        """What is refused, or wrongly signed, takes no place: the next record with its seq may be the leader's."""
        for value in values:
            try:
                record = registry.decode(value)
                if record.pipeline == self._pipeline.name:
                    self._verify(record)
                    self._versions.apply(record)
            except RegistryRefused as error:
                self._refused(error)

    def _prepare_newest(self) -> bool:
        """From the newest promotion back to the one that serves: the first that proves itself. False: ask again."""
        moves = self._versions.moves(self._alias)
        for promoted in reversed(moves):
            if promoted.seq <= max(self._proven, self._tried):
                break
            try:
                model = self._prepare(promoted) if promoted.version else self._baseline(promoted.seq)
            except RegistryRefused as error:
                self._refused(error, promoted.version or 0)
            except BrokerUnavailable as error:
                self._refused(RegistryRefused("unavailable", str(error)), promoted.version or 0)
                self._stopping.wait(_RETRY_SECONDS)
                return False
            else:
                self._proven = promoted.seq
                self._swap.propose(model)
                self._observer(
                    Proven(
                        pipeline=self._pipeline.name,
                        seq=model.seq,
                        version=model.version,
                        seconds=monotonic() - model.arrived_at,
                    )
                )
                break
        if moves:
            self._tried = moves[-1].seq
        self._prepare_canary()
        self._swap.looked_at(self._versions.seq)
        return True

    def _prepare_canary(self) -> None:
        """The challenger, where it serves a share of the keys. One that is refused serves none; the champion does."""
        moves = self._versions.moves(CHALLENGER)
        if self._alias != CHAMPION or not moves or moves[-1].seq <= self._share_seq:
            return
        newest = moves[-1]
        self._share_seq, canary = newest.seq, None
        share = newest.share if isinstance(newest, Aliased) else 0.0
        if newest.version and share:
            try:
                canary = Canary(model=self._prepare(newest), share=share, pipeline=self._pipeline.name)
            except BrokerUnavailable as error:
                self._share_seq = 0  # asked again, with the next record or poll
                self._refused(RegistryRefused("unavailable", f"as a canary: {error}"), newest.version)
                return
            except Exception as error:  # noqa: BLE001  whatever it is, the champion serves
                reason = error.reason if isinstance(error, RegistryRefused) else "unexpected"
                self._refused(RegistryRefused(reason, f"as a canary: {error}"), newest.version)
        self._swap.propose_canary(canary)
        version, serves = (newest.version or 0, share) if canary else (0, 0.0)
        self._observer(CanaryServes(pipeline=self._pipeline.name, version=version, share=serves))

    def _baseline(self, seq: int) -> LiveModel:
        """Version 0, or an alias that means no version."""
        return live_model(self._pipeline, Baseline(self._pipeline), seq=seq)

    def _activation(self, move: Promoted | Aliased) -> Activation | None:
        wanted = move.activate_at if isinstance(move, Promoted) else None
        if wanted is not None and wanted.topic_id != self._topic_id:
            other = f"activate_at is bound to topic {wanted.topic_id}, the events' here is {self._topic_id}: at once"
            self._refused(RegistryRefused("other_topic", other), move.version or 0)
            return None
        return wanted

    def _prepare(self, promoted: Promoted | Aliased) -> LiveModel:
        """(1) fetch and verify, (2) check, load and run it in the sandbox, (3) load it here, (4) warm it.

        It is run on its own golden rows and on rows that are being served: none of them may be new to it later.
        """
        arrived_at = monotonic()
        published = self._versions.published[promoted.version or 0]
        manifest = manifests.decode(self._artifacts.read(published.manifest))
        if (manifest.pipeline, manifest.version) != (promoted.pipeline, promoted.version):
            raise RegistryRefused("wrong_manifest", f"it is of {manifest.pipeline} version {manifest.version}")
        graph = self._artifacts.read(manifest.onnx)
        columns, rows = self._rows(manifest)
        scores = self._sandbox.prove(graph, manifest.schema, columns, rows, self._pipeline.operators)
        if manifest.golden is not None:
            check_golden(manifest.golden, scores)
        session = Session(graph, manifest.schema, self._runtime)
        expect_classes(session, self._pipeline.label.classes, manifest.classes)
        model = live_model(
            self._pipeline,
            session,
            seq=promoted.seq,
            version=manifest.version,
            features=manifest.features,
            arrived_at=arrived_at,
            activation=self._activation(promoted),
        )
        made = {column.name for column in model.plan.columns}
        if lacking := [column.name for column in manifest.schema.columns if column.name not in made]:
            raise RegistryRefused("lacks_feature", f"no feature of the version makes its columns {', '.join(lacking)}")
        session.warm(columns, rows)
        return model

    def _rows(self, manifest: Manifest) -> tuple[Columns, int]:
        """The golden rows, if there are any, then those that are being served, if those have the version's columns."""
        wanted = [column.name for column in manifest.schema.columns]
        served, rows = self._sample() or ({}, 0)
        if not set(wanted) <= served.keys():
            served, rows = synthetic_row(manifest.schema.columns), 1
        if manifest.golden is None:
            return {name: served[name] for name in wanted}, rows
        golden, golden_rows = golden_columns(manifest.golden, manifest.schema)
        return {name: np.concatenate([golden[name], served[name]]) for name in wanted}, golden_rows + rows

    def _refused(self, error: RegistryRefused, version: int = 0) -> None:
        self._observer(Refused(pipeline=self._pipeline.name, reason=error.reason, detail=error.detail, version=version))
