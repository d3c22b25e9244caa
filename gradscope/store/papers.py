"""Keeps the small JSON files of a run in step with what its writer knows.

`run.json`, `sites.json` and `findings.json` are written when they change, `status.json` at every
heart-beat. Thread-safe; never knows the tables.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradscope.schema import SEVERITIES, Finding, GradScopeError, Site
from gradscope.store.documents import (
    finding_to_json,
    info_to_json,
    plain,
    segments_to_json,
    sites_to_json,
    write_json,
)
from gradscope.store.opening import Opened

MAX_NOTES = 1000


class Papers:
    """What is told of one run, beside its tables."""

    def __init__(self, opened: Opened) -> None:
        self._path = opened.path
        self._info = opened.info
        self._segments = opened.segments
        self._sites = opened.sites
        self._known = opened.status
        self._notes = list(opened.status.notes)
        self._missing: dict[str, str] = {}
        self._findings: tuple[Finding, ...] = ()
        self._verdict = opened.status.verdict
        self._state = "running"
        self._error = ""
        self._ended: float | None = None
        self._last_step = opened.status.last_step
        self._steps_seen = opened.status.steps_seen
        self._newest = -1
        self._beat = 0
        self._lock = threading.RLock()
        self._dirty: set[str] = {"run.json"}

    def saw(self, steps: np.ndarray[Any, Any]) -> None:
        """Take in that rows of `steps`, distinct and ascending, were handed over."""
        newest = int(steps[-1])
        if newest != self._newest:
            with self._lock:
                if newest > self._last_step:
                    self._steps_seen += int(np.count_nonzero(steps > self._last_step))
                    self._last_step = newest
                self._newest = newest

    def set_sites(self, sites: Sequence[Site]) -> None:
        """Replace the list of sites. Raises GradScopeError if it became shorter."""
        with self._lock:
            if len(sites) < len(self._sites):
                raise GradScopeError(
                    f"The list of sites shrank from {len(self._sites)} to {len(sites)}: "
                    "sites may only be added."
                )
            self._sites = tuple(sites)
            self._dirty.add("sites.json")

    def update_config(self, values: Mapping[str, Any]) -> None:
        """Add or replace entries of the config."""
        with self._lock:
            added = {str(key): plain(value) for key, value in values.items()}
            self._info = replace(self._info, config={**self._info.config, **added})
            self._dirty.add("run.json")

    def note(self, text: str) -> None:
        """Keep a remark once."""
        with self._lock:
            if text not in self._notes and len(self._notes) < MAX_NOTES:
                self._notes.append(text)

    def tell_dropped(self, dropped: Mapping[str, tuple[int, int, int]]) -> None:
        """Keep what had to be left out, one remark a table."""
        for table, (count, first, last) in dropped.items():
            self._missing[table] = (
                f"The disk was too slow or refused: {count} steps of {table} between step "
                f"{first} and step {last} were left out."
            )

    def set_findings(self, findings: Sequence[Finding], verdict: str) -> None:
        """Replace the diagnosis."""
        with self._lock:
            self._findings = tuple(findings)
            self._verdict = verdict or _verdict(self._findings)
            self._dirty.add("findings.json")

    def end(self, state: str, error: str) -> None:
        """The run is over."""
        with self._lock:
            self._state = state
            self._error = error[:10_000]
            self._ended = time.time()

    def write(self, seq: int) -> None:
        """Write what changed, then the status. Raises OSError."""
        with self._lock:
            dirty = set(self._dirty)
            sites, findings = self._sites, self._findings
            run = {**info_to_json(self._info), "segments": segments_to_json(self._segments)}
        if "run.json" in dirty:
            write_json(self._path / "run.json", run)
        if "sites.json" in dirty:
            write_json(self._path / "sites.json", sites_to_json(sites))
        if "findings.json" in dirty:
            listed = [finding_to_json(finding) for finding in findings]
            write_json(self._path / "findings.json", {"findings": listed})
        with self._lock:
            if sites is self._sites and findings is self._findings:
                self._dirty -= dirty
            status = self._status(seq)
        write_json(self._path / "status.json", status)

    def _status(self, seq: int) -> dict[str, Any]:
        self._beat += 1
        counts = {s: sum(f.severity == s for f in self._findings) for s in SEVERITIES}
        return {
            "state": self._state,
            "error": plain(self._error),
            "started": self._known.started,
            "heartbeat": time.time(),
            "beat": self._beat,
            "ended": self._ended,
            "seq": seq,
            "last_step": self._last_step,
            "steps_seen": self._steps_seen,
            "verdict": plain(self._verdict),
            "finding_counts": counts,
            "notes": [plain(n) for n in [*self._notes, *self._missing.values()]],
            "pid": os.getpid(),
            "host": platform.node(),
        }


def _verdict(findings: Sequence[Finding]) -> str:
    if not findings:
        return "No findings."
    return max(findings, key=lambda f: (_rank(f.severity), f.confidence)).sentence


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1
