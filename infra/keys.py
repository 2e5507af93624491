"""settings → who signs registry records, and whose signatures count. Wrong keys end a process at its start."""

import os
import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from time import time_ns

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, SettingsError
from headrace.models.pipeline import Pipeline
from headrace.models.signing import Signer, TrustedKey, Verifier, Verify, accepted, new_key, private_key, trusted_key

_MAX_BYTES = 1 << 14  # of a key's file
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def signer(settings: Settings, pipeline: Pipeline) -> Signer | None:
    """Of whoever leads. Raises SettingsError: also where nobody would believe its signature."""
    place = settings.signing_key_file
    if place is None:
        if pipeline.signed:
            what = f"pipeline {pipeline.name} wants signed records: expected signing_key_file, got none"
            raise SettingsError(f"{what}. Run: headrace model keygen, and set HEADRACE_SIGNING_KEY_FILE.")
        return None
    found = Signer(_read_private(place))
    if settings.trusted_keys is not None:
        trusted = _trusted(settings.trusted_keys).get(found.key_id)
        if trusted is None:
            what = f"signing_key_file: key {found.key_id} is not in trusted_keys, {settings.trusted_keys}"
            raise SettingsError(f"{what}: nobody would believe it. Put its public key there, for every process.")
        if trusted.not_after is not None and trusted.not_after < time_ns() // 1_000_000:
            raise SettingsError(f"signing_key_file: key {found.key_id} has expired (not-after). Sign with a newer one.")
    return found


def verifier(settings: Settings, pipeline: Pipeline) -> Verify:
    """For one reader, from the registry's beginning. Raises SettingsError."""
    if not pipeline.signed:
        return accepted
    if settings.trusted_keys is None:
        what = f"pipeline {pipeline.name} wants signed records: expected trusted_keys, got none"
        raise SettingsError(f"{what}. Set HEADRACE_TRUSTED_KEYS to a folder of public keys, or leave out signed=True.")
    return Verifier(_trusted(settings.trusted_keys))


def write_keys(place: Path, not_after: datetime | None = None) -> tuple[Path, str]:
    """A new private key at `place`, for its owner alone, and `<place>.pub`; gives that and the id. Raises BadInput."""
    public_place = place.with_name(place.name + ".pub")
    private, public, named = new_key()
    head = f"not-after: {not_after.isoformat()}\n".encode() if not_after else b""
    try:
        for at, mode, text in ((place, 0o600, private), (public_place, 0o644, head + public)):
            with os.fdopen(os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(text)
    except FileExistsError as error:
        raise BadInput(f"expected a name that is free, {error.filename} exists: choose another.") from error
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be written: {error.strerror}.") from error
    return public_place, named


def _read_private(place: Path) -> Ed25519PrivateKey:
    with suppress(FileNotFoundError):
        mode = place.stat().st_mode
        if mode & _OTHERS:
            what = f"expected a file that only its owner can read, got mode {stat.S_IMODE(mode):04o}"
            raise SettingsError(f"signing_key_file: {what}. Run: chmod 600 {place}; if others could read it, renew it.")
    try:
        return private_key(_read(place))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"signing_key_file: {place}: {error}. Run: headrace model keygen.") from None


def _trusted(place: Path) -> dict[str, TrustedKey]:
    """By id. A file that is none of ours is an error: a key that is silently left out would be missed too late."""
    found = {}
    files = sorted(place.glob("*.pub")) if place.is_dir() else [place]
    for file in files:
        try:
            key = trusted_key(_read(file))
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(f"trusted_keys: {file}: {error}. Correct it, or take it away.") from error
        found[key.key_id] = key
    if not found:
        raise SettingsError(f"trusted_keys: expected public keys (*.pub) in {place}, got none. Put them there.")
    return found


def _read(place: Path) -> bytes:
    with place.open("rb") as file:
        return file.read(_MAX_BYTES)
