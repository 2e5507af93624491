"""Requests into batches: shared runs, deadlines, a bounded queue, sizes that follow the time that runs take."""

import asyncio
import threading
from time import monotonic

import pytest

from headrace.infra.serve.lane import BatchSize, Lane
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import Late, Overloaded

FAR = 1e9  # a deadline


class Key:
    pass


class Gate:
    """A run that waits until it is let go, and remembers its batches."""

    def __init__(self):
        self.batches, self.open = [], threading.Event()

    def __call__(self, key, payloads):
        self.batches.append((key, list(payloads)))
        self.open.wait(30)
        return [payload * 10 if payload >= 0 else ValueError(payload) for payload in payloads]


def in_loop(scenario, limits=None):
    async def run():
        gate, told = Gate(), []
        lane = Lane("test", gate, limits or Limits(), told.append)
        try:
            await scenario(lane, gate, told)
        finally:
            gate.open.set()
            lane.close()

    asyncio.run(run())


async def until(fact):
    """Turns of the loop, until it holds."""
    while not fact():
        await turn()


async def turn():
    await asyncio.sleep(0)


def test_what_comes_in_one_turn_or_while_a_run_is_under_way_runs_together():
    async def scenario(lane, gate, told):
        key = Key()
        first = [lane.submit(key, n, 1, FAR) for n in range(3)]
        await until(lambda: gate.batches)
        second = [lane.submit(key, n, 1, FAR) for n in range(3, 8)]
        gate.open.set()
        assert await asyncio.gather(*first, *second) == [n * 10 for n in range(8)]
        assert [payloads for _, payloads in gate.batches] == [[0, 1, 2], [3, 4, 5, 6, 7]]
        await until(lambda: len(told) == 2)
        assert [(len(batch.waited), batch.rows) for batch in told] == [(3, 3), (5, 5)]

    in_loop(scenario)


def test_models_take_turns_and_are_not_mixed():
    async def scenario(lane, gate, _told):
        one, other = Key(), Key()
        gate.open.set()
        await asyncio.gather(*[lane.submit(one if n % 2 else other, n, 40, FAR) for n in range(8)])
        assert [(key is one, len(payloads)) for key, payloads in gate.batches] == [(False, 1), (True, 1)] * 4

    in_loop(scenario)


def test_a_failure_is_its_own_request_s():
    async def scenario(lane, gate, _told):
        gate.open.set()
        answers = await asyncio.gather(*[lane.submit(lane, n, 1, FAR) for n in (1, -2, 3)], return_exceptions=True)
        assert [answers[0], answers[2]] == [10, 30]
        assert isinstance(answers[1], ValueError)

    in_loop(scenario)


def test_a_run_that_raises_fails_its_requests_and_the_lane_goes_on():
    async def run():
        def broken(_key, payloads):
            if 0 in payloads:
                raise RuntimeError("broken")
            return payloads

        lane = Lane("test", broken, Limits(), lambda _: None)
        key = Key()
        with pytest.raises(RuntimeError, match="broken"):
            await lane.submit(key, 0, 1, FAR)
        assert await lane.submit(key, 1, 1, FAR) == 1
        lane.close()

    asyncio.run(run())


def test_who_is_late_or_gone_is_not_run_and_hears_it_while_the_model_hangs():
    async def scenario(lane, gate, _told):
        key = Key()
        hanging = lane.submit(key, 0, 1, monotonic() - 1)  # its run has begun when its time is over
        del hanging
        running = lane.submit(key, 1, 1, FAR)
        await until(lambda: gate.batches)
        late, gone, kept = (lane.submit(key, n, 1, at) for n, at in ((2, monotonic()), (3, FAR), (4, FAR)))
        gone.cancel()
        with pytest.raises(Late, match="expected an answer within"):
            await late
        await until(lambda: lane.waiting == 1)
        gate.open.set()
        assert await asyncio.gather(running, kept) == [10, 40]
        assert [payloads for _, payloads in gate.batches] == [[1], [4]]

    in_loop(scenario)


def test_the_queue_is_bounded_in_requests_and_in_rows():
    async def scenario(lane, gate, _told):
        key = Key()
        lane.submit(key, 0, 1, FAR)
        await until(lambda: gate.batches)
        waiting = [lane.submit(key, n, 30, FAR) for n in range(3)]
        with pytest.raises(Overloaded) as refused:
            lane.submit(key, 1, 30, FAR)
        assert refused.value.retry_after >= 1
        waiting.append(lane.submit(key, 1, 1, FAR))
        with pytest.raises(Overloaded):
            lane.submit(key, 1, 1, FAR)
        gate.open.set()
        await asyncio.gather(*waiting)
        assert lane.waiting == 0
        assert await lane.submit(key, 1, 1_000, FAR) == 10  # an empty queue takes what one request may bring

    in_loop(scenario, Limits(waiting_rows=100, waiting_requests=4))


def test_a_first_run_that_took_long_turns_nobody_away():
    async def run():
        pauses = iter([0.2])

        def ran(_key, payloads):
            threading.Event().wait(next(pauses, 0))
            return payloads

        lane, key = Lane("test", ran, Limits(), lambda _: None), Key()
        assert await lane.submit(key, 0, 1, FAR) == 0
        deadline = monotonic() + 10
        assert await asyncio.gather(*[lane.submit(key, n, 1, deadline) for n in range(500)]) == list(range(500))
        lane.close()

    asyncio.run(run())


def test_who_could_only_be_late_is_turned_away_at_once():
    async def scenario(lane, gate, _told):
        key = Key()
        gate.open.set()
        await lane.submit(key, 0, 1, FAR)
        lane._run_seconds = 2.0
        gate.open.clear()
        lane.submit(key, 0, 1, FAR)
        await until(lambda: len(gate.batches) == 2)
        waits = lane.submit(key, 1, 1, monotonic() + 5)
        with pytest.raises(Overloaded, match="1 requests wait, for about 2 s") as refused:
            lane.submit(key, 2, 1, monotonic() + 1)
        assert refused.value.retry_after == 2
        gate.open.set()
        assert await waits == 10

    in_loop(scenario)


def test_runs_that_are_known_to_be_short_need_no_thread_and_longer_ones_do():
    async def run():
        threads, long = [], False

        def ran(_key, payloads):
            threads.append(threading.current_thread() is threading.main_thread())
            if long:
                sum(range(3_000_000))
            return payloads

        lane, key = Lane("test", ran, Limits(), lambda _: None, inline=True), Key()
        for n in range(20):
            assert await lane.submit(key, n, 1, FAR) == n
        assert threads == [False] * 5 + [True] * 15
        long = True
        for n in range(3):
            assert await lane.submit(key, n, 1, FAR) == n
        assert threads[20:] == [True, False, False]
        assert await lane.submit(Key(), 1, 1, FAR) == 1  # another model: not known yet
        assert threads[-1] is False
        lane.close()

    asyncio.run(run())


def test_batches_grow_by_some_rows_while_they_are_in_time_and_shrink_by_a_tenth_when_not():
    size = BatchSize(200, seconds=0.02)
    sizes = []
    for _ in range(40):
        sizes.append(size.rows)
        size.ran(size.rows, seconds=size.rows * 0.000_2)  # 100 rows are just in time
    assert sizes[0] == 64
    assert max(sizes) == 108
    assert all(90 <= rows <= 108 for rows in sizes[6:])
    before = size.rows
    size.ran(before // 4, seconds=0.001)  # not full: says nothing of larger ones
    size.ran(before * 10, seconds=9)  # one large request, neither
    assert size.rows == before
    for _ in range(100):
        size.ran(1, seconds=9)
    assert size.rows == 1
