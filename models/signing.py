"""registry record + key → signed record → verified, or RegistryRefused. Ed25519 (RFC 8032).

A record holds the sha256 of its manifest, the manifest that of its graph: one signature covers a version's every byte.
Pipeline and seq are signed, too, so that a record is worth nothing in another pipeline or at another place.

    unsigned         there is no signature
    unknown_key      it is by nobody whom we trust
    expired_key      by a key that was no longer to be used
    bad_signature    something in the record was changed, or it was signed by another key than it says
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from headrace.models.durations import to_ms
from headrace.models.errors import DeclarationError, RegistryRefused
from headrace.models.records import Moved, RegistryRecord

Verify = Callable[[RegistryRecord], None]
"""Raises RegistryRefused for a record that is not to be believed. Called once per record of a pipeline, in order."""
Sign = Callable[[Any], Any]
"""A registry record → the same, signed."""

_PURPOSE = b"headrace.registry 1\0"  # a signature for something else is none for this
_NOT_AFTER = re.compile(r"^not-after:\s*(\S+)\s*$", re.MULTILINE)
_Record = TypeVar("_Record", bound=Moved)


def accepted(_record: RegistryRecord) -> None:
    """Where signatures are not asked for."""


def canonical(record: Moved) -> bytes:
    """What is signed: the record without its signature, keys sorted, and without what is as by default: a field that is
    added to records later changes nothing of those that were signed before."""
    return _PURPOSE + msgspec.json.encode(_said(msgspec.structs.replace(record, signature="")), order="sorted")


def _said(struct: msgspec.Struct) -> dict[str, Any]:
    tag = struct.__struct_config__.tag
    said: dict[str, Any] = {} if tag is None else {"kind": tag}
    for field in msgspec.structs.fields(struct):
        value, made = getattr(struct, field.name), field.default_factory
        if value != (field.default if made is msgspec.NODEFAULT else made()):
            said[field.name] = _plain(value)
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _said(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return value


class Signer:
    """A private key that leads."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id(key.public_key())

    def __call__(self, record: _Record) -> _Record:
        named = msgspec.structs.replace(record, key_id=self.key_id)
        signature = base64.b64encode(self._key.sign(canonical(named))).decode()
        return msgspec.structs.replace(named, signature=signature)


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    key: Ed25519PublicKey
    not_after: int | None = None  # Unix ms: what it signs later counts for nothing

    @property
    def key_id(self) -> str:
        return key_id(self.key)


class Verifier:
    """Of one reader, which begins at the registry's beginning: an expired key is judged by the time that the record
    says, and by the newest that a verified record said before: whoever steals an old key cannot write in the past."""

    def __init__(self, trusted: Mapping[str, TrustedKey]) -> None:
        self._trusted = trusted
        self._newest = 0  # Unix ms

    def __call__(self, record: RegistryRecord) -> None:
        if not record.signature:
            raise RegistryRefused("unsigned", f"seq {record.seq} by {record.by!r}: this pipeline's records are signed")
        trusted = self._trusted.get(record.key_id)
        if trusted is None:
            there = ", ".join(sorted(self._trusted))
            raise RegistryRefused("unknown_key", f"seq {record.seq} is signed by {record.key_id!r}; trusted: {there}")
        try:
            signature = base64.b64decode(record.signature, validate=True)
            trusted.key.verify(signature, canonical(record))
            said_at = to_ms(datetime.fromisoformat(record.at))
        except (InvalidSignature, binascii.Error, ValueError, OverflowError, DeclarationError) as error:
            changed = "it was changed after it was signed, or signed by another key"
            raise RegistryRefused("bad_signature", f"seq {record.seq} by {record.key_id}: {changed}") from error
        if trusted.not_after is not None and max(said_at, self._newest) > trusted.not_after:
            raise RegistryRefused("expired_key", f"seq {record.seq}: {record.key_id} was not to be used any more then")
        self._newest = max(said_at, self._newest)


def key_id(key: Ed25519PublicKey) -> str:
    """A name that a key cannot choose: the beginning of its hash."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


# ── keys as text ──────────────────────────────────────────────────────────────────────────────────────────────────────


def new_key() -> tuple[bytes, bytes, str]:
    """The private key, the public key, and its id. The first is a secret."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private, public, key_id(key.public_key())


def private_key(text: bytes) -> Ed25519PrivateKey:
    """Raises ValueError, which says nothing of the text."""
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("expected an Ed25519 private key in PEM, without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"expected an Ed25519 private key, got {type(key).__name__}")
    return key


def trusted_key(text: bytes) -> TrustedKey:
    """A public key in PEM; a line `not-after: <RFC 3339>` before it says until when. Raises ValueError."""
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("expected an Ed25519 public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError(f"expected an Ed25519 public key, got {type(key).__name__}")
    head = text.partition(b"-----BEGIN")[0].decode(errors="replace")
    found = _NOT_AFTER.search(head)
    if found is None and head.strip():
        raise ValueError(f"expected nothing before the key but a line 'not-after: <time>', got {head.strip()[:80]!r}")
    if found is None:
        return TrustedKey(key=key)
    at = datetime.fromisoformat(found[1])  # a ValueError, too
    if at.tzinfo is None:
        raise ValueError(f"not-after: expected a time with its offset, as 2027-01-31T00:00:00Z, got {found[1]!r}")
    return TrustedKey(key=key, not_after=to_ms(at))
