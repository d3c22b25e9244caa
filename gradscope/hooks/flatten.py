"""Whatever a module returns -> its tensors, each with a suffix that tells them apart.

Must never know statistics or files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from torch import Tensor

MAX_NESTING = 6


def tensors(output: object) -> list[tuple[str, Tensor]]:
    """The tensors of an output, in order, with suffixes.

    The suffix is "" for a lone tensor, else such as ":0", ":logits", ":1.0". Looks into tuples, named tuples, lists, mappings and dataclasses, six levels deep.
    """
    if isinstance(output, Tensor):
        return [("", output)]
    found = list(_walk(output, "", MAX_NESTING))
    if len(found) == 1:
        return [("", found[0][1])]
    return [(f":{path}", tensor) for path, tensor in found]


def _walk(value: object, path: str, levels: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
        return
    if levels == 0:
        return
    for key, item in _items(value):
        yield from _walk(item, f"{path}.{key}" if path else str(key), levels - 1)


def _items(value: object) -> list[tuple[object, object]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    return []
