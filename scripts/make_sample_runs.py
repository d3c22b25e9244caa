"""The demo's three networks, an inception net and nets of numbers -> `sample_runs/`, with ablations.

    python scripts/make_sample_runs.py [FOLDER]

About eight minutes on two CPU cores. The recorded numbers depend on the torch version and the machine.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from gradscope.cli.terminal import ProgressLine
from gradscope.experiments import ablate_run, demo, measure_ways, shatter_lines, train

ABLATED = ("plain20", "resnet20")
HEADED = "inception_small"
LINES = "shattering"
ROOT = Path(__file__).resolve().parent.parent / "sample_runs"


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for name in (HEADED, LINES):
        shutil.rmtree(root / name, ignore_errors=True)
    runs = list(demo(root, retrain=True, on_progress=ProgressLine()))
    runs.append(train(HEADED, run=HEADED, root=root, on_progress=ProgressLine()))
    for run in runs:
        if run.name in ABLATED:
            found = ablate_run(run, drop=("blocks", "random"), draws=6, limit=500)
            print(f"{run.name}: {found}", file=sys.stderr)
        measured = measure_ways(run)
        print(f"{run.name}: {', '.join(measured.rows)}", file=sys.stderr)
        (run / "checkpoint.npz").unlink()
    shatter_lines(root, run=LINES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
