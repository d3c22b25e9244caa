"""A model -> the layers and blocks without a shortcut that can be left out: shape in = shape out.

Must never know recording or files.
"""

from __future__ import annotations

from torch import nn

from gradscope.units.bypass import bypass_identity, bypass_nothing
from gradscope.units.calls import Call, Profile
from gradscope.units.cost import macs_of, parameters_of
from gradscope.units.unit import Bypass, Unit, is_inside

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.SELU, nn.Tanh, nn.Sigmoid,
    nn.Hardswish, nn.Mish, nn.Softplus, nn.PReLU,
)  # fmt: skip
_IDEMPOTENT = (nn.ReLU, nn.ReLU6)


def plain_units(model: nn.Module, profile: Profile, covered: set[str]) -> list[Unit]:
    """Blocks that keep the shape, else single layers (with their normalisation and activation).

    `covered` are paths of modules that belong to other units already.
    """
    blocks = _blocks(model, profile, covered)
    kinds = {type(model.get_submodule(block.name)) for block in blocks}
    taken = covered | {block.name for block in blocks}
    # a block that changes the shape is not cut into layers where its siblings count as a whole
    taken |= {name for name, m in model.named_modules() if type(m) in kinds - {nn.Sequential}}
    return blocks + _layers(model, profile, taken)


def _blocks(model: nn.Module, profile: Profile, covered: set[str]) -> list[Unit]:
    units: list[Unit] = []
    for name, module in model.named_modules():
        call = profile.first(name)
        inside = covered | {unit.name for unit in units}
        if not name or call is None or is_inside(name, inside) or not list(module.children()):
            continue
        if not call.keeps_shape or profile.count(name) != 1 or call.output_id == profile.output_id:
            continue
        weights = sum(isinstance(part, _LAYERS) for part in module.modules())
        if not weights or (isinstance(module, nn.Sequential) and weights > 1):
            continue
        if any(path.startswith(name + ".") for path in covered):
            continue
        units.append(
            Unit(
                name,
                "plain",
                (name,),
                "identity",
                True,
                parameters=parameters_of([module]),
                macs=profile.macs.get(name, 0),
                position=call.position,
                replacements={name: bypass_identity},
            )
        )
    return units


def _layers(model: nn.Module, profile: Profile, taken: set[str]) -> list[Unit]:
    leaves = [
        call
        for call in profile.calls
        if call.path and not list(model.get_submodule(call.path).children())
    ]
    units = []
    for index, call in enumerate(leaves):
        layer = model.get_submodule(call.path)
        if not isinstance(layer, _LAYERS) or not call.keeps_shape or is_inside(call.path, taken):
            continue
        if any(step != 1 for step in _steps(layer)) or call.output_id == profile.output_id:
            continue
        if profile.count(call.path) == 1:
            units.append(_layer(model, profile, call, leaves[index + 1 : index + 3]))
    return units


def _steps(layer: nn.Module) -> tuple[int, ...]:
    stride = getattr(layer, "stride", ())
    return stride if isinstance(stride, tuple) else ()


def _layer(model: nn.Module, profile: Profile, call: Call, after: list[Call]) -> Unit:
    replacements: dict[str, Bypass] = {call.path: bypass_identity}
    exact = True
    made = call.output_id
    for wanted in (_NORMS, _ACTIVATIONS):
        if not after or after[0].input_id != made:
            break
        follower = model.get_submodule(after[0].path)
        if not isinstance(follower, wanted):
            continue
        if profile.count(after[0].path) == 1:
            replacements[after[0].path] = bypass_nothing
        else:
            exact = isinstance(follower, _IDEMPOTENT)
        made = after[0].output_id
        after = after[1:]
    return Unit(
        call.path,
        "plain",
        tuple(replacements),
        "identity",
        exact,
        parameters=parameters_of(model.get_submodule(path) for path in replacements),
        macs=macs_of(profile, replacements),
        position=call.position,
        replacements=replacements,
    )
