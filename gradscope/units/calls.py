"""A model and an example -> what ran, in which order, with which shapes and at what cost.

One forward pass in eval mode; modes, buffers and random state are as before afterwards.
Must never know how a module is bypassed, recording, or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gradscope.schema import GradScopeError
from gradscope.units.unit import unwrapped

_SIZES = (32, 28, 64, 96, 128, 224, 256, 299)


@dataclass(frozen=True)
class Call:
    """One call of a module: the first input and output tensor's shapes (batch included) and ids.

    `inputs` is how many tensors went in; ids name tensors within one forward pass.
    """

    path: str
    position: int
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    input_id: int
    output_id: int
    inputs: int

    @property
    def keeps_shape(self) -> bool:
        return self.input_shape is not None and self.input_shape == self.output_shape


@dataclass(frozen=True)
class Profile:
    """The calls of one forward pass in the order they began, and costs per module path.

    `macs` are multiply-accumulates per sample, children included; `output_id` names the (first)
    tensor the model returned.
    """

    calls: tuple[Call, ...]
    macs: dict[str, int]
    output_id: int

    def first(self, path: str) -> Call | None:
        return next((call for call in self.calls if call.path == path), None)

    def count(self, path: str) -> int:
        return sum(call.path == path for call in self.calls)


def profile(model: nn.Module, example: Any) -> Profile:
    """Runs the model once in eval mode on `example` (a tensor or a tuple of inputs)."""
    calls: list[Call] = []
    alive: list[Tensor] = []  # tensors of this pass are kept, so that ids are not given twice
    open_calls: list[tuple[int, Tensor | None, int]] = []
    handles = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = list(tensors_in((args, kwargs)))
        alive.extend(tensors)
        open_calls.append((len(calls), tensors[0] if tensors else None, len(tensors)))
        calls.append(Call(names[module], len(calls), None, None, 0, 0, 0))

    def leave(module: nn.Module, _args: Any, output: Any) -> None:
        index, first, count = open_calls.pop()
        out = next(tensors_in(output), None)
        if out is not None:
            alive.append(out)
        calls[index] = Call(
            names[module],
            index,
            None if first is None else tuple(first.shape),
            None if out is None else tuple(out.shape),
            id(first) if first is not None else 0,
            id(out) if out is not None else 0,
            count,
        )

    names = {module: name for name, module in model.named_modules()}
    with at_rest(model):
        try:
            for module in names:
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave))
            counter = FlopCounterMode(display=False)
            # with gradients on, attention takes its slow path, which the counter can see
            with torch.enable_grad(), counter:
                result = model(*as_inputs(example))
        finally:
            for handle in handles:
                handle.remove()
    output = next(tensors_in(result), None)
    batch = batch_size(example)
    return Profile(
        tuple(calls), _macs(model, counter, batch), id(output) if output is not None else 0
    )


def _macs(model: nn.Module, counter: FlopCounterMode, batch: int) -> dict[str, int]:
    root = type(model).__name__
    macs = {}
    for key, flops in counter.get_flop_counts().items():
        if key == root or key.startswith(root + "."):
            macs[key[len(root) + 1 :]] = sum(flops.values()) // (2 * batch)
    return macs


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's mode, every buffer and the random state restored after."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def example_for(model: nn.Module) -> Tensor:
    """A batch of two random inputs the model accepts, guessed from its first layer.

    GradScopeError where no guess works.
    """
    reference = next(iter(model.parameters()), None)
    device = reference.device if reference is not None else torch.device("cpu")
    for shape in _shapes(model):
        example = _random(model, shape, device, reference)
        try:
            with at_rest(model), torch.no_grad():
                model(example)
        except Exception:  # any error of the user's code means: not this shape
            continue
        return example
    raise GradScopeError(
        f"No input for {type(model).__name__} could be guessed: pass example=, a batch of one or "
        "two inputs."
    )


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            stated = getattr(model, "image_size", None)
            sizes = ([stated] if isinstance(stated, int) else []) + list(_SIZES)
            return [(2, module.in_channels, size, size) for size in sizes]
        if isinstance(module, nn.Conv1d):
            return [(2, module.in_channels, size) for size in (64, 256, 1024)]
        if isinstance(module, nn.Conv3d):
            return [(2, module.in_channels, size, size, size) for size in (16, 32)]
        if isinstance(module, nn.Linear):
            width = module.in_features
            return [(2, width), (2, 8, width), (2, 1, 28, 28), (2, 3, 32, 32)]
        if isinstance(module, nn.Embedding):
            return [(2, 16)]
    return []


def _random(
    model: nn.Module, shape: tuple[int, ...], device: torch.device, reference: Tensor | None
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    first = next(m for m in model.modules() if not list(m.children()))
    if isinstance(first, nn.Embedding):
        return torch.randint(0, first.num_embeddings, shape, generator=generator).to(device)
    values = torch.randn(shape, generator=generator).to(device)
    return values.to(reference.dtype) if reference is not None else values


def as_inputs(example: Any) -> Sequence[Any]:
    """The positional arguments an example stands for."""
    return tuple(example) if isinstance(example, (tuple, list)) else (example,)


def batch_size(example: Any) -> int:
    """Dimension 0 of the first tensor of the example."""
    tensor = next(tensors_in(example), None)
    return int(tensor.shape[0]) if tensor is not None and tensor.dim() else 1


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors inside nested lists, tuples, mappings and named outputs, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def resolved_example(model: nn.Module, example: Any) -> tuple[nn.Module, Any]:
    """The unwrapped model and an example for it, guessed where None is given."""
    inner = unwrapped(model)
    return inner, example_for(inner) if example is None else example
