"""`gradscope paths` and `gradscope shattering` in process: what they store, print and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradscope.cli import main
from gradscope.experiments import DataSet, train
from gradscope.frame import load


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_paths_are_measured_stored_and_told(
    tmp_path: Path, tiny: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("inception_small", run="a", root=tmp_path, epochs=1, batch_size=64, every=1)
    words = ["paths", "a", "--runs", str(tmp_path), "--images", "4", "--seeds", "2"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "shattering: 32 rows" in told.out
    assert "paths: left out. SmallInception has no residual unit" in told.out
    assert f"Stored in {run}" in told.out
    assert "shattering: 2/2" in told.err
    assert len(load(run).frame("heads")) > 3
    assert "no dense layers" in refused([*words, "--only", "reuse"], capsys)
    assert "no measure 'roads'" in refused([*words, "--only", "roads"], capsys)


def test_shattering_makes_a_run_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["shattering", "--runs", str(tmp_path), "--depths", "1,2", "--seeds", "1"]
    assert main([*words, "--width", "8"]) == 0
    assert f"Stored in {tmp_path / 'shattering'}" in capsys.readouterr().out
    assert load(tmp_path / "shattering").frame("shattering")["depth"].unique().tolist() == [1, 2]
    assert "shattering" in refused(words, capsys)
    assert "--depths takes whole numbers" in refused([*words, "--depths", "two"], capsys)
