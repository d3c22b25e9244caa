"""A module -> the graph of its own forward (children are leaves) and the residual additions in it.

Tracing one module at a time keeps control flow elsewhere in the network from mattering.
Must never know names of architectures, recording, or files.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn

ADDITIONS = (operator.add, operator.iadd, torch.add)
WEIGHTED = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.MultiheadAttention,
    nn.modules.rnn.RNNBase,
    nn.Bilinear,
)


class _ShallowTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return True


@dataclass(frozen=True)
class Addition:
    """y = s(x) + F(x) in a graph: the nodes of the sum, of s(x), of F(x) and of x.

    `way` is `identity` (s(x) is x), `projection` (s has weights) or `pad` (s has none); `weights`
    is how many weighted modules the shortcut holds.
    """

    node: fx.Node
    shortcut: fx.Node
    branch: fx.Node
    source: fx.Node
    way: str
    weights: int = 0
    shortcut_second: bool = False

    def operands(self) -> tuple[fx.Node, fx.Node]:
        """The nodes of s(x) and F(x) as they are now, after edits further up in the graph."""
        now = [arg for arg in self.node.args if isinstance(arg, fx.Node)]
        return (now[1], now[0]) if self.shortcut_second else (now[0], now[1])


def own_graph(module: nn.Module) -> fx.Graph | None:
    """The graph of the module's forward with every child a single node; None if not traceable.

    A forward that draws random numbers to decide its way is traced on one way; the random state
    is put back.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return _ShallowTracer().trace(module)
    except Exception:  # tracing runs the user's code, which may raise anything
        return None


def additions(module: nn.Module, graph: fx.Graph) -> tuple[Addition, ...]:
    """The additions of `graph` whose one side goes around the other."""
    above: dict[fx.Node, frozenset[fx.Node]] = {}
    found = []
    for node in graph.nodes:
        parents = node.all_input_nodes
        above[node] = frozenset(parents).union(*(above[p] for p in parents))
        operands = _operands(node)
        if operands is not None:
            addition = _residual(module, node, *operands, above)
            if addition is not None:
                found.append(addition)
    return tuple(found)


def weighted_modules(module: nn.Module, path: str) -> int:
    """How many convolutions, linear layers or attentions the child at `path` holds."""
    child = module.get_submodule(path)
    return sum(isinstance(m, WEIGHTED) for m in child.modules())


def _operands(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    is_sum = (node.op == "call_function" and node.target in ADDITIONS) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )
    if not is_sum or len(node.args) < 2:
        return None
    left, right = node.args[0], node.args[1]
    if isinstance(left, fx.Node) and isinstance(right, fx.Node) and left is not right:
        return left, right
    return None


def _residual(
    module: nn.Module,
    node: fx.Node,
    left: fx.Node,
    right: fx.Node,
    above: dict[fx.Node, frozenset[fx.Node]],
) -> Addition | None:
    for shortcut, branch in ((left, right), (right, left)):
        if shortcut in above[branch]:
            between = (above[branch] | {branch}) - above[shortcut] - {shortcut}
            if _weight(module, between):
                return Addition(node, shortcut, branch, shortcut, "identity", 0, shortcut is right)
            return None
    common = above[left] & above[right]
    if not common:
        return None
    source = max(common, key=lambda n: len(above[n]))
    weights = [_weight(module, (above[side] | {side}) - common) for side in (left, right)]
    if weights[0] == weights[1]:
        return None
    shortcut, branch = (left, right) if weights[0] < weights[1] else (right, left)
    lighter = min(weights)
    around = (above[shortcut] | {shortcut}) - common
    if lighter == 0 and _is_plain_alias(module, around):
        return Addition(node, shortcut, branch, source, "identity", 0, shortcut is right)
    way = "projection" if lighter else "pad"
    return Addition(node, shortcut, branch, source, way, lighter, shortcut is right)


def _weight(module: nn.Module, nodes: frozenset[fx.Node] | set[fx.Node]) -> int:
    return sum(weighted_modules(module, str(n.target)) for n in nodes if n.op == "call_module")


def _is_plain_alias(module: nn.Module, nodes: frozenset[fx.Node]) -> bool:
    """Whether every node on the way is a module that does nothing."""
    return all(
        n.op == "call_module" and _does_nothing(module.get_submodule(str(n.target))) for n in nodes
    )


def _does_nothing(child: nn.Module) -> bool:
    if isinstance(child, nn.Sequential):
        return all(_does_nothing(part) for part in child)
    return isinstance(child, nn.Identity)
