"""A model -> its residual units: modules whose own forward adds a branch to a shortcut.

Works by tracing, without a list of architectures; ShuffleNet's split units are known by structure.
Must never know recording or files.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from gradscope.units.bypass import DropBranches, ZeroFeatures, bypass_identity, bypass_zeros, prune
from gradscope.units.calls import Profile
from gradscope.units.cost import parameters_of, taken_away
from gradscope.units.trace import Addition, additions, own_graph, weighted_modules
from gradscope.units.unit import Unit

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def residual_units(model: nn.Module, profile: Profile) -> list[Unit]:
    """The residual units in no particular order; a unit inside a unit is not listed."""
    found: list[Unit] = []
    _walk(model, "", model, profile, found, set())
    return found


def _walk(
    model: nn.Module,
    name: str,
    module: nn.Module,
    profile: Profile,
    found: list[Unit],
    seen: set[nn.Module],
) -> None:
    if module in seen:
        return
    seen.add(module)
    if list(module.children()) and not isinstance(module, _CONTAINERS):
        call = profile.first(name)
        graph = own_graph(module) if call is not None else None
        if graph is not None:
            split = _split_unit(name, module, graph, profile)
            if split is not None:
                found.append(split)
                return
            sums = additions(module, graph)
            whole = _whole_unit(name, module, graph, sums, profile) if sums and name else None
            if whole is not None:
                found.append(whole)
                return
            found.extend(_inner_units(name, module, profile) if sums else ())
    inside = {path for unit in found for path in unit.modules}
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if path not in inside:
            _walk(model, path, child, profile, found, seen)


def remaining_weights(module: nn.Module, graph: fx.Graph) -> int:
    """Convolutions and linear layers that the graph still calls."""
    return sum(
        weighted_modules(module, str(n.target)) for n in graph.nodes if n.op == "call_module"
    )


def _whole_unit(
    name: str, module: nn.Module, graph: fx.Graph, sums: tuple[Addition, ...], profile: Profile
) -> Unit | None:
    """The module as one unit; None where more with weights than its shortcuts is left without the
    branches. Edits `graph`."""
    DropBranches().edit(module, graph)
    prune(graph)
    output = next(n for n in graph.nodes if n.op == "output")
    if not isinstance(output.args[0], fx.Node):
        return None
    if remaining_weights(module, graph) > sum(s.weights for s in sums):
        return None
    ways = {s.way for s in sums}
    way = next((w for w in ("projection", "pad") if w in ways), "identity")
    parameters, macs = taken_away(name, module, graph, profile)
    return Unit(
        name,
        "residual",
        (name,),
        way,
        True,
        parameters=parameters,
        macs=macs,
        position=_position(profile, name),
        replacements={name: DropBranches()},
    )


def _inner_units(name: str, module: nn.Module, profile: Profile) -> list[Unit]:
    """Additions x = x + layer(x) written out in a larger forward: one unit each."""
    units: list[Unit] = []
    graph = own_graph(module)  # anew: the search for a whole unit has edited the other
    for number, addition in enumerate(additions(module, graph) if graph is not None else ()):
        if addition.way != "identity":
            continue
        branch = addition.branch
        if branch.op == "call_module":
            path = f"{name}.{branch.target}" if name else str(branch.target)
            call = profile.first(path)
            alone = branch.all_input_nodes == [addition.shortcut]
            if call is not None and call.keeps_shape and alone and profile.count(path) == 1:
                units.append(_zero_branch(path, module.get_submodule(str(branch.target)), profile))
                continue
        units.append(_one_addition(name, module, number, branch, profile))
    return units


def _zero_branch(path: str, child: nn.Module, profile: Profile) -> Unit:
    return Unit(
        path,
        "residual",
        (path,),
        "zero_branch",
        True,
        parameters=parameters_of([child]),
        macs=profile.macs.get(path, 0),
        position=_position(profile, path),
        replacements={path: bypass_zeros},
    )


def _one_addition(
    name: str, module: nn.Module, number: int, branch: fx.Node, profile: Profile
) -> Unit:
    bypass = DropBranches(frozenset({number}))
    graph = own_graph(module)
    assert graph is not None
    first = next(
        (str(n.target) for n in _upwards(branch) if n.op == "call_module"), f"addition{number}"
    )
    before = remaining_parameters(module, graph)
    bypass.edit(module, graph)
    prune(graph)
    prefix = f"{name}." if name else ""
    gone = before - remaining_parameters(module, graph)
    paths = tuple(f"{prefix}{path}" for path in sorted(gone)) or (f"{prefix}{first}",)
    return Unit(
        f"{prefix}{first}",
        "residual",
        paths,
        "zero_branch",
        True,
        parameters=parameters_of(module.get_submodule(path) for path in gone),
        macs=sum(profile.macs.get(path, 0) for path in paths),
        position=_position(profile, f"{prefix}{first}"),
        replacements={name: bypass},
    )


def remaining_parameters(module: nn.Module, graph: fx.Graph) -> set[str]:
    """Paths of the children with parameters that the graph calls."""
    return {
        str(n.target)
        for n in graph.nodes
        if n.op == "call_module"
        and any(True for _ in module.get_submodule(str(n.target)).parameters())
    }


def _upwards(node: fx.Node) -> list[fx.Node]:
    seen, queue = [], [node]
    while queue:
        current = queue.pop(0)
        if current not in seen:
            seen.append(current)
            queue.extend(current.all_input_nodes)
    return seen


def _split_unit(name: str, module: nn.Module, graph: fx.Graph, profile: Profile) -> Unit | None:
    """ShuffleNet v2: half of the channels go around `branch2`; the shuffle after it stays."""
    branch = getattr(module, "branch2", None)
    around = getattr(module, "branch1", None)
    joins = [n for n in graph.nodes if n.target in (torch.cat, torch.concat)]
    if not name or len(joins) != 1 or set(dict(module.named_children())) != {"branch1", "branch2"}:
        return None
    if not isinstance(branch, nn.Module) or not isinstance(around, nn.Module):
        return None
    path = f"{name}.branch2"
    call = profile.first(path)
    if call is None or call.input_shape is None or call.output_shape is None:
        return None
    keeps = call.keeps_shape and not any(True for _ in around.parameters())
    stride = max(1, round(call.input_shape[-1] / call.output_shape[-1]))
    return Unit(
        name,
        "residual",
        (path,),
        "branch_identity" if keeps else "zero_features",
        False,
        parameters=parameters_of([branch]),
        macs=profile.macs.get(path, 0),
        position=_position(profile, name),
        replacements={
            path: bypass_identity if keeps else ZeroFeatures(call.output_shape[1], stride)
        },
    )


def _position(profile: Profile, path: str) -> int:
    call = profile.first(path)
    return call.position if call is not None else len(profile.calls)
