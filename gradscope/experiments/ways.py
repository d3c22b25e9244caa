"""A recorded run with a checkpoint -> the ways its gradient takes, stored in the run.

Also networks of numbers at initialisation -> how their gradients shatter, in a run of its own.
Must never know figures or the dashboard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.ablation import LineNet, feature_reuse, head_share, path_profile, shattering
from gradscope.experiments.checkpoint import rebuild
from gradscope.experiments.datasets import DataSet, load
from gradscope.models import build
from gradscope.schema import GradScopeError, RunInfo
from gradscope.store import RunWriter, open_run
from gradscope.units import auxiliary_heads

Rows = Mapping[str, np.ndarray]
OnProgress = Callable[[str, int, int], None]
"""Told what is measured, how many parts of it are done, and of how many."""

MEASURES = ("paths", "heads", "reuse", "shattering")
"""What can be measured; also the tables the rows go to."""

LINE_NETWORKS: Mapping[str, tuple[str, float]] = {
    "plain": ("plain", 1.0),
    "plain BN": ("plain_bn", 1.0),
    "residual": ("residual", 1.0),
    "residual BN": ("residual_bn", 1.0),
    "residual BN, β = 0.1": ("residual_bn", 0.1),
}
"""Kind and scale of the branch of each `LineNet` by the name it is stored under."""

LINE_DEPTHS = (2, 4, 10, 24, 50)
POINTS = 256
SPAN = (-2.0, 2.0)


@dataclass(frozen=True)
class Ways:
    """What was measured: columns by table. `skipped` says of the others why they do not apply."""

    rows: Mapping[str, Rows]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class _Subject:
    """A trained network, some of its test images, and how it was built."""

    model: nn.Module
    config: Mapping[str, Any]
    images: Tensor
    labels: Tensor
    draws: int
    seeds: int
    on_progress: OnProgress


def measure_ways(
    run: str | Path,
    *,
    measures: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    images: int = 64,
    draws: int = 20,
    seeds: int = 5,
    on_progress: OnProgress | None = None,
) -> Ways:
    """Measure path profile, head share, feature reuse and shattering of a run's network.

    Without `measures` all that the network has parts for. `images`: test images drawn once;
    `draws`: choices of units per path length; `seeds`: fresh initialisations for shattering, whose
    line of inputs is t x one test image, t in [-2, 2]. The rows go into the tables of the same
    names at the run's last step. GradScopeError for a run without a checkpoint, a measure that is
    not known, and one asked for by name that the network has no parts for.
    """
    unknown = [name for name in measures or () if name not in MEASURES]
    if unknown:
        raise GradScopeError(
            f"There is no measure {unknown[0]!r}; take some of {', '.join(MEASURES)}."
        )
    if min(images, draws, seeds) < 1:
        raise GradScopeError("images, draws and seeds must each be 1 or more.")
    path = Path(run)
    model, config = rebuild(path)
    x, y = _some(load(str(config["data"]), data_root, side=config.get("image_size")), images)
    subject = _Subject(model, config, x, y, draws, seeds, on_progress or (lambda *_: None))
    found: dict[str, Rows] = {}
    skipped: dict[str, str] = {}
    for name in measures or MEASURES:
        try:
            found[name] = _MEASURE[name](subject)
        except GradScopeError as reason:
            if measures is not None:
                raise
            skipped[name] = str(reason)
    stored = open_run(path)
    writer = RunWriter(path.parent, path.name, stored.info, resume=True)
    _append(writer, found, max(stored.status.last_step, 0))
    writer.close()
    return Ways(found, skipped)


def shatter_lines(
    root: str | Path = "runs",
    *,
    run: str = "shattering",
    networks: Sequence[str] = tuple(LINE_NETWORKS),
    depths: Sequence[int] = LINE_DEPTHS,
    seeds: int = 20,
    width: int = 200,
    on_progress: OnProgress | None = None,
) -> Path:
    """Gradients of `LineNet`s at initialisation, as Balduzzi et al. 2017 do, in a run of its own.

    256 inputs in [-2, 2], `width` ReLUs a layer; every network at every depth with seeds
    0 .. seeds - 1. Nothing is trained. Returns the run folder. GradScopeError for an unknown
    network, numbers below 1, or a run of that name.
    """
    unknown = [name for name in networks if name not in LINE_NETWORKS]
    if unknown:
        raise GradScopeError(
            f"There is no network {unknown[0]!r}; take some of {', '.join(LINE_NETWORKS)}."
        )
    if not networks or min([seeds, width, *depths], default=0) < 1 or not depths:
        raise GradScopeError("Give at least one network and depth; all numbers must be 1 or more.")
    config = {"points": POINTS, "span": list(SPAN), "width": width, "seeds": seeds}
    writer = RunWriter(root, run, RunInfo("LineNet", config))
    try:
        _shatter(writer, [(n, d) for n in networks for d in depths], seeds, width, on_progress)
        writer.set_findings((), "Gradients at initialisation; nothing was trained")
    except BaseException as stopped:
        writer.close("failed" if isinstance(stopped, Exception) else "interrupted", str(stopped))
        raise
    writer.close()
    return writer.path


def _shatter(
    writer: RunWriter,
    nets: Sequence[tuple[str, int]],
    seeds: int,
    width: int,
    on_progress: OnProgress | None,
) -> None:
    for done, (name, depth) in enumerate(nets, start=1):
        kind, beta = LINE_NETWORKS[name]
        make = partial(_line_net, depth, kind, width, beta)
        rows = shattering(make, points=POINTS, span=SPAN, seeds=seeds).columns()
        _append(writer, {"shattering": _named(rows, name, depth)}, 0)
        if on_progress is not None:
            on_progress("shattering", done, len(nets))


def _line_net(depth: int, kind: str, width: int, beta: float, seed: int) -> LineNet:
    return LineNet(depth, kind, width=width, beta=beta, seed=seed)


def _some(data: DataSet, count: int) -> tuple[Tensor, Tensor]:
    """Normalised test images and labels, chosen at random but always the same."""
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    chosen = order[: min(count, len(order))]
    return data.normalise()(data.test.images[chosen]), data.test.labels[chosen]


def _paths(subject: _Subject) -> Rows:
    def on_length(done: int, total: int) -> None:
        subject.on_progress("paths", done, total)

    batch = (subject.images, subject.labels)
    return path_profile(subject.model, batch, draws=subject.draws, on_length=on_length).columns()


def _heads(subject: _Subject) -> Rows:
    weight = float(subject.config.get("aux_weight", 0.3))
    weights = {name: weight for name, _ in auxiliary_heads(subject.model)}
    batch = (subject.images, subject.labels)
    return head_share(subject.model, batch, weights=weights).columns()


def _reuse(subject: _Subject) -> Rows:
    return feature_reuse(subject.model, example=subject.images[:2]).columns()


def _shattering(subject: _Subject) -> Rows:
    name, recipe = str(subject.config["model"]), dict(subject.config["build"])

    def fresh(seed: int) -> nn.Module:
        subject.on_progress("shattering", seed + 1, subject.seeds)
        return build(name, **{**recipe, "seed": seed})

    found = shattering(
        fresh, points=POINTS, span=SPAN, seeds=subject.seeds, direction=subject.images[0]
    )
    weighted = (nn.modules.conv._ConvNd, nn.Linear)
    depth = sum(isinstance(module, weighted) for module in subject.model.modules())
    return _named(found.columns(), name, depth)


_MEASURE: Mapping[str, Callable[[_Subject], Rows]] = {
    "paths": _paths,
    "heads": _heads,
    "reuse": _reuse,
    "shattering": _shattering,
}


def _named(rows: Rows, network: str, depth: int) -> Rows:
    count = len(rows["lag"])
    return {
        **rows,
        "network": np.full(count, network, dtype=object),
        "depth": np.full(count, depth),
    }


def _append(writer: RunWriter, found: Mapping[str, Rows], step: int) -> None:
    for table, rows in found.items():
        count = len(next(iter(rows.values())))
        writer.append(table, {"step": np.full(count, step), **rows})
