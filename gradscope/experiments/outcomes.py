"""Finished runs of a study -> what came of each, and differences between variants over seeds.

Must never know which study asks, figures or the dashboard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gradscope.ablation import head_share
from gradscope.diagnosis import panel, student
from gradscope.experiments.checkpoint import rebuild
from gradscope.experiments.datasets import DataSet
from gradscope.experiments.training import switch_step
from gradscope.store import StoredRun, open_run
from gradscope.units import auxiliary_heads, remove_head

EARLY = 0.25
"""Share of the steps that counts as early training, and as its end for the training loss."""

OUTCOMES: Mapping[str, tuple[str, str]] = {
    "accuracy": ("test accuracy", "%"),
    "early_accuracy": ("training accuracy, first quarter", "%"),
    "late_accuracy": ("training accuracy, last quarter", "%"),
    "train_loss": ("training loss, last quarter", "nats"),
    "growth_start": ("gradient growth to the input, step 0", "decades"),
    "growth": ("gradient growth to the input, later", "decades"),
    "first": ("gradient at the first convolution", "log10 rms"),
    "growth_before": ("gradient growth, blocks dropped", "decades"),
    "growth_after": ("gradient growth, blocks all there", "decades"),
    "aux_share": ("auxiliary heads' share of the gradient at the first convolution", "%"),
    "removal": ("largest change of the main output without the heads", ""),
}
"""Measure -> its label and unit. Growth: log10 of the loss gradient's rms at the first
convolution's output over that at the last one's that took part, median over sampled steps."""


@dataclass(frozen=True)
class Spread:
    """The mean over seeds and its 95 % interval (Student's t); NaN bounds for one seed."""

    mean: float
    low: float
    high: float
    seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Mean of one value per seed, with its interval; NaN where a seed has no finite value."""
    found = np.asarray(values, np.float64)
    n = len(found)
    mean = float(found.mean()) if n else math.nan
    if n < 2 or not np.isfinite(mean):
        return Spread(mean, math.nan, math.nan, n)
    half = student(n - 1) * float(found.std(ddof=1)) / math.sqrt(n)
    return Spread(mean, mean - half, mean + half, n)


def difference(left: Sequence[float], right: Sequence[float]) -> Spread:
    """left - right, seed by seed: the same seed means the same weights and order of the data."""
    return spread([a - b for a, b in zip(left, right, strict=True)])


def outcome(path: Path, data: DataSet) -> dict[str, float]:
    """What the run in that folder reached, by name of `OUTCOMES`; NaN where it has no such thing."""
    run = open_run(path)
    found = {**_scalars(run), **_gradients(run)}
    return found | _heads(path, data)


def _scalars(run: StoredRun) -> dict[str, float]:
    columns = run.read("scalars", ("step", "name", "value"))
    names, values = columns["name"].astype(str), columns["value"]

    def series(name: str) -> np.ndarray:
        return np.asarray(values[names == name], np.float64)

    tested, seen, loss = series("val_accuracy"), series("accuracy"), series("loss")
    part = max(1, round(EARLY * len(loss)))
    return {
        "accuracy": 100 * float(tested[-1]) if len(tested) else math.nan,
        "early_accuracy": 100 * float(seen[:part].mean()) if len(seen) else math.nan,
        "late_accuracy": 100 * float(seen[-part:].mean()) if len(seen) else math.nan,
        "train_loss": float(loss[-part:].mean()) if len(loss) else math.nan,
    }


def _gradients(run: StoredRun) -> dict[str, float]:
    found = panel(run.read("outputs", ("step", "site", "grad_rms")), ("grad_rms",), run.sites)
    convolutions = ["Conv" in run.sites[i].module_type for i in found.sites]
    rms = found.mean["grad_rms"][:, convolutions]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(rms)
    logs[~np.isfinite(logs)] = np.nan  # a convolution whose block was dropped in that step
    growth = logs[:, 0] - np.array([_last(row) for row in logs])
    steps = found.first
    total = int(run.status.steps_seen)
    switch = switch_step(float(run.info.config.get("survival_until", 1.0)), total)
    dropping = float(run.info.config["build"].get("survival", 1.0)) < 1.0
    return {
        "growth_start": _median(growth[steps == 0]),
        "growth": _median(growth[steps > 0]),
        "first": _median(logs[steps > 0, 0]),
        "growth_before": _median(growth[(steps > 0) & (steps < switch)]) if dropping else math.nan,
        "growth_after": _median(growth[steps >= switch]) if dropping else math.nan,
    }


def _last(row: np.ndarray) -> float:
    finite = row[np.isfinite(row)]
    return float(finite[-1]) if len(finite) else math.nan


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _heads(path: Path, data: DataSet) -> dict[str, float]:
    """Of the trained network, on the first 64 training images."""
    network, config = rebuild(path)
    heads = [name for name, _ in auxiliary_heads(network)]
    if not heads:
        return {"aux_share": math.nan, "removal": math.nan}
    x, y = data.normalise()(data.train.images[:64]), data.train.labels[:64]
    shares = head_share(network, (x, y), weights=dict.fromkeys(heads, config["aux_weight"]))
    first = (shares.depth == 0) & (shares.head != "main")
    with torch.no_grad():
        whole = network.eval()(x)
        for name in heads:
            remove_head(network, name)
        removal = float((network(x) - whole).abs().max())
    return {"aux_share": 100 * float(shares.share[first].sum()), "removal": removal}
