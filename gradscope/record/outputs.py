"""Module outputs and the loss gradients there -> one step's rows of `outputs` and `histograms`.

Must never know optimizers or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.measure import LOWEST, STATISTICS, channel_dim, dead_fraction, finish
from gradscope.record.sheet import Sheet, Sums, arriving, to_host
from gradscope.record.sites import SiteList

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
    dead: Tensor | float = math.nan
    fraction: float = 1.0


class OutputRecorder:
    """Collects one step's outputs; `take` hands them over as work for the background thread."""

    def __init__(self, sites: SiteList, histograms: bool) -> None:
        self._sites = sites
        self._histograms = histograms
        self._sheet = Sheet()
        self._seen: dict[str, Seen] = {}
        self._alias: list[tuple[int, str]] = []

    def clear(self) -> None:
        """Forget the step."""
        self._sheet.clear()
        self._seen.clear()
        self._alias.clear()

    def output(self, name: str, module: nn.Module, t: Tensor) -> None:
        """A module returned `t`, which is read here and not kept."""
        site = self._site(name, module, t)
        seen = self._seen[name] = Seen(site, self._sheet.add(t, self._histograms))
        seen.dead = dead_fraction(t, channel_dim(t, type(module).__name__))

    def gradient(self, name: str, t: Tensor) -> None:
        """The loss gradient `t` arrived at the output called `name`."""
        seen = self._seen.get(name)
        if seen is not None and not t.is_sparse:
            seen.backward = self._sheet.add(t, self._histograms)

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
        whole = list(self._seen.values())
        seen = whole + [self._copy(site, other) for site, other in self._alias]
        resolve = self._sheet.take()
        dead = arriving([s.dead for s in seen])
        factor = None if scale is None else to_host(scale.reshape(()))
        self.clear()

        def work() -> Mapping[str, Columns]:
            divisor = 1.0 if factor is None else float(factor())
            sums = resolve()
            slots = {(s.site, 0): s.forward for s in whole}
            slots |= {(s.site, 1): s.backward for s in whole if s.backward is not None}
            return {
                "outputs": output_columns(step, seen, sums.raw, dead(), divisor),
                **histogram_columns(step, slots, sums, divisor),
            }

        return work

    def _copy(self, site: int, other: str) -> Seen:
        known = self._seen[other]
        return Seen(site, known.forward, known.backward, known.dead, known.fraction)

    def _site(self, name: str, module: nn.Module, t: Tensor) -> int:
        known = self._sites.known("output", name)
        if known is not None:
            return known
        return self._sites.index(
            "output",
            name,
            module=name.split("#")[0].split(":")[0],
            module_type=type(module).__name__,
            shape=tuple(t.shape),
        )


def output_columns(
    step: int,
    seen: list[Seen],
    raw: NDArray[np.float64],
    dead: NDArray[np.float64],
    divisor: float = 1.0,
) -> Columns:
    """Rows of the table `outputs` from the raw sums of one step; gradients are divided."""
    statistics = finish(raw)
    forward = statistics[[s.forward for s in seen]]
    backward = np.full_like(forward, np.nan)
    reached = [i for i, s in enumerate(seen) if s.backward is not None]
    if reached:
        backward[reached] = statistics[[s.backward for s in seen if s.backward is not None]]
    columns: Columns = {
        "step": np.full(len(seen), step, dtype=np.int64),
        "site": np.array([s.site for s in seen], dtype=np.int32),
        "sampled_fraction": np.array([s.fraction for s in seen], dtype=np.float32),
        "dead_fraction": dead.astype(np.float32),
    }
    for place, name in enumerate(STATISTICS):
        columns[name] = forward[:, place].astype(np.float32)
        per = divisor if name in SCALED else 1.0
        columns[f"grad_{name}"] = (backward[:, place] / per).astype(np.float32)
    return columns


def histogram_columns(
    step: int, slots: Mapping[tuple[int, int], int], sums: Sums, divisor: float = 1.0
) -> Mapping[str, Columns]:
    """The table `histograms` of the tensors (site, of) that were counted: a row per occupied exponent.

    Gradients are divided by a power of 2: a scale that is none is taken as the nearest one. No table
    where nothing was counted.
    """
    keys = [key for key, slot in slots.items() if sums.fraction[slot] > 0]
    if not keys:
        return {}
    where = [slots[key] for key in keys]
    row, exponent = np.nonzero(sums.counts[where])
    key = np.array(keys, dtype=np.int32)[row]
    shift = np.where(key[:, 1] == 1, round(math.log2(divisor)) if divisor > 0 else 0, 0)
    columns: Columns = {
        "step": np.full(len(row), step, dtype=np.int64),
        "site": key[:, 0],
        "of": key[:, 1],
        "exponent": (exponent + LOWEST - shift).astype(np.int32),
        "count": sums.counts[where][row, exponent].astype(np.int64),
        "sampled_fraction": sums.fraction[where][row],
    }
    return {"histograms": columns}
