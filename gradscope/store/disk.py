"""Turns a written file into one that is there under its name, and one that outlives a power cut.

Never knows what the bytes mean.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path


def replace(source: Path, target: Path) -> None:
    """`os.replace`, tried again for a moment where a reader holds the target open (Windows)."""
    for pause in (0.01, 0.05, 0.2):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(pause)
    os.replace(source, target)


def make_durable(handle: int, meanwhile: Callable[[], None]) -> None:
    """`os.fsync` in a thread of its own, as a busy disk takes many seconds for it.

    Calls `meanwhile` again and again until it is done; an exception from there gives up waiting.
    Raises OSError.
    """
    own = os.dup(handle)
    trouble: list[OSError] = []

    def sync() -> None:
        try:
            os.fsync(own)
        except OSError as error:
            trouble.append(error)
        finally:
            os.close(own)

    thread = threading.Thread(target=sync, name="gradscope-sync", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        meanwhile()
    if trouble:
        raise trouble[0]
