"""dead letters → their records, back on the topics that they came from; and marks, so that none goes twice.

(1) A transactional producer with the pipeline's one id starts: whoever else redrives is fenced. (2) The dead-letter
topic is read to its end: which letters are there, and which have marks. (3) Batch by batch, records go back to their
topics and marks behind their letters, in one transaction. Since (1) comes before (2), a mark that is not there by then
can never be committed: each letter is redriven once, whoever else tries and whatever dies.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from time import monotonic

import msgspec
from confluent_kafka import Consumer

from headrace.infra.kafka import consumer_config, end_offsets
from headrace.infra.names import Names
from headrace.infra.seek import Seeker
from headrace.infra.services.dead_letters.letters import Letter, letter_of
from headrace.infra.services.dead_letters.redrive_book import ALREADY, TWIN, Book, Place
from headrace.infra.services.dead_letters.redrive_limits import topics_read
from headrace.infra.services.dead_letters.redrive_writer import Going, RedriveWriter
from headrace.infra.settings import Settings
from headrace.infra.topic_reader import TopicReader
from headrace.models.errors import BadInput, BrokerUnavailable

# A transaction holds back who reads committed events, so it is short, and opens when all of its batch is in memory.
_BATCH_LETTERS = 500
_BATCH_BYTES = 8 * 1024 * 1024
_END_SECONDS = 60.0  # a worker's open transaction on the topic takes 15 s at most


class Redriven(msgspec.Struct, frozen=True, kw_only=True):
    """What a redrive did."""

    redriven: int  # records that are on their topics again
    topics: dict[str, int]  # the same by topic
    already: int  # chosen letters that had been redriven before
    twins: int  # chosen letters of a record that went by another of its letters
    refused: dict[str, int]  # why → chosen letters that cannot be redriven


def redrive(settings: Settings, names: Names, wanted: Collection[str], *, by: str, why: str = "") -> Redriven:
    """Exactly these letters, each named by its source or by its own place (topic/partition/offset).

    Raises BadInput, and has redriven nothing, for one that is not there, was redriven before or cannot be; BadInput for
    one that its topic does not take, and where somebody else redrives at the same time; BrokerUnavailable.
    """
    asked = frozenset(wanted)
    done = _redriven(
        settings, names, lambda one: one.source in asked or one.place in asked, by, why, lambda book: book.check(asked)
    )
    if done.refused:
        raise BadInput(
            f"{sum(done.refused.values()):,} not redriven: {'; '.join(done.refused)}. Redriven: {done.redriven:,}."
        )
    return done


def redrive_all(
    settings: Settings,
    names: Names,
    *,
    reason: str = "",
    by: str,
    why: str = "",
    said: Callable[[int], None] = lambda _: None,
) -> Redriven:
    """All letters that can be, or those with this reason; what cannot is counted. `said` hears how many went so far.

    Raises BadInput where somebody else redrives at the same time, and BrokerUnavailable.
    """
    return _redriven(settings, names, lambda one: not reason or one.reason == reason, by, why, lambda _: None, said)


def _redriven(
    settings: Settings,
    names: Names,
    chooses: Callable[[Letter], bool],
    by: str,
    why: str,
    check: Callable[[Book], None],
    said: Callable[[int], None] = lambda _: None,
) -> Redriven:
    with closing(RedriveWriter(settings, names, by=by, why=why)) as writer:  # (1)
        book = _read(settings, names, chooses)  # (2)
        check(book)
        going, stay = book.going()
        for batch in _batches(settings, names.topics.dead_letters, going):  # (3)
            writer.write(batch)
            said(writer.topics.total())
        return Redriven(
            redriven=writer.topics.total(),
            topics=dict(writer.topics),
            already=stay.pop(ALREADY, 0),
            twins=stay.pop(TWIN, 0),
            refused=dict(stay + writer.refused),
        )


def _read(settings: Settings, names: Names, chooses: Callable[[Letter], bool]) -> Book:
    """To the end that the topic has now, committed or not: a mark may lie behind a transaction that is open, such as a
    worker's, and is not shown before that has ended."""
    topic = names.topics.dead_letters
    book = Book(topic, topics_read(names), chooses)
    with closing(Consumer(consumer_config(settings, "headrace.reader", isolation_level="read_uncommitted"))) as asker:
        ends = end_offsets(asker, topic)
    deadline = monotonic() + _END_SECONDS
    with closing(TopicReader(settings, [topic], once=True)) as reader:
        while any(reader.positions[topic, number] < end for number, end in ends.items()):
            for message in reader.poll(0.1):
                book.note(message)
                deadline = monotonic() + _END_SECONDS
            if monotonic() > deadline:
                raise BrokerUnavailable(
                    f"{topic}: not read to its end within {_END_SECONDS:.0f} s. Is a transaction open there that does"
                    " not end (kafka-transactions.sh list)? Nothing was redriven."
                )
    return book


def _batches(settings: Settings, topic: str, going: dict[Place, list[Place]]) -> Iterator[list[Going]]:
    """In the order of each partition, which is that of each key."""
    batch: list[Going] = []
    size = 0
    with closing(Seeker(settings, topic)) as seeker:
        for partition in sorted({partition for partition, _ in going}):
            offsets = [offset for number, offset in going if number == partition]
            for messages in seeker.between(partition, min(offsets), max(offsets) + 1):
                for message in messages:
                    if (letters := going.get((partition, message.offset()))) is None:
                        continue
                    batch.append(Going(letter=letter_of(message), letters=letters))
                    size += len(message)
                    if len(batch) >= _BATCH_LETTERS or size >= _BATCH_BYTES:
                        yield batch
                        batch, size = [], 0
    if batch:
        yield batch
