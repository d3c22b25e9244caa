"""Names of networks -> several recorded trainings that can be compared.

Must never know figures or the dashboard.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradscope.experiments.datasets import SMALL
from gradscope.experiments.training import OnProgress, train
from gradscope.models import family
from gradscope.schema import GradScopeError
from gradscope.store import delete_run, open_run

DEMO_MODELS = ("plain20", "resnet20", "densenet22")
DEMO: dict[str, Any] = {"data": SMALL, "epochs": 2, "batch_size": 64, "lr": 0.1, "every": 8}

_COMPARED = (
    "data",
    "image_size",
    "epochs",
    "batch_size",
    "lr",
    "every",
    "aux_weight",
    "survival_until",
    "ablate_every",
)
"""Settings in which a finished run must agree to stand for one that was asked for."""

_FROM_DATA = ("in_channels", "num_classes", "image_size", "seed")
_TRAIN = inspect.signature(train).parameters


@dataclass(frozen=True)
class Variant:
    """One side of a comparison: its run's name, the network, and options that set it apart."""

    label: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)


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

    A finished run of the same name and settings is not trained again; one that was broken off is
    replaced, and with `retrain` every one. Raises GradScopeError when a run of that name has other
    settings, is being written, or was not made by `train`.
    """
    variants = [Variant(model, model) for model in models]
    return train_variants(
        variants, seeds=seeds, root=root, retrain=retrain, on_progress=on_progress, **settings
    )


def train_variants(
    variants: Sequence[Variant],
    *,
    seeds: int = 1,
    root: str | Path = "runs",
    retrain: bool = False,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> list[Path]:
    """As `compare`, each variant under its label and with its options before `settings`."""
    if seeds < 1:
        raise GradScopeError(f"seeds must be 1 or more, not {seeds}.")
    for variant in variants:
        family(variant.model)
    paths = []
    for variant in variants:
        for seed in range(seeds):
            name = variant.label if seeds == 1 else f"{variant.label}-seed{seed}"
            path = Path(root) / name
            wanted = {**settings, **variant.options}
            if path.exists():
                if _reusable(path, _recipe(variant.model, seed, wanted), retrain):
                    paths.append(path)
                    continue
                delete_run(path)
            done = train(
                variant.model, seed=seed, run=name, root=root, on_progress=on_progress, **wanted
            )
            paths.append(done)
    return paths


def demo(
    root: str | Path = "runs/demo",
    *,
    retrain: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """A plain, a residual and a dense net of comparable depth on the embedded images."""
    return compare(DEMO_MODELS, root=root, retrain=retrain, on_progress=on_progress, **DEMO)


def _recipe(model: str, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the config of such a run holds, in JSON values."""
    plain = {name: settings.get(name, _TRAIN[name].default) for name in _COMPARED}
    options = {name: value for name, value in settings.items() if name not in _TRAIN}
    wanted: dict[str, Any] = json.loads(
        json.dumps({"model": model, "seed": seed, **plain, **options})
    )
    return wanted


def _reusable(path: Path, wanted: Mapping[str, Any], retrain: bool) -> bool:
    """Whether the run at `path` stands for the wanted one; False when it may be replaced."""
    stored = open_run(path)
    config = dict(stored.info.config)
    if stored.status.state == "running":
        raise GradScopeError(
            f"The run {path} is being written now; wait, or choose another --runs."
        )
    if "build" not in config:
        raise GradScopeError(
            f"The run {path} was not made by `gradscope train`; choose another --runs folder."
        )
    if retrain or stored.status.state != "finished":
        return False
    options = {k: v for k, v in config["build"].items() if k not in _FROM_DATA}
    had = {name: config.get(name) for name in ("model", "seed")} | options
    had |= {name: config.get(name, _TRAIN[name].default) for name in _COMPARED}
    other = [name for name in {**wanted, **had} if wanted.get(name) != had.get(name)]
    if other:
        was = ", ".join(f"{name}={had.get(name, 'default')!r}" for name in other)
        raise GradScopeError(
            f"The run {path} was made with {was}; choose another --runs folder, or --retrain."
        )
    return True
