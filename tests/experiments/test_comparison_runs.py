"""Comparing by name: what is reused, replaced and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradscope.experiments import DataSet, Progress, ablate_run, compare, train
from gradscope.schema import GradScopeError, RunInfo
from gradscope.store import RunWriter, list_runs, open_run

TINY: dict[str, Any] = {"epochs": 1, "batch_size": 64, "every": 1}


def made(path: Path) -> int:
    return (path / "checkpoint.npz").stat().st_mtime_ns


def test_finished_runs_are_reused_until_asked_to_retrain(tmp_path: Path, tiny: DataSet) -> None:
    paths = compare(["plain20"], seeds=2, root=tmp_path, **TINY)
    assert [path.name for path in paths] == ["plain20-seed0", "plain20-seed1"]
    first = [made(path) for path in paths]
    assert compare(["plain20"], seeds=2, root=tmp_path, device="auto", **TINY) == paths
    assert [made(path) for path in paths] == first
    compare(["plain20"], seeds=2, root=tmp_path, retrain=True, **{**TINY, "lr": 0.01})
    assert all(new > old for new, old in zip(map(made, paths), first, strict=True))
    assert open_run(paths[0]).info.config["lr"] == 0.01


def test_runs_of_other_settings_are_refused(tmp_path: Path, tiny: DataSet) -> None:
    (path,) = compare(["plain20"], root=tmp_path, batch_norm=False, **TINY)
    before = made(path)
    for other in ({}, {"batch_norm": True}, {"batch_norm": False, "lr": 0.3}):
        with pytest.raises(GradScopeError, match="was made with"):
            compare(["plain20"], root=tmp_path, **TINY, **other)
    with pytest.raises(GradScopeError, match="epochs=1"):
        compare(["plain20"], root=tmp_path, batch_norm=False, batch_size=64, every=1)
    assert compare(["plain20"], root=tmp_path, batch_norm=False, **TINY) == [path]
    assert made(path) == before


def test_broken_off_runs_are_replaced(tmp_path: Path, tiny: DataSet) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(["plain20"], root=tmp_path, on_progress=stop, **TINY)
    assert open_run(tmp_path / "plain20").status.state != "finished"
    (path,) = compare(["plain20"], root=tmp_path, **TINY)
    assert open_run(path).status.state == "finished"


def test_a_run_of_the_user_is_never_replaced(tmp_path: Path, tiny: DataSet) -> None:
    writer = RunWriter(tmp_path, "plain20", RunInfo(model="plain20"))
    with pytest.raises(GradScopeError, match="being written"):
        compare(["plain20"], root=tmp_path, **TINY)
    writer.close("failed", "stopped")
    for retrain in (False, True):
        with pytest.raises(GradScopeError, match="not made by"):
            compare(["plain20"], root=tmp_path, retrain=retrain, **TINY)
    assert open_run(tmp_path / "plain20").status.state == "failed"


def test_a_bad_name_is_refused_before_anything_is_trained(tmp_path: Path, tiny: DataSet) -> None:
    with pytest.raises(GradScopeError, match="plain21"):
        compare(["plain20", "plain21"], root=tmp_path, **TINY)
    with pytest.raises(GradScopeError, match="seeds"):
        compare(["plain20"], seeds=0, root=tmp_path, **TINY)
    assert list_runs(tmp_path) == []


def test_an_ablation_is_added_to_the_run_and_changes_nothing_else(
    tmp_path: Path, tiny: DataSet
) -> None:
    path = train("resnet20", run="a", root=tmp_path, **TINY)
    old = open_run(path)
    scalars = old.read("scalars")
    found = ablate_run(path, limit=40)
    new = open_run(path)
    assert len(new.read("ablations")["unit"]) == len(found.rows) > 0
    assert {row.samples for row in found.rows} == {40}
    assert new.status.state == "finished"
    assert new.status.steps_seen == old.status.steps_seen
    assert new.status.findings == old.status.findings
    assert new.status.verdict == old.status.verdict
    after = new.read("scalars")
    assert after["value"].tolist() == pytest.approx(scalars["value"].tolist(), nan_ok=True)
    (base,) = {row.baseline for row in ablate_run(path).rows if row.metric == "accuracy"}
    names = scalars["name"].astype(str)
    assert base == pytest.approx(scalars["value"][names == "val_accuracy"][-1])
