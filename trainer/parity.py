"""exported graph + what made it → the same scores, or a failed run: on real rows and on nasty ones.

A graph is served by ONNX Runtime, and was learnt by other code. Both see the same rows before anybody else does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.models.errors import RunFailed
from headrace.models.protocols import Columns
from headrace.models.session import Session
from headrace.trainer.encoding import Encoded, Encoder
from headrace.trainer.head import Head

TOLERANCE = 1e-4  # between learner and ONNX; of a probability, or of a regression label's standard deviation

Network = Callable[[Encoded], NDArray[Any]]
"""Encoded rows → values [n], or [n, classes], before the last step."""


def parity(network: Network, encoder: Encoder, graph: bytes, sample: Columns, head: Head) -> float:
    """The largest difference between the two, on each row alone and on all at once. Raises RunFailed("parity")."""
    columns, rows = _with_nasty_rows(encoder, sample)
    expected = head.scores(network(encoder.transform(columns, rows)))
    try:
        session = Session(graph, encoder.schema)
        found = session.predict(columns, rows)
        nasty = range(max(0, rows - 8), rows)
        alone = [session.predict({name: column[[row]] for name, column in columns.items()}, 1)[0] for row in nasty]
    except Exception as error:  # onnxruntime's errors share no base of their own
        raise RunFailed("parity", f"onnxruntime does not run the exported graph: {error}") from error
    if found.shape != expected.shape:
        raise RunFailed("parity", f"expected scores of shape {expected.shape}, the exported graph gives {found.shape}")
    differences = np.abs(np.concatenate([found - expected, np.asarray(alone) - expected[list(nasty)]]))
    largest = float(differences.max(initial=0.0))
    if not largest <= TOLERANCE * max(1.0, head.spread):  # written so that NaN fails
        raise RunFailed(
            "parity", f"the learner and the exported graph differ by {largest:.3g}; see docs on what forward may do"
        )
    return largest


def _with_nasty_rows(encoder: Encoder, sample: Columns) -> tuple[dict[str, NDArray[Any]], int]:
    """The sample and, per column, a copy of its last row with that column missing, unknown or extreme."""
    schema, real = encoder.schema, len(next(iter(sample.values())))
    changes: list[tuple[str, Any]] = []
    for column in schema.numbers:
        changes += [(column.name, np.nan), (column.name, 3e38)]
    for column in schema.categories:
        changes += [(column.name, None if column.nullable else ""), (column.name, "\x00 never seen é")]
    rows = real + len(changes) + 1
    columns = {}
    for column in schema.columns:
        columns[column.name] = np.concatenate([sample[column.name], sample[column.name][[real - 1] * (rows - real)]])
    for row, (name, value) in enumerate(changes, start=real):
        columns[name][row] = value
    for column in (*schema.numbers, *schema.categories):  # the last row: everything missing
        nothing = np.nan if column.kind == "number" else None if column.nullable else ""
        columns[column.name][rows - 1] = nothing
    return columns, rows
