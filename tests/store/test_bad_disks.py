"""A training outlives full, slow, read-only disks and clocks that jump; the run says what it lost."""

import errno
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradscope.schema import GradScopeError, RunInfo
from gradscope.store import RunWriter, backlog, open_run, parts, writer

pytestmark = [
    pytest.mark.filterwarnings("ignore:GradScope cannot write"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]


def rows_at(step: int, sites: int = 4) -> dict[str, Any]:
    values = np.full(sites, step + 1, "f4")
    return {"step": np.full(sites, step), "site": np.arange(sites), "grad_norm": values}


class Disk:
    """Parts are refused with `errno` while `refuses`, and take `delay` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOSPC) -> None:
        self.refuses = False
        self.delay = 0.0
        finish = parts.PartWriter.finish

        def slow_or_full(part: parts.PartWriter, meanwhile: Any = None) -> int:
            time.sleep(self.delay)
            if self.refuses:
                raise OSError(code, os.strerror(code))
            return finish(part, meanwhile)

        monkeypatch.setattr(parts.PartWriter, "finish", slow_or_full)
        monkeypatch.setattr(writer, "RETRY_SECONDS", 0.1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_for_a_while_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    disk = Disk(monkeypatch, code)
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        disk.refuses = True
        for step in range(50):
            run.append("parameters", rows_at(step))
            if step % 10 == 0:
                run.flush(0.3)
        disk.refuses = False
        run.flush(3.0)
        run.close()
    assert len([w for w in seen if "cannot write the run" in str(w.message)]) == 1
    stored = open_run(run.path)
    assert np.unique(stored.read("parameters")["step"]).tolist() == list(range(50))
    assert stored.status.state == "finished"
    assert any(os.strerror(code) in note for note in stored.status.notes)
    assert not list(run.path.rglob(".*.tmp"))


def test_a_disk_full_to_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    run.append("parameters", rows_at(0))
    run.flush()
    disk.refuses = True
    for step in range(1, 9):
        run.append("parameters", rows_at(step))
    run.close()
    stored = open_run(run.path)
    assert set(stored.read("parameters")["step"].tolist()) == {0}
    assert any("8 steps of parameters between step 1 and step 8" in n for n in stored.status.notes)


def test_nothing_at_all_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunWriter(tmp_path, "a", RunInfo("m"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gradscope.store.papers.write_json", full)
    monkeypatch.setattr(parts.PartWriter, "finish", full)
    run.append("parameters", rows_at(0))
    run.close()
    assert open_run(run.path).status.state == "killed"  # the disk never took another state


def test_a_slow_disk_lowers_the_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 600_000
    monkeypatch.setattr(backlog.Backlog.__init__, "__defaults__", (limit,))
    disk = Disk(monkeypatch)
    disk.delay = 0.3
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    held, waited = 0, 0.0
    for step in range(3000):
        rows = rows_at(step, 100)
        loss = {"name": np.array(["loss"], object), "value": np.ones(1), "time": np.zeros(1)}
        began = time.perf_counter()
        run.append("parameters", rows)
        run.append("scalars", {"step": np.array([step])} | loss)
        waited = max(waited, time.perf_counter() - began)
        held = max(held, sum(entry.size for entry in run._backlog._entries))
    disk.delay = 0.0
    run.close()
    stored = open_run(run.path)
    steps = np.unique(stored.read("parameters", ["step"])["step"])
    assert held <= limit
    assert waited < 0.25  # less than one write of that disk
    assert 2 < len(steps) < 3000
    assert np.unique(stored.read("scalars")["step"]).tolist() == list(range(3000))
    lost = 3000 - len(steps)
    assert any(f"{lost} steps of parameters" in note for note in stored.status.notes)


def test_a_disk_that_hangs_holds_up_close_for_seconds_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    finish = parts.PartWriter.finish
    monkeypatch.setattr(writer, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(
        parts.PartWriter, "finish", lambda p, m=None: (gate.wait(20), finish(p, m))[1]
    )
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    run.append("parameters", rows_at(0))
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="longer than expected"):
        run.close()
    assert time.monotonic() - began < 3.0
    assert open_run(run.path).status.state == "running"  # its thread is still at it
    gate.set()
    run.thread.join(10)
    stored = open_run(run.path)
    assert stored.status.state == "finished"
    assert len(stored.read("parameters")["step"]) == 4


def test_a_disk_slow_to_sync_holds_up_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, waiting = threading.Event(), threading.Event()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda h: (waiting.set(), gate.wait(60), fsync(h)))
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    for step in range(200):
        run.append("parameters", rows_at(step))
        run.flush()
        if waiting.is_set() and step > 20:
            break
    assert waiting.is_set()  # a merge waits for the disk
    assert not gate.is_set()
    assert np.unique(open_run(run.path).read("parameters")["step"]).tolist() == list(
        range(step + 1)
    )
    gate.set()
    run.close()
    assert np.unique(open_run(run.path).read("parameters")["step"]).tolist() == list(
        range(step + 1)
    )
    assert len(list((run.path / "parameters").iterdir())) == 1


def test_a_root_that_takes_no_folder_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GradScopeError, match="choose another root"):
        RunWriter(tmp_path / "file" / "below", "a", RunInfo("m"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_made_read_only(tmp_path: Path) -> None:
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    run.flush()
    run.path.chmod(0o555)
    run.append("parameters", rows_at(0))
    run.close()
    run.path.chmod(0o755)
    assert open_run(run.path).status.state == "killed"


def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunWriter(tmp_path, "a", RunInfo("m"))
    now = time.time
    for step, jump in enumerate((0.0, -86_400.0, 10 * 86_400.0, -3e9)):
        monkeypatch.setattr(time, "time", lambda jump=jump: now() + jump)
        run.append("parameters", rows_at(step))
        run.flush()
        stored = open_run(run.path)
        assert stored.status.state == "running"
        assert stored.status.last_step == step
        assert np.unique(stored.read("parameters")["step"]).tolist() == list(range(step + 1))
    run.close()
    assert open_run(run.path).status.state == "finished"
