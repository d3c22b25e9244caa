"""Tells how a run stands from its JSON files, and whether its writer still lives.

Never reads tables.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from gradscope.schema import STATES, GradScopeError, RunInfo
from gradscope.store.documents import (
    finding_from_json,
    info_from_json,
    integer,
    number,
    parse,
    text,
    texts,
)
from gradscope.store.folder import DirectoryPlace, Place
from gradscope.store.lock import writer_lives
from gradscope.store.values import RunStatus

STALE_SECONDS = 30.0
"""Without a lock to ask, a run whose heart-beat is older counts as killed."""


def info_of(run: Mapping[str, Any]) -> RunInfo:
    """The RunInfo in a parsed run.json."""
    return info_from_json(run)


def status_of(place: Place) -> RunStatus:
    """How the run at `place` stands now. Raises GradScopeError if a file is damaged."""
    status = _document(place, "status.json")
    state = _state(place, status)
    if state == "killed":  # it may have ended properly between the two looks
        status = _document(place, "status.json")
        state = _state(place, status)
    user = _document(place, "user.json")
    listed = _document(place, "findings.json").get("findings")
    found = tuple(map(finding_from_json, listed[:100_000])) if isinstance(listed, list) else None
    ended = status.get("ended")
    error = text(status.get("error"))
    if state == "killed" and not error:
        error = "The writing process ended without closing the run."
    return RunStatus(
        state=state,
        error=error,
        started=number(status.get("started")),
        heartbeat=number(status.get("heartbeat")),
        ended=number(ended) if isinstance(ended, (int, float)) else None,
        last_step=integer(status.get("last_step"), -1),
        steps_seen=integer(status.get("steps_seen"), 0),
        notes=texts(status.get("notes")),
        findings=found,
        verdict=text(status.get("verdict")),
        baseline=user.get("baseline") is True,
        user_tags=texts(user.get("tags")),
        user_note=text(user.get("note")),
    )


def _document(place: Place, name: str) -> dict[str, Any]:
    data = place.document(name)
    if not data and place.stamp([name]) == (None,):
        return {}
    return parse(data, place.path / name)


def _state(place: Place, status: Mapping[str, Any]) -> str:
    state = status.get("state")
    if not status:
        state = "running"  # killed before the first heart-beat, or about to make it
    if not isinstance(state, str) or state not in STATES:
        raise GradScopeError(
            f"{place.path / 'status.json'} is damaged (no such state): "
            "delete that file to read the run without it."
        )
    if state != "running":
        return state
    if not isinstance(place, DirectoryPlace):
        return "killed"
    lives = writer_lives(place.path)
    if lives is None:
        lives = _seems_alive(status)
    return "running" if lives else "killed"


def _seems_alive(status: Mapping[str, Any]) -> bool:
    pid = integer(status.get("pid"), 0, low=1, high=2**31)
    if pid and status.get("host") == platform.node() and os.name == "posix":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
    return abs(time.time() - number(status.get("heartbeat"))) < STALE_SECONDS
