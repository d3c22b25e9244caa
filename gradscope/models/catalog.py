"""A name such as `plain20`, `resnet56`, `densenet40-k24` or `googlenet` -> a network.

Knows which options a family takes and says so in words; never of recording, files or training.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from gradscope.models.dense import dense_net
from gradscope.models.inception import HEADS, small_inception
from gradscope.models.residual import set_survival, small_image_net
from gradscope.models.zoo import zoo_names, zoo_net
from gradscope.schema import GradScopeError

OWN_NAMES = (
    *(f"plain{depth}" for depth in (20, 32, 44, 56, 110)),
    *(f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)),
    *("densenet22", "densenet40", "densenet100-bc"),
    "inception_small",
)

_RESIDUAL = re.compile(r"(plain|resnet)(-?)(\d{1,5})")
_DENSE = re.compile(r"densenet(-?)(\d{1,5})(-bc)?(?:-k(\d{1,4}))?")
_TAKES = {
    "plain": ("batch_norm",),
    "residual": ("batch_norm", "shortcut", "skip_scale", "survival"),
    "dense": ("batch_norm", "growth_rate", "bottleneck", "compression"),
    "inception": ("batch_norm", "aux_heads"),
    "torchvision": ("aux_heads",),
}


@dataclass(frozen=True)
class Options:
    """What can be asked of a network beyond its name; each family takes some of these.

    - `skip_scale` weighs the shortcuts of a residual net; 1 is the paper's, 0 cuts them.
    - `survival` below 1 is stochastic depth: the survival probability of the last unit.
    - `growth_rate` (12 maps a layer), `bottleneck`, `compression` shape a dense net; `-bc` in its
      name sets bottlenecks and compression 0.5, `-k24` the growth rate.
    - `aux_heads`: which auxiliary classifiers an inception net keeps.
    """

    batch_norm: bool = True
    shortcut: str = "A"
    skip_scale: float = 1.0
    survival: float = 1.0
    growth_rate: int | None = None
    bottleneck: bool | None = None
    compression: float | None = None
    aux_heads: Sequence[str] = HEADS


@dataclass(frozen=True)
class _Parsed:
    family: str
    depth: int = 0
    bottleneck: bool = False
    growth: int | None = None


def names() -> tuple[str, ...]:
    """Names that `build` takes: ours, then torchvision's.

    Ours go on beyond the list: any plain-n and resnet-n of depth 6 k + 2, any densenet-L of depth
    3 k + 4, written with or without the hyphen. Where torchvision has the same name without a
    hyphen (resnet50, resnet152, densenet121, ...) that name means torchvision's network.
    """
    return (*OWN_NAMES, *(name for name in zoo_names() if name not in OWN_NAMES))


def family(name: str) -> str:
    """`plain`, `residual`, `dense`, `inception` or `torchvision`; GradScopeError if unknown."""
    return _parse(name).family


def build(
    name: str,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int = 28,
    batch_norm: bool = True,
    shortcut: str = "A",
    seed: int | None = 0,
    **options: Any,
) -> nn.Module:
    """Build a network for images (N, in_channels, image_size, image_size), on the CPU.

    - `batch_norm=False`: identities in place of the normalisations, and convolutions with biases.
    - `shortcut`: "A" pads with zeros, "B" projects, where a residual stage changes its shape.
    - `seed`: the weights' own random stream, the global one stays untouched; None draws from the
      global one. Under one seed plain-n and resnet-n, with and without batch normalisation, share
      all weights they have in common.
    - `options`, by family, are the fields of `Options`.

    Raises GradScopeError for an unknown name (with near names), an impossible depth or option.
    """
    parsed = _parse(name)
    known = [field.name for field in fields(Options)][2:]
    if strange := [option for option in options if option not in known]:
        raise GradScopeError(f"option '{strange[0]}' is not known: take some of {', '.join(known)}")
    wish = Options(batch_norm=batch_norm, shortcut=shortcut, **options)
    _refuse_foreign(name, parsed.family, wish)
    _refuse_values(in_channels, num_classes, image_size, wish)
    if parsed.family == "torchvision":
        return zoo_net(
            name,
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
            heads=bool(wish.aux_heads),
            seed=seed,
        )
    return _MAKERS[parsed.family](parsed, wish, in_channels, num_classes, seed)


def _make_residual(
    parsed: _Parsed, wish: Options, in_channels: int, num_classes: int, seed: int | None
) -> nn.Module:
    model = small_image_net(
        (parsed.depth - 2) // 6,
        skips=parsed.family == "residual",
        in_channels=in_channels,
        num_classes=num_classes,
        batch_norm=wish.batch_norm,
        shortcut=wish.shortcut,
        skip_scale=wish.skip_scale,
        seed=seed,
    )
    set_survival(model, wish.survival)
    return model


def _make_dense(
    parsed: _Parsed, wish: Options, in_channels: int, num_classes: int, seed: int | None
) -> nn.Module:
    narrow = parsed.bottleneck if wish.bottleneck is None else wish.bottleneck
    compression = wish.compression
    if compression is None:
        compression = 0.5 if parsed.bottleneck else 1.0
    if narrow and (parsed.depth - 4) % 6:
        raise GradScopeError(
            f"a densenet of depth {parsed.depth} cannot have bottlenecks: its depth must be 6 k + 4"
        )
    return dense_net(
        (parsed.depth - 4) // (6 if narrow else 3),
        growth=_growth(parsed, wish.growth_rate),
        in_channels=in_channels,
        num_classes=num_classes,
        batch_norm=wish.batch_norm,
        bottleneck=narrow,
        compression=compression,
        seed=seed,
    )


def _make_inception(
    _: _Parsed, wish: Options, in_channels: int, num_classes: int, seed: int | None
) -> nn.Module:
    return small_inception(
        in_channels=in_channels,
        num_classes=num_classes,
        batch_norm=wish.batch_norm,
        heads=wish.aux_heads,
        seed=seed,
    )


_MAKERS = {
    "plain": _make_residual,
    "residual": _make_residual,
    "dense": _make_dense,
    "inception": _make_inception,
}


def _parse(name: str) -> _Parsed:
    if name == "inception_small":
        return _Parsed("inception")
    if name in zoo_names():
        return _Parsed("torchvision")
    if match := _RESIDUAL.fullmatch(name):
        kind, depth = match[1], int(match[3])
        _refuse_depth(name, kind, match[2], depth, 6, 2)
        return _Parsed("plain" if kind == "plain" else "residual", depth)
    if match := _DENSE.fullmatch(name):
        depth, bottleneck = int(match[2]), match[3] is not None
        _refuse_depth(name, "densenet", match[1], depth, 6 if bottleneck else 3, 4)
        return _Parsed("dense", depth, bottleneck, int(match[4]) if match[4] else None)
    near = difflib.get_close_matches(name, names(), n=4, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(OWN_NAMES)}, ..."
    raise GradScopeError(f"model '{name}' is not known: {hint}")


def _refuse_depth(name: str, kind: str, hyphen: str, depth: int, per: int, rest: int) -> None:
    if depth > rest and (depth - rest) % per == 0:
        return
    below = max(1, (depth - rest) // per) * per + rest
    near = " or ".join(f"{kind}{hyphen}{d}" for d in (below, below + per))
    raise GradScopeError(
        f"model '{name}' has an impossible depth: a {kind} is {per} k + {rest} layers deep, "
        f"take {near}"
    )


def _refuse_foreign(name: str, kind: str, wish: Options) -> None:
    usual = Options()
    asked = [f.name for f in fields(Options) if getattr(wish, f.name) != getattr(usual, f.name)]
    if foreign := [option for option in asked if option not in _TAKES[kind]]:
        raise GradScopeError(
            f"model '{name}' has no option {', '.join(foreign)}: a {kind} network takes "
            f"{', '.join(_TAKES[kind])}"
        )


def _refuse_values(in_channels: int, num_classes: int, image_size: int, wish: Options) -> None:
    if in_channels < 1 or num_classes < 1 or image_size < 8:
        raise GradScopeError(
            f"cannot build a network for {in_channels} channels, {num_classes} classes and "
            f"{image_size}-pixel images: at least 1, 1 and 8 are needed"
        )
    if wish.shortcut not in ("A", "B"):
        raise GradScopeError(f"shortcut '{wish.shortcut}' is not known: take A (padding) or B")
    for option, value in (("survival", wish.survival), ("compression", wish.compression)):
        if value is not None and not 0.0 < value <= 1.0:
            raise GradScopeError(f"{option} {value:g} must be above 0 and at most 1")
    if unknown := [head for head in wish.aux_heads if head not in HEADS]:
        raise GradScopeError(f"head '{unknown[0]}' is not known: take some of {', '.join(HEADS)}")


def _growth(parsed: _Parsed, growth_rate: int | None) -> int:
    if parsed.growth is not None and growth_rate is not None and parsed.growth != growth_rate:
        raise GradScopeError(
            f"the name asks for growth rate {parsed.growth}, the option for {growth_rate}: "
            "leave one of them out"
        )
    given = parsed.growth if growth_rate is None else growth_rate
    growth = 12 if given is None else given
    if growth < 1:
        raise GradScopeError(f"growth rate {growth} is too small: at least 1 map a layer is needed")
    return growth
