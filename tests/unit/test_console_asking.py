"""Forms and questions of the console: each is done once, a few at a time, and nobody waits for who has gone."""

import asyncio
import threading

import pytest

from headrace.infra.console.once import Once
from headrace.infra.console.site import form
from headrace.infra.serve.http import Bodies, Request
from headrace.infra.serve.in_threads import InThreads
from headrace.infra.serve.limits import Limits
from headrace.infra.serve.refusals import Overloaded, RequestRefused, Unavailable
from headrace.models.errors import BrokerUnavailable


def fields(body):
    async def receive():
        return {"type": "http.request", "body": body}

    scope = {"headers": [], "method": "POST", "path": "/console", "query_string": b""}
    return asyncio.run(form(Request(scope, receive, Bodies(Limits()))))


def counted():
    done = []

    async def do():
        done.append(1)
        return f"{len(done)}"

    return do


def test_a_form_that_is_sent_twice_is_done_once_and_both_hear_of_it():
    async def both():
        once, do = Once(), counted()
        return [await once(("delay", "pin"), "k", do), await once(("delay", "pin"), "k", do)]

    assert asyncio.run(both()) == ["1", "1"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((("alias", "a"), "k"), (("alias", "b"), "k")),
        ((("pin",), ""), (("pin",), "")),
        ((("pin",), "k"), (("pin",), "l")),
    ],
)
def test_another_wish_of_the_same_form_is_another_one_and_so_is_every_one_without_a_key(first, second):
    async def both():
        once, do = Once(), counted()
        return [await once(*first, do), await once(*second, do)]

    assert asyncio.run(both()) == ["1", "2"]


def test_what_failed_may_be_tried_again():
    async def both():
        once, done = Once(), []

        async def do():
            done.append(1)
            if len(done) == 1:
                raise RequestRefused("no")
            return "yes"

        with pytest.raises(RequestRefused):
            await once("pin", "k", do)
        return await once("pin", "k", do)

    assert asyncio.run(both()) == "yes"


def test_a_texts_lines_count_as_the_browser_counts_them():
    assert fields(b"why=a%0D%0Ab&once=k") == {"why": "a\nb", "once": "k"}


@pytest.mark.parametrize("body", [b"why=" + b"x" * 300_000, b"\xff=1", b"&".join(b"a%d=1" % n for n in range(300))])
def test_a_form_that_no_page_of_ours_has_is_refused(body):
    with pytest.raises(RequestRefused):
        fields(body)


def test_questions_wait_for_their_turn_and_too_many_are_refused():
    async def ask():
        go, questions = threading.Event(), InThreads(1, waiting=1)
        asked = [asyncio.ensure_future(questions(lambda n=n: go.wait(10) and n)) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await questions(lambda: 3)
        go.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == [0, 1]


def test_a_broker_that_is_away_is_an_answer_and_makes_room_for_the_next_question():
    def away():
        raise BrokerUnavailable("gone")

    async def ask():
        questions = InThreads(1)
        for _ in range(3):
            with pytest.raises(Unavailable, match="gone"):
                await questions(away)
        return await questions(lambda: "back")

    assert asyncio.run(ask()) == "back"


def test_a_question_that_takes_long_holds_up_nobody_who_ends():
    never = threading.Event()

    async def ask():
        asked = asyncio.ensure_future(InThreads(1)(never.wait))
        await asyncio.sleep(0)
        return asked

    assert asyncio.run(ask()).cancelled()
    assert all(one.daemon for one in threading.enumerate() if one.name == "question")
    never.set()
