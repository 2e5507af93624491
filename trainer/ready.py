"""a folder of Arrow files → dataset: in memory where there is room for it, else by buckets on disk. The same rows."""

import resource
from pathlib import Path
from typing import Unpack

import psutil

from headrace.trainer.buckets import join_in_buckets
from headrace.trainer.dataset import Joined, Rules, join, read_stream_files

# what a training takes at its peak, in sizes of its files: the joined rows, numpy's columns, the network's inputs
_IN_MEMORY = 5
_SHARE_OF_JOIN = 4  # of what is free, where the join goes by buckets: the network's training comes after it


def ready_dataset(directory: Path, scratch: Path, memory_bytes: int | None = None, **rules: Unpack[Rules]) -> Joined:
    """From served*.arrow and labels*.arrow, streams in the order of their names. Raises RunFailed: no_rows, memory.

    `memory_bytes`: what may be taken; what this process has left, if not said.
    """
    free = memory_left() if memory_bytes is None else memory_bytes
    served, labels = (sorted(directory.glob(pattern)) for pattern in ("served*.arrow", "labels*.arrow"))
    size = sum(path.stat().st_size for path in (*served, *labels))
    if size * _IN_MEMORY <= free:
        return join(
            read_stream_files(directory, "served*.arrow"), read_stream_files(directory, "labels*.arrow"), **rules
        )
    return join_in_buckets(served, labels, scratch, max(1, free // _SHARE_OF_JOIN), **rules)


def memory_left() -> int:
    """What this process may still take, bytes: of its own limit, as the forkserver sets it, and of the machine."""
    free = int(psutil.virtual_memory().available)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return free
    return max(0, min(free, limit - getattr(psutil.Process().memory_info(), "data", 0)))
