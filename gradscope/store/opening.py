"""Makes or takes over the folder a writer writes into.

Knows names, locks and segments, but no rows.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from gradscope.schema import GradScopeError, RunInfo, Site
from gradscope.store.deposit import last_seq_of, last_step_of
from gradscope.store.documents import (
    info_from_json,
    integer,
    mapping,
    number,
    parse,
    plain,
    segments_from_json,
    sites_from_json,
    text,
    texts,
)
from gradscope.store.folder import DirectoryPlace
from gradscope.store.lock import WriterLock
from gradscope.store.naming import check_free, check_name
from gradscope.store.values import RunStatus, Segment


@dataclass(frozen=True)
class Opened:
    """A locked run folder, with what was known of the run before."""

    path: Path
    lock: WriterLock
    info: RunInfo
    segments: tuple[Segment, ...]
    sites: tuple[Site, ...]
    status: RunStatus

    @property
    def first_seq(self) -> int:
        return self.segments[-1].first_seq


def open_folder(
    root: Path, name: str, info: RunInfo, *, resume: bool, resume_step: int | None
) -> Opened:
    """A new locked run folder, or an old one to be continued. Raises GradScopeError."""
    check_name(name)
    if resume_step is not None and (not resume or resume_step < 0):
        raise GradScopeError("resume_step must be 0 or more and comes with resume=True.")
    path = root / name
    if resume:
        if not path.is_dir():
            raise GradScopeError(
                f"There is no run {name!r} in {root} to resume: leave resume out to begin it."
            )
        return _continued(path, info, resume_step)
    try:
        root.mkdir(parents=True, exist_ok=True)
        check_free(root, name)
        path.mkdir()
    except FileExistsError:
        check_free(root, name)
        raise GradScopeError(f"{path} is in the way of a new run: choose another name.") from None
    except OSError as trouble:
        raise GradScopeError(
            f"The run folder {path} cannot be made ({trouble.strerror}): choose another root."
        ) from None
    try:
        lock = WriterLock(path)
    except OSError as trouble:
        shutil.rmtree(path, ignore_errors=True)
        raise GradScopeError(
            f"The run folder {path} cannot be written ({trouble.strerror}): choose another root."
        ) from None
    now = time.time()
    segment = Segment(0, 0, now, -1, info.environment)
    return Opened(path, lock, info, (segment,), (), RunStatus("running", started=now))


def _continued(path: Path, info: RunInfo, resume_step: int | None) -> Opened:
    try:
        lock = WriterLock(path)
    except OSError as trouble:
        raise GradScopeError(
            f"The run at {path} cannot be resumed ({trouble.strerror}): check its permissions."
        ) from None
    try:
        return _read_back(path, lock, info, resume_step)
    except BaseException:
        lock.release()
        raise


def _read_back(path: Path, lock: WriterLock, info: RunInfo, resume_step: int | None) -> Opened:
    place = DirectoryPlace(path)
    run = parse(place.document("run.json") or b"", path / "run.json")
    segments = segments_from_json(run.get("segments"), path / "run.json")
    old = info_from_json(run)
    merged = replace(
        old,
        model=old.model or info.model,
        family=old.family or info.family,
        config={**old.config, **mapping(plain(info.config))},
        tags=tuple(dict.fromkeys([*old.tags, *info.tags])),
        environment=old.environment or info.environment,
    )
    told = place.document("status.json")
    status = {} if told is None else parse(told, path / "status.json")
    data = place.document("sites.json")
    site_file = path / "sites.json"
    sites = () if data is None else sites_from_json(parse(data, site_file), site_file)
    reached = last_step_of(path)
    step = reached + 1 if resume_step is None else resume_step
    now = time.time()
    rewound_to = reached if reached >= step else -1
    segment = Segment(last_seq_of(path) + 1, step, now, rewound_to, info.environment)
    known = RunStatus(
        "running",
        started=number(status.get("started"), now),
        last_step=min(integer(status.get("last_step"), -1), step - 1),
        steps_seen=integer(status.get("steps_seen"), 0),
        notes=texts(status.get("notes")),
        verdict=text(status.get("verdict")),
    )
    return Opened(path, lock, merged, (*segments, segment), sites, known)
