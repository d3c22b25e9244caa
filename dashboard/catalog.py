"""Turns a folder of runs into runs, frames and findings kept in memory until a run grows.

Must never know Dash, pages or URLs, nor torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

from gradscope.diagnosis import diagnose, verdict
from gradscope.frame import Run
from gradscope.schema import Finding, GradScopeError
from gradscope.store import RunSummary, list_runs, open_run

T = TypeVar("T")

LISTING_AGE = 0.5
"""Seconds for which the listing of the folder is taken as fresh."""
DIAGNOSIS_AGE = 10.0
"""Seconds for which the diagnosis of a growing run is kept."""
KEPT = 256
"""Results of `memo` kept at most."""


class Catalog:
    """The runs below one folder. Safe to ask from several threads."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.lock = threading.RLock()
        self._listed: tuple[RunSummary, ...] = ()
        self._listed_at = -1e9
        self._runs: dict[str, Run] = {}
        self._trouble: dict[str, str] = {}
        self._findings: dict[str, tuple[float, str, tuple[Finding, ...]]] = {}
        self._memo: dict[Hashable, tuple[str, object]] = {}

    def summaries(self) -> tuple[RunSummary, ...]:
        """Every run folder, the newest first, broken ones included; () without a folder."""
        with self.lock:
            now = time.monotonic()
            if now - self._listed_at > LISTING_AGE:
                found = list_runs(self.root) if self.root.is_dir() else []
                self._listed = tuple(sorted(found, key=_newest_first))
                self._listed_at = now
            return self._listed

    def names(self) -> tuple[str, ...]:
        """Names of the readable runs, the newest first."""
        return tuple(s.name for s in self.summaries() if self.trouble(s) == "")

    def trouble(self, summary: RunSummary) -> str:
        """Why a run cannot be read, in one sentence; "" where it can."""
        if summary.status.state == "broken":
            return summary.status.error or "the folder cannot be read as a run"
        return self._trouble.get(summary.name, "")

    def run(self, name: str) -> Run | None:
        """The run of that name, the same object every time; None where it cannot be read."""
        with self.lock:
            summary = next((s for s in self.summaries() if s.name == name), None)
            if summary is None or summary.status.state == "broken":
                self._runs.pop(name, None)
                return None
            kept = self._runs.get(name)
            if kept is not None and kept.path == Path(summary.path):
                return kept
            try:
                opened = Run(open_run(summary.path))
            except GradScopeError as error:
                self._trouble[name] = str(error)
                return None
            self._trouble.pop(name, None)
            self._runs[name] = opened
            return opened

    def version(self) -> str:
        """Changes whenever a run appears, disappears, grows or changes its status."""
        parts = []
        for summary in self.summaries():
            run = self.run(summary.name)
            parts.append(f"{summary.name}:{run.stored.version() if run else 'unreadable'}")
        return "|".join(parts)

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """The run's findings: those it keeps, else a diagnosis of what was recorded so far."""
        kept = run.status.findings
        if kept is not None:
            return tuple(kept)
        with self.lock:
            version = run.stored.version()
            now = time.monotonic()
            made_at, made_of, found = self._findings.get(run.name, (-1e9, "", ()))
            if made_of != version and now - made_at > DIAGNOSIS_AGE:
                found = tuple(diagnose(run.stored))
                self._findings[run.name] = (now, version, found)
            return found

    def verdict(self, run: Run) -> str:
        """The run's verdict in one short sentence."""
        return run.status.verdict or verdict(self.findings(run))

    def memo(self, key: Hashable, version: str, make: Callable[[], T]) -> T:
        """What `make` answered for `key` at this version; made anew when the version changed."""
        with self.lock:
            held = self._memo.get(key)
            if held is not None and held[0] == version:
                return held[1]  # type: ignore[return-value]
            made = make()
            while len(self._memo) >= KEPT:
                self._memo.pop(next(iter(self._memo)))
            self._memo[key] = (version, made)
            return made


def _newest_first(summary: RunSummary) -> tuple[float, str]:
    return (-(summary.status.started or 0.0), summary.name)
