"""Small runs with known numbers, written through the store: what tests of the reading side use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gradscope.frame import Run
from gradscope.schema import RunInfo, Site
from gradscope.store import RunWriter, open_run


def sites_of(units: int = 3) -> list[Site]:
    """A stem, three stages of `units` units (conv, bn, relu; the unit as a block), pool and fc."""
    sites: list[Site] = []
    depth = 0

    def add(name: str, kind: str, module: str, shape: tuple[int, ...], stage: str) -> None:
        nonlocal depth
        sites.append(Site(name, kind, depth, module, shape, 0, stage))
        depth += 1

    add("conv1", "output", "Conv2d", (8, 16, 28, 28), "conv1")
    for stage in (1, 2, 3):
        side = 28 // 2 ** (stage - 1)
        for unit in range(units):
            base = f"stage{stage}.{unit}"
            shape = (8, 8 * 2**stage, side, side)
            for part, module in (("conv1", "Conv2d"), ("bn1", "BatchNorm2d"), ("conv2", "Conv2d")):
                add(f"{base}.{part}", "output", module, shape, f"stage{stage}")
            sites.append(Site(base, "block", depth - 1, "ResidualUnit", shape, 0, f"stage{stage}"))
            sites.append(
                Site(f"{base}.conv1.weight", "parameter", depth - 3, "Conv2d", (8, 8, 3, 3), 576)
            )
    add("fc", "output", "Linear", (8, 10), "fc")
    sites.append(Site("fc.weight", "parameter", depth - 1, "Linear", (10, 64), 640))
    return sites


def write_run(
    root: Path,
    name: str,
    *,
    model: str = "resnet20",
    family: str = "residual",
    seed: int = 0,
    fall: float = 0.0,
    steps: int = 40,
    every: int = 10,
    units: int = 3,
    nonfinite_at: str = "",
    sampled: float = 1.0,
    lesions_before: tuple[int, ...] = (),
) -> Run:
    """A run whose gradient rms is 1e-3 x 10^(-fall x distance from the loss in [0, 1])."""
    info = RunInfo(model, {"model": model, "seed": seed, "batch_size": 8}, (), {}, family)
    writer = RunWriter(root, name, info)
    sites = sites_of(units)
    writer.set_sites(sites)
    noise = np.random.default_rng(seed)
    deepest = max(site.depth for site in sites)
    for step in range(0, steps, every):
        _append_outputs(writer, sites, step, deepest, fall, sampled, nonfinite_at, noise)
        _append_units(writer, sites, step, noise)
    many = np.arange(steps)
    for key, value in (
        ("loss", 2.3 * np.exp(-many / (0.4 * steps)) + 0.1 * noise.random(steps)),
        ("accuracy", 1 - 0.9 * np.exp(-many / (0.3 * steps)) - 0.05 * noise.random(steps)),
    ):
        writer.append(
            "scalars",
            {
                "step": many,
                "name": np.array([key] * steps, dtype=object),
                "value": value,
                "time": 1e9 + many.astype(float),
            },
        )
    checks = many[:: max(1, steps // 4)][1:]
    writer.append(
        "scalars",
        {
            "step": checks,
            "name": np.array(["val_loss"] * len(checks), dtype=object),
            "value": 2.4 * np.exp(-checks / (0.5 * steps)),
            "time": 1e9 + checks.astype(float),
        },
    )
    for step in (*lesions_before, steps - 1):
        _append_ablations(writer, sites, step, fall, noise)
    for table, columns in ways(steps - 1, model).items():
        writer.append(table, columns)
    writer.close()
    return Run(open_run(writer.path))


def _append_outputs(
    writer: RunWriter,
    sites: list[Site],
    step: int,
    deepest: int,
    fall: float,
    sampled: float,
    nonfinite_at: str,
    noise: np.random.Generator,
) -> None:
    for table, kind in (("outputs", "output"), ("parameters", "parameter")):
        index = np.array([i for i, s in enumerate(sites) if s.kind == kind], dtype=np.int32)
        away = np.array([1 - sites[i].depth / deepest for i in index])
        saw = np.array([3.0 if sites[i].module_type == "BatchNorm2d" else 1.0 for i in index])
        wobble = 10 ** (0.15 * noise.standard_normal(len(index))) if step else 1.0
        rms = (1e-3 * saw * 10 ** (-fall * away) * wobble).astype(np.float32)
        bad = np.array([float(sites[i].name == nonfinite_at and step > 10) for i in index])
        columns = {
            "step": np.full(len(index), step),
            "site": index,
            "grad_rms": rms,
            "grad_norm": rms * 30,
            "grad_nonfinite": bad,
        }
        if table == "outputs":
            columns |= {"sampled_fraction": np.full(len(index), sampled), "zero_fraction": away / 2}
        else:
            columns |= {"update_ratio": rms, "weight_norm": np.full(len(index), 4.0)}
        writer.append(table, columns)
        exponents = np.arange(-20, -4)
        for i, r in zip(index, rms, strict=True):
            centre = np.log2(r)
            count = (1000 * np.exp(-(((exponents - centre) / 3) ** 2))).astype(np.int64)
            writer.append(
                "histograms",
                {
                    "step": np.full(16, step),
                    "site": np.full(16, i, dtype=np.int32),
                    "of": np.ones(16, dtype=np.int32),
                    "exponent": exponents,
                    "count": count,
                },
            )


def _append_units(
    writer: RunWriter, sites: list[Site], step: int, noise: np.random.Generator
) -> None:
    index = np.array([i for i, s in enumerate(sites) if s.kind == "block"], dtype=np.int32)
    skip = 1e-2 * (1 + noise.random(len(index)))
    branch = 4e-3 * (1 + noise.random(len(index))) * (1 + step / 20)
    writer.append(
        "blocks",
        {
            "step": np.full(len(index), step),
            "site": index,
            "skip_grad_norm": skip,
            "branch_grad_norm": branch,
            "skip_share": skip / (skip + branch),
            "cosine": noise.uniform(-0.2, 0.4, len(index)),
        },
    )


def _append_ablations(
    writer: RunWriter, sites: list[Site], step: int, fall: float, noise: np.random.Generator
) -> None:
    units = [s for s in sites if s.kind == "block"]
    loss = 0.004 + 0.05 * noise.random(len(units)) + (0.5 if fall > 1 else 0.0)
    loss[[i for i, u in enumerate(units) if i and u.stage != units[i - 1].stage]] += 0.2
    rows = [
        ("drop", unit.name, -drop, 1, {"stage": unit.stage}, 2304 * 2 ** int(unit.stage[-1]))
        for unit, drop in zip(units, loss, strict=True)
    ]
    for k in range(1, len(units) + 1):
        for draw in range(5):
            drop = 0.8 * (1 - np.exp(-k * loss.mean() * (1 + 0.3 * noise.random())))
            names = [u.name for u in noise.permutation(np.array(units, dtype=object))[:k]]
            rows.append(("drop-k", json.dumps(names), -drop, k, {"draw": draw}, 2304 * k))
    delta = np.array([row[2] for row in rows])
    writer.append(
        "ablations",
        {
            "step": np.full(len(rows), step),
            "unit": np.array([row[1] for row in rows], dtype=object),
            "lesion": np.array([row[0] for row in rows], dtype=object),
            "metric": np.array(["accuracy"] * len(rows), dtype=object),
            "value": 0.9 + delta,
            "baseline": np.full(len(rows), 0.9),
            "delta": delta,
            "ci_low": delta - 0.01,
            "ci_high": delta + 0.01,
            "samples": np.full(len(rows), 1000),
            "parameters": np.array([row[5] for row in rows]),
            "macs": np.array([row[5] * 400 for row in rows]),
            "k": np.array([row[3] for row in rows]),
            "detail": np.array([json.dumps(row[4]) for row in rows], dtype=object),
        },
    )


def ways(step: int, network: str) -> dict[str, dict[str, np.ndarray]]:
    """Rows of the tables of gradient paths: nine units, two heads, one dense block, three nets."""
    k = np.arange(10)
    paths = np.array([1, 9, 36, 84, 126, 126, 84, 36, 9, 1]) / 512
    gradient = 0.5**k
    product = paths * gradient
    layers = np.array([f"{name}.conv" for name in ("stem", "a1", "a2", "aux1", "b1", "b2")], object)
    order = np.arange(6)
    reached = order < 4
    weak = np.where(reached, 0.25, 0.0)
    pairs = [(s, t) for t in range(1, 5) for s in range(t)]
    source, target = (np.array(side) for side in zip(*pairs, strict=True))
    lag = np.arange(4)
    nets = [(depth, seed) for depth in (2, 8) for seed in range(3)]
    return {
        "paths": {
            "step": np.full(10, step), "length": k, "paths": paths, "gradient": gradient,
            "gradient_low": 0.9 * gradient, "gradient_high": 1.1 * gradient,
            "contribution": product / product.sum(), "draws": np.full(10, 20),
            "samples": np.full(10, 64),
        },
        "heads": {
            "step": np.full(12, step),
            "depth": np.tile(order, 2),
            "layer": np.tile(layers, 2),
            "head": np.repeat(np.array(["main", "aux1"], object), 6),
            "weight": np.repeat([1.0, 0.3], 6),
            "norm": np.concatenate([np.where(order == 3, 0, 0.75), weak]),
            "share": np.concatenate([1 - weak, weak]),
            "cosine": np.concatenate([np.ones(6), np.where(reached, 0.5, np.nan)]),
            "relative_depth": np.tile(order / 5, 2),
            "samples": np.full(12, 64),
        },
        "reuse": {
            "step": np.full(len(pairs), step), "source": source, "target": target,
            "block": np.full(len(pairs), "block1", object), "weight": 0.1 / (1 + target - source),
            "relative": 2 / (1 + target - source),
        },
        "shattering": {
            "step": np.full(24, step), "lag": np.tile(lag, 6), "distance": np.tile(lag / 64, 6),
            "depth": np.repeat([d for d, _ in nets], 4), "seed": np.repeat([s for _, s in nets], 4),
            "network": np.full(24, network, object), "coactivation": np.full(24, 0.25),
            "autocorrelation": np.concatenate(
                [np.where(lag == 0, 1.0, 0.5 - 0.01 * d + 0.1 * s) for d, s in nets]
            ),
        },
    }  # fmt: skip
