"""What gives way, does so beside other sessions too: real processes, asked by the kernel's own files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kit import wait_for

from headrace.trainer.priority import are_sessions_groups, let_session_give_way

OWN_SESSION = """
import os, signal, sys, threading
from headrace.infra.processes import own_session
own_session.are_sessions_groups = lambda: True
own_session.in_own_session()
print(os.getpid(), os.getsid(0), flush=True)
"""
grouped = pytest.mark.skipif(not are_sessions_groups(), reason="expected a kernel that groups processes by session")


def started(script, **options):
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, **options)


def session_nice(pid):
    return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])


def state(pid):
    """One letter, as ps(1) has it; Z where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


@grouped
def test_a_process_and_its_session_give_way_together():
    script = "from headrace.trainer.priority import give_way\ngive_way(7)\nprint('done', flush=True)\ninput()"
    with started(script, stdin=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == "done\n"
        assert os.getpriority(os.PRIO_PROCESS, process.pid) - os.getpriority(os.PRIO_PROCESS, 0) == 7
        assert session_nice(process.pid) == os.getpriority(os.PRIO_PROCESS, process.pid)
        let_session_give_way(process.pid, 19)
        assert session_nice(process.pid) == 19
        process.communicate("\n")


def test_what_is_not_there_does_not_give_way_and_nobody_minds():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    let_session_give_way(ended.pid, 5)


def test_a_command_goes_on_in_a_session_of_its_own_and_ends_as_its_process_does():
    with started(f"{OWN_SESSION}\nsys.exit(7)") as process:
        pid, session = map(int, process.stdout.readline().split())
        assert pid == session != process.pid
        assert process.wait() == 7


def test_who_leads_a_session_already_needs_no_other():
    with started(OWN_SESSION, start_new_session=True) as process:
        assert process.stdout.readline().split() == [str(process.pid)] * 2
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_the_status_comes_back(number):
    script = f"{OWN_SESSION}\nsignal.signal({int(number)}, lambda *_: os._exit(9))\nprint('ready', flush=True)\n"
    with started(script + "threading.Event().wait()") as process:
        process.stdout.readline()
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait() == 9


def test_a_signal_that_ends_the_one_ends_the_other_by_the_same():
    with started(f"{OWN_SESSION}\nos.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait() == -signal.SIGKILL


def test_who_stops_the_one_stops_the_other_and_both_go_on():
    with started(f"{OWN_SESSION}\nthreading.Event().wait()") as process:
        child = int(process.stdout.readline().split()[0])
        process.send_signal(signal.SIGTSTP)
        wait_for("both to stop", lambda: {state(process.pid), state(child)} == {"T"})
        process.send_signal(signal.SIGCONT)
        wait_for("both to go on", lambda: "T" not in {state(process.pid), state(child)})
        process.terminate()
        assert process.wait() == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="expected Linux, whose kernel ends the one with the other")
def test_who_kills_the_one_kills_the_other():
    with started(f"{OWN_SESSION}\nthreading.Event().wait()") as process:
        child = int(process.stdout.readline().split()[0])
        process.kill()
        wait_for("the child to end", lambda: state(child) == "Z")
