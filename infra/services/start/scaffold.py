"""`headrace init`: a pipeline file, its network, a test of both and a few rows, which all work at once."""

import importlib.util
import keyword
import random
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import msgspec

from headrace.models.errors import BadInput

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,79}")  # a pipeline's name that, with _ for -, is a Python module's, too
_ORDERS = 800  # enough for a training and its holdout
_FIRST = datetime(2025, 1, 1, tzinfo=UTC)
_BETWEEN = timedelta(minutes=150)


def init(directory: Path, name: str) -> list[Path]:
    """Writes the files and returns them. Raises BadInput, before it writes anything, rather than overwrite one."""
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(module):
        raise BadInput(
            f"name: expected lower-case letters, digits, - and _, a letter first (late-orders); got {name!r}."
        )
    if module in sys.stdlib_module_names or _is_installed(module, directory):
        raise BadInput(f"name: {module}.py would hide the Python module {module!r}. Choose another name.")
    contents = {
        f"{module}.py": _filled("pipeline.py", name=name, module=module),
        f"{module}_net.py": _filled("net.py", name=name, module=module),
        f"test_{module}.py": _filled("test_pipeline.py", name=name, module=module),
        "events.jsonl": _lines(order for order, _ in _sample()),
        "labels.jsonl": _lines(delivery for _, delivery in _sample() if delivery),
    }
    if there := [file for file in contents if (directory / file).exists()]:
        raise BadInput(f"{directory}: {', '.join(there)} is there already. Choose another directory or name.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            (directory / file).write_bytes(content)
    except OSError as error:
        raise BadInput(f"{directory}: expected a directory that can be written to, {error}") from error
    return [directory / file for file in contents]


def _is_installed(module: str, directory: Path) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    here = directory.resolve()
    return spec is not None and (spec.origin is None or Path(spec.origin).parent != here)


def _filled(template: str, **names: str) -> bytes:
    text = (files("headrace.infra.services.start") / "templates" / f"{template}.tmpl").read_text(encoding="utf-8")
    return Template(text).substitute(names).encode()


def _lines(rows: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _sample() -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Orders and, for nineteen of twenty, their delivery: heavy ones and one carrier are late more often."""
    dice = random.Random(7)  # noqa: S311  made-up rows, the same each time
    for number in range(_ORDERS):
        ordered = _FIRST + number * _BETWEEN
        weight = round(dice.lognormvariate(0.5, 0.8), 2)
        carrier = dice.choice(["swift", "steady", "thrifty"])
        country = dice.choices(["DE", "FR", "PL", "PT"], [5, 3, 2, 1])[0]
        chance = 0.1 + 0.35 * (carrier == "thrifty") + 0.3 * (weight > 2.5) + 0.1 * (country == "PT")
        late = dice.random() < chance
        days, delivered = dice.randint(1, 5), dice.random() < 0.95
        order_id = f"o-{number + 1:04}"
        order = {
            "order_id": order_id,
            "ordered_at": ordered,
            "weight": weight,
            "carrier": carrier,
            "country": country,
        }
        delivery = {
            "order_id": order_id,
            "delivered_at": ordered + timedelta(days=3 + days * late),
            "days_late": days if late else 0,
        }
        yield order, delivery if delivered else None
