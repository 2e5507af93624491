"""What `from headrace import …` gives, and what it must not bring along."""

import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from headrace.models.errors import HeadraceError
from headrace.scheduler.triggers import Always, Never

FLIGHTS = Path(__file__).parents[2] / "infra" / "demo" / "flights.py"
HEAVY = ("torch", "faust", "confluent_kafka", "onnxruntime", "redis", "polars")


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FLIGHTS.parent
    ).stdout.strip()


@pytest.mark.parametrize("name", headrace.__all__)
def test_every_public_name_is_there(name):
    assert getattr(headrace, name) is not None
    assert name in dir(headrace)


def test_always_and_never_are_triggers_and_errors_share_a_base():
    assert (headrace.Always, headrace.Never) == (Always, Never)
    assert issubclass(headrace.DeclarationError, HeadraceError)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Turbine'"):
        _ = headrace.Turbine


def test_importing_headrace_alone_loads_nothing():
    assert run("import sys, headrace; print([m for m in sys.modules if m.startswith('headrace.')])") == "[]"


@pytest.mark.parametrize(
    "reading", ["import flights", "from headrace.infra.pipeline_file import read_pipeline as r; r('flights.py')"]
)
def test_reading_a_pipeline_file_loads_no_heavy_library(reading):
    assert run(f"import sys; {reading}; print([m for m in {HEAVY} if m in sys.modules])") == "[]"
