"""Messages by gRPC that do not come."""

import asyncio
from contextlib import suppress
from time import monotonic

import pytest
import uvloop

from headrace.infra.serve.http import Bodies
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.receiving import Receiving
from headrace.infra.serve.refusals import Late, Overloaded

LIMITS = Limits(request_bytes=1_000, waiting_bytes=2_000)  # one at a time


class Silent:
    async def read(self):
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_message_that_nobody_waited_behind_is_late_and_one_that_held_up_others_is_to_be_sent_again(run):
    async def scenario():
        bodies = Bodies(LIMITS)
        receiving = Receiving(bodies)
        for _ in range(20):
            with pytest.raises(Late):
                await receiving.read(Silent(), monotonic() + 0.0105)
        first = asyncio.create_task(receiving.read(Silent(), monotonic() + 60))
        await asyncio.sleep(0)
        second = asyncio.create_task(receiving.read(Silent(), monotonic() + 60))
        with pytest.raises(Overloaded, match="others wait"):
            await first
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        assert bodies.held == 0

    run(scenario())
