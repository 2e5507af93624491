"""The demo's pipeline, served from its first event on by a model that was trained before."""

from dataclasses import replace
from pathlib import Path

from headrace.infra.demo import flights

flight_delay = replace(flights.flight_delay, name=Path(__file__).parent.name, initial="model.onnx")
