"""Which keys a canary serves, and that rows of overlapping batches are each looked at once."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.services.scores.rescore import Reached
from headrace.streams.canary import Canary


class Message:
    def __init__(self, key):
        self._key = key

    def key(self):
        return self._key


def canary(share, pipeline="delay"):
    return Canary(model=SimpleNamespace(), share=share, pipeline=pipeline)


KEYS = [f"customer-{number}".encode() for number in range(20_000)]


def keys_of(share, pipeline="delay"):
    _, mine = canary(share, pipeline).split([Message(key) for key in KEYS])
    return {message.key() for message in mine}


def test_it_serves_its_share_always_the_same_keys_and_a_larger_share_keeps_them():
    tenth = keys_of(0.1)
    assert len(tenth) == pytest.approx(2_000, rel=0.1)
    assert tenth == keys_of(0.1)
    assert tenth < keys_of(0.2)


def test_another_pipeline_has_other_keys():
    assert keys_of(0.1) != keys_of(0.1, "other")


def test_nothing_is_lost_order_is_kept_and_what_has_no_key_is_the_champions():
    messages = [Message(key) for key in [b"a", None, b"b", b"a", None]]
    others, mine = canary(0.5).split(messages)
    assert sorted(map(messages.index, others + mine)) == list(range(5))
    assert all(message.key() is not None for message in mine)
    for part in (others, mine):
        assert [messages.index(message) for message in part] == sorted(map(messages.index, part))


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=20), min_size=1, max_size=8),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_rows_of_champion_and_canary_are_each_new_once_also_when_served_again(chunks, first, random):
    """Each chunk is served as two batches, some chunks twice."""
    seen, reached, begin = [], Reached(), first
    for chunk in chunks:
        offsets = np.arange(begin, begin + len(chunk))
        parts = [offsets[np.array(chunk)], offsets[~np.array(chunk)]]
        for _ in range(1 + random.randrange(2)):
            for part in parts:
                if len(part):
                    seen += part[reached.new(part)].tolist()
        begin += len(chunk)
    assert sorted(seen) == list(range(first, begin))
