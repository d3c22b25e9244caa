"""The demo's three networks -> `sample_runs/`, the plain and the residual one with an ablation.

    python scripts/make_sample_runs.py

About five minutes on two CPU cores. The recorded numbers depend on the torch version and the machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gradscope.cli.terminal import ProgressLine
from gradscope.experiments import ablate_run, demo

ABLATED = ("plain20", "resnet20")
ROOT = Path(__file__).resolve().parent.parent / "sample_runs"


def main() -> int:
    for run in demo(ROOT, retrain=True, on_progress=ProgressLine()):
        if run.name in ABLATED:
            found = ablate_run(run, drop=("blocks", "random"), draws=6, limit=500)
            print(f"{run.name}: {found}", file=sys.stderr)
        (run / "checkpoint.npz").unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
