"""API keys of `headrace serve`, in a file that only its owner reads: who may do what, and no key itself.

A key is 256 random bits, so its SHA-256 is as good as a slow hash of it: there is no list of likely keys to try. Slow
ones (scrypt, argon2) are for what people think of, and would cost every request milliseconds.
"""

import fcntl
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import msgspec

from headrace.models.errors import BadInput, SettingsError

Role = Literal["read", "predict", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""

_TOKEN = re.compile(r"hr_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[\w.@ -]{1,60}")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str  # the part of the key that is no secret
    name: str  # whose it is
    role: Role
    sha256: str  # of the whole key, hexadecimal
    created_at: str
    revoked_at: str = ""

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[ApiKey] = []


class ApiKeys:
    """What the file says. `refresh` reads it again where it has changed: a revoked key stops within a second."""

    def __init__(self, place: Path) -> None:
        """Raises SettingsError for a file that cannot be read; one that is not there has no keys."""
        self._place = place
        self._read_as: tuple[int, int] | None = None  # modification time in ns, size
        self._keys: dict[str, ApiKey] = {}
        self.refresh()

    def __bool__(self) -> bool:
        """Whether there ever was one: where all are revoked, nobody is let in."""
        return bool(self._keys)

    def all(self) -> list[ApiKey]:
        return list(self._keys.values())

    def refresh(self) -> None:
        """Raises SettingsError; what was known stays."""
        try:
            status = self._place.stat()
            now = (status.st_mtime_ns, status.st_size)
            if now == self._read_as:
                return
            kept = msgspec.json.decode(self._place.read_bytes(), type=_Kept)
        except FileNotFoundError:
            if self._read_as is None:
                return
            raise SettingsError(f"{self._place}: expected the API keys, the file has gone. Put it back.") from None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{self._place}: expected API keys as `headrace key add` writes them: {error}"
            ) from error
        self._read_as, self._keys = now, {key.id: key for key in kept.keys}

    def holder(self, token: str) -> ApiKey | None:
        """Whose key it is, compared in constant time; None for one that is unknown or revoked."""
        found = _TOKEN.fullmatch(token)
        key = self._keys.get(found[1]) if found else None
        if key is None or not hmac.compare_digest(key.sha256, _digest(token)) or key.revoked_at:
            return None
        return key

    def add(self, name: str, role: Role) -> tuple[ApiKey, str]:
        """The entry, and the key itself, which nobody can show again. Raises BadInput."""
        if not _NAME.fullmatch(name):
            raise BadInput(f"name: expected 1 to 60 letters, digits, spaces or . @ _ -, got {name!r}.")
        identity = secrets.token_hex(4)
        token = f"hr_{identity}_{secrets.token_urlsafe(32)}"
        key = ApiKey(id=identity, name=name, role=role, sha256=_digest(token), created_at=_now())
        with self._locked():
            self._write([*self._keys.values(), key])
        return key, token

    def revoke(self, identity: str) -> ApiKey:
        """It stays in the list. Raises BadInput."""
        with self._locked():
            key = self._keys.get(identity)
            if key is None:
                raise BadInput(
                    f"key: expected one of {', '.join(self._keys) or 'none, as there is no key'}; got {identity!r}."
                )
            revoked = key if key.revoked_at else msgspec.structs.replace(key, revoked_at=_now())
            self._write([revoked if one.id == identity else one for one in self._keys.values()])
        return revoked

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """What is known is what the file says, and nobody else changes it: two at once would undo a revocation.

        The lock is beside the file, as the file is replaced. Raises SettingsError.
        """
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._place.with_name(f"{self._place.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingsError(f"{self._place}: expected to write the API keys there: {error.strerror}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # closing lets it go
            self.refresh()
            yield
        finally:
            os.close(lock)

    def _write(self, keys: list[ApiKey]) -> None:
        new = self._place.with_name(f"{self._place.name}.{os.getpid()}.new")
        data = msgspec.json.format(msgspec.json.encode(_Kept(keys=keys)), indent=1)
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123  its mode from the start
                file.write(data)
            new.replace(self._place)
        except OSError as error:
            raise SettingsError(f"{self._place}: expected to write the API keys there: {error.strerror}.") from error
        self.refresh()


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
