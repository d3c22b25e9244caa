"""What a script logs -> rows of the table `scalars`.

Must never know sites or files.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gradscope.record.outputs import Columns, Work
from gradscope.record.sheet import to_host
from gradscope.schema import GradScopeError


def scalar_work(step: int, when: float, scalars: Mapping[str, float | Tensor]) -> Work:
    """Rows of one call of `log`; tensors on a device are waited for later, by the work itself.

    Raises GradScopeError for a value that is no number and no one-element tensor.
    """
    arriving = {}
    for name, value in scalars.items():
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise GradScopeError(
                    f"log({name}=...) got a tensor of shape {tuple(value.shape)}; give it one "
                    f"number, for example {name}={name}.mean()."
                )
            arriving[name] = to_host(value.detach().reshape(()))
            continue
        try:
            number = np.float64(value)
        except (TypeError, ValueError):
            raise GradScopeError(
                f"log({name}=...) takes a number or a one-element tensor, not "
                f"{type(value).__name__}."
            ) from None
        arriving[name] = to_host(torch.tensor(number, dtype=torch.float64, device="cpu"))

    def work() -> Mapping[str, Columns]:
        size = len(arriving)
        return {
            "scalars": {
                "step": np.full(size, step, dtype=np.int64),
                "name": np.array(list(arriving), dtype=object),
                "value": np.array([float(get()) for get in arriving.values()]),
                "time": np.full(size, when),
            }
        }

    return work


def flag_work(step: int, when: float, name: str, flag: Tensor) -> Work:
    """A scalar 1 at `step` where `flag`, a one-element tensor, turns out not to be zero."""
    arriving = to_host(flag.detach().reshape(()))

    def work() -> Mapping[str, Columns]:
        if not float(arriving()):
            return {}
        return scalar_work(step, when, {name: 1.0})()

    return work
