"""A training that goes on over a restart of its scheduler; runs seen and ended from the command line."""

import os
import signal
from contextlib import contextmanager

import pytest
from kit import wait_for
from test_cli import Cli
from test_crash_points import BEGIN, check_law_8, place, trainings
from test_leader import HOUR, ask, run_records, started
from test_leader import finished as all_finished

from headrace.infra.names import Names
from headrace.infra.training import run_folder
from headrace.models.durations import iso
from headrace.models.records import Progressed
from headrace.scheduler.attempts import ATTACHED
from headrace.trainer.run_folder import is_worked_on

assert place  # the fixture


@pytest.fixture
def held(settings, place):
    """A pipeline whose trainings wait for as long as the file `hold` is there; its ticks count from before BEGIN."""
    origin = place('Every("1h")')
    ask(settings, "first", BEGIN - HOUR // 2)
    (origin.file.path.parent / "hold").touch()
    return origin


@pytest.fixture
def cli(settings, held):
    return Cli(settings, held.file.path.parent)


@contextmanager
def scheduler(cli, number=signal.SIGTERM):
    """A real one, which begins to train. Ended in order, or by SIGKILL."""
    with cli.running("scheduler", "delay.py", "--no-clock") as process:
        yield process
        if number == signal.SIGKILL:
            process.kill()
            process.wait()
            process.returncode = 0  # as it was meant


def finished(settings):
    return [outcome for outcome in all_finished(settings) if outcome.run != "first"]


def until_it_trains(cli, origin, run):
    log = run_folder(cli.settings, Names(cli.settings.prefix, origin.pipeline), run) / "run.log"
    wait_for("the training to print", lambda: log.exists() and log.read_text().endswith("\n"))
    return log.parent


def process_of(folder):
    return int((folder / "run.log").read_text().split()[-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_training_survives_its_scheduler_and_the_next_one_publishes_it(settings, cli, held, number):
    ask(settings, "a", BEGIN)
    with scheduler(cli, number):
        folder = until_it_trains(cli, held, "a")
    assert is_worked_on(folder)
    with scheduler(cli):
        wait_for(
            "it to be taken up",
            lambda: any(isinstance(one, Progressed) and one.stage == ATTACHED for one in run_records(settings)),
        )
        (held.file.path.parent / "hold").unlink()
        wait_for("its outcome", lambda: finished(settings))
    (begun,) = started(settings)
    (outcome,) = finished(settings)
    assert (outcome.outcome, outcome.tick) == ("promoted", begun.tick)
    assert trainings(held) == 1
    check_law_8(settings, [BEGIN])
    shown = cli("runs", "show", "delay.py", "a", "--output", "json").json
    assert shown["curves"] == {"loss": [0.5, 0.25]}
    assert shown["limits"]["seconds"] == 60
    assert [one["attempt"] for one in shown["attempts"]] == [1]


def test_a_run_is_looked_at_while_it_trains_and_cancelled(settings, cli, held):
    ask(settings, "a", BEGIN)
    with scheduler(cli):
        folder = until_it_trains(cli, held, "a")
        wait_for(
            "progress on record",
            lambda: any(isinstance(one, Progressed) and "epoch" in one.facts for one in run_records(settings)),
        )
        shown = cli("runs", "show", "delay.py", "--output", "json").json
        assert (shown["state"], shown["stage"]) == ("started", "train")
        assert shown["facts"].keys() >= {"rows", "holdout_rows", "epoch", "loss", "eta_seconds"}
        assert cli("runs", "logs", "delay.py").out == f"it trains in {process_of(folder)}\n"
        (line,) = cli("runs", "logs", "delay.py", "--output", "json").lines
        assert (line["run"], line["file"]) == ("a", "run.log")
        reply = cli("runs", "cancel", "delay.py", "a", "--why", "the wrong rows", "--output", "json").json
        assert reply["done"]
        wait_for("its process to end", lambda: not is_worked_on(folder))
        assert "ended" in cli.refused("runs", "cancel", "delay.py", "a")
    (outcome,) = finished(settings)
    assert (outcome.outcome, outcome.tick) == ("cancelled", iso(BEGIN))
    assert outcome.reason.endswith(": the wrong rows")
    for path in folder.glob("run*.log"):
        path.unlink()
    assert "it is gone" in cli.refused("runs", "logs", "delay.py", "a")


def test_a_training_that_is_killed_from_outside_is_tried_again_and_both_are_on_record(settings, cli, held):
    ask(settings, "a", BEGIN)
    with scheduler(cli):
        folder = until_it_trains(cli, held, "a")
        os.kill(process_of(folder), signal.SIGKILL)
        wait_for("the second attempt", lambda: len(started(settings)) == 2)
        (held.file.path.parent / "hold").unlink()
        wait_for("its outcome", lambda: finished(settings))
        first, second = cli("runs", "show", "delay.py", "--output", "json").json["attempts"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert second["after"].startswith("killed: the trainer's process was ended by SIGKILL from outside")
    assert started(settings)[0].ranges == started(settings)[1].ranges
    assert len(cli("runs", "logs", "delay.py").out.splitlines()) == 2
    check_law_8(settings, [BEGIN])
