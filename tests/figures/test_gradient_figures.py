"""Table steps of the gradient figures: numbers against the known runs, folding, bands, marks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from gradscope.figures import histogram
from gradscope.figures.difference import difference_table
from gradscope.figures.flow import flow_table
from gradscope.figures.heatmap import condense, heatmap_table, with_gaps
from gradscope.figures.layer import histogram_table, parameter_table
from gradscope.figures.skips import skip_table
from gradscope.figures.sources import groups
from gradscope.figures.theme import FAMILY_HUES
from gradscope.figures.training import smooth, training_table
from gradscope.frame import Run
from gradscope.schema import GradScopeError, RunInfo, Site
from gradscope.store import RunWriter, open_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gradients")


@pytest.fixture(scope="module")
def seeds(root: Path) -> list[Run]:
    return [write_run(root, f"resnet20-s{seed}", seed=seed, fall=1.0) for seed in (0, 1)]


@pytest.fixture(scope="module")
def plain(root: Path) -> Run:
    return write_run(root, "plain20", model="plain20", family="plain", fall=3.0)


def frame_of(values: list[list[float]], column: str = "grad_rms") -> pd.DataFrame:
    """A bare frame: a list per step, one value per layer."""
    rows = [
        {"step": 10 * step, "site": f"layer{depth}", "depth": depth, column: value}
        for step, line in enumerate(values)
        for depth, value in enumerate(line)
    ]
    return pd.DataFrame(rows)


def test_profile_has_the_recorded_values_of_the_first_step(plain: Run) -> None:
    data = flow_table(plain, step="first").data
    assert data["site"].iloc[0] == "conv1"
    assert data["site"].iloc[-1] == "fc"
    assert not data["site"].str.contains("bn").any()
    assert data["relative_depth"].iloc[[0, -1]].tolist() == [0.0, 1.0]
    wanted = 1e-3 * 10 ** (-3.0 * (1 - data["relative_depth"]))
    np.testing.assert_allclose(data["value"], wanted, rtol=1e-5)
    assert set(data["step"]) == {0.0}


def test_median_and_band_are_percentiles_over_steps() -> None:
    frame = frame_of([[1.0, 10.0], [2.0, np.nan], [3.0, 30.0], [4.0, 40.0], [100.0, np.inf]])
    data = flow_table(frame).data
    assert data["value"].tolist() == [3.0, 30.0]
    # Linear interpolation between order statistics: 10 % of 4 gaps is 0.4 of the first.
    np.testing.assert_allclose(data["low"], [1.4, 14.0])
    np.testing.assert_allclose(data["high"], [4.0 + 0.6 * 96.0, 38.0])
    assert flow_table(frame, band=False).data["low"].isna().all()


def test_seeds_fold_into_one_line_over_all_their_steps(seeds: list[Run], plain: Run) -> None:
    data = flow_table([*seeds, plain]).data
    assert data["run"].unique().tolist() == ["resnet20", "plain20"]
    both = data[data["run"] == "resnet20"].set_index("site")
    assert set(both["seeds"]) == {2}
    single = [run.frame("outputs", columns=["grad_rms"], sites="conv1") for run in seeds]
    every = np.concatenate([frame["grad_rms"] for frame in single])
    assert len(every) == 8
    np.testing.assert_allclose(both.loc["conv1", "value"], np.median(every))
    np.testing.assert_allclose(both.loc["conv1", "high"], np.percentile(every, 90))
    apart = flow_table(seeds, fold=False).data
    assert apart["run"].unique().tolist() == ["resnet20-s0", "resnet20-s1"]


def test_runs_of_one_seed_twice_do_not_fold(root: Path, seeds: list[Run]) -> None:
    twin = write_run(root, "resnet20-again", seed=0, fall=1.0)
    assert len(groups([*seeds, twin])) == 3


def test_families_keep_their_hue_whatever_the_order(seeds: list[Run], plain: Run) -> None:
    for order in ([*seeds, plain], [plain, *seeds]):
        hues = {group.label: group.colour for group in groups(order)}
        assert hues == {"resnet20": FAMILY_HUES["residual"], "plain20": FAMILY_HUES["plain"]}


def test_nonfinite_steps_are_counted_and_told(root: Path) -> None:
    run = write_run(root, "broken", nonfinite_at="stage2.0.conv1")
    prepared = flow_table(run)
    counted = prepared.data.set_index("site")["nonfinite"]
    assert counted["stage2.0.conv1"] == 2
    assert counted.sum() == 2
    assert "non-finite" in prepared.caption
    marked = heatmap_table(run).data
    bad = marked[marked["nonfinite"] > 0]
    assert bad["site"].unique().tolist() == ["stage2.0.conv1"]
    assert bad["step"].tolist() == [20, 30]


def test_sampling_is_told(root: Path) -> None:
    assert "from 25 % of the elements" in flow_table(write_run(root, "part", sampled=0.25)).caption


def test_layers_by_glob_and_all(plain: Run) -> None:
    assert flow_table(plain, layers="stage1.*").data["stage"].unique().tolist() == ["stage1"]
    assert flow_table(plain, layers="all").data["site"].str.contains("bn1").sum() == 9
    with pytest.raises(GradScopeError, match="no layer matches nothing"):
        flow_table(plain, layers="nothing")


def test_wrong_arguments_are_told_with_the_choices(plain: Run) -> None:
    with pytest.raises(GradScopeError, match="have no statistic"):
        flow_table(plain, statistic="grad")
    with pytest.raises(GradScopeError, match="kind must be one of"):
        flow_table(plain, kind="outputs")
    with pytest.raises(GradScopeError, match="x must be one of"):
        flow_table(plain, x="layer")
    with pytest.raises(GradScopeError, match="no runs were given"):
        flow_table([])
    with pytest.raises(GradScopeError, match="shows one run"):
        heatmap_table([plain, plain])


def test_map_has_a_cell_for_every_step_and_layer(plain: Run) -> None:
    data = heatmap_table(plain).data
    known = plain.frame("outputs", columns=["grad_rms"]).astype({"site": "str"})
    both = data.merge(known, on=["step", "site"])
    assert len(both) == len(data) == 4 * 20
    assert (both["value"] == both["grad_rms"]).all()
    assert heatmap_table(plain, first_step=10, last_step=20).data["step"].unique().tolist() == [
        10,
        20,
    ]


def test_condensing_keeps_the_most_extreme_value() -> None:
    steps = np.arange(1000)
    matrix = np.ones((1000, 2))
    matrix[501, 0] = 1e-6
    matrix[733, 1] = 1e6
    first, last, cells, _ = condense(steps, matrix, np.zeros_like(matrix), rows=50)
    assert len(first) == 50
    assert (first[0], last[-1]) == (0, 999)
    assert (last[:-1] + 1 == first[1:]).all()
    assert cells[:, 0].min() == 1e-6
    assert cells[:, 1].max() == 1e6


def test_missing_steps_leave_a_gap() -> None:
    steps = np.array([0, 10, 20, 200, 210, 220])
    drawn, values = with_gaps(steps, np.ones((6, 2)))
    assert np.isnan(values[(drawn > 20) & (drawn < 200)]).all()
    assert ((drawn > 20) & (drawn < 200)).sum() == 2
    assert np.isfinite(values).all(axis=1).sum() == 6


def test_difference_of_a_run_with_itself_is_zero_and_of_two_is_their_ratio(plain: Run) -> None:
    zero = difference_table([plain, plain])
    assert (zero.data["change"] == 0).all()
    assert "within a factor 2" in zero.answer
    pair = pd.concat(
        [frame_of([[1.0, 8.0]]).assign(run="a"), frame_of([[10.0, 4.0]]).assign(run="b")]
    )
    data = difference_table(pair).data
    np.testing.assert_allclose(data["change"], [-1.0, np.log10(2.0)])
    with pytest.raises(GradScopeError, match="needs two runs"):
        difference_table(plain)


def test_difference_pairs_by_relative_depth_where_names_differ() -> None:
    first = frame_of([[1.0, 1.0, 1.0]]).assign(run="a")
    second = frame_of([[0.1, 10.0]]).assign(run="b")
    second["site"] = second["site"] + "x"
    data = difference_table(pd.concat([first, second]), layers="all").data
    np.testing.assert_allclose(data["change"], [1.0, 0.0, -1.0], atol=1e-12)


def test_shares_are_subtracted_not_divided() -> None:
    first = frame_of([[0.5, 0.0]], "zero_fraction").assign(run="a")
    second = frame_of([[0.25, 0.75]], "zero_fraction").assign(run="b")
    prepared = difference_table(pd.concat([first, second]), statistic="zero_fraction")
    assert prepared.data["change"].tolist() == [0.25, -0.75]
    assert "0.75 below" in prepared.answer
    assert "decades" not in prepared.answer


def test_skip_share_has_the_recorded_shares(seeds: list[Run]) -> None:
    data = skip_table(seeds[0]).data
    assert data["value"].between(0, 1).all()
    known = seeds[0].frame("blocks")
    np.testing.assert_allclose(
        data.sort_values(["step", "depth"])["value"],
        known["skip_grad_norm"] / (known["skip_grad_norm"] + known["branch_grad_norm"]),
        rtol=1e-4,
    )


def test_curves_of_one_parameter(plain: Run) -> None:
    prepared = parameter_table(plain, "fc.weight", statistics=("weight_norm", "grad_rms"))
    data = prepared.data
    assert data[data["statistic"] == "weight_norm"]["value"].tolist() == [4.0] * 4
    assert data[data["statistic"] == "grad_rms"]["step"].tolist() == [0, 10, 20, 30]
    assert "from 4 to 4 (×1)" in prepared.answer


def test_histogram_shares_sum_to_one_and_empty_ends_are_cut(plain: Run) -> None:
    data = histogram_table(plain, "fc").data
    np.testing.assert_allclose(data.groupby("step")["share"].sum(), 1.0)
    occupied = data.groupby("exponent")["share"].max()
    assert occupied.iloc[0] > 0
    assert occupied.iloc[-1] > 0
    stored = plain.frame("histograms", sites="fc")
    assert stored["exponent"].min() < occupied.index[0]
    one = stored[(stored["step"] == 10) & (stored["count"] > 0)].set_index("exponent")["count"]
    mine = data[data["step"] == 10].set_index("exponent")["share"]
    np.testing.assert_allclose(mine[one.index], one / one.sum())
    with pytest.raises(GradScopeError, match="'gradient' or 'tensor'"):
        histogram_table(plain, "fc", of="weights")


def test_what_float16_would_lose_is_left_of_the_line(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "tiny", RunInfo("net"))
    writer.set_sites([Site("fc", "output", 0, "Linear", (2, 10))])
    exponent = np.arange(-27, -23)
    kept = (1.5 * 2.0**exponent).astype(np.float16) > 0
    assert kept.tolist() == [False, False, True, True]
    writer.append(
        "histograms",
        {
            "step": np.zeros(4, dtype=np.int64),
            "site": np.zeros(4, dtype=np.int32),
            "of": np.ones(4, dtype=np.int32),
            "exponent": exponent,
            "count": np.array([1, 1, 3, 5]),
        },
    )
    writer.close()
    figure = histogram(Run(open_run(writer.path)), "fc")
    assert "20 % would be zero in float16" in figure.layout.meta["answer"]
    assert figure.layout.shapes[0].x0 == -25.5


def test_training_curves_are_the_logged_values(plain: Run) -> None:
    data = training_table(plain, smoothing=0.0).data
    loss = data[data["name"] == "loss"]
    logged = plain.frame("scalars")
    assert loss["value"].tolist() == logged[logged["name"] == "loss"]["value"].tolist()
    checks = data[data["name"] == "val_loss"]
    assert checks["validation"].all()
    assert set(checks["panel"]) == {"loss"}


def test_seeds_fold_into_median_and_extremes(seeds: list[Run]) -> None:
    data = training_table(seeds, smoothing=0.0).data
    loss = data[data["name"] == "loss"].set_index("step")
    logged = [run.frame("scalars").query("name == 'loss'").set_index("step") for run in seeds]
    pair = np.column_stack([frame["value"] for frame in logged])
    np.testing.assert_allclose(loss["value"], pair.mean(axis=1))
    np.testing.assert_allclose(loss["low"], pair.min(axis=1))
    np.testing.assert_allclose(loss["high"], pair.max(axis=1))


def test_a_logged_nan_is_marked_and_a_step_without_a_value_is_not(tmp_path: Path) -> None:
    runs = []
    for seed, steps in enumerate(([0, 1, 2, 3], [0, 2])):
        writer = RunWriter(tmp_path, f"n-s{seed}", RunInfo("n", {"model": "n", "seed": seed}))
        value = np.array([1.0, np.nan, np.inf, 2.0])[steps]
        names = np.array(["loss"] * len(steps), dtype=object)
        time = np.full(len(steps), 1e9)
        writer.append(
            "scalars", {"step": np.array(steps), "name": names, "value": value, "time": time}
        )
        writer.close()
        runs.append(Run(open_run(writer.path)))
    prepared = training_table(runs)
    assert prepared.data.set_index("step")["nonfinite"].to_dict() == {0: 0, 1: 1, 2: 2, 3: 0}
    assert "✕ not finite" in prepared.caption


def test_smoothing_keeps_constants_and_gaps() -> None:
    values = np.array([2.0, 2.0, np.nan, 2.0, 2.0])
    np.testing.assert_allclose(smooth(values, 1), values)
    # Triangular weights 1 2 1, cut at the ends: (2*0 + 4) / 3 and (0 + 2*4 + 0) / 4.
    np.testing.assert_allclose(smooth(np.array([0.0, 4.0, 0.0]), 1), [4 / 3, 2.0, 4 / 3])


def test_long_curves_are_thinned_with_their_spikes(root: Path) -> None:
    run = write_run(root, "long", steps=4000, every=2000)
    frame = training_table(run, names=("loss",)).data
    loss = frame[frame["name"] == "loss"]
    logged = run.frame("scalars").query("name == 'loss'")["value"]
    assert len(loss) <= 1502
    assert loss["value"].max() == logged.max()
    assert loss["value"].min() == logged.min()
