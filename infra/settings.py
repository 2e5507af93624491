"""Where the servers are and how to reach them: environment over `headrace.toml` over defaults.

`headrace.toml` (in the working directory, or named by HEADRACE_CONFIG) is the operator's own file:

    bootstrap_servers = "broker-1:9093,broker-2:9093"
    replication = 3

    [kafka]                                # any librdkafka option by its own name
    security.protocol = "SASL_SSL"
    ssl.ca.location = "/etc/ssl/company.pem"

The same from the environment: KAFKA_BOOTSTRAP_SERVERS, REDIS_URL, HEADRACE_PREFIX, HEADRACE_HOME, HEADRACE_REPLICATION,
and HEADRACE_KAFKA_SECURITY_PROTOCOL for `security.protocol`.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.infra.kafka_options import checked_options, option_of_environment
from headrace.models.errors import SettingsError

CONFIG_VARIABLE = "HEADRACE_CONFIG"
DEFAULT_FILE = Path("headrace.toml")
_KAFKA_VARIABLE = "HEADRACE_KAFKA_"
# What Kafka allows in a topic's name, and no more than leaves room for the name itself (Kafka's limit is 249).
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,100}")
# fsspec chains file systems with "::", and would unpack archives or follow references on the way.
_STORE = re.compile(r"(?!.*::)[a-z][a-z0-9+.-]*://(?![^/@]*:[^/@]*@)[^?#\s]+")


def _legal_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        msg = "at most 100 of letters, digits, '.', '_' and '-', as in a topic's name"
        raise ValueError(msg)
    return prefix


def _legal_store(url: str) -> str:
    """What fsspec opens, as it may stand in a manifest for everybody to read."""
    if url and not _STORE.fullmatch(url):
        msg = "a URL without a password, '::' or '?', as file:///srv/models or s3://bucket/folder"
        raise ValueError(msg)
    return url.rstrip("/")


def _names(given: object) -> object:
    return [name for part in given.split(",") if (name := part.strip())] if isinstance(given, str) else given


class Settings(BaseSettings):
    """Read with `Settings.load()`, which turns a wrong value into one sentence. Its repr shows no secret."""

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_", extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    bootstrap_servers: str | None = Field(default=None, min_length=1, validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    # A Redis URL carries its password, hence no repr; `redis_shown` is what may be printed.
    redis_url: str | None = Field(default=None, min_length=1, repr=False, validation_alias="REDIS_URL")
    # Goes before the name of every topic, group and Redis key that is ours, so that teams can share a cluster.
    prefix: Annotated[str, AfterValidator(_legal_prefix)] = ""
    home: Path = Path(".headrace")
    # One broker locally; a real cluster wants 3, and says so in headrace.toml.
    replication: int = Field(default=1, ge=1, le=32767)
    # Of each worker: more workers share a machine better than more threads. 0: `up` divides the cores among its own.
    onnx_threads: int = Field(default=1, ge=0, le=1024)
    # As `onnxruntime.get_available_providers()` names them, the preferred one first; the CPU is always the last.
    onnx_providers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    onnx_timeout_s: float = Field(default=20.0, gt=0, le=3600)  # of one batch
    # What a version may take where it is tried first, beyond an empty process: some six times its graph's size.
    model_memory_mb: int = Field(default=1024, ge=64, le=1 << 20)
    # Whoever leads signs with the one; every reader of a pipeline with signed=True believes the others.
    signing_key_file: Path | None = None
    trusted_keys: Path | None = None  # a folder of public keys, *.pub, or one such file
    # Larger artifacts go to the store; with 0 all of them do. The upper bound is a transaction's, at 1 MB a second.
    artifact_kafka_limit_mb: int = Field(default=100, ge=0, le=512)
    artifact_store: Annotated[str, AfterValidator(_legal_store)] = ""  # of fsspec
    # Of `headrace serve`, as `headrace key` writes it; by default in `home`.
    api_keys_file: Path | None = None
    kafka: Annotated[dict[str, str], BeforeValidator(checked_options)] = Field(default_factory=dict, repr=False)

    known: ClassVar[str] = (
        "bootstrap_servers, redis_url, prefix, home, replication, onnx_threads, onnx_providers,"
        " onnx_timeout_s, model_memory_mb, signing_key_file, trusted_keys, artifact_kafka_limit_mb, artifact_store,"
        " api_keys_file"
        " and the table [kafka]"
    )

    @classmethod
    def load(cls) -> Self:
        """Raises SettingsError. Call it in an entry point: importing reads nothing."""
        try:
            settings = cls()
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None  # the cause would print the values, secrets among them
        named = settings.kafka.get("bootstrap.servers")
        if named and settings.bootstrap_servers is None:
            return settings.model_copy(update={"bootstrap_servers": named})
        return settings

    def prefixed(self, name: str) -> str:
        return self.prefix + name

    @property
    def api_keys(self) -> Path:
        return self.api_keys_file or self.home / "api-keys.json"

    @property
    def redis_shown(self) -> str | None:
        """Host, port and database without user and password."""
        if self.redis_url is None:
            return None
        parts = urlsplit(self.redis_url)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes them by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _KafkaVariables(settings_cls), env_settings, _File(settings_cls)


class _KafkaVariables(PydanticBaseSettingsSource):
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False  # the whole is read at once, below

    def __call__(self) -> dict[str, Any]:
        options = {
            option_of_environment(name.removeprefix(_KAFKA_VARIABLE)): value
            for name, value in os.environ.items()
            if name.startswith(_KAFKA_VARIABLE)
        }
        return {"kafka": options} if options else {}


class _File(PydanticBaseSettingsSource):
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        named = os.environ.get(CONFIG_VARIABLE)
        path = Path(named) if named else DEFAULT_FILE
        if not named and not path.exists():
            return {}
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            msg = f"{path}: expected a readable TOML file, got: {error}. Correct it, or set {CONFIG_VARIABLE}."
            raise SettingsError(msg) from error
        for key in content:
            if key not in Settings.model_fields:
                msg = (
                    f"{path}: unknown key {key!r}; expected {Settings.known}."
                    " Remove or rename it (librdkafka options go under [kafka])."
                )
                raise SettingsError(msg)
        table = content.get("kafka", {})
        if isinstance(table, Mapping):
            # Flat before it is merged with the environment's, whose names are flat.
            content["kafka"] = _flat(table)
        # Under the variable's own name, so that the two sources override each other and not both arrive.
        return {str(Settings.model_fields[key].validation_alias or key): value for key, value in content.items()}


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """In TOML an unquoted `security.protocol` is a table in a table; librdkafka's name is the dotted one."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    expected = first["msg"].removeprefix("Value error, ")
    return f"{where}: {expected}. Correct it in {DEFAULT_FILE} or in the environment."
