"""Every figure in every style: it draws, says its answer, keeps its parts inside, has no NaN text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from synthetic_runs import write_run

from gradscope import figures
from gradscope.figures.axes import linear_range, log_axis
from gradscope.figures.theme import PX_PER_MM, STYLES
from gradscope.frame import Run
from gradscope.schema import GradScopeError

DRAW: dict[str, Callable[..., go.Figure]] = {
    "flow": lambda runs, **k: figures.gradient_flow(runs, **k),
    "flow-one": lambda runs, **k: figures.gradient_flow(runs[0], step="last", x="depth", **k),
    "flow-parameters": lambda runs, **k: figures.gradient_flow(runs, kind="parameter", **k),
    "flow-share": lambda runs, **k: figures.gradient_flow(
        runs, kind="block", statistic="skip_share", **k
    ),
    "map": lambda runs, **k: figures.gradient_heatmap(runs[0], **k),
    "difference": lambda runs, **k: figures.gradient_difference(runs[:2], **k),
    "difference-share": lambda runs, **k: figures.gradient_difference(
        runs[:2], statistic="zero_fraction", **k
    ),
    "curves": lambda runs, **k: figures.training_curves(runs, **k),
    "parameter": lambda runs, **k: figures.parameter_curves(runs[0], "fc.weight", **k),
    "histogram": lambda runs, **k: figures.histogram(runs[0], "fc", **k),
    "skips": lambda runs, **k: figures.skip_share(runs[0], **k),
    "bars": lambda runs, **k: figures.ablation_bars(runs, **k),
    "curve": lambda runs, **k: figures.ablation_curve(runs, **k),
    "pareto": lambda runs, **k: figures.pareto(runs, **k),
    "worth": lambda runs, **k: figures.ablation_heatmap(runs[-1], **k),
    "paths": lambda runs, **k: figures.path_profile(runs[0], **k),
    "heads": lambda runs, **k: figures.head_share(runs[0], **k),
    "heads-norm": lambda runs, **k: figures.head_share(runs[0], statistic="norm", **k),
    "reuse": lambda runs, **k: figures.feature_reuse(runs[0], **k),
    "reuse-weight": lambda runs, **k: figures.feature_reuse(runs[0], statistic="weight", **k),
    "shattering": lambda runs, **k: figures.shattering(runs, **k),
}
EMPTY: dict[str, Callable[..., go.Figure]] = {
    name: draw
    for name, draw in DRAW.items()
    if name not in ("parameter", "histogram", "difference", "difference-share")
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("drawn")
    return [
        write_run(root, "plain20", model="plain20", family="plain", fall=3.0),
        write_run(root, "resnet20", nonfinite_at="stage2.0.conv1", sampled=0.5),
        write_run(root, "resnet20-b", units=2, lesions_before=(0, 20)),
    ]


def texts(figure: go.Figure) -> list[str]:
    """Every string a reader may see or hover over."""
    found = [figure.layout.meta["answer"], figure.layout.meta["caption"]]
    found += [str(note.text) for note in figure.layout.annotations]
    for trace in figure.data:
        hover = trace.hovertext
        found += [hover] if isinstance(hover, str) else list(hover if hover is not None else [])
    return [str(text) for text in found]


def test_every_public_figure_is_drawn_here() -> None:
    drawn = {name for draw in DRAW.values() for name in draw.__code__.co_names}
    assert set(figures.__all__) <= drawn


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", DRAW)
def test_a_figure_in_a_style(runs: list[Run], name: str, style: str) -> None:
    figure = DRAW[name](runs, style=style)
    assert figure.data
    assert figure.layout.meta["answer"]
    assert figure.layout.template.layout.font.color == STYLES[style].ink
    assert not any("nan" in text.lower() or "None" in text for text in texts(figure))
    shown = figure.layout.title.text
    assert (shown is None) if style == "paper" else figure.layout.meta["answer"][:12] in shown
    assert figure.layout.margin.t < figure.layout.height - 60
    figure.to_json()


@pytest.mark.parametrize("name", DRAW)
def test_widths_in_millimetres(runs: list[Run], name: str) -> None:
    single = DRAW[name](runs, style="paper", width="single")
    assert single.layout.width == pytest.approx(85 * PX_PER_MM)
    assert DRAW[name](runs, width=100).layout.width == pytest.approx(100 * PX_PER_MM)
    assert DRAW[name](runs).layout.width is None


@pytest.mark.parametrize("name", EMPTY)
def test_a_run_without_rows_says_so_instead_of_failing(empty_run: Run, name: str) -> None:
    figure = EMPTY[name]([empty_run])
    assert any(note.text for note in figure.layout.annotations)


def test_two_empty_runs_have_no_difference(empty_run: Run) -> None:
    figure = figures.gradient_difference([empty_run, empty_run])
    assert "cannot be compared" in figure.layout.meta["answer"]


def test_a_run_without_rows_differs_from_nothing(runs: list[Run], empty_run: Run) -> None:
    for pair in ([runs[0], empty_run], [empty_run, runs[0]]):
        figure = figures.gradient_difference(pair)
        assert "cannot be compared" in figure.layout.meta["answer"]


def test_wrong_style_and_width(runs: list[Run]) -> None:
    with pytest.raises(GradScopeError, match="no style named 'neon'"):
        figures.gradient_flow(runs, style="neon")
    with pytest.raises(GradScopeError, match="width must be"):
        figures.gradient_flow(runs, width="wide")


def test_one_legend_entry_a_run(runs: list[Run]) -> None:
    for name in ("flow", "curves", "bars", "curve", "pareto"):
        figure = DRAW[name](runs)
        shown = [t.name for t in figure.data if t.showlegend is not False and t.name]
        assert shown == ["plain20", "resnet20", "resnet20-b"], name


def test_whiskers_reach_the_stored_bounds(runs: list[Run]) -> None:
    figure = figures.ablation_bars(runs[0])
    rows = runs[0].frame("ablations").query("lesion == 'drop'")
    bar = figure.data[0]
    np.testing.assert_allclose(np.array(bar.y) + bar.error_y.array, rows["ci_high"])
    np.testing.assert_allclose(np.array(bar.y) - bar.error_y.arrayminus, rows["ci_low"])


def test_shares_get_a_linear_axis_and_magnitudes_a_log_axis(runs: list[Run]) -> None:
    assert DRAW["flow"](runs).layout.yaxis.type == "log"
    share = DRAW["flow-share"](runs)
    assert share.layout.yaxis.type is None
    assert share.layout.yaxis.range[0] < 0 < 1 < share.layout.yaxis.range[1]
    assert "decades" not in share.layout.meta["answer"]
    assert "decades" not in DRAW["skips"](runs).layout.meta["answer"]
    assert (DRAW["skips"](runs).data[0].zmin, DRAW["skips"](runs).data[0].zmax) == (0, 1)


def test_given_colours_win(runs: list[Run]) -> None:
    figure = figures.ablation_bars(runs, colours={"plain20": "#123456"})
    assert figure.data[0].marker.color == "#123456"


def test_axes_of_values() -> None:
    axis = log_axis(np.array([1e-6, 1e-2, 0.0, np.nan]), "x")
    low, high = axis["range"]
    assert low < -6
    assert high > -2
    assert all(10**low <= tick <= 10**high for tick in axis["tickvals"])
    assert log_axis(np.array([np.nan]), "x")["range"] == [-1.0, 1.0]
    assert linear_range(np.array([0.2, 0.4])) == (0.0, 1.0)
    assert linear_range(np.array([-0.2, 0.4])) == (-0.2, 0.4)
    assert linear_range(np.array([3.0, 3.0])) == (2.5, 3.5)


@pytest.mark.slow
def test_a_figure_becomes_an_image(runs: list[Run], tmp_path: Path) -> None:
    path = tmp_path / "bars.svg"
    figures.ablation_bars(runs, style="paper").write_image(path)
    assert path.read_text().startswith("<svg")
