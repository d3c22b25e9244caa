"""A training outlives its run folder, and takes it up again where it comes back."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from gradscope.schema import RunInfo
from gradscope.store import RunWriter, open_run, writer


def log(run: RunWriter, first: int, last: int) -> None:
    for step in range(first, last):
        word = {"name": np.array(["loss"], object), "value": np.ones(1), "time": np.zeros(1)}
        run.append("scalars", {"step": np.array([step])} | word)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.1)


@pytest.mark.parametrize("in_the_way", [False, True])
def test_a_vanished_folder_ends_no_training(tmp_path: Path, in_the_way: bool) -> None:
    run = RunWriter(tmp_path, "lost", RunInfo("net"))
    run.flush()
    shutil.rmtree(tmp_path / "lost")
    if in_the_way:
        (tmp_path / "lost").write_text("in the way")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        log(run, 0, 5)
        run.flush(1.0)
        log(run, 5, 10)
        run.close()
    assert len([w for w in seen if "cannot write the run" in str(w.message)]) == 1
    assert (tmp_path / "lost").exists() == in_the_way  # a folder taken away stays away


@pytest.mark.filterwarnings("ignore:GradScope cannot write")
def test_a_folder_that_comes_back_misses_nothing(tmp_path: Path) -> None:
    run = RunWriter(tmp_path, "lost", RunInfo("net"))
    log(run, 0, 5)
    run.flush()
    (tmp_path / "lost").rename(tmp_path / "elsewhere")
    log(run, 5, 10)
    run.flush(1.0)
    assert not (tmp_path / "lost").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "lost")
    run.flush()
    log(run, 10, 15)
    run.close()
    stored = open_run(tmp_path / "lost")
    assert stored.read("scalars")["step"].tolist() == list(range(15))
    assert stored.status.state == "finished"
    assert any("Writing failed for a while" in note for note in stored.status.notes)
