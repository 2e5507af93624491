"""Bytes for people."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.hexdump import hexdump


def test_a_line_has_the_offset_the_numbers_and_what_can_be_printed():
    lines = hexdump(b"flight \xff\x00UA1545~\x7f|").splitlines()
    assert lines == [
        "00000000  66 6c 69 67 68 74 20 ff  00 55 41 31 35 34 35 7e  |flight ..UA1545~|",
        "00000010  7f 7c                                             |.||",
    ]


def test_a_long_value_is_cut_and_says_by_how_much():
    lines = hexdump(bytes(1_000_000), start=32, limit=32).splitlines()
    assert [line[:8] for line in lines[:2]] == ["00000020", "00000030"]
    assert lines[2:] == ["… 999,936 more bytes"]


def test_nothing_is_nothing():
    assert hexdump(b"") == hexdump(b"abc", start=3) == ""


@given(st.binary(max_size=100))
def test_the_bytes_can_be_read_back(data):
    assert b"".join(bytes.fromhex(line[10:59]) for line in hexdump(data).splitlines()) == data
