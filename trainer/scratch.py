"""a folder for one training, gone afterwards, and at last when the next one begins: a killed one cleans nothing up."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "scratch-"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Its owner holds the folder's own lock, which the kernel releases with the owner's life: what is not locked is
    left over, however little of it is still there."""
    for other in parent.glob(f"{_PREFIX}*"):
        held = _locked(other)
        if held is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(held)
    made, held = _made(parent)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def _made(parent: Path) -> tuple[Path, int]:
    while True:  # again where another one found the folder before it was locked, and took it for left over
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        held = _locked(made)
        if held is not None:
            return made, held


def _locked(folder: Path) -> int | None:
    """Closing what this returns lets it go. None: another one has it, or has removed it."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    if not folder.exists():
        os.close(held)
        return None
    return held
