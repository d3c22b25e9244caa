"""Fashion-MNIST test images and two deep nets -> cost of leave-one-out against whole evaluations.

Leave-one-out starts each lesion at the dropped unit and reuses what lies before it. It takes turns
with whole evaluations, so that a machine that slows down slows both; on a shared machine look at
CPU time. Writes a Markdown table with the bar beside the figure, and JSON with `--json`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradscope import models
from gradscope.ablation import Ablation, ablate

BAR = 0.6
"""Most that leave-one-out may cost, in n whole evaluations; 0.5 is the limit for equal units."""

HEADER = (
    "| net | device | units | images | batch | one evaluation, s | leave-one-out, s "
    "| ratio to n evaluations (bar 0.6) | CPU-time ratio | verdict | same rows as naive | kept, MiB |"
)
Clock = tuple[float, float]


def images(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test images (N, 1, 28, 28), roughly standardised, and their classes."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)[:count]
    scaled = (torch.from_numpy(pixels.astype(np.float32)) / 255 - 0.286) / 0.353
    return scaled, torch.from_numpy(labels.astype(np.int64))


def now(device: torch.device) -> Clock:
    """Wall and CPU seconds, after the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def since(start: Clock, device: torch.device) -> Clock:
    wall, cpu = now(device)
    return wall - start[0], cpu - start[1]


def whole(model: torch.nn.Module, loader: list[tuple[torch.Tensor, torch.Tensor]]) -> Clock:
    """Seconds of one plain evaluation."""
    device = next(model.parameters()).device
    model.eval()
    start = now(device)
    with torch.no_grad():
        for x, y in loader:
            (model(x.to(device)).argmax(1).cpu() == y).float()
    return since(start, device)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One net: medians over the rounds, and the ratio of each round."""
    device = torch.device(options.device)
    model = models.build(name).to(device)
    x, y = images(options.data, options.images)
    loader = list(zip(x.split(options.batch), y.split(options.batch), strict=True))
    whole(model, loader[:1])
    ablate(
        model, loader=[(x[:2], y[:2])]
    )  # first use of torch's tracer and counters, once a process
    singles, totals = [], []
    result = Ablation(())
    for _ in range(options.rounds):
        before = whole(model, loader)
        start = now(device)
        result = ablate(model, loader=loader)
        totals.append(since(start, device))
        after = whole(model, loader)
        singles.append(((before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
    units = len(result.rows) // 2
    ratios = [
        [
            total[which] / (units * single[which])
            for total, single in zip(totals, singles, strict=True)
        ]
        for which in (0, 1)
    ]
    fast, slow = ablate(model, loader=loader[:1]), ablate(model, loader=loader[:1], reuse=False)
    ratio = statistics.median(ratios[0])
    return {
        "net": name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "units": units,
        "images": len(x),
        "batch": options.batch,
        "evaluation_s": statistics.median(single[0] for single in singles),
        "leave_one_out_s": statistics.median(total[0] for total in totals),
        "ratio": ratio,
        "ratios": ratios[0],
        "cpu_ratio": statistics.median(ratios[1]),
        "cpu_ratios": ratios[1],
        "bar": BAR,
        "met": ratio <= BAR,
        "same_as_naive": fast.rows == slow.rows,
        "kept_bytes": result.kept_bytes,
    }


def row(found: dict[str, Any]) -> str:
    """A line of the table."""

    def ranged(values: list[float]) -> str:
        return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    cells = (
        found["net"],
        found["device"],
        found["units"],
        found["images"],
        found["batch"],
        f"{found['evaluation_s']:.2f}",
        f"{found['leave_one_out_s']:.2f}",
        ranged(found["ratios"]),
        ranged(found["cpu_ratios"]) if found["device"] == "cpu" else "-",
        "met" if found["met"] else "**missed**",
        "yes" if found["same_as_naive"] else "**NO**",
        f"{found['kept_bytes'] / 2**20:.0f}",
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of t10k-*-ubyte.gz")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--nets", nargs="+", default=["resnet56", "resnet110"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(HEADER, "|" + "---|" * (HEADER.count("|") - 1), sep="\n", flush=True)
    found = []
    for name in options.nets:
        found.append(measure(name, options))
        print(row(found[-1]), flush=True)
    if options.json:
        about = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": options.threads,
            "rounds": options.rounds,
            "bar": BAR,
        }
        options.json.write_text(json.dumps({**about, "nets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
