"""Background threads -> the processor time that they took from the training.

Must never know what the threads do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

import torch


class Beside:
    """Counts the time of threads that compete with the training: one on the CPU that uses all cores.

    Where cores are left over, or on a system without clocks of threads, nothing is counted.
    """

    def __init__(self, threads: Sequence[threading.Thread], device: str) -> None:
        competing = device == "cpu" and torch.get_num_threads() >= cores()
        self._threads = threads if competing and hasattr(time, "pthread_getcpuclockid") else ()
        self._before = self._now()

    def taken(self) -> float:
        """Seconds of processor time since the last call."""
        now = self._now()
        before, self._before = self._before, now
        return max(now - before, 0.0)

    def _now(self) -> float:
        return sum(
            time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            for thread in self._threads
            if thread.ident is not None and thread.is_alive()
        )


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
