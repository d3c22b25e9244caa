"""Frames: columns of the contract, NaN for what is missing, depths, alignment, thinning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradscope.frame import (
    Run,
    aligned,
    load,
    load_all,
    load_named,
    nearest_step,
    on_grid,
    select,
    thin,
)
from gradscope.frame.tables import relative_depth
from gradscope.schema import TABLES, Finding, GradScopeError, RunInfo, Site
from gradscope.store import RunWriter, open_run

SITES = [
    Site("conv1", "output", 0, "Conv2d", (2, 4, 8, 8)),
    Site("conv1.weight", "parameter", 0, "Conv2d", (4, 1, 3, 3), 36),
    Site("layer1.0", "block", 3, "ResidualUnit", (2, 4, 8, 8), 0, "layer1"),
    Site("layer1.0.conv1", "output", 1, "Conv2d", (2, 4, 8, 8)),
    Site("fc", "output", 4, "Linear", (2, 10)),
    Site("late", "output", -1, "Linear", (2, 10)),
]
FINDING = Finding("vanishing", "critical", "conv1", 0, 9, "It vanishes.", "Add skips.", 0.9)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        writer = RunWriter(folder, name, RunInfo("net", {"model": "net"}, ("t",), {}, "plain"))
        writer.set_sites(SITES)
        for step in (0, 10, 20):
            writer.append(
                "outputs",
                {
                    "step": np.full(3, step),
                    "site": np.array([4, 0, 3], dtype=np.int32),
                    "grad_rms": np.array([4.0, 1.0, 2.0], dtype=np.float32) + step,
                },
            )
        writer.append(
            "scalars",
            {
                "step": np.arange(3),
                "name": np.array(["loss"] * 3, dtype=object),
                "value": np.array([3.0, np.nan, 1.0]),
                "time": np.full(3, 1e9),
            },
        )
        writer.set_findings([FINDING])
        writer.close()
    return folder


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    return load(root / "a")


def test_columns_are_those_of_the_contract(run: Run) -> None:
    wanted = [c.name for c in TABLES["outputs"].columns]
    at = wanted.index("site") + 1
    assert list(run.frame("outputs").columns) == [
        *wanted[:at],
        "depth",
        "relative_depth",
        *wanted[at:],
    ]
    assert list(run.frame("scalars").columns) == ["step", "name", "value", "time"]
    assert list(run.frame("ablations").columns)[:10] == [
        "step", "unit", "lesion", "metric", "value", "baseline", "delta", "ci_low", "ci_high",
        "samples",
    ]  # fmt: skip
    assert list(run.sites.columns)[:7] == [
        "site", "kind", "depth", "relative_depth", "module_type", "shape", "parameters",
    ]  # fmt: skip
    assert list(run.frame("findings").columns) == [
        "kind", "severity", "confidence", "site", "first_step", "last_step", "sentence", "advice",
    ]  # fmt: skip


def test_rows_carry_names_depths_and_the_recorded_values(run: Run) -> None:
    frame = run.frame("outputs")
    first = frame[frame["step"] == 10]
    assert first["site"].tolist() == ["conv1", "layer1.0.conv1", "fc"]
    assert first["depth"].tolist() == [0, 1, 4]
    assert first["relative_depth"].tolist() == [0.0, 0.25, 1.0]
    assert first["grad_rms"].tolist() == [11.0, 12.0, 14.0]
    assert isinstance(frame["site"].dtype, pd.CategoricalDtype)


def test_what_was_not_recorded_is_nan_and_never_zero(run: Run) -> None:
    frame = run.frame("outputs")
    assert frame[["mean", "zero_fraction", "grad_norm", "sampled_fraction"]].isna().all(axis=None)
    assert run.frame("scalars")["value"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["parameters", "blocks", "histograms", "ablations"])
def test_a_table_without_rows_is_an_empty_frame_with_its_columns(run: Run, name: str) -> None:
    frame = run.frame(name)
    assert frame.empty
    assert {column.name for column in TABLES[name].columns} <= set(frame.columns)


def test_sites_keep_shape_stage_and_unknown_depth(run: Run) -> None:
    sites = run.sites.set_index("site")
    assert sites.loc["conv1", "shape"] == (2, 4, 8, 8)
    assert sites.loc["layer1.0", "stage"] == "layer1"
    assert sites.loc["layer1.0.conv1", "stage"] == "layer1"
    assert sites.loc["conv1.weight", "parameters"] == 36
    assert np.isnan(sites.loc["late", "relative_depth"])
    known = sites["relative_depth"].dropna()
    assert known.between(0, 1).all()
    assert known.max() == 1.0


def test_relative_depth_of_a_single_layer_does_not_divide_by_zero() -> None:
    assert relative_depth(np.array([0])).tolist() == [0.0]
    assert relative_depth(np.array([], dtype=np.int64)).tolist() == []


def test_findings_come_back_as_they_were_written(run: Run) -> None:
    assert run.findings() == (FINDING,)
    row = run.frame("findings").iloc[0]
    assert (row["kind"], row["site"], row["last_step"]) == ("vanishing", "conv1", 9)


def test_reading_a_part(run: Run) -> None:
    frame = run.frame("outputs", columns=["grad_rms"], first_step=10, last_step=10, sites="*conv1")
    assert frame["site"].tolist() == ["conv1", "layer1.0.conv1"]
    assert list(frame.columns) == ["step", "site", "depth", "relative_depth", "grad_rms"]
    assert run.steps.tolist() == [0, 1, 2, 10, 20]
    assert run.sampled_steps().tolist() == [0, 10, 20]


def test_changing_a_frame_does_not_change_the_next_one(run: Run) -> None:
    frame = run.frame("scalars")
    frame["extra"] = 1
    frame.loc[0, "value"] = 99.0
    assert "extra" not in run.frame("scalars")
    assert run.frame("scalars").loc[0, "value"] == 3.0


def test_a_growing_run_shows_its_new_rows(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "live", RunInfo("net"))
    writer.set_sites(SITES)
    row = {"site": np.array([0], dtype=np.int32), "grad_rms": np.array([1.0], dtype=np.float32)}
    writer.append("outputs", {"step": np.array([0]), **row})
    writer.flush()
    run = Run(open_run(tmp_path / "live"))
    assert len(run.frame("outputs")) == 1
    writer.append("outputs", {"step": np.array([1]), **row})
    writer.close()
    assert run.frame("outputs")["step"].tolist() == [0, 1]


def test_errors_say_what_there_is(run: Run, root: Path, tmp_path: Path) -> None:
    with pytest.raises(GradScopeError, match=r"no frame named 'output'.*outputs"):
        run.frame("output")
    with pytest.raises(GradScopeError, match=r"no column 'gradrms'.*grad_rms"):
        run.frame("outputs", columns=["gradrms"])
    with pytest.raises(GradScopeError, match=r"no site matches 'conv9'.*conv1"):
        select(run.frame("outputs"), sites="conv9")
    with pytest.raises(GradScopeError, match="no folder"):
        load_all(tmp_path / "nowhere")
    with pytest.raises(GradScopeError, match="no run in"):
        load_named([tmp_path])
    with pytest.raises(GradScopeError):
        load(root / "c")


def test_loading_several(root: Path) -> None:
    assert [run.name for run in load_all(root)] == ["a", "b"]
    assert [run.name for run in load_all(root, "b*")] == ["b"]
    assert [run.name for run in load_named([root / "b", root])] == ["b", "a", "b"]


def test_aligned_puts_runs_under_each_other(root: Path) -> None:
    frame = aligned(load_all(root), "outputs", ["grad_rms"])
    assert list(frame.columns)[:2] == ["run", "relative_depth"]
    assert frame["run"].value_counts().to_dict() == {"a": 9, "b": 9}
    assert frame["relative_depth"].between(0, 1).all()
    with pytest.raises(GradScopeError, match="no runs"):
        aligned([])


def test_on_grid_interpolates_magnitudes_in_decades() -> None:
    positions = np.array([0.0, 0.5, 1.0])
    values = np.array([1e-4, 0.0, 1e-2])
    grid = np.array([-0.1, 0.0, 0.5, 1.0, 1.1])
    drawn = on_grid(positions, values, grid)
    np.testing.assert_allclose(drawn, [np.nan, 1e-4, 1e-3, 1e-2, np.nan], rtol=1e-12)
    plain = on_grid(positions, np.array([0.0, -1.0, np.nan]), grid, log=False)
    np.testing.assert_allclose(plain, [np.nan, 0.0, -1.0, np.nan, np.nan])
    assert np.isnan(on_grid(positions, np.array([1.0, np.nan, np.nan]), grid)).all()


def test_nearest_step() -> None:
    assert nearest_step([0, 10, 20], 14) == 10
    assert nearest_step([0, 10, 20], "last") == 20
    assert nearest_step([5, 10], "first") == 5
    with pytest.raises(GradScopeError, match="'first' or 'last'"):
        nearest_step([0], "end")
    with pytest.raises(GradScopeError, match="no step"):
        nearest_step([], 0)


def test_thinning_keeps_extremes_infinities_and_ends_of_each_group() -> None:
    noise = np.random.default_rng(0)
    steps = np.arange(5000)
    parts = []
    for site, (low, high) in {"a": (777, 1234), "b": (4001, 2)}.items():
        value = noise.random(5000)
        value[low], value[high] = -9.0, 9.0
        value[3000] = np.inf
        value[3001] = np.nan
        parts.append(pd.DataFrame({"step": steps, "site": site, "value": value}))
    frame = pd.concat(parts, ignore_index=True)
    small = thin(frame, "value", buckets=50)
    assert len(small) <= 2 * (2 * 50 + 3)
    for site, (low, high) in {"a": (777, 1234), "b": (4001, 2)}.items():
        kept = small[small["site"] == site].set_index("step")["value"]
        assert kept[low] == -9.0
        assert kept[high] == 9.0
        assert np.isinf(kept[3000])
        assert {0, 4999} <= set(kept.index)
    merged = small.merge(frame, on=["step", "site"], suffixes=("", "_was"))
    assert (merged["value"] == merged["value_was"]).all()


def test_thinning_leaves_short_frames_alone() -> None:
    frame = pd.DataFrame({"step": range(10), "name": "loss", "value": 1.0})
    assert thin(frame, "value", buckets=5) is frame
    assert thin(frame.iloc[:0], "value").empty
