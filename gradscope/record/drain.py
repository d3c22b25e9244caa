"""Work that need not hold up training -> done in order by one background thread.

Must never know what the work is.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
from collections.abc import Callable

MAX_WAITING = 256
"""Pieces of work that may wait; beyond it new ones are dropped and counted."""


class Drain:
    """A thread that runs closures in order. Never blocks the caller, never raises into it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self._process = os.getpid()
        self.dropped = 0
        self._failed = False
        self.thread = threading.Thread(target=self._work, name="gradscope-drain", daemon=True)
        self.thread.start()

    def put(self, work: Callable[[], None]) -> None:
        """Hand over a piece of work; in a forked child nothing is done."""
        if os.getpid() != self._process:
            return
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            self.dropped += 1

    def wait(self, timeout: float = 10.0) -> None:
        """Wait until all work handed over so far is done, at most `timeout` seconds."""
        done = threading.Event()
        if os.getpid() == self._process and self.thread.is_alive():
            self._queue.put(done.set, timeout=timeout)
            done.wait(timeout)

    def close(self) -> None:
        """Finish what waits and end the thread."""
        if os.getpid() == self._process and self.thread.is_alive():
            self._queue.put(None)
            self.thread.join(30.0)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception as error:
                if not self._failed:
                    self._failed = True
                    warnings.warn(
                        f"GradScope lost some of a step's records: {error!r}", stacklevel=1
                    )
