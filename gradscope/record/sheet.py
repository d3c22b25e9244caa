"""Tensors -> rows of raw sums and magnitude counts, on whatever device they live, without waiting.

Host tensors are read at once. For others the sums stay in buffers on their device until the step
ends; one copy per buffer then brings them to pinned memory, and a background thread waits for it.
Must never know sites, steps or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradscope.measure import BINS, RAW, raw_sums, raw_sums_into, sample_stride

CHUNK = 256
"""Rows a buffer grows by."""

HISTOGRAM_SAMPLE = 4096
"""Elements of a host tensor that its magnitude counts read; evenly spread."""


@dataclass(frozen=True)
class Sums:
    """One step's tensors by slot: `RAW` sums (slots, 7), magnitude counts (slots, `BINS`), and the
    share of the elements that was counted (slots,), 0 where none was asked for."""

    raw: NDArray[np.float64]
    counts: NDArray[np.int32]
    fraction: NDArray[np.float32]


@dataclass
class DeviceRows:
    """Slots of one device and the buffers (rows, 7) and (rows, `BINS`) that are written there."""

    device: torch.device
    sums: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    def add(self, t: Tensor, slot: int, counted: bool) -> float:
        used = len(self.slots) % CHUNK
        if used == 0:
            wide = torch.float32 if self.device.type == "mps" else torch.float64
            self.sums.append(torch.zeros(CHUNK, len(RAW), dtype=wide, device=self.device))
            self.counts.append(torch.zeros(CHUNK, BINS, dtype=torch.int32, device=self.device))
        self.slots.append(slot)
        counts = self.counts[-1][used] if counted else None
        return raw_sums_into(t, self.sums[-1][used], counts, HISTOGRAM_SAMPLE)


class Sheet:
    """The raw sums of one step's tensors, by slot number."""

    def __init__(self) -> None:
        self._host: dict[int, tuple[float, ...]] = {}
        self._counts: list[NDArray[np.int32]] = []
        self._counted: list[int] = []
        self._devices: dict[torch.device, DeviceRows] = {}
        self._fraction: list[float] = []

    def add(self, t: Tensor, counted: bool = False) -> int:
        """Sum up `t`, `counted` with its magnitudes, and return its slot."""
        slot = len(self._fraction)
        if t.device.type == "cpu":
            counts = self._row(slot) if counted and t.numel() else None
            self._host[slot] = raw_sums(t, counts, HISTOGRAM_SAMPLE)
            share = 1.0 / sample_stride(t.numel(), HISTOGRAM_SAMPLE)
        else:
            rows = self._devices.get(t.device)
            if rows is None:
                rows = self._devices[t.device] = DeviceRows(t.device)
            share = rows.add(t, slot, counted)
        self._fraction.append(share if counted and t.numel() else 0.0)
        return slot

    def _row(self, slot: int) -> NDArray[np.int32]:
        """A row of zeros for the counts of a host tensor."""
        used = len(self._counted) % CHUNK
        if used == 0:
            self._counts.append(np.zeros((CHUNK, BINS), dtype=np.int32))
        self._counted.append(slot)
        row: NDArray[np.int32] = self._counts[-1][used]
        return row

    def clear(self) -> None:
        """Forget everything added."""
        self.__init__()  # type: ignore[misc]

    def take(self) -> Callable[[], Sums]:
        """Start copying to the host; the function returned waits and gives all rows."""
        host, counts, counted, fraction = self._host, self._counts, self._counted, self._fraction
        moving = [
            (rows.slots, to_host(torch.cat(rows.sums)), to_host(torch.cat(rows.counts)))
            for rows in self._devices.values()
        ]
        self.clear()

        def resolve() -> Sums:
            raw = np.zeros((len(fraction), len(RAW)))
            found = np.zeros((len(fraction), BINS), dtype=np.int32)
            if host:
                raw[list(host)] = list(host.values())
            if counts:
                found[counted] = np.concatenate(counts)[: len(counted)]
            for slots, sums, histograms in moving:
                raw[slots] = sums()[: len(slots)]
                found[slots] = histograms()[: len(slots)]
            return Sums(raw, found, np.array(fraction, dtype=np.float32))

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


def arriving(values: Sequence[Tensor | float]) -> Callable[[], NDArray[np.float64]]:
    """Start copying scalars to the host, one copy per device; the function returned waits for them."""
    out = np.full(len(values), np.nan)
    places: dict[torch.device, list[int]] = {}
    for place, value in enumerate(values):
        if isinstance(value, Tensor):
            places.setdefault(value.device, []).append(place)
        else:
            out[place] = value
    moving = [
        (where, to_host(torch.stack([torch.as_tensor(values[i]) for i in where])))
        for where in places.values()
    ]

    def resolve() -> NDArray[np.float64]:
        for where, arrived in moving:
            out[where] = arrived()
        return out

    return resolve
