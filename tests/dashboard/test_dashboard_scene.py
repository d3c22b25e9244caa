"""What the state and the folder of runs make of a view: archives, and the baseline mark."""

from pathlib import Path

import pytest
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.scene import scene
from gradscope_dashboard.state import State

from gradscope.schema import RunInfo
from gradscope.store import RunWriter, annotate_run, archive_run, delete_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, family in (("flat", "plain"), ("skip", "residual"), ("packed", "dense")):
        RunWriter(tmp_path, name, RunInfo(name, family=family)).close()
    archive_run(tmp_path / "packed", tmp_path / "packed.zip")
    delete_run(tmp_path / "packed")
    return tmp_path


def base_of(runs: Path, state: State) -> str:
    base = scene(Catalog(runs), state).base
    return "" if base is None else base.name


def test_the_marked_run_is_the_baseline_until_the_address_names_one(runs: Path) -> None:
    assert base_of(runs, State()) == "flat"  # the plain one, for want of a mark
    annotate_run(runs / "skip", baseline=True)
    assert base_of(runs, State()) == "skip"
    assert base_of(runs, State(base="packed")) == "packed"
    assert base_of(runs, State(hide=("skip",))) == "flat"


def test_an_archive_is_a_run_like_others(runs: Path) -> None:
    seen = scene(Catalog(runs), State(runs=("packed",)))
    assert set(seen.names) == {"flat", "skip", "packed"}
    assert [(run.name, run.model, run.status.state) for run in seen.chosen] == [
        ("packed", "packed", "finished")
    ]
