"""Names of networks -> several recorded trainings that can be compared.

Must never know figures or the dashboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradscope.experiments.datasets import SMALL
from gradscope.experiments.training import OnProgress, train
from gradscope.schema import GradScopeError
from gradscope.store import delete_run, open_run

DEMO_MODELS = ("plain20", "resnet20", "densenet22")
DEMO: dict[str, Any] = {"data": SMALL, "epochs": 2, "batch_size": 64, "lr": 0.1, "every": 8}


def compare(
    models: Sequence[str],
    *,
    seeds: int = 1,
    root: str | Path = "runs",
    retrain: bool = False,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> list[Path]:
    """Train each network under the seeds 0 .. seeds - 1 and return the run folders.

    A finished run of the same name and settings is not trained again unless `retrain`; one that
    was broken off is replaced. Raises GradScopeError when a run of that name has other settings.
    """
    if seeds < 1:
        raise GradScopeError(f"seeds must be 1 or more, not {seeds}.")
    paths = []
    for model in models:
        for seed in range(seeds):
            name = model if seeds == 1 else f"{model}-seed{seed}"
            path = Path(root) / name
            if path.exists() and not _stale(path, {"model": model, "seed": seed, **settings}):
                if not retrain:
                    paths.append(path)
                    continue
                delete_run(path)
            paths.append(
                train(model, seed=seed, run=name, root=root, on_progress=on_progress, **settings)
            )
    return paths


def demo(
    root: str | Path = "runs/demo",
    *,
    retrain: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """A plain, a residual and a dense net of comparable depth on the embedded images."""
    return compare(DEMO_MODELS, root=root, retrain=retrain, on_progress=on_progress, **DEMO)


def _stale(path: Path, wanted: dict[str, Any]) -> bool:
    """Make room when a run was broken off; False when a finished one with these settings is there."""
    stored = open_run(path)
    if stored.status.state == "running":
        raise GradScopeError(
            f"The run {path} is being written now; wait, or choose another --runs."
        )
    if stored.status.state != "finished":
        delete_run(path)
        return True
    config = stored.info.config
    other = [key for key, value in wanted.items() if key in config and config[key] != value]
    if other:
        was = ", ".join(f"{key}={config[key]!r}" for key in other)
        raise GradScopeError(
            f"The run {path} was made with {was}; choose another --runs folder, or delete it."
        )
    return False
