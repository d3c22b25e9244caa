"""A model -> calls of (site name, module, tensor) while one training step runs.

Attached only for the steps that are looked at, and then by torch's global module hooks: the model
itself never carries a hook, so that its pickle, copy, repr and state_dict stay what they are.
Must never know statistics or files.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from gradscope.hooks.flatten import tensors

OnOutput = Callable[[str, nn.Module, Tensor], None]
OnGradient = Callable[[str, Tensor], None]
OnAlias = Callable[[str, nn.Module, str], None]
OnReturn = Callable[[str, nn.Module, object], None]
OnEntry = Callable[[str, nn.Module, object], None]


class Observer:
    """Hears modules return and gradients arrive at their outputs, in the first pass of a step.

    `on_output(name, module, tensor)` is called for each output tensor,
    `on_gradient(name, gradient)` for the loss gradient that arrives there (again if a second backward reaches it: the last one
    counts), `on_alias(name, module, other)` when a module hands on the very tensor that `other`
    returned, `on_entry(name, module, args)` and `on_return(name, module, output)` around a module's
    first call, and `on_restart()` when what was seen was no training pass. The n-th call
    of a module in one pass is `name#n`.

    Tensor hooks, not full-backward hooks: those fail on in-place operations. A hook on a tensor
    that is changed in place afterwards still receives the gradient of the value it had.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        *,
        on_output: OnOutput,
        on_gradient: OnGradient,
        on_alias: OnAlias,
        on_restart: Callable[[], None],
        on_entry: OnEntry,
        on_return: OnReturn,
        on_skip: Callable[[str, str], None],
    ) -> None:
        self._model = model
        self._modules = modules
        self._on_output = on_output
        self._on_gradient = on_gradient
        self._on_alias = on_alias
        self._on_restart = on_restart
        self._on_entry = on_entry
        self._on_return = on_return
        self._on_skip = on_skip
        self._handles: list[RemovableHandle] = []
        self._names: dict[int, str] = {}
        self.order: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._pass = object()
        self._calls: dict[str, int] = {}
        self._seen: set[str] = set()
        self._backward = self._backward_ended = False
        self._listeners: list[weakref.ref[Callable[[Tensor], None]]] = []
        self._training: bool | None = None
        self._inside = False
        self._returned: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}

    @property
    def attached(self) -> bool:
        return bool(self._handles)

    def attach(self) -> None:
        """Listen to the pass to come."""
        self.detach()
        self._names = {id(module): name for name, module in self._modules.items()}
        self._handles.append(register_module_forward_pre_hook(self._enter))
        self._handles.append(register_module_forward_hook(self._leave))

    def detach(self) -> None:
        """Stop listening; gradients still on their way are ignored."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._begin()

    def release(self) -> None:
        """Stop listening and let go of the model."""
        self.detach()
        self._model, self._modules = nn.Module(), {}
        self._names.clear()

    def _enter(self, module: nn.Module, args: tuple[object, ...]) -> None:
        if being_traced():
            return
        if module is self._model:
            self._enter_model()
        name = self._names.get(id(module))
        if name is None:
            return
        self.order.setdefault(name, len(self.order))
        first = name not in self._calls and not self._backward
        if first and torch.is_grad_enabled() and not recomputing():
            self._guarded(name, self._on_entry, name, module, args)

    def _enter_model(self) -> None:
        """A call of the whole model: forget a pass that was broken off or thrown away."""
        if not recomputing() and torch.is_grad_enabled():
            if self._inside or self._backward != self._backward_ended or self._thrown_away():
                self._begin()
                self._on_restart()
            self._inside = True

    def _thrown_away(self) -> bool:
        """Whether no gradient arrived and none can: the graph is gone, and its hooks with it."""
        return (
            not self._backward
            and bool(self._listeners)
            and all(listener() is None for listener in self._listeners)
        )

    def _leave(self, module: nn.Module, _args: object, output: object) -> None:
        if being_traced() or not torch.is_grad_enabled():
            return
        again = recomputing()
        name = self._names.get(id(module))
        if name is not None and (again or self._same_pass()):
            self._guarded(name, self._returns, name, module, output, again)
        if module is self._model and not again:
            self._inside = False

    def _returns(self, name: str, module: nn.Module, output: object, again: bool) -> None:
        site = name
        if not again:
            self._calls[name] = call = self._calls.get(name, 0) + 1
            site = name if call == 1 else f"{name}#{call}"
            if call == 1:
                self._on_return(name, module, output)
        for suffix, tensor in tensors(output):
            self._tensor(site + suffix, module, tensor)

    def _same_pass(self) -> bool:
        """Whether a forward call belongs to the pass observed: a step's first in training mode.

        A pass in eval mode counts only where there is none in training mode.
        """
        if self._backward:
            return False
        training = self._model.training
        if self._training and not training:
            return False
        if self._training is False and training:
            self._begin()
            self._inside = True
            self._on_restart()
        self._training = training
        return True

    def _tensor(self, site: str, module: nn.Module, tensor: Tensor) -> None:
        if site in self._seen:
            return
        self._seen.add(site)
        reason = unsupported(tensor)
        if reason:
            self._on_skip(site, reason)
            return
        known = self._returned.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1] == tensor._version:
            self._on_alias(site, module, known[2])
            return
        self._returned[id(tensor)] = (weakref.ref(tensor), tensor._version, site)
        if tensor.requires_grad:
            self._listen(site, tensor)
        self._on_output(site, module, tensor)

    def _listen(self, site: str, tensor: Tensor) -> None:
        token = self._pass

        def arrived(gradient: Tensor) -> None:
            if token is self._pass and gradient is not None:
                self._begin_backward()
                self._guarded(site, self._on_gradient, site, gradient)

        tensor.register_hook(arrived)
        self._listeners.append(weakref.ref(arrived))

    def _begin_backward(self) -> None:
        """The first gradient of a pass is here; autograd will tell when the last one is."""
        if self._backward:
            return
        self._backward, token = True, self._pass

        def ended() -> None:
            if token is self._pass:
                self._backward_ended = True

        Variable._execution_engine.queue_callback(ended)

    def _guarded(self, site: str, function: Callable[..., None], *args: object) -> None:
        """Call what reads tensors: a kind of tensor that nobody thought of must not end a training."""
        try:
            function(*args)
        except Exception as error:
            self._on_skip(site, f"reading it failed with {type(error).__name__}: {error}")


def being_traced() -> bool:
    """Whether a compiler or a tracer runs the forward pass to see what it does."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def recomputing() -> bool:
    """Whether a backward pass is running: a forward call then is checkpointing's second one."""
    return torch._C._current_graph_task_id() != -1


def unsupported(tensor: Tensor) -> str:
    """Why a tensor has no statistics here, or an empty string."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "it is traced by torch.func"
    if tensor.is_meta:
        return "it is on the meta device and has no values"
    if tensor.is_quantized:
        return "it is quantised"
    if tensor.is_nested:
        return "it is nested"
    if tensor.layout != torch.strided:
        return f"its layout is {tensor.layout}"
    if not tensor.is_floating_point():
        return f"its type is {tensor.dtype}"
    return ""
