"""What a command shows in a terminal: a table, a progress line.

Must never know what the rows mean.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradscope.experiments import Progress

Commands = Any
"""What `argparse.ArgumentParser.add_subparsers` returns; its type has no public name."""

SPARSE_SECONDS = 10.0
"""How often progress is printed where the output is no terminal."""


def command(
    commands: Commands,
    name: str,
    call: Callable[[argparse.Namespace], None],
    help_: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command with its help and an example."""
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=f"example: {example}",
    )
    added.set_defaults(call=call)
    return added


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with two spaces between; the last is cut at the terminal's width."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
    room = shutil.get_terminal_size((120, 24)).columns - sum(widths) - 2 * len(widths)
    lines = []
    for row in (head, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        last = row[-1]
        if sys.stdout.isatty() and len(last) > max(room, 20):
            last = last[: max(room, 20) - 1] + "…"
        lines.append("  ".join((*cells, last)).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as 42 s, 3 min 20 s or 2 h 5 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class ProgressLine:
    """Shows a training's progress: one line rewritten in a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = float("-inf")

    def __call__(self, progress: Progress) -> None:
        done = progress.step == progress.steps
        now = time.monotonic()
        if not self._live and not done and now - self._last < SPARSE_SECONDS:
            return
        self._last = now
        text = (
            f"{progress.run}: epoch {progress.epoch}/{progress.epochs}, step {progress.step}/"
            f"{progress.steps}, loss {progress.loss:.3f}, {duration(progress.seconds_left)} left"
        )
        if self._live:
            print(f"\r\x1b[K{text}", end="\n" if done else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
