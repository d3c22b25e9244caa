"""Tensors -> rows of raw sums, on whatever device they live, without waiting for it.

Host tensors are summed at once. For others the sums stay in a buffer on their device until the step
ends; one copy per device then brings them to pinned memory, and a background thread waits for it.
Must never know sites, steps or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradscope.measure import RAW, raw_sums, raw_sums_into

CHUNK = 256
"""Rows a device buffer grows by."""


@dataclass
class DeviceRows:
    """Slots of one device and the buffer (rows, 7) their sums are written to."""

    buffers: list[Tensor] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    def row(self, device: torch.device, slot: int) -> Tensor:
        used = len(self.slots) % CHUNK
        if used == 0:
            wide = torch.float32 if device.type == "mps" else torch.float64
            self.buffers.append(torch.zeros(CHUNK, len(RAW), dtype=wide, device=device))
        self.slots.append(slot)
        return self.buffers[-1][used]


class Sheet:
    """The raw sums of one step's tensors, by slot number."""

    def __init__(self) -> None:
        self._host: dict[int, tuple[float, ...]] = {}
        self._devices: dict[torch.device, DeviceRows] = {}
        self._size = 0

    def add(self, t: Tensor) -> int:
        """Sum up `t` and return its slot."""
        slot = self._size
        self._size += 1
        if t.device.type == "cpu":
            self._host[slot] = raw_sums(t)
        else:
            rows = self._devices.setdefault(t.device, DeviceRows())
            raw_sums_into(t, rows.row(t.device, slot))
        return slot

    def host_zeros(self, slot: int) -> float:
        """How many elements of a host tensor's slot are zero; 0 for a tensor on a device."""
        return self._host[slot][RAW.index("zeros")] if slot in self._host else 0.0

    def clear(self) -> None:
        """Forget everything added."""
        self.__init__()  # type: ignore[misc]

    def take(self) -> Callable[[], NDArray[np.float64]]:
        """Start copying to the host; the function returned waits and gives all rows (slots, 7)."""
        host, size = self._host, self._size
        moving = [(rows.slots, to_host(torch.cat(rows.buffers))) for rows in self._devices.values()]
        self.clear()

        def resolve() -> NDArray[np.float64]:
            raw = np.zeros((size, len(RAW)))
            if host:
                raw[list(host)] = list(host.values())
            for slots, arrived in moving:
                raw[slots] = arrived()[: len(slots)]
            return raw

        return resolve


def to_host(t: Tensor) -> Callable[[], NDArray[np.float64]]:
    """Start copying `t` to the host; the function returned waits and gives a float64 array."""
    t = t.detach()
    if t.device.type == "cpu":
        values = t.to(torch.float64, copy=True).numpy()
        return lambda: values
    if t.device.type != "cuda":
        return lambda: np.asarray(t.cpu().to(torch.float64).numpy())
    pinned = torch.empty(t.shape, dtype=t.dtype, device="cpu", pin_memory=True)
    pinned.copy_(t, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(t.device))

    def wait() -> NDArray[np.float64]:
        done.synchronize()
        return np.asarray(pinned.to(torch.float64).numpy())

    return wait
