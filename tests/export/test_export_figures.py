"""Files written by an export: their kinds, their content, and what happens without a browser."""

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradscope import GradScopeError, load_all
from gradscope.export import browser_found, export_figures
from gradscope.export import files as exported
from gradscope.schema import RunInfo, Site
from gradscope.store import RunWriter


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list:
    root = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("plain", "residual")):
        writer = RunWriter(root, name, RunInfo(name, {"model": name}))
        writer.set_sites([Site(f"conv{i}", "output", i, "Conv2d", (4, 8)) for i in range(6)])
        for step in range(4):
            writer.append(
                "outputs",
                {
                    "step": np.full(6, step),
                    "site": np.arange(6, dtype=np.int32),
                    "grad_rms": (10.0 ** (np.arange(6) - 4 - number)).astype(np.float32),
                    "sampled_fraction": np.ones(6, dtype=np.float32),
                },
            )
        writer.close()
    return load_all(root)


def test_the_csv_holds_the_numbers_drawn(runs: list, tmp_path: Path) -> None:
    (path,) = export_figures(runs, formats=("csv",), out=tmp_path)
    data = pd.read_csv(path)
    values = data.select_dtypes("number").to_numpy()
    assert np.isclose(values, 1e-4, rtol=1e-4).any()
    assert np.isclose(values, 1.0, rtol=1e-4).any()


def test_the_page_stands_alone(runs: list, tmp_path: Path) -> None:
    (path,) = export_figures(runs, formats=("html",), out=tmp_path)
    text = path.read_text()
    assert "Plotly.newPlot" in text
    assert 'src="http' not in text


def test_one_file_a_run_for_a_figure_of_one_run(runs: list, tmp_path: Path) -> None:
    written = export_figures(runs, figure="gradient-heatmap", formats=("csv",), out=tmp_path)
    assert [p.name for p in written] == [
        "gradient-heatmap-plain.csv",
        "gradient-heatmap-residual.csv",
    ]


def test_runs_without_the_data_get_no_file(runs: list, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    writer = RunWriter(root, "dense", RunInfo("dense"))
    writer.append(
        "reuse",
        {
            "step": np.zeros(1),
            "source": np.zeros(1),
            "target": np.ones(1),
            "block": np.array(["b"], object),
            "weight": np.ones(1),
            "relative": np.ones(1),
        },
    )
    writer.close()
    both = [*runs, *load_all(root)]
    (path,) = export_figures(both, figure="feature-reuse", formats=("csv",), out=tmp_path)
    assert path.name == "feature-reuse-dense.csv"
    with pytest.raises(GradScopeError, match="None of the runs has data for feature-reuse"):
        export_figures(runs, figure="feature-reuse", formats=("csv",), out=tmp_path)


@pytest.mark.browser
def test_images_are_real_and_of_the_size_asked(runs: list, tmp_path: Path) -> None:
    import os

    if not browser_found():
        if os.environ.get("CI") == "true":
            pytest.fail("no browser, though CI must have one")
        pytest.skip("no Chromium or Chrome here")
    png, svg, pdf = export_figures(runs, formats=("png", "svg", "pdf"), out=tmp_path)
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, _ = struct.unpack(">II", head[16:])
    assert width == pytest.approx(4 * 175 / 25.4 * 96, abs=8)
    assert "<text" in svg.read_text()
    assert pdf.read_bytes()[:5] == b"%PDF-"


def test_without_a_browser_the_rest_is_written(runs: list, tmp_path: Path, monkeypatch) -> None:
    def none(_images: object) -> list[bytes]:
        raise GradScopeError("images need a browser and none was found: install Chromium")

    monkeypatch.setattr(exported, "render", none)
    with pytest.raises(GradScopeError, match="install Chromium"):
        export_figures(runs, formats=("png", "html", "csv"), out=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"gradient-flow.html", "gradient-flow.csv"}


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"figure": "gradient-flaw"}, "did you mean gradient-flow"),
        ({"formats": ("gif",)}, "'gif' is no format"),
        ({"figure": "gradient-difference", "runs": 1}, "takes two runs, not 1"),
        ({"runs": 0}, "no run to draw"),
    ],
)
def test_bad_wishes_are_told_in_a_sentence(runs: list, tmp_path: Path, wish, sentence) -> None:
    chosen = runs[: wish.pop("runs", 2)]
    with pytest.raises(GradScopeError, match=sentence):
        export_figures(chosen, out=tmp_path, **wish)
