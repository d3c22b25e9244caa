"""The sample runs -> the figures of docs/ablation.md, as SVG in docs/images.

    python scripts/make_doc_figures.py [FOLDER OF RUNS]

Needs the runs of scripts/make_sample_runs.py and a Chromium or Chrome; a few seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import plotly.graph_objects as go

from gradscope import figures, load
from gradscope.export import Image, render

HERE = Path(__file__).resolve().parent.parent
PLAIN_AND_RESIDUAL = ("plain20", "resnet20")
NETWORKS = ("plain20", "resnet20", "densenet22", "inception_small")


def drawn(root: Path) -> dict[str, go.Figure]:
    """Each figure by its file's name."""
    look = {"style": "screen", "width": "double"}

    def runs(names: tuple[str, ...]) -> list[object]:
        return [load(root / name) for name in names]

    return {
        "ablation-bars": figures.ablation_bars(runs(PLAIN_AND_RESIDUAL), **look),
        "ablation-curve": figures.ablation_curve(runs(PLAIN_AND_RESIDUAL), **look),
        "ablation-heatmap": figures.ablation_heatmap(load(root / "resnet20"), **look),
        "skip-share": figures.skip_share(load(root / "resnet20"), **look),
        "path-profile": figures.path_profile(load(root / "resnet20"), **look),
        "head-share": figures.head_share(load(root / "inception_small"), **look),
        "feature-reuse": figures.feature_reuse(load(root / "densenet22"), **look),
        "shattering": figures.shattering(load(root / "shattering"), **look),
        "shattering-images": figures.shattering(runs(NETWORKS), **look),
    }


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "sample_runs"
    pictures = drawn(root)
    contents = render([Image(figure, "svg") for figure in pictures.values()])
    for (name, figure), content in zip(pictures.items(), contents, strict=True):
        path = HERE / "docs" / "images" / f"{name}.svg"
        path.write_bytes(content)
        print(f"{path.name}: {len(content) / 1000:.0f} kB. {figure.layout.meta['answer']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
