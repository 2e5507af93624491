"""What docs/ml-test-score.md names is there: files, commands, metrics; and it has all 28 tests."""

import re

import pytest
import typer
from prometheus_client import CollectorRegistry
from test_docs import DOCS, ROOT, commands, text

from headrace.infra.cli.app import app
from headrace.infra.observe import Metrics

PAGE = text(DOCS / "ml-test-score.md")


def test_all_tests_of_the_rubric_have_a_row_in_their_section():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [one.splitlines()[0] for one in sections] == [
        "Features and data",
        "Model development",
        "Infrastructure",
        "Monitoring",
    ]
    for section in sections:
        rows = re.findall(r"^\| (\d)\. [^|]+ \| ([^|]+) \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE)
        assert [int(number) for number, _ in rows] == list(range(1, 8))
        assert all(re.match(r"by itself|on request|yours", state) for _, state in rows)


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([a-z]+/[\w/.-]+\.(?:py|md))`", PAGE))))
def test_every_file_that_it_names_is_there(place):
    assert (ROOT / place).is_file()


def test_every_command_and_metric_that_it_names_is_there():
    known = commands(typer.main.get_command(app), "headrace")
    named = re.findall(r"`(headrace [a-z][a-z -]*[a-z])", PAGE)
    assert [one for one in named if not any((one + " ").startswith(command + " ") for command in known)] == []
    registry = CollectorRegistry()
    Metrics(registry)
    metrics = {name for metric in registry.collect() for name in (metric.name, f"{metric.name}_total")}
    assert set(re.findall(r"`(headrace_\w+)`", PAGE)) <= metrics
