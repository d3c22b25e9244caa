"""A model and the user's choice -> the modules to observe, by the names the user knows.

Must never know statistics or files.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from gradscope.schema import GradScopeError

Choice = str | type[nn.Module] | Callable[[str, nn.Module], bool]
"""A glob on module paths, a module type, or a function of path and module."""

WRAPPER_PARTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Path components that wrappers of torch add and the user never wrote."""

WRAPPER_TYPES = ("DistributedDataParallel", "DataParallel")


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        part = "module" if type(model).__name__ in WRAPPER_TYPES else "_orig_mod"
        inner = getattr(model, part, None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_compiled(model: nn.Module) -> bool:
    """Whether the model runs compiled: after torch.compile(model) or model.compile()."""
    inner: object = model
    while type(inner).__name__ in WRAPPER_TYPES:
        inner = getattr(inner, "module", None)
    wrapped = isinstance(getattr(inner, "_orig_mod", None), nn.Module)
    return wrapped or getattr(inner, "_compiled_call_impl", None) is not None


def clean_name(path: str) -> str:
    """A module or parameter path without the parts that wrappers inside the model added."""
    return ".".join(part for part in path.split(".") if part not in WRAPPER_PARTS)


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module of an unwrapped model by its clean path; the model itself by its class's name.

    A compiled part appears once, as the module the user wrote.
    """
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if isinstance(getattr(module, "_orig_mod", None), nn.Module) or (
            type(module).__name__ in WRAPPER_TYPES
        ):
            continue
        found.setdefault(clean_name(path) or type(model).__name__, module)
    return found


def select(
    modules: dict[str, nn.Module],
    observe: Choice | Sequence[Choice] | None,
    exclude: Choice | Sequence[Choice] | None,
) -> dict[str, nn.Module]:
    """The modules that `observe` (None: all) names and `exclude` does not.

    Raises GradScopeError for a choice that matches nothing, with the nearest module names.
    """
    chosen = set(modules) if observe is None else set(_matches(modules, observe, "observe"))
    if exclude is not None:
        chosen -= set(_matches(modules, exclude, "exclude"))
    return {name: module for name, module in modules.items() if name in chosen}


def _matches(
    modules: dict[str, nn.Module], choices: Choice | Sequence[Choice], argument: str
) -> Iterable[str]:
    for choice in (
        choices if isinstance(choices, Sequence) and not isinstance(choices, str) else [choices]
    ):
        names = [name for name, module in modules.items() if _fits(choice, name, module)]
        if not names:
            raise GradScopeError(_nothing(choice, modules, argument))
        yield from names


def _fits(choice: object, name: str, module: nn.Module) -> bool:
    if isinstance(choice, str):
        return fnmatch.fnmatchcase(name, choice)
    if isinstance(choice, type):
        return isinstance(module, choice)
    if callable(choice):
        return bool(choice(name, module))
    raise GradScopeError(
        f"observe and exclude take module-path globs, module types or functions, not {choice!r}."
    )


def _nothing(choice: object, modules: dict[str, nn.Module], argument: str) -> str:
    if isinstance(choice, str):
        near = difflib.get_close_matches(choice.replace("*", ""), modules, n=3, cutoff=0.3)
        hint = f"near names: {', '.join(near or list(modules)[:5])}"
    else:
        types = sorted({type(module).__name__ for module in modules.values()})
        hint = f"module types here: {', '.join(types[:10])}"
    return f"{argument}={choice!r} matches no module of the model; {hint}."
