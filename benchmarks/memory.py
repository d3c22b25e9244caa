"""Training steps with and without the tracker -> the peak of bytes that tensors hold, as a Markdown table.

Every allocation and release of a tensor's memory is taken from torch's profiler, on the host or on a
CUDA device. The figures do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

import gradscope
from gradscope import models

MB = 1e6


@dataclass(frozen=True)
class Peak:
    """Bytes of tensors alive at the worst moment of one step, above those alive when it begins."""

    model: str
    weights: int
    bare: int
    sampled: int
    between: int


def peak(step: Callable[[], None], cuda: bool) -> int:
    """The largest sum of bytes allocated and not yet released while `step` runs."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    device = torch.profiler.DeviceType.CUDA if cuda else torch.profiler.DeviceType.CPU
    now = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.device_type() == device:
            now += event.nbytes()
            highest = max(highest, now)
    return highest


def measured(name: str, batch: int, size: int, device: str) -> Peak:
    """Peaks of one model's steps, each after a step of the same kind has warmed it up."""
    torch.manual_seed(0)
    model: nn.Module = models.build(name, in_channels=3, image_size=size).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(batch, 3, size, size, device=device)
    y = torch.randint(0, 10, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    cuda = device.startswith("cuda")
    for _ in range(2):
        bare = peak(step, cuda)
    with (
        tempfile.TemporaryDirectory() as root,
        gradscope.track(model, run="run", root=root, every=2, quiet=True),
    ):
        step()
        step()
        sampled, between = peak(step, cuda), peak(step, cuda)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return Peak(name, weights, bare, sampled, between)


def table(peaks: list[Peak]) -> str:
    """The peaks in megabytes, and what the tracker adds to them."""
    lines = [
        "| model | weights | peak of a bare step | added in a sampled step | added between samples |",
        "|---|---|---|---|---|",
    ]
    for p in peaks:
        added = p.sampled - p.bare, p.between - p.bare
        told = " | ".join(f"{a / MB:.2f} MB ({100 * a / p.bare:.2f} %)" for a in added)
        lines.append(f"| {p.model} | {p.weights / MB:.2f} MB | {p.bare / MB:.1f} MB | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="python benchmarks/memory.py")
    parser.add_argument("models", nargs="*", default=["resnet20", "resnet56", "densenet22"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="edge of the images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print bytes as JSON")
    wish = parser.parse_args()
    peaks = [measured(name, wish.batch, wish.size, wish.device) for name in wish.models]
    if wish.json:
        print(json.dumps([asdict(p) for p in peaks]))
        return
    print(table(peaks))
    where = torch.cuda.get_device_name() if wish.device.startswith("cuda") else platform.machine()
    print(
        f"\nBatch {wish.batch}, images {wish.size}x{wish.size}, {where}, torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
