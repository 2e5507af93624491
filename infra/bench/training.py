"""served rows and labels on a broker → how fast they become a dataset, and in how little memory.

Two children build (`dataset_build`): one as a training does, with all the memory there is, and one under a limit of a
twentieth of its dataset. Rows have 12 features; labels are JSON, one a record, in another order and on other partitions
than their rows. What it costs to put them there is not counted.
"""

import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from headrace.infra.bench.dataset_build import PIPELINE, START_MS, Built
from headrace.infra.bench.report import Row
from headrace.infra.bench.workload import preload
from headrace.infra.names import Names
from headrace.infra.processes.together import environment
from headrace.infra.settings import Settings
from headrace.infra.topics import apply
from headrace.models.errors import HeadraceError
from headrace.streams.served import encode_served, served_batch, served_schema

SPEED, MEMORY = "dataset_speed", "dataset_memory"
TARGETS: Final = {SPEED: 500_000.0, MEMORY: 1.0}  # rows a second; peak of a build 20 times as large, over the limit
LIMIT_BYTES: Final = 64 * 2**20
TIMES: Final = 20  # the dataset is so many times as large as the limit
_ROW_BYTES: Final = 170  # a little less than a row has in the dataset, which so is not smaller than it is to be
_PARTITIONS: Final = 2
_CHUNK_ROWS: Final = 1_000  # in one served record, as a worker writes them under load
_SHUFFLED_ROWS: Final = 200_000  # labels come in any order within so many
_STEP_MS, _DELAY_MS = 10, 3_600_000  # between events; from an event to its label
_TEXTS: Final = np.array([f"value-{n}" for n in range(50)], object)  # of each category
_SMALL_ROWS: Final = 2_000
_LAST_LINES: Final = 5
# Arrow's as trainings have it; and one heap: with one per thread, what a thread frees is of no use to another
_ALLOCATOR: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True, kw_only=True)
class TrainingSide:
    """`bounded` is the build under the limit; the others are of the one that has all memory."""

    rows: int
    rows_per_second: float  # from the first read to the ready dataset, hashed
    stages: Mapping[str, float]  # seconds
    bounded_rows: int
    bounded_rows_per_second: float
    limit_bytes: int
    dataset_bytes: int  # of the bounded build
    peak_bytes: int  # of its resident memory, above what it had before


def measure(settings: Settings, rows: int) -> TrainingSide:
    """On topics of its own, below `settings.prefix`. Raises HeadraceError where a build fails or loses a row."""
    with tempfile.TemporaryDirectory(prefix="bench-dataset-", dir=settings.home) as made:
        speed, bounded, small = (_below(settings, name) for name in ("speed.", "bounded.", "small."))
        many = LIMIT_BYTES * TIMES // _ROW_BYTES
        for topics, count in ((small, _SMALL_ROWS), (speed, rows), (bounded, many)):
            filled(topics, count)
        free = _sound(built(speed, small, Path(made) / "speed"), rows)
        tight = _sound(built(bounded, small, Path(made) / "bounded", LIMIT_BYTES), many)
    return TrainingSide(
        rows=rows,
        rows_per_second=rows / sum(free.seconds.values()),
        stages=free.seconds,
        bounded_rows=many,
        bounded_rows_per_second=many / sum(tight.seconds.values()),
        limit_bytes=LIMIT_BYTES,
        dataset_bytes=tight.dataset_bytes,
        peak_bytes=tight.peak_bytes,
    )


def rows(settings: Settings, count: int, names: Collection[str]) -> list[Row]:
    """The benchmark's rows: the speed of a build with all memory, and the memory of one under the limit."""
    found = measure(settings, count)
    detail = asdict(found)
    share = found.peak_bytes / found.limit_bytes
    made = [
        Row(name=SPEED, target=TARGETS[SPEED], runs=[found.rows_per_second], unit="rows/s", detail=detail),
        Row(name=MEMORY, target=TARGETS[MEMORY], runs=[share], better="lower", detail=detail),
    ]
    return [row for row in made if row.name in names]


def filled(settings: Settings, rows: int) -> None:
    """The topics of `PIPELINE`, with so many rows and their labels."""
    apply(settings, PIPELINE, _PARTITIONS)
    names = Names(settings.prefix, PIPELINE)
    preload(settings, names.topics.served, ((None, value) for value in _served(rows)), _PARTITIONS)
    preload(settings, names.labels, ((None, value) for value in _labels(rows)), PIPELINE.label.topic.partitions)


def built(settings: Settings, small: Settings, folder: Path, limit_bytes: int | None = None) -> Built:
    """In a process of its own, which builds the small one first. Raises HeadraceError with its last words."""
    folder.mkdir(parents=True)
    limit = [] if limit_bytes is None else [f"--limit-bytes={limit_bytes}"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace.infra.bench.dataset_build", str(folder), small.prefix, *limit],
        env=environment(settings) | _ALLOCATOR,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        words = " | ".join(done.stderr.decode(errors="replace").strip().splitlines()[-_LAST_LINES:])
        raise HeadraceError(f"building a dataset ended with status {done.returncode}: {words or 'it said nothing'}")
    return msgspec.json.decode(done.stdout, type=Built)


def _sound(found: Built, rows: int) -> Built:
    if found.rows != rows:
        raise HeadraceError(f"expected a dataset of {rows} rows, got {found.rows}")
    return found


def _below(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update={"prefix": settings.prefixed(name)})


def _served(rows: int) -> Iterator[bytes]:
    """Record n is of partition n % 2, as `preload` puts it."""
    schema, random = served_schema(PIPELINE.columns), np.random.default_rng(rows)
    for number, first in enumerate(range(0, rows, _CHUNK_ROWS)):
        places = np.arange(first, min(first + _CHUNK_ROWS, rows), dtype=np.int64)
        columns = {
            column.name: random.normal(size=len(places))
            if column.kind == "number"
            else _TEXTS[random.integers(0, len(_TEXTS), len(places))]
            for column in PIPELINE.columns
        }
        batch = served_batch(
            schema,
            ids=[_id(place) for place in places.tolist()],
            times=START_MS + places * _STEP_MS,
            partition=number % _PARTITIONS,
            offsets=places,
            version=1,
            scores=random.random(len(places)),
            columns=columns,
        )
        for value, _, _ in encode_served(batch):
            yield value


def _labels(rows: int) -> Iterator[bytes]:
    random = np.random.default_rng(rows)
    for first in range(0, rows, _SHUFFLED_ROWS):
        places = random.permutation(np.arange(first, min(first + _SHUFFLED_ROWS, rows)))
        times = np.datetime_as_string((START_MS + places * _STEP_MS + _DELAY_MS).astype("datetime64[ms]"))
        for place, time, late in zip(places.tolist(), times, random.integers(0, 2, len(places)).tolist(), strict=True):
            yield b'{"id":"%s","at":"%sZ","late":%d}' % (_id(place).encode(), time.encode(), late)


def _id(place: int) -> str:
    return f"event-{place:012}"
