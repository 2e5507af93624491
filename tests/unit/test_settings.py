from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from headrace.infra.kafka import admin, consumer_config, ensure_reachable, producer_config
from headrace.infra.onnx import onnx_runtime
from headrace.infra.settings import Settings
from headrace.models.errors import BrokerUnavailable, SettingsError


@pytest.fixture(autouse=True)
def _own_directory_and_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("HEADRACE_") or name in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}:
            monkeypatch.delenv(name)


def _file(content: str) -> None:
    Path("headrace.toml").write_text(content, encoding="utf-8")


def test_without_a_file_and_variables_the_defaults_hold():
    settings = Settings.load()
    assert (settings.bootstrap_servers, settings.redis_url, settings.prefix) == (None, None, "")
    assert (settings.home, settings.replication, settings.kafka) == (Path(".headrace"), 1, {})


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch):
    _file(
        'bootstrap_servers = "file:1"\nredis_url = "redis://file"\n'
        '[kafka]\n"security.protocol" = "SSL"\n"debug" = "cgrp"'
    )
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "env:1")
    monkeypatch.setenv("HEADRACE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    settings = Settings.load()
    assert settings.bootstrap_servers == "env:1"
    assert settings.redis_url == "redis://file"
    assert settings.kafka == {"security.protocol": "SASL_SSL", "debug": "cgrp"}


def test_a_dotted_name_in_the_file_needs_no_quotes_and_a_boolean_becomes_text():
    _file(
        "[kafka]\nssl.ca.location = '/etc/ca.pem'\nenable.ssl.certificate.verification = true\nsocket.timeout.ms = 5000"
    )
    assert Settings.load().kafka == {
        "ssl.ca.location": "/etc/ca.pem",
        "enable.ssl.certificate.verification": "true",
        "socket.timeout.ms": "5000",
    }


def test_bootstrap_servers_may_be_given_by_its_librdkafka_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP_SERVERS", "company:9093")
    assert Settings.load().bootstrap_servers == "company:9093"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('prefx = "a"', "unknown key 'prefx'; expected bootstrap_servers"),
        ("replication = 'two'", "replication: Input should be a valid integer"),
        ("prefix = 'ä'", "prefix: at most 100 of letters, digits"),
        ("kafka = 1", "a table of librdkafka options"),
        ("[kafka]\nsasl.password = ['x']", "'sasl.password': expected text, a number or a boolean, got list"),
        ("no toml", "expected a readable TOML file"),
    ],
)
def test_a_wrong_file_gets_one_sentence(content: str, sentence: str):
    _file(content)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "plugin.library.paths",
        "ssl.engine.location",
        "ssl.providers",
        "sasl.kerberos.kinit.cmd",
        "enable.auto.commit",
        "group.id",
        "transactional.id",
        "isolation.level",
        "error_cb",
    ],
)
def test_an_option_that_loads_code_or_is_headraces_own_is_refused_with_its_name(option: str):
    _file(f"[kafka]\n'{option}' = 'secret-value'")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert option in str(caught.value)
    assert "secret-value" not in str(caught.value)


def test_a_file_that_is_named_but_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEADRACE_CONFIG", "elsewhere.toml")
    with pytest.raises(SettingsError, match=r"elsewhere\.toml: expected a readable TOML file"):
        Settings.load()


def test_no_secret_is_in_the_repr():
    settings = Settings(redis_url="redis://user:geheim@host:7/2", kafka={"sasl.password": "geheim"})
    assert "geheim" not in repr(settings) + str(settings)
    assert settings.redis_shown == "redis://host:7/2"


def test_librdkafka_accepts_every_option_that_we_set(caplog: pytest.LogCaptureFixture):
    settings = Settings(bootstrap_servers="127.0.0.1:1", kafka={"fetch.min.bytes": "2", "linger.ms": "7"})
    consumer = Consumer(consumer_config(settings, "g", auto_offset_reset="earliest"))
    consumer.poll(0)
    Producer(producer_config(settings, transactional_id="t", transaction_timeout_ms=10_000)).poll(0)
    admin(settings).poll(0)
    consumer.close()
    assert "CONFWARN" not in caplog.text


def test_the_operator_overrides_a_tuned_value_and_the_caller_both():
    settings = Settings(bootstrap_servers="b:1", prefix="p.", kafka={"linger.ms": "7", "fetch.min.bytes": "2"})
    assert producer_config(settings)["linger.ms"] == "7"
    assert producer_config(settings, linger_ms=0)["linger.ms"] == 0
    assert "fetch.min.bytes" not in producer_config(settings)
    assert consumer_config(settings, "g")["group.id"] == "p.g"


def test_an_option_that_librdkafka_does_not_know_is_a_settings_error():
    settings = Settings(bootstrap_servers="b:1", kafka={"securty.protocol": "SSL"})
    with pytest.raises(SettingsError, match=r"securty\.protocol"):
        admin(settings)


def test_a_broker_that_is_not_there_gets_one_sentence():
    with pytest.raises(BrokerUnavailable, match=r"Expected Kafka at 127\.0\.0\.1:1 to answer within 0\.5 s"):
        ensure_reachable(Settings(bootstrap_servers="127.0.0.1:1"), timeout=0.5)


def test_no_address_at_all_says_how_to_get_one():
    with pytest.raises(BrokerUnavailable, match="headrace up"):
        consumer_config(Settings(), "g")


def test_onnx_providers_are_named_with_commas_and_one_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setenv("HEADRACE_ONNX_PROVIDERS", "CPUExecutionProvider, NoSuchProvider")
    settings = Settings.load()
    assert settings.onnx_providers == ("CPUExecutionProvider", "NoSuchProvider")
    with pytest.raises(SettingsError, match="NoSuchProvider"):
        onnx_runtime(settings)
    monkeypatch.setenv("HEADRACE_ONNX_PROVIDERS", "CPUExecutionProvider")
    monkeypatch.setenv("HEADRACE_ONNX_THREADS", "2")
    assert onnx_runtime(Settings.load()).threads == 2
    assert onnx_runtime(Settings.load()).providers == ("CPUExecutionProvider",)
