"""The first process's account of cost -> the same sampled steps on all processes that train together.

The first process announces the next sampled step some time ahead in the process group's key-value
store; the others look there from a background thread. No training thread waits for another. Must
never know tensors, sites or files.
"""

from __future__ import annotations

import itertools
import math
import threading
from typing import Protocol

from gradscope.record.sampling import Sampling

AHEAD = 2.0
"""Seconds of training between an announcement and its step."""

POLL = 0.2
"""Seconds between two looks at the store."""

_count = itertools.count()


class Store(Protocol):
    """What is used of torch.distributed's key-value stores."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


class AgreedSampling(Sampling):
    """`every="auto"` for several processes: `rank` 0 decides, the others follow.

    Step 0 is sampled by all. Gradient norms are taken at every step: they need all processes.
    """

    def __init__(self, budget: float, rank: int, store: Store) -> None:
        super().__init__("auto", budget)
        self._leads = rank == 0
        self._store = store
        self._prefix = f"gradscope/sampling/{next(_count)}"
        self._agreed = {0}
        self._announced = 0
        self._closed = threading.Event()
        if not self._leads:
            threading.Thread(target=self._listen, name="gradscope-agree", daemon=True).start()

    def sample(self, step: int) -> bool:
        """Whether all processes sample step `step`; the first one plans the next."""
        agreed = step in self._agreed
        if self._leads and not agreed and step > max(self._agreed) and super().sample(step):
            self._announce(step)
        return agreed

    def norms(self) -> bool:
        """Always: a norm is that of all processes' shards."""
        return True

    def close(self) -> None:
        """End the background thread."""
        self._closed.set()

    def _announce(self, step: int) -> None:
        typical = self.elapsed / self.steps if self.steps else 0.0
        ahead = math.ceil(AHEAD / typical) if typical else 1
        self._agreed = {step + max(ahead, 1)}
        self._store.set(f"{self._prefix}/{self._announced}", str(step + max(ahead, 1)))
        self._announced += 1

    def _listen(self) -> None:
        while not self._closed.wait(POLL):
            try:
                self.hear()
            except Exception:  # the store goes with the first process
                return

    def hear(self) -> None:
        """Take over what was announced since the last time."""
        while self._store.check([f"{self._prefix}/{self._announced}"]):
            self._agreed = {int(self._store.get(f"{self._prefix}/{self._announced}"))}
            self._announced += 1
