"""A model and the first module a lesion touches -> a forward pass that starts there.

The outputs of the modules run before are kept from the intact pass of the same batch and given
back, so that only what comes after the lesion is computed. Must never know metrics or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.units import Bypass, replaced
from gradscope.units.calls import tensors_in


class Replay:
    """Forward passes of one model that share what happens before a lesion.

    Memory: the outputs of all shared modules for one batch, `kept_bytes`.
    """

    def __init__(self, model: nn.Module, touched: Iterable[str]) -> None:
        self.model = model
        self.touched = set(touched)
        self.segments = _segments(model, self.touched)
        self.kept: list[Any] = []
        self.versions: list[list[int]] = []
        self.entries: dict[str, int] = {}
        self.cloned: set[int] = set()
        self._capturing = False
        self._until = 0
        self._at = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept outputs, each storage once."""
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for value in self.kept
            for t in tensors_in(value)
        }
        return sum(storages.values())

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, the shared modules listen to this object."""
        originals = {path: self.model.get_submodule(path).forward for path in self.segments}

        def wrapper(path: str) -> Bypass:
            forward = originals[path]

            def run(_module: nn.Module, *args: Any, **kwargs: Any) -> Any:
                return self._segment(forward, args, kwargs)

            return run

        handles = []
        try:
            for path in self.touched:
                handles.append(
                    self.model.get_submodule(path).register_forward_pre_hook(self._enter(path))
                )
            with replaced(self.model, {path: wrapper(path) for path in self.segments}):
                yield
        finally:
            for handle in handles:
                handle.remove()
            self.kept = []

    def intact(self, *inputs: Any) -> Any:
        """The intact pass; keeps the outputs. Repeated once where layers work in place."""
        while True:
            self.kept, self.versions, self.entries = [], [], {}
            self._capturing = True
            try:
                output = self.model(*inputs)
            finally:
                self._capturing = False
            if not self._spoiled():
                return output

    def lesioned(self, replacements: Mapping[str, Bypass], *inputs: Any) -> Any:
        """The pass with the replacements, from the first replaced module on."""
        starts = [self.entries[path] for path in replacements if path in self.entries]
        while True:
            self._at, self._until = 0, min(starts, default=len(self.kept))
            with replaced(self.model, replacements):
                output = self.model(*inputs)
            if not self._spoiled():
                return output
            self.intact(*inputs)

    def _enter(self, path: str) -> Any:
        def hook(*_: Any) -> None:
            if self._capturing:
                self.entries.setdefault(path, len(self.kept))

        return hook

    def _segment(self, forward: Any, args: Any, kwargs: Any) -> Any:
        if self._capturing:
            output = forward(*args, **kwargs)
            number = len(self.kept)
            self.kept.append(_cloned(output) if number in self.cloned else output)
            self.versions.append([t._version for t in tensors_in(self.kept[-1])])
            return output
        number = self._at
        self._at += 1
        if number >= self._until:
            return forward(*args, **kwargs)
        value = self.kept[number]
        return _cloned(value) if number in self.cloned else value

    def _spoiled(self) -> bool:
        """Whether a later layer wrote into a kept output; from now on that one is copied."""
        changed = {
            number
            for number, value in enumerate(self.kept)
            if [t._version for t in tensors_in(value)] != self.versions[number]
        }
        fresh = changed - self.cloned
        self.cloned |= fresh
        return bool(fresh)


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list):
        return [_cloned(item) for item in value]
    return value


def _segments(model: nn.Module, touched: set[str]) -> list[str]:
    """The largest modules that hold no touched module below themselves."""
    above = {""}
    for path in touched:
        parts = path.split(".")
        above.update(".".join(parts[:n]) for n in range(1, len(parts)))
    found: list[str] = []
    for name, module in model.named_modules():
        parent = name.rpartition(".")[0]
        if name in above or parent not in above:
            continue
        if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            found.append(name)
        else:
            above.add(name)
    return found


def same(left: Any, right: Any) -> bool:
    """Bit equality of two outputs."""
    pairs = zip(tensors_in(left), tensors_in(right), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
