"""bytes → a file in an object store, named by their content → bytes again, verified. Any store that fsspec knows.

A registry record says where an artifact lies, and whoever can write to the registry could say anything. So a place is
only believed where it is the one that this process would choose itself: the configured store, and the content's hash.
"""

import hashlib
import io
import os
import re
from contextlib import suppress
from typing import Any
from uuid import uuid4

from headrace.models.errors import BrokerUnavailable, RegistryRefused, SettingsError
from headrace.models.manifest import Blob

LARGEST = 2 * 1024**3 - 1  # bytes of one artifact: an ONNX file is a protobuf message, and those end there
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ObjectStore:
    """A folder of files `<sha256>`; `url` is of the form `file:///…` or `s3://bucket/folder`, without a secret."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._found: tuple[Any, str] | None = None  # the file system, and the folder in its own words

    def place(self, sha256: str) -> str:
        return f"{self._url}/{sha256}"

    def write(self, data: bytes) -> Blob:
        """Whole or not at all: under another name first. What is there already is not written again."""
        sha256 = hashlib.sha256(data).hexdigest()
        files, folder = self._files()
        try:
            files.makedirs(folder, exist_ok=True)
            if not _is_there(files, f"{folder}/{sha256}", len(data)):
                draft = f"{folder}/{sha256}.{uuid4().hex}.draft"
                try:
                    _write(files, draft, data)
                    files.mv(draft, f"{folder}/{sha256}")
                except BaseException:
                    with suppress(Exception):
                        files.rm(draft)
                    raise
        except Exception as error:  # every file system has kinds of its own
            raise BrokerUnavailable(
                f"{self._url}: an artifact of {len(data):,} bytes was not stored: {error}"
            ) from error
        return Blob(sha256=sha256, size=len(data), partition=0, offset=0, chunks=0, url=self.place(sha256))

    def read(self, blob: Blob) -> bytes:
        """Raises RegistryRefused for another place or other bytes, BrokerUnavailable where nobody answers."""
        if not _SHA256.fullmatch(blob.sha256) or blob.url != self.place(blob.sha256):
            raise RegistryRefused("foreign_url", f"expected an artifact in {self._url}, got {blob.url!r}")
        if not 0 <= blob.size <= LARGEST:
            raise RegistryRefused("bad_blob", f"expected up to {LARGEST} bytes, got {blob}")
        files, folder = self._files()
        try:
            with files.open(f"{folder}/{blob.sha256}", "rb") as file:
                data: bytes = file.read(blob.size + 1)
        except FileNotFoundError as error:
            raise RegistryRefused("missing_object", f"{blob.url} is not there") from error
        except Exception as error:
            raise BrokerUnavailable(f"{blob.url} cannot be read: {error}") from error
        if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.sha256:
            raise RegistryRefused("bad_hash", f"{blob.url}: expected {blob.size} bytes with its name as sha256")
        return data

    def _files(self) -> tuple[Any, str]:
        if self._found is None:
            from fsspec.core import url_to_fs  # noqa: PLC0415  only where artifacts are that large

            try:
                files, folder = url_to_fs(self._url)
            except (ImportError, ValueError) as error:  # s3 and others need a package of their own
                raise SettingsError(f"artifact_store: expected a URL that fsspec can open, got {error}.") from error
            self._found = files, folder.rstrip("/")
        return self._found


def _is_there(files: Any, path: str, size: int) -> bool:
    try:
        return bool(files.size(path) == size)
    except FileNotFoundError:
        return False


def _write(files: Any, path: str, data: bytes) -> None:
    with files.open(path, "wb") as file:
        file.write(data)
        file.flush()
        with suppress(io.UnsupportedOperation):  # no file of this machine's
            os.fsync(file.fileno())
