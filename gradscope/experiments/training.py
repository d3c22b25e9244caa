"""A network's name and a data set's -> one recorded training.

Must never know figures or the dashboard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradscope.experiments.checkpoint import save
from gradscope.experiments.datasets import SMALL, DataSet, Split, load
from gradscope.experiments.heldout import EVALUATION_BATCH, TestImages
from gradscope.models import build, family, set_survival
from gradscope.record import Scope, track
from gradscope.schema import GradScopeError

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; a cosine brings it to zero over the rest."""

LESION_IMAGES = 250
"""Test images on which lesions during training are measured."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands: `seconds_left` is an estimate from the steps done so far."""

    run: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_left: float


OnProgress = Callable[[Progress], None]


def train(
    model: str,
    *,
    data: str = SMALL,
    data_root: str | Path | None = None,
    download: bool = False,
    image_size: int | None = None,
    epochs: int = 2,
    batch_size: int = 64,
    lr: float = 0.1,
    seed: int = 0,
    device: str = "auto",
    run: str | None = None,
    root: str | Path = "runs",
    every: int | str = "auto",
    aux_weight: float = 0.3,
    survival_until: float = 1.0,
    ablate_every: int | None = None,
    on_progress: OnProgress | None = None,
    **model_options: Any,
) -> Path:
    """Train a network by name and record it; returns the run folder, with a checkpoint in it.

    SGD with momentum 0.9 and weight decay 1e-4 (He et al. 2015), the rate warmed up and brought to
    zero by a cosine. The order of the data depends on `seed` alone, so networks of one seed see the
    same batches. `aux_weight` weighs each auxiliary head's loss (Szegedy et al. 2014: 0.3).
    `survival_until` is the share of the steps in which a net built with `survival` below 1 drops
    its blocks at random; from then on every block takes part.
    `image_size`: bring the images to that many pixels a side, for nets that need large ones.
    `ablate_every`: drop each block alone after every n-th step, on the first 250 test images.
    `model_options` go to `gradscope.models.build`. Raises GradScopeError for bad names and numbers.
    """
    _refuse(epochs, batch_size, lr, seed, survival_until)
    place = pick_device(device)
    found = load(data, data_root, download, side=image_size)
    if batch_size > len(found.train):
        raise GradScopeError(
            f"batch_size {batch_size} is more than the {len(found.train)} training images; lower it."
        )
    shape = {"in_channels": found.channels, "num_classes": found.classes, "image_size": found.side}
    recipe = {**shape, "seed": seed, **model_options}
    config = {
        "model": model,
        "family": family(model),
        "build": recipe,
        "data": data,
        "image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "optimizer": "SGD",
        "aux_weight": aux_weight,
        "survival_until": survival_until,
        "ablate_every": ablate_every,
    }
    name = run if run is not None else f"{model}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    network = build(model, **recipe).to(place)
    return _recorded(network, found, config, name, root, every, on_progress)


def _recorded(
    network: nn.Module,
    data: DataSet,
    config: dict[str, Any],
    name: str,
    root: str | Path,
    every: int | str,
    on_progress: OnProgress | None,
) -> Path:
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config["lr"], momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    lesions = config["ablate_every"] is not None
    scope = track(
        network,
        run=name,
        root=root,
        every=every,
        optimizer=optimizer,
        config=config,
        ablate_every=config["ablate_every"],
        ablate_on=TestImages(data, LESION_IMAGES) if lesions else None,
        quiet=True,
    )
    with scope, torch.random.fork_rng():
        torch.manual_seed(config["seed"])
        _fit(network, optimizer, data, scope, config, on_progress)
        scope.flush()
        save(network, scope.path)
    return scope.path


def _fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: DataSet,
    scope: Scope,
    config: dict[str, Any],
    on_progress: OnProgress | None,
) -> None:
    epochs, batch_size, lr = config["epochs"], config["batch_size"], config["lr"]
    total = epochs * (len(data.train) // batch_size)
    normalise = data.normalise()
    place = next(network.parameters()).device
    order = torch.Generator().manual_seed(config["seed"])
    began = time.monotonic()
    step = 0
    switch = switch_step(config["survival_until"], total)
    for epoch in range(epochs):
        network.train()
        for index in _batches(len(data.train), batch_size, order):
            if step == switch:
                set_survival(network, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = lr * schedule(step / total)
            x = normalise(data.train.images[index].to(place, non_blocking=True))
            x = x.contiguous(memory_format=torch.channels_last)
            y = data.train.labels[index].to(place, non_blocking=True)
            output = network(x)
            loss, logits = classification_loss(output, y, config["aux_weight"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            scope.log(
                loss=loss,
                accuracy=(logits.argmax(1) == y).float().mean(),
                lr=optimizer.param_groups[0]["lr"],
            )
            if on_progress is not None and (step % 10 == 0 or step == total):
                left = (time.monotonic() - began) / step * (total - step)
                on_progress(Progress(scope.name, epoch + 1, epochs, step, total, loss.item(), left))
        accuracy, validation = evaluate(network, data.test, normalise)
        scope.log(val_loss=validation, val_accuracy=accuracy, epoch=epoch + 1)


def switch_step(survival_until: float, total: int) -> int:
    """The first of `total` steps in which no block is dropped any more; `total` if there is none."""
    return round(survival_until * total)


def classification_loss(output: Any, y: Tensor, aux_weight: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the main logits plus that of each auxiliary head, weighted; and the logits.

    `output`: logits (n, classes), or a tuple whose first is the main one and None heads are absent.
    """
    heads = [output] if isinstance(output, Tensor) else [h for h in output if h is not None]
    loss = F.cross_entropy(heads[0], y)
    for head in heads[1:]:
        loss = loss + aux_weight * F.cross_entropy(head, y)
    return loss, heads[0]


@torch.no_grad()
def evaluate(
    network: nn.Module, split: Split, normalise: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """Accuracy and mean cross-entropy over a split, in eval mode; the mode is put back."""
    place = next(network.parameters()).device
    training = network.training
    network.eval()
    right, loss = 0, 0.0
    for x, y in zip(
        split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH), strict=True
    ):
        logits = network(normalise(x.to(place)))
        right += int((logits.argmax(1).cpu() == y).sum())
        loss += F.cross_entropy(logits, y.to(place), reduction="sum").item()
    network.train(training)
    return right / len(split), loss / len(split)


def schedule(share: float) -> float:
    """Factor of the learning rate when `share` of the steps are done: up in a line, down in a cosine."""
    if share < WARM_UP:
        return max(share / WARM_UP, 0.02)
    turn = torch.pi * (share - WARM_UP) / (1 - WARM_UP)
    return 0.5 * (1 + float(torch.cos(torch.tensor(turn))))


def pick_device(device: str) -> torch.device:
    """`auto`: a CUDA device when there is one, else the CPU. GradScopeError for an absent one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError) as error:
        raise GradScopeError(
            f"The device {device!r} cannot be used ({str(error).splitlines()[0]}); try --device auto."
        ) from None
    return place


def _batches(count: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Index tensors of whole batches in an order drawn anew."""
    for index in torch.randperm(count, generator=order).split(size):
        if len(index) == size:
            yield index


def _refuse(epochs: int, batch_size: int, lr: float, seed: int, survival_until: float) -> None:
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value != int(value) or value < 1:
            raise GradScopeError(f"{name} must be a whole number of 1 or more, not {value!r}.")
    if not 0 < lr < float("inf"):
        raise GradScopeError(f"lr must be above 0 and finite, not {lr!r}.")
    if not 0 <= seed < 2**63:
        raise GradScopeError(f"seed must lie between 0 and 2**63 - 1, not {seed!r}.")
    if not 0 <= survival_until <= 1:
        raise GradScopeError(f"survival_until is a share of the steps, not {survival_until!r}.")
