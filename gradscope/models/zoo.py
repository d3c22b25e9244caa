"""A name of torchvision's classification zoo -> that network for our images and classes.

Must never know of recording, files or training; never fetches weights.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torchvision
from torch import nn

from gradscope.models.initialise import seeded
from gradscope.schema import GradScopeError

_WITH_HEADS = ("googlenet", "inception_v3")


def zoo_names() -> tuple[str, ...]:
    """All classification networks of the installed torchvision, sorted."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def zoo_net(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    heads: bool,
    seed: int | None,
) -> nn.Module:
    """The zoo's network, randomly initialised as torchvision does it, for (N, C, S, S) images.

    A first convolution of another channel count is drawn anew by He's rule. A network that cannot
    take images of that size is refused with a GradScopeError before any training.
    """
    arguments: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in _WITH_HEADS:
        arguments |= {"init_weights": True, "aux_logits": heads}
    if name.startswith("vit_"):
        arguments["image_size"] = image_size
    if name.startswith("maxvit"):
        arguments["input_size"] = (image_size, image_size)
    _refuse_size(name, arguments, in_channels, image_size)
    with seeded(seed):
        return _make(name, arguments, in_channels)


def _make(name: str, arguments: dict[str, Any], in_channels: int) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(name, **arguments)
    _adapt_input(model, in_channels)
    return model


def _adapt_input(model: nn.Module, in_channels: int) -> None:
    found = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    path, module = found[0]
    if module.in_channels == in_channels:
        return
    fresh = nn.Conv2d(
        in_channels,
        module.out_channels,
        module.kernel_size,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        padding=module.padding,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        bias=module.bias is not None,
        padding_mode=module.padding_mode,
    )
    nn.init.kaiming_normal_(fresh.weight)
    if fresh.bias is not None:
        nn.init.zeros_(fresh.bias)
    model.set_submodule(path, fresh)


def _refuse_size(name: str, arguments: dict[str, Any], channels: int, size: int) -> None:
    """Try the shapes on the meta device, where nothing is computed."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Training mode: auxiliary heads can be too large for an image that the trunk takes.
            _make(name, arguments, channels).train()(torch.empty(2, channels, size, size))
    except NotImplementedError:
        return
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "no reason"
        raise GradScopeError(
            f"model '{name}' cannot take {size}x{size} images ({reason}): "
            "give a larger image size, or take a network made for small images such as resnet20"
        ) from None
