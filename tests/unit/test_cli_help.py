"""What every command says of itself, and what it costs to ask."""

import subprocess
import sys

import pytest
import typer

from headrace.infra.cli.app import app

_HEAVY = ("confluent_kafka", "faust", "numpy", "onnxruntime", "pyarrow", "redis", "torch")


def _commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_says_what_it_does_and_gives_an_example_that_names_it(path):
    command = COMMANDS[path]
    assert (command.help or "").strip().endswith((".", "!"))
    assert "Example: " in command.epilog
    assert f"headrace {' '.join(path)}" in command.epilog


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained(path):
    silent = [option.name for option in COMMANDS[path].params if not getattr(option, "help", None)]
    assert set(silent) <= {"help"}


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - {("worker",), ("scheduler",), ("serve",)}), ids=" ".join)
def test_every_command_that_ends_by_itself_has_output_for_programs(path):
    assert "output" in {option.name for option in COMMANDS[path].params}


def test_help_loads_no_heavy_library():
    code = f"import sys, headrace.infra.cli.app; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
