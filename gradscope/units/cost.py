"""A module, what is left of its graph, a profile -> parameters and MACs a bypass takes away.

Must never know how units are found, recording, or files.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx, nn

from gradscope.units.calls import Profile


def parameters_of(modules: Iterable[nn.Module]) -> int:
    """Elements of all parameters of the modules, each parameter once."""
    distinct = {id(p): p.numel() for module in modules for p in module.parameters()}
    return sum(distinct.values())


def macs_of(profile: Profile, paths: Iterable[str]) -> int:
    """Multiply-accumulates per sample of the modules at the paths (none inside another)."""
    return sum(profile.macs.get(path, 0) for path in set(paths))


def taken_away(name: str, module: nn.Module, left: fx.Graph, profile: Profile) -> tuple[int, int]:
    """Parameters and MACs of `module` that the edited graph `left` no longer uses."""
    kept_children = {str(n.target) for n in left.nodes if n.op == "call_module"}
    kept_own = {str(n.target) for n in left.nodes if n.op == "get_attr"}
    kept = {id(p) for child in kept_children for p in module.get_submodule(child).parameters()}
    parameters = sum(
        p.numel()
        for path, p in module.named_parameters()
        if id(p) not in kept and path not in kept_own
    )
    whole = profile.macs.get(name, 0)
    return parameters, max(0, whole - macs_of(profile, (f"{name}.{c}" for c in kept_children)))
