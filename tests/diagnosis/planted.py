"""Synthetic recordings of a healthy chain of linear, norm and ReLU layers, with faults to plant."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradscope.diagnosis import Evidence, Series, empty_panel, panel
from gradscope.diagnosis.evidence import OUTPUT_COLUMNS, PARAMETER_COLUMNS
from gradscope.schema import Site

PARTS = ("Linear", "BatchNorm1d", "ReLU")


@dataclass
class Planted:
    """Tables of (steps, sites) that a test may spoil before turning them into evidence."""

    steps: np.ndarray
    sites: list[Site]
    outputs: dict[str, np.ndarray]
    parameters: dict[str, np.ndarray]
    loss: np.ndarray
    config: dict[str, object] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        return self.parameters["grad_norm"].shape[1]

    def columns(self, table: str) -> dict[str, np.ndarray]:
        values = self.outputs if table == "outputs" else self.parameters
        offset = 0 if table == "outputs" else len(self.sites) - self.layers
        count = next(iter(values.values())).shape[1]
        return {
            "step": np.repeat(self.steps, count),
            "site": np.tile(np.arange(count, dtype=np.int32) + offset, len(self.steps)),
            **{name: grid.ravel().astype(np.float32) for name, grid in values.items()},
        }

    def evidence(self, *, at_rest: bool = False) -> Evidence:
        return Evidence(
            sites=tuple(self.sites),
            parameters=panel(self.columns("parameters"), PARAMETER_COLUMNS, self.sites)
            if self.parameters
            else empty_panel(),
            outputs=panel(self.columns("outputs"), OUTPUT_COLUMNS, self.sites)
            if self.outputs
            else empty_panel(),
            scalars={"loss": Series(self.steps, self.loss)},
            config=self.config,
            at_rest=at_rest,
        )


def healthy(steps: int = 120, layers: int = 12, seed: int = 0) -> Planted:
    """A network whose gradient keeps its size within some noise while the loss falls."""
    rng = np.random.default_rng(seed)
    sites = [
        Site(f"layer{i}.{part.lower()}", "output", 3 * i + k, part, (64, 32))
        for i in range(layers)
        for k, part in enumerate(PARTS)
    ]
    sites += [
        Site(f"layer{i}.linear.weight", "parameter", i, "Linear", (32, 32), 1024)
        for i in range(layers)
    ]
    count = 3 * layers
    fade = np.exp(-np.arange(steps) / steps)[:, None]

    def noisy(level: float, width: int) -> np.ndarray:
        return level * fade * np.exp(0.2 * rng.standard_normal((steps, width)))

    rms = noisy(1e-4, count)
    relu = np.tile(np.arange(3) == 2, layers)
    outputs = {
        "grad_rms": rms,
        "grad_norm": rms * np.sqrt(64 * 32),
        "nonfinite": np.zeros((steps, count)),
        "grad_nonfinite": np.zeros((steps, count)),
        "zero_fraction": np.where(relu, rng.uniform(0.4, 0.6, (steps, count)), 0.0),
        "dead_fraction": np.where(relu, rng.uniform(0.0, 0.1, (steps, count)), 0.0),
    }
    weight = noisy(1e-3, layers)
    parameters = {
        "grad_norm": weight * 32,
        "grad_rms": weight,
        "grad_nonfinite": np.zeros((steps, layers)),
        "update_ratio": noisy(2e-3, layers),
        "clip_factor": np.ones((steps, layers)),
    }
    loss = 2.3 * fade[:, 0] ** 2 + 0.1 * rng.standard_normal(steps)
    return Planted(np.arange(steps), sites, outputs, parameters, loss, {"batch_size": 64})


def tilt(run: Planted, decades: float, rows: slice = slice(None)) -> Planted:
    """Make the gradient change by so many decades from the loss to the input."""
    for table in (run.outputs, run.parameters):
        count = table["grad_rms"].shape[1]
        slope = 10.0 ** (decades * np.linspace(1, 0, count))
        for name in ("grad_rms", "grad_norm"):
            table[name][rows] *= slope
    return run
