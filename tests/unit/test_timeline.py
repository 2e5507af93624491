"""History records → which version served which events."""

from headrace.infra.services.versions.timeline import folded
from headrace.models.records import Switched


def switched(seq, first_offset, *, worker="w1", partition=0, version=None):
    return Switched(
        pipeline="delay",
        seq=seq,
        version=seq // 2 if version is None else version,
        topic="flights",
        partition=partition,
        first_offset=first_offset,
        worker=worker,
        at=f"2026-11-01T12:{first_offset % 60:02}:00Z",
    )


def line(*records):
    return [(one.partition, one.first, one.end, one.version, one.workers) for one in folded(records)]


def test_every_switch_ends_what_served_before():
    assert line(switched(0, 0), switched(2, 10), switched(4, 25)) == [
        (0, 0, 10, 0, ("w1",)),
        (0, 10, 25, 1, ("w1",)),
        (0, 25, None, 2, ("w1",)),
    ]


def test_a_new_worker_goes_on_with_what_served():
    assert line(switched(2, 0), switched(2, 40, worker="w2"), switched(4, 50, worker="w2")) == [
        (0, 0, 50, 1, ("w1", "w2")),
        (0, 50, None, 2, ("w2",)),
    ]


def test_what_was_taken_back_is_not_history():
    assert line(switched(2, 0), switched(4, 30), switched(2, 20, worker="w2")) == [(0, 0, None, 1, ("w1", "w2"))]


def test_partitions_have_lines_of_their_own():
    assert line(switched(2, 5, partition=1), switched(2, 3)) == [(0, 3, None, 1, ("w1",)), (1, 5, None, 1, ("w1",))]


def test_a_rollback_serves_the_same_version_again_as_a_time_of_its_own():
    assert [(one.version, one.seq) for one in folded([switched(2, 0), switched(4, 9), switched(5, 12, version=1)])] == [
        (1, 2),
        (2, 4),
        (1, 5),
    ]
