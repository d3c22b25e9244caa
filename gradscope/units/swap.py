"""A model and bypasses by module path -> the same model with those forwards replaced, for a while.

Only the instance attribute `forward` is set and taken away again: weights, buffers, hooks and modes
are never touched, so the way back is exact also upon errors and Ctrl-C.
Must never know how units are found, recording, or files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from gradscope.schema import GradScopeError
from gradscope.units.bypass import DropBranches, ZeroParts
from gradscope.units.unit import Bypass, Unit, unwrapped

_ABSENT = object()


@contextmanager
def replaced(model: nn.Module, replacements: Mapping[str, Bypass]) -> Iterator[nn.Module]:
    """The model with each named module's forward replaced inside the `with` block."""
    inner = unwrapped(model)
    modules = {path: submodule(inner, path) for path in replacements}
    before: list[tuple[nn.Module, Any]] = []
    try:
        for path, bypass in replacements.items():
            module = modules[path]
            before.append((module, module.__dict__.get("forward", _ABSENT)))
            module.__dict__["forward"] = partial(bypass, module)
        yield model
    finally:
        for module, forward in reversed(before):
            if forward is _ABSENT:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward


def merged(units: Iterable[Unit]) -> dict[str, Bypass]:
    """The replacements of several units at once.

    GradScopeError where two units replace the same module in ways that cannot be joined.
    """
    together: dict[str, Bypass] = {}
    for unit in units:
        for path, bypass in unit.replacements.items():
            known = together.get(path)
            joined = bypass if known is None or known is bypass else _joined(known, bypass)
            if joined is None:
                raise GradScopeError(
                    f"Two units replace the module {path!r} in different ways: drop one at a time."
                )
            together[path] = joined
    return together


def _joined(first: Bypass, second: Bypass) -> Bypass | None:
    for kind in (DropBranches, ZeroParts):
        if isinstance(first, kind) and isinstance(second, kind):
            return first.merged(second)  # type: ignore[arg-type]
    return first if type(first) is type(second) else None


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at `path`; GradScopeError with near names where there is none."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in model.named_modules() if name]
        raise GradScopeError(
            f"{type(model).__name__} has no module {path!r}: {near_names(path, names)}."
        ) from None


def near_names(name: str, known: Iterable[str]) -> str:
    """'near names are a, b' for an error message."""
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.4)
    if not near:
        return "no name comes near"
    return "near names are " + ", ".join(near)
