"""scores of a chunk → `<pipeline>.predictions`: a JSON record per event, in its partition, with its key and headers."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.models.labels import Label
from headrace.models.records import (
    TICK_HEADER,
    VERSION_HEADER,
    ClassPrediction,
    ClassTickPrediction,
    Prediction,
    TickPrediction,
)
from headrace.models.scores import decided, top
from headrace.streams.out import Headers, Outs

_encoder = msgspec.json.Encoder()
_ENDINGS = [f".{ms:03}Z" for ms in range(1000)]


class Predictions:
    """How a pipeline says what it predicts."""

    def __init__(self, pipeline: str, label: Label, topic: str) -> None:
        self._pipeline, self._label, self._topic = pipeline, label, topic

    def records(
        self,
        *,
        ids: Sequence[str],
        times: NDArray[np.int64],  # Unix ms
        scores: NDArray[np.float64],
        version: int,
        sources: Sequence[tuple[str, int, int]],
        keys: Sequence[bytes | None],
        headers: Sequence[Headers | None],
    ) -> Outs:
        """All of one length and in one order."""
        if self._label.classes:
            return self._outs(self._of_classes(ids, times, scores, version, sources), version, sources, keys, headers)
        name, values = self._pipeline, scores.tolist()
        rows = zip(ids, values, self._label.decisions(scores), times_as_text(times), sources, strict=True)
        # by position and encoded in one call: by name and one by one it was 0.3 µs more per event
        predictions = [
            Prediction(i, value, decision, name, version, at, source) for i, value, decision, at, source in rows
        ]
        return self._outs(predictions, version, sources, keys, headers)

    def _of_classes(
        self,
        ids: Sequence[str],
        times: NDArray[np.int64],
        scores: NDArray[np.float64],  # [n, classes]
        version: int,
        sources: Sequence[tuple[str, int, int]],
    ) -> list[ClassPrediction]:
        name, classes = self._pipeline, self._label.classes
        rows = zip(
            ids, top(scores).tolist(), times_as_text(times), sources, decided(scores), scores.tolist(), strict=True
        )
        return [
            ClassPrediction(
                i, value, None, name, version, at, source, classes[place], dict(zip(classes, each, strict=True))
            )
            for i, value, at, source, place, each in rows
        ]

    def _outs(
        self,
        predictions: Sequence[Prediction],
        version: int,
        sources: Sequence[tuple[str, int, int]],
        keys: Sequence[bytes | None],
        headers: Sequence[Headers | None],
    ) -> Outs:
        added = (VERSION_HEADER, str(version).encode())
        alone: Headers = [added]
        return Outs(
            topic=self._topic,
            keys=keys,
            values=_encoder.encode_lines(predictions).split(b"\n")[:-1],  # JSON has no line feed of its own
            headers=[[*own, added] if own else alone for own in headers],
            partitions=[max(source[1], -1) for source in sources],  # below 0: on demand, by its key
        )

    def of_tick(
        self,
        tick: str,
        *,
        ids: Sequence[str],
        times: NDArray[np.int64],  # the rows' own, Unix ms
        scores: NDArray[np.float64],
        version: int,
        sources: Sequence[tuple[str, int, int]],
        keys: Sequence[bytes],
        headers: Sequence[Headers | None],
    ) -> Outs:
        """Of rows that were scored by schedule: in the partition of their key, and each says of which tick."""
        answers, classes = top(scores).tolist(), self._label.classes
        rows = zip(ids, answers, self._label.decisions(scores), times_as_text(times), sources, strict=True)
        predictions = [
            TickPrediction(i, value, decision, self._pipeline, version, at, source, tick=tick)
            for i, value, decision, at, source in rows
        ]
        if classes:
            predictions = [
                ClassTickPrediction(
                    **msgspec.structs.asdict(one),
                    label=classes[place],
                    probabilities=dict(zip(classes, each, strict=True)),
                )
                for one, place, each in zip(predictions, decided(scores), scores.tolist(), strict=True)
            ]
        added: Headers = [(VERSION_HEADER, str(version).encode()), (TICK_HEADER, tick.encode())]
        return Outs(
            topic=self._topic,
            keys=keys,
            values=_encoder.encode_lines(predictions).split(b"\n")[:-1],
            headers=[[*(own or []), *added] for own in headers],
            partitions=[-1] * len(predictions),
        )


def times_as_text(times: NDArray[np.int64]) -> list[str]:
    """RFC 3339 in UTC; milliseconds where the chunk has any."""
    seconds, fractions = np.divmod(times, 1000)
    first, last = int(seconds.min()), int(seconds.max())
    parts = bool(fractions.any())
    if last - first > len(times) / 4:
        return _as_text(times.astype("datetime64[ms]"), "ms" if parts else "s")
    # live, many events share a second: a text for each of those, and one of a thousand endings
    texts = _as_text(np.arange(first, last + 1).astype("datetime64[s]"), "s")
    if not parts:
        return [texts[at] for at in (seconds - first).tolist()]
    stems = [text[:-1] for text in texts]
    return [stems[at] + _ENDINGS[ms] for at, ms in zip((seconds - first).tolist(), fractions.tolist(), strict=True)]


def _as_text(moments: NDArray[np.datetime64], unit: Literal["ms", "s"]) -> list[str]:
    texts: list[str] = np.datetime_as_string(moments, unit=unit, timezone="UTC").tolist()
    return texts
