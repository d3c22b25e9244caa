"""A residual unit's autograd graph -> the gradients that reach its input by shortcut and by branch.

The addition z = s(x) + F(x) is found in the graph that the forward pass leaves behind; node hooks
then receive what each side sends to x, so nothing is added to the training's own computation. Must
never know statistics or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

OnSplit = Callable[[Tensor, Tensor], None]
"""Called with the gradients at x through the shortcut and through the branch."""

MAX_NODES = 400
"""Nodes of a unit's graph that are looked at before it is given up."""

MAX_AFTER = 8
"""Operations between the addition and the unit's output (an activation, a reshaping)."""


@dataclass(frozen=True)
class Source:
    """Where a unit's input came from: its place in the autograd graph when the unit began."""

    node: Node
    output: int


@dataclass(frozen=True)
class Reader:
    """An operation that reads x: its node, and which of its gradients goes to x."""

    node: Node
    index: int


def source_of(x: Tensor) -> Source | None:
    """The place of `x` in the graph; None where no gradient reaches it."""
    if not x.requires_grad:
        return None
    edge = torch.autograd.graph.get_gradient_edge(x)
    return Source(edge.node, edge.output_nr)


def watch_split(source: Source, output: Tensor, on_split: OnSplit) -> bool:
    """Call `on_split` once the gradients of both sides are there; False where no sum was found."""
    sides = _sides(source, output)
    if sides is None:
        return False
    arrived: list[Tensor | None] = [None, None]
    waiting = [len(sides[0]), len(sides[1])]

    def listen(side: int, index: int) -> Callable[[tuple[Tensor | None, ...], object], None]:
        def hook(gradients: tuple[Tensor | None, ...], _outputs: object) -> None:
            gradient = gradients[index]
            if gradient is None or waiting[side] == 0:
                return
            known = arrived[side]
            arrived[side] = gradient.detach() if known is None else known + gradient.detach()
            waiting[side] -= 1
            if not any(waiting):
                shortcut, branch = arrived
                arrived[:] = [None, None]
                if shortcut is not None and branch is not None:
                    on_split(shortcut, branch)

        return hook  # it must not hold its node: neither would ever be freed

    for side in (0, 1):
        for reader in sides[side]:
            reader.node.register_hook(listen(side, reader.index))
    return True


def _sides(source: Source, output: Tensor) -> tuple[list[Reader], list[Reader]] | None:
    """The readers of x on the shortcut and on the branch (the side with more operations)."""
    node = output.grad_fn
    for _ in range(MAX_AFTER):
        if node is None or node is source.node:
            return None
        if node.name().startswith("AddBackward"):
            found = [_readers(source, node, place) for place in (0, 1)]
            (left, left_size), (right, right_size) = found
            same = {r.node for r in left} & {r.node for r in right} - {node}
            if not left or not right or same:
                return None
            return (left, right) if left_size <= right_size else (right, left)
        node = node.next_functions[0][0] if node.next_functions else None
    return None


def _readers(source: Source, addition: Node, place: int) -> tuple[list[Reader], int]:
    """All readers of x above one operand of the addition, and how many nodes lie between."""
    if place >= len(addition.next_functions):
        return [], 0
    first, number = addition.next_functions[place]
    if first is source.node and number == source.output:
        return [Reader(addition, place)], 0
    readers: list[Reader] = []
    seen: set[Node] = set()
    queue = [first]
    while queue:
        node = queue.pop()
        if node is None or node in seen or node is source.node:
            continue
        seen.add(node)
        if len(seen) > MAX_NODES:
            return [], 0
        for index, (above, number) in enumerate(node.next_functions):
            if above is source.node and number == source.output:
                readers.append(Reader(node, index))
            else:
                queue.append(above)
    return readers, len(seen)
