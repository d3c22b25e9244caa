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
    damaged,
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
    """How the run at `place` stands now.

    A damaged file costs only what it told: its sentence stands in `notes`, and in `error` where
    the state itself had to be guessed from the writer's lock.
    """
    status, trouble = _document(place, "status.json")
    state = _state(place, status)
    if state == "killed":  # it may have ended properly between the two looks
        status, trouble = _document(place, "status.json")
        state = _state(place, status)
    user, user_trouble = _document(place, "user.json")
    diagnosis, finding_trouble = _document(place, "findings.json")
    listed = diagnosis.get("findings")
    found = tuple(map(finding_from_json, listed[:100_000])) if isinstance(listed, list) else None
    ended = status.get("ended")
    error = text(status.get("error")) or trouble
    if state == "killed" and not error:
        error = "The writing process ended without closing the run."
    told = [sentence for sentence in (trouble, user_trouble, finding_trouble) if sentence]
    return RunStatus(
        state=state,
        error=error,
        started=number(status.get("started")),
        heartbeat=number(status.get("heartbeat")),
        ended=number(ended) if isinstance(ended, (int, float)) else None,
        last_step=integer(status.get("last_step"), -1),
        steps_seen=integer(status.get("steps_seen"), 0),
        notes=(*texts(status.get("notes")), *told),
        findings=found,
        verdict=text(status.get("verdict")),
        baseline=user.get("baseline") is True and isinstance(place, DirectoryPlace),
        user_tags=texts(user.get("tags")),
        user_note=text(user.get("note")),
    )


def _document(place: Place, name: str) -> tuple[dict[str, Any], str]:
    """A file's values and what is wrong with it; no values and "" where there is no such file."""
    where = f"{place.path}{os.sep}{name}"
    try:
        data = place.document(name)
        if data is None:
            return {}, ""
        value = parse(data, where)
        if name == "status.json" and value.get("state") not in STATES:
            raise damaged(where, "it names no known state")
    except GradScopeError as trouble:
        return {}, str(trouble)
    return value, ""


def _state(place: Place, status: Mapping[str, Any]) -> str:
    state = str(status.get("state", "running"))  # none: killed before the first heart-beat
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
