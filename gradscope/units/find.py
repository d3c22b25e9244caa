"""A model -> its units, in order of execution, each with how it is bypassed and what it costs.

Must never know recording, files, or what a lesion is measured with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gradscope.schema import GradScopeError
from gradscope.units.calls import Profile, at_rest, profile, resolved_example
from gradscope.units.concatenated import dense_layers, inception_modules
from gradscope.units.cost import macs_of, parameters_of
from gradscope.units.heads import heads
from gradscope.units.plain import plain_units
from gradscope.units.residual import residual_units
from gradscope.units.swap import merged, near_names, replaced, submodule
from gradscope.units.unit import Bypass, Unit, is_inside

Chosen = Mapping[str, Bypass] | Sequence[str] | Sequence[Unit] | None


def find_units(model: nn.Module, *, example: Any = None, units: Chosen = None) -> tuple[Unit, ...]:
    """The units of `model` in order of execution.

    `example` is a batch of inputs (a tensor, or a tuple of positional inputs), guessed where
    absent. `units` names the units by hand: a mapping from module path to bypass, called as
    `bypass(module, *args, **kwargs)` in place of the module, or a list of names to pick from those
    found; units found before are given back as they are. The model runs once, in eval mode, and is left as it was.
    GradScopeError: nothing that can be bypassed, an unknown name, no input could be guessed.
    """
    if units and not isinstance(units, Mapping):
        known = tuple(unit for unit in units if isinstance(unit, Unit))
        if known:
            return known
    inner, batch = resolved_example(model, example)
    _refuse_scripted(inner)
    with at_rest(inner):  # in training, blocks may be left out at random
        ran = profile(inner, batch)
        if isinstance(units, Mapping):
            return _custom(inner, ran, units)
        found = _all(inner, ran)
    if not any(unit.kind != "head" for unit in found):
        raise GradScopeError(
            f"{type(inner).__name__} has no unit that can be bypassed (no residual addition, no "
            "concatenation, no layer with shape in = shape out): pass units={'a.module': bypass}."
        )
    return found if units is None else pick(found, [str(name) for name in units])


def pick(found: Sequence[Unit], names: Iterable[str]) -> tuple[Unit, ...]:
    """The units with these names, in order of execution; GradScopeError with near names."""
    wanted = list(names)
    known = {unit.name for unit in found}
    for name in wanted:
        if name not in known:
            raise GradScopeError(f"There is no unit {name!r}: {near_names(name, known)}.")
    return tuple(unit for unit in found if unit.name in wanted)


@contextmanager
def dropped(
    model: nn.Module, *names: str, example: Any = None, units: Chosen = None
) -> Iterator[nn.Module]:
    """The model without the named units inside the `with` block, exactly as before after it.

    GradScopeError where a name is no unit's; auxiliary heads are left to `without_heads`.
    """
    if not names:
        raise GradScopeError('Name at least one unit to drop: dropped(model, "layer3.2").')
    chosen = pick(find_units(model, example=example, units=units), names)
    for unit in chosen:
        if unit.kind == "head":
            raise GradScopeError(f"{unit.name!r} is a head: use without_heads(model, name).")
    with replaced(model, merged(chosen)):
        yield model


def _all(model: nn.Module, ran: Profile) -> tuple[Unit, ...]:
    found = residual_units(model, ran)
    outer = {path for unit in found for path in (*unit.modules, unit.name)}
    auxiliary = heads(model, ran)
    outer |= {unit.name for unit in auxiliary}
    for finder in (inception_modules, dense_layers):
        found += [unit for unit in finder(model, ran, outer) if not is_inside(unit.name, outer)]
        outer |= {path for unit in found for path in (*unit.modules, unit.name)}
    found += plain_units(model, ran, outer)
    found += auxiliary
    staged = [unit if unit.stage else replace(unit, stage=_stage(unit, ran)) for unit in found]
    return tuple(sorted(_uniquely_named(staged), key=lambda unit: (unit.position, unit.kind)))


def _uniquely_named(units: Iterable[Unit]) -> list[Unit]:
    seen: dict[str, int] = {}
    named = []
    for unit in units:
        seen[unit.name] = seen.get(unit.name, 0) + 1
        count = seen[unit.name]
        named.append(unit if count == 1 else replace(unit, name=f"{unit.name}#{count}"))
    return named


def _stage(unit: Unit, ran: Profile) -> str:
    """The parent module, with the size of the maps where one parent holds several stages."""
    parent = unit.name.rpartition(".")[0]
    call = ran.first(unit.modules[0])
    shape = call.output_shape if call is not None else None
    if unit.kind == "branch":
        return unit.modules[0]
    siblings = {
        c.output_shape[2:]
        for c in ran.calls
        if c.path.rpartition(".")[0] == parent and c.output_shape and len(c.output_shape) == 4
    }
    if shape is not None and len(shape) == 4 and len(siblings) > 2:
        size = "x".join(str(n) for n in shape[2:])
        return f"{parent}@{size}" if parent else size
    return parent


def _custom(model: nn.Module, ran: Profile, units: Mapping[str, Bypass]) -> tuple[Unit, ...]:
    found = []
    for name, bypass in units.items():
        module = submodule(model, name)
        if not callable(bypass):
            raise GradScopeError(
                f"The bypass of {name!r} is {bypass!r}: give a callable bypass(module, *args)."
            )
        call = ran.first(name)
        if call is None:
            raise GradScopeError(
                f"The module {name!r} did not run on the example: nothing to drop."
            )
        unit = Unit(
            name,
            "plain",
            (name,),
            "custom",
            False,
            parameters=parameters_of([module]),
            macs=macs_of(ran, [name]),
            position=call.position,
            replacements={name: bypass},
        )
        found.append(replace(unit, stage=_stage(unit, ran)))
    return tuple(sorted(found, key=lambda unit: unit.position))


def _refuse_scripted(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise GradScopeError("A scripted model cannot be taken apart: pass the eager module.")
