"""The same rows kept by several formats -> a Markdown table of what each costs and what a kill takes.

Compared are Parquet parts (this package's own), an Arrow IPC stream, SQLite in WAL mode with rows
and with blobs, and DuckDB where it is installed. All store the same float32 values, rounded as the
package rounds them, 200 sites x 12 statistics a step; each commit must outlive kill -9.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from format_candidates import FORMATS, SITES, Format, rows_of
from synthetic import size_of

BATCH = 50
"""Steps a commit, about what a second of training gives."""


def child(*words: object) -> list[str]:
    """The command line of this script as another process."""
    return [sys.executable, __file__, "--child", *map(str, words)]


def endless(kind: Format, path: Path) -> None:
    """Commit ten steps at a time, telling each commit, until somebody kills this process."""
    writer = kind.writer(path)
    for first in range(0, 10**9, 10):
        writer.commit(rows_of(range(first, first + 10)))
        writer.tidy()
        print(first + 9, flush=True)


def looking(kind: Format, path: Path, seconds: float) -> dict[str, Any]:
    """Read the newest ten steps again and again: the median time, and what failed."""
    times: list[float] = []
    errors: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.perf_counter()
        try:
            steps = kind.newest(path, 10)
            times.append(time.perf_counter() - start)
            if len(np.unique(steps)) != 10 or len(steps) != 10 * SITES:
                errors.append(f"{len(steps)} rows of {len(np.unique(steps))} steps")
        except Exception as trouble:  # every kind of failure is what is being counted
            errors.append(f"{type(trouble).__name__}: {trouble}")
            time.sleep(0.02)
    return {"seconds": statistics.median(times) if times else None, "errors": errors}


def timed(kind: Format, path: Path) -> float:
    """Seconds to read one statistic of all sites and steps, the median of three."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        steps, values = kind.statistic(path, "rms")
        found.append(time.perf_counter() - start)
        assert len(steps) == len(values)
    return statistics.median(found)


def written(kind: Format, path: Path, steps: int) -> dict[str, Any]:
    """Write `steps`; four processes read the newest ten while a quarter of it is written."""
    writer = kind.writer(path)
    batches = [range(first, first + BATCH) for first in range(0, steps, BATCH)]
    commits, busy = [], time.process_time()
    made = 0.0
    quarter = len(batches) // 4
    for number, batch in enumerate(batches[:-1]):
        if number == quarter:
            readers = [
                subprocess.Popen(child("look", kind.name, path, 3), stdout=subprocess.PIPE)
                for _ in range(4)
            ]
        before = time.process_time()
        rows = rows_of(batch)
        made += time.process_time() - before
        start = time.perf_counter()
        writer.commit(rows)
        commits.append(time.perf_counter() - start)
        writer.tidy()
        if quarter <= number < 2 * quarter:
            time.sleep(3 / quarter)
    told = [json.loads(reader.communicate()[0]) for reader in readers]
    writer.commit(rows_of(batches[-1]))
    writer.close()
    busy = time.process_time() - busy - made
    seen = [t["seconds"] for t in told if t["seconds"] is not None]
    failed = [error for t in told for error in t["errors"]]
    read = json.loads(subprocess.check_output(child("time", kind.name, path)))
    return {
        "commit_ms": 1e3 * statistics.median(commits),
        "commit_worst_ms": 1e3 * max(commits),
        "work_ms_a_step": 1e3 * busy / steps,
        "bytes_a_step": size_of(path) / steps,
        "newest_ms": 1e3 * statistics.median(seen) if seen else None,
        "reader_errors": len(failed),
        "first_error": failed[0][:90] if failed else "",
        "statistic_ms": 1e3 * read,
    }


def killed(kind: Format, root: Path, times: int) -> dict[str, Any]:
    """SIGKILL at random moments: how many files open, and the most committed steps missing."""
    draw = random.Random(0)
    opened, lost, torn = 0, 0, 0
    for number in range(times):
        path = root / f"killed{number}"
        path.mkdir()
        with subprocess.Popen(child("write", kind.name, path), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0.0, 1.5))
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().split()
        committed = int(told[-1]) if told else 9
        try:
            steps, _ = kind.statistic(path, "rms")
        except Exception as trouble:  # not opening is a result, not a fault of this script
            print(f"{kind.name}: {trouble}", file=sys.stderr)
            continue
        opened += 1
        there, counts = np.unique(steps, return_counts=True)
        torn += int((counts != SITES).sum())
        lost = max(lost, committed - int(there.max(initial=-1)))
    return {"kills": times, "opened": opened, "lost_steps": max(lost, 0), "torn_steps": torn}


COLUMNS: Sequence[tuple[str, Callable[[dict[str, Any]], str]]] = (
    (
        "commit of 50 steps: median, worst",
        lambda r: f"{r['commit_ms']:.0f}, {r['commit_worst_ms']:.0f} ms",
    ),
    ("work a step", lambda r: f"{r['work_ms_a_step']:.2f} ms"),
    ("on disk a step", lambda r: f"{r['bytes_a_step'] / 1e3:.1f} KB"),
    ("one statistic", lambda r: f"{r['statistic_ms']:.0f} ms"),
    (
        "newest 10 steps, 4 readers at once",
        lambda r: "none succeeded" if r["newest_ms"] is None else f"{r['newest_ms']:.1f} ms",
    ),
    ("failed reads", lambda r: str(r["reader_errors"])),
    (
        "kill -9: opened, committed steps lost, torn",
        lambda r: f"{r['opened']}/{r['kills']}, {r['lost_steps']}, {r['torn_steps']}",
    ),
)


def measured(kind: Format, steps: int, kills: int) -> dict[str, Any]:
    """Every figure of one format, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        path.mkdir()
        return written(kind, path, steps) | killed(kind, Path(folder), kills)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", choices=[kind.name for kind in FORMATS])
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    named = {kind.name: kind for kind in FORMATS}
    if options.child:
        what, name, path, *rest = options.child
        if what == "write":
            endless(named[name], Path(path))
        elif what == "look":
            print(json.dumps(looking(named[name], Path(path), float(rest[0]))))
        else:
            print(json.dumps(timed(named[name], Path(path))))
        return
    print(f"{os.cpu_count()} CPUs, {platform.platform()}, Python {platform.python_version()}")
    print(f"{options.steps:,} steps, {options.kills} kills a format\n")
    head = ["format", *(title for title, _ in COLUMNS), "load average"]
    print("| " + " | ".join(head) + " |\n|---" + "|---:" * (len(head) - 1) + "|", flush=True)
    results = {}
    for kind in FORMATS:
        if options.only not in (None, kind.name):
            continue
        if importlib.util.find_spec(kind.needs) is None:
            print(f"| {kind.title} | not installed: pip install {kind.needs} |", flush=True)
            continue
        load = os.getloadavg()[0]
        found = results[kind.name] = measured(kind, options.steps, options.kills)
        cells = [kind.title, *(show(found) for _, show in COLUMNS), f"{load:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
        if found["first_error"]:
            print(f"{kind.title}: {found['first_error']}", file=sys.stderr)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
