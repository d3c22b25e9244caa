"""Ways of the gradient measured on a run: which tables are filled, and what stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradscope.experiments import DataSet, measure_ways, shatter_lines, train
from gradscope.figures.sources import latest
from gradscope.frame import load
from gradscope.schema import STUDIES, GradScopeError, RunInfo
from gradscope.store import RunWriter, open_run

QUICK = {"images": 4, "draws": 2, "seeds": 2}


def trained(model: str, root: Path) -> Path:
    return train(model, run=model, root=root, epochs=1, batch_size=64, every=1)


def test_a_residual_net_has_paths_and_no_heads(tmp_path: Path, tiny: DataSet) -> None:
    path = trained("resnet20", tmp_path)
    before = {name: open_run(path).read(name) for name in ("outputs", "scalars", "blocks")}
    weights = (path / "checkpoint.npz").read_bytes()
    told: list[tuple[str, int, int]] = []
    found = measure_ways(path, **QUICK, on_progress=lambda *words: told.append(words))
    assert set(found.rows) == {"paths", "shattering"}
    assert "auxiliary head" in found.skipped["heads"]
    assert "dense" in found.skipped["reuse"]
    assert ("paths", 10, 10) in told
    run = load(path)
    frame = run.frame("paths")
    assert frame["length"].tolist() == list(range(10))
    assert frame["contribution"].sum() == pytest.approx(1)
    np.testing.assert_array_equal(frame["gradient"], found.rows["paths"]["gradient"])
    assert set(run.frame("shattering")["depth"]) == {20}
    assert set(run.frame("shattering")["network"]) == {"resnet20"}
    assert run.status.last_step == 1
    assert run.steps.tolist() == [0, 1], "a study is no step of the training"
    assert (path / "checkpoint.npz").read_bytes() == weights
    for name, columns in before.items():
        for column, values in open_run(path).read(name).items():
            np.testing.assert_array_equal(columns[column], values)


def test_measured_twice_counts_as_measured_last(tmp_path: Path, tiny: DataSet) -> None:
    path = trained("resnet20", tmp_path)
    for draws in (2, 3):
        measure_ways(path, measures=["paths"], images=4, draws=draws)
    assert len(load(path).frame("paths")) == 20
    shown = latest(load(path).frame("paths"), ["length"])
    assert shown["length"].tolist() == list(range(10))
    assert set(shown["draws"]) == {3}


def test_a_dense_net_has_reuse_and_an_inception_net_heads(tmp_path: Path, tiny: DataSet) -> None:
    dense = measure_ways(trained("densenet22", tmp_path), **QUICK, measures=["reuse"])
    assert set(dense.rows) == {"reuse"}
    reuse = load(tmp_path / "densenet22").frame("reuse")
    assert reuse.groupby("block")["target"].max().to_dict() == {f"block{i}": 6 for i in (1, 2, 3)}
    heads = measure_ways(trained("inception_small", tmp_path), **QUICK, measures=["heads"])
    assert set(heads.rows["heads"]["head"]) == {"main", "aux1", "aux2"}
    shares = load(tmp_path / "inception_small").frame("heads").groupby("layer")["share"].sum()
    np.testing.assert_allclose(shares, 1)


def test_what_a_net_lacks_is_refused_when_asked_for(tmp_path: Path, tiny: DataSet) -> None:
    path = trained("plain20", tmp_path)
    with pytest.raises(GradScopeError, match="single path"):
        measure_ways(path, measures=["paths"], **QUICK)
    with pytest.raises(GradScopeError, match="no measure 'roads'; take some of paths, heads"):
        measure_ways(path, measures=["roads"])
    with pytest.raises(GradScopeError, match="1 or more"):
        measure_ways(path, images=0)
    assert not set(open_run(path).tables()) & set(STUDIES)
    writer = RunWriter(tmp_path, "own", RunInfo("net"))
    writer.close()
    with pytest.raises(GradScopeError, match="no checkpoint"):
        measure_ways(writer.path)


def test_lines_of_networks_are_a_run_of_their_own(tmp_path: Path) -> None:
    path = shatter_lines(tmp_path, networks=("plain BN", "residual BN"), depths=(1, 3), seeds=2)
    frame = load(path).frame("shattering")
    assert len(frame) == 2 * 2 * 2 * 16
    assert set(zip(frame["network"], frame["depth"], strict=True)) == {
        (name, depth) for name in ("plain BN", "residual BN") for depth in (1, 3)
    }
    assert (frame.loc[frame["lag"] == 0, "autocorrelation"] == 1).all()
    status = load(path).status
    assert status.state == "finished"
    assert "nothing was trained" in status.verdict
    with pytest.raises(GradScopeError):
        shatter_lines(tmp_path, networks=("plain",), depths=(1,), seeds=1)
    with pytest.raises(GradScopeError, match="no network 'wavy'"):
        shatter_lines(tmp_path, run="other", networks=("wavy",))
    with pytest.raises(GradScopeError, match="1 or more"):
        shatter_lines(tmp_path, run="other", depths=(0,))
    assert not (tmp_path / "other").exists()
