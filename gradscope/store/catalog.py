"""Turns a folder of runs and archives into a list of summaries, and a name into a run's path.

Reads only the small files of each run, and those again only when they changed. A run that cannot
be read is listed as broken, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from gradscope.schema import GradScopeError, RunInfo
from gradscope.store.documents import parse
from gradscope.store.folder import ARCHIVE, DirectoryPlace, Place, ZipPlace
from gradscope.store.naming import near_names
from gradscope.store.standing import info_of, status_of
from gradscope.store.values import RunStatus, RunSummary

_FILES = ("run.json", "status.json", "findings.json", "user.json")
_known: dict[str, tuple[tuple[Any, ...], RunSummary | None]] = {}


def list_runs(root: str | Path = "runs") -> list[RunSummary]:
    """The runs directly below `root`, by name: folders, and archives called `NAME.zip`.

    An archive beside the run's own folder is left out. Raises GradScopeError if there is no such
    root.
    """
    folder = Path(root)
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
            folders = [entry.name for entry in shown if entry.is_dir()]
            archives = [e.name for e in shown if e.name.endswith(ARCHIVE) and e.is_file()]
    except OSError as trouble:
        raise GradScopeError(
            f"The folder of runs {folder} cannot be read ({trouble.strerror}): "
            "give the folder that `root` named when training."
        ) from None
    found = {name: _of_folder(folder / name) for name in folders}
    for file in archives:
        name = file.removesuffix(ARCHIVE)
        if found.get(name) is None:
            found[name] = _of_archive(folder / file)
    return [summary for _, summary in sorted(found.items()) if summary is not None]


def _of_folder(path: Path) -> RunSummary | None:
    place = DirectoryPlace(path)
    stamp = place.stamp(_FILES)
    if stamp[0] is None and stamp[1] is None:
        return None
    return _kept(path, stamp, lambda: _summary(place))


def _of_archive(path: Path) -> RunSummary | None:
    stamp = DirectoryPlace(path.parent).stamp([path.name])
    return _kept(path, stamp, lambda: _unzipped(path))


def _kept(
    path: Path, stamp: tuple[Any, ...], look: Callable[[], RunSummary | None]
) -> RunSummary | None:
    """What `look` found, asked again when the stamp changed or while a writer may die unseen."""
    key = str(path.absolute())
    if key in _known:
        old, summary = _known[key]
        if old == stamp and (summary is None or summary.status.state != "running"):
            return summary
    if len(_known) > 100_000:
        _known.clear()
    summary = look()
    _known[key] = (stamp, summary)
    return summary


def _unzipped(path: Path) -> RunSummary | None:
    """The run in a zip file; None where it holds something else, broken where it is no zip."""
    try:
        with closing(ZipPlace(path)) as place:
            return None if place.stamp(["run.json"]) == (None,) else _summary(place)
    except GradScopeError as trouble:
        return _broken(path, path.stem, trouble)


def _summary(place: Place) -> RunSummary:
    try:
        where = place.path / "run.json"
        data = place.document("run.json")
        if data is None:
            raise GradScopeError(f"{where} is lost: restore it, or delete the run.")
        info = info_of(parse(data, where))
        return RunSummary(place.path, place.name, status_of(place), info)
    except GradScopeError as trouble:
        return _broken(place.path, place.name, trouble)


def _broken(path: Path, name: str, trouble: GradScopeError) -> RunSummary:
    return RunSummary(path, name, RunStatus("broken", error=str(trouble)), RunInfo(model=""))


def find_run(name_or_path: str | Path, root: str | Path = "runs") -> Path:
    """The path of a run given by path, or by name below `root`.

    Raises GradScopeError with the names most like it if there is none.
    """
    text = str(name_or_path)
    given = Path(name_or_path)
    below = Path(root) / text
    for path in (below, given) if os.sep not in text else (given, below):
        if path.is_file() and path.suffix == ARCHIVE:
            return path
        if any((path / name).exists() for name in ("run.json", "status.json")):
            return path
    zipped = Path(root) / f"{text}{ARCHIVE}"
    if zipped.is_file():
        return zipped
    try:
        names = [summary.name for summary in list_runs(root)]
    except GradScopeError:
        raise GradScopeError(
            f"There is no run {text!r}, and no folder {str(root)!r} to look in: give its path."
        ) from None
    raise GradScopeError(f"There is no run {text!r} in {root}: {near_names(text, names)}")
