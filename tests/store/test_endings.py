"""However the writing process ends, its run is there and says how: exits, forks, kills."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gradscope.schema import RunInfo
from gradscope.store import RunWriter, open_run

BEGIN = """
import os, sys, time, numpy as np
from gradscope.schema import RunInfo
from gradscope.store import RunWriter
writer = RunWriter(sys.argv[1], sys.argv[2], RunInfo("m"))
def write(first, last):
    for step in range(first, last):
        rows = {"step": np.full(20, step), "site": np.arange(20)}
        writer.append("parameters", rows | {"grad_norm": np.full(20, step, "f4")})
"""
ENDLESS = """
for step in range(10**9):
    write(step, step + 1)
    print(step, time.monotonic(), flush=True)
    time.sleep(0.002)
"""


def script(root: Path, name: str, text: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BEGIN + text, str(root), name]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def steps_of(path: Path) -> list[int]:
    steps: list[int] = np.unique(open_run(path).read("parameters", ["step"])["step"]).tolist()
    return steps


@pytest.mark.parametrize(
    ("ending", "state", "error"),
    [
        ("", "finished", ""),
        ("raise ValueError('too hot')", "failed", "ValueError: too hot"),
        ("raise KeyboardInterrupt", "interrupted", ""),
        ("sys.exit(3)", "finished", ""),
    ],
)
def test_an_interpreter_that_ends_without_close(
    tmp_path: Path, ending: str, state: str, error: str
) -> None:
    done = script(tmp_path, "a", "write(0, 500)\n" + ending)
    status = open_run(tmp_path / "a").status
    assert (status.state, status.error, status.last_step) == (state, error, 499)
    assert steps_of(tmp_path / "a") == list(range(500))
    assert "Exception ignored" not in done.stderr


def test_the_writing_process_never_imports_pandas(tmp_path: Path) -> None:
    text = """
write(0, 300)
word = {"name": np.array(["löss"], object), "value": np.ones(1), "time": np.ones(1)}
writer.append("scalars", {"step": np.zeros(1)} | word)
writer.close()
from gradscope.store import open_run
run = open_run(writer.path)
assert run.read("scalars")["name"].tolist() == ["löss"]
run.thinned("parameters", ["grad_norm"], buckets=3)
print("pandas" in sys.modules, "torch" in sys.modules)
"""
    done = script(tmp_path, "a", text)
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_nothing(tmp_path: Path) -> None:
    text = """
write(0, 10)
child = os.fork()
if child == 0:
    write(1000, 2000)
    writer.note("from the child")
    writer.update_config({"child": True})
    writer.flush()
    writer.close("failed", "child")
    sys.exit()
os.waitpid(child, 0)
write(10, 20)
writer.flush()
with open(writer.path / "status.json") as file:
    print(file.read())
"""
    done = script(tmp_path, "a", text)
    assert '"running"' in done.stdout, done.stderr
    run = open_run(tmp_path / "a")
    assert run.status.state == "finished"
    assert run.status.notes == ()
    assert run.info.config == {}
    assert steps_of(run.path) == list(range(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_its_parent_keeps_no_lock(tmp_path: Path) -> None:
    text = """
write(0, 10)
writer.flush()
if os.fork() == 0:
    os.close(0), os.close(1), os.close(2)
    time.sleep(5)
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    script(tmp_path, "a", text)
    assert open_run(tmp_path / "a").status.state == "killed"
    RunWriter(tmp_path, "a", RunInfo("m"), resume=True).close()
    assert open_run(tmp_path / "a").status.state == "finished"


def kill_once(root: Path, name: str, after: float) -> None:
    """SIGKILL `after` seconds after the first step: nothing older than 2 s may be missing."""
    command = [sys.executable, "-c", BEGIN + ENDLESS, str(root), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    killed = time.monotonic()
    process.send_signal(signal.SIGKILL)
    lines = [line.split() for line in process.stdout.read().splitlines()]
    process.wait()
    run = open_run(root / name)
    assert run.status.state == "killed"
    old = [int(step) for step, at in (x for x in lines if len(x) == 2) if float(at) < killed - 2]
    rows = run.read("parameters", ["step", "site", "grad_norm"])
    assert set(old) <= set(rows["step"].tolist())
    steps = np.unique(rows["step"])
    assert steps.tolist() == list(range(len(steps)))  # no gap
    assert np.array_equal(rows["step"] * 20 + rows["site"], np.arange(20 * len(steps)))
    np.testing.assert_allclose(rows["grad_norm"], rows["step"], rtol=1e-5)
    for table in run.tables():
        run.thinned(table, ["grad_norm"], buckets=7)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("after", [0.0, 0.25, 0.82, 1.0, 2.9])
def test_kill(tmp_path: Path, after: float) -> None:
    kill_once(tmp_path, "k", after)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kill_at_200_random_moments(tmp_path: Path) -> None:
    draw = random.Random(1)
    moments = [draw.uniform(0.0, 1.0) if n % 8 else draw.uniform(2.0, 4.0) for n in range(200)]
    with ThreadPoolExecutor(3) as pool:
        kills = [pool.submit(kill_once, tmp_path, f"k{n}", m) for n, m in enumerate(moments)]
        for kill in kills:
            kill.result()
