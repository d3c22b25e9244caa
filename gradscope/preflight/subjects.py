"""A word of the command line -> a model, a batch and a loss to check it with.

`PATH.py:function` or a name of the catalogue. Must never know what is checked.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradscope.hooks import tensors
from gradscope.models import build, family
from gradscope.preflight.passes import LossFunction
from gradscope.schema import GradScopeError

OWN_BATCH, ZOO_BATCH = 32, 8
AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss (Szegedy et al. 2014, section 5)."""

GUESSED_SIZES = (32, 64, 224, 299, 28)

Subject = tuple[nn.Module, Any, LossFunction]


def classification_loss(output: object, target: Tensor) -> Tensor:
    """Cross entropy of the first output tensor, and of auxiliary ones with their usual weight."""
    main, *others = [tensor for _, tensor in tensors(output)]
    loss = functional.cross_entropy(main, target)
    for other in others:
        loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(other, target)
    return loss


def subject(word: str) -> Subject:
    """What `gradscope check WORD` checks: `PATH.py:function`, or a network by name.

    A named network gets noise images with random labels, of 28 pixels for ours and 224 (299 for
    Inception v3) for torchvision's. A function returns a model, or (model, batch), or
    (model, batch, loss_fn); without a batch one is made to fit the first layer.
    """
    if ".py" in word:
        return _built(word)
    if family(word) == "torchvision":
        size = 299 if word == "inception_v3" else 224
        model = build(word, in_channels=3, num_classes=1000, image_size=size)
        return model, _images(ZOO_BATCH, 3, size, 1000), classification_loss
    return build(word), _images(OWN_BATCH, 1, 28, 10), classification_loss


def load_builder(word: str) -> Callable[[], Any]:
    """`PATH.py:function` -> that function. Runs the file, as importing it would."""
    place, _, name = word.rpartition(":")
    path = Path(place)
    if not place or not name:
        raise GradScopeError(f"{word!r} names no function: write PATH.py:build_model.")
    if not path.is_file():
        raise GradScopeError(f"There is no file {place!r}: give the path of a Python file.")
    spec = importlib.util.spec_from_file_location(f"gradscope_checked_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise GradScopeError(f"{place!r} is no Python file: it must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise GradScopeError(f"{place} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    found = getattr(module, name, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise GradScopeError(
            f"{place} has no function {name!r}; it has {', '.join(known[:8]) or 'none'}."
        )
    builder: Callable[[], Any] = found
    return builder


def _built(word: str) -> Subject:
    try:
        made = load_builder(word)()
    except GradScopeError:
        raise
    except Exception as error:
        raise GradScopeError(f"{word} failed: {type(error).__name__}: {error}") from error
    model, *rest = made if isinstance(made, tuple) else (made,)
    if not isinstance(model, nn.Module) or len(rest) > 2:
        raise GradScopeError(
            f"{word} must return a model, (model, batch) or (model, batch, loss_fn), "
            f"not {type(made).__name__}."
        )
    if len(rest) == 2:
        return model, rest[0], rest[1]
    if rest:
        return model, rest[0], classification_loss
    return model, guessed_batch(model), classification_loss


def guessed_batch(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Noise that fits the model's first layer, with labels that fit its output.

    Raises GradScopeError where no guess runs.
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)), None)
    shapes: list[tuple[int, ...]] = []
    if isinstance(first, nn.Linear):
        shapes = [(OWN_BATCH, first.in_features)]
    elif isinstance(first, nn.Conv2d):
        shapes = [(OWN_BATCH, first.in_channels, size, size) for size in GUESSED_SIZES]
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        for shape in shapes:
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            try:
                with torch.no_grad():
                    output = tensors(model(x))[0][1]
            except (RuntimeError, ValueError, IndexError):
                continue
            if output.dim() == 2:
                return x, _labels(len(x), output.shape[1])
    finally:
        for module, training in modes:
            module.training = training
    raise GradScopeError(
        f"No batch could be guessed for {type(model).__name__}: let the function return "
        "(model, batch, loss_fn)."
    )


def _images(count: int, channels: int, size: int, classes: int) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, size, size, generator=noise), _labels(count, classes)


def _labels(count: int, classes: int) -> Tensor:
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(1))
