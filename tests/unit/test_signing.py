"""A record is believed if a trusted key signed it, whole, while it was to be used."""

import os
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace.infra.cli.app import app
from headrace.infra.keys import signer, verifier, write_keys
from headrace.infra.settings import Settings
from headrace.models import registry
from headrace.models.errors import BadInput, RegistryRefused, SettingsError
from headrace.models.features import Number, Topic
from headrace.models.labels import Binary
from headrace.models.manifest import Blob
from headrace.models.pipeline import Pipeline
from headrace.models.records import (
    Activation,
    Aliased,
    Archived,
    Promoted,
    Published,
    RegistryRecord,
    Relocated,
    Unpinned,
)
from headrace.models.signing import Signer, TrustedKey, Verifier, canonical, new_key, private_key, trusted_key


def pipeline(*, signed=True):
    return Pipeline(
        name="delay",
        events=Topic("flights", id="id", time="at"),
        features=[Number("distance")],
        label=Binary(Topic("arrivals", id="id", time="at"), "late", within="1h", if_absent="drop"),
        signed=signed,
    )


BLOB = Blob(sha256="ab" * 32, size=7, partition=0, offset=4, chunks=1)
COMMON = {"pipeline": "delay", "at": "2026-01-01T00:00:00Z", "by": "leader-1", "why": "better"}
RECORDS = [
    Published(**COMMON, seq=1, version=1, manifest=BLOB, run="run-1", tick="2026-01-01T00:00:00Z"),
    Promoted(**COMMON, seq=2, version=1, move="pin", activate_at=Activation(topic_id="t", offsets={0: 5, 11: 7, 2: 6})),
    Unpinned(**COMMON, seq=3),
    Aliased(**COMMON, seq=4, alias="canary", version=1),
    Aliased(**COMMON, seq=5, alias="canary", version=None),
    Archived(**COMMON, seq=6, version=1),
]
PRIVATE, PUBLIC, ID = new_key()
SIGN = Signer(private_key(PRIVATE))
TRUSTED = {ID: trusted_key(PUBLIC)}


def at(record, when):
    return msgspec.structs.replace(record, at=when)


def reason(record, trusted=TRUSTED, verify=None):
    with pytest.raises(RegistryRefused) as refused:
        (verify or Verifier(trusted))(record)
    assert refused.value.detail
    return refused.value.reason


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_was_signed_is_believed_also_after_it_travelled(record):
    signed = SIGN(record)
    assert signed.key_id == SIGN.key_id == ID
    Verifier(TRUSTED)(signed)
    Verifier(TRUSTED)(registry.decode(msgspec.json.encode(signed)))
    assert msgspec.structs.replace(signed, key_id="", signature="") == record


def test_a_record_without_a_signature_is_unsigned_and_another_s_key_is_unknown():
    other = Signer(private_key(new_key()[0]))
    assert reason(RECORDS[0]) == "unsigned"
    assert reason(other(RECORDS[0])) == "unknown_key"


def test_a_signature_of_another_key_in_a_trusted_one_s_name_is_bad():
    other = Signer(private_key(new_key()[0]))(RECORDS[0])
    assert reason(msgspec.structs.replace(other, key_id=ID)) == "bad_signature"


@pytest.mark.parametrize("signature", ["x", "====", "AAAA", "é", " ", "A" * 88, "\x00" * 64, "none"])
def test_rubbish_for_a_signature_is_bad(signature):
    assert reason(msgspec.structs.replace(SIGN(RECORDS[0]), signature=signature)) == "bad_signature"


VALUES = {
    float: st.floats(0.01, 0.99),
    str: st.text(max_size=20),
    int: st.integers(min_value=-(1 << 62), max_value=1 << 62),
    int | None: st.none() | st.integers(min_value=-(1 << 62), max_value=1 << 62),
}


@given(st.data())
def test_a_record_that_was_changed_anywhere_is_bad(data):
    signed = SIGN(data.draw(st.sampled_from(RECORDS)))
    changed = altered(data, signed)
    if changed != signed:
        assert reason(changed) in ("bad_signature", "unsigned", "unknown_key")


def altered(data, struct):
    field = data.draw(st.sampled_from(msgspec.structs.fields(struct)))
    value = getattr(struct, field.name)
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(struct, **{field.name: altered(data, value)})
    if field.name == "offsets":
        new = data.draw(st.dictionaries(VALUES[int], VALUES[int], max_size=3))
    elif field.name == "move":
        new = data.draw(st.sampled_from(["promote", "rollback", "pin"]))
    elif field.name == "activate_at":
        new = Activation(topic_id=data.draw(VALUES[str]), offsets={})
    else:
        new = data.draw(VALUES[field.type])
    return msgspec.structs.replace(struct, **{field.name: new})


@given(st.data())
def test_two_records_that_differ_are_signed_as_different_bytes(data):
    one, other = (data.draw(st.sampled_from(RECORDS)) for _ in range(2))
    other = altered(data, other)
    unsigned = [msgspec.structs.replace(record, signature="") for record in (one, other)]
    assert (canonical(one) == canonical(other)) == (unsigned[0] == unsigned[1])


def test_a_record_cannot_be_passed_off_as_one_of_another_kind():
    archived = SIGN(RECORDS[-1])
    promoted = {name: getattr(archived, name) for name in archived.__struct_fields__}
    assert reason(Promoted(**promoted)) == "bad_signature"


def test_a_field_that_records_gain_later_leaves_old_signatures_as_they_are():
    class Newer(Archived, frozen=True, kw_only=True, tag="archived", tag_field="kind"):
        added_later: str = ""

    old = SIGN(RECORDS[-1])
    Verifier(TRUSTED)(msgspec.json.decode(msgspec.json.encode(old), type=Newer))


# ── rotation and expiry ───────────────────────────────────────────────────────────────────────────────────────────────


def expiring(when):
    return {ID: TrustedKey(key=TRUSTED[ID].key, not_after=int(datetime.fromisoformat(when).timestamp() * 1000))}


def test_two_keys_are_valid_while_one_follows_the_other():
    private, public, named = new_key()
    newer, both = Signer(private_key(private)), TRUSTED | {named: trusted_key(public)}
    verify = Verifier(both)
    for record in (SIGN(RECORDS[0]), newer(RECORDS[1]), SIGN(RECORDS[2]), newer(RECORDS[3])):
        verify(record)


def test_what_an_expired_key_signed_in_its_time_stays_and_later_ones_are_refused():
    verify = Verifier(expiring("2026-02-01T00:00:00Z"))
    verify(SIGN(at(RECORDS[0], "2026-01-31T23:59:59Z")))
    assert reason(SIGN(at(RECORDS[1], "2026-02-01T00:00:01Z")), verify=verify) == "expired_key"


def test_an_expired_key_cannot_write_in_the_past():
    private, public, named = new_key()
    newer = Signer(private_key(private))
    verify = Verifier(expiring("2026-02-01T00:00:00Z") | {named: trusted_key(public)})
    verify(SIGN(at(RECORDS[0], "2026-01-01T00:00:00Z")))
    verify(newer(at(RECORDS[1], "2026-03-01T00:00:00Z")))
    assert reason(SIGN(at(RECORDS[2], "2026-01-15T00:00:00Z")), verify=verify) == "expired_key"
    verify(newer(at(RECORDS[2], "2026-03-02T00:00:00Z")))


@pytest.mark.parametrize("when", ["", "soon", "2026-01-01", "2026-01-01T00:00:00"])
def test_a_signed_record_says_when_it_was_written(when):
    assert reason(SIGN(at(RECORDS[0], when))) == "bad_signature"


# ── keys as files, and the settings that name them ────────────────────────────────────────────────────────────────────


@pytest.fixture
def keys(tmp_path):
    """A private key, and a folder with its public one."""
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    public, named = write_keys(tmp_path / "leader")
    public.rename(trusted / "leader.pub")
    return tmp_path / "leader", trusted, named


def test_a_pair_of_keys_is_written_once_and_the_private_one_for_its_owner_alone(tmp_path):
    previous = os.umask(0)  # the most that a careless shell allows
    try:
        public, named = write_keys(tmp_path / "leader")
    finally:
        os.umask(previous)
    assert (tmp_path / "leader").stat().st_mode & 0o777 == 0o600
    assert trusted_key(public.read_bytes()).key_id == named
    before = (tmp_path / "leader").read_bytes()
    with pytest.raises(BadInput, match="exists"):
        write_keys(tmp_path / "leader")
    assert (tmp_path / "leader").read_bytes() == before


def test_keygen_shows_the_id_and_never_the_key(tmp_path):
    done = CliRunner().invoke(app, ["model", "keygen", str(tmp_path / "k"), "--not-after", "2030-01-01T00:00:00Z"])
    assert done.exit_code == 0, done.output
    key = trusted_key((tmp_path / "k.pub").read_bytes())
    assert key.key_id in done.output
    assert key.not_after == 1_893_456_000_000
    secret = (tmp_path / "k").read_text().splitlines()[1]
    assert secret not in done.output
    assert Signer(private_key((tmp_path / "k").read_bytes())).key_id == key.key_id


def test_who_leads_signs_and_who_reads_believes(keys):
    private, trusted, named = keys
    settings = Settings(signing_key_file=private, trusted_keys=trusted)
    signed = signer(settings, pipeline())(RECORDS[0])
    assert signed.key_id == named
    verifier(settings, pipeline())(signed)
    verifier(Settings(), pipeline(signed=False))(RECORDS[0])  # where nobody asks for signatures
    assert signer(Settings(), pipeline(signed=False)) is None


def started(settings):
    """As a scheduler starts."""
    signer(settings, pipeline())
    verifier(settings, pipeline())


def wrong(change):
    return pytest.param(change, id=change.__name__)


def no_key(private, trusted):
    return {"signing_key_file": None}


def no_trusted_keys(private, trusted):
    return {"trusted_keys": None}


def empty_folder(private, trusted):
    (trusted / "leader.pub").unlink()


def rubbish_among_the_trusted(private, trusted):
    (trusted / "other.pub").write_text("ssh-ed25519 AAAA")


def private_key_that_others_can_read(private, trusted):
    private.chmod(0o640)


def missing_file(private, trusted):
    private.unlink()


def rubbish_for_a_key(private, trusted):
    private.write_text("canary")


def public_key_for_a_private_one(private, trusted):
    private.write_bytes((trusted / "leader.pub").read_bytes())


def key_that_nobody_trusts(private, trusted):
    private.write_bytes(new_key()[0])


def key_that_has_expired(private, trusted):
    place = trusted / "leader.pub"
    place.write_bytes(b"not-after: 2020-01-01T00:00:00Z\n" + place.read_bytes())


def not_after_without_an_offset(private, trusted):
    place = trusted / "leader.pub"
    place.write_bytes(b"not-after: 2020-01-01T00:00:00\n" + place.read_bytes())


def a_line_that_means_nothing(private, trusted):
    place = trusted / "leader.pub"
    place.write_bytes(b"not_after = 2020-01-01\n" + place.read_bytes())


@pytest.mark.parametrize(
    "change",
    [
        wrong(change)
        for change in (
            no_key,
            no_trusted_keys,
            empty_folder,
            rubbish_among_the_trusted,
            private_key_that_others_can_read,
            missing_file,
            rubbish_for_a_key,
            public_key_for_a_private_one,
            key_that_nobody_trusts,
            key_that_has_expired,
            not_after_without_an_offset,
            a_line_that_means_nothing,
        )
    ],
)
def test_wrong_keys_are_one_sentence_at_the_start_and_show_nothing(keys, change):
    private, trusted, _ = keys
    given = {"signing_key_file": private, "trusted_keys": trusted} | (change(private, trusted) or {})
    settings = Settings(**given)
    with pytest.raises(SettingsError) as error:
        started(settings)
    assert "canary" not in str(error.value)
    assert any(name in str(error.value) for name in ("signing_key_file", "trusted_keys"))


def test_a_record_of_every_kind_is_tried_here():
    assert {type(record) for record in RECORDS} == set(RegistryRecord.__args__) - {Relocated}  # of no pipeline
