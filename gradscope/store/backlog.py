"""Holds rows between the training thread and the writing one, in bounded memory.

When the disk cannot follow, it halves the resolution again and again instead of growing: it
keeps every 2nd, 4th, ... sampled step. Knows neither files nor what the numbers mean.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from gradscope.store.values import Columns

LIMIT_BYTES = 64 * 2**20
MAX_STRIDE = 2**20


@dataclass(frozen=True)
class Entry:
    """The rows of one `append`: the `ordinal`-th step of its table."""

    table: str
    ordinal: int
    step: int
    size: int
    columns: Columns


class Backlog:
    """A thread-safe queue of entries that never holds much more than `limit` bytes."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._bytes = 0
        self._stride = 1
        self._ordinals: dict[str, tuple[int, int]] = {}
        self._dropped: dict[str, list[int]] = {}

    def add(self, table: str, step: int, size: int, columns: Columns) -> None:
        """Queue the rows of `step`, or leave them out where the resolution was lowered."""
        with self._lock:
            last, ordinal = self._ordinals.get(table, (-1, -1))
            if step != last:
                ordinal += 1
                self._ordinals[table] = (step, ordinal)
            entry = Entry(table, ordinal, step, size, columns)
            if not self._keeps(entry):
                self._drop(entry)
                return
            self._entries.append(entry)
            self._bytes += size
            while self._bytes > self._limit and self._stride < MAX_STRIDE:
                self._stride *= 2
                self._thin()

    def take(self) -> list[Entry]:
        """All queued entries, which are then the caller's."""
        with self._lock:
            entries, self._entries = self._entries, []
            self._bytes = 0
            return entries

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Return entries that could not be written, before those that came since."""
        with self._lock:
            self._entries[:0] = entries
            self._bytes = sum(entry.size for entry in self._entries)
            while self._bytes > self._limit and self._stride < MAX_STRIDE:
                self._stride *= 2
                self._thin()

    def relax(self) -> None:
        """Full resolution again, as everything queued has been written."""
        with self._lock:
            self._stride = 1

    def give_up(self) -> None:
        """Leave out whatever is still queued, as the run ends without it."""
        for entry in self.take():
            self._drop(entry)

    def dropped(self) -> dict[str, tuple[int, int, int]]:
        """By table: (steps left out, the first of them, the last of them)."""
        with self._lock:
            return {name: (n, a, b) for name, (n, a, b) in self._dropped.items()}

    def _keeps(self, entry: Entry) -> bool:
        if entry.table in ("scalars", "ablations"):
            stride = max(1, self._stride // 64)
        else:
            stride = self._stride
        return entry.ordinal % stride == 0

    def _thin(self) -> None:
        kept = []
        for entry in self._entries:
            if self._keeps(entry):
                kept.append(entry)
            else:
                self._drop(entry)
        self._entries = kept
        self._bytes = sum(entry.size for entry in kept)

    def _drop(self, entry: Entry) -> None:
        known = self._dropped.setdefault(entry.table, [0, entry.step, entry.step])
        known[0] += 1
        known[1] = min(known[1], entry.step)
        known[2] = max(known[2], entry.step)
