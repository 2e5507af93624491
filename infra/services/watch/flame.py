"""a live process → a flame graph of its next seconds: py-spy samples its stacks from outside."""

import math
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.models.errors import HeadraceError

_WRITE_SECONDS = 60.0  # after the last sample: it reads the symbols of native libraries
_LAST_WORDS = 300  # characters


class Recording:
    """Under way; `done` waits for its end."""

    def __init__(self, pid: int, process: "subprocess.Popen[str]", seconds: float) -> None:
        self._pid, self._process, self._seconds = pid, process, seconds

    def done(self) -> None:
        """Returns when the file is written. Raises HeadraceError with what to do."""
        try:
            said, _ = self._process.communicate(timeout=self._seconds + _WRITE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise HeadraceError(f"py-spy did not end within {_WRITE_SECONDS:.0f} s of its last sample.") from error
        if self._process.returncode == 0:
            return
        if "permission" in said.lower() or "not permitted" in said.lower():
            raise HeadraceError(
                f"a flame graph needs the right to read process {self._pid}. Run the same with sudo, or allow it:"
                " sysctl kernel.yama.ptrace_scope=0 on Linux, --cap-add SYS_PTRACE for a container."
            )
        raise HeadraceError(f"py-spy made no flame graph: {' '.join(said.split())[-_LAST_WORDS:]}")


@contextmanager
def recording(pid: int | None, seconds: float, place: Path) -> Iterator[Recording]:
    """Begins at once. Raises HeadraceError where it cannot: py-spy is not installed, for example."""
    program = _py_spy()
    if program is None:
        raise HeadraceError("a flame graph needs py-spy. Run: pip install 'headrace[profile]'")
    if pid is None:
        raise HeadraceError("a flame graph needs the process id, and this user may not see whose port it is: --pid.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HeadraceError(f"--flame {place}: its folder is not there and cannot be made: {error.strerror}") from error
    duration = str(math.ceil(seconds))
    command = [program, "record", "--pid", str(pid), "--output", str(place), "--duration", duration, "--threads"]
    with subprocess.Popen(
        [*command, *_native(program)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Recording(pid, process, seconds)
        finally:
            if process.poll() is None:
                process.kill()


def _py_spy() -> str | None:
    """Beside this Python, which need not be on the PATH, or anywhere there."""
    return shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")


def _native(program: str) -> list[str]:
    """With the frames of C and C++ where this build of py-spy can: inside librdkafka, Arrow and ONNX Runtime."""
    offered = subprocess.run([program, "record", "--help"], capture_output=True, text=True, check=False)
    return ["--native"] if "--native" in offered.stdout else []
