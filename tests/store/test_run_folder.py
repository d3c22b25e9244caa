"""The run folder gives back what was put in."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gradscope.schema import GradScopeError, RunInfo
from gradscope.store import RunWriter, archive_run, find_run, list_runs, open_run


def fill(writer: RunWriter, first: int, last: int, value: float = 1.0) -> None:
    for step in range(first, last):
        rows = {"step": np.full(5, step), "site": np.arange(5)}
        writer.append("parameters", rows | {"grad_norm": np.full(5, value * (step + 1), "f4")})


def finished(root: Path, name: str = "a", steps: int = 300) -> Path:
    writer = RunWriter(root, name, RunInfo("m", {"lr": 0.1}))
    fill(writer, 0, steps)
    writer.flush()
    fill(writer, steps, steps + 5)
    writer.close()
    return writer.path


def test_rows_come_back_sorted_and_precise(tmp_path: Path) -> None:
    run = open_run(finished(tmp_path))
    rows = run.read("parameters", ["step", "site", "grad_norm"])
    assert np.array_equal(rows["step"] * 5 + rows["site"], np.arange(305 * 5))
    np.testing.assert_allclose(rows["grad_norm"], rows["step"] + 1, rtol=1e-5)
    assert run.status.state == "finished"
    assert run.status.steps_seen == 305
    assert np.unique(run.last_steps("parameters", 10)["step"]).tolist() == list(range(295, 305))


def test_a_plain_parquet_reader_reads_it(tmp_path: Path) -> None:
    parts = sorted((finished(tmp_path) / "parameters").glob("[0-9]*.parquet"))
    assert sum(pq.read_table(str(part)).num_rows for part in parts) == 305 * 5


def test_thinning_loses_no_peak(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "a", RunInfo("m"))
    values = np.random.default_rng(0).normal(size=4000).astype("f4")
    values[1234] = 1e20
    for steps in np.split(np.arange(4000), 8):
        rows = {"step": steps, "site": np.zeros(500, int), "grad_norm": values[steps]}
        writer.append("parameters", rows)
        writer.flush()
    writer.close()
    assert open_run(writer.path).status.steps_seen == 4000
    thin = open_run(writer.path).thinned("parameters", ["grad_norm"], buckets=50)
    assert len(thin["step"]) <= 50
    assert thin["grad_norm_max"].max() == pytest.approx(1e20, rel=1e-5)
    assert thin["grad_norm_min"].min() == pytest.approx(values.min(), rel=1e-5)


def test_sparse_sampling_is_thinned_without_growing(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "a", RunInfo("m"))
    values = np.random.default_rng(0).normal(size=4000).astype("f4")
    for numbers in np.split(np.arange(4000), 8):
        rows = {"step": numbers * 200, "site": np.zeros(500, int), "grad_norm": values[numbers]}
        writer.append("parameters", rows)
        writer.flush()
    writer.close()
    (part,) = (writer.path / "parameters").glob("[0-9]*.parquet")
    thin = writer.path / "parameters.thin" / part.name
    assert pq.ParquetFile(str(thin)).metadata.num_rows < 4000 / 8
    for buckets in (3, 100, 4000):
        found = open_run(writer.path).thinned("parameters", ["grad_norm"], buckets=buckets)
        assert 0 < len(found["step"]) <= buckets
        assert found["grad_norm_max"].max() == pytest.approx(values.max(), rel=1e-5)


def test_resuming_rewinds(tmp_path: Path) -> None:
    path = finished(tmp_path)
    writer = RunWriter(tmp_path, "a", RunInfo("m"), resume=True, resume_step=100)
    fill(writer, 100, 150, value=-1.0)
    writer.close()
    run = open_run(path)
    rows = run.read("parameters", ["step", "grad_norm"])
    assert np.array_equal(np.repeat(np.arange(150), 5), rows["step"])
    assert ((rows["grad_norm"] < 0) == (rows["step"] >= 100)).all()
    assert run.segments[-1].rewound_to == 304


def test_the_second_writer_is_refused(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "a", RunInfo("m"))
    with pytest.raises(GradScopeError, match="already exists"):
        RunWriter(tmp_path, "a", RunInfo("m"))
    with pytest.raises(GradScopeError, match="another process"):
        RunWriter(tmp_path, "a", RunInfo("m"), resume=True)
    assert open_run(writer.path).status.state == "running"
    writer.close()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        ".x",
        "a/b",
        "a\\b",
        "CON",
        "nul.txt",
        "a ",
        "x" * 121,
        "-x",
        "a\n",
        "a:b",
        "cafe\u0301",
    ],
)
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(GradScopeError):
        RunWriter(tmp_path, name, RunInfo("m"))


def test_names_clashing_by_case_are_refused(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(GradScopeError, match="case"):
        RunWriter(tmp_path, "A", RunInfo("m"))


def test_an_archive_reads_like_its_run(tmp_path: Path) -> None:
    path = finished(tmp_path)
    run = open_run(archive_run(path, tmp_path / "a.zip"))
    for name, values in open_run(path).read("parameters").items():
        np.testing.assert_array_equal(values, run.read("parameters")[name])


@pytest.mark.parametrize(("name", "state"), [("run.json", "broken"), ("status.json", "killed")])
def test_a_huge_file_and_a_folder_in_place_of_one(tmp_path: Path, name: str, state: str) -> None:
    path = finished(tmp_path)
    with open(path / name, "wb") as file:
        file.truncate(2**30)
    (huge,) = list_runs(tmp_path)
    (path / name).unlink()
    (path / name).mkdir()
    (folder,) = list_runs(tmp_path)
    for summary in (huge, folder):
        assert summary.status.state == state
        assert name in summary.status.error


def test_a_missing_run_names_near_ones(tmp_path: Path) -> None:
    finished(tmp_path, "resnet20")
    with pytest.raises(GradScopeError, match="resnet20"):
        find_run("resnet2O", tmp_path)
