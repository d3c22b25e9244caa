"""Table steps of the ablation figures: medians, bounds, fronts and merged orders by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from gradscope.figures.bars import bars_table, merged_order
from gradscope.figures.curve import curve_table
from gradscope.figures.front import front_table, on_front
from gradscope.figures.lesions import signed, unit_names
from gradscope.figures.prepared import Prepared
from gradscope.frame import Run
from gradscope.schema import GradScopeError


def lesion(unit: str, value: float, **more: Any) -> dict[str, Any]:
    """A row of `ablations` of a network whose intact accuracy is 0.9, interval ±0.01."""
    row = {
        "run": "net", "family": "residual", "step": 99, "unit": unit, "lesion": "drop",
        "metric": "accuracy", "baseline": 0.9, "samples": 500, "parameters": 10, "macs": 1000,
        "k": 1, "detail": "{}", **more,
    }  # fmt: skip
    delta = value - row["baseline"]
    return {"value": value, "delta": delta, "ci_low": delta - 0.01, "ci_high": delta + 0.01} | row


def drops(values: dict[int, list[float]], **more: Any) -> list[dict[str, Any]]:
    """Rows of k units dropped at random, a value for each draw."""
    return [
        lesion(",".join(f"s.{i}" for i in range(k)), value, lesion="drop-k", k=k,
               detail=f'{{"draw": {draw}}}', **more)
        for k, draws in values.items()
        for draw, value in enumerate(draws)
    ]  # fmt: skip


def test_bars_are_the_rows_of_units_dropped_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path, "r")
    data = bars_table(run).data
    rows = run.frame("ablations").query("lesion == 'drop'")
    assert data["unit"].tolist() == rows["unit"].tolist()
    assert data["position"].tolist() == list(range(9))
    assert data["stage"].tolist() == ["stage1"] * 3 + ["stage2"] * 3 + ["stage3"] * 3
    for name in ("delta", "ci_low", "ci_high", "value"):
        np.testing.assert_allclose(data[name], rows[name])


def test_bars_of_seeds_are_medians_with_the_outermost_bounds(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, f"net-s{seed}", seed=seed) for seed in range(3)]
    prepared = bars_table(runs)
    frames = [run.frame("ablations").query("lesion == 'drop'").set_index("unit") for run in runs]
    delta = pd.concat([frame["delta"] for frame in frames], axis=1)
    data = prepared.data.set_index("unit")
    assert set(data["run"]) == {"net"}
    assert set(data["seeds"]) == {3}
    np.testing.assert_allclose(data["delta"], delta.median(axis=1))
    np.testing.assert_allclose(data["ci_low"], delta.min(axis=1) - 0.01)
    assert "median of 3 seeds" in prepared.caption


def test_bars_take_the_last_step_and_the_last_measurement() -> None:
    frame = pd.DataFrame(
        [lesion("s.0", 0.1, step=10), lesion("s.0", 0.5), lesion("s.1", 0.6), lesion("s.0", 0.7)]
    )
    data = bars_table(frame).data.set_index("unit")
    np.testing.assert_allclose(data.loc["s.0", "delta"], -0.2)
    assert len(data) == 2


def test_bars_sentence_counts_what_makes_no_measurable_difference() -> None:
    rows = [lesion("s.0", 0.5), lesion("s.1", 0.895), lesion("s.2", 0.92)]
    answer = bars_table(pd.DataFrame(rows)).answer
    assert answer == (
        "Dropping s.0 changes accuracy most (−0.4); 1 of 3 units makes no measurable difference"
    )


@pytest.mark.parametrize(
    ("plain", "residual", "told"),
    [(0.2, 0.8, ""), (0.8, 0.2, "against the textbook"), (0.5, 0.51, "no better than the plain")],
)
def test_two_architectures_are_told_as_measured(plain: float, residual: float, told: str) -> None:
    frame = pd.DataFrame(
        [
            lesion("s.0", plain, run="plain20", family="plain"),
            lesion("s.0", residual, run="resnet20"),
        ]
    )
    answer = bars_table(frame).answer
    assert f"{signed(plain - 0.9)} in plain20 and {signed(residual - 0.9)} in resnet20" in answer
    assert (told in answer) if told else ("textbook" not in answer and "no better" not in answer)


def test_loss_that_rises_is_harm() -> None:
    rows = [
        lesion("s.0", 3.0, metric="loss", baseline=0.5),
        lesion("s.1", 0.4, metric="loss", baseline=0.5),
    ]
    assert "Dropping s.0 changes loss most (+2.5)" in bars_table(pd.DataFrame(rows)).answer


def test_orders_merge_without_contradiction() -> None:
    assert merged_order([["a", "c"], ["a", "b", "c", "d"]]) == ["a", "b", "c", "d"]
    assert merged_order([["a"], ["x", "y"]]) == ["x", "y", "a"]
    assert merged_order([]) == []


def test_curve_has_median_and_percentiles_of_the_draws() -> None:
    frame = pd.DataFrame(drops({1: [0.8, 0.7, 0.6, 0.5, 0.1], 2: [0.3]}))
    data = curve_table(frame).data.set_index("k")
    assert data.index.tolist() == [0, 1, 2]
    assert data["value"].tolist() == [0.9, 0.6, 0.3]
    np.testing.assert_allclose(data["low"], [0.9, 0.1 + 0.4 * 0.4, np.nan])
    np.testing.assert_allclose(data["high"], [0.9, 0.7 + 0.6 * 0.1, np.nan])
    assert data["draws"].tolist() == [0, 5, 1]
    assert data["share"].tolist() == [0.0, 0.5, 1.0]


def test_curve_sentence_compares_at_the_same_place() -> None:
    frame = pd.DataFrame(
        [
            *drops({1: [0.7], 2: [0.4], 3: [0.2]}),
            *drops({1: [0.3], 2: [0.2], 3: [0.1]}, run="plain", family="plain"),
        ]
    )
    assert curve_table(frame).answer == (
        "With one unit dropped at random accuracy averages 0.7 in net and 0.3 in plain"
        " (intact: 0.9 in net, 0.9 in plain)"
    )
    against = frame.assign(value=lambda f: np.where(f["run"] == "net", 0.1, f["value"]))
    assert "against the textbook, the plain network" in curve_table(against).answer
    # By share the line falls from 0.9 at 0 to 0.7 at 1/3, 0.8 on average; from 0.9 to 0.3: 0.6.
    assert curve_table(frame, x="share").answer.startswith(
        "With up to a third of the units dropped at random accuracy averages 0.8 in net and 0.6 in"
    )
    same = frame.assign(value=0.5)
    assert "bears it no better than the plain one" in curve_table(same).answer


def test_curve_says_nothing_of_numbers_nobody_drew() -> None:
    frame = pd.DataFrame(drops({5: [0.3], 6: [0.2]}))
    assert "Too few draws" in curve_table(frame).answer
    assert "Too few draws" in curve_table(frame, x="share").answer
    some = pd.DataFrame(drops({2: [0.7], 6: [0.2]}))
    assert curve_table(some).answer.startswith(
        "With 2 units dropped at random accuracy averages 0.7"
    )


def test_front_by_hand() -> None:
    saved = np.array([0, 1, 2, 2, 3, 3])
    good = np.array([0.9, 0.7, 0.8, 0.5, 0.2, 0.2])
    assert on_front(saved, good).tolist() == [True, False, True, False, True, False]
    assert on_front(np.array([1, 2]), np.array([0.5, 0.5])).tolist() == [False, True]


def test_pareto_rows_and_what_can_go_for_free() -> None:
    rows = [
        lesion("s.0", 0.5, macs=3000),
        lesion("s.1", 0.895, macs=2_500_000),
        lesion("s.0,s.1", 0.4, macs=2_503_000, k=2, lesion="drop-k"),
        lesion("all", 0.89, lesion="reorder", macs=0),
    ]
    prepared = front_table(pd.DataFrame(rows))
    data = prepared.data.set_index("unit")
    assert set(data.index) == {"", "s.0", "s.1", "s.0,s.1"}
    assert data["front"].to_dict() == {"": True, "s.0": False, "s.1": True, "s.0,s.1": True}
    assert prepared.answer == (
        "Dropping s.1 saves net 2.5 M multiply-accumulates with no measurable harm to its accuracy"
    )
    harmed = front_table(pd.DataFrame(rows[:1]), cost="parameters").answer
    assert harmed == "Every lesion harms net, the least by accuracy −0.4 (s.0, saves 10 parameters)"


def test_pareto_of_a_loss_prefers_the_smaller_one() -> None:
    rows = [
        lesion("s.0", 0.6, metric="loss", baseline=0.5, macs=1000),
        lesion("s.1", 2.0, metric="loss", baseline=0.5, macs=1000),
    ]
    data = front_table(pd.DataFrame(rows)).data.set_index("unit")
    assert data["front"].to_dict() == {"": True, "s.0": True, "s.1": False}


@pytest.mark.parametrize("table", [bars_table, curve_table, front_table])
def test_a_metric_nobody_measured(tmp_path: Path, table: Any) -> None:
    run = write_run(tmp_path, "r")
    with pytest.raises(GradScopeError, match=r"no lesion was measured by 'f1'.*accuracy"):
        table(run, metric="f1")


@pytest.mark.parametrize("table", [bars_table, curve_table, front_table])
def test_without_lesions_the_table_is_empty_and_says_so(empty_run: Run, table: Any) -> None:
    prepared: Prepared = table(empty_run)
    assert prepared.data.empty
    assert prepared.answer.startswith("No ")


def test_names_of_units() -> None:
    assert unit_names('["a.0", "b.1"]') == ["a.0", "b.1"]
    assert unit_names("a.0,b.1") == ["a.0", "b.1"]
    assert [signed(v) for v in (0.0121, -0.6704, 0.0, -0.0001, 12.34)] == [
        "+0.012", "−0.67", "0", "0", "+12.3",
    ]  # fmt: skip
