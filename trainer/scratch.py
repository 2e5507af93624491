"""a folder for one training, gone afterwards, and at last when the next one begins: a killed one cleans nothing up."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX, _LOCK = "scratch-", "lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Its owner holds a lock, which the kernel releases with the owner's life: what is not locked is left over."""
    for other in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with other.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(other.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as made, (Path(made) / "new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (Path(made) / "new").rename(Path(made) / _LOCK)  # never there without being locked
        yield Path(made)
