"""Changes whole runs: archive, delete, rename, annotate.

Never touches a run that is being written, but for its user's notes, which the writer leaves alone.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradscope.schema import TABLES, GradScopeError
from gradscope.store.documents import parse, plain, texts, write_json
from gradscope.store.folder import ARCHIVE, DirectoryPlace
from gradscope.store.lock import WriterLock
from gradscope.store.naming import check_free, check_name
from gradscope.store.reader import open_run
from gradscope.store.thinning import thin_folder


def archive_run(path: str | Path, zip_path: str | Path) -> Path:
    """Write the ended run at `path` into one zip file, which `open_run` reads as it is.

    Returns the file's path, to which `.zip` is added where it is missing. Further files of the
    run (a checkpoint, say) come along; links and hidden files do not. Raises GradScopeError if
    the run is being written, the target exists or cannot be written.
    """
    run, target = _folder(path), Path(zip_path)
    if target.suffix != ARCHIVE:
        target = target.with_name(target.name + ARCHIVE)
    if target.exists():
        raise GradScopeError(f"{target} exists already: choose another archive name.")
    hidden = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with _held(run):
            open_run(run)
            with zipfile.ZipFile(
                hidden, "x", zipfile.ZIP_DEFLATED, strict_timestamps=False
            ) as file:
                for found in _files(run):
                    packed = found.suffix in (".parquet", ".npz")
                    kind = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
                    file.write(found, found.relative_to(run).as_posix(), kind)
            os.replace(hidden, target)
    except OSError as trouble:
        raise GradScopeError(
            f"The archive {target} cannot be written ({trouble.strerror}): "
            "choose another place, or free the disk."
        ) from None
    finally:
        hidden.unlink(missing_ok=True)
    return target


def delete_run(path: str | Path) -> None:
    """Delete the run at `path`, folder or archive; ask the user first.

    Raises GradScopeError if it is no run or is being written. Links are removed, not followed.
    """
    given = Path(path)
    try:
        if given.is_file() and given.suffix == ARCHIVE:
            open_run(given)
            given.unlink()
            return
        run = _folder(given)
        with _held(run):
            doomed = run.with_name(f".deleted-{uuid.uuid4().hex[:12]}")
            os.rename(run, doomed)
        shutil.rmtree(doomed)
    except OSError as trouble:
        raise GradScopeError(
            f"The run {given} cannot be deleted ({trouble.strerror}): check its permissions."
        ) from None


def rename_run(path: str | Path, name: str) -> Path:
    """Rename the run at `path` to the safe and free name `name`; returns its new path.

    Raises GradScopeError if the name is unsafe or taken, or the run is being written.
    """
    run = _folder(path)
    check_name(name)
    if name.casefold() != run.name.casefold():
        check_free(run.parent, name)
    target = run.with_name(name)
    try:
        with _held(run):
            os.rename(run, target)
    except OSError as trouble:
        raise GradScopeError(
            f"The run {run} cannot be renamed ({trouble.strerror}): check its permissions."
        ) from None
    return target


def annotate_run(
    path: str | Path,
    *,
    note: str | None = None,
    add_tags: Iterable[str] = (),
    remove_tags: Iterable[str] = (),
    baseline: bool | None = None,
) -> None:
    """Change the user's note, tags or baseline mark of a run; None leaves a value as it is.

    Works while the run is being written. Raises GradScopeError if it cannot be written.
    """
    run = _folder(path)
    place = DirectoryPlace(run)
    data = place.document("user.json")
    old = {} if data is None else parse(data, run / "user.json")
    away = set(remove_tags)
    tags = dict.fromkeys([*texts(old.get("tags")), *(str(plain(tag)) for tag in add_tags)])
    user = {
        "note": plain(old.get("note", "") if note is None else note[:100_000]),
        "tags": [tag for tag in tags if tag not in away],
        "baseline": old.get("baseline") is True if baseline is None else bool(baseline),
    }
    try:
        write_json(run / "user.json", user)
    except OSError as trouble:
        raise GradScopeError(
            f"The notes of {run} cannot be written ({trouble.strerror}): check its permissions."
        ) from None


def _folder(path: str | Path) -> Path:
    run = Path(path)
    if run.is_dir() and any((run / name).exists() for name in ("run.json", "status.json")):
        return run
    if run.is_file():
        raise GradScopeError(f"{run} is an archive: unpack it to change it.")
    raise GradScopeError(f"There is no run at {run}: give the folder of a run.")


@contextmanager
def _held(run: Path) -> Iterator[None]:
    lock = WriterLock(run)
    try:
        yield
    finally:
        lock.release()


def _files(run: Path) -> list[Path]:
    tables = {name for table in TABLES for name in (table, thin_folder(table))}
    found = []
    for folder, folders, names in os.walk(run):
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        below = Path(folder)
        for name in sorted(names):
            hidden = name.startswith(".") or name == "writer.lock"
            stray = below.name in tables and not name.endswith(".parquet")
            file = below / name
            if not hidden and not stray and stat.S_ISREG(file.lstat().st_mode):
                found.append(file)
    return found
