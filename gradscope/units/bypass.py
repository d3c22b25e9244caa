"""A unit's module -> what runs in its place while the unit is bypassed.

Every bypass is called as `bypass(module, *args, **kwargs)`. The ones that follow a module's own
graph share its submodules, so a lesion computes exactly what is left of the unit's own formula.
Must never know how units are found, recording, or files.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from gradscope.schema import GradScopeError
from gradscope.units.trace import additions, own_graph


def bypass_identity(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """The first tensor that goes in comes out, as a copy, safe from in-place layers."""
    return first_tensor(module, args, kwargs).clone()


def bypass_zeros(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Zeros of the shape of the first tensor that goes in: for a branch y = x + module(x)."""
    return torch.zeros_like(first_tensor(module, args, kwargs))


def bypass_nothing(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """The first tensor itself: for an activation that follows a bypassed layer."""
    return first_tensor(module, args, kwargs)


class ZeroFeatures:
    """Zeros with `channels` channels (dimension 1) and the input's other sizes."""

    def __init__(self, channels: int, spatial_stride: int = 1) -> None:
        self.channels = channels
        self.stride = spatial_stride

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        x = first_tensor(module, args, kwargs)
        sizes = [(size + self.stride - 1) // self.stride for size in x.shape[2:]]
        return x.new_zeros((x.shape[0], self.channels, *sizes))


class PadIdentity:
    """The input, its channels (dimension 1) cut or filled with zeros to `channels`."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        x = first_tensor(module, args, kwargs)
        kept = x[:, : self.channels]
        missing = self.channels - kept.shape[1]
        if not missing:
            return kept.clone()
        return torch.cat((kept, x.new_zeros((x.shape[0], missing, *x.shape[2:]))), dim=1)


class RunAs:
    """Runs another module of the same shape here: the reordering of units."""

    def __init__(self, other: nn.Module) -> None:
        self.other = other

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return type(self.other).forward(self.other, *args, **kwargs)


class GraphEdit:
    """A module's own graph with an edit, traced once for each of train and eval mode."""

    def __init__(self) -> None:
        # the module is kept beside its edited form so that its id is not given to another
        self._graphs: dict[tuple[int, bool], tuple[nn.Module, nn.Module]] = {}

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        key = (id(module), module.training)
        if key not in self._graphs:
            graph = own_graph(module)
            if graph is None:
                raise GradScopeError(
                    f"The forward of {type(module).__name__} cannot be traced in this mode: "
                    "pass units={name: bypass} with a bypass of your own."
                )
            self.edit(module, graph)
            prune(graph)
            self._graphs[key] = (module, self._runnable(module, graph))
        return self._graphs[key][1](*args, **kwargs)

    def edit(self, module: nn.Module, graph: fx.Graph) -> None:
        raise NotImplementedError

    def extras(self) -> dict[str, nn.Module]:
        """Modules the edit calls that the unit does not have."""
        return {}

    def _runnable(self, module: nn.Module, graph: fx.Graph) -> nn.Module:
        extras = self.extras()
        if not extras:
            return fx.GraphModule(module, graph)
        root: dict[str, Any] = {}
        for node in graph.nodes:
            if node.op in ("call_module", "get_attr"):
                path = str(node.target)
                root[path] = extras[path] if path in extras else attrgetter(path)(module)
        return fx.GraphModule(root, graph)


class DropBranches(GraphEdit):
    """The unit without the branches of its residual additions: s(x) in place of s(x) + F(x).

    `which` picks additions by their order in the module's forward; None means all of them.
    """

    def __init__(self, which: frozenset[int] | None = None) -> None:
        super().__init__()
        self.which = which

    def edit(self, module: nn.Module, graph: fx.Graph) -> None:
        for number, addition in enumerate(additions(module, graph)):
            if self.which is not None and number not in self.which:
                continue
            with graph.inserting_after(addition.node):
                alone = graph.call_method("clone", (addition.operands()[0],))
            addition.node.replace_all_uses_with(alone)
            graph.erase_node(addition.node)

    def merged(self, other: DropBranches) -> DropBranches:
        """Both lesions at once, for two units inside one module."""
        if self.which is None or other.which is None:
            return DropBranches(None)
        return DropBranches(self.which | other.which)


class ZeroParts(GraphEdit):
    """A concatenating module with some of the parts it concatenates replaced by zeros.

    `channels` maps the number of each such part to its width (dimension `dim`).
    """

    def __init__(self, channels: dict[int, int]) -> None:
        super().__init__()
        self.channels = channels

    def edit(self, module: nn.Module, graph: fx.Graph) -> None:  # noqa: ARG002
        node = concatenation(graph)
        if node is None:
            raise GradScopeError("The module does not end in a concatenation that can be edited.")
        parts = concatenated(node)
        rest = [part for number, part in enumerate(parts) if number not in self.channels]
        pattern = rest[0] if rest else parts[0]
        edited = list(parts)
        for number, width in self.channels.items():
            with graph.inserting_before(node):
                edited[number] = graph.call_function(zeros_beside, (pattern, width))
        if isinstance(node.args[0], (list, tuple)):
            node.update_arg(0, edited)
        else:
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_function(torch.cat, (edited, 1)))
            graph.erase_node(node)

    def merged(self, other: ZeroParts) -> ZeroParts:
        """Both lesions at once, for two branches of one module."""
        return ZeroParts({**self.channels, **other.channels})


def zeros_beside(pattern: Tensor, channels: int) -> Tensor:
    """Zeros that can be concatenated with `pattern` along dimension 1."""
    return pattern.new_zeros((pattern.shape[0], channels, *pattern.shape[2:]))


def concatenation(graph: fx.Graph) -> fx.Node | None:
    """The torch.cat whose result the graph returns, if it returns one."""
    output = next(n for n in graph.nodes if n.op == "output")
    node = output.args[0]
    if not isinstance(node, fx.Node) or node.target not in (torch.cat, torch.concat):
        return None
    return node if isinstance(node.args[0], (list, tuple)) else None


def concatenated(node: fx.Node) -> list[fx.Node]:
    """The nodes that a torch.cat node joins."""
    parts = node.args[0]
    assert isinstance(parts, (list, tuple))
    return [part for part in parts if isinstance(part, fx.Node)]


def first_tensor(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first tensor among a call's arguments, looking into lists and tuples."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, Tensor):
                    return item
    raise GradScopeError(
        f"{type(module).__name__} was called without a tensor and cannot be bypassed: "
        "pass units={name: bypass} with a bypass of your own."
    )


def prune(graph: fx.Graph) -> None:
    """Removes what no longer reaches the output, modules that draw random numbers too."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("output", "placeholder"):
            graph.erase_node(node)
