"""moments of a past → what would have been trained then: each once, on disk as soon as it is done, several at a time.

What a training comes to is a function of its rows, the code, and the moment; and of the champion, for a learner that
goes on from it. Its folder's name is a hash of these. So policies that train at the same moment share one training,
and whoever starts again finds what was finished.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from queue import PriorityQueue
from threading import Lock, Thread

import msgspec

from headrace.infra.sources import archived
from headrace.infra.training import Origin, baseline_of
from headrace.models.errors import RunFailed
from headrace.trainer.learners import Torch
from headrace.trainer.messages import RunRequest, RunResult, champion_of
from headrace.trainer.past import Past
from headrace.trainer.process import Run, Trainer
from headrace.trainer.run import MODEL, RESULT
from headrace.trainer.scratch import scratch_folder

_LIBRARIES = ("headrace", "numpy", "onnx", "onnxruntime", "torch")  # another one may train another model


@dataclass(frozen=True, kw_only=True)
class Made:
    """A finished training."""

    key: str
    folder: Path
    result: RunResult

    @cached_property
    def onnx(self) -> bytes:
        return (self.folder / MODEL).read_bytes()

    @property
    def seconds(self) -> float:
        return sum(self.result.seconds.values())


@dataclass(frozen=True, kw_only=True)
class Counted:
    asked: int
    done: int
    found: int  # of them, finished by an earlier plan


class Trainings:
    """`jobs` at a time. Used by many threads; `close` ends what goes on."""

    def __init__(self, origin: Origin, past: Past, past_file: Path, home: Path, trainer: Trainer, jobs: int) -> None:
        self._origin, self._past, self._past_file, self._trainer = origin, past, past_file, trainer
        self._finished, self._unfinished, self._cache = home / "trainings", home / "unfinished", home / "cache"
        for folder in (self._finished, self._unfinished):
            folder.mkdir(parents=True, exist_ok=True)
        self._recipe = _recipe(origin)
        self._asked: dict[str, Future[Made]] = {}
        self._waiting: PriorityQueue[tuple[int, int, int, Callable[[], None]]] = PriorityQueue()
        self._order, self._lock, self._closed = count(), Lock(), False
        self._going: set[Run] = set()
        self._ahead: set[str] = set()  # asked for, and nobody waits as yet
        self._taken: set[str] = set()
        self._found = 0
        self._threads = [Thread(target=self._work, name=f"training-{n}", daemon=True) for n in range(jobs)]
        for thread in self._threads:
            thread.start()

    @property
    def goes_on(self) -> bool:
        """Whether the learner goes on from the champion: then a training is known when the one before it is judged."""
        learner = self._origin.pipeline.learner
        return bool(getattr(learner, "warm_start", not isinstance(learner, Torch)))

    @property
    def counted(self) -> Counted:
        with self._lock:
            done = sum(future.done() for future in self._asked.values())
            return Counted(asked=len(self._asked), done=done, found=self._found)

    def ask(self, at_ms: int, champion: Made | None, number: int, *, waits: bool = True) -> Future[Made]:
        """`champion` serves then, as version `number`; None for the baseline. `waits`: someone does, and so it goes
        before those that are asked for ahead. The future raises RunFailed, and CancelledError after `close`."""
        before = champion if self.goes_on else None
        key = self._key(at_ms, before)
        with self._lock:
            if self._closed:
                raise CancelledError
            future = self._asked.get(key)
            if future is not None and not (waits and key in self._ahead):
                return future
            future = self._asked.setdefault(key, future or Future())
            (self._ahead.discard if waits else self._ahead.add)(key)
        task = partial(self._train, future, key, at_ms, before, number)
        self._waiting.put((0 if waits else 1, at_ms, next(self._order), task))
        return future

    def close(self) -> None:
        """Cancels what goes on and what waits; finished trainings stay."""
        with self._lock:
            self._closed = True
            going, asked = list(self._going), list(self._asked.values())
        for future in asked:
            future.cancel()
        for run in going:
            run.cancel()
        for _ in self._threads:
            self._waiting.put((-1, 0, next(self._order), _nothing))
        for thread in self._threads:
            thread.join()

    def _key(self, at_ms: int, champion: Made | None) -> str:
        rows = self._past.sha256(at_ms, self._origin.pipeline.reach_ms)
        parts = [self._recipe, rows, str(at_ms), champion.key if champion else ""]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def _work(self) -> None:
        while not self._closed:
            *_, task = self._waiting.get()
            task()

    def _train(self, future: Future[Made], key: str, at_ms: int, champion: Made | None, number: int) -> None:
        with self._lock:
            if key in self._taken or not future.set_running_or_notify_cancel():
                return
            self._taken.add(key)
        try:
            made = self._read(key)
            if made is None:
                made = self._run(key, at_ms, champion, number)
            else:
                with self._lock:
                    self._found += 1
        except BaseException as error:  # noqa: BLE001  whoever waits is told
            future.set_exception(error)
        else:
            future.set_result(made)

    def _read(self, key: str) -> Made | None:
        folder = self._finished / key
        try:
            return Made(
                key=key, folder=folder, result=msgspec.json.decode((folder / RESULT).read_bytes(), type=RunResult)
            )
        except FileNotFoundError:
            return None

    def _run(self, key: str, at_ms: int, champion: Made | None, number: int) -> Made:
        """(1) trained in a folder that goes if anything goes wrong, (2) that folder renamed: whole, or not there."""
        place, pipeline = self._origin.file.path, self._origin.pipeline
        served = baseline_of(pipeline)
        if champion is not None:
            served = champion_of(number, champion.folder / MODEL, pipeline.schema, champion.result)
        with scratch_folder(self._unfinished) as folder:
            request = RunRequest(
                run=key,
                loader="headrace.infra.pipeline_file:read_pipeline",
                pipeline=f"{place}:{self._origin.name_in_file}",
                at_ms=at_ms,
                data=str(folder),
                past=str(self._past_file),
                out=str(folder / "run"),
                cache=str(self._cache),
                champion=served,
                import_path=(str(place.parent),),
                threads=pipeline.run.cpus,
            )
            going = self._trainer.start(request, pipeline.run)
            with self._lock:
                self._going.add(going)
            try:
                if self._closed:
                    going.cancel()
                going.wait()
            finally:
                with self._lock:
                    self._going.discard(going)
            with suppress(OSError):  # another plan was quicker
                (folder / "run").rename(self._finished / key)
        made = self._read(key)
        if made is None:
            raise RunFailed("crashed", f"the run left no model in {self._finished / key}")
        return made


def _recipe(origin: Origin) -> str:
    digest = hashlib.sha256(archived(origin.file.path))
    digest.update(origin.name_in_file.encode())
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            digest.update(f"\0{library} {version(library)}".encode())
    return digest.hexdigest()


def _nothing() -> None:
    """Wakes a thread that waits for something to do."""
