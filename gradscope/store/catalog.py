"""Turns a folder of runs into a list of summaries, and a name into a run's path.

Reads only the small files of each run, and those again only when they changed. A run that cannot
be read is listed as broken, with the reason.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gradscope.schema import GradScopeError, RunInfo
from gradscope.store.documents import parse
from gradscope.store.folder import DirectoryPlace
from gradscope.store.naming import near_names
from gradscope.store.standing import info_of, status_of
from gradscope.store.values import RunStatus, RunSummary

_FILES = ("run.json", "status.json", "findings.json", "user.json")
_known: dict[str, tuple[tuple[Any, ...], RunSummary]] = {}


def list_runs(root: str | Path = "runs") -> list[RunSummary]:
    """The runs directly below `root`, by name. Raises GradScopeError if there is no such folder."""
    folder = Path(root)
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError as trouble:
        raise GradScopeError(
            f"The folder of runs {folder} cannot be read ({trouble.strerror}): "
            "give the folder that `root` named when training."
        ) from None
    found = []
    for name in names:
        summary = _summary(folder / name)
        if summary is not None:
            found.append(summary)
    return found


def _summary(path: Path) -> RunSummary | None:
    place = DirectoryPlace(path)
    stamp = place.stamp(_FILES)
    if stamp[0] is None and stamp[1] is None:
        return None
    key = str(path.absolute())
    known = _known.get(key)
    if known is not None and known[0] == stamp and known[1].status.state != "running":
        return known[1]
    try:
        data = place.document("run.json")
        if data is None:
            raise GradScopeError(f"{path / 'run.json'} is lost: restore it, or delete the run.")
        info = info_of(parse(data, path / "run.json"))
        summary = RunSummary(path, path.name, status_of(place), info)
    except GradScopeError as trouble:
        status = RunStatus("broken", error=str(trouble))
        summary = RunSummary(path, path.name, status, RunInfo(model=""))
    if len(_known) > 100_000:
        _known.clear()
    _known[key] = (stamp, summary)
    return summary


def find_run(name_or_path: str | Path, root: str | Path = "runs") -> Path:
    """The path of a run given by path, or by name below `root`.

    Raises GradScopeError with the names most like it if there is none.
    """
    text = str(name_or_path)
    given = Path(name_or_path)
    below = Path(root) / text
    for path in (below, given) if os.sep not in text else (given, below):
        if path.is_file() and path.suffix == ".zip":
            return path
        if any((path / name).exists() for name in ("run.json", "status.json")):
            return path
    zipped = Path(root) / f"{text}.zip"
    if zipped.is_file():
        return zipped
    try:
        names = [summary.name for summary in list_runs(root)]
    except GradScopeError:
        raise GradScopeError(
            f"There is no run {text!r}, and no folder {str(root)!r} to look in: give its path."
        ) from None
    raise GradScopeError(f"There is no run {text!r} in {root}: {near_names(text, names)}")
