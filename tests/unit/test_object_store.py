"""bytes → a file in a store → bytes: whole, verified, and from nowhere else."""

import hashlib
import os

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from headrace.infra.artifacts import MB, Artifacts, in_store, put
from headrace.infra.object_store import ObjectStore
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput, BrokerUnavailable, RegistryRefused, SettingsError

DATA = os.urandom(300_000)


@pytest.fixture
def store(tmp_path):
    return ObjectStore(f"file://{tmp_path}/models/")


def test_what_is_written_is_read_and_named_by_its_content(store, tmp_path):
    blob = store.write(DATA)
    assert blob.url == f"file://{tmp_path}/models/{hashlib.sha256(DATA).hexdigest()}"
    assert (blob.size, blob.chunks) == (300_000, 0)
    assert store.read(blob) == DATA
    assert store.read(store.write(b"")) == b""


def test_the_same_content_is_not_written_again_and_half_a_file_is(store, tmp_path):
    blob = store.write(DATA)
    file = tmp_path / "models" / blob.sha256
    before = file.stat()
    assert store.write(DATA) == blob
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    file.write_bytes(DATA[:7])  # not by headrace
    assert store.read(store.write(DATA)) == DATA
    assert [path.name for path in (tmp_path / "models").iterdir()] == [blob.sha256]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    store = ObjectStore(f"file://{tmp_path}/models")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BrokerUnavailable, match="No space left"):
        store.write(DATA)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_place_outside_of_the_store_is_never_opened(store, tmp_path):
    blob = store.write(DATA)
    secret = tmp_path / blob.sha256
    secret.write_bytes(DATA)
    for url in (
        f"file://{secret}",
        f"file://{tmp_path}/models/../{blob.sha256}",
        f"{tmp_path}/models/{blob.sha256}",
        f"http://elsewhere/{blob.sha256}",
        f"simplecache::{blob.url}",
        f"{blob.url}?x",
        "file:///etc/passwd",
    ):
        with pytest.raises(RegistryRefused, match="foreign_url"):
            store.read(replace(blob, url=url))
    up = f"../{blob.sha256}"
    with pytest.raises(RegistryRefused, match="foreign_url"):
        store.read(replace(blob, sha256=up, url=store.place(up)))


def test_a_process_without_a_store_opens_no_url(store):
    with pytest.raises(RegistryRefused, match="foreign_url"):
        Artifacts(Settings(bootstrap_servers="nowhere:1")).read(store.write(DATA))


def test_other_bytes_are_refused(store, tmp_path):
    blob = store.write(DATA)
    file = tmp_path / "models" / blob.sha256
    file.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(RegistryRefused, match="bad_hash"):
        store.read(blob)
    file.write_bytes(DATA + b"x")
    with pytest.raises(RegistryRefused, match="bad_hash"):
        store.read(blob)
    file.unlink()
    with pytest.raises(RegistryRefused, match="missing_object"):
        store.read(blob)
    with pytest.raises(RegistryRefused, match="bad_blob"):
        store.read(replace(blob, size=1 << 40))


def test_size_decides_where_an_artifact_goes(tmp_path):
    bare = Settings(artifact_kafka_limit_mb=1)
    assert not in_store(bare, MB)
    with pytest.raises(BadInput, match=r"up to 1 MB .*got 1\.5 MB.*Set artifact_store"):
        in_store(bare, 3 * MB // 2)
    both = Settings(artifact_kafka_limit_mb=1, artifact_store=f"file://{tmp_path}/m/")
    assert in_store(both, MB + 1)
    chosen = Settings(artifact_kafka_limit_mb=0, artifact_store=f"file://{tmp_path}/m/")
    assert Artifacts(chosen).read(put(chosen, b"small")) == b"small"
    with pytest.raises(BadInput, match="protobuf"):
        in_store(both, 1 << 31)


@pytest.mark.parametrize(
    "url",
    ["/srv/models", "models", "simplecache::s3://b/f", "s3://key:secret@bucket/f", "https://x/y?token=1", "s3://"],
)
def test_a_store_that_manifests_cannot_name_is_refused(url):
    with pytest.raises(ValidationError, match="a URL without a password"):
        Settings(artifact_store=url)


def test_a_store_that_fsspec_does_not_know_is_one_sentence():
    with pytest.raises(SettingsError, match="artifact_store: expected a URL that fsspec can open"):
        ObjectStore("nosuch://bucket/folder").write(DATA)
