"""Turns a run folder, or a run's archive, into columns, also while it is being written.

Never writes, never imports torch or pandas, never knows what the numbers mean.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradscope.schema import TABLES, GradScopeError, RunInfo, Site
from gradscope.store.columns import dtypes_of, empty
from gradscope.store.documents import parse, segments_from_json, sites_from_json
from gradscope.store.folder import Place, place_of
from gradscope.store.parts import (
    Part,
    PartReader,
    fields_of,
    joined,
    key_columns,
    live_parts,
    step_order,
    taken,
)
from gradscope.store.standing import info_of, status_of
from gradscope.store.thinning import bucketed, thin_folder, thinned_part, width_for
from gradscope.store.values import FAR_STEP, Columns, RunStatus, Segment


class StoredRun:
    """One run, read from its files at every call, so that it grows with them."""

    path: Path
    name: str

    def __init__(self, place: Place) -> None:
        self._place = place
        self.path = place.path
        self.name = place.name
        self._run_stamp: Any = None
        self._run: tuple[RunInfo, tuple[Segment, ...]] | None = None
        self._site_stamp: Any = None
        self._sites: tuple[Site, ...] = ()
        self._open_parts: dict[tuple[str, str], PartReader] = {}

    @property
    def info(self) -> RunInfo:
        """What was known when the run started, and the config as last updated."""
        return self._run_json()[0]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The stretches of writing; more than one if the run was resumed."""
        return self._run_json()[1]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The observed places; a table's `site` is an index into this."""
        stamp = self._place.stamp(["sites.json"])
        if stamp != self._site_stamp or stamp == (None,):
            data = self._place.document("sites.json")
            where = self.path / "sites.json"
            self._sites = () if data is None else sites_from_json(parse(data, where), where)
            self._site_stamp = stamp
        return self._sites

    @property
    def status(self) -> RunStatus:
        """How the run stands now."""
        return status_of(self._place)

    def tables(self) -> tuple[str, ...]:
        """The tables that have rows."""
        return tuple(name for name in TABLES if live_parts(self._place.names(name))[0])

    def version(self) -> str:
        """A text that changes whenever the run grew or its status changed."""
        status = self.status
        stamp = self._place.stamp(["run.json", "sites.json", "findings.json", "user.json"])
        grown = (status.last_step, status.steps_seen, status.state, status.ended)
        parts = max(
            (p.last_seq for t in TABLES for p in live_parts(self._place.names(t))[0]), default=-1
        )
        seen = repr((stamp, grown, parts, status.notes, status.verdict))
        return hashlib.blake2b(seen.encode("utf-8", "replace"), digest_size=16).hexdigest()

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        *,
        first_step: int | None = None,
        last_step: int | None = None,
        sites: Sequence[int] | None = None,
    ) -> Columns:
        """Rows of `table` with first_step <= step <= last_step, sorted by step, then site.

        Without `columns` all of them. Arrays are the caller's own. Raises GradScopeError for an
        unknown table or column, and for a damaged part, naming the file.
        """
        names = _checked(table, columns)
        first = 0 if first_step is None else int(first_step)
        last = FAR_STEP if last_step is None else int(last_step)
        return self._retried(lambda: self._read(table, names, first, last, sites))

    def last_steps(self, table: str, n: int, columns: Sequence[str] | None = None) -> Columns:
        """The rows of the newest `n` steps that have any, sorted by step, then site."""
        names = _checked(table, columns)
        return self._retried(lambda: self._last_steps(table, n, names))

    def thinned(self, table: str, columns: Sequence[str], *, buckets: int = 1000) -> Columns:
        """At most `buckets` rows a site: `step` (first of the bucket), `site` (scalars: `name`),
        and `<column>_min`, `<column>_mean`, `<column>_max` over the bucket's numbers.

        NaN is left out (NaN where nothing else is there); the mean is over finite numbers;
        minimum and maximum are exact, so no peak is lost. Sorted by step, then site.
        """
        names = _checked(table, columns)
        dtypes = dtypes_of(table)
        for name in names:
            if dtypes[name].kind == "O" or name == "step":
                raise GradScopeError(f"Column {name!r} of {table!r} holds no numbers to thin.")
        if buckets < 1:
            raise GradScopeError("thinned needs at least 1 bucket.")
        return self._retried(lambda: self._thinned(table, names, buckets))

    def _run_json(self) -> tuple[RunInfo, tuple[Segment, ...]]:
        stamp = self._place.stamp(["run.json"])
        if self._run is None or stamp != self._run_stamp:
            where = self.path / "run.json"
            data = self._place.document("run.json")
            if data is None:
                raise GradScopeError(
                    f"{self.path} is no run, or its run.json is lost: restore it from a copy."
                )
            run = parse(data, where)
            self._run = (info_of(run), segments_from_json(run.get("segments"), where))
            self._run_stamp = stamp
        return self._run

    def _retried(self, work: Callable[[], Columns]) -> Columns:
        for _ in range(50):
            try:
                return work()
            except FileNotFoundError:  # merged away since the folder was listed
                self._open_parts.clear()
        raise GradScopeError(
            f"The parts of {self.path} vanish while being read: see whether the run is being "
            "deleted, then try again."
        )

    def _live(self, table: str) -> list[tuple[Part, int]]:
        """Parts in order of writing, each with the step from which its rows are rewound."""
        segments = self.segments
        found = []
        for part in live_parts(self._place.names(table))[0]:
            limit = min(
                (s.resume_step for s in segments if s.first_seq > part.last_seq), default=FAR_STEP
            )
            if part.first_step < limit:
                found.append((part, limit))
        return found

    def _open(self, folder: str, part: Part, fields: dict[str, str]) -> PartReader:
        source = self._place.part(folder, part.file)
        return PartReader(source, self.path / folder / part.file, fields)

    def _pieces(self, table: str, names: list[str], first: int, last: int) -> Iterator[Columns]:
        fields = fields_of(table)
        for part, limit in self._live(table):
            end = min(last, limit - 1)
            if part.last_step < first or part.first_step > end:
                continue
            reader = self._open(table, part, fields)
            chosen = reader.groups(first, end)
            for (_, low, high), rows in zip(
                chosen, reader.read([g for g, _, _ in chosen], names), strict=True
            ):
                yield _within(rows, first, end) if low < first or high > end else rows

    def _read(
        self, table: str, names: list[str], first: int, last: int, sites: Sequence[int] | None
    ) -> Columns:
        keys = [name for name in key_columns(table) if name not in ("of", "exponent")]
        wanted = list(dict.fromkeys(["step", *keys, *names]))
        wanted_sites = None if sites is None else np.asarray(list(sites), dtype=np.int64)
        pieces = []
        for rows in self._pieces(table, wanted, first, last):
            if wanted_sites is not None and "site" in rows:
                rows = taken(rows, np.isin(rows["site"], wanted_sites))
            if len(rows["step"]):
                pieces.append(taken(rows, step_order(rows["step"])))
        if not pieces:
            return empty(table, names)
        whole = _sorted(pieces)
        return {name: whole[name] for name in names}

    def _last_steps(self, table: str, n: int, names: list[str]) -> Columns:
        if n < 1:
            return empty(table, names)
        fields = fields_of(table)
        parts = sorted(self._live(table), key=lambda p: -min(p[0].last_step, p[1] - 1))
        newest = np.empty(0, np.int64)
        for part, limit in parts:
            if len(newest) >= n and min(part.last_step, limit - 1) < newest[0]:
                break
            reader = self._open(table, part, fields)
            for group, low, _ in sorted(reader.groups(0, limit - 1), key=lambda g: -g[2]):
                steps = reader.read([group], ["step"])[0]["step"]
                found = np.unique(steps[steps < limit])
                newest = np.union1d(newest, found)[-n:]
                if len(newest) >= n and low <= newest[0]:
                    break
        if not len(newest):
            return empty(table, names)
        return self._read(table, names, int(newest[0]), int(newest[-1]), None)

    def _thinned(self, table: str, names: list[str], buckets: int) -> Columns:
        live = self._live(table)
        if not live:
            return bucketed(table, names, [], 1)
        first = min(part.first_step for part, _ in live)
        last = max(min(part.last_step, limit - 1) for part, limit in live)
        width = width_for(first, last, buckets)
        thin = {p.file for p in live_parts(self._place.names(thin_folder(table)))[0]}
        pieces: list[Columns] = []
        fields = fields_of(table)
        keys = key_columns(table)
        for part, limit in live:
            if part.file in thin and part.last_step < limit:
                where = self.path / thin_folder(table) / part.file
                source = self._place.part(thin_folder(table), part.file)
                found = thinned_part(table, source, where, names, width)
                if found is not None:
                    pieces += found
                    continue
            reader = self._open(table, part, fields)
            groups = [g for g, _, _ in reader.groups(0, limit - 1)]
            wanted = list(dict.fromkeys(["step", *keys, *names]))
            for rows in reader.read(groups, wanted):
                pieces.append(_within(rows, 0, limit - 1) if part.last_step >= limit else rows)
        return bucketed(table, names, pieces, width)


def _checked(table: str, columns: Sequence[str] | None) -> list[str]:
    known = dtypes_of(table)
    names = list(known) if columns is None else list(columns)
    for name in names:
        if name not in known:
            raise GradScopeError(
                f"Table {table!r} has no column {name!r}: it has {', '.join(known)}."
            )
    return names


def _within(rows: Columns, first: int, last: int) -> Columns:
    steps = rows["step"]
    return taken(rows, (steps >= first) & (steps <= last))


def _sorted(pieces: list[Columns]) -> Columns:
    whole = joined(pieces)
    borders = all(a["step"][-1] < b["step"][0] for a, b in itertools.pairwise(pieces))
    if borders:
        return whole
    if "site" in whole:
        return taken(whole, np.lexsort([whole["site"], whole["step"]]))
    return taken(whole, step_order(whole["step"]))


def open_run(path: str | Path) -> StoredRun:
    """Open the run in a folder or in a zip archive. Raises GradScopeError if there is none."""
    run = StoredRun(place_of(path))
    run.segments  # noqa: B018  # an unreadable run is told of here, not at the first use
    return run
