"""Commands that measure the ways of the gradient: paths, shattering."""

from __future__ import annotations

import argparse
import sys

from gradscope.cli.terminal import Commands, command


def add_paths(commands: Commands) -> None:
    """`gradscope paths`."""
    paths = command(
        commands,
        "paths",
        run_paths,
        "measure which ways the gradient of a trained run takes and store it: path lengths, head "
        "shares, feature reuse, shattering",
        "gradscope paths runs/demo/resnet20",
    )
    paths.add_argument("run", help="a run made by train, compare or demo")
    paths.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    paths.add_argument(
        "--only",
        metavar="NAMES",
        help="some of paths, heads, reuse, shattering, joined by commas (all that the network has)",
    )
    paths.add_argument("--images", type=int, default=64, metavar="N", help="test images used (64)")
    paths.add_argument("--draws", type=int, default=20, help="random draws for each length (20)")
    paths.add_argument("--seeds", type=int, default=5, help="initialisations for shattering (5)")
    paths.add_argument("--data-root", metavar="DIR", help="where the data set's files are")


def run_paths(arguments: argparse.Namespace) -> None:
    from gradscope.experiments import measure_ways
    from gradscope.store import find_run

    path = find_run(arguments.run, arguments.runs)
    found = measure_ways(
        path,
        measures=arguments.only.split(",") if arguments.only else None,
        data_root=arguments.data_root,
        images=arguments.images,
        draws=arguments.draws,
        seeds=arguments.seeds,
        on_progress=show_progress,
    )
    for name, rows in found.rows.items():
        print(f"{name}: {len(next(iter(rows.values())))} rows")
    for name, reason in found.skipped.items():
        print(f"{name}: left out. {reason}")
    print(f"Stored in {path}. See it: gradscope dashboard {path.parent}")


def add_shattering(commands: Commands) -> None:
    """`gradscope shattering`."""
    shattering = command(
        commands,
        "shattering",
        run_shattering,
        "compare how gradients of plain and residual nets decorrelate at initialisation, by depth",
        "gradscope shattering --depths 2,4,10,24,50 --seeds 20",
    )
    shattering.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    shattering.add_argument(
        "--run", default="shattering", metavar="NAME", help="name of the run (shattering)"
    )
    shattering.add_argument(
        "--depths", default="2,4,10,24,50", metavar="N,N", help="hidden layers (2,4,10,24,50)"
    )
    shattering.add_argument("--seeds", type=int, default=20, help="networks of each kind (20)")
    shattering.add_argument("--width", type=int, default=200, help="ReLUs of a layer (200)")


def run_shattering(arguments: argparse.Namespace) -> None:
    from gradscope.experiments import shatter_lines
    from gradscope.schema import GradScopeError

    try:
        depths = [int(word) for word in arguments.depths.split(",")]
    except ValueError:
        raise GradScopeError(
            f"--depths takes whole numbers joined by commas, not {arguments.depths!r}."
        ) from None
    path = shatter_lines(
        arguments.runs,
        run=arguments.run,
        depths=depths,
        seeds=arguments.seeds,
        width=arguments.width,
        on_progress=show_progress,
    )
    print(f"Stored in {path}. See it: gradscope dashboard {path.parent}")


def show_progress(what: str, done: int, total: int) -> None:
    """One line rewritten in a terminal; elsewhere a line when a part is done."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{what}: {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done == total:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


COMMANDS = (add_paths, add_shattering)
