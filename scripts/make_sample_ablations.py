"""A run folder with a checkpoint -> the same run with its ablation rows.

The command line rebuilds the model and the test batches; see `--help` for what is dropped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders (default: all sample runs)")
    parser.add_argument("--drop", default="blocks")
    options = parser.parse_args()
    home = Path(__file__).resolve().parent.parent / "sample_runs"
    runs = options.runs or sorted(path for path in home.iterdir() if path.is_dir())
    for run in runs:
        command = [
            sys.executable,
            "-m",
            "gradscope.cli",
            "ablate",
            str(run),
            "--drop",
            options.drop,
        ]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
