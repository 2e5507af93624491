"""bodies, a URL → what a load generator counted: wrk as fast as answers come, oha at a rate.

wrk takes the fewest cycles of the cores that it shares with the server, but has no rate. oha sends each request when it
is due and counts the wait from then on (`--latency-correction`), so a server that is slow for a moment does not thin
its own load out ("coordinated omission"). Both take the bodies in turn or at random, over HTTP/1.1 connections that
stay open.
"""

import resource
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.models.errors import HeadraceError, ServerMissing

OHA_VERSION: Final = "1.16.0"
_OHA_FOLDER: Final = "oha"
_END_SECONDS: Final = 60.0  # beyond its own time
_AN_HOUR: Final = 3600.0  # of seconds
_MS_OF_S: Final = 1e3
_DEADLINE: Final = "aborted due to deadline"  # oha's word for what was under way when the time was over
_SCRIPT: Final = r"""
local made, turn = {}, 0
function init()
  for line in io.lines("{bodies}") do
    made[#made + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, line)
  end
end
function request()
  turn = turn % #made + 1
  return made[turn]
end
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\n{"requests":%d,"seconds":%f,"refused":%d,"failed":%d,"p50_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, errors.status, failed,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One load."""

    requests: int  # that were answered, by whatever
    seconds: float
    refused: int  # answered with another status than 2xx
    failed: int  # never answered
    p50_ms: float
    p99_ms: float
    cpu_seconds: float = 0.0  # the generator's own

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return (self.requests - self.refused) / self.seconds


@dataclass(frozen=True, kw_only=True)
class Generators:
    wrk: str
    oha: str


def found(home: Path) -> Generators:
    """`home` is where peers are installed. Raises ServerMissing."""
    wrk = shutil.which("wrk")
    oha = shutil.which("oha", path=_folder(home) / "bin") or shutil.which("oha")
    if wrk is None or oha is None:
        raise ServerMissing(
            f"expected wrk and oha, found {wrk or oha or 'neither'}. Install wrk with the system's packages (apt-get"
            f" install wrk, brew install wrk) and oha with: cargo install oha --version {OHA_VERSION} --root"
            f" {_folder(home)}"
        )
    return Generators(wrk=wrk, oha=oha)


def install(home: Path, say: Callable[[str], None]) -> None:
    """oha, from its source. Does nothing where there is one. Raises ServerMissing."""
    if shutil.which("oha", path=_folder(home) / "bin") or shutil.which("oha"):
        return
    cargo = shutil.which("cargo")
    if cargo is None:
        raise ServerMissing("oha: expected cargo on PATH, found none. Install Rust (https://rustup.rs), or oha itself.")
    say("installing oha")
    command = [cargo, "install", "oha", "--version", OHA_VERSION, "--locked", "--root", str(_folder(home))]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise ServerMissing(f"oha: {' '.join(command)} did not install it. Run that to see why.")


def at_full_speed(generators: Generators, url: str, bodies: Path, *, connections: int, seconds: float) -> Answered:
    """The next request of a connection leaves when the last one is answered."""
    command = full_speed(generators, url, bodies, connections=connections, seconds=seconds)
    output, spent = _ran(command, bodies.parent, seconds)
    return msgspec.structs.replace(counted(output), cpu_seconds=spent)


def full_speed(
    generators: Generators, url: str, bodies: Path, *, connections: int, seconds: float = _AN_HOUR
) -> list[str]:
    """The command, to be run in the folder of `bodies`; `counted` reads its output."""
    script = bodies.with_name("wrk.lua")
    script.write_text(_SCRIPT.replace("{bodies}", bodies.name), encoding="utf-8")
    options = ("-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", script.name)
    return [generators.wrk, *options, url]


def counted(output: bytes) -> Answered:
    return msgspec.json.decode(output.strip().splitlines()[-1], type=Answered)


def at_rate(
    generators: Generators, url: str, bodies: Path, *, rate: float, connections: int, seconds: float
) -> Answered:
    options = [
        *("--no-tui", "--output-format", "json", "--latency-correction"),
        *("-q", f"{rate:.0f}", "-c", str(connections), "-z", f"{seconds:.0f}s", "-m", "POST"),
        *("-T", "application/json", "-Z", bodies.name, url),
    ]
    output, spent = _ran([generators.oha, *options], bodies.parent, seconds)
    said = msgspec.json.decode(output)
    statuses = said["statusCodeDistribution"]
    took = said["latencyPercentiles"]
    return Answered(
        requests=sum(statuses.values()),
        seconds=said["summary"]["total"],
        refused=sum(count for status, count in statuses.items() if not status.startswith("2")),
        failed=sum(count for error, count in said["errorDistribution"].items() if error != _DEADLINE),
        p50_ms=_ms(took["p50"]),
        p99_ms=_ms(took["p99"]),
        cpu_seconds=spent,
    )


def _ms(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds * _MS_OF_S


def _ran(command: Sequence[str], folder: Path, seconds: float) -> tuple[bytes, float]:
    """Its output and the CPU seconds that it took."""
    before = _children()
    done: Any = subprocess.run(command, cwd=folder, capture_output=True, timeout=seconds + _END_SECONDS, check=False)
    if done.returncode:
        raise HeadraceError(
            f"{Path(command[0]).name} ended with status {done.returncode}: {done.stderr.decode()[:300]}"
        )
    return done.stdout, _children() - before


def _children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _folder(home: Path) -> Path:
    return home.resolve() / "bench" / _OHA_FOLDER
