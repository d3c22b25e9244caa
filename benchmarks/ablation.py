"""Fashion-MNIST test images and two deep nets -> cost of leave-one-out against whole evaluations.

The two are timed in turns, so that a machine that slows down slows both. Writes a Markdown table.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from gradscope import models
from gradscope.ablation import ablate

HEADER = (
    "| net | device | units | images | one evaluation, s | leave-one-out, s "
    "| ratio to n evaluations | same rows as naive | kept, MiB |"
)


def images(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test images (N, 1, 28, 28), roughly standardised, and their classes."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)[:count]
    scaled = (torch.from_numpy(pixels.astype(np.float32)) / 255 - 0.286) / 0.353
    return scaled, torch.from_numpy(labels.astype(np.int64))


def whole(model: torch.nn.Module, loader: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Seconds of one plain evaluation."""
    model.eval()
    start = time.perf_counter()
    with torch.no_grad():
        for x, y in loader:
            (model(x.to(_device(model))).argmax(1).cpu() == y).float()
    return time.perf_counter() - start


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def measure(name: str, device: str, options: argparse.Namespace) -> str:
    """One row of the table."""
    model = models.build(name).to(device)
    x, y = images(options.data, options.images)
    loader = list(zip(x.split(options.batch), y.split(options.batch), strict=True))
    whole(model, loader[:1])
    ratios, singles, totals = [], [], []
    for _ in range(options.rounds):
        before = whole(model, loader)
        start = time.perf_counter()
        result = ablate(model, loader=loader)
        total = time.perf_counter() - start
        single = (before + whole(model, loader)) / 2
        units = len(result.rows) // 2
        ratios.append(total / (units * single))
        singles.append(single)
        totals.append(total)
    equal = (
        ablate(model, loader=loader[:1]).rows == ablate(model, loader=loader[:1], reuse=False).rows
    )
    return (
        f"| {name} | {device} | {units} | {len(x)} | {statistics.median(singles):.2f} | "
        f"{statistics.median(totals):.2f} | {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}) | {'yes' if equal else 'NO'} | "
        f"{result.kept_bytes / 2**20:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--nets", nargs="+", default=["resnet56", "resnet110"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    for name in options.nets:
        rows.append(measure(name, options.device, options))
        print(rows[-1], flush=True)
    if options.out:
        note = (
            "# Ablation: cost of leave-one-out\n\nA lesion's pass starts at the dropped unit; the "
            "outputs before it are reused. The bar: at most 0.6 of n whole evaluations (0.5 is the "
            f"limit for equal units). {options.threads} thread(s), batches of {options.batch}, "
            f"median of {options.rounds} interleaved rounds.\n\n"
        )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(note + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
