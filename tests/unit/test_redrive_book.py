"""Which letters may go back, by what their topic says."""

from dataclasses import dataclass, field

import pytest

from headrace.infra.services.dead_letters.redrive_book import ALREADY, TWIN, Book
from headrace.models.errors import BadInput
from headrace.streams.dead_letters import is_mark


@dataclass
class Record:
    """As the client has it."""

    at: int
    data: bytes | None = b"x"
    said: list = field(default_factory=list)

    def topic(self):
        return "p.dead-letters"

    def partition(self):
        return 0

    def offset(self):
        return self.at

    def timestamp(self):
        return 1, 1_700_000_000_000 + self.at

    def key(self):
        return b"k"

    def value(self):
        return self.data

    def headers(self):
        return self.said


def letter(at, source, data=b"x"):
    return Record(at, data, [("headrace-reason", b"future: x"), ("headrace-source", source.encode())])


def mark(at, of):
    return Record(at, None, [("headrace-redriven", f"p.dead-letters/0/{of}".encode()), ("headrace-by", b"tess")])


def book(*records):
    made = Book("p.dead-letters", {"events"}, lambda _: True)
    for record in records:
        made.note(record)
    return made


def test_a_letter_with_a_mark_stays_and_one_without_goes():
    going, stay = book(letter(0, "events/0/0"), letter(1, "events/0/1"), mark(2, 0)).going()
    assert going == {(0, 1): [(0, 1)]}
    assert stay == {ALREADY: 1}


def test_two_letters_of_a_record_go_as_one_and_another_record_of_that_place_by_itself():
    going, stay = book(letter(0, "events/0/0"), letter(1, "events/0/0"), letter(2, "events/0/0", b"anew")).going()
    assert going == {(0, 0): [(0, 0), (0, 1)], (0, 2): [(0, 2)]}
    assert stay == {TWIN: 1}


def test_a_letter_that_was_parked_again_after_its_record_went_stays():
    made = book(letter(0, "events/0/0"), mark(1, 0), letter(2, "events/0/0"))
    assert made.going()[0] == {}
    with pytest.raises(BadInput, match="another letter of the same record was redriven"):
        made.check({"p.dead-letters/0/2"})


def test_a_tombstone_that_was_redriven_by_hand_and_parked_anew_is_a_letter_and_no_mark():
    headers = [("headrace-redriven", b"p.dead-letters/0/0"), *letter(0, "events/0/5").said]
    (why,) = book(Record(1, None, headers)).going()[1]
    assert "without a value" in why


@pytest.mark.parametrize("source", ["elsewhere/0/1", "events/x/y", "", "s3://rows/0/7"])
def test_what_came_from_nowhere_that_is_read_stays(source):
    going, stay = book(letter(0, source)).going()
    assert (going, stay.total()) == ({}, 1)


def test_a_record_without_a_value_whose_headers_nobody_can_read_is_no_mark():
    class Unreadable:
        def value(self):
            return None

        def headers(self):
            raise SystemError("returned a result with an exception set")

        def set_headers(self, _headers):
            pass

    assert not is_mark(Unreadable())
