"""A model's output and the targets, or a user's evaluation -> metrics per sample.

Must never know lesions, rows or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradscope.schema import GradScopeError
from gradscope.units.calls import tensors_in

Metric = Callable[[Tensor, Tensor], Tensor]
"""(logits, targets) -> one value per sample."""

Scores = dict[str, np.ndarray]
"""Metric name -> values per sample, or one value where an evaluation gives only that."""


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """1 where the largest logit is the target's, per sample."""
    return (output.argmax(dim=1) == target).float()


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy per sample, in nats."""
    return functional.cross_entropy(output.float(), target, reduction="none")


CLASSIFICATION: Mapping[str, Metric] = {"accuracy": accuracy, "loss": loss}


def score(metrics: Mapping[str, Metric], output: Any, target: Tensor) -> Scores:
    """Every metric of the (first) output tensor, one value per sample."""
    logits = next(tensors_in(output))
    scores = {}
    for name, metric in metrics.items():
        values = metric(logits, target)
        if values.shape != (len(target),):
            raise GradScopeError(
                f"The metric {name!r} gave the shape {tuple(values.shape)}: one value per sample, "
                f"({len(target)},), is needed."
            )
        scores[name] = values.detach().double().cpu().numpy()
    return scores


def normalised(result: Any, name: str) -> Scores:
    """What a user's evaluation gave, as arrays by metric name."""
    if isinstance(result, Mapping):
        return {key: normalised(value, key)[key] for key, value in result.items()}
    if isinstance(result, Tensor):
        return {name: np.atleast_1d(result.detach().double().cpu().numpy()).reshape(-1)}
    if isinstance(result, (int, float, np.ndarray, np.number)):
        return {name: np.atleast_1d(np.asarray(result, dtype=np.float64)).reshape(-1)}
    raise GradScopeError(
        f"evaluate(model) gave {type(result).__name__}: return a number, a mapping of numbers, or "
        "a tensor with one value per sample."
    )


def batches(
    loader: Iterable[Any], model: nn.Module, size: int
) -> Iterable[tuple[tuple[Any, ...], Tensor]]:
    """(inputs, targets) of at most `size` samples on the model's device, in the loader's order."""
    parameter = next(iter(model.parameters()), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise GradScopeError("The loader must give (inputs, targets) pairs.")
        *inputs, target = (part.to(device) for part in batch)
        for start in range(0, len(target), size):
            yield tuple(part[start : start + size] for part in inputs), target[start : start + size]
