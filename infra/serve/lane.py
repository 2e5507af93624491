"""concurrent requests → batches of one model → one run each, in a thread of the lane's own → their answers.

Nothing waits for a clock: what comes while a run is under way, or in the same turn of the event loop, is the next
batch. How many rows that may be follows the time that batches take: a few more after a full one in time, a tenth less
after one that took too long (AIMD, as in Clipper: Crankshaw et al., NSDI 2017, section 4.3). Runs that are known to be
short happen in the event loop itself: two hand-overs between threads cost a lone request more than a small model does.
"""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from queue import SimpleQueue
from time import monotonic, thread_time
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import Late, Overloaded

_FIRST_ROWS = 64  # of a batch, until it is known how long those take
_MORE_ROWS = 8  # after each full batch that was in time
_LESS = 0.9
_SWEEP_SECONDS = 0.05  # how much later than its deadline a request may hear that it is over
_REMEMBER = 0.9  # of what runs took, from batch to batch
_SHORT_SECONDS = 0.000_5  # of processor time; longer ones would be felt by all other requests
_KNOWN_RUNS = 5  # until it is known what runs take

Key = TypeVar("Key", bound=Hashable)
Payload = TypeVar("Payload")
Answer = TypeVar("Answer")


class BatchSize:
    """The most rows of a model that run together, found by trying; and how long its runs take."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self.rows = min(_FIRST_ROWS, most)
        self._runs, self._mean, self._per_row = 0, 0.0, 0.0  # seconds of processor time

    def is_short(self, rows: int) -> bool:
        """Whether a run of so many rows is known to be."""
        return self._runs >= _KNOWN_RUNS and max(self._mean, rows * self._per_row) < _SHORT_SECONDS

    def took(self, rows: int, seconds: float) -> None:
        """Of processor time: waiting for the interpreter is no part of a run."""
        self._runs += 1
        if self._runs == 1:  # it may have set something up
            return
        self._mean = _REMEMBER * self._mean + (1 - _REMEMBER) * seconds
        self._per_row = _REMEMBER * self._per_row + (1 - _REMEMBER) * seconds / rows

    def ran(self, rows: int, seconds: float) -> None:
        if rows > self.rows:  # one request, larger than what is put together here
            return
        if seconds > self._seconds:
            self.rows = max(1, int(self.rows * _LESS))
        elif rows >= self.rows - _MORE_ROWS:
            self.rows = min(self._most, self.rows + _MORE_ROWS)


@dataclass(slots=True, eq=False)
class Job(Generic[Payload, Answer]):
    payload: Payload
    rows: int
    arrived: float  # monotonic seconds, as the deadline
    deadline: float
    answer: "asyncio.Future[Answer]"


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[Key]):
    """What the observer of a lane is told."""

    key: Key
    rows: int
    waited: list[float]  # seconds in the queue, by request
    seconds: float  # of the run


class Lane(Generic[Key, Payload, Answer]):
    """`run` gets payloads of one key, in its thread, and gives as many answers, or exceptions, in their order.

    Everything else is for the event loop in which the lane was made.
    """

    def __init__(
        self,
        name: str,
        run: "Callable[[Key, Sequence[Payload]], Sequence[Answer | Exception]]",
        limits: Limits,
        observer: "Callable[[Batch[Key]], None]",
        *,
        inline: bool = False,
    ) -> None:
        """`inline`: a run takes as long as its rows are many, whatever is in them, so short ones need no thread."""
        self._inline = inline
        self._run, self._limits, self._observer = run, limits, observer
        self._loop = asyncio.get_running_loop()
        self._queues: OrderedDict[Key, deque[Job[Payload, Answer]]] = OrderedDict()
        self._sizes: WeakKeyDictionary[Key, BatchSize] = WeakKeyDictionary()
        self._requests = self._rows = 0  # that wait
        self._run_seconds, self._together = 0.0, _FIRST_ROWS  # a usual run, and the rows that one takes now
        self._running: list[Job[Payload, Answer]] = []
        self._due = self._sweeping = False
        self._tasks: SimpleQueue[tuple[Key, list[Job[Payload, Answer]]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Requests in the run that is under way."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._requests

    def submit(self, key: Key, payload: Payload, rows: int, deadline: float) -> "asyncio.Future[Answer]":
        """Raises Overloaded: for as many as would wait too long, or for nothing but their deadline."""
        now, limits = monotonic(), self._limits
        if self._requests:
            wait = ceil(self._rows / self._together) * self._run_seconds
            full = self._rows + rows > limits.waiting_rows or self._requests >= limits.waiting_requests
            if full or now + wait > deadline:
                said = f"{self._requests:,} requests wait, for about {wait:.2g} s"
                raise Overloaded(f"expected a place in the queue, {said}: ask again later", max(1, ceil(wait)))
        job: Job[Payload, Answer] = Job(payload, rows, now, deadline, self._loop.create_future())
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(job)
        self._requests += 1
        self._rows += rows
        if not self._running and not self._due:
            self._due = True
            self._loop.call_soon(self._next)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        return job.answer

    def close(self) -> None:
        """What runs is finished; what waits is not started."""
        self._tasks.put(None)
        self._thread.join(5)

    def _next(self) -> None:
        self._due = False
        while self._queues and not self._running:
            key, queue = self._queues.popitem(last=False)
            self._running = self._take(key, queue)
            if queue:
                self._queues[key] = queue  # behind the others: no model waits for ever
            if self._running and self._inline and self._sizes[key].is_short(sum([job.rows for job in self._running])):
                self._done(key, self._running, *self._ran(key, self._running))
                return
            if self._running:
                self._tasks.put((key, self._running))

    def _take(self, key: Key, queue: deque[Job[Payload, Answer]]) -> list[Job[Payload, Answer]]:
        """From the queue's beginning; those whose asker has gone, or whose time is over, are not run."""
        size = self._sizes.get(key)
        if size is None:
            size = self._sizes[key] = BatchSize(self._limits.batch_rows, self._limits.batch_seconds)
        taken: list[Job[Payload, Answer]] = []
        rows, now = 0, monotonic()
        while queue and (not taken or rows + queue[0].rows <= size.rows):
            job = queue.popleft()
            self._requests -= 1
            self._rows -= job.rows
            if _end(job, now):
                continue
            taken.append(job)
            rows += job.rows
        return taken

    def _done(
        self,
        key: Key,
        jobs: list[Job[Payload, Answer]],
        answers: "Sequence[Answer | Exception]",
        begun: float,
        processor_seconds: float,
    ) -> None:
        seconds = monotonic() - begun
        for job, answer in zip(jobs, answers, strict=True):
            if job.answer.done():
                continue
            if isinstance(answer, Exception):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)
        rows = sum([job.rows for job in jobs])
        size = self._sizes[key]
        size.ran(rows, seconds)
        size.took(rows, processor_seconds)
        self._run_seconds = _REMEMBER * self._run_seconds + (1 - _REMEMBER) * seconds
        self._together = size.rows
        self._running = []
        if self._queues and not self._due:
            self._due = True
            self._loop.call_soon(self._next)
        self._observer(Batch(key=key, rows=rows, waited=[begun - job.arrived for job in jobs], seconds=seconds))

    def _sweep(self) -> None:
        """Whose time is over hears it, even while a model hangs, and takes no place in the queue any more."""
        now = monotonic()
        for job in self._running:
            _end(job, now)
        for key, queue in list(self._queues.items()):
            over = [job for job in queue if _end(job, now)]
            if over:
                self._requests -= len(over)
                self._rows -= sum([job.rows for job in over])
                self._queues[key] = deque(job for job in queue if not job.answer.done())
        self._sweeping = bool(self._running or self._requests)
        if self._sweeping:
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            key, jobs = task
            ran = self._ran(key, jobs)
            with suppress(RuntimeError):  # the loop has gone, and with it who asked
                self._loop.call_soon_threadsafe(self._done, key, jobs, *ran)

    def _ran(self, key: Key, jobs: list[Job[Payload, Answer]]) -> "tuple[Sequence[Answer | Exception], float, float]":
        """The answers, when the run began, and the processor time that it took."""
        begun, spent = monotonic(), thread_time()
        answers: Sequence[Answer | Exception]
        try:
            answers = self._run(key, [job.payload for job in jobs])
        except Exception as error:  # noqa: BLE001  it is for those who asked
            answers = [error] * len(jobs)
        return answers, begun, thread_time() - spent


def _end(job: Job[Payload, Answer], now: float) -> bool:
    """Whether nobody waits for it any more."""
    if job.deadline < now and not job.answer.done():
        allowed, waited = max(0.0, job.deadline - job.arrived), now - job.arrived
        job.answer.set_exception(
            Late(f"expected an answer within {allowed:.3g} s, after {waited:.3g} s there was none")
        )
    return job.answer.done()
