"""Runs of stated sizes -> a Markdown table: each bar of the run folder beside its figure.

Values are random in every mantissa bit, so that the sizes are those of hard data; one row is that
of a real training. "Fresh" means a new process; the system's file cache is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from synthetic import NAMES, SITES, STATS, histograms_of, seconds, size_of, statistics_of

from gradscope.diagnosis import diagnose
from gradscope.experiments import train
from gradscope.schema import OUTPUT_STATS, PARAMETER_STATS, Finding, RunInfo, Site
from gradscope.store import RunWriter, environment, list_runs, open_run


@dataclass(frozen=True)
class Figure:
    """One measured number, and the most it may be; `bar` is None where none was set."""

    what: str
    measured: float
    bar: float | None
    unit: str

    def row(self, load: float) -> str:
        """A row of the table."""
        verdict = "" if self.bar is None else "reached" if self.measured <= self.bar else "missed"
        bar = "none" if self.bar is None else f"{self.bar:g} {self.unit}"
        return f"| {self.what} | {bar} | {self.measured:.3g} {self.unit} | {verdict} | {load:.1f} |"


def appending(root: Path, steps: int) -> list[Figure]:
    """Cost of append to the training thread, and bytes a sampled step, with and without histograms."""
    draw = np.random.default_rng(0)
    writer = RunWriter(root, "appending", RunInfo("net"))
    both, visible = [], []
    for step in range(steps):
        rows, bins = statistics_of(np.array([step]), draw), histograms_of(step, draw)
        start = time.perf_counter()
        writer.append("outputs", rows)
        writer.append("histograms", bins)
        both.append(1e3 * (time.perf_counter() - start))
        time.sleep(0.005)
        if step % (steps // 4) == steps // 8:
            start = time.perf_counter()
            reader = open_run(writer.path)
            while not len(reader.read("outputs", ["step"], first_step=step)["step"]):
                time.sleep(0.01)
            visible.append(time.perf_counter() - start)
    writer.close()
    plain = size_of(writer.path / "outputs") + size_of(writer.path / "outputs.thin")
    whole = size_of(writer.path)
    ninth = sorted(both)[int(0.9 * len(both))]
    what = "append of one step, 200 sites x 12 statistics + histograms"
    return [
        Figure(f"{what}: median", statistics.median(both), 0.2, "ms"),
        Figure(f"{what}: 90th percentile", ninth, 0.2, "ms"),
        Figure("a step can be read after (slowest of 4)", max(visible), 2, "s"),
        Figure(f"on disk a step, 200 x 12, {steps} steps", plain / steps / 1e3, 10, "KB"),
        Figure("on disk a step with histograms", whole / steps / 1e3, 15, "KB"),
    ]


def reading(root: Path, steps: int) -> list[Figure]:
    """One statistic of all sites over all steps; the newest 10 steps while the run is live."""
    draw = np.random.default_rng(1)
    writer = RunWriter(root, "reading", RunInfo("net"))
    for first in range(0, steps, 200):
        writer.append("outputs", statistics_of(np.arange(first, min(first + 200, steps)), draw))
        writer.flush(60)
    newest = seconds(lambda: open_run(writer.path).last_steps("outputs", 10, NAMES))
    writer.close()
    size = size_of(writer.path)
    wanted = ["step", "site", "rms"]
    frame = seconds(lambda: pd.DataFrame(open_run(writer.path).read("outputs", wanted)))
    return [
        Figure(
            f"one statistic, 200 sites, {steps:,} steps, to a DataFrame", 1e3 * frame, 200, "ms"
        ),
        Figure("newest 10 steps of a live run, all statistics", 1e3 * newest, 20, "ms"),
        Figure(f"on disk a step, 200 x 12, {steps:,} steps", size / steps / 1e3, 10, "KB"),
    ]


def training(root: Path, epochs: int) -> list[Figure]:
    """The disk that 200 x 12 statistics of a real training take, every step sampled."""
    path = train("resnet20", run="real", root=root, epochs=epochs, batch_size=32, every=1)
    rows = open_run(path).read("outputs")
    values = len(rows["step"]) * (len(rows) - 2)
    size = size_of(path / "outputs") + size_of(path / "outputs.thin")
    steps = len(np.unique(rows["step"]))
    what = f"on disk a step, 200 x 12, values of resnet20 in {steps} steps"
    return [Figure(what, size / values * SITES * STATS / 1e3, 10, "KB")]


def diagnosing(root: Path, steps: int) -> list[Figure]:
    """A diagnosis of 100 outputs and 100 parameters at every step, appended step by step."""
    draw = np.random.default_rng(3)
    writer = RunWriter(root, "diagnosing", RunInfo("net"))
    outputs = [Site(f"layer{i}", "output", i) for i in range(100)]
    parameters = [Site(f"layer{i}.weight", "parameter", i) for i in range(100)]
    writer.set_sites([*outputs, *parameters])
    first = np.arange(100)
    for step in range(steps):
        for table, stats, at in (
            ("outputs", OUTPUT_STATS, 0),
            ("parameters", PARAMETER_STATS, 100),
        ):
            values = np.exp(0.2 * draw.normal(size=(len(stats), 100)))
            columns = {c.name: values[i] for i, c in enumerate(stats) if "nonfinite" not in c.name}
            writer.append(table, {"step": np.full(100, step), "site": first + at} | columns)
        name = {"name": np.array(["loss"], object), "time": np.zeros(1)}
        value = np.exp(-step / steps) + 0.1 * draw.normal(size=1)
        writer.append("scalars", {"step": np.array([step]), "value": value} | name)
    writer.close()
    assert open_run(writer.path).status.steps_seen == steps
    took = seconds(lambda: diagnose(open_run(writer.path)))
    return [Figure(f"diagnosis of {steps:,} steps, 100 outputs and parameters", took, None, "s")]


def listing(root: Path, runs: int) -> list[Figure]:
    """Listing runs with status and verdict, in a fresh process and again."""
    info = RunInfo("net", {"lr": 0.1, "batch_size": 64}, environment=environment())
    writer = RunWriter(root, "run0000", info)
    writer.set_sites([Site(f"layer{i}", "output", i) for i in range(SITES)])
    writer.set_findings([Finding("vanishing", "warning", "layer0", 0, 9, "It vanishes.", "Do.")])
    writer.close()
    for number in range(1, runs):
        shutil.copytree(writer.path, root / f"run{number:04d}")
    text = (
        "import json, sys, time; from gradscope.store import list_runs; t = [time.perf_counter()]\n"
        "for _ in range(2): n = len(list_runs(sys.argv[1])); t.append(time.perf_counter())\n"
        "print(json.dumps([n, t[1] - t[0], t[2] - t[1]]))"
    )
    command = [sys.executable, "-c", text, str(root)]
    found = [json.loads(subprocess.check_output(command)) for _ in range(3)]
    assert found[0][0] == runs == len(list_runs(root))
    cold, warm = (statistics.median(f[k] for f in found) for k in (1, 2))
    return [
        Figure(f"listing {runs:,} runs with status and verdict, fresh", cold, 1, "s"),
        Figure("the same again", 1e3 * warm, 100, "ms"),
    ]


def overview(root: Path, steps: int) -> list[Figure]:
    """Thinned loss of every step, and thinned rms of 200 sites sampled every 200th step."""
    draw = np.random.default_rng(2)
    writer = RunWriter(root, "long", RunInfo("net"))
    peak, chunk = steps * 2 // 3, 20_000
    for first in range(0, steps, chunk):
        every = np.arange(first, min(first + chunk, steps))
        loss = draw.normal(size=len(every))
        loss[every == peak] = 1e9
        names = np.full(len(every), "loss", dtype=object)
        writer.append("scalars", {"step": every, "name": names, "value": loss, "time": loss})
        writer.append("outputs", statistics_of(every[::200], draw))
        writer.flush(60)
    writer.close()

    def opened() -> None:
        run = open_run(writer.path)
        assert run.status.last_step == steps - 1
        curve = run.thinned("scalars", ["value"], buckets=1000)
        assert curve["value_max"].max() == 1e9
        run.thinned("outputs", ["rms"], buckets=1000)

    what = f"overview of a run of {steps:,} steps, its one peak kept"
    return [Figure(what, seconds(opened, 3), 1, "s")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--append-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=2, help="of the real training")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    machine = f"{os.cpu_count()} CPUs, {platform.platform()}, Python {platform.python_version()}"
    print(f"{machine}\n\n| what | bar | measured | | load average |\n|---|---:|---:|---|---:|")
    parts = (
        (appending, options.append_steps),
        (reading, options.steps),
        (training, options.epochs),
        (diagnosing, options.steps),
        (listing, options.runs),
        (overview, options.long),
    )
    told = []
    for part, size in parts:
        with tempfile.TemporaryDirectory() as folder:
            load = os.getloadavg()[0]
            for figure in part(Path(folder), size):
                print(figure.row(load), flush=True)
                told.append(asdict(figure) | {"load": load})
    missed = [f["what"] for f in told if f["bar"] is not None and f["measured"] > f["bar"]]
    print("\nMissed: " + ("; ".join(missed) or "none") + ".")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "figures": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
