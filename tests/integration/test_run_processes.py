"""A training that goes on over a restart of its scheduler; runs seen and ended from the command line."""

import signal
from contextlib import contextmanager

import pytest
from kit import wait_for
from test_cli import Cli
from test_crash_points import BEGIN, check_law_8, place, trainings
from test_leader import ask, finished, run_records, started

from headrace.infra.names import Names
from headrace.infra.training import run_folder
from headrace.models.durations import iso
from headrace.models.records import Progressed
from headrace.scheduler.attempts import ATTACHED
from headrace.trainer.run_folder import is_worked_on

assert place  # the fixture


@pytest.fixture
def held(place):
    """A pipeline whose trainings wait for as long as the file `hold` is there."""
    origin = place('Every("1h")')
    (origin.file.path.parent / "hold").touch()
    return origin


@pytest.fixture
def cli(settings, held):
    return Cli(settings, held.file.path.parent)


@contextmanager
def scheduler(cli, number=signal.SIGTERM):
    """A real one, which begins to train. Ended in order, or by SIGKILL."""
    with cli.running("scheduler", "delay.py", "--no-clock", "--started", str(BEGIN - 1)) as process:
        yield process
        if number == signal.SIGKILL:
            process.kill()
            process.wait()
            process.returncode = 0  # as it was meant


def until_it_trains(cli, origin, run):
    log = run_folder(cli.settings, Names(cli.settings.prefix, origin.pipeline), run) / "run.log"
    wait_for("the training to print", lambda: log.exists() and "it trains" in log.read_text())
    return log.parent


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
        assert cli("runs", "logs", "delay.py").out == "it trains\n"
        assert cli("runs", "logs", "delay.py", "--output", "json").lines[0]["line"] == "it trains"
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
