"""Table steps of the figures of gradient paths and of worth over time, against numbers by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from gradscope.figures.decorrelation import mean_interval, shattering_table
from gradscope.figures.heads import heads_table
from gradscope.figures.paths import effective_range, path_profile, paths_table
from gradscope.figures.reuse import reuse_table
from gradscope.figures.skips import FORMULA, skip_table
from gradscope.figures.worth import worth_table
from gradscope.frame import Run
from gradscope.schema import GradScopeError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("ways"), "r")


def test_effective_range_is_the_shortest_run() -> None:
    length = np.arange(5)
    product = np.array([0.02, 0.4, 0.3, 0.25, 0.03])
    assert effective_range(length, product, 0.6) == (1, 2)
    assert effective_range(length, product, 0.95) == (1, 3)
    assert effective_range(length, product, 1.0) == (0, 4)


def test_paths_are_the_stored_rows_and_tell_their_mean_length(run: Run) -> None:
    prepared = paths_table(run)
    data = prepared.data
    stored = run.frame("paths")
    for name in ("length", "paths", "gradient", "gradient_low", "gradient_high", "contribution"):
        np.testing.assert_allclose(data[name], stored[name])
    # paths x 0.5^k / (1.5 / 2)^9 is the binomial of p = 1/3: mean 3.
    assert data["contribution"] @ data["length"] == pytest.approx(3)
    assert data.loc[data["effective"], "contribution"].sum() >= 0.95
    assert "shorter ways than the average path (3 units against 4.5)" in prepared.answer
    assert "20 draws" in prepared.caption
    assert "64 inputs" in prepared.caption


def test_the_product_is_as_uncertain_as_the_gradient(run: Run) -> None:
    line, paths, product = path_profile(run).data
    np.testing.assert_allclose(line.error_y.array, 0.1 * run.frame("paths")["gradient"])
    np.testing.assert_allclose(product.error_y.array, 0.1 * run.frame("paths")["contribution"])
    assert paths.error_y.array is None, "how many paths there are is known"


def test_heads_leave_out_layers_within_an_auxiliary_head(run: Run) -> None:
    prepared = heads_table(run)
    data = prepared.data
    assert list(dict.fromkeys(data["layer"])) == [
        "stem.conv", "a1.conv", "a2.conv", "b1.conv", "b2.conv",
    ]  # fmt: skip
    assert data["position"].max() == 4
    aux = data[data["head"] == "aux1"].set_index("layer")
    assert aux["norm"].tolist() == [0.25, 0.25, 0.25, 0, 0]
    assert prepared.answer == (
        "At stem.conv 25 % of the heads' gradient comes from auxiliary heads, with the main head"
        " (cosine 0.5)"
    )
    assert "loss weights: main 1, aux1 0.3" in prepared.caption
    with pytest.raises(GradScopeError, match="statistic must be one of share, norm"):
        heads_table(run, statistic="angle")


def test_reuse_compares_the_input_with_the_layer_before(run: Run) -> None:
    prepared = reuse_table(run)
    data = prepared.data.set_index(["source", "target"])
    assert len(data) == 10
    assert data.loc[(0, 4), "weight"] == pytest.approx(0.02)
    # Inputs weigh 1/3, 1/4, 1/5 of 0.1 for targets 2, 3, 4, and the layer before always 1/2.
    ratio = (2 / 3 * 2 / 4 * 2 / 5) ** (1 / 3)
    assert f"×{ratio:.3g} in block1" in prepared.answer
    even = run.frame("reuse").assign(weight=0.1)
    assert "as much as the layer just before" in reuse_table(even).answer


def test_shattering_is_the_mean_over_networks_with_its_interval(run: Run) -> None:
    prepared = shattering_table(run)
    data = prepared.data.set_index(["depth", "lag"])
    assert set(data["network"]) == {"r"}, "one network in a run goes by the run's name"
    assert data.loc[(8, 1), "value"] == pytest.approx(0.52)
    assert data.loc[(8, 1), "low"] == pytest.approx(0.42)
    assert data.loc[(8, 1), "high"] == pytest.approx(0.62)
    assert data.loc[(2, 0), "value"] == 1
    assert set(data["networks"]) == {3}
    assert prepared.answer == "At 8 layers gradients of neighbouring inputs correlate by 0.52 in r"
    with pytest.raises(GradScopeError, match="lag 9 was not measured; the largest is 3"):
        shattering_table(run, lag=9)


def test_the_interval_of_a_mean() -> None:
    low, high = mean_interval(np.random.default_rng(1).normal(5, 1, (400, 2)))
    half = 1.96 / 20
    np.testing.assert_allclose((high - low) / 2, half, rtol=0.2)
    assert (np.abs((high + low) / 2 - 5) < 3 * half).all()
    assert np.isnan(mean_interval(np.ones((1, 3)))).all()


def test_several_networks_of_one_run_keep_their_names_and_share_hues() -> None:
    rows = [
        {"step": 0, "network": name, "depth": 2, "seed": seed, "lag": lag, "distance": lag / 64,
         "autocorrelation": 1 - 0.1 * lag, "coactivation": np.nan}
        for name in ("plain", "plain BN", "residual") for seed in range(2) for lag in range(3)
    ]  # fmt: skip
    looks = shattering_table(pd.DataFrame(rows)).options["looks"]
    assert list(looks) == ["plain", "plain BN", "residual"]
    assert looks["plain"][0] == looks["plain BN"][0] != looks["residual"][0]
    assert looks["plain"][1] != looks["plain BN"][1]


def lesion(step: int, unit: str, delta: float, **more: Any) -> dict[str, Any]:
    return {
        "step": step, "unit": unit, "lesion": "drop", "metric": "accuracy", "value": 0.9 + delta,
        "baseline": 0.9, "delta": delta, "ci_low": delta - 0.05, "ci_high": delta + 0.05,
        "samples": 200, "k": 1, "detail": "{}", **more,
    }  # fmt: skip


def test_worth_is_each_unit_at_each_step() -> None:
    rows = [
        lesion(0, "s1.0", -0.01), lesion(0, "s2.0", 0.02), lesion(50, "s1.0", -0.2),
        lesion(50, "s2.0", -0.6), lesion(50, "s2.0", -0.3), lesion(50, "s1.0", 1, lesion="drop-k"),
    ]  # fmt: skip
    prepared = worth_table(pd.DataFrame(rows))
    data = prepared.data.set_index(["step", "unit"])["delta"]
    assert data.to_dict() == {
        (0, "s1.0"): -0.01, (0, "s2.0"): 0.02, (50, "s1.0"): -0.2, (50, "s2.0"): -0.3,
    }  # fmt: skip
    assert prepared.data["stage"].tolist() == ["s1", "s2", "s1", "s2"]
    assert prepared.answer == (
        "At step 50 dropping s2.0 changes accuracy most (−0.3); at step 0 it was +0.02"
    )
    assert "200 samples" in prepared.caption
    loss = worth_table(pd.DataFrame([r | {"metric": "loss", "delta": -r["delta"]} for r in rows]))
    assert "dropping s2.0 changes loss most (+0.3)" in loss.answer


def test_one_step_is_no_history(tmp_path: Path) -> None:
    prepared = worth_table(pd.DataFrame([lesion(5, "s1.0", -0.1)]))
    assert prepared.data.empty
    assert "fewer than two steps" in prepared.answer


def test_the_skip_map_names_the_formula(run: Run) -> None:
    prepared = skip_table(run)
    assert prepared.name == "skip-share"
    assert FORMULA in prepared.caption
    stored = run.frame("blocks")
    assert sorted(prepared.data["value"]) == pytest.approx(sorted(stored["skip_share"]))


@pytest.mark.parametrize(
    "table", [paths_table, heads_table, reuse_table, shattering_table, worth_table]
)
def test_nothing_measured_is_said(empty_run: Run, table: Any) -> None:
    prepared = table(empty_run)
    assert prepared.data.empty
    assert prepared.answer
