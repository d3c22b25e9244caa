"""Module outputs and the loss gradients there -> one step's rows of `outputs` and `histograms`.

Must never know optimizers or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.measure import (
    LOWEST,
    STATISTICS,
    channel_dim,
    dead_fraction,
    fast_histogram,
    finish,
    sample_stride,
)
from gradscope.record.sheet import Sheet, to_host
from gradscope.record.sites import SiteList

HISTOGRAM_SAMPLE = 4096
"""Elements of a tensor that its magnitude histogram reads; evenly spread."""

SCALED = frozenset({"mean", "std", "rms", "norm", "absmax"})
"""Statistics that grow with the loss."""

Columns = dict[str, NDArray[np.generic]]
Work = Callable[[], Mapping[str, Columns]]


@dataclass
class Seen:
    """What is known of one output site in this step: slots in the sheet, and extras."""

    site: int
    forward: int
    backward: int | None = None
    dead: Tensor | None = None
    fraction: float = 1.0


class OutputRecorder:
    """Collects one step's outputs; `take` hands them over as work for the background thread."""

    def __init__(self, sites: SiteList, histograms: bool) -> None:
        self._sites = sites
        self._histograms = histograms
        self._sheet = Sheet()
        self._seen: dict[str, Seen] = {}
        self._alias: list[tuple[int, str]] = []
        self._counts: dict[tuple[int, int], tuple[NDArray[np.int64], float]] = {}

    def clear(self) -> None:
        """Forget the step."""
        self._sheet.clear()
        self._seen.clear()
        self._alias.clear()
        self._counts.clear()

    def output(self, name: str, module: nn.Module, t: Tensor) -> None:
        """A module returned `t` (detached)."""
        site = self._site(name, module, t)
        seen = self._seen[name] = Seen(site, self._sheet.add(t))
        if t.dim() >= 2 and t.numel():
            nonnegative = t.device.type == "cpu" and self._sheet.host_zeros(seen.forward) > 0
            if nonnegative or t.device.type != "cpu":
                seen.dead = dead_fraction(t, channel_dim(t, type(module).__name__))
        self._histogram(site, 0, t)

    def gradient(self, name: str, t: Tensor) -> None:
        """The loss gradient `t` arrived at the output called `name`."""
        seen = self._seen.get(name)
        if seen is not None and not t.is_sparse:
            seen.backward = self._sheet.add(t)
            self._histogram(seen.site, 1, t)

    def alias(self, name: str, module: nn.Module, other: str) -> None:
        """A module handed on the very tensor that `other` returned."""
        known = self._seen.get(other)
        if known is not None:
            shape = self._sites.shape(known.site)
            site = self._sites.index(
                "output",
                name,
                module=name.split("#")[0],
                module_type=type(module).__name__,
                shape=shape,
            )
            self._alias.append((site, other))

    def take(self, step: int, scale: Tensor | None = None) -> Work | None:
        """The step's rows, to be worked out later; None when nothing was seen.

        `scale` is what the loss, and so each gradient, was multiplied with.
        """
        if not self._seen:
            return None
        seen = list(self._seen.values())
        seen += [self._copy(site, other) for site, other in self._alias]
        resolve = self._sheet.take()
        devices = {s.dead.device for s in seen if s.dead is not None}
        dead = {
            device: to_host(
                torch.stack(
                    [s.dead for s in seen if s.dead is not None and s.dead.device == device]
                )
            )
            for device in devices
        }
        counts = dict(self._counts)
        factor = None if scale is None else to_host(scale.reshape(()))
        self.clear()

        def work() -> Mapping[str, Columns]:
            divisor = 1.0 if factor is None else float(factor())
            tables = {"outputs": output_columns(step, seen, resolve(), dead, divisor)}
            if counts:
                tables["histograms"] = histogram_columns(step, counts, divisor)
            return tables

        return work

    def _copy(self, site: int, other: str) -> Seen:
        known = self._seen[other]
        return Seen(site, known.forward, known.backward, known.dead, known.fraction)

    def _site(self, name: str, module: nn.Module, t: Tensor) -> int:
        return self._sites.index(
            "output",
            name,
            module=name.split("#")[0].split(":")[0],
            module_type=type(module).__name__,
            shape=tuple(t.shape),
        )

    def _histogram(self, site: int, of: int, t: Tensor) -> None:
        if self._histograms and t.device.type == "cpu" and t.numel():
            sample = t if t.dtype == torch.float32 else t.float()
            counts = fast_histogram(sample, HISTOGRAM_SAMPLE)
            self._counts[site, of] = (counts, 1.0 / sample_stride(t.numel(), HISTOGRAM_SAMPLE))


def output_columns(
    step: int,
    seen: list[Seen],
    raw: NDArray[np.float64],
    dead: Mapping[torch.device, Callable[[], NDArray[np.float64]]],
    divisor: float = 1.0,
) -> Columns:
    """Rows of the table `outputs` from the raw sums of one step; gradients are divided."""
    statistics = finish(raw)
    forward = statistics[[s.forward for s in seen]]
    backward = np.full_like(forward, np.nan)
    reached = [i for i, s in enumerate(seen) if s.backward is not None]
    if reached:
        backward[reached] = statistics[[s.backward for s in seen if s.backward is not None]]
    shares = np.full(len(seen), np.nan)
    for device, arrived in dead.items():
        rows = [i for i, s in enumerate(seen) if s.dead is not None and s.dead.device == device]
        shares[rows] = arrived()
    columns: Columns = {
        "step": np.full(len(seen), step, dtype=np.int64),
        "site": np.array([s.site for s in seen], dtype=np.int32),
        "sampled_fraction": np.array([s.fraction for s in seen], dtype=np.float32),
        "dead_fraction": shares.astype(np.float32),
    }
    for place, name in enumerate(STATISTICS):
        columns[name] = forward[:, place].astype(np.float32)
        per = divisor if name in SCALED else 1.0
        columns[f"grad_{name}"] = (backward[:, place] / per).astype(np.float32)
    return columns


def histogram_columns(
    step: int,
    counts: Mapping[tuple[int, int], tuple[NDArray[np.int64], float]],
    divisor: float = 1.0,
) -> Columns:
    """Rows of the table `histograms`: one per occupied exponent; gradients divided by a power of 2.

    A scale that is no power of two is taken as the nearest one.
    """
    keys = list(counts)
    table = np.stack([counts[key][0] for key in keys])
    row, exponent = np.nonzero(table)
    key = np.array(keys, dtype=np.int32)
    fraction = np.array([counts[k][1] for k in keys], dtype=np.float32)
    shift = np.where(key[row, 1] == 1, round(math.log2(divisor)) if divisor > 0 else 0, 0)
    return {
        "step": np.full(len(row), step, dtype=np.int64),
        "site": key[row, 0],
        "of": key[row, 1],
        "exponent": (exponent + LOWEST - shift).astype(np.int32),
        "count": table[row, exponent],
        "sampled_fraction": fraction[row],
    }
