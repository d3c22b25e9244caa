"""Turns batches of rows into the parts of one run folder, and small parts into larger ones.

Single-threaded and free of clocks; raises OSError where the disk refuses. Never knows what the
numbers mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gradscope.schema import TABLES, GradScopeError
from gradscope.store.backlog import Entry
from gradscope.store.columns import complete
from gradscope.store.merging import chosen, merge
from gradscope.store.parts import Part, joined, live_parts, write_part
from gradscope.store.thinning import thin_folder


@dataclass(frozen=True)
class Stored:
    """A part on disk and how many rows it holds."""

    part: Part
    rows: int


class Deposit:
    """The parts of the run at `path`, numbered from `first_seq` on in this segment."""

    def __init__(self, path: Path, first_seq: int) -> None:
        self._path = path
        self._first_seq = first_seq
        self.seq = first_seq
        self._parts: dict[str, list[Stored]] = {}
        self._sick: set[str] = set()

    def store(self, entries: Iterable[Entry]) -> list[Entry]:
        """Write one part a table; returns the entries that the disk refused."""
        by_table: dict[str, list[Entry]] = {}
        for entry in entries:
            by_table.setdefault(entry.table, []).append(entry)
        refused: list[Entry] = []
        self.trouble: OSError | None = None
        for table, group in by_table.items():
            try:
                self._store_table(table, group)
            except OSError as trouble:
                self.trouble = trouble
                refused += group
        if len(refused) < sum(map(len, by_table.values())):
            self.seq += 1
        return refused

    def _store_table(self, table: str, entries: list[Entry]) -> None:
        rows = joined([complete(table, entry.columns) for entry in entries])
        steps = rows["step"]
        part = Part(self.seq, self.seq, int(steps.min()), int(steps.max()))
        folder = self._path / table
        folder.mkdir(exist_ok=True)
        write_part(folder, part, table, rows)
        self._parts.setdefault(table, []).append(Stored(part, len(steps)))

    def tidy(self, pause: Callable[[], None], *, final: bool = False) -> bool:
        """Merge one run of small parts of one table; False when there is nothing to merge.

        `pause` is called between row groups, so that fresh rows need not wait for a long merge.
        """
        for table, stored in self._parts.items():
            if table in self._sick:
                continue
            start, end = chosen([(s.part, s.rows) for s in stored], final=final)
            if end - start < 2:
                continue
            inputs = [s.part for s in stored[start:end]]
            rows = sum(s.rows for s in stored[start:end])
            try:
                part = merge(self._path, table, inputs, pause)
            except GradScopeError:
                self._sick.add(table)  # a damaged input stays as it is for the reader to name
                return True
            # parts stored during a pause were appended behind `end`
            self._parts[table][start:end] = [Stored(part, rows)]
            return True
        return False

    def adopt(self) -> None:
        """Take over the parts an earlier segment left, and sweep away what it left half done."""
        for table in TABLES:
            folder = self._path / table
            if not folder.is_dir():
                continue
            for hidden in folder.glob(".*.tmp"):
                hidden.unlink(missing_ok=True)
            live, replaced = live_parts(p.name for p in folder.iterdir())
            for part in replaced:
                (folder / part.file).unlink(missing_ok=True)
            kept = {part.file for part in live}
            thin = self._path / thin_folder(table)
            for file in thin.iterdir() if thin.is_dir() else ():
                if file.name not in kept:
                    file.unlink(missing_ok=True)


def last_seq_of(path: Path) -> int:
    """The highest flush number in any part's name below `path`, -1 if there is none."""
    highest = -1
    for table in TABLES:
        folder = path / table
        with contextlib.suppress(OSError):
            live, replaced = live_parts(p.name for p in folder.iterdir())
            highest = max([highest, *(part.last_seq for part in live + replaced)])
    return highest


def last_step_of(path: Path) -> int:
    """The highest step in any part's name below `path`, -1 if there is none."""
    highest = -1
    for table in TABLES:
        folder = path / table
        with contextlib.suppress(OSError):
            live, _ = live_parts(p.name for p in folder.iterdir())
            highest = max([highest, *(part.last_step for part in live)])
    return highest
