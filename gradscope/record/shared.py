"""Gradients that several processes share -> each one's own norm, and the norm of what they agreed on.

Own: as backward left it here, before it is averaged or sharded. Reduced: as it stands when backward
has ended, before any clipping. Must never know steps or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import Variable

from gradscope.record.ranks import LOCAL, REDUCED
from gradscope.record.sheet import arriving

Norm = Callable[[Tensor], Tensor | float]


class Shared:
    """Watches one step's backward; `columns` hands over both norms for the background thread.

    `norm(tensor)` gives a number or a scalar tensor, of a shard's own values where it is one.
    """

    def __init__(self, norm: Norm) -> None:
        self._norm = norm
        self._parameters: Sequence[nn.Parameter] = ()
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self._own: dict[int, Tensor | float] = {}
        self._reduced: dict[int, Tensor | float] = {}
        self._passes: set[int] = set()

    def watch(self, parameters: Sequence[nn.Parameter]) -> Iterator[Callable[[], None]]:
        """Listen to the backward pass to come; yields what ends it."""
        self.clear()
        self._parameters = parameters
        for parameter in parameters:
            if not hasattr(parameter, "to_local"):  # a shard's hook is called once it is reduced
                yield self.listen(parameter, id(parameter))

    def listen(self, parameter: Tensor, key: int) -> Callable[[], None]:
        """Keep the norm of what backward adds up in `parameter`, as that of parameter `key`."""

        def accumulated(p: Tensor) -> None:
            self._follow()
            if p.grad is not None:
                self._own[key] = self._norm(p.grad)

        remove: Callable[[], None] = parameter.register_post_accumulate_grad_hook(
            accumulated
        ).remove
        return remove

    def _follow(self) -> None:
        """Look at all gradients again when this backward pass is over."""
        this = torch._C._current_graph_task_id()
        if this in self._passes:
            return
        self._passes.add(this)
        later = Variable._execution_engine.queue_callback
        later(lambda: later(self._ended))  # the processes' averages are queued to the end as well

    def _ended(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is not None:
                self._reduced[id(parameter)] = self._norm(parameter.grad)

    def columns(
        self, parameters: Sequence[nn.Parameter]
    ) -> Callable[[float], dict[str, NDArray[np.float64]]]:
        """The function of the loss scale -> columns `LOCAL` and `REDUCED`, NaN where not seen.

        After several backward passes it is not known what this process alone contributed.
        """
        keys = [id(p) for p in parameters]
        mine = self._own if len(self._passes) == 1 else {}
        own = arriving([mine.get(key, math.nan) for key in keys])
        reduced = arriving([self._reduced.get(key, math.nan) for key in keys])
        for key in keys:  # another optimizer may yet ask for the rest
            self._own.pop(key, None)
            self._reduced.pop(key, None)
        return lambda scale: {LOCAL: own() / scale, REDUCED: reduced() / scale}
