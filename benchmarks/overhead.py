"""A training loop, bare and tracked in turns -> ratios of step times, ours and other tools'.

One process; blocks of steps alternate between the bare loop and the tracked one, the ratio of each
pair is kept, and the median of the ratios is what counts. A bare-against-bare row shows the noise.
CPU time of the process stands beside wall time: it counts background threads too, and is the steadier
of the two on a busy machine. Tools that are not installed are said to be so.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradscope
from gradscope.measure import host
from gradscope.models import build

Stop = Callable[[], None]
Begin = Callable[["Loop"], tuple[Stop, Stop]]
"""Attach to a loop; returns what to call after each step's backward, and what ends the block."""

_numbers = itertools.count()

LONG = 5
"""How many times longer blocks are where the tracker decides itself when to sample."""


@dataclass
class Loop:
    """A model with its optimizer and one batch that is used again and again."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: torch.Tensor
    targets: torch.Tensor
    autocast: bool = False

    def step(self, before_update: Stop) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        with torch.autocast(self.inputs.device.type, torch.bfloat16, enabled=self.autocast):
            loss = nn.functional.cross_entropy(self.model(self.inputs), self.targets)
        loss.backward()
        before_update()
        self.optimizer.step()


@dataclass(frozen=True)
class Row:
    """Ratios tracked / bare over all pairs of one case."""

    case: str
    way: str
    wall: float = float("nan")
    wall_range: tuple[float, float] = (float("nan"), float("nan"))
    cpu: float = float("nan")
    cpu_range: tuple[float, float] = (float("nan"), float("nan"))
    bare_ms: float = float("nan")
    extra_ms: float = float("nan")
    pairs: int = 0
    note: str = ""


def _nothing() -> None:
    return None


def bare(_loop: Loop) -> tuple[Stop, Stop]:
    """Nothing attached."""
    return _nothing, _nothing


def tracked(root: Path, every: int) -> Begin:
    """GradScope with a fixed interval, attached anew for each block; its start is not timed."""

    def begin(loop: Loop) -> tuple[Stop, Stop]:
        scope = gradscope.track(
            loop.model, run=f"overhead-{next(_numbers)}", root=root, every=every, quiet=True
        )
        loop.step(_nothing)
        return _nothing, scope.close

    return begin


@dataclass
class Deciding:
    """A tracker that decides itself when to sample, attached anew for each block; its first sample is
    timed with the rest. `accounts` holds the cost it stated at the end of each block."""

    root: Path
    budget: float = 0.02
    accounts: list[float] = field(default_factory=list)

    def __call__(self, loop: Loop) -> tuple[Stop, Stop]:
        scope = gradscope.track(
            loop.model,
            run=f"overhead-{next(_numbers)}",
            root=self.root,
            budget=self.budget,
            quiet=True,
        )

        def end() -> None:
            scope.close()
            self.accounts.append(float(scope._sampling.cost()))

        return _nothing, end


def without_compiled_pass(begin: Begin) -> Begin:
    """The same with host tensors read by torch operations, as where no C compiler built the pass."""

    def begin_without(loop: Loop) -> tuple[Stop, Stop]:
        compiled, host.compiled = host.compiled, None
        each, end = begin(loop)

        def finish() -> None:
            host.compiled = compiled
            end()

        return each, finish

    return begin_without


def items(loop: Loop) -> tuple[Stop, Stop]:
    """The norm of each parameter's gradient, taken with `.item()` at each step."""
    log: list[dict[str, float]] = []

    def norms() -> None:
        named = loop.model.named_parameters()
        log.append({n: p.grad.norm().item() for n, p in named if p.grad is not None})

    return norms, _nothing


def tensorboard(root: Path) -> Begin:
    """TensorBoard histograms of all weights and gradients at each step."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional peer

    def begin(loop: Loop) -> tuple[Stop, Stop]:
        writer: Any = SummaryWriter(str(root / f"overhead-{next(_numbers)}"))
        steps = itertools.count()

        def write() -> None:
            step = next(steps)
            for name, p in loop.model.named_parameters():
                writer.add_histogram(name, p, step)
                if p.grad is not None:
                    writer.add_histogram(f"{name}.grad", p.grad, step)

        return write, writer.close

    return begin


def wandb(root: Path) -> Begin:
    """Weights & Biases, offline, `watch(log="all", log_freq=1)`."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb as tool  # type: ignore[import-not-found] # noqa: PLC0415 - an optional peer

    def begin(loop: Loop) -> tuple[Stop, Stop]:
        run = tool.init(mode="offline", project="overhead", dir=str(root))
        run.watch(loop.model, log="all", log_freq=1)

        def end() -> None:
            run.unwatch(loop.model)
            run.finish()

        return lambda: run.log({"step": 1}), end

    return begin


def aim(root: Path) -> Begin:
    """Aim, distributions of all weights and gradients at each step."""
    os.environ.setdefault("AIM_UI_TELEMETRY_ENABLED", "0")
    import aim as tool  # type: ignore[import-not-found] # noqa: PLC0415 - an optional peer
    from aim.pytorch import (  # type: ignore[import-not-found] # noqa: PLC0415
        track_gradients_dists,
        track_params_dists,
    )

    def begin(loop: Loop) -> tuple[Stop, Stop]:
        run = tool.Run(repo=str(root), system_tracking_interval=None, log_system_params=False)

        def write() -> None:
            track_params_dists(loop.model, run)
            track_gradients_dists(loop.model, run)

        return write, run.close

    return begin


def image_loop(name: str, size: int, batch: int, device: str, autocast: bool = False) -> Loop:
    """A network by its name on random images of `size` x `size` with ten classes."""
    model = build(name, in_channels=3, image_size=size, num_classes=10).to(device)
    inputs = torch.randn(batch, 3, size, size, device=device)
    return _loop(model, inputs, autocast)


def mlp_loop(device: str) -> Loop:
    """The light model: three linear layers, batch 256."""
    layers = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    return _loop(nn.Sequential(*layers).to(device), torch.randn(256, 784, device=device), False)


def _loop(model: nn.Module, inputs: torch.Tensor, autocast: bool) -> Loop:
    targets = torch.randint(0, 10, inputs.shape[:1], device=inputs.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    loop = Loop(model, optimizer, inputs, targets, autocast)
    for _ in range(3):
        loop.step(_nothing)
    return loop


def block(loop: Loop, begin: Begin, steps: int) -> tuple[float, float]:
    """Wall and CPU seconds of `steps` steps; what attaching and detaching take is left out."""
    each, end = begin(loop)
    cuda = loop.inputs.is_cuda
    gc.collect()
    if cuda:
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        loop.step(each)
    if cuda:
        torch.cuda.synchronize()
    result = time.perf_counter() - wall, time.process_time() - cpu
    end()
    return result


def compare(
    case: str, way: str, loops: tuple[Loop, Loop], begin: Begin, steps: int, pairs: int
) -> Row:
    """Pairs of a bare and a tracked block, their order turned round each time."""
    walls, cpus, bares, extras = [], [], [], []
    for pair in range(pairs):
        turns = [(loops[0], bare), (loops[1], begin)]
        times = {turn: block(*turns[turn], steps) for turn in ((0, 1), (1, 0))[pair % 2]}
        plain, mine = times[0], times[1]
        walls.append(mine[0] / plain[0])
        cpus.append(mine[1] / plain[1])
        bares.append(1e3 * plain[0] / steps)
        extras.append(1e3 * (mine[1] - plain[1]) / steps)
    middle = statistics.median
    wall, cpu = (min(walls), max(walls)), (min(cpus), max(cpus))
    ratios = (middle(walls), wall, middle(cpus), cpu)
    return Row(case, way, *ratios, middle(bares), middle(extras), pairs)


def ours(case: str, loop: Loop, root: Path, steps: int, pairs: int) -> list[Row]:
    """Noise, between samples, every step, and the default, on one model."""
    same = (loop, loop)
    rows = [
        compare(case, "bare again", same, bare, steps, pairs),
        compare(case, "gradscope between samples", same, tracked(root, 10**9), steps, pairs),
        compare(case, "gradscope every=1", same, tracked(root, 1), steps, pairs),
    ]
    if host.compiled is not None and not loop.inputs.is_cuda:
        slow = without_compiled_pass(tracked(root, 1))
        way = "gradscope every=1, torch passes"
        rows.append(compare(case, way, same, slow, steps, max(pairs // 3, 1)))
    return [*rows, budget(case, "gradscope default", loop, root, 0.02, LONG * steps, pairs)]


def budget(
    case: str, way: str, loop: Loop, root: Path, share: float, steps: int, pairs: int
) -> Row:
    """A recording that decides by itself when to sample."""
    tracker = Deciding(root, share)
    row = compare(case, way, (loop, loop), tracker, steps, max(pairs // 2, 3))
    own = statistics.median(tracker.accounts)
    note = f"its own account: {100 * own:.2f} %, blocks of {steps} steps"
    return Row(**{**asdict(row), "note": note})


def peers(case: str, loop: Loop, root: Path, steps: int, pairs: int) -> list[Row]:
    """Other tools at every step."""
    rows = [compare(case, "per-parameter .item() norms", (loop, loop), items, steps, pairs)]
    for way, module, make in (
        ("TensorBoard histograms", "tensorboard", tensorboard),
        ('wandb offline watch(log="all")', "wandb", wandb),
        ("Aim distributions, each step", "aim", aim),
    ):
        if find_spec(module) is None:
            rows.append(Row(case, way, note="not installed"))
        else:
            rows.append(compare(case, way, (loop, loop), make(root), steps, pairs))
    return rows


def growth(root: Path, device: str, steps: int, pairs: int) -> list[Row]:
    """Cost per site and step of every=1 as the net gets deeper; batch 4, so that sites count."""
    rows = []
    for name in ("resnet20", "resnet56", "resnet110", "resnet1202"):
        loop = image_loop(name, 32, 4, device)
        row = compare("growth", f"{name} every=1", (loop, loop), tracked(root, 1), steps, pairs)
        sites = len(list(loop.model.parameters())) + len(list(loop.model.modules()))
        each = 1e3 * row.extra_ms / sites
        note = f"{sites} sites, {each:.0f} us of CPU time per site and step"
        rows.append(Row(**{**asdict(row), "note": note}))
    return rows


def budgets(root: Path, device: str, steps: int, pairs: int) -> list[Row]:
    """Whether `budget` is held, on a light and on a heavy model."""
    rows = []
    light, heavy = mlp_loop(device), image_loop("resnet20", 32, 32, device)
    for case, loop, length in (
        ("MLP", light, 100 * steps),
        ("ResNet-20 b32", heavy, 2 * LONG * steps),
    ):
        for share in (0.005, 0.02, 0.1):
            way = f"budget {100 * share:g} %"
            rows.append(budget(case, way, loop, root, share, length, pairs))
    return rows


def cuda_cases(root: Path, steps: int, pairs: int) -> list[Row]:
    """The GPU rows."""
    rows = []
    for name, size, batch in (("resnet20", 32, 128), ("resnet50", 224, 64)):
        for autocast in (False, True):
            loop = image_loop(name, size, batch, "cuda", autocast)
            case = f"{name} {size}x{size} batch {batch}{' bf16' if autocast else ''} cuda"
            rows += ours(case, loop, root, steps, pairs)
            del loop
            torch.cuda.empty_cache()
    return rows


def check_sync(root: Path) -> str:
    """Sampled steps with torch told to raise where the host waits for the device."""
    if not torch.cuda.is_available():
        return "not run: no CUDA device"
    loop = image_loop("resnet20", 32, 128, "cuda")
    scope = gradscope.track(
        loop.model, run=f"overhead-{next(_numbers)}", root=root, every=1, quiet=True
    )
    for _ in range(3):
        loop.step(_nothing)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            loop.step(_nothing)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        scope.close()
    return "no synchronisation in 5 sampled steps"


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| case | way | wall ratio (min to max) | CPU-time ratio (min to max) | bare ms | pairs | |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if not r.pairs:
            lines.append(f"| {r.case} | {r.way} | | | | | {r.note} |")
            continue
        wall = f"{r.wall:.3f} ({r.wall_range[0]:.2f} to {r.wall_range[1]:.2f})"
        cpu = f"{r.cpu:.3f} ({r.cpu_range[0]:.2f} to {r.cpu_range[1]:.2f})"
        lines.append(
            f"| {r.case} | {r.way} | {wall} | {cpu} | {r.bare_ms:.1f} | {r.pairs} | {r.note} |"
        )
    return "\n".join(lines)


PARTS = ("main", "peers", "growth", "budgets", "cuda", "sync")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--steps", type=int, default=10, help="steps per block")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="of the main case")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    return parser.parse_args()


def main() -> None:
    """Run the parts asked for, print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    steps, pairs = options.steps, options.pairs
    rows: list[Row] = []
    machine = f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        case = f"ResNet-20 32x32 batch {options.batch}"
        loop = image_loop("resnet20", 32, options.batch, "cpu")
        if "main" in options.parts:
            rows += ours(case, loop, root, steps, pairs)
        if "peers" in options.parts:
            rows += peers(case, loop, root, steps, pairs)
        if "growth" in options.parts:
            rows += growth(root, "cpu", steps, pairs)
        if "budgets" in options.parts:
            rows += budgets(root, "cpu", steps, pairs)
        if "cuda" in options.parts and torch.cuda.is_available():
            rows += cuda_cases(root, steps, pairs)
        sync = check_sync(root) if "sync" in options.parts else "not asked for"
    print(f"{machine}; blocks of {steps} steps\n\n{table(rows)}\n\nsynchronisation: {sync}")
    if options.json:
        found = {
            "machine": machine,
            "steps": steps,
            "sync": sync,
            "rows": [asdict(r) for r in rows],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
