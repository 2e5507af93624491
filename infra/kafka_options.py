"""Which librdkafka options an operator may pass through, and which of them a consumer or a producer understands."""

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[a-z0-9._]+")
_LOADS_CODE = "it makes the client load or run code, and headrace runs none that a setting names"
# Option -> why it is not the operator's to set.
REFUSED = {
    "plugin.library.paths": _LOADS_CODE,
    "ssl.engine.location": _LOADS_CODE,
    "ssl.engine.id": _LOADS_CODE,
    "ssl.providers": _LOADS_CODE,
    "sasl.kerberos.kinit.cmd": "it is a shell command; let kinit or a keytab renew the ticket beside headrace",
    "metadata.broker.list": "it is another name of bootstrap.servers; use that one",
    "enable.auto.commit": "headrace commits an offset itself, after its prediction was acknowledged",
    "enable.auto.offset.store": "headrace commits an offset itself, after its prediction was acknowledged",
    "auto.offset.reset": 'the pipeline declares its first start (start="earliest"|"latest"); a later gap is an error',
    "group.id": "headrace names its groups by pipeline; set `prefix` to keep two installations apart",
    "group.instance.id": "a static member would fence the second worker that reads the same settings",
    "group.protocol": "headrace's hand-over of partitions is proven for the classic cooperative protocol alone",
    "partition.assignment.strategy": "headrace's hand-over of partitions is proven for cooperative-sticky alone",
    "transactional.id": "headrace names its transactions by worker slot",
    "isolation.level": "headrace must not read what a transaction took back",
    "enable.idempotence": "without it a retry could duplicate or reorder predictions",
    "acks": "headrace commits only what all replicas in sync have",
    "request.required.acks": "headrace commits only what all replicas in sync have",
    "delivery.report.only.error": "headrace counts deliveries its own way",
    "enable.partition.eof": "headrace knows the end by its position",
}
# Told apart because librdkafka warns of a consumer's option on a producer, once per client.
_CONSUMER_ONLY = re.compile(
    r"fetch\..*|max\.partition\.fetch\.bytes|queued\..*|session\.timeout\.ms|heartbeat\.interval\.ms|max\.poll\..*|check\.crcs"
    r"|coordinator\.query\.interval\.ms|group\..*|allow\.auto\.create\.topics|auto\.commit\..*|offset\.store\..*|consume\..*"
)
_PRODUCER_ONLY = re.compile(
    r"linger\.ms|batch\..*|queue\.buffering\..*|compression\..*|retries|message\.send\.max\.retries|message\.timeout\.ms"
    r"|delivery\.timeout\.ms|request\.timeout\.ms|partitioner|sticky\..*|transaction\..*|enable\.gapless\.guarantee|queuing\.strategy"
    r"|msg_order_cmp|produce\..*|dr_.*"
)


def option_of_environment(name: str) -> str:
    """`SECURITY_PROTOCOL` -> `security.protocol`. One plain option has an underscore of its own."""
    option = name.lower().replace("_", ".")
    return "log_level" if option == "log.level" else option


def checked_options(given: object) -> dict[str, str]:
    """Raises ValueError with a sentence that names the option and never its value."""
    if not isinstance(given, Mapping):
        msg = "expected a table of librdkafka options, [kafka]"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns ValueError alone into its own error
    return {name: _text(name, value) for name, value in given.items() if _allowed(name)}


def for_consumer(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if not _PRODUCER_ONLY.fullmatch(name)}


def for_producer(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if not _CONSUMER_ONLY.fullmatch(name)}


def for_admin(options: Mapping[str, str]) -> dict[str, str]:
    return for_consumer(for_producer(options))


def _allowed(name: str) -> bool:
    if not _NAME.fullmatch(name) or name.endswith("_cb"):
        msg = f"{name!r} is no librdkafka option (lower-case words and dots, as in CONFIGURATION.md)"
        raise ValueError(msg)
    if reason := REFUSED.get(name):
        msg = f"{name!r} cannot be set: {reason}; remove it"
        raise ValueError(msg)
    return True


def _text(name: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
    msg = f"{name!r}: expected text, a number or a boolean, got {type(value).__name__}"
    raise ValueError(msg)
