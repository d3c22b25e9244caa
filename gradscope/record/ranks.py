"""Processes that train one model together -> one run, written by the first of them.

The others send their rows of `parameters` through the process group's key-value store, from their
background threads: no collective is added to the training, and nothing waits. Must never know hooks
or files.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from gradscope.record.outputs import Columns
from gradscope.schema import Finding, Site

PATIENCE = 20.0
"""Seconds the first process waits for the rows of another."""

GRACE = 1.0
"""Seconds it waits for one that was late the last time."""

LOCAL = "local_grad_norm"
"""Column of the norms before the processes' gradients were averaged; never written."""

REDUCED = "reduced_grad_norm"
"""Column of the norms after that and before any clipping; never written."""

Tables = Mapping[str, Columns]
_count = itertools.count()


def world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def key_value_store() -> Any:
    """What the processes of the default group can leave notes to each other in."""
    return dist.distributed_c10d._get_default_store()


class Ranks:
    """Sends this process's rows to the first process, or completes its rows with the others'."""

    def __init__(self, numel: Callable[[int], int]) -> None:
        self.rank, self.size = world()
        self._numel = numel
        self._store = key_value_store()
        self._prefix = f"gradscope/{next(_count)}"
        self._late: set[int] = set()

    def combine(self, tables: Tables, sharded: bool, batch: int | None, when: float) -> Tables:
        """The tables to write: on the first process with the others' share, elsewhere none."""
        columns = dict(tables.get("parameters", {}))
        if not columns or not len(columns["step"]) or (not sharded and LOCAL not in columns):
            return tables if self.rank == 0 else {}
        key = f"{self._prefix}/{columns['step'][0]}/{columns['site'][0]}"
        names = sorted(set(columns) - {"step", "site"})
        mine = np.stack([columns[name].astype(np.float64) for name in names])
        if self.rank:
            self._store.set(f"{key}/{self.rank}", mine.tobytes())
            return {}
        parts = [mine, *(self._receive(f"{key}/{r}", r, mine) for r in range(1, self.size))]
        every = {name: np.stack([part[i] for part in parts]) for i, name in enumerate(names)}
        rows: dict[str, Columns] = {k: v for k, v in tables.items() if k != "parameters"}
        local, reduced = every.pop(LOCAL, None), every.pop(REDUCED, None)
        for name in (LOCAL, REDUCED):
            columns.pop(name, None)
        if sharded:
            numel = np.array([self._numel(int(site)) for site in columns["site"]], dtype=float)
            for name, values in joined(every, numel).items():
                columns[name] = values.astype(np.float32)
        whole = columns["grad_norm"].astype(np.float64)
        if reduced is not None:
            before = np.sqrt((reduced**2).sum(0)) if sharded else reduced[0]
            columns["clip_factor"] = clip_factor(whole, before).astype(np.float32)
            whole = before
        rows["parameters"] = columns
        seen = local is not None and np.isfinite(local)
        if local is not None and (np.all(seen) if sharded else np.any(seen)):
            found = spread(local, whole, batch)
            rows["scalars"] = {
                "step": np.full(len(found), columns["step"][0], dtype=np.int64),
                "name": np.array(list(found), dtype=object),
                "value": np.array(list(found.values())),
                "time": np.full(len(found), when),
            }
        return rows

    def _receive(self, key: str, rank: int, like: NDArray[np.float64]) -> NDArray[np.float64]:
        end = time.monotonic() + (GRACE if rank in self._late else PATIENCE)
        while not self._store.check([key]):  # get() would hold the store's lock while it waits
            if time.monotonic() > end:
                self._late.add(rank)
                return np.full_like(like, np.nan)
            time.sleep(0.005)
        values = np.frombuffer(self._store.get(key)).reshape(like.shape)
        self._store.delete_key(key)
        self._late.discard(rank)
        return values


def clip_factor(after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Norms at the step over norms as backward left them; 1.0 where they differ by rounding only."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = after / before
    return np.where(np.isclose(ratio, 1.0, rtol=2e-6, atol=0.0), 1.0, ratio)


def joined(
    every: Mapping[str, NDArray[np.float64]], numel: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Statistics of whole tensors from those of their shards, one row per process."""
    norm = np.sqrt((every["grad_norm"] ** 2).sum(0))
    out = {"grad_norm": norm}
    if "weight_norm" in every:
        weight = np.sqrt((every["weight_norm"] ** 2).sum(0))
        update = np.sqrt(
            (np.nan_to_num(every["update_ratio"]) ** 2 * every["weight_norm"] ** 2).sum(0)
        )
        out |= {
            "grad_rms": norm / np.sqrt(numel),
            "grad_absmax": every["grad_absmax"].max(0),
            "grad_nonfinite": every["grad_nonfinite"].sum(0),
            "weight_norm": weight,
            "update_ratio": np.divide(
                update, weight, out=np.full_like(weight, np.nan), where=weight > 0
            ),
        }
    return out


def spread(
    local: NDArray[np.float64], whole: NDArray[np.float64], batch: int | None
) -> dict[str, float]:
    """How the processes' own gradients differ, and the gradient noise scale in samples.

    `local` (processes, parameters): norms before averaging; `whole` (parameters): after it.
    tr(S) / |G|^2 by McCandlish et al. 2018, appendix A.1, with one process's batch and all of them.
    """
    squares = np.nansum(local**2, axis=1)
    out = {f"grad_norm_rank{r}": float(np.sqrt(s)) for r, s in enumerate(squares)}
    size = len(squares)
    if batch is None or size < 2:
        return out
    big, small = float(np.nansum(whole**2)), float(squares.mean())
    signal = (size * big - small) / (size - 1)
    noise = (small - big) / (1.0 / batch - 1.0 / (size * batch))
    out["gradient_noise_scale"] = noise / signal if signal > 0 else float("nan")
    return out


class Follower:
    """Stands in for the run's writer on the processes that write nothing."""

    def __init__(self, root: str | Path, name: str) -> None:
        self.name = name
        self.path = Path(root) / name

    def set_sites(self, sites: list[Site]) -> None:
        """Nothing: the first process keeps the sites."""

    def append(self, table: str, columns: Columns) -> None:
        """Nothing: rows go to the first process."""

    def update_config(self, values: Mapping[str, Any]) -> None:
        """Nothing: the first process keeps the config."""

    def note(self, text: str) -> None:
        """Nothing: the first process keeps notes."""

    def set_findings(self, findings: tuple[Finding, ...], verdict: str = "") -> None:
        """Nothing: the first process keeps findings."""

    def flush(self, timeout: float = 5.0) -> None:
        """Nothing to write."""

    def close(self, state: str = "finished", error: str = "") -> None:
        """Nothing to close."""
