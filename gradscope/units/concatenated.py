"""A model -> what it concatenates: dense layers, inception modules and their branches.

Must never know recording or files.
"""

from __future__ import annotations

import re
from itertools import pairwise

from torch import fx, nn

from gradscope.units.bypass import (
    PadIdentity,
    ZeroFeatures,
    ZeroParts,
    bypass_identity,
    concatenated,
    concatenation,
    prune,
)
from gradscope.units.calls import Call, Profile
from gradscope.units.cost import parameters_of, taken_away
from gradscope.units.residual import remaining_weights
from gradscope.units.trace import WEIGHTED, own_graph
from gradscope.units.unit import Unit, is_inside

_DENSE_NAME = re.compile(r"dense_?layer", re.IGNORECASE)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def dense_layers(model: nn.Module, profile: Profile, covered: set[str]) -> list[Unit]:
    """Layers whose new features are joined to what came in (by themselves or by their parent).

    Modules at or below the `covered` paths belong to other units already.
    """
    units: list[Unit] = []
    growing = _growing_siblings(model, profile)
    for name, module in model.named_modules():
        call = profile.first(name)
        if not name or call is None or not list(module.children()) or is_inside(name, covered):
            continue
        joined = _joins_its_input(name, module, profile)
        if joined is not None:
            units.append(joined)
        elif name in growing or _DENSE_NAME.search(type(module).__name__):
            if call.output_shape is None or len(call.output_shape) < 2:
                continue
            units.append(_zeroed(name, module, call, profile))
    return units


def _zeroed(name: str, module: nn.Module, call: Call, profile: Profile) -> Unit:
    assert call.output_shape is not None
    return Unit(
        name,
        "dense",
        (name,),
        "zero_features",
        False,
        parameters=parameters_of([module]),
        macs=profile.macs.get(name, 0),
        position=call.position,
        replacements={name: ZeroFeatures(call.output_shape[1])},
    )


def _growing_siblings(model: nn.Module, profile: Profile) -> set[str]:
    """Children whose input is as wide as the elder sibling's input and output together."""
    growing: set[str] = set()
    by_parent: dict[str, list[Call]] = {}
    for call in profile.calls:
        # a normalisation with its activation inside grows nothing, however its widths fall
        if call.path and _is_layer(model.get_submodule(call.path)):
            by_parent.setdefault(call.path.rpartition(".")[0], []).append(call)
    for siblings in by_parent.values():
        for elder, younger in pairwise(siblings):
            shapes = (elder.input_shape, elder.output_shape, younger.input_shape)
            if any(shape is None or len(shape) < 3 for shape in shapes):
                continue
            came, made, next_came = (shape for shape in shapes if shape is not None)
            if next_came[1] == came[1] + made[1] and next_came[2:] == came[2:]:
                growing.update((elder.path, younger.path))
    return growing


def _is_layer(module: nn.Module) -> bool:
    return bool(list(module.children())) and any(isinstance(m, WEIGHTED) for m in module.modules())


def _joins_its_input(name: str, module: nn.Module, profile: Profile) -> Unit | None:
    graph = own_graph(module)
    node = concatenation(graph) if graph is not None else None
    if graph is None or node is None:
        return None
    parts = concatenated(node)
    new = [number for number, part in enumerate(parts) if part.op != "placeholder"]
    call = profile.first(name)
    if len(new) != 1 or len(parts) < 2 or call is None:
        return None
    if call.output_shape is None or call.input_shape is None:
        return None
    bypass = ZeroParts({new[0]: call.output_shape[1] - call.input_shape[1]})
    bypass.edit(module, graph)
    prune(graph)
    parameters, macs = taken_away(name, module, graph, profile)
    return Unit(
        name,
        "dense",
        (name,),
        "zero_features",
        False,
        parameters=parameters,
        macs=macs,
        position=call.position,
        replacements={name: bypass},
    )


def inception_modules(model: nn.Module, profile: Profile, covered: set[str]) -> list[Unit]:
    """Modules that join several branches of one input, and each branch as a unit of its own.

    Modules at or below the `covered` paths belong to other units already.
    """
    units: list[Unit] = []
    for name, module in model.named_modules():
        call = profile.first(name)
        if not name or call is None or not list(module.children()) or is_inside(name, covered):
            continue
        graph = own_graph(module)
        node = concatenation(graph) if graph is not None else None
        if graph is None or node is None or not remaining_weights(module, graph):
            continue
        parts = concatenated(node)
        if len(parts) < 2 or any(part.op == "placeholder" for part in parts):
            continue
        whole = _whole_module(name, module, call, profile)
        if whole is not None:
            units.append(whole)
        exact = not _feeds_norm(model, profile, call)
        for number, part in enumerate(parts):
            branch = _branch(name, module, number, part, profile, exact)
            if branch is not None:
                units.append(branch)
    return units


def _whole_module(name: str, module: nn.Module, call: Call, profile: Profile) -> Unit | None:
    before, after = call.input_shape, call.output_shape
    if before is None or after is None or before[2:] != after[2:]:
        return None
    same = before == after
    return Unit(
        name,
        "inception",
        (name,),
        "identity" if same else "pad_identity",
        same,
        parameters=parameters_of([module]),
        macs=profile.macs.get(name, 0),
        position=call.position,
        replacements={name: bypass_identity if same else PadIdentity(after[1])},
    )


def _branch(
    name: str, module: nn.Module, number: int, part: fx.Node, profile: Profile, exact: bool
) -> Unit | None:
    width = _width(name, part, profile)
    graph = own_graph(module)
    if width is None or graph is None:
        return None
    bypass = ZeroParts({number: width})
    bypass.edit(module, graph)
    prune(graph)
    parameters, macs = taken_away(name, module, graph, profile)
    last = _last_module(part)
    path = f"{name}.{last}" if last else f"{name}.part{number}"
    call = profile.first(path) or profile.first(name)
    return Unit(
        path,
        "branch",
        (name,),
        "zero_features",
        exact,
        parameters=parameters,
        macs=macs,
        position=call.position if call is not None else 0,
        replacements={name: bypass},
    )


def _width(name: str, part: fx.Node, profile: Profile) -> int | None:
    """Channels of a node: of the child's output, or of what a pooling or joining was given."""
    if part.op == "call_module":
        call = profile.first(f"{name}.{part.target}")
        return None if call is None or call.output_shape is None else call.output_shape[1]
    if part.op == "placeholder":
        call = profile.first(name)
        return None if call is None or call.input_shape is None else call.input_shape[1]
    widths = [_width(name, parent, profile) for parent in part.all_input_nodes]
    known = [width for width in widths if width is not None]
    if len(known) != len(widths) or not known:
        return None
    joins = part.op == "call_function" and isinstance(part.args[0], (list, tuple))
    return sum(known) if joins else known[0]


def _last_module(part: fx.Node) -> str | None:
    node: fx.Node | None = part
    while node is not None and node.op not in ("call_module", "placeholder"):
        parents = node.all_input_nodes
        node = parents[0] if parents else None
    return str(node.target) if node is not None and node.op == "call_module" else None


def _feeds_norm(model: nn.Module, profile: Profile, call: Call) -> bool:
    """Whether a normalisation reads the joined features: zeros would not stay zeros there."""
    readers = [c for c in profile.calls if c.input_id == call.output_id and c.path]
    return any(isinstance(model.get_submodule(c.path), _NORMS) for c in readers)
