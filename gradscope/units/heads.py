"""A model -> its loss-carrying outputs: the main classifier and auxiliary ones; and their removal.

Must never know recording or files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from gradscope.schema import GradScopeError
from gradscope.units.calls import Profile
from gradscope.units.cost import parameters_of
from gradscope.units.swap import near_names
from gradscope.units.unit import Unit, unwrapped

_FLAG = "aux_logits"


def heads(model: nn.Module, profile: Profile) -> list[Unit]:
    """The main head (stage `main`) and the auxiliary heads (stage `aux`)."""
    units = [
        Unit(
            name,
            "head",
            (name,),
            "remove",
            True,
            stage="aux",
            parameters=parameters_of([module]),
            macs=profile.macs.get(name, 0),
            position=call.position if (call := profile.first(name)) else len(profile.calls),
        )
        for name, module in auxiliary_heads(model)
    ]
    main = main_head(model, profile)
    if main is not None:
        call = profile.first(main)
        units.append(
            Unit(
                main,
                "head",
                (main,),
                "remove",
                False,
                stage="main",
                parameters=parameters_of([model.get_submodule(main)]),
                macs=profile.macs.get(main, 0),
                position=call.position if call else len(profile.calls),
            )
        )
    return units


def auxiliary_heads(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules that are auxiliary classifiers by their class or attribute name, outermost only."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in unwrapped(model).named_modules():
        last = name.rpartition(".")[2].lower()
        is_head = last.startswith("aux") or "aux" in type(module).__name__.lower()
        holds_weights = any(True for _ in module.parameters())
        inside = any(name.startswith(f"{other}.") for other, _ in found)
        if name and is_head and holds_weights and not inside:
            found.append((name, module))
    return found


def main_head(model: nn.Module, profile: Profile) -> str | None:
    """The innermost module with weights that makes the model's output, else the last one run."""
    weighted = [
        call
        for call in profile.calls
        if call.path and any(True for _ in model.get_submodule(call.path).parameters())
    ]
    same = [call for call in weighted if call.output_id == profile.output_id]
    if same:
        return max(same, key=lambda call: call.path.count(".")).path
    leaves = [c for c in weighted if not list(model.get_submodule(c.path).children())]
    return leaves[-1].path if leaves else None


def remove_head(model: nn.Module, name: str) -> None:
    """Takes the auxiliary head `name` out of the model for good; for inference.

    The attribute becomes None, or an empty place where the model needs one, and `aux_logits` is
    set to False once no auxiliary head is left. The main output in eval mode does not change.
    """
    inner = unwrapped(model)
    _check_auxiliary(inner, name)
    parent_name, _, last = name.rpartition(".")
    parent = inner.get_submodule(parent_name)
    if isinstance(parent, (nn.ModuleDict, nn.ModuleList, nn.Sequential)):
        del parent._modules[last]
    else:
        setattr(parent, last, None)
    if not auxiliary_heads(inner) and isinstance(getattr(inner, _FLAG, None), bool):
        setattr(inner, _FLAG, False)


@contextmanager
def without_heads(model: nn.Module, *names: str) -> Iterator[nn.Module]:
    """The model without the auxiliary heads (all of them if none is named), for a while."""
    inner = unwrapped(model)
    chosen = names or tuple(name for name, _ in auxiliary_heads(inner))
    parents = {name: inner.get_submodule(name.rpartition(".")[0]) for name in chosen}
    places = {name: dict(parent._modules) for name, parent in parents.items()}
    flag = getattr(inner, _FLAG, None)
    try:
        for name in chosen:
            remove_head(model, name)
        yield model
    finally:
        for name, parent in parents.items():
            parent._modules.clear()
            parent._modules.update(places[name])
        if isinstance(flag, bool):
            setattr(inner, _FLAG, flag)


def _check_auxiliary(model: nn.Module, name: str) -> None:
    known = [head for head, _ in auxiliary_heads(model)]
    if name not in known:
        have = ", ".join(known) if known else "none"
        raise GradScopeError(
            f"{type(model).__name__} has no auxiliary head {name!r} (it has: {have}; "
            f"{near_names(name, known)})."
        )
