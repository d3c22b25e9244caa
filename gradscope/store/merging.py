"""Chooses small neighbouring parts of a table and merges them into a larger one.

A log-structured merge: about eight parts of one size become one of the next, up to a million
rows. Never knows threads, statuses or what the numbers mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from gradscope.store.parts import (
    GROUP_ROWS,
    Part,
    PartReader,
    PartWriter,
    fields_of,
    grouped,
    joined,
    prepared,
    rows_of,
    taken,
)
from gradscope.store.thinning import Thinner, thin_folder
from gradscope.store.values import FAR_STEP, Columns

FAN_IN = 8
SEALED_ROWS = 2**20
"""A part with that many rows is merged no further."""


def _tier(rows: int) -> int:
    return max(rows, 1).bit_length() // 3


def chosen(parts: Sequence[tuple[Part, int]], *, final: bool = False) -> tuple[int, int]:
    """The slice of neighbouring parts to merge now, (0, 0) for none.

    `final` merges whatever lies side by side, for a run that ends.
    """
    end = len(parts)
    while end > 0:
        start = end
        total = 0
        while start > 0 and parts[start - 1][1] < SEALED_ROWS and total < SEALED_ROWS:
            start -= 1
            total += parts[start][1]
        if start == end:
            end -= 1
            continue
        if end - start >= 2 and (final or total >= SEALED_ROWS):
            return start, end
        return (0, 0) if final else _same_size(parts, start, end)
    return 0, 0


def _same_size(parts: Sequence[tuple[Part, int]], start: int, end: int) -> tuple[int, int]:
    first = end
    while first > start:
        tier = _tier(parts[first - 1][1])
        while first > start and _tier(parts[first - 1][1]) <= tier:
            first -= 1
        if end - first >= FAN_IN:
            return first, end
    return 0, 0


def merge(path: Path, table: str, inputs: Sequence[Part], pause: Callable[[], None]) -> Part:
    """Write the rows of `inputs` as one part beside its thinned form, then delete `inputs`.

    `pause` is called again and again, also while the disk takes its time. Raises OSError where the disk refuses and GradScopeError where an input is damaged; the
    inputs then stay.
    """
    part = Part(
        inputs[0].first_seq,
        inputs[-1].last_seq,
        min(p.first_step for p in inputs),
        max(p.last_step for p in inputs),
    )
    folder = path / table
    fields = fields_of(table)
    thinner = Thinner(table, part)
    writer = PartWriter(folder, part, fields)
    try:
        waiting: list[Columns] = []
        for number, source in enumerate(inputs):
            waiting += _step_sorted(folder, source, fields)
            last = number == len(inputs) - 1
            if sum(map(rows_of, waiting)) < GROUP_ROWS and not last:
                continue
            groups = list(grouped(joined(waiting)))
            waiting = [] if last else [groups.pop()]
            for group in groups:
                ready = prepared(table, group)
                writer.add(ready)
                thinner.add(ready)
                pause()
        thinner.write(path, pause)
        writer.finish(pause)
    except BaseException:
        writer.abandon()
        raise
    for source in inputs:
        with contextlib.suppress(OSError):
            (path / thin_folder(table) / source.file).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (folder / source.file).unlink(missing_ok=True)
    return part


def _step_sorted(folder: Path, part: Part, fields: dict[str, str]) -> list[Columns]:
    where = folder / part.file
    reader = PartReader(str(where), where, fields)
    groups = [group for group, _, _ in reader.groups(0, FAR_STEP)]
    return [taken(rows, slice(None)) for rows in reader.read(groups, list(fields))]
