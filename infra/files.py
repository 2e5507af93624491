"""a path or a URL → files as fsspec opens them: of this machine, or of an object store."""

from pathlib import PurePosixPath
from typing import Any, BinaryIO

from headrace.models.errors import BadInput


def located(place: str) -> tuple[Any, str]:
    """The file system, and the path in its own words. Raises BadInput for a URL that nothing here can open."""
    from fsspec.core import url_to_fs  # noqa: PLC0415  only where a file is opened

    try:
        files, path = url_to_fs(place)
    except (ImportError, ValueError) as error:  # s3 and others need a package of their own
        raise BadInput(f"expected a path, or a URL that fsspec can open, got {place!r}: {error}.") from error
    return files, path


def existing(place: str, expected: str) -> BinaryIO:
    """Opened for reading. Raises BadInput where it is not there."""
    files, path = located(place)
    try:
        if not files.isfile(path):
            raise BadInput(f"{expected}, {place!r} is not there.")
        opened: BinaryIO = files.open(path, "rb")
    except OSError as error:
        raise BadInput(f"{expected}, {place!r} cannot be read: {error}") from error
    return opened


def parquet_files(place: str) -> list[tuple[Any, str]]:
    """A file alone, or those of a folder that end in `.parquet`, by name: (file system, path)."""
    files, path = located(place)
    if not files.isdir(path):
        return [(files, path)]
    found = [one for one in sorted(files.find(path)) if one.endswith(".parquet") and not _hidden(one, path)]
    return [(files, one) for one in found]


def _hidden(path: str, folder: str) -> bool:
    """Spark and others leave drafts under such names."""
    parts = PurePosixPath(path.removeprefix(folder)).parts
    return any(part.startswith(("_", ".")) for part in parts)
