"""Turns rows from a training thread into a run folder, without making the training wait.

`append` copies the rows into a bounded backlog; one background thread writes them about once a
second. Trouble with the disk never reaches the training but as one warning. Never knows what the
numbers mean; never imports torch or pandas.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradscope.schema import STATES, Finding, GradScopeError, RunInfo, Site
from gradscope.store.backlog import Backlog
from gradscope.store.columns import taken_in
from gradscope.store.deposit import Deposit
from gradscope.store.opening import open_folder
from gradscope.store.papers import Papers

FLUSH_SECONDS = 1.2
RETRY_SECONDS = 5.0
CLOSE_SECONDS = 5.0
"""How long `close` waits for the disk, and at most half of it for the last merges."""


class _OutOfTimeError(Exception):
    """A merge is given up, as the run is being closed; its inputs stay."""


_writers: weakref.WeakSet[RunWriter] = weakref.WeakSet()


class RunWriter:
    """The one writer of the run `root/name`; see docs/run-format.md for what it leaves there.

    `resume=True` continues an existing run: rows of steps >= `resume_step` written before are
    rewound (kept, but left out by readers). Raises GradScopeError if the name is unsafe or
    taken, the run is being written by another process, or the folder cannot be made.
    """

    name: str
    path: Path
    thread: threading.Thread
    """Where all writing is done."""

    def __init__(
        self,
        root: str | Path,
        name: str,
        info: RunInfo,
        *,
        resume: bool = False,
        resume_step: int | None = None,
    ) -> None:
        opened = open_folder(Path(root), name, info, resume=resume, resume_step=resume_step)
        self.name = name
        self.path = opened.path
        self._lock = opened.lock
        self._papers = Papers(opened)
        self._deposit = Deposit(self.path, opened.first_seq)
        self._backlog = Backlog()
        self._pid = os.getpid()
        self._wake = threading.Event()
        self._ending: tuple[str, str] | None = None
        self._closed = False
        self._close_lock = threading.Lock()
        self._warned = False
        self._last = False
        self._tidy_end = float("inf")
        self._retry_at = 0.0
        self._done = threading.Condition()
        self._rounds = 0
        try:
            if resume:
                self._deposit.adopt()
            self._papers.write(self._deposit.seq)
            self._lock.take_room()
        except OSError as trouble:
            self._lock.release()
            raise GradScopeError(
                f"The run folder {self.path} cannot be written ({trouble.strerror}): "
                "choose another root, or free the disk."
            ) from None
        self.thread = threading.Thread(target=self._work, name="gradscope-store", daemon=True)
        self.thread.start()
        _writers.add(self)

    def set_sites(self, sites: Sequence[Site]) -> None:
        """Set the list of sites; a site's position is its index in the tables."""
        if os.getpid() == self._pid:
            self._papers.set_sites(sites)

    def append(self, table: str, columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Queue rows of `table`; the arrays are copied, so the caller may reuse them.

        Columns have one length; statistics left out are NaN. Thread-safe; never waits for the
        disk and never raises for it. Does nothing in a forked child or after `close`.
        Raises GradScopeError for an unknown table or column or unequal lengths.
        """
        if self._closed or os.getpid() != self._pid:
            return
        rows, size = taken_in(table, columns)
        steps = rows["step"]
        if not len(steps):
            return
        first, last = int(steps.min()), int(steps.max())
        if first < 0:
            raise GradScopeError(f"Table {table!r} got a negative step: steps count from 0.")
        self._papers.saw(np.array([last]) if first == last else np.unique(steps))
        self._backlog.add(table, last, size, rows)

    def update_config(self, values: Mapping[str, Any]) -> None:
        """Add or replace entries of the run's config."""
        if os.getpid() == self._pid:
            self._papers.update_config(values)

    def note(self, text: str) -> None:
        """Keep a one-time remark in the run; the same text is kept once."""
        if os.getpid() == self._pid:
            self._papers.note(text)

    def set_findings(self, findings: Sequence[Finding], verdict: str = "") -> None:
        """Store the diagnosis. `verdict` is its one sentence; "" takes the gravest finding's."""
        if os.getpid() == self._pid:
            self._papers.set_findings(findings, verdict)

    def flush(self, timeout: float = 5.0) -> None:
        """Wait at most `timeout` seconds until what was appended so far is on disk."""
        if self._closed or os.getpid() != self._pid:
            return
        with self._done:
            target = self._rounds + 2  # the round in progress may have missed the newest rows
            self._wake.set()
            end = time.monotonic() + timeout
            while self._rounds < target:
                left = end - time.monotonic()
                if left <= 0 or not self.thread.is_alive():
                    return
                self._wake.set()
                self._done.wait(min(left, 0.05))

    def close(self, state: str = "finished", error: str = "") -> None:
        """Write what is left, set the final `state` and let go of the run; idempotent."""
        if os.getpid() != self._pid:
            return
        if state not in STATES:
            raise GradScopeError(f"There is no state {state!r}: use one of {', '.join(STATES)}.")
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self._tidy_end = time.monotonic() + CLOSE_SECONDS / 2
            self._ending = (state, error)
            self._wake.set()
            self.thread.join(timeout=CLOSE_SECONDS)
            _writers.discard(self)
            if self.thread.is_alive():
                with contextlib.suppress(Warning):
                    warnings.warn(
                        f"Closing the run {self.path} takes longer than expected: it goes on "
                        "beside the program, and what is not written when that ends is lost.",
                        RuntimeWarning,
                        stacklevel=2,
                    )

    def _work(self) -> None:
        began = time.monotonic()
        while self._ending is None:
            self._wake.wait(max(0.01, began + FLUSH_SECONDS - time.monotonic()))
            self._wake.clear()
            began = time.monotonic()
            self._guarded_round()
            self._tidy(final=False)
        self._end(*self._ending)

    def _end(self, state: str, error: str) -> None:
        """The last round; the thread holds the lock until then, so that the state is true."""
        self._retry_at = 0.0
        self._guarded_round()
        self._tidy(final=True)
        self._retry_at = 0.0
        self._last = True
        self._guarded_round()
        self._papers.end(state, error)
        self._lock.give_room()
        self._guarded_round()
        self._lock.release()

    def _tidy(self, *, final: bool) -> None:
        self._due = time.monotonic() + FLUSH_SECONDS
        try:
            while time.monotonic() < self._tidy_end and (final or not self._wake.is_set()):
                if not self._deposit.tidy(self._breathe, final=final):
                    return
        except _OutOfTimeError:
            return
        except Exception as trouble:
            self._complain(trouble)

    def _breathe(self) -> None:
        if time.monotonic() >= self._tidy_end:
            raise _OutOfTimeError
        if time.monotonic() >= self._due or self._wake.is_set():
            self._wake.clear()
            self._guarded_round()
            self._due = time.monotonic() + FLUSH_SECONDS

    def _guarded_round(self) -> None:
        try:
            self._round()
        except Exception as trouble:  # a training must outlive any fault in here
            self._complain(trouble)
        with self._done:
            self._rounds += 1
            self._done.notify_all()

    def _round(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        entries = self._backlog.take()
        refused = self._deposit.store(entries)
        if refused:
            self._backlog.put_back(refused)
            if self._last:
                self._backlog.give_up()
            else:
                self._retry_at = time.monotonic() + RETRY_SECONDS
            if self._deposit.trouble is not None:
                self._complain(self._deposit.trouble)
        elif entries:
            self._backlog.relax()
        self._papers.tell_dropped(self._backlog.dropped())
        self._papers.write(self._deposit.seq)

    def _complain(self, trouble: Exception) -> None:
        why = getattr(trouble, "strerror", None) or str(trouble) or type(trouble).__name__
        self._papers.note(f"Writing failed for a while: {why}.")
        if self._warned:
            return
        self._warned = True
        # warnings turned into errors must not end the writing thread
        with contextlib.suppress(Warning):
            warnings.warn(
                f"GradScope cannot write the run {self.path} ({why}): training goes on, and "
                "rows are kept in memory at falling resolution until the disk takes them again.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _forget(self) -> None:
        self._closed = True
        self._lock.forget()


def _close_all() -> None:
    failure = getattr(sys, "last_value", None)
    for writer in list(_writers):
        if isinstance(failure, KeyboardInterrupt):
            writer.close("interrupted")
        elif failure is not None:
            writer.close("failed", f"{type(failure).__name__}: {failure}")
        else:
            writer.close()


def _after_fork() -> None:
    for writer in list(_writers):
        writer._forget()
    _writers.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
