"""Disks that are really full or read-only, not imitated: a small tmpfs, a limit on file sizes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOLS = """
import json, os, resource, subprocess, sys, warnings
import numpy as np
from gradscope.schema import RunInfo
from gradscope.store import RunWriter, open_run, writer as module
module.RETRY_SECONDS = 0.1
root = sys.argv[1]
draw = np.random.default_rng(0)
caught = warnings.catch_warnings(record=True)
seen = caught.__enter__()
warnings.simplefilter("always")
run = RunWriter(root, "a", RunInfo("m"))

def write(first, last):
    for step in range(first, last):
        rows = {"step": np.full(200, step), "site": np.arange(200)}
        run.append("parameters", rows | {"grad_norm": draw.random(200, "f4")})

def tell():
    stored = open_run(run.path)
    rows = stored.read("parameters")
    hidden = [str(p) for p in run.path.rglob(".*")]
    told = [str(w.message) for w in seen if "cannot write the run" in str(w.message)]
    print(json.dumps({
        "state": stored.status.state, "notes": stored.status.notes, "warnings": told,
        "rows": len(rows["step"]), "steps": np.unique(rows["step"]).tolist(), "hidden": hidden,
    }))

def fill():
    with open(root + "/ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

write(0, 20)
run.flush()
"""
SEVERAL = """
write(20, 40)
run.flush(1.0)
"""


def told(command: list[str], text: str, root: Path) -> dict[str, Any]:
    """What the script says of its run; it must end by itself."""
    words = [*command, sys.executable, "-c", TOOLS + text, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert len(answer["warnings"]) == 1
    assert answer["rows"] == 200 * len(answer["steps"])  # no row is half written
    assert answer["hidden"] == []
    return answer


@pytest.fixture
def tmpfs(tmp_path: Path) -> list[str]:
    """The command that runs another with 600 KB of memory as the disk at `tmp_path`."""
    mount = f"mount -t tmpfs -o size=600k none {tmp_path}"
    command = ["unshare", "-rm", "sh", "-c", mount + ' && exec "$@"', "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*command, "true"], capture_output=True).returncode
    ):
        pytest.skip("this system lets nobody mount a tmpfs")
    return command


def test_a_full_disk_that_is_freed_again_costs_nothing(tmpfs: list[str], tmp_path: Path) -> None:
    text = "fill()" + SEVERAL + "os.unlink(root + '/ballast'); run.flush(5.0); write(40, 60); "
    answer = told(tmpfs, text + "run.close(); tell()", tmp_path)
    assert answer["steps"] == list(range(60))
    assert answer["state"] == "finished"
    assert answer["notes"] == ["Writing failed for a while: No space left on device."]


def test_a_disk_full_to_the_end_keeps_the_rest_and_says_so(
    tmpfs: list[str], tmp_path: Path
) -> None:
    answer = told(tmpfs, "fill()" + SEVERAL + "run.close(); tell()", tmp_path)
    assert answer["steps"] == list(range(20))
    assert answer["state"] == "finished"
    assert "20 steps of parameters between step 20 and step 39 were left out" in answer["notes"][-1]


def test_a_disk_that_fills_up_by_the_run_itself(tmpfs: list[str], tmp_path: Path) -> None:
    text = "for first in range(20, 2020, 100): write(first, first + 100); run.flush(0.3)\n"
    answer = told(tmpfs, text + "run.close(); tell()", tmp_path)
    assert answer["state"] == "finished"
    assert len(answer["steps"]) < 2020
    lost = 2020 - len(answer["steps"])
    assert f"{lost} steps of parameters" in answer["notes"][-1]


def test_a_disk_turned_read_only(tmpfs: list[str], tmp_path: Path) -> None:
    bind = "subprocess.run(['mount', '--bind', root, root], check=True)\n"
    bind += "subprocess.run(['mount', '-o', 'remount,bind,ro', root], check=True)"
    back = "subprocess.run(['umount', root], check=True)\n"
    text = bind + SEVERAL + back + "run.flush(5.0); run.close(); tell()"
    answer = told(tmpfs, text, tmp_path)
    assert answer["steps"] == list(range(40))
    assert answer["state"] == "finished"
    assert "Read-only file system" in answer["notes"][-1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
def test_files_that_may_not_grow(tmp_path: Path) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))"
    text = limit.format(2000) + SEVERAL + limit.format("resource.RLIM_INFINITY")
    answer = told([], text + "; run.flush(5.0); run.close(); tell()", tmp_path)
    assert answer["steps"] == list(range(40))
    assert answer["state"] == "finished"
    assert "too large" in answer["notes"][-1]
