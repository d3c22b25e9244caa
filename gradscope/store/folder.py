"""Turns a run's place, a folder or one zip archive, into bytes by name.

Only reads. Never knows what the bytes mean.
"""

from __future__ import annotations

import io
import os
import stat
import weakref
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from gradscope.schema import GradScopeError
from gradscope.store.documents import damaged, read_limited
from gradscope.store.values import MAX_JSON_BYTES, MAX_PART_BYTES

ARCHIVE = ".zip"
"""How the name of a run's archive ends."""


class Place(Protocol):
    """Where the files of one run lie."""

    path: Path
    name: str
    """The run's name."""

    def names(self, folder: str) -> list[str]:
        """Names of the files in a sub-folder, [] if there is none."""

    def document(self, name: str) -> bytes | None:
        """A JSON file's bytes, None if there is none. Raises GradScopeError."""

    def part(self, folder: str, name: str) -> Any:
        """A part's file for pyarrow. Raises FileNotFoundError, GradScopeError."""

    def stamp(self, names: Sequence[str]) -> tuple[Any, ...]:
        """A value that changes when one of those files is replaced."""


class DirectoryPlace:
    """A run folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._within = f"{path}{os.sep}"

    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.path / folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as trouble:
            raise damaged(self.path / folder, trouble.strerror or str(trouble)) from None

    def document(self, name: str) -> bytes | None:
        return read_limited(self._within + name, MAX_JSON_BYTES)

    def part(self, folder: str, name: str) -> Any:
        path = self.path / folder / name
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise damaged(path, "it is not a regular file")
        if facts.st_size > MAX_PART_BYTES:
            raise damaged(path, f"it has {facts.st_size:,} bytes, more than {MAX_PART_BYTES:,}")
        return str(path)

    def stamp(self, names: Sequence[str]) -> tuple[Any, ...]:
        found: list[Any] = []
        for name in names:
            try:
                facts = os.stat(self._within + name)
            except OSError:
                found.append(None)
            else:
                found.append((facts.st_mtime_ns, facts.st_size, facts.st_ino))
        return tuple(found)


class _Bounded(io.BufferedReader):
    """A file that refuses a read larger than any sound archive asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_PART_BYTES + 1:
            raise ValueError(f"it claims a stretch of {size:,} bytes")
        return super().read(size)


class ZipPlace:
    """A run kept as one zip archive, read without unpacking it to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        try:
            self._file = _Bounded(io.FileIO(path))
            self._shut = weakref.finalize(self, self._file.close)
            self._zip = zipfile.ZipFile(self._file)
            members = self._zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as trouble:
            raise damaged(path, str(trouble)[:120]) from None
        if len(members) > 1_000_000:
            raise damaged(path, "it holds too many files")
        self._members = {member.filename: member for member in members}

    def close(self) -> None:
        """Let go of the file."""
        self._shut()

    def names(self, folder: str) -> list[str]:
        start = folder + "/"
        return [n[len(start) :] for n in self._members if n.startswith(start)]

    def _bytes(self, name: str, limit: int) -> bytes:
        member = self._members[name]
        if member.file_size > limit:
            raise damaged(self.path, f"{name} claims {member.file_size:,} bytes")
        try:
            with self._zip.open(member) as file:
                data = file.read(limit + 1)
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError) as trouble:
            raise damaged(self.path, f"{name}: {str(trouble)[:100]}") from None
        except Exception as trouble:  # zlib.error and its kin have no common base
            raise damaged(self.path, f"{name}: {str(trouble)[:100]}") from None
        if len(data) > limit:
            raise damaged(self.path, f"{name} is larger than {limit:,} bytes")
        return data

    def document(self, name: str) -> bytes | None:
        return self._bytes(name, MAX_JSON_BYTES) if name in self._members else None

    def part(self, folder: str, name: str) -> Any:
        if f"{folder}/{name}" not in self._members:
            raise FileNotFoundError(name)
        return io.BytesIO(self._bytes(f"{folder}/{name}", MAX_PART_BYTES))

    def stamp(self, names: Sequence[str]) -> tuple[Any, ...]:
        found = (self._members.get(name) for name in names)
        return tuple(None if m is None else (m.CRC, m.file_size) for m in found)


def place_of(path: str | Path) -> Place:
    """The place at `path`. Raises GradScopeError if there is neither folder nor archive."""
    where = Path(path)
    if where.is_dir():
        return DirectoryPlace(where)
    if where.is_file():
        return ZipPlace(where)
    raise GradScopeError(f"There is no run at {where}: give the folder of a run, or its archive.")
