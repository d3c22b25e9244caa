"""The demo's networks, an inception net and nets of numbers -> `sample_runs/`, with ablations.

    python scripts/make_sample_runs.py [FOLDER]

The demo's recipe (two epochs on the embedded images). The residual and the plain net drop each
block after every 31st step, and once trained each block alone, k at random, and whole stages; the
inception net, with its auxiliary heads, drops each branch. The ways of each network's gradient are
measured as well. About ten minutes on two CPU cores. The recorded numbers depend on the torch
version and the machine.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from gradscope.cli.terminal import ProgressLine
from gradscope.experiments import (
    DEMO,
    DEMO_MODELS,
    Variant,
    ablate_run,
    measure_ways,
    shatter_lines,
    train_variants,
)

LINES = "shattering"
ROOT = Path(__file__).resolve().parent.parent / "sample_runs"
EVERY = 31
IMAGES = 500
DROPPED = {
    "plain20": ("blocks", "random", "stages"),
    "resnet20": ("blocks", "random", "stages"),
    "inception_small": ("inception", "branches"),
}


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    shutil.rmtree(root / LINES, ignore_errors=True)
    variants = [
        Variant(name, name, {"ablate_every": EVERY} if name in ("plain20", "resnet20") else {})
        for name in (*DEMO_MODELS, "inception_small")
    ]
    for run in train_variants(
        variants, root=root, retrain=True, on_progress=ProgressLine(), **DEMO
    ):
        if run.name in DROPPED:
            found = ablate_run(run, drop=DROPPED[run.name], draws=6, limit=IMAGES)
            print(f"{run.name}: {found}", file=sys.stderr)
        measured = measure_ways(run)
        print(f"{run.name}: {', '.join(measured.rows)}", file=sys.stderr)
        (run / "checkpoint.npz").unlink()
    shatter_lines(root, run=LINES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
