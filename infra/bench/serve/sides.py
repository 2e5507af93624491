"""a server's loads → its figures, round after round: None for a round that did not end well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.infra.bench.report import rounded
from headrace.infra.bench.serve.load import Answered
from headrace.infra.bench.serve.servers import Server

CONNECTIONS: Final = (1, 16, 64)
MOST: Final = CONNECTIONS[-1]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One load, and what the server's processes took for it."""

    answered: Answered
    server_cpu: float  # seconds per 1000 requests
    server_cores: float
    others_cores: float  # of everybody but server and generator: whoever disturbed

    def as_json(self) -> dict[str, Any]:
        return {
            "requests_per_second": rounded(self.answered.rate),
            "p50_ms": rounded(self.answered.p50_ms),
            "p99_ms": rounded(self.answered.p99_ms),
            "refused": self.answered.refused,
            "failed": self.answered.failed,
            "cpu_seconds_per_1000": rounded(self.server_cpu),
            "server_cores": rounded(self.server_cores),
            "generator_cores": rounded(self.answered.cpu_seconds / self.answered.seconds),
            "others_cores": rounded(self.others_cores),
        }


@dataclass(kw_only=True)
class Side:
    """A server in its fastest setting, and what its rounds came to."""

    server: Server
    setting: str = ""
    tried: dict[str, float] = field(default_factory=dict)  # requests a second, by setting
    speeds: list[Mapping[int, Cost] | None] = field(default_factory=list)  # by connections
    waits: list[Cost | None] = field(default_factory=list)
    reason: str = ""  # why there is no figure

    @property
    def options(self) -> Sequence[str]:
        return self.server.settings[self.setting]

    def rates(self) -> list[float | None]:
        """Requests a second at full load."""
        return [None if one is None else one[MOST].answered.rate for one in self.speeds]

    def cpu(self) -> list[float | None]:
        """Seconds per 1000 requests at full load."""
        return [None if one is None else one[MOST].server_cpu for one in self.speeds]

    def tails(self) -> list[float | None]:
        """p99 at the rate, ms."""
        return [None if one is None else one.answered.p99_ms for one in self.waits]

    def as_json(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "tried": self.tried,
            "at_full_load": [
                None
                if one is None
                else {f"{connections} connections": cost.as_json() for connections, cost in one.items()}
                for one in self.speeds
            ],
            "at_the_rate": [None if one is None else one.as_json() for one in self.waits],
        }
