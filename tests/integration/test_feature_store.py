"""The feature store on a real Redis."""

import socket

import pytest
import redis
from feature_store_suite import ALL_KEYS, COUNTED, EPOCH, FeatureStoreSuite, append, histories, rows

from headrace.infra.feature_store import RedisFeatureStore
from headrace.models.errors import SettingsError, StoreUnavailable
from headrace.streams.memory_store import MemoryFeatureStore


@pytest.fixture
def redis_url(settings):
    return settings.redis_url


@pytest.fixture
def namespace(settings, redis_url):
    """Nobody else's, and gone afterwards: the Redis may be one that the environment names."""
    yield settings.prefix
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"{settings.prefix}*"):
            client.unlink(key)


@pytest.fixture
def store(redis_url, namespace):
    made = RedisFeatureStore(redis_url, namespace)
    yield made
    made.close()


class TestRedisFeatureStore(FeatureStoreSuite):
    pass


@pytest.mark.parametrize("seed", range(10))
def test_the_in_memory_twin_holds_the_same_bytes_after_the_same_life(store, seed):
    twin = MemoryFeatureStore()
    for chunk in histories(seed):
        assert store.append("side", 0, **chunk) == twin.append("side", 0, **chunk)
        assert store.read(ALL_KEYS) == twin.read(ALL_KEYS)


def test_another_process_goes_on_where_one_ended(store, redis_url, namespace):
    append(store, (1, 1.0), (2, 2.0))
    other = RedisFeatureStore(redis_url, namespace)
    assert (other.positions("side"), other.watermark("side")) == ({0: 2}, EPOCH + 2_000)
    assert append(other, (3, 3.0)).applied
    assert store.read([COUNTED.key(("a",))]) == [rows((1, 1.0), (2, 2.0), (3, 3.0))]
    other.close()


def test_namespaces_do_not_see_each_other(store, redis_url, namespace):
    append(store, (1, 1.0))
    other = RedisFeatureStore(redis_url, f"{namespace}2")
    assert other.positions("side") == {}
    assert other.read([COUNTED.key(("a",))]) == [None]
    other.close()


def test_a_script_that_redis_forgot_is_loaded_again(store, redis_url):
    append(store, (1, 1.0))
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    assert append(store, (2, 2.0)).applied


def test_keys_are_as_documented(store, redis_url, namespace):
    append(store, (1, 1.0))
    with redis.Redis.from_url(redis_url) as client:
        found = {key.decode() for key in client.keys(f"{namespace}:*")}
    assert found == {f"{namespace}:p:side", f"{namespace}:r:{COUNTED.id}:a"}


def test_a_redis_that_does_not_answer_is_one_clear_sentence_without_the_password():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        store = RedisFeatureStore(f"redis://user:secret@{where}/0", "test")
        for ask in (
            lambda: store.read([b"x"]),
            lambda: store.positions("side"),
            lambda: store.watermark("side"),
            lambda: append_nothing(store),
        ):
            with pytest.raises(
                StoreUnavailable, match=rf"Redis at redis://{where}/0 does not .* check that"
            ) as refused:
                ask()
            assert "secret" not in str(refused.value)
            assert "\n" not in str(refused.value)


def test_what_is_no_redis_url_is_refused_when_the_store_is_made():
    with pytest.raises(SettingsError, match="expected a URL like redis://"):
        RedisFeatureStore("localhost:6379", "test")


def append_nothing(store):
    return store.append("side", 0, expected=None, next_position=1, rows={}, newest=None)
