"""Many processes read a run while another writes it: no error, no gap, no half row."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradscope.schema import RunInfo
from gradscope.store import RunWriter, open_run
from gradscope.store.folder import DirectoryPlace

WRITE = """
import sys, threading, time, numpy as np
from gradscope.schema import Finding, RunInfo, Site
from gradscope.store import RunWriter
run = RunWriter(sys.argv[1], "a", RunInfo("m"))
run.set_sites([Site(f"s{i}", "parameter", i) for i in range(20)])
print("begun", flush=True)
until_told = threading.Thread(target=sys.stdin.read, daemon=True)
until_told.start()
step = 0
while until_told.is_alive():
    rows = {"step": np.full(20, step), "site": np.arange(20)}
    run.append("parameters", rows | {"grad_norm": np.full(20, step, "f4")})
    loss = {"name": np.array(["loss"], object), "value": np.full(1, step), "time": np.ones(1)}
    run.append("scalars", {"step": np.array([step])} | loss)
    step += 1
    if step % 40 == 0:  # many small parts, so that parts are merged away all the time
        run.update_config({"step": step})
        run.set_findings([Finding("kind", "info", "s0", 0, step, "Sentence.", "Advice.")])
        run.flush()
    time.sleep(0.001)
run.close()
print(step)
"""
READ = """
import json, sys, time, numpy as np
from gradscope.store import list_runs, open_run
path, rounds, seen = sys.argv[1] + "/a", 0, [0]
run = open_run(path)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end or len(set(seen)) < 4:
    status = run.status
    assert (status.state, status.notes, status.error) == ("running", (), ""), status
    assert [r.status.state for r in list_runs(sys.argv[1])] == ["running"]
    run.version()
    rows = run.read("parameters", ["step", "site", "grad_norm"])
    steps = len(rows["step"]) // 20
    assert np.array_equal(rows["step"] * 20 + rows["site"], np.arange(20 * steps))
    assert (abs(rows["grad_norm"] - rows["step"]) <= 1e-5 * rows["step"]).all()
    assert steps >= max(seen)
    seen.append(steps)
    newest = run.last_steps("scalars", 10)
    assert len(newest["step"]) == min(10, newest["step"].max(initial=-1) + 1)
    assert (np.diff(newest["step"]) == 1).all() and (newest["value"] == newest["step"]).all()
    if steps > 1:
        thin = run.thinned("parameters", ["grad_norm"], buckets=7)
        assert thin["grad_norm_max"].max() >= 0.99999 * (steps - 1)
        assert thin["grad_norm_min"].min() == 0
    assert len(run.sites) in (0, 20)
    rounds += 1
    time.sleep(0.02)
print(json.dumps(rounds))
"""


def test_a_part_merged_away_just_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    run.append("parameters", {"step": np.arange(9), "site": np.zeros(9)})
    run.close()
    found = DirectoryPlace.part
    asked: list[str] = []

    def late(place: DirectoryPlace, folder: str, name: str) -> str:
        asked.append(name)
        return str(found(place, folder, name)) + ("" if len(asked) > 1 else ".gone")

    monkeypatch.setattr(DirectoryPlace, "part", late)
    assert open_run(run.path).read("parameters", ["step"])["step"].tolist() == list(range(9))
    assert len(asked) == 2


def watch(root: Path, readers: int, seconds: float) -> None:
    """Readers that read for so many seconds, and see the run grow, while a process writes it."""
    command = [sys.executable, "-c", WRITE, str(root)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == "begun\n"
        command = [sys.executable, "-c", READ, str(root), str(seconds)]
        reading = [
            subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(readers)
        ]
        told = [process.communicate() for process in reading]
        written = int(writing.communicate()[0])
    assert "".join(trouble for _, trouble in told) == ""
    assert all(json.loads(rounds) > 3 for rounds, _ in told)
    stored = open_run(root / "a")
    assert stored.status.state == "finished"
    assert stored.read("scalars")["step"].tolist() == list(range(written))


def test_three_readers_and_a_writer(tmp_path: Path) -> None:
    watch(tmp_path, 3, 2.0)


@pytest.mark.slow
def test_ten_readers_and_a_writer_for_a_minute(tmp_path: Path) -> None:
    watch(tmp_path, 10, 60.0)
