"""The ablation page without a browser: a panel for whatever the runs have, a command for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.exports import contents
from gradscope_dashboard.pages import ablation
from gradscope_dashboard.scene import scene
from gradscope_dashboard.state import State
from gradscope_dashboard.studies import BY_NAME

from gradscope.schema import GradScopeError, RunInfo
from gradscope.store import RunWriter

WAYS: dict[str, dict[str, Any]] = {
    "paths": {"length": [0, 1], "paths": [0.5, 0.5], "gradient": [2.0, 1.0], "draws": [4, 4],
              "gradient_low": [1.9, 0.9], "gradient_high": [2.1, 1.1],
              "contribution": [2 / 3, 1 / 3], "samples": [8, 8]},
    "heads": {"depth": [0, 0], "layer": ["conv", "conv"], "head": ["main", "aux1"],
              "weight": [1, 0.3], "norm": [3.0, 1.0], "share": [0.75, 0.25], "cosine": [1, 0.5],
              "relative_depth": [0.0, 0.0], "samples": [8, 8]},
    "reuse": {"source": [0, 0, 1], "target": [1, 2, 2], "block": ["b"] * 3,
              "weight": [0.4, 0.1, 0.2], "relative": [1, 0.25, 0.5]},
    "shattering": {"depth": [5] * 4, "seed": [0, 0, 1, 1], "lag": [0, 1, 0, 1],
                   "network": ["net"] * 4, "distance": [0, 0.1] * 2,
                   "autocorrelation": [1, 0.4, 1, 0.6], "coactivation": [0.25] * 4},
}  # fmt: skip


def put(writer: RunWriter, table: str, step: int, columns: dict[str, Any]) -> None:
    count = len(next(iter(columns.values())))
    arrays = {
        name: np.array(values, dtype=object if isinstance(values[0], str) else None)
        for name, values in columns.items()
    }
    writer.append(table, {"step": np.full(count, step), **arrays})


def lesions(delta: float) -> dict[str, Any]:
    return {
        "unit": ["s1.0", "s2.0"], "lesion": ["drop"] * 2, "metric": ["accuracy"] * 2,
        "value": [0.9 + delta, 0.8], "baseline": [0.9] * 2, "delta": [delta, -0.1],
        "ci_low": [delta - 0.1, -0.2], "ci_high": [delta + 0.1, 0.0], "samples": [100] * 2,
        "parameters": [10] * 2, "macs": [1000] * 2, "k": [1] * 2, "detail": ["{}"] * 2,
    }  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A bare run, one with the ways of the gradient, and one with lesions at two steps."""
    RunWriter(tmp_path, "bare", RunInfo("net")).close()
    writer = RunWriter(tmp_path, "ways", RunInfo("net", {"build": {}}))
    for table, columns in WAYS.items():
        put(writer, table, 3, columns)
    writer.close()
    writer = RunWriter(tmp_path, "lesions", RunInfo("net"))
    put(writer, "ablations", 1, lesions(-0.1))
    put(writer, "ablations", 5, lesions(-0.6))
    writer.close()
    return Catalog(tmp_path)


def shown(catalog: Catalog, state: State) -> tuple[str, str]:
    """The title and the whole page as JSON text."""
    title, _, body = ablation.view(scene(catalog, state))
    return str(title), json.dumps(
        [part.to_plotly_json() for part in body], default=_plain, ensure_ascii=False
    )


def _plain(value: Any) -> Any:
    return value.to_plotly_json() if hasattr(value, "to_plotly_json") else str(value)


def test_a_panel_for_each_study_of_the_run(catalog: Catalog) -> None:
    title, page = shown(catalog, State(run="ways"))
    assert title.startswith("95 % of the gradient passes 0 to 1 of 1 units")
    for name in ("path-profile", "head-share", "feature-reuse", "shattering"):
        assert f"ablation-graph-{name}-panel" in page
        assert name in BY_NAME
    assert "At conv 25 % of the heads' gradient" in page
    assert "figures.path_profile(run).show()" in page.replace("gradscope.", "")
    assert "gradscope ablate" in page
    assert "gradscope paths" not in page


def test_worth_over_training_needs_two_steps(catalog: Catalog) -> None:
    title, page = shown(catalog, State(run="lesions"))
    assert title.startswith("Dropping s1.0 changes accuracy most (−0.6)")
    for name in ("ablation-bars", "ablation-heatmap", "pareto"):
        assert f"ablation-graph-{name}-panel" in page
    assert "at step 1 it was −0.1" in page
    assert "ablation-graph-ablation-curve" not in page
    assert "gradscope paths" in page


def test_nothing_studied_says_both_commands(catalog: Catalog) -> None:
    title, page = shown(catalog, State(run="bare"))
    assert title == "bare has not been studied yet"
    assert "gradscope ablate" in page
    assert "gradscope paths" in page


def test_all_runs_together_name_the_one_drawn(catalog: Catalog, tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "zz", RunInfo("net"))
    put(writer, "paths", 3, WAYS["paths"])
    writer.close()
    _, page = shown(Catalog(tmp_path), State(runs=("bare", "ways", "lesions", "zz")))
    assert "This is ways; choose another run above." in page
    _, page = shown(Catalog(tmp_path), State(runs=("bare", "ways")))
    assert f"gradscope ablate {tmp_path / 'ways'}" in page, "a command for a run it cannot rebuild"


def test_networks_of_numbers_stand_apart_and_have_nothing_to_drop(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "lines", RunInfo("LineNet"))
    put(writer, "shattering", 0, WAYS["shattering"])
    writer.close()
    title, page = shown(Catalog(tmp_path), State())
    assert title == "At initialisation gradients of neighbouring inputs correlate by 0.5 in lines"
    assert "ablation-graph-shattering-by-depth-panel" in page
    assert "gradscope ablate" not in page


@pytest.mark.parametrize("name", BY_NAME)
def test_each_study_is_exported_as_shown(catalog: Catalog, name: str) -> None:
    seen = scene(catalog, State())
    having = [run for run in seen.visible if BY_NAME[name].has(run)]
    if not having:
        assert name in ("ablation-curve", "skip-share", "shattering-by-depth")
        with pytest.raises(GradScopeError, match=f"no visible run has data for {name}"):
            contents(seen, seen.visible, name, "csv")
        return
    lines = contents(seen, seen.visible, name, "csv").decode().splitlines()
    assert len(lines) > 1
    assert "nothing" not in lines[0]
