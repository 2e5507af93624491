"""encoded rows → trained network → ONNX. Seeded, on as many threads as were asked for; the whole loop is on this page.

Rows stay in memory as tensors, or in mapped files where the dataset is larger than memory, and batches are shuffled
indices: no loader, no workers. Both ways give the same bytes.
"""

import copy
import importlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.models.errors import HeadraceError, RunFailed
from headrace.models.protocols import Dataset, Task, TrainContext, Trained
from headrace.trainer.encoding import Encoder, NetInputs, fit
from headrace.trainer.export import export
from headrace.trainer.head import Head, head_of
from headrace.trainer.learners import Torch
from headrace.trainer.warm_start import FromScratch, Start, check_vocabularies, start_of

_WARM_UP = 0.1  # share of all steps in which the learning rate rises
_SAMPLE_ROWS = 256  # real rows for the parity check
_BLOCK_ROWS = 65_536  # encoded at a time


_LOSSES = {
    "binary": torch.nn.BCEWithLogitsLoss,
    "multiclass": torch.nn.CrossEntropyLoss,
    "regression": torch.nn.MSELoss,
}


@dataclass(frozen=True)
class _Batch:
    inputs: tuple[torch.Tensor, ...]  # numbers [n, p], categories [n, q], tensors [n, *shape]
    labels: torch.Tensor  # [n], as the loss wants them
    weights: torch.Tensor | None  # [n], mean 1 over the whole dataset; None: all count alike

    def loss(self, values: torch.Tensor, task: Task) -> torch.Tensor:
        """The mean over the batch."""
        if self.weights is None:
            return torch.as_tensor(_LOSSES[task]()(values, self.labels))
        return torch.mean(_LOSSES[task](reduction="none")(values, self.labels) * self.weights)


class _Rows(_Batch):
    """The whole encoded dataset."""

    def batch(self, rows: torch.Tensor) -> _Batch:
        weights = None if self.weights is None else self.weights[rows]
        return _Batch(tuple(tensor[rows] for tensor in self.inputs), self.labels[rows], weights)


def train(settings: Torch, dataset: Dataset, context: TrainContext) -> Trained:
    with _seeded(settings.seed, settings.threads):
        # what the network sees: raw columns → standardised numbers, category indices
        encoder, head, module, began = _begun(settings, dataset, context)
        rows = _Rows(_encoded(encoder, dataset, settings), _labels(dataset, head), _weights(dataset))

        curves = _fit(module, rows, settings, head, context)

        module.eval()
        sample = dataset.take(slice(-_SAMPLE_ROWS, None)).columns
        onnx = export(module, encoder, head, sample, context.cache)
    said = {"build": settings.place, "parameters": _size(module), "warm_start": began}
    return Trained(onnx=onnx, hyperparameters=asdict(settings) | said, curves=curves)


def _begun(
    settings: Torch, dataset: Dataset, context: TrainContext
) -> tuple[Encoder, Head, torch.nn.Module, str | bool]:
    """What the training begins with, and where that is from: fitted to these rows, or as the champion has it."""
    head = head_of(dataset.labels, dataset.task, len(context.classes))
    began: str | bool = False
    if settings.warm_start:
        try:
            start = start_of(context.champion, context.schema, head)
            check_vocabularies(start, dataset.columns)
            module = _build(settings, replace(start.encoder.inputs, outputs=head.outputs))
            _set_weights(module, start)
        except FromScratch as reason:
            began = f"from scratch: {reason}"
            torch.manual_seed(settings.seed)  # as if nothing had been tried
        else:
            return start.encoder, start.head, module, f"version {start.version}"
    encoder = fit(dataset.columns, context.schema)
    return encoder, head, _build(settings, replace(encoder.inputs, outputs=head.outputs)), began


def _set_weights(module: torch.nn.Module, start: Start) -> None:
    """Parameters, and what else of its state the graph holds. Raises FromScratch where they are not this network's."""
    state, parameters = module.state_dict(), dict(module.named_parameters())
    if others := start.weights.keys() - state.keys():
        raise FromScratch(f"version {start.version} is of another network: it has {min(others)!r}, too")
    for name, value in state.items():
        given = start.weights.get(name)
        if given is None and name not in parameters:
            continue  # a counter, which no forward pass reads
        if given is None or given.shape != tuple(value.shape) or not np.isfinite(given).all():
            there = "none" if given is None else f"one of shape {given.shape}"
            wanted = f"{name!r} of shape {tuple(value.shape)}"
            raise FromScratch(f"version {start.version} is of another network: expected {wanted}, it has {there}")
        state[name] = torch.from_numpy(given).to(value.dtype)
    module.load_state_dict(state)


def _fit(
    module: torch.nn.Module, rows: _Rows, settings: Torch, head: Head, context: TrainContext
) -> dict[str, list[float]]:
    """Leaves the best weights in the module; returns the losses per epoch."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    order = torch.randperm(len(rows.labels))
    held = int(len(order) * settings.validation)
    validation, training = order[:held], order[held:]
    steps = settings.epochs * math.ceil(len(training) / settings.batch_size)
    step, best, best_weights, stale = 0, math.inf, None, 0
    penalised = [part for part in module.parameters() if part.ndim > 1]  # not the biases
    curves: dict[str, list[float]] = {"loss": [], "validation_loss": []}
    for epoch in range(1, settings.epochs + 1):
        module.train()
        total = 0.0
        for picked in torch.split(training[torch.randperm(len(training))], settings.batch_size):
            step += 1
            optimizer.param_groups[0]["lr"] = settings.lr * _ramp(step / steps)
            batch = rows.batch(picked)
            optimizer.zero_grad()
            loss = batch.loss(_forward(module, batch.inputs, head), head.task)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise RunFailed("loss_not_finite", f"the loss is {value} in step {step}; lower lr or look at the rows")
            if settings.l1:
                loss = loss + settings.l1 * torch.stack([part.abs().sum() for part in penalised]).sum()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            torch.nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
            optimizer.step()
            total += value * len(picked)
        curves["loss"].append(total / len(training))
        judged = _validate(module, rows, validation, head, settings.batch_size) if held else curves["loss"][-1]
        curves["validation_loss"].append(judged)
        facts = {"epoch": epoch, "epochs": settings.epochs}
        context.progress({**facts, "loss": curves["loss"][-1], "validation_loss": judged})
        if not math.isfinite(judged):
            raise RunFailed("loss_not_finite", f"the validation loss is {judged} after epoch {epoch}; lower lr")
        if judged < best:
            best, best_weights, stale = judged, copy.deepcopy(module.state_dict()), 0
        else:
            stale += 1
            if stale >= settings.patience:
                break
    module.load_state_dict(best_weights or module.state_dict())
    return curves


def _forward(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], head: Head) -> torch.Tensor:
    with _users_code("the network's forward"):
        values = module(*inputs)
    rows = (len(inputs[0]), head.classes) if head.classes else (len(inputs[0]),)
    if not isinstance(values, torch.Tensor) or tuple(values.shape) != rows:
        came = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        wanted = ("value per row", "squeeze it")
        if head.classes:
            wanted = ("value per row and class", "inputs.outputs says how many")
        raise RunFailed("wrong_shape", f"expected one {wanted[0]}, {rows}, from forward; got {came}: {wanted[1]}")
    return values


def _validate(
    module: torch.nn.Module,
    rows: _Rows,
    validation: torch.Tensor,
    head: Head,
    batch_size: int,
) -> float:
    module.eval()
    total = 0.0
    with torch.no_grad():
        for picked in torch.split(validation, batch_size):
            batch = rows.batch(picked)
            total += float(batch.loss(_forward(module, batch.inputs, head), head.task)) * len(picked)
    return total / len(validation)


def _encoded(encoder: Encoder, dataset: Dataset, settings: Torch) -> tuple[torch.Tensor, ...]:
    """Numbers [n, p], categories [n, q] and tensors [n, *shape], made a block of rows at a time."""
    hidden = np.random.default_rng(settings.seed)
    whole: list[NDArray[Any]] = []
    for first in range(0, len(dataset), _BLOCK_ROWS):
        block = dataset.take(slice(first, first + _BLOCK_ROWS))
        encoded = encoder.transform(block.columns, len(block))
        encoded.categories[hidden.random(encoded.categories.shape, np.float32) < settings.unknown] = 0
        parts: list[NDArray[Any]] = [encoded.numbers, encoded.categories, *encoded.tensors]
        whole = whole or [_room((len(dataset), *part.shape[1:]), part.dtype, dataset.scratch) for part in parts]
        for array, part in zip(whole, parts, strict=True):
            array[first : first + len(block)] = part
    return tuple(map(torch.from_numpy, whole))


def _room(shape: tuple[int, ...], dtype: np.dtype[Any], scratch: Path | None) -> NDArray[Any]:
    """For an array as long as the dataset; in a file without a name where there is no memory for it."""
    if scratch is None or 0 in shape:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=scratch) as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _labels(dataset: Dataset, head: Head) -> torch.Tensor:
    if head.task == "multiclass":
        return torch.from_numpy(dataset.labels.astype(np.int64))
    return torch.from_numpy(((dataset.labels - head.center) / head.spread).astype(np.float32))


def _weights(dataset: Dataset) -> torch.Tensor | None:
    return None if dataset.weights is None else torch.from_numpy(dataset.weights.astype(np.float32))


def _build(settings: Torch, inputs: NetInputs) -> torch.nn.Module:
    with _users_code(settings.place):
        build = settings.build
        if isinstance(build, str):
            module_name, _, name = build.partition(":")
            build = getattr(importlib.import_module(module_name), name)
        module = build(inputs)
    if not isinstance(module, torch.nn.Module):
        raise RunFailed("learner_raised", f"{settings.place}: expected a torch.nn.Module, got {type(module).__name__}")
    return module


def _ramp(share: float) -> float:
    return min(share / _WARM_UP, (1 - share) / (1 - _WARM_UP))


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _users_code(what: str) -> Iterator[None]:
    try:
        yield
    except (HeadraceError, MemoryError):
        raise
    except Exception as error:
        raise RunFailed("learner_raised", f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def _seeded(seed: int, threads: int) -> Iterator[None]:
    """The caller's random state and threads come back afterwards: `check` trains inside the user's own process."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(before)
