"""topics of served rows and labels → a ready dataset, in this process: `python -m headrace.infra.bench.dataset_build`.

A process of its own, so that its memory is the build's: fetched, joined, sorted and hashed, by the code of a scheduler
and of a training. It first builds a small dataset: what libraries take and import once is no part of any dataset.

Two things hold the limit. The kernel refuses private memory beyond it (RLIMIT_DATA: Linux enforces no resident limit;
the stacks of the client's threads are allowed beside it, since they are reserved and hardly used). And the largest
resident size that the kernel saw, less that before the build, is what is said: pages of files count in it, too.
"""

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from headrace.infra.dataset_files import DatasetFiles
from headrace.infra.names import Names
from headrace.infra.settings import Settings
from headrace.models.features import Category, Number, Topic
from headrace.models.labels import Binary
from headrace.models.pipeline import Pipeline
from headrace.models.windows import Last
from headrace.trainer.dataset import rules_of, to_dataset
from headrace.trainer.ready import ready_dataset
from headrace.trainer.scratch import scratch_folder
from headrace.trainer.snapshot import dataset_sha256

PIPELINE: Final = Pipeline(
    name="dataset",
    events=Topic("events", id="id", time="at"),
    features=[*(Number(f"number{n}") for n in range(8)), *(Category(f"category{n}") for n in range(4))],
    label=Binary(Topic("labels", id="id", time="at", partitions=2), "late", within="36h", if_absent="drop"),
    train_on=Last("52w", holdout="1h"),
)
START_MS: Final = 1_735_689_600_000  # 2025-01-01T00:00Z, the first event
_AS_OF_MS: Final = START_MS + 30 * 86_400_000
_STACKS: Final = 64 * 2**20  # of eight threads
_SMALL_BYTES: Final = 2**20  # so little that also the small dataset is joined on disk


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    rows: int
    seconds: dict[str, float]  # by stage
    dataset_bytes: int
    sha256: str
    in_memory: bool
    peak_bytes: int = 0  # of the resident memory, above what it was before


def build(settings: Settings, folder: Path, memory_bytes: int | None = None) -> Built:
    """`memory_bytes` is what the join may take; what there is, if not said."""
    seconds, label = dict[str, float](), PIPELINE.label
    begun = time.perf_counter()

    def stage(name: str) -> None:
        seconds[name] = time.perf_counter() - begun - sum(seconds.values())

    files = DatasetFiles(settings, Names(settings.prefix, PIPELINE), folder / "files")
    files.fetch()
    stage("fetch")
    with scratch_folder(folder) as scratch:
        joined = ready_dataset(
            files.folder,
            scratch,
            memory_bytes,
            **rules_of(PIPELINE, _AS_OF_MS),
        )
        stage("join")
        if joined.file is None:
            to_dataset(joined, PIPELINE.schema, label.task)
            stage("columns")
        sha256 = dataset_sha256(joined)
        stage("hash")
        return Built(
            rows=len(joined.table),
            seconds=seconds,
            dataset_bytes=joined.file.stat().st_size if joined.file else joined.table.nbytes,
            sha256=sha256,
            in_memory=joined.file is None,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("small_prefix", help="of the topics of a small dataset, for what libraries take once")
    parser.add_argument("--limit-bytes", type=int)
    given = parser.parse_args()
    settings = Settings.load()
    build(settings.model_copy(update={"prefix": given.small_prefix}), given.folder / "small", _SMALL_BYTES)
    resident = _kilobytes("VmRSS")
    if given.limit_bytes:
        most = _kilobytes("VmData") + given.limit_bytes + _STACKS
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    built = build(settings, given.folder / "large", given.limit_bytes)
    built = msgspec.structs.replace(built, peak_bytes=_kilobytes("VmHWM") - resident)
    sys.stdout.buffer.write(msgspec.json.encode(built))


def _kilobytes(name: str) -> int:
    """Of this process, in bytes. VmHWM is the largest VmRSS; getrusage's begins with that of whoever started us."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
