"""Lets one process write a run, and lets readers see whether that process still lives.

The lock is the system's own, so it ends with its holder however that ended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path

from gradscope.schema import GradScopeError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_FILE = "writer.lock"

ROOM_BYTES = 32 * 2**10
"""Bytes the lock file keeps taken, so that a run can tell of its end on a disk that is full."""


class WriterLock:
    """Held from creation to `release`. Raises GradScopeError if another writer holds it."""

    def __init__(self, folder: Path) -> None:
        self._handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        for pause in (0.0, 0.05, 0.1, 0.2):  # a reader's probe holds the lock for a moment
            time.sleep(pause)
            if _take(self._handle, shared=False) is not False:
                return
        os.close(self._handle)
        raise GradScopeError(
            f"The run at {folder} is being written by another process: "
            "wait for it to end, or choose another run name."
        )

    def take_room(self) -> None:
        """Fill the lock file with what no file system can leave out. Raises OSError."""
        taken = os.write(self._handle, os.urandom(ROOM_BYTES))
        os.lseek(self._handle, 0, os.SEEK_SET)
        if taken < ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def give_room(self) -> None:
        """Give its bytes back to the disk."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)

    def release(self) -> None:
        """Let go; later calls do nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            if sys.platform == "win32":
                with contextlib.suppress(OSError):
                    msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
            os.close(handle)

    def forget(self) -> None:
        """Close this process's copy after a fork; the parent keeps the lock."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def writer_lives(folder: Path) -> bool | None:
    """Whether a process holds the lock of the run at `folder`; None where that cannot be told."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        taken = _take(handle, shared=True)
        return None if taken is None else not taken
    finally:
        os.close(handle)


def _take(handle: int, *, shared: bool) -> bool | None:
    """True: taken, False: another holds it, None: this file system has no locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True
